"""The reach: how far an operation of a network looks around, and what it does to the size of the image.

Receives a node of an ONNX graph and what is known of its inputs: arrays, or features (tensors that hold the image). Hands on
the same of its output. One function per kind of operation, `RULES` says which. It does not know the graph as a whole.

Along one spatial axis, pixel j of a feature lies at input pixel ``j * step`` and depends on the input from
``j * step - left`` to ``j * step + right``. An operation whose output pixel j reads its input from ``j * stride + first`` to
``j * stride + last`` therefore gives a step of ``step * stride``, a left of ``left - first * step`` and a right of
``right + last * step``.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from fractions import Fraction
from math import ceil, floor, prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from live_restore.engines.onnx_file import Node
from live_restore.models.shape_arithmetic import Array, integers, slices

# The most input pixels between two pixels of a feature, and the finest fraction: beyond, it is no image network.
_MOST_STEP = 4096


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
        if not (Fraction(1, _MOST_STEP) <= step <= _MOST_STEP):
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
Rule = Callable[[Node, list[Any]], Value | list[Value]]


def as_feature(value: Value) -> Feature:
    """Treat an array as a feature without space."""
    return value if isinstance(value, Feature) else Feature(tuple(_plain(size) for size in value.shape), {})


def _plain(size: int) -> Axis:
    return () if size == 1 else (Part(size),)


def _spaces(axes: Iterable[Axis]) -> frozenset[int]:
    return frozenset(part.space for axis in axes for part in axis if part.space is not None)


def _space(axis: Axis) -> int:
    """Tell which spatial axis this is, alone."""
    if len(axis) != 1 or axis[0].space is None:
        raise ValueError("it works along an axis that is no spatial axis of the image")
    return axis[0].space


# ---- pixel by pixel


def _pointwise(node: Node, inputs: list[Any]) -> Value:
    """Compute every pixel from the same pixel of all inputs, with broadcasting."""
    features = [as_feature(value) for value in inputs if value is not None]
    ndim = max(len(feature.axes) for feature in features)
    axes: list[Axis] = [()] * ndim
    reach: dict[int, Reach] = {}
    for feature in features:
        padded = ((),) * (ndim - len(feature.axes)) + feature.axes
        axes = [_broadcast(a, b) for a, b in zip(axes, padded, strict=True)]
        reach |= {s: r.join(reach[s]) if s in reach else r for s, r in feature.reach.items()}
    return Feature(tuple(axes), reach, frozenset().union(*(feature.whole for feature in features)))


def _broadcast(a: Axis, b: Axis) -> Axis:
    sizes = prod(part.size for part in a), prod(part.size for part in b)
    if sizes[0] != sizes[1] and 1 not in sizes:
        raise ValueError(f"it joins axes of {sizes[0]} and {sizes[1]}, so some size is fixed or borders are cropped")
    return max(a, b, key=lambda axis: (prod(part.size for part in axis), len(_spaces([axis]))))


def _first_only(node: Node, inputs: list[Any]) -> Value:
    return as_feature(inputs[0])


def _concatenate(node: Node, inputs: list[Any]) -> Value:
    features = [as_feature(value) for value in inputs]
    axis = node.attributes["axis"] % len(features[0].axes)
    if any(_spaces([feature.axes[axis]]) for feature in features):
        raise ValueError("it joins images side by side, not channels")
    total = sum(feature.shape[axis] for feature in features)
    lone = [replace(feature, axes=_with(feature.axes, axis, ())) for feature in features]
    joined = as_feature(_pointwise(node, lone))
    return replace(joined, axes=_with(joined.axes, axis, _plain(total)))


def _with(axes: tuple[Axis, ...], place: int, axis: Axis) -> tuple[Axis, ...]:
    return (*axes[:place], axis, *axes[place + 1 :])


# ---- windows


@dataclass(frozen=True, slots=True)
class Window:
    """How a convolution or pooling moves along one axis, in pixels of its own input."""

    kernel: int
    stride: int
    dilation: int
    pads: tuple[int, int]

    @property
    def span(self) -> int:
        """Distance from its first to its last pixel."""
        return (self.kernel - 1) * self.dilation


def _windows(node: Node, sizes: tuple[int, ...], kernel: Iterable[int]) -> list[Window]:
    n = len(sizes)
    kernel = node.attributes.get("kernel_shape") or list(kernel)
    strides = node.attributes.get("strides") or [1] * n
    dilations = node.attributes.get("dilations") or [1] * n
    pads = node.attributes.get("pads") or [0] * 2 * n
    moves = zip(kernel, strides, dilations, zip(pads[:n], pads[n:], strict=True), strict=True)
    windows = [Window(*move) for move in moves]
    return [_auto_padded(node, size, window) for size, window in zip(sizes, windows, strict=True)]


def _auto_padded(node: Node, size: int, window: Window) -> Window:
    mode = node.attributes.get("auto_pad", "NOTSET")
    if mode == "VALID":
        return replace(window, pads=(0, 0))
    if not mode.startswith("SAME"):
        return window
    if node.op == "ConvTranspose":
        total = window.span + 1 - window.stride
    else:
        total = (ceil(size / window.stride) - 1) * window.stride + window.span + 1 - size
    less, more = max(total, 0) // 2, max(total, 0) - max(total, 0) // 2
    return replace(window, pads=(less, more) if mode == "SAME_UPPER" else (more, less))


def _slide(node: Node, feature: Feature, kernel: Iterable[int], channels: int) -> Feature:
    """Move windows over the spatial axes; `channels` come out."""
    axes, reach = list(feature.axes), dict(feature.reach)
    axes[1] = _plain(channels)
    windows = _windows(node, feature.shape[2:], kernel)
    for place, window in enumerate(windows, start=2):
        size = feature.shape[place] + sum(window.pads) - window.span
        if not axes[place]:  # pooled to one pixel: a 1x1 convolution there looks at nothing else
            axes[place] = _plain((size - 1) // window.stride + 1)
            continue
        space = _space(axes[place])
        reach[space] = reach[space].read(-window.pads[0], window.span - window.pads[0], window.stride)
        rounded = ceil if node.attributes.get("ceil_mode") else floor
        axes[place] = (Part(rounded(Fraction(size - 1, window.stride)) + 1, space),)
    return Feature(tuple(axes), reach, feature.whole)


def _convolve(node: Node, inputs: list[Any]) -> Value:
    image, weight = inputs[0], inputs[1]
    return _slide(node, as_feature(image), weight.shape[2:], weight.shape[0])


def _pool(node: Node, inputs: list[Any]) -> Value:
    feature = as_feature(inputs[0])
    return _slide(node, feature, (), feature.shape[1])


def _convolve_transposed(node: Node, inputs: list[Any]) -> Value:
    feature, weight = as_feature(inputs[0]), inputs[1]
    if node.attributes.get("output_shape"):
        raise ValueError("it fixes the size of its output")
    axes, reach = list(feature.axes), dict(feature.reach)
    axes[1] = _plain(weight.shape[1] * node.attributes.get("group", 1))
    windows = _windows(node, feature.shape[2:], weight.shape[2:])
    extra = node.attributes.get("output_padding") or [0] * len(windows)
    for place, (window, more) in enumerate(zip(windows, extra, strict=True), start=2):
        space = _space(axes[place])
        pad = window.pads[0]
        # output pixel j takes input i where i * stride + tap = j + pad, for the taps 0..span
        first, last = _phases(window.stride, lambda j, w=window, p=pad: (ceil(Fraction(j + p - w.span, w.stride)), (j + p) // w.stride))
        reach[space] = reach[space].read(first, last, Fraction(1, window.stride))
        size = (feature.shape[place] - 1) * window.stride + window.span + 1 - sum(window.pads) + more
        axes[place] = (Part(size, space),)
    return Feature(tuple(axes), reach, feature.whole)


def _phases(up: int, reads: Callable[[int], tuple[int, int]], down: int = 1) -> tuple[Fraction, Fraction]:
    """Find the furthest reads, relative to ``j * down / up``, over all phases of an enlargement.

    Parameters
    ----------
    up, down : int
        Output pixel j lies at input pixel ``j * down / up``.
    reads : function
        Output pixel j to the first and last input pixel that it reads.
    """
    if up > _MOST_STEP:
        raise ValueError(f"it enlarges by {up}")
    spans = [(reads(j), Fraction(j * down, up)) for j in range(up)]
    return min(first - at for (first, _), at in spans), max(last - at for (_, last), at in spans)


# ---- other sizes


def _resize(node: Node, inputs: list[Any]) -> Value:
    feature = as_feature(inputs[0])
    axes, reach = list(feature.axes), dict(feature.reach)
    for place, ratio in enumerate(_ratios(node, feature.shape, inputs)):
        if ratio == 1:
            continue
        space = _space(axes[place])
        reads = _resize_reads(node, ratio)
        first, last = _phases(ratio.numerator, reads, ratio.denominator)
        reach[space] = reach[space].read(first, last, 1 / ratio)
        axes[place] = (Part(floor(feature.shape[place] * ratio), space),)
    return Feature(tuple(axes), reach, feature.whole)


def _ratios(node: Node, shape: tuple[int, ...], inputs: list[Any]) -> list[Fraction]:
    """Read the enlargement of every axis, from scales (as attribute, or as input 1 or 2) or from sizes (input 3)."""
    if node.op == "Upsample" and "scales" in node.attributes:
        scales = node.attributes["scales"]
    elif len(inputs) > 3 and inputs[3] is not None and inputs[3].size:
        return [Fraction(size, before) for size, before in zip(integers(inputs[3]), shape, strict=True)]
    else:
        at = 1 if node.op == "Upsample" or node.opset < 11 else 2
        scales = np.asarray(inputs[at]).ravel().tolist()
    return [Fraction(scale).limit_denominator(_MOST_STEP) for scale, _ in zip(scales, shape, strict=True)]


def _resize_reads(node: Node, ratio: Fraction) -> Callable[[int], tuple[int, int]]:
    half_pixel = {"half_pixel", "pytorch_half_pixel", "half_pixel_symmetric"}
    where = node.attributes.get("coordinate_transformation_mode", "half_pixel" if node.opset >= 11 else "asymmetric")
    where = "asymmetric" if node.op == "Upsample" else where
    if where not in half_pixel | {"asymmetric"}:
        raise ValueError(f"it resizes with {where!r}; use 'asymmetric' or 'half_pixel' (align_corners=False)")
    if node.attributes.get("antialias"):
        raise ValueError("it resizes with antialiasing")
    shift = Fraction(1, 2) if where in half_pixel else Fraction(0)
    around = {"nearest": 0, "linear": 1, "cubic": 2}[node.attributes.get("mode", "nearest")]

    def reads(j: int) -> tuple[int, int]:
        at = (j + shift) / ratio - shift
        if around:
            return floor(at) - around + 1, ceil(at) + around - 1
        return _nearest(node, at), _nearest(node, at)

    return reads


def _nearest(node: Node, at: Fraction) -> int:
    mode = node.attributes.get("nearest_mode", "round_prefer_floor" if node.opset >= 11 and node.op == "Resize" else "floor")
    half = Fraction(1, 2)
    return {
        "floor": floor(at),
        "ceil": ceil(at),
        "round_prefer_floor": ceil(at - half),
        "round_prefer_ceil": floor(at + half),
    }[mode]


def _to_depth(node: Node, inputs: list[Any]) -> Value:
    """SpaceToDepth: boxes of pixels become channels."""
    feature, box = as_feature(inputs[0]), node.attributes["blocksize"]
    axes, reach = list(feature.axes), dict(feature.reach)
    axes[1] = _plain(feature.shape[1] * box**2)
    for place in (2, 3):
        space = _space(axes[place])
        reach[space] = reach[space].read(0, box - 1, box)
        axes[place] = (Part(feature.shape[place] // box, space),)
    return Feature(tuple(axes), reach, feature.whole)


def _to_space(node: Node, inputs: list[Any]) -> Value:
    """DepthToSpace: channels become boxes of pixels."""
    feature, box = as_feature(inputs[0]), node.attributes["blocksize"]
    axes, reach = list(feature.axes), dict(feature.reach)
    axes[1] = _plain(feature.shape[1] // box**2)
    for place in (2, 3):
        space = _space(axes[place])
        reach[space] = reach[space].read(Fraction(1 - box, box), 0, Fraction(1, box))
        axes[place] = (Part(feature.shape[place] * box, space),)
    return Feature(tuple(axes), reach, feature.whole)


def _pad(node: Node, inputs: list[Any]) -> Value:
    feature = as_feature(inputs[0])
    pads = node.attributes.get("pads") or integers(inputs[1])
    places = integers(inputs[3]) if len(inputs) > 3 and inputs[3] is not None else range(len(feature.axes))
    n = len(pads) // 2
    for place, before, after in zip(places, pads[:n], pads[n:], strict=True):
        feature = _moved(feature, place % len(feature.axes), -before, feature.shape[place] + before + after)
    return feature


def _slice(node: Node, inputs: list[Any]) -> Value:
    feature = as_feature(inputs[0])
    for start, stop, place, step in slices(node, tuple(inputs[1:]), len(feature.axes)):
        if step < 1:
            raise ValueError("it turns the image round")
        kept = range(feature.shape[place])[start:stop:step]
        feature = _moved(feature, place, kept.start, len(kept), step)
    return feature


def _moved(feature: Feature, place: int, start: int, size: int, step: int = 1) -> Feature:
    """Let pixel j of an axis be what was pixel ``j * step + start``."""
    axis, reach = feature.axes[place], dict(feature.reach)
    if size == feature.shape[place] and not start:
        return feature
    if not _spaces([axis]):
        return replace(feature, axes=_with(feature.axes, place, _plain(size)))
    space = _space(axis)
    reach[space] = reach[space].read(start, start, step)
    return Feature(_with(feature.axes, place, (Part(size, space),)), reach, feature.whole)


def _split(node: Node, inputs: list[Any]) -> list[Value]:
    feature = as_feature(inputs[0])
    place = node.attributes.get("axis", 0) % len(feature.axes)
    if _spaces([feature.axes[place]]):
        raise ValueError("it cuts the image into pieces, not its channels")
    sizes = node.attributes.get("split") or integers(inputs[1] if len(inputs) > 1 else None)
    sizes = sizes or [feature.shape[place] // len(node.outputs)] * len(node.outputs)
    return [replace(feature, axes=_with(feature.axes, place, _plain(size))) for size in sizes]


def _gather(node: Node, inputs: list[Any]) -> Value:
    feature, indices = as_feature(inputs[0]), inputs[1]
    place = node.attributes.get("axis", 0) % len(feature.axes)
    if _spaces([feature.axes[place]]):
        raise ValueError("it picks single pixels of the image, not channels")
    picked = tuple(_plain(size) for size in indices.shape)
    return replace(feature, axes=(*feature.axes[:place], *picked, *feature.axes[place + 1 :]))


# ---- axes in another order


def _transpose(node: Node, inputs: list[Any]) -> Value:
    feature = as_feature(inputs[0])
    order = node.attributes.get("perm") or range(len(feature.axes))[::-1]
    return replace(feature, axes=tuple(feature.axes[place] for place in order))


def _squeeze(node: Node, inputs: list[Any]) -> Value:
    feature = as_feature(inputs[0])
    gone = _given_axes(node, inputs, len(feature.axes)) or [i for i, axis in enumerate(feature.axes) if not axis]
    return replace(feature, axes=tuple(axis for i, axis in enumerate(feature.axes) if i not in gone))


def _unsqueeze(node: Node, inputs: list[Any]) -> Value:
    feature = as_feature(inputs[0])
    given = node.attributes.get("axes") or integers(inputs[1])
    new = {place % (len(feature.axes) + len(given)) for place in given}
    old = iter(feature.axes)
    return replace(feature, axes=tuple(() if i in new else next(old) for i in range(len(feature.axes) + len(given))))


def _flatten(node: Node, inputs: list[Any]) -> Value:
    feature = as_feature(inputs[0])
    at = node.attributes.get("axis", 1)
    return _regrouped(feature, [prod(feature.shape[:at]), prod(feature.shape[at:])])


def _reshape(node: Node, inputs: list[Any]) -> Value:
    feature = as_feature(inputs[0])
    sizes = integers(inputs[1])
    if not node.attributes.get("allowzero"):
        sizes = [size or feature.shape[i] for i, size in enumerate(sizes)]
    if -1 in sizes:
        known = prod(size for size in sizes if size != -1)
        sizes[sizes.index(-1)] = prod(feature.shape) // known
    return _regrouped(feature, sizes)


def _regrouped(feature: Feature, sizes: list[int]) -> Feature:
    """Deal the parts of all axes out to axes of other sizes, in order."""
    if prod(sizes) != prod(feature.shape):
        raise ValueError("it fixes sizes that depend on the image")
    parts = [part for axis in feature.axes for part in axis][::-1]
    reach = dict(feature.reach)
    axes = tuple(_merged(_dealt(parts, size, reach), reach) for size in sizes)
    return Feature(axes, reach, feature.whole)


def _dealt(parts: list[Part], size: int, reach: dict[int, Reach]) -> Axis:
    """Take parts from the end of `parts` until they make up `size`, splitting the last where necessary."""
    taken: list[Part] = []
    while size > 1:
        part = parts.pop()
        if size % part.size == 0:
            taken.append(part)
        elif part.size % size == 0:  # the outer part keeps the place in the image, the inner one becomes channels
            inner = part.size // size
            taken.append(Part(size, part.space))
            parts.append(Part(inner))
            if part.space is not None:
                reach[part.space] = reach[part.space].read(0, inner - 1, inner)
        else:
            raise ValueError("it mixes pixels and channels")
        size //= taken[-1].size
    return tuple(taken)


def _merged(axis: Axis, reach: dict[int, Reach]) -> Axis:
    """Make one spatial part of a spatial part and the channels that a Reshape has put behind it."""
    if len(axis) < 2 or axis[0].space is None or _spaces([axis[1:]]):
        return axis
    inner = prod(part.size for part in axis[1:])
    space = axis[0].space
    reach[space] = reach[space].read(Fraction(1 - inner, inner), 0, Fraction(1, inner))
    return (Part(axis[0].size * inner, space),)


# ---- the whole extent of an axis


def _reduce(node: Node, inputs: list[Any]) -> Value:
    feature = as_feature(inputs[0])
    every = range(len(feature.axes))
    places = _given_axes(node, inputs, len(feature.axes)) or ([] if node.attributes.get("noop_with_empty_axes") else every)
    return _reduced(feature, places, keep=bool(node.attributes.get("keepdims", 1)))


def _pool_globally(node: Node, inputs: list[Any]) -> Value:
    feature = as_feature(inputs[0])
    return _reduced(feature, range(2, len(feature.axes)), keep=True)


def _reduced(feature: Feature, places: Iterable[int], keep: bool) -> Feature:
    gone = _spaces(feature.axes[place] for place in places)
    axes = tuple(() if i in places else axis for i, axis in enumerate(feature.axes) if keep or i not in places)
    return Feature(axes, {s: r for s, r in feature.reach.items() if s not in gone}, feature.whole | gone)


def _normalise_all(node: Node, inputs: list[Any]) -> Value:
    """InstanceNormalization and the like: statistics over everything behind the first two axes."""
    return _mixed(as_feature(inputs[0]), lambda place: place >= 2)


def _normalise_last(node: Node, inputs: list[Any]) -> Value:
    feature = as_feature(inputs[0])
    first = node.attributes.get("axis", -1) % len(feature.axes)
    return _mixed(feature, lambda place: place >= first)


def _softmax(node: Node, inputs: list[Any]) -> Value:
    feature = as_feature(inputs[0])
    at = node.attributes.get("axis", -1 if node.opset >= 13 else 1) % len(feature.axes)
    return _mixed(feature, lambda place: place == at or (place > at and node.opset < 13))


def _mixed(feature: Feature, over: Callable[[int], bool]) -> Feature:
    """Let every value depend on the whole of some axes."""
    whole = _spaces(axis for place, axis in enumerate(feature.axes) if over(place))
    return replace(feature, whole=feature.whole | whole)


def _given_axes(node: Node, inputs: list[Any], ndim: int) -> list[int]:
    given = node.attributes.get("axes") or integers(inputs[1] if len(inputs) > 1 else None)
    return [axis % ndim for axis in given]


def _shape(node: Node, inputs: list[Any]) -> Value:
    shape: Array = np.array(as_feature(inputs[0]).shape, np.int64)
    return shape[node.attributes.get("start", 0) : node.attributes.get("end")]


# Operations that change a feature where it lies: an engine needs no second copy of it.
POINTWISE = frozenset(
    "Abs Add And BatchNormalization Cast Ceil Celu Clip Cos Div Dropout Elu Equal Erf Exp Floor Gelu Greater GreaterOrEqual "
    "HardSigmoid HardSwish Identity LeakyRelu Less LessOrEqual Log Max Mean Min Mish Mod Mul Neg Not Or PRelu Pow Reciprocal "
    "Relu Round Selu Sigmoid Sign Sin Softplus Softsign Sqrt Sub Sum Tanh ThresholdedRelu Where".split()
)
_ONLY_FIRST = frozenset(("BatchNormalization", "Clip", "Dropout", "Cast", "Identity"))

_REDUCTIONS = ("ReduceL1", "ReduceL2", "ReduceLogSumExp", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceSum", "ReduceSumSquare")

RULES: dict[str, Rule] = {
    **{op: _first_only if op in _ONLY_FIRST else _pointwise for op in POINTWISE},
    **dict.fromkeys(_REDUCTIONS, _reduce),
    "AveragePool": _pool,
    "Concat": _concatenate,
    "Conv": _convolve,
    "ConvTranspose": _convolve_transposed,
    "DepthToSpace": _to_space,
    "Expand": lambda node, inputs: _pointwise(node, [inputs[0], np.broadcast_to(np.float32(0), integers(inputs[1]))]),
    "Flatten": _flatten,
    "Gather": _gather,
    "GlobalAveragePool": _pool_globally,
    "GlobalMaxPool": _pool_globally,
    "GroupNormalization": _normalise_all,
    "InstanceNormalization": _normalise_all,
    "LayerNormalization": _normalise_last,
    "LogSoftmax": _softmax,
    "MaxPool": _pool,
    "Pad": _pad,
    "Reshape": _reshape,
    "Resize": _resize,
    "Shape": _shape,
    "Slice": _slice,
    "Softmax": _softmax,
    "SpaceToDepth": _to_depth,
    "Split": _split,
    "Squeeze": _squeeze,
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
    "Upsample": _resize,
}
