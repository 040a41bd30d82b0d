"""The figures of a report, drawn for paper: scores, bias, intervals, loss curves, and images to look at.

Receives figures and images; hands on pictures as addresses that hold the picture itself (``data:``). It does not know the page
around them.
"""

import base64
import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from live_restore.evaluation.distilled import Distilled
from live_restore.evaluation.scores import LEVELS, Bias, Case, PairScore
from live_restore.figures import round_length

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, MUTED, RULE = "#1b2733", "#66727f", "#d9dee4"
RESTORED, RAW, GAUSSIAN, NLM, WORSE = "#0a7d91", "#9aa4af", "#c77d0a", "#7d5ba6", "#b3261e"
_WIDTH_IN = 7.6
_MOST_ROWS = 30
_IMAGE_DPI = 150


def score_figure(scores: Sequence[PairScore]) -> str:
    """Draw every pair's PSNR, raw, filtered and restored; and what was gained over the signal-to-noise ratio."""
    shown = sorted(scores, key=lambda score: -score.gain_db)
    if len(shown) > _MOST_ROWS:
        shown = [shown[round(place)] for place in np.linspace(0, len(shown) - 1, _MOST_ROWS)]
    known = [score for score in scores if score.snr is not None]
    figure = _figure(max(2.6, 0.9 + 0.165 * len(shown)))
    left, right = figure.subplots(1, 2, width_ratios=(1.25, 1)) if known else (figure.subplots(1, 1), None)
    _draw_rows(left, shown)
    if right is not None:
        _draw_over_snr(right, known)
    return _svg(figure)


def _draw_rows(axes: "Axes", scores: Sequence[PairScore]) -> None:
    places = np.arange(len(scores))
    raw, restored = ([getattr(score, who).psnr_db for score in scores] for who in ("raw", "restored"))
    axes.hlines(places, raw, restored, color=RESTORED, alpha=0.25, lw=2.2)
    axes.scatter(raw, places, s=16, color=RAW, label="raw", zorder=3)
    filtered = [(score.gaussian.psnr_db, place) for place, score in enumerate(scores) if score.gaussian is not None]
    if filtered:
        decibels, lines = zip(*filtered, strict=True)
        axes.scatter(decibels, lines, s=20, marker="|", color=GAUSSIAN, label="best Gaussian", zorder=3)
    axes.scatter(restored, places, s=20, color=RESTORED, label="restored", zorder=4)
    axes.set_yticks(places, [_short(score.name) for score in scores], fontsize=6.5)
    axes.set_ylim(len(scores) - 0.4, -0.6)
    _style(axes, "PSNR against the high-light image, dB", "")
    axes.grid(axis="x", color=RULE, lw=0.6)
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=3, **_LEGEND)


def _draw_over_snr(axes: "Axes", scores: Sequence[PairScore]) -> None:
    columns = {"non-local means": ("nlm_gain_db", NLM, "D"), "best Gaussian": ("gaussian_gain_db", GAUSSIAN, "_")}
    for name, (attribute, colour, marker) in (columns | {"restored": ("gain_db", RESTORED, "o")}).items():
        points = [(score.snr, gain) for score in scores if (gain := getattr(score, attribute)) is not None]
        if points:
            size = 9 if marker == "D" else 22
            snr, gains = zip(*points, strict=True)
            axes.scatter(snr, gains, s=size, marker=marker, color=colour, label=name, alpha=0.85, lw=1.2)
    axes.axhline(0, color=INK, lw=0.8)
    axes.set_xlim(0, 1.12 * max(score.snr or 0.0 for score in scores) + 0.5)
    _style(axes, "signal-to-noise ratio of the low-light image", "gain over raw, dB")
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=3, **_LEGEND)


def bias_figure(mean: Bias, each: Sequence[Bias]) -> str:
    """Draw the mean error of each tenth of the pixels, every image thin and the mean as bars."""
    figure = _figure(2.4, 0.6)
    axes = figure.subplots()
    tenths = np.arange(1, len(mean.deciles) + 1)
    axes.bar(tenths, mean.deciles, color=RESTORED, width=0.72, alpha=0.85)
    for bias in each if len(each) > 1 else ():
        axes.plot(tenths, bias.deciles, color=INK, lw=0.5, alpha=0.35)
    axes.axhline(0, color=INK, lw=0.8)
    axes.set_xticks(tenths, ["darkest", *map(str, tenths[1:-1]), "brightest"])
    _style(axes, "tenths of the pixels, by their true intensity", "restored minus true, % of range")
    reach = max(2.0, 1.15 * max(abs(value) for bias in (mean, *each) for value in bias.deciles))
    axes.set_ylim(-reach, reach)
    return _svg(figure)


def interval_figure(coverage: Sequence[float], each: Sequence[Sequence[float]]) -> str:
    """Draw how much of the truth the predicted intervals hold, over how much they should."""
    figure = _figure(2.9, 0.42)
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color=MUTED, lw=0.9, ls=(0, (4, 3)))
    for one in each if len(each) > 1 else ():
        axes.plot(LEVELS, one, color=RESTORED, lw=0.5, alpha=0.35)
    axes.plot(LEVELS, coverage, color=RESTORED, lw=1.8, marker="o", ms=3.2)
    for level in (0.5, 0.9):
        found = coverage[LEVELS.index(level)]
        axes.annotate(f"{found:.0%}", (level, found), xytext=(5, -9), textcoords="offset points", fontsize=7.5, color=RESTORED)
    axes.text(0.04, 0.93, "too wide", color=MUTED, fontsize=7.5)
    axes.text(0.96, 0.04, "too narrow", color=MUTED, fontsize=7.5, ha="right")
    axes.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
    _style(axes, "of the truth should lie within", "lies within")
    return _svg(figure)


def history_figure(rows: Sequence[Mapping[str, Any]]) -> str:
    """Draw the loss and the held-out PSNR while the network was trained; one line per network of an ensemble."""
    figure = _figure(2.5)
    losses, decibels = figure.subplots(1, 2)
    members = sorted({int(row.get("member", 0)) for row in rows})
    for member in members:
        mine = [row for row in rows if int(row.get("member", 0)) == member]
        first = member == members[0]
        for axes, key, colour, name in (
            (losses, "loss", RAW, "training"),
            (losses, "held_out_loss", RESTORED, "held-out positions"),
            (decibels, "psnr_db", RESTORED, "restored, held-out"),
            (decibels, "raw_psnr_db", RAW, "raw"),
        ):
            along, values = _column(mine, key)
            if values.size:
                axes.plot(along, values, color=colour, lw=1.3, label=name if first else None)
    unit = "minutes" if _in_minutes(rows) else "steps"
    for axes, label in ((losses, "loss, network units"), (decibels, "PSNR, dB")):
        _style(axes, unit, label)
        axes.grid(color=RULE, lw=0.6)
        if axes.has_data():
            axes.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=2, **_LEGEND)
    if losses.has_data() and all(np.all(np.asarray(line.get_ydata()) > 0) for line in losses.get_lines()):
        losses.set_yscale("log")
        losses.yaxis.set_major_formatter("{x:.3g}")
        losses.yaxis.set_minor_formatter("{x:.3g}")
        losses.tick_params(which="minor", labelsize=6, colors=MUTED, width=0.4)
    return _svg(figure)


def _column(rows: Sequence[Mapping[str, Any]], key: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Give a column over time (minutes, or steps where nobody timed them), without rows that lack it."""
    minutes = _in_minutes(rows)
    points = [
        (row["elapsed_s"] / 60 if minutes else row.get("step", number), row[key])
        for number, row in enumerate(rows)
        if isinstance(row.get(key), (int, float)) and np.isfinite(row[key])
    ]
    table = np.array(points, np.float64).reshape(-1, 2)
    return table[:, 0], table[:, 1]


def _in_minutes(rows: Sequence[Mapping[str, Any]]) -> bool:
    return all(isinstance(row.get("elapsed_s"), (int, float)) for row in rows)


def case_picture(case: Case) -> str:
    """Draw low, restored and high with one contrast, and the error of the restored one in per cent of the range."""
    low, high = (float(edge) for edge in np.percentile(case.high, (0.5, 99.9)))
    high = max(high, low + 1e-9)
    rows, columns = case.high.shape
    panel = _WIDTH_IN / 4.25
    figure = _figure(panel * rows / columns + 0.32)
    panels = figure.subplots(1, 4, gridspec_kw={"wspace": 0.03, "left": 0.002, "right": 0.93, "bottom": 0.005, "top": 0.9})
    figure.set_layout_engine("none")
    images = {"low light": case.low, "restored": case.restored, "high light": case.high}
    for axes, (name, image) in zip(panels[:3], images.items(), strict=True):
        axes.imshow(image, cmap="gray", vmin=low, vmax=high, interpolation="nearest")
        axes.set_title(name, fontsize=8, color=INK, loc="left", pad=3)
    error = 100 * (case.restored - case.high) / (high - low)
    shown = panels[3].imshow(error, cmap="RdBu_r", vmin=-25, vmax=25, interpolation="nearest")
    panels[3].set_title("error, % of range", fontsize=8, color=INK, loc="left", pad=3)
    for axes in panels:
        axes.set_axis_off()
    _scale_bar(panels[2], case)
    bar = figure.colorbar(shown, cax=figure.add_axes((0.937, 0.05, 0.011, 0.8)), ticks=(-25, 0, 25))
    bar.ax.tick_params(labelsize=6.5, colors=MUTED, length=2)
    bar.outline.set_visible(False)
    return _png(figure)


def beside_picture(case: Case, taught: NDArray[np.float32]) -> str:
    """Draw low, what the teacher made of it, what its student did, and high, with one contrast."""
    low, high = (float(edge) for edge in np.percentile(case.high, (0.5, 99.9)))
    rows, columns = case.high.shape
    figure = _figure(_WIDTH_IN / 4.05 * rows / columns + 0.32)
    panels = figure.subplots(1, 4, gridspec_kw={"wspace": 0.03, "left": 0.002, "right": 0.998, "bottom": 0.005, "top": 0.9})
    figure.set_layout_engine("none")
    images = {"low light": case.low, "teacher": taught, "student": case.restored, "high light": case.high}
    for axes, (name, image) in zip(panels, images.items(), strict=True):
        axes.imshow(image, cmap="gray", vmin=low, vmax=max(high, low + 1e-9), interpolation="nearest")
        axes.set_title(name, fontsize=8, color=INK, loc="left", pad=3)
        axes.set_axis_off()
    _scale_bar(panels[3], case)
    return _png(figure)


def deciles_figure(biases: Mapping[str, Bias]) -> str:
    """Draw the mean error of each tenth of the pixels of several networks side by side."""
    figure = _figure(2.2, 0.6)
    axes = figure.subplots()
    width = 0.8 / len(biases)
    for number, (name, bias) in enumerate(biases.items()):
        places = np.arange(1, len(bias.deciles) + 1) + (number - (len(biases) - 1) / 2) * width
        axes.bar(places, bias.deciles, width=width, color=RESTORED if number else RAW, label=name)
    axes.axhline(0, color=INK, lw=0.8)
    axes.set_xticks(range(1, 11))
    _style(axes, "tenth of the pixels, darkest first", "bias, % of the range")
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=2, **_LEGEND)
    return _svg(figure)


# Names beside the ladder are no further apart than if there were so many.
_FEWEST_LINES = 9


def ladder_figure(distilled: Distilled) -> str:
    """Draw the time of every rung of a family over its operations, with the target, teacher and student."""
    from matplotlib.ticker import LogLocator

    figure = _figure(2.9, 0.8)
    axes = figure.subplots()
    timed = [(rung.flop_per_pixel / 1000, rung.median_ms, rung) for rung in distilled.rungs if rung.median_ms is not None]
    axes.plot([x for x, _, _ in timed], [y for _, y, _ in timed], color=RAW, lw=0.9, marker="o", ms=4, label="the family")
    for number, (x, y, rung) in enumerate(timed):
        # numbers at the dots, and names beside the axes: names at neighbouring dots would lie on each other
        shown = f"{number + 1}  {rung.name}"
        axes.annotate(str(number + 1), (x, y), xytext=(-6, 6), textcoords="offset points", fontsize=6.5, color=INK, ha="center",
                      bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.4})  # fmt: skip
        place = (1.03, 1 - (number + 0.5) / max(len(timed), _FEWEST_LINES))
        axes.annotate(shown, place, xycoords="axes fraction", fontsize=6, color=MUTED, va="center", annotation_clip=False)
    for name, one, colour, marker in (
        ("teacher", distilled.teacher, GAUSSIAN, "s"),
        ("student", distilled.student, RESTORED, "D"),
    ):
        quality = "" if one.psnr_db is None else f", {one.psnr_db:.2f} dB"
        axes.scatter(
            one.flop_per_pixel / 1000, one.median_ms, s=38, color=colour, marker=marker, zorder=4, label=name + quality
        )
    axes.axhline(distilled.target_ms, color=WORSE, lw=0.9, ls=(0, (4, 3)), label=f"{distilled.target_ms:g} ms asked for")
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.margins(0.08, 0.15)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter("{x:g}")
        axis.set_minor_formatter("")
    _style(axes, "kFLOP per pixel", "ms per volume, median")
    axes.grid(color=RULE, lw=0.6)
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=2, **_LEGEND)
    return _svg(figure)


def _scale_bar(axes: "Axes", case: Case) -> None:
    if case.pixel_size_um is None:
        return
    rows, columns = case.high.shape
    length_um = round_length(0.25 * columns * case.pixel_size_um)
    end = 0.95 * columns
    axes.plot([end - length_um / case.pixel_size_um, end], [0.94 * rows] * 2, color="white", lw=2.4, solid_capstyle="butt")
    middle = end - length_um / case.pixel_size_um / 2
    axes.text(middle, 0.915 * rows, f"{length_um:g} µm", color="white", fontsize=7, ha="center", va="bottom")


_LEGEND: dict[str, Any] = {"frameon": False, "fontsize": 7, "labelcolor": INK, "borderaxespad": 0.1, "handletextpad": 0.3}


def _figure(height_in: float, share: float = 1.0) -> "Figure":
    from matplotlib.figure import Figure

    return Figure(figsize=(_WIDTH_IN * share, height_in), facecolor="white", layout="constrained")


def _style(axes: "Axes", x_label: str, y_label: str) -> None:
    axes.set_xlabel(x_label, color=MUTED, fontsize=7.5)
    axes.set_ylabel(y_label, color=MUTED, fontsize=7.5)
    axes.tick_params(colors=MUTED, labelsize=7, length=2.5, width=0.6)
    axes.set_axisbelow(True)
    for side, spine in axes.spines.items():
        spine.set(visible=side in ("left", "bottom"), color=MUTED, linewidth=0.6)


def _short(text: str, length: int = 22) -> str:
    half = (length - 1) // 2
    return text if len(text) <= length else f"{text[:half]}…{text[-half:]}"


def _svg(figure: "Figure") -> str:
    from matplotlib import rc_context

    stream = io.BytesIO()
    # without a date and with fixed names inside, equal figures give equal bytes
    with rc_context({"svg.hashsalt": "live_restore"}):
        figure.savefig(stream, format="svg", metadata={"Date": None})
    return _address(stream, "svg+xml")


def _png(figure: "Figure") -> str:
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=_IMAGE_DPI)
    return _address(stream, "png")


def _address(stream: io.BytesIO, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(stream.getvalue()).decode()}"
