"""Pixels on their way into a file: converted to its dtype, plane by plane, and what that changed.

Receives planes of any real dtype; hands on planes of the file's, and a tally. It does not know the file.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from live_restore.errors import ImageError
from live_restore.records.restored_info import Pixels
from live_restore.records.restored_journal import Entry

_TOP = np.iinfo(np.uint16).max


class Tally:
    """Converts the planes of one volume, and keeps count.

    Parameters
    ----------
    dtype : dtype
        float32: kept as it is, NaN too. uint16: rounded and clipped to 0..65535, NaN refused.
    place : str
        Which volume, for messages.
    """

    def __init__(self, dtype: np.dtype[Any], place: str) -> None:
        self._dtype, self._place = np.dtype(dtype), place
        self._clipped, self._low, self._high = 0, np.inf, -np.inf

    def converted(self, plane: Pixels) -> Pixels:
        """Plane (Y, X) in the dtype of the file.

        Raises
        ------
        ImageError
            If it holds NaN and the file is uint16.
        """
        low, high = float(plane.min()), float(plane.max())
        if self._dtype == np.uint16 and plane.dtype != np.uint16:
            plane = self._rounded(plane, low, high)
            low, high = max(low, 0.0), min(high, float(_TOP))
        if np.isfinite(low) and np.isfinite(high):
            self._low, self._high = min(self._low, low), max(self._high, high)
        return plane.astype(self._dtype, copy=False)

    def entry(self, said: Mapping[str, Any]) -> Entry:
        """Hand on what the journal keeps of the volume."""
        known = np.isfinite(self._low)
        return Entry(self._clipped, self._low if known else 0.0, self._high if known else 1.0, said)

    def _rounded(self, plane: Pixels, low: float, high: float) -> Pixels:
        if np.isnan(low):
            count = np.count_nonzero(np.isnan(plane))
            raise ImageError(f"a restored plane of {self._place} has {count} NaN pixels, which uint16 cannot hold; use float32")
        rounded = np.rint(plane)
        if np.rint(low) < 0 or np.rint(high) > _TOP:
            self._clipped += int(np.count_nonzero((rounded < 0) | (rounded > _TOP)))
            rounded = np.clip(rounded, 0, _TOP)
        return rounded
