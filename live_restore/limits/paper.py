"""The white page of a paper's supplement: colours, axes over light and over blur, curves with their spread, marked breaks.

Receives axes and numbers; draws. It does not know what the numbers mean. matplotlib is imported when something is drawn,
without its global state.
"""

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes

DoubleArray = NDArray[np.float64]

PAPER, INK, QUIET, FAINT = "#ffffff", "#16181c", "#5c6570", "#e6e9ed"
# Told apart by those who do not see red and green, too.
RAW, GAUSSIAN, RESTORED, SECOND, THIRD, BREAK = "#8a929c", "#c58a00", "#0072b2", "#56b4e9", "#a04fa0", "#c8322b"
DASHED, DOTTED = (0, (4, 2.5)), (0, (1.5, 1.2))
_SMALL = 7.2
SIGMA = "\N{GREEK SMALL LETTER SIGMA}"
BLUR_PX = f"further blur, {SIGMA} in pixels"


def dress(axes: "Axes", title: str, x_label: str, y_label: str) -> None:
    """Give axes their words, quiet spines and a faint grid."""
    axes.set_title(title, loc="left", fontsize=10, color=INK, pad=22)
    axes.set_xlabel(x_label, fontsize=8.5, color=INK, labelpad=2)
    axes.set_ylabel(y_label, fontsize=8.5, color=INK, labelpad=2)
    axes.tick_params(colors=INK, labelsize=8, length=3, width=0.7)
    for side, spine in axes.spines.items():
        spine.set(visible=side in ("left", "bottom"), color=INK, linewidth=0.7)
    axes.grid(color=FAINT, lw=0.6)
    axes.set_axisbelow(True)


def over_light(axes: "Axes", photons: DoubleArray, foreground: float, title: str, y_label: str) -> None:
    """Lay axes out over light: photons of the peak below, of the foreground's mean above."""
    axes.set_xscale("log")
    axes.set_xlim(photons[0] / 1.15, photons[-1] * 1.15)
    dress(axes, title, "photons per pixel, peak", y_label)
    _powers_of_ten(axes, photons)
    above = axes.secondary_xaxis("top", functions=_times(foreground))
    _powers_of_ten(above, photons * foreground)
    _quiet_axis(above, "top")
    above.set_xlabel("mean of the foreground", fontsize=6.5, color=QUIET, labelpad=1.5)


def over_blur(axes: "Axes", blur_px: DoubleArray, pixel_size_um: float | None, title: str, y_label: str) -> None:
    """Lay axes out over blur: pixels below, micrometres above where they are known."""
    axes.set_xlim(blur_px[0], blur_px[-1])
    dress(axes, title, BLUR_PX, y_label)
    if pixel_size_um is not None:
        above = axes.secondary_xaxis("top", functions=_times(pixel_size_um))
        _quiet_axis(above, "top")
        above.set_xlabel(f"{SIGMA} in µm", fontsize=6.5, color=QUIET, labelpad=1.5)


def _times(factor: float) -> tuple[Any, Any]:
    return (lambda value: value * factor), (lambda value: value / factor)


def period_axis(axes: "Axes", pixel_size_um: float | None) -> None:
    """Beside frequencies, say the periods that they are."""
    unit, size = ("px", 1.0) if pixel_size_um is None else ("µm", pixel_size_um)
    beside = axes.secondary_yaxis("right")
    periods = (2.0, 2.5, 10 / 3, 5.0, 10.0)
    beside.set_yticks([1 / period for period in periods], [f"{period * size:.2g}" for period in periods])
    _quiet_axis(beside, "right")
    axes.text(1.02, 1.0, unit, transform=axes.transAxes, fontsize=6.5, color=QUIET)


def _quiet_axis(axis: Any, side: str) -> None:
    axis.tick_params(colors=QUIET, labelsize=6.5, length=2, width=0.5, pad=1)
    axis.spines[side].set(color=QUIET, linewidth=0.5)


def _powers_of_ten(axes: Any, photons: DoubleArray) -> None:
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    powers = 10.0 ** np.arange(math.floor(math.log10(photons[0])), math.ceil(math.log10(photons[-1])) + 1)
    axes.xaxis.set_major_locator(FixedLocator(list(powers[(powers >= 0.8 * photons[0]) & (powers <= 1.2 * photons[-1])])))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def curve(axes: "Axes", x: DoubleArray, series: DoubleArray, colour: str, label: str, **style: Any) -> None:
    """Draw the mean over images, and a band of one standard deviation over them; `series` is (images, points)."""
    mean = series.mean(axis=0)
    axes.plot(x, mean, color=colour, label=label, **{"lw": 1.6, "marker": "o", "ms": 2.6, **style})
    if len(series) > 1:
        sd = series.std(axis=0, ddof=1)
        axes.fill_between(x, mean - sd, mean + sd, color=colour, alpha=0.13, lw=0)


def level(axes: "Axes", value: float) -> None:
    """Draw the level at which something breaks."""
    axes.axhline(value, color=INK, lw=0.8, ls=DASHED, zorder=1.2)


def mark(axes: "Axes", at: float, spread: tuple[float, float], words: str = "", height: float = 0.03) -> None:
    """Draw a break point: a line, a band of its spread, and words beside it."""
    low, high = axes.get_xlim()
    axes.axvspan(max(low, spread[0]), min(high, spread[1]), color=BREAK, alpha=0.13, lw=0, zorder=0.5)
    axes.axvline(at, color=BREAK, lw=1.1, zorder=1.5)
    if not words:
        return
    share = float(axes.transAxes.inverted().transform(axes.transData.transform((at, axes.get_ylim()[1])))[0])
    side = 1 if share < 0.55 else -1
    axes.annotate(
        words,
        (at, height),
        xycoords=("data", "axes fraction"),
        xytext=(3 * side, 0),
        textcoords="offset points",
        ha="left" if side > 0 else "right",
        fontsize=_SMALL,
        color=BREAK,
        bbox={"facecolor": PAPER, "alpha": 0.8, "lw": 0, "pad": 0.8},
        zorder=4,
    )


def legend(axes: "Axes", where: str, **style: Any) -> None:
    """Say which line is which."""
    look: dict[str, Any] = {"framealpha": 0.85, "edgecolor": "none", "fontsize": _SMALL, "handlelength": 1.6, "borderpad": 0.2}
    axes.legend(**{"loc": where, "labelspacing": 0.25, **look, **style})


def not_measured(axes: "Axes") -> None:
    """Say that there is nothing to draw."""
    axes.text(0.5, 0.5, "not measured", transform=axes.transAxes, ha="center", color=QUIET, fontsize=9)
