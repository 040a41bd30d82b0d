"""The baselines: what a patient user gets without any network, from filters that everybody has.

Receives a low-light image and, to be generous, the high-light one to choose the best strength by; hands on filtered images.
It does not know networks.
"""

from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from live_restore.intensity import Pixels
from live_restore.score import fit_affine

FloatArray = NDArray[np.float32]
Part = tuple[slice, ...]

SIGMAS_PX = (0.5, 0.7, 1.0, 1.4, 2.0, 2.8, 4.0)
_SIGMAS_PLANES = (0.0, 0.6, 1.2)
# Sigma is chosen on no more pixels than this, non-local means run on no more: a few seconds per pair at most.
_MOST_TO_CHOOSE_ON = 1 << 20
MOST_FOR_NLM = 1 << 18
_FEWEST_SIDE = 32
# Patch and search window of Buades et al., IPOL 2011, for moderate noise; h, in sd of the noise, from weak to strong.
_NLM: dict[str, Any] = {"patch_size": 5, "patch_distance": 6, "fast_mode": True}
_NLM_STRENGTHS = (0.8, 1.2, 1.6)
_DARKEST_PERCENT = 0.5
# Of the second difference x[-1] - 2 x[0] + x[1] of white noise, in sd of the noise; and sd in median deviations.
_SECOND_DIFFERENCE, _SD_PER_MEDIAN = 6**0.5, 1.4826


def best_gaussian(low: Pixels, high: Pixels) -> tuple[FloatArray, float]:
    """Blur the low image by the Gaussian that brings it closest to the high one.

    Nobody who has only the low image can choose so well: the comparison is generous to the filter.

    Parameters
    ----------
    low, high : ndarray, ([Z,] Y, X)

    Returns
    -------
    filtered : ndarray, ([Z,] Y, X), float32
    sigma : float
        Pixels in Y and X.
    """
    part = middle(low.shape, _MOST_TO_CHOOSE_ON)
    seen, aim = low[part].astype(np.float32), high[part]
    along_z = _SIGMAS_PLANES if low.ndim == 3 and low.shape[0] > 1 else (0.0,)
    sigmas = [(*(planes,) * (low.ndim - 2), pixels, pixels) for planes, pixels in product(along_z, SIGMAS_PX)]
    best = min(sigmas, key=lambda sigma: _error(gaussian_filter(seen, sigma), aim))
    filtered: FloatArray = gaussian_filter(low.astype(np.float32), best)
    return filtered, float(best[-1])


def best_non_local_means(low: Pixels, high: Pixels) -> FloatArray:
    """Filter by non-local means, plane by plane, as strongly as brings the low image closest to the high one.

    Counts go in as square roots, whose noise is the same in dark and in bright places, estimated from each plane.

    Parameters
    ----------
    low, high : ndarray, ([Z,] Y, X)

    Returns
    -------
    ndarray, ([Z,] Y, X), float32
    """
    filtered = [_non_local_means(low, strength) for strength in _NLM_STRENGTHS]
    return min(filtered, key=lambda image: _error(image, high))


def _non_local_means(low: Pixels, strength: float) -> FloatArray:
    from skimage.restoration import denoise_nl_means

    planes = low.reshape(-1, *low.shape[-2:]).astype(np.float32)
    filtered = np.empty_like(planes)
    for plane, out in zip(planes, filtered, strict=True):
        roots = np.sqrt(np.maximum(plane - np.percentile(plane, _DARKEST_PERCENT), 0))
        sigma = noise_sd(roots)
        out[:] = denoise_nl_means(roots, h=strength * sigma, sigma=sigma, **_NLM) ** 2 if sigma > 0 else plane
    return filtered.reshape(low.shape)


def noise_sd(plane: FloatArray) -> float:
    """Estimate the standard deviation of the noise of a plane (Y, X), robustly, from its second differences along X."""
    second = plane[:, :-2] - 2 * plane[:, 1:-1] + plane[:, 2:]
    return float(_SD_PER_MEDIAN * np.median(np.abs(second - np.median(second))) / _SECOND_DIFFERENCE)


def middle(shape: tuple[int, ...], most: int) -> Part:
    """Cut out the middle of an image ([Z,] Y, X), so that it has no more than `most` pixels; all of it if it has not.

    >>> middle((600, 512), 512 * 512)
    (slice(44, 556, None), slice(0, 512, None))
    """
    planes, height, width = (1, *shape)[-3:]
    rows, columns = height, width
    depth = max(1, min(planes, most // (rows * columns)))
    if rows * columns > most:
        side = max(_FEWEST_SIDE, int(most**0.5))
        rows = min(height, max(side, most // min(width, side)))
        columns = min(width, max(_FEWEST_SIDE, most // rows))
    wanted = ((depth, planes), (rows, height), (columns, width))[-len(shape) :]
    return tuple(slice((whole - size) // 2, (whole - size) // 2 + size) for size, whole in wanted)


def _error(image: FloatArray, aim: Pixels) -> float:
    """Mean squared error after the affine fit, as `live_restore.score` takes it."""
    stack, target = (pixels.reshape(-1, *pixels.shape[-2:]) for pixels in (image, aim))
    slope, offset = fit_affine(stack, target)
    return float(np.mean((slope * stack + offset - target) ** 2, dtype=np.float64))
