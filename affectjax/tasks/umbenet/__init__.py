"""UMBEnet: clips of text, audio and vision to an emotion, any modality missing.

Stages: `unimodal` shows one modality a batch, in turn, and finds out which prompts serve which one;
those move to a new pool, and `missing` trains on a random subset of each example's modalities. A
config with `missing` alone is the single-stage run.

Source: SPEC section 1; Mai et al. 2024, section 3.4.
Letters: B examples, M modalities, C classes, N prompts, k chosen prompts.
"""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Mapping
from typing import Any

import flax
import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange

from affectjax import metrics
from affectjax.data.batches.config import FewerClasses
from affectjax.data.batches.inputs import Inputs
from affectjax.encoders import augmentation
from affectjax.errors import InputError
from affectjax.metrics import Answers
from affectjax.models.umbenet import POOL, UMBEnet
from affectjax.ops import losses, prompts
from affectjax.ops.dropout import global_rows
from affectjax.runtime import configs
from affectjax.runtime.optim import OptimConfig
from affectjax.runtime.steps import EXAMPLES
from affectjax.tasks import base
from affectjax.tasks.base import (
    Batch,
    Measurements,
    Model,
    Stage,
    StageConfig,
    StageEnd,
    Tree,
    class_table,
)
from affectjax.tasks.umbenet.assembly import Assembly, choose

STAGES = ("unimodal", "missing")
SHOWS = ("one", "subset", "all")
# The order in which stage `unimodal` shows modalities (SPEC section 1).
TURNS = ("audio", "vision", "text")


@dataclasses.dataclass(frozen=True)
class UMBEnetStage(StageConfig):
    """One entry of `config.stages`.

    Attributes:
      shows: of each example "one" modality, the same for the whole batch, in turn; a random
        non-empty "subset"; or "all".
      usage_penalty: times the share of activations that a prompt has had, it is taken from the
        prompt's similarity.
      stop_accuracy: see `affectjax.tasks.base.StageRules`.
      transfer_threshold: a prompt is handed over that had at least this part of the uniform share
        of some modality's activations in the last epoch.
      subset_loss: weight of the mean cross-entropy of the other subsets of an example's modalities,
        see `Task`; 0 for none. It is not for a stage that shows "one".
      label_smoothing: see `affectjax.ops.losses.cross_entropy`, in training alone.
    """

    shows: str = "subset"
    usage_penalty: float = 0.0
    stop_accuracy: float = 0.0
    transfer_threshold: float = 0.5
    subset_loss: float = 0.0
    label_smoothing: float = 0.0

    def __post_init__(self):
        super().__post_init__()
        configs.at_least(self, usage_penalty=0, stop_accuracy=0, transfer_threshold=0)
        if not 0 <= self.label_smoothing < 1:
            raise ValueError(
                f"label_smoothing is {self.label_smoothing}; allowed: from 0 to below 1"
            )
        if self.subset_loss < 0 or (self.subset_loss and self.shows == "one"):
            raise ValueError(
                f"subset_loss is {self.subset_loss}; allowed: 0 or more, and 0 where shows is 'one'"
            )
        if self.shows not in SHOWS:
            raise ValueError(f"shows is {self.shows!r}; allowed: {', '.join(SHOWS)}")


def sections(config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the parts of the sections that it reads, see `affectjax.tasks.base.sections`."""
    configs.check_keys(config["stages"], STAGES, "config.stages")
    stages = {f"stages.{name}": ((UMBEnetStage,), ()) for name in config["stages"]}
    model = choose(config["model"])
    return {"data": ((FewerClasses,), ()), "model": (model.parts, model.others), **stages}


class Task:
    """Stages `unimodal` and `missing`, or one of them.

    Attributes: see `affectjax.tasks.base.Task`; and `model`, the network of evaluation.
    """

    def __init__(self, config: Mapping[str, Any], inputs: Inputs, axis_name: str | None):
        """Builds the model and the stages.

        Args:
          config: the whole config.
          inputs: what the batches hold.
          axis_name: the mapped axis over which a batch is split, None where it is whole.

        Raises:
          InputError: a key that nobody reads, a value that is not allowed, or no such weights.
        """
        self.spec, self.axis_name, self.inputs = inputs.spec, axis_name, inputs
        if self.spec.kind != "class":
            raise InputError(
                f"UMBEnet tells classes apart, and the labels are of kind {self.spec.kind!r}; "
                '"config.data.threshold" makes two classes of scores'
            )
        self.assembly = Assembly(config["model"], inputs, axis_name)
        self.settings = self.assembly.settings
        self.model, self.modalities = self.assembly.model, self.assembly.modalities
        self.without = tuple(config["data"].get("without", ()))
        optim = configs.read(OptimConfig, config["optim"], "config.optim")
        self.stages = self._stages(configs.plain(config["stages"]), optim)

    def _stages(self, sections: Mapping[str, Any], optim: OptimConfig) -> tuple[Stage, ...]:
        configs.check_keys(sections, STAGES, "config.stages")
        stages = []
        for name in STAGES:
            if name not in sections:
                continue
            read = configs.read(UMBEnetStage, sections[name], f"config.stages.{name}")
            pool = functools.partial(hand_over, threshold=read.transfer_threshold)
            hands_over = {} if name == STAGES[-1] else {"on_end": pool}
            settings = {"shows": SHOWS.index(read.shows), "usage_penalty": read.usage_penalty}
            if read.subset_loss and len(self.modalities) > 1:
                settings["subset_loss"] = read.subset_loss
            if read.label_smoothing:
                settings["label_smoothing"] = read.label_smoothing
            stages.append(
                Stage(
                    name=name,
                    rules=read.rules(),
                    optim=optim,
                    loss=self.loss,
                    settings=settings,
                    init=self.init,
                    trains=lambda path: not path.startswith(self.assembly.frozen),
                    prepare=self.load_pretrained,
                    on_epoch=forget_epoch,
                    **hands_over,
                )
            )
        if not stages:
            raise InputError(f'"config.stages" is empty; allowed: {", ".join(STAGES)}')
        return tuple(stages)

    # What it computes.

    def init(self, key: jax.Array, batch: Batch) -> tuple[Tree, Tree]:
        """Returns new params, and the variables of the pool."""
        variables = flax.core.unfreeze(self.model.init(key, batch, train=False))
        params = variables.pop("params")
        return self.assembly.add_lora(params, key), variables

    def load_pretrained(self, model: Model) -> Model:
        """Returns a new model, host side, with the towers that came from a folder."""
        return {**model, "params": {**model["params"], **self.assembly.pretrained}}

    def loss(
        self,
        params: Tree,
        variables: Tree,
        batch: Batch,
        rng: jax.Array,
        *,
        shows: jax.Array,
        usage_penalty: jax.Array,
        subset_loss: jax.Array | None = None,
        label_smoothing: jax.Array | None = None,
    ) -> tuple[jax.Array, tuple[Tree, Measurements]]:
        """Returns this device's part of the loss: cross-entropies, pull, and L1 of the gates.

        Of `shows`, the place in `SHOWS`; see `UMBEnetStage`. A loss of other subsets is no part of
        the program where there is no `subset_loss`.
        """
        s = self.settings
        drop, show, change, adapt = jax.random.split(rng, 4)
        entropy = functools.partial(losses.cross_entropy, smoothing=label_smoothing)
        batch = self._show(shows, variables, batch, show, apart=subset_loss is not None)
        batch = self._augment(batch, change)
        model = self.model.clone(usage_penalty=usage_penalty)
        (logits, out), changed = model.apply(
            {"params": self.assembly.adapt(params, adapt), **variables},
            batch,
            train=True,
            rngs={"dropout": drop},
            mutable=[POOL],
        )
        pool = changed[POOL]["pool"]
        mean = functools.partial(
            losses.weighted_mean, weight=batch["weight"], axis_name=self.axis_name
        )
        terms = {
            "cross_entropy": mean(entropy(logits, batch["label"])),
            "pull": s.pull * mean(out["pull"]),
            "l1": s.l1 * out["l1"],
        }
        if subset_loss is not None:
            again = jax.random.fold_in(drop, 1)
            apart = self._of_subsets(model, params, batch, out, again, entropy)
            terms["subsets"] = subset_loss * apart
        loss = sum(terms.values())
        right = logits.argmax(-1) == batch["label"]
        share = pool["epoch"].sum(0) / jnp.maximum(pool["epoch"].sum(), 1)
        measured = {
            "loss": loss,
            **terms,
            "accuracy": mean(right.astype(jnp.float32)),
            "prompts_used": (share > 0).sum().astype(jnp.float32),
            EXAMPLES: batch["weight"].sum(),
        }
        pool = pool | {"turn": pool["turn"] + 1}
        return loss, ({POOL: {"pool": pool}}, measured)

    def _of_subsets(
        self,
        model: UMBEnet,
        params: Tree,
        batch: Batch,
        out: Mapping[str, Any],
        key: jax.Array,
        entropy: Callable[[jax.Array, jax.Array], jax.Array],
    ) -> jax.Array:
        """Returns this device's part of the mean cross-entropy of the subsets that are not shown.

        No modality can lean on another one then, and each subset is learned at every step. This
        works against one modality learning faster than the others, which Wang et al. 2020, "What
        Makes Training Multi-Modal Classification Networks Hard?", describe; they have a loss for
        each modality alone.

        Args:
          model: the network.
          params: its parameters.
          batch: with `shown`.
          out: of the network, for that batch.
          key: for dropout.
          entropy: of logits `[N, C]` and labels `[N]`, `[N]`.
        """
        sets = np.array(list(itertools.product((False, True), repeat=len(self.modalities)))[1:])
        present = jnp.stack([batch["present"][m] for m in self.modalities], axis=1)[:, None]
        # Those that are there, but for the one that is shown, which has its loss already.
        counts = (present | ~sets).all(-1) & (batch["shown"][:, None] != sets).any(-1)
        logits = model.apply(
            {"params": params},
            jnp.stack([out[f"feature/{m}"] for m in self.modalities], axis=1),
            jnp.asarray(sets) & counts[..., None],
            out["class_feature"],
            out.get("evidence"),
            train=True,
            rngs={"dropout": key},
            method="of_subsets",
        )
        label = jnp.repeat(batch["label"], len(sets))
        loss = entropy(rearrange(logits, "b s c -> (b s) c"), label)
        weight = jnp.ravel(counts * batch["weight"][:, None])
        return losses.weighted_mean(loss, weight, self.axis_name)

    def _show(
        self, shows: jax.Array, variables: Tree, batch: Batch, key: jax.Array, *, apart: bool
    ) -> Batch:
        """Returns the batch with what the stage does not show absent; weight 0 where all is.

        Where it says what is shown `apart`, as `shown`, nothing is made absent.
        """
        present = jnp.stack([batch["present"][m] for m in self.modalities], axis=1)
        order = [self.modalities.index(m) for m in TURNS if m in self.modalities]
        turn = jnp.array(order)[variables[POOL]["pool"]["turn"] % len(order)]
        one = present & (jnp.arange(len(order)) == turn)
        subset = random_subset(present, key, self.axis_name)
        ways = {"one": one, "subset": subset, "all": present}
        shown = jnp.stack([ways[name] for name in SHOWS])[jnp.int32(shows)]
        batch = {**batch, "weight": batch["weight"] * shown.any(-1)}
        if apart:
            return {**batch, "shown": shown}
        named = {m: shown[:, i] for i, m in enumerate(self.modalities)}
        return {**batch, "present": {**batch["present"], **named}}

    def _augment(self, batch: Batch, key: jax.Array) -> Batch:
        """Returns the batch with changed frames, waveforms and tokens, where the config says so."""
        keys = dict(zip(("vision", "audio", "text"), jax.random.split(key, 3), strict=True))
        change = functools.partial(augmentation.apply, self.assembly.parts)
        seen = {
            m: change(m, batch[m], keys[m], self.axis_name) for m in keys if m in self.modalities
        }
        return {**batch, **seen}

    def predict(self, params: Tree, variables: Tree, batch: Batch) -> dict[str, jax.Array]:
        """Returns `loss` `[B]`, `probability` and `logits` `[B, C]`, and which prompts answered.

        These are `prompts` and `prompt_similarity`, `[B, k]` each, best first.
        """
        params = self.assembly.adapt(params)
        logits, out = self.model.apply({"params": params, **variables}, batch, train=False)
        if self.settings.mirror:
            seen = batch["vision"] | {"x": batch["vision"]["x"][:, :, :, ::-1]}
            mirrored = {**batch, "vision": seen}
            again, _ = self.model.apply({"params": params, **variables}, mirrored, train=False)
            logits = (logits + again) / 2
        return {
            "loss": losses.cross_entropy(logits, batch["label"]),
            "probability": jax.nn.softmax(logits),
            "logits": logits,
            "prompts": out["prompt_index"],
            "prompt_similarity": out["prompt_similarity"],
        }

    def metric_names(self) -> tuple[str, ...]:
        """Returns the names of the metrics that are numbers."""
        classes, named = self.spec.classes, metrics.classification_names
        found = ("loss", *named(classes))
        if not self.without:
            return found
        fewer = named([name for name in classes if name not in self.without])
        return (*found, *(f"without_{'_'.join(self.without)}/{name}" for name in fewer))

    def metrics(self, predictions: Mapping[str, np.ndarray], label: np.ndarray) -> dict:
        """Returns WAR, UAR and the others, the same without some classes, and the mean loss."""
        loss = float(predictions["loss"].mean(dtype=np.float64))
        return {"loss": loss, **base.measure(self, predictions, label)}

    def answers(
        self, predictions: Mapping[str, np.ndarray], label: np.ndarray
    ) -> dict[str, Answers]:
        """Returns those of all classes and, where some are left out, of the others."""
        whole = Answers("class", predictions["probability"], label, self.spec.classes)
        if not self.without:
            return {"": whole}
        return {"": whole, f"without_{'_'.join(self.without)}/": whole.without(self.without)}

    def table(self, predictions: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Returns `prediction`, then a column a class: its probability."""
        return class_table(predictions["probability"], self.spec.classes)


def random_subset(present: jax.Array, key: jax.Array, axis_name: str | None) -> jax.Array:
    """Returns `[B, M]` bool: a non-empty subset of what is present, all alike likely.

    Args:
      present: `[B, M]` bool.
      key: the same on every device.
      axis_name: the mapped axis over which the batch is split.
    """
    count = present.sum(-1)
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, global_rows(len(present), axis_name))
    number = jax.vmap(lambda k, n: jax.random.randint(k, (), 1, jnp.maximum(2**n, 2)))(keys, count)
    # Bit r of the number decides on the r-th modality that is present.
    rank = jnp.cumsum(present, axis=-1) - 1
    return present & ((number[:, None] >> jnp.maximum(rank, 0)) & 1).astype(bool)


def forget_epoch(variables: Tree) -> Tree:
    """Returns the variables at the start of an epoch: no activations in it yet."""
    pool = variables[POOL]["pool"]
    return {POOL: {"pool": pool | {"epoch": jnp.zeros_like(pool["epoch"])}}}


def hand_over(model: Tree, end: StageEnd, *, threshold: float) -> Tree:
    """Returns the model with a new pool: activated prompts stay, the others start anew.

    The next stage has a new optimizer, so no moments survive. Which modality activated a prompt is
    kept as the variable `served`.

    Args:
      model: `{"params", "variables"}`, host side.
      end: with the seed.
      threshold: see `UMBEnetStage`.

    Source: SPEC section 1, training; section 3.4.
    """
    pool, counts = model["params"]["pool"], model["variables"][POOL]["pool"]
    kept = np.asarray(prompts.activated(counts["epoch"][:-1], threshold))
    draw = np.random.Generator(np.random.Philox(key=end.seed)).normal
    anew = {
        name: np.where(
            kept.reshape(-1, *[1] * (pool[name].ndim - 1)),
            pool[name],
            draw(0, 0.02, pool[name].shape).astype(np.float32),
        )
        for name in ("keys", "values")
    }
    counts = {name: np.zeros_like(value) for name, value in counts.items()} | {
        "served": np.asarray(counts["epoch"])
    }
    return {
        "params": {**model["params"], "pool": {**pool, **anew}},
        "variables": {**model["variables"], POOL: {"pool": counts}},
    }
