"""What somebody wants prepared, and where its raw files are."""

import dataclasses
import functools
from collections.abc import Mapping
from pathlib import Path

from affectjax.data.prepare.clip_storage import Storage
from affectjax.data.raw import readers, sets
from affectjax.data.raw.dataset import CLIPS, SEQUENCES, RawDataset
from affectjax.data.skipped import SkippedRecords
from affectjax.errors import InputError
from affectjax.modalities import MODALITIES

VERSION = "1.0.0"


@dataclasses.dataclass(frozen=True)
class Request:
    """What somebody wants prepared.

    Attributes:
      name: a data set, see `affectjax.data.raw.sets`.
      raw: a raw file; a folder to look in; or a prepared folder. None for a set made by code.
      aligned: of sequences, whether the modalities share their steps.
      seed: of a data set that is made by code.
      max_length: of sequences, by modality, the greatest number of steps; longer examples are cut
        and counted.
      format: of sequences, the reader's name, or "auto".
      strict: whether a record that cannot be used, or anything else that would spoil a training,
        is an error.
      view: "sequences" or "clips"; None becomes the data set's own choice.
      storage: how clips are stored.
    """

    name: str
    raw: str | Path | None
    aligned: bool = False
    seed: int = 0
    max_length: Mapping[str, int] | None = None
    format: str = "auto"
    strict: bool = False
    view: str | None = SEQUENCES
    storage: Storage | None = None

    def __post_init__(self):
        have = sets.get(self.name).views
        if self.view is None:
            object.__setattr__(self, "view", have[0])
        if self.view not in have:
            raise InputError(
                f"data set {self.name} has no view {self.view!r}; it has {', '.join(have)}"
            )
        if self.view == CLIPS and (self.aligned or self.max_length or self.format != "auto"):
            raise InputError(
                f"{self.name}: aligned, max_length and format are of sequences, not of clips"
            )

    @functools.cached_property
    def dataset(self) -> RawDataset:
        """Returns what the data set says of itself."""
        return sets.get(self.name)

    @property
    def path(self) -> Path:
        """Returns the raw file or folder; raises InputError where there is none."""
        if self.raw is None:
            raise InputError(f"data set {self.name} is read from raw files; say where they are")
        if not Path(self.raw).exists():
            raise InputError(f"{self.raw}: no such file or folder")
        return Path(self.raw)

    @property
    def folder(self) -> Path:
        """Returns where the result stands below the folder of prepared data sets."""
        return Path(self.name, folder(self.view, self.aligned), VERSION)

    @property
    def limits(self) -> dict[str, int]:
        """Returns the greatest lengths, checked; aligned modalities have one, the least."""
        found = dict(self.max_length or {})
        for modality, length in found.items():
            if modality not in MODALITIES or not isinstance(length, int) or length < 1:
                raise InputError(
                    f"max_length: {modality}={length} is not a modality ({', '.join(MODALITIES)})"
                    " with a whole number from 1 up"
                )
        shared = self.aligned and found
        return dict.fromkeys(MODALITIES, min(found.values())) if shared else found


def locate(wanted: Request) -> Path:
    """Returns the file or folder of feature sequences that the raw path is, or that it holds.

    Raises:
      InputError: lists what was looked for.
    """
    raw, patterns = wanted.path, wanted.dataset.sequence_files[wanted.aligned]
    if raw.is_file():
        return raw
    for pattern in patterns:
        if pattern == ".":
            if readers.is_folder_of(raw, wanted.format):
                return raw
            continue
        found = sorted(raw.glob(pattern))
        if len(found) > 1:
            raise InputError(f"{raw}: {len(found)} files are named {pattern}; name one of them")
        if found:
            return found[0]
    files = ", ".join(p for p in patterns if p != ".")
    raise InputError(
        f"{raw}: nothing of {wanted.name} ({folder(SEQUENCES, wanted.aligned)}) here; looked for"
        f" {files}, *.csd with folds.json, and labels.csv with *.npz"
    )


def has_files(wanted: Request) -> bool:
    """Returns whether the raw path is or holds raw files of the data set."""
    if wanted.dataset.generate is not None:
        return False
    try:
        if wanted.view == CLIPS:
            wanted.dataset.clips(wanted.path, SkippedRecords(strict=False))
        else:
            locate(dataclasses.replace(wanted, format="auto"))
    except (InputError, OSError):
        return False
    return True


def folder(view: str, aligned: bool) -> str:
    """Returns the name of the folder of a view.

    Args:
      view: "sequences" or "clips".
      aligned: of sequences, whether the modalities share their steps.
    """
    if view == CLIPS:
        return CLIPS
    return "aligned" if aligned else "unaligned"
