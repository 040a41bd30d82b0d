"""Recordings that are not whole: where they end, and which volumes they lack.

Receives which planes a file holds, (T, C, Z); hands on how many time points count and which volumes are missing. It
does not know the format, nor why the planes are missing.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Present = NDArray[np.bool_]
_LISTED = 8


def acquired_times(present: Present) -> int:
    """Count the time points of a recording that may have been stopped or killed.

    Time points that were planned but never begun do not count, nor does a last one that lacks planes which every
    time point before it has: there the recording broke off. A channel that is skipped now and then is no such lack.

    Parameters
    ----------
    present : ndarray, (T, C, Z), bool
    """
    counts = present.sum(axis=2)  # (T, C)
    begun = np.flatnonzero(counts.any(axis=1))
    times = int(begun[-1]) + 1 if len(begun) else 0
    if times > 1 and (counts[times - 1] < counts[: times - 1].min(axis=0)).any():
        times -= 1
    return times


def missing_volumes(present: Present) -> frozenset[tuple[int, int]]:
    """Volumes (time, channel) that lack at least one plane of (T, C, Z)."""
    return frozenset((int(time), int(channel)) for time, channel in np.argwhere(~present.all(axis=2)))


def missing_planes(present: Present) -> str:
    """Say in words which planes of one volume (Z,) are missing."""
    lacking = [str(plane) for plane in np.flatnonzero(~present)]
    listed = ", ".join(lacking[:_LISTED]) + (", ..." if len(lacking) > _LISTED else "")
    return f"{len(lacking)} of {len(present)} planes (z {listed})"


def broken_off(path: Path, times: int, planned: int) -> tuple[str, ...]:
    """Note that a recording ended before its plan; nothing if it did not."""
    if times == planned:
        return ()
    return (f"{path.name}: the recording broke off; {times} of {planned} time points are whole, the rest is left out",)
