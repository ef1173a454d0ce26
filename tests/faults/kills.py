"""Work of every kind that is killed (kill -9) at random moments and given again until it is done.

Training of the three systems, `prepare` and `predict`, each tiny, in processes of their own. What
is left in the end must be what undisturbed work leaves, bit for bit.
"""

import dataclasses
import random
import shutil
import sys
import time
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1])]

import conftest
import jax
import test_supramodal_runs
import test_umbenet_runs
from ml_collections import config_dict

KINDS = ("mcr", "umbenet", "supramodal", "prepare", "predict")
# So often a piece of work is killed at most before it may end.
_MOST = 3
_MCR = {
    "model": {"width": 8, "heads": 2, "layers": 1},
    "stages": {"train": {"epochs": 6, "batch_size": 8}},
    "train": {"progress": False, "baselines": False},
}


def write_raw(folder: Path) -> None:
    """Writes the raw data of all kinds."""
    conftest.write_own(folder / "mcr")
    test_umbenet_runs.write_raw(folder / "umbenet")
    test_supramodal_runs.write_raw(folder / "supramodal")


def config(kind: str, raw: Path) -> config_dict.ConfigDict:
    """Returns the config of a tiny training."""
    if kind == "umbenet":
        return test_umbenet_runs.tiny(raw / kind)
    if kind == "supramodal":
        return test_supramodal_runs.tiny(raw / kind)
    from configs import mcr

    made = mcr.get_config("own")
    made.data.dir = str(raw / kind)
    made.update(_MCR)
    return made


def work(kind: str, raw: str, folder: str, whole: str) -> None:
    """Does a piece of work.

    Args:
      kind: one of KINDS.
      raw: the raw data.
      folder: what it leaves.
      whole: undisturbed work; `predict` reads the run of UMBEnet in it.
    """
    from affectjax import inference
    from affectjax.data.prepare import prepared
    from affectjax.data.prepare.clip_storage import Storage
    from affectjax.training import loop

    if kind == "prepare":
        storage = Storage(image_size=16, detector="none")
        prepared.prepare("clips", f"{raw}/umbenet", folder, view="clips", storage=storage)
    elif kind == "predict":
        inference.recognize(f"{whole}/umbenet", f"{raw}/umbenet/whole.mp4", output=folder)
    else:
        loop.train(config(kind, Path(raw)), folder)


def difference(kind: str, ours: Path, theirs: Path) -> str:
    """Returns in what two pieces of work differ, "" where in nothing."""
    if kind not in ("prepare", "predict"):
        try:
            conftest.assert_same_run(ours, theirs)
        except (AssertionError, ValueError, OSError) as error:
            return " ".join(str(error).split())[:300]
        names = ("checksums.json", "inputs.json", "standardization.npz")
    else:
        names = {
            str(f.relative_to(folder))
            for folder in (ours, theirs)
            for f in folder.rglob("*")
            if f.is_file()
        }
    for name in sorted(names):
        files = [folder / name for folder in (ours, theirs)]
        there = [file.read_bytes() if file.is_file() else None for file in files]
        if there[0] != there[1] and name != "checksums.json":
            return f"{name} differs"
    return ""


@dataclasses.dataclass
class Count:
    """What became of a kind of work.

    Attributes:
      seconds: that it takes undisturbed.
      kills: how often it was killed.
      done: pieces that were killed and then ended.
      wrong: what is wrong with those that ended otherwise, a line each.
    """

    seconds: float
    kills: int = 0
    done: int = 0
    wrong: list[str] = dataclasses.field(default_factory=list)


class Faults:
    """Kills work in a folder of its own."""

    def __init__(self, folder: Path, seed: int, kinds: tuple[str, ...] = KINDS):
        """Writes the raw data, and does each kind of work undisturbed, twice: it compiles once."""
        conftest.keep_compiled(jax.config.jax_compilation_cache_dir or str(conftest.COMPILED))
        self.folder, self.kinds, self.random = folder, kinds, random.Random(seed)
        write_raw(folder / "raw")
        self.counts = {}
        for kind in kinds:
            for place in ("compiled", "whole"):
                begun = time.monotonic()
                code, said = self._finish(self._start(kind, folder / place))
                if code:
                    raise RuntimeError(f"undisturbed {kind} ends with {code}: {said}")
            self.counts[kind] = Count(time.monotonic() - begun)

    def _start(self, kind: str, place: Path) -> conftest.Child:
        place.mkdir(parents=True, exist_ok=True)
        env = {"XLA_FLAGS": conftest.QUICK, "AFFECTJAX_CACHE": str(place / "cache")}
        where = (kind, str(self.folder / "raw"), str(place / kind), str(self.folder / "whole"))
        return conftest.Child(work, where, place, env)

    def _finish(self, child: conftest.Child) -> tuple[int, str]:
        code, _, said = child.wait(600)
        return code, said[-1000:]

    def kill(self, kind: str, most: int) -> int:
        """Kills one piece of work up to so many times, lets it end; returns how often it was."""
        place, count, killed = self.folder / "killed", self.counts[kind], 0
        for _ in range(self.random.randint(1, min(most, _MOST))):
            child = self._start(kind, place)
            child.process.join(self.random.uniform(0, 1.05 * count.seconds))
            if child.process.exitcode is None:
                child.process.kill()
                killed += 1
            child.process.join()
        code, said = self._finish(self._start(kind, place))
        found = difference(kind, place / kind, self.folder / "whole" / kind)
        if code or found:
            count.wrong.append(f"{kind}, killed {killed} times: {said if code else found}")
            shutil.move(place, self.folder / f"wrong-{kind}-{len(count.wrong)}")
        else:
            shutil.rmtree(place)
        count.kills += killed
        count.done += 1
        return killed

    def run(self, kills: int) -> None:
        """Kills so often in all, each kind in turn."""
        left, turn = kills, 0
        while left > 0:
            left -= self.kill(self.kinds[turn % len(self.kinds)], left)
            turn += 1

    def table(self) -> str:
        """Returns what became of each kind of work."""
        lines = [
            f"{kind:11} {c.kills:5} kills, {c.done:4} pieces, {len(c.wrong)} wrong "
            f"({c.seconds:.1f} s undisturbed)"
            for kind, c in self.counts.items()
        ]
        return "\n".join([*lines, *(line for c in self.counts.values() for line in c.wrong)])
