"""What became of an acquisition at the hook: in words for a person, as a mapping for the record.

Receives counts; hands on sentences. It does not know where the counts come from.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from live_restore.ledger import HOOK_COLUMNS


@dataclass(frozen=True, slots=True)
class Summary:
    """The end of an acquisition.

    Attributes
    ----------
    run : str
    ledger : mapping of str to int
        Frames, see `live_restore.ledger`.
    skipped_volumes : mapping of str to int
        Volumes that were not sent, or not wholly, by reason.
    returned, dropped : int
        Restored volumes that came back, and those of them that nobody took in time.
    errors : int
        What went wrong within the hook.
    warnings : tuple of str
    folder : Path or None
        The run folder.
    """

    run: str
    ledger: Mapping[str, int]
    skipped_volumes: Mapping[str, int]
    returned: int
    dropped: int
    errors: int
    warnings: tuple[str, ...]
    folder: Path | None

    def as_mapping(self) -> dict[str, Any]:
        """Give everything, as JSON has it."""
        return {
            "run": self.run,
            "ledger": dict(self.ledger),
            "skipped_volumes": dict(self.skipped_volumes),
            "returned": self.returned,
            "dropped": self.dropped,
            "errors": self.errors,
            "warnings": list(self.warnings),
            "folder": None if self.folder is None else str(self.folder),
        }

    def __str__(self) -> str:
        taken = self.ledger["taken"]
        words = [f"{taken} frame(s) came through the hook, and all of them stay with the acquisition."]
        words += [f"{self.ledger[name]}: {meaning}." for name, meaning in HOOK_COLUMNS.items() if self.ledger[name]]
        if self.ledger["waiting"]:
            words.append(f"{self.ledger['waiting']}: still waiting, or on their way.")
        words += [f"{count} volume(s) are left for later: {why}." for why, count in self.skipped_volumes.items()]
        if self.returned:
            words.append(f"{self.returned} restored volume(s) came back, {self.dropped} of them too fast for the script.")
        if self.skipped_volumes and self.folder is not None:
            words.append(f"To restore what is left: live-restore backfill {self.folder}")
        if self.errors:
            words.append(f"The hook failed {self.errors} time(s), see the log.")
        return "\n".join([*words, *(f"Warning: {warning}." for warning in self.warnings)])
