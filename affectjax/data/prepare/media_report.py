"""What the media of clips look like, of a sample that was decoded as a preparation decodes it."""

import collections
import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np

from affectjax.data.clip import Clip
from affectjax.data.media import containers
from affectjax.data.prepare.clip_storage import Decoded, played

SAMPLE = 16  # clips, evenly spaced over the set
_SILENT = 33  # of int16: a thousandth of full scale


@dataclasses.dataclass(frozen=True)
class MediaReport:
    """What was seen in a sample of clips.

    Attributes:
      decoded: how many could be decoded.
      total: how many clips with media the set lists.
      broken: by (split, id), why one could not be decoded.
      seconds: of each clip with a file that has a time.
      samples: how many sounds have so many samples a second.
      pictures: a second, of each video.
      sizes: how many videos have such pictures, as in "640 x 480".
      faces: in how many of `looked` clips a face was found.
      looked: in how many one was looked for.
      silent: ids of those whose sound is silence.
      notes: by id, the first thing of its files that is damaged, cut or not used.
    """

    decoded: int
    total: int
    broken: dict[tuple[str, str], str]
    seconds: tuple[float, ...]
    samples: dict[int, int]
    pictures: tuple[float, ...]
    sizes: dict[str, int]
    faces: int
    looked: int
    silent: tuple[str, ...]
    notes: dict[str, str]

    def lines(self) -> Iterator[str]:
        """Yields the report for a terminal."""
        yield f"media: {self.decoded + len(self.broken)} of {self.total} clips decoded"
        if self.broken:
            yield f"  broken  {len(self.broken)}"
        if self.seconds:
            yield f"  seconds {_spread(self.seconds)}"
        if self.samples:
            shares = ", ".join(f"{rate}: {n}" for rate, n in sorted(self.samples.items()))
            yield f"  sound   samples a second {shares}"
        if self.sizes:
            shares = ", ".join(f"{size}: {n}" for size, n in self.sizes.items())
            yield f"  video   {shares}; pictures a second {_spread(self.pictures)}"
        if self.looked:
            yield f"  faces   in {self.faces} of {self.looked}"

    def warnings(self) -> Iterator[str]:
        """Yields a sentence for what one should know before training."""
        if self.looked and not self.faces:
            yield f"no face was found in any of {self.looked} clips that were decoded"
        if self.silent:
            yield f"{len(self.silent)} of {self.decoded} sounds are silent, first {self.silent[0]}"
        if self.notes:
            name, note = next(iter(self.notes.items()))
            yield (
                f"{len(self.notes)} of {self.decoded} decoded clips are not read as a whole, first"
                f" {name}: {note}"
            )


def report(found: Sequence[tuple[Clip, Decoded | str]], total: int) -> MediaReport:
    """Returns the report of clips and what became of them: decoded, or the reason why not.

    Args:
      found: the sample.
      total: of how many clips it is.
    """
    decoded = [(clip, what) for clip, what in found if isinstance(what, Decoded)]
    files = [file for clip, _ in decoded for file in played(clip)]
    facts = [containers.facts(file) for file in files]
    sizes = collections.Counter(f"{f.width} x {f.height}" for f in facts if f.width)
    looked = [what.faces for _, what in decoded if what.faces is not None and what.frames]
    sounds = [(clip.id, what.sound) for clip, what in decoded if len(what.sound)]
    return MediaReport(
        decoded=len(decoded),
        total=total,
        broken={(clip.split, clip.id): what for clip, what in found if isinstance(what, str)},
        seconds=tuple(map(containers.duration, files)),
        samples=dict(collections.Counter(f.samples for f in facts if f.samples)),
        pictures=tuple(f.pictures for f in facts if f.width),
        sizes=dict(sizes.most_common()),
        faces=sum(count > 0 for count in looked),
        looked=len(looked),
        silent=tuple(name for name, x in sounds if np.abs(x.astype(np.int32)).max() < _SILENT),
        notes={clip.id: what.notes[0] for clip, what in decoded if what.notes},
    )


def _spread(values: Sequence[float]) -> str:
    low, median, high = np.quantile(values, [0, 0.5, 1])
    return f"{low:.1f} to {high:.1f} (median {median:.1f})"
