"""The reader of a SavedModel's graph: what the weights alone do not tell of a CARE network.

Receives the bytes of ``saved_model.pb``; hands on how the graph ends (residual, last activation) and where it pools.
It looks at names and kinds of operations only, and runs none. It does not know the weights.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from live_restore.errors import ModelError
from live_restore.models.foreign.protobuf import fields, first_bytes, first_text, messages, read_varint

_PASSING = ("Identity", "StopGradient")
_ADDING = ("Add", "AddV2", "AddN")


@dataclass(frozen=True, slots=True)
class GraphFacts:
    """What the graph says.

    Attributes
    ----------
    residual : bool or None
        Whether the network's input is added at the end; None if the end of the graph is not understood.
    last_activation : {"linear", "relu"} or None
        What follows; None likewise.
    pools : tuple of (int, int, int)
        Along (Z, Y, X), of every 3D max-pooling on the way to the output.
    written_by : str
        e.g. ``tensorflow 2.8.0``.
    """

    residual: bool | None
    last_activation: str | None
    pools: tuple[tuple[int, ...], ...]
    written_by: str


@dataclass(frozen=True, slots=True)
class _Node:
    """One operation; `inputs` are names of nodes, without output numbers and control dependencies."""

    op: str
    inputs: tuple[str, ...]
    message: bytes


def read_graph(saved_model: bytes) -> GraphFacts:
    """Read the graph. Field numbers are those of TensorFlow's SavedModel, MetaGraphDef, GraphDef, NodeDef and TensorInfo.

    Raises
    ------
    ModelError
        If the bytes are no SavedModel, or it has no single output.
    """
    graph = first_bytes(saved_model, 2)
    nodes = {first_text(node, 1): _node(node) for node in messages(first_bytes(graph, 2), 1)}
    output = _output_name(graph)
    if output not in nodes:
        raise ModelError(f"saved_model.pb has no operation '{output}', its own output; it is damaged, export the model again")
    residual, last_activation = _ending(nodes, output)
    version = first_text(first_bytes(graph, 1), 5)
    return GraphFacts(
        residual, last_activation, tuple(_pools(nodes, output)), f"tensorflow {version}" if version else "unknown"
    )


def _node(message: bytes) -> _Node:
    inputs = (value.decode("utf-8", errors="replace") for value in messages(message, 3))
    return _Node(first_text(message, 2), tuple(name.partition(":")[0] for name in inputs if not name.startswith("^")), message)


def _output_name(graph: bytes) -> str:
    """Name of the node behind the only output of the only signature."""
    outputs = [
        first_text(first_bytes(entry, 2), 1)
        for signature in messages(graph, 5)
        if first_text(signature, 1) == "serving_default"
        for entry in messages(first_bytes(signature, 2), 2)
    ]
    if len(outputs) != 1:
        raise ModelError(f"saved_model.pb has {len(outputs)} outputs, CARE has one; export the model with CSBDeep's export_TF")
    return outputs[0].partition(":")[0]


def _ending(nodes: dict[str, _Node], name: str) -> tuple[bool | None, str | None]:
    """Walk back from the output to the head: [concat with the scale] <- [relu] <- [add the input] <- head."""
    name = _skip(nodes, name)
    if _op(nodes, name) == "ConcatV2":
        name = _source(nodes, name)  # the mean comes first
    last_activation = "linear"
    if _op(nodes, name) == "Relu":
        last_activation, name = "relu", _source(nodes, name)
    if _adds_bias(nodes, name):
        return False, last_activation
    if _op(nodes, name) in _ADDING:
        return True, last_activation
    return None, None


def _adds_bias(nodes: dict[str, _Node], name: str) -> bool:
    """Whether an operation adds the bias of a convolution; old versions of Keras did that by a plain addition."""
    if _op(nodes, name) in _ADDING:
        return any(_op(nodes, _skip(nodes, source)) in ("Conv2D", "Conv3D") for source in nodes[name].inputs)
    return _op(nodes, name) == "BiasAdd"


def _source(nodes: dict[str, _Node], name: str) -> str:
    return _skip(nodes, next(iter(nodes[name].inputs), ""))


def _skip(nodes: dict[str, _Node], name: str) -> str:
    """Go back over operations that change nothing."""
    for _ in range(len(nodes)):  # a cycle, which no real graph has, ends too
        if _op(nodes, name) not in _PASSING or not nodes[name].inputs:
            break
        name = nodes[name].inputs[0]
    return name


def _op(nodes: dict[str, _Node], name: str) -> str:
    return nodes[name].op if name in nodes else ""


def _pools(nodes: dict[str, _Node], output: str) -> Iterator[tuple[int, ...]]:
    """Go through everything that the output depends on, once."""
    waiting, seen = [output], {output}
    while waiting:
        node = nodes.get(waiting.pop())
        if node is None:
            continue
        if node.op == "MaxPool3D":
            yield _numbers(node, "ksize")[1:-1]
        new = set(node.inputs) - seen
        seen |= new
        waiting += sorted(new)


def _numbers(node: _Node, attribute: str) -> tuple[int, ...]:
    """Read an attribute that is a list of whole numbers, packed or one by one."""
    for entry in messages(node.message, 5):
        if first_text(entry, 1) == attribute:
            values = [value for number, value in fields(first_bytes(first_bytes(entry, 2), 1)) if number == 3]
            return tuple(number for value in values for number in ([value] if isinstance(value, int) else _packed(value)))
    return ()


def _packed(data: bytes) -> Iterator[int]:
    place = 0
    while place < len(data):
        number, place = read_varint(data, place)
        yield number
