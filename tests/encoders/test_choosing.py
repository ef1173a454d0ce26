"""From the config and the data to encoders: which are chosen, how wide, and what is refused."""

import dataclasses
import functools
import re

import jax
import numpy as np
import pytest
from conftest import CLIP_SIZE, CLIP_WIDTH
from numpy_mcr import quick

from affectjax import encoders, weights
from affectjax.data.batches.inputs import Features, Frames, Inputs, Text, Waveform
from affectjax.data.batches.tokenizer import Tokenizer
from affectjax.data.labels import LabelSpec
from affectjax.encoders.adaptation import Adaptation
from affectjax.errors import InputError
from affectjax.modalities import MODALITIES
from affectjax.models.supramodal import Reader
from affectjax.models.wav2vec2 import SpeechTower
from affectjax.runtime import configs
from affectjax.tasks.supramodal.towers import ENCODERS, LearnerConfig, Towers, choose

SPEC = LabelSpec("class", ("sad", "glad"))
D, B = 12, 2
SMALL = {
    "width": D, "text_width": 8, "text_layers": 1, "text_heads": 2, "sequence_heads": 2,
    "image_channels": (4, 6), "image_patch": 8, "image_width": 8, "image_layers": 1,
    "image_heads": 2, "audio_channels": (4, 6), "audio_width": 4, "audio_depths": (1, 1),
}  # fmt: skip
RAW = {"text": Text(6), "audio": Waveform(1600), "vision": Frames(2, 16)}
SEQUENCES = {"text": Features(3, 5), "audio": Features(4, 6), "vision": Features(2, 3)}


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.train(["so sad", "glad to hear"])


def towers(kinds, tokenizer=None, **changes):
    inputs = {
        m: Inputs({m: kind}, SPEC, tokenizer=tokenizer if kind.kind == "text" else None)
        for m, kind in kinds.items()
    }
    known = configs.fields(*choose(changes, tuple(kinds)).parts)
    small = {key: value for key, value in SMALL.items() if key in known}
    return Towers(small | changes, inputs, None), inputs


CHOICES = [
    ("text", "clip", RAW), ("audio", "mel", RAW), ("audio", "conv", RAW), ("vision", "clip", RAW),
    ("vision", "conv", RAW), *((m, "features", SEQUENCES) for m in MODALITIES),
]  # fmt: skip


@pytest.mark.parametrize(("m", "kind", "kinds"), CHOICES)
def test_each_tower_from_scratch_gives_features_of_the_width(m, kind, kinds, tokenizer):
    made, inputs = towers({m: kinds[m]}, tokenizer, **{m: kind})
    assert set(made.makers) == {m} and made.pretrained == {} and made.pixels == {}
    reader, batch = Reader(made.makers[m], D), inputs[m].zeros(B)
    x, mask = batch[m]["x"], np.ones_like(batch[m]["mask"])
    shapes = jax.eval_shape(lambda: reader.init(jax.random.key(0), x, mask, train=False)["params"])
    assert "dense" not in shapes  # the tower has that width already
    variables = quick(functools.partial(reader.init, train=False))(jax.random.key(0), x, mask)
    feature = quick(functools.partial(reader.apply, train=False))(variables, x, mask)
    assert feature.shape == (B, D) and np.isfinite(feature).all()


def test_sound_for_clap_from_scratch_has_its_width():
    """By its shapes alone: it takes a while to compile."""
    made, inputs = towers({"audio": RAW["audio"]}, audio="clap")
    reader, batch = Reader(made.makers["audio"], D), inputs["audio"].zeros(B)
    x, mask = batch["audio"]["x"], batch["audio"]["mask"]
    shape = jax.eval_shape(
        lambda: reader.init_with_output(jax.random.key(0), x, mask, train=False)[0]
    )
    assert shape.shape == (B, D)


def test_towers_of_a_folder_come_with_its_weights(clip_folder):
    kinds = {"text": Text(6), "vision": Frames(1, CLIP_SIZE)}
    tokenizer = Tokenizer.load(clip_folder)
    made, inputs = towers(kinds, tokenizer, weights=str(clip_folder))
    found = weights.clip(clip_folder)
    for m, name in (("text", "text_tower"), ("vision", "image_tower")):
        jax.tree.map(np.testing.assert_array_equal, made.pretrained[m], found.params[name])
        reader, batch = Reader(made.makers[m], D), inputs[m].zeros(B)
        shapes = jax.eval_shape(
            lambda r=reader, b=batch, m=m: r.init(
                jax.random.key(0), b[m]["x"], b[m]["mask"], train=False
            )["params"]
        )
        # What is given fits what is made; a Dense brings it to the width.
        assert jax.tree.map(np.shape, made.pretrained[m]) == jax.tree.map(
            lambda x: x.shape, shapes["tower"]
        )
        assert shapes["dense"]["kernel"].shape == (CLIP_WIDTH, D)
    assert made.pixels == {"mean": found.mean, "std": found.std}


def test_of_a_speech_tower_a_sum_of_layers_is_learned(speech_folder):
    own = {"audio": "wav2vec2", "wav2vec2_weights": str(speech_folder)}
    made = towers({"audio": RAW["audio"]}, **own)[0]
    found = weights.wav2vec2(speech_folder)
    jax.tree.map(np.testing.assert_array_equal, made.pretrained["audio"], found.params)
    reader, x = Reader(made.makers["audio"], D), np.random.default_rng(0).normal(0, 0.1, (B, 1600))
    mask = np.arange(1600) < np.array([[1600], [700]])
    params = quick(functools.partial(reader.init, train=False))(jax.random.key(0), x, mask)
    params = {**params["params"], "tower": found.params}
    run = quick(functools.partial(reader.apply, train=False))
    at_first = run({"params": params}, x, mask)
    means = quick(SpeechTower(**found.args).apply)({"params": found.params}, x, mask)[1]["means"]
    dense = params["dense"]["kernel"]
    assert params["layers"]["weights"].shape == (4,) and at_first.shape == (B, D)
    np.testing.assert_allclose(at_first, means.mean(1) @ dense, atol=1e-5)
    params["layers"] = {"weights": np.log(np.array([1, 2, 3, 4], np.float32))}
    expected = np.average(means, axis=1, weights=[1, 2, 3, 4]) @ dense
    np.testing.assert_allclose(run({"params": params}, x, mask), expected, atol=1e-5)


def test_the_paper_s_widths_are_the_defaults():
    settings = LearnerConfig()
    assert (settings.width, settings.hidden) == (512, 256)
    assert dataclasses.astuple(Adaptation()) == (6, 36.0, 0.2, "attention")
    assert ENCODERS == {"text": "clip", "audio": "clap", "vision": "clip"}


def test_what_may_read_what():
    found = {
        (m, kind): encoders.names(m, (kind,))
        for m in MODALITIES
        for kind in ("text", "waveform", "frames", "features")
    }
    assert {key: names for key, names in found.items() if names} == {
        ("text", "text"): ("bert", "clip"),
        ("audio", "waveform"): ("clap", "conv", "mel", "resnet", "wav2vec2"),
        ("vision", "frames"): ("clip", "conv", "resnet"),
        **{(m, "features"): ("features",) for m in MODALITIES},
    }


def said_by(of):
    with pytest.raises(InputError) as error:
        of()
    assert "\n" not in str(error.value)
    return str(error.value)


REFUSED = {
    "sound as features": (
        {"audio": RAW["audio"]}, {"audio": "features"},
        '"config.model.learner.audio" is .features., but the data has waveform; allowed: clap',
    ),
    "features as frames": (
        {"vision": SEQUENCES["vision"]}, {"vision": "conv"},
        '"config.model.learner.vision" is .conv., but the data has features; allowed: features',
    ),
    "an encoder of others": (
        {"audio": RAW["audio"]}, {"audio": "clip"},
        "\"config.model.learner.audio\" is 'clip', .*; allowed: clap, conv, features, mel",
    ),
    "no such tower": ({"vision": RAW["vision"]}, {"vision": "vit"}, "is 'vit', .*allowed: clip"),
    "bert without weights": (
        {"text": RAW["text"]}, {"text": "bert"}, '"config.model.learner.bert_weights" is empty',
    ),
    "wav2vec2 without weights": (
        {"audio": RAW["audio"]}, {"audio": "wav2vec2"},
        '"config.model.learner.wav2vec2_weights" is empty',
    ),
    "no folder": ({"vision": RAW["vision"]}, {"weights": "/nowhere"}, "/nowhere"),
    "number format": ({}, {"dtype": "float16"}, "dtype is 'float16'; allowed: float32, bfloat16"),
    "statistics": ({}, {"statistics": "none"}, "statistics is 'none'; allowed: modality, shared"),
    "rank": (
        {"vision": RAW["vision"]}, {"weights": "/nowhere", "lora_rank": -1},
        'lora_rank" is -1; allowed: whole numbers from 0 to 1000000',
    ),
    "nothing to adapt": ({}, {"lora_rank": 3}, '"config.model.learner.lora_rank" is 3, but this'),
    "dropout": ({}, {"dropout": 1.0}, 'dropout" is 1.0; allowed: from 0 to below 1'),
}  # fmt: skip


@pytest.mark.parametrize(("kinds", "changes", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_towers_that_are_refused(kinds, changes, message, tokenizer):
    said = said_by(lambda: towers(kinds, tokenizer, **changes))
    assert re.search(message, said), said


def test_words_of_another_tokenizer_are_refused(clip_folder, tokenizer):
    said = said_by(lambda: towers({"text": Text(6)}, tokenizer, weights=str(clip_folder)))
    assert '"config.data.sources.text.tokenizer" has' in said and str(clip_folder) in said


def test_weights_that_no_tower_reads_are_refused(clip_folder):
    for key, kinds in (("weights", {"vision": "conv"}), ("clap_weights", {"audio": "mel"})):
        (m,) = kinds
        with pytest.raises(InputError, match=f'"config.model.learner.{key}" is .*does not read it'):
            towers({m: RAW[m]}, **kinds, **{key: str(clip_folder)})


def test_keys_of_what_is_not_chosen_are_refused():
    for key, value in (("image_width", 192), ("text", "bert"), ("gain_db", 3.0)):
        with pytest.raises(InputError, match=f'"config.model.learner.{key}" is .*does not read it'):
            towers({"vision": RAW["vision"]}, vision="conv", **{key: value})
