"""The dark page on which every figure is drawn: its colours, measures and lettering.

Receives the height of a figure; hands on an empty page, and puts words and axes on it. It does not know what is drawn.
matplotlib is imported when a page is made, without its global state.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

HONEST_LINE = "Raw is the record; restored is a prediction."

PAPER, INK, MUTED = "#0c0e12", "#eceff3", "#8d96a3"
RAW, RESTORED, REFERENCE = "#9aa3b0", "#5ad1e6", "#f6b04e"
WIDTH_IN, MARGIN_IN = 12.0, 0.4
_DPI = 160
_TEXT: dict[str, Any] = {"family": ["DejaVu Sans"], "color": INK}


def new_figure(path: Path, height_in: float) -> "Figure":
    """Make an empty page, refusing early what `save` could not write: only .png and .pdf."""
    from matplotlib.figure import Figure

    if path.suffix.lower() not in (".png", ".pdf"):
        raise ValueError(f"figure {path.name!r} has the suffix {path.suffix!r}; use .png or .pdf")
    return Figure(figsize=(WIDTH_IN, height_in), facecolor=PAPER)


def save(figure: "Figure", path: Path) -> None:
    """Write the page, PNG or PDF by the suffix."""
    # without dates, equal content gives equal files
    dates = {".pdf": {"CreationDate": None, "ModDate": None}}
    figure.savefig(path, dpi=_DPI, facecolor=PAPER, metadata=dates.get(path.suffix.lower()))


def write_line(figure: "Figure", page_in: float, left_in: float, bottom_in: float, text: str, **style: Any) -> None:
    """Write a line of text at a place in inches from the bottom left of a page `page_in` high."""
    figure.text(left_in / WIDTH_IN, bottom_in / page_in, text, **{**_TEXT, **style})


def shorten(text: str, length: int) -> str:
    """Cut the middle out of a long text, as the ends of file names tell them apart.

    >>> shorten("a_very_long_file_name_t0001.tif", 15)
    'a_very_…001.tif'
    """
    half = (length - 1) // 2
    return text if len(text) <= length else f"{text[:half]}…{text[-half:]}"


def style_axes(axes: "Axes", x_label: str, y_label: str) -> None:
    """Give axes their labels and quiet spines."""
    axes.set_xlabel(x_label, color=MUTED, fontsize=9)
    axes.set_ylabel(y_label, color=MUTED, fontsize=9)
    axes.tick_params(colors=MUTED, labelsize=8.5, length=3, width=0.6)
    for side, spine in axes.spines.items():
        spine.set(visible=side in ("left", "bottom"), color=MUTED, linewidth=0.6)


def shade() -> dict[str, Any]:
    """Return the text property that keeps words legible on any image, a dark rim."""
    from matplotlib.patheffects import withStroke

    return {"path_effects": [withStroke(linewidth=2.2, foreground="#000000b0")]}
