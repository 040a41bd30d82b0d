"""The terminal: progress bars, tables and warnings of the command line.

Receives what the parts report; draws it with rich. It decides nothing.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Self

from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

if TYPE_CHECKING:
    from live_restore.engines.engine import EngineStatus
    from live_restore.models.registry import Found
    from live_restore.offline import Outcome


def counting_bars(console: Console) -> Progress:
    """Lay out bars that count, with the time that has passed and the time left; every task has a field ``unit``."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[unit]}, [dim]elapsed"),
        TimeElapsedColumn(),
        TextColumn("[dim]left"),
        TimeRemainingColumn(),
        console=console,
    )


class Bars:
    """Progress bars, a `Listener` of offline restoration: volumes of the image in hand, with time left, and tiles."""

    def __init__(self, console: Console) -> None:
        self._progress = counting_bars(console)
        self._volumes = self._progress.add_task("", total=None, unit="", visible=False)
        self._tiles = self._progress.add_task("", total=None, unit="", visible=False)

    def image(self, name: str, volumes: int, already: int) -> None:
        """Begin the bar of an image."""
        self._progress.remove_task(self._volumes)
        self._volumes = self._progress.add_task(escape(name), total=volumes, completed=already, unit="volumes")
        if already:
            self._progress.console.print(f"{escape(name)}: {already} of {volumes} volumes were restored by an earlier run")

    def tile(self, done: int, total: int) -> None:
        """Move the bar of tiles; it shows only where a volume has several."""
        self._progress.update(
            self._tiles, description="  [dim]this volume", total=total, completed=done, unit="tiles", visible=1 < total > done
        )

    def volume(self) -> None:
        """Move the bar of volumes."""
        self._progress.advance(self._volumes)

    def count(self, done: int, total: int) -> None:
        """Move the bar of a task that counts something else, such as files."""
        self._progress.update(self._volumes, completed=done, total=total, unit="files")

    def step(self, name: str, done: int, total: int, unit: str) -> None:
        """Move the bar of one task from start to end."""
        self._progress.update(self._volumes, description=escape(name), completed=done, total=total, unit=unit, visible=True)

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._progress.stop()


def print_facts(console: Console, title: str, facts: Sequence[tuple[str, str]]) -> None:
    """Print a model's fact sheet."""
    table = Table(title=escape(title), title_justify="left", show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for label, text in facts:
        table.add_row(label, escape(text))
    console.print(table)


def print_models(console: Console, found: "Sequence[Found]") -> None:
    """Print a line per model package."""
    from live_restore.models.registry import COLUMNS

    table = Table(*COLUMNS, box=None, pad_edge=False)
    for entry in found:
        table.add_row(*map(escape, entry.row))
    console.print(table)


def print_engines(console: Console, statuses: "Sequence[EngineStatus]") -> None:
    """Print which engines there are, which of them can run here, and what is missing for the others."""
    for status in statuses:
        runs = "[yellow]not here[/]"
        if status.offer:
            precisions = ", ".join(status.offer.precisions)
            runs = f"[green]{status.offer.version}, {precisions}, on {escape(status.offer.device)}[/]"
        console.print(f"[bold]{status.kind.name:10}[/] {runs}")
        for sentence in (status.kind.about, status.why_not):
            if sentence:
                console.print(Padding(f"[dim]{escape(sentence)}[/]", (0, 0, 0, 11)))


def print_outcomes(out: Console, err: Console, outcomes: "Sequence[Outcome]") -> None:
    """Print what was restored and what deserves a warning, the same warning once for all images it concerns."""
    done = [outcome for outcome in outcomes if not outcome.failure]
    warned: dict[str, list[str]] = {}
    for outcome in done:
        for sentence in outcome.warnings:
            warned.setdefault(sentence, []).append(outcome.path.name)
    for sentence, names in warned.items():
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        where = f" [dim]({escape(', '.join(names[:3]))}{more})[/]" if len(outcomes) > 1 else ""
        err.print(f"[yellow]warning:[/] {escape(sentence)}{where}")
    for outcome in outcomes:
        if outcome.failure:
            err.print(f"[bold red]not restored:[/] {escape(outcome.path.name)}: {escape(str(outcome.failure))}")
    if not done:
        return
    outcomes = done
    volumes, already = sum(o.volumes for o in outcomes), sum(o.already for o in outcomes)
    earlier = f", {already} by an earlier run" if already else ""
    folder = outcomes[0].path if len(outcomes) == 1 else outcomes[0].path.parent
    out.print(f"restored {volumes} volume(s) of {len(outcomes)} image(s){earlier}: [bold]{escape(str(folder))}[/]")
