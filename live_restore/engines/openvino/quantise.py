"""Whole numbers for a network: the ranges of its feature maps and its kernels in int8, found on images.

Receives the graph that is run and images for it; hands on `Int8Layers`, as bytes. Used when a network is built, never when
it runs. Three things keep the result close to float32: every channel of a feature map gets its own range, kernels are
rounded so that the error of a layer's result is smallest on these images (`live_restore.engines.openvino.int8_rounding`), and
what is left of it on average goes into the bias. It does not know whether the result is good enough: its certificate says that.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from live_restore.engines.cache.engine_cache import EngineKey
from live_restore.engines.certificates.certificate import Probe
from live_restore.engines.openvino.engine import ov, the_core
from live_restore.engines.openvino.int8 import eligible, feature_maps, key_of, parts_of, scaled_by_attention, scales_of
from live_restore.engines.openvino.int8_layers import FeatureRange, Int8Layers, Int8Weights
from live_restore.engines.openvino.int8_rounding import LEVELS, best_steps, rounded
from live_restore.engines.openvino.sensitive import Budget, Tell, affordable
from live_restore.engines.openvino.upsampling import fold_upsampling
from live_restore.errors import EngineError

# How much brighter than on all images given a feature may become before it is cut.
HEADROOM = 1.15
# Cutting the few brightest values makes the levels of all others finer. The power that is least on average decides: 2 would
# cut most, infinity nothing at all.
CUT_POWER = 4
_CUTS = np.arange(1.0, 0.24, -0.05)
_VALUES_PER_CHANNEL = 20_000
_SAMPLES_PER_WEIGHT = 3
_FEWEST_SAMPLES, _MOST_SAMPLES = 6_000, 12_000
_SEED = 0
# Images on which every layer is tried alone.
_TRIED = 3

Array = NDArray[Any]


@dataclass(slots=True, eq=False)
class _Seen:
    """What was seen of one tensor on all images: values of every channel, and how neighbouring ones go together."""

    values: list[Array] = field(default_factory=list)  # each (C, N), extremes among them
    powers: dict[tuple[int, ...], Array] = field(default_factory=dict)
    sums: dict[tuple[int, ...], Array] = field(default_factory=dict)
    samples: dict[tuple[int, ...], int] = field(default_factory=dict)


def quantise(onnx: bytes, probes: Sequence[Probe], budget: Budget | None = None, tell: Tell = lambda words: None) -> bytes:
    """Find the int8 layers of a network.

    Parameters
    ----------
    onnx : bytes
        The graph that is run, usually from `live_restore.engines.graphs.counts_graph`. Its layers serve every graph of the same
        weights: for counts of other types, in tiles.
    probes : sequence of Probe
        Images as they will come; 256 x 256 or 16 x 64 x 64 pixels each are enough. Not those that it is certified on.
    budget : Budget, optional
        What all layers together may cost on these images; as many convolutions as that takes stay in floating-point numbers.
    tell : callable (words)
        Told what is being done.

    Returns
    -------
    bytes
        For `live_restore.engines.openvino.int8_layers.from_bytes`.

    Raises
    ------
    EngineError
        If there is no probe, or no convolution that would gain, or none that may be rounded.
    """
    if not probes:
        raise EngineError("int8 layers are found on images, and none was given; name a folder: --pairs FOLDER")
    model = folded(onnx)
    convs = eligible(model)
    if not convs:
        raise EngineError("this network has no convolution that is worth whole numbers; use --precision bf16")
    seen = _look(model, convs, probes)
    names = {conv.get_friendly_name() for conv in convs}
    ranges = _ranges(convs, names, seen)
    weights: dict[str, Int8Weights] = {}
    for conv in convs:
        tell(f"rounding convolution {len(weights) + 1} of {len(convs)}")
        weights[conv.get_friendly_name()] = _weights(conv, scales_of(conv, names, ranges), seen)
    scaled = {
        name: FeatureRange(_largest(np.concatenate(seen[node.get_friendly_name()].values, 1), True), True)
        for name, node in scaled_by_attention(model).items()
    }
    kept = affordable(model, Int8Layers(ranges, weights, scaled), probes[:_TRIED], budget or Budget(), tell)
    if not kept.weights:
        raise EngineError(
            f"whole numbers cost this network too much in every one of its {len(weights)} convolutions; use --precision bf16"
        )
    words = f"{len(kept.weights)} of {len(weights)} convolutions, {len(probes)} images"
    return replace(kept, words=words).to_bytes()


def int8_key(onnx: bytes) -> EngineKey:
    """Give the key under which the layers of this graph belong into the cache."""
    return key_of(folded(onnx))


def folded(onnx: bytes) -> Any:
    """Read a graph as `live_restore.engines.openvino.int8` takes it."""
    model = the_core().read_model(onnx)
    fold_upsampling(ov, model)
    return model


def _look(model: Any, convs: list[Any], probes: Sequence[Probe]) -> dict[str, _Seen]:
    """Run the images, and keep of every tensor what is needed of it."""
    windows: dict[str, set[tuple[int, ...]]] = {name: set() for name in feature_maps(convs)}
    windows |= {node.get_friendly_name(): set() for node in scaled_by_attention(model).values()}
    for conv in convs:
        windows.setdefault(_before(conv), set()).add(_window(conv))
    request = _watching(model, list(windows))
    seen = {name: _Seen() for name in windows}
    chance = np.random.default_rng(_SEED)
    for probe in probes:
        request.infer(dict(enumerate(np.ascontiguousarray(array) for array in probe.inputs)))
        for place, name in enumerate(windows):
            values = request.get_output_tensor(place).data
            seen[name].values.append(_some(values, chance))
            for window in sorted(windows[name]):
                _add_samples(seen[name], values, window, len(probes), chance)
    return seen


def _watching(model: Any, names: list[str]) -> Any:
    """Compile a copy of the graph that gives what the named operations make."""
    copy = model.clone()
    nodes = {node.get_friendly_name(): node for node in copy.get_ordered_ops()}
    watched = ov.Model([ov.opset13.result(nodes[name].output(0)) for name in names], copy.get_parameters(), "watched")
    return the_core().compile_model(watched, "CPU", {"INFERENCE_PRECISION_HINT": "f32"}).create_infer_request()


def _before(conv: Any) -> str:
    name: str = conv.input_value(0).get_node().get_friendly_name()
    return name


def _some(values: Array, chance: np.random.Generator) -> Array:
    """Take values from anywhere, as many for every channel, and its extremes; (C, N)."""
    channels = values.swapaxes(0, 1).reshape(values.shape[1], -1)
    places = chance.integers(0, channels.shape[1], min(_VALUES_PER_CHANNEL, channels.shape[1]))
    return np.concatenate([channels[:, places], channels.min(1, keepdims=True), channels.max(1, keepdims=True)], 1)


def _add_samples(seen: _Seen, values: Array, window: tuple[int, ...], n_probes: int, chance: np.random.Generator) -> None:
    """Add windows from anywhere in one image, zeros around it as the network sees them."""
    columns = values.shape[1] * int(np.prod(window))
    number = int(np.clip(_SAMPLES_PER_WEIGHT * columns, _FEWEST_SAMPLES, _MOST_SAMPLES)) // n_probes + 1
    padded = np.pad(values, [(0, 0), (0, 0), *((size // 2, size // 2) for size in window)])
    views = np.lib.stride_tricks.sliding_window_view(padded, window, tuple(range(2, values.ndim)))
    at = [chance.integers(0, size, number) for size in views.shape[2 : values.ndim]]
    batch = chance.integers(0, values.shape[0], number)
    here: Any = (batch, slice(None), *at)
    samples = views[here].reshape(number, columns)  # (number, C * window)
    powers, sums = samples.T @ samples, samples.sum(0)
    seen.powers[window] = seen.powers.get(window, 0.0) + powers.astype(np.float64)
    seen.sums[window] = seen.sums.get(window, 0.0) + sums.astype(np.float64)
    seen.samples[window] = seen.samples.get(window, 0) + number


def _ranges(convs: list[Any], names: set[str], seen: dict[str, _Seen]) -> dict[str, FeatureRange]:
    """Give every channel its own range; what lies side by side is signed together."""
    parts = [parts_of(conv, names) for conv in convs]
    values = {name: np.concatenate(seen[name].values, 1) for group in parts for name in group}
    signed = {name for name, found in values.items() if found.min() < 0}
    grown = True
    while grown:
        grown = False
        for group in parts:
            if signed & set(group) and not signed.issuperset(group):
                signed, grown = signed | set(group), True
    return {name: FeatureRange(_largest(found, name in signed), name in signed) for name, found in values.items()}


def _largest(values: Array, is_signed: bool) -> NDArray[np.float32]:
    """Choose the largest value of every channel that is told apart, (C,); channels that are always 0 get one all the same."""
    sizes = np.abs(values).astype(np.float64)
    most = sizes.max(1) * HEADROOM
    most = np.maximum(most, max(float(most.max()) * 1e-4, float(np.finfo(np.float32).tiny)))
    half_step = 0.5 / (LEVELS if is_signed else 2 * LEVELS + 1)
    costs = []
    for cut in _CUTS:
        ends = most[:, None] * cut
        lost = (np.maximum(sizes - ends, 0) ** CUT_POWER).mean(1)
        costs.append(lost + (half_step * ends[:, 0]) ** CUT_POWER / (CUT_POWER + 1))
    chosen: NDArray[np.float32] = (most * _CUTS[np.argmin(costs, axis=0)]).astype(np.float32)
    return chosen


def _weights(conv: Any, scales: Array, seen: dict[str, _Seen]) -> Int8Weights:
    """Round one kernel."""
    window = _window(conv)
    found = seen[_before(conv)]
    stretch = np.repeat(scales.astype(np.float64), int(np.prod(window)))
    powers = found.powers[window] / found.samples[window] / np.outer(stretch, stretch)
    means = found.sums[window] / found.samples[window] / stretch
    kernel = _kernel(conv) * scales.reshape(1, -1, *(1,) * len(window))  # (out, in, k, ...)
    phases = [(place, kernel[(slice(None), slice(None), *place)]) for place in _phases(conv)]
    columns = [part.reshape(len(part), -1) for _, part in phases]
    steps = best_steps(np.concatenate(columns, 1), np.tile(np.diag(powers), len(phases)))
    whole = np.empty(kernel.shape, np.int8)
    bias = np.zeros(len(kernel))
    for (place, part), matrix in zip(phases, columns, strict=True):
        found_levels = rounded(matrix, powers, steps)
        whole[(slice(None), slice(None), *place)] = found_levels.reshape(part.shape)
        bias += (matrix - found_levels * steps) @ means / len(phases)
    return _as_in_graph(conv, whole, steps, bias)


def _as_in_graph(conv: Any, whole: NDArray[np.int8], steps: Array, bias: Array) -> Int8Weights:
    shape = [1] * whole.ndim
    if conv.get_type_name() == "Convolution":
        shape[0] = len(whole)
    else:
        whole, shape[1] = whole.swapaxes(0, 1), len(whole)
    return Int8Weights(np.ascontiguousarray(whole), steps.reshape(shape).astype(np.float32), bias.astype(np.float32))


def _kernel(conv: Any) -> Array:
    """Give the kernel as (out, in, k, ...), float64."""
    kernel: Array = conv.input_value(1).get_node().data.astype(np.float64)
    return kernel if conv.get_type_name() == "Convolution" else kernel.swapaxes(0, 1)


def _window(conv: Any) -> tuple[int, ...]:
    """Give how many pixels along each axis meet in one pixel of the result."""
    sizes = list(conv.input_value(1).get_shape())[2:]
    if conv.get_type_name() == "Convolution":
        return tuple(sizes)
    return tuple(size // step for size, step in zip(sizes, conv.get_attributes()["strides"], strict=True))


def _phases(conv: Any) -> list[tuple[slice, ...]]:
    """Give the parts of a kernel that meet the same pixels: all of it, or those of a transposed one, turned around."""
    if conv.get_type_name() == "Convolution":
        return [(slice(None),) * len(_window(conv))]
    strides = conv.get_attributes()["strides"]
    sizes = list(conv.input_value(1).get_shape())[2:]
    lines = [
        [slice(size - step + begin, None, -step) for begin in range(step)] for size, step in zip(sizes, strides, strict=True)
    ]
    return list(product(*lines))
