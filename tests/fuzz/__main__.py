"""Damages healthy inputs at random and gives them to their readers.

    python -m tests.fuzz --minutes=60 --seed=0
    python -m tests.fuzz --only=.mp4,csd --keep=FOLDER

Each damaged input is read by a process of its own, with limits of memory and time. It is handled if
it is read, or refused with an InputError. Any other exception, a crash, and a limit that was hit
are failures: the input and what was said are kept. Case N of a seed is always the same. The exit
code is 1 where something failed.
"""

import argparse
import dataclasses
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from affectjax.errors import InputError
from tests.fuzz.kinds import KINDS, Kind
from tests.fuzz.mutate import mutate

ADDRESSES = 6 * 2**30  # bytes that a process may map, beyond what it had mapped
RESIDENT = 1536 * 2**20  # bytes of memory that it may use
SECONDS = 20
_READ, _REFUSED, _FAILED = 0, 3, 4


@dataclasses.dataclass
class Count:
    """What became of the inputs of a kind."""

    tried: int = 0
    read: int = 0
    refused: int = 0
    failed: int = 0


def fuzz(
    minutes: float, seed: int, keep: Path, kinds: Mapping[str, Kind] = KINDS
) -> dict[str, Count]:
    """Returns by kind what became of damaged inputs; each kind in turn, until the time is over.

    Args:
      minutes: how long.
      seed: of the damage.
      keep: where failures go, a folder each.
      kinds: to damage.
    """
    counts = {name: Count() for name in kinds}
    end = time.monotonic() + 60 * minutes
    with tempfile.TemporaryDirectory() as folder:
        healthy = {
            name: _healthy(kind, Path(folder) / str(i))
            for i, (name, kind) in enumerate(kinds.items())
        }
        number = 0
        while time.monotonic() < end:
            for place, name in enumerate(kinds):
                rng = np.random.default_rng([seed, place, number])
                case = Path(folder) / "case"
                _damaged(healthy[name], case, kinds[name].damage, rng)
                _count(counts[name], kinds[name], case, keep / f"{number} {name.strip('.')}")
                shutil.rmtree(case)
            number += 1
    return counts


def _healthy(kind: Kind, folder: Path) -> Path:
    """Makes a healthy input; it has to be read without an exception."""
    folder.mkdir(parents=True)
    said = folder.with_name("said")
    for work in (kind.make, kind.read):  # apart: what starts threads must not stand in this process
        code, what = _run(work, folder, said)
        if code != _READ:
            raise RuntimeError(f"a healthy input fails with {code} ({what}): {said.read_text()}")
    return folder


def _damaged(healthy: Path, case: Path, pattern: str, rng: np.random.Generator) -> None:
    """Copies a healthy input, and damages one of its files."""
    shutil.copytree(healthy, case)
    files = sorted(path for path in case.glob(pattern) if path.is_file())
    file, other = (files[i] for i in rng.integers(len(files), size=2))
    file.write_bytes(mutate(file.read_bytes(), other.read_bytes(), rng))


def _count(count: Count, kind: Kind, case: Path, keep: Path) -> None:
    """Reads an input in a process of its own and counts what became of it."""
    said = case.with_name("said")
    code, what = _run(kind.read, case, said)
    count.tried += 1
    count.read += code == _READ
    count.refused += code == _REFUSED
    if code not in (_READ, _REFUSED):
        count.failed += 1
        shutil.copytree(case, keep)
        (keep / "said.txt").write_text(f"{what}\n{said.read_text()}")


def _run(work: Callable[[Path], object], case: Path, said: Path) -> tuple[int, str]:
    """Returns the exit code of a process that reads an input, and what went wrong in words."""
    said.write_text("")
    child = os.fork()
    if not child:
        _child(work, case, said)
    _, status, used = os.wait4(child, 0)
    code = os.waitstatus_to_exitcode(status)
    if code < 0:
        return code, f"ended by {signal.Signals(-code).name}"
    if used.ru_maxrss * 1024 > RESIDENT:
        return _FAILED, f"took {used.ru_maxrss // 1024} MiB"
    return code, "an exception"


def _child(work: Callable[[Path], object], case: Path, said: Path) -> None:
    """Reads an input and ends the process with what became of it."""
    code = _FAILED
    try:
        mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (mapped + ADDRESSES,) * 2)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        signal.alarm(SECONDS)
        quiet = os.open(os.devnull, os.O_WRONLY)
        os.dup2(quiet, 1)
        os.dup2(quiet, 2)
        work(case)
        code = _READ
    except InputError as error:
        said.write_text(str(error))
        code = _REFUSED
    except BaseException:  # whatever it is, it is counted
        said.write_text(traceback.format_exc())
    finally:
        os._exit(code)


def table(counts: Mapping[str, Count]) -> str:
    """Returns counts as text: a line a kind, and their sums."""
    total = Count(
        *(sum(column) for column in zip(*map(dataclasses.astuple, counts.values()), strict=True))
    )
    rows = [*counts.items(), ("all", total)]
    head = f"{'kind':18s}{'tried':>8s}{'handled':>9s}{'(read':>8s}{'refused)':>10s}{'failed':>8s}"
    return "\n".join(
        [head]
        + [
            f"{n:18s}{c.tried:8d}{c.read + c.refused:9d}{c.read:8d}{c.refused:10d}{c.failed:8d}"
            for n, c in rows
        ]
    )


def main() -> int:
    """Fuzzes as the arguments say, prints the counts, and returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help=f"Kinds with commas, of {', '.join(KINDS)}.")
    parser.add_argument("--keep", type=Path, help="An empty folder for what fails.")
    said = parser.parse_args()
    names = said.only.split(",") if said.only else list(KINDS)
    keep = said.keep or Path(tempfile.mkdtemp(prefix="fuzz"))
    counts = fuzz(said.minutes, said.seed, keep, {name: KINDS[name] for name in names})
    print(table(counts))
    failed = sum(count.failed for count in counts.values())
    if failed:
        print(f"{failed} failures are in {keep}")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
