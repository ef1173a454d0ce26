"""Scalars for TensorBoard, written as they come: a full disk is an error where it happens.

tensorboardX's own writer has a thread, and waits for ever once that has died of an error.
"""

import time
from collections.abc import Mapping
from pathlib import Path


class EventFile:
    """A new file of events."""

    def __init__(self, folder: Path, purge_step: int = 0):
        """Opens it.

        Args:
          folder: is made where it is not there.
          purge_step: TensorBoard forgets this step of earlier files and all after it; 0 for none.
        """
        # It is slow to import, and one process of a run needs it.
        from tensorboardX import summary
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto.event_pb2 import Event, SessionLog

        folder.mkdir(parents=True, exist_ok=True)
        self._event, self._scalar = Event, summary.scalar
        self._file = EventsWriter(str(folder / "events"))
        if purge_step:
            start = Event(step=purge_step, session_log=SessionLog(status=SessionLog.START))
            self._file.write_event(start)

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        """Appends scalars by their tags.

        Args:
          step: of all of them.
          scalars: finite numbers.
        """
        for tag, value in scalars.items():
            said = self._scalar(tag, value)
            self._file.write_event(self._event(step=step, summary=said, wall_time=time.time()))
        self._file.flush()

    def close(self) -> None:
        """Closes it."""
        self._file.close()
