"""The pipeline: one volume through the network, tile by tile.

Receives counts, an open engine, the range the network sees as 0 and 1, and what the network does to space; hands on
counts. It does not know where the volume came from, which model it is, or what runs behind the engine.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import prod
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from live_restore.engines.engine import Engine
from live_restore.frames import Restored
from live_restore.intensity import IntensityRange, Pixels
from live_restore.restore.tiling import Space, Tile, tiles, window_shape

FloatArray = NDArray[np.float32]
Progress = Callable[[int, int], None]


def no_progress(done: int, total: int) -> None:
    """Report nothing."""


class Graphs(Protocol):
    """The engines of one network: the plain graph, and two that share pooled statistics between tiles.

    ``measuring(window, weights) -> (means, output)`` and ``applying(window, weights, means) -> (means, output)`` are
    opened only for networks with global pooling, when an image does not fit in one window.
    """

    @property
    def whole(self) -> Engine:
        """The network as it is."""

    @property
    def measuring(self) -> Engine:
        """The network that also tells what each tile adds to the pooled means of the whole image."""

    @property
    def applying(self) -> Engine:
        """The network that is told the pooled means."""


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
        Called after every window, or after every plane where a 2D network takes a stack.

    Returns
    -------
    Restored
    """
    if network.space.n_dim == 2 and pixels.ndim == 4:
        return _plane_by_plane(pixels, network, intensity, output, progress)
    window = window_shape(pixels.shape[1:], network.space, network.max_pixels)
    cover = list(tiles(pixels.shape[1:], window, network.space))
    through = _pooled if network.space.global_pooling and len(cover) > 1 else _plain
    shape = network.space.output_shape(pixels.shape[1:])
    means = np.empty((network.channels_out, *shape), np.float32)
    widths = np.empty_like(means) if network.probabilistic else None
    for tile, result in through(pixels, cover, network.graphs, intensity, progress):
        _keep(result, tile, network, output, means, widths)
    return Restored(means, widths, intensity, len(cover))


def _keep(
    result: FloatArray,
    tile: Tile,
    network: Network,
    output: IntensityRange | None,
    means: FloatArray,
    widths: FloatArray | None,
) -> None:
    """Write the core of one window's result, in counts, to its place in the restored volume."""
    factor = network.space.output_factor
    projected = tuple(axis + 1 for axis, f in enumerate(factor) if f == 0)
    core = np.expand_dims(result, projected)[(slice(None), *tile.core_in_window(factor))]
    place = (slice(None), *tile.core_in_image(factor))
    mean, width = core[: network.channels_out], core[network.channels_out :]
    means[place] = output.unscale(mean) if output else mean
    if widths is not None:
        widths[place] = output.unscale_width(width) if output else width


def _plain(
    pixels: Pixels, cover: list[Tile], graphs: Graphs, intensity: IntensityRange, progress: Progress
) -> Iterator[tuple[Tile, FloatArray]]:
    """Every window through the network as it is; yields (C', [Z,] Y, X) in network units."""
    for done, tile in enumerate(cover, start=1):
        (result,) = graphs.whole.infer(intensity.scale(tile.take(pixels))[None])  # (1, C, [Z,] Y, X)
        yield tile, result[0]
        progress(done, len(cover))


def _pooled(
    pixels: Pixels, cover: list[Tile], graphs: Graphs, intensity: IntensityRange, progress: Progress
) -> Iterator[tuple[Tile, FloatArray]]:
    """Two passes: measure what every tile adds to the pooled means of the whole image, then restore with those.

    The first pass lets the attention of each tile see that tile alone, so the means of deeper layers carry a
    second-order error; the figures are in docs/measured.md.
    """
    total = 2 * len(cover)
    voxels = prod(pixels.shape[1:])
    means: FloatArray | None = None
    for done, tile in enumerate(cover, start=1):
        batch = intensity.scale(tile.take(pixels))[None]
        part, _ = graphs.measuring.infer(batch, _core_weights(tile, voxels))
        means = part if means is None else means + part  # (1, K)
        progress(done, total)
    assert means is not None
    for done, tile in enumerate(cover, start=len(cover) + 1):
        batch = intensity.scale(tile.take(pixels))[None]
        _, result = graphs.applying.infer(batch, _core_weights(tile, voxels), means)
        yield tile, result[0]
        progress(done, total)


def _core_weights(tile: Tile, voxels: int) -> FloatArray:
    """Give each pixel's share in the mean of the whole image: 1 / voxels in the core, 0 in the halo; (1, 1, [Z,] Y, X)."""
    weights = np.zeros((1, 1, *tile.shape), np.float32)
    weights[0, 0][tile.core_in_window((1,) * len(tile.shape))] = 1 / voxels
    return weights


def _plane_by_plane(
    pixels: Pixels, network: Network, intensity: IntensityRange, output: IntensityRange | None, progress: Progress
) -> Restored:
    """Restore a volume (C, Z, Y, X) with a 2D network; every plane shares one range."""
    planes = pixels.shape[1]
    shape = (network.channels_out, planes, *network.space.output_shape(pixels.shape[2:]))
    means = np.empty(shape, np.float32)
    widths = np.empty_like(means) if network.probabilistic else None
    count = 0
    for z in range(planes):
        plane = restore(pixels[:, z], network, intensity, output)
        means[:, z], count = plane.pixels, count + plane.tiles
        if widths is not None and plane.widths is not None:
            widths[:, z] = plane.widths
        progress(z + 1, planes)
    return Restored(means, widths, intensity, count)
