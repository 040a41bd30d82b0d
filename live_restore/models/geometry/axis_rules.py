"""The rules for axes: operations that compute pixel by pixel, cut, join, reorder axes, or take a whole axis together.

Each function receives a node and what is known of its inputs, and hands on what is known of its output: see
`live_restore.models.geometry.reach`. It does not know the graph as a whole.
"""

from collections.abc import Callable, Iterable
from dataclasses import replace
from fractions import Fraction
from math import prod
from typing import Any

import numpy as np

from live_restore.engines.graphs.onnx_file import Node
from live_restore.models.geometry.reach import (
    Axis,
    Feature,
    Part,
    Reach,
    Value,
    as_feature,
    plain_axis,
    space_of,
    spaces_of,
    with_axis,
)
from live_restore.models.geometry.shape_arithmetic import Array, integers, slices


def pointwise(node: Node, inputs: list[Any]) -> Value:
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


def expand(node: Node, inputs: list[Any]) -> Value:
    """Expand: broadcasting to given sizes."""
    return pointwise(node, [inputs[0], np.broadcast_to(np.float32(0), integers(inputs[1]))])


def _broadcast(a: Axis, b: Axis) -> Axis:
    sizes = prod(part.size for part in a), prod(part.size for part in b)
    if sizes[0] != sizes[1] and 1 not in sizes:
        raise ValueError(f"it joins axes of {sizes[0]} and {sizes[1]}, so some size is fixed or borders are cropped")
    return max(a, b, key=lambda axis: (prod(part.size for part in axis), len(spaces_of([axis]))))


def first_only(node: Node, inputs: list[Any]) -> Value:
    """Look at the first input alone: the others are numbers, one per channel."""
    return as_feature(inputs[0])


def concatenate(node: Node, inputs: list[Any]) -> Value:
    """Concat, of channels."""
    features = [as_feature(value) for value in inputs]
    axis = node.attributes["axis"] % len(features[0].axes)
    if any(spaces_of([feature.axes[axis]]) for feature in features):
        raise ValueError("it joins images side by side, not channels")
    total = sum(feature.shape[axis] for feature in features)
    lone = [replace(feature, axes=with_axis(feature.axes, axis, ())) for feature in features]
    joined = as_feature(pointwise(node, lone))
    return replace(joined, axes=with_axis(joined.axes, axis, plain_axis(total)))


def pad(node: Node, inputs: list[Any]) -> Value:
    """Pad: constants or mirrored pixels around the image."""
    feature = as_feature(inputs[0])
    pads = node.attributes.get("pads") or integers(inputs[1])
    places = integers(inputs[3]) if len(inputs) > 3 and inputs[3] is not None else range(len(feature.axes))
    n = len(pads) // 2
    for place, before, after in zip(places, pads[:n], pads[n:], strict=True):
        feature = _moved(feature, place % len(feature.axes), -before, feature.shape[place] + before + after)
    return feature


def cut(node: Node, inputs: list[Any]) -> Value:
    """Slice: a part of an axis, or every so many-th of it."""
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
    if not spaces_of([axis]):
        return replace(feature, axes=with_axis(feature.axes, place, plain_axis(size)))
    space = space_of(axis)
    reach[space] = reach[space].read(start, start, step)
    return Feature(with_axis(feature.axes, place, (Part(size, space),)), reach, feature.whole)


def split(node: Node, inputs: list[Any]) -> list[Value]:
    """Split, of channels."""
    feature = as_feature(inputs[0])
    place = node.attributes.get("axis", 0) % len(feature.axes)
    if spaces_of([feature.axes[place]]):
        raise ValueError("it cuts the image into pieces, not its channels")
    sizes = node.attributes.get("split") or integers(inputs[1] if len(inputs) > 1 else None)
    sizes = sizes or [feature.shape[place] // len(node.outputs)] * len(node.outputs)
    return [replace(feature, axes=with_axis(feature.axes, place, plain_axis(size))) for size in sizes]


def gather(node: Node, inputs: list[Any]) -> Value:
    """Gather, of channels."""
    feature, indices = as_feature(inputs[0]), inputs[1]
    place = node.attributes.get("axis", 0) % len(feature.axes)
    if spaces_of([feature.axes[place]]):
        raise ValueError("it picks single pixels of the image, not channels")
    picked = tuple(plain_axis(size) for size in indices.shape)
    return replace(feature, axes=(*feature.axes[:place], *picked, *feature.axes[place + 1 :]))


def transpose(node: Node, inputs: list[Any]) -> Value:
    """Transpose."""
    feature = as_feature(inputs[0])
    order = node.attributes.get("perm") or range(len(feature.axes))[::-1]
    return replace(feature, axes=tuple(feature.axes[place] for place in order))


def squeeze(node: Node, inputs: list[Any]) -> Value:
    """Squeeze."""
    feature = as_feature(inputs[0])
    gone = _given_axes(node, inputs, len(feature.axes)) or [i for i, axis in enumerate(feature.axes) if not axis]
    return replace(feature, axes=tuple(axis for i, axis in enumerate(feature.axes) if i not in gone))


def unsqueeze(node: Node, inputs: list[Any]) -> Value:
    """Unsqueeze."""
    feature = as_feature(inputs[0])
    given = node.attributes.get("axes") or integers(inputs[1])
    new = {place % (len(feature.axes) + len(given)) for place in given}
    old = iter(feature.axes)
    return replace(feature, axes=tuple(() if i in new else next(old) for i in range(len(feature.axes) + len(given))))


def flatten(node: Node, inputs: list[Any]) -> Value:
    """Flatten."""
    feature = as_feature(inputs[0])
    at = node.attributes.get("axis", 1)
    return _regrouped(feature, [prod(feature.shape[:at]), prod(feature.shape[at:])])


def reshape(node: Node, inputs: list[Any]) -> Value:
    """Reshape."""
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
    if len(axis) < 2 or axis[0].space is None or spaces_of([axis[1:]]):
        return axis
    inner = prod(part.size for part in axis[1:])
    space = axis[0].space
    reach[space] = reach[space].read(Fraction(1 - inner, inner), 0, Fraction(1, inner))
    return (Part(axis[0].size * inner, space),)


def reduce(node: Node, inputs: list[Any]) -> Value:
    """ReduceMean and the like: an axis becomes one value."""
    feature = as_feature(inputs[0])
    every = range(len(feature.axes))
    places = _given_axes(node, inputs, len(feature.axes)) or ([] if node.attributes.get("noop_with_empty_axes") else every)
    return _reduced(feature, places, keep=bool(node.attributes.get("keepdims", 1)))


def pool_globally(node: Node, inputs: list[Any]) -> Value:
    """GlobalAveragePool and the like: one value per channel."""
    feature = as_feature(inputs[0])
    return _reduced(feature, range(2, len(feature.axes)), keep=True)


def _reduced(feature: Feature, places: Iterable[int], keep: bool) -> Feature:
    gone = spaces_of(feature.axes[place] for place in places)
    axes = tuple(() if i in places else axis for i, axis in enumerate(feature.axes) if keep or i not in places)
    return Feature(axes, {s: r for s, r in feature.reach.items() if s not in gone}, feature.whole | gone)


def normalise_all(node: Node, inputs: list[Any]) -> Value:
    """InstanceNormalization and the like: statistics over everything behind the first two axes."""
    return _mixed(as_feature(inputs[0]), lambda place: place >= 2)


def normalise_last(node: Node, inputs: list[Any]) -> Value:
    """LayerNormalization: statistics over the last axes."""
    feature = as_feature(inputs[0])
    first = node.attributes.get("axis", -1) % len(feature.axes)
    return _mixed(feature, lambda place: place >= first)


def softmax(node: Node, inputs: list[Any]) -> Value:
    """Softmax: every value depends on the whole of an axis."""
    feature = as_feature(inputs[0])
    at = node.attributes.get("axis", -1 if node.opset >= 13 else 1) % len(feature.axes)
    return _mixed(feature, lambda place: place == at or (place > at and node.opset < 13))


def _mixed(feature: Feature, over: Callable[[int], bool]) -> Feature:
    """Let every value depend on the whole of some axes."""
    whole = spaces_of(axis for place, axis in enumerate(feature.axes) if over(place))
    return replace(feature, whole=feature.whole | whole)


def _given_axes(node: Node, inputs: list[Any], ndim: int) -> list[int]:
    given = node.attributes.get("axes") or integers(inputs[1] if len(inputs) > 1 else None)
    return [axis % ndim for axis in given]


def shape(node: Node, inputs: list[Any]) -> Value:
    """Shape: the sizes become known numbers."""
    shape: Array = np.array(as_feature(inputs[0]).shape, np.int64)
    return shape[node.attributes.get("start", 0) : node.attributes.get("end")]
