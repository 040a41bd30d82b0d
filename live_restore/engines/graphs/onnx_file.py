"""The ONNX file, opened with suspicion: only what a plain image network needs gets through.

Receives bytes from anywhere; hands on the parsed graph, its nodes with their attributes, and its weights. Nothing in the
file is executed here, no other file is opened because it says so. It does not know what the operations do.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from numpy.typing import NDArray
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, numpy_helper

from live_restore.errors import ModelError

# The largest network in use here has 6 MB; protobuf itself ends at 2 GB.
_MOST_BYTES = 1 << 30
_MOST_NODES = 50_000
_OLDEST_OPSET = 9
_OWN_DOMAINS = ("", "ai.onnx")


@dataclass(frozen=True)
class Node:
    """One operation.

    Attributes
    ----------
    op : str
        Its ONNX name, e.g. ``"Conv"``.
    inputs, outputs : tuple of str
        Names of tensors; an empty name is an optional one left out.
    attributes : dict
        Numbers, lists of numbers, words (str) and arrays.
    opset : int
        Version of the operator set.
    """

    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: dict[str, Any]
    opset: int

    @property
    def words(self) -> str:
        """The node for an error message."""
        return f"{self.op} (to {', '.join(self.outputs)!r})"


@dataclass(frozen=True)
class OnnxFile:
    """A parsed graph with one image input.

    Attributes
    ----------
    model : ModelProto
    opset : int
    """

    model: ModelProto
    opset: int

    @property
    def graph(self) -> GraphProto:
        """The graph as protobuf."""
        return self.model.graph

    @cached_property
    def nodes(self) -> list[Node]:
        """The operations, each after those whose results it uses."""
        return [_node(proto, self.opset) for proto in self.graph.node]

    @cached_property
    def weights(self) -> dict[str, NDArray[Any]]:
        """The arrays stored in the file, by name; read-only."""
        return {tensor.name: _array(tensor) for tensor in self.graph.initializer}

    @property
    def inputs(self) -> list[onnx.ValueInfoProto]:
        """What has to be given to run the graph (old files list their weights as inputs too)."""
        stored = {tensor.name for tensor in self.graph.initializer}
        return [value for value in self.graph.input if value.name not in stored]

    @property
    def output_names(self) -> list[str]:
        """Names of the results."""
        return [value.name for value in self.graph.output]


def read_onnx(onnx_bytes: bytes) -> OnnxFile:
    """Parse an ONNX file and refuse what no image network needs.

    Parameters
    ----------
    onnx_bytes : bytes
        The whole file, with its weights.

    Raises
    ------
    ModelError
        If the bytes are no ONNX graph, are damaged or absurdly large, or hold control flow, operations of other domains,
        functions, sparse weights, or weights in other files.
    """
    if len(onnx_bytes) > _MOST_BYTES:
        raise ModelError(f"the ONNX graph has {len(onnx_bytes)} bytes; the limit is {_MOST_BYTES}, so take a smaller network")
    try:
        model = onnx.load_model_from_string(onnx_bytes)
    except DecodeError as damaged:
        raise ModelError(
            f"these {len(onnx_bytes)} bytes are no ONNX graph, or a damaged one; export or copy it again"
        ) from damaged
    _check_nodes(model)
    _check_weights(model.graph)
    file = OnnxFile(model, _opset(model))
    try:
        onnx.checker.check_model(model)
    except (onnx.checker.ValidationError, ValueError) as invalid:
        raise ModelError(f"the ONNX graph contradicts itself: {_first_line(invalid)}; export it again") from invalid
    return file


def attribute(proto: NodeProto, name: str, default: Any = None) -> Any:
    """Read one attribute of a node as it stands in the protobuf."""
    for candidate in proto.attribute:
        if candidate.name == name:
            return onnx.helper.get_attribute_value(candidate)
    return default


def _opset(model: ModelProto) -> int:
    versions = [entry.version for entry in model.opset_import if entry.domain in _OWN_DOMAINS]
    if not versions or versions[0] < _OLDEST_OPSET:
        found = versions[0] if versions else "none"
        raise ModelError(f"the ONNX graph has opset {found}; {_OLDEST_OPSET} or later is needed, so export it with opset 18")
    return int(versions[0])


def _check_nodes(model: ModelProto) -> None:
    nodes = model.graph.node
    if not nodes:
        raise ModelError("the ONNX graph holds no operation at all; export or copy it again")
    if len(nodes) > _MOST_NODES:
        raise ModelError(f"the ONNX graph has {len(nodes)} operations; the limit is {_MOST_NODES}, so take a smaller network")
    if model.functions:
        raise ModelError(f"the ONNX graph defines functions ({model.functions[0].name}); export it with the operations inlined")
    for node in nodes:
        _check_node(node)


def _check_node(node: NodeProto) -> None:
    if node.domain not in _OWN_DOMAINS:
        raise ModelError(
            f"the ONNX graph uses {node.op_type!r} of the domain {node.domain!r}; only standard ONNX operations are run, so "
            "export it without extensions"
        )
    if any(a.type in (AttributeProto.GRAPH, AttributeProto.GRAPHS) for a in node.attribute):
        raise ModelError(
            f"the ONNX graph has control flow ({node.op_type}); an image network needs none, so export it by tracing one image"
        )


def _check_weights(graph: GraphProto) -> None:
    if graph.sparse_initializer:
        raise ModelError("the ONNX graph has sparse weights; export them as plain arrays")
    constants = [a.t for node in graph.node for a in node.attribute if a.type == AttributeProto.TENSOR]
    for tensor in [*graph.initializer, *constants]:
        if tensor.data_location == TensorProto.EXTERNAL or tensor.external_data:
            raise ModelError(f"the weights {tensor.name!r} are in another file; export the ONNX graph as one single file")


def _node(proto: NodeProto, opset: int) -> Node:
    attributes = {a.name: _plain(onnx.helper.get_attribute_value(a)) for a in proto.attribute}
    return Node(proto.op_type, tuple(proto.input), tuple(proto.output), attributes, opset)


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return _array(value) if isinstance(value, TensorProto) else value


def _array(tensor: TensorProto) -> NDArray[Any]:
    try:
        array: NDArray[Any] = np.asarray(numpy_helper.to_array(tensor))
    except (ValueError, TypeError, KeyError, OverflowError) as wrong:
        raise ModelError(
            f"the weights {tensor.name!r} are not what they claim to be ({wrong!r}); export the graph again"
        ) from wrong
    return array


def _first_line(reason: Exception) -> str:
    return str(reason).strip().splitlines()[0] if str(reason).strip() else type(reason).__name__
