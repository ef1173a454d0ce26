"""Augmentation as a config asks for it: what is changed, what stays, what is refused."""

import jax
import numpy as np
import pytest

from affectjax.encoders import augmentation
from affectjax.encoders.augmentation import (
    FrameAugmentation,
    SoundAugmentation,
    TextAugmentation,
)
from affectjax.errors import InputError
from affectjax.ops import augment
from affectjax.runtime import configs

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
VIEWS = {
    "text": {"x": RNG.integers(0, 9, (3, 5)).astype(np.int32), "mask": np.ones((3, 5), bool)},
    "audio": {"x": RNG.normal(size=(3, 40)).astype(np.float32), "mask": np.ones((3, 40), bool)},
    "vision": {"x": RNG.integers(0, 256, (3, 2, 6, 6, 3)).astype(np.uint8),
               "mask": np.ones((3, 2), bool)},
}  # fmt: skip
LIVELY = {
    FrameAugmentation: FrameAugmentation(0.5, 0.3, 0.4, 0.2),
    SoundAugmentation: SoundAugmentation(6.0, 0.2, 0.1),
    TextAugmentation: TextAugmentation(0.5),
}


def test_raw_inputs_change_as_their_operations_say():
    found = {m: augmentation.apply(LIVELY, m, view, KEY, None) for m, view in VIEWS.items()}
    hidden = augment.hide_tokens(VIEWS["text"]["mask"], KEY, None, 0.5)
    np.testing.assert_array_equal(found["text"]["mask"], hidden)
    assert found["text"]["x"] is VIEWS["text"]["x"] and not hidden.all()
    expected = augment.flip_and_shift(
        VIEWS["vision"]["x"], KEY, None, flip=0.5, shift=0.3, contrast=0.4, brightness=0.2
    )
    np.testing.assert_array_equal(found["vision"]["x"], expected)
    x, mask = VIEWS["audio"]["x"], VIEWS["audio"]["mask"]
    louder = augment.jitter_waveform(x, mask, KEY, None, gain_db=6.0, delay=0.2, noise=0.1)
    np.testing.assert_array_equal(found["audio"]["x"], louder)
    for m in ("audio", "vision"):
        assert np.any(found[m]["x"] != VIEWS[m]["x"]) and found[m]["mask"] is VIEWS[m]["mask"]


def test_features_stay_and_so_does_what_no_key_changes():
    features = {"x": np.ones((3, 2, 4), np.float32), "mask": np.ones((3, 2), bool)}
    for m in VIEWS:
        assert augmentation.apply(LIVELY, m, features, KEY, None) is features
        assert augmentation.apply({}, m, VIEWS[m], KEY, None) is VIEWS[m]
        still = {part: part() for part in LIVELY}
        assert augmentation.apply(still, m, VIEWS[m], KEY, None) is VIEWS[m]


@pytest.mark.parametrize("name", ("flip", "shift", "contrast", "brightness"))
def test_shares_outside_zero_to_one_are_refused(name):
    for value in (-0.1, 1.5):
        with pytest.raises(InputError, match=f"{name} is {value}; allowed: from 0 to 1"):
            configs.read(FrameAugmentation, {name: value}, "config.model")


@pytest.mark.parametrize(
    ("key", "value", "allowed"),
    [("gain_db", -1.0, "from 0 up"), ("delay", 1.5, "from 0 to 1"), ("noise", -0.1, "from 0 to 1")],
)
def test_changes_of_sound_that_cannot_be_are_refused(key, value, allowed):
    with pytest.raises(InputError, match=f"{key} is {value}; allowed: {allowed}"):
        configs.read(SoundAugmentation, {key: value}, "config.model")


def test_a_rate_of_tokens_outside_zero_to_one_is_refused():
    with pytest.raises(InputError, match=r"token_drop is 1\.0; allowed: from 0 to below 1"):
        configs.read(TextAugmentation, {"token_drop": 1.0}, "config.model")
