"""The figure to show: raw beside restored beside reference.

Receives arrays and the words to put under them; hands on a PNG or PDF file. It does not know models, engines, image files
or scores.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from live_restore.figure_page import (
    HONEST_LINE,
    INK,
    MARGIN_IN,
    MUTED,
    PAPER,
    REFERENCE,
    RESTORED,
    WIDTH_IN,
    new_figure,
    save,
    shade,
    shorten,
    style_axes,
    write_line,
)
from live_restore.intensity import Pixels

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure

DoubleArray = NDArray[np.float64]
Lut = Literal["ice", "ember", "gray", "green", "magenta"]

_LINE_COLOURS = {"raw": "#707987", "reference": REFERENCE, "restored": RESTORED}
# Look-up tables whose lightness only rises, nearly evenly: black, one or two hues, white.
_LUTS: dict[Lut, tuple[str, ...]] = {
    "ice": ("#000000", "#0b2540", "#11557f", "#1f8fae", "#6cc7cf", "#c4ecdf", "#ffffff"),
    "ember": ("#000000", "#2b1038", "#6a1c4f", "#b03246", "#e3682f", "#f7b24f", "#fff6d5"),
    "gray": ("#000000", "#ffffff"),
    "green": ("#000000", "#00ff00"),
    "magenta": ("#000000", "#ff00ff"),
}
_GAP_IN = 0.08
_TITLE_IN, _PROFILE_IN, _CAPTION_IN, _FOOT_IN = 0.42, 1.1, 0.8, 0.3
# Height of a crop in widths of it.
_CROP_ASPECT = 0.5


@dataclass(frozen=True, slots=True, eq=False)
class GalleryRow:
    """One field of a gallery.

    Attributes
    ----------
    title : str
    raw, restored : ndarray, (Y, X) or (Z, Y, X)
        Camera counts; one scale of contrast serves both. Stacks are shown as their maximum along Z.
    reference : ndarray of the same shape, or None
        The same field with plenty of light, scaled to the restored counts before it is shown.
    caption : str
        Which model, engine and precision restored it, and what else should be known.
    pixel_size_um : float or None
        For the scale bars.
    """

    title: str
    raw: Pixels
    restored: Pixels
    reference: Pixels | None = None
    caption: str = ""
    pixel_size_um: float | None = None


def gallery(rows: Sequence[GalleryRow], path: Path, lut: Lut = "ice") -> None:
    """Draw raw beside restored, whole and in detail, one block per field.

    All panels of a block share one contrast in counts, from the restored image (or the reference, where there is one).
    The detail is the busiest place, and the curve below it the counts along its middle.

    Parameters
    ----------
    rows : sequence of GalleryRow
        At least one.
    path : Path
        ``.png`` or ``.pdf``.
    lut : str
        A name in the table of look-up tables: ``ice``, ``ember``, ``gray``, ``green``, ``magenta``.
    """
    if lut not in _LUTS:
        raise ValueError(f"lut {lut!r} is unknown; choose from {', '.join(_LUTS)}")
    blocks = [_Block.of(row) for row in rows]
    if not blocks:
        raise ValueError("a gallery of no fields; give at least one")
    height = sum(block.height_in for block in blocks) + MARGIN_IN + _FOOT_IN
    figure = new_figure(path, height)
    top = height - 0.6 * MARGIN_IN
    for block in blocks:
        _Placed(figure, height, top, block, _colours(lut)).draw()
        top -= block.height_in
    write_line(figure, height, WIDTH_IN - MARGIN_IN, 0.3, HONEST_LINE, style="italic", size=10.5, ha="right")
    save(figure, path)


@dataclass(frozen=True, slots=True, eq=False)
class _Block:
    """What one row shows: flat panels by name, their contrast, where the detail is, and which row of it is plotted."""

    row: GalleryRow
    panels: dict[str, DoubleArray]
    limits: tuple[float, float]
    crop: tuple[slice, slice]
    line: int

    @classmethod
    def of(cls, row: GalleryRow) -> "_Block":
        _check_row(row)
        panels = {"raw": _flat(row.raw), "restored": _flat(row.restored)}
        if row.reference is not None:
            panels["reference"] = _scaled_to(_flat(row.reference), panels["restored"])
        best = panels.get("reference", panels["restored"])
        low, high = np.percentile(best, (0.5, 99.9))
        crop = busiest_place(best)
        return cls(row, panels, (float(low), float(max(high, low + 1e-9))), crop, _busiest_row(best[crop]))

    @property
    def panel_in(self) -> tuple[float, float]:
        """Height and width of a whole-image panel, inches."""
        width = (WIDTH_IN - 2 * MARGIN_IN - _GAP_IN * (len(self.panels) - 1)) / len(self.panels)
        rows, columns = self.panels["raw"].shape
        return width * rows / columns, width

    @property
    def height_in(self) -> float:
        height, width = self.panel_in
        return _TITLE_IN + height + _GAP_IN + _CROP_ASPECT * width + 0.2 + _PROFILE_IN + _CAPTION_IN


def _check_row(row: GalleryRow) -> None:
    for name in ("raw", "restored", "reference"):
        pixels = getattr(row, name)
        if pixels is not None and (pixels.ndim not in (2, 3) or pixels.shape != row.raw.shape):
            shapes = f"{name} has shape {pixels.shape}, raw {row.raw.shape}"
            raise ValueError(f"{row.title!r}: {shapes}; all need one shape, (Y, X) or (Z, Y, X)")


def _flat(pixels: Pixels) -> DoubleArray:
    """Show a plane as it is, a stack as its maximum along Z, NaN as 0; (Y, X)."""
    plane = pixels.max(axis=0) if pixels.ndim == 3 else pixels
    return np.nan_to_num(plane.astype(np.float64))


def _scaled_to(reference: DoubleArray, restored: DoubleArray) -> DoubleArray:
    """Bring a reference of another exposure to the counts of the restored image, by least squares."""
    if not reference.std() > 0:
        return reference
    slope, offset = np.polyfit(reference.ravel(), restored.ravel(), 1)
    return np.asarray(max(slope, 0.0) * reference + offset)


def busiest_place(plane: DoubleArray) -> tuple[slice, slice]:
    """Find the window with the most fine structure, twice as wide as high and about a quarter of the image wide.

    Parameters
    ----------
    plane : ndarray, (Y, X)

    Returns
    -------
    tuple of slice
        Rows and columns.
    """
    from scipy.ndimage import gaussian_filter, uniform_filter

    rows, columns = plane.shape
    width = max(min(columns, 16), columns // 4)
    height = max(1, min(rows, round(_CROP_ASPECT * width)))
    # the square root keeps one bright blob from outweighing a whole neighbourhood
    detail = np.sqrt(np.abs(gaussian_filter(plane, 1.0) - gaussian_filter(plane, 4.0)))
    busy = uniform_filter(detail, (height, width), mode="constant")
    top, left = height // 2, width // 2
    inside = busy[top : rows - (height - 1) // 2, left : columns - (width - 1) // 2]
    y, x = np.unravel_index(int(np.argmax(inside)), inside.shape)
    return slice(int(y), int(y) + height), slice(int(x), int(x) + width)


def _busiest_row(detail: DoubleArray) -> int:
    """Find the row that varies most, away from the edges."""
    rows = len(detail)
    inner = slice(rows // 5, max(rows - rows // 5, rows // 5 + 1))
    return rows // 5 + int(np.argmax(detail[inner].std(axis=1)))


@dataclass(slots=True, eq=False)
class _Placed:
    """A block at its place on the page; lengths in inches, measured from the page's bottom left."""

    figure: "Figure"
    page_in: float
    top_in: float
    block: _Block
    colours: "Colormap"

    def draw(self) -> None:
        height, width = self.block.panel_in
        self._title()
        top = self.top_in - _TITLE_IN
        crop_top = top - height - _GAP_IN
        for number, (name, plane) in enumerate(self.block.panels.items()):
            left = MARGIN_IN + number * (width + _GAP_IN)
            self._whole(self._axes(left, top - height, width, height), name, plane, first=number == 0)
            crop = self._axes(left, crop_top - _CROP_ASPECT * width, width, _CROP_ASPECT * width)
            self._detail(crop, plane, first=number == 0)
        bottom = crop_top - _CROP_ASPECT * width - 0.2 - _PROFILE_IN
        self._profile(self._axes(MARGIN_IN + 0.5, bottom, WIDTH_IN - 2 * MARGIN_IN - 0.5, _PROFILE_IN))
        caption = self.block.row.caption
        write_line(self.figure, self.page_in, MARGIN_IN, bottom - 0.62, caption, size=9.5, color=MUTED)

    def _axes(self, left: float, bottom: float, width: float, height: float) -> "Axes":
        page = (left / WIDTH_IN, bottom / self.page_in, width / WIDTH_IN, height / self.page_in)
        return self.figure.add_axes(page, facecolor=PAPER)

    def _title(self) -> None:
        row, (low, high) = self.block.row, self.block.limits
        notes = [f"contrast {low:.3g} to {high:.3g} counts in every panel"]
        if row.raw.ndim == 3:
            notes.insert(0, f"maximum of {len(row.raw)} planes")
        if row.reference is not None:
            notes.append("reference scaled to these counts")
        place = self.top_in - 0.28
        write_line(self.figure, self.page_in, MARGIN_IN, place, shorten(row.title, 54), size=14, weight="bold")
        right = WIDTH_IN - MARGIN_IN
        write_line(self.figure, self.page_in, right, place, "  ·  ".join(notes), size=9.5, color=MUTED, ha="right")

    def _show(self, axes: "Axes", plane: DoubleArray, smooth: bool) -> None:
        low, high = self.block.limits
        how = "antialiased" if smooth else "nearest"
        axes.imshow(plane, cmap=self.colours, vmin=low, vmax=high, interpolation=how, aspect="auto")
        axes.set_axis_off()

    def _whole(self, axes: "Axes", name: str, plane: DoubleArray, first: bool) -> None:
        self._show(axes, plane, smooth=True)
        _label(axes, name)
        _outline(axes, self.block.crop)
        if first:
            rows, columns = self.block.crop
            in_the_way = rows.stop > 0.85 * plane.shape[0] and columns.stop > 0.7 * plane.shape[1]
            _scale_bar(axes, plane.shape, self.block.row.pixel_size_um, left=in_the_way)

    def _detail(self, axes: "Axes", plane: DoubleArray, first: bool) -> None:
        crop = plane[self.block.crop]
        self._show(axes, crop, smooth=False)
        axes.axhline(self.block.line, color="black", lw=1.1, alpha=0.6)
        axes.axhline(self.block.line, color=INK, lw=1.0, ls=(0, (5, 5)))
        if first:
            _scale_bar(axes, crop.shape, self.block.row.pixel_size_um)

    def _profile(self, axes: "Axes") -> None:
        """Plot the counts along the dashed line of the detail."""
        step = self.block.row.pixel_size_um or 1.0
        lines = {name: plane[self.block.crop][self.block.line] for name, plane in self.block.panels.items()}
        along = (np.arange(len(lines["raw"])) + 0.5) * step
        for name, width in (("raw", 0.8), ("reference", 1.4), ("restored", 1.9)):
            if name in lines:
                axes.plot(along, lines[name], color=_LINE_COLOURS[name], lw=width, label=name)
        axes.set_xlim(0, len(along) * step)
        axes.set_ylim(*_reach(lines))
        unit = "pixels" if self.block.row.pixel_size_um is None else "µm"
        style_axes(axes, f"along the dashed line, {unit}", "counts")
        words: dict[str, Any] = {"frameon": False, "fontsize": 9, "labelcolor": INK, "borderaxespad": 0.0}
        axes.legend(ncols=3, loc="lower right", bbox_to_anchor=(1.0, 0.93), **words)


def _reach(lines: dict[str, DoubleArray]) -> tuple[float, float]:
    """Reach over all of the smooth curves and nearly all of the raw one, whose worst pixel would flatten the rest."""
    smooth = np.concatenate([line for name, line in lines.items() if name != "raw"])
    low, high = (float(edge) for edge in np.percentile(lines["raw"], (2, 98)))
    low, high = min(low, float(smooth.min())), max(high, float(smooth.max()))
    room = 0.08 * (high - low) + 1e-9
    return low - room, high + 2 * room


def _colours(lut: Lut) -> "Colormap":
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list(lut, _LUTS[lut])


def _label(axes: "Axes", name: str) -> None:
    axes.text(0.022, 0.972, name, transform=axes.transAxes, va="top", fontsize=11, weight="bold", color=INK, **shade())


def _outline(axes: "Axes", crop: tuple[slice, slice]) -> None:
    from matplotlib.patches import Rectangle

    rows, columns = crop
    corner, size = (columns.start - 0.5, rows.start - 0.5), (columns.stop - columns.start, rows.stop - rows.start)
    axes.add_patch(Rectangle(corner, *size, fill=False, edgecolor=INK, linewidth=0.9, alpha=0.9))


def _scale_bar(axes: "Axes", shape: tuple[int, ...], pixel_size_um: float | None, left: bool = False) -> None:
    if pixel_size_um is None:
        return
    length_um = round_length(0.22 * shape[1] * pixel_size_um)
    across = length_um / pixel_size_um / shape[1]
    start, height = (0.035 if left else 0.965 - across), 0.05
    bar: dict[str, Any] = {"color": "white", "lw": 3.6, "solid_capstyle": "butt", "transform": axes.transAxes}
    axes.plot([start, start + across], [height, height], scalex=False, scaley=False, **bar, **shade())
    words: dict[str, Any] = {"ha": "center", "va": "bottom", "color": "white", "fontsize": 9.5, "xycoords": "axes fraction"}
    middle = (start + across / 2, height)
    axes.annotate(f"{length_um:g} µm", middle, xytext=(0, 3.5), textcoords="offset points", **words, **shade())


def round_length(at_most: float) -> float:
    """Round a length down to 1, 2 or 5 times a power of ten.

    >>> [round_length(length) for length in (0.7, 19.0, 20.0, 64.0)]
    [0.5, 10.0, 20.0, 50.0]
    """
    power = 10.0 ** np.floor(np.log10(at_most))
    step = max(step for step in (1, 2, 5) if step * power <= at_most * (1 + 1e-9))
    return float(step * power)
