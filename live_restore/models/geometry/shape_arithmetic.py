"""The shape arithmetic: the few operations by which an ONNX graph computes its own sizes.

Receives arrays that are known before any image comes (constants, shapes of tensors); hands on what an operation makes of
them, or says that it is none of these. It does not know images.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from live_restore.engines.graphs.onnx_file import Node

Array = NDArray[Any]

# Sizes are a handful of numbers; a graph that "computes" more than this before the image comes is after something else.
_MOST_NUMBERS = 1 << 24


def fold(node: Node, arrays: list[Array | None]) -> Array | None:
    """Compute a node whose inputs are all known.

    Parameters
    ----------
    node : Node
    arrays : list of ndarray or None
        None for an optional input left out.

    Returns
    -------
    ndarray or None
        None if this is no operation of shape arithmetic.
    """
    if node.op not in _FOLD:
        return None
    return np.asarray(_FOLD[node.op](node, *arrays))


def integers(array: Array | None) -> list[int]:
    """Read a small array as a list of int; nothing if there is none."""
    return [] if array is None else [int(number) for number in array.ravel()]


def _constant(node: Node) -> Array:
    for name in ("value", "value_float", "value_floats", "value_int", "value_ints"):
        if name in node.attributes:
            dtype = {"value_float": np.float32, "value_floats": np.float32}.get(name)
            return np.asarray(node.attributes[name], dtype)
    raise ValueError(f"a constant that is no number ({', '.join(node.attributes)})")


def _filled(node: Node, shape: Array | None) -> Array:
    sizes = integers(shape)
    if np.prod([float(size) for size in sizes]) > _MOST_NUMBERS:
        raise ValueError(f"a constant of {sizes}, over {_MOST_NUMBERS} numbers")
    value = node.attributes.get("value", np.zeros(1, np.float32))
    return np.full(sizes, value.ravel()[0])


def _range(_: Node, start: Array, stop: Array, step: Array) -> Array:
    if (stop.item() - start.item()) / step.item() > _MOST_NUMBERS:
        raise ValueError(f"a range of over {_MOST_NUMBERS} numbers")
    return np.arange(start.item(), stop.item(), step.item(), dtype=start.dtype)


def _cast(node: Node, array: Array) -> Array:
    return array.astype(onnx.helper.tensor_dtype_to_np_dtype(node.attributes["to"]))


def _gather(node: Node, array: Array, indices: Array) -> Array:
    return np.asarray(np.take(array, indices, axis=node.attributes.get("axis", 0)))


def _divide(_: Node, a: Array, b: Array) -> Array:
    # whole numbers are divided towards zero, as in C
    return np.asarray(np.trunc(a / b).astype(a.dtype) if np.issubdtype(a.dtype, np.integer) else a / b)


def _axes(node: Node, given: Array | None) -> tuple[int, ...]:
    return tuple(integers(given) if given is not None else node.attributes.get("axes", ()))


def _unsqueeze(node: Node, array: Array, axes: Array | None = None) -> Array:
    return np.expand_dims(array, _axes(node, axes))


def _squeeze(node: Node, array: Array, axes: Array | None = None) -> Array:
    return np.squeeze(array, _axes(node, axes) or None)


def _slice(node: Node, array: Array, *given: Array | None) -> Array:
    for start, stop, axis, step in slices(node, given, array.ndim):
        array = array[(slice(None),) * axis + (slice(start, stop, step),)]
    return array


def slices(node: Node, given: tuple[Array | None, ...], ndim: int) -> list[tuple[int, int, int, int]]:
    """Read what a Slice cuts out: (start, stop, axis, step) for every axis it names, axes from 0."""
    if "starts" in node.attributes:  # before opset 10
        starts, stops = node.attributes["starts"], node.attributes["ends"]
        axes, steps = node.attributes.get("axes"), None
    else:
        starts, stops, axes, steps = [integers(array) for array in (*given, None, None)][:4]
    axes = axes or list(range(len(starts)))
    steps = steps or [1] * len(starts)
    return [(a, b, axis % ndim, step) for a, b, axis, step in zip(starts, stops, axes, steps, strict=True)]


_FOLD: dict[str, Callable[..., Any]] = {
    "Constant": _constant,
    "ConstantOfShape": _filled,
    "Range": _range,
    "Cast": _cast,
    "Gather": _gather,
    "Unsqueeze": _unsqueeze,
    "Squeeze": _squeeze,
    "Slice": _slice,
    "Div": _divide,
    "Identity": lambda _, a: a,
    "Concat": lambda node, *arrays: np.concatenate(arrays, node.attributes["axis"]),
    "Reshape": lambda _, a, shape: np.reshape(a, integers(shape)),
    "Transpose": lambda node, a: np.transpose(a, node.attributes.get("perm")),
    "Add": lambda _, a, b: a + b,
    "Sub": lambda _, a, b: a - b,
    "Mul": lambda _, a, b: a * b,
    "Floor": lambda _, a: np.floor(a),
    "Ceil": lambda _, a: np.ceil(a),
    "Equal": lambda _, a, b: a == b,
    "Where": lambda _, which, a, b: np.where(which, a, b),
    "ReduceProd": lambda _, a, *axes: np.prod(a, keepdims=True),
}
