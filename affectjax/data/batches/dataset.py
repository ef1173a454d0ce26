"""From a prepared data set to batches: on the devices as a whole, or as a stream.

Letters: N examples, B batch (over all devices), S seeds, T frames, D features.
"""

import concurrent.futures
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from absl import logging

from affectjax.data import archives
from affectjax.data.batches import inputs as inputs_lib
from affectjax.data.batches import missing
from affectjax.data.batches.config import DataConfig
from affectjax.data.batches.inputs import Arrays, Features, Frames, Inputs, Text, Waveform
from affectjax.data.batches.splits import Part, Parts, share
from affectjax.data.batches.streams import BatchSource, BatchStream, order, rows_of
from affectjax.data.batches.tokenizer import Tokenizer
from affectjax.data.labels import LabelSpec
from affectjax.data.media import codec
from affectjax.data.prepare import prepared
from affectjax.data.raw import sets
from affectjax.errors import InputError
from affectjax.modalities import MODALITIES
from affectjax.runtime import cache

__all__ = ["Arrays", "DataConfig", "Dataset", "Part", "order", "rows_of"]
_CHUNK = 32
_FEW = 20


class Dataset:
    """A prepared data set with its parts, ready to give batches.

    Attributes:
      prepared: what lies on disk.
      parts: which of it serves as what.
      spec: what the labels mean, after `threshold` and `class_map`.
      modalities: in the order of MODALITIES.
      inputs: how records become batches; `tokenizer` and `statistics` are its.
    """

    def __init__(
        self,
        config: DataConfig,
        statistics: Mapping[str, Any] | None = None,
        tokenizer: Tokenizer | None = None,
        *,
        unpaired: bool = False,
        spec: LabelSpec | None = None,
    ):
        """Opens the data, preparing raw files on first use.

        Args:
          config: see there.
          statistics: those of an earlier run, None to compute them.
          tokenizer: that of an earlier run, None for the one that the config says.
          unpaired: whether it is one of `config.data.sources`: examples without its modality are
            left out.
          spec: what the labels meant to an earlier run, None for what the data and the config say.

        Raises:
          InputError: no data, no such split, fold, class or modality, an empty split, or classes
            that the earlier run does not have.
        """
        self.config = config
        self.prepared = prepared.open_prepared(_prepare(config))
        self._log()
        self.unpaired, self._found = unpaired, dict[str, Part]()
        self.parts = Parts(config, self.prepared, spec)
        self.spec, self.modalities = self.parts.spec, self.parts.modalities
        if config.words and not self.prepared.card["transcripts"]:
            raise InputError(
                f'"config.data.words" is True, but {self.prepared.path} has no sentences'
            )
        kinds = {m: self._kind(m) for m in self.modalities if self._is(m) != "text"}
        if "text" in self.modalities and self._is("text") == "text":
            tokenizer = self._tokenizer() if tokenizer is None else tokenizer
            kinds["text"] = Text(self._longest_text(tokenizer))
        else:
            tokenizer = None
        self.inputs = Inputs(kinds, self.spec, tokenizer=tokenizer)
        self.inputs.statistics = self._statistics() if statistics is None else dict(statistics)

    @property
    def tokenizer(self) -> Tokenizer | None:
        """Returns the tokenizer of the text, None where there is no text in words."""
        return self.inputs.tokenizer

    @property
    def statistics(self) -> dict[str, Any]:
        """Returns by modality `{"mean": [D], "std": [D]}`, of the training part."""
        return self.inputs.statistics

    def part(self, role: str) -> Part:
        """Returns what serves as "train", "valid" or "test".

        Of an unpaired data set those examples that have its modality, of a training part the share
        that the config says.

        Raises:
          InputError: the data has no such split, or it is empty.
        """
        if role not in self._found:
            part = self.parts.find(role)
            if self.unpaired:
                part = part.only(self.kept(part).any(1))
                if not len(part):
                    raise InputError(
                        f"{self.prepared.path}: no example that serves as {role} has "
                        f"{self.modalities[0]}"
                    )
            if role == "train" and self.config.share < 1:
                part = part.only(share(self.labels(part), self.config.share, self.config.seed))
            self._found[role] = part
        return self._found[role]

    def fits(self, part: Part, *, training: bool = False, copies: int = 1) -> bool:
        """Returns whether a part may live on the devices.

        It must be small enough; and a training with random frames reads them anew in every epoch.

        Args:
          part: which examples.
          training: whether it is trained on.
          copies: how often it lies in one memory.
        """
        if training and self._samples_frames():
            return False
        return copies * len(part) * self.inputs.nbytes() <= self.config.resident_mib * 2**20

    def arrays(self, part: Part) -> Arrays:
        """Returns a whole part in the batch's layout, host side, with the middle frames.

        Returns:
          By modality `{"x": [N, ...], "mask": [N, T] bool}`, `present`, `label`; no `weight` and
          no `id`.
        """
        arrays = self.inputs.empty(len(part))
        read = self.reader(part)
        places = np.array_split(np.arange(len(part)), -(-len(part) // _CHUNK))
        with concurrent.futures.ThreadPoolExecutor(self.config.threads) as pool:
            batches = pool.map(lambda rows: self.inputs.collate([read(i) for i in rows]), places)
            for rows, batch in zip(places, batches, strict=True):
                _put(arrays, rows, batch)
        arrays.pop("weight")
        return arrays

    def ids(self, part: Part) -> list[str]:
        """Returns the names of a part's examples, in order."""
        ids = self.parts.index(part.source).ids
        return [ids[row] for row in part.rows]

    def groups(self, part: Part) -> list[str]:
        """Returns the video or speaker of each of a part's examples; unknown, it is its own id."""
        return [sets.get(self.config.name).group_of(name) for name in self.ids(part)]

    def labels(self, part: Part) -> np.ndarray:
        """Returns the labels `[N]` or `[N, K]` of a part, in order."""
        return self.parts.index(part.source).label[part.rows]

    def kept(self, part: Part) -> np.ndarray:
        """Returns `[N, 3]` bool: which modalities each example of a part shows, by MODALITIES."""
        return self.parts.kept(part.source)[part.rows]

    def save_missing(self, workdir: Path) -> None:
        """Writes missing.json: what each example keeps, where the config takes modalities away.

        Ids have their split on disk before them, as in "train/mia_1": they are unique in it only.

        Args:
          workdir: of the run.
        """
        if not self.config.missing_pattern:
            return
        columns = [MODALITIES.index(m) for m in self.modalities]
        sources = dict.fromkeys(self.part(role).source for role in ("train", "valid", "test"))
        ids = [f"{source}/{name}" for source in sources for name in self.parts.index(source).ids]
        kept = np.concatenate([self.parts.kept(source)[:, columns] for source in sources])
        missing.save(workdir / "missing.json", ids, self.modalities, kept)

    def zeros(self, batch: int) -> Arrays:
        """Returns a batch of zeros of this data's shapes, to initialise a model with."""
        return self.inputs.zeros(batch)

    def stream(
        self,
        part: Part,
        rows: Sequence[np.ndarray],
        *,
        epoch: int | None = None,
        seed: int | Sequence[int] = 0,
    ) -> BatchStream:
        """Returns `batches`, read one by one through Grain."""
        return BatchStream(self.batches(part, rows, epoch=epoch, seed=seed), self.config.threads)

    def batches(
        self,
        part: Part,
        rows: Sequence[np.ndarray],
        *,
        epoch: int | None = None,
        seed: int | Sequence[int] = 0,
    ) -> BatchSource:
        """Returns the batches for rows `[..., B]` of a part, by number.

        Args:
          part: which examples.
          rows: -1 only pads.
          epoch: of training, where `sampling` is "random"; None for the middle frames.
          seed: of the random frames; of several models, one for each place of the first axis of
            `rows`.
        """
        return _PartBatches(self, part, rows, epoch, seed)

    def reader(self, part: Part) -> Callable[[int], dict[str, Any]]:
        """Returns a function from a row of a part to its record, as `inputs.collate` takes it."""
        source, index = self.prepared.source(part.source), self.parts.index(part.source)
        kept, keys = self.parts.kept(part.source), self._keys()

        def read(row: int) -> dict[str, Any]:
            row = int(part.rows[row])
            hidden = {key: None for m, key in keys if not kept[row, m]}
            return source[row] | hidden | {"label": index.label[row]}

        return read

    def _keys(self) -> list[tuple[int, str]]:
        """Returns the column of each modality among MODALITIES, and its name in a record."""
        return [
            (MODALITIES.index(m), "transcript" if self._is(m) == "text" else m)
            for m in self.modalities
        ]

    def draws(self, part: Part, rows: np.ndarray, epoch: int | None, seed: Any) -> Any:
        """Returns `[B, T]`, which frames to take for rows `[..., B]`; None for the middle ones."""
        if epoch is None or not self._samples_frames():
            return None
        seeds = np.reshape(seed, (-1,) + (1,) * (rows.ndim - 1))
        seeds, rows = np.broadcast_to(seeds, rows.shape).ravel(), rows.ravel()
        count = self.inputs.kinds["vision"].count
        return np.stack(
            [
                inputs_lib.draws(int(s), epoch, int(part.rows[row]), count)
                for s, row in zip(seeds, rows, strict=True)
            ]
        )

    def _samples_frames(self) -> bool:
        vision = self.inputs.kinds.get("vision")
        return (
            isinstance(vision, Frames)
            and self.config.sampling == "random"
            and self.prepared.inputs["vision"]["longest"] > vision.count
        )

    def _is(self, m: str) -> str:
        """Returns the kind of a modality."""
        if m == "text" and self.config.words:
            return "text"
        return self.prepared.inputs[m]["kind"]

    def _kind(self, m: str) -> Features | Frames | Waveform:
        """Returns how a modality that is no text becomes arrays, no longer than any example is."""
        said = self.prepared.inputs[m]
        if said["kind"] == "features":
            self._check_encoded(said)
            made_by = {key: said[key] for key in ("encoder", "checksum") if key in said}
            return Features(said["length"], said["width"], **made_by)
        if said["kind"] == "frames":
            return Frames(min(self.config.frames, said["longest"]), said["size"])
        return Waveform(min(codec.samples(self.config.seconds), said["longest"]))

    def _check_encoded(self, said: Mapping[str, Any]) -> None:
        """Raises an InputError where the config wants other frames or sounds than were encoded."""
        have = {}
        if "frames" in said:
            have = {"frames": said["frames"], "sampling": "middle"}
        if "seconds" in said:
            have = {"seconds": said["seconds"]}
        what = "sounds" if "seconds" in said else "frames"
        for key, value in have.items():
            if getattr(self.config, key) != value:
                raise InputError(
                    f'"config.data.{key}" is {getattr(self.config, key)!r}, but the features in '
                    f"{self.prepared.path} are of other {what}; allowed: {value!r}"
                )

    def _log(self) -> None:
        """Says what was read, and how many of its values had to be replaced."""
        card = self.prepared.card
        counts = ", ".join(f"{split} {count}" for split, count in self.prepared.splits.items())
        logging.info("%s: %s examples", self.prepared.name, counts)
        for m, cleaned in card["cleaned"].items():
            if any(cleaned.values()):
                nan, inf = cleaned["nan"], cleaned["inf"]
                logging.info("%s: %d NaN and %d infinite values became 0", m, nan, inf)
        if card.get("without_face"):
            logging.info("no face was found in %d clips", card["without_face"])
        for skipped in card["skipped"][:_FEW]:
            logging.warning("skipped when prepared: %s", skipped)
        if len(card["skipped"]) > _FEW:
            more, file = len(card["skipped"]) - _FEW, self.prepared.path / "affectjax.json"
            logging.warning("skipped when prepared: %d more, listed in %s", more, file)

    # What is learned from the training part.

    def _texts(self, part: Part) -> list[str]:
        """Returns the texts that the examples of a part show."""
        index, kept = self.parts.index(part.source), self.parts.kept(part.source)
        text = MODALITIES.index("text")
        return [index.transcripts[row] for row in part.rows if kept[row, text]]

    def _tokenizer(self) -> Tokenizer:
        if self.config.tokenizer:
            return Tokenizer.load(self.config.tokenizer)
        return Tokenizer.train([*self._texts(self.part("train")), *self.spec.classes])

    def _longest_text(self, tokenizer: Tokenizer) -> int:
        """Returns the tokens of the longest text of any split, no more than the config allows."""
        longest = 2
        for split in self.prepared.splits:
            texts = [text for text in self.parts.index(split).transcripts if text]
            for start in range(0, len(texts), 256):
                _, mask = tokenizer.encode(texts[start : start + 256], self.config.tokens)
                longest = max(longest, int(mask.sum(1).max()))
        return longest

    def _statistics(self) -> dict[str, dict[str, np.ndarray]]:
        """Returns mean and deviation of each feature over the valid training steps."""
        wanted = [
            m
            for m, kind in self.inputs.kinds.items()
            if m in self.config.standardize and isinstance(kind, Features) and not kind.encoder
        ]
        if not wanted:
            return {}
        part, statistics = self.part("train"), {}
        read = self.reader(part)
        steps: dict[str, list[np.ndarray]] = {m: [] for m in wanted}
        for row in range(len(part)):
            record = read(row)
            for m in wanted:
                if record[m] is not None:
                    steps[m].append(record[m])
        for m in (m for m in wanted if steps[m]):
            valid = np.concatenate(steps[m]).astype(np.float32).astype(np.float64)
            std = valid.std(0)
            # A constant feature says nothing: it becomes 0, not 0 / 0.
            scale = np.where(std > 1e-6 * np.maximum(np.abs(valid.mean(0)), 1e-6), std, 1.0)
            statistics[m] = {
                "mean": valid.mean(0).astype(np.float32),
                "std": scale.astype(np.float32),
            }
        return statistics


class _PartBatches(BatchSource):
    """Batch i of a stream by number: what Grain's threads call."""

    def __init__(
        self, dataset: Dataset, part: Part, rows: Sequence[np.ndarray], epoch: int | None, seed: Any
    ):
        self._dataset, self._part, self._rows = dataset, part, rows
        self._epoch, self._seed = epoch, seed
        self._read = dataset.reader(part)

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> Arrays:
        rows = np.asarray(self._rows[index])
        draws = self._dataset.draws(self._part, rows, self._epoch, self._seed)
        examples = [None if row < 0 else self._read(row) for row in rows.reshape(-1)]
        batch = self._dataset.inputs.collate(examples, draws)
        return _map(lambda x: x.reshape(*rows.shape, *x.shape[1:]), batch)


def save_statistics(statistics: Mapping[str, Any], path: Path) -> None:
    """Writes the statistics of a run as npz: `<modality>/mean` and `<modality>/std`, `[D]` each."""
    flat = {f"{m}/{k}": v for m, values in statistics.items() for k, v in values.items()}
    np.savez(path, **flat)


def load_statistics(path: Path) -> dict[str, dict[str, np.ndarray]]:
    """Returns what `save_statistics` wrote; an InputError where the file is no such thing."""
    statistics: dict[str, dict[str, np.ndarray]] = {}
    for key, value in archives.read(path).items():
        m, _, kind = key.partition("/")
        statistics.setdefault(m, {})[kind] = value
    return statistics


def _prepare(config: DataConfig) -> Path:
    """Returns the prepared folder for the config, preparing raw files in the cache if need be."""
    made_by_code = sets.get(config.name).generate is not None
    if not config.path and not made_by_code:
        raise InputError(f'"config.data.dir" is empty: where are the files of {config.name}?')
    return prepared.cached(
        config.name,
        config.path or None,
        Path(config.cache_dir or cache.user_folder()),
        aligned=config.aligned,
        seed=config.seed,
        max_length=dict(config.max_length) if config.max_length else None,
        format=config.format,
        view=config.view,
        storage=config.storage,
    )


def _put(arrays: Arrays, rows: np.ndarray, batch: Arrays) -> None:
    """Puts the rows of a batch where they belong in larger arrays."""
    for key, value in arrays.items():
        if isinstance(value, dict):
            _put(value, rows, batch[key])
        else:
            value[rows] = batch[key]


def _map(function: Any, tree: Any) -> Any:
    """Returns a batch with `function` applied to each array."""
    if isinstance(tree, Mapping):
        return {key: _map(function, value) for key, value in tree.items()}
    return function(tree)
