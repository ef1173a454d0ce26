"""MCR over sentences: BERT below it, adapted by LoRA."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util
from numpy_mcr import quick

from affectjax import weights
from affectjax.data.batches.inputs import Features, Inputs, Text
from affectjax.data.batches.tokenizer import Tokenizer
from affectjax.data.labels import LabelSpec
from affectjax.errors import InputError
from affectjax.models.bert import Bert
from affectjax.tasks import mcr
from affectjax.training import run_config
from configs import mcr as file

KEY = jax.random.key(0)
LORA = {"lora_rank": 2, "lora_alpha": 4.0, "lora_dropout": 0.0}
SENTENCES = ["what a day", "well", "a well", "day"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A local folder with the weights of a tiny BERT of three layers and its tokenizer."""
    towers = pytest.importorskip("torch_towers")
    path = tmp_path_factory.mktemp("bert")
    words = Tokenizer.train(SENTENCES)
    words.save(path)
    towers.bert_model(vocab_size=words.vocab).save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def make(folder):
    """Returns a function: the task with these keys of the model in place of others."""

    def build(kinds=None, **model):
        kinds = kinds or {"text": Text(6), "audio": Features(4, 3)}
        words = Tokenizer.load(folder) if isinstance(kinds["text"], Text) else None
        inputs = Inputs(kinds, LabelSpec("score"), tokenizer=words)
        own = {
            "text": "bert", "bert_weights": str(folder), "kernels": {"text": 1, "audio": 1},
            "width": 8, "heads": 2, "layers": 1, **LORA,
        }  # fmt: skip
        section = {k: v for k, v in (own | model).items() if v is not None}
        config = {
            "model": section, "stages": {"train": {"epochs": 1, "batch_size": 4}}, "optim": {},
        }  # fmt: skip
        task = mcr.Task(config, inputs, None)
        sound = np.random.default_rng(0).normal(size=(4, 3)).astype("f4")
        records = [{"transcript": text, "audio": sound, "label": 1.0} for text in SENTENCES]
        return task, jax.tree.map(jnp.asarray, inputs.collate(records))

    return build


def start(task, batch):
    made = quick(lambda key: task.init(key, batch)[0])(KEY)
    loaded = task.load_pretrained({"params": made, "variables": {}})["params"]
    return jax.tree.map(jnp.asarray, loaded)


def score(task, params, batch):
    return np.asarray(quick(lambda p, b: task.predict(p, {}, b)["score"])(params, batch))


def test_the_model_reads_the_states_of_the_tower(make, folder):
    task, batch = make()
    params = start(task, batch)
    found = weights.bert(folder)
    text = batch["text"]
    tower = quick(lambda p, x, mask: Bert(**found.args).apply({"params": p}, x, mask)[1])
    out = tower(found.params, text["x"], text["mask"])
    own = {name: leaf for name, leaf in params.items() if name not in ("text_tower", "lora")}
    seen = {**batch, "text": {"x": out["last"], "mask": text["mask"]}}
    read = quick(lambda p, b: task.model.apply({"params": p}, b, train=False)[0])
    expected = read(own, seen)
    np.testing.assert_allclose(score(task, params, batch), expected[:, 0], atol=1e-5)


@pytest.mark.parametrize(
    ("tuned", "expected"), [(0, (True, True, True)), (1, (False, False, True))]
)
def test_lora_trains_the_highest_layers_alone(make, tuned, expected):
    task, batch = make(tuned_layers=tuned)
    params = start(task, batch)
    (stage,) = task.stages
    assert not stage.trains("text_tower/blocks/query/kernel")
    assert stage.trains("lora/text_tower/blocks/query/kernel/a") and stage.trains("head/kernel")
    lora = jax.tree.map(lambda x: x + 0.1, params["lora"])

    def loss(tower):
        return task.loss(params | {"text_tower": tower, "lora": lora}, {}, batch, KEY)[0]

    grads = quick(jax.grad(loss))(params["text_tower"])
    moved = np.abs(np.asarray(grads["blocks"]["up"]["kernel"])).sum((1, 2)) > 0
    assert tuple(moved) == expected
    assert bool(np.abs(grads["token"]).sum() > 0) == expected[0]
    added = traverse_util.flatten_dict(lora, sep="/").values()
    assert {len(leaf) for leaf in added} == {sum(expected)}
    # What is added to the kernels is seen, and a rank of 0 is the tower as it came.
    plain, _ = make(lora_rank=0, lora_alpha=None, lora_dropout=None)
    bare = {name: leaf for name, leaf in params.items() if name != "lora"}
    np.testing.assert_allclose(
        score(task, params, batch), score(plain, bare, batch), atol=1e-6
    )  # b is zero at first
    changed = score(task, params | {"lora": lora}, batch)
    assert np.abs(changed - score(plain, bare, batch)).max() > 1e-4


def test_layers_without_a_gradient_compute_the_same(folder):
    found = weights.bert(folder)
    tokens = jnp.array([[1, 2, 3, 0]])
    whole, still = (
        quick(
            lambda p, n=n: Bert(**found.args, still=n).apply({"params": p}, tokens, tokens > 0)[0]
        )
        for n in (0, 1)
    )
    np.testing.assert_allclose(whole(found.params), still(found.params), atol=1e-6)


def test_the_loss_of_a_step_moves_lora(make):
    task, batch = make()
    params = start(task, batch)
    of = lambda lora: task.loss(params | {"lora": lora}, {}, batch, KEY)[0]  # noqa: E731
    grads = traverse_util.flatten_dict(quick(jax.grad(of))(params["lora"]), sep="/")
    assert all(np.abs(g).sum() > 0 for path, g in grads.items() if path.endswith("/b"))


def test_the_variant_lora_asks_for_the_folders_alone(folder):
    config = file.get_config("mosi,lora")
    with pytest.raises(InputError, match="bert_weights is empty"):
        run_config.resolve(config)
    config.model.bert_weights = config.data.tokenizer = str(folder)
    whole = run_config.resolve(config)
    kinds = {"text": Text(6), "audio": Features(4, 3)}
    inputs = Inputs(kinds, LabelSpec("score"), tokenizer=Tokenizer.load(folder))
    task = mcr.Task(whole, inputs, None)
    assert task.tower is not None and task.stages[0].rules.select == "last"


REFUSED = {
    "no weights": ({"bert_weights": None}, None, "bert_weights is empty; give a local folder"),
    "another reader": ({"text": "clip"}, None, "belongs to"),
    "too many layers": ({"tuned_layers": 9}, None, "has 3 layers; allowed: at most so many"),
    "below 0": ({"tuned_layers": -1}, None, 'tuned_layers" is -1; allowed: whole numbers'),
    "no words": (
        {}, {"text": Features(5, 4), "audio": Features(4, 3)}, '"config.data.words" to True',
    ),
    "words without a reader": (
        dict.fromkeys(("text", "bert_weights", *LORA)), None, '"config.model.text" to "bert"',
    ),
    "a key of the tower": (
        {"text": None}, None, '"config.model.bert_weights" is .*, but this run does not read it',
    ),
}  # fmt: skip


@pytest.mark.parametrize(("changes", "kinds", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_what_is_refused(make, changes, kinds, message):
    with pytest.raises(InputError, match=message):
        make(kinds, **changes)
