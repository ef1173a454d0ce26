"""A trained model as an object: whatever one has of a clip in, a `Result` out.

    model = affectjax.load("runs/umbenet")
    result = model("clip.mp4", text="what was said")
    result.label, result.probability, result.contribution
    result.plot()
    model.many(["a.mp4", "b.wav"])

Letters: T frames, H height, W width, S samples, D features.
"""

import dataclasses
import html
import io
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import scipy.signal
from tqdm import tqdm

from affectjax.data.batches import prediction_input
from affectjax.data.clip import Clip
from affectjax.data.media import decoding, image_heads
from affectjax.errors import InputError
from affectjax.inference import Recognizer
from affectjax.modalities import SAMPLE_RATE
from affectjax.runtime import hub

# What stands for one clip: a path, the bytes of a file, a picture of Pillow, frames, a sound with
# its rate, or several of these by name.
Source = Any
_BAR = "<td style='text-align:left'><div style='background:#0072B2;height:0.8em;width:{:.0f}px'>"


def load(workdir: str | Path, window: float | None = None, hop: float | None = None) -> "Model":
    """Returns the trained model of a run.

    Args:
      workdir: of a finished run; a folder that one was exported to; or the name of such a folder on
        the hub, as "owner/model".
      window: seconds of the timeline's window, None for what the model hears at once.
      hop: seconds from one window to the next, None for half of one.

    Raises:
      InputError: there is no trained model, or a wrong window.
    """
    return Model(Recognizer(hub.local(workdir), window, hop))


@dataclasses.dataclass(frozen=True)
class Result:
    """What a model says of one clip.

    Attributes:
      id: the name of the clip.
      label: the emotion, or the score; of binary tasks those that are likely, joined by "+".
      probability: by class, None of scores.
      calibrated: by class, on the validation part as often right as they say; None where the run
        has no temperature for that.
      modalities: those that were used.
      missing: those that the model also reads.
      contribution: by modality that was used, what the logit of the label (or the score) loses
        without it.
      timeline: of a clip longer than a window, `start` and `end` in seconds and `probability`, None
        where nothing was to see or hear; empty of others.
      prompts: those that answered, see `affectjax.inference.Recognizer`.
      warnings: what one should know before believing in it.
    """

    id: str
    label: str | float
    probability: dict[str, float] | None
    calibrated: dict[str, float] | None
    modalities: list[str]
    missing: list[str]
    contribution: dict[str, float]
    timeline: list[dict[str, Any]]
    prompts: list[dict[str, Any]]
    warnings: list[str]

    def frame(self):
        """Returns a pandas DataFrame, a row a window: start, end, label and a column a class.

        Without a timeline it has one row, whose start and end are NaN.
        """
        import pandas as pd  # slow, and few calls need it

        windows = self.timeline or [
            {"start": np.nan, "end": np.nan, "probability": self.probability}
        ]
        rows = []
        for window in windows:
            found = window["probability"] or {}
            label = max(found, key=found.get) if found else None
            label = label if self.timeline else self.label
            rows.append({"start": window["start"], "end": window["end"], "label": label, **found})
        return pd.DataFrame(rows)

    def plot(self, path: str | Path | None = None):
        """Returns a Matplotlib figure: the timeline, or bars of the classes; also as a file."""
        from affectjax.reports import figures  # Matplotlib takes a second

        if self.probability is None:
            raise InputError("a score has no classes to plot")
        said = {"id": self.id, "prediction": self.label, "probability": self.probability}
        if self.timeline:
            drawn = figures.timeline(said | {"timeline": self.timeline}, list(self.probability))
        else:
            drawn = figures.bars(said)
        if path is not None:
            drawn.savefig(path, dpi=figures.DOTS)
        return drawn

    def __str__(self) -> str:
        if self.probability is None:
            return f"{self.id}: {self.label:.3g}"
        likely = sorted(self.probability.items(), key=lambda pair: -pair[1])[:3]
        return f"{self.id}: {self.label} ({', '.join(f'{c} {p:.0%}' for c, p in likely)})"

    def _repr_html_(self) -> str:
        """Returns a small table for notebooks."""
        rows = "".join(
            f"<tr><td>{html.escape(c)}</td><td>{p:.1%}</td>{_BAR.format(160 * p)}</div></td></tr>"
            for c, p in (self.probability or {}).items()
        )
        used = ", ".join(f"{m} {x:+.2f}" for m, x in self.contribution.items())
        notes = "".join(f"<li>{html.escape(note)}</li>" for note in self.warnings)
        head = f"<b>{html.escape(self.id)}: {html.escape(str(self.label))}</b>"
        return f"{head}<table>{rows}</table>contribution: {used}<ul>{notes}</ul>"


class Model:
    """A trained model, called with a clip.

    Attributes:
      classes: their names; none of scores.
      modalities: those that it reads.
    """

    def __init__(self, recognizer: Recognizer):
        """Makes a model of the models of a run, of all its seeds and folds."""
        self._recognizer = recognizer
        self.classes, self.modalities = recognizer.classes, recognizer.modalities

    def __repr__(self) -> str:
        what = ", ".join(self.classes) or "scores"
        return f"Model({', '.join(self.modalities)} to {what})"

    def __call__(self, source: Source = None, *, text: str | None = None) -> Result:
        """Returns what the model says of one clip.

        Args:
          source: a path of a video, sound or image; the bytes of such a file; a picture of Pillow;
            frames `[T, H, W, 3]` or `[H, W, 3]` uint8 RGB; a sound as (waveform `[S]` or
            `[S, channels]`, samples a second); or a dictionary with any of `video`, `audio` (each
            as above), `text` and `id`. For a model of features a dictionary of arrays `[T, D]` by
            modality.
          text: what is said.

        Raises:
          InputError: nothing that the model reads, or a file that cannot be read.
        """
        parts = source if isinstance(source, Mapping) else {}
        if self._recognizer.reads_features and any(m in parts for m in self.modalities):
            return _result(self._recognizer.of_record(self._record(parts, text)))
        self._recognizer.check_raw()
        with tempfile.TemporaryDirectory() as folder:
            return _result(self._recognizer(_clip(source, text, Path(folder))))

    def many(self, sources: Iterable[Source], *, progress: bool = True):
        """Returns a pandas DataFrame, a row a clip: id, label, a column a class, and more.

        `modalities` are those that were used; `error` says why a clip could not be predicted, whose
        label and probabilities are missing then.

        Args:
          sources: what stands for a clip, see `__call__`; or the path of a folder or of a table, as
            `affectjax predict` takes it.
          progress: whether to draw a bar.
        """
        import pandas as pd  # slow, and few calls need it

        rows = []
        sources = self._listed(sources) if isinstance(sources, str | Path) else list(sources)
        for number, source in enumerate(tqdm(sources, unit="clip", disable=not progress)):
            name = str(source) if isinstance(source, str | Path) else str(number)
            try:
                found = self._of(source)
            except (InputError, OSError) as error:
                name = getattr(source, "id", name)
                rows.append({"id": name, "label": None, "error": str(error)})
                continue
            name = name if isinstance(source, str | Path) or found.id == _ID else found.id
            used = "+".join(found.modalities)
            rows.append(
                {"id": name, "label": found.label, **(found.probability or {}), "modalities": used}
            )
        columns = ["id", "label", *self.classes, "modalities", "error"]
        return pd.DataFrame(rows, columns=columns)

    def _of(self, source: Any) -> Result:
        if isinstance(source, Clip):
            return _result(self._recognizer(source))
        if isinstance(source, _Failed):
            raise InputError(source.reason)
        return self(source)

    def _listed(self, source: str | Path) -> list[Any]:
        """Returns the clips of a folder or a table, those that cannot be one too."""
        path = Path(source)
        if prediction_input.holds_features(path):
            return list(prediction_input.records(path, self._recognizer.inputs))
        clips, failed = prediction_input.listed(path, None)
        return [*clips, *(_Failed(*one) for one in failed)]

    def _record(self, parts: Mapping[str, Any], text: str | None) -> dict[str, Any]:
        """Returns the record of arrays that one hands over; empty arrays count as missing."""
        features = self._recognizer.not_readable
        known = (*features, "text", "transcript", "id")
        unknown = [key for key in parts if key not in known]
        if unknown:
            raise InputError(f"{unknown[0]!r} is no input; allowed: {', '.join(known)}")
        said = parts.get("transcript", text)
        arrays = {m: parts[m] for m in features if parts.get(m) is not None}
        if said is None and isinstance(parts.get("text"), str):
            said = parts["text"]
        return {"id": str(parts.get("id", _ID)), "transcript": (said or "").strip(), **arrays}


@dataclasses.dataclass(frozen=True)
class _Failed:
    """A file of a folder, or a row of a table, that cannot be a clip."""

    id: str
    reason: str


_ID = "clip"  # of what comes without a name


def _result(said: Mapping[str, Any]) -> Result:
    values = {field.name: said.get(field.name) for field in dataclasses.fields(Result)}
    label = said["prediction"]
    return Result(**{**values, "label": label, "timeline": said.get("timeline", [])})


def _clip(source: Source, text: str | None, folder: Path) -> Clip:
    """Returns the clip that somebody hands over; bytes become files of `folder`."""
    if text is not None and not text.strip():
        raise InputError("the text is blank; leave it out where nothing is said")
    if isinstance(source, Mapping):
        unknown = [key for key in source if key not in ("video", "audio", "text", "id")]
        if unknown:
            raise InputError(f"{unknown[0]!r} is no input; allowed: video, audio, text, id")
        if text is not None and source.get("text") is not None:
            raise InputError("the text comes twice; give it once")
        parts = {key: value for key, value in source.items() if value is not None}
    else:
        parts = {} if source is None else {"": source}
    made: dict[str, Any] = {"text": parts.pop("text", text)}
    if made["text"] is not None and not isinstance(made["text"], str):
        raise InputError(f"a text is {type(made['text']).__name__}; expected str")
    name = parts.pop("id", None)
    for key, value in parts.items():
        made |= _of_source(value, key, folder)
        if isinstance(value, str | Path) and name is None:
            name = Path(value).name
    if not parts and made["text"] is None:
        raise InputError("there is neither a source nor a text: what should be recognised?")
    return Clip(str(name or (_ID if parts else prediction_input.SENTENCE)), None, "", **made)


def _of_source(value: Any, key: str, folder: Path) -> dict[str, Any]:
    """Returns the fields of a clip for one source.

    Args:
      value: see `Model.__call__`.
      key: "video" or "audio" where the caller says so, else "".
      folder: for the bytes of a file.
    """
    if isinstance(value, bytes | bytearray | memoryview | io.BytesIO):
        data = value.getvalue() if isinstance(value, io.BytesIO) else bytes(value)
        # Pictures are told by their suffix, whichever of them it is.
        path = folder / f"{key or 'source'}{'.png' if image_heads.size(data) else ''}"
        path.write_bytes(data)
        value = path
    if isinstance(value, str | Path):
        path = Path(value)
        if path.is_dir() and key != "video":
            raise InputError(f"{path}: is a folder; many() predicts what is in one")
        if not path.exists():
            raise InputError(f"{path}: no such file or folder")
        kind = key or ("video" if decoding.has_video(path) else "audio")
        return {kind: path}
    if isinstance(value, tuple):
        if len(value) != 2:
            raise InputError("a sound is (waveform, samples a second)")
        return {"waveform": _waveform(*value)}
    if hasattr(value, "convert"):  # a picture of Pillow
        value = np.asarray(value.convert("RGB"))
    frames = np.asarray(value)
    frames = frames[None] if frames.ndim == 3 else frames
    if frames.ndim != 4 or frames.shape[-1] != 3 or frames.dtype != np.uint8 or not frames.size:
        raise InputError(
            f"an array {frames.dtype} {list(frames.shape)}; expected frames uint8 [T, H, W, 3], or "
            "a sound as (waveform, samples a second)"
        )
    return {"frames": frames}


def _waveform(x: Any, rate: Any) -> np.ndarray:
    """Returns `[S]` float32, mono, 16 kHz of a sound `[S]` or `[S, channels]` at any rate."""
    x = np.asarray(x)
    if not np.issubdtype(x.dtype, np.number) or not isinstance(rate, int | float | np.number):
        raise InputError("a sound is (waveform, samples a second), both numbers")
    if x.ndim not in (1, 2) or not x.size:
        raise InputError(f"a waveform {list(x.shape)}; expected [samples] or [samples, channels]")
    if np.issubdtype(x.dtype, np.integer):
        signed = np.issubdtype(x.dtype, np.signedinteger)
        half = 2.0 ** (8 * x.dtype.itemsize - 1)
        x = x.astype(np.float64) / half - (0 if signed else 1)
    x = x.astype(np.float64)
    x = x.mean(1) if x.ndim == 2 else x
    low, high = decoding.RATES
    if not low <= rate <= high or rate != int(rate):
        raise InputError(f"{rate} samples a second; allowed: whole numbers from {low} to {high}")
    if not np.isfinite(x).all():
        raise InputError("a waveform with NaN or infinite values")
    if rate != SAMPLE_RATE:
        x = scipy.signal.resample_poly(x, SAMPLE_RATE, int(rate))
    return np.clip(x, -1, 1).astype(np.float32)
