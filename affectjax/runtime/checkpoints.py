"""Checkpoints through Orbax: written in the background, checked by checksum when read.

Which ones a run has, and what lies in them, is said in `affectjax.training.run_checkpoints`.
"""

import functools
import io
import json
import shutil
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from absl import logging
from flax import traverse_util
from jax.experimental import multihost_utils

from affectjax.errors import InputError
from affectjax.runtime import disk

Tree = Any
Flat = dict[str, np.ndarray]
_META = "meta.json"
_UNFINISHED = "*.orbax-checkpoint-tmp*"


class Checkpoints:
    """One folder of numbered checkpoints, `tree` and `meta` each.

    Only the first process reads and writes; the others are told.
    """

    def __init__(self, folder: Path, keep: int):
        """Opens the folder.

        Args:
          folder: made when the first checkpoint is written.
          keep: how many of the newest to keep.
        """
        self.folder = folder
        self._manager = None
        if jax.process_index() == 0:
            alone = ocp.options.MultiprocessingOptions(
                primary_host=0, active_processes={0}, barrier_sync_key_prefix=folder.name
            )
            options = ocp.CheckpointManagerOptions(
                max_to_keep=keep,
                create=False,
                multiprocessing_options=alone,
                enable_async_checkpointing=True,
            )
            folder.mkdir(parents=True, exist_ok=True)
            self._manager = ocp.CheckpointManager(folder.absolute(), options=options)

    def save(self, step: int, tree: Tree, meta: Mapping[str, Any]) -> None:
        """Starts to write a checkpoint; returns once `tree` (NumPy arrays) may change.

        Args:
          step: its number; one of that number is replaced, and there is none of a larger one.
          tree: of arrays, in any containers.
          meta: anything of JSON's types.

        Raises:
          RunStopped: the disk has no room for it.
        """
        if self._manager is None:
            return
        flat = flatten(tree)
        disk.check_room(self.folder, flat)
        if self.has(step):
            self._manager.delete(step)
        self._manager.save(
            step,
            args=ocp.args.Composite(
                tree=ocp.args.StandardSave(nested(flat)),
                meta=ocp.args.JsonSave({**meta, "checksum": _checksum(flat, meta)}),
            ),
            force=True,
        )

    def remove_after(self, step: int) -> None:
        """Removes the checkpoints of later steps: a run that goes on from `step` writes them anew.

        What a killed run left half finished, or what is damaged, is among them.
        """
        if self._manager is not None:
            for left in self.folder.glob(_UNFINISHED):
                shutil.rmtree(left)
        for later in [s for s in self._steps() if s > step]:
            self._manager.delete(later)

    def _steps(self) -> list[int]:
        """Returns the steps that are there, none in a process that does not write."""
        return [] if self._manager is None else sorted(self._manager.all_steps())

    def has(self, step: int) -> bool:
        """Returns whether a checkpoint of that number is there; true where another saves."""
        return self._manager is None or step in self._steps()

    def is_sound(self) -> bool:
        """Returns whether the newest is there and can be read; true where another process reads."""
        try:
            return self._manager is None or bool(self._read(max(self._steps())))
        except Exception:  # whatever a broken file makes the reader raise
            return False

    def wait(self) -> None:
        """Returns when all that was started is on disk."""
        if self._manager is not None:
            self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits, and frees what the writer holds."""
        if self._manager is not None:
            self._manager.close()

    def restore(
        self, step: int | None = None, remedy: str = ""
    ) -> tuple[Flat, dict[str, Any]] | None:
        """Returns arrays by path and meta of the newest sound checkpoint, None where none is.

        A damaged one is named in the log and passed over for the one before. See `fill`.

        Args:
          step: only that one.
          remedy: what to do where the newest one is damaged and none may take its place, for the
            message; "" where the one before may.

        Raises:
          InputError: there are checkpoints, and all are damaged, or with a remedy the newest is.
        """
        found = self._newest(step, remedy) if self._manager is not None else None
        return found if jax.process_count() == 1 else _tell(found)

    def _newest(self, only: int | None, remedy: str) -> tuple[Flat, dict[str, Any]] | None:
        steps = [step for step in self._steps() if only in (None, step)]
        for step in reversed(steps):
            try:
                return self._read(step)
            # Whatever a broken file makes the reader raise, the answer is the one before.
            except Exception as error:
                reason = " ".join(str(error).split())[:200]
                said = f"checkpoint {step} in {self.folder} is damaged ({reason})"
                if remedy:
                    raise InputError(f"{said}; {remedy}") from error
                logging.warning("%s", said)
        if steps:
            raise InputError(f"every checkpoint in {self.folder} is damaged: {steps}")
        return None

    def _read(self, step: int) -> tuple[Flat, dict[str, Any]]:
        read = self._manager.restore(
            step,
            args=ocp.args.Composite(tree=ocp.args.StandardRestore(), meta=ocp.args.JsonRestore()),
        )
        flat = {k: np.asarray(v) for k, v in traverse_util.flatten_dict(read.tree, sep="/").items()}
        meta = dict(read.meta)
        if meta.pop("checksum") != _checksum(flat, meta):
            raise ValueError("its checksum is wrong")
        return flat, meta


def flatten(tree: Tree) -> Flat:
    """Returns the arrays of any tree by path, as in "opt/1/mu/head/kernel"."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    name = functools.partial(jax.tree_util.keystr, simple=True, separator="/")
    return {name(path): np.asarray(leaf) for path, leaf in leaves}


def nested(flat: Flat) -> Tree:
    """Returns the arrays of a checkpoint as nested dicts, by the parts of their paths."""
    return traverse_util.unflatten_dict(flat, sep="/")


def check(like: Tree, flat: Flat) -> None:
    """Raises InputError where an array of `like` is not in a checkpoint, or has another shape."""
    for path, need in flatten(like).items():
        have = flat.get(path)
        if have is None or have.shape != need.shape:
            raise _misfit(path, have, need)


def fill(like: Tree, flat: Flat) -> Tree:
    """Returns a tree built as `like` with the arrays of a checkpoint.

    Raises:
      InputError: an array is missing, has another shape, or has no place in `like`.
    """
    check(like, flat)
    want = flatten(like)
    for path in flat.keys() - want.keys():
        raise _misfit(path, flat[path], None)
    return jax.tree.unflatten(jax.tree.structure(like), [flat[path] for path in want])


def _misfit(path: str, have: np.ndarray | None, need: np.ndarray | None) -> InputError:
    there, here = ("nothing" if x is None else f"shape {list(x.shape)}" for x in (have, need))
    return InputError(
        f"the checkpoint does not fit the config and the data: {path} is {there} there and {here} "
        "here"
    )


def _checksum(flat: Flat, meta: Mapping[str, Any]) -> int:
    """Returns CRC-32 over meta, and names, shapes, types and bytes of all arrays."""
    crc = zlib.crc32(json.dumps(meta, sort_keys=True).encode())
    for path, leaf in sorted(flat.items()):
        crc = zlib.crc32(f"{path}{leaf.shape}{leaf.dtype}".encode(), crc)
        crc = zlib.crc32(np.ascontiguousarray(leaf).tobytes(), crc)
    return crc


def _tell(found: tuple[Flat, dict[str, Any]] | None) -> Any:
    """Returns in every process what the first one found."""
    buffer = io.BytesIO()
    if found is not None:
        np.savez(buffer, **found[0], **{_META: np.array(json.dumps(found[1]))})
    tell = multihost_utils.broadcast_one_to_all
    size = int(tell(np.int32(len(buffer.getvalue()))))
    if not size:
        return None
    mine = np.frombuffer(buffer.getvalue(), np.uint8) if found else np.zeros(size, np.uint8)
    with np.load(io.BytesIO(np.asarray(tell(mine)).tobytes()), allow_pickle=False) as told:
        flat = {key: told[key] for key in told.files}
    return flat, json.loads(str(flat.pop(_META)))
