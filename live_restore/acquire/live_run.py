"""One acquisition as the hook sees it: its name, plan, ledger, and what is written of it into the run folder.

Receives what the hook finds out; hands on `Begin` and `End` for the wire, and writes ``hook.json`` and the backlog. It
does not know frames, nor when it is time to write.
"""

import time
import uuid
from pathlib import Path
from threading import Event, Lock
from typing import Any, Literal

from live_restore.acquire.plan import Plan
from live_restore.errors import ImageError
from live_restore.frames import VolumeKey
from live_restore.ledger import HOOK_COLUMNS, Ledger
from live_restore.records.runs import HOOK, RunFolder, run_folder
from live_restore.wire.messages import Begin, End

Results = Literal["none", "float32", "uint16"]

# Backlog lines kept in memory where there is no folder to write them into.
_MOST_PENDING = 100_000


class LiveRun:
    """One acquisition.

    Parameters
    ----------
    name : str or None
        Unique and fit for a file name; None: one is made from the time.
    raw : Path or None
        Folder of the raw dataset, as soon as it is known.
    plan : Plan
    results : {"none", "float32", "uint16"}

    Attributes
    ----------
    ledger : Ledger
    warnings : list of str
        Plain sentences, each once.
    begun : bool
        Whether a frame has come.
    ended : bool
        Whether no more frames will come.
    settled : Event
        Set when every frame has come to its end.
    facts : dict
        What the first frame showed: ``shape`` (Y, X), ``pixel_size_um``.
    """

    def __init__(self, name: str | None, raw: Path | None, plan: Plan, results: Results = "none") -> None:
        self.name = name or f"{time.strftime('%Y%m%d-%H%M%S')}-{uuid.uuid4().hex[:6]}"
        self.raw = None if raw is None else raw.absolute()  # the restore process has a working folder of its own
        self.plan, self.results = plan, results
        self.ledger = Ledger(HOOK_COLUMNS)
        self.warnings: list[str] = []
        self.begun = self.ended = False
        self.settled = Event()
        self.give_up_s: float | None = None
        self.facts: dict[str, Any] = {}
        self._sequence = 0
        self._skipped: dict[str, int] = {}
        self._pending: list[tuple[VolumeKey, int, str]] = []
        self._unwritten = 0
        self._folder: RunFolder | None = None
        self._written: dict[str, Any] = {}
        self._lock = Lock()

    def number(self) -> int:
        """Give the next frame its number."""
        self._sequence += 1
        return self._sequence - 1

    def begin(self) -> Begin:
        """Say what is known of the run."""
        return Begin(self.name, None if self.raw is None else str(self.raw), self.described(), self.results)

    def described(self) -> dict[str, Any]:
        """Give the plan, with what the first frame showed."""
        return {**self.plan.as_mapping(), **self.facts}

    def end(self) -> End:
        """Say what became of its frames."""
        return End(self.name, self.ledger.counts())

    def skip(self, key: VolumeKey, planes: int, why: str) -> None:
        """Keep a volume for the backlog; it is written by `write`."""
        with self._lock:
            self._skipped[why] = self._skipped.get(why, 0) + 1
            if len(self._pending) < _MOST_PENDING:
                self._pending.append((key, planes, why))
            else:
                self._unwritten += 1

    @property
    def skipped(self) -> dict[str, int]:
        """How many volumes were not sent, or not wholly, by reason."""
        with self._lock:
            return dict(self._skipped)

    @property
    def folder(self) -> Path | None:
        """The run folder; None as long as nobody knows where the raw dataset is, or nothing was written."""
        return None if self._folder is None else self._folder.path

    def write_backlog(self) -> None:
        """Write what was skipped since the last time; without a known raw folder it is kept.

        Raises
        ------
        OSError, ImageError
            If the run folder cannot be written; what was not written is kept.
        """
        with self._lock:
            pending, self._pending = self._pending, []
        try:
            while pending and self.raw is not None:
                self._opened(self.raw).skip(*pending[0])
                pending.pop(0)
        finally:
            with self._lock:
                self._pending = pending + self._pending

    def write(self, said: dict[str, Any]) -> None:
        """Replace ``hook.json``, where something changed and the raw folder is known.

        Raises
        ------
        OSError, ImageError
            If the run folder cannot be written.
        """
        whole = {"run": self.name, **said, "plan": self.described(), "skipped_volumes": self.skipped}
        if self.raw is None or not self.begun or whole == self._written:
            return
        self._opened(self.raw).describe(HOOK, whole)
        self._written = whole

    def close(self) -> None:
        """Give the files back."""
        if self._folder is not None:
            self._folder.close()

    def _opened(self, raw: Path) -> RunFolder:
        if self._folder is None:
            self._folder = RunFolder.begin(run_folder(raw), self.name, raw, role="hook")
        return self._folder


# What can go wrong with the run folder: the disk, or a name that is taken.
FOLDER_TROUBLE = (OSError, ImageError)
