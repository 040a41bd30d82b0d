"""Where whole images come from: `PairSource`, pairs of files on the disk, and what every source can do.

Receives pairs; hands on cuts of low and target in network units, as many as wanted, while the images stay on the disk. It does
not know which cut is wanted, nor networks.

Every pair is read once at the beginning: that finds what cannot be learned from before anything is trained, and measures what
belongs to whole images and not to patches: the range that becomes 0 and 1, the fit of high to low, where there is signal.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from live_restore.errors import PairError
from live_restore.intensity import IntensityRange, measure_percentiles
from live_restore.pairs.moved import Window, cut_moved, overlap_window
from live_restore.records.pairs import Pair
from live_restore.restore.noise import CameraNoise
from live_restore.training.fields import Field, check_alike, check_pixels, read_pixel_size
from live_restore.training.options import Scaling
from live_restore.training.range_table import RangeTable, even_sample
from live_restore.training.signal_map import map_signal
from live_restore.training.streamed import StreamedImages
from live_restore.training.targets import CountsFit, Pixels, fit_counts, pool_range
from live_restore.training.thinning import camera_window, thin

FloatArray = NDArray[np.float32]

# Parts of the photons kept for which the range of an image is measured beforehand; of the patches, this share is thinned.
_KEPT = 6
_THINNED = 0.5


_NO_CAMERA = CameraNoise(0.0, 1.0, 0.0)


class Source(Protocol):
    """Images to learn from.

    Attributes
    ----------
    fields : tuple of Field
    frozen : IntensityRange or None
        The one range of all images; None: each has its own.
    """

    fields: tuple[Field, ...]
    frozen: IntensityRange | None

    def cut(self, number: int, window: Window, rng: np.random.Generator) -> tuple[FloatArray, FloatArray]:
        """Cut low and target from a field, both of the window's size, in network units; from any thread."""


@dataclass(frozen=True, slots=True, eq=False)
class _Measured:
    """What belongs to a whole pair."""

    pair: Pair
    shape: tuple[int, ...]
    kept: Window
    range: IntensityRange
    fit: CountsFit
    thinned: RangeTable | None


class PairSource:
    """Pairs on the disk.

    Parameters
    ----------
    pairs : sequence of Pair
        Accepted ones.
    scaling : Scaling
        How low images are scaled.
    n_dim : {2, 3}
        Of the network: a 2D one also learns from the planes of stacks.
    camera : CameraNoise, optional
        Of the low images, where known; without it nothing is thinned.
    thinning : tuple of float, optional
        Smallest and largest part of its photons that a low image keeps; None: all.
    memory_mb : int
        For images that must be decoded before they are cut.
    frozen : IntensityRange, optional
        For ``frozen`` scaling, a range that was measured before (of held-out pairs that of the training pairs); None: it is
        measured on these pairs.

    Raises
    ------
    PairError
        If a pair cannot be learned from, or not all of them together.
    """

    def __init__(
        self,
        pairs: Sequence[Pair],
        scaling: Scaling | None = None,
        *,
        n_dim: int = 2,
        camera: CameraNoise | None = None,
        thinning: tuple[float, float] | None = None,
        memory_mb: int = 1024,
        frozen: IntensityRange | None = None,
    ) -> None:
        scaling = scaling or Scaling()
        self._images = StreamedImages(memory_mb << 20)
        self._camera = camera or _NO_CAMERA
        self._thinning = None if camera is None else thinning
        self._percentiles = scaling.low_percentile, scaling.high_percentile
        looked_at = [self._look_at(pair) for pair in pairs]
        self.fields = tuple(field for field, _ in looked_at)
        self._measured = [measured for _, measured in looked_at]
        check_alike(self.fields, n_dim)
        self.frozen = (frozen or self._pool()) if scaling.mode == "frozen" else None

    def cut(self, number: int, window: Window, rng: np.random.Generator) -> tuple[FloatArray, FloatArray]:
        """Cut low and target from a field, thinned if that was asked for."""
        measured = self._measured[number]
        pair = measured.pair
        inside = tuple(
            slice(part.start + border.start, part.stop + border.start)
            for part, border in zip(window, measured.kept, strict=True)
        )
        low: Pixels = self._images.open(pair.low)[inside]
        high = cut_moved(self._images.open(pair.high), inside, pair.shift_px)
        fit, range_ = measured.fit, measured.range
        if self._thinning is not None and measured.thinned is not None and rng.random() < _THINNED:
            kept = float(rng.uniform(*self._thinning))
            low = thin(low, kept, self._camera_of(inside, measured.shape), rng)
            fit = fit.dimmed(kept, float(np.asarray(self._camera_of(None).offset_adu)))
            range_ = measured.thinned.at(kept)
        range_ = self.frozen or range_
        return range_.scale(low[None])[0], range_.scale(fit.apply(high)[None])[0]

    def counts_fit(self, number: int) -> CountsFit:
        """Give the line from high to low of a field."""
        return self._measured[number].fit

    def _look_at(self, pair: Pair) -> tuple[Field, _Measured]:
        low, high = self._images.read(pair.low), self._images.read(pair.high)
        if low.shape != high.shape:
            raise PairError(f"pair '{pair.name}': low is {[*low.shape]} large, high {[*high.shape]}; they must show the same")
        for side, pixels in (("low", low), ("high", high)):
            check_pixels(f"the {side} image of pair '{pair.name}'", pixels)
        try:
            kept = overlap_window(low.shape, pair.shift_px)
            moved = cut_moved(high, kept, pair.shift_px)
            fit = fit_counts(low[kept], moved)
        except PairError as error:
            raise PairError(f"pair '{pair.name}': {error}") from error
        shape = moved.shape
        field = Field(pair.name, pair.channel, place_of(pair), shape, read_pixel_size(pair), map_signal(moved))
        range_ = measure_percentiles(low[None], *self._percentiles)
        return field, _Measured(pair, low.shape, kept, range_, fit, self._table(low))

    def _table(self, low: Pixels) -> RangeTable | None:
        """Measure the range that a low image has when thinned."""
        if self._thinning is None:
            return None
        sample, rng, camera = even_sample(low), np.random.default_rng(0), self._camera_of(None)
        return RangeTable(
            [np.linspace(*self._thinning, _KEPT)],
            lambda kept: measure_percentiles(thin(sample, kept, camera, rng)[None], *self._percentiles),
        )

    def _camera_of(self, window: Window | None, shape: tuple[int, ...] = ()) -> CameraNoise:
        return camera_window(self._camera, shape, window)

    def _pool(self) -> IntensityRange:
        pixels = sum(int(np.prod(field.shape)) for field in self.fields)
        lows = (self._images.open(measured.pair.low) for measured in self._measured)
        return pool_range(lows, *self._percentiles, pixels)


def whole(source: Source, number: int) -> tuple[FloatArray, FloatArray]:
    """Give low and target of a whole field, ([Z,] Y, X), in network units; always the same."""
    shape = source.fields[number].shape
    return source.cut(number, tuple(slice(0, side) for side in shape), np.random.default_rng(number))


def place_of(pair: Pair) -> str:
    """Name the position of a pair; those of different folders are different places."""
    return f"{pair.low.parent.parent.name}/{pair.position or pair.name}"
