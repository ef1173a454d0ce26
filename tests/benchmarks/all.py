"""Runs the benchmarks on what is there and writes one table; says what became slower.

    python -m tests.benchmarks.all --output=TABLE.md
    python -m tests.benchmarks.all --quick --only=htsat,resnet_step
    python -m tests.benchmarks.all --against=HEAD~1 --output=TABLE.md

`ratios.json` holds, by the kind of device, the ratios that carry over between machines: to PyTorch
or whatever else a benchmark is compared with, of compiling to a matrix product, of temporaries to
arguments. What is more than 15 % above them (compiling: 50 %) is named, and the exit code is 1;
`--keep` writes them anew, those of benchmarks that did not run as they were. `--against` runs each
benchmark of this tree on the package of another revision too, process by process in turn.

`--cores=1` keeps a CPU to one core: what other work on the machine costs the threads of one side
while they wait for each other is not in the ratios then, and those of `ratios.json` are such.
"""

import contextlib
import gc
import importlib
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import jax
from absl import flags

from affectjax.errors import InputError
from affectjax.runtime import app
from tests.benchmarks import timing

# The quick ones first.
NAMES = (
    "triplet",
    "ridge",
    "mult_throughput",
    "htsat",
    "umbenet_step",
    "resnet_step",
    "encoded_training",
    "mcr_memory",
    "class_prompts",
)
QUICK = ("triplet", "ridge", "mult_throughput", "htsat", "umbenet_step")
KEPT = ("time", "compile", "memory")
# By how much a ratio may rise unnamed: compiling the same code again varied by a third.
SLOWER = {"time": 1.15, "compile": 1.5, "memory": 1.15}
ROOT = Path(__file__).parents[2]

_OUTPUT = flags.DEFINE_string(
    "output", "", "File of the table: markdown if it ends in .md, or JSON."
)
_ONLY = flags.DEFINE_list("only", [], f"Which benchmarks; allowed: {', '.join(NAMES)}.")
_QUICK = flags.DEFINE_bool("quick", False, f"Three rounds at most; of {', '.join(QUICK)} alone.")
_ROUNDS = flags.DEFINE_integer("rounds", timing.Setting.rounds, "Rounds that are timed at most.")
_SECONDS = flags.DEFINE_float("seconds", timing.Setting.seconds, "After which no round begins.")
_DATA = flags.DEFINE_string("data", "../shared/realdata", "Folder with real data sets.")
_CORES = flags.DEFINE_integer("cores", 0, "Cores of the CPU to use; 0 for all.")
_ALONE = flags.DEFINE_bool("alone", False, "Leave out what affectjax is compared with.")
_RATIOS = flags.DEFINE_string(
    "ratios", str(Path(__file__).with_name("ratios.json")), "File of the ratios to compare with."
)
_KEEP = flags.DEFINE_bool("keep", False, "Write the ratios anew instead of comparing.")
_AGAINST = flags.DEFINE_string("against", "", "Revision of git to compare with.")
_TURNS = flags.DEFINE_integer("turns", 3, "Processes of each side, with --against.")


def versions() -> dict[str, str]:
    """Returns the versions of what computes, by name; what is not installed is left out."""
    found = {"python": platform.python_version()}
    for name in ("jax", "jaxlib", "flax", "torch", "numpy"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def device() -> str:
    """Returns what the devices are, and how many."""
    kind, count = jax.devices()[0].device_kind, jax.device_count()
    if jax.default_backend() == "cpu":
        kind = f"{platform.machine()}, {timing.cores()} of {os.cpu_count()} cores"
    return kind if count == 1 else f"{count} x {kind}"


def kind_of_device() -> str:
    """Returns for which devices the ratios are much the same."""
    backend = jax.default_backend()
    return f"{backend}, cores: {timing.cores()}" if backend == "cpu" else backend


def measure(names: Sequence[str], setting: timing.Setting) -> Iterator[dict[str, Any]]:
    """Yields the rows of the benchmarks, each as soon as it is known; says what is skipped."""
    for name in names:
        module = importlib.import_module(f"tests.benchmarks.{name}")
        try:
            for row in module.rows(setting):
                print(timing.table([row.flat()]).splitlines()[-1], flush=True)
                yield row.flat()
        except timing.Skipped as reason:
            print(f"{name} is skipped: {reason}", flush=True)
        jax.clear_caches()
        gc.collect()


def ratios(rows: Sequence[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Returns by name of a row the ratios that carry over between machines."""
    found = {r["name"]: {k: round(r[k], 3) for k in KEPT if r[k] is not None} for r in rows}
    return {name: row for name, row in found.items() if row}


def slower(now: dict[str, dict[str, float]], kept: dict[str, dict[str, float]]) -> list[str]:
    """Returns a sentence for each ratio that is more than 15 % above the kept one."""
    said = []
    for name, row in now.items():
        for kind, before in kept.get(name, {}).items():
            if kind in row and row[kind] > SLOWER[kind] * before:
                by = row[kind] / before - 1 if before else float("inf")
                said.append(f"{name}: {kind} is {row[kind]:.3g}, was {before:.3g} (+{by:.0%})")
    return said


def write(file: Path, rows: Sequence[dict[str, Any]], text: str) -> None:
    """Writes a table with the device and the versions."""
    if file.suffix == ".md":
        said = ", ".join(f"{name} {version}" for name, version in versions().items())
        file.write_text(f"{device()}; {said}\n\n{text}\n")
    else:
        table = {"device": device(), "versions": versions(), "rows": rows}
        file.write_text(json.dumps(table, indent=1) + "\n")


# ---- another revision ---------------------------------------------------------------------------


@contextlib.contextmanager
def checkout(revision: str) -> Iterator[Path]:
    """Yields a folder with the package of a revision and the benchmarks of this one."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "tree"
        git = ["git", "-C", str(ROOT), "worktree"]
        subprocess.run([*git, "add", "--quiet", "--detach", str(folder), revision], check=True)
        try:
            shutil.rmtree(folder / "tests")
            shutil.copytree(ROOT / "tests", folder / "tests")
            yield folder
        finally:
            subprocess.run([*git, "remove", "--force", str(folder)], check=True)


def in_process(folder: Path, name: str, setting: timing.Setting) -> list[dict[str, Any]]:
    """Returns the rows of a benchmark that a process of its own runs on the package in `folder`."""
    with tempfile.TemporaryDirectory() as place:
        file = Path(place) / "rows.json"
        command = [sys.executable, "-m", "tests.benchmarks.all", "--alone", f"--only={name}"]
        command += [
            f"--output={file}",
            f"--rounds={setting.rounds}",
            f"--seconds={setting.seconds}",
        ]
        command += [f"--data={setting.data.resolve()}", f"--cores={_CORES.value}", "--ratios="]
        env = os.environ | {"PYTHONPATH": str(folder)}
        subprocess.run(command, cwd=folder, env=env, check=True, stdout=subprocess.DEVNULL)
        return json.loads(file.read_text())["rows"]


def against(names: Sequence[str], setting: timing.Setting, revision: str) -> list[dict[str, Any]]:
    """Returns rows that compare this tree with a revision: medians over processes in turn."""
    rows: list[dict[str, Any]] = []
    with checkout(revision) as folder:
        for name in names:
            sides = [
                [in_process(side, name, setting) for side in (ROOT, folder)]
                for _ in range(_TURNS.value)
            ]
            for i, first in enumerate(sides[0][0]):
                row = {"name": first["name"], "other": revision}
                for kind in ("seconds", "compile_seconds", "bytes"):
                    pairs = [[side[i][kind] for side in turn] for turn in sides]
                    if None in pairs[0]:
                        row |= dict.fromkeys((kind, f"other_{kind}", f"{kind}_ratio"))
                        continue
                    row[kind], row[f"other_{kind}"] = (
                        statistics.median(side) for side in zip(*pairs, strict=True)
                    )
                    row[f"{kind}_ratio"] = statistics.median(a / (b or 1) for a, b in pairs)
                rows.append(row)
    return rows


def against_table(rows: Sequence[dict[str, Any]], revision: str) -> str:
    """Returns the table of `against`."""
    header = ("benchmark", "ms", f"{revision}, ms", "ours / its", "compiled, s", "ours / its")
    header += ("temporaries, MiB", "ours / its")
    lines = [
        (r["name"], 1e3 * r["seconds"], 1e3 * r["other_seconds"], r["seconds_ratio"],
         r["compile_seconds"], r["compile_seconds_ratio"], r["bytes"] and r["bytes"] / 2**20,
         r["bytes_ratio"])
        for r in rows
    ]  # fmt: skip
    return timing.markdown(header, lines)


def main(argv):
    """Runs, writes, compares; returns the exit code."""
    del argv
    names = _ONLY.value or (QUICK if _QUICK.value else NAMES)
    unknown = [name for name in names if name not in NAMES]
    if unknown:
        raise InputError(f"no benchmark {', '.join(unknown)}; allowed: {', '.join(NAMES)}")
    rounds, seconds = (
        (min(3, _ROUNDS.value), 6.0) if _QUICK.value else (_ROUNDS.value, _SECONDS.value)
    )
    if _CORES.value:
        timing.limit(_CORES.value)
    setting = timing.Setting(rounds, seconds, Path(_DATA.value), _ALONE.value)
    if _AGAINST.value:
        rows = against(names, setting, _AGAINST.value)
        text = against_table(rows, _AGAINST.value)
    else:
        rows = list(measure(names, setting))
        text = timing.table(rows)
    print(text)
    if _OUTPUT.value:
        write(Path(_OUTPUT.value), rows, text)
    if _AGAINST.value or not _RATIOS.value:
        return 0
    file, kind = Path(_RATIOS.value), kind_of_device()
    kept = json.loads(file.read_text()) if file.exists() else {}
    if _KEEP.value:
        of_kind = kept.setdefault(kind, {})
        for name, row in ratios(rows).items():
            of_kind[name] = of_kind.get(name, {}) | row
        file.write_text(json.dumps(kept, indent=1, sort_keys=True) + "\n")
        return 0
    if kind not in kept:
        print(f"No ratios are kept for {kind}, but for: {', '.join(kept)}.")
        return 0
    said = slower(ratios(rows), kept[kind])
    print("\n".join(["Became slower:", *said]) if said else "Nothing became slower.")
    return 1 if said else 0


if __name__ == "__main__":
    app.run(main)
