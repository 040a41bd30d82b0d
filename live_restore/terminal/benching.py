"""The terminal of ``live-restore bench``: tables, and the files that are written beside them.

Receives what was measured; draws it with rich and writes it into a folder. It decides nothing.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table

if TYPE_CHECKING:
    from live_restore.bench.keeps_up import Outlook
    from live_restore.bench.scaling import Scaling
    from live_restore.bench.table import Benchmark

_NUMBERS_FROM = 4
_LEFT_OUT_FIRST = (
    "p95", "Mpx/s", "GFLOP/s", "memory", "per s", "runs on", "all checked", "assembly", "tiles", "of peak", "", "error",
)  # fmt: skip


def print_benchmark(console: Console, measured: "Benchmark") -> None:
    """Print the table, what it stands beside, and how ours compares with the peers."""
    from live_restore.bench.table import HEAD, cells_of, times_faster

    _print_conditions(console, measured.conditions)
    limits = [f"{name} {rate:.0f} GFLOP/s" for name, rate in measured.peaks.items()]
    limits += [f"memory {measured.copy_gb_per_s:.0f} GB/s copied"] if measured.copy_gb_per_s else []
    console.print(f"[bold]limits, measured[/]  {escape(', '.join(limits))}")
    ran = [cells_of(row) for row in measured.rows if not row.why_not]
    if ran:
        _print_table(console, HEAD, ran, _NUMBERS_FROM)
    for row in measured.rows:
        if row.why_not:
            console.print(Padding(f"[yellow]{escape(f'{row.network} {row.size} on {row.engine} {row.precision}')}[/]", (0, 0)))
            console.print(Padding(f"[dim]{escape(row.why_not)}[/]", (0, 0, 0, 4)))
    for sentence in times_faster(measured.rows):
        console.print(escape(sentence))


def write_benchmark(console: Console, measured: "Benchmark", folder: Path) -> None:
    """Write ``bench.json``, ``bench.md`` and ``bench.png``."""
    from live_restore.bench.figure import benchmark_figure
    from live_restore.bench.table import write_json, write_text

    write_json(folder / "bench.json", measured.as_json())
    write_text(folder / "bench.md", measured.as_markdown())
    if any(row.median_ms for row in measured.rows):
        benchmark_figure(measured, folder / "bench.png")
    console.print(f"written: [bold]{escape(str(folder))}[/]")


def print_outlook(console: Console, seen: "Outlook") -> None:
    """Print the answer, what it rests on, and what would help."""
    first, *more = seen.in_words()
    console.print(f"[bold {'green' if seen.keeps_up else 'yellow'}]{escape(first)}[/]")
    for sentence in more:
        console.print(escape(sentence))
    rows = [
        (
            channel if channel != "*" else "all",
            "x".join(map(str, pace.shape)),
            pace.engine,
            *(
                f"{1e3 * seconds:.3g} ms" if seconds < 0.1 else f"{1e3 * seconds:.0f} ms"
                for seconds in (pace.assemble_s, pace.restore_s, pace.check_s)
            ),
            f"{1 / pace.volume_s:.3g}",
            f"{1 / pace.all_checked_s:.3g}",
        )
        for channel, pace in seen.paces.items()
    ]
    head = ("channel", "volume", "runs on", "assembly", "restoration", "check", "volumes/s", "all checked")
    _print_table(console, head, rows, 3)
    if seen.helps:
        console.print("[bold]what would help[/]")
        for sentence in seen.helps:
            console.print(Padding(escape(sentence), (0, 0, 0, 2)))


def write_outlook(console: Console, seen: "Outlook", folder: Path) -> None:
    """Write ``outlook.json``."""
    from live_restore.bench.table import write_json

    write_json(folder / "outlook.json", seen.as_json())
    console.print(f"written: [bold]{escape(str(folder / 'outlook.json'))}[/]")


def print_scaling(console: Console, measured: "Scaling") -> None:
    """Print every point beside what was expected of it."""
    from live_restore.bench.scaling import HEAD, cells_of

    _print_conditions(console, measured.conditions)
    rows: list[Sequence[str]] = [cells_of(point) for point in measured.points]
    networks = {cells[0] for cells in rows}
    said = 1 if len(networks) == 1 else 0  # one network is said once, which leaves room for what changes
    if said:
        console.print(f"[bold]{escape(networks.pop())}[/]")
    _print_table(console, HEAD[said:], [cells[said:] for cells in rows], 3 - said)


def write_scaling(console: Console, measured: "Scaling", folder: Path) -> None:
    """Write ``scaling.json``, ``scaling.md`` and ``scaling.png``."""
    from live_restore.bench.figure import scaling_figure
    from live_restore.bench.table import write_json, write_text

    write_json(folder / "scaling.json", measured.as_json())
    write_text(folder / "scaling.md", measured.as_markdown())
    if any(point.median_ms for point in measured.points):
        scaling_figure(measured, folder / "scaling.png")
    console.print(f"written: [bold]{escape(str(folder))}[/]")


def _print_conditions(console: Console, conditions: Mapping[str, str]) -> None:
    for name, what in conditions.items():
        console.print(f"[dim]{escape(name)}: {escape(str(what))}[/]")


def _print_table(console: Console, head: Sequence[str], rows: Sequence[Sequence[str]], numbers_from: int) -> None:
    """Print a table; where the terminal is narrow, without the columns that can best be done without."""
    shown = _fitting(head, rows, console.width)
    table = Table(box=None, pad_edge=False)
    for place in shown:
        words = place < numbers_from or not head[place]
        table.add_column(head[place], justify="left" if words else "right", no_wrap=bool(head[place]))
    for cells in rows:
        table.add_row(*(escape(cells[place]) for place in shown))
    console.print(table)
    if len(shown) < len(head):
        left_out = ", ".join(name or "remarks" for place, name in enumerate(head) if place not in shown)
        console.print(f"[dim]not shown in {console.width} columns: {escape(left_out)}; -o FOLDER writes all[/]")


def _fitting(head: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> list[int]:
    """Choose columns that fit; one without a heading may be folded."""
    needed = [
        max(len(text) for text in (name, *(cells[place] for cells in rows))) if name else 20 for place, name in enumerate(head)
    ]
    shown = list(range(len(head)))
    for name in _LEFT_OUT_FIRST:
        if sum(needed[place] + 2 for place in shown) - 2 <= width:
            break
        shown = [place for place in shown if head[place] != name]
    for name in reversed(_LEFT_OUT_FIRST):  # a wide one that had to go after all may have made room for these
        more = sorted({*shown, *(place for place, other in enumerate(head) if other == name)})
        if sum(needed[place] + 2 for place in more) - 2 <= width:
            shown = more
    return shown
