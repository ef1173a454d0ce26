import numpy as np
import pytest
from clip_layouts import (
    DFEW,
    FOLDS,
    MAFW,
    dfew,
    faces,
    fer2013_csv,
    fer2013_npz,
    ferv39k,
    frames,
    listed,
    mafw,
    split_in,
    table,
    touch,
)
from feature_layouts import REALDATA

from affectjax.data.raw import sets
from affectjax.data.skipped import SkippedRecords
from affectjax.errors import InputError


@pytest.mark.parametrize("name", ["clips", "dfew", "ferv39k", "mafw", "ravdess", "fer2013"])
def test_a_folder_of_something_else(name, tmp_path):
    touch(tmp_path / "readme.txt")
    with pytest.raises(InputError, match=f"nothing of {name} here; looked for "):
        sets.get(name).clips(tmp_path, SkippedRecords())
    with pytest.raises(InputError, match="none: no such file or folder"):
        sets.get(name).clips(tmp_path / "none", SkippedRecords())


@pytest.mark.parametrize(
    ("name", "example", "group"),
    [
        ("clips", "mia_2", "mia"),
        ("clips", "talk[3]", "talk"),
        ("clips", "alone", "alone"),
        ("dfew", "00012", "00012"),
        ("mafw", "00012", "00012"),
        ("ferv39k", "Action/Happy/0015", "Action/Happy/0015"),
        ("ravdess", "03-01-06-01-02-01-12", "12"),
        ("ravdess", "01-01-06-01-02-02-07", "07"),
        ("fer2013", "00012", "00012"),
    ],
)
def test_group_of_an_id(name, example, group):
    assert sets.get(name).group_of(example) == group


# RAVDESS


def test_ravdess(tmp_path):
    touch(
        tmp_path / "Actor_01" / "03-01-01-01-01-01-01.wav",
        tmp_path / "Actor_01" / "03-01-08-02-02-02-01.flac",
        tmp_path / "Actor_01" / "03-02-03-01-01-01-01.wav",  # a song
        tmp_path / "Actor_01" / "._03-01-01-01-01-01-01.wav",
        tmp_path / "Actor_01" / "notes.txt",
        tmp_path / "Actor_20" / "03-01-04-01-01-01-20.wav",
        tmp_path / "Actor_21" / "01-01-05-01-01-01-21.mp4",
        tmp_path / "Actor_21" / "02-01-05-01-01-01-21.mp4",  # the same without sound
        tmp_path / "Actor_21" / "03-01-05-01-01-01-21.wav",  # the same without pictures
        tmp_path / "Actor_21" / "03-01-05-01-01-02-21.wav",  # another repetition
        tmp_path / "Actor_22" / "03-01-02-01-01-01-22.WAV",
        tmp_path / "Actor_22" / "02-01-03-01-01-01-22.mp4",  # without sound, on its own
        tmp_path / "Actor_24" / "03-01-07-01-01-01-24.wav",
    )
    skipped = SkippedRecords()
    found = {clip.id: clip for clip in sets.get("ravdess").clips(tmp_path, skipped)}
    assert {name: (c.split, c.label) for name, c in found.items()} == {
        "03-01-01-01-01-01-01": ("train", "neutral"),
        "03-01-08-02-02-02-01": ("train", "surprised"),
        "03-01-04-01-01-01-20": ("train", "sad"),
        "01-01-05-01-01-01-21": ("valid", "angry"),
        "03-01-05-01-01-02-21": ("valid", "angry"),
        "03-01-02-01-01-01-22": ("valid", "calm"),
        "03-01-07-01-01-01-24": ("test", "disgust"),
    }
    sound, film = found["03-01-08-02-02-02-01"], found["01-01-05-01-01-01-21"]
    assert sound.audio == tmp_path / "Actor_01" / "03-01-08-02-02-02-01.flac"
    assert sound.video is None and sound.text == "Dogs are sitting by the door"
    assert film.video == tmp_path / "Actor_21" / "01-01-05-01-01-01-21.mp4"
    assert film.audio is None and film.text == "Kids are talking by the door"
    assert skipped.reasons == {}
    assert sets.get("ravdess").labels.classes.index("fearful") == 5


@pytest.mark.parametrize(
    ("file", "reason"),
    [
        ("03-01-01-01-01-01.wav", "not seven fields"),
        ("angry.wav", "not seven fields"),
        ("03-01-09-01-01-01-02.wav", "emotion 09 of speech is none of 01 to 08"),
        ("03-01-00-01-01-01-02.wav", "emotion 00 of speech is none of 01 to 08"),
        ("03-01-01-01-03-01-02.wav", "statement 03 is neither 01 nor 02"),
        ("03-01-01-01-01-01-07.wav", "is of actor 07, in Actor_02"),
        ("03-01-01-01-01-01-02.wav", "there in another file"),
    ],
)
def test_ravdess_files_that_are_skipped(file, reason, tmp_path):
    good = tmp_path / "Actor_02" / "03-01-01-01-01-01-02.flac"
    touch(good, tmp_path / "Actor_02" / file)
    found, skipped = listed("ravdess", tmp_path)
    assert [clip.audio for clip in found.values()] == [good]
    ((split, name),) = skipped
    assert split == "train" and name in (file, file[:-4]) and reason in skipped[split, name]


def test_ravdess_without_speech(tmp_path):
    touch(tmp_path / "Actor_01" / "03-02-03-01-01-01-01.wav")
    with pytest.raises(
        InputError, match=r"no speech in Actor_.* names of those begin 01-01 or 03-01"
    ):
        listed("ravdess", tmp_path)


def sung(raw):
    """Writes speech and songs as their archives are unpacked."""
    speech, song = raw / "Audio_Speech_Actors_01-24", raw / "Audio_Song_Actors_01-24"
    touch(
        speech / "Actor_01" / "03-01-08-01-01-01-01.wav",
        speech / "Actor_23" / "03-01-03-01-01-01-23.wav",
        song / "Actor_01" / "03-02-03-01-01-01-01.wav",
        song / "Actor_01" / "03-02-06-01-02-01-01.wav",
        song / "Actor_22" / "03-02-02-01-01-01-22.wav",
        song / "Actor_24" / "03-02-01-01-01-01-24.wav",
    )
    return raw


def test_ravdess_song(tmp_path):
    touch(sung(tmp_path) / "Actor_02" / "03-02-07-01-01-01-02.wav")
    found, skipped = listed("ravdess_song", tmp_path)
    assert {name: (c.split, c.label) for name, c in found.items()} == {
        "03-02-03-01-01-01-01": ("train", "happy"),
        "03-02-06-01-02-01-01": ("train", "fearful"),
        "03-02-02-01-01-01-22": ("valid", "calm"),
        "03-02-01-01-01-01-24": ("test", "neutral"),
    }
    assert skipped == {("train", "03-02-07-01-01-01-02"): "emotion 07 of song is none of 01 to 06"}
    song = sets.get("ravdess_song")
    assert song.labels.classes == ("neutral", "calm", "happy", "sad", "angry", "fearful")
    assert song.group_of("03-02-01-01-01-01-24") == "24"


def test_ravdess_all_has_speech_and_song(tmp_path):
    both, skipped = listed("ravdess_all", sung(tmp_path))
    parts = [listed(name, tmp_path)[0] for name in ("ravdess", "ravdess_song")]
    assert both == parts[0] | parts[1] and [len(p) for p in parts] == [2, 4] and skipped == {}
    module = sets.get("ravdess_all")
    assert module.labels == sets.get("ravdess").labels
    splits = {}
    for clip in both.values():
        splits.setdefault(module.group_of(clip.id), set()).add(clip.split)
    assert splits == {"01": {"train"}, "22": {"valid"}, "23": {"test"}, "24": {"test"}}


def test_ravdess_song_of_speech_alone(tmp_path):
    touch(tmp_path / "Actor_01" / "03-01-03-01-01-01-01.wav")
    with pytest.raises(
        InputError, match=r"no song in Actor_.* names of those begin 01-02 or 03-02"
    ):
        listed("ravdess_song", tmp_path)
    assert list(listed("ravdess_all", tmp_path)[0]) == ["03-01-03-01-01-01-01"]


# FER2013


@pytest.mark.parametrize("write", [fer2013_npz, fer2013_csv])
def test_fer2013(write, tmp_path):
    image = faces()
    usage = ["Training", "Training", "PublicTest", "PrivateTest"]
    write(tmp_path, image, [0, 6, 3, 1], usage)
    skipped = SkippedRecords()
    found = sets.get("fer2013").clips(tmp_path, skipped)
    assert [(c.id, c.label, c.split) for c in found] == [
        ("00000", "angry", "train"),
        ("00001", "neutral", "train"),
        ("00002", "happy", "valid"),
        ("00003", "disgust", "test"),
    ]
    for clip, face in zip(found, image, strict=True):
        assert clip.frames.shape == (1, 48, 48, 3) and clip.frames.dtype == np.uint8
        for channel in range(3):
            np.testing.assert_array_equal(clip.frames[0, :, :, channel], face)
        # No channel has memory of its own.
        assert clip.frames.strides[3] == 0
        assert (clip.video, clip.audio, clip.text, clip.waveform) == (None,) * 4


def test_fer2013_rows_that_are_skipped(tmp_path):
    image = faces(5)
    fer2013_csv(
        tmp_path, image, [7, 0, 1, 2, 3], ["Training", "Test", "Training", "PublicTest", "Training"]
    )
    path = tmp_path / "fer2013.csv"
    lines = path.read_text().splitlines()
    lines[3] = lines[3].replace(",", ",256 ", 1).rsplit(" ", 1)[0] + ",Training"
    lines[4] = lines[4].replace(",", ",17 ", 1)
    path.write_text("\n".join(lines))
    found, skipped = listed("fer2013", path)
    assert set(found) == {"00004"}
    assert skipped == {
        ("train", "00000"): "emotion '7' is none of 0 to 6",
        ("Test", "00001"): "usage 'Test' is none of Training, PublicTest, PrivateTest",
        ("train", "00002"): "has not 2304 pixels from 0 to 255",
        ("valid", "00003"): "has not 2304 pixels from 0 to 255",
    }


def test_fer2013_archives_of_another_form(tmp_path):
    path = tmp_path / "fer2013.npz"
    usage = np.array(["Training"] * 4)
    for arrays, words in (
        (
            {"image": faces(), "label": np.zeros(4, int)},
            "has no array 'usage'",
        ),
        (
            {"image": faces(), "label": np.zeros(4, int), "usage": usage.astype(object)},
            "usage is an array of Python objects",
        ),
        ({"image": faces() / 255, "label": np.zeros(4, int), "usage": usage}, "image is float64"),
        ({"image": faces(), "label": np.zeros(4), "usage": usage}, "label float64"),
        ({"image": faces(3), "label": np.zeros(4, int), "usage": usage}, r"\[3, 48, 48\]"),
        ({"image": faces(), "label": np.zeros(4, int), "usage": usage[:2]}, r"expected .*\[N\]"),
    ):
        np.savez(path, **arrays)
        with pytest.raises(InputError, match=words):
            listed("fer2013", path)
    path.write_bytes(b"no zip")
    with pytest.raises(InputError, match="is not a NumPy archive of plain arrays"):
        listed("fer2013", path)
    table(tmp_path / "fer2013.csv", [("emotion", "pixels"), (0, "1 2")])
    with pytest.raises(InputError, match="has no column Usage; expected emotion, pixels, Usage"):
        listed("fer2013", tmp_path / "fer2013.csv")


# DFEW


def check_folds(found, numbers):
    """Every clip is in every fold, in the test split of one; each fold's splits are disjoint."""
    for number in numbers:
        clip = found[f"{number:05d}"]
        assert clip.split == "all"
        assert clip.folds == {fold: split_in(number, fold) for fold in FOLDS}
    for fold in FOLDS:
        parts = {s: {n for n, c in found.items() if c.folds[fold] == s} for s in ("train", "test")}
        assert parts["train"] | parts["test"] == set(found) and parts["test"]
        assert not parts["train"] & parts["test"]


@pytest.mark.parametrize(
    "lists",
    [
        "EmoLabel_DataSplit/{}(single-labeled)/set_{}.csv",
        "EmoLabel_DataSplit/{}(single_labeled)/set_{}.csv",
        "EmoLabel_DataSplit/{}/set_{}.csv",
        "label/single_{}set_{}.csv",
    ],
)
def test_dfew_lists(lists, tmp_path):
    dfew(tmp_path, lists=lists)
    for number in range(1, 11):
        frames(tmp_path / "data" / f"{number:05d}")
    found = {c.id: c for c in sets.get("dfew").clips(tmp_path, SkippedRecords())}
    assert list(found) == [f"{n:05d}" for n in range(1, 11)]
    check_folds(found, range(1, 11))
    assert [c.label for c in found.values()] == [*DFEW, *DFEW[:3]]
    assert found["00004"].video == tmp_path / "data" / "00004"
    assert sets.get("dfew").labels.classes == DFEW


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        ("Clip/clip_224x224", "00001"),
        ("Clip/clip_224x224/clip_224x224_part_1", "00001"),
        ("Clip/clip_224x224_16f", "00001"),
        ("Clip/clip_224x16f", "00001"),
        ("Clip/clip_224x224_avi", "00001.avi"),
        ("Clip/original/part_1", "1.mp4"),
        ("Clip/original", "00001.mp4"),
    ],
)
def test_dfew_pictures(folder, name, tmp_path):
    dfew(tmp_path, numbers=range(1, 6))
    for number in range(1, 6):
        path = tmp_path / folder / name.replace("1", str(number))
        frames(path) if name == "00001" else touch(path)
    # An archive that was not unpacked is no source of pictures.
    touch(tmp_path / "Clip" / "clip_224x224" / "clip_224x224_part_2.zip")
    found, skipped = listed("dfew", tmp_path)
    assert len(found) == 5 and skipped == {}
    assert found["00001"].video == tmp_path / folder / name
    assert found["00001"].audio is None


def test_dfew_sound_is_that_of_the_original(tmp_path):
    dfew(tmp_path, numbers=range(1, 6))
    for number in range(1, 6):
        frames(tmp_path / "Clip" / "clip_224x224" / f"{number:05d}")
        frames(tmp_path / "Clip" / "clip_224x224_16f" / f"{number:05d}")
    touch(tmp_path / "Clip" / "original" / "part_1" / "2.mp4")
    found, _ = listed("dfew", tmp_path)
    assert found["00002"].video == tmp_path / "Clip" / "clip_224x224" / "00002"
    assert found["00002"].audio == tmp_path / "Clip" / "original" / "part_1" / "2.mp4"
    assert found["00001"].audio is None


def test_dfew_clips_that_are_skipped(tmp_path):
    dfew(tmp_path, numbers=range(1, 8))
    for number in (1, 2, 3, 4, 5, 6):
        frames(tmp_path / "Clip" / "clip_224x224" / f"{number:05d}")
    folder = tmp_path / "EmoLabel_DataSplit"
    for split, fold, row in (
        ("train", 1, (1, 2)),  # sad there, elsewhere happy
        ("train", 3, (2, 2)),  # tested in fold 3
        ("train", 5, (3, 8)),
        ("train", 4, ("five", 1)),
    ):
        path = folder / f"{split}(single-labeled)" / f"set_{fold}.csv"
        path.write_text(path.read_text() + ",".join(map(str, row)) + "\n")
    found, skipped = listed("dfew", tmp_path)
    assert set(found) == {"00004", "00005", "00006"}
    assert skipped == {
        ("all", "00001"): "is happy in one list and sad in this",
        ("all", "00002"): "is in both train and test of fold 3",
        ("all", "00003"): "label '8' is none of 1, 2, 3, 4, 5, 6, 7",
        ("all", "00007"): "has no pictures there",
        ("all", "five"): "video_name 'five' is no number",
    }
    with pytest.raises(InputError, match=r"set_1\.csv: all: example 00001"):
        sets.get("dfew").clips(tmp_path, SkippedRecords(strict=True))


def test_dfew_without_a_list(tmp_path):
    frames(dfew(tmp_path, numbers=range(1, 6)) / "data" / "00001")
    path = tmp_path / "EmoLabel_DataSplit" / "test(single-labeled)" / "set_4.csv"
    path.unlink()
    with pytest.raises(InputError, match=r"fold 4 of dfew has no test list; looked for EmoLabel"):
        listed("dfew", tmp_path)
    table(path, [("clip_name", "label"), (1, 1)])
    with pytest.raises(
        InputError, match=r"set_4\.csv: has no column video_name; .* found clip_name"
    ):
        listed("dfew", tmp_path)


def test_dfew_with_lists_and_no_pictures(tmp_path):
    touch(dfew(tmp_path) / "Clip" / "clip_224x224" / "clip_224x224_part_1.zip")
    with pytest.raises(InputError, match="nothing of dfew here; looked for Clip/clip_224x224, "):
        listed("dfew", tmp_path)


# FERV39k


@pytest.mark.parametrize("nested", [False, True])
def test_ferv39k(nested, tmp_path):
    train = [
        "Action/Happy/0015 Happy",
        "Action/Fear/0000 Fear",
        "",
        "DailyLife/Neutral/0015 Neutral",
    ]
    ferv39k(tmp_path, train, ["War/Disgust/0003 Disgust"])
    faces_folder, filmed = tmp_path / "2_ClipsforFaceCrop", tmp_path / "0_7_LabelClips"
    if nested:
        faces_folder, filmed = faces_folder / faces_folder.name, filmed / filmed.name
    for name in ("Action/Happy/0015", "Action/Fear/0000", "DailyLife/Neutral/0015"):
        frames(faces_folder / name)
    frames(faces_folder / "War/Disgust/0003")
    touch(filmed / "Action/Fear/0000.mp4")
    skipped = SkippedRecords()
    found = {clip.id: clip for clip in sets.get("ferv39k").clips(tmp_path, skipped)}
    assert {name: (c.split, c.label) for name, c in found.items()} == {
        "Action/Happy/0015": ("train", "happy"),
        "Action/Fear/0000": ("train", "fear"),
        "DailyLife/Neutral/0015": ("train", "neutral"),
        "War/Disgust/0003": ("test", "disgust"),
    }
    assert found["Action/Fear/0000"].video == faces_folder / "Action/Fear/0000"
    assert found["Action/Fear/0000"].audio == filmed / "Action/Fear/0000.mp4"
    assert found["Action/Happy/0015"].audio is None
    assert skipped.reasons == {} and all(c.folds == {} for c in found.values())
    assert sets.get("ferv39k").labels.classes == DFEW


def test_ferv39k_as_filmed(tmp_path):
    ferv39k(tmp_path, ["Action/Happy/0015 Happy"], ["War/Sad/0003 Sad"])
    film = tmp_path / "0_7_LabelClips" / "War/Sad/0003.mp4"
    touch(film)
    found, skipped = listed("ferv39k", tmp_path)
    assert found["War/Sad/0003"].video == film and found["War/Sad/0003"].audio is None
    assert list(skipped) == [("train", "Action/Happy/0015")]


def test_ferv39k_lines_that_are_skipped(tmp_path):
    train = ["War/Sad/0001 Sad", "War/Sad/0002 Bored", "War/Sad/0003 Sad", "../Sad/0001 Sad", "War"]
    ferv39k(tmp_path, train, ["War/Sad/0001 Sad"])
    frames(tmp_path / "2_ClipsforFaceCrop" / "War/Sad/0001")
    touch(tmp_path / "0_7_LabelClips" / "War/Sad/0003.mp4")  # no face: not to be mixed in
    found, skipped = listed("ferv39k", tmp_path)
    assert {c.id: c.split for c in found.values()} == {"War/Sad/0001": "train"}
    reasons = {key: reason.partition(str(tmp_path))[2] or reason for key, reason in skipped.items()}
    assert reasons == {
        ("train", "War/Sad/0002"): f"label 'bored' is none of {', '.join(DFEW)}",
        ("train", "War/Sad/0003"): "/2_ClipsforFaceCrop/War/Sad/0003 is not there",
        ("train", "../Sad/0001 Sad"): "is not scene/emotion/number and an emotion",
        ("train", "War"): "is not scene/emotion/number and an emotion",
        ("test", "War/Sad/0001"): "is listed twice",
    }
    (tmp_path / "4_setups" / "All_scenes" / "test_All.csv").unlink()
    with pytest.raises(InputError, match=r"test_All\.csv: is not readable \("):
        listed("ferv39k", tmp_path)


# MAFW


@pytest.mark.parametrize("above", ["", "train_test_set"])
@pytest.mark.parametrize("folder", ["data/clips", "clips"])
def test_mafw(above, folder, tmp_path):
    mafw(tmp_path / above)
    touch(*(tmp_path / folder / f"{n:05d}.mp4" for n in range(1, 11)))
    found = {c.id: c for c in sets.get("mafw").clips(tmp_path, SkippedRecords())}
    assert list(found) == [f"{n:05d}" for n in range(1, 11)]
    check_folds(found, range(1, 11))
    assert [c.label for c in found.values()] == [*MAFW, *MAFW[:2]]
    assert found["00003"].video == tmp_path / folder / "00003.mp4"
    assert all(c.text is None and c.audio is None for c in found.values())
    assert len(sets.get("mafw").labels.classes) == 11
    assert sets.get("mafw").labels.classes[:8] == MAFW


@pytest.mark.parametrize("encoding", ["gb18030", "utf-8"])
def test_mafw_captions(encoding, tmp_path):
    mafw(mafw(tmp_path), kind="with_caption", encoding=encoding)
    touch(*(tmp_path / "data" / "clips" / f"{n:05d}.mp4" for n in range(1, 11)))
    found, skipped = listed("mafw", tmp_path)
    check_folds(found, range(1, 11))
    for number in range(1, 11):
        text = None if number == 5 else f"Man {number} “frowns”."
        assert found[f"{number:05d}"].text == text
    assert skipped == {}


def test_mafw_with_nothing_but_captioned_lists_and_frames(tmp_path):
    mafw(tmp_path, kind="with_caption", encoding="gb18030")
    for number in range(1, 11):
        frames(tmp_path / "data" / "frames" / f"{number:05d}")
    found, skipped = listed("mafw", tmp_path)
    check_folds(found, [n for n in range(1, 11) if n != 5])
    assert len(found) == 9 and skipped == {}
    assert found["00001"].video == tmp_path / "data" / "frames" / "00001"


def test_mafw_clips_that_are_skipped(tmp_path):
    mafw(tmp_path, numbers=range(1, 8))
    touch(*(tmp_path / "data" / "clips" / f"{n:05d}.mp4" for n in (1, 2, 4, 5, 6, 7)))
    folder = tmp_path / "Train & Test Set" / "single" / "no_caption"
    for split, fold, line in (
        ("train", 1, "00001.mp4 anger_disgust"),
        ("test", 2, "00002.mp4 disgust"),  # tested in fold 3
        ("train", 3, "00004.mp4"),
        ("train", 4, "film.mp4 fear"),
    ):
        path = folder / f"set_{fold}" / f"{split}.txt"
        path.write_text(path.read_text() + line + "\n")
    found, skipped = listed("mafw", tmp_path)
    assert set(found) == {"00005", "00006", "00007"}
    assert {key: reason[:40] for key, reason in skipped.items()} == {
        ("all", "00001"): "label 'anger_disgust' is none of anger, ",
        ("all", "00002"): "is in both train and test of fold 2",
        ("all", "00003"): "is not there",
        ("all", "00004"): "label '' is none of anger, disgust, fear",
        ("all", "film"): "is not there",
    }


def test_mafw_without_lists_or_clips(tmp_path):
    mafw(tmp_path)
    with pytest.raises(
        InputError, match="nothing of mafw here; looked for data/clips, clips, data/fr"
    ):
        listed("mafw", tmp_path)
    (tmp_path / "Train & Test Set" / "single" / "no_caption" / "set_2" / "train.txt").unlink()
    with pytest.raises(InputError, match="fold 2 of mafw has no train list"):
        listed("mafw", tmp_path)


# Real files


@pytest.mark.skipif(not REALDATA.is_dir(), reason="shared/realdata is not here: ravdess_speech")
def test_real_ravdess_speech():
    found = sets.get("ravdess").clips(REALDATA / "ravdess_speech", SkippedRecords())
    splits = [clip.split for clip in found]
    assert {s: splits.count(s) for s in set(splits)} == {"train": 20 * 60, "valid": 2 * 60}
    # Each actor says both sentences twice in each emotion and strength; neutral has one strength.
    counts = {
        name: sum(c.label == name for c in found) for name in sets.get("ravdess").labels.classes
    }
    assert counts.pop("neutral") == 22 * 4 and set(counts.values()) == {22 * 8}
    assert len({sets.get("ravdess").group_of(c.id) for c in found}) == 22
    assert all(c.audio.is_file() and c.video is None for c in found)


@pytest.mark.skipif(not REALDATA.is_dir(), reason="shared/realdata is not here: fer2013")
def test_real_fer2013():
    found = sets.get("fer2013").clips(REALDATA / "fer2013", SkippedRecords())
    splits = [clip.split for clip in found]
    assert {s: splits.count(s) for s in set(splits)} == {"train": 28709, "valid": 3589}
    assert sum(clip.label == "disgust" for clip in found) == 492
