"""The figures of a benchmark: who takes how long and how near to the machine's limit, and how the cost grows.

Receives rows and points; hands on PNG or PDF files. It does not know how they were measured.
"""

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from live_restore.bench.scaling import Point, Scaling
from live_restore.bench.table import Benchmark, Row
from live_restore.figure_page import (
    INK,
    MARGIN_IN,
    MUTED,
    PAPER,
    RAW,
    REFERENCE,
    RESTORED,
    WIDTH_IN,
    new_figure,
    save,
    shorten,
    style_axes,
    write_line,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis

# Ours by precision; everybody else is amber.
_COLOURS = {"f32": "#7f9cff", "bf16": RESTORED, "f16": "#5be6a8", "int8": "#f28cb8"}
# Peaks of each engine, told apart where there are several.
_DASHES: dict[str, Any] = {"openvino": (0, (5, 3)), "tensorrt": "-"}
_ROW_IN, _HEAD_IN, _FOOT_IN, _TOP_IN = 0.30, 0.42, 0.85, 0.95
_MOST_ROWS = 60
_FEWEST_TICKS = 3


def benchmark_figure(measured: Benchmark, path: Path) -> None:
    """Draw every row that has figures: its time, and its rate beside the machine's peaks.

    Parameters
    ----------
    measured : Benchmark
    path : Path
        ``.png`` or ``.pdf``.

    Raises
    ------
    ValueError
        If nothing was measured.
    """
    rows = [row for row in measured.rows if row.median_ms is not None][:_MOST_ROWS]
    if not rows:
        raise ValueError("a figure of no measured row; see the reasons in the table")
    groups = [list(group) for _, group in groupby(rows, key=lambda row: (row.network, row.size))]
    inner = _ROW_IN * len(rows) + _HEAD_IN * len(groups)
    height = inner + _TOP_IN + _FOOT_IN
    figure = new_figure(path, height)
    bottom, tall = _FOOT_IN / height, inner / height
    times = figure.add_axes((0.15, bottom, 0.45, tall), facecolor=PAPER)
    rates = figure.add_axes((0.70, bottom, 0.27, tall), facecolor=PAPER)
    places, titles, end = _places(groups)
    _draw_times(times, groups, places, titles, end)
    _draw_rates(rates, rows, places, end, measured)
    title = "Counts in, counts out: time of one image, and how near that is to what the machine can do"
    write_line(figure, height, MARGIN_IN, height - 0.42, title, size=14, weight="bold")
    against = "the first peer" if any(row.peer for row in rows) else "the slowest"
    machine = f"{measured.conditions.get('processor', '')}; {measured.conditions.get('system', '')}"
    about = f"{shorten(machine, 90)}; medians, all in turn; beside them: times as fast as {against}"
    write_line(figure, height, MARGIN_IN, height - 0.68, about, size=9, color=MUTED)
    save(figure, path)


def _places(groups: Sequence[Sequence[Row]]) -> tuple[list[float], list[float], float]:
    """Lay rows from above, with room for a heading before each group; in inches."""
    places, titles, place = [], [], 0.0
    for group in groups:
        titles.append(place + _HEAD_IN * 0.62)
        place += _HEAD_IN
        for _ in group:
            places.append(place + _ROW_IN / 2)
            place += _ROW_IN
    return places, titles, place


def _draw_times(
    axes: "Axes", groups: Sequence[Sequence[Row]], places: Sequence[float], titles: Sequence[float], end: float
) -> None:
    rows = [row for group in groups for row in group]
    medians = [row.median_ms or 0.0 for row in rows]
    left, right = min(medians) / 2.2, max([*medians, *(row.p95_ms or 0.0 for row in rows)])
    axes.set_xscale("log")
    axes.set_xlim(left, right * 9)
    axes.set_ylim(end, 0)
    axes.hlines(places, left, medians, color=[_colour(row) for row in rows], lw=7, alpha=0.5)
    axes.scatter(medians, places, s=46, color=[_colour(row) for row in rows], zorder=3)
    for row, place, median_ms in zip(rows, places, medians, strict=True):
        p95_ms = row.p95_ms or median_ms
        axes.plot([median_ms, p95_ms], [place, place], color=INK, lw=0.8, alpha=0.6)
        axes.text(max(median_ms, p95_ms) * 1.07, place, _label(row, rows), va="center", fontsize=8.5, color=INK)
    axes.set_yticks(places, [f"{shorten(row.engine, 14)} {row.precision}" for row in rows])
    for group, place in zip(groups, titles, strict=True):
        axes.text(left, place, f" {group[0].network}, {group[0].size}", va="center", fontsize=10,
                  weight="bold", color=INK)  # fmt: skip
    style_axes(axes, "median time of one image, ms (line: to the 95th percentile)", "")
    plain_ticks(axes.xaxis, *axes.get_xlim())
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", color=MUTED, alpha=0.15, lw=0.6)
    axes.set_axisbelow(True)


def _label(row: Row, rows: Sequence[Row]) -> str:
    """Say the time, and how many times as fast as the one that its network's rows are compared with it is."""
    assert row.median_ms is not None
    base = _base([other for other in rows if (other.network, other.size) == (row.network, row.size)])
    text = f"{row.median_ms:.3g} ms" if row.median_ms < 100 else f"{row.median_ms:.0f} ms"
    return text if base is row or base.median_ms is None else f"{text} · {_times(base.median_ms / row.median_ms)}"


def _base(rows: Sequence[Row]) -> Row:
    """Choose whom the rows of one network are compared with: the first peer, or the slowest where there is none."""
    peers = [row for row in rows if row.peer]
    return peers[0] if peers else max(rows, key=lambda row: row.median_ms or 0.0)


def _times(ratio: float) -> str:
    return f"{ratio:.2g}×" if ratio < 0.95 else f"{ratio:.1f}×" if ratio < 9.95 else f"{ratio:.0f}×"  # noqa: RUF001


def _draw_rates(axes: "Axes", rows: Sequence[Row], places: Sequence[float], end: float, measured: Benchmark) -> None:
    known = [(row, place) for row, place in zip(rows, places, strict=True) if row.gflop_per_s]
    axes.set_ylim(end, 0)
    axes.set_yticks([])
    style_axes(axes, "rate, GFLOP/s", "")
    axes.spines["left"].set_visible(False)
    if not known:
        axes.set_xticks([])
        return
    top = max([*(row.gflop_per_s or 0.0 for row, _ in known), *measured.peaks.values()])
    axes.set_xscale("log")
    axes.set_xlim(min(row.gflop_per_s or top for row, _ in known) / 3, top * 1.9)
    plain_ticks(axes.xaxis, *axes.get_xlim(), most=5)
    for name, rate in measured.peaks.items():
        engine, _, precision = name.partition(" ")
        axes.axvline(
            rate, color=_COLOURS.get(precision, MUTED), lw=1.0, ls=_DASHES.get(engine, (0, (1, 2))), label=f"peak {name}"
        )
    if measured.peaks:
        axes.legend(
            loc="lower right",
            bbox_to_anchor=(1.02, 1.0),
            ncols=2,
            frameon=False,
            fontsize=7.5,
            labelcolor=INK,
            handlelength=1.6,
        )
    for row, place in known:
        colour = _colour(row)
        axes.scatter([row.gflop_per_s or 0.0], [place], s=34, color=colour, zorder=3)
        if row.of_peak is not None:
            axes.annotate(f"{100 * row.of_peak:.0f} %", (row.gflop_per_s or 1.0, place), xytext=(-7, 0), fontsize=8, color=INK,
                          textcoords="offset points", ha="right", va="center",
                          bbox={"facecolor": PAPER, "edgecolor": "none", "pad": 1.0})  # fmt: skip
    axes.grid(axis="x", color=MUTED, alpha=0.15, lw=0.6)


def plain_ticks(axis: "Axis", low: float, high: float, most: int = 7) -> None:
    """Put round numbers as people write them on a logarithmic axis: two at least, few enough not to touch, none between.

    Parameters
    ----------
    axis : Axis
        Logarithmic.
    low, high : float
        Its ends, above 0.
    most : int
        Ticks.
    """
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter, NullLocator

    ticks: list[float] = []
    for steps in ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 5, 7), tuple(np.arange(1, 10, 0.5)), tuple(np.arange(1, 10, 0.1))):
        decades = range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))) + 1)
        found = [float(f"{step * 10.0**decade:.3g}") for decade in decades for step in steps]
        within = [tick for tick in found if low <= tick <= high]
        if len(ticks) >= _FEWEST_TICKS and len(within) > most:
            break
        ticks = within
    every = -(-len(ticks) // most) if ticks else 1
    axis.set_major_locator(FixedLocator(ticks[::every]))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
    axis.set_minor_locator(NullLocator())
    axis.set_minor_formatter(NullFormatter())


def _colour(row: Row) -> str:
    return REFERENCE if row.peer else _COLOURS.get(row.precision, RAW)


# ------------------------------------------------------------------ growth

_LABELS = {"pixels": "pixels of an image", "planes": "planes of a stack", "channels": "channels", "tiles": "tiles"}


def scaling_figure(measured: Scaling, path: Path) -> None:
    """Draw time and memory of every sweep on logarithmic axes, each with the straight line of what is expected.

    Parameters
    ----------
    measured : Scaling
    path : Path
        ``.png`` or ``.pdf``.

    Raises
    ------
    ValueError
        If nothing was measured.
    """
    points = [point for point in measured.points if point.median_ms is not None]
    sweeps = [list(group) for _, group in groupby(points, key=lambda point: (point.network, point.sweep))][:4]
    if not sweeps:
        raise ValueError("a figure of no measured point; see the reasons in the table")
    height = 7.2
    figure = new_figure(path, height)
    wide = (1 - 0.075 - 0.02) / len(sweeps)
    for number, sweep in enumerate(sweeps):
        left = 0.075 + number * wide
        time = figure.add_axes((left, 0.52, wide - 0.055, 0.31), facecolor=PAPER)
        memory = figure.add_axes((left, 0.11, wide - 0.055, 0.31), facecolor=PAPER)
        _draw_growth(time, sweep, [point.median_ms for point in sweep], "time, ms" if number == 0 else "", of_time=True)
        known = [point for point in sweep if point.memory_mb]
        _draw_growth(memory, known, [point.memory_mb for point in known], "memory, MB" if number == 0 else "", of_time=False)
        time.set_title(f"{sweep[0].network}\nover {sweep[0].sweep}", loc="left", fontsize=10, weight="bold", color=INK)
    write_line(figure, height, MARGIN_IN, height - 0.42, "How the cost grows", size=14, weight="bold")
    about = (
        "dots: measured (in brackets: time over what was expected); dashed, time: in proportion to the work, halos of tiles "
    )
    about += "included; memory: a fixed part and one that grows with pixels"
    write_line(figure, height, MARGIN_IN, height - 0.68, about, size=9, color=MUTED)
    processor = measured.conditions.get("processor", "")
    write_line(figure, height, WIDTH_IN - MARGIN_IN, 0.2, shorten(processor, 90), size=8, color=MUTED, ha="right")
    save(figure, path)


def _draw_growth(axes: "Axes", points: Sequence[Point], values: Sequence[float | None], label: str, *, of_time: bool) -> None:
    colour = RESTORED if of_time else REFERENCE
    style_axes(axes, _LABELS[points[0].sweep] if points else "", label)
    if not points:
        return
    places = [point.value for point in points]
    measured = [value or 0.0 for value in values]
    expected = _expected(points, measured, of_time=of_time)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    if expected:
        axes.plot(places, expected, color=MUTED, lw=1.1, ls=(0, (5, 3)))
    axes.plot(places, measured, color=colour, lw=1.6, marker="o", ms=5)
    axes.set_xticks(places, [_short(place) for place in places])
    axes.minorticks_off()
    low, high = min([*measured, *expected]), max([*measured, *expected])
    air = (high / low) ** 0.2 * 1.25
    axes.set_ylim(low / air, high * air)
    plain_ticks(axes.yaxis, *axes.get_ylim())
    rises = measured[-1] >= measured[0]
    for number, (place, value, point) in enumerate(zip(places, measured, points, strict=True)):
        text = f"{value:.3g}" if value < 100 else f"{value:.0f}"
        if of_time and point.of_expected is not None:
            text += f"\n({point.of_expected:.2f})"
        above = number % 2 == 0  # in turn on either side of the line, where it is not
        offset, va = ((0, 5), "bottom") if above else ((0, -5), "top")
        ha = "right" if above == rises else "left"
        axes.annotate(text, (place, value), xytext=offset, textcoords="offset points", ha=ha, va=va, fontsize=7, color=INK)
    axes.margins(x=0.25)
    axes.grid(color=MUTED, alpha=0.15, lw=0.6)


def _expected(points: Sequence[Point], measured: Sequence[float], *, of_time: bool) -> list[float]:
    """Give the line to compare with: work in proportion for time, a fixed part and one that grows for memory."""
    if of_time:
        anchor = 0 if points[0].sweep == "tiles" else -1
        return [measured[anchor] * point.expected / points[anchor].expected for point in points]
    if points[0].sweep in ("tiles", "channels") or len(points) < 3:
        return []
    slope, fixed = np.polyfit([point.pixels for point in points], measured, 1)
    return [float(fixed + slope * point.pixels) for point in points]


def _short(value: int) -> str:
    """Write 4.2M for 4194304, and side² where it is one."""
    side = round(value**0.5)
    if value >= 10_000 and side * side == value:
        return f"{side}²"
    return str(value)
