"""The figure of docs/trust.md: what the check sees, and how strong a structure must be to be found.

Receives an example, planted structures and areas; hands on a PNG. It measures nothing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Circle
from numpy.typing import NDArray
from planted_structures import Planted, Structure

from live_restore.figure_page import INK, MARGIN_IN, MUTED, PAPER, WIDTH_IN, new_figure, save, shade, style_axes, write_line

FloatArray = NDArray[np.float32]

ERASED, INVENTED = "#f6b04e", "#e0559b"
# From small to large, in the tones of the restored images; the filament in white.
SIZES = ("#2a7fb0", "#33a3c7", "#5ac6d2", "#93dfd8", "#d2f3ea", "#ffffff")
ICE = LinearSegmentedColormap.from_list("ice", ("#000000", "#0b2540", "#11557f", "#1f8fae", "#6cc7cf", "#c4ecdf", "#ffffff"))
HEIGHT_IN = 8.75
PANEL_IN = 3.6
GAP_IN = 0.2


@dataclass(frozen=True, eq=False)
class Example:
    """A detail with one structure invented and one erased: raw, restored and the map, (Y, X) each, and where they are."""

    raw: NDArray[np.uint16]
    restored: FloatArray
    map: NDArray[np.int8]
    threshold: float
    invented: tuple[int, int]
    erased: tuple[int, int]


def draw(
    example: Example,
    planted: Sequence[Planted],
    structures: Sequence[Structure],
    areas: Mapping[tuple[str, int], Sequence[float]],
    path: Path,
) -> None:
    """Draw the page."""
    figure = new_figure(path, HEIGHT_IN)
    top = HEIGHT_IN - 0.98
    title = "Does the restored image still agree with the photons?"
    write_line(figure, HEIGHT_IN, MARGIN_IN, HEIGHT_IN - 0.48, title, size=15, weight="bold")
    windows = "in windows of \N{GREEK SMALL LETTER SIGMA} 1, 2, 4 and 8 pixels"
    subtitle = f"no ground truth: raw minus restored, in units of the camera's own noise, {windows}"
    write_line(figure, HEIGHT_IN, MARGIN_IN, HEIGHT_IN - 0.76, subtitle, size=10, color=MUTED)
    _panels(figure, example, top)
    _curves(figure, planted, structures, top - PANEL_IN - 0.8)
    _areas(figure, areas, top - PANEL_IN - 0.8)
    save(figure, path)


def _panels(figure: Figure, example: Example, top: float) -> None:
    low, high = np.percentile(example.restored, (1, 99.9))
    panels = (("raw", example.raw), ("restored, tampered with", example.restored), ("what the photons say", example.restored))
    width = (WIDTH_IN - 2 * MARGIN_IN - 2 * GAP_IN) / 3
    for number, (name, pixels) in enumerate(panels):
        axes = _axes(figure, MARGIN_IN + number * (width + GAP_IN), top - PANEL_IN, width, PANEL_IN)
        rows = round(pixels.shape[1] * PANEL_IN / width)
        axes.imshow(pixels[:rows], cmap="gray" if number == 2 else ICE, vmin=low, vmax=high)
        axes.set_axis_off()
        axes.text(0.022, 0.968, name, transform=axes.transAxes, va="top", fontsize=11, weight="bold", color=INK, **shade())
        if number:
            _mark(axes, example.invented, INVENTED, "invented")
            _mark(axes, example.erased, ERASED, "erased")
        if number == 2:
            axes.imshow(_overlay(example.map[:rows], example.threshold))
            said = f"full colour: {example.threshold:g} standard deviations or more; faint: 2.5"
            axes.text(0.022, 0.03, said, transform=axes.transAxes, fontsize=8.5, color=INK, **shade())


def _overlay(tenths: NDArray[np.int8], threshold: float) -> FloatArray:
    """Colour by sign, opaque where raised, faint below; (Y, X, 4)."""
    picture = np.zeros((*tenths.shape, 4), np.float32)
    for colour, z in ((INVENTED, -tenths.astype(np.float32) / 10), (ERASED, tenths.astype(np.float32) / 10)):
        where = z > 2.5
        picture[where, :3] = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
        picture[where, 3] = np.where(z >= threshold, 0.95, 0.10 + 0.2 * (z - 2.5) / (threshold - 2.5))[where]
    return picture


def _mark(axes: Axes, place: tuple[int, int], colour: str, word: str) -> None:
    y, x = place
    axes.add_patch(Circle((x, y), 11, fill=False, edgecolor=colour, linewidth=1.4))
    axes.text(x, y + 14, word, color=colour, fontsize=9.5, ha="center", va="top", **shade())


def _curves(figure: Figure, planted: Sequence[Planted], structures: Sequence[Structure], top: float) -> None:
    height, width = 2.75, 3.35
    for number, way in enumerate(("erased", "invented")):
        axes = _axes(figure, MARGIN_IN + 0.5 + number * (width + 0.35), top - height, width, height)
        axes.axvline(6, color=MUTED, lw=0.8, ls=(0, (4, 4)))
        axes.axhline(95, color=MUTED, lw=0.8, ls=(0, (4, 4)))
        for structure, colour in zip(structures, SIZES, strict=True):
            snrs = sorted({one.snr for one in planted})
            mine = [one for one in planted if (one.structure, one.way) == (structure, way)]
            found = [[one.found for one in mine if one.snr == snr] for snr in snrs]
            line: dict[str, Any] = {"ls": (0, (3, 1.5))} if structure.kind == "filament" else {}
            axes.plot(snrs, [100 * np.mean(each) for each in found], color=colour, lw=1.7, label=str(structure), **line)
        axes.set_xlim(1, 10)
        axes.set_ylim(-2, 103)
        style_axes(axes, "matched-filter SNR of the structure in raw", "found, %" if number == 0 else "")
        colour = ERASED if way == "erased" else INVENTED
        axes.text(0.03, 1.02, way, transform=axes.transAxes, fontsize=11.5, weight="bold", color=colour, va="bottom")
        if number == 1:
            axes.set_yticklabels([])
            words: dict[str, Any] = {"frameon": False, "fontsize": 8.5, "labelcolor": INK, "borderaxespad": 0.2}
            axes.legend(loc="upper left", bbox_to_anchor=(0.0, 0.9), handlelength=1.6, **words)
        else:
            axes.text(1.15, 95.6, "95 %", color=MUTED, fontsize=8.5, va="bottom")


def _areas(figure: Figure, areas: Mapping[tuple[str, int], Sequence[float]], top: float) -> None:
    height, width = 2.75, 2.55
    axes = _axes(figure, WIDTH_IN - MARGIN_IN - width, top - height, width, height)
    peaks = sorted({peak for _, peak in areas})
    kinds = list(dict.fromkeys(kind for kind, _ in areas))
    colours = dict(zip(kinds, ("#5ac6d2", "#f6b04e", "#b58cf0", "#8fd17f"), strict=False))
    for kind in kinds:
        for place, peak in enumerate(peaks):
            values = [max(value, 1e-3) for value in areas[kind, peak]]
            across = place + 0.16 * (kinds.index(kind) - (len(kinds) - 1) / 2) + np.linspace(-0.03, 0.03, len(values))
            axes.scatter(across, values, s=15, color=colours[kind], label=kind if place == 0 else None, linewidths=0)
    axes.set_yscale("log")
    axes.set_ylim(8e-4, 1)
    axes.axhline(0.1, color=MUTED, lw=0.8, ls=(0, (4, 4)))
    axes.set_xticks(range(len(peaks)), [str(peak) for peak in peaks])
    axes.set_yticks([0.001, 0.01, 0.1, 1], ["≤0.001", "0.01", "0.1", "1"])
    axes.minorticks_off()
    style_axes(axes, "photons at the brightest", "area raised, %")
    heading: dict[str, Any] = {"transform": axes.transAxes, "fontsize": 11.5, "weight": "bold", "color": INK, "va": "bottom"}
    axes.text(0.0, 1.02, "on honest restorations", **heading)
    words: dict[str, Any] = {"frameon": False, "fontsize": 8.5, "labelcolor": INK, "borderaxespad": 0.2}
    axes.legend(loc="upper right", ncols=2, columnspacing=0.8, handletextpad=0.1, **words)


def _axes(figure: Figure, left: float, bottom: float, width: float, height: float) -> Axes:
    return figure.add_axes((left / WIDTH_IN, bottom / HEIGHT_IN, width / WIDTH_IN, height / HEIGHT_IN), facecolor=PAPER)
