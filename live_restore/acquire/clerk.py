"""The clerk: writes what is to be kept of a run into its folder, in a thread of its own, for disks are slow.

Receives runs, and chores to be done every second; hands on files. Trouble with the disk becomes a warning. It does not
know what is written.
"""

import logging
import time
from collections.abc import Callable
from threading import Event, Lock, Thread
from typing import Any

from live_restore.acquire.live_run import FOLDER_TROUBLE, LiveRun

_logger = logging.getLogger(__name__)

_ROUND_S = 0.5
_CHORES_S = 1.0
# Replacing hook.json asks the disk to have it safely, and the disk has the raw frames to write.
_TABLE_S = 5.0

Describe = Callable[[LiveRun], dict[str, Any]]
Chore = Callable[[], None]


class Clerk:
    """Writes while the acquisition runs, and once more at the end.

    Parameters
    ----------
    describe : callable
        Gives what ``hook.json`` says of a run.
    warn : callable
        Told what went wrong, in a sentence.
    """

    def __init__(self, describe: Describe, warn: Callable[[str], None]) -> None:
        self._describe, self._warn = describe, warn
        self._runs: list[LiveRun] = []
        self._chores: list[Chore] = []
        self._lock = Lock()
        self._stop = Event()
        self._thread = Thread(target=self._work, name="live_restore clerk", daemon=True)
        self._thread.start()

    def open(self, run: LiveRun) -> None:
        """Look after a run that begins."""
        with self._lock:
            self._runs.append(run)

    def add(self, chore: Chore) -> None:
        """Do this every second; it does not raise."""
        with self._lock:
            self._chores.append(chore)

    def remove(self, chore: Chore) -> None:
        """Do it once more, and no longer."""
        with self._lock:
            self._chores.remove(chore)
        chore()

    def finish(self, run: LiveRun) -> None:
        """Write all of a run that is settled, now, and give its files back."""
        with self._lock:
            if run in self._runs:
                self._finish(run)

    def close(self) -> None:
        """End the thread after writing everything; a second time is fine."""
        self._stop.set()
        self._thread.join(10.0)
        for run in list(self._runs):
            self.finish(run)

    def _work(self) -> None:
        chores_s = table_s = time.monotonic()
        while not self._stop.wait(_ROUND_S):
            now_s = time.monotonic()
            due, table = now_s - chores_s >= _CHORES_S, now_s - table_s >= _TABLE_S
            chores_s, table_s = now_s if due else chores_s, now_s if table else table_s
            with self._lock:
                for chore in self._chores if due else ():
                    chore()
                for run in list(self._runs):
                    if run.settled.is_set():
                        self._finish(run)
                    else:
                        self._write(run, table)

    def _finish(self, run: LiveRun) -> None:
        self._runs.remove(run)
        self._write(run, table=True)
        run.close()

    def _write(self, run: LiveRun, table: bool) -> None:
        try:
            run.write_backlog()
            if table:
                run.write(self._describe(run))
        except FOLDER_TROUBLE as trouble:
            self._warn(f"the hook cannot write into the run folder: {trouble}; what it counted is kept in memory")
