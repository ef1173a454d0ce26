"""Starts the processes of one run on this machine, as a cluster's scheduler would on several.

    python -m launch.multihost --processes=2 -- --config=configs/mcr.py --workdir=runs/two

What follows `--` goes to each `python -m affectjax.main`. What the first process says goes to the
terminal, and what the others say to process-<number>.log in the workdir. On a real cluster start
that command once on each host, with config.parallel.coordinator, .processes and .process set.
"""

import contextlib
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import IO

from absl import flags

from affectjax.runtime import app

_PROCESSES = flags.DEFINE_integer("processes", 2, "How many.", lower_bound=1)


def free_address() -> str:
    """Returns 127.0.0.1 with a port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


def launch(processes: int, arguments: list[str]) -> int:
    """Runs `python -m affectjax.main` in several processes of one run.

    Args:
      processes: how many.
      arguments: of each.

    Returns:
      The first exit code that is not 0; the other processes are then ended.
    """
    address = free_address()
    command = [sys.executable, "-m", "affectjax.main", *arguments]
    place = [f"--config.parallel.coordinator={address}", f"--config.parallel.processes={processes}"]
    with contextlib.ExitStack() as logs:
        running = [
            subprocess.Popen(
                [*command, *place, f"--config.parallel.process={number}"],
                stdout=(log := _log(arguments, number, logs)),
                stderr=log and subprocess.STDOUT,
            )
            for number in range(processes)
        ]
    signal.signal(signal.SIGINT, signal.default_int_handler)
    code = 0
    try:
        while running and not code:
            for process in list(running):
                try:
                    code = code or process.wait(timeout=0.2)
                    running.remove(process)
                except subprocess.TimeoutExpired:
                    continue
    finally:
        for process in running:
            process.terminate()
            process.wait()
    return code


def _log(arguments: list[str], number: int, logs: contextlib.ExitStack) -> IO | None:
    """Returns the open log of a process in the workdir; of the first one None, the terminal."""
    given = [a.partition("=")[2] for a in arguments if a.lstrip("-").startswith("workdir=")]
    if not number or not given:
        return None
    Path(given[-1]).mkdir(parents=True, exist_ok=True)
    return logs.enter_context((Path(given[-1]) / f"process-{number}.log").open("w"))


def main(argv):
    """Runs the processes; returns their exit code."""
    return launch(_PROCESSES.value, argv[1:])


if __name__ == "__main__":
    app.run(main, arguments=True)
