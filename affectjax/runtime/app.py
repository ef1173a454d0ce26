"""Runs an app so that bad input ends in one sentence and exit code 2, never in a traceback."""

import logging as std_logging
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from absl import app, flags, logging

from affectjax.errors import InputError

BAD_INPUT = 2


def quiet_others() -> None:
    """Logs what this package says from INFO up, and what others say from WARNING up.

    Orbax alone writes thirty lines about a checkpoint that went well.
    """
    logging.set_verbosity(logging.INFO)
    package = str(Path(__file__).parents[1])

    def ours(record) -> bool:
        return record.levelno >= std_logging.WARNING or record.pathname.startswith(package)

    logging.get_absl_handler().addFilter(ours)
    for name in ("jax", "orbax", "grain", "tensorflow_datasets"):
        std_logging.getLogger(name).setLevel(std_logging.WARNING)


def run(main: Callable[[Sequence[str]], int | None], *, arguments: bool = False) -> None:
    """Parses the flags, calls `main(argv)` and exits with what it returns.

    An `InputError`, an unknown flag, a wrong value of one, a key that a config does not have, or an
    argument that is no flag: the sentence goes to stderr and the exit code is 2. Any other
    exception is a fault of the program and keeps its traceback.

    Args:
      main: takes the arguments that are no flags, the program's name first.
      arguments: whether there may be any.
    """

    def guarded(argv: Sequence[str]) -> int | None:
        if len(argv) > 1 and not arguments:
            return _refuse(f"unexpected argument {argv[1]!r}; flags look like --name=value")
        quiet_others()
        try:
            return main(argv)
        except InputError as error:
            return _refuse(str(error))

    app.run(guarded, flags_parser=_parse)


def _parse(argv: Sequence[str]) -> Sequence[str]:
    """Returns what is left of the arguments after the flags."""
    try:
        return flags.FLAGS(argv)
    except (flags.Error, InputError, FileNotFoundError) as error:
        # ml_collections puts the traceback of a config file into its message; ours is its end.
        sys.exit(_refuse(str(error).rpartition(f"{InputError.__module__}.InputError: ")[2]))
    except (AttributeError, KeyError) as error:
        # This is how ml_collections says that --config.key=value names no key of the config; the
        # same exceptions from a fault in a config file keep their traceback.
        given = {part for arg in argv if "=" in arg for part in arg.split("=")[0].split(".")[1:]}
        unknown = sorted(
            key for key in given if repr(key) in str(error) or f'"{key}"' in str(error)
        )
        if not unknown:
            raise
        sys.exit(_refuse(f"the config has no key {unknown[0]!r}"))


def _refuse(message: str) -> int:
    """Prints one sentence to stderr and returns the exit code for bad input."""
    sys.stderr.write("error: " + " ".join(message.split()) + "\n")
    return BAD_INPUT
