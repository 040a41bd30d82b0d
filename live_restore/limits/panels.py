"""The panels of the figure of limits: one function each.

Receives axes, a `Sweep` and its `Limits`; draws curves and marks their break points. It does not know the page around them.
"""

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from live_restore.limits.break_points import COARSER, FALSE_LIMIT, WORTH_DB, BreakPoint, Limits
from live_restore.limits.paper import (
    BLUR_PX,
    DASHED,
    DOTTED,
    GAUSSIAN,
    INK,
    PAPER,
    QUIET,
    RAW,
    RESTORED,
    SECOND,
    THIRD,
    DoubleArray,
    curve,
    dress,
    legend,
    level,
    mark,
    not_measured,
    over_blur,
    over_light,
    period_axis,
)
from live_restore.limits.sweep import Sweep
from live_restore.limits.words import number

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Panel = Callable[["Axes", Sweep, Limits], None]
Series = Callable[[str], DoubleArray]

# Areas below this, in per cent, are drawn here: a logarithm has no zero.
_LEAST_PERCENT = 0.003


def psnr_by_light(axes: "Axes", measured: Sweep, limits: Limits) -> None:
    """Draw PSNR of raw, filtered and restored."""
    photons = _light(axes, measured, "PSNR", "dB")
    _three(axes, photons, measured.light, "db")
    legend(axes, "upper left")
    _mark(axes, limits.helps_from, f"helps from {number(limits.helps_from.at)}")
    _mark(axes, limits.helps_to, f"up to {number(limits.helps_to.at)}", 0.11)


def ssim_by_light(axes: "Axes", measured: Sweep, limits: Limits) -> None:
    """Draw SSIM of the same."""
    photons = _light(axes, measured, "SSIM", "")
    _three(axes, photons, measured.light, "ssim")
    axes.set_ylim(0, 1.02)
    _mark(axes, limits.helps_from)
    _mark(axes, limits.helps_to)


def detail_by_light(axes: "Axes", measured: Sweep, limits: Limits) -> None:
    """Draw how fine a structure is shared with the truth."""
    photons = _light(axes, measured, "Resolution (ring correlation)", "cycles per pixel")
    _detail(axes, photons, measured.light, measured.pixel_size_um)
    if math.isfinite(limits.resolution_px):
        level(axes, 1 / limits.resolution_px / COARSER)
    _mark(axes, limits.resolves_from, f"half from {number(limits.resolves_from.at)}", 0.9)


def false_by_light(axes: "Axes", measured: Sweep, limits: Limits) -> None:
    """Draw how much is not true, told in three ways, and of the filter."""
    photons = _light(axes, measured, "False structure", "% of the area")
    _false(axes, photons, measured.light)
    legend(axes, "upper right")
    _mark(axes, limits.invents_below, f"invents\nbelow {number(limits.invents_below.at)}")
    _mark(axes, limits.smooths_above, f"contradicts photons\nabove {number(limits.smooths_above.at)}", 0.2)


def psnr_by_blur(axes: "Axes", measured: Sweep, limits: Limits) -> None:
    """Draw PSNR against blur."""
    said = f"bears {number(limits.bears_blur.at)} px" if limits.bears_blur.found else ""
    _by_blur(axes, measured, limits, ("PSNR", "dB", said), lambda at, series: _three(axes, at, series, "db"))


def ssim_by_blur(axes: "Axes", measured: Sweep, limits: Limits) -> None:
    """Draw SSIM against blur."""
    _by_blur(axes, measured, limits, ("SSIM", "", ""), lambda at, series: _three(axes, at, series, "ssim"))
    axes.set_ylim(0, 1.02)


def detail_by_blur(axes: "Axes", measured: Sweep, limits: Limits) -> None:
    """Draw detail against blur."""
    words = ("Resolution", "cycles per pixel", "")
    _by_blur(axes, measured, limits, words, lambda at, series: _detail(axes, at, series, measured.pixel_size_um))
    if limits.blur_photons is not None and math.isfinite(limits.resolution_px):
        level(axes, 1 / limits.resolution_px / COARSER)


def false_by_blur(axes: "Axes", measured: Sweep, limits: Limits) -> None:
    """Draw false structure against blur."""
    _by_blur(axes, measured, limits, ("False structure", "% of the area", ""), lambda at, series: _false(axes, at, series))


def gain_by_light(axes: "Axes", measured: Sweep, limits: Limits) -> None:
    """Draw what restoring gains over the best filter, in PSNR and SSIM, and say the SNR that is told live."""
    photons = _light(axes, measured, "Gain over the best Gaussian filter", "dB PSNR")
    curve(axes, photons, measured.light("restored_db") - measured.light("gaussian_db"), RESTORED, "dB PSNR")
    tenths = 10 * (measured.light("restored_ssim") - measured.light("gaussian_ssim"))
    curve(axes, photons, tenths, THIRD, "10 x SSIM", ls=DOTTED)
    axes.axhline(0, color=INK, lw=0.6)
    level(axes, WORTH_DB)
    low, high = axes.get_ylim()
    axes.set_ylim(low, high + 0.16 * (high - low))
    snr = measured.light("snr").mean(axis=0)
    for at, told in list(zip(photons, snr, strict=True))[:: 2 if len(photons) > 7 else 1]:
        words, place = f"SNR\n{told:.2g}", axes.get_xaxis_transform()
        axes.text(at, 0.985, words, transform=place, ha="center", va="top", fontsize=6.8, color=QUIET)
    legend(axes, "lower right")
    _mark(axes, limits.helps_from, f"helps from {number(limits.helps_from.at)}")
    _mark(axes, limits.helps_to)


def gain_map(axes: "Axes", measured: Sweep, limits: Limits) -> None:
    """Draw gain over light and blur."""
    dress(axes, "Gain over the best Gaussian filter, dB", BLUR_PX, "photons per pixel, peak")
    axes.grid(visible=False)
    gain = measured.blurs("restored_db") - measured.blurs("gaussian_db")
    if limits.blur_photons is None or not len(gain):
        not_measured(axes)
        return
    mean, false = gain.mean(axis=0), measured.blurs("false_area").mean(axis=0)  # (light, blur)
    most = max(1.0, float(np.abs(mean).max()))
    axes.imshow(mean, cmap="RdBu", vmin=-most, vmax=most, origin="lower", aspect="auto")
    for (row, column), value in np.ndenumerate(mean):
        words = f"{value:+.1f}" + ("*" if false[row, column] > FALSE_LIMIT else "")
        axes.text(column, row, words, ha="center", va="center", fontsize=8, color=PAPER if abs(value) > 0.6 * most else INK)
    axes.set_xticks(range(len(measured.grid.blur_px)), [f"{width:g}" for width in measured.grid.blur_px])
    axes.set_yticks(range(len(measured.grid.mapped)), [f"{measured.grid.photons[index]:g}" for index in measured.grid.mapped])
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    note = f"* false structure on more than {100 * FALSE_LIMIT:g} %"
    axes.text(1, 1.03, note, transform=axes.transAxes, ha="right", va="bottom", fontsize=7, color=QUIET)


def _light(axes: "Axes", measured: Sweep, title: str, y_label: str) -> DoubleArray:
    photons = np.array(measured.grid.photons)
    over_light(axes, photons, float(measured.foreground.mean()), title, y_label)
    return photons


def _by_blur(
    axes: "Axes",
    measured: Sweep,
    limits: Limits,
    words: tuple[str, str, str],
    draw: Callable[[DoubleArray, Series], None],
) -> None:
    """Draw against blur, at the light at which blur is judged; words are the title, the unit, and what stands at the break."""
    title, y_label, said = words
    blur = np.array(measured.grid.blur_px)
    if limits.blur_photons is None:
        over_blur(axes, np.array([0.0, 1.0]), None, title, y_label)
        not_measured(axes)
        return
    over_blur(axes, blur, measured.pixel_size_um, f"{title}, at {limits.blur_photons:.3g} photons", y_label)
    place = [measured.grid.photons[index] for index in measured.grid.mapped].index(limits.blur_photons)
    draw(blur, lambda name: measured.blurs(name)[:, place])
    _mark(axes, limits.bears_blur, said)


def _three(axes: "Axes", x: DoubleArray, series: Series, unit: str) -> None:
    curve(axes, x, series(f"raw_{unit}"), RAW, "raw")
    curve(axes, x, series(f"gaussian_{unit}"), GAUSSIAN, "best Gaussian filter")
    curve(axes, x, series(f"restored_{unit}"), RESTORED, "restored")


def _detail(axes: "Axes", x: DoubleArray, series: Series, pixel_size_um: float | None) -> None:
    curve(axes, x, series("raw_cutoff"), RAW, "raw")
    curve(axes, x, series("restored_cutoff"), RESTORED, "restored")
    axes.set_ylim(0, 0.52)
    period_axis(axes, pixel_size_um)


def _false(axes: "Axes", x: DoubleArray, series: Series) -> None:
    from matplotlib.ticker import NullLocator

    lines = (
        ("gaussian_false_area", GAUSSIAN, "filter, against the truth", "-"),
        ("false_area", RESTORED, "restored, against the truth", "-"),
        ("beyond_area", SECOND, "restored, beyond 3 sd of noise", DOTTED),
        ("raised", THIRD, "trust check, without the truth", DASHED),
    )
    for name, colour, label, dashes in lines:
        percent = np.maximum(100 * series(name).mean(axis=0), _LEAST_PERCENT)
        axes.plot(x, percent, color=colour, label=label, lw=1.6, ls=dashes, marker="o", ms=2.4)
    axes.set_yscale("log")
    axes.set_ylim(_LEAST_PERCENT, 3000)
    axes.set_yticks([0.01, 0.1, 1, 10, 100], ["0.01", "0.1", "1", "10", "100"])
    axes.yaxis.set_minor_locator(NullLocator())
    level(axes, 100 * FALSE_LIMIT)


def _mark(axes: "Axes", point: BreakPoint, words: str = "", height: float = 0.03) -> None:
    if point.found:
        mark(axes, point.at, (point.low, point.high), words, height)
