"""The account of a run: what became of every frame, from what hook, restore process and journal wrote.

Receives a run folder, also of a run that goes on or was killed; hands on a table that adds up, in words. It reads
nothing but the folder, and does not know the raw dataset.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from live_restore.ledger import HOOK_COLUMNS, RESTORE_COLUMNS, balanced
from live_restore.records.runs import HOOK, RESTORE, RunFolder, read_journal

# Ends at the hook, and in the restore process, that leave a frame to be restored later.
_OPEN_AT_HOOK = ("skipped", "unattached", "lost", "refused", "waiting")
_OPEN_AT_RESTORE = ("incomplete", "failed", "waiting")
_WORDS = {
    "waiting": "on its way when this was written",
    "interrupted": "with a restore process that ended before it was done",
    "not recorded": "restored, but not in the sidecar: the events say why",
}


@dataclass(frozen=True, slots=True)
class Row:
    """One end that frames came to: how many, what it means, and how many volumes where that is known."""

    name: str
    meaning: str
    frames: int
    volumes: int | None = None


@dataclass(frozen=True, slots=True)
class Account:
    """What became of the frames of a run.

    Attributes
    ----------
    offered : int
        Frames that were given to the hook.
    rows : tuple of Row
        They add up to `offered`.
    reasons : tuple of Row
        Why frames were not restored live.
    problems : tuple of str
        What does not add up, in words; empty if the account is balanced to the frame.
    """

    offered: int
    rows: tuple[Row, ...]
    reasons: tuple[Row, ...]
    problems: tuple[str, ...]

    @property
    def balanced(self) -> bool:
        """Whether every frame is accounted for."""
        return not self.problems

    def lines(self) -> list[str]:
        """Give the account in words, a line each."""
        told = [f"{self.offered} frames were offered"]
        told += [_line(row, 2) for row in self.rows]
        if self.reasons:
            told += ["not restored live, and why:", *(_line(row, 2) for row in self.reasons)]
        return [*told, *(self.problems or ("every frame is accounted for",))]


def account(folder: Path) -> Account:
    """Draw up the account of a run folder, as far as it is written.

    Raises
    ------
    ImageError
        If it is no run folder.
    """
    opened = RunFolder.open(folder)
    hook, restore = _ledger(opened.described(HOOK)), _ledger(opened.described(RESTORE), unfinished="interrupted")
    live, later = _journal(folder)
    ends = [live, later, *(Row(n, RESTORE_COLUMNS[n], restore.get(n, 0)) for n in ("reference", "without_model"))]
    ended = sum(row.frames for row in ends)
    # without the hook's word, the restore process knows only of what it was sent, and backfill finds more in the raw dataset
    offered = hook["taken"] if "taken" in hook else max(restore.get("taken", 0), ended)
    rest = offered - ended
    rows = (*ends, Row("not restored", "backfill restores what the raw dataset holds of it", max(0, rest)))
    problems = [*_unbalanced("hook", hook), *_unbalanced("restore process", restore)]
    if rest < 0:
        problems.append(f"{-rest} more frames came to an end than were offered")
    return Account(offered, rows, _reasons(hook, restore, live.frames), tuple(problems))


def _ledger(said: Mapping[str, Any], unfinished: str = "waiting") -> Counter[str]:
    """Add the table of the process that wrote last to those of the ones before it; empty if nobody wrote.

    What waited in one of those before is told as `unfinished`: it waits no longer.
    """
    total = _counts(said.get("ledger"))
    for counts in said.get("earlier") or ():
        before = _counts(counts)
        total.update({unfinished if name == "waiting" else name: n for name, n in before.items()})
    return total


def _counts(said: object) -> Counter[str]:
    return Counter({name: n for name, n in said.items() if isinstance(n, int)} if isinstance(said, dict) else {})


def _journal(folder: Path) -> tuple[Row, Row]:
    """Count what is restored: live, and later."""
    frames, volumes = [0, 0], [0, 0]
    for line in read_journal(folder).values():
        later = line["said"].get("live") is False
        made_of = line["said"].get("frames", line.get("planes"))
        frames[later] += made_of if isinstance(made_of, int) else 0
        volumes[later] += 1
    return (
        Row("restored live", "in the sidecar", frames[0], volumes[0]),
        Row("restored later", "in the sidecar, from the raw dataset", frames[1], volumes[1]),
    )


def _reasons(hook: Mapping[str, int], restore: Mapping[str, int], recorded: int) -> tuple[Row, ...]:
    # a killed process' table is older than its journal: what only the journal knows of neither waits nor was interrupted
    unseen = max(0, recorded - restore.get("restored", 0))
    before = min(unseen, restore.get("interrupted", 0))
    still = min(unseen - before, restore.get("waiting", 0))
    restore = {**restore, "waiting": restore.get("waiting", 0) - still}
    untaken = max(0, hook.get("receipted", 0) - restore.get("taken", 0) - (unseen - before - still))
    interrupted = restore.get("interrupted", 0) - before + untaken
    found = [(name, HOOK_COLUMNS, hook.get(name, 0)) for name in _OPEN_AT_HOOK]
    found += [(name, RESTORE_COLUMNS, restore.get(name, 0)) for name in _OPEN_AT_RESTORE]
    found += [("interrupted", {}, interrupted), ("not recorded", {}, max(0, restore.get("restored", 0) - recorded))]
    return tuple(Row(name, columns.get(name) or _WORDS[name], frames) for name, columns, frames in found if frames)


def _unbalanced(who: str, counts: Mapping[str, int]) -> Iterable[str]:
    if counts and not balanced({"taken": 0, **counts}):
        ends = sum(count for name, count in counts.items() if name != "taken")
        yield f"the ledger of the {who} does not add up: {counts.get('taken', 0)} frames came in, {ends} are accounted for"


def _line(row: Row, indent: int) -> str:
    volumes = "" if row.volumes is None else f" ({row.volumes} volumes)"
    return f"{' ' * indent}{row.frames:>8}  {row.name}{volumes}: {row.meaning}"
