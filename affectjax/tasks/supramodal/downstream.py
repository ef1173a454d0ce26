"""The small recogniser at the end, guided by concepts or not.

Source: SPEC section 3, downstream; the supramodal paper, section 3.2.
Letters: B examples on this device, E of the guided feature, C classes, P concepts of a modality.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import flax
import jax
import jax.numpy as jnp
import numpy as np

from affectjax import metrics, weights
from affectjax.data.batches.inputs import Inputs
from affectjax.encoders.augmentation import FrameAugmentation
from affectjax.errors import InputError
from affectjax.modalities import MODALITIES, chosen
from affectjax.models.guided import Guided
from affectjax.ops import losses
from affectjax.tasks import base
from affectjax.tasks.base import Batch, Measurements, Model, Tree, class_table
from affectjax.tasks.supramodal import concept_bank

BANK = "bank"


@dataclasses.dataclass(frozen=True)
class GuidedConfig:
    """`config.model.guided`, but for `FrameAugmentation`.

    Attributes:
      modalities: those to use, () for all that the data has.
      guide: whether concepts guide the model: the one switch between both.
      bank: the folder of a concept bank; "" for the one that the run itself makes.
      concepts: modalities of the bank that guide, () for all of them.
      count: k, concepts drawn from each modality.
      generalize: False takes a single concept in place of means, the ablation without
        generalisation.
      weight: lambda, of the distance to the concept beside the cross-entropy.
      reduce: of the squares of a distance, "mean" or "sum", see
        `affectjax.ops.concept_sampling.guidance`.
      feature: E, the width of the bank.
      weights: a folder, or a name on the hub, with ResNet-18's weights, "" for one from scratch.
      resnet_width: of ResNet-18's first stage, without `weights`; 64 is ResNet-18. Weights have
        a width of their own.
      heads, layers: of the memory stack on sequences.
      dropout: there.
    """

    modalities: tuple[str, ...] = ()
    guide: bool = True
    bank: str = ""
    concepts: tuple[str, ...] = ()
    count: int = 8
    generalize: bool = True
    weight: float = 0.5
    reduce: str = "mean"
    feature: int = 256
    weights: str = ""
    resnet_width: int = 64
    heads: int = 8
    layers: int = 4
    dropout: float = 0.0

    def __post_init__(self):
        if self.count < 1:
            raise ValueError(f"count is {self.count}; allowed: 1 or more")
        if self.reduce not in ("mean", "sum"):
            raise ValueError(f"reduce is {self.reduce!r}; allowed: mean, sum")
        unknown = [m for m in self.concepts if m not in MODALITIES]
        if unknown:
            raise ValueError(f"concepts has {unknown[0]!r}; allowed: {', '.join(MODALITIES)}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout is {self.dropout}; allowed: from 0 to below 1")


class Downstream:
    """The recogniser, its loss and its metrics; see `affectjax.tasks.base.Scorer`.

    Attributes:
      spec: what the labels mean.
      modalities: those that the model sees.
      model: the network.
    """

    def __init__(
        self,
        settings: GuidedConfig,
        augmentation: FrameAugmentation,
        inputs: Inputs,
        axis_name: str | None,
    ):
        """Builds the network.

        Args:
          settings: `config.model.guided`.
          augmentation: the rest of it.
          inputs: what the batches hold.
          axis_name: the mapped axis over which a batch is split, None where it is whole.

        Raises:
          InputError: labels that are no classes, inputs that it cannot read, or no such weights.
        """
        self.settings, self.augmentation = settings, augmentation
        self.inputs, self.axis_name = inputs, axis_name
        self.spec = inputs.spec
        if self.spec.kind != "class":
            raise InputError(
                f"concepts guide models that tell classes apart, and the labels are of kind "
                f'{self.spec.kind!r}; "config.data.class_map" or "config.data.threshold" makes '
                "classes of scores"
            )
        key = "config.model.guided.modalities"
        self.modalities = chosen(settings.modalities, inputs.modalities, key)
        found = weights.resnet(settings.weights) if settings.weights else None
        if found and ("vision" not in self.modalities or inputs.kinds["vision"].kind != "frames"):
            raise InputError(
                f'"config.model.guided.weights" is {settings.weights}, but the data has no frames '
                "that a ResNet-18 could read"
            )
        self._resnet = found
        self.model = Guided(
            classes=len(self.spec.classes),
            modalities=self.modalities,
            encoders={m: self._encoder(m) for m in self.modalities},
            feature=settings.feature,
            axis_name=axis_name,
        )

    def _encoder(self, m: str) -> dict[str, Any]:
        """Returns the arguments of what reads a modality."""
        s, kind = self.settings, self.inputs.kinds[m].kind
        if kind == "frames":
            if self._resnet is None:
                return {"width": s.resnet_width}
            return {
                **self._resnet.args,
                "mean": self._resnet.mean,
                "std": self._resnet.std,
            }
        if kind != "features":
            raise InputError(
                f"the recogniser reads frames and features, but the data has {kind} of {m}; "
                "affectjax.prepare --features makes features of it"
            )
        return {"heads": s.heads, "layers": s.layers, "dropout": s.dropout}

    def init(self, key: jax.Array, batch: Batch) -> tuple[Tree, Tree]:
        """Returns new params, and running statistics."""
        variables = flax.core.unfreeze(self.model.init(key, batch, train=False))
        return variables.pop("params"), variables

    def load_pretrained(
        self, model: Model, folder: str | Path | None = None, capacity: Tree = None
    ) -> Model:
        """Returns the model with what came from files: ResNet-18's weights, and the concepts.

        Args:
          model: a new one, host side.
          folder: of the concept bank; None for that of the config.
          capacity: by modality, the concepts that the bank may hold at most; None for what it has.
        """
        s, params = self.settings, dict(model["params"])
        variables = jax.tree.map(np.asarray, model["variables"])
        if self._resnet is not None:
            params["vision"] = {**params["vision"], "resnet": self._resnet.params}
            statistics = {
                **variables["batch_stats"]["vision"],
                "resnet": self._resnet.batch_stats,
            }
            variables = {"batch_stats": {**variables["batch_stats"], "vision": statistics}}
        if s.guide:
            bank = concept_bank.load(folder or s.bank, s.concepts)
            if bank.width != s.feature:
                raise InputError(
                    f"{folder or s.bank} has concepts of width {bank.width}, but "
                    f'"config.model.guided.feature" is {s.feature}; allowed: the same'
                )
            # A class that the run itself did not learn to tell is guided by nothing.
            may_lack = self.spec.classes if folder else ()
            arrays = bank.guide(self.spec.classes, s.count, may_lack).arrays
            params[BANK] = _padded(arrays, capacity)
        return {"params": params, "variables": variables}

    def trains(self, path: str) -> bool:
        """Returns whether a parameter trains: all but the concepts."""
        return not path.startswith(f"{BANK}/")

    def loss(
        self, params: Tree, variables: Tree, batch: Batch, rng: jax.Array
    ) -> tuple[jax.Array, tuple[Tree, Measurements]]:
        """Returns this device's part of the loss: cross-entropy, and the distance to concepts.

        Equation: Supramodal (8)
        """
        s, params = self.settings, dict(params)
        bank = params.pop(BANK, None)
        drop, draw, change = jax.random.split(rng, 3)
        if "vision" in self.modalities:
            seen = self.augmentation(batch["vision"], change, self.axis_name)
            batch = {**batch, "vision": seen}
        (logits, out), variables = self.model.apply(
            {"params": params, **variables},
            batch,
            train=True,
            rngs={"dropout": drop},
            mutable=list(variables),
        )
        mean = lambda x: losses.weighted_mean(x, batch["weight"], self.axis_name)  # noqa: E731
        entropy = mean(losses.cross_entropy(logits, batch["label"]))
        right = (logits.argmax(-1) == batch["label"]).astype(jnp.float32)
        measured = {"loss": entropy, "cross_entropy": entropy, "accuracy": mean(right)}
        if bank is not None:
            concept, present = concept_bank.draw(
                bank, batch["label"], draw, s.count, self.axis_name, s.generalize
            )
            distance = concept_bank.guidance(
                out["feature"], concept, present, batch["weight"], self.axis_name, s.reduce
            )
            measured |= {"guidance": distance, "loss": entropy + s.weight * distance}
        return measured["loss"], (variables, measured)

    def predict(self, params: Tree, variables: Tree, batch: Batch) -> dict[str, jax.Array]:
        """Returns `loss` `[B]`, `logits` and `probability` `[B, C]`; reads no concept for it."""
        params = {name: own for name, own in params.items() if name != BANK}
        logits, _ = self.model.apply({"params": params, **variables}, batch, train=False)
        return {
            "loss": losses.cross_entropy(logits, batch["label"]),
            "logits": logits,
            "probability": jax.nn.softmax(logits),
        }

    def metric_names(self) -> tuple[str, ...]:
        """Returns the names of the metrics that are numbers."""
        return ("loss", *metrics.classification_names(self.spec.classes))

    def metrics(self, predictions: Mapping[str, np.ndarray], label: np.ndarray) -> dict:
        """Returns WAR, UAR and the others, and the mean loss."""
        loss = float(predictions["loss"].mean(dtype=np.float64))
        return {"loss": loss, **base.measure(self, predictions, label)}

    def table(self, predictions: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Returns `prediction`, then a column a class: its probability."""
        return class_table(predictions["probability"], self.spec.classes)


def _padded(arrays: concept_bank.Arrays, capacity: Mapping[str, int] | None) -> Tree:
    """Returns the arrays of a guide, padded to a size that the banks of all seeds share."""
    found: dict[str, dict[str, np.ndarray]] = {}
    for m, own in arrays.items():
        features, rows = np.asarray(own["features"]), np.asarray(own["rows"])
        size = len(features) if capacity is None else capacity[m]
        wide = rows.shape[1] if capacity is None else size
        found[m] = {
            "features": np.pad(features, ((0, size - len(features)), (0, 0))),
            "rows": np.pad(rows, ((0, 0), (0, wide - rows.shape[1]))),
            "count": np.asarray(own["count"]),
        }
    return found
