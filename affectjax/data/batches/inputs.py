"""From records to batches: the same for prepared data and for a clip that was decoded on the spot.

A record is a dictionary of `id`, `label` and, for each modality, what there is of it:

    features   under the modality's name, `[t, D]` numbers
    frames     `vision`: a list of encoded images (bytes), or `[t, H, W, 3]` uint8
    waveform   `audio`: `[s]` int16, or floating in [-1, 1]; mono, 16 kHz
    text       `transcript`: the sentence

What is None, empty or not there at all is absent. Nothing here knows what lies on disk.

Letters: B batch, T steps, frames or tokens, D features, H height, W width, S samples.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from affectjax.data.labels import LabelSpec
from affectjax.data.media import codec
from affectjax.errors import InputError
from affectjax.modalities import MODALITIES

Arrays = dict[str, Any]
Record = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Features:
    """A sequence of feature vectors: x `[B, T, D]` float32, mask `[B, T]`.

    Attributes:
      length: T; what is longer is cut.
      width: D.
      encoder: the frozen tower that made them, "clip", "bert" or "wav2vec2"; "" where nobody says.
        Such features are never standardised: the layers above know them as the tower gives them.
      checksum: of that tower's weights, see `affectjax.weights.checksum`.
    """

    kind: ClassVar[str] = "features"
    dtype: ClassVar[type] = np.float32
    length: int
    width: int
    encoder: str = ""
    checksum: str = ""

    @property
    def shape(self) -> tuple[int, ...]:
        """Returns the shape of one example's x; its first axis is that of the mask."""
        return (self.length, self.width)

    def read(self, value: Any, draw: np.ndarray | None) -> np.ndarray:
        """Returns the steps `[t, D]` of one example that go into the batch, t at most T."""
        del draw
        return np.asarray(value)[: self.length]


@dataclasses.dataclass(frozen=True)
class Frames:
    """Images of a clip: x `[B, T, H, W, 3]` uint8 RGB, mask `[B, T]`.

    Attributes:
      count: T, one frame from each of T equal stretches of the clip.
      size: H and W, pixels.
    """

    kind: ClassVar[str] = "frames"
    dtype: ClassVar[type] = np.uint8
    count: int
    size: int

    @property
    def shape(self) -> tuple[int, ...]:
        """Returns the shape of one example's x; its first axis is that of the mask."""
        return (self.count, self.size, self.size, 3)

    def read(self, value: Any, draw: np.ndarray | None) -> np.ndarray:
        """Returns the frames `[t, H, W, 3]` of one example that go into the batch.

        Args:
          value: all frames; only those that are chosen are decoded.
          draw: see `codec.choose`.
        """
        chosen = [value[int(i)] for i in codec.choose(len(value), self.count, draw)]
        images = [codec.decode(x) if isinstance(x, bytes) else np.asarray(x) for x in chosen]
        for image in images:
            if image.shape != self.shape[1:]:
                raise InputError(
                    f"a frame of {list(image.shape)} pixels; expected {list(self.shape[1:])}"
                )
        return np.stack(images)


@dataclasses.dataclass(frozen=True)
class Waveform:
    """Sound: x `[B, S]` float32 in [-1, 1], mask `[B, S]`.

    Attributes:
      samples: S, at 16 kHz; what is longer is cut.
    """

    kind: ClassVar[str] = "waveform"
    dtype: ClassVar[type] = np.float32
    samples: int

    @property
    def shape(self) -> tuple[int, ...]:
        """Returns the shape of one example's x; its first axis is that of the mask."""
        return (self.samples,)

    def read(self, value: Any, draw: np.ndarray | None) -> np.ndarray:
        """Returns the samples `[s]` float32 of one example that go into the batch."""
        del draw
        sound = np.asarray(value)[: self.samples]
        if sound.dtype == np.int16:
            return sound.astype(np.float32) / np.float32(codec.FULL_SCALE)
        return sound.astype(np.float32)


@dataclasses.dataclass(frozen=True)
class Text:
    """A sentence in tokens: x `[B, T]` int32, mask `[B, T]`.

    Attributes:
      tokens: T, with start and end; a longer text is cut.
    """

    kind: ClassVar[str] = "text"
    dtype: ClassVar[type] = np.int32
    tokens: int

    @property
    def shape(self) -> tuple[int, ...]:
        """Returns the shape of one example's x; its first axis is that of the mask."""
        return (self.tokens,)


Kind = Features | Frames | Waveform | Text
KINDS: dict[str, type] = {cls.kind: cls for cls in (Features, Frames, Waveform, Text)}


class Inputs:
    """How records become batches.

    Attributes:
      kinds: by modality, in the order of MODALITIES.
      spec: what the labels mean.
      tokenizer: of the text; None where there is none.
      statistics: by modality `{"mean": [D], "std": [D]}`; features of the others stay as they are.
    """

    def __init__(
        self,
        kinds: Mapping[str, Kind],
        spec: LabelSpec,
        *,
        tokenizer: Any = None,
        statistics: Mapping[str, Any] | None = None,
    ):
        self.kinds = {m: kinds[m] for m in MODALITIES if m in kinds}
        self.spec, self.tokenizer, self.statistics = spec, tokenizer, dict(statistics or {})
        if tokenizer is None and any(isinstance(kind, Text) for kind in kinds.values()):
            raise ValueError("text needs a tokenizer")

    @property
    def modalities(self) -> tuple[str, ...]:
        """Returns the modalities, in the order of MODALITIES."""
        return tuple(self.kinds)

    def nbytes(self) -> int:
        """Returns the bytes of one example's x and masks."""
        return sum(
            int(np.prod(kind.shape)) * np.dtype(kind.dtype).itemsize + kind.shape[0]
            for kind in self.kinds.values()
        )

    def empty(self, batch: int) -> Arrays:
        """Returns a batch of B rows that only pad: zeros, and nothing present."""
        arrays: Arrays = {"present": {}, "weight": np.zeros(batch, np.float32)}
        for m, kind in self.kinds.items():
            mask = np.zeros((batch, kind.shape[0]), bool)
            arrays[m] = {"x": np.zeros((batch, *kind.shape), kind.dtype), "mask": mask}
            arrays["present"][m] = np.zeros(batch, bool)
        arrays["label"] = self.spec.blank(batch)
        return arrays

    def zeros(self, batch: int) -> Arrays:
        """Returns a batch of zeros in which all is present, to initialise a model with."""
        arrays = self.empty(batch)
        arrays["weight"][:] = 1
        for m in self.kinds:
            arrays[m]["mask"][:] = True
            arrays["present"][m][:] = True
        return arrays

    def collate(self, records: Sequence[Record | None], draws: np.ndarray | None = None) -> Arrays:
        """Returns one batch.

        Args:
          records: see the head of this file; None is a row that only pads. A record without a
            label gets zeros for it.
          draws: `[B, T]` in [0, 1), which frames to take; None for the middle ones.

        Raises:
          InputError: an image cannot be decoded, or has another size.
        """
        batch = self.empty(len(records))
        for row, record in enumerate(records):
            if record is None:
                continue
            batch["weight"][row] = 1
            if record.get("label") is not None:
                batch["label"][row] = record["label"]
            for m, kind in self.kinds.items():
                value = record.get(m)
                if not isinstance(kind, Text) and value is not None and len(value):
                    _fill(batch[m], row, self._read(record, kind, value, draws, row))
        for m, kind in self.kinds.items():
            if isinstance(kind, Text):
                batch[m] = self._encode([r and r.get("transcript") for r in records], kind)
            batch[m]["x"] = self._standardize(m, batch[m]["x"], batch[m]["mask"])
            batch["present"][m] = batch[m]["mask"].any(-1)
        return batch

    def _read(
        self, record: Record, kind: Kind, value: Any, draws: np.ndarray | None, row: int
    ) -> np.ndarray:
        try:
            return kind.read(value, None if draws is None else draws[row])
        except InputError as error:
            raise InputError(f"example {record.get('id')}: {error}") from error

    def _encode(self, texts: Sequence[str | None], kind: Text) -> Arrays:
        x, mask = self.tokenizer.encode(texts, kind.tokens)
        return {"x": np.where(mask, x, 0), "mask": mask}

    def _standardize(self, m: str, x: np.ndarray, mask: np.ndarray) -> np.ndarray:
        """Returns features `[..., T, D]` standardised at valid steps, zeros elsewhere."""
        if not isinstance(self.kinds[m], Features):
            return x
        if m in self.statistics:
            x = (x - self.statistics[m]["mean"]) / self.statistics[m]["std"]
        return np.where(mask[..., None], x, np.float32(0))

    def to_json(self) -> dict[str, Any]:
        """Returns all but the tokenizer and the statistics, in JSON's types."""
        return {
            "labels": dataclasses.asdict(self.spec) | {"classes": list(self.spec.classes)},
            "inputs": {
                m: {"kind": kind.kind, **dataclasses.asdict(kind)} for m, kind in self.kinds.items()
            },
        }

    @classmethod
    def from_json(
        cls,
        content: Mapping[str, Any],
        *,
        tokenizer: Any = None,
        statistics: Mapping[str, Any] | None = None,
    ) -> "Inputs":
        """Returns what `to_json` described.

        Args:
          content: from `to_json`.
          tokenizer: that of the run, where it has text.
          statistics: those of the run.

        Raises:
          InputError: when the content is something else.
        """
        try:
            labels = content["labels"]
            spec = LabelSpec(**{**labels, "classes": tuple(labels["classes"])})
            kinds = {}
            for m, described in content["inputs"].items():
                fields = dict(described)
                kinds[m] = KINDS[fields.pop("kind")](**fields)
        except (KeyError, TypeError, AttributeError) as error:
            raise InputError(f"expected the labels and inputs of a run ({error!r})") from error
        return cls(kinds, spec, tokenizer=tokenizer, statistics=statistics)


def draws(seed: int, epoch: int, example: int, count: int) -> np.ndarray:
    """Returns `[T]` in [0, 1) for `codec.choose`: the same for a seed, epoch and example, always.

    Args:
      seed: from 0 to 2**31 - 1.
      epoch: from 0.
      example: its number in its split.
      count: T.
    """
    philox = np.random.Philox(key=example << 64 | seed << 32 | epoch)
    return np.random.Generator(philox).random(count)


def _fill(arrays: Arrays, row: int, value: np.ndarray) -> None:
    arrays["x"][row, : len(value)] = value
    arrays["mask"][row, : len(value)] = True
