"""The reach: how far a value in the middle of a network looks around, and where it lies in the image.

Holds what the rules in `window_rules` and `axis_rules` receive and hand on for every tensor of a graph: arrays that are known
before any image comes, and features, tensors that hold the image. It does not know operations.

Along one spatial axis, pixel j of a feature lies at input pixel ``j * step`` and depends on the input from
``j * step - left`` to ``j * step + right``. An operation whose output pixel j reads its input from ``j * stride + first`` to
``j * stride + last`` therefore gives a step of ``step * stride``, a left of ``left - first * step`` and a right of
``right + last * step``.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from math import prod
from typing import Any

from numpy.typing import NDArray

# The most input pixels between two pixels of a feature, and the finest fraction: beyond, it is no image network.
MOST_STEP = 4096


@dataclass(frozen=True, slots=True)
class Part:
    """A size, and the spatial axis of the input along which it runs; None for channels and batch."""

    size: int
    space: int | None = None


# An axis of a tensor: usually one part, none if its size is 1, several where a Reshape has merged axes.
Axis = tuple[Part, ...]


@dataclass(frozen=True, slots=True)
class Reach:
    """Along one spatial axis, in input pixels: from pixel to pixel, and how far a pixel depends to either side."""

    step: Fraction = Fraction(1)
    left: Fraction = Fraction(0)
    right: Fraction = Fraction(0)

    def read(self, first: Fraction | int, last: Fraction | int, stride: Fraction | int = 1) -> "Reach":
        """Take the reach after reading from ``j * stride + first`` to ``j * stride + last``."""
        step = self.step * stride
        if not (Fraction(1, MOST_STEP) <= step <= MOST_STEP):
            raise ValueError(f"it makes one pixel {step} input pixels wide")
        return Reach(step, self.left - first * self.step, self.right + last * self.step)

    def join(self, other: "Reach") -> "Reach":
        """Take the reach of something computed from both."""
        if self.step != other.step:
            raise ValueError(f"it joins features with a pixel every {self.step} and every {other.step} input pixels")
        return Reach(self.step, max(self.left, other.left), max(self.right, other.right))


@dataclass(frozen=True, slots=True)
class Feature:
    """A tensor that holds the image or something computed from it.

    Attributes
    ----------
    axes : tuple of Axis
    reach : dict
        Spatial axis of the input: reach along it, for the spatial axes that the tensor still has.
    whole : frozenset of int
        Spatial axes whose whole extent enters every value (by a mean, a softmax, a normalisation).
    """

    axes: tuple[Axis, ...]
    reach: dict[int, Reach]
    whole: frozenset[int] = frozenset()

    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes of the axes."""
        return tuple(prod(part.size for part in axis) for axis in self.axes)

    def channels(self) -> int:
        """Values per pixel: the product of all sizes that are not spatial."""
        return prod(part.size for axis in self.axes for part in axis if part.space is None)


Value = Feature | NDArray[Any]


def as_feature(value: Value) -> Feature:
    """Treat an array as a feature without space."""
    return value if isinstance(value, Feature) else Feature(tuple(plain_axis(size) for size in value.shape), {})


def plain_axis(size: int) -> Axis:
    """Make an axis that is not spatial."""
    return () if size == 1 else (Part(size),)


def spaces_of(axes: Iterable[Axis]) -> frozenset[int]:
    """List the spatial axes of the input that are in these axes of a tensor."""
    return frozenset(part.space for axis in axes for part in axis if part.space is not None)


def space_of(axis: Axis) -> int:
    """Tell which spatial axis this is, alone."""
    if len(axis) != 1 or axis[0].space is None:
        raise ValueError("it works along an axis that is no spatial axis of the image")
    return axis[0].space


def with_axis(axes: tuple[Axis, ...], place: int, axis: Axis) -> tuple[Axis, ...]:
    """Replace one axis."""
    return (*axes[:place], axis, *axes[place + 1 :])
