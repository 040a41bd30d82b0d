"""Where curves break: from what was measured by light and by blur to the points from which a model is of no use.

Receives a `Sweep`; hands on `Limits`, break points with their spread over images, as `limits` of a package's facts, and in a
sentence. Pure: curves in, numbers out.

Means over images are made monotone before a crossing is looked for, so that noise does not make one: gain and resolution by
isotonic regression (gain on each side of its maximum), false structure by the most that is seen at this light or more. Between
two levels a straight line is drawn, over the logarithm of light. The spread is that of the bootstrap over images.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import isotonic_regression

from live_restore.limits.sweep import Sweep

DoubleArray = NDArray[np.float64]

# A gain below this is none that anybody would see.
WORTH_DB = 0.25
# The share of the area from which the trust check calls an image not to be trusted.
FALSE_LIMIT = 0.005
# Detail is no longer resolved where its period is so many times that of high light.
COARSER = 2.0
_DRAWS = 400
_SPREAD = (5.0, 95.0)


@dataclass(frozen=True, slots=True)
class BreakPoint:
    """Where something breaks.

    Attributes
    ----------
    at : float
        Photons per pixel, or pixels of blur. 0 or infinite: beyond what was tested on that side.
    low, high : float
        Of 90 % of the bootstrap over images; the same as `at` for a single image.
    """

    at: float
    low: float
    high: float

    @property
    def found(self) -> bool:
        """Whether it lies within what was tested."""
        return 0 < self.at < math.inf


@dataclass(frozen=True, slots=True)
class Limits:
    """What a model can do, and from where on it cannot.

    Attributes
    ----------
    best_gain_db : float
        Largest mean gain over the best Gaussian filter.
    helps_from, helps_to : BreakPoint
        Photons: outside, restoring does not help. Infinite and 0 if it never does.
    invents_below, resolves_from : BreakPoint
        Photons. 0: not even at the least light tested; infinite: at any light.
    smooths_above : BreakPoint
        Photons. Infinite: not even at the most light tested.
    bears_blur : BreakPoint
        Pixels. Infinite: all that was tested; 0: none at all.
    bears : dict of str to BreakPoint
        The same for each reason: ``helps``, ``invents``, ``resolves``.
    blur_photons : float or None
        The light at which blur was judged; None: blur was not measured.
    resolution_px : float
        Period at the most light.
    snr : dict of str to float
        What the trust check tells at those of the points that were found, by the names of these attributes.
    tested : dict of str to float
    """

    best_gain_db: float
    helps_from: BreakPoint
    helps_to: BreakPoint
    invents_below: BreakPoint
    resolves_from: BreakPoint
    smooths_above: BreakPoint
    bears_blur: BreakPoint
    bears: Mapping[str, BreakPoint]
    blur_photons: float | None
    resolution_px: float
    snr: Mapping[str, float]
    tested: Mapping[str, float]

    @property
    def helps(self) -> bool:
        """Whether it does at any light."""
        return self.helps_from.at < math.inf


def find_limits(measured: Sweep, seed: int = 0) -> Limits:
    """Find all break points.

    Parameters
    ----------
    measured : Sweep
    seed : int
        Of the bootstrap.
    """
    photons = np.array(measured.grid.photons)
    series = {name: measured.light(name) for name in measured.numbers}
    gain_db = series["restored_db"] - series["gaussian_db"]
    gain_ssim = series["restored_ssim"] - series["gaussian_ssim"]
    contradicted = np.maximum(0, series["raised"] - series["raised_on_truth"])
    low = _spread([gain_db, gain_ssim], lambda db, ssim: helping(photons, db, ssim)[0], seed)
    high = _spread([gain_db, gain_ssim], lambda db, ssim: helping(photons, db, ssim)[1], seed)
    points = {
        "helps_from": low,
        "helps_to": high,
        "invents_below": _spread([series["false_area"]], lambda area: exceeds_below(photons, area), seed),
        "resolves_from": _spread([series["restored_cutoff"]], lambda seen: coarse_below(photons, seen), seed),
        "smooths_above": _spread([contradicted], lambda area: exceeds_above(photons, area), seed),
    }
    best = float(gain_db.mean(axis=0).max())
    bears, blur_photons = _bears_blur(measured, gain_db.mean(axis=0), seed)
    snr = series["snr"].mean(axis=0)
    told = {name: float(np.interp(np.log(point.at), np.log(photons), snr)) for name, point in points.items() if point.found}
    return Limits(
        best_gain_db=best,
        **points,
        bears_blur=min(bears.values(), key=lambda point: point.at, default=BreakPoint(math.inf, math.inf, math.inf)),
        bears=bears,
        blur_photons=blur_photons,
        resolution_px=_period(float(series["restored_cutoff"].mean(axis=0)[-1])),
        snr=told,
        tested={
            "photons_from": float(photons[0]),
            "photons_to": float(photons[-1]),
            "blur_px_to": measured.grid.blur_px[-1] if blur_photons else 0.0,
            "images": float(len(gain_db)),
        },
    )


def helping(photons: DoubleArray, gain_db: DoubleArray, gain_ssim: DoubleArray) -> tuple[float, float]:
    """Find the light between which restoring helps, in PSNR and in SSIM; infinite and 0 if it never does.

    Parameters
    ----------
    photons, gain_db, gain_ssim : ndarray, (light,)
        Gains over the best Gaussian filter.
    """
    by_db, by_ssim = _above(photons, gain_db, WORTH_DB), _above(photons, gain_ssim, 0.0)
    low, high = max(by_db[0], by_ssim[0]), min(by_db[1], by_ssim[1])
    return (low, high) if low < high else (math.inf, 0.0)


def _above(photons: DoubleArray, values: DoubleArray, limit: float) -> tuple[float, float]:
    """Find where a curve with one maximum lies above a limit."""
    top = int(np.argmax(values))
    if values[top] <= limit:
        return math.inf, 0.0
    rising = isotonic_regression(values[: top + 1]).x
    falling = isotonic_regression(values[top:], increasing=False).x
    low, high = np.flatnonzero(rising <= limit), np.flatnonzero(falling <= limit)
    from_ = 0.0 if not low.size else crossing(photons[: top + 1], rising, int(low[-1]), limit)
    to = math.inf if not high.size else crossing(photons[top:], falling, int(high[0]) - 1, limit)
    return from_, to


def exceeds_below(photons: DoubleArray, area: DoubleArray, limit: float = FALSE_LIMIT) -> float:
    """Find the light below which an area exceeds a limit: 0 if nowhere, infinite if everywhere."""
    most = np.maximum.accumulate(area[::-1])[::-1]  # at this light or more
    beyond = np.flatnonzero(most > limit)
    if not beyond.size:
        return 0.0
    return math.inf if beyond[-1] == len(photons) - 1 else crossing(photons, most, int(beyond[-1]), limit)


def exceeds_above(photons: DoubleArray, area: DoubleArray, limit: float = FALSE_LIMIT) -> float:
    """Find the light above which an area exceeds a limit for good: infinite if nowhere, 0 if everywhere."""
    rising = isotonic_regression(area).x
    beyond = np.flatnonzero(rising > limit)
    if not beyond.size:
        return math.inf
    return 0.0 if beyond[0] == 0 else crossing(photons, rising, int(beyond[0]) - 1, limit)


def coarse_below(photons: DoubleArray, cutoff: DoubleArray) -> float:
    """Find the light below which detail must be twice as coarse as at the most light; 0 if nowhere."""
    rising = isotonic_regression(cutoff).x
    limit = float(rising[-1]) / COARSER
    below = np.flatnonzero(rising <= limit)
    if not below.size:
        return 0.0
    return math.inf if below[-1] == len(photons) - 1 else crossing(photons, rising, int(below[-1]), limit)


def crossing(places: DoubleArray, values: DoubleArray, before: int, limit: float) -> float:
    """Find where the line from one level to the next meets a limit, over the logarithm of the places."""
    (x0, x1), (y0, y1) = np.log(places[before : before + 2]), values[before : before + 2]
    share = 1.0 if y1 == y0 else float(np.clip((limit - y0) / (y1 - y0), 0, 1))
    return float(np.exp(x0 + share * (x1 - x0)))


def _bears_blur(measured: Sweep, gain_db: DoubleArray, seed: int) -> tuple[dict[str, BreakPoint], float | None]:
    """Judge blur at the light at which restoring gains most."""
    series = {name: measured.blurs(name) for name in measured.numbers}
    if len(measured.grid.blur_px) < 2 or not len(series["restored_db"]):
        return {}, None
    mapped = measured.grid.mapped
    light = int(np.argmax(gain_db[list(mapped)]))
    at = {name: numbers[:, light] for name, numbers in series.items()}  # (images, blur)
    blur = np.array(measured.grid.blur_px)
    finest = float(measured.light("restored_cutoff").mean(axis=0)[-1])
    gains = [at[f"restored_{unit}"] - at[f"gaussian_{unit}"] for unit in ("db", "ssim")]
    bears = {
        "helps": _spread(gains, lambda db, ssim: min(_lost(blur, db, WORTH_DB), _lost(blur, ssim, 0.0)), seed),
        "invents": _spread([-at["false_area"]], lambda area: _lost(blur, area, -FALSE_LIMIT), seed),
        "resolves": _spread([at["restored_cutoff"]], lambda seen: _lost(blur, seen, finest / COARSER), seed),
    }
    return bears, measured.grid.photons[mapped[light]]


def _lost(blur: DoubleArray, values: DoubleArray, limit: float) -> float:
    """Find the blur at which a curve falls to a limit: 0 if it is there without blur, infinite if it never is."""
    falling = isotonic_regression(values, increasing=False).x
    below = np.flatnonzero(falling <= limit)
    if not below.size:
        return math.inf
    if below[0] == 0:
        return 0.0
    (x0, x1), (y0, y1) = (line[below[0] - 1 : below[0] + 1] for line in (blur, falling))
    return float(x0 + (x1 - x0) * (y0 - limit) / (y0 - y1))


def _spread(series: list[DoubleArray], find: Callable[..., float], seed: int) -> BreakPoint:
    """Find a point on the means over images, and on those of images drawn with replacement."""
    at = find(*(numbers.mean(axis=0) for numbers in series))
    images = len(series[0])
    if images < 2:
        return BreakPoint(at, at, at)
    rng = np.random.default_rng(seed)
    drawn = []
    for _ in range(_DRAWS):
        chosen = rng.integers(0, images, images)
        drawn.append(find(*(numbers[chosen].mean(axis=0) for numbers in series)))
    low, high = np.percentile(drawn, _SPREAD, method="nearest")
    return BreakPoint(at, float(low), float(high))


def _period(cutoff: float) -> float:
    return 1 / cutoff if cutoff > 0 else math.inf
