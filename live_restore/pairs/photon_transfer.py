"""The camera from pairs: offset, gain and read noise, told by how far low-light counts scatter about what was expected.

Receives fields of view at low and at high light; hands on a `CameraEstimate`, with errors, and the reason where something
cannot be known. It does not know files of configuration.

The high-light image says what every pixel of the low one should be, up to one straight line per field; the variance about it
rises with the light, and by how much is the gain. The line also tells the offset: without light both images read the same.
Offsets differ from pixel to pixel, which is no noise: so deviations are compared between images of the same pixels (planes of
a stack, other fields, the same field again), in which the pattern cancels.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from live_restore.errors import PairError
from live_restore.pairs.camera_estimate import CameraEstimate, Measured, read_noise_of
from live_restore.pairs.low_on_high import LowOnHigh, block_means, fit_low_on_high
from live_restore.pairs.moved import overlap_window
from live_restore.pairs.transfer_curve import WINDOW, Cells, Deviation, TransferLine, first_line, gather, joined
from live_restore.pairs.transfer_sums import TransferSums
from live_restore.records.pairs import Pair, Pixels

DoubleArray = NDArray[np.float64]
Reads = Callable[[], tuple[Pixels, Pixels | None, Pixels | None]]

# So many pixels say enough.
_MOST_PIXELS = 24_000_000
# Of larger sensors the middle is looked at.
_SIDE = 1024
# High light is nearly free of noise if low light is a smaller part of it.
_NOISY = 0.1
# High light that is less than so many times low light does not tell the offset.
_LEAST_RATIO = 1.5
# As many pixels at one largest value are saturated.
_MOST_AT_THE_TOP = 20
# Shifts below this are left alone.
_LEAST_SHIFT_PX = 0.05


@dataclass(frozen=True, slots=True, eq=False)
class Field:
    """One field of view.

    Attributes
    ----------
    name : str
    read : callable
        Gives low, high and low again, ([Z,] Y, X), uint8 or uint16, camera counts; either of the last two may be None.
    shift_px : tuple of float
        What lies at r in low lies at r + shift in high; empty where nobody measured.
    """

    name: str
    read: Reads
    shift_px: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class _Exposure:
    """One plane at low light, (Y, X) each.

    `slope`: of low on high, the share of the high image's noise in `residual`; `field`: images with the same high one agree;
    `noisy`: whether `level` is.
    """

    residual: DoubleArray
    level: DoubleArray
    usable: NDArray[np.bool_]
    slope: float
    field: tuple[int, int]
    noisy: bool


@dataclass(slots=True, eq=False)
class _Found:
    """What was seen of the fields."""

    lines: list[LowOnHigh] = field(default_factory=list)
    stretched: int = 0
    fields: int = 0
    twice: int = 0
    patterned: bool = False


def estimate_from_pairs(pairs: Sequence[Pair], offset_adu: float | DoubleArray | None = None) -> CameraEstimate:
    """Estimate the camera from accepted pairs.

    Parameters
    ----------
    pairs : sequence of Pair
        Raw camera counts.
    offset_adu : float or ndarray, (Y, X), optional
        Where it is known, from dark frames for instance.

    Raises
    ------
    PairError
        If they are no camera counts, or cannot be read.
    """
    good = [pair for pair in pairs if pair.accepted]
    if not good:
        raise PairError(f"none of {len(pairs)} pairs is accepted; camera noise needs one at least")
    return estimate_from_fields([Field(pair.name, _reader(pair), pair.shift_px) for pair in good], offset_adu)


def _reader(pair: Pair) -> Reads:
    def read() -> tuple[Pixels, Pixels | None, Pixels | None]:
        return *pair.read(), None

    return read


def estimate_from_fields(fields: Sequence[Field], offset_adu: float | DoubleArray | None = None) -> CameraEstimate:
    """Estimate the camera from fields at low and high light, or at low light twice.

    Parameters
    ----------
    fields : sequence of Field
    offset_adu : float or ndarray, (Y, X), optional

    Raises
    ------
    PairError
        If they are no camera counts, or do not fit each other.
    """
    pattern = None if offset_adu is None or np.ndim(offset_adu) == 0 else np.asarray(offset_adu) - float(np.median(offset_adu))
    found, cells = _Found(), list[Cells]()
    for deviation in _deviations(fields, pattern, found):
        gathered = gather(deviation)
        cells += [] if gathered is None else [gathered]
    _refuse_stretched(found)
    offset = _offset(found.lines) if offset_adu is None else Measured(float(np.median(offset_adu)), 0.0)
    if not cells:
        return _untold(found, offset)
    curve = joined(cells)
    known = offset.value if np.isfinite(offset.error) else float(np.min(curve.excess / curve.offset_share))
    first = first_line(curve, known)
    if first is None:
        return _untold(found, offset)
    sums = TransferSums(first, known, curve.tails)
    for deviation in _deviations(fields, pattern, _Found()):
        sums.add(deviation)
    line = sums.solve()
    curve = replace(curve, excess=curve.excess - known * curve.offset_share)
    return _untold(found, offset) if line is None else _told(found, offset, line, curve, sums.pixels)


def _deviations(fields: Sequence[Field], pattern: DoubleArray | None, found: _Found) -> Iterator[Deviation]:
    """Read the fields, and compare each exposure with the one before it."""
    before, compared = None, 0
    for number, one in enumerate(fields):
        if compared >= _MOST_PIXELS:
            break
        for exposure in _exposures(number, one, len(fields), pattern, found):
            if before is not None and _comparable(before, exposure):
                compared += exposure.residual.size
                yield _difference(before, exposure)
            before = exposure
    if before is not None and not compared:  # one plane of one field
        found.patterned = pattern is None
        yield _alone(before)


def _refuse_stretched(found: _Found) -> None:
    if found.fields and found.stretched >= 0.8 * found.fields:
        raise PairError(
            f"{found.stretched} of {found.fields} pairs have 8-bit images that were each stretched over all values, 0 to 255: "
            "they are no camera counts any more; give the camera's own files"
        )


def _exposures(number: int, one: Field, fields: int, pattern: DoubleArray | None, found: _Found) -> Iterator[_Exposure]:
    """Read a field, and give what is expected of its planes at low light."""
    low, high, again = one.read()
    found.fields += 1
    found.twice += again is not None
    found.stretched += high is not None and _stretched(low) and _stretched(high)
    images = [_checked(one.name, image, low, pattern) for image in (low, high, again) if image is not None]
    step, (rows, columns) = max(1, -(-images[0].size * fields // _MOST_PIXELS)), map(_middle, images[0].shape[1:])
    middles = [image[:, rows, columns] for image in images]
    stacks = [middle[::step] for middle in middles]
    lows = [stacks[0], *([stacks[-1]] if again is not None else [])]
    if high is None:
        yield from _without_high(number, one.name, lows)
        return
    # moved before planes are left out: a shift along Z counts planes of the whole stack
    moved, seen = _moved(middles[1], one.shift_px)
    reference, lit = moved[::step], seen[::step]
    for each in lows:
        line = fit_low_on_high(each, reference, one.name)
        found.lines.append(line)
        for z, (plane, expected) in enumerate(zip(each, reference, strict=True)):
            level = line.slope * expected + line.offset  # (Y, X)
            usable = _shrunk(lit[z] & _below_the_top(plane))
            yield _Exposure(plane - level, level, usable, line.slope, (number, z), line.slope > _NOISY)


def _without_high(number: int, name: str, lows: Sequence[DoubleArray]) -> Iterator[_Exposure]:
    if len(lows) < 2:
        raise PairError(f"'{name}' has neither a high-light image nor a second low one; camera noise needs one of them")
    first, second = (block_means(each).std() for each in lows)
    bleached = float(np.sqrt(second / first)) if first > 0 and second > 0 else 1.0
    for z, (one, other) in enumerate(zip(*lows, strict=True)):
        level = (one + other) / 2
        for plane in (one * bleached, other / bleached):
            usable = _shrunk(_below_the_top(plane))
            yield _Exposure(plane - plane.mean(), level, usable, 0.0, (number, z), noisy=True)


def _checked(name: str, image: Pixels, low: Pixels, pattern: DoubleArray | None) -> DoubleArray:
    """Refuse what are no counts; (Z, Y, X), float64."""
    if image.dtype.kind != "u" or image.ndim not in (2, 3) or image.shape != low.shape:
        raise PairError(
            f"'{name}' has {image.dtype} images of shape {image.shape} and {low.shape}; camera noise needs raw counts, uint8 "
            "or uint16, all of one shape"
        )
    stack = image.reshape(-1, *image.shape[-2:]).astype(np.float64)  # (Z, Y, X)
    if pattern is None:
        return stack
    if pattern.shape != stack.shape[1:]:
        raise PairError(
            f"the offsets cover {pattern.shape} pixels, '{name}' has {stack.shape[1:]}; use frames of the same region"
        )
    return np.asarray(stack - pattern)


def _middle(side: int) -> slice:
    return slice(max(0, (side - _SIDE) // 2), max(0, (side - _SIDE) // 2) + _SIDE)


def _stretched(image: Pixels) -> bool:
    return bool(image.dtype == np.uint8 and image.min() == 0 and image.max() == 255)


def _moved(high: DoubleArray, shift_px: tuple[float, ...]) -> tuple[DoubleArray, NDArray[np.bool_]]:
    """Lay the high-light stack on the low one; and tell where it shows what low does, and is not saturated."""
    lit = _below_the_top(high)
    if not shift_px or max(map(abs, shift_px)) < _LEAST_SHIFT_PX:
        return high, lit
    whole = (0.0, 0.0, *shift_px)[-3:]
    away = [-by for by in whole]
    both = np.zeros(high.shape, bool)
    both[overlap_window(high.shape, whole)] = True
    lit = ndimage.shift(lit.astype(np.float32), away, order=1, mode="nearest") > 1 - 1e-3
    return np.asarray(ndimage.shift(high, away, order=3, mode="nearest")), both & lit


def _below_the_top(image: DoubleArray) -> NDArray[np.bool_]:
    """Tell the pixels that are not saturated; many that share the largest value are."""
    top = image.max()
    at_the_top = image >= top
    return ~at_the_top if np.count_nonzero(at_the_top) >= _MOST_AT_THE_TOP else np.ones(image.shape, bool)


def _shrunk(usable: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Leave out the neighbours of what is left out, and the edge."""
    return np.asarray(ndimage.minimum_filter(usable, WINDOW, mode="constant", cval=False))


def _comparable(one: _Exposure, other: _Exposure) -> bool:
    """Whether nothing but noise differs: without high light, the specimen is in the exposures of a field alike."""
    same = one.field == other.field
    return one.residual.shape == other.residual.shape and (same or (one.slope > 0 and other.slope > 0))


def _difference(one: _Exposure, other: _Exposure) -> Deviation:
    """Compare the deviations of the same pixels in two exposures: what differs from pixel to pixel cancels."""
    if one.field == other.field:  # of one high-light image, whose noise cancels too
        shares, noises = (1.0, 1.0), 2.0
    else:
        shares, noises = (1 + one.slope, 1 + other.slope), 2 + one.slope**2 + other.slope**2
    return Deviation(
        values=(one.residual - other.residual) / np.sqrt(noises),
        excess=(shares[0] * one.level + shares[1] * other.level) / noises,
        steepness=(_steepness(one) + _steepness(other)) / noises,
        usable=one.usable & other.usable,
        offset_share=sum(shares) / noises,
    )


def _alone(one: _Exposure) -> Deviation:
    noises, share = 1 + one.slope**2, 1 + one.slope
    steepness = _steepness(one) / noises
    return Deviation(one.residual / np.sqrt(noises), share * one.level / noises, steepness, one.usable, share / noises)


def _steepness(one: _Exposure) -> DoubleArray:
    """Mean square difference to the four neighbours: what a step of one pixel adds to the variance."""
    # the noise of what is expected must not look steep
    level = ndimage.uniform_filter(one.level, 3) if one.noisy else one.level
    padded = np.pad(level, 1, mode="edge")
    neighbours = (padded[:-2, 1:-1], padded[2:, 1:-1], padded[1:-1, :-2], padded[1:-1, 2:])
    return np.asarray(sum(np.square(each - level) for each in neighbours) / len(neighbours))


def _offset(lines: Sequence[LowOnHigh]) -> Measured:
    """Where low and high read the same there is no light: from all fields, those that disagree make it less certain."""
    told = [line.fixed_point() for line in lines if line.slope * _LEAST_RATIO < 1]
    if not told:
        return Measured(float("nan"), float("inf"))
    values, errors = np.array([(each.value, each.error) for each in told]).T
    weights = 1 / np.square(np.maximum(errors, 1e-6))
    mean = float(np.average(values, weights=weights))
    chi2 = float(np.sum(weights * np.square(values - mean))) / max(1, len(told) - 1)
    return Measured(mean, float(np.sqrt(max(1.0, chi2) / weights.sum())))


def _untold(found: _Found, offset: Measured) -> CameraEstimate:
    unknown = Measured(float("nan"), float("inf"))
    why = "the images are too small or too flat to tell noise at different brightness; take pairs with more in them"
    return CameraEstimate(offset, unknown, unknown, 0, _method(found), why)


def _told(found: _Found, offset: Measured, line: TransferLine, curve: Cells, pixels: int) -> CameraEstimate:
    gain = Measured(line.gain, float(np.sqrt(line.covariance[0, 0])))
    share = float(np.average(curve.offset_share, weights=curve.pixels))
    floor_error = np.hypot(np.sqrt(line.covariance[1, 1]), line.gain * share * offset.error)
    read_noise = read_noise_of(gain, Measured(line.floor, float(floor_error)), float(line.covariance[0, 1]))
    estimate = CameraEstimate(offset, gain, read_noise, pixels, _method(found), line=line, curve=curve)
    return replace(estimate, why=_why(estimate, found))


def _method(found: _Found) -> str:
    again = f", {found.twice} of them taken twice" if found.twice else ""
    return f"photon transfer of {found.fields} field{'s' if found.fields != 1 else ''}{again}"


def _why(estimate: CameraEstimate, found: _Found) -> str:
    """Say what cannot be known, and what would help."""
    said = []
    if not np.isfinite(estimate.offset_adu.error):
        ratio = max((1 / line.slope for line in found.lines), default=0.0)
        light = f"high light is only {ratio:.2g} times low light, so" if ratio else "without high light"
        said.append(f"{light} the offset cannot be told, and without it not the read noise; give dark frames")
    said += estimate.doubts()
    if found.patterned:
        said.append(
            "a single image cannot tell the pattern of the camera's offsets from read noise, which is at most this; give more "
            "pairs, or dark frames"
        )
    return "; ".join(said)
