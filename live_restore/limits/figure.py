"""The figure of limits: curves against light and blur, the map of both, and a strip of images around the limit.

Receives a `Sweep`, its `Limits` and pictures; hands on a page: PNG, PDF or SVG, white, for a paper's supplement. It does not
know models or image files.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from live_restore.limits import panels
from live_restore.limits.break_points import Limits
from live_restore.limits.paper import BREAK, INK, PAPER, QUIET
from live_restore.limits.sweep import Sweep

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_WIDTH_IN, _HEIGHT_IN = 12.0, 14.2
_DPI = 160
_HONEST_LINE = "Raw is the record; restored is a prediction."
_BY_LIGHT: tuple[panels.Panel, ...] = (
    panels.psnr_by_light,
    panels.ssim_by_light,
    panels.detail_by_light,
    panels.false_by_light,
)
_BY_BLUR: tuple[panels.Panel, ...] = (panels.psnr_by_blur, panels.ssim_by_blur, panels.detail_by_blur, panels.false_by_blur)
_TILE_IN, _GAP_IN = 1.8, 0.07
_ROWS = ("raw", "restored", "truth")


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """One field at one light, (Y, X) each; counts but for `false`.

    Attributes
    ----------
    words : str
        What stands above it.
    raw, restored, truth : ndarray
    false : ndarray, bool
        Where the restored image has false structure; outlined.
    """

    words: str
    raw: NDArray[Any]
    restored: NDArray[Any]
    truth: NDArray[Any]
    false: NDArray[np.bool_]


def draw(
    measured: Sweep, limits: Limits, strip: Sequence[Picture], path: Path, *, title: str, summary: str, about: str
) -> None:
    """Draw the page.

    Parameters
    ----------
    measured : Sweep
    limits : Limits
    strip : sequence of Picture
        Three at most, from little to much light; may be empty.
    path : Path
        ``.png``, ``.pdf`` or ``.svg``.
    title, summary, about : str
        Above: of what, and what was found; below: the conditions.
    """
    from matplotlib.figure import Figure

    if path.suffix.lower() not in (".png", ".pdf", ".svg"):
        raise ValueError(f"figure {path.name!r} has the suffix {path.suffix!r}; use .png, .pdf or .svg")
    figure = Figure(figsize=(_WIDTH_IN, _HEIGHT_IN), facecolor=PAPER)
    _write(figure, 0.5, 13.8, title, fontsize=15, weight="bold", va="center")
    _write(figure, 0.5, 13.56, "\n".join(wrap(summary[:1].upper() + summary[1:] + ".", 150)), fontsize=9.5, va="top")
    for row, (bottom_in, line) in enumerate(((10.35, _BY_LIGHT), (7.0, _BY_BLUR))):
        for column, panel in enumerate(line):
            axes = _axes(figure, 0.72 + 2.92 * column, bottom_in, 2.05, 2.2)
            panel(axes, measured, limits)
            _letter(axes, "abcdefgh"[4 * row + column])
    for letter, bottom_in, height_in, panel in (("i", 4.2, 1.75, panels.gain_by_light), ("j", 1.15, 2.0, panels.gain_map)):
        axes = _axes(figure, 0.72, bottom_in, 4.1, height_in)
        panel(axes, measured, limits)
        _letter(axes, letter, 0.09)
    _strip(figure, strip)
    _write(figure, 0.5, 0.1, "\n".join(wrap(about, 205)), fontsize=6.8, color=QUIET, va="bottom")
    _write(figure, 11.5, 13.8, _HONEST_LINE, fontsize=7.5, color=QUIET, style="italic", ha="right", va="center")
    dates = {".pdf": {"CreationDate": None, "ModDate": None}, ".svg": {"Date": None}}
    figure.savefig(path, dpi=_DPI, facecolor=PAPER, metadata=dates.get(path.suffix.lower()))


def _axes(figure: "Figure", left_in: float, bottom_in: float, width_in: float, height_in: float) -> "Axes":
    place = (left_in / _WIDTH_IN, bottom_in / _HEIGHT_IN, width_in / _WIDTH_IN, height_in / _HEIGHT_IN)
    return figure.add_axes(place, facecolor=PAPER)


def _write(figure: "Figure", left_in: float, bottom_in: float, words: str, **style: Any) -> None:
    figure.text(left_in / _WIDTH_IN, bottom_in / _HEIGHT_IN, words, **{"color": INK, **style})


def _letter(axes: "Axes", letter: str, left: float = 0.2) -> None:
    axes.annotate(
        letter, (-left, 1), xycoords="axes fraction", xytext=(0, 21), textcoords="offset points", fontsize=13, weight="bold",
        color=INK,
    )  # fmt: skip


def _strip(figure: "Figure", strip: Sequence[Picture]) -> None:
    """Draw raw, restored and truth below each other, one column per light; false structure outlined."""
    if not strip:
        return
    left_in, top_in = 5.75, 6.15
    _write(figure, left_in - 0.34, top_in + 0.21, "k", fontsize=13, weight="bold")
    words = "around the limit; outlined: structure that is not true"
    _write(figure, left_in, top_in + 0.22, words, fontsize=10)
    for column, picture in enumerate(strip):
        images = {"raw": picture.raw, "restored": picture.restored, "truth": picture.truth}
        for row, name in enumerate(_ROWS):
            place = left_in + column * (_TILE_IN + _GAP_IN), top_in - row * (_TILE_IN + _GAP_IN) - _TILE_IN
            axes = _axes(figure, *place, _TILE_IN, _TILE_IN)
            _show(axes, images[name])
            if name == "restored" and picture.false.any():
                axes.contour(picture.false, levels=[0.5], colors=[BREAK], linewidths=0.8)
            if not row:
                axes.text(0.03, 0.97, picture.words, transform=axes.transAxes, va="top", fontsize=8, color=PAPER, **_rim())
            if not column:
                axes.text(0.03, 0.03, name, transform=axes.transAxes, fontsize=8.5, weight="bold", color=PAPER, **_rim())


def _show(axes: "Axes", image: NDArray[Any]) -> None:
    """Show an image in its own contrast, as a viewer would."""
    low, high = np.percentile(image, (1, 99.8))
    axes.imshow(image, cmap="gray", vmin=low, vmax=max(high, low + 1e-6), interpolation="antialiased", aspect="equal")
    axes.set_axis_off()


def _rim() -> dict[str, Any]:
    from matplotlib.patheffects import withStroke

    return {"path_effects": [withStroke(linewidth=2.2, foreground="#000000b0")]}
