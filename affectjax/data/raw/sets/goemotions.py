"""GoEmotions: comments from Reddit, 27 emotions and neutral (Demszky et al. 2020). Text alone.

    train.tsv  dev.tsv  test.tsv       text, numbers of the emotions with commas, id of the comment

Values are parted by tabs, without column names and without quoting. Splits train, dev and test are
train, valid and test here. The classes are numbered as the set's `emotions.txt` has them.

About one in six comments has several emotions and is left out and counted. The set's own
grouping to Ekman's six emotions (`ekman_mapping.json`) is in `affectjax.emotions`;
`config.data.class_map=seven` applies it.

The files do not say who wrote a comment: each is a group of its own.
"""

from collections.abc import Iterator
from pathlib import Path

from absl import logging

from affectjax.data.clip import Clip
from affectjax.data.labels import LabelSpec
from affectjax.data.raw import file_lists, tables
from affectjax.data.raw.dataset import RawDataset
from affectjax.data.skipped import SkippedRecords

CLASSES = (
    "admiration",
    "amusement",
    "anger",
    "annoyance",
    "approval",
    "caring",
    "confusion",
    "curiosity",
    "desire",
    "disappointment",
    "disapproval",
    "disgust",
    "embarrassment",
    "excitement",
    "fear",
    "gratitude",
    "grief",
    "joy",
    "love",
    "nervousness",
    "optimism",
    "pride",
    "realization",
    "relief",
    "remorse",
    "sadness",
    "surprise",
    "neutral",
)
TABLES = {"train": "train.tsv", "valid": "dev.tsv", "test": "test.tsv"}


def clips(raw: Path, skipped: SkippedRecords) -> list[Clip]:
    """Returns the comments with one emotion, in the order of the files.

    Args:
      raw: the folder of the files, or one above their folder `data`.
      skipped: takes lines that are not three values, that have no text or an emotion that is none
        of 0 to 27, and ids that stand twice.

    Raises:
      InputError: when there is no such file, or it is not UTF-8.
    """
    raw = Path(raw)
    files = {s: file_lists.find(raw, (n, f"data/{n}", f"*/{n}")) for s, n in TABLES.items()}
    if not any(files.values()):
        raise file_lists.not_found(raw, "goemotions", tuple(TABLES.values()))
    allowed = {str(number): name for number, name in enumerate(CLASSES)}
    found: dict[tuple[str, str], Clip] = {}
    several = 0
    for split, table in ((s, path) for s, path in files.items() if path is not None):
        for number, values in _lines(table):
            where = f"{table}: line {number}"
            if len(values) != 3:
                skipped.skip(where, split, f"line {number}", "is not text, emotions and id")
                continue
            text, emotions, name = values
            wrong = [e for e in emotions.split(",") if e not in allowed]
            if wrong:
                skipped.skip(where, split, name, f"emotion {wrong[0]!r} is none of 0 to 27")
            elif not text:
                skipped.skip(where, split, name, "has no text")
            elif (split, name) in found:
                skipped.skip(where, split, name, "stands twice in the split; the first is kept")
            elif "," in emotions:
                several += 1
            else:
                found[split, name] = Clip(name, allowed[emotions], split, text=text)
    if several:
        logging.info("goemotions: %d comments with several emotions left out", several)
    return list(found.values())


def _lines(table: Path) -> Iterator[tuple[int, list[str]]]:
    """Yields the lines that are not empty, by number, each as its values without blanks around."""
    for number, line in enumerate(tables.text(table).split("\n"), start=1):
        if line.strip():
            yield number, [value.strip() for value in line.split("\t")]


DATASET = RawDataset(
    labels=LabelSpec("class", CLASSES),
    clip_modalities=("text",),
    clips=clips,
)
