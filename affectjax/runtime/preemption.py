"""SIGTERM as a request: finish what is compiled into one program, save, stop."""

import signal

from affectjax.runtime import parallel

EXIT_CODE = 128 + signal.SIGTERM


class Preemption:
    """Remembers a SIGTERM; a context in which the process does not die of one."""

    def __init__(self):
        self._asked = False
        self._before = None

    def __enter__(self) -> "Preemption":
        self._before = signal.signal(signal.SIGTERM, self._note)
        return self

    def __exit__(self, *error) -> None:
        signal.signal(signal.SIGTERM, self._before)

    def _note(self, number, frame) -> None:
        self._asked = True

    def asked(self) -> bool:
        """Returns whether any process of the run was asked to stop; all get the same answer."""
        return parallel.anywhere(self._asked)
