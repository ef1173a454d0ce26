"""Supramodal concepts: pools of confident features, kept in a folder, that guide another model.

    guide = concepts.load("runs/x/concepts").guide(("angry", "happy", "sad"))
    concept = guide(key, label)
    loss = cross_entropy + 0.5 * concepts.guidance(feature, concept)

Letters: N examples, C classes, P members of the pools of a modality, D features, Y labels of the
guided task, B examples on this device, M modalities, K drawn members.
"""

import dataclasses
import functools
import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from jax import lax
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from affectjax import emotions
from affectjax.errors import InputError
from affectjax.modalities import MODALITIES
from affectjax.ops.dropout import global_rows
from affectjax.ops.losses import weighted_mean

TENSORS, CARD = "concepts.safetensors", "concepts.json"
# By modality: "features" [P, D], "rows" [Y, Pmax] int32 and "count" [Y] int32: the members of the
# pool of label y are features[rows[y, :count[y]]].
Arrays = Mapping[str, Mapping[str, Any]]


# ---- making -------------------------------------------------------------------------------------


def select(
    probability: np.ndarray, label: np.ndarray, top: float = 0.2, correct_only: bool = True
) -> tuple[np.ndarray, ...]:
    """Returns the rows that each class keeps: its most confident examples.

    Of n candidates of a class, floor(top * n) are kept, but one at least where n > 0. Confidence is
    the probability of the true class; of equals the lower row is kept.

    Args:
      probability: `[N, C]`, predicted.
      label: `[N]` int, true; -1 leaves an example out.
      top: which part, in (0, 1].
      correct_only: candidates are the examples whose most probable class is the true one; else all
        examples of the class. False and `top` 1 keep everything.

    Returns:
      For each of the C classes its rows, ascending.

    Raises:
      InputError: shapes that do not fit, a label of no class, a probability that is not finite.

    Source: sections 3.1 (selectivity) and 4.4 (without it) of the supramodal paper.
    """
    probability, label = np.asarray(probability), np.asarray(label)
    if probability.ndim != 2 or label.shape != probability.shape[:1]:
        raise InputError(
            f"probability {probability.shape} and label {label.shape} do not fit; allowed: [N, C] "
            "and [N]"
        )
    classes = probability.shape[1]
    if not 0 < top <= 1:
        raise InputError(f"top is {top}; allowed: above 0, up to 1")
    if not ((label >= -1) & (label < classes)).all():
        raise InputError(f"a label is none of the {classes} classes; allowed: -1 to {classes - 1}")
    if not np.isfinite(probability).all():
        raise InputError("a probability is not finite")
    candidate = probability.argmax(1) == label if correct_only else np.ones(len(label), bool)
    chosen = []
    for c in range(classes):
        rows = np.flatnonzero(candidate & (label == c))
        # The small number: 0.29 * 100 is 28.999999999999996.
        keep = max(1, math.floor(top * len(rows) + 1e-9))
        best = np.argsort(-probability[rows, c], kind="stable")[:keep]
        chosen.append(np.sort(rows[best]))
    return tuple(chosen)


def collect(
    features: Mapping[str, np.ndarray],
    probability: Mapping[str, np.ndarray],
    label: Mapping[str, np.ndarray],
    classes: Mapping[str, Sequence[str]],
    *,
    ids: Mapping[str, Sequence[str]] | None = None,
    source: str = "",
    top: float = 0.2,
    correct_only: bool = True,
) -> "ConceptBank":
    """Returns the bank of what `select` keeps of each modality.

    Args:
      features: by modality `[N, D]`, of all examples.
      probability: by modality `[N, C]`, predicted.
      label: by modality `[N]` int, -1 for examples that are left out.
      classes: by modality its C names.
      ids: by modality its N names of examples.
      source: what says where the features come from, such as the workdir of the run.
      top: see `select`.
      correct_only: see `select`.

    Raises:
      InputError: arrays that do not fit.
    """
    kept, labels, thresholds, names = {}, {}, {}, {}
    for m in features:
        pools = select(probability[m], label[m], top, correct_only)
        if len(features[m]) != len(label[m]):
            raise InputError(f"{m} has {len(features[m])} features for {len(label[m])} labels")
        rows = np.concatenate(pools)
        kept[m], labels[m] = np.asarray(features[m])[rows], np.asarray(label[m])[rows]
        thresholds[m] = [
            probability[m][pool, c].min() if len(pool) else np.nan for c, pool in enumerate(pools)
        ]
        if ids is not None:
            names[m] = [ids[m][row] for row in rows]
    return ConceptBank(
        features=kept,
        labels=labels,
        classes=classes,
        thresholds=thresholds,
        ids=names,
        source=source,
        top=top,
        correct_only=correct_only,
    )


# ---- keeping ------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, eq=False)
class ConceptBank:
    """The pools of concepts of each modality.

    Attributes:
      features: by modality `[P, D]` float32.
      labels: by modality `[P]` int32, the position of each member's class in `classes`.
      classes: by modality C names; modalities may differ.
      thresholds: by modality `[C]` float32, the least confidence in the pool; NaN in an empty one.
      ids: by modality, where they are known, P names of examples.
      source: what says where the features come from.
      top: see `select`.
      correct_only: see `select`.
    """

    features: Mapping[str, np.ndarray]
    labels: Mapping[str, np.ndarray]
    classes: Mapping[str, Sequence[str]]
    thresholds: Mapping[str, np.ndarray]
    ids: Mapping[str, Sequence[str]] = dataclasses.field(default_factory=dict)
    source: str = ""
    top: float = 0.2
    correct_only: bool = True

    def __post_init__(self):
        held = tuple(m for m in MODALITIES if m in self.features)
        if not held or len(held) != len(self.features):
            raise InputError(
                f"concepts are of {', '.join(self.features) or 'no modality'}; allowed: one or "
                f"more of {', '.join(MODALITIES)}"
            )
        for name in ("labels", "classes", "thresholds"):
            if set(getattr(self, name)) != set(held):
                raise InputError(f"features and {name} of the concepts are of other modalities")
        makes = {
            "features": lambda x: np.asarray(x, np.float32),
            "labels": lambda x: np.asarray(x, np.int32),
            "classes": tuple,
            "thresholds": lambda x: np.asarray(x, np.float32),
            "ids": tuple,
        }
        for name, make in makes.items():
            given = getattr(self, name)
            object.__setattr__(self, name, {m: make(given[m]) for m in held if m in given})
        for m in held:
            reason = self._fault(m)
            if reason:
                raise InputError(f"the concepts of {m} are damaged: {reason}")

    def _fault(self, m: str) -> str:
        """Returns what is wrong with a modality, "" where nothing is."""
        features, labels, classes = self.features[m], self.labels[m], self.classes[m]
        if features.ndim != 2 or not features.shape[1]:
            return f"features are {features.shape}, not [P, D]"
        if features.shape[1] != self.width:
            return f"they have {features.shape[1]} features, those of others {self.width}"
        if not np.isfinite(features).all():
            return "a feature is not finite"
        if labels.shape != features.shape[:1]:
            return f"{len(features)} features for {len(labels)} labels"
        if not classes or len(set(classes)) != len(classes):
            return "it has no classes, or one of them twice"
        if not ((labels >= 0) & (labels < len(classes))).all():
            return f"a label is none of its {len(classes)} classes"
        if self.thresholds[m].shape != (len(classes),):
            return f"{len(self.thresholds[m])} thresholds for {len(classes)} classes"
        if m in self.ids and len(self.ids[m]) != len(features):
            return f"{len(self.ids[m])} ids for {len(features)} features"
        return ""

    @property
    def width(self) -> int:
        """Returns D, which the modalities have in common."""
        return next(iter(self.features.values())).shape[1]

    @property
    def counts(self) -> dict[str, dict[str, int]]:
        """Returns by modality and class how many members its pool has."""
        return {
            m: dict(zip(names, np.bincount(self.labels[m], minlength=len(names)).tolist(),
                        strict=True))
            for m, names in self.classes.items()
        }  # fmt: skip

    def save(self, folder: str | Path) -> None:
        """Writes concepts.safetensors and concepts.json; an older bank is replaced.

        Args:
          folder: is made where it is not there.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        card: dict[str, Any] = {
            "width": self.width,
            "top": self.top,
            "correct_only": self.correct_only,
            "source": self.source,
            "modalities": {},
        }
        tensors = {}
        for m, counts in self.counts.items():
            tensors |= {f"{m}/features": self.features[m], f"{m}/labels": self.labels[m]}
            least = [None if np.isnan(t) else float(t) for t in self.thresholds[m]]
            pools = zip(counts.items(), least, strict=True)
            classes = [{"name": name, "count": n, "threshold": t} for (name, n), t in pools]
            card["modalities"][m] = {"classes": classes}
            if m in self.ids:
                card["modalities"][m]["ids"] = list(self.ids[m])
        parts = [folder / f"{name}.part" for name in (TENSORS, CARD)]
        # A transposed view would be written as it lies in memory.
        save_file({name: np.ascontiguousarray(x) for name, x in tensors.items()}, parts[0])
        parts[1].write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")
        for part in parts:
            os.replace(part, part.with_suffix(""))

    def guide(
        self, labels: Sequence[str], count: int = 8, allow_missing: Sequence[str] = ()
    ) -> "Guide":
        """Returns what draws concepts for the labels of a task.

        The pool of a label is the union of those of all related classes (`emotions.related`).

        Args:
          labels: Y names, in the order of their numbers.
          count: K, how many members of a modality are averaged.
          allow_missing: those of `labels` that may go without concepts.

        Raises:
          InputError: a label that no modality has a concept for, a name in `allow_missing` that is
            no label, a count below 1.
        """
        labels = tuple(labels)
        unknown = [name for name in allow_missing if name not in labels]
        if unknown:
            raise InputError(
                f"allow_missing has {unknown[0]!r}; the labels are {', '.join(labels)}"
            )
        if count < 1:
            raise InputError(f"count of drawn concepts is {count}; allowed: 1 or more")
        pools = {}
        for m, names in self.classes.items():
            table = emotions.related(labels, names)
            pools[m] = [np.flatnonzero(table[y][self.labels[m]]) for y in range(len(labels))]
        for y, label in enumerate(labels):
            if label not in allow_missing and not any(len(pool[y]) for pool in pools.values()):
                raise InputError(
                    f"no modality has a concept for label {label!r}; there are "
                    f"{self._held()}; name it in allow_missing if it may go without"
                )
        arrays = {
            m: self._arrays(m, pool, labels, count)
            for m, pool in pools.items()
            if any(map(len, pool))
        }
        if not arrays:
            raise InputError(f"no label has a concept; there are {self._held()}")
        return Guide(arrays, labels, count)

    def _held(self) -> str:
        """Returns for messages the classes that have members."""
        held = {m: [name for name, n in pools.items() if n] for m, pools in self.counts.items()}
        return ", ".join(f"{m} {'/'.join(names)}" for m, names in held.items() if names) or "none"

    def _arrays(
        self, m: str, pools: Sequence[np.ndarray], labels: Sequence[str], count: int
    ) -> dict[str, np.ndarray]:
        """Returns the `Arrays` of a modality."""
        sizes = [len(pool) for pool in pools]
        rows = np.zeros((len(pools), max(sizes)), np.int32)
        for y, (pool, size) in enumerate(zip(pools, sizes, strict=True)):
            rows[y, :size] = pool
            if size < count:
                how = "drawn with replacement" if size else "left out"
                said = "concepts of %s for %s: %d members, fewer than %d: %s"
                logging.info(said, m, labels[y], size, count, how)
        return {"features": self.features[m], "rows": rows, "count": np.array(sizes, np.int32)}


def load(folder: str | Path, modalities: Sequence[str] = ()) -> ConceptBank:
    """Returns the bank that `ConceptBank.save` wrote.

    Args:
      folder: has concepts.safetensors and concepts.json.
      modalities: names of those that are wanted; none is all.

    Raises:
      InputError: a file is missing or damaged, the two disagree, or a modality is not in them.
    """
    folder = Path(folder)
    card = _read_card(folder / CARD)
    held = card["modalities"]
    lacking = [m for m in modalities if m not in held]
    if lacking:
        raise InputError(f"{folder} has no concepts of {lacking[0]!r}; it has: {', '.join(held)}")
    wanted = [m for m in held if not modalities or m in modalities]
    tensors = _read_tensors(folder / TENSORS, held, wanted)
    try:
        bank = ConceptBank(
            features={m: tensors[f"{m}/features"] for m in wanted},
            labels={m: tensors[f"{m}/labels"] for m in wanted},
            classes={m: [c["name"] for c in held[m]["classes"]] for m in wanted},
            thresholds={
                m: [np.nan if c["threshold"] is None else c["threshold"]
                    for c in held[m]["classes"]]
                for m in wanted
            },
            ids={m: held[m]["ids"] for m in wanted if "ids" in held[m]},
            source=card["source"],
            top=card["top"],
            correct_only=card["correct_only"],
        )  # fmt: skip
        counts = {m: {c["name"]: c["count"] for c in held[m]["classes"]} for m in wanted}
    except InputError as error:
        raise InputError(f"{folder}: {error}") from error
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{folder / CARD} is damaged: {type(error).__name__} {error}") from error
    if bank.width != card["width"]:
        raise InputError(
            f"{folder / TENSORS} has {bank.width} features, but {CARD} says {card['width']}"
        )
    for m in wanted:
        if bank.counts[m] != counts[m]:
            raise InputError(
                f"{folder / TENSORS} has {bank.counts[m]} concepts of {m}, but {CARD} says "
                f"{counts[m]}"
            )
    return bank


def _read_card(path: Path) -> dict[str, Any]:
    """Returns the object in concepts.json, which has all keys that `save` writes."""
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read as JSON: {error}") from error
    keys = ("width", "top", "correct_only", "source", "modalities")
    lacking = [key for key in keys if not isinstance(card, dict) or key not in card]
    if lacking or not isinstance(card["modalities"], dict):
        raise InputError(f"{path} is damaged: it has no {(lacking or ['modalities'])[0]!r}")
    return card


def _read_tensors(path: Path, held: Sequence[str], wanted: Sequence[str]) -> dict[str, np.ndarray]:
    """Returns the tensors of the wanted modalities by name, once all that are held are there."""
    try:
        with safe_open(path, "numpy") as tensors:
            there = set(tensors.keys())
            if there != {f"{m}/{kind}" for m in held for kind in ("features", "labels")}:
                raise InputError(f"{path} has {sorted(there)}, but {CARD} says {', '.join(held)}")
            names = [name for name in there if name.split("/")[0] in wanted]
            return {name: tensors.get_tensor(name) for name in names}
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path} is no whole safetensors file: {error}") from error


# ---- drawing ------------------------------------------------------------------------------------


@functools.partial(
    jax.tree_util.register_dataclass, data_fields=("arrays",), meta_fields=("labels", "count")
)
@dataclasses.dataclass(frozen=True, eq=False)
class Guide:
    """Draws concepts for the labels of a task; a pytree, so it may be an argument of a jitted step.

    Attributes:
      arrays: see `Arrays`.
      labels: Y names.
      count: K.
    """

    arrays: Arrays
    labels: tuple[str, ...]
    count: int = 8

    def __call__(
        self,
        key: jax.Array,
        label: jax.Array,
        axis_name: str | None = None,
        generalize: bool = True,
    ) -> jax.Array:
        """Returns concepts `[B, D]` for labels `[B]`; zeros where there is none. See `draw`."""
        return draw(self.arrays, label, key, self.count, axis_name, generalize)[0]


def draw(
    arrays: Arrays,
    label: jax.Array,
    key: jax.Array,
    count: int = 8,
    axis_name: str | None = None,
    generalize: bool = True,
) -> tuple[jax.Array, jax.Array]:
    """Returns concepts `[B, D]`, zeros where there is none, and `[B]` bool, where there is one.

    From the pool of the label in each modality, `count` members are drawn without replacement,
    or with it where there are fewer. A concept is their mean, then the mean over the modalities
    that have such a pool.

    Args:
      arrays: of a `Guide`.
      label: `[B]` int; one that is no label of the guide has no concept.
      key: a JAX random key, the same on every device.
      count: K.
      axis_name: the mapped axis over which the batch is split, None where it is whole. The
        same global batch draws the same, however many devices share it.
      generalize: False takes one member of one of those modalities, both at random, in place of
        the means.

    Source: eq. 6 of the supramodal paper, and its ablation in section 4.4.
    """
    held = [m for m in MODALITIES if m in arrays]
    pools = [jax.tree.map(jnp.asarray, dict(arrays[m])) for m in held]
    safe = jnp.clip(label, 0, len(pools[0]["count"]) - 1)
    sizes = jnp.stack([pool["count"][safe] for pool in pools], 1)  # [B, M]
    sizes = jnp.where((label == safe)[:, None], sizes, 0)

    fold_in, take = jax.random.fold_in, count if generalize else 1
    keys = jax.vmap(fold_in, (None, 0))(key, global_rows(len(label), axis_name))
    # By the number of the modality: the others draw the same where one is taken out.
    numbers = jnp.array([MODALITIES.index(m) for m in held])
    own = jax.vmap(jax.vmap(fold_in, (None, 0)), (0, None))(keys, numbers)
    places = jax.vmap(jax.vmap(lambda k, size: _places(k, size, take)))(own, sizes)  # [B, M, K]
    means = [
        pool["features"][pool["rows"][safe[:, None], places[:, m]]].mean(1)
        for m, pool in enumerate(pools)
    ]

    available = sizes > 0
    share = available / jnp.maximum(available.sum(1, keepdims=True), 1)
    if not generalize:
        last = jax.vmap(fold_in, (0, None))(keys, len(MODALITIES))
        chance = jax.vmap(lambda k: jax.random.uniform(k, (len(held),)))(last)
        best = jnp.where(available, chance, -1.0).argmax(1)
        share = available * jax.nn.one_hot(best, len(held))
    return jnp.sum(share[..., None] * jnp.stack(means, 1), axis=1), available.any(1)


def _places(key: jax.Array, size: jax.Array, count: int) -> jax.Array:
    """Returns `[K]` places below `size`, distinct where `size` allows; zeros where it is 0.

    Floyd's algorithm: at step t a number is drawn up to size - K + t, and where it was taken
    before, that limit is taken, which is new. K steps however large the pool, and every subset is
    as likely as any other.
    """
    distinct = size >= count
    limits = jnp.maximum(jnp.where(distinct, size - count + jnp.arange(count), size - 1), 0)
    drawn = jax.random.randint(key, (count,), 0, limits + 1)

    def step(t, taken):
        again = distinct & (taken == drawn[t]).any()
        return taken.at[t].set(jnp.where(again, limits[t], drawn[t]))

    return lax.fori_loop(0, count, step, jnp.full(count, -1, drawn.dtype))


def guidance(
    feature: jax.Array,
    concept: jax.Array,
    present: jax.Array | None = None,
    weight: jax.Array | None = None,
    axis_name: str | None = None,
    reduce: str = "mean",
) -> jax.Array:
    """Returns this device's part of the mean squared distance of features from their concepts.

    Args:
      feature: `[B, D]`, of the guided model.
      concept: `[B, D]`.
      present: `[B]` bool, which examples have a concept; None: those whose concept is not all 0.
        The mean is over these alone.
      weight: `[B]`, 0 on rows that only pad; None: 1 for all.
      axis_name: the mapped axis over which the batch is split, None where it is whole.
      reduce: of the D squares of an example, "mean" or "sum". Eq. 7 does not say which; a sum
        counts D times as much beside the cross-entropy.

    Raises:
      InputError: another `reduce`.

    Source: eq. 7 of the supramodal paper.
    """
    if reduce not in ("mean", "sum"):
        raise InputError(f"reduce is {reduce!r}; allowed: mean, sum")
    present = (concept != 0).any(-1) if present is None else present
    weight = jnp.where(present, 1.0 if weight is None else weight, 0.0)
    # Selected before the square: a padded row may hold anything, and NaN * 0 is a NaN gradient.
    apart = jnp.where((weight > 0)[:, None], feature - concept, 0).astype(jnp.float32)
    return weighted_mean(getattr(jnp, reduce)(apart**2, axis=-1), weight, axis_name)
