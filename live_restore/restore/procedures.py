"""The procedures around a network: upsampling and isotropic restoration of stacks that are coarse along Z.

Receives counts (C, Z, Y, X), a factor, and a network; hands on a finer stack. After UpsamplingCARE and IsotropicCARE
of CSBDeep (Weigert et al. 2018), with the tiles that IsotropicCARE lacks there. It does not know which model runs.
"""

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from live_restore.frames import Restored
from live_restore.intensity import IntensityRange, Pixels, whole_counts
from live_restore.restore.pipeline import Network, Progress, no_progress, restore

FloatArray = NDArray[np.float32]
Spacing = tuple[float | None, float | None, float | None]  # (z, y, x), µm


def interpolate_z(pixels: Pixels, z_factor: float) -> FloatArray:
    """Interpolate a stack linearly along Z, end planes kept, as ``scipy.ndimage.zoom(order=1)`` does.

    CSBDeep zooms in the dtype of the file, so a 16-bit stack is rounded to whole counts there; here it stays float32.

    Parameters
    ----------
    pixels : ndarray, (C, Z, Y, X)
    z_factor : float
        New over old number of planes.

    Returns
    -------
    ndarray, (C, round(Z * z_factor), Y, X), float32
    """
    planes = pixels.shape[1]
    finer = finer_planes(planes, z_factor)
    places = np.linspace(0, planes - 1, finer)
    result = np.empty((pixels.shape[0], finer, *pixels.shape[2:]), np.float32)
    for z, place in enumerate(places):
        below = min(int(place), planes - 1)
        above = min(below + 1, planes - 1)
        weight = np.float32(place - below)
        result[:, z] = (1 - weight) * pixels[:, below] + weight * pixels[:, above]
    return result


def finer_spacing(spacing: Spacing, raw: Sequence[int], restored: Sequence[int], *, interpolated: bool) -> Spacing:
    """Say how far apart the restored pixels are, where there are more of them than raw ones.

    Parameters
    ----------
    spacing : (z, y, x)
        Of the raw pixels; None where nobody knows.
    raw, restored : (Z, Y, X)
        Shapes.
    interpolated : bool
        Whether planes were made finer before the network: then both end planes stay where they are.
    """
    z, y, x = (size * old / new if size is not None else None for size, old, new in zip(spacing, raw, restored, strict=True))
    if interpolated and spacing[0] is not None and restored[0] > raw[0] > 1:
        z = spacing[0] * (raw[0] - 1) / (restored[0] - 1)
    return z, y, x


def finer_planes(planes: int, z_factor: float) -> int:
    """Return how many planes a stack has after `interpolate_z`, at least one."""
    return max(1, round(planes * z_factor))


def restore_upsampled(
    pixels: Pixels,
    z_factor: float,
    network: Network,
    measure: Callable[[Pixels], tuple[IntensityRange, IntensityRange | None]],
    progress: Progress = no_progress,
    rounded: bool = False,
) -> Restored:
    """UpsamplingCARE: interpolate along Z, measure the range on that, restore with a 3D network.

    Parameters
    ----------
    pixels : ndarray, (C, Z, Y, X)
        Camera counts.
    z_factor : float
        As in training.
    network : Network
    measure : callable
        Gives the input and output range of an image (the output range may be None, see `restore`).
    progress : callable (done, total)
    rounded : bool
        See `live_restore.restore.pipeline.restore`.
    """
    finer = interpolate_z(pixels, z_factor)
    return restore(finer, network, *measure(finer), progress, rounded)


def restore_isotropic(
    pixels: Pixels,
    z_factor: float,
    network: Network,
    measure: Callable[[Pixels], tuple[IntensityRange, IntensityRange | None]],
    progress: Progress = no_progress,
    rounded: bool = False,
) -> Restored:
    """IsotropicCARE: a 2D network over all XZ and all YZ planes; the two results meet in their geometric mean.

    The mean is taken in network units, of the parts above zero; the Laplace scale is the larger of the two.

    Parameters
    ----------
    pixels : ndarray, (C, Z, Y, X)
        Camera counts; the range is measured before interpolation.
    z_factor : float
        As in training.
    network : Network
        A 2D network.
    measure : callable
        Gives the input and output range of an image.
    progress : callable (done, total)
    rounded : bool
        See `live_restore.restore.pipeline.restore`.
    """
    intensity, output = measure(pixels)
    finer = interpolate_z(pixels, z_factor)
    _, _, height, width = finer.shape
    total = height + width
    # the coarse axis lies along the network's X, as in CSBDeep's training data; YZ planes run downward in Z there

    def planes(done: int, of: int, first: int, count: int) -> None:
        progress(first + done * count // of, total)

    yz = restore(finer.transpose(0, 3, 2, 1)[..., ::-1], network, intensity, None, partial(planes, first=0, count=width))
    xz = restore(finer.transpose(0, 2, 3, 1), network, intensity, None, partial(planes, first=width, count=height))
    first = yz.pixels[..., ::-1].transpose(0, 3, 2, 1)  # (C, Z, Y, X)
    second = xz.pixels.transpose(0, 3, 1, 2)  # (C, Z, Y, X)
    means = np.maximum(first, 0, out=first)
    means *= np.maximum(second, 0, out=second)
    np.sqrt(means, out=means)
    widths = None
    if xz.widths is not None and yz.widths is not None:
        widths = np.maximum(yz.widths[..., ::-1].transpose(0, 3, 2, 1), xz.widths.transpose(0, 3, 1, 2))
    if output:
        means = output.unscale(means)
        widths = None if widths is None else output.unscale_width(widths)
    return Restored(whole_counts(means) if rounded else means, widths, intensity, xz.tiles + yz.tiles)
