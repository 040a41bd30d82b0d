"""Measurements in processes of their own: started, listened to, and ended when they take too long.

Receives the name of a module of this room and its options; hands on what it printed as its result. It does not know what
is measured.
"""

import json
import subprocess
import sys
from collections import deque
from collections.abc import Mapping
from queue import Empty, Queue
from threading import Thread
from typing import Any

from live_restore.errors import LiveRestoreError


class Measurement:
    """One measurement, running.

    Parameters
    ----------
    module : str
        A module of `live_restore.bench` that prints ``began`` when it begins and ``result JSON`` at its end.
    options : mapping
        JSON for it.
    """

    def __init__(self, module: str, options: Mapping[str, Any]) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", f"live_restore.bench.{module}", json.dumps(dict(options))],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
            errors="replace",
        )
        self._module = module
        self._last: deque[str] = deque(maxlen=15)
        self._lines: Queue[str | None] = Queue()
        Thread(target=self._listen, daemon=True).start()

    def await_begin(self, seconds: float) -> str:
        """Wait until it says that it begins, and with what."""
        return self._await("began", seconds)

    def result(self, seconds: float) -> dict[str, Any]:
        """Wait for its result.

        Raises
        ------
        LiveRestoreError
            If it takes longer, and is ended, or ends without a result.
        """
        try:
            return dict(json.loads(self._await("result ", seconds)))
        finally:
            self.process.kill()
            self.process.wait()

    def _listen(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._lines.put(line.rstrip())
        self._lines.put(None)

    def _await(self, beginning: str, seconds: float) -> str:
        while True:
            try:
                line = self._lines.get(timeout=seconds)
            except Empty:
                self.process.kill()
                raise LiveRestoreError(f"the measurement '{self._module}' hung for {seconds:.0f} s and was ended") from None
            if line is None:
                words = " / ".join(self._last)
                raise LiveRestoreError(f"the measurement '{self._module}' ended without a result; its last words: {words}")
            if line.startswith(beginning):
                return line.removeprefix(beginning)
            self._last.append(line)


def measure(module: str, options: Mapping[str, Any], seconds: float) -> dict[str, Any]:
    """Run one measurement to its end."""
    return Measurement(module, options).result(seconds)
