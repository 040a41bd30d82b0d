"""The references: which low-light volume belongs to which high-light one, and how like it raw and restored are.

Receives low-light volumes with what became of them, and high-light ones, in either order; hands on those that belong
together, and figures of them. Pure: it knows no threads, clocks, files or runs.
"""

import math
from collections import OrderedDict
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from live_restore.errors import ImageError
from live_restore.frames import Volume, VolumeKey
from live_restore.score import Likeness, score_pair

FloatArray = NDArray[np.float32]
# A comparison looks at so many pixels at most: about a second of work, and the figures change in the third digit only.
MOST_PIXELS = 1 << 20
# A plane is cut to a square of this side before planes are left out.
_SIDE = 1024
_NamedVolume = tuple[str, VolumeKey]


@dataclass(frozen=True, slots=True, eq=False)
class Low:
    """A low-light volume, and what became of it.

    Attributes
    ----------
    volume : Volume
    restored : ndarray, (Z', Y', X'), float32, or None
        None where it was not restored.
    model, sha256 : str
        What restored it.
    interpolated : bool
        Whether it was made finer along Z before the network: then both end planes stay where they are.
    """

    volume: Volume
    restored: FloatArray | None = None
    model: str = ""
    sha256: str = ""
    interpolated: bool = False

    @property
    def nbytes(self) -> int:
        """What it keeps in memory."""
        return self.volume.pixels.nbytes + (0 if self.restored is None else self.restored.nbytes)


@dataclass(frozen=True, slots=True, eq=False)
class Match:
    """A low-light volume and the high-light one of the same time, position and channel."""

    low: Low
    high: Volume

    @property
    def nbytes(self) -> int:
        """What it keeps in memory."""
        return self.low.nbytes + self.high.pixels.nbytes


class References:
    """The volumes of all runs that wait for their other half.

    Of every position and channel the newest low-light volume is kept, for a reference is taken right after it; references
    wait longer, for restoring takes its time.

    Parameters
    ----------
    max_bytes : int
        What may wait; the oldest go first.
    """

    def __init__(self, max_bytes: int = 1 << 30) -> None:
        self._max_bytes = max_bytes
        self._lows: OrderedDict[tuple[str, str, str], Low] = OrderedDict()
        self._highs: OrderedDict[_NamedVolume, Volume] = OrderedDict()
        self._dropped: dict[str, list[VolumeKey]] = {}
        self.nbytes = 0

    def low(self, low: Low) -> Match | None:
        """Take a low-light volume that was restored, or never will be."""
        volume, place = low.volume, _place(low.volume)
        self._forget(self._lows.pop(place, None))
        self._lows[place] = low  # also where its reference waits: another may follow
        self.nbytes += low.nbytes
        high = self._highs.pop((volume.run, replace(volume.key, light="high")), None)
        self.nbytes -= 0 if high is None else high.pixels.nbytes
        self._make_room()
        return None if high is None else Match(low, high)

    def high(self, volume: Volume) -> Match | None:
        """Take a high-light volume."""
        low = self._lows.get(_place(volume))
        if low is not None and low.volume.key == replace(volume.key, light="low"):
            return Match(low, volume)
        before = self._highs.pop((volume.run, volume.key), None)
        self._highs[volume.run, volume.key] = volume
        self.nbytes += volume.pixels.nbytes - (0 if before is None else before.pixels.nbytes)
        self._make_room()
        return None

    def end(self, run: str) -> list[Volume]:
        """Forget a run; gives its references whose low-light volume never came, but for those that were `dropped`."""
        alone = [volume for (name, _), volume in self._highs.items() if name == run]
        for volume in alone:
            self.nbytes -= self._highs.pop((run, volume.key)).pixels.nbytes
        for place in [place for place in self._lows if place[0] == run]:
            self._forget(self._lows.pop(place))
        return alone

    def dropped(self, run: str) -> list[VolumeKey]:
        """Name the references of a run for which there was no more memory; each is named once."""
        return self._dropped.pop(run, [])

    def _forget(self, low: Low | None) -> None:
        self.nbytes -= 0 if low is None else low.nbytes

    def _make_room(self) -> None:
        while self.nbytes > self._max_bytes and len(self._lows) + len(self._highs) > 1:
            if len(self._lows) > 1 or not self._highs:
                self._forget(self._lows.popitem(last=False)[1])
            else:
                (run, key), high = self._highs.popitem(last=False)
                self.nbytes -= high.pixels.nbytes
                self._dropped.setdefault(run, []).append(key)


def _place(volume: Volume) -> tuple[str, str, str]:
    return volume.run, volume.key.position, volume.key.channel


def compare(match: Match) -> dict[str, Any]:
    """Score raw, and restored where there is one, against the reference, each after its affine fit.

    A million pixels at most are compared: the middle of evenly spaced planes.

    Returns
    -------
    dict
        ``psnr_db``, ``ssim``, ``raw_psnr_db``, ``raw_ssim``, ``gain_db``, ``model``, ``sha256``; None what cannot be told.

    Raises
    ------
    ImageError
        If the two cannot be compared: other shapes, a constant reference.
    """
    raw, restored, high = match.low.volume.pixels, match.low.restored, match.high.pixels
    if raw.shape != high.shape:
        raise ImageError(f"the low-light volume has shape {raw.shape}, the reference {high.shape}; take both alike")
    planes, window = _looked_at(raw.shape)
    target, seen = high[planes][window], raw[planes][window]
    alike = restored is not None and restored.shape[1:] == raw.shape[1:]
    finer = _same_heights(restored, len(raw), match.low.interpolated) if restored is not None and alike else None
    if finer is None:
        return _figures(None, score_pair(seen, target).restored, match.low)
    score = score_pair(finer[planes][window], target, seen)
    return _figures(score.restored, score.raw, match.low)


def _figures(restored: Likeness | None, raw: Likeness | None, low: Low) -> dict[str, Any]:
    psnr_db, raw_psnr_db = (None if one is None else _finite(one.psnr_db, 3) for one in (restored, raw))
    return {
        "psnr_db": psnr_db,
        "ssim": None if restored is None else _finite(restored.ssim, 4),
        "raw_psnr_db": raw_psnr_db,
        "raw_ssim": None if raw is None else _finite(raw.ssim, 4),
        "gain_db": None if psnr_db is None or raw_psnr_db is None else round(psnr_db - raw_psnr_db, 3),
        "model": low.model if restored is not None else None,
        "sha256": low.sha256 if restored is not None else None,
    }


def _finite(value: float, digits: int) -> float | None:
    return round(value, digits) if math.isfinite(value) else None


def _looked_at(shape: tuple[int, ...]) -> tuple[slice, tuple[slice, slice, slice]]:
    """Choose planes, and the window in them, of a volume of shape (Z, Y, X)."""
    height, width = (min(side, _SIDE) for side in shape[1:])
    top, left = (shape[1] - height) // 2, (shape[2] - width) // 2
    step = -(-shape[0] * height * width // MOST_PIXELS)
    first = (shape[0] - 1) % step // 2 if step > 1 else 0
    return slice(first, None, step), (slice(None), slice(top, top + height), slice(left, left + width))


def _same_heights(restored: FloatArray, planes: int, interpolated: bool) -> FloatArray:
    """Take of finer planes those that lie where the raw ones do; (Z', Y, X) to (Z, Y, X)."""
    if len(restored) == planes:
        return restored
    if interpolated:
        return restored[np.linspace(0, len(restored) - 1, planes).round().astype(np.intp)]
    return restored[[(2 * at + 1) * len(restored) // (2 * planes) for at in range(planes)]]
