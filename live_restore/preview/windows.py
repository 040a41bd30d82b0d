"""The part of an image that a screen shows, at the resolution that it shows it in.

Receives images (Y, X) and a `Window`; hands on the pixels within, averaged in blocks. Pure. A camera has more pixels than
most screens, and a browser takes longest to receive them: so what nobody can see is not sent.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

LARGEST_BLOCK = 64
Region = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True)
class Window:
    """What part of an image is wanted, and how coarsely.

    Attributes
    ----------
    region : tuple of int or None
        (x0, y0, x1, y1), pixels of the raw image, the last ones not included; None: all of it.
    block : int
        That many pixels in either direction become one.
    """

    region: Region | None = None
    block: int = 1

    def of(self, shape: tuple[int, ...]) -> Region:
        """Give the region within an image of shape (Y, X): whole blocks, at least one."""
        height, width = shape
        x0, y0, x1, y1 = self.region or (0, 0, width, height)
        block = self.block_of(shape)
        x0, x1 = _whole_blocks(x0, x1, width, block)
        y0, y1 = _whole_blocks(y0, y1, height, block)
        return x0, y0, x1, y1

    def block_of(self, shape: tuple[int, ...]) -> int:
        """Give the block for an image of shape (Y, X): never larger than the image."""
        return max(1, min(self.block, LARGEST_BLOCK, *shape))


def _whole_blocks(start: int, stop: int, size: int, block: int) -> tuple[int, int]:
    start = max(0, min(start, size - block))
    stop = max(start + block, min(stop, size))
    return start, start + (stop - start) // block * block


def averaged(pixels: NDArray[Any], window: Window, raw_shape: tuple[int, ...]) -> NDArray[Any]:
    """Cut a window out of an image and average its blocks.

    Parameters
    ----------
    pixels : ndarray, (Y', X')
        Of the raw image's size, or finer.
    window : Window
    raw_shape : tuple of int, (Y, X)

    Returns
    -------
    ndarray
        A view of `pixels` where blocks are single pixels, else float32.
    """
    cut, block = _cut(pixels, window, raw_shape)
    if block == 1:
        return cut
    rows = np.zeros((cut.shape[0] // block, cut.shape[1]), np.float32)
    for row in range(block):
        rows += cut[row::block]  # first whole rows, which lie together in memory
    total = np.zeros((rows.shape[0], rows.shape[1] // block), np.float32)
    for column in range(block):
        total += rows[:, column::block]
    return total * np.float32(1 / block**2)


def strongest(trust: NDArray[np.int8], window: Window, raw_shape: tuple[int, ...]) -> NDArray[np.int8]:
    """Cut a window out of a trust map (Y, X), int8; of every block the value of largest size stays, so that none is hidden."""
    cut, block = _cut(trust, window, raw_shape)
    if block == 1:
        return cut
    most = np.zeros((cut.shape[0] // block, cut.shape[1] // block), np.int8)
    for row in range(block):
        for column in range(block):
            here = cut[row::block, column::block]
            np.copyto(most, here, where=np.abs(here) > np.abs(most))
    return most


def _cut(pixels: NDArray[Any], window: Window, raw_shape: tuple[int, ...]) -> tuple[NDArray[Any], int]:
    x0, y0, x1, y1 = window.of(raw_shape)
    finer_y, finer_x = pixels.shape[0] / raw_shape[0], pixels.shape[1] / raw_shape[1]
    rows = slice(round(y0 * finer_y), max(round(y1 * finer_y), round(y0 * finer_y) + 1))
    columns = slice(round(x0 * finer_x), max(round(x1 * finer_x), round(x0 * finer_x) + 1))
    cut = pixels[rows, columns]
    block = min(window.block_of(raw_shape), *cut.shape)
    height, width = (side // block * block for side in cut.shape)
    return cut[:height, :width], block
