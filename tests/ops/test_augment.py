"""Augmentation against loops over pixels, its rates, and the same on any number of devices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage, stats

from affectjax.ops import augment

B, T, H, W = 6, 2, 5, 7
FRAMES = np.random.default_rng(0).integers(0, 256, (B, T, H, W, 3)).astype(np.uint8)
LOUD = {"gain_db": 6.0, "delay": 0.3, "noise": 0.1}
TURNED = {"flip": 0.5, "shift": 0.2, "rotate": 20.0, "zoom": 0.3, "erase": 0.4}
LIVELY = {"flip": 0.5, "shift": 0.3, "contrast": 0.4, "brightness": 0.2}


def warp_loop(frames, flipped, down, right, gain, offset):
    out = np.zeros(frames.shape)
    for b in range(len(frames)):
        for y in range(frames.shape[2]):
            for x in range(frames.shape[3]):
                source_y = min(max(y - down[b], 0), frames.shape[2] - 1)
                source_x = frames.shape[3] - 1 - x if flipped[b] else x
                source_x = min(max(source_x - right[b], 0), frames.shape[3] - 1)
                pixel = frames[b, :, source_y, source_x].astype(np.float64)
                out[b, :, y, x] = np.minimum(np.maximum(pixel * gain[b] + offset[b], 0), 255)
    return out


def clips_of_places(count, height, width):
    """Returns clips whose pixels say where they stand: red the row, green the column."""
    rows, columns = np.meshgrid(np.arange(height), np.arange(width), indexing="ij")
    frame = np.stack([rows, columns, np.full_like(rows, 100)], axis=-1).astype(np.uint8)
    return np.broadcast_to(frame, (count, 2, *frame.shape))


def moves_of(places):
    """Returns by clip of `clips_of_places` whether it is mirrored, and how far it has moved."""
    found = []
    for clip in np.asarray(places):
        height, width = clip.shape[1:3]
        rows, columns = clip[0, :, 0, 0], clip[0, 0, :, 1]
        mirrored = bool(columns[0] > columns[-1])
        columns = columns[::-1] if mirrored else columns
        # The middle is never an edge here.
        down, right = height // 2 - rows[height // 2], width // 2 - columns[width // 2]
        found.append((mirrored, int(down), int(right)))
    return found


@pytest.mark.parametrize("dtype", (np.uint8, np.float32))
def test_warp_equals_loop(dtype):
    flipped = np.array([0, 1, 0, 1, 1, 0], bool)
    down = np.array([0, 0, 2, -1, 9, -9], np.int32)  # also further than the frame is high
    right = np.array([0, 0, -3, 2, -9, 9], np.int32)
    gain = np.array([1, 1, 0.5, 1.5, 0, 2], np.float32)
    offset = np.array([0, 0, -20, 30, 300, -100], np.float32)
    change = (flipped, down, right, gain, offset)
    ours = jax.jit(augment.warp)(FRAMES.astype(dtype), *change)
    assert ours.dtype == jnp.float32
    np.testing.assert_allclose(ours, warp_loop(FRAMES, *change), atol=1e-4)
    np.testing.assert_array_equal(ours[0], FRAMES[0])
    np.testing.assert_array_equal(ours[1], FRAMES[1, :, :, ::-1])


def test_a_bright_pixel_moves_down_and_right_then_is_mirrored():
    frames = np.zeros((2, 1, 4, 5, 3), np.uint8)
    frames[:, 0, 1, 1] = 200
    one = np.ones(2, np.int32)
    ours = augment.warp(frames, np.array([False, True]), one, 2 * one, np.ones(2), np.zeros(2))
    assert np.argwhere(np.asarray(ours)[0, 0, :, :, 0]).tolist() == [[2, 3]]
    assert np.argwhere(np.asarray(ours)[1, 0, :, :, 0]).tolist() == [[2, 1]]


def test_flips_and_shifts_have_their_rates_and_ranges():
    count, height, width = 4000, 20, 30
    change = jax.jit(
        lambda key: augment.flip_and_shift(
            clips_of_places(count, height, width), key, None, flip=0.3, shift=0.1
        )
    )
    ours = np.asarray(change(jax.random.key(3)))
    found = moves_of(ours)
    mirrored = np.array([m for m, _, _ in found])
    assert abs(mirrored.mean() - 0.3) < 5 * np.sqrt(0.3 * 0.7 / count)
    # A tenth of 20 rows and of 30 columns: 5 and 7 places, all alike likely.
    for moves, most in (([d for _, d, _ in found], 2), ([r for _, _, r in found], 3)):
        places = 2 * most + 1
        assert set(moves) == set(range(-most, most + 1))
        expected = count / places
        for place in range(-most, most + 1):
            deviation = np.sqrt(expected * (1 - 1 / places))
            assert abs(moves.count(place) - expected) < 5 * deviation
    # The four draws of an example have nothing to do with each other.
    for pair in ((0, 1), (0, 2), (1, 2)):
        a, b = (np.array([row[i] for row in found], float) for i in pair)
        assert abs(np.corrcoef(a, b)[0, 1]) < 5 / np.sqrt(count)
    # Each is a move and nothing else, the same for all frames of the clip.
    still = clips_of_places(count, height, width)[:50]
    flipped, down, right = (np.array(column[:50]) for column in zip(*found, strict=True))
    np.testing.assert_array_equal(
        ours[:50], warp_loop(still, flipped, down, right, np.ones(50), np.zeros(50))
    )


def test_light_stays_in_its_range_and_mid_grey_in_its_place():
    count = 2000
    frames = np.broadcast_to(
        np.array([87.5, 127.5, 167.5], np.float32)[:, None, None], (count, 1, 3, 1, 3)
    )
    key = jax.random.key(0)
    ours = augment.flip_and_shift(frames, key, None, flip=0, contrast=0.4)
    low, middle, high = np.asarray(ours)[:, 0, :, 0, 0].T
    np.testing.assert_allclose(middle, 127.5, atol=1e-4)
    factor = (high - low) / 80
    assert 0.6 <= factor.min() < 0.61 and 1.39 < factor.max() <= 1.4
    assert abs(factor.mean() - 1) < 5 * 0.8 / np.sqrt(12 * count)
    ours = augment.flip_and_shift(frames, key, None, flip=0, brightness=0.1)
    low, middle, high = np.asarray(ours)[:, 0, :, 0, 0].T
    np.testing.assert_allclose(high - low, 80, atol=1e-3)
    added = middle - 127.5
    assert -25.5 <= added.min() < -25 and 25 < added.max() <= 25.5
    ours = augment.flip_and_shift(frames, key, None, contrast=1.0, brightness=1.0)
    assert ours.min() == 0 and ours.max() == 255


def test_nothing_asked_for_changes_nothing():
    ours = augment.flip_and_shift(FRAMES, jax.random.key(1), None, flip=0)
    np.testing.assert_array_equal(ours, FRAMES)
    always = augment.flip_and_shift(FRAMES, jax.random.key(1), None, flip=1)
    np.testing.assert_array_equal(always, FRAMES[:, :, :, ::-1])


@pytest.mark.parametrize("parts", (2, 3, 6))
def test_a_batch_split_over_devices_changes_the_same(parts):
    """vmap with an axis name stands for devices: `axis_index` is the device's number."""
    key = jax.random.key(5)
    sound = np.random.default_rng(1).standard_normal((B, 11)).astype(np.float32)
    bands = np.random.default_rng(2).standard_normal((B, 11, 8)).astype(np.float32)
    mask = np.arange(11) < np.array([11, 3, 0, 7, 1, 11])[:, None]

    def every(frames, sound, bands, mask, axis_name):
        return (
            augment.flip_and_shift(frames, key, axis_name, **LIVELY),
            augment.flip_and_shift(frames, key, axis_name, **TURNED),
            *augment.change_speed(bands, mask, key, axis_name, 0.3),
            augment.jitter_waveform(sound, mask, key, axis_name, **LOUD),
            augment.mask_spectrogram(bands, mask, key, axis_name, steps=0.9, bands=0.9, shift=2),
            augment.hide_tokens(mask, key, axis_name, 0.5),
        )

    split = lambda x: x.reshape(parts, B // parts, *x.shape[1:])  # noqa: E731
    mapped = jax.vmap(lambda *x: every(*x, "batch"), axis_name="batch")
    ours = jax.jit(mapped)(*map(split, (FRAMES, sound, bands, mask)))
    whole = jax.jit(lambda *x: every(*x, None))(FRAMES, sound, bands, mask)
    for part, expected in zip(ours, whole, strict=True):
        np.testing.assert_allclose(part.reshape(expected.shape), expected, rtol=1e-6, atol=1e-4)


def test_examples_keys_and_seeds_differ():
    frames = np.broadcast_to(FRAMES[:1], FRAMES.shape)
    change = lambda seed: augment.flip_and_shift(frames, jax.random.key(seed), None, **LIVELY)  # noqa: E731
    first = np.asarray(change(0))
    assert len(np.unique(first.reshape(B, -1), axis=0)) == B
    np.testing.assert_array_equal(first, change(0))
    assert (first != np.asarray(change(1))).any()


def test_gain_of_waveforms_in_decibels():
    count, samples = 2000, 5
    x = np.random.default_rng(2).uniform(0.1, 1, (count, samples)).astype(np.float32)
    mask = np.ones((count, samples), bool)
    ours = augment.jitter_waveform(x, mask, jax.random.key(0), None, gain_db=6.0)
    decibels = 20 * np.log10(np.asarray(ours) / x)
    np.testing.assert_allclose(decibels, np.repeat(decibels[:, :1], samples, axis=1), atol=1e-4)
    assert -6 <= decibels.min() < -5.9 and 5.9 < decibels.max() < 6.0001
    assert abs(decibels[:, 0].mean()) < 5 * 12 / np.sqrt(12 * count)


def test_masked_samples_are_zero_whatever_stood_there():
    x = np.array([[1, np.nan, 2], [np.inf, 3, 4]], np.float32)
    mask = np.array([[1, 0, 1], [0, 1, 0]], bool)
    ours = augment.jitter_waveform(x, mask, jax.random.key(0), None, gain_db=0.0)
    np.testing.assert_array_equal(ours, [[1, 0, 2], [0, 3, 0]])


def test_a_late_waveform_is_the_same_one_with_silence_before():
    count, samples, most = 400, 20, 5
    x = np.random.default_rng(3).uniform(0.1, 1, (count, samples)).astype(np.float32)
    mask = np.arange(samples) < np.where(np.arange(count) % 2, samples, 12)[:, None]
    ours = augment.jitter_waveform(x, mask, jax.random.key(0), None, delay=most / samples)
    found = set()
    for row, given, valid in zip(np.asarray(ours), np.where(mask, x, 0), mask, strict=True):
        around = np.pad(given, most)
        places = range(-most, most + 1)
        moved = {by: np.where(valid, around[most - by :][:samples], 0) for by in places}
        same = [by for by, expected in moved.items() if np.array_equal(row, expected)]
        assert len(same) == 1
        found.update(same)
    assert found == set(range(-most, most + 1))


def test_noise_is_white_of_a_random_loudness_and_only_where_the_sound_is():
    count, samples = 300, 400
    mask = np.arange(samples) < np.where(np.arange(count) % 2, samples, 100)[:, None]
    zeros = np.zeros((count, samples), np.float32)
    ours = np.asarray(augment.jitter_waveform(zeros, mask, jax.random.key(1), None, noise=0.2))
    assert not np.any(ours[~mask]) and np.abs(ours).max() <= 0.2
    loudest = np.abs(ours).max(1)
    assert stats.kstest(loudest / 0.2, "uniform").pvalue > 0.01
    whole = ours[1::2] / loudest[1::2, None]
    assert stats.kstest(whole[:, ::7].ravel(), stats.uniform(-1, 2).cdf).pvalue > 0.01
    neighbours = np.corrcoef(whole[:, :-1].ravel(), whole[:, 1:].ravel())[0, 1]
    assert abs(neighbours) < 5 / np.sqrt(whole.size)


LENGTHS = np.array([20, 20, 11, 3, 1, 0])


def spectrograms(repeats=60, steps=20, bands=16):
    """Returns spectrograms in which no two numbers are alike, and their mask."""
    lengths = np.repeat(LENGTHS, repeats)
    x = np.random.default_rng(4).normal(-40, 20, (len(lengths), steps, bands))
    return x.astype(np.float32), np.arange(steps) < lengths[:, None]


def test_tokens_are_hidden_at_the_rate_but_never_the_ends_of_a_text():
    lengths = np.tile([12, 7, 3, 2, 1, 0], 500)
    mask = np.arange(12) < lengths[:, None]
    ours = np.asarray(augment.hide_tokens(mask, jax.random.key(0), None, 0.3))
    assert not np.any(ours & ~mask)
    for row, length in zip(ours, lengths, strict=True):
        assert row[:1].all() == bool(length) and row[max(length, 1) - 1] == bool(length)
    inside = mask.copy()
    inside[:, 0] = False
    inside[np.arange(len(mask)), np.maximum(lengths, 1) - 1] = False
    hidden = int((inside & ~ours).sum())
    assert stats.binomtest(hidden, int(inside.sum()), 0.3).pvalue > 0.01
    np.testing.assert_array_equal(augment.hide_tokens(mask, jax.random.key(0), None, 0.0), mask)


def test_a_shift_moves_all_bands_alike_and_repeats_the_edge():
    x, mask = spectrograms()
    ours = np.asarray(augment.mask_spectrogram(x, mask, jax.random.key(0), None, shift=3))
    found = []
    for row, given in zip(ours, x, strict=True):
        around = np.pad(given, ((0, 0), (3, 3)), mode="edge")
        moved = {by: around[:, 3 - by :][:, : given.shape[1]] for by in range(-3, 4)}
        found += [by for by, expected in moved.items() if np.array_equal(row, expected)]
    assert len(found) == len(x)
    counts = np.unique(found, return_counts=True)
    np.testing.assert_array_equal(counts[0], range(-3, 4))
    assert stats.chisquare(counts[1]).pvalue > 0.01


def test_holes_are_bands_of_time_and_pitch_that_hold_the_mean():
    x, mask = spectrograms()
    ours = np.asarray(
        augment.mask_spectrogram(x, mask, jax.random.key(0), None, steps=0.5, bands=0.25)
    )
    widths = {"time": [], "pitch": []}
    for row, given, valid in zip(ours, x, mask, strict=True):
        hole = row != given
        assert not hole[~valid].any()
        frames = valid.sum()
        if not frames:
            continue
        np.testing.assert_allclose(row[hole], given[valid].mean(), rtol=1e-4)
        in_time, in_pitch = hole[valid].all(1), hole[valid].all(0)
        assert in_time.sum() <= 0.5 * frames
        if in_time.all() or in_pitch.all():
            continue
        np.testing.assert_array_equal(hole[valid], in_time[:, None] | in_pitch)
        for name, inside in (("time", in_time), ("pitch", in_pitch)):
            assert (np.abs(np.diff(np.pad(inside.astype(int), 1))).sum()) in (0, 2)
            if frames == 20:
                widths[name].append(inside.sum())
    assert set(widths["time"]) == set(range(10)) and set(widths["pitch"]) == set(range(4))


def test_the_padding_of_a_spectrogram_changes_no_hole():
    x, mask = spectrograms()
    change = lambda x, mask: augment.mask_spectrogram(  # noqa: E731
        x, mask, jax.random.key(0), None, steps=0.5, bands=0.25, shift=3
    )
    longer = np.pad(x, ((0, 0), (0, 7), (0, 0)), constant_values=np.nan)
    ours = change(longer, np.pad(mask, ((0, 0), (0, 7))))[:, : x.shape[1]]
    np.testing.assert_allclose(ours, change(x, mask), rtol=1e-5)


def test_turning_and_scaling_is_that_of_scipy():
    frames = np.random.default_rng(7).uniform(0, 255, (4, 1, 9, 11, 2)).astype(np.float32)
    angle = np.radians([0.0, 25.0, -40.0, 10.0]).astype(np.float32)
    scale = np.array([1.0, 1.3, 0.8, 1.0], np.float32)
    down, right = np.array([0, 1, -2, 0]), np.array([2, 0, 1, 0])
    ours = augment.turn(frames, np.array([False, False, False, True]), down, right, angle, scale)
    for b in range(4):
        given = frames[b, 0, :, ::-1] if b == 3 else frames[b, 0]
        # From places in the result to places in the picture, around the middle.
        c, s = np.cos(angle[b]) / scale[b], np.sin(angle[b]) / scale[b]
        matrix, middle = np.array([[c, -s], [s, c]]), np.array([4.0, 5.0])
        offset = middle - matrix @ (middle + np.array([down[b], right[b]]))
        for d in range(2):
            expected = ndimage.affine_transform(
                given[..., d], matrix, offset, order=1, mode="nearest"
            )
            np.testing.assert_allclose(ours[b, 0, ..., d], expected, atol=0.05)


def test_a_turn_by_half_a_circle_is_two_mirrors():
    none = np.zeros(B)
    still = (np.zeros(B, bool), none, none)
    ours = augment.turn(FRAMES, *still, np.full(B, np.pi, np.float32), none + 1)
    np.testing.assert_allclose(ours, FRAMES[:, :, ::-1, ::-1], atol=0.01)


def test_a_grey_square_stands_on_half_of_the_clips():
    count = 1000
    frames = np.zeros((count, 2, 10, 10, 3), np.uint8)
    ours = np.asarray(augment.flip_and_shift(frames, jax.random.key(0), None, erase=0.3))
    grey = ours == 127.5
    hidden = grey.any((1, 2, 3, 4))
    assert stats.binomtest(int(hidden.sum()), count, 0.5).pvalue > 0.01
    np.testing.assert_array_equal(grey[hidden].sum((2, 3, 4)), 27)
    np.testing.assert_array_equal(ours[~grey], 0)
    assert grey[:, 0, 0, 0, 0].any() and grey[:, 0, -1, -1, 0].any()


def test_a_faster_sound_is_shorter_and_linear_between_frames():
    count, steps = 300, 20
    ramp = np.broadcast_to(np.arange(steps, dtype=np.float32)[:, None], (count, steps, 3))
    mask = np.arange(steps) < np.where(np.arange(count) % 2, 10, 0)[:, None]
    given = np.where(mask[..., None], ramp, np.nan)
    ours, kept = map(np.asarray, augment.change_speed(given, mask, jax.random.key(0), None, 0.5))
    speeds = []
    for row, valid in zip(ours[1::2], kept[1::2], strict=True):
        speed = row[1, 0]
        np.testing.assert_allclose(row[valid, 0], speed * np.arange(valid.sum()), rtol=1e-5)
        assert valid.sum() == min(steps, int(9 / speed) + 1)
        speeds.append(speed)
    assert not kept[::2].any()
    assert stats.kstest(speeds, stats.uniform(0.5, 1).cdf).pvalue > 0.01


def test_more_holes_hide_more():
    x, mask = spectrograms()
    change = lambda holes: augment.mask_spectrogram(  # noqa: E731
        x, mask, jax.random.key(0), None, steps=0.2, bands=0.2, holes=holes
    )
    one, three = ((np.asarray(change(holes)) != x)[mask].mean() for holes in (1, 3))
    assert 1.8 * one < three < 3 * one
