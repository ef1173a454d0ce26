"""Supramodal concepts: pools of confident features, kept in a folder, that guide another model.

    guide = concepts.load("runs/x/concepts").guide(("angry", "happy", "sad"))
    concept = guide(key, label)
    loss = cross_entropy + 0.5 * concepts.guidance(feature, concept)

What is drawn of them, and the distance from it, is in `affectjax.ops.concept_sampling`.

Letters: N examples, C classes, P members of the pools of a modality, D features, Y labels of the
guided task, B examples on this device, K drawn members.
"""

import dataclasses
import functools
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import logging
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as tensor_bytes

from affectjax import emotions
from affectjax.errors import InputError
from affectjax.modalities import MODALITIES
from affectjax.ops import concept_sampling
from affectjax.ops.concept_sampling import Arrays, guidance
from affectjax.runtime import manifest

__all__ = ["Arrays", "ConceptBank", "Guide", "collect", "draw", "guidance", "load", "select"]

TENSORS, CARD = "concepts.safetensors", "concepts.json"
REMEDY = "put it back from a copy, or learn the concepts again in another workdir"


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
        """Writes concepts.safetensors and concepts.json, with checksums; an older bank is replaced.

        Args:
          folder: is made where it is not there.
        """
        folder = Path(folder)
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
        # A transposed view would be written as it lies in memory.
        content = tensor_bytes({name: np.ascontiguousarray(x) for name, x in tensors.items()})
        said = json.dumps(card, indent=2) + "\n"
        manifest.write(folder, {TENSORS: content, CARD: said.encode()})

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
        """Returns the `ops.concept_sampling.Arrays` of a modality."""
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
    manifest.check(folder, (TENSORS, CARD), REMEDY)
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

# What a batch draws of the pools of the modalities, see `affectjax.ops.concept_sampling.draw`.
draw = functools.partial(
    concept_sampling.draw, numbers={m: number for number, m in enumerate(MODALITIES)}
)


@functools.partial(
    jax.tree_util.register_dataclass, data_fields=("arrays",), meta_fields=("labels", "count")
)
@dataclasses.dataclass(frozen=True, eq=False)
class Guide:
    """Draws concepts for the labels of a task; a pytree, so it may be an argument of a jitted step.

    Attributes:
      arrays: see `ops.concept_sampling.Arrays`.
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
