"""The check at an engine's door: whether the arrays fit the inputs of the graph.

Receives what the caller passed to `infer` and what the graph takes; hands on the same arrays, contiguous, or says what does
not fit. It does not know which engine runs, nor which spatial sizes a network divides: the runtime itself says that.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from live_restore.engines.engine import Array, Batch, Engine
from live_restore.errors import EngineMismatch

# What the axes of an input are, by their number, in words.
_AXES = {2: "(N, K)", 4: "(N, C, Y, X)", 5: "(N, C, Z, Y, X)"}

Shapes = tuple[tuple[int, ...], ...]
FLOAT32 = np.dtype(np.float32)


@dataclass(frozen=True, slots=True)
class GraphInput:
    """What one input of a graph takes.

    Attributes
    ----------
    name : str
    ndim : int
        4 for (N, C, Y, X), 5 for (N, C, Z, Y, X), 2 for (N, K).
    channels : int or None
        Size of axis 1; None if it is free. All other axes are free.
    dtype : dtype
        Of its numbers, as the graph says.
    """

    name: str
    ndim: int
    channels: int | None
    dtype: np.dtype[Any] = FLOAT32


def fit(arrays: Sequence[Array], graph_inputs: Sequence[GraphInput]) -> tuple[Array, ...]:
    """Check every array against its graph input and make it C-contiguous and writable.

    Parameters
    ----------
    arrays : sequence of ndarray
    graph_inputs : sequence of GraphInput
        Equally many, in the same order.

    Returns
    -------
    tuple of ndarray, C-contiguous, writable
        Copies only where an array was not contiguous. Read-only memory is lent, not copied: the caller only reads it too.

    Raises
    ------
    EngineMismatch
        If number, dtype, axes or channels differ.
    """
    if len(arrays) != len(graph_inputs):
        names = ", ".join(graph_input.name for graph_input in graph_inputs)
        raise EngineMismatch(f"{len(arrays)} arrays were given to a graph with {len(graph_inputs)} inputs; it takes {names}")
    for array, graph_input in zip(arrays, graph_inputs, strict=True):
        _check_dtype(array, graph_input)
        check_shape(array.shape, graph_input)
    return tuple(_lent(np.ascontiguousarray(array)) for array in arrays)


def check_shapes(shapes: Sequence[tuple[int, ...]], graph_inputs: Sequence[GraphInput]) -> None:
    """Refuse another number of shapes than the graph has inputs, and every shape that does not fit."""
    if len(shapes) != len(graph_inputs):
        raise EngineMismatch(f"{len(shapes)} shapes were given for a graph with {len(graph_inputs)} inputs")
    for shape, graph_input in zip(shapes, graph_inputs, strict=True):
        check_shape(shape, graph_input)


def check_shape(shape: tuple[int, ...], graph_input: GraphInput) -> None:
    """Refuse a shape with the wrong number of axes, the wrong channels, or nothing in it."""
    name = graph_input.name
    if len(shape) != graph_input.ndim:
        axes = _AXES.get(graph_input.ndim, "")
        raise EngineMismatch(f"input {name!r} has shape {shape}; the graph takes {graph_input.ndim} axes there {axes}")
    if graph_input.channels not in (None, shape[1]):
        raise EngineMismatch(f"input {name!r} has {shape[1]} channels; the graph takes {graph_input.channels}")
    if 0 in shape:
        raise EngineMismatch(f"input {name!r} has shape {shape} and so no pixel at all; every axis needs 1 or more")


def one_by_one(engine: Engine, batches: Iterable[Batch]) -> Iterator[tuple[Array, ...]]:
    """Infer batches in turn: `Engine.infer_many` of an engine that has nothing better."""
    for batch in batches:
        yield engine.infer(*batch)


def last_line(reason: Exception) -> str:
    """Keep the last line of a runtime's complaint; the lines before it are its own call stack."""
    lines = str(reason).strip().splitlines()
    return lines[-1].strip() if lines else type(reason).__name__


def misfit(runtime: str, shapes: Shapes, reason: Exception) -> EngineMismatch:
    """Put a runtime's complaint about sizes into words.

    Parameters
    ----------
    runtime : str
        Its name.
    shapes : tuple of tuple of int
        What was asked of it, one per graph input.
    reason : Exception
        Its own error, of which the last line is kept.
    """
    asked = " and ".join("x".join(map(str, shape)) for shape in shapes)
    return EngineMismatch(
        f"the graph does not accept input of {asked}; every size must be a multiple of what the network's poolings divide "
        f"by, so pad it ({runtime}: {last_line(reason)})"
    )


class _Lent:
    """Read-only memory as numpy describes it, but for the mark that it is read-only."""

    def __init__(self, array: Array) -> None:
        self._array = array
        said = array.__array_interface__
        self.__array_interface__ = {**said, "data": (said["data"][0], False)}


def _lent(array: Array) -> Array:
    """View an array as writable: runtimes refuse to look at read-only memory, even to read it, and a copy takes time."""
    return array if array.flags.writeable else np.asarray(_Lent(array))


def _check_dtype(array: Array, graph_input: GraphInput) -> None:
    if array.dtype != graph_input.dtype:
        taken = "engines take" if graph_input.dtype == FLOAT32 else "this graph takes"
        raise EngineMismatch(
            f"input {graph_input.name!r} is {array.dtype}; {taken} {graph_input.dtype}, so use .astype(np.{graph_input.dtype})"
        )
