"""MAFW: clips of films, series and short videos, eleven emotions, five folds (Liu et al. 2022).

    data/clips/00025.mp4                                              as filmed, with sound
    Train & Test Set/single/no_caption/set_{1..5}/{train,test}.txt    `00025.mp4 anger`
    Train & Test Set/single/with_caption/set_{1..5}/{train,test}.txt  name, label, Chinese, English

So public loaders (MAE-DFER, HiCMAE) and a published inventory of the set's files have it; captioned
lists have tabs between their fields and are not UTF-8. The clips may also stand in `clips`, as the
set's README draws them. Without them, `data/frames/00025` with their frames is read.

Folds come from the lists without captions (9172 clips), and where only the captioned ones are there
(8034 clips), from those. The text is the English caption. No neutral clip has one, so whether there
is text at all gives the class neutral away: results with text are fair only without that class.

From which film a clip is, is not published: each is a group of its own.
"""

from collections.abc import Iterator
from pathlib import Path

from affectjax.data.clip import Clip
from affectjax.data.labels import LabelSpec
from affectjax.data.raw import file_lists
from affectjax.data.raw.dataset import RawDataset
from affectjax.data.skipped import SkippedRecords
from affectjax.errors import InputError

CLASSES = (
    "anger",
    "disgust",
    "fear",
    "happiness",
    "neutral",
    "sadness",
    "surprise",
    "contempt",
    "anxiety",
    "helplessness",
    "disappointment",
)
PICTURES = ("data/clips", "clips", "data/frames")
LISTS = {
    kind: tuple(
        f"{above}Train*Test*Set/single/{kind}/set_{{fold}}/{{split}}.txt" for above in ("", "*/")
    )
    for kind in ("no_caption", "with_caption")
}


def clips(raw: Path, skipped: SkippedRecords) -> list[Clip]:
    """Returns the clips of all folds, by number.

    Args:
      raw: the folder that holds `data` and `Train & Test Set`.
      skipped: takes clips without a file, and those that the lists disagree on.

    Raises:
      InputError: when the folder has no lists or no clips.
    """
    raw = Path(raw)
    plain, captioned = (file_lists.fold_lists(raw, LISTS[kind], "mafw") for kind in LISTS)
    lists = plain or captioned
    source = file_lists.pictures(raw, PICTURES)
    if not lists or source is None:
        looked = PICTURES if lists else (*LISTS["no_caption"], *LISTS["with_caption"])
        raise file_lists.not_found(raw, "mafw", looked)
    folder, pictures = source
    captions = {entry.id: caption for entry, caption in _lines(captioned) if caption}
    entries = (entry for entry, _ in _lines(lists))
    names = {name: name for name in CLASSES}
    found = []
    for name, member in sorted(file_lists.members(entries, names, skipped).items()):
        video = pictures.get(int(name)) if name.isdecimal() else None
        if video is None:
            skipped.skip(str(folder), "all", name, "is not there")
        else:
            text = captions.get(name)
            found.append(Clip(name, member.label, "all", member.folds, video=video, text=text))
    return found


def _lines(lists: dict[str, dict[str, Path]]) -> Iterator[tuple[file_lists.Entry, str]]:
    """Yields the lines of the lists, each with its English caption, empty where it has none."""
    for fold, files in lists.items():
        for split, file in files.items():
            for line in _text(file).splitlines():
                if line.strip():
                    name, label, *_ = [*line.split(maxsplit=2), ""]
                    fields = line.split("\t")
                    caption = fields[3].strip() if len(fields) > 3 else ""
                    yield file_lists.Entry(file, fold, split, Path(name).stem, label), caption


def _text(file: Path) -> str:
    """Returns what a list says, in UTF-8 or in the Chinese encoding of the captioned ones."""
    try:
        content = file.read_bytes()
    except OSError as error:
        raise InputError(f"{file}: is not readable ({error})") from error
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        # Names and labels are ASCII: a byte that fits nowhere spoils one letter of a caption.
        return content.decode("gb18030", errors="replace")


DATASET = RawDataset(
    labels=LabelSpec("class", CLASSES),
    clips=clips,
)
