"""The workdir: what a run leaves behind, and what it says before it goes on in one.

config.json            resolved config, versions, git revision, devices
checksums.json         see `manifest.py`
metrics.jsonl          one object a line; NaN as null
tensorboard/           the same scalars
standardization.npz    statistics of the training split
checkpoints/           see `checkpoints.py`
eval/                  see `affectjax/training/evaluator.py`
lock                   see `workdir_lock.py`
"""

import importlib.metadata
import json
import math
import os
import subprocess
import sys
import zlib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import jax
from absl import logging

from affectjax.errors import InputError
from affectjax.runtime import configs, manifest
from affectjax.runtime.tensorboard import EventFile

CONFIG = "config.json"
PLACED = "weights/"  # in an exported folder, with what a model is built from
_REMEDY = (
    f"put it back from a copy or, if you changed it yourself, take its line out of {manifest.FILE}"
)
# They say where a run runs, not what it computes, and may differ between its own processes, and
# from when it was begun.
PLACE = tuple(
    f"parallel.{key}" for key in ("coordinator", "processes", "process", "compilation_cache")
)
# What --mode=eval evaluates is not part of the training.
NOT_TRAINING = (*PLACE, "data.split")
# Differences between two configs that a message lists.
SHOWN = 6
PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy")


class Workdir:
    """The folder of a run.

    Attributes:
      path: the folder.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)

    def claim(
        self, config: Mapping[str, Any], longer: Collection[str] = (), *, look: bool = False
    ) -> None:
        """Makes the folder and its config.json, or checks that they are those of this config.

        Args:
          config: the whole one.
          longer: names of stages of which one may have more epochs than before.
          look: whether config.json stays as it is where one has.

        Raises:
          InputError: another config's, not writable, or not a workdir.
        """
        file = self.path / CONFIG
        if file.exists():
            theirs = self.config()
            ours, before = _training(config), _training(theirs)
            lines = configs.differences(ours, before)
            if any(_is_longer(ours, before, f"stages.{name}.epochs") for name in longer):
                if not look:
                    logging.info("going on for longer: %s", *lines)
                    said = json.loads(file.read_text())
                    self._write_config(said | {"config": configs.plain(config)})
            elif lines:
                more = f"; and {len(lines) - SHOWN} more" if len(lines) > SHOWN else ""
                raise InputError(
                    f"{self.path} belongs to a run with another config: "
                    f"{'; '.join(lines[:SHOWN])}{more}; choose another --workdir"
                )
            return
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self.check_writable()
            self._write_config({"config": configs.plain(config), **_provenance()})
        except OSError as error:
            raise InputError(f"cannot write to the workdir {self.path}: {error}") from error

    def _write_config(self, content: Mapping[str, Any]) -> None:
        manifest.write(self.path, {CONFIG: json_bytes(content)})

    def config(self) -> dict[str, Any]:
        """Returns the config of the run that is here.

        Raises:
          InputError: there is none.
        """
        file = self.path / CONFIG
        manifest.check(self.path, (CONFIG,), _REMEDY)
        try:
            config = json.loads(file.read_text())["config"]
            if not isinstance(config, dict):
                raise TypeError("it holds no config")
            return _placed(config, self.path) if (self.path / PLACED).is_dir() else config
        except FileNotFoundError:
            raise InputError(f"{self.path} is no workdir: it has no config.json") from None
        except (ValueError, KeyError, TypeError, OSError) as error:
            raise InputError(f"{file} cannot be read: {error}") from error

    def check_writable(self) -> None:
        """Raises InputError where nothing can be written."""
        probe = self.path / f".writable-{os.getpid()}"
        try:
            probe.touch()
            probe.unlink()
        except OSError as error:
            message = f"cannot write to the workdir {self.path}: {error.strerror}"
            raise InputError(message) from error


def _training(config: Mapping[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in configs.flatten(config).items() if k not in NOT_TRAINING}


def _is_longer(ours: Mapping[str, Any], before: Mapping[str, Any], key: str) -> bool:
    """Returns whether two configs differ in a key alone, which is a greater number now."""
    return ours != before and ours == before | {key: max(ours.get(key, 0), before.get(key, 0))}


def _placed(section: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Returns a config with the folders that were exported with a model as whole paths."""
    made = {}
    for key, value in section.items():
        if isinstance(value, dict):
            value = _placed(value, folder)
        elif isinstance(value, str) and value.startswith(PLACED) and (folder / value).exists():
            inside = (folder / value).resolve().is_relative_to(folder.resolve())
            value = str(folder / value) if inside else ""
        made[key] = value
    return made


def _provenance() -> dict[str, Any]:
    """Returns the command, versions, git revision (None outside a checkout) and devices."""
    here = Path(__file__).parent
    git = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--abbrev=40"],
        cwd=here,
        capture_output=True,
        text=True,
        check=False,
    )
    return {
        "command": _command(),
        "versions": {name: importlib.metadata.version(name) for name in PACKAGES},
        "git": git.stdout.strip() if git.returncode == 0 else None,
        "devices": [str(d) for d in jax.devices()],
    }


def _command() -> list[str] | None:
    """Returns the words of the command that trains, None where it is no app of ours."""
    program, *arguments = sys.argv
    path = Path(program)
    if path.parent != Path(__file__).parents[1]:
        return None
    return ["python", "-m", f"affectjax.{path.stem}", *arguments]


def write_json(path: Path, value: Any) -> None:
    """Writes `value` as JSON, NaN and infinities as null, at once or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    manifest.replace(path, json_bytes(value))


def json_bytes(value: Any) -> bytes:
    """Returns `value` as JSON, NaN and infinities as null."""
    return (json.dumps(_finite(value), indent=2) + "\n").encode()


def _finite(value: Any) -> Any:
    """Returns `value` with null for every number that JSON cannot write."""
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


class MetricWriter:
    """Writes metrics.jsonl and tensorboard/; silent in all processes but the first.

    The position in metrics.jsonl is part of a checkpoint: a run that goes on cuts off what a killed
    one wrote after it, and what was before must be as it was written.

    Attributes:
      position: bytes written to metrics.jsonl so far.
      crc: their CRC-32.
    """

    def __init__(self, workdir: Workdir, position: int = 0, step: int = 0, crc: int | None = 0):
        """Opens the files.

        Args:
          workdir: where.
          position: bytes of metrics.jsonl to keep.
          step: of the checkpoint; TensorBoard forgets what came later.
          crc: CRC-32 of those bytes; None for a checkpoint of an older program, which knew none.

        Raises:
          InputError: metrics.jsonl is damaged. Where it was removed, a new one is begun.
        """
        self._file = self._board = None
        self.position = self.crc = 0
        if jax.process_index():
            return
        path = workdir.path / "metrics.jsonl"
        if path.exists():
            self.position, self.crc = position, _checked(path, position, crc)
        elif position:
            logging.warning("%s was removed: a new one begins with the next epoch", path)
        self._file = path.open("ab")
        self._file.truncate(self.position)
        self._board = EventFile(workdir.path / "tensorboard", step + 1 if step else 0)

    def write(self, where: Mapping[str, Any], values: Mapping[str, Any]) -> None:
        """Appends one line.

        Args:
          where: step, epoch, stage, split and seed.
          values: metrics by name; what is no number is left out.
        """
        scalars = {k: float(v) for k, v in values.items() if isinstance(v, int | float)}
        if self._file is None:
            return
        line = json.dumps(_finite({**where, **scalars})).encode() + b"\n"
        self._file.write(line)
        self._file.flush()
        self.position, self.crc = self.position + len(line), zlib.crc32(line, self.crc)
        group, seed = f"{where['stage']}/{where['split']}", f"seed_{where['seed']}"
        # TensorBoard draws no NaN, as the recall of no example.
        finite = {f"{group}/{k}/{seed}": v for k, v in scalars.items() if math.isfinite(v)}
        self._board.write(where["step"], finite)

    def close(self) -> None:
        """Closes both."""
        if self._file:
            self._file.close()
            self._board.close()


def _checked(path: Path, size: int, crc: int | None) -> int:
    """Returns the CRC-32 of the first bytes of metrics.jsonl; InputError for another than `crc`."""
    with path.open("rb") as file:
        kept = file.read(size)
    found = zlib.crc32(kept)
    if len(kept) < size or crc not in (None, found):
        raise InputError(
            f"{path} is damaged: its first {size} bytes are not those of the checkpoint; put it "
            "back from a copy, or remove it to go on without the lines of before"
        )
    return found
