"""How good it is: a restored image against one of the same field taken with plenty of light.

Receives arrays of one field, restored, reference and perhaps raw; hands on a `Score`, and from several of them a
table, a JSON file and a figure. It does not know which model ran, nor where the images came from.

Counts of a short and of a long exposure differ by an unknown offset and gain, so every image is first fitted to the
reference, ``slope * image + offset`` by least squares, and errors are told in units of the reference's range, its
percentile 99.9 minus its percentile 0.1.
"""

import dataclasses
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from live_restore.errors import ImageError
from live_restore.intensity import Pixels
from live_restore.ring_correlation import RingCurve, ring_correlation

if TYPE_CHECKING:
    from rich.table import Table

DoubleArray = NDArray[np.float64]

# The window of SSIM (a Gaussian of sigma 1.5, cut at 3.5 sigma) is this wide.
_SMALLEST_SIDE = 11


@dataclass(frozen=True, slots=True, eq=False)
class Likeness:
    """How like the reference one image is, after the affine fit.

    Attributes
    ----------
    psnr_db : float
        ``10 log10(range² / mean squared error)``; infinite for a perfect image.
    ssim : float
        Structural similarity, Gaussian window of sigma 1.5; over the planes of a stack, their mean.
    nrmse : float
        Root mean squared error as a fraction of the range.
    slope, offset : float
        The fit: ``slope * image + offset`` lies closest to the reference. A slope of 0 means that the image tells
        nothing of the reference (see `fit_affine`).
    rings : RingCurve
    """

    psnr_db: float
    ssim: float
    nrmse: float
    slope: float
    offset: float
    rings: RingCurve


@dataclass(frozen=True, slots=True, eq=False)
class Score:
    """One field: the restored image and, if it was given, the raw one, both against the reference.

    Attributes
    ----------
    restored : Likeness
    raw : Likeness or None
    name : str
        What the tables and figures call it.
    pixel_size_um : float or None
    """

    restored: Likeness
    raw: Likeness | None = None
    name: str = ""
    pixel_size_um: float | None = None

    @property
    def gain_db(self) -> float | None:
        """What restoring gained over raw, or None without raw."""
        return None if self.raw is None else self.restored.psnr_db - self.raw.psnr_db


def score_pair(
    restored: Pixels,
    reference: Pixels,
    raw: Pixels | None = None,
    pixel_size_um: float | None = None,
    name: str = "",
) -> Score:
    """Score one field.

    Parameters
    ----------
    restored, reference, raw : ndarray, (Y, X) or (Z, Y, X)
        The same field in the same shape, any real dtype, camera counts. A stack is fitted as one volume.
    pixel_size_um : float, optional
        In Y and X; without it, resolution is told in pixels only.
    name : str

    Raises
    ------
    ImageError
        If shapes differ, sides are shorter than 11 pixels, values are not finite, or the reference is constant.
    """
    target = _checked("reference", reference)
    low, high = np.percentile(target, (0.1, 99.9))
    if not high > low:
        raise ImageError(f"the reference is constant at {low:g} counts; score against an image that shows something")
    span = float(high - low)
    likeness = _liken(_matching("restored", restored, reference), target, span)
    raw_likeness = None if raw is None else _liken(_matching("raw", raw, reference), target, span)
    return Score(likeness, raw_likeness, name, pixel_size_um)


def fit_affine(pixels: Pixels, target: Pixels) -> tuple[float, float]:
    """Slope and offset that bring an image closest to the target in least squares.

    The slope is never negative: an image whose bright is the target's dark is no likeness in disguise, so its best fit
    is the target's mean. A constant image gets the same.

    Parameters
    ----------
    pixels, target : ndarray, (Z, Y, X)
        Any real dtype; one plane at a time is held in float64.

    Returns
    -------
    slope, offset : float
    """
    mean, target_mean = (float(stack.mean(dtype=np.float64)) for stack in (pixels, target))
    variance = covariance = 0.0
    for plane, aim in zip(pixels, target, strict=True):
        centred = plane - mean
        variance += float(np.sum(centred * centred)) / pixels.size
        covariance += float(np.sum(centred * (aim - target_mean))) / pixels.size
    # a constant image has rounding for variance
    largest = max(abs(float(pixels.min())), abs(float(pixels.max())))
    flat = variance <= (1e-12 * largest) ** 2
    slope = 0.0 if flat else max(0.0, covariance / variance)
    return slope, target_mean - slope * mean


def _liken(image: Pixels, target: Pixels, span: float) -> Likeness:
    """Fit and compare, plane by plane, so that a large stack is never held in float64."""
    slope, offset = fit_affine(image, target)
    squares, similarities = 0.0, []
    for plane, aim in zip(image, target, strict=True):
        fitted, wanted = slope * plane.astype(np.float64) + offset, aim.astype(np.float64)
        squares += float(np.sum((fitted - wanted) ** 2))
        similarities.append(_ssim(fitted, wanted, span))
    mse = squares / image.size
    psnr_db = 10 * math.log10(span**2 / mse) if mse > 0 else math.inf
    # of a slope of 0 nothing is left to correlate
    rings = ring_correlation(image if slope > 0 else np.zeros_like(image), target)
    return Likeness(psnr_db, float(np.mean(similarities)), math.sqrt(mse) / span, slope, offset, rings)


def _ssim(fitted: DoubleArray, wanted: DoubleArray, span: float) -> float:
    from skimage import metrics

    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": span}
    similarity: Callable[..., float] = metrics.structural_similarity
    return similarity(fitted, wanted, **options)


def _matching(name: str, pixels: Pixels, reference: Pixels) -> Pixels:
    if pixels.shape != reference.shape:
        raise ImageError(
            f"the {name} image has shape {pixels.shape}, the reference {reference.shape}; crop or project them alike"
        )
    return _checked(name, pixels)


def _checked(name: str, pixels: Pixels) -> Pixels:
    """Refuse what cannot be compared; a view (Z, Y, X) of the rest."""
    if pixels.ndim not in (2, 3):
        raise ImageError(f"the {name} image has {pixels.ndim} axes; give one channel of one time point, (Y, X) or (Z, Y, X)")
    if min(pixels.shape[-2:]) < _SMALLEST_SIDE or not pixels.size:
        raise ImageError(f"the {name} image has shape {pixels.shape}; Y and X need at least {_SMALLEST_SIDE} pixels each")
    stack = pixels.reshape(-1, *pixels.shape[-2:])
    wrong = sum(plane.size - int(np.count_nonzero(np.isfinite(plane))) for plane in stack)
    if wrong:
        raise ImageError(f"the {name} image has {wrong} pixels that are NaN or infinite; mask or crop them before scoring")
    return stack


def table(scores: Sequence[Score]) -> "Table":
    """One row per field and, of two or more, their mean, for the terminal."""
    from rich.table import Table

    shown = Table(title="restored against the high-light reference, after the affine fit")
    shown.add_column("field")
    for heading in ("raw dB", "PSNR dB", "gain dB", "SSIM", "NRMSE", "resolution"):
        shown.add_column(heading, justify="right")
    for number, score in enumerate(scores, 1):
        shown.add_row(score.name or str(number), *_cells(score))
    if len(scores) > 1:
        shown.add_section()
        shown.add_row("mean", *_mean_cells(scores), style="bold")
    return shown


def _cells(score: Score) -> list[str]:
    best = score.restored
    raw_db = None if score.raw is None else score.raw.psnr_db
    decibels = [_decimals(value) for value in (raw_db, best.psnr_db, score.gain_db)]
    return [*decibels, f"{best.ssim:.3f}", f"{best.nrmse:.4f}", _resolution_text(score)]


def _mean_cells(scores: Sequence[Score]) -> list[str]:
    mean = means(scores)
    decibels = [_decimals(mean.get(key)) for key in ("raw_psnr_db", "psnr_db", "gain_db")]
    return [*decibels, f"{mean['ssim']:.3f}", f"{mean['nrmse']:.4f}", ""]


def means(scores: Sequence[Score]) -> dict[str, float]:
    """Means over the fields: ``psnr_db``, ``ssim``, ``nrmse``; ``raw_*`` and ``gain_db`` over those that have a raw image."""
    mean = _mean_likeness([score.restored for score in scores])
    raws = [score.raw for score in scores if score.raw is not None]
    if raws:
        mean |= {f"raw_{key}": value for key, value in _mean_likeness(raws).items()}
        mean["gain_db"] = float(np.mean([score.gain_db for score in scores if score.gain_db is not None]))
    return mean


def _mean_likeness(likenesses: Iterable[Likeness]) -> dict[str, float]:
    columns = np.array([(one.psnr_db, one.ssim, one.nrmse) for one in likenesses])  # (fields, 3)
    return dict(zip(("psnr_db", "ssim", "nrmse"), columns.mean(axis=0).tolist(), strict=True))


def _decimals(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _resolution_text(score: Score) -> str:
    period_px = score.restored.rings.resolution_px
    if period_px is None:
        return "≤ 2 px"
    if math.isinf(period_px):
        return "none"
    microns = "" if score.pixel_size_um is None else f" ({period_px * score.pixel_size_um:.2f} µm)"
    return f"{period_px:.2f} px{microns}"


def as_dict(score: Score) -> dict[str, object]:
    """Turn a score into JSON's own types, ring curves included; what is infinite or unknown becomes None."""
    plain: dict[str, object] = {"name": score.name, "pixel_size_um": score.pixel_size_um, "gain_db": _finite(score.gain_db)}
    plain["restored"] = _likeness_dict(score.restored, score.pixel_size_um)
    plain["raw"] = None if score.raw is None else _likeness_dict(score.raw, score.pixel_size_um)
    return plain


def _likeness_dict(likeness: Likeness, pixel_size_um: float | None) -> dict[str, object]:
    numbers = {f.name: getattr(likeness, f.name) for f in dataclasses.fields(likeness) if f.name != "rings"}
    period_px = likeness.rings.resolution_px
    numbers["resolution_px"] = period_px
    numbers["resolution_um"] = period_px * pixel_size_um if period_px and pixel_size_um else None
    curve = {key: np.round(getattr(likeness.rings, key), 5).tolist() for key in ("frequency", "correlation")}
    return {key: _finite(value) for key, value in numbers.items()} | {"rings": curve}


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def write_json(scores: Sequence[Score], path: Path, extra: Mapping[str, object] | None = None) -> None:
    """Write all scores and their means.

    Parameters
    ----------
    scores : sequence of Score
        At least one.
    path : Path
    extra : mapping, optional
        Further entries at the top, e.g. which model and engine restored.
    """
    mean = {key: _finite(value) for key, value in means(scores).items()}
    content = {**(extra or {}), "mean": mean, "fields": [as_dict(score) for score in scores]}
    path.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n", encoding="utf-8")


def write_figure(scores: Sequence[Score], path: Path) -> None:
    """Draw the scores, PNG or PDF by the suffix (see `live_restore.score_figure`)."""
    from live_restore.score_figure import ScoreRow, score_figure

    rows = [
        ScoreRow(
            title=score.name or str(number),
            restored_db=score.restored.psnr_db,
            raw_db=None if score.raw is None else score.raw.psnr_db,
            frequency=score.restored.rings.frequency,
            restored_correlation=score.restored.rings.correlation,
            raw_correlation=None if score.raw is None else score.raw.rings.correlation,
        )
        for number, score in enumerate(scores, 1)
    ]
    score_figure(rows, path)
