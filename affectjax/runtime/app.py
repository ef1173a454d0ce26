"""Runs an app so that what a person can mend ends in one sentence, never in a traceback."""

import contextlib
import logging as std_logging
import os
import runpy
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from absl import app, flags, logging

from affectjax.errors import InputError, RunStopped
from affectjax.runtime import config_files, disk

STOPPED, BAD_INPUT, INTERRUPTED = 1, 2, 128 + signal.SIGINT
_INTERRUPTED = "interrupted; the same command goes on from what it has saved"
# Flags that print and end.
_HELP = ("help", "helpfull", "helpshort", "helpxml", "?")


def quiet_others() -> None:
    """Logs what this package says from INFO up, and what others say from WARNING up.

    Orbax alone writes thirty lines about a checkpoint that went well.
    """
    logging.set_verbosity(logging.INFO)
    package = str(Path(__file__).parents[1])

    def ours(record) -> bool:
        if record.pathname.startswith(package):
            return True
        # Of a full disk the app itself says all there is to say.
        told = disk.full(record.exc_info[1] if record.exc_info else None)
        return record.levelno >= std_logging.WARNING and not told

    logging.get_absl_handler().addFilter(ours)
    shown = sys.excepthook

    def hook(kind, error, trace) -> None:
        # What threads of a checkpoint that failed say afterwards; the failure itself is told.
        if str(error) != "Event loop is closed":
            shown(kind, error, trace)

    sys.excepthook = hook
    for name in ("jax", "orbax", "grain", "tensorflow_datasets"):
        std_logging.getLogger(name).setLevel(std_logging.WARNING)


def run(main: Callable[[Sequence[str]], int | None], *, arguments: bool = False) -> None:
    """Parses the flags, calls `main(argv)` and exits with what it returns.

    An `InputError`, an unknown flag, a wrong value of one, a key that a config does not have, or an
    argument that is no flag: the sentence goes to stderr and the exit code is 2. A `RunStopped`, or
    a full disk: the same with 1. Ctrl-C: the same with 130. Any other exception is a fault of the
    program and keeps its traceback.

    Args:
      main: takes the arguments that are no flags, the program's name first.
      arguments: whether there may be any.
    """

    def guarded(argv: Sequence[str]) -> int | None:
        if len(argv) > 1 and not arguments:
            return _refuse(f"unexpected argument {argv[1]!r}; flags look like --name=value")
        quiet_others()
        try:
            signal.signal(signal.SIGINT, _interrupted)
            with disk.full_stops_a_run():
                return main(argv)
        except InputError as error:
            return _refuse(str(error))
        except RunStopped as error:
            return _refuse(str(error), STOPPED)
        except KeyboardInterrupt:  # of an app that handles Ctrl-C itself
            return _refuse(_INTERRUPTED, INTERRUPTED)

    app.run(guarded, flags_parser=_parse)


def _interrupted(number, frame) -> None:
    """Ends the process at once, as a kill would: all that is written is whole at any moment.

    An exception would be lost in callbacks of JAX, and make Orbax wait minutes for a save.
    """
    with contextlib.suppress(RuntimeError):  # where it was writing
        sys.stdout.flush()
    os.write(2, f"error: {_INTERRUPTED}\n".encode())
    os._exit(INTERRUPTED)


def _parse(argv: Sequence[str]) -> Sequence[str]:
    """Returns what is left of the arguments after the flags."""
    argv = ["--help" if arg == "-h" else arg for arg in argv]
    if (at := argv.index("--config") if "--config" in argv else -1) >= 0:
        argv[at : at + 2] = ["=".join(argv[at : at + 2])]
    try:
        argv = with_config_found(argv)
        return flags.FLAGS(argv)
    except SystemExit:
        if any(arg.lstrip("-").partition("=")[0] in _HELP for arg in argv[1:]):
            sys.exit(0)  # absl's own is 1
        raise
    except (flags.Error, InputError, FileNotFoundError) as error:
        # ml_collections puts the traceback of a config file into its message; ours is its end.
        sys.exit(_refuse(str(error).rpartition(f"{InputError.__module__}.InputError: ")[2]))
    except (AttributeError, KeyError, TypeError):
        # This is how ml_collections says that --config.section.key=value names no section; the same
        # exceptions from a fault in a config file keep their traceback.
        sentence = _unknown_section(argv)
        if sentence is None:
            raise
        sys.exit(_refuse(sentence))


def with_config_found(argv: Sequence[str]) -> list[str]:
    """Returns the arguments with the config file as a path where it was named.

    Raises:
      InputError: there is no such file.
    """
    file, variant = _config_file(argv)
    if not file:
        return list(argv)
    config = ":".join([str(config_files.find(file)), *([variant] if variant else [])])
    is_config = lambda arg: arg.startswith("-") and arg.lstrip("-").startswith("config=")  # noqa: E731
    return [f"--config={config}" if is_config(arg) else arg for arg in argv]


def _config_file(argv: Sequence[str]) -> tuple[str, str]:
    """Returns path and variant of --config=PATH:VARIANT, empty where they are not given."""
    given = [arg.lstrip("-").partition("=") for arg in argv if arg.startswith("-")]
    path, _, variant = next((v for name, _, v in given if name == "config"), "").partition(":")
    return path, variant


def _unknown_section(argv: Sequence[str]) -> str | None:
    """Returns what is wrong with the first --config.section.key=value of no section; None if none.

    A key within a section may be one that the config file leaves out: the run itself checks it.
    """
    from affectjax.runtime import configs  # slow: it imports JAX

    path, variant = _config_file(argv)
    config = runpy.run_path(path)["get_config"](*([variant] if variant else []))
    names = [arg.lstrip("-").partition("=")[0] for arg in argv if arg.startswith("-")]
    for name in (name for name in names if name.startswith("config.")):
        section = configs.plain(config)
        where, *above = name.split(".")[:-1]
        for key in above:
            try:
                configs.check_keys([key], section, where)
            except InputError as error:
                return str(error)
            section, where = section[key], f"{where}.{key}"
            if not isinstance(section, dict):
                return f'"{where}" is {section!r}, which has no keys'
    return None


def _refuse(message: str, code: int = BAD_INPUT) -> int:
    """Prints one sentence to stderr and returns the exit code.

    One of several processes of a run ends here: JAX would wait minutes for the others, and they for
    this one.
    """
    sys.stderr.write("error: " + " ".join(message.split()) + "\n")
    jax = sys.modules.get("jax")  # slow to import, and not yet where a flag is wrong
    if jax is not None and jax.distributed.is_initialized():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    return code
