"""UMBEnet whose towers with weights LoRA adapts: what trains, and what it computes.

Letters: B examples, C classes.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import CLIP_SIZE
from flax import traverse_util
from numpy_mcr import quick

from affectjax import weights
from affectjax.data.batches.inputs import Features, Frames, Inputs, Text, Waveform
from affectjax.data.batches.tokenizer import Tokenizer
from affectjax.data.labels import LabelSpec
from affectjax.errors import InputError
from affectjax.modalities import MODALITIES
from affectjax.runtime import optim, steps
from affectjax.runtime.configs import section
from affectjax.runtime.optim import OptimConfig
from affectjax.runtime.parallel import AXIS
from affectjax.tasks.umbenet import Task, UMBEnetStage
from affectjax.tasks.umbenet.assembly import TEXT_READER, choose

CLASSES = ("angry", "glad", "sad")
B = 6
KINDS = {"text": Text(8), "audio": Waveform(1600), "vision": Frames(2, CLIP_SIZE)}
SMALL = {
    "text": "clip", "audio": "clap", "vision": "clip", "heads": 2, "temporal_heads": 2,
    "temporal_layers": 1, "pool_size": 4, "top_k": 4, "prompt_tokens": 2, "inherent_tokens": 2,
    "gate_hidden": 4, "logit_scale": 5.0,
}  # fmt: skip
LORA = {"lora_rank": 2, "lora_alpha": 4.0, "lora_dropout": 0.25}
TOWERS = ("text_tower", "image_tower", "audio_clap")
KEY = jax.random.key(3)


@pytest.fixture(scope="module")
def folders(clip_folder, clap_folder, speech_folder):
    """Returns by key of the config the folder with weights."""
    found = {"weights": clip_folder, "clap_weights": clap_folder, "wav2vec2_weights": speech_folder}
    return {key: str(folder) for key, folder in found.items()}


@pytest.fixture(scope="module")
def make(folders):
    """Returns what builds a task; `audio` decides whose weights read sound."""

    def make(kinds=KINDS, **changes):
        model = SMALL | {"weights": folders["weights"]} | changes
        key = f"{model['audio']}_weights"
        model = {key: folders[key]} | model if key in folders else model
        config = {
            "model": section(choose(model).parts, **model),
            "data": {"without": ()},
            "optim": section(OptimConfig, learning_rate=3e-3),
            "stages": {
                "missing": section(UMBEnetStage, epochs=1, batch_size=B, shows="all"),
            },
        }
        words = Tokenizer.load(folders["weights"]) if "text" in kinds else None
        return Task(config, Inputs(kinds, LabelSpec("class", CLASSES), tokenizer=words), None)

    return make


@pytest.fixture(scope="module")
def batch(clip_folder):
    """Returns a batch in which everything is there."""
    rng, tokenizer = np.random.default_rng(0), Tokenizer.load(clip_folder)
    x, mask = tokenizer.encode(["what a day", "well", "what a sad day"] * 2, 8)
    sound = 0.1 * rng.normal(size=(B, 1600)).astype("f4")
    frames = rng.integers(0, 255, (B, 2, CLIP_SIZE, CLIP_SIZE, 3)).astype("u1")
    return {
        "text": {"x": x, "mask": mask},
        "audio": {"x": sound, "mask": np.ones((B, 1600), bool)},
        "vision": {"x": frames, "mask": np.ones((B, 2), bool)},
        "present": {m: np.ones(B, bool) for m in MODALITIES},
        "label": np.arange(B, dtype=np.int32) % len(CLASSES),
        "weight": np.ones(B, np.float32),
    }


def start(of):
    """Returns the params that a run starts with, and the variables."""
    params, variables = quick(of.init)(jax.random.key(0), of.inputs.zeros(2))
    model = of.load_pretrained({"params": jax.device_get(params), "variables": variables})
    return model["params"], variables


def grown(params, size=0.3):
    """Returns the params with all that LoRA adds drawn, `b` too."""
    rng = np.random.default_rng(1)
    draw = lambda x: (size * rng.normal(size=x.shape)).astype("f4")  # noqa: E731
    return {**params, "lora": jax.tree.map(draw, params["lora"])}


def flat(tree):
    return traverse_util.flatten_dict(tree, sep="/")


def loss_of(of):
    return functools.partial(of.stages[0].loss, **of.stages[0].settings)


@pytest.fixture(scope="module")
def adapted(make):
    """Returns a task with LoRA on three towers, and what it starts with."""
    of = make(**LORA)
    return of, *start(of)


def test_of_towers_with_weights_lora_trains_alone(adapted, folders):
    of, params, _ = adapted
    clip, clap = weights.clip(folders["weights"]), weights.clap(folders["clap_weights"])
    for name, given in (*clip.params.items(), ("audio_clap", clap.params["audio_tower"])):
        jax.tree.map(np.testing.assert_array_equal, params[name], given)
    assert set(params["lora"]) == set(TOWERS) and TEXT_READER not in params
    still = {path for path in flat(params) if not of.stages[0].trains(path)}
    assert still == {path for path in flat(params) if path.split("/")[0] in TOWERS}
    added = flat(params["lora"])
    for name in TOWERS:
        kernels = {path.split("/")[-3] for path in added if path.startswith(name)}
        assert kernels == {"query", "key", "value", "out"}, name
    assert added["image_tower/blocks/query/kernel/a"].shape == (2, 24, 2)


def test_just_what_a_loss_moves_trains(adapted, batch):
    """Where `b` is not zero everything that trains gets a gradient; a step drops, others do not."""
    of, params, variables = adapted
    run = quick(jax.grad(loss_of(of), has_aux=True))
    gradient, (_, measured) = run(grown(params), variables, batch, KEY)
    moved = {path: bool(np.any(x)) for path, x in flat(gradient).items()}
    own = {p: m for p, m in moved.items() if p.startswith("lora/") or of.stages[0].trains(p)}
    assert own and not [path for path, is_moved in own.items() if not is_moved]
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(gradient))
    whole = quick(of.predict)(grown(params), variables, batch)["loss"].mean()
    assert abs(measured["cross_entropy"] - whole) > 1e-3
    assert of.model.dropout == 0


@pytest.mark.parametrize("audio", ["clap", "wav2vec2"])
def test_it_begins_exactly_as_without_lora(make, batch, audio):
    of = make(audio=audio, **LORA)
    params, variables = start(of)
    plain = make(audio=audio)
    theirs, _ = start(plain)
    fewer = {name: own for name, own in params.items() if name != "lora"}
    jax.tree.map(np.testing.assert_array_equal, fewer, theirs)
    read = jax.device_get(of.assembly.adapt(params))
    for name, other in of.assembly.adapted.items():
        jax.tree.map(np.testing.assert_array_equal, read[other], params[name])
    # Step by step: compiled as a whole, other programs make their sums in another order.
    params, theirs, given = jax.tree.map(jnp.asarray, (params, theirs, batch))
    expected = plain.predict(theirs, variables, given)
    jax.tree.map(np.testing.assert_array_equal, of.predict(params, variables, given), expected)
    later = quick(of.predict)(grown(params), variables, batch)
    assert np.abs(later["logits"] - expected["logits"]).max() > 1e-3


def test_merged_towers_give_the_same(make, batch):
    """Of sound and frames: the adapters added to the weights once are a UMBEnet as any other."""
    kinds = {m: KINDS[m] for m in ("audio", "vision")}
    of, plain = make(kinds, **LORA), make(kinds)
    params, variables = start(of)
    params = grown(params)
    assert set(params["lora"]) == {"image_tower", "audio_clap"}
    merged = jax.device_get(of.assembly.adapt(params))
    expected = quick(of.predict)(params, variables, batch)["logits"]
    got = quick(plain.predict)(merged, variables, batch)["logits"]
    np.testing.assert_allclose(got, expected, atol=1e-5)


def test_class_prompts_are_made_without_lora(adapted, batch):
    """All prompts are chosen, so that the classes depend on the clip by their order alone."""
    of, params, variables = adapted
    run = quick(lambda p: of.model.apply({"params": of.assembly.adapt(p), **variables}, batch,
                                         train=False)[1])  # fmt: skip
    # Equal prompts, whatever their order.
    pool = params["pool"]
    same = {**pool, "values": np.broadcast_to(pool["values"][:1], pool["values"].shape)}
    params = {**params, "pool": same}
    before, after = run(params), run(grown(params))
    np.testing.assert_allclose(after["class_feature"], before["class_feature"], atol=1e-6)
    for m in MODALITIES:
        assert np.abs(after[f"feature/{m}"] - before[f"feature/{m}"]).max() > 1e-3, m


def moved_along(tree, direction, step):
    return jax.tree.map(lambda x, g: x + step * g, tree, direction)


def test_the_gradient_of_the_adapters_is_that_of_the_loss(make, batch):
    """By central differences along the gradient: nothing that depends on them is cut off."""
    of = make(**LORA | {"lora_dropout": 0.0}, pull=0.0)
    params, variables = start(of)
    params = grown(params, 0.1)
    loss = loss_of(of)
    run = quick(jax.value_and_grad(lambda p: loss(p, variables, batch, KEY)[0]))
    _, gradient = run(params)
    for name in TOWERS:
        own = jax.tree.map(np.asarray, gradient["lora"][name])
        norm = float(np.sqrt(sum((x**2).sum() for x in jax.tree.leaves(own))))
        assert norm > 1e-4
        either = [
            params["lora"] | {name: moved_along(params["lora"][name], own, step / norm)}
            for step in (1e-3, -1e-3)
        ]
        above, below = (float(run({**params, "lora": added})[0]) for added in either)
        slope = (above - below) / 2e-3
        assert slope == pytest.approx(norm, rel=0.01), name


def test_the_loss_falls_and_the_weights_stay_bit_for_bit(adapted, batch):
    of, params, variables = adapted
    stage, tx = of.stages[0], optim.optimizer(of.stages[0].optim)
    trained, frozen = steps.split_params(params, stage.trains)
    before = jax.tree.map(np.array, frozen)
    state = steps.new_state(trained, variables, tx, KEY)
    # The step is of one device, of which there is an axis.
    step = jax.vmap(steps.train_step(stage.loss, tx), (0, None, 0, None, None), axis_name=AXIS)
    step, own, losses = quick(step), jax.tree.map(lambda x: x[None], batch), []
    state = jax.tree.map(lambda x: x[None], state)
    for _ in range(25):
        state, measured = step(state, frozen, own, 3e-3, stage.settings)
        losses.append(float(measured["loss"][0]))
    state = jax.tree.map(lambda x: x[0], state)
    assert np.mean(losses[-5:]) < 0.8 * losses[0]
    jax.tree.map(np.testing.assert_array_equal, frozen, before)
    at_first, now = flat(params["lora"]), flat(state["params"]["lora"])
    assert all(np.any(now[path] != at_first[path]) for path in at_first)
    moments = {path.split("/")[0] for path in flat(state["opt"][1].mu)}
    assert "lora" in moments and not moments & set(TOWERS)


def test_a_tower_that_is_frozen_has_no_lora(make, batch):
    of = make(frozen=("text_tower", "audio_clap"), **LORA)
    params, variables = start(of)
    assert set(params["lora"]) == {"image_tower"}
    assert not of.stages[0].trains("audio_clap/stage_0_0/query/kernel")
    assert np.isfinite(quick(of.predict)(params, variables, batch)["logits"]).all()


def test_lora_on_all_projections(make):
    of = make(lora_targets="all", **LORA)
    shapes = jax.eval_shape(lambda k: of.init(k, of.inputs.zeros(2))[0], KEY)
    added = flat(shapes["lora"])
    for name in TOWERS:
        kernels = {path.split("/")[-3] for path in added if path.startswith(name)}
        assert kernels == {"query", "key", "value", "out", "up", "down"}, name


def test_lora_on_bert(make, folders, tmp_path):
    towers = pytest.importorskip("torch_towers")
    words = Tokenizer.load(folders["weights"])
    words.save(tmp_path)
    towers.bert_model(vocab_size=words.vocab).save_pretrained(tmp_path)
    of = make({"text": Text(8)}, text="bert", bert_weights=str(tmp_path), **LORA)
    shapes = jax.eval_shape(lambda k: of.init(k, of.inputs.zeros(2))[0], KEY)
    assert set(shapes["lora"]) == {"bert_tower"}
    assert not of.stages[0].trains("bert_tower/blocks/query/kernel")
    assert not of.stages[0].trains("text_tower/token")


STORED = {"audio": Features(4, 6), "vision": Features(2, 16)}
REFUSED = {
    "without weights": (
        {"weights": "", "audio": "mel", "lora_rank": 2}, KINDS,
        'config.model.lora_rank" is 2, but this run does not read it',
    ),
    "of nothing": (
        {"lora_alpha": 2.0}, KINDS, 'config.model.lora_alpha" is 2.0, but this run does not read',
    ),
    "below 0": ({"lora_rank": -1}, KINDS, 'lora_rank" is -1; allowed: whole numbers'),
    "alpha": (LORA | {"lora_alpha": 0.0}, KINDS, "alpha of LoRA is 0.0; allowed: numbers above 0"),
    "targets": (
        LORA | {"lora_targets": "mlp"}, KINDS, "lora_targets is 'mlp'; allowed: attention, all",
    ),
    "a tower without weights": (
        LORA | {"audio": "clap", "clap_weights": ""}, KINDS,
        'lora_rank" is 2, but "config.model.clap_weights" is empty; allowed: a folder with weights',
    ),
    "all frozen": (
        LORA | {"frozen": TOWERS}, KINDS,
        'lora_rank" is 2, but no tower with weights reads clips, or all that do are in frozen',
    ),
    "all encoded": (
        LORA | {"audio": "features"}, STORED,
        'lora_rank" is 2, but no tower with weights reads clips',
    ),
}  # fmt: skip


@pytest.mark.parametrize(("changes", "kinds", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_what_is_refused(make, changes, kinds, message):
    with pytest.raises(InputError, match=message):
        choose(SMALL | {"weights": "somewhere"} | changes).read()
        make(kinds, **changes)


def test_dropout_is_of_training_alone(adapted, batch):
    of, params, _ = adapted
    params = grown(params)
    run = quick(lambda key: of.assembly.adapt(params, key))
    one, same, other = run(KEY), run(KEY), run(jax.random.key(4))
    name = "image_tower"
    jax.tree.map(np.testing.assert_array_equal, one, same)
    kernel = lambda x: x[name]["blocks"]["query"]["kernel"]  # noqa: E731
    assert np.any(kernel(one) != kernel(other))
    assert np.all(np.asarray(jnp.isfinite(kernel(one))))
