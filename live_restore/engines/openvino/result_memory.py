"""The memory of results: what nobody holds any more is written to again.

Receives a shape and a dtype; hands on an array that belongs to whoever asked. Memory that a process touches for the first time
is handed out by the system page by page, zeroed: 16 MB (2048 x 2048) were seen to take between 1 and 30 ms, more than
everything else around a small network. It does not know what is written there.
"""

from collections import deque
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Kept for the next results, of one size.
_MOST_KEPT = 2


class ResultMemory:
    """Memory for arrays of one shape and dtype.

    Parameters
    ----------
    shape : tuple of int
    dtype : dtype
    """

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self._shape, self._dtype = shape, dtype
        self._free: deque[NDArray[Any]] = deque(maxlen=_MOST_KEPT)

    def array(self) -> NDArray[Any]:
        """Give an array with any numbers in it; its memory comes back by itself when the last view of it is gone."""
        try:
            memory = self._free.pop()
        except IndexError:
            memory = np.empty(self._shape, self._dtype)
        return np.asarray(_Lent(memory, self._free))


class _Lent:
    """What stands behind an array and all its views: when this goes, the last of them has gone."""

    def __init__(self, memory: NDArray[Any], free: deque[NDArray[Any]]) -> None:
        self.__array_interface__ = memory.__array_interface__
        self._memory, self._free = memory, free

    def __del__(self) -> None:
        # whichever thread this happens in: appending to a deque is one step
        self._free.append(self._memory)
