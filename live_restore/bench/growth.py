"""What growth is expected, and what explains the rest: halos of tiles, fixed costs, caches.

Receives pixels, times and the geometry of a network; hands on numbers and words. It does not know how anything was measured.
"""

from collections.abc import Sequence
from math import prod
from pathlib import Path

import numpy as np

from live_restore.models.facts import Geometry
from live_restore.restore.tiling import Space, TooLittleMemory, tiles, window_shape

# What is called linear.
LINEAR = 0.10
_STEPS = 400
_L3 = Path("/sys/devices/system/cpu/cpu0/cache/index3/size")


def expected_work(geometry: Geometry, shape: tuple[int, int, int], tile_count: int) -> float:
    """Compute how much more a network computes in so many tiles than on the whole image: their halos overlap.

    Parameters
    ----------
    geometry : Geometry
    shape : tuple of int
        (Z, Y, X); a 2D network takes it plane by plane.
    tile_count : int
        In how many windows all of it was restored.

    Returns
    -------
    float
        Pixels of all windows over those of the image extended to the network's multiples; doubled for a network with global
        pooling, which goes over its tiles twice.
    """
    sizes = shape[-geometry.n_dim :]
    each = tile_count if geometry.n_dim == 3 else tile_count // shape[0]
    if each <= 1:
        return 1.0
    space = Space(geometry.halo, geometry.divisible_by, geometry.output_factor, geometry.global_pooling)
    extended = prod(-(-size // step) * step for size, step in zip(sizes, geometry.divisible_by, strict=True))
    found = 1.0
    for share in np.geomspace(1, 1 / (8 * each), _STEPS):
        try:
            cover = list(tiles(sizes, window_shape(sizes, space, int(extended * share)), space))
        except TooLittleMemory:
            break
        if len(cover) == each:
            found = sum(prod(tile.shape) for tile in cover) / extended
            break
    return 2 * found if geometry.global_pooling else found


def fixed_cost_ms(points: Sequence[tuple[int, float]]) -> float:
    """Fit ``ms = fixed + slope * pixels`` with equal weight to relative errors; gives the fixed part, not below 0.

    Parameters
    ----------
    points : sequence of (pixels, ms)
    """
    if len(points) < 3:
        return 0.0
    pixels, ms = np.array(points, np.float64).T
    terms = np.stack([1 / ms, pixels / ms], 1)
    (fixed, _), *_ = np.linalg.lstsq(terms, np.ones(len(points)), rcond=None)
    return float(max(fixed, 0.0))


def explained(ratio: float, fixed_share: float, what_is_fixed: str, feature_bytes: int) -> str:
    """Say why a point is not where its pixels let expect it.

    Parameters
    ----------
    ratio : float
        Its time over what was expected.
    fixed_share : float
        Share of its time that does not grow with pixels, as fitted.
    what_is_fixed : str
        In words, with its unit.
    feature_bytes : int
        Of all feature maps alive at once, on the whole image.
    """
    if abs(ratio - 1) <= LINEAR:
        return "linear"
    if ratio > 1 and abs(ratio * (1 - fixed_share) - 1) <= LINEAR:
        return f"explained: {what_is_fixed} do not grow with it"
    cache = _cache_bytes()
    held = f"feature maps of the whole: {feature_bytes / 1e6:.0f} MB" + (f", cache: {cache / 1e6:.0f} MB" if cache else "")
    if ratio < 1:
        return f"less: nearer to the caches ({held})"
    return f"not explained ({held}); repeat it on a machine that does nothing else"


def _cache_bytes() -> int:
    """Size of the last cache; 0 where the system does not tell."""
    if not _L3.is_file():
        return 0
    text = _L3.read_text(encoding="ascii").strip()
    return int(text.rstrip("KMG")) * {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}.get(text[-1], 1)
