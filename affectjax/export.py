"""Exports a run: `affectjax export --workdir=runs/own --to=DIR`.

    python -m affectjax.export --workdir=runs/own --to=model
    python -m affectjax.export --workdir=runs/own --to=model --noprogram

The folder holds all that predicting needs, and a card; `affectjax.load` and `affectjax predict
--checkpoint` take it. The network is also there as a program that JAX runs without this package.
"""

from absl import flags

from affectjax.errors import InputError
from affectjax.runtime import app

_WORKDIR = flags.DEFINE_string("workdir", None, "The folder of the run.")
_TO = flags.DEFINE_string("to", None, "A new folder.")
_PROGRAM = flags.DEFINE_bool("program", True, "Whether to write the network as a program too.")


def main(argv):
    """Writes the folder, and prints its path."""
    del argv
    if not _WORKDIR.value or not _TO.value:
        raise InputError("--workdir and --to are both needed: which run, and where to?")
    from affectjax import exporting  # JAX starts slowly: a wrong flag answers before that

    print(exporting.export(_WORKDIR.value, _TO.value, program=_PROGRAM.value))


if __name__ == "__main__":
    app.run(main)
