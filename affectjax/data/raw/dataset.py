"""What a data set says of itself, so that it can be prepared: the object `DATASET` of its module.

    DATASET = RawDataset(labels=LabelSpec("class", ("sad", "happy")), clips=clips)

where `clips` lists the files of the examples, see `affectjax.data.raw.sets.fedro` for a short one.
"""

import dataclasses
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from affectjax.data.clip import Clip
from affectjax.data.labels import LabelSpec
from affectjax.modalities import MODALITIES

# How examples are seen: as features that somebody extracted, or as video, sound and text.
SEQUENCES, CLIPS = "sequences", "clips"
VIEWS = (SEQUENCES, CLIPS)
# The group of ids such as `video_3`, `video[3]`, `video$_$3` or `video[start-end]`: the video.
SEGMENT = r"^(.+?)(?:\$_\$\d+|\[[^\[\]]*\]|_\d+)?$"


@dataclasses.dataclass(frozen=True, kw_only=True)
class RawDataset:
    """A data set as it is handed out, or the code that makes it.

    It has `sequence_files`, `clips` or both; or `generate` and `views`.

    Attributes:
      labels: what its labels are; a function `(view, raw path) -> LabelSpec` where that depends on
        the view, or stands in the raw files.
      group: a regular expression whose first group, matched at the start of an example's id, is its
        video or speaker; by default each example is a group of its own.
      clip_modalities: those that its clips can have; sequences may have any.
      sequence_files: by aligned or not, the patterns to look for in the raw folder, in order of
        preference; "." is the folder itself.
      clips: `(raw path, SkippedRecords) -> list[Clip]` lists the clips and opens none.
      takes_outside: whether `clips` also takes `allow_outside`, whether files may lie outside of
        the raw folder.
      generate: `(view, seed)` makes the data by code: a `FeatureSet` of sequences; of clips, by
        split an iterable of `Clip`s, made when it is asked for.
      views: those that it has, the first its own choice; by default what it has fields for.
      test_only: whether there is nothing to train on; the doctor then says so as a fact.
      gaps: how many examples cannot be used of the set as it was published, None where that is not
        known; more of them are a problem to the doctor.
    """

    labels: LabelSpec | Callable[[str, Path], LabelSpec]
    group: str = r"^(.+)$"
    clip_modalities: tuple[str, ...] = MODALITIES
    sequence_files: Mapping[bool, tuple[str, ...]] | None = None
    clips: Callable[..., list[Clip]] | None = None
    takes_outside: bool = False
    generate: Callable[[str, int], Any] | None = None
    views: tuple[str, ...] = ()
    test_only: bool = False
    gaps: int | None = 0

    def __post_init__(self):
        has = {SEQUENCES: self.sequence_files is not None, CLIPS: self.clips is not None}
        views = self.views or tuple(view for view, there in has.items() if there)
        if not views:
            raise ValueError("a data set has sequence_files or clips, or generate and views")
        object.__setattr__(self, "views", views)

    def label_spec(self, view: str, raw: Path | None = None) -> LabelSpec:
        """Returns what the labels of a view are.

        Args:
          view: "sequences" or "clips".
          raw: the file or folder to read; needed where the labels depend on the raw files.

        Raises:
          InputError: the raw files do not say it, or say something else than labels.
        """
        return self.labels if isinstance(self.labels, LabelSpec) else self.labels(view, raw)

    def group_of(self, name: str) -> str:
        """Returns the video or speaker that an example belongs to.

        Args:
          name: the example's id.
        """
        match = re.match(self.group, name)
        return match.group(1) if match else name
