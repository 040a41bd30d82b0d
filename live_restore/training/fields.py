"""What training knows of an image without its pixels, and what it refuses to learn from.

Receives images, looked at once; hands on a `Field` of each, and one clear sentence about what cannot be. It does not know where
images come from, nor networks.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches

import numpy as np

from live_restore.errors import PairError
from live_restore.records.images import open_images
from live_restore.records.pairs import Pair
from live_restore.training.signal_map import SignalMap
from live_restore.training.targets import Pixels

PixelSize = tuple[float | None, float | None, float | None]

# Pixels that differ by more than this, relative, show structures of different sizes.
_PIXEL_SIZE_TOLERANCE = 0.05
_MOST_NAMED, _MOST_LISTED = 3, 12


@dataclass(frozen=True, slots=True, eq=False)
class Field:
    """One image to cut from.

    Attributes
    ----------
    name, channel, position : str
    shape : tuple of int, ([Z,] Y, X)
        Of what can be cut.
    pixel_size_um : tuple of float or None, (z, y, x)
    signal : SignalMap
        Of the same shape.
    """

    name: str
    channel: str
    position: str
    shape: tuple[int, ...]
    pixel_size_um: PixelSize
    signal: SignalMap

    @property
    def square(self) -> bool:
        """Whether Y and X are alike; they are supposed to be where nobody said."""
        _, y, x = self.pixel_size_um
        return y is None or x is None or abs(y / x - 1) <= _PIXEL_SIZE_TOLERANCE


def choose_pairs(pairs: Sequence[Pair], channel: str | None = None) -> tuple[Pair, ...]:
    """Choose the accepted pairs of a channel.

    Raises
    ------
    PairError
        If there are none, or no such channel.
    """
    accepted = tuple(pair for pair in pairs if pair.accepted)
    if not accepted:
        why = "; ".join(list(dict.fromkeys(pair.reason for pair in pairs if pair.reason))[:_MOST_NAMED])
        raise PairError(f"none of {len(pairs)} pairs was accepted{f' ({why})' if why else ''}; there is nothing to learn from")
    if channel is None:
        return accepted
    chosen = tuple(pair for pair in accepted if pair.channel == channel)
    if not chosen:
        names = sorted({pair.channel for pair in accepted} - {""})
        raise PairError(f"no accepted pair has the channel {channel!r}; {nearest(channel, names)}")
    return chosen


def nearest(word: str, names: Sequence[str]) -> str:
    """Say which name was probably meant, or which there are."""
    near = get_close_matches(word, names, n=1, cutoff=0.5)
    more = f" and {len(names) - _MOST_LISTED} more" if len(names) > _MOST_LISTED else ""
    return f"did you mean {near[0]}?" if near else f"there are {', '.join(names[:_MOST_LISTED]) or 'none with a name'}{more}"


def check_pixels(name: str, pixels: Pixels) -> None:
    """Refuse an image that holds NaN, or the same everywhere.

    Raises
    ------
    PairError
    """
    if pixels.dtype.kind == "f" and not np.isfinite(pixels).all():
        bad = int(pixels.size - np.isfinite(pixels).sum())
        raise PairError(f"{name} has {bad} pixels that are no numbers (NaN or infinite); save it anew, or take its pair out")
    if pixels.size == 0 or pixels.min() == pixels.max():
        raise PairError(f"{name} has the same count in every pixel; a closed shutter, or an empty field: take its pair out")


def check_alike(fields: Sequence[Field], n_dim: int) -> None:
    """Refuse images that one network cannot learn together.

    Raises
    ------
    PairError
        If there are none, if some are images and some are stacks, if a 3D network meets images, or if their pixels differ.
    """
    if not fields:
        raise PairError("there is no image to learn from")
    flat = [field.name for field in fields if len(field.shape) == 2]
    if 0 < len(flat) < len(fields):
        raise PairError(
            f"{len(flat)} pairs are single images ({_named(flat)}), {len(fields) - len(flat)} are stacks; train them apart"
        )
    if flat and n_dim == 3:
        raise PairError(f"a 3D network needs stacks, and {_named(flat)} are single images; set n_dim = 2")
    for axis, name in enumerate("zyx"):
        known = [(size, field.name) for field in fields if (size := field.pixel_size_um[axis])]
        if known and max(known)[0] > (1 + _PIXEL_SIZE_TOLERANCE) * min(known)[0]:
            (small, of_small), (large, of_large) = min(known), max(known)
            raise PairError(
                f"pixels in {name} are {small:g} µm in {of_small} and {large:g} µm in {of_large}; one network learns "
                f"structures of one size (limit {_PIXEL_SIZE_TOLERANCE:.0%}): train them apart"
            )


def read_pixel_size(pair: Pair) -> PixelSize:
    """Give the size of a pixel as the pair log says it, or else the file."""
    said = pair.said.get("pixel_size_um")
    if isinstance(said, list | tuple) and len(said) == 3:
        z, y, x = (float(size) if size else None for size in said)
        return z, y, x
    with open_images(pair.high)[0] as image:
        return image.info.pixel_size_um


def _named(names: Sequence[str]) -> str:
    more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    return ", ".join(names[:_MOST_NAMED]) + more
