"""Batches of patches, low and target, for any step at once: `PatchSampler`.

Receives a source of whole images; hands on batches. It does not know networks, losses or devices, nor that it is asked ahead
and from another thread.

Step by number, nothing is remembered: `draw(step)` gives the same batch whenever, and in whatever process, it is asked for.
So a training that was interrupted goes on exactly where it was, and several processes with a share of the batch each see
together what one would see.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
from numpy.typing import NDArray

from live_restore.errors import PairError
from live_restore.pairs.moved import Window
from live_restore.training.fields import Field
from live_restore.training.options import Augment, Sampling
from live_restore.training.sources import Source
from live_restore.training.turns import Turns

FloatArray = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Patches of one size, in network units.

    Attributes
    ----------
    low, target : ndarray, (N, 1, [Z,] Y, X), float32, contiguous
    """

    low: FloatArray
    target: FloatArray


class PatchSampler:
    """Patches for every step.

    Parameters
    ----------
    source : Source
    sampling : Sampling
    augment : Augment
        Flips and rotations; thinning is the source's.
    seed : int
    rank, world : int
        Which of how many processes this is; each draws its own share of every batch.

    Raises
    ------
    PairError
        If an image is smaller than a patch.
    ValueError
        If the batch cannot be shared among so many processes.
    """

    def __init__(
        self,
        source: Source,
        sampling: Sampling,
        augment: Augment | None = None,
        seed: int = 0,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        check_sizes(source.fields, sampling.patches)
        if sampling.batch % world or not 0 <= rank < world:
            raise ValueError(
                f"a batch of {sampling.batch} cannot be shared by process {rank} of {world}; use a multiple of {world}, and "
                "count processes from 0"
            )
        self._source, self._sampling, self._augment = source, sampling, augment or Augment()
        self._seed = seed
        share = sampling.batch // world
        self._own = range(rank * share, (rank + 1) * share)
        self._turns = Turns([(field.channel, field.position) for field in source.fields], seed)

    def draw(self, step: int) -> Batch:
        """Draw the batch of a step, counted from 0; the same whenever it is asked for."""
        patch = self._patch_size(step)
        low = np.empty((len(self._own), 1, *patch), np.float32)
        target = np.empty_like(low)
        for row, number in enumerate(self._own):
            low[row, 0], target[row, 0] = self._draw_patch(step, number, patch)
        return Batch(low, target)

    def field_of(self, step: int, number: int) -> int:
        """Say which field a patch of a step is cut from."""
        turn = (step * self._sampling.batch + number) // self._sampling.patches_per_image
        return self._turns.at(turn)

    def _patch_size(self, step: int) -> tuple[int, ...]:
        sizes = self._sampling.patches
        return sizes[int(np.random.default_rng([self._seed, step, 0]).integers(len(sizes)))]

    def _draw_patch(self, step: int, number: int, patch: tuple[int, ...]) -> tuple[FloatArray, FloatArray]:
        rng = np.random.default_rng([self._seed, step, number + 1])
        place = self.field_of(step, number)
        field = self._source.fields[place]
        # a 2D network learns from any plane of a stack
        size = (1,) * (len(field.shape) - len(patch)) + patch
        corner = field.signal.corner(size, self._sampling.signal, rng)
        low, target = self._source.cut(place, window_at(corner, size), rng)
        both = np.stack([low, target]).reshape(2, *patch)
        turned = turn(both, self._augment, field.square, rng)
        return turned[0], turned[1]


def turn(both: FloatArray, augment: Augment, square: bool, rng: np.random.Generator) -> FloatArray:
    """Flip and rotate patches together; no pixel is interpolated.

    Parameters
    ----------
    both : ndarray, (..., [Z,] Y, X)
    augment : Augment
    square : bool
        Whether pixels are as high as they are wide; if not, or if the patch is not square, it is turned by 180° only.
    rng : numpy.random.Generator
    """
    quarters, up, left, over = (int(lot) for lot in rng.integers(0, (4, 2, 2, 2)))
    if augment.rotations:
        if not square or both.shape[-1] != both.shape[-2]:
            quarters -= quarters % 2
        both = np.rot90(both, quarters, axes=(-2, -1))
    if augment.flips:
        both = both[..., :: 1 - 2 * up, :: 1 - 2 * left]
    if augment.flip_z and both.ndim > 3 and over:
        both = both[..., ::-1, :, :]
    return both


def window_at(corner: Sequence[int], size: Sequence[int]) -> Window:
    """Give the window of a size that begins at a corner."""
    return tuple(slice(start, start + length) for start, length in zip(corner, size, strict=True))


def check_sizes(fields: Sequence[Field], patches: Sequence[tuple[int, ...]]) -> None:
    """Refuse images that are smaller than a patch.

    Raises
    ------
    PairError
    """
    for patch in patches:
        for field in fields:
            if any(side < size for side, size in zip(field.shape[-len(patch) :], patch, strict=True)):
                raise PairError(
                    f"pair '{field.name}' is {[*field.shape]} large, smaller than the patch {[*patch]}; use smaller patches in "
                    "[sampling], or take larger images"
                )


def fit_patches(
    patches: Sequence[tuple[int, ...]], fields: Sequence[Field], divisible_by: int = 1
) -> tuple[tuple[int, ...], ...]:
    """Shorten patches until they fit into every image, in multiples of what the network can halve.

    Raises
    ------
    PairError
        If an image is too small even for the smallest patch.
    """
    n_dim = len(patches[0])
    room = [min(sides) for sides in zip(*(field.shape[-n_dim:] for field in fields), strict=True)]
    most = [side - side % divisible_by for side in room]
    if not all(most):
        small = min(fields, key=lambda field: prod(field.shape[-n_dim:]))
        raise PairError(
            f"pair '{small.name}' is {[*small.shape]} large; the network halves images, so every side needs {divisible_by} "
            "pixels or more: take larger images, or lower depth in [network.options]"
        )
    fitted = (tuple(min(sizes) for sizes in zip(patch, most, strict=True)) for patch in patches)
    return tuple(dict.fromkeys(fitted))
