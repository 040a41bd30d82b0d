"""The nouns that travel: what a restoration gives back.

They know nothing of files, wires, engines or models.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from live_restore.intensity import IntensityRange


@dataclass(frozen=True, slots=True, eq=False)
class Restored:
    """A restored volume: a prediction; the raw frames stay the record.

    Attributes
    ----------
    pixels : ndarray, (C, Z, Y, X) or (C, Y, X), float32
        Camera counts, or the network's own units where its output is no intensity.
    widths : ndarray of the same shape, or None
        Laplace scale of every pixel in the same units, from probabilistic networks: half of the probability lies
        within 0.69 of it, 90 % within 2.3.
    intensity : IntensityRange
        The counts that the network saw as 0 and 1; ``guarded`` warns of a flat image.
    tiles : int
        How many windows the image was restored in; 1 is the whole image at once.
    """

    pixels: NDArray[np.float32]
    widths: NDArray[np.float32] | None
    intensity: IntensityRange
    tiles: int
