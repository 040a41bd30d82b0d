"""The contact sheet of a folder of pairs: low beside high beside their difference, with the verdict on each.

Receives a `Check`; hands on PNG or PDF pages. The pixels are read again, one pair at a time. It measures nothing itself but
what is needed to lay one image over the other.
"""

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from scipy.ndimage import shift as move

from live_restore.errors import PairError
from live_restore.figure_page import (
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
)
from live_restore.pairs.check import Check, CheckedPair
from live_restore.pairs.sheet_header import BAD, GOOD, HEADER_IN, draw_header
from live_restore.pairs.shift import Shift, overlap

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Pixels = NDArray[Any]
FloatArray = NDArray[np.float32]

_COLUMNS, _PER_PAGE = 2, 16
_GAP_IN, _CARD_GAP_IN, _FOOT_IN = 0.05, 0.42, 0.35
_TITLE_IN, _WORDS_IN = 0.3, 0.62
_CARD_IN = (WIDTH_IN - 2 * MARGIN_IN - _CARD_GAP_IN) / _COLUMNS
_PANEL_IN = (_CARD_IN - 2 * _GAP_IN) / 3
_MOST_PX = 384
# The difference is shown smoothed, over its own standard deviation, up to so many of them.
_SMOOTH_PX, _MOST_SD = 1.5, 5.0
_ICE = ("#000000", "#0b2540", "#11557f", "#1f8fae", "#6cc7cf", "#c4ecdf", "#ffffff")
_LEFT = ("#5ad1e6", "#1b5566", "#0c0e12", "#7a4a12", "#f6b04e")
_MOST_LETTERS = 88


def contact_sheet(check: Check, path: Path, *, everything: bool = False) -> list[Path]:
    """Draw pairs, rejected ones first.

    Parameters
    ----------
    check : Check
    path : Path
        ``.png`` or ``.pdf``.
    everything : bool
        All pairs, on as many pages as needed (``sheet.png``, ``sheet_2.png``, …). Else one page: the rejected ones, and good
        ones from the least to the greatest signal-to-noise ratio.

    Returns
    -------
    list of Path
        The pages.

    Raises
    ------
    ValueError
        If the suffix is no figure's.
    """
    chosen = [*check.rejected, *_by_snr(check.accepted)] if everything else _some(check)
    groups = [chosen[start : start + _PER_PAGE] for start in range(0, len(chosen), _PER_PAGE)] or [[]]
    pages = [
        path if number == 1 else path.with_name(f"{path.stem}_{number}{path.suffix}") for number in range(1, len(groups) + 1)
    ]
    for page, group in zip(pages, groups, strict=True):
        _draw_page(check, group, page, len(chosen))
    return pages


def _by_snr(checked: Sequence[CheckedPair]) -> list[CheckedPair]:
    return sorted(
        checked, key=lambda one: (one.facts.snr if one.facts and one.facts.snr is not None else math.inf, one.pair.name)
    )


def _some(check: Check) -> list[CheckedPair]:
    """Choose one page full: up to three quarters of it rejected ones, and good ones spread over their SNR."""
    good = _by_snr(check.accepted)
    bad = list(check.rejected)[: _PER_PAGE - min(len(good), _PER_PAGE // 4)]
    places = np.unique(np.linspace(0, len(good) - 1, min(len(good), _PER_PAGE - len(bad))).round().astype(int))
    return bad + [good[place] for place in places] if good else bad


def _draw_page(check: Check, group: Sequence[CheckedPair], path: Path, of: int) -> None:
    cards = [_Card.of(one) for one in group]
    rows = [cards[start : start + _COLUMNS] for start in range(0, len(cards), _COLUMNS)]
    heights = [max(card.height_in for card in row) for row in rows]
    page_in = MARGIN_IN + HEADER_IN + sum(heights) + _FOOT_IN
    figure = new_figure(path, page_in)
    draw_header(figure, page_in, check)
    top_in = page_in - MARGIN_IN - HEADER_IN
    for row, height in zip(rows, heights, strict=True):
        for column, card in enumerate(row):
            _Drawn(figure, page_in, MARGIN_IN + column * (_CARD_IN + _CARD_GAP_IN), top_in, card).draw()
        top_in -= height
    shown = f"{len(group)} of {len(check.checked)} pairs shown" if of < len(check.checked) else f"{len(group)} pairs"
    explained = "low and high each in their own contrast  ·  right: low less high, brought to its counts, smoothed, ±5 sd"
    _write(figure, page_in, MARGIN_IN, 0.2, f"{shown}  ·  {explained}", size=9, color=MUTED)
    save(figure, path)


@dataclass(frozen=True, slots=True, eq=False)
class _Card:
    """What one pair shows: three panels by name, or none where its files cannot be read."""

    one: CheckedPair
    panels: dict[str, FloatArray]

    @classmethod
    def of(cls, one: CheckedPair) -> "_Card":
        try:
            low, high = one.pair.read()
        except (PairError, OSError):
            return cls(one, {})
        panels = {"low": _shown(low), "high": _shown(high)}
        if low.shape == high.shape and low.ndim in (2, 3) and one.facts is not None:
            panels["low less high"] = _difference(low, high, one.pair.shift_px)
        return cls(one, panels)

    @property
    def panel_in(self) -> float:
        """Height of the panels, inches."""
        tallest = max((panel.shape[0] / panel.shape[1] for panel in self.panels.values()), default=0.25)
        return _PANEL_IN * min(max(tallest, 0.25), 1.6)

    @property
    def height_in(self) -> float:
        """Height of the whole card, inches."""
        return _TITLE_IN + self.panel_in + _WORDS_IN + 0.17 * max(0, len(self.words) - 2)

    @property
    def words(self) -> list[str]:
        """The figures, and the reason if there is one."""
        reason = textwrap.wrap(self.one.pair.reason, _MOST_LETTERS)[:4]
        return [_figures(self.one), *reason]


def _figures(one: CheckedPair) -> str:
    facts = one.facts
    if facts is None:
        return "not measured"
    said = [f"SNR {facts.snr:.1f}"] if facts.snr is not None else []
    said += [f"shift {', '.join(f'{px:+.2f}' for px in facts.shift_px)} px"] if facts.shift_px else ["shift unknown"]
    said += [f"light x{facts.mean_ratio:.3g}"] if facts.mean_ratio is not None else []
    said += [f"noise x{facts.noise_ratio:.2g}"] if facts.noise_ratio is not None else []
    said += [f"blur {facts.blur_px:+.1f} px"] if facts.blur_px is not None else []
    return "  ·  ".join(said)


def _shown(pixels: Pixels) -> FloatArray:
    """Give a plane, or the maximum of a stack along Z, no larger than a panel needs."""
    plane = pixels.max(axis=0) if pixels.ndim == 3 else pixels
    return _smaller(np.nan_to_num(plane.astype(np.float32)))


def _smaller(plane: FloatArray) -> FloatArray:
    step = max(1, math.ceil(max(plane.shape) / _MOST_PX))
    height, width = (max(1, side // step) for side in plane.shape)
    cut = plane[: height * step, : width * step]
    return cut.reshape(height, -1, width, cut.shape[1] // width).mean(axis=(1, 3)) if step > 1 else plane


def _difference(low: Pixels, high: Pixels, shift_px: tuple[float, ...]) -> FloatArray:
    """Take high, brought to the counts of low and into its place, off low; smoothed, in standard deviations."""
    first, second = _flat(low), _flat(high)
    shared = overlap(first, second, Shift(shift_px[-2:]))
    if shared[0].size:
        first, second = shared
    if shift_px:
        second = move(second, [round(px) - px for px in shift_px[-2:]], order=3, mode="nearest")
    centred = second - second.mean()
    power = float(np.mean(centred * centred))
    slope = float(np.mean(centred * first)) / power if power > 0 else 0.0
    left = gaussian_filter(first - first.mean() - np.float32(slope) * centred, _SMOOTH_PX)
    sd = 1.4826 * float(np.median(np.abs(left - np.median(left))))
    return _smaller(np.asarray(left / sd if sd > 0 else left, np.float32))


def _flat(pixels: Pixels) -> FloatArray:
    plane = pixels.mean(axis=0, dtype=np.float32) if pixels.ndim == 3 else pixels.astype(np.float32)
    return np.asarray(np.nan_to_num(plane), np.float32)


@dataclass(slots=True, eq=False)
class _Drawn:
    """A card at its place on the page; lengths in inches, measured from the page's bottom left."""

    figure: "Figure"
    page_in: float
    left_in: float
    top_in: float
    card: _Card

    def draw(self) -> None:
        self._title()
        for number, (name, panel) in enumerate(self.card.panels.items()):
            self._panel(number, name, panel)
        self._words()

    def _title(self) -> None:
        pair, bottom = self.card.one.pair, self.top_in - 0.2
        colour, verdict = (GOOD, "good") if pair.accepted else (BAD, "rejected")
        _write(self.figure, self.page_in, self.left_in, bottom, "●", size=11, color=colour)
        _write(self.figure, self.page_in, self.left_in + 0.18, bottom, shorten(pair.name, 40), size=11, weight="bold")
        more = "  ·  ".join(word for word in (pair.channel, pair.split, verdict) if word)
        right = self.left_in + _CARD_IN
        _write(self.figure, self.page_in, right, bottom, more, size=9.5, color=colour, ha="right")

    def _panel(self, number: int, name: str, panel: FloatArray) -> None:
        from matplotlib.colors import LinearSegmentedColormap

        height = self.card.panel_in
        left, bottom = self.left_in + number * (_PANEL_IN + _GAP_IN), self.top_in - _TITLE_IN - height
        axes = self._axes(left, bottom, _PANEL_IN, height)
        if number < 2:
            low, high = np.percentile(panel, (0.5, 99.8))
            colours: Any = LinearSegmentedColormap.from_list("ice", _ICE)
        else:
            low, high, colours = -_MOST_SD, _MOST_SD, LinearSegmentedColormap.from_list("left", _LEFT)
        axes.imshow(panel, cmap=colours, vmin=low, vmax=max(high, low + 1e-9), interpolation="antialiased")
        _name(axes, name)
        if number == 2:
            _arrow(axes, self.card.one.pair.shift_px, panel.shape)

    def _axes(self, left: float, bottom: float, width: float, height: float) -> "Axes":
        place = (left / WIDTH_IN, bottom / self.page_in, width / WIDTH_IN, height / self.page_in)
        axes = self.figure.add_axes(place, facecolor=PAPER)
        axes.set_axis_off()
        axes.set_anchor("NW")
        return axes

    def _words(self) -> None:
        top = self.top_in - _TITLE_IN - self.card.panel_in - 0.19
        for number, line in enumerate(self.card.words):
            colour = MUTED if number == 0 else BAD
            _write(self.figure, self.page_in, self.left_in, top - 0.17 * number, line, size=8.8, color=colour)


def _name(axes: "Axes", name: str) -> None:
    axes.text(0.03, 0.965, name, transform=axes.transAxes, va="top", fontsize=8.5, color=INK, **shade())


def _arrow(axes: "Axes", shift_px: tuple[float, ...], shape: tuple[int, ...]) -> None:
    """Say how far high lies from low and, from one pixel on, draw which way; longer than it is."""
    if len(shift_px) < 2:
        return
    length = math.hypot(*shift_px[-2:])
    colour = RESTORED if length < 1 else REFERENCE
    words: dict[str, Any] = {"xycoords": "axes fraction", "ha": "right", "va": "bottom", "fontsize": 8, "color": colour}
    axes.annotate(f"{length:.1f} px" if length >= 0.95 else f"{length:.2f} px", xy=(0.97, 0.04), **words, **shade())
    if length < 1:
        return
    reach = min(0.4, 0.08 + 0.03 * length) * min(shape) / length
    middle = shape[1] / 2, shape[0] / 2
    end = middle[0] + shift_px[-1] * reach, middle[1] + shift_px[-2] * reach
    axes.annotate("", xy=end, xytext=middle, arrowprops={"arrowstyle": "-|>", "color": colour, "lw": 1.8, "mutation_scale": 14})


def _write(figure: "Figure", page_in: float, left_in: float, bottom_in: float, text: str, **style: Any) -> None:
    figure.text(left_in / WIDTH_IN, bottom_in / page_in, text, **{"family": ["DejaVu Sans"], "color": INK, **style})
