"""One volume on its way through the trust check: the line, the planes one after another, and what they add up to.

Receives a raw and a restored volume and the sensor's noise; hands on `Findings`. It does not say what they mean.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from live_restore.restore.consistency import Consistency, Sensor
from live_restore.restore.hot_pixels import Places
from live_restore.restore.photon_fit import MOST_BLOCKS, Line, fit_line
from live_restore.restore.windows import EVEN_SHARE, KERNEL, PEAK

FloatArray = NDArray[np.float32]
Counts = NDArray[np.integer[Any]]
Rows = NDArray[np.float64]

# Smooth disagreement that is no structure: a share of the local level, and in the widest windows also of the peak.
_TOLERATED_OF_LEVEL = 0.02
_TOLERATED_OF_LEVEL_WIDE = 0.03
_TOLERATED_OF_PEAK_WIDE = 0.015
_WIDE_PX = 8
_MOST_PLACES = 8
# A window this far beyond what is tolerated is a wrong structure beyond doubt; so many places of them are counted.
BEYOND_DOUBT = 10.0
_MOST_STRONG = 64
_MOST_WINDOWS = 160
_HOLE = KERNEL.size**2
# Background, peak and medians are quantiles of about this many pixels.
_SAMPLE = 40_000
_FEW = 2_500
_BACKGROUND, _PEAK = 0.1, 0.999
# Largest counts of cameras of 8 to 16 bits: a plateau there is saturation.
_FULL_SCALES = (255, 1023, 2047, 4095, 8191, 16383, 65535)


@dataclass(slots=True)
class Findings:
    """What was found in a volume.

    Attributes
    ----------
    map : ndarray, (Z, Y, X), int8
        Ten times z.
    line : Line
    background_e, peak_e : float
        Electrons that a tenth of the pixels stay below, and that one in a thousand exceeds.
    rms, smallest_e : list of float
        Per scale: rms of z, and the amplitude of a structure that would just be raised on the median pixel.
    places : list of dict
        The windows that deviate most, none on top of another in its plane.
    strong : list of dict
        Those from 10 sd beyond what is tolerated, up to 64, none on top of another in any plane: what reaches through planes,
        and a pixel of the camera, is one.
    strong_in_a_plane : int
        How many of 10 sd or more the plane with most of them has, none on top of another.
    alone : list of ndarray
        Per plane, flat indices of pixels that stood out alone.
    saturated : int
        Pixels.
    """

    map: NDArray[np.int8]
    line: Line
    background_e: float
    peak_e: float
    rms: list[float] = field(default_factory=list)
    smallest_e: list[float] = field(default_factory=list)
    places: list[dict[str, Any]] = field(default_factory=list)
    strong: list[dict[str, Any]] = field(default_factory=list)
    strong_in_a_plane: int = 0
    alone: list[Places] = field(default_factory=list)
    saturated: int = 0


@dataclass(slots=True)
class _Tally:
    """Sums over the planes of a volume, at one scale."""

    squares: float = 0.0
    windows: int = 0
    smallest_e: float = 0.0


class VolumeCheck:
    """One volume, its sensor, and the pixels that are not judged.

    Parameters
    ----------
    consistency : Consistency
        For planes of this shape.
    sensor : Sensor
    raw, restored : ndarray, (Z, Y, X)
        Counts.
    hot : ndarray, (N,)
        Flat indices of pixels that are not judged in any plane.
    saturation_adu : float or None
    """

    def __init__(
        self,
        consistency: Consistency,
        sensor: Sensor,
        raw: Counts,
        restored: FloatArray,
        hot: Places,
        saturation_adu: float | None,
    ) -> None:
        self._consistency, self._sensor, self._raw, self._restored = consistency, sensor, raw, restored
        self._saturated = _saturated(raw, saturation_adu)
        self._left_out = [np.union1d(hot, places) if places.size else hot for places in self._saturated]

    def find(self, scales_px: tuple[int, ...], limit: float) -> Findings:
        """Compare every plane in windows of these scales; windows from `limit` standard deviations are raised."""
        line = self._fit()
        background, peak = self._background_and_peak(line)
        found = Findings(np.empty(self._raw.shape, np.int8), line, background, peak)
        found.saturated = sum(places.size for places in self._saturated)
        tallies = [_Tally() for _ in scales_px]
        raised: list[Rows] = []
        for plane, (raw, restored) in enumerate(zip(self._raw, self._restored, strict=True)):
            found.alone.append(self._consistency.compare(raw, restored, self._sensor, line, self._left_out[plane]))
            for level, (scale_px, tally) in enumerate(zip(scales_px, tallies, strict=True)):
                of_level, of_peak = tolerated_disagreement(scale_px)
                tolerated = of_level, of_peak * max(0.0, peak)
                tenths = self._consistency.beyond(level, *tolerated)
                raised.append(self._raised(tenths, plane, level, limit, tolerated))
                self._count(tally, level, limit, tolerated, self._left_out[plane].size)
            found.map[plane] = self._consistency.map()
        found.rms = [float(np.sqrt(tally.squares / max(1, tally.windows))) for tally in tallies]
        found.smallest_e = [tally.smallest_e / len(self._raw) for tally in tallies]
        rows = np.concatenate(raised)
        found.places = _apart(rows, _MOST_PLACES)
        strong = rows[np.abs(rows[:, 0]) >= BEYOND_DOUBT]
        found.strong = _apart(strong, _MOST_STRONG, through_planes=True)
        planes = [strong[strong[:, 1] == plane] for plane in np.unique(strong[:, 1])]
        found.strong_in_a_plane = max((len(_apart(plane, _MOST_PLACES)) for plane in planes), default=0)
        return found

    def _fit(self) -> Line:
        measured, restored = [], []
        # a part of the rows of blocks is enough, other ones in every plane
        every = 1 + self._raw.size // (self._consistency.block**2 * MOST_BLOCKS)
        for plane, (raw, expected, left_out) in enumerate(zip(self._raw, self._restored, self._left_out, strict=True)):
            blocks = self._consistency.blocks(raw, expected, self._sensor, left_out, every, plane)
            measured.append(blocks[0])
            restored.append(blocks[1])
        pixels = self._consistency.block**2
        return fit_line(np.concatenate(measured), np.concatenate(restored), self._sensor.typical_variance_e2, pixels)

    def _background_and_peak(self, line: Line) -> tuple[float, float]:
        step = 1 + int(np.sqrt(self._restored.size / _SAMPLE))
        # other pixels in every plane
        sample = np.concatenate(
            [plane[z % step :: step, 3 * z % step :: step].reshape(-1) for z, plane in enumerate(self._restored)]
        )
        background, peak = (
            line.slope * (counts - self._sensor.typical_offset) * self._sensor.typical_per_count + line.offset
            for counts in _quantiles(sample, _BACKGROUND, _PEAK)
        )
        return background, peak

    def _count(self, tally: _Tally, level: int, limit: float, tolerated: tuple[float, float], holes: int) -> None:
        windows = self._consistency.levels[level]
        tally.squares += float(np.einsum("yx,yx", windows.z, windows.z))
        # only beneath a hole as wide as the smallest window is there nothing to tell
        tally.windows += windows.z.size if holes < _HOLE else int(np.count_nonzero(windows.strength))
        strength = _median(windows.strength)
        smooth = tolerated[0] * max(0.0, _median(self._consistency.expected[level])) + tolerated[1]
        tally.smallest_e += PEAK * (limit / strength + EVEN_SHARE * smooth) if strength > 0 else 0.0

    def _raised(self, tenths: NDArray[np.int8], plane: int, level: int, limit: float, tolerated: tuple[float, float]) -> Rows:
        """Pick the worst raised windows of one scale: rows of z beyond what is tolerated, plane, y, x, scale; (N, 5)."""
        places = np.flatnonzero(np.abs(tenths) >= round(10 * limit))
        if not places.size:
            return np.zeros((0, 5))
        if places.size > _MOST_WINDOWS:
            strongest = np.abs(tenths.reshape(-1)[places])
            places = places[np.argpartition(-strongest, _MOST_WINDOWS)[:_MOST_WINDOWS]]
        rows, columns = np.divmod(places, tenths.shape[1])
        score = self._consistency.beyond_at(level, places, *tolerated)
        scale, whole = 2**level, np.ones(places.size)
        return np.stack([score, plane * whole, rows * scale + scale // 2, columns * scale + scale // 2, scale * whole], axis=1)


def tolerated_disagreement(scale_px: int) -> tuple[float, float]:
    """Which smooth disagreement is no structure at this scale: a share of the local level, and a share of the peak."""
    if scale_px >= _WIDE_PX:
        return _TOLERATED_OF_LEVEL_WIDE, _TOLERATED_OF_PEAK_WIDE
    return _TOLERATED_OF_LEVEL, 0.0


def _median(image: FloatArray) -> float:
    step = 1 + int(np.sqrt(image.size / _FEW))
    return _quantiles(image[::step, ::step].reshape(-1), 0.5)[0]


def _quantiles(values: FloatArray, *shares: float) -> list[float]:
    places = [round(share * (values.size - 1)) for share in shares]
    ordered = np.partition(values, places)
    return [float(ordered[place]) for place in places]


def _saturated(raw: Counts, saturation_adu: float | None) -> list[Places]:
    """Flat indices of the saturated pixels of every plane."""
    largest = int(raw.max())
    if saturation_adu is None:
        # nobody said: three pixels at the largest number of some bit depth are a plateau
        full = largest in _FULL_SCALES and np.count_nonzero(raw == largest) >= 3
        saturation_adu = largest if full else largest + 1
    if largest < saturation_adu:
        return [np.zeros(0, np.intp)] * len(raw)
    return [np.flatnonzero(plane >= saturation_adu) for plane in raw]


def _apart(raised: Rows, most: int, *, through_planes: bool = False) -> list[dict[str, Any]]:
    """Keep the strongest places, none within the reach of a stronger one in its plane, or in any."""
    left = raised[np.argsort(-np.abs(raised[:, 0]), kind="stable")]
    kept: list[dict[str, Any]] = []
    while left.size and len(kept) < most:
        strongest = left[0]
        kept.append(_place(*strongest.tolist()))
        away = np.abs(left[:, 2:4] - strongest[2:4]).max(axis=1)
        elsewhere = away > 3 * np.maximum(left[:, 4], strongest[4])
        left = left[elsewhere if through_planes else elsewhere | (left[:, 1] != strongest[1])]
    return kept


def _place(score: float, plane: float, y: float, x: float, scale: float) -> dict[str, Any]:
    return {
        "z": int(plane),
        "y": int(y),
        "x": int(x),
        "scale_px": int(scale),
        "score": round(score, 1),
        "sign": "erased" if score > 0 else "invented",
    }
