"""Recognises what is felt in clips of any modalities, with the best models of a run.

    recognizer = Recognizer("runs/umbenet")
    recognizer(Clip("me", None, "", video=Path("me.mp4")))["probability"]

Letters: S seeds, B batch, M modalities, C classes, N prompts, k chosen ones.
"""

import hashlib
import itertools
import math
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from affectjax.data.batches import prediction_input, saved_inputs
from affectjax.data.batches.config import DataConfig
from affectjax.data.batches.inputs import Arrays, Record
from affectjax.data.clip import Clip
from affectjax.errors import InputError
from affectjax.models.umbenet import POOL, SEVERAL, activations
from affectjax.runtime import compilation, configs, parallel
from affectjax.runtime.workdir import Workdir, write_json
from affectjax.tasks import base
from affectjax.training import calibration, evaluator, folds, run_config

Predictions = dict[str, np.ndarray]


def recognize(
    workdir: str | Path,
    source: str | Path | None = None,
    *,
    text: str | None = None,
    output: str | Path | None = None,
    window: float | None = None,
    hop: float | None = None,
    allow_outside: bool = False,
) -> dict[str, Any]:
    """Predicts what is handed over, writes predictions.json and figures, and returns the former.

    Args:
      workdir: of a finished run.
      source: a video, sound or image file, a folder of them, or a csv with the columns `id` and
        any of `video`, `audio` and `text`; None for the text alone. For a model of features, a
        folder of one's own features, see `affectjax.data.raw.readers.plain`; nothing but the arrays
        is needed.
      text: what is said in the one file, or alone.
      output: the folder to write in, None for `predict/` in the workdir.
      window: seconds of a sliding window, None for `config.data.seconds`.
      hop: seconds from one window to the next, None for half of one.
      allow_outside: whether the files of a csv may lie outside its folder.

    Returns:
      `checkpoint`, `classes`, `not_readable` (modalities that are features to the model, which no
      raw file has), `predictions` (see `Recognizer.__call__`, and `figure`, the name of its file or
      None), and `failed`: `input` and `reason` of all that could not be predicted.

    Raises:
      InputError: nothing could be predicted, there is no trained model, or a wrong argument.
    """
    Workdir(workdir).config()  # before anything is opened: the folder may be misspelt
    source = None if source is None else Path(source)
    folder = Path(output) if output else Path(workdir) / "predict"
    predictions = []
    if source is not None and prediction_input.holds_features(source):
        recognizer = Recognizer(workdir, window, hop)
        recognizer.check_features()
        examples = prediction_input.records(source, recognizer.inputs, allow_outside)
        failed: prediction_input.Failed = []
        predict = recognizer.of_record
    else:
        examples, failed = prediction_input.listed(source, text, allow_outside)
        if examples:
            recognizer = Recognizer(workdir, window, hop)
            recognizer.check_raw()
            predict = recognizer
    for example in examples:
        try:
            predictions.append(predict(example))
        except (InputError, OSError) as error:
            name = example.id if isinstance(example, Clip) else example["id"]
            failed.append((name, str(error)))
    if not predictions:
        _, reason = failed[0]
        many = f"{source}: none of {len(failed)} can be predicted; the first: "
        raise InputError((many if len(failed) > 1 else "") + reason)
    result = {
        "checkpoint": str(workdir),
        "classes": list(recognizer.classes),
        "not_readable": list(recognizer.not_readable),
        "predictions": predictions,
        "failed": [{"input": name, "reason": reason} for name, reason in failed],
    }
    try:
        _write(result, folder)
    except OSError as error:
        raise InputError(f"cannot write to {folder}: {error}; choose another --output") from error
    return result


def _write(result: dict[str, Any], folder: Path) -> None:
    """Writes predictions.json, and a figure for each prediction that has a timeline."""
    for prediction in result["predictions"]:
        prediction["figure"] = None
        if "timeline" in prediction:
            from affectjax.reports import figures  # Matplotlib takes a second

            prediction["figure"] = file_name(prediction["id"])
            folder.mkdir(parents=True, exist_ok=True)
            drawn = figures.timeline(prediction, result["classes"])
            drawn.savefig(folder / prediction["figure"], dpi=figures.DOTS)
    write_json(folder / "predictions.json", result)


def file_name(name: str) -> str:
    """Returns the name of the figure of a clip: another one for each id, and none leads away."""
    safe = re.sub(r"[%/\\\x00-\x1f]", lambda found: f"%{ord(found[0]):02X}", name)
    if len(os.fsencode(safe)) > 200:  # a file system allows 255 bytes
        safe = hashlib.sha256(os.fsencode(name)).hexdigest()
    return f"{safe}.png"


class Recognizer:
    """The best models of a run, those of all seeds and folds, whose mean is the prediction.

    Attributes:
      kind: of the labels: class, score or binary.
      classes: their names; none of scores.
      modalities: those that the models see.
      inputs: how records become batches.
      not_readable: those of them that are features, which cannot be taken from raw files.
      reads_features: whether there are any.
      temperature: by which logits are divided for calibrated probabilities, fitted on the
        validation part of the run; None where the run has none.
      window, hop: seconds.
    """

    def __init__(self, workdir: str | Path, window: float | None = None, hop: float | None = None):
        """Loads the models; they are compiled at the first clip, once for all.

        Args:
          workdir: of a finished run.
          window: seconds of a sliding window, None for `config.data.seconds`.
          hop: seconds from one window to the next, None for half of one.

        Raises:
          InputError: no trained model, or a wrong window.
        """
        path = Path(workdir)
        config = Workdir(path).config()
        place = configs.read(parallel.ParallelConfig, config["parallel"], "config.parallel")
        compilation.keep(place.compilation_cache)
        data = run_config.data_sets(config).get(base.MAIN, DataConfig(""))
        self.window = data.seconds if window is None else window
        self.hop = self.window / 2 if hop is None else hop
        if not (0 < self.hop <= self.window < math.inf):
            raise InputError(
                f"a window of {self.window:g} s with a hop of {self.hop:g} s; allowed: a window of "
                "more than 0, and a hop of more than 0 and no more than the window"
            )
        places = {f"fold {fold}, ": path / "folds" / fold for fold in folds.fold_names(config)}
        self._models = [_Models(place, name) for name, place in (places or {"": path}).items()]
        first = self._models[0]
        self.inputs, self.modalities = first.inputs, first.task.modalities
        self.kind, self.classes = first.task.spec.kind, first.task.spec.classes
        self._reader = prediction_input.Reader(data, first.inputs, self.modalities)
        readable = self._reader.readable
        self.not_readable = tuple(m for m in self.modalities if m not in readable)
        self.reads_features = bool(self.not_readable)
        # Of folds each has its own, and their mean would have another.
        found = calibration.load(path) if self.kind == "class" and not places else None
        self.temperature = None if found is None else float(found["temperature"])

    def __call__(self, clip: Clip) -> dict[str, Any]:
        """Returns the prediction for one clip, in JSON's types.

        Args:
          clip: its files; its label counts for nothing.

        Returns:
          `id`, `prediction`, `probability` by class, and `calibrated`, the same at `temperature`,
          where there is one; `modalities` that were used and those that are
          `missing`; `contribution` by modality: what the winning logit loses without it, which of
          a single one is all, as without any the logits are 0; `prompts` that answered, best first;
          `warnings`; and of a clip longer than a window `timeline`: `start` and `end`, seconds, and
          `probability`, None where nothing was to see or hear.

        Raises:
          InputError: a file cannot be read, or nothing in it is of use to the models.
        """
        record, warnings = self._reader.read(clip)
        result = self.of_record(record, warnings)
        timeline = list(self._timeline(clip)) if self.classes else []
        if timeline and "audio" in result["modalities"]:
            result["warnings"] += self._reader.unheard(self.window)
        return result | ({"timeline": timeline} if timeline else {})

    def check_features(self) -> None:
        """Raises InputError where the models read no features."""
        if not self.reads_features:
            raise InputError(
                "the model reads clips, and no features; allowed: a file, a folder of files, or a "
                "table"
            )

    def check_raw(self) -> None:
        """Raises InputError where the models read nothing that a raw file has."""
        if not self._reader.readable:
            raise InputError(
                f"the model reads features of {', '.join(self.modalities)}, which cannot be taken "
                "from raw files; allowed: a folder with features.npz"
            )

    def of_record(self, record: Record, warnings: Sequence[str] = ()) -> dict[str, Any]:
        """Returns the prediction for one record, as `__call__` but for the timeline.

        Args:
          record: with `id`, and what there is of each modality, see
            `affectjax.data.batches.inputs`.
          warnings: what one should know of it already.

        Raises:
          InputError: nothing in it is of use to the models, or a modality has another shape.
        """
        record, warnings = self._features(record, list(warnings))
        predictions = [models.without_each(record) for models in self._models]
        value, logits, present = self._mean(predictions)
        used = [m for m, there in zip(self.modalities, present[0], strict=True) if there]
        if not used:
            read = ", ".join(self.modalities if self.reads_features else self._reader.readable)
            raise InputError(f"{record['id']}: has nothing that the model reads: {read}")
        winner = int(logits[0].argmax())
        lost = logits[0, winner] - logits[1:, winner]
        return {
            "id": record["id"],
            **self._said(value[0]),
            "modalities": used,
            "missing": [m for m in self.modalities if m not in used],
            "contribution": {
                m: _number(x) for m, x in zip(self.modalities, lost, strict=True) if m in used
            },
            "prompts": [
                prompt
                for models, own in zip(self._models, predictions, strict=True)
                for prompt in models.prompts(own)
            ],
            "warnings": warnings,
        }

    def _said(self, value: np.ndarray) -> dict[str, Any]:
        """Returns `prediction`, and `probability` by class where it is no score."""
        if self.kind == "score":
            return {"prediction": _number(value[0])}
        probability = self._by_class(value)
        if self.kind == "class":
            said = {"prediction": self.classes[int(value.argmax())], "probability": probability}
            if self.temperature is None:
                return said
            return said | {
                "calibrated": self._by_class(calibration.cooled(value, self.temperature))
            }
        yes = [name for name, p in zip(self.classes, value, strict=True) if p > 0.5]
        return {"prediction": "+".join(yes) or "none", "probability": probability}

    def _features(self, record: Record, warnings: list[str]) -> tuple[Record, list[str]]:
        """Returns the record with features as a preparation leaves them: without NaN.

        Raises:
          InputError: features that are no numbers, or not as wide as those of the training.
        """
        changed = {}
        for m in self.not_readable:
            if record.get(m) is None:
                continue
            width = self.inputs.kinds[m].width
            try:
                x = np.asarray(record[m], np.float32)
            except (TypeError, ValueError) as error:
                raise InputError(f"{record['id']}: {m} is no array of numbers") from error
            if x.shape[1:] != (width,):
                raise InputError(
                    f"{record['id']}: {m} has the shape {list(x.shape)}; expected [steps, {width}]"
                )
            wrong = ~np.isfinite(x)
            if wrong.any():
                warnings.append(f"{m} has {wrong.sum()} values that are NaN or infinite: 0 there")
            changed[m] = np.where(wrong, 0, x)
        return {**record, **changed}, warnings

    def _mean(
        self, predictions: Sequence[Predictions]
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Returns means over all models and `present` `[B, M]`.

        They are `[B, C]`: probabilities or scores (C is 1), and that whose differences say what a
        modality contributes: logits of classes (log-probabilities of a task without logits),
        log-odds of binary tasks, or scores.
        """
        mean = lambda name: np.concatenate([p[name] for p in predictions]).mean(0)  # noqa: E731
        value = mean("score")[:, None] if self.kind == "score" else mean("probability")
        weight = value
        if self.kind == "class":
            known = all("logits" in p for p in predictions)
            weight = mean("logits") if known else np.log(np.maximum(value, 1e-9))
        elif self.kind == "binary":
            sure = np.clip(value, 1e-6, 1 - 1e-6)
            weight = np.log(sure / (1 - sure))
        return value, weight, predictions[0]["present"]

    def _timeline(self, clip: Clip) -> Iterator[dict[str, Any]]:
        """Yields start, end and probability of each window, as many at once as a batch has rows."""
        stretches = self._reader.stretches(clip, self.window, self.hop)
        while chunk := list(itertools.islice(stretches, len(self.modalities) + 1)):
            records = [record for *_, record in chunk]
            probability, _, present = self._mean([m.of_each(records) for m in self._models])
            for row, (start, end, _) in enumerate(chunk):
                seen = self._by_class(probability[row]) if present[row].any() else None
                yield {"start": _number(start), "end": _number(end), "probability": seen}

    def _by_class(self, probability: np.ndarray) -> dict[str, float]:
        return {c: _number(p) for c, p in zip(self.classes, probability, strict=True)}


class _Models:
    """The models of one workdir, one a seed: those of a run, or of a fold of it.

    All that they are asked comes in batches of B = M + 1 rows, so they are compiled once.

    Attributes:
      inputs: how records become batches.
      task: what they were trained for.
    """

    def __init__(self, path: Path, name: str):
        """Loads them.

        Args:
          path: the workdir.
          name: of the fold, for the names of the models.

        Raises:
          InputError: see `Recognizer`.
        """
        workdir = Workdir(path)
        config = workdir.config()
        if base.MAIN not in base.evaluated_data_sets(config):
            raise InputError(
                f"{path} has learned concepts alone; a run with the stage downstream recognises"
            )
        self.inputs = saved_inputs.load(path)
        self.task = base.build(config, {base.MAIN: self.inputs}, None)
        seeds = configs.seeds(config)
        self._names = [f"{name}seed {seed}" for seed in seeds]
        model = evaluator.load_best(workdir, self.task, {base.MAIN: self.inputs}, seeds)
        self._pool = model["variables"].get(POOL, {}).get("pool")
        self._model = jax.device_put((model["params"], model["variables"]))
        self._run = jax.jit(parallel.over_seeds(self.task.predict, len(seeds), (0, 0, None)))

    def without_each(self, record: Record) -> Predictions:
        """Returns predictions `[S, B, ...]` with all of a record, then without each modality."""
        modalities = self.task.modalities
        one = self.inputs.collate([record])
        batch = jax.tree.map(lambda x: np.repeat(x, len(modalities) + 1, axis=0), one)
        for row, m in enumerate(modalities, 1):
            for x in (batch[m]["x"], batch[m]["mask"], batch["present"][m]):
                x[row] = 0
        return self._predict(batch)

    def of_each(self, records: Sequence[Record]) -> Predictions:
        """Returns predictions `[S, B, ...]` of up to B records; what is left of the rows pads."""
        padding = [None] * (len(self.task.modalities) + 1 - len(records))
        return self._predict(self.inputs.collate([*records, *padding]))

    def _predict(self, batch: Arrays) -> Predictions:
        """Returns what the task predicts, and `present` `[B, M]`."""
        found = jax.device_get(self._run(*self._model, batch))
        present = [batch["present"][m] for m in self.task.modalities]
        return found | {"present": np.stack(present, axis=1)}

    def prompts(self, predictions: Predictions) -> Iterator[dict[str, Any]]:
        """Yields the prompts that answered the first row, where the models have a pool of them.

        Each has the name of its `model`, `index`, `similarity`, and `share`: of the activations of
        that prompt in the stage before the last, or where there was none in the last epoch, the
        part that each modality has; all 0 where there was no activation.
        """
        if self._pool is None:
            return
        for s, name in enumerate(self._names):
            served, epoch = self._pool["served"][s], self._pool["epoch"][s]
            counts = activations(served, epoch)
            share = counts / np.maximum(counts.sum(0), 1)
            chosen = zip(
                predictions["prompts"][s, 0], predictions["prompt_similarity"][s, 0], strict=True
            )
            for index, similarity in chosen:
                column = zip((*self.task.modalities, SEVERAL), share[:, index], strict=True)
                yield {
                    "model": name,
                    "index": int(index),
                    "similarity": _number(similarity),
                    "share": {m: _number(x) for m, x in column},
                }


def _number(x: Any) -> float:
    """Returns a number as eval/<split>.csv writes it: six digits that count."""
    return float(f"{x:.6g}")
