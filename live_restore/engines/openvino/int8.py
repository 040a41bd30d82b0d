"""An OpenVINO graph whose large convolutions are computed in whole numbers, twice as fast as bf16 where the CPU has VNNI.

Receives a graph of floating-point numbers and `Int8Layers` that were made for its weights; rewrites the graph. Feature maps
are rounded to 256 levels, channel by channel, where they are made (there the rounding costs nothing), kernels are int8;
sums are exact. What attention scales is rounded too: half the bytes to read twice. What has no layer stays as it is: first and
last layers, skips and scaling. It does not know how the layers were found: `live_restore.engines.openvino.quantise` does
that, once, when a network is built.
"""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from live_restore.engines.cache.engine_cache import EngineCache, EngineKey
from live_restore.engines.openvino.int8_layers import FeatureRange, Int8Layers, Int8Weights, from_bytes
from live_restore.errors import EngineError, EngineUnavailable

FLAVOUR = "openvino-int8"
CURE = "live-restore build PACKAGE --precision int8"
_FORMAT = "2"
_CONVOLUTIONS = ("Convolution", "ConvolutionBackpropData")

# 1x1 convolutions and those of an image's one channel cost little; rounding what they take or give costs most.
_FEWEST_CHANNELS = 8


@dataclass(frozen=True, slots=True, eq=False)
class FeatureMap:
    """Where a feature map is made, and which inputs take it.

    Attributes
    ----------
    output : openvino.Output
    ports : list of openvino.Input
    """

    output: Any
    ports: list[Any]

    @property
    def name(self) -> str:
        """Name of the operation that makes it."""
        name: str = self.output.get_node().get_friendly_name()
        return name


def load_layers(model: Any, cache: EngineCache | None = None) -> Int8Layers:
    """Read the layers that were built for the weights of this graph.

    Parameters
    ----------
    model : openvino.Model
        With folded upsampling (`live_restore.engines.openvino.upsampling`).
    cache : EngineCache, optional
        Default: the user's.

    Raises
    ------
    EngineUnavailable
        If nobody has built them on this machine; the message says how.
    """
    cache = cache or EngineCache()
    key = key_of(model)
    if not cache.holds(key):
        raise EngineUnavailable(f"this network has no int8 layers on this machine yet; make them: {CURE}")
    try:
        return from_bytes(cache.load(key))
    except EngineError as refused:
        raise EngineUnavailable(f"{refused}; make them again: {CURE}") from refused


def key_of(model: Any) -> EngineKey:
    """Give the key of a network's layers: they depend on its weights only, not on how counts or tiles reach it.

    Parameters
    ----------
    model : openvino.Model
        With folded upsampling.
    """
    digest = hashlib.sha256()
    for conv in eligible(model):
        digest.update(conv.get_friendly_name().encode())
        digest.update(np.ascontiguousarray(conv.input_value(1).get_node().data).tobytes())
    return EngineKey(digest.hexdigest(), FLAVOUR, _FORMAT, "CPU", "any", "any", "int8", "any", "")


def eligible(model: Any) -> list[Any]:
    """List the convolutions that are worth whole numbers: kernels larger than one pixel between feature maps."""
    return [node for node in model.get_ordered_ops() if node.get_type_name() in _CONVOLUTIONS and _is_eligible(node)]


def channels_of(conv: Any) -> tuple[int, int]:
    """Give the channels in and out of a convolution."""
    shape = conv.input_value(1).get_shape()
    return (shape[1], shape[0]) if conv.get_type_name() == "Convolution" else (shape[0], shape[1])


def scaled_by_attention(model: Any) -> dict[str, Any]:
    """Find what channel attention averages and then scales: results of convolutions that are worth whole numbers.

    Parameters
    ----------
    model : openvino.Model
        Not one of the two passes over tiles, which average elsewhere.

    Returns
    -------
    dict
        The operation that gives the result, bias included, by the name of its convolution.
    """
    convs = {conv.get_friendly_name() for conv in eligible(model)}
    found = {}
    for node in model.get_ordered_ops():
        if node.get_type_name() == "ReduceMean" and (name := _added_to(node.input_value(0).get_node())) in convs:
            found[name] = node.input_value(0).get_node()
    return found


def feature_maps(convs: list[Any]) -> dict[str, FeatureMap]:
    """Find the feature maps that convolutions take, before poolings and concatenations, which work on whole numbers as well.

    Returns
    -------
    dict of FeatureMap
        By name, in the order of the convolutions.
    """
    names = {conv.get_friendly_name() for conv in convs}
    found: dict[str, FeatureMap] = {}
    for conv in convs:
        for port in _leaves(conv.input(0), names):
            output = port.get_source_output()
            feature = found.setdefault(output.get_node().get_friendly_name(), FeatureMap(output, []))
            if not any(_same(port, known) for known in feature.ports):
                feature.ports.append(port)
    return found


def parts_of(conv: Any, names: set[str]) -> list[str]:
    """Name the feature maps that lie side by side in a convolution's input; `names` are the int8 convolutions."""
    return [port.get_source_output().get_node().get_friendly_name() for port in _leaves(conv.input(0), names)]


def put_in(ov: Any, model: Any, layers: Int8Layers) -> None:
    """Rewrite a graph.

    Parameters
    ----------
    ov : module
        openvino.
    model : openvino.Model
        With folded upsampling; changed in place.
    layers : Int8Layers

    Raises
    ------
    EngineError
        If the graph lacks what the layers name.
    """
    named = {conv.get_friendly_name(): conv for conv in eligible(model)}
    if missing := sorted(set(layers.weights) - set(named)):
        raise EngineError(
            f"the graph has no convolution {missing[0]!r} ({len(missing)} missing); make its layers again: {CURE}"
        )
    convs = [named[name] for name in layers.weights]
    features = feature_maps(convs)
    for feature in features.values():
        _round_feature(ov, feature, range_of(feature.output.get_node(), layers.ranges))
    for node in model.get_ordered_ops():
        if (name := _added_to(node)) in layers.scaled and name in layers.weights:
            _round_scaled(ov, node, layers.scaled[name])
    for conv in convs:
        _replace_kernel(ov, conv, layers.weights[conv.get_friendly_name()])
    model.validate_nodes_and_infer_types()


def range_of(node: Any, ranges: Mapping[str, FeatureRange]) -> FeatureRange:
    """Give the range of what an operation makes: its own, or that of what it only moves.

    Raises
    ------
    EngineError
        If neither is known.
    """
    if (name := node.get_friendly_name()) in ranges:
        return ranges[name]
    if not _passes(node):
        raise EngineError(f"the int8 layers know no range of {name!r}; make them again: {CURE}")
    parts = [range_of(port.get_source_output().get_node(), ranges) for port in _moved(node)]
    return FeatureRange(np.concatenate([part.channels for part in parts]), any(part.signed for part in parts))


def _round_feature(ov: Any, feature: FeatureMap, found: FeatureRange) -> None:
    """Round one feature map to 256 levels and hand it on in units of its largest value, channel by channel."""
    limits = _limits(found, len(feature.output.get_partial_shape()))
    ones = [np.full_like(limit[:, :1], end) for limit, end in zip(limits, (_lowest(found), 1), strict=True)]
    rounded = _rounded(ov, feature.output, *limits, *ones)
    for port in feature.ports:
        port.replace_source_output(rounded)


def _round_scaled(ov: Any, node: Any, found: FeatureRange) -> None:
    """Round a result to 256 levels, channel by channel, and hand it on as large as it was."""
    limits = _limits(found, len(node.get_output_partial_shape(0)))
    takers = list(node.output(0).get_target_inputs())
    rounded = _rounded(ov, node.output(0), *limits, *limits)
    for taker in takers:
        taker.replace_source_output(rounded)


def _rounded(ov: Any, output: Any, *limits: NDArray[np.float32]) -> Any:
    return ov.opset13.fake_quantize(output, *(ov.opset13.constant(limit) for limit in limits), 256).output(0)


def _limits(found: FeatureRange, n_axes: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    most = found.channels.reshape(1, -1, *(1,) * (n_axes - 2)).astype(np.float32)
    return most * np.float32(_lowest(found)), most


def _lowest(found: FeatureRange) -> float:
    return -128 / 127 if found.signed else 0.0


def _added_to(node: Any) -> str:
    """Name the convolution that an operation adds a bias to; nothing if it is something else."""
    if node.get_type_name() != "Add":
        return ""
    before = node.input_value(0).get_node()
    return str(before.get_friendly_name()) if before.get_type_name() in _CONVOLUTIONS else ""


def _replace_kernel(ov: Any, conv: Any, weights: Int8Weights) -> None:
    whole = ov.opset13.convert(ov.opset13.constant(weights.kernel), "f32")
    conv.input(1).replace_source_output(ov.opset13.multiply(whole, ov.opset13.constant(weights.steps)).output(0))
    added = ov.opset13.constant(weights.bias.reshape(1, -1, *(1,) * (weights.kernel.ndim - 2)))
    port = _bias(conv)
    if port is not None:
        port.replace_source_output(ov.opset13.add(port.get_source_output(), added).output(0))
        return
    takers = list(conv.output(0).get_target_inputs())
    total = ov.opset13.add(conv, added)
    for taker in takers:
        taker.replace_source_output(total.output(0))


def _bias(conv: Any) -> Any:
    """Find the input that adds one number per channel to what the convolution gives, perhaps after other terms; or None."""
    output = conv.output(0)
    while len(takers := list(output.get_target_inputs())) == 1 and takers[0].get_node().get_type_name() == "Add":
        total = takers[0].get_node()
        other = total.input(1 - takers[0].get_index())
        shape = other.get_partial_shape()
        if shape.is_static and len(shape) > 1 and max(shape.to_shape()[2:], default=1) == 1 == shape.to_shape()[0]:
            return other
        output = total.output(0)
    return None


def _is_eligible(conv: Any) -> bool:
    weights, said = conv.input_value(1).get_node(), conv.get_attributes()
    if weights.get_type_name() != "Constant" or max(said["dilations"]) > 1:
        return False
    kernel = list(weights.get_output_shape(0))[2:]
    whole_steps = all(size % step == 0 for size, step in zip(kernel, said["strides"], strict=True))
    if conv.get_type_name() == "ConvolutionBackpropData" and not whole_steps:
        return False
    return bool(min(kernel, default=1) > 1 and min(channels_of(conv)) >= _FEWEST_CHANNELS)


def _leaves(port: Any, names: set[str]) -> Iterator[Any]:
    """Give the inputs at which feature maps enter what leads to this one."""
    node = port.get_source_output().get_node()
    if _passes(node) and _only_for(node, names):
        for before in _moved(node):
            yield from _leaves(before, names)
    else:
        yield port


def _passes(node: Any) -> bool:
    """Whether an operation gives the same, only elsewhere: then it may be done on whole numbers."""
    kind = node.get_type_name()
    return bool(
        kind == "MaxPool"
        or (kind == "Concat" and node.get_attributes()["axis"] == 1)
        or (kind == "Interpolate" and node.get_attributes().get("mode") == "nearest")
    )


def _moved(node: Any) -> list[Any]:
    """Give the inputs whose pixels such an operation moves."""
    ports: list[Any] = node.inputs()
    return ports if node.get_type_name() == "Concat" else ports[:1]


def _only_for(node: Any, names: set[str]) -> bool:
    """Whether nobody but int8 convolutions takes what a node gives."""
    return all(_takes_int8(port, names) for port in node.output(0).get_target_inputs())


def _takes_int8(port: Any, names: set[str]) -> bool:
    node = port.get_node()
    if node.get_type_name() in ("ShapeOf", *_CONVOLUTIONS):
        return node.get_type_name() == "ShapeOf" or bool(port.get_index() == 0 and node.get_friendly_name() in names)
    moves = _passes(node) and (node.get_type_name() == "Concat" or port.get_index() == 0)
    return bool(moves and _only_for(node, names))


def _same(one: Any, other: Any) -> bool:
    names = one.get_node().get_friendly_name(), other.get_node().get_friendly_name()
    return bool(one.get_index() == other.get_index() and names[0] == names[1])


def scales_of(conv: Any, names: set[str], ranges: Mapping[str, FeatureRange]) -> NDArray[np.float32]:
    """Give what becomes 1 in every channel of a convolution's input, (C,); `names` are the int8 convolutions."""
    return np.concatenate([ranges[part].channels for part in parts_of(conv, names)])
