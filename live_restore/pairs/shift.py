"""How far the high-light image of a pair lies from the low-light one: in x, y and z, of the whole field and of its parts.

Receives two images of one field; hands on a `Shift` with its own error, or one that says that it cannot be measured. It does
not know how much shift is too much.

The high image is nearly free of noise, so the plain cross-correlation with it is the matched filter: no estimate uses the few
photons of the low image better. Only what is smooth (background, haze) is taken off first, which would pull every
estimate towards zero at the edges. The error comes from what is left of the low image after the shifted high one has been
subtracted, so it holds for any noise.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from live_restore.pairs.correlation import (
    STEP_PX,
    ComplexArray,
    Correlation,
    DoubleArray,
    FloatArray,
    band,
    frequencies,
    transform,
)

Pixels = NDArray[Any]

# A large shift is believed only if the correlation there is higher than anywhere else by this factor.
_DISTINCT = 2.0
_LARGEST_ERROR_PX = 0.35
_SMALLEST_PX = 16
# A larger part of the field says nothing more of the shift of the whole; of single planes, half of that each way will do.
_MOST_PX, _COARSE = 1024, 8
_SPIKE_SD = 8.0
# Of three planes a single one has neighbours on both sides: what it is most like there is chance.
_LEAST_PLANES, _MOST_PLANES = 4, 8
_BLOCK_PX, _MOST_BLOCKS, _REACH_PX = 96, 14, 8
# A shift is believed, and a block looked at, if the likeness there is this far above the noise; a block has moved if its new
# place is better by so much.
_SEEN_SD, _MOVED_SD = 7.0, 5.0


@dataclass(frozen=True, slots=True)
class Shift:
    """Where things are in high that lie at r in low: at r + px.

    Attributes
    ----------
    px : tuple of float, ([z,] y, x)
        Empty if it cannot be measured. z in planes.
    error_px : tuple of float, ([z,] y, x)
        One standard deviation; infinite where it is unknown, and z is then 0.
    distinct : float
        How many times higher the correlation is here than anywhere else; 1 is chance.
    """

    px: tuple[float, ...] = ()
    error_px: tuple[float, ...] = ()
    distinct: float = 1.0

    def __bool__(self) -> bool:
        return bool(self.px)


def measure_shift(low: Pixels, high: Pixels) -> Shift:
    """Measure the shift of the whole field.

    Parameters
    ----------
    low, high : ndarray, (Y, X) or (Z, Y, X)
        The same shape, any real dtype, finite.

    Raises
    ------
    ValueError
        If the shapes differ or are no image.
    """
    if low.shape != high.shape or low.ndim not in (2, 3):
        raise ValueError(f"low has shape {low.shape}, high {high.shape}; both must be the same ([Z,] Y, X)")
    if min(low.shape[-2:]) < _SMALLEST_PX:
        return Shift()
    part = busiest(high, _MOST_PX)
    low, high = low[part], high[part]
    flat = _sideways(flatten(low), flatten(high))
    if low.ndim == 2 or not flat:
        return flat
    z, error = _along_z(low, high, flat)
    return Shift((z, *flat.px), (error, *flat.error_px), flat.distinct)


def measure_motion(low: Pixels, high: Pixels, shift: Shift) -> float | None:
    """Measure how far parts of the field have moved against the whole.

    Parameters
    ----------
    low, high : ndarray, (Y, X) or (Z, Y, X)
    shift : Shift
        Of the whole.

    Returns
    -------
    float or None
        The largest shift of any block of 96 x 96 pixels against any other, pixels; 0 if none moved beyond its noise, None if no
        block shows enough to tell.
    """
    if not shift:
        return None
    flat_low, flat_high = overlap(flatten(low), flatten(high), shift)
    rest = np.array(shift.px[-2:]) - np.rint(shift.px[-2:])
    moved = [
        _moved(flat_low[place], flat_high[place], rest)
        for place in _blocks((flat_low.shape[0], flat_low.shape[1]), min(_BLOCK_PX, *flat_low.shape))
    ]
    told = [shift for shift in moved if shift is not None]
    return max(math.dist(one, other) for one in told for other in told) if told else None


def overlap(low: Pixels, high: Pixels, shift: Shift) -> tuple[Pixels, Pixels]:
    """Cut out of both images what they share, aligned to whole pixels; ([Z,] Y, X) views."""
    whole = [round(px) for px in shift.px[-low.ndim :]] or [0] * low.ndim
    whole = [0] * (low.ndim - len(whole)) + whole
    mine = tuple(slice(max(0, -px), size - max(0, px)) for px, size in zip(whole, low.shape, strict=True))
    other = tuple(slice(max(0, px), size - max(0, -px)) for px, size in zip(whole, low.shape, strict=True))
    return low[mine], high[other]


def flatten(pixels: Pixels) -> FloatArray:
    """Take the mean over Z, without single pixels that stick out (hot ones, which do not move); (Y, X)."""
    image = pixels.mean(axis=0, dtype=np.float32) if pixels.ndim == 3 else pixels.astype(np.float32)
    padded = np.pad(image, 1, mode="reflect")
    beside = np.maximum.reduce([padded[:-2, 1:-1], padded[2:, 1:-1], padded[1:-1, :-2], padded[1:-1, 2:]])
    out = image - beside
    sd = 1.4826 * float(np.median(np.abs(out - np.median(out))))
    return np.where(out > _SPIKE_SD * sd, beside, image)


def busiest(pixels: Pixels, most_px: int) -> tuple[slice, ...]:
    """Find the part of a field, up to so many pixels each way and all planes, with the most structure.

    Parameters
    ----------
    pixels : ndarray, ([Z,] Y, X)

    Returns
    -------
    tuple of slice
        One per axis.
    """
    from scipy.ndimage import gaussian_filter, uniform_filter

    height, width = pixels.shape[-2:]
    planes = (slice(None),) * (pixels.ndim - 2)
    if max(height, width) <= most_px:
        return (*planes, slice(0, height), slice(0, width))
    coarse = flatten(pixels)[: height - height % _COARSE, : width - width % _COARSE]
    coarse = coarse.reshape(height // _COARSE, _COARSE, width // _COARSE, _COARSE).mean(axis=(1, 3))
    detail = np.abs(coarse - gaussian_filter(coarse, 4.0))
    sides = [min(side, most_px) for side in (height, width)]
    window = [max(1, side // _COARSE) for side in sides]
    busy = uniform_filter(detail, window, mode="constant")
    best = np.unravel_index(int(np.argmax(busy)), busy.shape)
    corner = [(int(at) - half // 2) * _COARSE for at, half in zip(best, window, strict=True)]
    starts = [min(max(0, at), whole - side) for at, whole, side in zip(corner, (height, width), sides, strict=True)]
    rows, columns = (slice(start, start + side) for start, side in zip(starts, sides, strict=True))
    return (*planes, rows, columns)


def _sideways(low: FloatArray, high: FloatArray) -> Shift:
    """Measure twice: the second time on what both images share, where the edges pull no longer."""
    first = Correlation(low, high)
    start = first.highest(None)
    distinct = first.distinct(start)
    found = first.refined(start)
    likely = max(abs(start)) <= _REACH_PX  # beforehand: that the field hardly moved
    if not ((likely or distinct > _DISTINCT) and first.gain(found, None) > _SEEN_SD):
        return Shift(distinct=distinct)
    whole = np.rint(found)
    shared = overlap(low, high, Shift((float(whole[0]), float(whole[1]))))
    if min(shared[0].shape) < _SMALLEST_PX:
        return Shift(distinct=distinct)
    again = Correlation(*shared)
    rest = again.refined(again.highest(3))
    errors = again.errors(rest)
    if max(errors) > _LARGEST_ERROR_PX:
        return Shift(distinct=distinct)
    return Shift((float(whole[0] + rest[0]), float(whole[1] + rest[1])), errors, distinct)


def _along_z(low: Pixels, high: Pixels, flat: Shift) -> tuple[float, float]:
    """Measure the shift in planes, and its error: which planes of high, or what lies between two of them, low is most like."""
    reach = min(_MOST_PLANES, len(low) // 2) if len(low) >= _LEAST_PLANES else 0
    if reach < 1:
        return 0.0, math.inf
    first, second = _planes(low, high, flat)
    shifts = range(-reach, reach + 1)
    top = max(shifts, key=lambda dz: _alike(*overlap(first, second, Shift((dz, 0, 0))))[0])
    places = np.arange(max(0, 1 - top), min(len(first), len(first) - 1 - top))
    if abs(top) == reach or not places.size:
        return float(top), math.inf
    aim, (before, at, after) = first[places], (second[places + dz] for dz in (top - 1, top, top + 1))
    ways = ((*_between(aim, at, beside), side, beside) for side, beside in ((-1, before), (1, after)))
    part, _, side, beside = max(ways, key=lambda way: way[1])
    best, error = _alike(aim, at * np.float32(1 - part) + beside * np.float32(part))
    bend = 2 * best - _alike(aim, before)[0] - _alike(aim, after)[0]
    return top + side * part, max(STEP_PX, error / math.sqrt(2) / bend) if bend > 0 else math.inf


def _between(low: ComplexArray, at: ComplexArray, beside: ComplexArray) -> tuple[float, float]:
    """Find the part of the way from one plane to the next at which low is most like what lies there, and how like."""
    parts = np.arange(0, 1, STEP_PX)
    mixed = np.stack([1 - parts, parts])  # (2, parts)
    products = np.array([_inner(low, at), _inner(low, beside)]) @ mixed
    cross = _inner(at, beside)
    powers = np.einsum("ip,ij,jp->p", mixed, np.array([[_inner(at, at), cross], [cross, _inner(beside, beside)]]), mixed)
    alike = np.divide(products, np.sqrt(powers), out=np.zeros_like(products), where=powers > 0)
    best = int(np.argmax(alike))
    return float(parts[best]), float(alike[best])


def _inner(one: ComplexArray, other: ComplexArray) -> float:
    return float(np.vdot(one, other).real)


def _planes(low: Pixels, high: Pixels, flat: Shift) -> tuple[ComplexArray, ComplexArray]:
    """Transform all planes, (Z, Y, X // 2 + 1), with only the structures that are compared, and aligned in y and x."""
    shared = overlap(low, high, flat)
    part = busiest(shared[1], _MOST_PX // 2)
    shared = shared[0][part], shared[1][part]
    height, width = shared[0].shape[-2:]
    wanted = band(height, width)
    first, second = (np.stack([transform(flatten(plane)) * wanted for plane in stack]) for stack in shared)
    ky, kx = frequencies(height, width)
    rest = np.array(flat.px) - np.rint(flat.px)
    second *= np.exp(2j * np.pi * (ky * rest[0] + kx * rest[1])).astype(np.complex64)
    return first, second


def _alike(low: ComplexArray, high: ComplexArray) -> tuple[float, float]:
    """How much of the planes of low lies along those of high, and the noise of that."""
    power = float(np.sum(np.abs(high) ** 2, dtype=np.float64))
    if not power > 0:
        return 0.0, math.inf
    product = float(np.sum((low.conj() * high).real, dtype=np.float64))
    left = float(np.sum(np.abs(low - product / power * high) ** 2 * np.abs(high) ** 2, dtype=np.float64))
    return product / math.sqrt(power * len(low)), math.sqrt(left / power / len(low))


def _blocks(shape: tuple[int, int], block_px: int) -> list[tuple[slice, slice]]:
    """Cut a field into blocks that overlap by half, or less in a large field."""
    steps = [max(1, block_px // 2, side // _MOST_BLOCKS) for side in shape]
    starts = [sorted({*range(0, side - block_px + 1, step), side - block_px}) for side, step in zip(shape, steps, strict=True)]
    return [(slice(y, y + block_px), slice(x, x + block_px)) for y in starts[0] for x in starts[1]]


def _moved(low: FloatArray, high: FloatArray, rest: DoubleArray) -> tuple[float, float] | None:
    """Where one block moved against the whole, (0, 0) if not beyond its noise; None if it shows too little to tell."""
    block = Correlation(low, high)
    px = block.refined(block.highest(min(_REACH_PX, min(low.shape) // 4)))
    if block.gain(px, None) < _SEEN_SD:
        return None
    y, x = (px - rest).tolist()
    return (y, x) if block.gain(px, rest) > _MOVED_SD else (0.0, 0.0)
