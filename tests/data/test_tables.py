import logging

import numpy as np
import pytest
from clip_layouts import listed, own, touch
from feature_layouts import plain, steps

from affectjax.data.labels import LabelSpec, infer
from affectjax.data.raw import readers, sets, tables
from affectjax.data.skipped import SkippedRecords
from affectjax.errors import InputError

ROWS = "id,split,label,audio,text\na,train,happy,1.wav,one\nb,valid,sad,2.wav,\u00e9, two\n"
QUOTED = ROWS.replace("\u00e9, two", '"\u00e9, two"')


def written(folder, content, encoding="utf-8", name="clips.csv"):
    touch(*(folder / f"{k}.wav" for k in range(1, 6)))
    (folder / name).write_bytes(content.encode(encoding))
    return folder


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize(
    ("delimiter", "name"), [(",", "clips.csv"), (";", "a.csv"), ("\t", "a.tsv")]
)
def test_encodings_and_delimiters_are_told_apart(tmp_path, encoding, delimiter, name):
    if delimiter == ",":
        content = QUOTED
    else:
        content = ROWS.replace("\u00e9, two", "\u00e9# two").replace(",", delimiter)
        content = content.replace("#", ",")
    found, skipped = listed(
        "clips", written(tmp_path, content.replace("\n", "\r\n"), encoding, name)
    )
    assert {n: (c.split, c.label, c.audio.name, c.text) for n, c in found.items()} == {
        "a": ("train", "happy", "1.wav", "one"),
        "b": ("valid", "sad", "2.wav", "\u00e9, two"),
    }
    assert skipped == {}


def test_what_is_no_utf8_with_commas_is_said_once(tmp_path, caplog):
    folder = written(tmp_path, ROWS.replace("\u00e9, two", "x").replace(",", ";"), "utf-16")
    with caplog.at_level(logging.INFO, logger="absl"):
        for _ in range(2):
            listed("clips", folder)
    said = [record.getMessage() for record in caplog.records if "clips.csv" in record.getMessage()]
    assert len(said) == 2
    assert any("UTF-16" in line for line in said) and any("semicolons" in line for line in said)


HEAD = "id,split,label,audio,text\n"
REST = "c,train,sad,3.wav,three\nd,valid,happy,4.wav,four\n"


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ('a,train,sad,1.wav,"two\n' + REST, r"line 2: is not a row \(unexpected end of data\)"),
        ('a,train,sad,1.wav,"two\n' + REST + 'e,test,sad,5.wav,"five"\n', "line 2: is not a row"),
        (
            'a,train,sad,1.wav,"two\n' + REST + 'e,test,sad,5.wav,five"\n',
            "line 2: the double quote",
        ),
        ('a,train,sad,1.wav,"tw"o\n' + REST, "line 2: is not a row"),
    ],
)
def test_a_quote_swallows_no_row(tmp_path, rows, words):
    with pytest.raises(InputError, match=words):
        listed("clips", written(tmp_path, HEAD + rows))


def test_values_of_several_lines_are_kept(tmp_path):
    rows = 'a,train,sad,1.wav,"Well,\nwell, oh, no, yes"\nb,train,happy,2.wav,5" tall\n'
    found, _ = listed("clips", written(tmp_path, HEAD + rows))
    assert found["a"].text == "Well,\nwell, oh, no, yes" and found["b"].text == '5" tall'


@pytest.mark.parametrize(
    ("column", "words"),
    [
        ("vidoe", "column 'vidoe' is unknown; .*did you mean video"),
        ("Text", "column 'Text' is unknown; .*did you mean text"),
        ("speaker", "column 'speaker' is unknown; allowed: id, split, label, video, audio, text"),
        ("", "column '' is unknown"),
        ("audio", "has the column 'audio' twice"),
    ],
)
def test_columns_that_nobody_reads(tmp_path, column, words):
    with pytest.raises(InputError, match=words):
        listed("clips", written(tmp_path, QUOTED.replace("text", column, 1)))
    with pytest.raises(InputError, match=r"column 'textt' is unknown; .*did you mean text"):
        (tmp_path / "labels.csv").write_text("id,split,label,textt\na,train,0,x\n")
        sets.get("own").label_spec("sequences", tmp_path)


def test_paths_of_windows(tmp_path):
    own(
        tmp_path,
        [("a", "train", "sad", "", "b\\c.wav", ""), ("b", "train", "sad", "", "a\\..\\..\\x", "")],
    )
    touch(tmp_path / "b" / "c.wav")
    found, skipped = listed("clips", tmp_path)
    assert found["a"].audio == (tmp_path / "b" / "c.wav").resolve()
    assert "leads out of" in skipped["train", "b"]


def test_two_tables_of_one_name(tmp_path):
    written(tmp_path, QUOTED)
    written(tmp_path, ROWS.replace(",", "\t"), name="clips.tsv")
    with pytest.raises(InputError, match=r"both clips\.csv and clips\.tsv; keep one"):
        listed("clips", tmp_path)


def test_a_transcript_that_a_comma_cuts(tmp_path):
    folder = plain(
        tmp_path, [("a", "train", "0"), ("b", "train", "1")], ["x", "y"], text=steps([1, 1], 1, 1)
    )
    table = (folder / "labels.csv").read_text().replace("b,train,1,y", "b,train,1,Well, well")
    (folder / "labels.csv").write_text(table)
    spec, skipped = LabelSpec("class", ("0", "1")), SkippedRecords(strict=False)
    assert readers.read(folder, spec, False, skipped=skipped).splits["train"].ids == ("a", "b")
    assert skipped.reasons == {("train", "b"): tables.LONGER}
    with pytest.raises(InputError, match=r"labels\.csv: line 3: train: example b: has too many"):
        readers.read(folder, spec, False)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("textt_lengths", "array 'textt_lengths' is unknown; .*did you mean text_lengths"),
        ("vidoe", "array 'vidoe' is unknown"),
        ("text_lengths", "has text_mask and text_lengths; keep one of them"),
    ],
)
def test_arrays_that_nobody_reads(tmp_path, name, words):
    arrays = {"text": steps([1], 1, 1), "text_mask": np.ones((1, 1), bool), name: np.ones(1)}
    folder = plain(tmp_path, [("a", "train", "0")], **arrays)
    with pytest.raises(InputError, match=words):
        readers.read(folder, LabelSpec("score"), False)


def test_archives_that_nobody_reads(tmp_path):
    folder = plain(tmp_path, [("a", "train", "0")], text=steps([1], 1, 1))
    np.savez(folder / "vison.npz", vision=steps([1], 1, 1))
    with pytest.raises(InputError, match=r"vison\.npz: is not read; did you mean vision\.npz"):
        readers.read(folder, LabelSpec("score"), False)
    (folder / "vison.npz").unlink()
    np.savez(folder / "audio.npz", audio=steps([1], 1, 1), text=steps([1], 1, 1))
    with pytest.raises(InputError, match=r"audio\.npz: array 'text' is unknown"):
        readers.read(folder, LabelSpec("score"), False)


def test_missing_values_are_no_class():
    for word in ("nan", "NaN", "None", "NULL", "N/A", ""):
        assert infer(["sad", word, "happy"]) == LabelSpec("class", ("happy", "sad"))
        assert infer(["0", word, "1"]) == LabelSpec("class", ("0", "1"))
    assert infer(["none", "sad"]).classes == ("none", "sad")


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (("Happy", "happy"), "labels 'Happy' and 'happy' would be two classes"),
        (("very  sad", "Very sad"), "would be two classes"),
        (("0,5", "1,5"), "label '0,5' has a comma; write a point"),
        (("1", "happy", "2"), "has numbers and 'happy'"),
    ],
)
def test_labels_that_seem_to_be_slips(values, words):
    with pytest.raises(InputError, match=words):
        infer(values)
