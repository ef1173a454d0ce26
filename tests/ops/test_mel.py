"""Resampling against SciPy, spectrograms against transformers and against plain loops."""

import dataclasses
import math

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.signal
from numpy_mcr import quick

from affectjax.ops import mel
from affectjax.ops.mel import FrontEnd

# CLAP's own, with a frame every 10 ms of at most 10 s.
CLAP = FrontEnd(48000, 1024, 480, 1024, 64, 50.0, 14000.0, "slaney", "reflect", 480000)
HOUSE = FrontEnd()


def noise(*shape, seed=0, loud=0.3):
    return (loud * np.random.default_rng(seed).standard_normal(shape)).astype(np.float32)


def lengths_mask(counts, samples):
    return np.arange(samples) < np.array(counts)[:, None]


def loop(x, front):
    """Returns `[T, M]` in float64: a DFT and a triangle at a time, zeros around the sound."""
    frames, half = [], front.frame // 2
    x = np.concatenate([np.zeros(half), x, np.zeros(front.frame)])
    edges = [slaney_hertz(m) for m in np.linspace(0, slaney_mel(front.high), front.mels + 2)]
    for start in range(0, len(x) - front.frame - half + 1, front.hop):
        window = [0.5 - 0.5 * math.cos(2 * math.pi * n / front.frame) for n in range(front.frame)]
        power = np.abs(np.fft.rfft(x[start : start + front.frame] * window, front.fft)) ** 2
        bands = []
        for low, mid, high in zip(edges, edges[1:], edges[2:], strict=False):
            total = 0.0
            for k, value in enumerate(power):
                f = k * front.rate / front.fft
                peak = (f - low) / (mid - low) if f < mid else (high - f) / (high - mid)
                total += max(peak, 0.0) * value * 2 / (high - low)
            bands.append(10 * math.log10(max(total, 1e-10)))
        frames.append(bands)
    return np.array(frames)


def slaney_mel(hertz):
    return hertz * 3 / 200 if hertz < 1000 else 15 + 27 * math.log(hertz / 1000) / math.log(6.4)


def slaney_hertz(mel):
    return mel * 200 / 3 if mel < 15 else 1000 * math.exp(math.log(6.4) * (mel - 15) / 27)


# ---- samples ------------------------------------------------------------------------------------


@pytest.mark.parametrize("samples", [1, 64, 1003])
@pytest.mark.parametrize(
    ("source", "target", "up", "down"),
    [(16000, 48000, 3, 1), (48000, 16000, 1, 3), (44100, 16000, 160, 441), (24000, 16000, 2, 3)],
)
def test_resample_is_the_filter_of_scipy(source, target, up, down, samples):
    x = noise(2, samples)
    got, mask = quick(lambda x: mel.resample(x, x == x, source, target))(x)
    taps = mel.filter_taps(source, target) / up
    expected = scipy.signal.resample_poly(x.astype(np.float64), up, down, axis=1, window=taps)
    assert mask.all() and mask.shape == got.shape
    np.testing.assert_allclose(got, expected, atol=1e-6, rtol=0)


def test_a_tone_stays_itself_without_images():
    """Three times the samples of 5 kHz: the same tone, and nothing at 11 kHz, its mirror."""
    times = np.arange(16000)
    x = np.sin(2 * np.pi * 5000 / 16000 * times).astype(np.float32)[None]
    got = np.asarray(quick(lambda x: mel.resample(x, x == x, 16000, 48000)[0])(x))[0]
    expected = np.sin(2 * np.pi * 5000 / 48000 * np.arange(48000))
    np.testing.assert_allclose(got[200:-200], expected[200:-200], atol=2e-4)
    inner = got[4800:43200]
    power = np.abs(np.fft.rfft(inner * np.blackman(len(inner)))) ** 2
    hertz = np.fft.rfftfreq(len(inner), 1 / 48000)
    image = power[np.abs(hertz - 11000) < 50].max()
    assert 10 * np.log10(image / power.max()) < -85


def test_the_same_rate_is_left_alone():
    x, mask = noise(2, 9), lengths_mask([9, 4], 9)
    got, same = mel.resample(x, mask, 16000, 16000)
    np.testing.assert_array_equal(got, np.where(mask, x, 0))
    np.testing.assert_array_equal(same, mask)


def test_masked_samples_are_not_heard_in_resampling():
    counts, run = [70, 33, 1, 0], quick(lambda x, m: mel.resample(x, m, 16000, 48000))
    x, mask = noise(4, 70), lengths_mask(counts, 70)
    got, valid = run(x, mask)
    np.testing.assert_array_equal(valid.sum(-1), [210, 99, 3, 0])
    chex.assert_trees_all_equal(run(np.where(mask, x, np.nan), mask), (got, valid))
    for row, count in enumerate(counts[:3]):
        alone, _ = run(x[row : row + 1, :count], mask[row : row + 1, :count])
        np.testing.assert_allclose(got[row, : 3 * count], alone[0], atol=1e-6)
    assert (np.asarray(got)[~np.asarray(valid)] == 0).all()


def test_repeat_pad_is_a_loop():
    counts = [0, 1, 3, 4, 5, 7, 10, 11, 13]
    x = np.arange(1, 1 + len(counts) * 13, dtype=np.float32).reshape(-1, 13)
    mask = lengths_mask(counts, 13)
    expected = np.zeros((len(counts), 10), np.float32)
    for row, count in enumerate(counts):
        place = 0
        while count and (place == 0 or place + count <= 10):
            piece = x[row, : min(count, 10)]
            expected[row, place : place + len(piece)] = piece
            place += count
    run = quick(lambda x, m: mel.repeat_pad(x, m, 10))
    np.testing.assert_array_equal(run(np.where(mask, x, np.nan), mask), expected)


# ---- spectrograms -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "front",
    [CLAP, dataclasses.replace(CLAP, scale="htk"), HOUSE, dataclasses.replace(HOUSE, scale="htk")],
    ids=["clap slaney", "clap htk", "house slaney", "house htk"],
)
@pytest.mark.filterwarnings("ignore:At least one mel filter")
def test_filterbank_is_that_of_transformers(front):
    audio_utils = pytest.importorskip("transformers.audio_utils")
    norm = {"slaney": "slaney", "htk": None}[front.scale]
    expected = audio_utils.mel_filter_bank(
        front.fft // 2 + 1, front.mels, front.low, front.high, front.rate, norm, front.scale
    )
    assert mel.filterbank(front).dtype == np.float32
    np.testing.assert_allclose(mel.filterbank(front), expected, atol=1e-7)


def test_house_bands_are_all_heard():
    assert (mel.filterbank(HOUSE).max(0) > 0).all()


def sounds():
    """Returns sounds at 48 kHz: one sample, 0.1 s, 3.3 s, 10 s."""
    return [noise(count, seed=count) for count in (1, 4800, 158400, 480000)]


@pytest.mark.parametrize(("truncation", "scale"), [("rand_trunc", "slaney"), ("fusion", "htk")])
def test_spectrogram_is_that_of_claps_feature_extractor(truncation, scale):
    """Within 0.001 dB on noise, whose bands all lie within 60 dB of each other."""
    pytest.importorskip("torch")
    from transformers import ClapFeatureExtractor

    extractor = ClapFeatureExtractor(frequency_min=50, truncation=truncation)
    given = [x.astype(np.float64) for x in sounds()]
    expected = extractor(given, sampling_rate=48000)["input_features"]
    x = np.stack([np.pad(x, (0, 480000 - len(x))) for x in sounds()])
    mask = lengths_mask([len(x) for x in sounds()], 480000)
    front = dataclasses.replace(CLAP, scale=scale)
    got = quick(lambda x, m: mel.spectrogram(x, m, 48000, front))(x, mask)
    chex.assert_shape(got, (4, 1001, 64))
    assert got.dtype == jnp.float32
    for row in range(4):
        np.testing.assert_allclose(got[row], expected[row][0], atol=1e-3, rtol=0)


def test_a_pure_tone_is_exact_within_60_db():
    """Further below the loudest band of a frame, float32 rounds and float64 does not."""
    pytest.importorskip("torch")
    from transformers import ClapFeatureExtractor

    x = np.sin(0.05 * np.arange(480000)).astype(np.float32)
    extractor = ClapFeatureExtractor(frequency_min=50, truncation="rand_trunc")
    expected = extractor(x.astype(np.float64), sampling_rate=48000)["input_features"][0][0]
    got = quick(lambda x: mel.log_mel(x, CLAP))(x[None])[0]
    near = expected > expected.max(-1, keepdims=True) - 60
    assert 0.1 < near.mean() < 0.9 and np.isfinite(got).all()
    np.testing.assert_allclose(got[near], expected[near], atol=1e-3)


def test_house_spectrogram_is_a_loop():
    x = noise(2, 803)
    got = quick(lambda x: mel.log_mel(x, HOUSE))(x)
    chex.assert_shape(got, (2, 1 + 803 // 160, 64))
    for row in range(2):
        np.testing.assert_allclose(got[row], loop(x[row].astype(np.float64), HOUSE), atol=1e-3)


def test_gradient_is_that_of_the_loop():
    """Along one direction, by central differences in float64."""
    x, along = noise(1, 500), noise(1, 500, seed=1)
    front = dataclasses.replace(HOUSE, mels=12)
    value = lambda x: jnp.sin(mel.log_mel(x, front)).sum()  # noqa: E731
    got = np.vdot(quick(jax.grad(value))(x), along)
    step, x, along = 1e-6, x.astype(np.float64)[0], along.astype(np.float64)[0]
    ends = [np.sin(loop(x + s * along, front)).sum() for s in (step, -step)]
    expected = (ends[0] - ends[1]) / (2 * step)
    assert abs(expected) > 1
    np.testing.assert_allclose(got, expected, rtol=1e-3)


def test_a_sound_has_the_same_frames_however_it_is_padded():
    counts = [800, 799, 160, 159, 1, 0]
    mask = lengths_mask(counts, 800)
    x = noise(6, 800)
    run = quick(lambda x, m: (mel.log_mel(x, HOUSE, m), mel.frame_mask(m, HOUSE)))
    got, frames = run(x, mask)
    np.testing.assert_array_equal(frames.sum(-1), [6, 5, 2, 1, 1, 0])
    assert (np.asarray(got)[~np.asarray(frames)] == 0).all() and (got[4, 0] != 0).all()
    chex.assert_trees_all_equal(run(np.where(mask, x, np.nan), mask), (got, frames))
    for row, count in enumerate(counts[:5]):
        alone = mel.log_mel(x[row : row + 1, :count], HOUSE)
        np.testing.assert_allclose(got[row][frames[row]], alone[0], atol=1e-3)


@pytest.mark.parametrize("front", [HOUSE, CLAP, dataclasses.replace(HOUSE, length=16000)])
def test_silence_and_nothing_are_finite_forward_and_backward(front):
    """Rows: silence; one sample; nothing valid; 0.1 s of sound."""
    x = np.zeros((4, 1600), np.float32)
    x[1, 0], x[3] = 0.5, noise(1600)
    mask = lengths_mask([1600, 1, 0, 1600], 1600)
    x = np.where(mask, x, np.nan)

    def loss(x):
        found = mel.spectrogram(x, mask, 16000, front)
        return jnp.sin(found).sum(), found

    (_, found), grad = quick(jax.value_and_grad(loss, has_aux=True))(x)
    chex.assert_tree_all_finite((found, grad))
    np.testing.assert_allclose(found[0], -100, atol=1e-4)
    assert (np.asarray(grad[0]) == 0).all() and (np.asarray(grad)[~mask] == 0).all()
    assert np.abs(grad[3]).max() > 0 and (np.asarray(found[3]) > -100).all(-1).any()


def test_spectrogram_of_clap_is_its_three_steps():
    """16 kHz to 48 kHz, repeated to 10 s, and no more: 0.5 s of sound stands there 20 times."""
    x = noise(1, 8000)
    got = quick(lambda x: mel.spectrogram(x, x == x, 16000, CLAP))(x)
    long = scipy.signal.resample_poly(x[0], 3, 1, window=mel.filter_taps(16000, 48000) / 3)
    expected = mel.log_mel(np.tile(long, 20)[None].astype(np.float32), CLAP)
    near = np.asarray(expected) > np.asarray(expected).max() - 60
    chex.assert_shape(got, (1, 1001, 64))
    np.testing.assert_allclose(got[near], expected[near], atol=1e-2)


def test_what_does_not_fit_is_refused():
    for changes, message in (
        ({"scale": "bark"}, "scale is 'bark'; allowed: slaney, htk"),
        ({"edge": "wrap"}, "edge is 'wrap'; allowed: zero, reflect"),
        ({"hop": 0}, "hop is 0; allowed: one or more"),
        ({"length": 0}, "length is 0; allowed: one or more"),
        ({"fft": 256}, "fft is 256; allowed: at least the frame of 400"),
        ({"high": 9000.0}, "bands from 0.0 to 9000.0 Hz; allowed: rising, within 0 and 8000.0"),
        ({"low": 8000.0}, "bands from 8000.0 to 8000.0 Hz"),
    ):
        with pytest.raises(ValueError, match=message):
            FrontEnd(**changes)
    x = noise(1, 900)
    with pytest.raises(ValueError, match="edge is 'reflect'; allowed for sounds that are padded"):
        mel.log_mel(x, CLAP, x == x)


def test_silence_is_cut_at_both_ends_and_nowhere_else():
    x = np.full((3, 8, 2), -90, np.float32)
    loud = np.array([[2, 5], [0, 7], [0, 0]])
    x[0, 2], x[0, 5], x[0, 4], x[0, 1] = -20, -49, -80, -52  # 1 is 32 dB below the loudest
    x[1] = -30
    mask = np.arange(8) < np.array([8, 7, 0])[:, None]
    x[~mask] = 60
    ours, kept = mel.cut_silence(x, mask, 30.0)
    np.testing.assert_array_equal(kept.sum(1), [4, 7, 0])
    for row, valid, given, (first, last) in zip(np.asarray(ours), kept, x, loud, strict=True):
        if valid.any():
            stop = first + int(valid.sum())
            np.testing.assert_array_equal(row[np.asarray(valid)], given[first:stop])
            assert stop in (last, last + 1)
