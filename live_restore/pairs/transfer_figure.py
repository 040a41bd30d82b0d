"""The figure of a photon transfer: the variance of the counts over their mean, and the line that is the camera.

Receives a `CameraEstimate`; hands on a PNG or PDF file. It does not know where the images came from.
"""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from live_restore.errors import PairError
from live_restore.figure_page import (
    INK,
    MARGIN_IN,
    MUTED,
    PAPER,
    REFERENCE,
    RESTORED,
    new_figure,
    save,
    style_axes,
    write_line,
)
from live_restore.pairs.camera_estimate import CameraEstimate, Measured
from live_restore.pairs.transfer_curve import Cells, TransferLine

if TYPE_CHECKING:
    from matplotlib.axes import Axes

DoubleArray = NDArray[np.float64]

_HEIGHT_IN = 5.6
_POINTS = 24
_BAND_SD = 2.0


def transfer_figure(estimate: CameraEstimate, path: Path) -> None:
    """Draw the curve, ``.png`` or ``.pdf``.

    Raises
    ------
    PairError
        If there is no curve to draw.
    """
    if estimate.curve is None or estimate.line is None:
        raise PairError(f"{estimate.method} gave no curve to draw: {estimate.why}")
    figure = new_figure(path, _HEIGHT_IN)
    whole = figure.add_axes((0.075, 0.14, 0.40, 0.66), facecolor=PAPER)
    dark = figure.add_axes((0.56, 0.14, 0.40, 0.66), facecolor=PAPER)
    _draw(whole, estimate.curve, estimate.line, np.inf)
    _draw(dark, estimate.curve, estimate.line, _dim(estimate.curve, estimate.line))
    whole.set_title("all brightnesses: the slope is the gain", loc="left", color=INK, fontsize=10)
    dark.set_title("the dark end: the floor is the read noise", loc="left", color=INK, fontsize=10)
    write_line(figure, _HEIGHT_IN, MARGIN_IN, _HEIGHT_IN - 0.45, "Photon transfer", size=15, weight="bold")
    write_line(figure, _HEIGHT_IN, MARGIN_IN, _HEIGHT_IN - 0.78, in_words(estimate), size=10.5, color=INK)
    said = f"{estimate.method}, {estimate.pixels / 1e6:.3g} million deviations"
    write_line(figure, _HEIGHT_IN, MARGIN_IN, 0.2, said, size=9, color=MUTED)
    save(figure, path)


def in_words(estimate: CameraEstimate) -> str:
    """Say the three figures in a line."""
    figures = (("offset", estimate.offset_adu, "counts"), ("gain", estimate.gain_adu_per_e, "counts per electron"))
    parts = [f"{name} {_said(measured)} {unit}" for name, measured, unit in figures]
    return ", ".join([*parts, f"read noise {_said(estimate.read_noise_e)} electrons rms"])


def _said(measured: Measured) -> str:
    return f"{measured.value:.4g} ± {measured.error:.2g}" if np.isfinite(measured.error) else "unknown"


def _dim(cells: Cells, line: TransferLine) -> float:
    """How far the dark end goes: where the light's noise is a few times the camera's own."""
    return float(min(np.max(cells.excess), 4 * max(line.floor, 1.0) / line.gain if line.gain > 0 else np.inf))


def _draw(axes: "Axes", cells: Cells, line: TransferLine, most: float) -> None:
    still = cells.variance - line.moved_px2 * cells.steepness
    which = cells.excess <= most
    x, y, errors = _points(cells.excess[which], still[which], cells.fourth[which], cells.variance[which], cells.pixels[which])
    axes.errorbar(x, y, errors, fmt="o", color=RESTORED, markersize=4, linewidth=1, zorder=3, label="measured, ± 2 errors")
    along = np.linspace(0, float(x.max()) * 1.05, 100)
    fitted = line.gain * along + line.floor
    design = np.stack([along, np.ones_like(along)], axis=1)
    spread = _BAND_SD * np.sqrt(np.einsum("ni,ij,nj->n", design, line.covariance, design))
    axes.fill_between(along, fitted - spread, fitted + spread, color=REFERENCE, alpha=0.25, linewidth=0)
    axes.plot(along, fitted, color=REFERENCE, linewidth=1.6, label="gain · mean + floor")
    axes.set_xlim(min(0.0, float(x.min()) * 1.1), along[-1])
    axes.set_ylim(0, max(float(y.max()), float(fitted.max())) * 1.06)
    style_axes(axes, "mean above the offset, counts", "variance, counts squared")
    axes.legend(frameon=False, labelcolor=INK, fontsize=8.5, loc="upper left")


def _points(
    excess: DoubleArray, variance: DoubleArray, fourth: DoubleArray, second: DoubleArray, pixels: DoubleArray
) -> tuple[DoubleArray, DoubleArray, DoubleArray]:
    """Put cells of like brightness together."""
    order = np.argsort(excess)
    parts = [part for part in np.array_split(order, min(_POINTS, order.size)) if part.size]
    means = [(np.average(excess[p], weights=pixels[p]), np.average(variance[p], weights=pixels[p])) for p in parts]
    own = [np.average(np.maximum(fourth[p] - np.square(second[p]), 0), weights=pixels[p]) / pixels[p].sum() for p in parts]
    x, y = np.array(means).T
    return x, y, _BAND_SD * np.sqrt(np.array(own))
