"""The ledger: every frame that comes in ends in exactly one column, and the columns add up at any moment.

Receives counts; hands on a table. Used at the hook and in the restore process, each with its own columns. It does not
know what a frame is.
"""

from collections.abc import Mapping
from threading import Lock

# What happens to a frame that the hook is given.
HOOK_COLUMNS = {
    "receipted": "the restore process has it",
    "skipped": "its volume was left out, because the restore process was busy",
    "unattached": "there was no restore process when its volume began",
    "lost": "on its way when the restore process went away, or its volume was given up half-way",
    "refused": "the restore process refused it, and said why",
}
# What happens to a frame that the restore process receives.
RESTORE_COLUMNS = {
    "restored": "part of a restored volume",
    "reference": "high light: kept for comparison, never restored",
    "without_model": "its channel has no model",
    "incomplete": "its volume never became complete",
    "failed": "its volume could not be restored, and the events say why",
}


class Ledger:
    """Counts that add up: ``taken == waiting + sum of the columns``, at any moment and from any thread.

    Parameters
    ----------
    columns : mapping of str to str
        Name and meaning of every end that a frame can come to.
    """

    def __init__(self, columns: Mapping[str, str]) -> None:
        self.columns = dict(columns)
        self._lock = Lock()
        self._taken = 0
        self._waiting = 0
        self._ends = dict.fromkeys(columns, 0)

    def take(self, frames: int = 1) -> None:
        """Frames came in, and wait for their end."""
        with self._lock:
            self._taken += frames
            self._waiting += frames

    def settle(self, column: str, frames: int = 1) -> None:
        """Frames that waited came to an end.

        Raises
        ------
        ValueError
            If there is no such column, or fewer frames wait.
        """
        with self._lock:
            if column not in self._ends:
                raise ValueError(f"the ledger has no column {column!r}; its columns are {', '.join(self._ends)}")
            if frames > self._waiting:
                raise ValueError(f"{frames} frame(s) cannot end as {column!r}: only {self._waiting} are waiting")
            self._waiting -= frames
            self._ends[column] += frames

    def counts(self) -> dict[str, int]:
        """Give the table as of now: ``taken``, ``waiting`` and every column."""
        with self._lock:
            return {"taken": self._taken, "waiting": self._waiting, **self._ends}

    def __getitem__(self, column: str) -> int:
        return self.counts()[column]

    def __repr__(self) -> str:
        counts = ", ".join(f"{name} {count}" for name, count in self.counts().items() if count or name == "taken")
        return f"<Ledger {counts}>"


def balanced(counts: Mapping[str, int]) -> bool:
    """Whether a table, perhaps one that was read from a file, adds up."""
    return counts["taken"] == sum(count for name, count in counts.items() if name != "taken")
