"""Learning emotions that belong to no modality, from unpaired data sets.

Source: SPEC section 3, losses and stages; the supramodal paper, section 3.1.
Letters: B examples of a modality on this device, N of a split, D features, E of an emotion.
"""

import dataclasses
import functools
import io
from collections.abc import Callable, Mapping
from typing import Any

import flax
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.experimental import multihost_utils

from affectjax import emotions, metrics
from affectjax.data.batches.inputs import Inputs
from affectjax.data.labels import LabelSpec
from affectjax.encoders import augmentation
from affectjax.encoders.adaptation import Adaptation
from affectjax.errors import InputError
from affectjax.metrics import Answers
from affectjax.models.supramodal import Supramodal
from affectjax.ops import contrast, losses
from affectjax.runtime import manifest
from affectjax.runtime.steps import EXAMPLES
from affectjax.tasks import base
from affectjax.tasks.base import Batch, Measurements, Model, StageEnd, Tree, class_table
from affectjax.tasks.supramodal import concept_bank
from affectjax.tasks.supramodal.stages import (
    ConceptsConfig,
    JointStage,
    SequentialStage,
    UnpairedStage,
)
from affectjax.tasks.supramodal.towers import Towers

Loss = tuple[jax.Array, tuple[Tree, Measurements]]
FEATURES = "features.npz"


class Learner:
    """The network of the stages on unpaired data sets, its losses and what it leaves behind.

    Attributes:
      names: of the data sets, which are those of their modalities, in the order of MODALITIES.
      scorers: by name, see `SourceScorer`.
      heads: by name, "seven" or "three": what the labels of the data set are.
    """

    def __init__(
        self,
        section: Mapping[str, Any],
        sources: Mapping[str, Inputs],
        axis_name: str | None,
        *,
        trains_three: bool,
        trains_seven: bool,
    ):
        """Builds the network.

        Args:
          section: `config.model.learner`.
          sources: by name, what the batches of each data set hold.
          axis_name: the mapped axis over which a batch is split, None where it is whole.
          trains_three: whether a stage teaches the three sentiments whatever the labels are.
          trains_seven: whether a stage teaches the seven emotions where the labels are these.

        Raises:
          InputError: labels that are neither seven emotions nor three sentiments, or see `Towers`.
        """
        towers = Towers(section, sources, axis_name)
        settings, self.parts = towers.settings, towers.parts
        self.axis_name, self.names = axis_name, tuple(sources)
        self.trains_three, self.trains_seven = trains_three, trains_seven
        self.model = Supramodal(
            modalities=self.names,
            encoders=towers.makers,
            width=settings.width,
            hidden=settings.hidden,
            statistics=settings.statistics,
            axis_name=axis_name,
            **towers.pixels,
        )
        self.pretrained = towers.pretrained
        self.adaptation: Adaptation | None = towers.parts.get(Adaptation)
        self.heads = {m: _head(m, inputs.spec) for m, inputs in sources.items()}
        self.merged = {
            m: emotions.to_scheme(inputs.spec.classes, emotions.THREE)
            for m, inputs in sources.items()
        }
        self.scorers = {m: SourceScorer(self, m, inputs.spec) for m, inputs in sources.items()}

    def init(self, key: jax.Array, batch: Batch) -> tuple[Tree, Tree]:
        """Returns new params and running statistics.

        Args:
          key: of the draw.
          batch: by name, a batch of each data set.
        """
        views = {m: _view(m, batch[m]) for m in self.names}
        read = functools.partial(self.model.init, method="read", train=False)
        variables = flax.core.unfreeze(read(key, views))
        params = variables.pop("params")
        if self.adaptation is not None:
            towers = {m: params[m]["tower"] for m in self.pretrained}
            params[Adaptation.name] = self.adaptation.init(key, towers)
        return params, variables

    def load_pretrained(self, model: Model) -> Model:
        """Returns a new model, host side, with the towers that came from a folder."""
        params = dict(model["params"])
        for m, tower in self.pretrained.items():
            params[m] = {**params[m], "tower": tower}
        return {**model, "params": params}

    def trains(self, path: str) -> bool:
        """Returns whether a parameter trains: of towers with weights, only what LoRA adds."""
        return not path.startswith(tuple(f"{m}/tower/" for m in self.pretrained))

    def read(
        self, params: Tree, variables: Tree, views: Tree, key: jax.Array | None = None
    ) -> tuple[dict[str, dict[str, jax.Array]], Tree]:
        """Returns what `Supramodal.read` does, and the variables after it.

        Args:
          params: of the model.
          variables: of the model.
          views: by modality, see `Supramodal.read`.
          key: of a training step; None in evaluation.
        """
        if self.adaptation is not None:
            params = dict(params)
            added = params.pop(Adaptation.name)
            towers = {m: params[m]["tower"] for m in self.pretrained}
            for m, tower in self.adaptation.adapt(towers, added, key).items():
                params[m] = {**params[m], "tower": tower}
        run = functools.partial(
            self.model.apply, {"params": params, **variables}, views, method="read"
        )
        if key is None:
            return run(train=False), variables
        return run(train=True, rngs={"dropout": key}, mutable=list(variables))

    # What is learned.

    def joint(
        self, stage: JointStage, params: Tree, variables: Tree, batch: Batch, rng: jax.Array
    ) -> Loss:
        """Returns this device's part of the joint loss, with merged labels.

        Equation: Supramodal (4)
        """
        keys = jax.random.split(rng, len(self.names) + 1)
        views = {
            m: augmentation.apply(self.parts, m, _view(m, batch[m]), key, self.axis_name)
            for m, key in zip(self.names, keys[1:], strict=True)
        }
        found, variables = self.read(params, variables, views, keys[0])
        label = {m: jnp.asarray(self.merged[m])[batch[m]["label"]] for m in self.names}
        measured: Measurements = {}
        task = orthogonal = 0.0
        for m in self.names:
            weight = jnp.where(label[m] >= 0, views[m]["weight"], 0.0)
            term, right = self._entropy(found[m]["three"], label[m], weight)
            if stage.labels == "both" and self.heads[m] == "seven":
                own, _ = self._entropy(found[m]["seven"], batch[m]["label"], views[m]["weight"])
                term = term + own
            task += term
            orthogonal += self._orthogonality(found[m], views[m]["weight"], stage)
            measured[f"accuracy/{m}"] = right
        triplets, count = self._triplets(self.names, found, label, views, stage.margin)
        if stage.contrast_seven:
            fine = tuple(m for m in self.names if self.heads[m] == "seven")
            own = {m: batch[m]["label"] for m in fine}
            triplets += self._triplets(fine, found, own, views, stage.margin)[0]
        loss = task + stage.contrast * triplets + stage.orthogonality * orthogonal
        return loss, (
            variables,
            measured
            | {
                "loss": loss,
                "cross_entropy": task,
                "triplet": triplets,
                "triples": count,
                "orthogonality": orthogonal,
                "accuracy": sum(measured.values()) / len(self.names),
                EXAMPLES: sum(view["weight"].sum() for view in views.values()),
            },
        )

    def sequential(
        self, stage: SequentialStage, params: Tree, variables: Tree, batch: Batch, rng: jax.Array
    ) -> Loss:
        """Returns this device's part of the loss of the modality whose turn it is.

        Equation: Supramodal (5)
        """
        order = stage.turns(self.names).names

        def one(m: str, params: Tree, variables: Tree, own: Batch) -> Loss:
            change, read = jax.random.split(rng)
            view = augmentation.apply(self.parts, m, _view(m, own), change, self.axis_name)
            found, variables = self.read(params, variables, {m: view}, read)
            entropy, right = self._entropy(found[m][self.heads[m]], own["label"], view["weight"])
            orthogonal = self._orthogonality(found[m], view["weight"], stage)
            loss = entropy + stage.orthogonality * orthogonal
            return loss, (
                variables,
                {
                    "loss": loss,
                    "cross_entropy": entropy,
                    "orthogonality": orthogonal,
                    "accuracy": right,
                    EXAMPLES: view["weight"].sum(),
                },
            )

        branches = [
            lambda p, v, b, m=m: one(m, p, v, b[m])  # bound now: the loop goes on
            for m in order
        ]
        return lax.switch(batch["turn"], branches, params, variables, batch)

    def _entropy(
        self, logits: jax.Array, label: jax.Array, weight: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """Returns this device's parts of the mean cross-entropy and of the accuracy."""
        mean = functools.partial(losses.weighted_mean, weight=weight, axis_name=self.axis_name)
        safe = jnp.maximum(label, 0)
        right = (logits.argmax(-1) == label).astype(jnp.float32)
        return mean(losses.cross_entropy(logits, safe)), mean(right)

    def _orthogonality(
        self, found: Mapping[str, jax.Array], weight: jax.Array, stage: UnpairedStage
    ) -> jax.Array:
        pair = found["emotion"], found["non_emotion"]
        if stage.unit_length:
            pair = tuple(map(contrast.unit, pair))
        return contrast.orthogonality(*pair, weight, self.axis_name, stage.normalize)

    def _triplets(
        self, names: tuple[str, ...], found: Tree, label: Tree, views: Tree, margin: float
    ) -> tuple[jax.Array, jax.Array]:
        """Returns the triplet loss over the emotion features of some modalities, and its count."""
        together = lambda values: jnp.concatenate(list(values))  # noqa: E731
        return contrast.triplet(
            together(found[m]["emotion"] for m in names),
            together(jnp.full(len(label[m]), i) for i, m in enumerate(names)),
            together(label[m] for m in names),
            together(views[m]["weight"] for m in names),
            margin,
            self.axis_name,
        )

    # What is left behind.

    def write_concepts(self, how: ConceptsConfig, end: StageEnd) -> None:
        """Writes the concept bank, and the validation features that figures are drawn from.

        Args:
          how: `config.stages.concepts`.
          end: of the stage; runs its model over the data sets.
        """
        folder = end.folder / "concepts"
        trained = {m: end.run(self.scorers[m].describe, m, "train") for m in self.names}
        bank = concept_bank.collect(
            {m: found["emotion"] for m, (found, _, _) in trained.items()},
            {m: found["probability"] for m, (found, _, _) in trained.items()},
            {m: label for m, (_, _, label) in trained.items()},
            {m: self.scorers[m].spec.classes for m in self.names},
            ids={m: ids for m, (_, ids, _) in trained.items()},
            source="/".join(end.folder.parts[-2:]),
            top=how.top if how.selective else 1.0,
            correct_only=how.selective,
        )
        flat: dict[str, np.ndarray] = {}
        for m in self.names:
            found, _, label = end.run(self.scorers[m].describe, m, "valid")
            flat |= {f"{m}/{name}": found[name] for name in ("feature", "emotion", "non_emotion")}
            flat[f"{m}/label"] = np.array(self.scorers[m].spec.classes)[label]
        if jax.process_index() == 0:
            bank.save(folder)
            content = io.BytesIO()
            np.savez(content, **flat)
            manifest.write(folder, {FEATURES: content.getvalue()})
        multihost_utils.sync_global_devices("concepts")


@dataclasses.dataclass(frozen=True, eq=False)
class SourceScorer:
    """Predictions for one of the unpaired data sets; see `affectjax.tasks.base.Scorer`.

    Attributes:
      learner: whose.
      name: of the data set, that is of its modality.
      spec: what its labels mean.
    """

    learner: Learner
    name: str
    spec: LabelSpec

    @property
    def modalities(self) -> tuple[str, ...]:
        """Returns the one modality."""
        return (self.name,)

    @property
    def trained(self) -> bool:
        """Returns whether a stage teaches the labels themselves, not merged ones alone."""
        return self.learner.trains_seven or self.learner.heads[self.name] == "three"

    @functools.cached_property
    def describe(self) -> Callable[..., dict[str, jax.Array]]:
        """Returns the function that gives `probability` `[B, C]` and the features of examples."""

        def describe(params: Tree, variables: Tree, batch: Batch) -> dict[str, jax.Array]:
            found = self._read(params, variables, batch)
            own = jax.nn.softmax(found[self.learner.heads[self.name]])
            kept = {name: found[name] for name in ("feature", "emotion", "non_emotion")}
            return kept | {"probability": own}

        return describe

    def _read(self, params: Tree, variables: Tree, batch: Batch) -> dict[str, jax.Array]:
        views = {self.name: _view(self.name, batch)}
        return self.learner.read(params, variables, views)[0][self.name]

    def predict(self, params: Tree, variables: Tree, batch: Batch) -> dict[str, jax.Array]:
        """Returns `loss` `[B]`, `probability` `[B, C]`, and `three` `[B, 3]`, of the sentiments.

        Where nothing trains the head of three sentiments, a sentiment is as probable as its
        emotions together; those that belong to none, as surprise, are left out. Where nothing
        trains the head of seven emotions, there are the sentiments alone, and the loss is theirs.
        """
        found = self._read(params, variables, batch)
        merged = jnp.asarray(self.learner.merged[self.name])
        if not self.trained:
            label = merged[batch["label"]]
            loss = losses.cross_entropy(found["three"], jnp.maximum(label, 0))
            return {"loss": loss, "three": jax.nn.softmax(found["three"])}
        logits = found[self.learner.heads[self.name]]
        probability = jax.nn.softmax(logits)
        if self.learner.trains_three:
            three = jax.nn.softmax(found["three"])
        else:
            three = probability @ (merged[:, None] == np.arange(3)).astype(np.float32)
        return {
            "loss": losses.cross_entropy(logits, batch["label"]),
            "probability": probability,
            "three": three,
        }

    def metric_names(self) -> tuple[str, ...]:
        """Returns the names of the metrics that are numbers."""
        named = metrics.classification_names
        three = (f"three/{name}" for name in named(emotions.THREE))
        return ("loss", *(named(self.spec.classes) if self.trained else ()), *three)

    def metrics(self, predictions: Mapping[str, np.ndarray], label: np.ndarray) -> dict:
        """Returns WAR, UAR and the others; "three/..." are those of the merged labels."""
        loss = predictions["loss"]
        if not self.trained:  # an emotion of no sentiment has no loss
            loss = loss[self.learner.merged[self.name][label] >= 0]
        loss = float(loss.mean(dtype=np.float64))
        return {"loss": loss, **base.measure(self, predictions, label)}

    def answers(
        self, predictions: Mapping[str, np.ndarray], label: np.ndarray
    ) -> dict[str, Answers]:
        """Returns those of the emotions, where they are taught, and of the sentiments.

        A baseline has probabilities of emotions alone: a sentiment is as probable as its emotions
        together.
        """
        merged, own = self.learner.merged[self.name], {}
        if self.trained:
            own[""] = Answers("class", predictions["probability"], label, self.spec.classes)
        three = predictions.get("three")
        if three is None:
            three = predictions["probability"] @ (merged[:, None] == np.arange(3))
        rows = np.flatnonzero(merged[label] >= 0)
        kept = Answers("class", three[rows], merged[label[rows]], emotions.THREE, rows)
        return {**own, "three/": kept}

    def table(self, predictions: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Returns `prediction`, then a column a class: its probability."""
        if not self.trained:
            return class_table(predictions["three"], emotions.THREE)
        return class_table(predictions["probability"], self.spec.classes)


def _head(m: str, spec: LabelSpec) -> str:
    """Returns the head that the labels of a data set are for."""
    for name, classes in (("seven", emotions.SEVEN), ("three", emotions.THREE)):
        if spec.kind == "class" and spec.classes == classes:
            return name
    raise InputError(
        f'the labels of "config.data.sources.{m}" are {", ".join(spec.classes) or "scores"}; '
        'its class_map must be "seven", "three", or pairs that lead to one of the two'
    )


def _view(m: str, batch: Batch) -> Tree:
    """Returns the batch of a data set as `Supramodal.read` takes it."""
    here = batch["present"][m]
    return {
        "x": batch[m]["x"],
        "mask": batch[m]["mask"] & here[:, None],
        "weight": batch["weight"] * here,
    }
