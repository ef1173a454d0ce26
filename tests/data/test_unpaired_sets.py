"""Sets of one modality an example: faces, utterances and comments, listed from small folders."""

import logging as std_logging

import media_files
import numpy as np
import pytest
from clip_layouts import listed, touch
from feature_layouts import REALDATA
from unpaired_layouts import affectnet_arrays, affectnet_tables, iemocap, meld, rafdb, write

from affectjax import emotions
from affectjax.data.media import codec
from affectjax.data.prepare import plan, prepared, request
from affectjax.data.raw import sets
from affectjax.data.skipped import SkippedRecords
from affectjax.errors import InputError

NAMES = (
    "affectnet",
    "fedro",
    "goemotions",
    "iemocap",
    "imagen",
    "meld",
    "rafdb",
    "ravdess_all",
    "ravdess_song",
)


def said(found):
    return {name: (clip.split, clip.label) for name, clip in found.items()}


@pytest.mark.parametrize("name", NAMES)
def test_a_folder_of_something_else(name, tmp_path):
    touch(tmp_path / "readme.txt")
    with pytest.raises(InputError, match=f"nothing of {name} here; looked for "):
        sets.get(name).clips(tmp_path, SkippedRecords())
    with pytest.raises(InputError, match="none: no such file or folder"):
        sets.get(name).clips(tmp_path / "none", SkippedRecords())


@pytest.mark.parametrize(
    ("name", "example", "group"),
    [
        ("affectnet", "689/a.jpg", "689/a.jpg"),
        ("fedro", "happy/1.jpg", "happy/1.jpg"),
        ("goemotions", "eebbqej", "eebbqej"),
        ("iemocap", "Ses01F_impro01_M003", "Ses01"),
        ("iemocap", "Ses05M_script01_1b_F013", "Ses05"),
        ("imagen", "happy/1.jpg", "happy/1.jpg"),
        ("meld", "dia12_utt7", "dia12"),
        ("rafdb", "train_00001", "train_00001"),
        ("ravdess_all", "03-02-06-01-02-01-12", "12"),
        ("ravdess_song", "03-02-06-01-02-01-12", "12"),
    ],
)
def test_group_of_an_id(name, example, group):
    assert sets.get(name).group_of(example) == group


@pytest.mark.parametrize("name", NAMES)
def test_the_seven_emotions_are_in_each_set(name):
    classes = sets.get(name).label_spec("clips").classes
    found = set(emotions.table("seven", classes).values())
    missing = {
        "imagen": {"disgust", "fear", "sadness", "surprise"},
        "ravdess_song": {"disgust", "surprise"},
    }
    assert set(emotions.SEVEN) - found == missing.get(name, set())


# RAF-DB


@pytest.mark.parametrize("above", ["", "basic", "RAF-DB/basic"])
def test_rafdb(above, tmp_path):
    lines = [f"train_0000{n}.jpg {n}" for n in range(1, 8)] + ["test_0001.jpg 4", ""]
    basic = rafdb(tmp_path / above, lines[:-1])
    found, skipped = listed("rafdb", tmp_path)
    words = ("surprise", "fear", "disgust", "happiness", "sadness", "anger", "neutral")
    train = {f"train_0000{n}": ("train", word) for n, word in enumerate(words, start=1)}
    assert said(found) == train | {"test_0001": ("test", "happiness")} and skipped == {}
    assert found["test_0001"].video == basic / "Image" / "aligned" / "test_0001_aligned.jpg"
    assert (found["test_0001"].audio, found["test_0001"].text) == (None, None)
    assert sets.get("rafdb").labels.classes == words


def test_rafdb_as_found(tmp_path):
    rafdb(tmp_path, ["train_00001.jpg 1"], pictures="original")
    found, _ = listed("rafdb", tmp_path)
    assert found["train_00001"].video == tmp_path / "Image" / "original" / "train_00001.jpg"


def test_rafdb_lines_that_are_skipped(tmp_path):
    lines = [
        "train_1.jpg 1",
        "train_2.jpg 8",
        "train_1.jpg 2",
        "valid_1.jpg 3",
        "test_9.jpg 7",
        "x",
    ]
    rafdb(tmp_path, lines)
    (tmp_path / "Image" / "aligned" / "test_9_aligned.jpg").unlink()
    found, skipped = listed("rafdb", tmp_path)
    assert said(found) == {"train_1": ("train", "surprise")}
    assert skipped.pop(("test", "test_9")).endswith("Image/aligned/test_9_aligned.jpg is not there")
    assert skipped == {
        ("train", "train_2"): "label '8' is none of 1 to 7",
        ("train", "train_1"): "is listed twice; the first is kept",
        ("train", "valid_1.jpg 3"): "is not train_ or test_, .jpg and a label",
        ("train", "x"): "is not train_ or test_, .jpg and a label",
    }
    with pytest.raises(InputError, match=r"label\.txt: line 2: train: example train_2: label '8'"):
        sets.get("rafdb").clips(tmp_path, SkippedRecords(strict=True))


def test_rafdb_without_images_or_with_a_broken_list(tmp_path):
    path = write(tmp_path / "EmoLabel" / "list_patition_label.txt", "train_1.jpg 1\n")
    with pytest.raises(InputError, match="nothing of rafdb here; looked for Image/aligned"):
        listed("rafdb", tmp_path)
    touch(tmp_path / "Image" / "aligned" / "train_1_aligned.jpg")
    path.write_bytes(b"train_1\xff\xfe")
    with pytest.raises(
        InputError, match=r"list_patition_label\.txt: is not a readable UTF-8 table"
    ):
        listed("rafdb", tmp_path)


# AffectNet


@pytest.mark.parametrize(
    ("lists", "pictures"),
    [
        ("", "Manually_Annotated_Images"),
        ("Manually_Annotated_file_lists", "Manually_Annotated/Manually_Annotated_Images"),
        ("", "."),
    ],
)
def test_affectnet_tables(lists, pictures, tmp_path, caplog):
    train = [("689/a.jpg", 1), ("689/b.jpg", 0), ("7/c.png", 7), ("7/d.jpg", 8), ("7/e.jpg", 10)]
    valid = [("1/a.jpg", 6), ("1/b.jpg", 9)]
    affectnet_tables(tmp_path / lists, train, valid)
    touch(*(tmp_path / pictures / name for name, _ in train + valid))
    with caplog.at_level(std_logging.INFO):
        found, skipped = listed("affectnet", tmp_path)
    assert said(found) == {
        "689/a.jpg": ("train", "happy"),
        "689/b.jpg": ("train", "neutral"),
        "7/c.png": ("train", "contempt"),
        "1/a.jpg": ("test", "anger"),
    }
    assert skipped == {} and "affectnet: 3 rows with no" in caplog.text
    assert found["7/c.png"].video == tmp_path / pictures / "7" / "c.png"


def test_affectnet_rows_that_are_skipped(tmp_path):
    train = [("1/a.jpg", 1), ("1/b.jpg", 11), ("1/c.jpg", ""), ("1/a.jpg", 2), ("1/gone.jpg", 3)]
    affectnet_tables(tmp_path, train, [("1/a.jpg", 6)])
    touch(tmp_path / "Manually_Annotated_Images" / "1" / "a.jpg")
    clips = sets.get("affectnet").clips(tmp_path, skipped := SkippedRecords(strict=False))
    assert [(c.split, c.id, c.label) for c in clips] == [
        ("train", "1/a.jpg", "happy"),
        ("test", "1/a.jpg", "anger"),
    ]
    assert skipped.reasons.pop(("train", "1/gone.jpg")).endswith("1/gone.jpg is not there")
    assert skipped.reasons == {
        ("train", "1/b.jpg"): "expression '11' is none of 0 to 10",
        ("train", "1/c.jpg"): "expression '' is none of 0 to 10",
        ("train", "1/a.jpg"): "is listed twice; the first is kept",
    }
    write(tmp_path / "training.csv", "file,expression\n1/a.jpg,1\n")
    with pytest.raises(
        InputError, match=r"training\.csv: has no column subDirectory_filePath; exp"
    ):
        listed("affectnet", tmp_path)


@pytest.mark.parametrize("dtype", ["<U1", "int64"])
def test_affectnet_annotations(dtype, tmp_path):
    affectnet_arrays(tmp_path / "train_set", {"10": 2, "9": 7, "11": 4}, dtype)
    affectnet_arrays(tmp_path / "val_set", {"0": 5}, dtype)
    (tmp_path / "train_set" / "annotations" / "11_exp.npy").write_bytes(b"no array")
    touch(tmp_path / "train_set" / "images" / "12.jpg")
    found, skipped = listed("affectnet", tmp_path)
    assert said(found) == {
        "train_set/images/9.jpg": ("train", "contempt"),
        "train_set/images/10.jpg": ("train", "sad"),
        "val_set/images/0.jpg": ("test", "disgust"),
    }
    assert set(skipped) == {
        ("train", "train_set/images/11.jpg"),
        ("train", "train_set/images/12.jpg"),
    }
    assert "No such file" in skipped["train", "train_set/images/12.jpg"]


@pytest.mark.parametrize(
    ("splits", "become"),
    [
        (("train", "val", "test"), ("train", "valid", "test")),
        (("Train", "val"), ("train", "test")),
        (("AffectNet/train", "AffectNet/valid"), ("train", "test")),
    ],
)
@pytest.mark.parametrize(("happy", "anger"), [("1", "6"), ("Happy", "Anger"), ("happy", "angry")])
def test_affectnet_folders(splits, become, happy, anger, tmp_path):
    for split in splits:
        touch(tmp_path / split / happy / "a.jpg", tmp_path / split / anger / "b.png")
    clips = sets.get("affectnet").clips(tmp_path, skipped := SkippedRecords(strict=False))
    wanted = {
        (s, f"{folder}/{file}", word)
        for s in become
        for folder, file, word in ((happy, "a.jpg", "happy"), (anger, "b.png", "anger"))
    }
    assert {(c.split, c.id, c.label) for c in clips} == wanted and len(clips) == len(wanted)
    assert skipped.reasons == {}


def test_seven_emotions_of_affectnet_leave_contempt_out():
    found = emotions.table("seven", sets.get("affectnet").labels.classes)
    assert "contempt" not in found and len(found) == 7 and found["happy"] == "happiness"


# FED-RO and IMAGEN


@pytest.mark.parametrize("above", ["", "FED-RO_crop", "FED-RO/FED-RO_crop"])
def test_fedro(above, tmp_path):
    place = tmp_path / above
    folders = ("anger", "disgust", "fear", "happy", "neural", "sad", "Surprise")
    touch(*(place / folder / "1.jpg" for folder in folders))
    found, skipped = listed("fedro", tmp_path)
    assert skipped == {} and {c.split for c in found.values()} == {"test"}
    words = ("anger", "disgust", "fear", "happy", "neutral", "sad", "surprise")
    assert {n: c.label for n, c in found.items()} == {
        f"{folder}/1.jpg": word for folder, word in zip(folders, words, strict=True)
    }
    assert found["neural/1.jpg"].video == place / "neural" / "1.jpg"


def test_imagen_and_files_that_are_no_images(tmp_path):
    endings = (".jpg", ".JPEG", ".png", ".bmp", ".gif", ".tif", ".webp")
    touch(*(tmp_path / "angry" / f"1{ending}" for ending in endings))
    touch(tmp_path / "Happy" / "1.png", tmp_path / "neutral" / ".DS_Store")
    touch(tmp_path / "neutral" / "notes.txt", tmp_path / "sad" / "1.jpg", tmp_path / ".git" / "x")
    found, skipped = listed("imagen", tmp_path)
    assert said(found) == {f"angry/1{e}": ("test", "angry") for e in endings} | {
        "Happy/1.png": ("test", "happy")
    }
    assert skipped.pop(("test", "neutral/notes.txt")).startswith("is no image; allowed: .jpg, ")
    assert skipped == {("test", "sad"): "the folder is none of angry, neutral, happy"}


@pytest.mark.parametrize("name", ["fedro", "imagen"])
def test_that_all_is_test_is_a_fact_and_no_problem(name, tmp_path):
    for folder in ("happy", "neutral"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "1.png").write_bytes(codec.encode(media_files.grey(0), "png"))
    found = prepared.diagnose(name, tmp_path, aligned=False, view="clips")
    assert found.splits["test"].count == 2 and found.problems == ()
    assert found.warnings[0] == "every example is for the test of what another set trained"


# MELD


def meld_rows():
    return [
        (0, 0, "neutral", '"also I was, the point person"'),
        (0, 1, "Joy", "Yes!"),
        (12, 3, "sadness", "So."),
    ]


def test_meld_text_alone(tmp_path):
    meld(tmp_path / "train_sent_emo.csv", meld_rows())
    meld(tmp_path / "dev_sent_emo.csv", [(0, 0, "anger", "What?")])
    clips = sets.get("meld").clips(tmp_path, SkippedRecords())
    assert [(c.split, c.id, c.label, c.text) for c in clips] == [
        ("train", "dia0_utt0", "neutral", "also I was, the point person"),
        ("train", "dia0_utt1", "joy", "Yes!"),
        ("train", "dia12_utt3", "sadness", "So."),
        ("valid", "dia0_utt0", "anger", "What?"),
    ]
    assert all((c.video, c.audio) == (None, None) for c in clips)


@pytest.mark.parametrize("above", ["", "MELD.Raw"])
@pytest.mark.parametrize("part", ["", "train"])
def test_meld_clips(above, part, tmp_path):
    meld(tmp_path / above / "train_sent_emo.csv", meld_rows())
    meld(tmp_path / above / "test_sent_emo.csv", [(5, 0, "fear", "Oh no.")])
    folder = tmp_path / above / part / "train_splits"
    touch(folder / "dia0_utt0.mp4", folder / "dia0_utt0.wav", folder / "dia12_utt3.wav")
    touch(folder / "._dia0_utt1.mp4", folder / "final_videos_testdia0_utt1.mp4")
    found, skipped = listed("meld", tmp_path)
    assert {name: (c.split, c.video, c.audio) for name, c in found.items()} == {
        "dia0_utt0": ("train", folder / "dia0_utt0.mp4", None),
        "dia12_utt3": ("train", None, folder / "dia12_utt3.wav"),
        "dia5_utt0": ("test", None, None),
    }
    assert skipped == {("train", "dia0_utt1"): f"has no clip in {folder}"}


def test_meld_rows_that_are_skipped(tmp_path):
    rows = [
        (0, 0, "neutral", "One."),
        (0, 0, "joy", "Two."),
        (0, 1, "bored", "Three."),
        (0, 2, "joy", '" "'),
        ("x", 3, "joy", "Five."),
    ]
    path = meld(tmp_path / "train_sent_emo.csv", rows)
    found, skipped = listed("meld", tmp_path)
    assert {n: c.text for n, c in found.items()} == {"dia0_utt0": "One."}
    allowed = "anger, disgust, fear, joy, neutral, sadness, surprise"
    assert skipped == {
        ("train", "dia0_utt0"): "stands twice in the table; the first is kept",
        ("train", "dia0_utt1"): f"emotion 'bored' is none of {allowed}",
        ("train", "dia0_utt2"): "has no Utterance",
        ("train", "diax_utt3"): "its Dialogue_ID or Utterance_ID is no number",
    }
    write(path, "Utterance,Emotion\nOne.,joy\n")
    with pytest.raises(InputError, match=r"emo\.csv: has no column Dialogue_ID, Utterance_ID; exp"):
        listed("meld", tmp_path)
    meld(path, [])
    with pytest.raises(InputError, match=r"train_sent_emo\.csv: has no row"):
        listed("meld", tmp_path)


@pytest.mark.parametrize(
    ("written", "encoding", "read"),
    [
        ("I\u2019m sure\u2026", "utf-8", "I\u2019m sure\u2026"),
        ("I\u0092m sure\u0085 \u0093so\u0094 \u0097", "utf-8", "I’m sure… “so” —"),
        ("I\u2019m sure\u2026 Ren\u00e9", "cp1252", "I’m sure… René"),
        ("I\u00e2\u20ac\u2122m RenÃ© \u00e2\u20ac\u201dyes", "utf-8", "I’m René —yes"),
        ("I\u00e2\u0080\u0099m Ã \u00a0la", "utf-8", "I’m Ã \u00a0la"),
        ("a\u0081b", "utf-8", "ab"),
        ("CAFÉ” Â°C caf\u00e9\u2019s", "utf-8", "CAFÉ” °C café’s"),
    ],
)
def test_what_is_left_of_windows_is_put_right(written, encoding, read, tmp_path, caplog):
    rows = [(0, 0, "joy", written), (0, 1, "joy", "plain"), (0, 2, "joy", "René’s")]
    lines = meld(tmp_path / "train_sent_emo.csv", rows).read_bytes().split(b"\n")
    # One line alone is in the other encoding, as when two copies were put together.
    lines[1] = lines[1].decode().encode(encoding)
    (tmp_path / "train_sent_emo.csv").write_bytes(b"\n".join(lines))
    with caplog.at_level(std_logging.INFO):
        found, skipped = listed("meld", tmp_path)
    assert [c.text for c in found.values()] == [read, "plain", "René’s"] and skipped == {}
    assert ("put characters right in 1 of 4 lines" in caplog.text) == (
        written != read or encoding != "utf-8"
    )


@pytest.mark.skipif(not REALDATA.is_dir(), reason="shared/realdata is not here: meld_text")
def test_real_meld_text():
    clips = sets.get("meld").clips(REALDATA / "meld_text", skipped := SkippedRecords(strict=True))
    splits = [c.split for c in clips]
    assert {s: splits.count(s) for s in set(splits)} == {"train": 9989, "valid": 1109}
    # As the set's page counts them.
    published = dict(anger=1109, disgust=271, fear=268, joy=1743, neutral=4710, sadness=683)
    counts = {w: sum(c.label == w and c.split == "train" for c in clips) for w in published}
    assert counts == published and skipped.reasons == {}
    letters = set("".join(c.text for c in clips))
    assert all(ord(x) >= 32 and not 0x7F <= ord(x) < 0xA0 and x != "\ufffd" for x in letters)


# GoEmotions


def test_goemotions(tmp_path, caplog):
    write(
        tmp_path / "data" / "train.tsv",
        'My favourite "food is\t27\teebbqej\nBoth\t2,3\teda6yn6\n\n  Well done \t0\ted2mah1\n',
    )
    write(tmp_path / "data" / "dev.tsv", "Sad\t25\teebbqej\r\n")
    with caplog.at_level(std_logging.INFO):
        clips = sets.get("goemotions").clips(tmp_path, SkippedRecords())
    assert [(c.split, c.id, c.label, c.text) for c in clips] == [
        ("train", "eebbqej", "neutral", 'My favourite "food is'),
        ("train", "ed2mah1", "admiration", "Well done"),
        ("valid", "eebbqej", "sadness", "Sad"),
    ]
    assert "goemotions: 1 comments with several emotions left out" in caplog.text


def test_goemotions_lines_that_are_skipped(tmp_path):
    lines = [
        "fine\t3\ta",
        "two\t28\tb",
        "\t3\tc",
        "again\t4\ta",
        "no id\t3",
        "none\t\td",
        "x\t1,y\te",
    ]
    path = write(tmp_path / "test.tsv", "\n".join(lines))
    found, skipped = listed("goemotions", tmp_path)
    assert said(found) == {"a": ("test", "annoyance")}
    assert skipped == {
        ("test", "b"): "emotion '28' is none of 0 to 27",
        ("test", "c"): "has no text",
        ("test", "a"): "stands twice in the split; the first is kept",
        ("test", "line 5"): "is not text, emotions and id",
        ("test", "d"): "emotion '' is none of 0 to 27",
        ("test", "e"): "emotion 'y' is none of 0 to 27",
    }
    path.write_bytes(b"\xff\t1\tx")
    with pytest.raises(InputError, match=r"test\.tsv: is not a readable UTF-8 table"):
        listed("goemotions", tmp_path)


# IEMOCAP


def utterances():
    return [
        ("Ses01F_impro01_F000", "neu", "Excuse me."),
        ("Ses01F_impro01_M000", "xxx", "Do you have your forms?"),
        ("Ses01F_impro01_F001", "fru", "Caf\xe9?"),
        ("Ses02M_script01_1b_F013", "exc", "Oh: yes [laughs]."),
        ("Ses03F_impro02_F000", "oth", "No."),
        ("Ses04F_impro02_M000", "hap", None),
        ("Ses05M_impro02_M000", "dis", "Eww."),
    ]


@pytest.mark.parametrize("above", ["", "IEMOCAP_full_release"])
def test_iemocap_clips(above, tmp_path, caplog):
    raw = iemocap(tmp_path / above, utterances())
    touch(raw / "Session1" / "dialog" / "EmoEvaluation" / "._Ses01F_impro01.txt")
    with caplog.at_level(std_logging.INFO):
        found, skipped = listed("iemocap", tmp_path)
    assert {n: (c.split, c.label, c.text) for n, c in found.items()} == {
        "Ses01F_impro01_F000": ("train", "neutral", "Excuse me."),
        "Ses01F_impro01_F001": ("train", "frustrated", "Caf\xe9?"),
        "Ses02M_script01_1b_F013": ("train", "excited", "Oh: yes [laughs]."),
        "Ses04F_impro02_M000": ("test", "happy", None),
        "Ses05M_impro02_M000": ("valid", "disgust", "Eww."),
    }
    assert skipped == {} and "iemocap: 2 utterances of no or another" in caplog.text
    wav = raw / "Session2" / "sentences" / "wav" / "Ses02M_script01_1b"
    assert found["Ses02M_script01_1b_F013"].audio == wav / "Ses02M_script01_1b_F013.wav"
    # The speakers of a session are in one split.
    splits = {}
    for clip in found.values():
        splits.setdefault(sets.get("iemocap").group_of(clip.id), set()).add(clip.split)
    assert splits == {"Ses01": {"train"}, "Ses02": {"train"}, "Ses04": {"test"}, "Ses05": {"valid"}}


def test_iemocap_utterances_that_are_skipped(tmp_path):
    rows = [
        *utterances()[:1],
        ("Ses01F_impro01_F002", "bor", "."),
        ("Ses01F_impro01_F003", "sad", "."),
    ]
    iemocap(tmp_path, [*rows, rows[0]])
    wav = tmp_path / "Session1" / "sentences" / "wav" / "Ses01F_impro01"
    (wav / "Ses01F_impro01_F003.wav").unlink()
    found, skipped = listed("iemocap", tmp_path)
    assert list(found) == ["Ses01F_impro01_F000"]
    assert skipped == {
        ("train", "Ses01F_impro01_F002"): (
            "emotion 'bor' is none of neu, hap, ang, sad, exc, fru, fea, sur, dis, xxx, oth"
        ),
        ("train", "Ses01F_impro01_F003"): f"{wav}/Ses01F_impro01_F003.wav is not there",
        ("train", "Ses01F_impro01_F000"): "stands twice; the first is kept",
    }
    write(tmp_path / "Session1" / "dialog" / "EmoEvaluation" / "Ses01F_impro01.txt", "nothing\n")
    with pytest.raises(InputError, match="no utterance in Session"):
        listed("iemocap", tmp_path)


def test_iemocap_has_two_views_with_labels_of_their_own(tmp_path):
    assert sets.get("iemocap").views == ("sequences", "clips")
    tasks = sets.get("iemocap").label_spec("sequences")
    assert tasks.kind == "binary" and len(tasks.classes) == 4
    raw = iemocap(tmp_path, utterances())
    spec = plan.make(request.Request("iemocap", raw, view="clips")).spec
    assert spec.kind == "class"
    clips = sets.get("iemocap").clips(raw, SkippedRecords())
    numbers = [spec.classes.index(clip.label) for clip in clips]
    assert numbers == [0, 5, 4, 1, 8]
    table = emotions.table("seven", spec.classes)
    assert set(spec.classes) - set(table) == {"excited", "frustrated"}


def test_annotation_arrays_are_read_without_pickles(tmp_path):
    affectnet_arrays(tmp_path / "train_set", {"0": 1, "1": 2})
    path = tmp_path / "train_set" / "annotations" / "0_exp.npy"
    np.save(path, np.array([print], dtype=object), allow_pickle=True)
    found, skipped = listed("affectnet", tmp_path)
    assert list(found) == ["train_set/images/1.jpg"]
    assert "is an array of Python objects" in skipped["train", "train_set/images/0.jpg"]
