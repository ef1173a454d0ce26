"""How every benchmark times, so that a busy machine slows down all that it compares alike.

A benchmark is a module with `rows(setting)`, which gives a `Row` for each thing that it measures,
and raises `Skipped` where it lacks something. What it compares runs in turn, once in every round.
All ratios are "ours over the other's": below 1 is better, and they carry over between machines.
"""

import dataclasses
import os
import statistics
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

# Else JAX takes most of the memory of a GPU before PyTorch has any.
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")

import jax
import numpy as np
import threadpoolctl
from absl import flags

from affectjax.runtime import app

try:
    import torch
except ImportError:  # Then affectjax is timed alone.
    torch = None

PYTORCH = "PyTorch"


class Skipped(Exception):
    """A benchmark lacks something; the message names it."""


@dataclasses.dataclass(frozen=True)
class Setting:
    """How long to measure, and with what.

    Attributes:
      rounds: times that each run is timed at most; more in the first second.
      seconds: after which no further round begins; one is always timed.
      data: a folder with real data sets.
      alone: whether to leave out what affectjax is compared with.
    """

    rounds: int = 7
    seconds: float = 30.0
    data: Path = Path()
    alone: bool = False


@dataclasses.dataclass(frozen=True)
class Program:
    """A compiled program.

    Attributes:
      run: calls it.
      seconds: that compiling took.
      products: the seconds of all cores that it took, in those of `product_seconds`.
      bytes: of its temporaries.
      share: the same over the bytes of its arguments.
    """

    run: Callable[..., Any]
    seconds: float
    products: float
    bytes: int
    share: float


@dataclasses.dataclass(frozen=True)
class Row:
    """What came out.

    Attributes:
      name: of what was measured.
      seconds: that one takes, the median of all rounds.
      other: what it is compared with, empty for nothing.
      other_seconds: that the other takes.
      ratio: ours over the other's, the median of the rounds' ratios.
      program: of ours, where it was compiled by itself.
      note: anything else.
    """

    name: str
    seconds: float
    other: str = ""
    other_seconds: float | None = None
    ratio: float | None = None
    program: Program | None = None
    note: str = ""

    def flat(self) -> dict[str, Any]:
        """Returns what a table says, by column."""
        program = self.program
        return {
            "name": self.name,
            "seconds": self.seconds,
            "other": self.other,
            "other_seconds": self.other_seconds,
            "time": self.ratio,
            "compile_seconds": program and program.seconds,
            "compile": program and program.products,
            "bytes": program and program.bytes,
            "memory": program and program.share,
            "note": self.note,
        }


def timed(run: Callable[[], Any]) -> float:
    """Returns the seconds that a call takes, with all that it began on a device."""
    start = time.perf_counter()
    jax.block_until_ready(run())
    return time.perf_counter() - start


def in_turn(runs: Iterable[Callable[[], Any]], setting: Setting) -> np.ndarray:
    """Returns seconds `[rounds, runs]`, after a round that is not timed."""
    runs = list(runs)
    for run in runs:
        timed(run)
    start, spent, rounds = time.perf_counter(), 0.0, []
    while not rounds or (spent < setting.seconds and (len(rounds) < setting.rounds or spent < 1)):
        rounds.append([timed(run) for run in runs])
        spent = time.perf_counter() - start
    return np.array(rounds)


def row(
    name: str,
    run: Callable[[], Any],
    setting: Setting,
    other: str = "",
    other_run: Callable[[], Any] | None = None,
    *,
    program: Program | None = None,
    each: int = 1,
    other_each: int | None = None,
    note: str = "",
) -> Row:
    """Times a run, and in turn with it another where there is one.

    Args:
      name: of the row.
      run: makes `each` of what is measured; waits, or returns what to wait for.
      setting: how long to measure.
      other: what it is compared with.
      other_run: the same, which makes `other_each`, or as many.
      program: of `run`.
      each, other_each: how many a call makes.
      note: of the row.
    """
    if other_run is None or setting.alone:
        seconds = in_turn([run], setting)[:, 0] / each
        return Row(name, float(np.median(seconds)), program=program, note=note)
    seconds = in_turn([run, other_run], setting) / [each, other_each or each]
    ours, others = np.median(seconds, axis=0)
    ratio = np.median(seconds[:, 0] / seconds[:, 1])
    return Row(name, float(ours), other, float(others), float(ratio), program, note)


def product_seconds() -> float:
    """Returns the seconds of all cores for a product of matrices of 512 x 512 in float32."""
    x, seconds = np.ones((512, 512), np.float32), []
    for _ in range(9):
        start = time.process_time()
        x @ x
        seconds.append(time.process_time() - start)
    return statistics.median(seconds)


def compiled(jitted: Any, *arguments: Any) -> Program:
    """Compiles a jitted function; nothing that an earlier run left on disk is read."""
    cached = jax.config.jax_enable_compilation_cache
    jax.config.update("jax_enable_compilation_cache", False)
    try:
        before, start, busy = product_seconds(), time.perf_counter(), time.process_time()
        run = jitted.lower(*arguments).compile()
        seconds, busy = time.perf_counter() - start, time.process_time() - busy
    finally:
        jax.config.update("jax_enable_compilation_cache", cached)
    product = (before + product_seconds()) / 2
    memory = run.memory_analysis()
    held = memory.temp_size_in_bytes
    share = held / max(memory.argument_size_in_bytes, 1)
    return Program(run, seconds, busy / product, held, share)


def difference(ours: Iterable[np.ndarray], others: Iterable[np.ndarray]) -> str:
    """Returns the largest difference over the largest value, in words."""
    pairs = zip(ours, others, strict=True)
    largest = max(float(np.abs(a - b).max() / np.abs(b).max()) for a, b in pairs)
    return f"differs by {largest:.0e} of the largest value"


def cores() -> int:
    """Returns how many cores of the CPU this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def limit(count: int) -> None:
    """Leaves this process `count` cores; nothing may have been computed yet."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-count:])
        threadpoolctl.threadpool_limits(count)


def torch_device() -> str:
    """Returns where PyTorch computes: where JAX does, if it can; on a CPU it uses all it may."""
    if jax.default_backend() == "gpu" and torch.cuda.is_available():
        return "cuda"
    torch.set_num_threads(cores())
    return "cpu"


def need_torch() -> None:
    """Raises Skipped where PyTorch is not installed."""
    if torch is None:
        raise Skipped("PyTorch is not installed")


def same_parameters(ours: int, others: int) -> None:
    """Raises ValueError where two networks do not train as many parameters."""
    if ours != others:
        raise ValueError(f"{ours} parameters train in affectjax, {others} in {PYTORCH}")


def markdown(header: Iterable[str], rows: Iterable[Iterable[Any]]) -> str:
    """Returns a table in markdown: floats with three digits, nothing for None."""

    def cell(value):
        if isinstance(value, float):
            return f"{value:.3g}" if value < 1000 else f"{value:.0f}"
        return "" if value is None else str(value)

    header = list(header)
    lines = [header, ["---"] * len(header), *([cell(v) for v in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def table(found: Iterable[dict[str, Any]]) -> str:
    """Returns the table of rows as `Row.flat` gives them."""

    def scaled(value, factor):
        return None if value is None else value * factor

    header = ("benchmark", "ms", "compared with", "its ms", "ours / its", "compiled, s")
    header += ("in products", "temporaries, MiB", "over arguments", "note")
    lines = [
        (r["name"], 1e3 * r["seconds"], r["other"], scaled(r["other_seconds"], 1e3), r["time"],
         r["compile_seconds"], r["compile"], scaled(r["bytes"], 2**-20), r["memory"], r["note"])
        for r in found
    ]  # fmt: skip
    return markdown(header, lines)


def main(rows: Callable[[Setting], Iterable[Row]]) -> None:
    """Runs one benchmark and prints its table."""
    count = flags.DEFINE_integer("rounds", Setting.rounds, "Rounds that are timed at most.")
    seconds = flags.DEFINE_float("seconds", Setting.seconds, "After which no round begins.")
    data = flags.DEFINE_string("data", "../shared/realdata", "Folder with real data sets.")

    def run(argv):
        del argv
        setting = Setting(count.value, seconds.value, Path(data.value))
        print(table([row.flat() for row in rows(setting)]))

    app.run(run)
