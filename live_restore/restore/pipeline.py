"""The pipeline: one volume through the network, tile by tile.

Receives counts, engines that take and give counts, the range the network sees as 0 and 1, and what the network does to
space; hands on counts. While one window is computed, the next is cut and the one before is kept. It does not know where the
volume came from, which model it is, or what runs behind the engine.
"""

from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product
from math import prod
from typing import Any, Literal, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from live_restore.engines.engine import Batch, Engine
from live_restore.frames import Restored
from live_restore.intensity import IntensityRange, Pixels, whole_counts
from live_restore.restore.tiling import Space, Tile, tiles, window_shape

FloatArray = NDArray[np.float32]
Counts = NDArray[Any]
ImageType = Literal["uint16", "float32"]
Progress = Callable[[int, int], None]
Result = TypeVar("Result")


class NoNumbers(ValueError):
    """The network gave NaN or infinity."""


def no_progress(done: int, total: int) -> None:
    """Report nothing."""


class Graphs(Protocol):
    """The engines of one network: the plain graph, and two that share pooled statistics between tiles.

    All take counts of the dtype asked for, and at the end the ranges in and out (`live_restore.engines.graphs.counts_graph`);
    they give float32 counts, or where `rounded` a mean and uint16 counts. ``measuring(window, weights, ...) -> (means,
    output)`` and ``applying(window, weights, means, ...) -> (means, output)`` are opened only for networks with global
    pooling, when an image does not fit in one window.
    """

    def whole(self, image: ImageType, rounded: bool = False) -> Engine:
        """Give the network as it is."""

    def measuring(self, image: ImageType) -> Engine:
        """Give the network that also tells what each tile adds to the pooled means of the whole image."""

    def applying(self, image: ImageType, rounded: bool = False) -> Engine:
        """Give the network that is told the pooled means."""


@dataclass(frozen=True, slots=True)
class Network:
    """What the pipeline must know of a network to run it.

    Attributes
    ----------
    graphs : Graphs
    space : Space
    channels_out : int
        Channels of the restored image; a probabilistic graph gives twice as many.
    probabilistic : bool
    max_pixels : int
        Positions (Z x Y x X), whatever the channels, that fit in memory at once.
    """

    graphs: Graphs
    space: Space
    channels_out: int
    probabilistic: bool
    max_pixels: int


def restore(
    pixels: Pixels,
    network: Network,
    intensity: IntensityRange,
    output: IntensityRange | None,
    progress: Progress = no_progress,
    rounded: bool = False,
) -> Restored:
    """Restore one volume.

    Parameters
    ----------
    pixels : ndarray, (C, Y, X) or (C, Z, Y, X)
        Camera counts, any real dtype. A 2D network takes a volume plane by plane.
    network : Network
    intensity : IntensityRange
        The counts that the network sees as 0 and 1.
    output : IntensityRange or None
        The range that makes the network's output counts again; None leaves it in the network's units.
    progress : callable (done, total)
        Called after every window, or after every plane where a 2D network takes a stack; total is twice as many where tiles
        are gone through twice.
    rounded : bool
        Give whole counts, uint16, clipped to 0 .. 65535; the widths of a probabilistic network stay float32.

    Returns
    -------
    Restored

    Raises
    ------
    NoNumbers
    """
    planewise = network.space.n_dim == 2 and pixels.ndim == 4
    images = [pixels[:, z] for z in range(pixels.shape[1])] if planewise else [pixels]
    shape = images[0].shape[1:]
    cover = list(tiles(shape, window_shape(shape, network.space, network.max_pixels), network.space))
    windows = _Windows(images, cover, _ranges(intensity, output, len(pixels), network))
    whole = rounded and not network.probabilistic  # widths come out of the graph beside the counts, and are no whole numbers
    through = _pooled if network.space.global_pooling and len(cover) > 1 else _plain
    with _ending(through(windows, network.graphs, whole, progress)) as results:
        means, widths = _kept(results, windows, network, rounded)
    if not planewise:
        means, widths = means[:, 0], None if widths is None else widths[:, 0]
    return Restored(means, widths, intensity, len(images) * len(cover))


def _ranges(intensity: IntensityRange, output: IntensityRange | None, channels: int, network: Network) -> Batch:
    """Lay the ranges out as the graphs take them: low and span of every channel, (2, C) and (2, C')."""
    given = np.empty((2, network.channels_out), np.float32)
    given[:] = output.low_and_span if output else [[0], [1]]
    if network.probabilistic:
        given = np.hstack([given, [[0], [1]] * given])  # the low moves no width
    return np.array(np.broadcast_to(intensity.low_and_span, (2, channels))), given.astype(np.float32)


@dataclass(frozen=True, slots=True, eq=False)
class _Windows:
    """The windows that cover one or more images of one shape, in order.

    Attributes
    ----------
    images : list of ndarray, (C, [Z,] Y, X)
    cover : list of Tile
        The same for all images.
    ranges : tuple of ndarray
        What a graph takes at the end.
    """

    images: list[Pixels]
    cover: list[Tile]
    ranges: Batch

    @property
    def places(self) -> list[tuple[int, Tile]]:
        """Which image, and which tile of it, each window is."""
        return list(product(range(len(self.images)), self.cover))

    @property
    def dtype(self) -> ImageType:
        """What the network is given: cameras' integers as they are, anything else in float32."""
        return "uint16" if self.images[0].dtype in (np.uint8, np.uint16) else "float32"

    def batches(self, *between: Iterable[FloatArray]) -> Iterator[Batch]:
        """Cut the windows, (1, C, [Z,] Y, X) each; a copy is made only where tiles, padding or dtype need one."""
        for (i, tile), *others in zip(self.places, *between, strict=True):
            window = np.ascontiguousarray(tile.take(self.images[i]), self.dtype)
            yield window[None], *others, *self.ranges

    def report(self, progress: Progress, index: int, passes: int, done_passes: int = 0) -> None:
        """Report a window of one of several passes; of several images, whole images only."""
        many = len(self.images) > 1
        steps = len(self.images) if many else len(self.cover)
        if not many:
            progress(done_passes * steps + index + 1, passes * steps)
        elif (index + 1) % len(self.cover) == 0:
            progress(done_passes * steps + (index + 1) // len(self.cover), passes * steps)


def _plain(windows: _Windows, graphs: Graphs, rounded: bool, progress: Progress) -> Iterator[Counts]:
    """Every window through the network as it is; yields (C', [Z,] Y, X) in counts."""
    engine = graphs.whole(windows.dtype, rounded)
    if len(windows.places) == 1:
        # a result of its own, that need not be copied
        yield _numbers(engine.infer(*next(windows.batches())))
        windows.report(progress, 0, 1)
        return
    with _ending(engine.infer_many(windows.batches())) as results:
        for index, outputs in enumerate(results):
            yield _numbers(outputs)
            windows.report(progress, index, 1)


def _pooled(windows: _Windows, graphs: Graphs, rounded: bool, progress: Progress) -> Iterator[Counts]:
    """Two passes: measure what every tile adds to the pooled means of its image, then restore with those.

    The first pass lets the attention of each tile see that tile alone, so the means of deeper layers carry a
    second-order error; the figures are in docs/measured.md.
    """
    places, voxels = windows.places, prod(windows.images[0].shape[1:])
    means: list[FloatArray] = [np.zeros((1, 1), np.float32)] * len(windows.images)
    measuring = graphs.measuring(windows.dtype).infer_many(windows.batches(_core_weights(tile, voxels) for _, tile in places))
    with _ending(measuring) as results:
        for index, ((i, _), outputs) in enumerate(zip(places, results, strict=True)):
            means[i] = means[i] + outputs[0]  # (1, K)
            windows.report(progress, index, 2)
    weights = (_core_weights(tile, voxels) for _, tile in places)
    applying = graphs.applying(windows.dtype, rounded).infer_many(windows.batches(weights, (means[i] for i, _ in places)))
    with _ending(applying) as results:
        for index, outputs in enumerate(results):
            yield _numbers(outputs)
            windows.report(progress, index, 2, 1)


def _numbers(outputs: Batch) -> Counts:
    """Give what an engine restored, (C', [Z,] Y, X), if it is all numbers; of rounded counts their mean tells."""
    restored = outputs[-1]
    with np.errstate(over="ignore", invalid="ignore"):
        total = outputs[-2] if restored.dtype == np.uint16 else restored.sum()  # what is no number makes no sum either
    if not np.isfinite(total).all() and not (restored.dtype == np.float32 and np.isfinite(restored).all()):
        raise NoNumbers("the network gave pixels that are not numbers")
    result: Counts = restored[0]
    return result


def _kept(results: Iterator[Counts], windows: _Windows, network: Network, rounded: bool) -> tuple[Counts, FloatArray | None]:
    """Put the cores of all windows together: means (C', images, [Z,] Y, X), and widths alike."""
    space, split = network.space, network.channels_out
    projected = tuple(axis + 1 for axis, f in enumerate(space.output_factor) if f == 0)
    shape = (split, len(windows.images), *space.output_shape(windows.images[0].shape[1:]))
    means: Counts | None = None
    widths: FloatArray | None = None
    for (i, tile), result in zip(windows.places, results, strict=True):
        window = np.expand_dims(result, projected)
        core = window[(slice(None), *tile.core_in_window(space.output_factor))]
        mean, width = whole_counts(core[:split]) if rounded else core[:split], core[split:]
        if len(windows.places) == 1 and core.shape == window.shape:
            # the engine's result is the restored image: nothing is copied
            return mean[:, None], width[:, None] if network.probabilistic else None
        if means is None:
            means = np.empty(shape, mean.dtype)
            widths = np.empty(shape, np.float32) if network.probabilistic else None
        place: tuple[int | slice, ...] = (slice(None), i, *tile.core_in_image(space.output_factor))
        means[place] = mean
        if widths is not None:
            widths[place] = width
    assert means is not None
    return means, widths


@contextmanager
def _ending(results: Iterator[Result]) -> Iterator[Iterator[Result]]:
    """End what gives results when no more are wanted, whatever the reason: an engine may still be at work on the next."""
    try:
        yield results
    finally:
        if isinstance(results, Generator):
            results.close()


def _core_weights(tile: Tile, voxels: int) -> FloatArray:
    """Give each pixel's share in the mean of the whole image: 1 / voxels in the core, 0 in the halo; (1, 1, [Z,] Y, X)."""
    weights = np.zeros((1, 1, *tile.shape), np.float32)
    weights[0, 0][tile.core_in_window((1,) * len(tile.shape))] = 1 / voxels
    return weights
