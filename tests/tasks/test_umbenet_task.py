"""The task of UMBEnet: what it shows, its loss and metrics, the hand-over, and what it refuses.

Letters: B examples, M modalities, N prompts, k chosen prompts, C classes.
"""

import collections
import functools
import itertools
import re
from pathlib import Path

import jax
import numpy as np
import numpy_umbenet as ref
import pytest
from flax import traverse_util
from numpy_mcr import draw, quick, wide
from scipy import stats

from affectjax import weights
from affectjax.data.batches.inputs import Features, Frames, Inputs, Text, Waveform
from affectjax.data.batches.tokenizer import Tokenizer
from affectjax.data.labels import LabelSpec
from affectjax.errors import InputError
from affectjax.modalities import MODALITIES
from affectjax.models.umbenet import POOL
from affectjax.models.wav2vec2 import SpeechTower
from affectjax.runtime.configs import section
from affectjax.runtime.optim import OptimConfig
from affectjax.tasks.base import StageEnd
from affectjax.tasks.umbenet import (
    Task,
    UMBEnetStage,
    forget_epoch,
    hand_over,
    random_subset,
)
from affectjax.tasks.umbenet.assembly import choose, class_tokens

CLASSES = ("angry", "glad", "neutral", "very_sad")
SPEC = LabelSpec("class", CLASSES)
B, N, K = 6, 8, 2
KINDS = {"text": Features(3, 5), "audio": Features(4, 6), "vision": Features(2, 3)}
SMALL = {
    "text": "features", "audio": "features", "vision": "features", "width": 8, "text_width": 8,
    "text_layers": 1, "text_heads": 2, "heads": 2, "pool_size": N, "top_k": K, "prompt_tokens": 2,
    "inherent_tokens": 2, "gate_hidden": 4, "logit_scale": 5.0, "pull": 0.5, "l1": 0.01,
}  # fmt: skip
STAGES = {"missing": {"shows": "subset"}, "unimodal": {"shows": "one", "usage_penalty": 1.0}}


def config(stages=None, without=(), optim=None, **model):
    """Returns what of a config the task reads."""
    sections = {
        name: section(UMBEnetStage, **{"epochs": 2, "batch_size": B} | changes)
        for name, changes in (STAGES if stages is None else stages).items()
    }
    return {
        "model": section(choose(SMALL | model).parts, **SMALL | model),
        "data": {"without": without},
        "optim": section(OptimConfig, **optim or {}),
        "stages": sections,
    }


def inputs_of(kinds=KINDS, spec=SPEC, tokenizer=None):
    return Inputs(kinds, spec, tokenizer=tokenizer)


def task_of(kinds=KINDS, axis_name=None, **changes):
    return Task(config(**changes), inputs_of(kinds), axis_name)


@functools.cache
def task():
    """Returns the task that most tests use."""
    return task_of()


def batch_of(present, kinds=KINDS, seed=0):
    """Returns a batch `[B]` in which the modalities of `present` `[B, M]` are there."""
    rng = np.random.default_rng(seed)
    batch = {"present": {}, "weight": np.ones(len(present), np.float32)}
    batch["label"] = rng.integers(0, len(CLASSES), len(present)).astype(np.int32)
    for i, m in enumerate(m for m in MODALITIES if m in kinds):
        there = np.asarray(present, bool)[:, i]
        x = rng.standard_normal((len(present), *kinds[m].shape)).astype(np.float32)
        mask = np.repeat(there[:, None], kinds[m].shape[0], 1)
        batch[m] = {"x": np.where(mask[..., None], x, 0), "mask": mask}
        batch["present"][m] = there
    return batch


def start(of):
    """Returns drawn params, and the variables at the start."""
    shapes = jax.eval_shape(lambda key: of.init(key, of.inputs.zeros(2)), jax.random.key(0))
    return draw(shapes[0], 0), jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes[1])


def stage(of, name):
    return next(stage for stage in of.stages if stage.name == name)


def loss_of(stage):
    """Returns a stage's loss with the numbers of its own."""
    return functools.partial(stage.loss, **stage.settings)


def compiled(of, name):
    """Returns `params, variables, batch, key -> ((loss, (variables, measured)), gradient)`."""
    return quick(jax.value_and_grad(loss_of(stage(of, name)), has_aux=True))


@functools.cache
def shared(name):
    return compiled(task(), name)


@functools.cache
def predict():
    return quick(task().predict)


EVERYTHING = np.ones((B, 3), bool)
# One modality an example, and each of them twice.
SINGLE = np.eye(3, dtype=bool)[[0, 1, 2, 2, 1, 0]]
KEY = jax.random.key(3)


# ---- the hand-over ------------------------------------------------------------------------------

COUNTS = np.array(
    [
        [8, 0, 0, 0, 0, 0, 0, 0],  # uniform share 1, half of it 0.5
        [0, 1, 1, 0, 30, 0, 0, 0],  # 4 and 2
        [0, 0, 0, 2, 0, 1, 1, 12],  # 2 and 1
        [0, 0, 90, 0, 0, 0, 0, 0],  # several at once: says nothing of a modality
    ],
    np.float32,
)
KEPT = [0, 3, 4, 5, 6, 7]


def trained(length=3, width=4, keys=5, counts=COUNTS):
    """Returns a model after stage `unimodal`, host side."""
    rng = np.random.default_rng(0)
    size = counts.shape[1]
    normal = lambda *shape: rng.standard_normal(shape).astype(np.float32)  # noqa: E731
    pool = {"keys": normal(size, keys), "values": normal(size, length, width)}
    pool["query"] = {"kernel": normal(keys, keys)}
    seen = {
        "total": np.arange(size, dtype=np.float32),
        "epoch": counts,
        "served": np.ones_like(counts),
        "turn": np.int32(7),
    }
    return {
        "params": {"fusion": {"embedding": normal(3, 5)}, "pool": pool},
        "variables": {POOL: {"pool": seen}},
    }


def handed(seed=0, threshold=0.5, **kwargs):
    """Returns which prompts have the same key and value, and the two models."""
    before = trained(**kwargs)
    after = hand_over(before, StageEnd(seed, Path(), None), threshold=threshold)
    old, new = before["params"]["pool"], after["params"]["pool"]
    same = {
        name: [n for n in range(len(old[name])) if np.array_equal(old[name][n], new[name][n])]
        for name in ("keys", "values")
    }
    assert same["keys"] == same["values"]
    return same["keys"], before, after


@pytest.mark.parametrize(
    ("threshold", "kept"), [(0.5, KEPT), (0.0, [0, 1, 2, *KEPT[1:]]), (1.0, [0, 3, 4, 7])]
)
def test_just_the_activated_prompts_are_handed_over(threshold, kept):
    assert handed(threshold=threshold)[0] == sorted(kept)


def test_what_several_modalities_asked_for_together_hands_nothing_over():
    counts = np.zeros_like(COUNTS)
    counts[3] = 50
    assert handed(counts=counts)[0] == []


def test_the_others_start_anew_each_seed_in_its_own_way():
    same, before, after = handed()
    _, _, again = handed()
    _, _, other = handed(seed=1)
    anew = [n for n in range(8) if n not in same]
    assert anew == [1, 2]
    for name in ("keys", "values"):
        ours = after["params"]["pool"][name]
        assert ours.dtype == np.float32 and ours.shape == before["params"]["pool"][name].shape
        np.testing.assert_array_equal(ours, again["params"]["pool"][name])
        for n in anew:
            assert ours[n].all()
            assert not np.any(ours[n] == other["params"]["pool"][name][n])


def test_new_prompts_are_drawn_as_the_first_ones_were():
    """N(0, 0.02), keys and values of different draws, no prompt like another."""
    counts = np.zeros((4, 40), np.float32)
    same, _, after = handed(counts=counts, length=6, width=50, keys=300)
    assert same == []
    keys, values = after["params"]["pool"]["keys"], after["params"]["pool"]["values"]
    for x in (keys, values):
        assert stats.kstest(x.ravel() / 0.02, "norm").pvalue > 0.01
    rows = np.concatenate([keys, values.reshape(40, -1)])
    assert np.abs(np.corrcoef(rows))[np.triu_indices(80, 1)].max() < 0.3


def test_counts_start_anew_and_what_served_is_kept():
    _, before, after = handed()
    pool = after["variables"][POOL]["pool"]
    np.testing.assert_array_equal(pool["served"], COUNTS)
    for name in ("total", "epoch", "turn"):
        old = before["variables"][POOL]["pool"][name]
        assert not np.any(pool[name]) and np.any(old)
        assert np.shape(pool[name]) == np.shape(old) and pool[name].dtype == old.dtype
    assert after["params"]["fusion"] is before["params"]["fusion"]
    assert after["params"]["pool"]["query"] is before["params"]["pool"]["query"]
    np.testing.assert_array_equal(before["variables"][POOL]["pool"]["epoch"], COUNTS)


def test_the_next_stage_takes_what_is_handed_over():
    """Of the network's own shapes: it goes on with the new pool."""
    params, variables = start(task())
    variables[POOL]["pool"]["epoch"][0, :3] = 5, 4, 3
    model = {"params": params, "variables": variables}
    after = stage(task(), "unimodal").on_end(model, StageEnd(0, Path(), None))
    (loss, _), _ = shared("missing")(after["params"], after["variables"], batch_of(EVERYTHING), KEY)
    assert np.isfinite(loss)
    assert jax.tree.map(np.shape, after) == jax.tree.map(np.shape, model)


def test_only_the_epoch_is_forgotten_when_one_begins():
    variables = trained()["variables"]
    pool, before = forget_epoch(variables)[POOL]["pool"], variables[POOL]["pool"]
    assert not np.any(pool["epoch"]) and pool["epoch"].shape == COUNTS.shape
    for name in ("total", "served", "turn"):
        np.testing.assert_array_equal(pool[name], before[name])
    assert all(one.on_epoch is forget_epoch for one in task().stages)


# ---- random subsets -----------------------------------------------------------------------------


def subsets_of(present, seed=0):
    return np.asarray(jax.jit(random_subset, static_argnums=2)(present, jax.random.key(seed), None))


def test_a_subset_is_never_empty_and_never_of_what_is_absent():
    present = np.random.default_rng(0).random((500, 3)) < 0.6
    chosen = subsets_of(present)
    assert not np.any(chosen & ~present)
    np.testing.assert_array_equal(chosen.any(1), present.any(1))
    assert (~present.any(1)).sum() > 5
    alone = present.sum(1) == 1
    np.testing.assert_array_equal(chosen[alone], present[alone])
    assert not np.array_equal(chosen, subsets_of(present, seed=1))


@pytest.mark.parametrize("present", [(1, 1, 1), (1, 0, 1), (0, 1, 1), (1, 1, 0)], ids=str)
def test_all_subsets_are_alike_likely(present):
    rows = np.tile(np.array(present, bool), (7000, 1))
    counted = collections.Counter(map(tuple, subsets_of(rows).tolist()))
    expected = {
        tuple(bool(a and b) for a, b in zip(present, bits, strict=True))
        for bits in itertools.product((0, 1), repeat=3)
    } - {(False, False, False)}
    assert set(counted) == expected
    assert stats.chisquare(list(counted.values())).pvalue > 0.01


def test_the_subsets_of_a_split_batch_are_those_of_the_whole():
    present = np.random.default_rng(1).random((64, 3)) < 0.7
    split = jax.jit(jax.vmap(lambda p: random_subset(p, KEY, "batch"), axis_name="batch"))
    ours = split(present.reshape(2, 32, 3)).reshape(64, 3)
    np.testing.assert_array_equal(ours, subsets_of(present, seed=3))
    assert not np.array_equal(ours[:32], ours[32:])


# ---- what a stage shows -------------------------------------------------------------------------


def at_turn(variables, turn):
    pool = variables[POOL]["pool"]
    return {POOL: {"pool": pool | {"turn": np.int32(turn)}}}


@pytest.mark.parametrize("turn", range(4))
def test_stage_one_shows_audio_then_vision_then_text(turn):
    params, variables = start(task())
    present = np.array([[1, 1, 1], [1, 0, 0], [0, 1, 1], [0, 0, 1], [0, 0, 0], [1, 1, 0]], bool)
    m = (1, 2, 0, 1)[turn]
    batch = batch_of(present)
    (_, (after, measured)), _ = shared("unimodal")(params, at_turn(variables, turn), batch, KEY)
    pool = after[POOL]["pool"]
    # Who asked the pool, and how many: k prompts for each example that has the modality.
    np.testing.assert_array_equal(pool["epoch"].sum(1) > 0, np.arange(4) == m)
    assert pool["epoch"].sum() == pool["total"].sum() == K * present[:, m].sum()
    assert pool["turn"] == turn + 1 and measured["examples"] == present[:, m].sum()
    # The loss is that of those examples alone, each with that modality alone.
    alone = {n: batch["present"][n] & (i == m) for i, n in enumerate(MODALITIES)}
    out = predict()(params, variables, batch | {"present": alone})
    having = present[:, m]
    np.testing.assert_allclose(measured["cross_entropy"], out["loss"][having].mean(), rtol=1e-5)
    right = np.argmax(out["probability"], -1) == batch["label"]
    np.testing.assert_allclose(measured["accuracy"], right[having].mean(), rtol=1e-6)


def test_of_two_modalities_two_take_turns():
    of = task_of({m: KINDS[m] for m in ("text", "vision")})
    params, variables = start(of)
    run, batch = compiled(of, "unimodal"), batch_of(np.ones((B, 2), bool), of.inputs.kinds)
    for turn, row in enumerate((1, 0, 1)):  # vision, text, vision
        (_, (variables, _)), _ = run(params, forget_epoch(variables), batch, KEY)
        used = np.asarray(variables[POOL]["pool"]["epoch"]).sum(1) > 0
        np.testing.assert_array_equal(used, np.arange(3) == row, err_msg=str(turn))


@pytest.mark.parametrize("name", ["unimodal", "missing"])
def test_examples_of_one_modality_each_train(name):
    params, variables = start(task())
    for turn, m in enumerate(("audio", "vision", "text")):
        (loss, (_, measured)), gradient = shared(name)(
            params, at_turn(variables, turn), batch_of(SINGLE), KEY
        )
        assert np.isfinite(loss) and measured["cross_entropy"] > 0
        assert all(np.isfinite(x).all() for x in jax.tree.leaves(gradient))
        for other in MODALITIES if name == "unimodal" else ():
            moved = any(np.any(x) for x in jax.tree.leaves(gradient[f"{other}_features"]))
            assert moved is (other == m), (other, m)
        for part in ("fusion", "inherent", "sparse"):
            assert any(np.any(x) for x in jax.tree.leaves(gradient[part])), part


def test_a_batch_without_the_modality_of_the_turn_teaches_nothing():
    params, variables = start(task())
    present = EVERYTHING & (np.arange(3) != 1)
    (loss, (after, measured)), gradient = shared("unimodal")(
        params, at_turn(variables, 0), batch_of(present), KEY
    )
    w1 = gradient["sparse"].pop("w1")
    np.testing.assert_allclose(w1, 0.01 * np.sign(params["sparse"]["w1"]), rtol=1e-6)
    assert not any(np.any(x) for x in jax.tree.leaves(gradient))
    np.testing.assert_allclose(loss, measured["l1"], rtol=1e-6)
    # Nor does it count in the means of an epoch.
    assert measured["examples"] == 0
    assert not np.any(after[POOL]["pool"]["total"]) and after[POOL]["pool"]["turn"] == 1


def test_stage_two_shows_random_subsets():
    """By the rows of the pool: some examples show one modality, others several."""
    params, variables = start(task())
    batch, shown = batch_of(EVERYTHING), np.zeros(4)
    for seed in range(12):
        _, (after, _) = shared("missing")(params, variables, batch, jax.random.key(seed))[0]
        epoch = np.asarray(after[POOL]["pool"]["epoch"])
        assert epoch.sum() == K * B
        shown += epoch.sum(1)
    # 72 subsets of seven kinds: three of one modality, four of several.
    assert stats.chisquare(shown / K, 72 * np.array([1, 1, 1, 4]) / 7).pvalue > 0.01


# ---- the loss -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def everything():
    """Returns a task whose stage shows all, and its compiled loss."""
    of = task_of(stages={"missing": {"shows": "all"}})
    return of, compiled(of, "missing")


def test_the_loss_is_the_sum_of_its_terms(everything):
    of, run = everything
    params, variables = start(of)
    present = np.array([[1, 1, 1], [1, 0, 0], [0, 1, 1], [0, 0, 1], [1, 1, 1], [1, 1, 0]], bool)
    batch = batch_of(present)
    batch["weight"][4] = 0  # padding, whatever stands in it
    (loss, (after, measured)), gradient = run(params, variables, batch, KEY)
    assert set(measured) == {
        "loss", "cross_entropy", "pull", "l1", "accuracy", "prompts_used", "examples",
    }  # fmt: skip
    np.testing.assert_allclose(measured["loss"], loss)
    terms = [measured[name] for name in ("cross_entropy", "pull", "l1")]
    np.testing.assert_allclose(loss, sum(terms), rtol=1e-6)
    out = quick(of.predict)(params, variables, batch)
    real = [0, 1, 2, 3, 5]
    surprise = [-np.log(out["probability"][b, batch["label"][b]]) for b in real]
    np.testing.assert_allclose(measured["cross_entropy"], np.mean(surprise), rtol=1e-5)
    pull = [np.mean([1 - s for s in out["prompt_similarity"][b]]) for b in real]
    np.testing.assert_allclose(measured["pull"], 0.5 * np.mean(pull), rtol=1e-5)
    np.testing.assert_allclose(
        measured["l1"], 0.01 * np.abs(params["sparse"]["w1"]).sum(), rtol=1e-5
    )
    used = {n for b in real for n in np.asarray(out["prompts"])[b].tolist()}
    assert measured["prompts_used"] == len(used) and measured["examples"] == len(real)
    assert after[POOL]["pool"]["epoch"].sum() == K * len(real)
    other = batch_of(present, seed=9)
    padded = jax.tree.map(lambda x, y: np.where(_row(x, 4), y, x), batch, other)
    (theirs, _), same = run(params, variables, padded | {"weight": batch["weight"]}, KEY)
    np.testing.assert_allclose(loss, theirs, rtol=1e-6)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), gradient, same)


SUBSETS = {"missing": {"shows": "subset", "subset_loss": 0.5}}


def test_the_loss_of_the_other_subsets_equals_loops():
    of = task_of(stages=SUBSETS)
    params, variables = start(of)
    present = np.array([[1, 1, 1], [1, 0, 0], [0, 1, 1], [0, 0, 1], [1, 1, 1], [1, 1, 0]], bool)
    batch = batch_of(present)
    batch["weight"][4] = 0
    shown = np.asarray(random_subset(present, jax.random.split(KEY, 3)[1], None))
    assert (shown != present).any()
    (loss, (after, measured)), gradient = compiled(of, "missing")(params, variables, batch, KEY)
    run = quick(functools.partial(of.model.apply, train=False))
    _, out = run({"params": params, **variables}, batch | {"shown": shown})
    found, fusion = [], wide(params)["fusion"]
    for b in np.flatnonzero(batch["weight"]):
        features = [np.asarray(out[f"feature/{m}"][b], np.float64) for m in MODALITIES]
        for subset in itertools.product((False, True), repeat=3):
            there = all(yes for yes, asked in zip(present[b], subset, strict=True) if asked)
            if any(subset) and there and subset != tuple(shown[b]):
                fused = ref.fuse(fusion, features, subset, 2)
                logits = [
                    5.0 * (fused @ row) for row in np.asarray(out["class_feature"][b], np.float64)
                ]
                found.append(np.log(np.exp(logits).sum()) - logits[batch["label"][b]])
    assert len(found) == 6 + 0 + 2 + 0 + 2
    np.testing.assert_allclose(measured["subsets"], 0.5 * np.mean(found), rtol=1e-5)
    terms = [measured[name] for name in ("cross_entropy", "pull", "l1", "subsets")]
    np.testing.assert_allclose(loss, sum(terms), rtol=1e-6)
    # All else is as it is without: what is not shown has no part in it.
    plain = compiled(task(), "missing")(params, variables, batch, KEY)[0]
    np.testing.assert_allclose(measured["cross_entropy"], plain[1][1]["cross_entropy"], rtol=1e-5)
    jax.tree.map(np.testing.assert_array_equal, after, plain[1][0])
    for m in MODALITIES:
        assert any(np.any(x) for x in jax.tree.leaves(gradient[f"{m}_features"]))


def test_an_absent_modality_has_no_part_in_the_loss_of_subsets():
    of = task_of(stages=SUBSETS)
    params, variables = start(of)
    run, present = compiled(of, "missing"), np.tile([True, False, True], (B, 1))
    batch = batch_of(present)
    expected = run(params, variables, batch, KEY)
    batch["audio"] = {"x": batch["audio"]["x"] + np.nan, "mask": ~batch["audio"]["mask"]}
    found = run(params, variables, batch, KEY)
    jax.tree.map(np.testing.assert_array_equal, found, expected)
    assert not any(np.any(x) for x in jax.tree.leaves(found[1]["audio_features"]))


def test_a_loss_of_subsets_that_cannot_be_is_refused():
    for stages in (
        {"unimodal": {"shows": "one", "subset_loss": 1.0}},
        {"missing": {"shows": "all", "subset_loss": -1.0}},
    ):
        with pytest.raises(InputError, match=r"subset_loss is -?1\.0; allowed: 0 or more"):
            task_of(stages=stages)


def _row(x, number):
    """Returns what is true at one row of `x` alone."""
    return (np.arange(len(x)) == number).reshape(-1, *[1] * (x.ndim - 1))


@pytest.mark.parametrize("stages", [STAGES, SUBSETS], ids=["plain", "subsets"])
def test_a_batch_split_in_two_gives_the_loss_of_the_whole(stages):
    """Of the losses and of all that is measured; that of the gradients is the engines' own test."""
    whole, split = (task_of(axis_name=axis, dropout=0.2, stages=stages) for axis in (None, "batch"))
    params, variables = start(split)
    batch = batch_of(np.random.default_rng(2).random((B, 3)) < 0.7)
    batch["weight"][5] = 0
    loss, (after, measured) = quick(loss_of(stage(whole, "missing")))(params, variables, batch, KEY)
    each = jax.vmap(loss_of(stage(split, "missing")), (None, None, 0, None), axis_name="batch")
    halves = jax.tree.map(lambda x: x.reshape(2, B // 2, *x.shape[1:]), batch)
    losses, (changed, parts) = quick(each)(params, variables, halves, KEY)
    np.testing.assert_allclose(np.mean(losses), loss, rtol=1e-5)
    for half in range(2):
        jax.tree.map(lambda a, b, i=half: np.testing.assert_array_equal(a[i], b), changed, after)
    # Parts of a mean, but for the number of examples, of which each has its own.
    assert parts.pop("examples").sum() == measured.pop("examples") > 0
    for term, of_whole in measured.items():
        np.testing.assert_allclose(np.mean(parts[term]), of_whole, rtol=1e-5, err_msg=term)
    assert losses[0] != losses[1]


# ---- predictions and metrics --------------------------------------------------------------------


def test_predictions_are_of_each_example():
    params, variables = start(task())
    batch = batch_of(EVERYTHING)
    out = predict()(params, variables, batch)
    shapes = {name: np.shape(value) for name, value in out.items()}
    assert shapes == {
        "loss": (B,), "probability": (B, 4), "logits": (B, 4), "prompts": (B, K),
        "prompt_similarity": (B, K),
    }  # fmt: skip
    powers = np.exp(np.asarray(out["logits"], np.float64))
    np.testing.assert_allclose(out["probability"], powers / powers.sum(1, keepdims=True), rtol=1e-5)
    table = task().table(jax.tree.map(np.asarray, out))
    assert list(table) == ["prediction", *CLASSES]
    best = [CLASSES[int(np.argmax(row))] for row in out["logits"]]
    assert table["prediction"].tolist() == best
    np.testing.assert_array_equal(table["glad"], out["probability"][:, 1])


def test_metrics_without_some_classes_are_of_the_same_predictions():
    rng = np.random.default_rng(0)
    probability, label = rng.dirichlet(np.ones(4), 60), rng.integers(0, 4, 60)
    predictions = {"loss": rng.random(60), "probability": probability}
    plain = task().metrics(predictions, label)
    assert plain["loss"] == pytest.approx(predictions["loss"].mean())
    assert plain["war"] == pytest.approx(np.mean(probability.argmax(1) == label))
    assert not [name for name in plain if name.startswith("without")]
    both = task_of(without=("neutral",)).metrics(predictions, label)
    fewer = {
        name.removeprefix("without_neutral/"): value
        for name, value in both.items()
        if name.startswith("without_neutral/")
    }
    assert {name: both[name] for name in plain} == plain
    right, of = collections.Counter(), collections.Counter()
    for row, truth in zip(probability, label, strict=True):
        if CLASSES[truth] == "neutral":
            continue
        guess = max((n for n in range(4) if CLASSES[n] != "neutral"), key=lambda n: row[n])
        of[CLASSES[truth]] += 1
        right[CLASSES[truth]] += guess == truth
    assert fewer["war"] == pytest.approx(sum(right.values()) / sum(of.values()))
    assert fewer["uar"] == pytest.approx(np.mean([right[name] / of[name] for name in of]))
    assert [n for n in fewer if n.startswith("recall/")] == [
        "recall/angry", "recall/glad", "recall/very_sad",
    ]  # fmt: skip
    assert both["war"] != fewer["war"]
    two = task_of(without=("neutral", "glad")).metrics(predictions, label)
    assert "without_neutral_glad/uar" in two


# ---- how it is put together ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.train(["so angry", "glad to hear", "very sad"])


def test_a_class_is_its_name_a_full_stop_and_the_end(tokenizer):
    rows = class_tokens(tokenizer, CLASSES)
    for row, said in zip(rows, ("angry.", "glad.", "neutral.", "very sad."), strict=True):
        x, mask = tokenizer.encode([said], 40)
        assert [tokenizer.sos, *row] == x[0][mask[0]].tolist()


def test_stages_stand_in_their_order_with_their_own_rules():
    of = task_of(
        stages={
            "missing": {"batch_size": 3, "select": "war", "stop_accuracy": 0.8},
            "unimodal": {"epochs": 4, "select": "last", "shows": "one", "usage_penalty": 2.0},
        }
    )
    first, second = of.stages
    assert (first.name, first.rules.epochs, first.rules.select, first.rules.stop_accuracy) == (
        "unimodal",
        4,
        "last",
        0,
    )
    assert (second.name, second.rules.batch_size, second.rules.stop_accuracy) == ("missing", 3, 0.8)
    assert [one.settings["usage_penalty"] for one in of.stages] == [2.0, 0.0]
    assert [one.name for one in task_of(stages={"missing": {}}).stages] == ["missing"]


def test_a_mirrored_face_has_half_of_the_say():
    kinds = {"vision": Frames(2, 8)}
    small = {"vision": "conv", "image_channels": (4,), "temporal_layers": 1, "temporal_heads": 2}
    parts = config(**small, modalities=("vision",))
    for key in ("text", "audio", "sequence_layers", "sequence_heads"):
        del parts["model"][key]
    rng = np.random.default_rng(0)
    batch = batch_of(np.ones((3, 1), bool), {"vision": Features(2, 3)})
    x = rng.integers(0, 255, (3, 2, 8, 8, 3), dtype=np.uint8)
    batch["vision"]["x"] = x
    plain = Task(parts, inputs_of(kinds), None)
    params, variables = start(plain)
    run = quick(plain.predict)
    one = run(params, variables, batch)
    other = run(params, variables, {**batch, "vision": batch["vision"] | {"x": x[..., ::-1, :]}})
    parts["model"]["mirror"] = True
    both = quick(Task(parts, inputs_of(kinds), None).predict)(params, variables, batch)
    assert np.abs(one["logits"] - other["logits"]).max() > 1e-3
    np.testing.assert_allclose(both["logits"], (one["logits"] + other["logits"]) / 2, atol=1e-5)
    np.testing.assert_array_equal(both["prompts"], one["prompts"])


def test_text_in_words_is_read_by_the_text_tower(tokenizer):
    of = Task(config(text="clip"), inputs_of({"text": Text(8)}, tokenizer=tokenizer), None)
    assert of.model.text["vocab"] == tokenizer.vocab and of.model.sos == tokenizer.sos
    longest = max(map(len, class_tokens(tokenizer, CLASSES)))
    assert of.model.text["length"] == max(8, 1 + 2 + 2 + longest)


def test_what_is_frozen_does_not_train(tokenizer):
    of = task_of(text="bert", bert_weights="somewhere", frozen=("bert_tower",), query_map="mlp")
    trains = of.stages[0].trains
    assert not trains("bert_tower/blocks/key/kernel")
    assert trains("bert_tower_dense/kernel") and trains("pool/keys") and trains("pool/values")
    # Nothing sends these a gradient, so no weight decay may take them away.
    for path in ("text_tower/token", "pool/query/kernel", "pool/query_hidden/kernel"):
        assert not trains(path), path
    of = Task(config(text="clip"), inputs_of({"text": Text(8)}, tokenizer=tokenizer), None)
    assert of.stages[0].trains("text_tower/token")


def test_just_what_a_loss_moves_trains():
    """Everything that trains gets a gradient, and nothing else does."""
    params, variables = start(task())
    _, gradient = shared("missing")(params, variables, batch_of(EVERYTHING), KEY)
    moved = {path: np.any(x) for path, x in traverse_util.flatten_dict(gradient, sep="/").items()}
    trains = stage(task(), "missing").trains
    assert moved == {path: trains(path) for path in moved}


def test_fewer_modalities_than_the_data_has():
    of = task_of(modalities=("vision", "text"))
    assert of.modalities == ("text", "vision") and of.model.modalities == ("text", "vision")


REFUSED = {
    "audio encoder": ({"audio": "conv"}, {}, '"config.model.audio" is .conv., .*has features'),
    "vision encoder": (
        {}, {"vision": Frames(2, 8)},
        '"config.model.vision" is .features., but the data has frames; allowed: clip, conv',
    ),
    "waveform": (
        {}, {"audio": Waveform(80)},
        '"config.model.audio" is .features., but the data has waveform; allowed: clap, conv',
    ),
    "unknown encoder": ({"text": "gpt"}, {}, '"config.model.text" is .gpt., but'),
    "frozen without weights": (
        {"frozen": ("text_tower",)}, {}, "frozen has text_tower, but weights is empty",
    ),
    "frozen, no such": ({"frozen": ("fusion",)}, {}, "frozen has .fusion.; allowed: text_tower"),
    "no scale": ({"logit_scale": 0.0}, {}, "logit_scale is 0, .*weights is empty"),
    "number format": ({"dtype": "float16"}, {}, "dtype is .float16.; allowed: float32, bfloat16"),
    "weights": ({"weights": "/nowhere"}, {}, "/nowhere is no Hugging Face folder"),
    "lacking modality": (
        {"modalities": ("audio",)}, {"text": KINDS["text"]},
        '"config.model.modalities" has .audio.; the data has: text',
    ),
    "encoded frames of another width": (
        {"vision": "conv"}, {}, '"config.model.vision" is .conv., .*width 3, and the model.s is 8',
    ),
    "heads": ({"heads": 3}, {}, "a width of 8 cannot be split among 3 heads"),
    "temporal heads": (
        {"vision": "conv", "temporal_heads": 3}, {"vision": Features(2, 8)},
        "a width of 8 cannot be split among 3 heads",
    ),
    "top k": ({"top_k": 9}, {}, "top_k 9; allowed: .*1 to pool_size .8"),
}  # fmt: skip


def refused(of):
    """Returns what an InputError says when a model is built and initialised: one sentence."""
    with pytest.raises(InputError) as error:
        built = of()
        jax.eval_shape(lambda key: built.init(key, built.inputs.zeros(2)), jax.random.key(0))
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(("model", "kinds", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_models_that_are_refused(model, kinds, message):
    said = refused(lambda: Task(config(**model), inputs_of(kinds or KINDS), None))
    assert re.search(message, said), said


@pytest.mark.parametrize("encoder", ["clip", "bert"])
def test_encoded_text_needs_no_tower(encoder):
    """What a frozen tower made may be of any width: a Dense follows."""
    of = task_of({"text": Features(1, 5)}, text=encoder)
    params, variables = start(of)
    assert "bert_tower" not in params and params["text_dense"]["kernel"].shape == (5, 8)
    out = quick(of.predict)(params, variables, batch_of(EVERYTHING[:, :1], of.inputs.kinds))
    assert np.isfinite(out["logits"]).all() and np.ptp(out["logits"]) > 0


@pytest.mark.parametrize("encoder", ["clip", "conv"])
def test_encoded_frames_need_no_tower(encoder):
    of = task_of({"vision": Features(2, 8)}, vision=encoder, temporal_heads=2, temporal_layers=1)
    params, _ = start(of)
    assert "image_tower" not in params and "frame_head" in params


def with_voices(kind, folder, **changes):
    """Returns a task whose audio a frozen speech tower reads, or has read."""
    changes = {"audio": "wav2vec2", "wav2vec2_weights": str(folder)} | changes
    return task_of(KINDS | {"audio": kind}, frozen=("audio_wav2vec2",), **changes)


def test_a_speech_tower_is_frozen_and_a_sum_of_its_layers_trains(speech_folder):
    of = with_voices(Waveform(1600), speech_folder)
    batch = batch_of(EVERYTHING)
    x = 0.1 * np.random.default_rng(0).normal(size=(B, 1600)).astype("f4")
    batch["audio"] = {"x": x, "mask": np.ones((B, 1600), bool)}
    params, variables = start(of)
    model = of.load_pretrained({"params": params, "variables": variables})
    given = weights.wav2vec2(speech_folder)
    jax.tree.map(np.testing.assert_array_equal, model["params"]["audio_wav2vec2"], given.params)
    trains = stage(of, "missing").trains
    assert not trains("audio_wav2vec2/blocks/query/kernel") and trains("audio_layers/weights")
    (loss, _), gradient = compiled(of, "missing")(model["params"], variables, batch, KEY)
    assert np.isfinite(loss) and np.abs(gradient["audio_layers"]["weights"]).max() > 0
    out = quick(of.predict)(model["params"], variables, batch)
    assert np.ptp(out["logits"], axis=0).max() > 0
    # What the tower gave, stored, has the same predictions, and no tower in the model.
    checksum = weights.checksum(given)
    stored = with_voices(Features(4, 16, encoder="wav2vec2", checksum=checksum), speech_folder)
    run = quick(SpeechTower(**given.args).apply)
    means = run({"params": given.params}, x, batch["audio"]["mask"])[1]["means"]
    encoded = {**batch, "audio": {"x": np.asarray(means), "mask": np.ones((B, 4), bool)}}
    fewer = {name: value for name, value in model["params"].items() if name != "audio_wav2vec2"}
    assert jax.tree.map(np.shape, start(stored)[0]) == jax.tree.map(np.shape, fewer)
    assert stored.assembly.pretrained == {}
    expected = quick(stored.predict)(fewer, variables, encoded)["logits"]
    np.testing.assert_allclose(out["logits"], expected, atol=1e-5)


STORED_VOICES = {
    "other weights": (
        {"checksum": "others"}, {}, '"config.model.wav2vec2_weights" is .* other weights made the',
    ),
    "another encoder": (
        {}, {"audio": "mel"}, "is .mel., .* that wav2vec2 made; allowed: wav2vec2, features",
    ),
    "augmentation": (
        {}, {"gain_db": 3.0}, '"config.model.gain_db" is 3.0, but audio of the data is encoded',
    ),
    "made by nobody": (
        {"encoder": ""}, {}, "is .wav2vec2., but the data has features; allowed: features",
    ),
}  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "model", "message"), STORED_VOICES.values(), ids=STORED_VOICES.keys()
)
def test_stored_voices_that_are_refused(speech_folder, kind, model, message):
    checksum = weights.checksum(weights.wav2vec2(speech_folder))
    kind = Features(4, 16, **{"encoder": "wav2vec2", "checksum": checksum} | kind)
    folder = {} if "audio" in model else {"wav2vec2_weights": str(speech_folder)}
    changes = {"audio": "wav2vec2"} | folder | model
    said = refused(lambda: task_of(KINDS | {"audio": kind}, **changes))
    assert re.search(message, said), said


def test_words_for_bert_need_its_weights(tokenizer):
    inputs = inputs_of({"text": Text(8)}, tokenizer=tokenizer)
    said = refused(lambda: Task(config(text="bert"), inputs, None))
    assert '"config.model.bert_weights" is empty' in said


REFUSED_STAGES = {
    "no such stage": ({"bimodal": {}}, 'unknown config key "config.stages.bimodal"'),
    "none": ({}, '"config.stages" is empty; allowed: unimodal, missing'),
    "shows": ({"missing": {"shows": "two"}}, '"config.stages.missing": shows is .two.; allowed:'),
    "epochs": ({"unimodal": {"epochs": 0}}, '"config.stages.unimodal": epochs is 0; allowed: 1'),
}


@pytest.mark.parametrize(("stages", "message"), REFUSED_STAGES.values(), ids=REFUSED_STAGES.keys())
def test_stages_that_are_refused(stages, message):
    with pytest.raises(InputError, match=message):
        task_of(stages=stages)


@pytest.mark.parametrize("spec", [LabelSpec("score"), LabelSpec("binary", ("angry", "sad"))])
def test_only_classes_can_be_told_apart(spec):
    with pytest.raises(InputError, match=f"of kind '{spec.kind}'; \"config.data.threshold\" makes"):
        Task(config(), inputs_of(spec=spec), None)
