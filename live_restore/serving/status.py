"""The status: everything that is told of the restore process, as one JSON mapping.

Receives models and runs; hands on words. It changes nothing.
"""

import os
import threading
import time
from dataclasses import dataclass
from typing import Any

from live_restore import __version__
from live_restore.serving.models import Models
from live_restore.serving.run import Runs

# A status for viewers may be so old: it is part of every view, and takes a millisecond to draw up.
_FRESH_NS = 200_000_000


@dataclass(slots=True)
class Identity:
    """Who serves: another `session` after every start."""

    session: str
    address: str
    began_ns: int


class Status:
    """Draws up the status; the network thread's.

    Parameters
    ----------
    identity : Identity
    models : Models
    runs : Runs
    """

    def __init__(self, identity: Identity, models: Models, runs: Runs) -> None:
        self._identity, self._models, self._runs = identity, models, runs
        self._kept: dict[str, Any] = {}
        self._kept_ns = 0
        self.state = "serving"
        self.bad_messages = 0

    def now(self) -> dict[str, Any]:
        """Draw it up."""
        now_ns = time.perf_counter_ns()
        self._kept_ns = now_ns
        self._kept = {
            "server": {
                "session": self._identity.session,
                "software": f"live_restore {__version__}",
                "pid": os.getpid(),
                "address": self._identity.address,
                "uptime_s": round((now_ns - self._identity.began_ns) / 1e9, 1),
                "state": self.state,
                "threads": [thread.name for thread in threading.enumerate()],
            },
            "models": self._models.described(),
            "runs": self._told_of_runs(now_ns),
            "bad_messages": self.bad_messages,
        }
        return self._kept

    def lately(self) -> dict[str, Any]:
        """Give one that is a fifth of a second old at most."""
        return self._kept if self._kept and time.perf_counter_ns() - self._kept_ns < _FRESH_NS else self.now()

    def _told_of_runs(self, now_ns: int) -> list[dict[str, Any]]:
        """Tell of every run; the time lines of runs that are over and not the last would make every view heavier."""
        runs = self._runs.all()
        return [run.status(now_ns, timeline=run is runs[-1] or not run.closed) for run in runs]
