"""Where in an image there is something to learn from, dim or bright alike: `SignalMap`.

Receives a high-light image once; hands on corners of patches, as often as asked, without the image. It does not know low light,
files or networks.

The image is averaged over blocks; a block is signal if it stands out of the background by the noise of the image, or by 3 % of
its bright parts, whichever is more. Every block of signal is as likely as every other, however bright. So neither the emptiness
of most images nor the brightness of a few cells decides what is learned; and a share of the patches lies anywhere, because
empty background must be restored as well.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from live_restore.restore.noise import robust_variance
from live_restore.training.targets import Pixels

_BLOCK_PX = 8
_MOST_BLOCKS = 16_384
# As many pixels tell how noisy the image is.
_NOISE_PIXELS = 200_000
# A block is signal if it is brighter than the background by so many sd of its mean, and by this part of the bright blocks.
_STANDS_OUT_SD = 6.0
_STANDS_OUT = 0.03
_BACKGROUND_PERCENT, _BRIGHT_PERCENT = 5.0, 99.0


@dataclass(frozen=True, slots=True, eq=False)
class SignalMap:
    """The blocks of an image, and which of them are signal.

    Attributes
    ----------
    shape : tuple of int, ([Z,] Y, X)
        Of the image.
    block : tuple of int, ([Z,] Y, X)
        Of a block.
    blocks : tuple of int, ([Z,] Y, X)
        Blocks along each axis; what is left over at the ends belongs to none.
    signal : ndarray, (number,), int32
        The blocks of signal, counted in C order.
    """

    shape: tuple[int, ...]
    block: tuple[int, ...]
    blocks: tuple[int, ...]
    signal: NDArray[np.int32]

    @property
    def share(self) -> float:
        """Part of the image that is signal."""
        return self.signal.size / max(1, int(np.prod(self.blocks)))

    def corner(self, patch: tuple[int, ...], on_signal: float, rng: np.random.Generator) -> tuple[int, ...]:
        """Draw where a patch begins.

        Parameters
        ----------
        patch : tuple of int, ([Z,] Y, X)
            Its size; no larger than the image.
        on_signal : float
            Chance that it lies on signal, otherwise it lies anywhere.
        rng : numpy.random.Generator
        """
        within = self._pixel(rng) if rng.random() < on_signal and self.signal.size else self._anywhere(rng)
        # the pixel may be anywhere in the patch, or what is sought would always be in the middle
        starts = (pixel - int(rng.integers(size)) for pixel, size in zip(within, patch, strict=True))
        return tuple(min(max(0, start), side - size) for start, side, size in zip(starts, self.shape, patch, strict=True))

    def _pixel(self, rng: np.random.Generator) -> list[int]:
        chosen = np.unravel_index(int(self.signal[rng.integers(self.signal.size)]), self.blocks)
        return [int(place) * size + int(rng.integers(size)) for place, size in zip(chosen, self.block, strict=True)]

    def _anywhere(self, rng: np.random.Generator) -> list[int]:
        return [int(rng.integers(side)) for side in self.shape]


def map_signal(high: Pixels) -> SignalMap:
    """Find the signal of a high-light image, ([Z,] Y, X)."""
    block = _block_size(high.shape)
    means = _block_means(high, block)
    background, bright = np.percentile(means, (_BACKGROUND_PERCENT, _BRIGHT_PERCENT))
    noise = np.sqrt(_noise_variance(high) / np.prod(block))
    least = max(_STANDS_OUT_SD * noise, _STANDS_OUT * (bright - background))
    signal = np.flatnonzero(means > background + least).astype(np.int32)
    return SignalMap(high.shape, block, means.shape, signal)


def _block_size(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Give blocks of 8 x 8 pixels (by 2 planes), or larger ones, so that there are not too many."""
    block = [2, _BLOCK_PX, _BLOCK_PX][-len(shape) :]
    while np.prod([side / size for side, size in zip(shape, block, strict=True)]) > _MOST_BLOCKS:
        block[-2:] = [2 * size for size in block[-2:]]
    return tuple(min(size, side) for size, side in zip(block, shape, strict=True))


def _block_means(image: Pixels, block: tuple[int, ...]) -> NDArray[np.float64]:
    """Average over blocks, plane by plane; what is left over at the ends is left out."""
    blocks = tuple(side // size for side, size in zip(image.shape, block, strict=True))
    kept = image[tuple(slice(number * size) for number, size in zip(blocks, block, strict=True))]
    rows = np.stack([_plane_means(plane, block[-2:]) for plane in kept.reshape(-1, *kept.shape[-2:])])
    means: NDArray[np.float64] = rows.reshape(blocks[0], -1, *blocks[-2:]).mean(1) if image.ndim == 3 else rows[0]
    return means


def _plane_means(plane: Pixels, block: tuple[int, ...]) -> NDArray[np.float64]:
    down, across = (side // size for side, size in zip(plane.shape, block, strict=True))
    boxes = plane.reshape(down, block[0], across, block[1])
    means: NDArray[np.float64] = boxes.mean(axis=(1, 3), dtype=np.float64)
    return means


def _noise_variance(image: Pixels) -> float:
    """Measure the pixel noise by the differences of neighbours along X, in evenly spaced rows."""
    rows = image.reshape(-1, image.shape[-1])
    chosen = rows[:: max(1, image.size // _NOISE_PIXELS)].astype(np.float32)
    return robust_variance((chosen[:, 1:] - chosen[:, :-1]).reshape(-1)) / 2
