"""MELD: 13708 utterances of the series Friends, seven emotions (Poria et al. 2019).

    train_sent_emo.csv  dev_sent_emo.csv  test_sent_emo.csv
    train_splits/dia0_utt0.mp4  dev_splits_complete/...  output_repeated_splits_test/...

The tables have the columns Utterance, Emotion, Dialogue_ID, Utterance_ID and others. Tables and
folders stand in the raw folder or up to two below it (`MELD.Raw/train/train_splits`). Splits train,
dev and test are train, valid and test here; those whose table is not there are left out. Where a
split has no folder of clips there is the text alone; sounds (`.wav`, `.flac`) may stand for clips.
One clip, dia110_utt7 of dev, was never published, and dia125_utt3 of train cannot be opened.

What is left of the page of Windows in some copies is put right: single characters U+0080 to U+009F,
bytes that are no UTF-8, and UTF-8 that was read as Windows's and written again (`â€™` for `’`).

Dialogues are numbered anew in each split; the group is the dialogue. The three sentiments that the
set has beside its emotions are not read: `config.data.class_map=three` makes them of the emotions.
"""

import re
from pathlib import Path

from absl import logging

from affectjax.data.clip import Clip
from affectjax.data.labels import LabelSpec
from affectjax.data.raw import file_lists, tables
from affectjax.data.raw.dataset import RawDataset
from affectjax.data.skipped import SkippedRecords
from affectjax.errors import InputError

CLASSES = ("anger", "disgust", "fear", "joy", "neutral", "sadness", "surprise")
TABLES = {
    "train": "train_sent_emo.csv",
    "valid": "dev_sent_emo.csv",
    "test": "test_sent_emo.csv",
}
FOLDERS = {
    "train": "train_splits",
    "valid": "dev_splits_complete",
    "test": "output_repeated_splits_test",
}
NEEDED = ("Utterance", "Emotion", "Dialogue_ID", "Utterance_ID")

# Two or three bytes of UTF-8, each read as a character of Windows-1252 (or of Latin-1, where that
# has none). No more than these leads, which never stand before such characters in English.
_INNER = "".join(bytes([b]).decode("cp1252", "ignore") + chr(b) for b in range(0x80, 0xC0))
_TWICE = re.compile(f"[ÂÃ][{re.escape(_INNER)}]|â[€\x80][{re.escape(_INNER)}]")
_SINGLE = re.compile("[\x80-\x9f]")


def clips(raw: Path, skipped: SkippedRecords) -> list[Clip]:
    """Returns the utterances, in the order of the tables.

    Args:
      raw: the folder of the tables, or one no more than two above it.
      skipped: takes rows without dialogue, utterance, text or one of the seven emotions, rows that
        stand twice, and those whose clip is not in the folder of their split.

    Raises:
      InputError: when there is no table, or one lacks a column or a row.
    """
    raw = Path(raw)
    found_tables = {split: file_lists.find(raw, _below(name)) for split, name in TABLES.items()}
    if not any(found_tables.values()):
        raise file_lists.not_found(raw, "meld", tuple(TABLES.values()))
    found = []
    for split, table in found_tables.items():
        if table is not None:
            folder = file_lists.find(raw, _below(FOLDERS[split]))
            media = None if folder is None else _media(folder)
            found += _split(table, split, folder, media, skipped)
    return found


def _split(
    table: Path,
    split: str,
    folder: Path | None,
    media: dict[str, Path] | None,
    skipped: SkippedRecords,
) -> list[Clip]:
    """Returns the utterances of a table, with their clips where there are any."""
    found: dict[str, Clip] = {}
    for row in _rows(table):
        text, emotion, dialogue, utterance = (row[key] for key in NEEDED)
        name, label = f"dia{dialogue}_utt{utterance}", emotion.lower()
        if not (dialogue.isdecimal() and utterance.isdecimal()):
            skipped.skip(str(table), split, name, "its Dialogue_ID or Utterance_ID is no number")
        elif label not in CLASSES:
            reason = f"emotion {emotion!r} is none of {', '.join(CLASSES)}"
            skipped.skip(str(table), split, name, reason)
        elif not text:
            skipped.skip(str(table), split, name, "has no Utterance")
        elif name in found:
            skipped.skip(str(table), split, name, "stands twice in the table; the first is kept")
        elif media is not None and name not in media:
            skipped.skip(str(table), split, name, f"has no clip in {folder}")
        else:
            file = None if media is None else media[name]
            kind = "video" if file is not None and file.suffix.lower() == ".mp4" else "audio"
            found[name] = Clip(name, label, split, text=text, **{kind: file})
    return list(found.values())


def _below(name: str) -> tuple[str, ...]:
    return name, f"*/{name}", f"*/*/{name}"


def _media(folder: Path) -> dict[str, Path]:
    """Returns the clips of a folder by name; a video goes before a sound."""
    files = sorted(f for f in folder.iterdir() if not f.name.startswith("."))
    kinds = (".flac", ".wav", ".mp4")
    return {f.stem: f for kind in kinds for f in files if f.suffix.lower() == kind}


def _rows(table: Path) -> list[dict[str, str]]:
    """Returns the rows of a table, its text put right."""
    try:
        lines = table.read_bytes().removeprefix(b"\xef\xbb\xbf").splitlines(keepends=True)
    except OSError as error:
        raise InputError(f"{table}: is not a readable table ({error})") from error
    mended = [_mended(line) for line in lines]
    count = sum(right.encode() != line for right, line in zip(mended, lines, strict=True))
    if count:
        logging.info("%s: put characters right in %d of %d lines", table, count, len(lines))
    return [row.values for row in tables.parse(table, mended, NEEDED)[1]]


def _mended(line: bytes) -> str:
    """Returns a line as text, without what is left of Windows-1252."""
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError:
        text = line.decode("latin-1")  # what differs from Windows-1252 is put right below
    text = _TWICE.sub(lambda match: _once(match.group()), text)
    return _SINGLE.sub(lambda match: _windows(match.group()), text)


def _once(twice: str) -> str:
    """Returns what characters are whose bytes are UTF-8; themselves where they are not."""
    try:
        return b"".join(_byte(c) for c in twice).decode("utf-8")
    except UnicodeDecodeError:
        return twice


def _byte(character: str) -> bytes:
    try:
        return character.encode("cp1252")
    except UnicodeEncodeError:
        return character.encode("latin-1")


def _windows(character: str) -> str:
    """Returns what a byte U+0080 to U+009F is in Windows-1252; nothing where it is not in it."""
    return character.encode("latin-1").decode("cp1252", "ignore")


DATASET = RawDataset(
    labels=LabelSpec("class", CLASSES),
    group=r"^(dia\d+)_",
    clips=clips,
    gaps=2,  # see above
)
