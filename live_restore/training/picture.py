"""The picture of a training under way: example patches and curves, in one PNG that is drawn anew now and then.

Receives the history and examples; hands on a file. It does not know networks. Drawn while the network waits, so it is small.
"""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from live_restore.training.progress import Entry, Example

_COLUMNS = ("low light", "restored", "high light")
_LARGEST = 192


def draw_progress(path: Path, history: Sequence[Entry], examples: Sequence[Example]) -> None:
    """Draw ``low | restored | high`` of each example, and beside them the loss and the PSNR over time."""
    rows = max(2, len(examples))
    figure = Figure(figsize=(9.6, 2.0 * rows), dpi=90, layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(rows, 5, width_ratios=(1, 1, 1, 1.1, 1.1))
    for row, example in enumerate(examples):
        _row(figure, grid, row, example)
    _curves(figure, grid, rows, history)
    draft = path.with_name(f".{path.name}.new")
    figure.savefig(draft, format="png")
    os.replace(draft, path)


def _row(figure: Figure, grid: object, row: int, example: Example) -> None:
    low, high = np.percentile(example.high, (0.5, 99.8))
    for column, (title, pixels) in enumerate(zip(_COLUMNS, (example.low, example.restored, example.high), strict=True)):
        axes = figure.add_subplot(grid[row, column])  # type: ignore[index]
        axes.imshow(_centre(pixels), cmap="gray", vmin=low, vmax=max(high, low + 1e-6), interpolation="nearest")
        axes.set_xticks([])
        axes.set_yticks([])
        if row == 0:
            axes.set_title(title, fontsize=9)
        if column == 0:
            axes.set_ylabel(example.name[:24], fontsize=7)


def _curves(figure: Figure, grid: object, rows: int, history: Sequence[Entry]) -> None:
    split = rows // 2
    losses = figure.add_subplot(grid[:split, 3:])  # type: ignore[index]
    psnr = figure.add_subplot(grid[split:, 3:])  # type: ignore[index]
    for member in sorted({entry.member for entry in history}):
        entries = [entry for entry in history if entry.member == member]
        steps = [entry.step for entry in entries]
        first = member == 0
        losses.plot(steps, [entry.loss for entry in entries], color="#3b6ea5", label="training" if first else None)
        losses.plot(steps, [entry.held_out_loss for entry in entries], color="#c0504d", label="held out" if first else None)
        psnr.plot(steps, [entry.psnr_db for entry in entries], color="#c0504d", label="restored" if first else None)
    if history:
        psnr.axhline(history[-1].raw_psnr_db, color="#888888", linestyle="--", label="low light as it came")
    for axes, title in ((losses, "loss"), (psnr, "PSNR, held out, dB")):
        axes.set_title(title, fontsize=9)
        axes.tick_params(labelsize=7)
        axes.legend(fontsize=7, frameon=False)
    psnr.set_xlabel("steps", fontsize=8)


def _centre(pixels: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    window = tuple(slice(max(0, (side - _LARGEST) // 2), max(0, (side - _LARGEST) // 2) + _LARGEST) for side in pixels.shape)
    return pixels[window]
