"""The ranges of images that are made only in parts: `RangeTable`.

Receives a way to measure the range of an image under a few conditions; hands on the range under any condition between them. It
does not know what the conditions are.

A patch of a simulated exposure is to be scaled by the percentiles of the whole exposure, which is never made: that would cost
more than the network. Percentiles change smoothly with light and blur, so that those of a few exposures tell all.
"""

from collections.abc import Callable, Sequence
from itertools import product

import numpy as np
from numpy.typing import NDArray

from live_restore.intensity import IntensityRange
from live_restore.training.targets import Pixels

# So many pixels stand for a whole image.
_SAMPLE = 16_384


class RangeTable:
    """Ranges at the nodes of a grid of conditions, and linearly between them.

    Parameters
    ----------
    nodes : sequence of ndarray
        Conditions along each axis, rising; one entry for a condition that never changes.
    measure : callable
        Gives the range (of one channel) under the conditions of a node.
    """

    def __init__(self, nodes: Sequence[NDArray[np.float64]], measure: Callable[..., IntensityRange]) -> None:
        self._nodes = [np.asarray(axis, np.float64) for axis in nodes]
        rows = [measure(*map(float, place)) for place in product(*self._nodes)]
        self._ends = np.array([(row.low[0], row.high[0]) for row in rows]).reshape(*map(len, self._nodes), 2)

    def at(self, *conditions: float) -> IntensityRange:
        """Give the range under any conditions; beyond the last nodes as at these."""
        ends = self._ends
        for axis, condition in zip(self._nodes, conditions, strict=True):
            place = float(np.interp(condition, axis, np.arange(axis.size)))
            below = min(int(place), max(0, axis.size - 2))
            above = min(below + 1, axis.size - 1)
            ends = ends[below] + (place - below) * (ends[above] - ends[below])
        return IntensityRange(ends[:1], ends[1:])


def even_sample(pixels: Pixels) -> Pixels:
    """Take pixels that stand for all: evenly spaced ones of all pixels in order of brightness."""
    flat = np.sort(pixels, axis=None)
    places = (np.arange(_SAMPLE) + 0.5) * flat.size / _SAMPLE
    return flat[places.astype(np.intp)]
