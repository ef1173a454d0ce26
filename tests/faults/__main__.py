"""Kills runs at random moments, and compares them with undisturbed ones, bit for bit.

    python -m tests.faults --kills=200 --seed=0

Exit codes: 0 all came out the same; 1 something did not, and is kept in --folder.
"""

import tempfile
from pathlib import Path

from absl import flags

from affectjax.runtime import app

_KILLS = flags.DEFINE_integer("kills", 200, "How many, of all kinds together.", lower_bound=1)
_SEED = flags.DEFINE_integer("seed", 0, "Of the moments.")
_FOLDER = flags.DEFINE_string("folder", None, "Where to work; by default a new one.")


def main(argv):
    """Kills, and prints a table; returns the exit code."""
    del argv
    from tests.faults import kills  # JAX starts slowly

    faults = kills.Faults(Path(_FOLDER.value or tempfile.mkdtemp()), _SEED.value)
    try:
        faults.run(_KILLS.value)
    finally:
        print(faults.table())
    return int(any(count.wrong for count in faults.counts.values()))


if __name__ == "__main__":
    app.run(main)
