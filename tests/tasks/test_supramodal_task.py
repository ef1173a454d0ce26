"""The supramodal task: its losses against NumPy, what trains, what guides, and what it refuses.

Letters: B examples, D features of a tower, E of an emotion, C classes.
"""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import numpy_concepts
import numpy_supramodal as ref
import pytest
from conftest import CLIP_SIZE
from flax import traverse_util
from numpy_mcr import draw, quick
from test_configs import Noted

from affectjax import weights
from affectjax.data.batches.inputs import Features, Frames, Inputs, Text, Waveform
from affectjax.data.batches.tokenizer import Tokenizer
from affectjax.data.labels import LabelSpec
from affectjax.emotions import SEVEN, THREE
from affectjax.encoders.adaptation import Adaptation
from affectjax.encoders.augmentation import SoundAugmentation
from affectjax.errors import InputError
from affectjax.modalities import MODALITIES
from affectjax.runtime.configs import fields, section
from affectjax.runtime.optim import OptimConfig
from affectjax.tasks import base, supramodal
from affectjax.tasks.base import StageEnd
from affectjax.tasks.supramodal import GUIDED_PARTS, Task, concept_bank
from affectjax.tasks.supramodal.concept_bank import ConceptBank
from affectjax.tasks.supramodal.downstream import BANK, GuidedConfig
from affectjax.tasks.supramodal.stages import (
    ConceptsConfig,
    DownstreamStage,
    JointStage,
    SequentialStage,
)
from affectjax.tasks.supramodal.towers import LearnerConfig, choose

D, E = 8, 6
SPECS = {m: LabelSpec("class", THREE if m == "text" else SEVEN) for m in MODALITIES}
KINDS = {"text": Features(3, 5), "audio": Features(4, 6), "vision": Features(2, 3)}
LEARNER = {
    "text": "features", "audio": "features", "vision": "features", "width": D, "hidden": E,
    "sequence_heads": 2,
}  # fmt: skip
GUIDED = {"guide": False, "feature": E, "heads": 2, "layers": 1}
# Of the three modalities; text has no surprise. The last but one only pads, in vision two do.
LABELS = {
    "text": [0, 1, 2, 2, 0],
    "audio": [0, 3, 4, 6, 5, 3, 1],
    "vision": [3, 2, 6, 4, 4, 1],
}
WEIGHTS = {
    "text": [1, 1, 1, 0, 1],
    "audio": [1, 1, 1, 1, 1, 0, 1],
    "vision": [1, 1, 1, 0, 1, 0],
}
KINDS_OF_STAGES = {
    "joint": JointStage,
    "sequential": SequentialStage,
    "concepts": ConceptsConfig,
    "downstream": DownstreamStage,
}
SIZES = {"epochs": 1, "batch_size": 8}


def learner_section(values, modalities):
    """Returns `config.model.learner` with those values that the encoders of modalities read."""
    chosen = choose(values, modalities).parts
    known = fields(*chosen)
    return section(chosen, **{key: value for key, value in values.items() if key in known})


def config(stages, guided=None, optim=None, modalities=MODALITIES, **learner):
    """Returns what of a config the task reads."""
    sections = {
        name: section(
            KINDS_OF_STAGES[name], **({} if name == "concepts" else dict(SIZES)) | changes
        )
        for name, changes in stages.items()
    }
    model = {}
    if "joint" in stages or "sequential" in stages:
        model["learner"] = learner_section(LEARNER | learner, modalities)
    if "downstream" in stages:
        model["guided"] = section(GUIDED_PARTS, **GUIDED | (guided or {}))
    return {
        "model": model,
        "optim": section(OptimConfig, **optim or {}),
        "stages": sections,
    }


def sources_of(kinds=KINDS, specs=SPECS, **tokenizers):
    return {
        m: Inputs({m: kind}, specs[m], tokenizer=tokenizers.get(m)) for m, kind in kinds.items()
    }


def learning(stages, axis_name=None, sources=None, **changes):
    sources = sources_of() if sources is None else sources
    return Task(config(stages, modalities=tuple(sources), **changes), None, axis_name, sources)


def unpaired(seed=0, labels=LABELS):
    """Returns a batch of each modality: 5 texts, 7 sounds and 6 faces."""
    rng, batch = np.random.default_rng(seed), {}
    for m, kind in KINDS.items():
        size = len(labels[m])
        batch[m] = {
            m: {
                "x": rng.standard_normal((size, *kind.shape)).astype(np.float32),
                "mask": np.arange(kind.length) < rng.integers(1, kind.length + 1, size)[:, None],
            },
            "present": {m: np.ones(size, bool)},
            "label": np.array(labels[m], np.int32),
            "weight": np.array(WEIGHTS[m], np.float32),
        }
    return batch


@functools.cache
def start(of):
    """Returns drawn params and the statistics at the start of the learner."""
    stage = of.stages[0]
    shapes = jax.eval_shape(lambda key: stage.init(key, unpaired()), jax.random.key(0))
    stats = jax.tree_util.tree_map_with_path(
        lambda path, x: np.full(x.shape, path[-1].key.startswith("var"), np.float32), shapes[1]
    )
    return draw(shapes[0], 0), stats


@functools.cache
def read():
    """Returns `params, variables, batch -> what the network gives of each modality in training`."""
    net = learning({"joint": {}}).learner.model

    def run(params, variables, batch):
        views = {m: {**batch[m][m], "weight": batch[m]["weight"]} for m in batch}
        return net.apply(
            {"params": params, **variables},
            views,
            method="read",
            train=True,
            mutable=list(variables),
            rngs={"dropout": jax.random.key(0)},
        )

    return quick(run)


KEY = jax.random.key(3)


# ---- the joint loss -----------------------------------------------------------------------------


def joint_by_hand(found, batch, stage):
    """Returns the terms of equation 4 by name."""
    weight = {m: batch[m]["weight"] for m in MODALITIES}
    own = {m: batch[m]["label"] for m in MODALITIES}
    classes = {m: SPECS[m].classes for m in MODALITIES}
    label = {m: [ref.merged(c, classes[m]) for c in own[m]] for m in MODALITIES}
    fine = [m for m in MODALITIES if classes[m] == SEVEN]
    entropy = sum(ref.entropy(found[m]["three"], label[m], weight[m]) for m in MODALITIES)
    if stage.get("labels") == "both":
        entropy += sum(ref.entropy(found[m]["seven"], own[m], weight[m]) for m in fine)
    margin = stage.get("margin", 0.2)
    triplet, count = ref.triplets(found, label, weight, margin)
    if stage.get("contrast_seven"):
        triplet += ref.triplets(found, {m: own[m] for m in fine}, weight, margin)[0]
    orthogonal = sum(
        ref.orthogonality(
            found[m], weight[m], stage.get("unit_length", True), stage.get("normalize", True)
        )
        for m in MODALITIES
    )
    contrast, orthogonality = stage.get("contrast", 0.05), stage.get("orthogonality", 0.1)
    right = {f"accuracy/{m}": ref.right(found[m]["three"], label[m], weight[m]) for m in MODALITIES}
    return right | {
        "loss": entropy + contrast * triplet + orthogonality * orthogonal,
        "cross_entropy": entropy,
        "triplet": triplet,
        "triples": count,
        "orthogonality": orthogonal,
        "accuracy": sum(right.values()) / 3,
        "examples": sum(w.sum() for w in weight.values()),
    }


JOINT = {
    "as it comes": {},
    "both labels": {"labels": "both"},
    "seven contrasted": {"contrast_seven": True, "contrast": 0.7},
    "the paper's orthogonality": {"unit_length": False, "normalize": False, "orthogonality": 1e-3},
    "other weights": {"unit_length": False, "contrast": 2.0, "margin": 0.9, "orthogonality": 0.5},
}


@pytest.mark.parametrize("stage", JOINT.values(), ids=JOINT.keys())
def test_the_joint_loss_is_that_of_numpy(stage):
    of = learning({"joint": stage})
    params, variables = start(of)
    batch = unpaired()
    found, moved = read()(params, variables, batch)
    loss, (after, measured) = quick(of.stages[0].loss)(params, variables, batch, KEY)
    expected = joint_by_hand(found, batch, stage)
    assert measured.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(measured[name], value, rtol=2e-4, atol=1e-5, err_msg=name)
    np.testing.assert_allclose(loss, expected["loss"], rtol=2e-4)
    assert expected["triples"] > 0 and expected["triplet"] > 0
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), after, moved)


@functools.cache
def joint():
    of = learning({"joint": {}})
    return of, quick(jax.value_and_grad(of.stages[0].loss, has_aux=True))


def test_surprise_is_in_no_term_but_orthogonality():
    """Of the sounds, the fourth is surprised: another class is another loss, but not to itself."""
    of, run = joint()
    params, variables = start(of)
    batch = unpaired()
    (loss, (_, measured)), _ = run(params, variables, batch, KEY)
    without = unpaired()
    without["audio"]["weight"][3] = 0
    (_, (_, other)), _ = run(params, variables, without, KEY)
    # Without its row the batch norms are others; but the count of triples is of labels alone.
    assert measured["triples"] == other["triples"]
    assert measured["examples"] == other["examples"] + 1
    named = unpaired(labels=LABELS | {"audio": [0, 3, 4, 0, 5, 3, 1]})
    (changed, (_, theirs)), _ = run(params, variables, named, KEY)
    assert theirs["triples"] > measured["triples"] and changed != loss
    np.testing.assert_allclose(theirs["orthogonality"], measured["orthogonality"], rtol=1e-6)


LONELY = {
    "one modality for each label": {"text": [0] * 5, "audio": [4] * 7, "vision": [3] * 6},
    "everyone alike": {"text": [0] * 5, "audio": [0] * 7, "vision": [2] * 6},
    "surprise alone": {"text": [1] * 5, "audio": [6] * 7, "vision": [6] * 6},
}


@pytest.mark.parametrize("labels", LONELY.values(), ids=LONELY.keys())
def test_a_batch_without_a_triple_trains(labels):
    of, run = joint()
    params, variables = start(of)
    (loss, (after, measured)), gradient = run(params, variables, unpaired(labels=labels), KEY)
    assert measured["triples"] == 0 and measured["triplet"] == 0
    for x in jax.tree.leaves((loss, after, measured, gradient)):
        assert np.isfinite(x).all()
    assert max(np.abs(x).max() for x in jax.tree.leaves(gradient)) > 0


def test_a_batch_of_padding_alone_is_finite():
    of, run = joint()
    params, variables = start(of)
    batch = unpaired()
    for m in MODALITIES:
        batch[m]["weight"] = np.zeros_like(batch[m]["weight"])
    (loss, (after, measured)), gradient = run(params, variables, batch, KEY)
    assert loss == 0 and measured["examples"] == 0
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(gradient))
    jax.tree.map(np.testing.assert_array_equal, after, variables)


@pytest.mark.slow
def test_a_joint_batch_split_in_two_gives_the_loss_of_the_whole():
    """The mean over devices of the loss and of its gradient, batch norms synchronised."""
    whole, split = (learning({"joint": {"labels": "both"}}, axis) for axis in (None, "batch"))
    params, variables = start(whole)
    batch = unpaired()
    halves = {m: jax.tree.map(lambda x: _even(x), batch[m]) for m in MODALITIES}
    both = jax.value_and_grad(split.stages[0].loss, has_aux=True)
    each = quick(jax.vmap(both, (None, None, 0, None), axis_name="batch"))
    (losses, (after, measured)), gradients = each(params, variables, halves, KEY)
    run = quick(jax.value_and_grad(whole.stages[0].loss, has_aux=True))
    (loss, (moved, expected)), gradient = run(params, variables, batch, KEY)
    np.testing.assert_allclose(np.mean(losses), loss, rtol=1e-5)
    assert measured.pop("examples").sum() == expected.pop("examples")
    for name, value in expected.items():
        np.testing.assert_allclose(np.mean(measured[name]), value, rtol=1e-5, err_msg=name)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a[0], b, atol=1e-6), after, moved)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a.mean(0), b, atol=2e-5), gradients, gradient
    )


def _even(x):
    """Returns the rows in two equal halves; a row of zeros, which only pads, where one lacks."""
    x = np.concatenate([x, np.zeros((len(x) % 2, *x.shape[1:]), x.dtype)])
    return x.reshape(2, len(x) // 2, *x.shape[1:])


# ---- the sequential loss ------------------------------------------------------------------------


@functools.cache
def sequential(unit_length=True):
    of = learning(
        {"sequential": {"unit_length": unit_length, "order": ("audio", "vision", "text")}}
    )
    return of, quick(jax.value_and_grad(of.stages[0].loss, has_aux=True))


@pytest.mark.parametrize("unit_length", [True, False])
@pytest.mark.parametrize("turn", range(3))
def test_the_sequential_loss_is_that_of_numpy(turn, unit_length):
    """Of the modality whose turn it is, with its own labels: seven, or three of text."""
    of, run = sequential(unit_length)
    m = ("audio", "vision", "text")[turn]
    assert of.stages[0].turns.names[turn] == m
    params, variables = start(of)
    batch = unpaired()
    found, moved = read()(params, variables, {m: batch[m]})
    given = batch | {"turn": np.int32(turn)}
    (loss, (after, measured)), gradient = run(params, variables, given, KEY)
    head = "three" if m == "text" else "seven"
    label, weight = batch[m]["label"], batch[m]["weight"]
    entropy = ref.entropy(found[m][head], label, weight)
    orthogonal = ref.orthogonality(found[m], weight, unit_length, True)
    expected = {
        "loss": entropy + 0.1 * orthogonal,
        "cross_entropy": entropy,
        "orthogonality": orthogonal,
        "accuracy": ref.right(found[m][head], label, weight),
        "examples": weight.sum(),
    }
    assert measured.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(measured[name], value, rtol=2e-4, atol=1e-5, err_msg=name)
    np.testing.assert_allclose(loss, expected["loss"], rtol=2e-4)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), after, moved)
    # It teaches its tower, its encoder of the rest, the shared encoder and its head alone.
    taught = {name for name, own in gradient.items() if any(map(np.any, jax.tree.leaves(own)))}
    assert taught == {m, "emotion", f"non_emotion_{m}", head}


def test_turns_follow_the_config():
    of = learning({"sequential": {"cycle": 10, "unit": "batches", "length": "shortest"}})
    turns = of.stages[0].turns
    assert (turns.cycle, turns.unit, turns.length, turns.together) == (
        10,
        "batches",
        "shortest",
        False,
    )
    assert turns.names == ("vision", "text", "audio")
    both = learning({"sequential": {}}, sources={m: sources_of()[m] for m in ("text", "vision")})
    assert both.stages[0].turns.names == ("vision", "text")
    assert learning({"joint": {}}).stages[0].turns.together


def test_batch_sizes_by_modality():
    of = learning({"joint": {"batch_sizes": {"audio": 3}}})
    assert of.stages[0].rules.batch_size == {"text": 8, "audio": 3, "vision": 8}


def test_a_stage_may_have_a_rate_of_its_own():
    stages = {"joint": {}, "sequential": {"learning_rate": 0.5}}
    of = learning(stages, optim={"learning_rate": 0.25})
    assert [stage.optim.learning_rate for stage in of.stages] == [0.25, 0.5]
    assert [stage.name for stage in of.stages] == ["joint", "sequential"]


# ---- predictions of the learner -----------------------------------------------------------------


def test_a_scorer_of_each_set_reads_its_own_head_and_the_merged_one():
    of = learning({"sequential": {}})
    params, variables = start(of)
    batch = unpaired()
    for m in MODALITIES:
        scorer = of.scorers[m]
        assert scorer.modalities == (m,) and scorer.spec == SPECS[m]
        out = jax.tree.map(np.asarray, quick(scorer.predict)(params, variables, batch[m]))
        assert out["probability"].shape == (len(LABELS[m]), len(SPECS[m].classes))
        own = -np.log(out["probability"][np.arange(len(LABELS[m])), LABELS[m]])
        np.testing.assert_allclose(out["loss"], own, rtol=1e-4)
        label = np.array(LABELS[m])
        metrics = scorer.metrics(out, label)
        right = out["probability"].argmax(1) == label
        assert metrics["war"] == pytest.approx(right.mean())
        merged = np.array([ref.merged(c, SPECS[m].classes) for c in label])
        kept = merged >= 0
        three = (out["three"].argmax(1) == merged)[kept].mean()
        assert metrics["three/war"] == pytest.approx(three)
        table = scorer.table(out)
        assert list(table) == ["prediction", *SPECS[m].classes]


def test_a_baseline_knows_emotions_and_so_their_sentiments():
    of = learning({"sequential": {}})
    m = "audio"
    scorer, label = of.scorers[m], np.array(LABELS[m])
    probability = np.random.default_rng(0).dirichlet(np.ones(len(SPECS[m].classes)), len(label))
    found = base.measure(scorer, {"probability": probability}, label)
    merged = np.array([ref.merged(c, SPECS[m].classes) for c in label])
    whose = np.array([ref.merged(c, SPECS[m].classes) for c in range(len(SPECS[m].classes))])
    three = np.stack([probability[:, whose == c].sum(1) for c in range(3)], 1)
    kept = merged >= 0
    assert found["three/war"] == pytest.approx((three.argmax(1) == merged)[kept].mean())
    assert found["war"] == pytest.approx((probability.argmax(1) == label).mean())
    assert "loss" not in found


def test_only_sentiments_are_measured_where_nothing_trains_the_seven_emotions():
    of = learning({"joint": {}})
    params, variables = start(of)
    m, batch = "audio", unpaired()["audio"]
    scorer, label = of.scorers[m], np.array(LABELS[m])
    out = jax.tree.map(np.asarray, quick(scorer.predict)(params, variables, batch))
    merged = np.array([ref.merged(c, SPECS[m].classes) for c in label])
    kept = merged >= 0
    assert kept.any() and not kept.all()
    metrics = scorer.metrics(out, label)
    own = -np.log(out["three"][np.arange(len(label)), merged])[kept]
    assert metrics["loss"] == pytest.approx(own.mean(), rel=1e-4)
    assert metrics["three/war"] == pytest.approx((out["three"].argmax(1) == merged)[kept].mean())
    numbers = {name for name, value in metrics.items() if isinstance(value, float)}
    assert "war" not in metrics and numbers == set(scorer.metric_names())
    assert list(scorer.table(out)) == ["prediction", *THREE]
    # Sentences, whose labels are the three, are measured as ever.
    assert "war" in of.scorers["text"].metric_names()


def test_sentiments_are_made_of_seven_emotions_where_nothing_trains_their_head():
    """Anger, disgust, fear and sadness are negative, surprise is none of the three."""
    logits = np.log(
        [
            # anger, disgust, fear, happiness, neutral, sadness, surprise
            [0.10, 0.10, 0.10, 0.35, 0.05, 0.10, 0.20],
            [0.05, 0.05, 0.05, 0.10, 0.20, 0.05, 0.50],
        ]
    ).astype(np.float32)
    # By the untrained head both would be positive.
    found = {"seven": logits, "three": np.array([[0.0, 0.0, 9.0]] * 2, np.float32)}
    batch = {"label": np.array([3, 4], np.int32)}
    by_hand = {False: [[0.40, 0.05, 0.35], [0.20, 0.20, 0.10]], True: [[0, 0, 1]] * 2}
    for joint, expected in by_hand.items():
        of = learning(
            {"joint": {"labels": "both"}, "sequential": {}} if joint else {"sequential": {}}
        )
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(of.learner, "read", lambda *_: ({"vision": found}, {}))
            patch.setattr("affectjax.tasks.supramodal.learner._view", lambda m, batch: batch)
            out = of.scorers["vision"].predict({}, {}, batch)
        np.testing.assert_allclose(out["three"], expected, atol=1e-3)
        np.testing.assert_allclose(out["probability"], np.exp(logits), rtol=1e-5)
    # A head of three that the labels themselves are for is trained by its own turn.
    text = learning({"sequential": {}}).scorers["text"]
    own = {"three": np.log(np.array([[0.2, 0.3, 0.5]], np.float32))}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text.learner, "read", lambda *_: ({"text": own}, {}))
        patch.setattr("affectjax.tasks.supramodal.learner._view", lambda m, batch: batch)
        out = text.predict({}, {}, {"label": np.array([2], np.int32)})
    np.testing.assert_allclose(out["three"], [[0.2, 0.3, 0.5]], rtol=1e-5)


def test_a_scorer_names_its_metrics_beforehand():
    of = learning({"sequential": {}})
    params, variables = start(of)
    for m, batch in unpaired().items():
        scorer = of.scorers[m]
        out = jax.tree.map(np.asarray, quick(scorer.predict)(params, variables, batch))
        named = scorer.metrics(out, np.array(LABELS[m]))
        numbers = [name for name, value in named.items() if isinstance(value, float)]
        assert list(scorer.metric_names()) == numbers


# ---- what trains --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def adapted(clip_folder):
    """Returns a learner with CLIP's towers of text and images from a folder, sound from scratch."""
    tokenizer = Tokenizer.load(clip_folder)
    kinds = {"text": Text(8), "audio": Waveform(1600), "vision": Frames(1, CLIP_SIZE)}
    sources = sources_of(kinds, text=tokenizer)
    changes = {"text": "clip", "vision": "clip", "audio": "mel", "audio_channels": (4, 4)}
    return learning({"joint": {}}, sources=sources, weights=str(clip_folder), **changes), sources


def test_of_towers_with_weights_lora_trains_alone(adapted, clip_folder):
    of, sources = adapted
    stage = of.stages[0]
    batch = {m: inputs.zeros(2) for m, inputs in sources.items()}
    params, variables = quick(stage.init)(jax.random.key(0), batch)
    model = stage.prepare({"params": jax.device_get(params), "variables": variables})
    given = weights.clip(clip_folder).params
    for m, tower in (("text", "text_tower"), ("vision", "image_tower")):
        jax.tree.map(np.testing.assert_array_equal, model["params"][m]["tower"], given[tower])
    flat = traverse_util.flatten_dict(model["params"], sep="/")
    trains = {path for path in flat if stage.trains(path)}
    frozen = {path for path in flat if path not in trains}
    assert frozen == {p for p in flat if p.startswith(("text/tower/", "vision/tower/"))}
    adapters = {p for p in trains if p.startswith("lora/")}
    assert {p.split("/")[1] for p in adapters} == {"text", "vision"}
    for m in ("text", "vision"):
        for place in ("query", "key", "value", "out"):
            assert [p for p in adapters if p.startswith(f"lora/{m}") and place in p], (m, place)
    shapes = {p.rpartition("/")[2]: flat[p].shape for p in adapters}
    assert shapes["a"][-1] == shapes["b"][-2] == 6
    assert all(not np.any(flat[p]) for p in adapters if p.endswith("/b"))
    assert {"emotion", "seven", "three", "audio", "lora"} <= {p.split("/")[0] for p in trains}


def test_lora_adapts_the_attention_of_a_speech_tower(speech_folder):
    """Of audio alone: what it adds trains, and how much each layer counts; the tower does not."""
    sources = sources_of({"audio": Waveform(1600)})
    own = {"audio": "wav2vec2", "wav2vec2_weights": str(speech_folder), "lora_rank": 2}
    of = learning({"joint": {}}, sources=sources, **own)
    stage, batch = of.stages[0], {"audio": sources["audio"].zeros(6)}
    rng = np.random.default_rng(0)
    batch["audio"]["audio"]["x"] = 0.1 * rng.normal(size=(6, 1600)).astype("f4")
    batch["audio"]["label"] = np.array([0, 3, 4, 6, 5, 3], np.int32)
    params, variables = quick(stage.init)(jax.random.key(0), batch)
    model = stage.prepare({"params": jax.device_get(params), "variables": variables})
    params = model["params"]
    given = weights.wav2vec2(speech_folder).params
    jax.tree.map(np.testing.assert_array_equal, params["audio"]["tower"], given)
    flat = traverse_util.flatten_dict(params, sep="/")
    frozen = {path for path in flat if not stage.trains(path)}
    assert frozen == {path for path in flat if path.startswith("audio/tower/")}
    kernels = {f"lora/audio/blocks/{name}/kernel" for name in ("query", "key", "value", "out")}
    assert {p.rpartition("/")[0] for p in flat if p.startswith("lora/")} == kernels
    assert flat["lora/audio/blocks/query/kernel/a"].shape == (3, 16, 2)
    scorer = quick(of.scorers["audio"].describe)
    at_first = scorer(params, variables, batch["audio"])["feature"]
    grown = {**params, "lora": jax.tree.map(lambda x: x + 0.1, params["lora"])}
    assert np.abs(scorer(grown, variables, batch["audio"])["feature"] - at_first).max() > 1e-3
    gradient, _ = quick(jax.grad(stage.loss, has_aux=True))(grown, variables, batch, KEY)
    moved = traverse_util.flatten_dict(gradient, sep="/")
    for path in ("audio/layers/weights", *(f"{kernel}/{n}" for kernel in kernels for n in "ab")):
        assert np.isfinite(moved[path]).all() and np.any(moved[path]), path


def test_the_keys_of_lora_are_read_where_there_is_lora(speech_folder):
    sources = sources_of({"audio": Waveform(1600)})
    own = {"audio": "wav2vec2", "wav2vec2_weights": str(speech_folder)}
    of = learning({"joint": {}}, sources=sources, lora_targets="all", **own)
    batch = {"audio": sources["audio"].zeros(2)}
    params, _ = jax.eval_shape(lambda key: of.stages[0].init(key, batch), KEY)
    assert set(params["lora"]["audio"]["blocks"]) == {"query", "key", "value", "out", "up", "down"}
    plain = learning({"joint": {}}, sources=sources, lora_rank=0, **own)
    assert "lora" not in jax.eval_shape(lambda key: plain.stages[0].init(key, batch), KEY)[0]
    said = said_by(lambda: choose(own | {"lora_rank": 0, "lora_alpha": 2.0}).read())
    assert 'lora_alpha" is 2.0, but this run does not read it: it belongs to "What LoRA' in said


def test_lora_begins_as_nothing_and_is_heard_once_it_is_something(adapted):
    of, sources = adapted
    stage = of.stages[0]
    batch = {m: inputs.zeros(3) for m, inputs in sources.items()}
    rng = np.random.default_rng(0)
    batch["vision"]["vision"]["x"] = rng.integers(0, 255, (3, 1, CLIP_SIZE, CLIP_SIZE, 3)).astype(
        "u1"
    )
    batch["vision"]["vision"]["mask"] = np.ones((3, 1), bool)
    batch["vision"]["present"]["vision"] = np.ones(3, bool)
    batch["vision"]["weight"] = np.ones(3, np.float32)
    params, variables = quick(stage.init)(jax.random.key(0), batch)
    scorer = quick(of.scorers["vision"].describe)
    at_first = scorer(params, variables, batch["vision"])["feature"]
    plain = {**params, "lora": jax.tree.map(jnp.zeros_like, params["lora"])}
    np.testing.assert_array_equal(scorer(plain, variables, batch["vision"])["feature"], at_first)
    grown = {**params, "lora": jax.tree.map(lambda x: x + 0.1, params["lora"])}
    later = scorer(grown, variables, batch["vision"])["feature"]
    assert np.abs(later - at_first).max() > 1e-3


def test_everything_trains_where_there_are_no_weights():
    of = learning({"joint": {"labels": "both"}})
    params, variables = start(of)
    run = quick(jax.grad(of.stages[0].loss, has_aux=True))
    gradient, _ = run(params, variables, unpaired(), KEY)
    flat = traverse_util.flatten_dict(gradient, sep="/")
    assert all(of.stages[0].trains(path) for path in flat) and "lora" not in params
    still = {path for path, x in flat.items() if not np.any(x)}
    assert not still


# ---- downstream ---------------------------------------------------------------------------------

MAIN = LabelSpec("class", ("angry", "happy", "neutral"))
B = 7
TRUTH = np.array([0, 1, 2, 0, 1, 2, 0], np.int32)


def bank_of(folder, width=E, classes=SEVEN, seed=0, modalities=MODALITIES):
    """Writes a bank with nine members of each class of each modality."""
    rng = np.random.default_rng(seed)
    labels = {m: np.repeat(np.arange(len(classes)), 9) for m in modalities}
    ConceptBank(
        features={m: rng.standard_normal((9 * len(classes), width)) for m in modalities},
        labels=labels,
        classes=dict.fromkeys(modalities, classes),
        thresholds={m: np.full(len(classes), 0.5) for m in modalities},
    ).save(folder)
    return str(folder)


@pytest.fixture(scope="module")
def bank(tmp_path_factory):
    return bank_of(tmp_path_factory.mktemp("bank"))


def guided(bank="", spec=MAIN, kinds=KINDS, **changes):
    changes = {"guide": bool(bank), "bank": bank} | changes
    return Task(config({"downstream": {}}, changes), Inputs(kinds, spec), None)


def paired(seed=0):
    """Returns a batch of seven, the fifth of which only pads."""
    rng = np.random.default_rng(seed)
    batch = {"label": TRUTH, "weight": np.array([1, 1, 1, 1, 0, 1, 1], np.float32), "present": {}}
    for m, kind in KINDS.items():
        x = rng.standard_normal((B, *kind.shape)).astype(np.float32)
        batch[m] = {"x": x, "mask": np.ones((B, kind.length), bool)}
        batch["present"][m] = np.ones(B, bool)
    return batch


def fresh(of):
    """Returns drawn params of the recogniser, prepared, and its variables."""
    shapes = jax.eval_shape(lambda key: of.stages[-1].init(key, paired()), jax.random.key(0))
    model = of.stages[-1].prepare({"params": draw(shapes[0], 0), "variables": shapes[1]})
    return model["params"], model["variables"]


@functools.cache
def network():
    """Returns the recogniser, evaluated; it is the same whatever guides it."""
    run = quick(functools.partial(guided().downstream.model.apply, train=False))
    return lambda params, batch: run({"params": params}, batch)


def members(bank, m, name):
    """Returns the features of a class in a saved bank."""
    found = concept_bank.load(bank)
    return found.features[m][found.labels[m] == SEVEN.index(name)]


MEANT = ("anger", "happiness", "neutral")


@pytest.mark.parametrize("weight", [0.5, 2.0])
def test_the_loss_is_cross_entropy_and_lambda_times_the_distance(bank, weight):
    """All nine members of each pool are drawn, so that the concept is known: their mean."""
    of = guided(bank, count=9, weight=weight)
    params, variables = fresh(of)
    batch = paired()
    _, (_, measured) = quick(of.stages[0].loss)(params, variables, batch, KEY)
    params.pop(BANK)
    logits, out = network()(params, batch)
    entropy = ref.entropy(np.asarray(logits), TRUTH, batch["weight"])
    means = [
        np.mean([members(bank, m, MEANT[c]).mean(0) for m in MODALITIES], axis=0) for c in TRUTH
    ]
    distance = numpy_concepts.guidance(
        np.asarray(out["feature"]), means, np.ones(B, bool), batch["weight"]
    )
    right = ref.right(np.asarray(logits), TRUTH, batch["weight"])
    expected = {
        "loss": entropy + weight * distance, "cross_entropy": entropy, "guidance": distance,
        "accuracy": right,
    }  # fmt: skip
    assert measured.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(measured[name], value, rtol=1e-4, err_msg=name)


def test_one_switch_turns_the_guidance_off(bank):
    """The rest is the same: parameters, what trains, the cross-entropy."""
    on, off = guided(bank), guided(bank, guide=False)
    (params, variables), (plain, rest) = fresh(on), fresh(off)
    assert set(params) - set(plain) == {BANK}
    jax.tree.map(
        np.testing.assert_array_equal, {k: v for k, v in params.items() if k != BANK}, plain
    )
    _, (_, with_it) = quick(on.stages[0].loss)(params, variables, paired(), KEY)
    loss, (_, without) = quick(off.stages[0].loss)(plain, rest, paired(), KEY)
    assert set(with_it) - set(without) == {"guidance"}
    np.testing.assert_allclose(without["loss"], without["cross_entropy"])
    np.testing.assert_allclose(loss, with_it["cross_entropy"], rtol=1e-6)
    flat = traverse_util.flatten_dict(params, sep="/")
    assert {p for p in flat if not on.stages[0].trains(p)} == {
        p for p in flat if p.startswith(BANK)
    }


def test_a_subset_of_the_modalities_guides(bank):
    of = guided(bank, count=9, concepts=("audio",))
    params, variables = fresh(of)
    assert set(params[BANK]) == {"audio"}
    _, (_, measured) = quick(of.stages[0].loss)(params, variables, paired(), KEY)
    params.pop(BANK)
    _, out = network()(params, paired())
    means = [members(bank, "audio", MEANT[c]).mean(0) for c in TRUTH]
    distance = numpy_concepts.guidance(
        np.asarray(out["feature"]), means, np.ones(B, bool), paired()["weight"]
    )
    np.testing.assert_allclose(measured["guidance"], distance, rtol=1e-4)


def test_without_generalisation_a_concept_is_one_member(bank):
    """Every distance of one example is that to a member of a pool of its label."""
    of = guided(bank, generalize=False)
    params, variables = fresh(of)
    batch = paired() | {"weight": np.eye(B, dtype=np.float32)[3]}
    run = quick(of.stages[0].loss)
    found = [
        float(run(params, variables, batch, jax.random.key(k))[1][1]["guidance"]) for k in range(12)
    ]
    params.pop(BANK)
    _, out = network()(params, batch)
    pool = np.concatenate([members(bank, m, "anger") for m in MODALITIES])
    distances = ((np.asarray(out["feature"])[3] - pool) ** 2).mean(1)
    for value in found:
        assert np.abs(distances / value - 1).min() < 1e-4
    assert len(set(np.round(found, 5))) > 3


def test_evaluation_reads_no_concept_and_no_label(bank, tmp_path):
    of, other = guided(bank), guided(bank_of(tmp_path, seed=8))
    params, variables = fresh(of)
    theirs, _ = fresh(other)
    assert any(
        np.any(a != b)
        for a, b in zip(jax.tree.leaves(params[BANK]), jax.tree.leaves(theirs[BANK]), strict=True)
    )
    run = quick(of.predict)
    expected = run(params, variables, paired())
    permuted = run(params, variables, paired() | {"label": TRUTH[::-1].copy()})
    plain = {k: v for k, v in params.items() if k != BANK}
    for out in (permuted, run(theirs, variables, paired()), run(plain, variables, paired())):
        for name in ("logits", "probability"):
            np.testing.assert_array_equal(out[name], expected[name])
    assert np.any(permuted["loss"] != expected["loss"])
    powers = np.exp(np.asarray(expected["logits"], np.float64))
    np.testing.assert_allclose(
        expected["probability"], powers / powers.sum(1, keepdims=True), rtol=1e-5
    )


def test_faces_begin_at_the_weights_of_a_folder(tmp_path, bank):
    towers = pytest.importorskip("weights.test_from_resnet")
    towers.resnet_model(width=4).save_pretrained(tmp_path)
    given = weights.resnet(tmp_path)
    of = guided(bank, kinds={"vision": Frames(1, 32)}, weights=str(tmp_path))
    batch = of.downstream.inputs.zeros(2)
    params, variables = quick(of.stages[-1].init)(jax.random.key(0), batch)
    model = of.stages[0].prepare({"params": params, "variables": variables})
    same = functools.partial(jax.tree.map, np.testing.assert_array_equal)
    same(model["params"]["vision"]["resnet"], given.params)
    same(model["variables"]["batch_stats"]["vision"]["resnet"], given.batch_stats)
    assert of.stages[0].trains("vision/resnet/stem/kernel")
    assert np.isfinite(quick(of.predict)(model["params"], model["variables"], batch)["loss"]).all()


# ---- what is refused ----------------------------------------------------------------------------


def said_by(of):
    with pytest.raises(InputError) as error:
        of()
    assert "\n" not in str(error.value)
    return str(error.value)


STAGES = {
    "no stage": ({}, '"config.stages" trains nothing; allowed: joint, sequential'),
    "concepts alone": ({"concepts": {}}, '"config.stages" trains nothing'),
    "concepts of nothing": (
        {"concepts": {}, "downstream": {}}, '"config.stages.concepts" needs joint or sequential',
    ),
    "labels": ({"joint": {"labels": "seven"}}, "labels is 'seven'; allowed: merged, both"),
    "unit": ({"sequential": {"unit": "steps"}}, "cycle is 1 'steps'; allowed: 1 or more batches"),
    "cycle": ({"sequential": {"cycle": 0}}, "cycle is 0 'epochs'; allowed: 1 or more"),
    "order": ({"sequential": {"order": ("text",)}}, "order is .*; allowed: text, audio, vision"),
    "length": ({"joint": {"length": "all"}}, "length is 'all'; allowed: each, longest, shortest"),
    "sizes of nothing": ({"joint": {"batch_sizes": {"smell": 2}}}, "batch_sizes has smell: 2"),
    "sizes of none": ({"joint": {"batch_sizes": {"text": 0}}}, "batch_sizes has text: 0; allowed"),
    "top": ({"joint": {}, "concepts": {"top": 0.0}}, "top is 0.0; allowed: above 0 to 1"),
    "epochs": ({"joint": {"epochs": 0}}, "epochs is 0; allowed: 1 or more"),
}  # fmt: skip


@pytest.mark.parametrize(("stages", "message"), STAGES.values(), ids=STAGES.keys())
def test_stages_that_are_refused(stages, message):
    said = said_by(lambda: learning(stages))
    assert re.search(message, said), said


def test_keys_that_nobody_reads():
    for where, key in (("model", "learners"), ("stages", "jiont")):
        broken = config({"joint": {}})
        broken[where][key] = {}
        said = said_by(lambda broken=broken: Task(broken, None, None, sources_of()))
        assert f'unknown config key "config.{where}.{key}"' in said
    for part, stage in (("learner", "joint"), ("guided", "downstream")):
        broken = config({"joint": {}} | {stage: {}}, {"guide": False})
        broken["model"][part] = dict(broken["model"][part]) | {"widht": 3}
        said = said_by(lambda broken=broken: Task(broken, None, None, sources_of()))
        assert f'unknown config key "config.model.{part}.widht"' in said


def test_the_section_of_a_model_that_no_stage_trains_is_not_read():
    stages = {"guided": ("joint", "downstream"), "learner": ("downstream", "joint")}
    for part, (stage, other) in stages.items():
        broken = config({stage: {}}, {"guide": False})
        broken["model"][part] = config({other: {}}, {"guide": False})["model"][part]
        said = said_by(lambda broken=broken: Task(broken, None, None, sources_of()))
        assert f'unknown config key "config.model.{part}"' in said


GUIDANCE = {
    "no bank": ({"guide": True}, "is '', but the run makes no bank; allowed: the stage concepts"),
    "count": ({"count": 0}, "count is 0; allowed: 1 or more"),
    "concepts": ({"concepts": ("smell",)}, "concepts has 'smell'; allowed: text, audio, vision"),
    "dropout": ({"dropout": 1.0}, 'dropout" is 1.0; allowed: from 0 to below 1'),
    "modality": ({"modalities": ("smell",)}, '"config.model.guided.modalities" has .smell.'),
    "weights": ({"weights": "/nowhere"}, "/nowhere"),
}  # fmt: skip


@pytest.mark.parametrize(("changes", "message"), GUIDANCE.values(), ids=GUIDANCE.keys())
def test_recognisers_that_are_refused(changes, message):
    said = said_by(lambda: guided(**changes))
    assert re.search(message, said), said


def test_two_banks_are_one_too_many(bank):
    stages = {"joint": {}, "concepts": {}, "downstream": {}}
    broken = config(stages, {"guide": True, "bank": bank})
    said = said_by(lambda: Task(broken, Inputs(KINDS, MAIN), None, sources_of()))
    assert bank in said and "makes a bank of its own" in said


BANKS = {
    "another width": ({"width": E + 1}, MAIN, f"width {E + 1}, but .*feature. is {E}; allowed"),
    "other labels": ({}, LabelSpec("class", ("calm", "excited")), "concept for label 'calm'"),
    "none of a label": ({"classes": THREE}, LabelSpec("class", SEVEN), "label 'surprise'"),
}


@pytest.mark.parametrize(("made", "spec", "message"), BANKS.values(), ids=BANKS.keys())
def test_banks_that_do_not_fit(made, spec, message, tmp_path):
    of = guided(bank_of(tmp_path, **made), spec)
    said = said_by(lambda: fresh(of))
    assert re.search(message, said), said


def test_a_bank_that_is_not_there_or_lacks_a_modality(tmp_path):
    said = said_by(lambda: fresh(guided(str(tmp_path / "none"))))
    assert str(tmp_path / "none") in said
    vision = bank_of(tmp_path / "vision", modalities=("vision",))
    assert "audio" in said_by(lambda: fresh(guided(vision, concepts=("audio",))))


@pytest.mark.parametrize("spec", [LabelSpec("score"), LabelSpec("binary", ("angry", "sad"))])
def test_concepts_guide_classes_alone(spec):
    said = said_by(lambda: guided(spec=spec))
    assert f"of kind {spec.kind!r}" in said and "makes classes of scores" in said


def test_sources_whose_labels_are_neither_seven_nor_three():
    specs = SPECS | {"audio": LabelSpec("class", ("good", "bad"))}
    said = said_by(lambda: learning({"joint": {}}, sources=sources_of(specs=specs)))
    assert '"config.data.sources.audio" are good, bad; its class_map must be "seven"' in said


def test_a_recogniser_cannot_read_raw_sound():
    said = said_by(lambda: guided(kinds={"audio": Waveform(1600)}))
    assert "reads frames and features, but the data has waveform of audio" in said


def test_heads_that_nothing_trains_choose_no_concepts_and_no_epoch():
    for stages in ({"joint": {}, "concepts": {}}, {"joint": {"select": "war"}}):
        said = said_by(lambda stages=stages: learning(stages))
        assert '"config.stages.joint.labels" is "merged"' in said and "allowed: both" in said
    learning({"joint": {"labels": "both", "select": "war"}, "concepts": {}})
    learning({"joint": {"select": "three/war"}})
    learning({"joint": {}, "sequential": {}, "concepts": {}})


def test_stages_that_learn_need_sources():
    lacking = config({"sequential": {}, "downstream": {}}) | {"data": {"sources": {}}}
    said = said_by(lambda: supramodal.data_sets(lacking))
    assert '"config.data.sources" is empty' in said
    assert supramodal.data_sets(lacking | {"stages": {"downstream": {}}}) == ("",)


# ---- every key of a config is asked for ---------------------------------------------------------


def test_every_field_is_used(monkeypatch, bank, clip_folder, tmp_path):
    # FrameAugmentation hands on all of its fields at once.
    classes = (LearnerConfig, Adaptation, GuidedConfig, SoundAugmentation)
    noted = [Noted(cls, monkeypatch) for cls in (*classes, *KINDS_OF_STAGES.values())]
    key = jax.eval_shape(lambda: jax.random.key(0))
    stages = {"joint": {"labels": "both"}, "sequential": {}, "concepts": {}, "downstream": {}}
    kinds = {"text": Text(8), "audio": Waveform(1600), "vision": Frames(1, CLIP_SIZE)}
    towers = {"text": "clip", "vision": "clip", "audio": "mel", "audio_channels": (4, 4)}
    sources = sources_of(kinds, text=Tokenizer.load(clip_folder))
    whole = config(stages, {"guide": True}, weights=str(clip_folder), **towers)
    learner = Task(whole, Inputs({"vision": Frames(1, CLIP_SIZE)}, MAIN), None, sources)
    *learn, last = learner.stages
    batch = {m: inputs.zeros(2) for m, inputs in sources.items()} | {"turn": np.int32(0)}
    for stage in learn:
        made = jax.eval_shape(lambda key, s=stage: s.init(key, batch), key)
        jax.eval_shape(lambda made, key, s=stage: s.loss(*made, batch, key), made, key)

    def run(function, name, role):
        size, rng = 2 * len(SPECS[name].classes), np.random.default_rng(0)
        out = {k: rng.standard_normal((size, E)) for k in ("feature", "emotion", "non_emotion")}
        label = np.arange(size) % len(SPECS[name].classes)
        out["probability"] = np.eye(len(SPECS[name].classes))[label]
        return out, [f"{i}" for i in range(size)], label

    learn[-1].on_end({"params": {}, "variables": {}}, StageEnd(0, tmp_path, run))
    assert last.rules.epochs == 1
    for kinds in (KINDS, {"vision": Frames(1, CLIP_SIZE)}):
        of = Task(
            config({"downstream": {}}, {"guide": True, "bank": bank}), Inputs(kinds, MAIN), None
        )
        (stage,) = of.stages
        made = fresh(of) if kinds is KINDS else None
        batch = paired() if kinds is KINDS else Inputs(kinds, MAIN).zeros(2)
        if made is None:
            shapes = jax.eval_shape(lambda key, s=stage, b=batch: s.init(key, b), key)
            drawn = {"params": draw(shapes[0], 0), "variables": draw(shapes[1], 0)}
            model = stage.prepare(drawn)
            made = model["params"], model["variables"]
        jax.eval_shape(lambda made, key, s=stage, b=batch: s.loss(*made, b, key), made, key)
    assert {note.cls.__name__: note.fields - note.asked for note in noted if
            note.fields - note.asked} == {}  # fmt: skip
