"""The tiles: which windows of an image go to the network, and which part of each result is kept.

Receives the shape of an image and what the network does to space; hands on tiles whose kept parts cover the image
exactly once. It does not know pixels' meaning, engines, or memory beyond a number of pixels.

An image is first extended by reflection to sizes the network can take (split evenly, as CSBDeep does). A window
that ends where that extended image ends has no halo there, so the network pads it with zeros exactly as it would
have padded the whole: tiled and whole agree to rounding.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from math import prod

import numpy as np

from live_restore.intensity import Pixels


class TooLittleMemory(ValueError):
    """Not even the smallest window of a network fits.

    Attributes
    ----------
    max_pixels, least_pixels : int
        What may be taken, and what is needed.
    """

    def __init__(self, max_pixels: int, least_pixels: int) -> None:
        super().__init__(f"a memory for {max_pixels} pixels is too small: the smallest tile has {least_pixels}")
        self.max_pixels, self.least_pixels = max_pixels, least_pixels


@dataclass(frozen=True, slots=True)
class Space:
    """What a network does to space; one entry per spatial axis, (Y, X) or (Z, Y, X).

    Attributes
    ----------
    halo : tuple of int
        Receptive-field radius, pixels.
    divisible_by : tuple of int
        Sizes of its input must be multiples of this.
    output_factor : tuple of int
        Output size over input size; 0 for an axis that is projected away (its output is one plane, and it is
        never split).
    global_pooling : bool
        Whether every pixel depends on statistics of the whole image (channel attention).
    """

    halo: tuple[int, ...]
    divisible_by: tuple[int, ...]
    output_factor: tuple[int, ...]
    global_pooling: bool = False

    @property
    def n_dim(self) -> int:
        """Number of spatial axes, 2 or 3."""
        return len(self.halo)

    def padding(self, shape: tuple[int, ...]) -> tuple[tuple[int, int], ...]:
        """Pixels to add before and after each axis, split evenly; e.g. 510 at a multiple of 4 gives (1, 1)."""
        missing = [-size % step for size, step in zip(shape, self.divisible_by, strict=True)]
        return tuple((pad // 2, pad - pad // 2) for pad in missing)

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of the result for an image of this shape; a projected axis has one plane."""
        return tuple(size * factor or 1 for size, factor in zip(shape, self.output_factor, strict=True))


@dataclass(frozen=True, slots=True)
class Span:
    """One tile along one axis, in pixels of the image; the window may reach beyond it, into the reflection."""

    start: int
    stop: int
    core_start: int
    core_stop: int


@dataclass(frozen=True, slots=True)
class Tile:
    """One window of the image and the part of it, the core, whose result is kept."""

    spans: tuple[Span, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the window, ([Z,] Y, X)."""
        return tuple(span.stop - span.start for span in self.spans)

    def take(self, pixels: Pixels) -> Pixels:
        """Cut the window out of (C, [Z,] Y, X), reflecting where it reaches beyond the image."""
        sizes = pixels.shape[1:]
        inside = tuple(slice(max(s.start, 0), min(s.stop, size)) for s, size in zip(self.spans, sizes, strict=True))
        beyond = [(max(-s.start, 0), max(s.stop - size, 0)) for s, size in zip(self.spans, sizes, strict=True)]
        window = pixels[(slice(None), *inside)]
        return np.pad(window, [(0, 0), *beyond], mode="reflect") if any(map(any, beyond)) else window

    def core_in_window(self, factor: tuple[int, ...]) -> tuple[slice, ...]:
        """Where the core lies in the network's output of this window."""
        return self._scaled([(s.core_start - s.start, s.core_stop - s.start) for s in self.spans], factor)

    def core_in_image(self, factor: tuple[int, ...]) -> tuple[slice, ...]:
        """Where the core goes in the restored image."""
        return self._scaled([(s.core_start, s.core_stop) for s in self.spans], factor)

    @staticmethod
    def _scaled(ranges: list[tuple[int, int]], factor: tuple[int, ...]) -> tuple[slice, ...]:
        return tuple(slice(a * f, b * f) if f else slice(0, 1) for (a, b), f in zip(ranges, factor, strict=True))


def tiles(shape: tuple[int, ...], window: tuple[int, ...], space: Space) -> Iterator[Tile]:
    """Cover an image of `shape` with windows of at most `window` pixels, as `window_shape` chose them."""
    axes = zip(shape, window, space.halo, space.divisible_by, space.padding(shape), strict=True)
    for spans in product(*(_spans(*axis) for axis in axes)):
        yield Tile(spans)


def _spans(size: int, window: int, halo: int, step: int, padding: tuple[int, int]) -> list[Span]:
    """Tiles along one axis: windows of equal size, shifted inward at the end, cores side by side."""
    before, after = padding
    extended = before + size + after
    margin = _round_up(halo, step)
    if window >= extended:
        return [Span(-before, size + after, 0, size)]
    last = extended - window
    starts = [*range(0, last, window - 2 * margin), last]
    ends = [start + window - margin for start in starts[:-1]] + [extended]
    begins = [0, *ends[:-1]]
    return [
        Span(start - before, start + window - before, max(begin - before, 0), min(end - before, size))
        for start, begin, end in zip(starts, begins, ends, strict=True)
    ]


def window_shape(shape: tuple[int, ...], space: Space, max_pixels: int) -> tuple[int, ...]:
    """Choose the window that restores an image with the least computing, at most `max_pixels` at once.

    Parameters
    ----------
    shape : tuple of int
        ([Z,] Y, X) of the image.
    space : Space
    max_pixels : int
        Largest number of input pixels in one window.

    Returns
    -------
    tuple of int
        Shape of the window; equal to the extended image if that fits.

    Raises
    ------
    TooLittleMemory
        If even the smallest window, two halos and one step wide, is larger than `max_pixels`.
    """
    extended = tuple(_round_up(size, step) for size, step in zip(shape, space.divisible_by, strict=True))
    if prod(extended) <= max_pixels:
        return extended
    options = [
        _window_options(size, *axis)
        for size, *axis in zip(shape, space.halo, space.divisible_by, space.output_factor, strict=True)
    ]
    sizes = np.meshgrid(*(np.array([o[0] for o in axis]) for axis in options), indexing="ij")
    counts = np.meshgrid(*(np.array([o[1] for o in axis]) for axis in options), indexing="ij")
    pixels, tile_count = prod(sizes), prod(counts)
    work = np.where(pixels <= max_pixels, pixels * tile_count, np.inf)
    if not np.isfinite(work).any():
        raise TooLittleMemory(max_pixels, int(np.min(pixels)))
    # the least work; among equals the fewest tiles
    best = np.lexsort((np.ravel(tile_count), np.ravel(work)))[0]
    return tuple(int(np.ravel(axis)[best]) for axis in sizes)


def _window_options(size: int, halo: int, step: int, factor: int) -> list[tuple[int, int]]:
    """(window, number of windows) along one axis, from the whole axis to the smallest window."""
    extended, margin = _round_up(size, step), _round_up(halo, step)
    options = [(extended, 1)]
    if factor == 0:
        return options
    for count in range(2, extended // step + 1):
        window = _round_up(-(-(extended + 2 * margin * (count - 1)) // count), step)
        if window < options[-1][0]:
            options.append((window, -(-(extended - window) // (window - 2 * margin)) + 1))
    return options


def _round_up(size: int, step: int) -> int:
    return -(-size // step) * step
