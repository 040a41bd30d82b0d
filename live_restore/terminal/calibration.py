"""The terminal of calibration: a bar of pairs with the newest rejection, and what came of it all.

Receives what a calibration reports; draws it with rich. It decides nothing.
"""

from typing import TYPE_CHECKING, Self

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from live_restore.acquire.calibrate import rejections
from live_restore.terminal.offline import counting_bars

if TYPE_CHECKING:
    from live_restore.acquire.calibrate import Calibrated
    from live_restore.acquire.calibrate import Progress as Report

_MOST_REASONS = 6
_FIGURES = (
    ("offset_adu", "offset", "counts"),
    ("gain_adu_per_e", "gain", "counts per electron"),
    ("read_noise_e", "read noise", "electrons"),
)


class PairBar:
    """A bar of pairs; below it, where the microscope is and why the newest pair was rejected."""

    def __init__(self, console: Console) -> None:
        self._progress = counting_bars(console)
        self._task = self._progress.add_task("pairs", total=None, unit="pairs")
        self._reason = ""
        self._stopping = False

    def show(self, report: "Report") -> None:
        """Move the bar; a new rejection is printed above it."""
        if report.reason and report.reason != self._reason:
            self._progress.console.print(f"[yellow]rejected:[/] {escape(report.reason)}")
            self._reason = report.reason
        if report.stopping and not self._stopping:
            self._stopping = True
            self._progress.console.print("[yellow]stopping:[/] what was taken is written; a second Ctrl-C gives it up")
        what = "[yellow]waiting for the disk[/]" if report.waiting else escape(report.name) or "pairs"
        what = "writing" if report.stopping else what
        what = "measuring the camera" if report.measuring else what
        unit = f"pairs, {report.rejected} rejected" if report.rejected else "pairs"
        self._progress.update(self._task, description=what, completed=report.done, total=report.total, unit=unit)

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._progress.stop()


def print_calibrated(out: Console, err: Console, done: "Calibrated") -> None:
    """Print what a calibration came to, and what to do next."""
    pairs = done.pairs
    for sentence in (*done.warnings, *pairs.notes):
        err.print(f"[yellow]warning:[/] {escape(sentence)}")
    stopped = ", stopped by you" if done.stopped else ""
    out.print(f"{len(pairs.pairs)} of {done.planned} pairs in {done.seconds:.0f} s{stopped}")
    if pairs.pairs:
        out.print(_table(done))
    for count, reason in rejections(pairs.pairs)[:_MOST_REASONS]:
        example = "for example: " if count > 1 else ""
        out.print(f"  {count} rejected: {example}{escape(reason)}", soft_wrap=True)
    for line in _camera(done):
        out.print(escape(line), soft_wrap=True)
    out.print(f"pairs: [bold]{escape(str(pairs.folder))}[/]")
    if pairs.accepted:
        folder = escape(str(pairs.folder))
        out.print(f'next:  live-restore pairs show "{folder}" -o sheet.png', soft_wrap=True)
        out.print(f'       live-restore train "{folder}" -o MODEL', soft_wrap=True)


def _table(done: "Calibrated") -> Table:
    table = Table("channel", "accepted", "rejected", "to learn from", "held out", box=None, pad_edge=False)
    for channel in sorted({pair.channel for pair in done.pairs.pairs}):
        mine = [pair for pair in done.pairs.pairs if pair.channel == channel]
        good = [pair for pair in mine if pair.accepted]
        sides = [sum(pair.split == side for pair in good) for side in ("train", "held-out")]
        table.add_row(escape(channel), *map(str, (len(good), len(mine) - len(good), *sides)))
    return table


def _camera(done: "Calibrated") -> list[str]:
    """Say what the pairs tell of the camera, beside what the configuration says."""
    measured, configured = done.pairs.card.get("camera_measured"), done.pairs.card.get("camera") or {}
    if not measured:
        return []
    words = []
    for key, name, unit in _FIGURES:
        value, error = measured[key]["value"], measured[key]["error"]
        if value is not None and error is not None:
            beside = f" (configuration: {configured[key]:g})" if key in configured else ""
            words.append(f"{name} {value:.4g} ± {error:.2g} {unit}{beside}")
    return [f"the camera, from these pairs: {', '.join(words)}"] if words else []
