"""One run at a time in a workdir: a lock that ends with the process that holds it.

The file `lock` says which process that is. What locks is not the file but the system's lock on it
(flock), which a process loses however it ends: a killed run can go on at once. It also holds
between hosts that share a file system with such locks, as NFS from version 4 on.
"""

import contextlib
import datetime
import errno
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from absl import logging

from affectjax.errors import InputError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

FILE = "lock"
_HELD = (errno.EWOULDBLOCK, errno.EACCES)


@contextlib.contextmanager
def hold(workdir: str | Path) -> Iterator[None]:
    """Makes a workdir and holds its lock; where a file system has no locks, a warning says so.

    Raises:
      InputError: another run has it, or the folder cannot be made. It names the process.
    """
    path = Path(workdir) / FILE
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a+", encoding="utf-8")
    except OSError as error:
        # Where nothing can be written no other run disturbs.
        if path.parent.is_dir() and not os.access(path.parent, os.W_OK):
            yield
            return
        raise InputError(f"cannot write to the workdir {workdir}: {error}") from error
    with file:
        _lock(file, Path(workdir))
        file.truncate(0)
        since = datetime.datetime.now().astimezone().isoformat(" ", "seconds")
        said = {"host": socket.gethostname(), "process": os.getpid(), "since": since}
        file.write(json.dumps(said) + "\n")
        file.flush()
        try:
            yield
        finally:
            file.truncate(0)


def _lock(file, workdir: Path) -> None:
    """Takes the lock of an open file, or raises an InputError that names who has it."""
    try:
        if fcntl is None:
            raise OSError(errno.ENOSYS, "this system has no flock")
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _HELD:
            raise InputError(
                f"{workdir} is in use by {_owner(file)}; wait for its end, or choose another"
                " --workdir"
            ) from error
        logging.warning(
            "%s cannot be locked (%s): do not start a second run in it", workdir, error.strerror
        )


def _owner(file) -> str:
    """Returns in words what a lock says of the process that holds it."""
    try:
        file.seek(0)
        said = json.loads(file.read())
        return f"process {said['process']} on host {said['host']}, since {said['since']}"
    except (OSError, ValueError, KeyError, TypeError):  # it has not yet written it
        return "another process"
