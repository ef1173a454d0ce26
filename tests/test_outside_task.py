"""A task of one's own, in a folder outside the package, found by its dotted name."""

import sys

import pytest
from conftest import lines_of, toy_config

from affectjax.errors import InputError
from affectjax.training import evaluator, loop

# All that a task needs: a linear model of the mean text feature.
TASK = """
import jax
import jax.numpy as jnp
import numpy as np

from affectjax import metrics
from affectjax.ops import losses
from affectjax.runtime import configs
from affectjax.runtime.optim import OptimConfig
from affectjax.tasks.base import Stage, StageConfig, class_table


class Task:
    modalities = ("text",)

    def __init__(self, config, inputs, axis_name):
        self.spec, self.axis_name = inputs.spec, axis_name
        stage = configs.read(StageConfig, config["stages"]["train"], "config.stages.train")
        optim = configs.read(OptimConfig, config["optim"], "config.optim")
        self.stages = (Stage("train", stage.rules(), optim, loss=self.loss, init=self.init),)

    def init(self, key, batch):
        width = batch["text"]["x"].shape[-1]
        return {"kernel": jnp.zeros((width, len(self.spec.classes)))}, {}

    def logits(self, params, batch):
        mask = batch["text"]["mask"][..., None]
        total = jnp.where(mask, batch["text"]["x"], 0).sum(1)
        return total / jnp.maximum(mask.sum(1), 1) @ params["kernel"]

    def loss(self, params, variables, batch, rng):
        each = losses.cross_entropy(self.logits(params, batch), batch["label"])
        loss = losses.weighted_mean(each, batch["weight"], self.axis_name)
        return loss, (variables, {"loss": loss})

    def predict(self, params, variables, batch):
        logits = self.logits(params, batch)
        loss = losses.cross_entropy(logits, batch["label"])
        return {"loss": loss, "probability": jax.nn.softmax(logits)}

    def metric_names(self):
        return ("loss", *metrics.classification_names(self.spec.classes))

    def metrics(self, predictions, label):
        named = metrics.classification(predictions["probability"], label, self.spec.classes)
        return {"loss": float(predictions["loss"].mean(dtype=np.float64)), **named}

    def table(self, predictions):
        return class_table(predictions["probability"], self.spec.classes)
"""


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Makes `theirpackage.linear` importable, and forgets it afterwards."""
    folder = tmp_path / "elsewhere" / "theirpackage"
    folder.mkdir(parents=True)
    (folder / "__init__.py").touch()
    (folder / "linear.py").write_text(TASK)
    (folder / "empty.py").touch()
    monkeypatch.syspath_prepend(str(folder.parent))
    yield
    for name in [n for n in sys.modules if n.startswith("theirpackage")]:
        del sys.modules[name]


def outside(own, name):
    config = toy_config(own, stages__train__epochs=8, stages__train__select="loss")
    config.task = name
    with config.unlocked():
        config.model = {}
        config.stages.train = {"epochs": 8, "batch_size": 8}
    return config


def test_it_trains_and_is_evaluated_again(package, own, tmp_path):
    result = loop.train(outside(own, "theirpackage.linear"), tmp_path / "run")
    trained = [line["loss"] for line in lines_of(tmp_path / "run") if line["split"] == "train"]
    assert len(trained) == 8 and trained[-1] < trained[0]
    assert evaluator.evaluate(tmp_path / "run") == result


REFUSED = {
    "no module": ("theirpackage.square", "theirpackage.square"),
    "no package": ("nobody.linear", "nobody"),
    "no task": ("theirpackage.empty", "that module has no Task"),
    "base is none": ("base", "mcr"),
}


@pytest.mark.parametrize(("name", "said"), REFUSED.values(), ids=REFUSED.keys())
def test_what_is_no_task(package, own, tmp_path, name, said):
    with pytest.raises(InputError, match=r"config\.task") as caught:
        loop.train(outside(own, name), tmp_path / "run")
    assert said in str(caught.value)
    assert not (tmp_path / "run").exists()
