"""From a prepared data set to batches: splits, standardisation, order, streams.

Letters: N examples, B batch (over all devices), S seeds, T steps, D features.
"""

import dataclasses
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import grain
import numpy as np
from absl import logging

from affectjax.data import prepared, sets
from affectjax.data.features import Split
from affectjax.errors import InputError
from affectjax.modalities import MODALITIES

HOLDOUT = "holdout"
Arrays = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """`config.data`.

    Attributes:
      name: a data set of `affectjax.data.sets`.
      dir: raw files or a prepared folder; "" for a data set made by code.
      aligned: whether the modalities share their steps.
      format: of the raw files, "auto" to find out.
      cache_dir: where raw files are prepared on first use; "" for the user's cache folder.
      seed: of data made by code, and of the choice of what is held out.
      max_length: by modality, the greatest number of steps; () for no limit.
      train, valid, test: which split of the source serves as which; `valid="holdout"` holds a part
        of `train` out, whole videos or speakers at a time.
      holdout: that part, from 0 to 1.
      split: what `--mode=eval` evaluates: "train", "valid" or "test".
      standardize: modalities brought to mean 0 and deviation 1, a feature at a time, by the
        statistics of the training split.
      resident_mib: a split that needs no more than this lives on the devices; a larger one streams.
      threads: that read and collate a stream.
    """

    name: str
    dir: str = ""
    aligned: bool = False
    format: str = "auto"
    cache_dir: str = ""
    seed: int = 0
    max_length: Mapping[str, int] | tuple = ()
    train: str = "train"
    valid: str = "valid"
    test: str = "test"
    holdout: float = 0.0
    split: str = "test"
    standardize: tuple[str, ...] = ("audio", "vision")
    resident_mib: float = 512.0
    threads: int = 2

    def __post_init__(self):
        if (self.valid == HOLDOUT) != (0 < self.holdout < 1):
            raise ValueError('holdout is between 0 and 1 just when valid is "holdout"')
        if self.split not in ("train", "valid", "test"):
            raise ValueError(f"split is {self.split!r}; allowed: train, valid, test")
        unknown = [m for m in (*self.standardize, *self.max_length) if m not in MODALITIES]
        if unknown:
            raise ValueError(f"{unknown[0]!r} is no modality; allowed: {', '.join(MODALITIES)}")


@dataclasses.dataclass(frozen=True)
class Part:
    """What serves as the train, valid or test split.

    Attributes:
      source: the split's name in the prepared data.
      rows: `[N]`, which of its examples.
    """

    source: str
    rows: np.ndarray

    def __len__(self) -> int:
        return len(self.rows)


class Dataset:
    """A prepared data set with its parts, ready to give batches.

    Attributes:
      prepared: what lies on disk.
      spec: what the labels mean.
      modalities: in house order.
      statistics: by modality `{"mean": [D], "std": [D]}`, of the training part.
    """

    def __init__(self, config: DataConfig, statistics: Mapping[str, Any] | None = None):
        """Opens the data, preparing raw files on first use.

        Args:
          config: see there.
          statistics: those of an earlier run, None to compute them.

        Raises:
          InputError: no data, no such split, or an empty one.
        """
        self.config = config
        self.prepared = prepared.open_prepared(_prepare(config))
        self.spec = self.prepared.spec
        self.modalities = tuple(m for m in MODALITIES if m in self.prepared.dims)
        self._log()
        self._loaded: dict[str, Split] = {}
        self._held_out = self._hold_out()
        self.statistics = self._statistics() if statistics is None else dict(statistics)

    def _log(self) -> None:
        """Says what was read, and how many of its values had to be replaced."""
        card = self.prepared.card
        counts = ", ".join(f"{split} {count}" for split, count in self.prepared.splits.items())
        logging.info("%s: %s examples", self.prepared.name, counts)
        for m, cleaned in card["cleaned"].items():
            if any(cleaned.values()):
                nan, inf = cleaned["nan"], cleaned["inf"]
                logging.info("%s: %d NaN and %d infinite values became 0", m, nan, inf)
        for skipped in card["skipped"]:
            logging.warning("skipped when prepared: %s", skipped)

    def part(self, role: str) -> Part:
        """Returns what serves as "train", "valid" or "test".

        Raises:
          InputError: the data has no such split, or it is empty.
        """
        name = getattr(self.config, role)
        source = self.config.train if name == HOLDOUT else name
        if source not in self.prepared.splits:
            raise InputError(
                f'"config.data.{role}" is {name!r}, but the data has the splits '
                f"{', '.join(self.prepared.splits)}"
            )
        rows = np.arange(self.prepared.splits[source])
        if self._held_out is not None and source == self.config.train:
            rows = rows[self._held_out == (name == HOLDOUT)]
        if not len(rows):
            raise InputError(f'"config.data.{role}": split {name!r} has no example')
        return Part(source, rows)

    def fits(self, part: Part) -> bool:
        """Returns whether a part is small enough to live on the devices."""
        sizes = (self.prepared.lengths[m] * (4 * d + 1) for m, d in self.prepared.dims.items())
        return len(part) * sum(sizes) <= self.config.resident_mib * 2**20

    def arrays(self, part: Part) -> Arrays:
        """Returns a whole part in the batch's layout, host side.

        Returns:
          By modality `{"x": [N, T, D] float32, "mask": [N, T] bool}`, `present`, `label`; no
          `weight` and no `id`.
        """
        split = self._load(part.source)
        arrays: Arrays = {"present": {}, "label": split.label[part.rows]}
        for m, sequences in split.ordered():
            mask = sequences.mask[part.rows]
            x = self._standardize(m, sequences.x[part.rows], mask)
            arrays[m] = {"x": x, "mask": mask}
            arrays["present"][m] = mask.any(-1)
        return arrays

    def ids(self, part: Part) -> list[str]:
        """Returns the names of a part's examples, in order."""
        ids = self._load(part.source).ids
        return [ids[row] for row in part.rows]

    def labels(self, part: Part) -> np.ndarray:
        """Returns the labels `[N]` or `[N, K]` of a part, in order."""
        return self._load(part.source).label[part.rows]

    def zeros(self, batch: int) -> Arrays:
        """Returns an empty batch of this data's shapes, to initialise a model with."""
        arrays: Arrays = {"present": {}, "weight": np.ones(batch, np.float32)}
        for m in self.modalities:
            length, width = self.prepared.lengths[m], self.prepared.dims[m]
            mask = np.ones((batch, length), bool)
            arrays[m] = {"x": np.zeros((batch, length, width), np.float32), "mask": mask}
            arrays["present"][m] = np.ones(batch, bool)
        columns = (len(self.spec.classes),) if self.spec.kind == "binary" else ()
        score = self.spec.kind == "score"
        arrays["label"] = np.zeros((batch, *columns), np.float32 if score else np.int32)
        return arrays

    def stream(self, part: Part, rows: Sequence[np.ndarray]) -> "Batches":
        """Returns the batches for rows `[..., B]` of a part, read one by one through Grain."""
        return Batches(self, part, rows)

    def _load(self, source: str) -> Split:
        if source not in self._loaded:
            self._loaded[source] = self.prepared.load(source)
        return self._loaded[source]

    def _hold_out(self) -> np.ndarray | None:
        """Returns `[N]` bool over the training split: whole groups, drawn until enough are out."""
        if self.config.valid != HOLDOUT:
            return None
        module = sets.get(self.config.name)
        source = self.prepared.source(self.config.train)
        groups = np.array([sets.group(module, source[i]["id"]) for i in range(len(source))])
        names, counts = np.unique(groups, return_counts=True)
        order = np.random.Generator(np.random.Philox(self.config.seed)).permutation(len(names))
        before = np.cumsum(counts[order]) - counts[order]
        out = names[order][before < self.config.holdout * len(groups)]
        return np.isin(groups, out)

    def _statistics(self) -> dict[str, dict[str, np.ndarray]]:
        """Returns mean and deviation of each feature over the valid training steps."""
        wanted = [m for m in self.modalities if m in self.config.standardize]
        if not wanted:
            return {}
        part = self.part("train")
        split, statistics = self._load(part.source), {}
        for m in wanted:
            sequences = split.modalities[m]
            valid = sequences.x[part.rows][sequences.mask[part.rows]].astype(np.float64)
            std = valid.std(0)
            # A constant feature says nothing: it becomes 0, not 0 / 0.
            scale = np.where(std > 1e-6 * np.maximum(np.abs(valid.mean(0)), 1e-6), std, 1.0)
            statistics[m] = {
                "mean": valid.mean(0).astype(np.float32),
                "std": scale.astype(np.float32),
            }
        return statistics

    def _standardize(self, m: str, x: np.ndarray, mask: np.ndarray) -> np.ndarray:
        """Returns `x` `[..., T, D]` standardised at valid steps, zeros elsewhere."""
        if m in self.statistics:
            x = (x - self.statistics[m]["mean"]) / self.statistics[m]["std"]
        return np.where(mask[..., None], x, np.float32(0))

    def collate(self, records: Sequence[Mapping[str, Any] | None]) -> Arrays:
        """Returns one batch of examples as the disk gives them; None is a row that only pads."""
        batch = self.zeros(len(records))
        for m in self.modalities:
            batch[m]["mask"][:] = False
        for row, record in enumerate(records):
            batch["weight"][row] = record is not None
            for m in self.modalities if record is not None else ():
                steps = len(record[m])
                batch[m]["x"][row, :steps] = record[m]
                batch[m]["mask"][row, :steps] = True
            if record is not None:
                batch["label"][row] = record["label"]
        for m in self.modalities:
            batch[m]["x"] = self._standardize(m, batch[m]["x"], batch[m]["mask"])
            batch["present"][m] = batch[m]["mask"].any(-1)
        return batch


class Batches:
    """A Grain iterator over batches whose position can be saved.

    Each batch has leaves `[..., B, ...]`, the leading axes those of the rows.
    """

    def __init__(self, dataset: Dataset, part: Part, rows: Sequence[np.ndarray]):
        source = _BatchSource(dataset, part, rows)
        options = grain.ReadOptions(
            num_threads=dataset.config.threads, prefetch_buffer_size=2 * dataset.config.threads
        )
        self._iterator = iter(grain.MapDataset.source(source).to_iter_dataset(options))

    def __iter__(self) -> Iterator[Arrays]:
        return self._iterator

    def state(self) -> dict[str, Any]:
        """Returns the position, in JSON's types."""
        return self._iterator.get_state()

    def restore(self, state: Mapping[str, Any]) -> None:
        """Goes to a position that `state` returned."""
        self._iterator.set_state(dict(state))


class _BatchSource:
    """Batch i of a stream by number: what Grain's threads call."""

    def __init__(self, dataset: Dataset, part: Part, rows: Sequence[np.ndarray]):
        self._dataset, self._part, self._rows = dataset, part, rows
        self._source = dataset.prepared.source(part.source)

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> Arrays:
        rows = np.asarray(self._rows[index])
        examples = [
            None if row < 0 else self._source[int(self._part.rows[row])] for row in rows.reshape(-1)
        ]
        batch = self._dataset.collate(examples)
        return _map(lambda x: x.reshape(*rows.shape, *x.shape[1:]), batch)


def order(examples: int, seed: int, stage: int, epoch: int) -> np.ndarray:
    """Returns `[N]`: the examples in the order of an epoch of a stage, shuffled by Grain."""
    shuffled = grain.MapDataset.range(examples).seed(seed + 2**31 * stage).shuffle().repeat()
    start = epoch * examples
    return np.array([shuffled[start + i] for i in range(examples)], np.int32)


def rows_of(order: np.ndarray, batch: int, columns: int) -> np.ndarray:
    """Returns `[steps, columns]`: the order cut into batches; -1 pads the last one, and the width.

    Args:
      order: `[N]`.
      batch: B, examples in a full batch.
      columns: at least B, such that the devices share it evenly.
    """
    steps = -(-len(order) // batch)
    rows = np.full(steps * batch, -1, np.int32)
    rows[: len(order)] = order
    return np.pad(rows.reshape(steps, batch), ((0, 0), (0, columns - batch)), constant_values=-1)


def save_statistics(statistics: Mapping[str, Any], path: Path) -> None:
    """Writes the statistics of a run as npz: `<modality>/mean` and `<modality>/std`, `[D]` each."""
    flat = {f"{m}/{k}": v for m, values in statistics.items() for k, v in values.items()}
    np.savez(path, **flat)


def load_statistics(path: Path) -> dict[str, dict[str, np.ndarray]]:
    """Returns what `save_statistics` wrote."""
    statistics: dict[str, dict[str, np.ndarray]] = {}
    with np.load(path, allow_pickle=False) as flat:
        for key in flat.files:
            m, kind = key.split("/")
            statistics.setdefault(m, {})[kind] = flat[key]
    return statistics


def _prepare(config: DataConfig) -> Path:
    """Returns the prepared folder for the config, preparing raw files in the cache if need be."""
    made_by_code = hasattr(sets.get(config.name), "generate")
    if not config.dir and not made_by_code:
        raise InputError(f'"config.data.dir" is empty: where are the files of {config.name}?')
    default = os.environ.get("AFFECTJAX_CACHE") or Path.home() / ".cache" / "affectjax"
    return prepared.cached(
        config.name,
        config.dir or None,
        Path(config.cache_dir or default),
        aligned=config.aligned,
        seed=config.seed,
        max_length=dict(config.max_length) if config.max_length else None,
        format=config.format,
    )


def _map(function: Any, tree: Any) -> Any:
    """Returns a batch with `function` applied to each array."""
    if isinstance(tree, Mapping):
        return {key: _map(function, value) for key, value in tree.items()}
    return function(tree)
