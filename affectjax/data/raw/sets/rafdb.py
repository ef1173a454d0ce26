"""RAF-DB, the basic expressions: 15339 faces from the internet, seven emotions (Li et al. 2017).

    basic/EmoLabel/list_patition_label.txt       train_00001.jpg 5
    basic/Image/aligned/train_00001_aligned.jpg  100 x 100, cut out and upright: detector none
    basic/Image/original/train_00001.jpg         as found; read where there is nothing aligned

The labels are 1 surprise, 2 fear, 3 disgust, 4 happiness, 5 sadness, 6 anger, 7 neutral. The raw
folder is `basic` or one that holds it. So public loaders read it (SCN, DAN, POSTER).

The names say train (12271) or test (3068); for validation a part of train is held out. Who is seen
is not published: each face is a group of its own.
"""

from pathlib import Path

from affectjax.data.clip import Clip
from affectjax.data.labels import LabelSpec
from affectjax.data.raw import file_lists, tables
from affectjax.data.raw.dataset import RawDataset
from affectjax.data.skipped import SkippedRecords

CLASSES = ("surprise", "fear", "disgust", "happiness", "sadness", "anger", "neutral")
LISTS = tuple(f"{above}EmoLabel/list_patition_label.txt" for above in ("", "basic/", "*/basic/"))
PICTURES = ("Image/aligned", "Image/original")
SPLITS = ("train", "test")

# The list numbers the classes from 1.
_NAMES = {str(number): name for number, name in enumerate(CLASSES, start=1)}


def clips(raw: Path, skipped: SkippedRecords) -> list[Clip]:
    """Returns the faces, each as a clip of one image, in the order of the list.

    Args:
      raw: the folder that holds `EmoLabel` and `Image`, or `basic` with the two.
      skipped: takes lines that are not as above, faces that are listed twice or are not there.

    Raises:
      InputError: when there is no list or no folder of images.
    """
    raw = Path(raw)
    path = file_lists.find(raw, LISTS)
    if path is None:
        raise file_lists.not_found(raw, "rafdb", LISTS)
    basic = path.parent.parent
    pictures = file_lists.find(basic, PICTURES)
    if pictures is None:
        raise file_lists.not_found(basic, "rafdb", PICTURES)
    ending = "_aligned.jpg" if pictures.name == "aligned" else ".jpg"
    found: dict[str, Clip] = {}
    for number, line in enumerate(tables.text(path).splitlines(), start=1):
        where = f"{path}: line {number}"
        file, _, label = line.strip().rpartition(" ")
        name = file.strip().removesuffix(".jpg")
        split = name.partition("_")[0]
        image = pictures / f"{name}{ending}"
        if not line.strip():
            continue
        if split not in SPLITS:
            skipped.skip(where, "train", line.strip(), "is not train_ or test_, .jpg and a label")
        elif label not in _NAMES:
            skipped.skip(where, split, name, f"label {label!r} is none of 1 to {len(_NAMES)}")
        elif name in found:
            skipped.skip(where, split, name, "is listed twice; the first is kept")
        elif not image.is_file():
            skipped.skip(where, split, name, f"{image} is not there")
        else:
            found[name] = Clip(name, _NAMES[label], split, video=image)
    return list(found.values())


DATASET = RawDataset(
    labels=LabelSpec("class", CLASSES),
    clip_modalities=("vision",),
    clips=clips,
)
