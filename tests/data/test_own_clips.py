import json

import pytest
from clip_layouts import frames, listed, own, touch

from affectjax.data.labels import LabelSpec
from affectjax.data.raw import sets
from affectjax.data.skipped import SkippedRecords
from affectjax.errors import InputError

GOOD = ("good", "train", "happy", "a.mp4", "", "")


def test_own_clips(tmp_path):
    rows = [
        ("x_1", "train", "sad", "a.mp4", "", ""),
        ("x_2", "train", "happy", "f", "a.wav", " Well, well. "),
        ("", " ", "", "", "", ""),
        ("x_1", "valid", "sad", "", "a.wav", ""),
        ("y", "test", "happy", "", "", "你好"),
    ]
    path = own(tmp_path, rows)
    path.write_text(path.read_text(encoding="utf-8") + "\n,,,,,\n", encoding="utf-8-sig")
    found = sets.get("clips").clips(tmp_path, SkippedRecords())
    assert [(c.id, c.split, c.label) for c in found] == [
        ("x_1", "train", "sad"),
        ("x_2", "train", "happy"),
        ("x_1", "valid", "sad"),
        ("y", "test", "happy"),
    ]
    root = tmp_path.resolve()
    assert [c.video for c in found] == [root / "a.mp4", root / "f", None, None]
    assert [c.audio for c in found] == [None, root / "a.wav", root / "a.wav", None]
    assert [c.text for c in found] == [None, "Well, well.", None, "你好"]
    assert all(c.frames is None and c.waveform is None and c.folds == {} for c in found)
    assert sets.get("clips").label_spec("clips", tmp_path) == LabelSpec("class", ("happy", "sad"))


def test_own_table_by_its_name_or_as_the_only_one(tmp_path):
    path = own(tmp_path, [GOOD], name="mine.csv")
    for raw in (tmp_path, path, str(path)):
        assert set(listed("clips", raw)[0]) == {"good"}
    own(tmp_path, [("other", *GOOD[1:])], name="second.csv")
    with pytest.raises(InputError, match=r"several tables \(mine.csv, second.csv\); name one"):
        listed("clips", tmp_path)
    own(tmp_path, [("third", *GOOD[1:])])
    assert set(listed("clips", tmp_path)[0]) == {"third"}


def test_own_columns_in_any_order_and_some_left_out(tmp_path):
    own(
        tmp_path,
        [("3", "hm", "train", "a")],
        ("label", "text", "split", "id"),
    )
    found, skipped = listed("clips", tmp_path)
    assert (found["a"].text, found["a"].label, found["a"].video) == ("hm", "3", None)
    assert skipped == {}


@pytest.mark.parametrize(
    ("values", "spec"),
    [
        (("sad", "happy", "sad"), LabelSpec("class", ("happy", "sad"))),
        (("0", "2", ""), LabelSpec("class", ("0", "1", "2"))),
        (("-1.5", "2", "0"), LabelSpec("score")),
    ],
)
def test_own_labels_from_their_column(values, spec, tmp_path):
    own(tmp_path, [(f"x{i}", "train", v, "a.mp4", "", "") for i, v in enumerate(values)])
    assert sets.get("clips").label_spec("clips", tmp_path) == spec


def test_own_labels_that_would_make_too_many_classes(tmp_path):
    own(
        tmp_path,
        [("a", "train", "1", "a.mp4", "", ""), ("b", "train", "99999999", "a.mp4", "", "")],
    )
    with pytest.raises(InputError, match=r"clips\.csv: the label 99999999 would make 100000000 cl"):
        sets.get("clips").label_spec("clips", tmp_path)


def test_own_labels_from_labels_json(tmp_path):
    own(tmp_path, [("a", "train", "1", "a.mp4", "", ""), ("b", "train", "sad", "f", "", "")])
    said = {"kind": "class", "classes": ["sad", "happy"]}
    (tmp_path / "labels.json").write_text(json.dumps(said))
    assert sets.get("clips").label_spec("clips", tmp_path / "clips.csv") == LabelSpec(
        "class", ("sad", "happy")
    )
    assert set(listed("clips", tmp_path)[0]) == {"a", "b"}
    (tmp_path / "labels.json").write_text('["sad"]')
    with pytest.raises(InputError, match=r"labels.json: expected an object with kind"):
        listed("clips", tmp_path)


@pytest.mark.parametrize(
    ("header", "row", "words"),
    [
        (("id", "label", "video"), ("a", "sad", "a.mp4"), "no column split; .* found id, label, v"),
        (
            ("id", "split", "label", "adio"),
            ("a", "train", "sad", "a.wav"),
            "column 'adio' is unknown; allowed: id, split, label, video, audio, text; did you mean",
        ),
        (("id", "split", "label"), ("a", "train", "sad"), "none of the columns video, audio, text"),
        (None, ("", "train", "sad", "a.mp4", "", ""), "line 3 has no id"),
        (
            None,
            ("a", "dev", "sad", "a.mp4", "", ""),
            "line 3: split 'dev' is none of train, valid, t",
        ),
        (None, ("a", "", "sad", "a.mp4", "", ""), "line 3: split '' is none of train, valid, test"),
        (
            None,
            ("a", "train", "1", "a.mp4", "", ""),
            "column label has numbers and 'happy'; .*json",
        ),
    ],
)
def test_own_tables_that_cannot_be_read(header, row, words, tmp_path):
    path = own(tmp_path, [row] if header else [GOOD, row], **({"header": header} if header else {}))
    with pytest.raises(InputError, match=words) as error:
        listed("clips", tmp_path)
    assert str(path) in str(error.value)


def test_own_tables_that_are_empty_or_not_utf8(tmp_path):
    own(tmp_path, [])
    with pytest.raises(InputError, match=r"clips\.csv: has no row"):
        listed("clips", tmp_path)
    own(tmp_path, [("a", "train", "", "a.mp4", "", "")])
    with pytest.raises(InputError, match="column label is empty"):
        listed("clips", tmp_path)
    (tmp_path / "clips.csv").write_bytes(
        "id,split,label,text\na,train,sad,d\xe9j\xe0".encode("cp1252")
    )
    with pytest.raises(InputError, match="not a readable UTF-8 table"):
        listed("clips", tmp_path)
    (tmp_path / "clips.csv").write_bytes(b"")
    with pytest.raises(InputError, match=r"no column id, split, label; .* found nothing"):
        listed("clips", tmp_path)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (("bad", "train", "sad", "none.mp4", "", "hm"), "video none.mp4 is not there"),
        (("bad", "train", "sad", "a.mp4", "none.wav", ""), "audio none.wav is not there"),
        (("bad", "train", "sad", "", "f", ""), "audio f is not there"),
        (("bad", "train", "sad", "x" * 300, "", ""), "cannot be looked at"),
        (("bad", "train", "sad", "a\0.mp4", "", ""), "cannot be looked at"),
        (("bad", "train", "sad", "", " ", ""), "has no video, no audio and no text"),
        (("bad", "train", "glad", "a.mp4", "", ""), "label 'glad' is not one of happy, sad or its"),
        (
            ("bad", "train", "2", "a.mp4", "", ""),
            "label '2' is not one of happy, sad or its number",
        ),
        (("bad", "train", "", "a.mp4", "", ""), "label '' is not one of happy, sad"),
        (
            ("bad", "train", "sad", "a.mp4", "", "Well", " well."),
            "too many values; .* double quotes",
        ),
        (("bad", "train", "sad", "../raw2/b.mp4", "", ""), "leads out of .*; only allow_outside"),
        (("bad", "train", "sad", "", "../none.wav", ""), "leads out of .*; only allow_outside"),
        (("bad", "train", "sad", "link.mp4", "", ""), "video link.mp4 leads out of "),
        (("bad", "train", "sad", "g", "", ""), "video g leads out of "),
        (("bad", "train", "sad", "loop", "", ""), "cannot be looked at|is not there"),
    ],
)
def test_own_rows_that_are_skipped(row, reason, tmp_path):
    raw = tmp_path / "raw"
    own(raw, [GOOD, row])
    (raw / "labels.json").write_text('{"kind": "class", "classes": ["happy", "sad"]}')
    touch(tmp_path / "raw2" / "b.mp4")
    (raw / "link.mp4").symlink_to(tmp_path / "raw2" / "b.mp4")
    (frames(raw / "g") / "3.jpg").symlink_to("../../raw2/b.mp4")
    (raw / "loop").symlink_to("loop")
    found, skipped = listed("clips", raw)
    assert set(found) == {"good"} and set(skipped) == {("train", "bad")}
    with pytest.raises(InputError, match=f"(?s)clips.csv: line 3: train: example bad: .*{reason}"):
        sets.get("clips").clips(raw, SkippedRecords(strict=True))


def test_own_links_within_the_folder_are_no_way_out(tmp_path):
    own(tmp_path, [("a", "train", "sad", "link.mp4", "", ""), ("b", "train", "sad", "g", "", "")])
    (tmp_path / "link.mp4").symlink_to("a.mp4")
    (frames(tmp_path / "g") / "3.jpg").symlink_to("../f/1.jpg")
    found, skipped = listed("clips", tmp_path)
    assert found["a"].video == tmp_path.resolve() / "a.mp4" and set(found) == {"a", "b"}
    assert skipped == {}


def test_own_files_outside_where_that_is_allowed(tmp_path):
    away = tmp_path / "away" / "b.mp4"
    touch(away)
    rows = [
        ("up", "train", "sad", "../away/b.mp4", "", ""),
        ("absolute", "train", "sad", str(away), "", ""),
        ("link", "train", "sad", "g", "", ""),
        ("none", "train", "sad", "../away/c.mp4", "", ""),
    ]
    own(tmp_path / "raw", rows)
    (frames(tmp_path / "raw" / "g") / "3.jpg").symlink_to(away)
    assert sets.get("clips").takes_outside
    found, skipped = listed("clips", tmp_path / "raw", allow_outside=True)
    assert found["up"].video == found["absolute"].video == away.resolve()
    assert set(found) == {"up", "absolute", "link"}
    assert skipped == {("train", "none"): "video ../away/c.mp4 is not there"}
    assert listed("clips", tmp_path / "raw")[0] == {}


def test_own_ids_stand_once_in_a_split(tmp_path):
    again = ("good", "train", "sad", "f", "", "")
    own(tmp_path, [GOOD, again, ("good", "valid", "sad", "f", "", "")])
    skipped = SkippedRecords(strict=False)
    found = sets.get("clips").clips(tmp_path, skipped)
    assert [(c.split, c.label) for c in found] == [("train", "happy"), ("valid", "sad")]
    assert skipped.reasons == {("train", "good"): "stands twice in the split; the first is kept"}
