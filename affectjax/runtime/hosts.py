"""Which process of a run on several hosts is lost: said at once, where JAX would wait or abort.

Every process keeps a connection to the first one, which the system closes when a process ends and,
by keepalive, when its host is gone. Each says when it has ended a run, by a line "-"; the first one
passes on which process is lost, by "lost <number>".
"""

import contextlib
import os
import secrets
import socket
import sys
import threading
import time
from collections.abc import Iterator

import jax
import numpy as np
from absl import logging
from jax.experimental import multihost_utils

# After so many seconds of silence, the system asks a host every so often, and so many times.
_KEEPALIVE = {"TCP_KEEPIDLE": 8, "TCP_KEEPINTVL": 4, "TCP_KEEPCNT": 3}
# Bytes of a secret and of its number, with which a process of the run makes itself known.
_TOKEN, _NUMBER = 16, 4
# Seconds that a process has to say itself why it ends, when all end for the same reason.
_OWN = 2.0
# What an operation that failed because a process is lost waits for, until that is known.
_GRACE = 25.0
LOST = 1


class _Peer:
    """Another process: how many runs it has ended, and whether it is gone."""

    def __init__(self, number: int, connection: socket.socket):
        self.number, self.connection = number, connection
        self.ended, self.gone = 0, False
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in _KEEPALIVE.items():
            if hasattr(socket, name):
                connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)

    def tell(self, line: str) -> None:
        """Sends a line; a process that is gone hears nothing."""
        with contextlib.suppress(OSError):
            self.connection.sendall(f"{line}\n".encode())

    def lines(self) -> Iterator[str]:
        """Yields what it says, until it is gone."""
        with contextlib.suppress(OSError), self.connection.makefile() as file:
            yield from (line.strip() for line in file)


_peers: list[_Peer] = []
_begun = 0  # runs that this process has begun
_within = False  # whether it is in one


def connect(coordinator: str) -> None:
    """Connects the processes of a run, which JAX has joined.

    Args:
      coordinator: "host:port" of the first one.
    """
    first = jax.process_index() == 0
    listening = socket.create_server(("", 0)) if first else None
    said = np.zeros(1 + _TOKEN, np.int32)
    if listening is not None:
        said[:] = [listening.getsockname()[1], *secrets.token_bytes(_TOKEN)]
    port, *token = multihost_utils.broadcast_one_to_all(said).tolist()
    if listening is not None:
        _accept(listening, bytes(token))
    else:
        host = coordinator.rpartition(":")[0].strip("[]")
        connection = socket.create_connection((host, port), timeout=_GRACE)
        connection.settimeout(None)
        connection.sendall(bytes(token) + jax.process_index().to_bytes(_NUMBER))
        _peers.append(_Peer(0, connection))
    for peer in _peers:
        threading.Thread(target=_listen, args=(peer,), daemon=True).start()


def _accept(listening: socket.socket, token: bytes) -> None:
    """Takes the connections of all other processes, and of nobody else."""
    listening.settimeout(_GRACE)
    with listening:
        while len(_peers) < jax.process_count() - 1:
            connection, _ = listening.accept()
            connection.settimeout(_GRACE)
            said = connection.recv(_TOKEN + _NUMBER, socket.MSG_WAITALL)
            if said[:_TOKEN] != token:
                logging.warning("a process that is none of this run was turned away")
                connection.close()
                continue
            connection.settimeout(None)
            _peers.append(_Peer(int.from_bytes(said[_TOKEN:]), connection))


@contextlib.contextmanager
def watch() -> Iterator[None]:
    """Ends this process with one sentence where another is lost within the context."""
    global _begun, _within
    if not _peers:
        yield
        return
    _begun, _within = _begun + 1, True
    for peer in _peers:
        _check(peer)
    stopped: SystemExit | None = None
    try:
        yield
    except jax.errors.JaxRuntimeError:
        time.sleep(_GRACE)  # the thread that listens ends the process where one is lost
        raise
    except SystemExit as error:  # all of them stop
        stopped = error
    _within = False
    for peer in _peers:
        peer.tell("-")
    if stopped is not None:
        raise stopped


def _listen(peer: _Peer) -> None:
    for line in peer.lines():
        if line == "-":
            peer.ended += 1
        else:
            _end(line.removeprefix("lost "))
    peer.gone = True
    _check(peer)


def _check(peer: _Peer) -> None:
    """Ends this process where another is gone that has not ended the run in which this one is."""
    if peer.gone and _within and peer.ended < _begun:
        _end(str(peer.number))


def _end(number: str) -> None:
    """Tells the others which process is lost, says so, and ends this one as a kill would.

    Unless it leaves its run just then by itself.
    """
    for peer in _peers:
        peer.tell(f"lost {number}")
    if number != "0":  # JAX aborts at once where the first one is lost
        time.sleep(_OWN)
    if not _within:
        return
    sys.stderr.write(
        f"error: process {number} of the run is lost (what it said last is in its own log); the "
        "same command on every host goes on from the last checkpoint\n"
    )
    sys.stderr.flush()
    os._exit(LOST)
