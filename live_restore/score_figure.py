"""The figure of scores: what restoring gained, field by field and frequency by frequency.

Receives numbers and curves; hands on a PNG or PDF file. It does not know how they were measured.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from live_restore.figure_page import (
    HONEST_LINE,
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

DoubleArray = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class ScoreRow:
    """One field of a score figure.

    Attributes
    ----------
    title : str
    restored_db, raw_db : float
        PSNR against the reference; raw may be None.
    frequency, restored_correlation, raw_correlation : ndarray, (rings,), float64
        Fourier ring correlation with the reference over cycles per pixel; raw may be None.
    """

    title: str
    restored_db: float
    raw_db: float | None
    frequency: DoubleArray
    restored_correlation: DoubleArray
    raw_correlation: DoubleArray | None = None


def score_figure(rows: Sequence[ScoreRow], path: Path) -> None:
    """Draw what restoring gained: PSNR of every field, and how fine a structure is shared with the reference.

    Parameters
    ----------
    rows : sequence of ScoreRow
        At least one.
    path : Path
        ``.png`` or ``.pdf``.
    """
    if not rows:
        raise ValueError("a score figure of no fields; give at least one")
    height = max(4.6, 1.7 + 0.26 * len(rows))
    figure = new_figure(path, height)
    bottom, top = 0.95 / height, 0.8 / height
    gains = figure.add_axes((0.13, bottom, 0.38, 1 - bottom - top), facecolor=PAPER)
    tall = min(1 - bottom - top, 4.2 / height)
    rings = figure.add_axes((0.60, 1 - top - tall, 0.37, tall), facecolor=PAPER)
    _draw_gains(gains, rows)
    _draw_rings(rings, rows)
    write_line(figure, height, WIDTH_IN - MARGIN_IN, 0.25, HONEST_LINE, style="italic", size=10.5, ha="right")
    save(figure, path)


def _draw_gains(axes: "Axes", rows: Sequence[ScoreRow]) -> None:
    """One line per field, from the raw image's PSNR to the restored one's."""
    places = np.arange(len(rows))
    restored = _finite([row.restored_db for row in rows])
    raw = _finite([row.raw_db for row in rows])
    axes.hlines(places, raw, restored, color=RESTORED, alpha=0.35, lw=2.5)
    axes.scatter(raw, places, s=26, color=RAW, label="raw", zorder=3)
    axes.scatter(restored, places, s=34, color=RESTORED, label="restored", zorder=3)
    axes.set_yticks(places, [shorten(row.title, 20) for row in rows])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    style_axes(axes, "PSNR against the reference, dB", "")
    axes.grid(axis="x", color=MUTED, alpha=0.18, lw=0.6)
    axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2, frameon=False, fontsize=9, labelcolor=INK)
    axes.set_title(_gain_title(raw, restored), loc="left", fontsize=12, weight="bold", color=INK)


def _gain_title(raw: DoubleArray, restored: DoubleArray) -> str:
    gains = (restored - raw)[np.isfinite(restored - raw)]
    if not gains.size:
        return "PSNR"
    return f"PSNR {gains.mean():+.1f} dB" + (" on average" if len(gains) > 1 else "")


def _draw_rings(axes: "Axes", rows: Sequence[ScoreRow]) -> None:
    """Draw every field thin and the mean thick."""
    threshold = 1 / 7
    grid = np.linspace(0, 0.5, 129)
    groups = {
        "raw": (RAW, [(row.frequency, row.raw_correlation) for row in rows if row.raw_correlation is not None]),
        "restored": (RESTORED, [(row.frequency, row.restored_correlation) for row in rows]),
    }
    for name, (colour, curves) in groups.items():
        for frequency, correlation in curves if len(curves) > 1 else []:
            axes.plot(frequency, correlation, color=colour, lw=0.5, alpha=0.2)
        if curves:
            axes.plot(grid, np.mean([np.interp(grid, *curve) for curve in curves], axis=0), color=colour, lw=2.2, label=name)
    axes.axhline(threshold, color=REFERENCE, lw=0.9, ls=(0, (5, 3)))
    axes.text(0.495, threshold + 0.015, "1/7", color=REFERENCE, ha="right", va="bottom", fontsize=9)
    axes.set(xlim=(0, 0.5), ylim=(-0.05, 1.03))
    style_axes(axes, "cycles per pixel", "")
    axes.set_title("Fourier ring correlation with the reference", loc="left", fontsize=12, weight="bold", color=INK)
    axes.legend(loc="upper right", frameon=False, fontsize=9, labelcolor=INK)


def _finite(values: Sequence[float | None]) -> DoubleArray:
    """None and infinities as NaN, which is not drawn."""
    numbers = np.array([np.nan if value is None else value for value in values], np.float64)
    return np.where(np.isfinite(numbers), numbers, np.nan)
