"""What is measured on one restored image whose truth is known.

Receives a raw and a restored stack, and the photons behind them; hands on numbers: likeness to the truth beside the best
Gaussian filter's, the detail resolved, false structure, and what the live trust check would say. It does not know networks,
nor what the numbers are drawn against.

False structure is told in three ways, as none of them sees all:

- *against the truth, by contrast*: the restored image has a structure (mean over a Gaussian of sigma 1.5 px) brighter than
  anything that the truth has within 4 px, by 15 % of the contrast of the restored image as one sees it, or the truth has one
  that the restored image lacks. The slack of 4 px is for detail that is only less sharp or a little displaced;
- *against the truth, by noise*: windows of the trust check in which restored and true counts differ by more than 3 standard
  deviations of the photon noise of raw: what the photons did not ask for. At very little light nothing exceeds the noise;
- *as seen live*: the area that the trust check raises, without knowing the truth.
"""

from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, maximum_filter

from live_restore.intensity import Pixels
from live_restore.limits.light import BACKGROUND_PERCENTILE, PEAK_PERCENTILE, Counts, FloatArray, mean_counts, true_counts
from live_restore.restore.consistency import Consistency, Sensor
from live_restore.restore.noise import CameraNoise
from live_restore.restore.photon_fit import Line
from live_restore.restore.trust import SCALES_PX, Trust, TrustCheck
from live_restore.restore.volume_check import tolerated_disagreement
from live_restore.ring_correlation import RingCurve
from live_restore.score import fit_affine, score_pair

# A structure is judged by its mean over a Gaussian of this sigma, may lie this far off, and must have this much contrast.
_WINDOW_PX = 1.5
_SLACK_PX = 4
FALSE_CONTRAST = 0.15
BEYOND_SD = 3.0
# What a patient user would try by hand, pixels in Y and X, planes in Z; the best one is chosen with the truth in hand.
_SIGMAS_PX = (0.0, 0.5, 0.7, 1.0, 1.4, 2.0, 2.8, 4.0, 5.6, 8.0)
_SIGMAS_PLANES = (0.0, 0.6, 1.2)

NAMES = (
    "raw_db",
    "gaussian_db",
    "restored_db",
    "raw_ssim",
    "gaussian_ssim",
    "restored_ssim",
    "raw_cutoff",
    "restored_cutoff",
    "false_area",
    "gaussian_false_area",
    "beyond_area",
    "raised",
    "raised_on_truth",
    "snr",
    "gaussian_sigma_px",
)


@dataclass(frozen=True, slots=True, eq=False)
class Case:
    """One exposure, and all that is known of it; stacks are (Z, Y, X).

    Attributes
    ----------
    photons : ndarray, float32
        The sharp truth, photons per pixel.
    sent : ndarray, float32
        What fell on the camera: the truth, blurred.
    raw : ndarray, uint16
    restored : ndarray, float32
        Counts.
    noise : CameraNoise
    """

    photons: FloatArray
    sent: FloatArray
    raw: Counts
    restored: FloatArray
    noise: CameraNoise


def measure(case: Case) -> dict[str, float]:
    """Measure everything; the keys are `NAMES`.

    ``…_db`` and ``…_ssim`` are against the sharp truth after the affine fit, ``…_cutoff`` is the frequency down to which the
    image shows the same as the truth, cycles per pixel (0: none; 0.5: all), areas are shares.
    """
    truth = true_counts(case.photons, case.noise)
    score = score_pair(case.restored, truth, case.raw)
    sigmas, smooth = best_gaussian(case.raw, truth)
    filtered = score_pair(smooth, truth).restored
    trust = TrustCheck(case.noise).check(case.raw, case.restored)
    seen = truth if case.sent is case.photons else true_counts(case.sent, case.noise)
    honest = TrustCheck(case.noise).check(case.raw, seen)
    raw = score.raw or filtered
    return {
        "raw_db": raw.psnr_db,
        "gaussian_db": filtered.psnr_db,
        "restored_db": score.restored.psnr_db,
        "raw_ssim": raw.ssim,
        "gaussian_ssim": filtered.ssim,
        "restored_ssim": score.restored.ssim,
        "raw_cutoff": cutoff(raw.rings),
        "restored_cutoff": cutoff(score.restored.rings),
        "false_area": float(np.mean(false_structure(case.restored, truth, seen))),
        "gaussian_false_area": float(np.mean(false_structure(smooth, truth, seen))),
        "beyond_area": beyond_noise(case, trust),
        "raised": trust.figures["raised"],
        "raised_on_truth": honest.figures["raised"],
        "snr": trust.figures["snr"],
        "gaussian_sigma_px": sigmas[1],
    }


def cutoff(rings: RingCurve) -> float:
    """Frequency at which two images cease to show the same, cycles per pixel: 0 if they never do, 0.5 if always."""
    period_px = rings.resolution_px
    return 0.5 if period_px is None else 1 / period_px


def best_gaussian(raw: Counts, truth: FloatArray) -> tuple[tuple[float, float], FloatArray]:
    """Find the Gaussian filter closest to the truth; sigma in planes and in pixels, and the filtered stack, (Z, Y, X)."""
    along_z = _SIGMAS_PLANES if len(raw) > 1 else (0.0,)
    pixels = raw.astype(np.float32)
    # from the middle outwards, as long as it gets better: the error has one minimum
    at, tried = (0, len(_SIGMAS_PX) // 2), {}
    while True:
        for step in product((-1, 0, 1), repeat=2):
            planes, width = at[0] + step[0], at[1] + step[1]
            if 0 <= planes < len(along_z) and 0 <= width < len(_SIGMAS_PX) and (planes, width) not in tried:
                tried[planes, width] = _error(_filtered(pixels, along_z[planes], _SIGMAS_PX[width]), truth)
        best = min(tried, key=lambda place: tried[place])
        if best == at:
            break
        at = best
    sigmas = along_z[at[0]], _SIGMAS_PX[at[1]]
    return sigmas, _filtered(pixels, *sigmas)


def _filtered(pixels: FloatArray, planes: float, width: float) -> FloatArray:
    smooth: FloatArray = gaussian_filter(pixels, (planes, width, width))
    return smooth


def _error(image: FloatArray, truth: FloatArray) -> float:
    slope, offset = fit_affine(image, truth)
    return float(np.mean(np.square(np.float32(slope) * image + np.float32(offset) - truth), dtype=np.float64))


def false_structure(image: Pixels, truth: FloatArray, seen: FloatArray) -> NDArray[np.bool_]:
    """Find what an image shows and the specimen does not have, and the other way round, by contrast; (Z, Y, X).

    Parameters
    ----------
    image : ndarray, (Z, Y, X)
    truth, seen : ndarray, (Z, Y, X), float32
        The sharp specimen and the blurred one, same units as each other. What lies between both is nowhere false: an image
        need not be sharper than the light that it was made from.
    """
    slope, offset = fit_affine(seen, image)
    low, high = np.percentile(image, (BACKGROUND_PERCENTILE, PEAK_PERCENTILE))
    contrast = float(high - low)
    if not contrast > 0:
        return np.ones(image.shape, np.bool_)
    shown = _window(image)
    known = [_window(slope * stack + offset) for stack in ([truth] if truth is seen else [truth, seen])]
    brightest, darkest = np.maximum.reduce(known), np.minimum.reduce(known)
    invented = shown - _nearby(brightest) > FALSE_CONTRAST * contrast
    erased = darkest - _nearby(shown) > FALSE_CONTRAST * contrast
    return np.asarray(invented | erased)


def _window(stack: Pixels) -> FloatArray:
    means: FloatArray = gaussian_filter(stack.astype(np.float32), (0, _WINDOW_PX, _WINDOW_PX))
    return means


def _nearby(stack: FloatArray) -> FloatArray:
    side = 2 * _SLACK_PX + 1
    most: FloatArray = maximum_filter(stack, (min(3, len(stack)), side, side))
    return most


def beyond_noise(case: Case, trust: Trust) -> float:
    """Share of the area on which windows of restored and true counts differ by more than 3 sd of raw's photon noise."""
    shape = (case.raw.shape[1], case.raw.shape[2])
    sensor, consistency = Sensor(case.noise, shape), Consistency(shape, len(SCALES_PX))
    figures = trust.figures
    line, none = Line(figures["slope"], figures["offset"]), np.zeros(0, np.intp)
    mean, wrong = mean_counts(case.sent, case.noise), 0
    for expected, restored in zip(mean, case.restored, strict=True):
        consistency.compare(expected, restored, sensor, line, none)  # counts without noise
        for level, scale_px in enumerate(SCALES_PX):
            of_level, of_peak = tolerated_disagreement(scale_px)
            consistency.beyond(level, of_level, of_peak * max(0.0, figures["peak_e"]))
        wrong += int(np.count_nonzero(np.abs(consistency.map()) >= round(10 * BEYOND_SD)))
    return wrong / case.raw.size
