"""The two ends of a foreign ONNX graph: its names, its open sizes, and pointwise steps before and behind it.

Receives a graph as somebody exported it, with the steps that its description applies around it; hands on a graph from
``input`` to ``output`` with open batch and image sizes, which does these steps itself. It does not know where the steps were
written, nor what they mean for intensities.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import onnx
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

from live_restore.engines.graphs.onnx_file import OnnxFile, read_onnx
from live_restore.errors import ModelError

INPUT, OUTPUT = "input", "output"
_INNER_INPUT, _INNER_OUTPUT = "network_input", "network_output"
_AXES = {2: ("batch", "", "y", "x"), 3: ("batch", "", "z", "y", "x")}

# Softmax over one axis, and no longer over all that follow.
_SOFTMAX_OPSET = 13
# The oldest file format that need not list its weights as inputs.
_IR_VERSION = 4


@dataclass(frozen=True, slots=True)
class Pointwise:
    """A step that treats every pixel alike.

    Attributes
    ----------
    kind : {"linear", "clip", "sigmoid", "softmax"}
    gain, offset : tuple of float
        For ``linear``, ``gain * x + offset``: one number, or one per channel.
    low, high : float or None
        For ``clip``.
    """

    kind: Literal["linear", "clip", "sigmoid", "softmax"]
    gain: tuple[float, ...] = (1.0,)
    offset: tuple[float, ...] = (0.0,)
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True)
class Ended:
    """A graph from ``input`` to ``output``.

    Attributes
    ----------
    onnx : bytes
    n_dim : int
        Spatial axes, 2 or 3.
    channels_in, channels_out : int or None
        None where the graph leaves them open.
    parameters : int
        Number of trained numbers.
    """

    onnx: bytes
    n_dim: int
    channels_in: int | None
    channels_out: int | None
    parameters: int


def put_ends(onnx_bytes: bytes, before: Sequence[Pointwise] = (), after: Sequence[Pointwise] = ()) -> Ended:
    """Give a graph our names and open sizes, and put steps before and behind it.

    Raises
    ------
    ModelError
        If the graph is none, takes or gives several tensors, or none of 2 or 3 spatial axes in float32.
    """
    file = read_onnx(onnx_bytes)
    graph = file.graph
    parameters = sum(array.size for array in file.weights.values() if array.dtype.kind == "f")
    entry, result = _only(file.inputs, "inputs"), _only(list(graph.output), "outputs")
    sizes_in, sizes_out = _sizes(entry), _sizes(result)
    _check_tensors(entry, result, sizes_in, sizes_out)
    _rename(graph, _names(entry.name, result.name, bool(before), bool(after)))
    first = _chain(graph, before, INPUT, _INNER_INPUT, len(sizes_in), file)
    last = _chain(graph, after, _INNER_OUTPUT, OUTPUT, len(sizes_out), file)
    _set_nodes(graph, [*first, *graph.node, *last])
    _set_ends(file.model, sizes_in, sizes_out)
    ended = file.model.SerializeToString()
    read_onnx(ended)  # still a sound graph
    return Ended(ended, len(sizes_in) - 2, sizes_in[1], sizes_out[1], parameters)


def embed_weights(onnx_bytes: bytes, external: bytes) -> bytes:
    """Put the weights of an external data file into the graph.

    Parameters
    ----------
    onnx_bytes : bytes
        A graph whose tensors say at which offset of the file they lie. Which file they name does not matter.
    external : bytes
        The content of that file.

    Raises
    ------
    ModelError
        If the graph is none.
    """
    try:
        model = onnx.load_model_from_string(onnx_bytes)
    except Exception as error:  # protobuf raises its own kinds
        raise ModelError(f"these {len(onnx_bytes)} bytes are no ONNX graph ({error}); get the package again") from error
    for tensor in model.graph.initializer:
        if tensor.data_location == TensorProto.EXTERNAL:
            tensor.raw_data = external[_place(tensor)]
            tensor.ClearField("external_data")
            tensor.ClearField("data_location")
    embedded: bytes = model.SerializeToString()
    return embedded


def _place(tensor: TensorProto) -> slice:
    stated = {entry.key: entry.value for entry in tensor.external_data}
    numbers = (stated.get("offset", "0"), stated.get("length", "0"))
    for number in numbers:
        if not number.isdecimal():
            raise ModelError(f"where its weights lie is given as {number!r}, no number of bytes; export the graph as one file")
    start, length = map(int, numbers)
    return slice(start, start + length if "length" in stated else None)


def _only(tensors: list[Any], what: str) -> Any:
    if len(tensors) != 1:
        names = ", ".join(tensor.name for tensor in tensors)
        raise ModelError(
            f"the graph has {len(tensors)} {what} ({names}); live_restore runs networks of one image in and one out"
        )
    return tensors[0]


def _sizes(tensor: onnx.ValueInfoProto) -> list[int | None]:
    return [dim.dim_value or None for dim in tensor.type.tensor_type.shape.dim]


def _check_tensors(entry: Any, result: Any, sizes_in: list[int | None], sizes_out: list[int | None]) -> None:
    for tensor, sizes in ((entry, sizes_in), (result, sizes_out)):
        kind = tensor.type.tensor_type.elem_type
        if kind != TensorProto.FLOAT:
            raise ModelError(f"'{tensor.name}' of the graph is {TensorProto.DataType.Name(kind)}; export it in float32")
        if len(sizes) not in (4, 5):
            raise ModelError(f"'{tensor.name}' of the graph has {len(sizes)} axes; it must have batch, channel, [z,] y, x")


def _names(entry: str, result: str, steps_before: bool, steps_after: bool) -> dict[str, str]:
    """Say who is called what; tensors within the graph that bear our names step aside."""
    aside = {name: f"inner_{name}" for name in (INPUT, OUTPUT, _INNER_INPUT, _INNER_OUTPUT)}
    ends = {entry: _INNER_INPUT if steps_before else INPUT, result: _INNER_OUTPUT if steps_after else OUTPUT}
    return aside | ends


def _rename(graph: GraphProto, names: Mapping[str, str]) -> None:
    for node in graph.node:
        for side in (node.input, node.output):
            side[:] = [names.get(name, name) for name in side]
    for tensor in graph.initializer:
        tensor.name = names.get(tensor.name, tensor.name)


def _chain(graph: GraphProto, steps: Sequence[Pointwise], start: str, end: str, ndim: int, file: OnnxFile) -> list[NodeProto]:
    """Make the nodes of a row of steps from tensor `start` to tensor `end`."""
    nodes: list[NodeProto] = []
    for place, step in enumerate(steps):
        source = start if place == 0 else f"{end}_step{place}"
        target = end if place == len(steps) - 1 else f"{end}_step{place + 1}"
        nodes += _nodes(graph, step, source, target, ndim, file)
    return nodes


def _nodes(graph: GraphProto, step: Pointwise, source: str, target: str, ndim: int, file: OnnxFile) -> list[NodeProto]:
    if step.kind == "sigmoid":
        return [helper.make_node("Sigmoid", [source], [target])]
    if step.kind == "softmax":
        if file.opset < _SOFTMAX_OPSET:
            raise ModelError(f"the graph has opset {file.opset}; its softmax needs {_SOFTMAX_OPSET} or later: export it again")
        return [helper.make_node("Softmax", [source], [target], axis=1)]
    between = f"{target}_between"
    if step.kind == "clip":
        low = _constant(graph, f"{target}_low", (-np.inf if step.low is None else step.low,), ndim)
        high = _constant(graph, f"{target}_high", (np.inf if step.high is None else step.high,), ndim)
        return [helper.make_node("Max", [source, low], [between]), helper.make_node("Min", [between, high], [target])]
    gain = _constant(graph, f"{target}_gain", step.gain, ndim)
    offset = _constant(graph, f"{target}_offset", step.offset, ndim)
    return [helper.make_node("Mul", [source, gain], [between]), helper.make_node("Add", [between, offset], [target])]


def _constant(graph: GraphProto, name: str, values: Iterable[float], ndim: int) -> str:
    array = np.array(list(values), np.float32).reshape(1, -1, *[1] * (ndim - 2))  # (1, C, [1,] 1, 1)
    graph.initializer.append(numpy_helper.from_array(array, name))
    return name


def _set_nodes(graph: GraphProto, nodes: list[NodeProto]) -> None:
    copies = [NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(copies)


def _set_ends(model: ModelProto, sizes_in: list[int | None], sizes_out: list[int | None]) -> None:
    graph = model.graph
    model.ir_version = max(model.ir_version, _IR_VERSION)
    for side, name, sizes, suffix in ((graph.input, INPUT, sizes_in, ""), (graph.output, OUTPUT, sizes_out, "_out")):
        shape = [sizes[1] if place == 1 else f"{axis}{suffix}" for place, axis in enumerate(_AXES[len(sizes) - 2])]
        del side[:]
        side.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))
    del graph.value_info[:]  # sizes of one exported image
