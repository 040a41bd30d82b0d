"""The head of a contact sheet: how many pairs are good, how noisy they are, and how far each high image lies from its low one.

Receives a `Check` and a page; draws on it. It reads no pixels.
"""

import statistics
from collections import Counter
from typing import TYPE_CHECKING, Any

from live_restore.figure_page import INK, MARGIN_IN, MUTED, PAPER, WIDTH_IN, shorten, style_axes, write_line
from live_restore.pairs.check import Check, CheckedPair

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

HEADER_IN = 2.75
GOOD, BAD = "#63d297", "#ff7a59"
_PLOT_IN, _PLOT_BOTTOM_IN = 1.55, 0.62
_MOST_REASONS = 3


def draw_header(figure: "Figure", page_in: float, check: Check) -> None:
    """Draw the head of a page `page_in` high."""
    top = page_in - MARGIN_IN
    write_line(figure, page_in, MARGIN_IN, top - 0.2, shorten(f"Pairs in {check.folder.name}", 44), size=17, weight="bold")
    for number, (text, style) in enumerate(_lines(check)):
        write_line(figure, page_in, MARGIN_IN, top - 0.56 - 0.225 * number, text, **{"size": 10.5, **style})
    bottom = top - HEADER_IN + _PLOT_BOTTOM_IN
    _draw_snr(_axes(figure, page_in, 5.55, bottom, 3.3), check)
    _draw_shifts(_axes(figure, page_in, 10.05, bottom, 1.55), check)


def _lines(check: Check) -> list[tuple[str, dict[str, Any]]]:
    good, bad = check.accepted, check.rejected
    positions = len({one.pair.position or one.pair.name for one in good})
    snr = _figures(good, "snr")
    lines: list[tuple[str, dict[str, Any]]] = [
        (f"{len(good)} of {len(check.checked)} pairs are good", {"color": GOOD if good else BAD, "size": 12}),
        (f"{positions} positions" + (f"  ·  median SNR {statistics.median(snr):.1f}" if snr else ""), {"color": INK}),
    ]
    light, noise = _figures(good, "mean_ratio"), _figures(good, "noise_ratio")
    if light and noise:
        said = (
            f"high is {statistics.median(light):.3g} times brighter, low {statistics.median(noise):.2g} times noisier (medians)"
        )
        lines.append((said, {"color": MUTED, "size": 9.5}))
    reasons = Counter(one.pair.reason.split("(")[0].split(";")[0].strip() for one in bad).most_common(_MOST_REASONS)
    lines += [(f"{number} x {shorten(reason, 56)}", {"color": BAD, "size": 9.5}) for reason, number in reasons]
    return lines


def _figures(checked: tuple[CheckedPair, ...], name: str) -> list[float]:
    values = [getattr(one.facts, name) for one in checked if one.facts is not None]
    return [value for value in values if value is not None]


def _axes(figure: "Figure", page_in: float, left_in: float, bottom_in: float, width_in: float) -> "Axes":
    place = (left_in / WIDTH_IN, bottom_in / page_in, width_in / WIDTH_IN, _PLOT_IN / page_in)
    return figure.add_axes(place, facecolor=PAPER)


def _draw_snr(axes: "Axes", check: Check) -> None:
    """Draw every pair's SNR, in a line per channel."""
    channels = sorted({one.pair.channel for one in check.checked})
    for one in check.checked:
        if one.facts is not None and one.facts.snr is not None:
            colour = GOOD if one.pair.accepted else BAD
            axes.plot(max(one.facts.snr, 0.05), channels.index(one.pair.channel), "|", color=colour, ms=13, mew=1.5, alpha=0.85)
    axes.set_xscale("log")
    axes.set_ylim(-0.7, len(channels) - 0.3)
    style_axes(axes, "signal-to-noise ratio of low", "")
    axes.set_yticks(range(len(channels)), [shorten(channel or "all", 16) for channel in channels])
    left, right = axes.get_xlim()
    left, right = min(left, 0.9), max(right, 11)
    axes.set_xlim(left, right)
    ticks = [value for value in (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100) if left <= value <= right]
    axes.set_xticks(ticks, [f"{value:g}" for value in ticks])
    axes.minorticks_off()


def _draw_shifts(axes: "Axes", check: Check) -> None:
    """Draw where high lies from low, within the limit's circle."""
    from matplotlib.patches import Circle

    limit = check.limits.shift_px
    axes.add_patch(Circle((0, 0), limit, fill=False, edgecolor=MUTED, lw=0.8, ls=(0, (4, 3))))
    for one in check.checked:
        if one.facts is not None and len(one.facts.shift_px) >= 2:
            y, x = one.facts.shift_px[-2:]
            scale = min(1.0, 1.35 * limit / max(abs(x), abs(y), 1e-9))  # what lies far outside stands at the rim
            axes.plot(x * scale, y * scale, ".", color=GOOD if one.pair.accepted else BAD, ms=5, alpha=0.8)
    axes.set_xlim(-1.5 * limit, 1.5 * limit)
    axes.set_ylim(1.5 * limit, -1.5 * limit)
    axes.set_xticks([-limit, 0, limit])
    axes.set_yticks([-limit, 0, limit])
    style_axes(axes, "shift of high, pixels", "")
