"""affect_synth: the same for a seed, balanced, new speakers, ambiguous alone and clear together."""

import dataclasses
import re
import subprocess
import sys
import time
import zlib

import numpy as np
import pytest
import synth_probe

from affectjax.data.labels import LabelSpec
from affectjax.data.raw.sets import affect_synth
from affectjax.data.synth import face, measure, script, sentences, views, voice
from affectjax.errors import InputError

# Pixels are made by exact arithmetic only, so their checksum holds on every machine.
FRAMES_OF_SEED_0 = 2594224376


@pytest.fixture(scope="module")
def made():
    start = time.process_time()
    features = views.sequences(0)
    return features, time.process_time() - start


def test_frames_have_the_pinned_bytes():
    clips = views.clips("train", 0, count=5)
    assert zlib.crc32(clips.frames.tobytes()) == FRAMES_OF_SEED_0


def test_another_process_makes_the_same():
    code = (
        "import zlib; from affectjax.data.synth import views; c = views.clips('test', 3, 4);"
        "print(zlib.crc32(c.frames.tobytes()), zlib.crc32(c.waveform.tobytes()), c.sentences)"
    )
    here = views.clips("test", 3, 4)
    sums = [zlib.crc32(x.tobytes()) for x in (here.frames, here.waveform)]
    there = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert there.stdout.strip() == f"{sums[0]} {sums[1]} {here.sentences}"


def test_ten_are_the_first_of_many():
    few, many = views.clips("valid", 1, 10), views.clips("valid", 1, 40)
    np.testing.assert_array_equal(few.frames, many.frames[:10])
    np.testing.assert_array_equal(few.waveform, many.waveform[:10])
    assert few.sentences == many.sentences[:10] and few.ids == many.ids[:10]
    short, long = views.sequence_split("valid", 1, 10), views.sequence_split("valid", 1, 40)
    for name, sequences in short.ordered():
        np.testing.assert_allclose(sequences.x, long.modalities[name].x[:10], atol=1e-5)
        np.testing.assert_array_equal(sequences.mask, long.modalities[name].mask[:10])


def test_seeds_differ():
    one, other = views.clips("train", 0, 3), views.clips("train", 1, 3)
    assert (one.frames != other.frames).any()
    assert one.sentences != other.sentences


def test_clips_have_the_promised_shapes_and_ranges():
    clips = views.clips("test", 0, 12)
    assert clips.frames.shape == (12, 16, 64, 64, 3) and clips.frames.dtype == np.uint8
    assert clips.waveform.shape == (12, 24000) and clips.waveform.dtype == np.float32
    assert np.isfinite(clips.waveform).all() and np.abs(clips.waveform).max() <= 1
    assert clips.labels.shape == (12,) and clips.labels.dtype == np.int32
    assert all(re.fullmatch(r"test_s\d\d_\d{4}", name) for name in clips.ids)
    assert all(who in name for who, name in zip(clips.speakers, clips.ids, strict=True))


def test_faces_move_and_voices_sound():
    clips = views.clips("train", 0, 12)
    moved = np.abs(np.diff(clips.frames.astype(int), axis=1)).sum((1, 2, 3, 4))
    assert (moved > 0).all()
    assert (np.abs(clips.waveform).max(1) > 0.05).all()


def test_classes_are_balanced_and_speakers_are_new():
    whole = {split: script.write(split, 0) for split in script.SIZES}
    assert {split: len(s) for split, s in whole.items()} == {
        "train": 1024,
        "valid": 256,
        "test": 256,
    }
    for part in whole.values():
        counts = np.bincount(part.emotion, minlength=7)
        assert counts.max() - counts.min() <= 1
    people = [set(part.speaker) for part in whole.values()]
    assert not people[0] & people[1] and not people[0] & people[2] and not people[1] & people[2]


def test_no_word_is_new_in_the_test_split():
    spoken = {
        split: {word for s in script.write(split, 0).sentences for word in s.words}
        for split in script.SIZES
    }
    assert spoken["test"] <= spoken["train"] and spoken["valid"] <= spoken["train"]
    longest = max(len(s.words) for s in script.write("train", 0).sentences)
    assert longest <= sentences.MAX_WORDS


def test_sequences_keep_the_contract(made):
    features, _ = made
    shapes = {"text": (12, 32), "audio": (48, 20), "vision": (24, 16)}
    for split, part in features.splits.items():
        assert len(part) == script.SIZES[split] == len(set(part.ids)) == len(part.transcripts)
        assert [name for name, _ in part.ordered()] == list(shapes)
        for name, sequences in part.ordered():
            assert sequences.x.shape == (len(part), *shapes[name])
            assert sequences.x.dtype == np.float32 and sequences.mask.dtype == bool
            assert np.isfinite(sequences.x).all()
            assert not sequences.x[~sequences.mask].any()
            # Padding stands at the end only.
            assert (np.diff(sequences.mask.astype(int), axis=1) <= 0).all()
            assert len(set(sequences.mask.sum(1))) > 4


def test_a_few_examples_lack_one_modality(made):
    features, _ = made
    part = features.splits["train"]
    absent = np.stack([~s.mask.any(1) for _, s in part.ordered()])
    assert absent.sum(0).max() == 1
    assert (absent.sum(1) > 0).all() and 0.01 < absent.any(0).mean() < 0.06


def test_lags_are_random():
    part = script.write("train", 0)
    rows = np.arange(len(part))
    centre = (part.word_times[rows, part.stress] + part.word_times[rows, part.stress + 1]) / 2
    lag = part.flash - centre
    same = np.abs(lag) < 0.3  # now and then the face flashes in the other clause
    assert part.voice_start.std() > 0.05
    assert same.mean() > 0.85 and lag[same].std() > 0.04
    assert (part.voice_end < script.CLIP_SECONDS).all()


def test_pitch_is_measured_as_it_was_sung():
    part = script.write("test", 0, 40)
    features = measure.audio(part, voice.waveform(part)).x
    pitch = voice.contours(part)[0][:, 1:96:2]  # blocks of 250 samples, steps of 500
    times = np.broadcast_to((np.arange(48) + 0.5) / measure.AUDIO_HZ, (40, 48))
    sung = (script.speaking(part, times) > 0.6) & (features[..., 1] != 0)
    error = np.abs(features[..., 1] / 2 - np.log2(pitch / 180))[sung]
    assert sung.sum() > 300 and np.median(error) < 0.03 and (error > 0.3).mean() < 0.03


def test_the_stressed_word_is_the_loudest():
    part = script.write("test", 0, 60)
    features = measure.audio(part, voice.waveform(part))
    loudest = (features.x[..., 0] - 9 * ~features.mask).argmax(1) / measure.AUDIO_HZ
    rows = np.arange(60)
    start, end = part.word_times[rows, part.stress], part.word_times[rows, part.stress + 1]
    assert ((loudest > start - 0.06) & (loudest < end + 0.06)).mean() > 0.9


def test_expressions_are_told_apart_by_a_full_face():
    part = script.write("train", 0, 7)
    order = np.arange(7)
    values = {"face": order, "face_twin": order, "speaker": order * 0}
    part = dataclasses.replace(part, face_strength=np.ones(7), **values)
    drawn = face.draw(face.pose(part, part.flash[:, None]), face.looks(part))[:, 0].astype(int)
    apart = np.abs(drawn[:, None] - drawn[None]).mean((2, 3, 4)) + 9 * np.eye(7)
    assert apart.min() > 1.0


def test_unpaired_streams_share_no_example():
    few = {name: views.unpaired(name, 0, "test") for name in ("image", "audio", "text")}
    assert few["image"].x.shape[1:] == (64, 64, 3) and few["image"].x.dtype == np.uint8
    assert few["audio"].x.shape[1:] == (24000,)
    assert all(isinstance(sentence, str) for sentence in few["text"].x)
    ids = [name for part in few.values() for name in part.ids]
    assert len(ids) == len(set(ids)) == 3 * 256
    assert not np.array_equal(few["image"].labels, few["audio"].labels)
    assert all(len(part) == len(part.labels) for part in few.values())


def test_bad_names_are_refused_with_what_is_allowed():
    with pytest.raises(InputError, match="valid"):
        views.clips("dev", 0)
    with pytest.raises(InputError, match="image"):
        views.unpaired("vision", 0)


def test_all_views_are_made_quickly(made):
    _, seconds = made
    start = time.process_time()
    clips = views.clips("test", 0)
    clips_seconds = (time.process_time() - start) * 1536 / len(clips)
    # In processor time of sines by NumPy, so that neither a busy nor a slow machine fails it: 45
    # were measured. Unpaired streams take less than clips.
    wave = np.linspace(0, 100, 1_000_000)
    start = time.process_time()
    for _ in range(20):
        np.cumsum(np.sin(wave) * wave)
    assert seconds + 2 * clips_seconds < 135 * (time.process_time() - start)


@pytest.mark.slow
def test_together_is_clearly_better_than_the_best_alone(made):
    features, _ = made
    scores = synth_probe.ceilings(features, 0)
    best = max(scores[name] for name in ("text", "audio", "vision"))
    assert 0.45 < best < 0.70
    assert scores["pooled"] > best + 0.08
    assert scores["joint"] > scores["pooled"] + 0.03


def test_set_module():
    assert LabelSpec(kind="class", classes=sentences.CLASSES) == affect_synth.DATASET.labels
    assert affect_synth.DATASET.group_of("train_s03_0007") == "s03"
    with pytest.raises(InputError, match="sequences"):
        affect_synth.generate("unpaired", 0)


def test_both_views_show_the_same_examples():
    clips = list(affect_synth.generate("clips", 0, count=3)["valid"])
    whole = views.sequences(0).splits["valid"]
    assert [clip.id for clip in clips] == list(whole.ids[:3])
    assert [clip.label for clip in clips] == whole.label[:3].tolist()
    assert clips[0].frames.shape == (16, 64, 64, 3) and clips[0].waveform.shape == (24000,)
