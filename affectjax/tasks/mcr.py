"""MCR and its baseline MulT: asynchronous feature sequences to a score, a class or binary tasks.

Source: SPEC section 2; Yang et al. 2023, section 4; Tsai et al. 2019.
Letters: B examples, C classes, K binary tasks, N examples of a split.
"""

import dataclasses
import importlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from affectjax import metrics
from affectjax.data.batches.inputs import Features, Inputs
from affectjax.encoders import states
from affectjax.errors import InputError
from affectjax.modalities import chosen
from affectjax.ops import losses
from affectjax.runtime import configs, lookup
from affectjax.runtime.optim import OptimConfig
from affectjax.tasks import base
from affectjax.tasks.base import Batch, Model, Stage, StageConfig, Tree, class_table

MODELS = "affectjax.models"
# The fields of a model that the program fills.
FILLED = ("outputs", "modalities", "axis_name")
# What may read the text.
TEXTS = FEATURES, BERT = "features", "bert"


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """What of `config.model` is the same for all models; the rest are the fields of the model.

    Attributes:
      name: of the model: a file of `affectjax.models` that has a `Model`, or the dotted name of a
        module of one's own. `Model` is a Flax module with the fields outputs, modalities and
        axis_name, and maps `(batch, train=...)` to the predictions `[B, outputs]` and a dict.
      modalities: those to use, () for all that the data has.
      text: what reads the text: "features", the model itself; or "bert", whose token states the
        model then reads, of data in words.
    """

    name: str = "mcr"
    modalities: tuple[str, ...] = ()
    text: str = "features"

    def __post_init__(self):
        if self.text not in TEXTS:
            raise ValueError(f"text is {self.text!r}; allowed: {', '.join(TEXTS)}")


def models() -> tuple[str, ...]:
    """Returns the names of the models in this package that read a batch of sequences."""
    found = lookup.names(MODELS)
    return tuple(n for n in found if hasattr(importlib.import_module(f"{MODELS}.{n}"), "Model"))


def find(name: str) -> type:
    """Returns the Flax module that `config.model.name` names.

    Raises:
      InputError: there is none.
    """
    if not isinstance(name, str) or ("." not in name and name not in models()):
        raise InputError(
            f'"config.model.name" is {name!r}; allowed: {", ".join(models())}, or the dotted name '
            "of a module of your own"
        )
    module = lookup.find(MODELS, name, '"config.model.name"')
    if not hasattr(module, "Model"):
        raise InputError(f'"config.model.name" is {name!r}, but that module has no Model')
    return module.Model


def sections(config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the parts of the sections that it reads, see `affectjax.tasks.base.sections`."""
    configs.check_keys(config["stages"], ("train",), "config.stages")
    name = config["model"].get("name", ModelConfig.name)
    others = [configs.of_module(find(other), *FILLED) for other in models() if other != name]
    reads = config["model"].get("text") == BERT
    towers = states.parts(config["model"]) if reads else ()
    unused = () if reads else states.parts({})
    return {
        "model": (
            (ModelConfig, configs.of_module(find(name), *FILLED), *towers),
            (*others, *unused),
        ),
        "stages.train": ((StageConfig,), ()),
    }


class Task:
    """One stage, `train`; every parameter trains.

    Attributes: see `affectjax.tasks.base.Task`.
    """

    def __init__(
        self,
        config: Mapping[str, Any],
        inputs: Inputs,
        axis_name: str | None,
    ):
        """Builds the model and the stage.

        Args:
          config: the whole config.
          inputs: what the batches hold: features only.
          axis_name: the mapped axis over which a batch is split, None where it is whole.

        Raises:
          InputError: a key that nobody reads, or a value that is not allowed.
        """
        self.spec, self.axis_name = inputs.spec, axis_name
        parts, others = sections(config)["model"]
        settings, fields, *tower = configs.read(parts, config["model"], "config.model", others)
        for m, kind in inputs.kinds.items():
            if not isinstance(kind, Features) and not (m == "text" and tower):
                words = ', or "config.model.text" to "bert"' if m == "text" else ""
                raise InputError(
                    f"MCR and MulT read feature sequences, but {m} is {kind.kind}; set "
                    f'"config.data.view" to "sequences"{words}'
                )
        self.tower = states.StateTower(*tower, inputs) if tower else None
        self.modalities = chosen(settings.modalities, inputs.modalities, "config.model.modalities")
        outputs = {
            "score": 1,
            "class": len(self.spec.classes),
            "binary": 2 * len(self.spec.classes),
        }
        try:
            self.model = find(settings.name)(
                outputs=outputs[self.spec.kind],
                modalities=self.modalities,
                axis_name=axis_name,
                **vars(fields),
            )
        except ValueError as error:
            raise InputError(str(error)) from error
        stage = configs.read(StageConfig, config["stages"]["train"], "config.stages.train")
        optim = configs.read(OptimConfig, config["optim"], "config.optim")
        self.stages = (
            Stage(
                "train",
                stage.rules(),
                optim,
                loss=self.loss,
                init=self.init,
                prepare=self.load_pretrained,
                trains=lambda path: self.tower is None or not path.startswith(self.tower.frozen),
            ),
        )

    def init(self, key: jax.Array, batch: Batch) -> tuple[Tree, Tree]:
        """Returns new params, and no variables: neither model has any."""
        below: Tree = {}
        if self.tower is not None:
            below, batch = self.tower.init(jax.random.fold_in(key, 1), batch)
        return below | self.model.init(key, batch, train=False)["params"], {}

    def load_pretrained(self, model: Model) -> Model:
        """Returns a new model, host side, with the tower that came from a folder."""
        if self.tower is None:
            return model
        return {**model, "params": {**model["params"], **self.tower.pretrained}}

    def _apply(
        self, params: Tree, batch: Batch, key: jax.Array | None = None
    ) -> tuple[jax.Array, dict[str, Any]]:
        """Returns what the model does; it trains where there is a key."""
        rngs = {} if key is None else {"dropout": key}
        if self.tower is not None:
            below = None if key is None else jax.random.fold_in(key, 1)
            params, batch = self.tower.read(params, batch, below)
        return self.model.apply({"params": params}, batch, train=key is not None, rngs=rngs)

    def loss(
        self, params: Tree, variables: Tree, batch: Batch, rng: jax.Array
    ) -> tuple[jax.Array, tuple[Tree, dict[str, jax.Array]]]:
        """Returns this device's part of the mean loss over the batch (section 4.2)."""
        logits, _ = self._apply(params, batch, rng)
        each = self._each(logits, batch["label"])
        loss = losses.weighted_mean(each, batch["weight"], self.axis_name)
        return loss, (variables, {"loss": loss})

    def _each(self, logits: jax.Array, label: jax.Array) -> jax.Array:
        """Returns `[B]` losses."""
        if self.spec.kind == "score":
            return losses.l1(logits[:, 0], label)
        if self.spec.kind == "class":
            return losses.cross_entropy(logits, label)
        return losses.binary_tasks(logits.reshape(*label.shape, 2), label)

    def predict(self, params: Tree, variables: Tree, batch: Batch) -> dict[str, jax.Array]:
        """Returns `loss` `[B]` and `score` `[B]`, or `probability`: `[B, C]`, or `[B, K]` of yes.

        Of classes also `logits` `[B, C]`.
        """
        logits, _ = self._apply(params, batch)
        out = {"loss": self._each(logits, batch["label"])}
        if self.spec.kind == "score":
            return out | {"score": logits[:, 0]}
        if self.spec.kind == "class":
            return out | {"probability": jax.nn.softmax(logits), "logits": logits}
        pairs = logits.reshape(len(logits), -1, 2)
        return out | {"probability": jnp.take(jax.nn.softmax(pairs), 1, axis=-1)}

    def metric_names(self) -> tuple[str, ...]:
        """Returns the names of the metrics that are numbers."""
        return ("loss", *metrics.names_of_kind(self.spec.kind, self.spec.classes))

    def metrics(self, predictions: Mapping[str, np.ndarray], label: np.ndarray) -> dict:
        """Returns the metrics of the label's kind, and the mean loss."""
        loss = float(predictions["loss"].mean(dtype=np.float64))
        return {"loss": loss, **base.measure(self, predictions, label)}

    def table(self, predictions: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Returns `prediction`, then a column a class (probability), or none for scores."""
        if self.spec.kind == "score":
            return {"prediction": predictions["score"]}
        probability = predictions["probability"]
        if self.spec.kind == "class":
            return class_table(probability, self.spec.classes)
        names = np.array(self.spec.classes)
        yes = probability > 0.5
        prediction = np.array(["+".join(names[row]) or "none" for row in yes])
        return {"prediction": prediction, **dict(zip(names.tolist(), probability.T, strict=True))}
