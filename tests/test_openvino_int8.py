"""Whole numbers: layers are found on images, kept in the cache, and put into any graph of the same weights."""

import subprocess
import sys
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from onnx import TensorProto, helper

from live_restore.engines.cache.engine_cache import EngineCache
from live_restore.engines.certificates.certificate import Probe
from live_restore.engines.engine import open_engine, what_is_offered
from live_restore.engines.graphs.counts_graph import from_counts
from live_restore.engines.graphs.pooling import applying, measuring
from live_restore.engines.openvino.engine import ov, the_core
from live_restore.engines.openvino.int8 import eligible, feature_maps, load_layers, put_in
from live_restore.engines.openvino.int8_layers import FeatureRange, Int8Layers, Int8Weights, from_bytes
from live_restore.engines.openvino.int8_rounding import best_steps, rounded
from live_restore.engines.openvino.quantise import int8_key, quantise
from live_restore.engines.openvino.sensitive import affordable, only_error
from live_restore.engines.openvino.upsampling import fold_upsampling
from live_restore.errors import EngineError, EngineUnavailable
from live_restore.models.nets import build_net
from live_restore.models.onnx_export import to_onnx

pytestmark = pytest.mark.skipif(
    "int8" not in what_is_offered("openvino").precisions, reason="OpenVINO has no int8 arithmetic on this processor"
)

NETS = {
    "CARE 2D": ("care", {"n_dim": 2, "first_filters": 8}, (64, 96), 11),
    "CARE 3D": ("care", {"n_dim": 3, "first_filters": 8, "depth": 1}, (8, 32, 32), 6),
    "RCAN 3D": ("rcan", {"n_dim": 3, "channels": 8, "groups": 2, "blocks": 1, "reduction": 4}, (8, 24, 24), 7),
    "CAREamics": ("careamics_unet", {"n_dim": 2, "first_filters": 8, "depth": 2, "batch_norm": False}, (64, 64), 9),
}


def smooth(shape, seed=0):
    """An image of a few blobs and noise, 0 .. 1."""
    chance = np.random.default_rng(seed)
    places = np.stack(np.meshgrid(*(np.arange(size) for size in shape), indexing="ij"), -1)
    image = np.zeros(shape)
    for _ in range(6):
        centre = chance.uniform(0, shape)
        image += np.exp(-np.square(places - centre).sum(-1) / (2 * 4.0**2))
    return (image / image.max() + chance.normal(0, 0.05, shape)).astype(np.float32)[None, None]


@cache
def network(name):
    kind, options, shape, _ = NETS[name]
    onnx = to_onnx(build_net(kind, options, seed=3))
    return onnx, [Probe((smooth(shape, seed),)) for seed in range(3)], smooth(shape, 99)


@cache
def layers_of(name):
    """All convolutions of a network in whole numbers; as bytes."""
    onnx, probes, _ = network(name)
    return quantise(onnx, probes, only_error(1.0))


def kept(name):
    """Put layers into the cache of this session."""
    EngineCache().store(int8_key(network(name)[0]), layers_of(name))
    return from_bytes(layers_of(name))


def run(onnx, precision, *inputs):
    with open_engine("openvino", onnx, precision) as engine:
        assert engine.spec.precision == precision
        return engine.infer(*inputs)[-1]


def error(found, expected):
    return float(np.sqrt(np.mean((found - expected) ** 2)) / np.ptp(expected))


@pytest.mark.parametrize("name", NETS)
def test_a_network_in_whole_numbers_is_close_to_float32(name):
    onnx, _, image = network(name)
    assert len(kept(name).weights) == NETS[name][3]
    # those that do not add their input carry the whole image through every layer
    assert error(run(onnx, "int8", image), run(onnx, "f32", image)) < (0.01 if "CARE " in name else 0.03)


def test_the_convolutions_really_run_in_whole_numbers():
    onnx, _, image = network("CARE 2D")
    kept("CARE 2D")
    model = the_core().read_model(onnx)
    fold_upsampling(ov, model)
    put_in(ov, model, load_layers(model))
    model.reshape(image.shape)
    request = the_core().compile_model(model, "CPU", {"PERF_COUNT": True}).create_infer_request()
    request.infer([image])
    ran = [row.exec_type for row in request.get_profiling_info() if "Convolution" in row.node_type]
    assert sum(kind.upper().endswith("I8") for kind in ran) >= NETS["CARE 2D"][3]


def test_what_attention_scales_is_rounded_too():
    onnx, _, image = network("RCAN 3D")
    layers = kept("RCAN 3D")
    assert len(layers.scaled) == 2 and all(name.endswith("conv_1/Conv/WithoutBiases") for name in layers.scaled)
    model = the_core().read_model(onnx)
    put_in(ov, model, layers)
    means = [node for node in model.get_ordered_ops() if node.get_type_name() == "ReduceMean"]
    assert [node.input_value(0).get_node().get_type_name() for node in means] == ["FakeQuantize"] * 2
    whole, plain = (run_of(layers.scaled if each else {}, image) for each in (True, False))
    assert 0 < error(whole, plain) < 0.01
    left_out = the_core().read_model(onnx)
    put_in(ov, left_out, replace(layers, weights={}))  # what stays in floating-point numbers is scaled as it is
    assert not [node for node in left_out.get_ordered_ops() if node.get_type_name() == "FakeQuantize"]


def run_of(scaled, image):
    model = the_core().read_model(network("RCAN 3D")[0])
    put_in(ov, model, replace(from_bytes(layers_of("RCAN 3D")), scaled=scaled))
    request = the_core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"}).create_infer_request()
    request.infer([image])
    return request.get_output_tensor(0).data.copy()


def test_layers_serve_counts_and_both_passes_over_tiles():
    onnx, _, image = network("RCAN 3D")
    kept("RCAN 3D")
    counts = np.rint(image * 1000 + 200).clip(0, 65535).astype(np.uint16)
    span = np.array([[200.0], [1000.0]], np.float32)
    inside = (counts.astype(np.float32) - 200) / 1000
    expected = run(onnx, "int8", inside)
    assert error(run(from_counts(onnx), "int8", counts, span, span), expected * 1000 + 200) < 5e-3
    weights = np.full((1, 1, *image.shape[2:]), 1 / image[0, 0].size, np.float32)
    with open_engine("openvino", measuring(onnx), "int8") as engine:
        means, first = engine.infer(inside, weights)
    second = run(applying(onnx), "int8", inside, weights, means)
    assert error(first, expected) < 5e-3
    assert error(second, expected) < 5e-3


def test_layers_found_on_counts_serve_the_plain_graph():
    onnx, probes, image = network("CARE 2D")
    span = np.array([[0.0], [1.0]], np.float32)
    graph = from_counts(onnx, "float32")
    layers = quantise(graph, [Probe((*probe.inputs, span, span)) for probe in probes], only_error(1.0))
    assert int8_key(graph) == int8_key(onnx)
    EngineCache().store(int8_key(onnx), layers)
    assert error(run(onnx, "int8", image), run(onnx, "f32", image)) < 0.01


def test_without_layers_it_says_how_to_make_them():
    onnx = to_onnx(build_net("care", {"n_dim": 2, "first_filters": 8}, seed=77))
    with pytest.raises(EngineUnavailable, match="live-restore build PACKAGE --precision int8"):
        open_engine("openvino", onnx, "int8")


def test_layers_of_another_machine_are_refused(tmp_path):
    onnx, _, _ = network("CARE 3D")
    EngineCache(tmp_path, b"another machine's secret").store(int8_key(onnx), layers_of("CARE 3D"))
    model = the_core().read_model(onnx)
    fold_upsampling(ov, model)
    with pytest.raises(EngineUnavailable, match=r"built on another machine.*--precision int8"):
        load_layers(model, EngineCache(tmp_path, b"this machine's secret"))


def test_what_is_too_sensitive_stays_in_floating_point_numbers():
    onnx, probes, image = network("RCAN 3D")
    probes, everything = probes[:1], from_bytes(layers_of("RCAN 3D"))
    model = the_core().read_model(onnx)
    fold_upsampling(ov, model)
    assert affordable(model, everything, probes, only_error(1.0)) is everything
    assert not affordable(model, everything, probes, only_error(1e-12)).weights
    alone = {name: error_of(model, everything, name, image) for name in everything.weights}
    best = min(alone.values())
    few = affordable(model, everything, probes, only_error(3 * best))
    assert 0 < len(few.weights) < len(everything.weights) and not few.scaled
    assert list(few.weights) == [name for name in everything.weights if name in few.weights]
    assert max(alone, key=alone.__getitem__) not in few.weights
    with pytest.raises(EngineError, match="cost this network too much in every one of its 7 convolutions"):
        quantise(onnx, probes, only_error(1e-12))


def error_of(model, layers, name, image):
    results = []
    for chosen in ({}, {name: layers.weights[name]}):
        copy = model.clone()
        put_in(ov, copy, Int8Layers(layers.ranges, chosen))
        request = the_core().compile_model(copy, "CPU", {"INFERENCE_PRECISION_HINT": "f32"}).create_infer_request()
        request.infer([image])
        results.append(request.get_output_tensor(0).data.copy())
    return error(results[1], results[0])


def test_what_hardly_costs_psnr_is_whole_and_what_does_is_not():
    net = build_net("care", {"n_dim": 2, "first_filters": 8, "depth": 1, "probabilistic": True}, seed=3)
    onnx = to_onnx(net)
    image = smooth((48, 48), 1)
    noise = np.random.default_rng(0).normal(0, 1, image.shape).astype(np.float32)
    far = [Probe((image,), image + noise, channels=1)]
    near = [Probe((image,), run(onnx, "f32", image)[:, :1] + 1e-4 * noise, channels=1)]
    assert len(from_bytes(quantise(onnx, far)).weights) == 6
    with pytest.raises(EngineError, match="too much in every one"):
        quantise(onnx, near)


def test_quantising_says_what_is_missing():
    onnx, probes, _ = network("CARE 2D")
    with pytest.raises(EngineError, match="none was given; name a folder: --pairs"):
        quantise(onnx, [])
    thin = to_onnx(build_net("care", {"n_dim": 2, "first_filters": 2, "depth": 1}, seed=0))
    with pytest.raises(EngineError, match="no convolution that is worth whole numbers"):
        quantise(thin, probes)


def test_layers_that_do_not_fit_the_graph_are_refused():
    onnx, _, _ = network("CARE 2D")
    layers = from_bytes(layers_of("CARE 2D"))
    other = the_core().read_model(to_onnx(build_net("rcan", {"n_dim": 2, "channels": 8, "groups": 1, "blocks": 1}, seed=0)))
    with pytest.raises(EngineError, match="the graph has no convolution"):
        put_in(ov, other, layers)
    model = the_core().read_model(onnx)
    fold_upsampling(ov, model)
    with pytest.raises(EngineError, match="know no range of"):
        put_in(ov, model, Int8Layers({}, layers.weights))


def test_layers_pack_into_the_same_bytes_and_back():
    weights = Int8Weights(np.ones((2, 3, 3, 3), np.int8), np.ones((2, 1, 1, 1), np.float32), np.zeros(2, np.float32))
    layers = Int8Layers({"a": FeatureRange(np.ones(3, np.float32), True)}, {"b": weights}, {}, "how")
    again = from_bytes(layers.to_bytes())
    assert again.to_bytes() == layers.to_bytes()
    assert again.ranges["a"].signed and again.words == "how"
    np.testing.assert_array_equal(again.weights["b"].kernel, weights.kernel)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 damaged", b"\x93NUMPY\x01\x00v\x00"])
def test_other_bytes_are_no_layers(content):
    with pytest.raises(EngineError, match="no int8 layers"):
        from_bytes(content)


def test_layers_of_another_format_are_refused(tmp_path):
    said = np.frombuffer(b'{"format": ["live_restore int8 layers", 99]}', np.uint8)
    np.savez(tmp_path / "future.npz", said=said)
    with pytest.raises(EngineError, match=r"format \['live_restore int8 layers', 99\]"):
        from_bytes((tmp_path / "future.npz").read_bytes())


def test_rounding_makes_up_for_its_errors():
    chance = np.random.default_rng(0)
    samples = np.cumsum(chance.normal(size=(4000, 40)), 1)  # neighbours are alike
    powers = samples.T @ samples / len(samples)
    weights = chance.normal(size=(6, 40))
    steps = np.abs(weights).max(1, keepdims=True) / 7  # coarse, so that it shows
    plain = np.clip(np.rint(weights / steps), -127, 127) * steps
    better = rounded(weights, powers, steps) * steps
    assert np.square((better - weights) @ samples.T).mean() < 0.2 * np.square((plain - weights) @ samples.T).mean()


def test_steps_cut_a_large_weight_that_meets_nothing():
    weights = np.full((1, 20), 0.1)
    weights[0, 0] = 0.11
    importance = np.ones(20)
    importance[0] = 0.0
    assert best_steps(weights, importance)[0, 0] <= 0.11 / 127
    assert best_steps(np.zeros((1, 20)), importance)[0, 0] > 0


def concatenated():
    """Two convolutions of which the second takes the pooled first beside the pooled image."""
    chance = np.random.default_rng(0)
    arrays = {
        "w": chance.normal(size=(8, 8, 3, 3)),
        "v": chance.normal(size=(8, 16, 3, 3)),
        "u": chance.normal(size=(1, 8, 1, 1)),
    }
    constants = [
        helper.make_tensor(name, TensorProto.FLOAT, array.shape, array.astype(np.float32).ravel().tolist())
        for name, array in arrays.items()
    ]
    nodes = [
        helper.make_node("Conv", ["input", "w"], ["first"], pads=[1] * 4, name="first"),
        helper.make_node("Relu", ["first"], ["bright"], name="bright"),
        helper.make_node("Concat", ["bright", "input"], ["both"], axis=1, name="both"),
        helper.make_node("MaxPool", ["both"], ["pooled"], kernel_shape=[2, 2], strides=[2, 2], name="pooled"),
        helper.make_node("Conv", ["pooled", "v"], ["second"], pads=[1] * 4, name="second"),
        helper.make_node("Conv", ["second", "u"], ["output"], name="last"),
    ]
    ports = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ("n", c, "y", "x")) for n, c in (("input", 8), ("output", 1))]
    graph = helper.make_graph(nodes, "g", ports[:1], ports[1:], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9).SerializeToString()


def test_what_is_pooled_and_put_side_by_side_is_rounded_where_it_is_made():
    onnx = concatenated()
    model = the_core().read_model(onnx)
    convs = eligible(model)
    assert [conv.get_friendly_name() for conv in convs] == ["first", "second"]
    assert sorted(feature_maps(convs)) == ["bright", "input"]
    image = np.concatenate([smooth((32, 32), seed) for seed in range(8)], 1)
    packed = quantise(onnx, [Probe((image,))], only_error(1.0))
    EngineCache().store(int8_key(onnx), packed)
    layers = from_bytes(packed)
    # one of them is signed, so both are
    assert {name: found.signed for name, found in layers.ranges.items()} == {"input": True, "bright": True}
    assert error(run(onnx, "int8", image), run(onnx, "f32", image)) < 0.02
    # left alone, the second takes the range of what it pools
    copy = the_core().read_model(onnx)
    put_in(ov, copy, Int8Layers(layers.ranges, {"second": layers.weights["second"]}))


def test_nothing_of_this_is_loaded_for_other_precisions():
    code = (
        "import sys, live_restore.engines.openvino.engine\n"
        "assert not [m for m in sys.modules if 'quantise' in m or m in ('nncf', 'torch', 'onnx')], sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
