"""The terminal of pairs: a table of what was measured on each, and totals.

Receives a `Check`; draws it with rich. It decides nothing.
"""

import statistics
from collections.abc import Sequence
from typing import TYPE_CHECKING, Self

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

if TYPE_CHECKING:
    from live_restore.pairs.check import Check, CheckedPair
    from live_restore.pairs.quality import PairFacts

# More rows than these are shown only on request: first the rejected ones, then the rest.
_MOST_ROWS = 60
# Wider than any table of pairs.
_WIDEST = 400


class CheckBar:
    """A bar of the pairs that are checked; it goes when it is full."""

    def __init__(self, console: Console, name: str) -> None:
        columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("pairs, [dim]left")
        self._progress = Progress(*columns, TimeRemainingColumn(), console=console, transient=True)
        self._task = self._progress.add_task(f"checking {escape(name)}", total=None)

    def count(self, done: int, total: int) -> None:
        """Move the bar."""
        self._progress.update(self._task, completed=done, total=total)

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._progress.stop()


def print_check(console: Console, check: "Check", *, everything: bool = False) -> None:
    """Print a line per pair, the reasons, and totals."""
    shown = check.checked
    if len(shown) > _MOST_ROWS and not everything:
        shown = (*check.rejected, *check.accepted)[:_MOST_ROWS]
    table = _table(check, shown)
    # a row that folds can be read, figures that are cut off cannot
    table.width = console.measure(table, options=console.options.update(width=_WIDEST)).maximum
    console.print(table, crop=False)
    for one in shown:
        if one.pair.reason:
            console.print(f"[yellow]rejected:[/] [bold]{escape(one.pair.name)}[/]: {escape(one.pair.reason)}", soft_wrap=True)
    if len(shown) < len(check.checked):
        console.print(f"[dim]{len(check.checked) - len(shown)} more accepted pairs; --all shows them[/]")
    for note in check.notes:
        console.print(f"[dim]note:[/] {escape(note)}", soft_wrap=True)
    console.print(_totals(check), soft_wrap=True)


def _table(check: "Check", shown: "Sequence[CheckedPair]") -> Table:
    table = Table(title=escape(check.folder.name), title_justify="left", box=None, pad_edge=False, header_style="bold")
    table.add_column("pair", no_wrap=True)
    # the names of a calibration's pairs tell the channel
    several = len({one.pair.channel for one in check.checked}) > 1 and not all(
        one.pair.channel in one.pair.name for one in check.checked
    )
    if several:
        table.add_column("channel")
    table.add_column("split")
    for title in ("SNR", "shift px", "motion", "light x", "noise x", "blur px", "saturated"):
        table.add_column(title, justify="right")
    table.add_column("")
    for one in shown:
        pair = one.pair
        words = [escape(pair.name), *([escape(pair.channel)] if several else []), pair.split or "[dim]-[/]"]
        verdict = "[green]good[/]" if pair.accepted else "[bold yellow]rejected[/]"
        table.add_row(*words, *_figures(one.facts), verdict)
    return table


def _figures(facts: "PairFacts | None") -> list[str]:
    if facts is None:
        return ["[dim]-[/]"] * 7
    shift = ", ".join(f"{px:+.2f}" for px in facts.shift_px) or "[dim]?[/]"
    saturated = max(facts.saturated_low, facts.saturated_high)
    light = _number(facts.mean_ratio, ".3g") + (f" [dim]of {facts.dose_ratio:.3g}[/]" if facts.dose_ratio else "")
    return [
        _number(facts.snr, ".1f"),
        shift,
        _number(facts.motion_px, ".1f"),
        light,
        _number(facts.noise_ratio, ".1f"),
        _number(facts.blur_px, "+.1f"),
        f"{100 * saturated:.2g} %" if saturated else "0",
    ]


def _number(value: float | None, how: str) -> str:
    return "[dim]?[/]" if value is None else format(value, how)


def _totals(check: "Check") -> str:
    good, positions = check.accepted, {one.pair.position or one.pair.name for one in check.accepted}
    snr = [one.facts.snr for one in good if one.facts and one.facts.snr is not None]
    middle = f", median SNR {statistics.median(snr):.1f}" if snr else ""
    bad = f", [yellow]{len(check.rejected)} rejected[/]" if check.rejected else ""
    return f"[bold]{len(good)} of {len(check.checked)} pairs are good[/]{bad}; {len(positions)} positions{middle}"
