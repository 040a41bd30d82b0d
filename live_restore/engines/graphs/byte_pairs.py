"""Camera counts as pairs of bytes: how 16-bit frames travel to a runtime that has no 16-bit unsigned integers.

Receives a graph that takes uint16 counts (`live_restore.engines.graphs.counts_graph`); hands on one that takes the same
memory as bytes, and gives whole counts as int32. It does not know engines::

    frame.view(numpy.uint8).reshape(*frame.shape, 2)     what the graph takes; nothing is copied
    low + 256 x high                                     put together in the graph, exactly
"""

from collections.abc import Iterable
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from live_restore.engines.graphs.onnx_file import attribute, read_onnx
from live_restore.errors import ModelError

_PAIRS = "byte_pairs"


def has_byte_pairs(onnx_bytes: bytes) -> bool:
    """Whether `from_byte_pairs` changes anything: a graph that takes uint16, or gives it."""
    graph = read_onnx(onnx_bytes).graph
    return any(_element(value) == TensorProto.UINT16 for value in (*graph.input, *graph.output))


def from_byte_pairs(onnx_bytes: bytes) -> bytes:
    """Let a graph take its uint16 image as bytes, and give its uint16 result as int32.

    Parameters
    ----------
    onnx_bytes : bytes
        A graph; uint16 inputs must first be cast to float32, uint16 outputs come from a cast.

    Returns
    -------
    bytes
        Each uint16 input (N, C, [Z,] Y, X) has become a uint8 one, (N, C, [Z,] Y, X, 2), of the same name, low byte first; each
        uint16 output an int32 one. Other graphs come back as they are.

    Raises
    ------
    ModelError
        If uint16 is used otherwise, or the bytes are no graph.
    """
    file = read_onnx(onnx_bytes)
    graph = file.graph
    images = [value for value in graph.input if _element(value) == TensorProto.UINT16]
    results = [value for value in graph.output if _element(value) == TensorProto.UINT16]
    nodes = list(graph.node)
    for image in images:
        nodes = _put_together(image, nodes)
        _take_bytes(image)
    for result in results:
        _give_int32(result, nodes)
    copies = [NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(copies)
    # what it says of the tensors within may no longer be so
    del graph.value_info[:]
    onnx.checker.check_model(file.model)
    return bytes(file.model.SerializeToString())


def as_byte_pairs(image: NDArray[np.uint16]) -> NDArray[np.uint8]:
    """View an image as what such a graph takes.

    Parameters
    ----------
    image : ndarray, (..., X), uint16, contiguous along X

    Returns
    -------
    ndarray, (..., X, 2), uint8
        Low byte first; a view, unless the image has the byte order of another machine.
    """
    little = np.ascontiguousarray(image).astype("<u2", copy=False)
    return little.view(np.uint8).reshape(*image.shape, 2)


def _put_together(image: ValueInfoProto, nodes: list[NodeProto]) -> list[NodeProto]:
    """Exchange the cast of the image for low + 256 x high."""
    casts = [node for node in nodes if image.name in node.input]
    kept = [node for node in nodes if image.name not in node.input]
    if not casts or any(node.op_type != "Cast" or attribute(node, "to") != TensorProto.FLOAT for node in casts):
        used = ", ".join(sorted({node.op_type for node in casts})) or "nothing"
        raise ModelError(
            f"the uint16 input {image.name!r} goes to {used}; it can come as bytes only if it is cast to float32 first"
        )
    made = [node for cast in casts for node in _low_and_high(image, cast.output[0])]
    return [*made, *kept]


def _low_and_high(image: ValueInfoProto, counts: str) -> list[NodeProto]:
    """Make the nodes from bytes (..., X, 2) to float32 counts (..., X), exact up to 65535."""
    axis = len(image.type.tensor_type.shape.dim)
    name = f"{counts}/{_PAIRS}"
    low, high = f"{name}/low", f"{name}/high"
    constants = {f"{low}/at": np.array(0), f"{high}/at": np.array(1), f"{name}/256": np.array(256, np.float32)}
    return [
        *(_constant(key, array) for key, array in constants.items()),
        # bytes are no numbers to TensorRT until they are cast
        helper.make_node("Cast", [image.name], [name], to=TensorProto.FLOAT),
        helper.make_node("Gather", [name, f"{low}/at"], [low], axis=axis),
        helper.make_node("Gather", [name, f"{high}/at"], [high], axis=axis),
        helper.make_node("Mul", [high, f"{name}/256"], [f"{high}/256"]),
        helper.make_node("Add", [low, f"{high}/256"], [counts]),
    ]


def _take_bytes(image: ValueInfoProto) -> None:
    image.type.tensor_type.elem_type = TensorProto.UINT8
    image.type.tensor_type.shape.dim.add().dim_value = 2


def _give_int32(result: ValueInfoProto, nodes: Iterable[NodeProto]) -> None:
    last = next((node for node in nodes if result.name in node.output), None)
    if last is None or last.op_type != "Cast":
        made = "given as it came" if last is None else f"made by {last.op_type}"
        raise ModelError(f"the uint16 output {result.name!r} is {made}; it can be given as int32 only if a cast makes it")
    for field in last.attribute:
        if field.name == "to":
            field.i = TensorProto.INT32
    result.type.tensor_type.elem_type = TensorProto.INT32


def _element(value: ValueInfoProto) -> int:
    return int(value.type.tensor_type.elem_type)


def _constant(name: str, array: NDArray[Any]) -> NodeProto:
    return helper.make_node("Constant", [], [name], value=numpy_helper.from_array(array, name))
