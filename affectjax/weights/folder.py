"""A local Hugging Face folder: its config, and its tensors read one at a time.

No pickle is opened.
"""

import dataclasses
import hashlib
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import logging
from flax import traverse_util
from safetensors import SafetensorError, safe_open

from affectjax.errors import InputError

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
Tree = dict[str, Any]


def read_json(path: Path) -> dict[str, Any]:
    """Returns the object in a JSON file; an InputError where it holds none."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} cannot be read as JSON: {error}") from error
    if not isinstance(content, dict):
        raise InputError(f"{path} holds no JSON object")
    return content


def read_extractor(folder: Path) -> tuple[Path, dict[str, Any]]:
    """Returns the file that says how a folder's tower is given sound, and what it says.

    {} where there is none. Newer versions of transformers keep it with the rest of the processor.

    Raises:
      InputError: the file holds no JSON object, or no object of that name.
    """
    older, newer = folder / "preprocessor_config.json", folder / "processor_config.json"
    path = older if older.is_file() else newer
    content = read_json(path) if path.is_file() else {}
    content = content.get("feature_extractor", content)
    if not isinstance(content, dict):
        raise InputError(f"{path}: feature_extractor is {content}; allowed: an object")
    return path, content


def architecture(folder: Path, allowed: Sequence[str]) -> str:
    """Returns which of the `allowed` classes of transformers a folder holds.

    Raises:
      InputError: `folder` has no config.json, or one of another architecture.
    """
    if not (folder / "config.json").is_file():
        raise InputError(f"{folder} is no Hugging Face folder: it has no config.json")
    names = read_json(folder / "config.json").get("architectures")
    found = names[0] if isinstance(names, list) and names else None
    if found not in allowed:
        raise InputError(
            f"{folder / 'config.json'} names the architecture {found}; allowed: "
            f"{', '.join(allowed)}"
        )
    return found


def read_config(folder: Path, kind: type) -> Any:
    """Returns the config of class `kind` of transformers that a folder's config.json makes.

    Raises:
      InputError: its values are not those of a `kind`.
    """
    try:
        return kind.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # transformers lets through what its checks raise, of many types.
        reason = " ".join(str(error).split())
        raise InputError(f"{folder / 'config.json'} is no valid config: {reason}") from error


class Tensors:
    """The tensors of a folder, by the names that transformers gives them.

    A name that is not there gives zeros and is remembered: `close` then names all that lack. Where
    what lacks is larger than all that is there, this ends at once: a config.json of a few bytes can
    ask for more than any memory holds.
    """

    def __init__(self, folder: Path, prefix: str = ""):
        """Finds the tensors; none is read yet.

        Args:
          folder: has model.safetensors, or shards with model.safetensors.index.json, or a single
            file *.safetensors of another name.
          prefix: taken off the names that begin with it.

        Raises:
          InputError: there is no such file, or it is damaged.
        """
        self._folder = folder
        self._files = {name.removeprefix(prefix): (name, file) for name, file in _locate(folder)}
        self._handles: dict[Path, Any] = {}
        self._taken: set[str] = set()
        self._missing: list[str] = []
        self._lacking = 0  # numbers of the missing tensors
        self._bytes = sum(file.stat().st_size for file in {f for _, f in self._files.values()})

    def __contains__(self, name: str) -> bool:
        return name in self._files

    def take(self, name: str, *shape: int) -> np.ndarray:
        """Returns a tensor `[*shape]` in float32.

        Raises:
          InputError: it has another shape, or cannot be read; or it is missing, and with it more
            than there is.
        """
        held = name if name in self else _old_name(name)
        if held not in self:
            self._missing.append(name)
            self._lacking += math.prod(shape)
            if self._lacking > self._bytes:
                raise self._lacks()
            return np.zeros(shape, np.float32)
        self._taken.add(held)
        stored, file = self._files[held]
        try:
            if file not in self._handles:
                self._handles[file] = safe_open(file, "numpy")
            value = self._handles[file].get_tensor(stored)
        except (OSError, SafetensorError) as error:
            raise InputError(f"tensor {stored} of {file} cannot be read: {error}") from error
        if value.shape != shape:
            raise InputError(
                f"tensor {stored} of {file} has shape {value.shape}, but config.json asks for "
                f"{shape}"
            )
        return value.astype(np.float32)

    def linear(self, name: str, inputs: int, outputs: int, bias: bool = True) -> Tree:
        """Returns the kernel `[inputs, outputs]` and the bias `[outputs]` of a linear map."""
        kernel = np.ascontiguousarray(self.take(f"{name}.weight", outputs, inputs).T)
        return {"kernel": kernel} | ({"bias": self.take(f"{name}.bias", outputs)} if bias else {})

    def norm(self, name: str, width: int) -> Tree:
        """Returns the scale and the bias `[width]` of a layer norm."""
        return {
            "scale": self.take(f"{name}.weight", width),
            "bias": self.take(f"{name}.bias", width),
        }

    def close(self, known: Callable[[str], bool] = lambda name: False) -> tuple[str, ...]:
        """Returns the names of the tensors that nobody took, and logs them.

        Args:
          known: whether nobody was to take the tensor of a name: it is not among them then.

        Raises:
          InputError: a tensor that was asked for is not in the folder.
        """
        self._handles.clear()
        if self._missing:
            raise self._lacks()
        unused = tuple(n for n in sorted(set(self._files) - self._taken) if not known(n))
        if unused:
            logging.info("%s: not used: %s", self._folder, ", ".join(unused))
        return unused

    def _lacks(self) -> InputError:
        return InputError(
            f"{self._folder} lacks {len(self._missing)} tensors that config.json asks for: "
            f"{', '.join(self._missing)}"
        )


def checksum(found: Any) -> str:
    """Returns the sha256 of all that a folder's weights say, however its files are cut.

    Args:
      found: what `weights.clip` or another reader of `affectjax.weights` returned.
    """
    trees = ("params", "batch_stats")
    fields = {field.name for field in dataclasses.fields(found)} - {*trees, "unused"}
    said = {name: getattr(found, name) for name in sorted(fields)}
    digest = hashlib.sha256(json.dumps(said, sort_keys=True).encode())
    for tree in trees:
        flat = traverse_util.flatten_dict(getattr(found, tree, {}), sep="/")
        for path in sorted(flat):
            digest.update(f"{path} {flat[path].shape}".encode())
            digest.update(np.ascontiguousarray(flat[path], np.float32))
    return digest.hexdigest()


def normalisation(
    folder: Path, mean: Sequence[float], std: Sequence[float]
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Returns mean and deviation of the pixels in [0, 1], three numbers each.

    Args:
      folder: preprocessor_config.json or processor_config.json in it may say them.
      mean: where it does not.
      std: where it does not.

    Raises:
      InputError: what it says is not three numbers.
    """
    older, newer = folder / "preprocessor_config.json", folder / "processor_config.json"
    path = older if older.is_file() else newer
    content = read_json(path) if path.is_file() else {}
    # Newer versions of transformers keep it with the rest of the processor.
    content = content.get("image_processor", content)
    found = []
    for key, usual in (("image_mean", mean), ("image_std", std)):
        value = content.get(key, list(usual)) if isinstance(content, dict) else None
        numbers = isinstance(value, list) and all(isinstance(v, int | float) for v in value)
        if not numbers or len(value) != 3:
            raise InputError(f"{path}: {key} is {value}; allowed: three numbers")
        found.append(tuple(float(v) for v in value))
    return found[0], found[1]


def stacked(layers: Sequence[Tree]) -> Tree:
    """Returns the trees of equal layers as one, its leaves `[layers, ...]`."""
    return jax.tree.map(lambda *leaves: np.stack(leaves), *layers)


def _old_name(name: str) -> str:
    """Returns what the first checkpoints of BERT call a parameter of a layer norm."""
    for new, old in (("LayerNorm.weight", "LayerNorm.gamma"), ("LayerNorm.bias", "LayerNorm.beta")):
        if name.endswith(new):
            return name.removesuffix(new) + old
    return name


def _locate(folder: Path) -> list[tuple[str, Path]]:
    """Returns each tensor's name and the file that holds it."""
    if (folder / SINGLE).is_file():
        return [(name, folder / SINGLE) for name in _names(folder / SINGLE)]
    if (folder / INDEX).is_file():
        return _shards(folder)
    others = sorted(folder.glob("*.safetensors"))
    if not others:
        raise InputError(f"{folder} has no weights as safetensors: neither {SINGLE} nor {INDEX}")
    if len(others) > 1:
        raise InputError(f"{folder} has {len(others)} safetensors files and no {INDEX}")
    return [(name, others[0]) for name in _names(others[0])]


def _shards(folder: Path) -> list[tuple[str, Path]]:
    """Returns what the index of the shards says, once it is seen to be true."""
    index = folder / INDEX
    where = read_json(index).get("weight_map")
    if not isinstance(where, dict) or not where:
        raise InputError(f"{index} has no weight_map of tensor names to files")
    held = {}
    for file in sorted({str(file) for file in where.values()}):
        if Path(file).name != file:
            raise InputError(f"{index} names {file}, which is not a file of its own folder")
        if not (folder / file).is_file():
            raise InputError(f"{index} names {file}, which is not there")
        held[file] = set(_names(folder / file))
    for name, file in where.items():
        if name not in held[str(file)]:
            raise InputError(f"{index} says that {name} is in {file}, but it is not")
    return [(name, folder / str(file)) for name, file in where.items()]


def _names(file: Path) -> list[str]:
    """Returns the names of the tensors in a safetensors file."""
    try:
        with safe_open(file, "numpy") as tensors:
            return list(tensors.keys())
    except (OSError, SafetensorError) as error:
        raise InputError(f"{file} is no whole safetensors file: {error}") from error
