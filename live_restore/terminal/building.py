"""The terminal of builds: a bar per plan, what was built, what is in the cache.

Receives what the build reports and what the cache holds; draws it with rich. It decides nothing.
"""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Self

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

if TYPE_CHECKING:
    from live_restore.build import Built
    from live_restore.engines.cache import CacheEntry

_STEPS = 1000


class BuildBars:
    """A bar that moves once for each plan, a `BuildListener`."""

    def __init__(self, console: Console) -> None:
        self._progress = Progress(
            TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn(), console=console
        )
        self._task = self._progress.add_task("", total=_STEPS, visible=False)

    def plan(self, name: str, number: int, total: int) -> None:
        """Begin the bar of a plan."""
        self._progress.reset(self._task, total=_STEPS, visible=True, description=f"{number} of {total}  {escape(name)}")

    def progress(self, done: float) -> None:
        """Move the bar."""
        self._progress.update(self._task, completed=round(done * _STEPS))

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._progress.update(self._task, visible=False)
        self._progress.stop()


def print_built(out: Console, done: "Sequence[Built]") -> None:
    """Print a line per plan: what it is for, how large it is, how long it took."""
    table = Table(box=None, pad_edge=False)
    for heading in ("network", "graph", "precision", "for", "shapes"):
        table.add_column(heading, overflow="fold")
    for heading in ("layers", "MB", "s", "GB on the card"):
        table.add_column(heading, justify="right")
    for one in done:
        request = one.planned.request
        words = (one.planned.network, one.planned.graph, request.precision, str(request.target), str(request.profile))
        table.add_row(*map(escape, words), *_figures(one))
    out.print(table)


def _figures(one: "Built") -> list[str]:
    if one.plan is None:
        return ["", f"{one.path.stat().st_size / 1e6:.1f}", "in the cache", ""]
    memory = "-" if one.plan.memory_bytes is None else f"{one.plan.memory_bytes / 1e9:.1f}"
    return [str(one.plan.layers), f"{len(one.plan.plan) / 1e6:.1f}", f"{one.plan.seconds:.2f}", memory]


def print_cache(out: Console, entries: "Iterable[CacheEntry]") -> int:
    """Print a line per engine in the cache, and whether this machine loads it; give how many there are."""
    table = Table(box=None, pad_edge=False)
    for heading in ("network", "built with", "precision", "for", "driver", "shapes"):
        table.add_column(heading, overflow="fold")
    table.add_column("MB", justify="right")
    table.add_column("built, UTC", no_wrap=True)
    table.add_column("")
    count = 0
    for count, entry in enumerate(entries, 1):  # noqa: B007 (the number of lines is what is given back)
        key = entry.key
        built_with, card = f"{key.flavour} {key.flavour_version}", f"{key.device} ({key.capability})"
        words = (entry.name or key.onnx_sha256[:12], built_with, key.precision, card, key.driver, key.profile)
        loaded = "" if entry.sealed_here else "[yellow]not built on this machine: not loaded[/]"
        table.add_row(*map(escape, words), f"{entry.engine_bytes / 1e6:.1f}", entry.built[:16].replace("T", " "), loaded)
    if count:
        out.print(table)
    return count
