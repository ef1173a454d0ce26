"""What a run keeps under `checkpoints/`, and how it is found again.

- `latest/<step>/`: all that a run needs to go on, but what is frozen; two of them.
- `best/<step>/`: params and variables of the best epoch, but what is frozen; two of them.
- `frozen/<stage>/`: the parameters that do not train in a stage, written once.

Every leaf has an axis of seeds; each seed has a best epoch of its own.
"""

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from safetensors.numpy import load_file

from affectjax.errors import InputError
from affectjax.runtime import manifest, steps
from affectjax.runtime.checkpoints import Checkpoints, Flat, nested

Tree = Any
EXPORTED = "model.safetensors"  # in place of checkpoints, in a folder that was exported
_REMEDY = "give the command of the training again, which writes it anew"


def best_of(workdir: Path) -> Tree | None:
    """Returns `{"params", "variables"}` of the best epochs of a run, None where there is none.

    Args:
      workdir: of the run, or the folder that it was exported to.

    Raises:
      InputError: they are damaged.
    """
    if (workdir / EXPORTED).is_file():
        manifest.check(workdir, (EXPORTED,), "export the run again")
        return nested(load_file(workdir / EXPORTED))
    kept = RunCheckpoints(workdir)
    found = kept.restore_best()
    kept.close()
    return None if found is None else found[0]


class RunCheckpoints:
    """The checkpoints of one run, writing in the background."""

    def __init__(self, workdir: Path):
        """Opens the folders; makes them when the first checkpoint is written.

        Args:
          workdir: of the run.
        """
        folder = workdir / "checkpoints"
        self.latest, self.best = Checkpoints(folder / "latest", 2), Checkpoints(folder / "best", 2)
        self.frozen = Checkpoints(folder / "frozen", 2)
        self._best_saved: dict[str, Any] = {}

    def restore(self) -> tuple[Flat, dict[str, Any]] | None:
        """Returns arrays by path, frozen ones too, and meta of the newest sound checkpoint.

        Raises:
          InputError: there are checkpoints, and all are damaged.
        """
        return self._with_frozen(self.latest.restore())

    def restore_best(self) -> tuple[Tree, dict[str, Any]] | None:
        """Returns `{"params", "variables"}`, frozen ones among the params, and meta.

        Raises:
          InputError: the newest is damaged: one before it is of another epoch.
        """
        found = self._with_frozen(self.best.restore(remedy=_REMEDY))
        if found is None:
            return None
        tree = nested(found[0])
        params = steps.merge_params(tree["params"], tree.pop("frozen", {}))
        return tree | {"params": params}, found[1]

    def _with_frozen(
        self, found: tuple[Flat, dict[str, Any]] | None
    ) -> tuple[Flat, dict[str, Any]] | None:
        if found is None or not found[1]["frozen"]:
            return found
        frozen = self.frozen.restore(found[1]["stage"])
        if frozen is None:
            raise InputError(f"{self.frozen.folder} has no checkpoint of stage {found[1]['stage']}")
        return found[0] | frozen[0], found[1]

    def remove_after(self, number: int, stage: int) -> None:
        """Removes what is later than a step, and than a stage: it will be written anew."""
        for folder in (self.latest, self.best):
            folder.remove_after(number)
        self.frozen.remove_after(stage)

    def save_frozen(self, stage: int, frozen: Tree) -> None:
        """Starts to write what does not train in a stage, if there is any and it is not there."""
        if jax.tree.leaves(frozen) and not self.frozen.has(stage):
            self.frozen.save(stage, {"frozen": frozen}, {})

    def save(
        self, number: int, tree: Tree, meta: Mapping[str, Any], best_epoch: np.ndarray, frozen: bool
    ) -> None:
        """Starts to write checkpoints: all to latest, and best where it changed.

        Args:
          number: the step.
          tree: host side, with `best` among the rest.
          meta: of JSON's types, with `stage`.
          best_epoch: `[S]`.
          frozen: whether there are parameters that do not train in this stage.
        """
        # Nothing may stand in latest or best whose frozen part is not yet on disk.
        self.frozen.wait()
        best = {"stage": meta["stage"], "epoch": best_epoch.tolist(), "frozen": frozen}
        if best != self._best_saved:
            self.best.save(number, tree["best"], best)
            self._best_saved = best
        self.latest.save(number, tree, {**meta, "number": number, "frozen": frozen})

    def wait(self) -> None:
        """Returns when all that was started is on disk."""
        for folder in (self.frozen, self.best, self.latest):
            folder.wait()

    def close(self) -> None:
        """Waits, and frees what the writers hold, each of them even where another fails."""
        with contextlib.ExitStack() as all_of_them:
            for folder in (self.latest, self.best, self.frozen):
                all_of_them.callback(folder.close)
