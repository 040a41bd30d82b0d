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
    from live_restore.engines.cache.engine_cache import CacheEntry

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
    """Print the plans: what each is for, how large it is, how long it took."""
    table = Table(box=None, pad_edge=False)
    for heading in ("network", "for"):
        table.add_column(heading, overflow="fold")
    table.add_column("shapes", no_wrap=True)
    for heading in ("layers", "MB", "s", "GB on\nthe card"):
        table.add_column(heading, justify="right")
    for one in done:
        request = one.planned.request
        network = one.planned.network if one.planned.graph == "whole" else f"{one.planned.network}\n{one.planned.graph}"
        words = (network, f"{request.target}\n{request.precision}", _below_each_other(str(request.profile)))
        table.add_row(*map(escape, words), *_figures(one))
    out.print(table)


def _below_each_other(profile: str) -> str:
    """Break a range of shapes into its name, its ends and its best, so that it fits a narrow terminal."""
    name, _, shapes = profile.partition(" ")
    return "\n".join((name, *shapes.split(", ")))


def _figures(one: "Built") -> list[str]:
    if one.plan is None:
        return ["", f"{one.path.stat().st_size / 1e6:.1f}", "in the cache", ""]
    memory = "-" if one.plan.memory_bytes is None else f"{one.plan.memory_bytes / 1e9:.1f}"
    return [str(one.plan.layers), f"{len(one.plan.plan) / 1e6:.1f}", f"{one.plan.seconds:.2f}", memory]


def print_cache(out: Console, entries: "Iterable[CacheEntry]") -> int:
    """Print the engines in the cache, and whether this machine loads them; give how many there are."""
    table = Table(box=None, pad_edge=False, collapse_padding=True)
    table.add_column("network", overflow="fold")
    table.add_column("built with", overflow="fold", min_width=len("tensorrt_rtx"))
    table.add_column("for", overflow="fold")
    table.add_column("shapes", no_wrap=True)
    table.add_column("MB", justify="right")
    table.add_column("built, UTC", overflow="fold", min_width=len("2026-01-01"))
    count = foreign = 0
    for count, entry in enumerate(entries, 1):  # noqa: B007 (the number of lines is what is given back)
        key = entry.key
        network = escape(entry.name or key.onnx_sha256[:12])
        if not entry.sealed_here:
            network += "\n[yellow]not loaded[/]"
            foreign += 1
        built_with = f"{key.flavour}\n{key.flavour_version}"
        driver = "" if key.driver == "any" else f", driver {key.driver}"
        card = f"{key.device} ({key.capability})\n{key.precision}{driver}"
        words = (built_with, card, _below_each_other(key.profile))
        table.add_row(network, *map(escape, words), f"{entry.engine_bytes / 1e6:.1f}", entry.built[:16].replace("T", " "))
    if count:
        out.print(table)
    if foreign:
        out.print(f"[yellow]{foreign} not built on this machine: not loaded[/]")
    return count
