"""Finds what a config names: a data set, a task, a model or an encoder is a module of its own.

A bare name, as in `config.data.name="mosi"`, is a module of one of this package's folders. A name
with a dot, as in `config.data.name="mypackage.myset"`, is a module anywhere on `sys.path`.
"""

import difflib
import importlib
import pkgutil
from types import ModuleType

from affectjax.errors import InputError


def names(package: str) -> tuple[str, ...]:
    """Returns the bare names that can be found in a package, in alphabetical order.

    Args:
      package: its dotted name. A module whose name begins with `_` is not listed.
    """
    path = importlib.import_module(package).__path__
    found = (module.name for module in pkgutil.iter_modules(path))
    return tuple(sorted(name for name in found if not name.startswith("_")))


def find(package: str, name: str, what: str, *, without: tuple[str, ...] = ()) -> ModuleType:
    """Returns the module of a name.

    Args:
      package: in which a bare name is looked up, as in "affectjax.tasks".
      name: bare, or dotted for a module outside of it.
      what: what it should be, for the messages, as in "data set".
      without: modules of the package that are none of these.

    Raises:
      InputError: there is no such module, with the nearest name that there is; or the import of a
        dotted one fails, with the reason.
    """
    known = [n for n in names(package) if n not in without]
    if not isinstance(name, str):
        raise InputError(f"{what} is {name!r}; allowed: {', '.join(known)}, or a dotted name")
    if name in known:
        return importlib.import_module(f"{package}.{name}")
    if "." in name:
        return _outside(name, what)
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise InputError(
        f"{what} {name!r} is unknown; known: {', '.join(known)}, or the dotted name of a module of"
        f" your own{hint}"
    )


def _outside(name: str, what: str) -> ModuleType:
    """Returns the module of a dotted name, from anywhere on `sys.path`."""
    parts = name.split(".")
    if not all(part.isidentifier() for part in parts):
        raise InputError(f"{what} {name!r} is no dotted name, as in mypackage.mymodule")
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        above = {".".join(parts[:count]) for count in range(1, len(parts) + 1)}
        if error.name in above:
            raise InputError(
                f"{what} {name!r} cannot be imported: there is no module {error.name!r} on the "
                "Python path"
            ) from error
        raise _broken(name, what, error) from error
    except Exception as error:  # anything may go wrong in somebody else's module
        raise _broken(name, what, error) from error


def _broken(name: str, what: str, error: Exception) -> InputError:
    return InputError(
        f"{what} {name!r} cannot be imported: its module raises {type(error).__name__}: {error}"
    )
