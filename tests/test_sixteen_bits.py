"""Networks in 16 bits: the right numbers, and float32 where it has to stay."""

import numpy as np
import onnx
import openvino
import pytest
import tifffile
from onnx import TensorProto
from onnx.reference import ReferenceEvaluator
from small_graphs import graph, image, net_graph, node

from live_restore.engines.certificates.certificate import Probe, Tolerance, certify
from live_restore.engines.engine import open_engine
from live_restore.engines.graphs.byte_pairs import as_byte_pairs, from_byte_pairs
from live_restore.engines.graphs.counts_graph import from_counts
from live_restore.engines.graphs.pooling import applying, measuring
from live_restore.engines.graphs.sixteen_bits import in_sixteen_bits
from live_restore.errors import EngineError, ModelError
from live_restore.models.foreign.importing import import_model

# narrow networks of every topology, with the shape of an image
NETS = {
    "care2d": (("care", {"n_dim": 2, "first_filters": 8}), (1, 1, 48, 32)),
    "care2d-probabilistic": (("care", {"n_dim": 2, "first_filters": 8, "probabilistic": True}), (1, 1, 48, 32)),
    "care2d-folded": (("care", {"n_dim": 2, "first_filters": 8, "entry": 2, "skip_kernel": 7}), (1, 1, 48, 32)),
    "care3d": (("care", {"n_dim": 3, "first_filters": 8}), (1, 1, 8, 16, 20)),
    "rcan2d": (("rcan", {"n_dim": 2, "groups": 2, "blocks": 2, "channels": 16}), (2, 1, 33, 29)),
    "rcan2d-up2": (("rcan", {"n_dim": 2, "groups": 2, "blocks": 1, "channels": 16, "upscale": 2}), (1, 1, 33, 29)),
    "rcan3d": (("rcan", {"n_dim": 3, "groups": 2, "blocks": 2, "channels": 16}), (1, 1, 6, 17, 16)),
    "projection": (("projection_care", {"n_dim": 3, "first_filters": 8}), (1, 1, 5, 32, 16)),
    "careamics": (("careamics_unet", {"n_dim": 2}), (1, 1, 32, 32)),
}
# rms of the difference to float32, of the range of the float32 result
LIMITS = {"f16": 3e-4, "bf16": 4e-3}


@pytest.fixture(params=NETS.values(), ids=NETS.keys())
def net(request):
    (kind, options), shape = request.param
    return net_graph(kind, **options), image(*shape)


def run(onnx_bytes, *inputs):
    """Compute as the graph says: every operation in the precision written there, as far as a CPU has it."""
    core = openvino.Core()
    compiled = core.compile_model(core.read_model(onnx_bytes), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return [np.array(result) for result in compiled(list(inputs)).values()]


def difference(found, expected):
    return float(np.sqrt(np.mean((found - expected) ** 2)) / np.ptp(expected))


@pytest.mark.parametrize("precision", ["f16", "bf16"])
def test_the_numbers_are_those_of_float32(net, precision):
    onnx_bytes, pixels = net
    narrow = in_sixteen_bits(onnx_bytes, precision)
    (expected,), (found,) = run(onnx_bytes, pixels), run(narrow, pixels)
    assert found.dtype == np.float32 and found.shape == expected.shape
    assert 0 < difference(found, expected) < LIMITS[precision]
    assert len(narrow) < 0.75 * len(onnx_bytes)


def test_inputs_and_outputs_stay_as_they_are(net):
    onnx_bytes, _ = net
    for given in (onnx_bytes, from_counts(onnx_bytes)):
        before, after = onnx.load_from_string(given).graph, onnx.load_from_string(in_sixteen_bits(given, "f16")).graph
        assert list(before.input) == list(after.input) and list(before.output) == list(after.output)


def test_every_layer_is_in_sixteen_bits(net):
    onnx_bytes, _ = net
    model = onnx.load_from_string(in_sixteen_bits(onnx_bytes, "f16"))
    stored = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    layers = [node for node in model.graph.node if node.op_type in ("Conv", "ConvTranspose", "MatMul")]
    assert layers and all(stored[layer.input[1]] == TensorProto.FLOAT16 for layer in layers)
    # types are consistent throughout, which the plain checker does not look at
    onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True)


@pytest.mark.parametrize("precision", ["f16", "bf16"])
@pytest.mark.parametrize("name", ["care2d", "rcan3d"])
def test_the_numbers_where_every_operation_rounds(name, precision):
    """OpenVINO computes in float32 between the layers; ONNX's own interpreter in exactly the types that are written."""
    (kind, options), shape = NETS[name]
    onnx_bytes, pixels = net_graph(kind, **options), image(1, 1, *([32, 28] if len(shape) == 4 else [3, 12, 8]))
    expected, found = (
        ReferenceEvaluator(onnx.load_from_string(given)).run(None, {"input": pixels})[0]
        for given in (onnx_bytes, in_sixteen_bits(onnx_bytes, precision))
    )
    assert 0 < difference(found, expected) < LIMITS[precision]


@pytest.mark.parametrize("precision", ["f16", "bf16"])
@pytest.mark.parametrize("name", ["care3d", "rcan2d"])
def test_torch_computes_them_too(name, precision):
    """Frames as bytes, whole counts as int32, the network in 16 bits: what TensorRT is given, on this machine's CPU."""
    (kind, options), shape = NETS[name]
    given = from_counts(net_graph(kind, **options), rounded=True)
    counts = (1000 * image(*shape)).astype(np.uint16)
    ranges = np.array([[100.0], [900.0]], np.float32)
    with open_engine("torch", from_byte_pairs(in_sixteen_bits(given, precision)), "f32") as engine:
        *_, found = engine.infer(as_byte_pairs(counts), ranges, ranges)
    *_, expected = run(given, counts, ranges, ranges)
    assert found.dtype == np.int32
    assert difference(found.astype(np.float32), expected.astype(np.float32)) < LIMITS[precision] + 1e-3  # and half a count


@pytest.mark.realdata
@pytest.mark.parametrize("precision", ["f16", "bf16"])
def test_real_pairs_are_restored_as_well(shared_data, tmp_path, precision):
    """A published CARE 2D in 16 bits, every operation rounding, is within the tolerance that recipes ask for."""
    pairs = shared_data / "pairs_widefield_w2s"
    given = from_counts(import_model(shared_data / "models" / "care2d", tmp_path / "care2d").onnx())
    probes = []
    for name in ("067_1.tif", "073_1.tif"):
        low, high = (tifffile.imread(pairs / side / name)[100:228, 60:188] for side in ("low", "high"))
        start, end = np.percentile(low, (2, 99.8))
        ranges = np.array([[start], [end - start]], np.float32)
        probes.append(Probe((low.astype(np.uint16)[None, None], ranges, ranges), high.astype(np.float32)[None, None]))
    narrow = in_sixteen_bits(given, precision)
    with open_engine("torch", narrow, "f32") as engine, open_engine("openvino", given, "f32") as reference:
        # bf16 keeps eight bits, which on so few pixels may cost more than a large image shows
        certificate = certify(
            engine, reference, probes, "2 real pairs", Tolerance(psnr_loss_db=0.02 if precision == "f16" else 0.1)
        )
    assert certificate.passes, certificate.refusal


@pytest.mark.parametrize(("low", "span"), [(100.0, 60_000.0), (100.0, 40.0)])
def test_counts_are_scaled_in_float32(low, span):
    """A step of one count of 60,000 is nothing that 16 bits can hold: scaling and residual image must not pass through them."""
    onnx_bytes = from_counts(net_graph("care", n_dim=2, first_filters=8, last_activation="linear"))
    counts = (low + span * image(1, 1, 32, 32)).astype(np.uint16)
    ranges = np.array([[low], [span]], np.float32)
    (expected,), (found,) = (
        run(onnx_bytes, counts, ranges, ranges),
        run(in_sixteen_bits(onnx_bytes, "f16"), counts, ranges, ranges),
    )
    assert difference(found, expected) < 2e-4
    zeroed = onnx.load_from_string(in_sixteen_bits(onnx_bytes, "bf16"))
    for tensor in zeroed.graph.initializer:
        if tensor.data_type == TensorProto.BFLOAT16:
            tensor.raw_data = bytes(len(tensor.raw_data))
    (residual,) = run(zeroed.SerializeToString(), counts, ranges, ranges)
    np.testing.assert_allclose(residual, counts, rtol=3e-7)  # bf16 would be wrong by up to 128 counts


@pytest.mark.parametrize("n_dim", [2, 3])
def test_pooled_sums_are_float32(n_dim):
    """The weights of an image of 17 million pixels are far below what float16 can hold."""
    onnx_bytes = net_graph("rcan", n_dim=n_dim, groups=2, blocks=1, channels=8)
    pixels = image(*((1, 1, 40, 36) if n_dim == 2 else (1, 1, 6, 20, 16)))
    weights = np.full_like(pixels, 1 / 2**24)
    plain, narrow = measuring(onnx_bytes), in_sixteen_bits(measuring(onnx_bytes), "f16")
    (expected, _), (sums, _) = run(plain, pixels, weights), run(narrow, pixels, weights)
    np.testing.assert_allclose(sums, expected, rtol=5e-3, atol=2e-3 * np.abs(expected).max())
    means = expected * 2**24 / pixels.size
    (_, wanted), (_, found) = (
        run(given, pixels, weights, means) for given in (applying(onnx_bytes), in_sixteen_bits(applying(onnx_bytes), "f16"))
    )
    assert difference(found, wanted) < 3e-4


def test_means_over_the_image_are_float32():
    """A feature of 200 everywhere: in float16 its sum over 512 x 512 pixels is infinite."""
    weights = {"w": np.full((1, 1, 1, 1), 200, np.float32), "v": np.full((1, 1, 1, 1), 1, np.float32)}
    nodes = [
        node("Conv", ("x", "w"), ("feature",)),
        node("GlobalAveragePool", ("feature",), ("mean",)),
        node("Conv", ("mean", "v"), ("scaled",)),
        node("Mul", ("feature", "scaled"), ("product",)),
        node("Conv", ("product", "v"), ("y",)),
    ]
    narrow = in_sixteen_bits(graph(nodes, weights), "f16")
    pooling = next(n for n in onnx.load_from_string(narrow).graph.node if n.op_type == "GlobalAveragePool")
    assert pooling.input[0] == "feature/f32"
    np.testing.assert_allclose(run(narrow, np.ones((1, 1, 512, 512), np.float32))[0], 40_000, rtol=1e-3)


def test_sizes_are_counted_in_whole_numbers():
    """A size that is computed from a shape is no pixel: 2,049 is no number in float16."""
    weights = {"w": np.ones((1, 1, 1, 1), np.float32), "twice": np.array([1, 1, 2, 2], np.float32)}
    nodes = [
        node("Conv", ("x", "w"), ("a",)),
        node("Shape", ("a",), ("shape",)),
        node("Cast", ("shape",), ("as_float",), to=TensorProto.FLOAT),
        node("Mul", ("as_float", "twice"), ("doubled",)),
        node("Cast", ("doubled",), ("sizes",), to=TensorProto.INT64),
        node("Resize", ("a", "", "", "sizes"), ("b",), mode="nearest"),
        node("Conv", ("b", "w"), ("y",)),
    ]
    (found,) = run(in_sixteen_bits(graph(nodes, weights), "f16"), np.ones((1, 1, 2, 2049), np.float32))
    assert found.shape == (1, 1, 4, 4098)


def test_weights_written_as_constants_are_rounded_too():
    kernel = onnx.numpy_helper.from_array(np.full((1, 1, 3, 3), 0.1, np.float32), "kernel")
    nodes = [node("Constant", (), ("w",), value=kernel), node("Conv", ("x", "w"), ("y",), pads=[1, 1, 1, 1])]
    model = onnx.load_from_string(in_sixteen_bits(graph(nodes), "f16"))
    assert [(tensor.name, tensor.data_type) for tensor in model.graph.initializer] == [("w/f16", TensorProto.FLOAT16)]


def test_bf16_rounds_to_the_nearest():
    values = np.array([1.0, 1 + 2**-9, 1 + 3 * 2**-9, -1.00390625, 3e38, 1e-40], np.float32)
    model = onnx.load_from_string(
        in_sixteen_bits(graph([node("Conv", ("x", "w"))], {"w": values.reshape(-1, 1, 1, 1)}), "bf16")
    )
    bits = np.frombuffer(model.graph.initializer[0].raw_data, "<u2").astype(np.uint32) << 16
    np.testing.assert_array_equal(bits.view(np.float32)[:4], np.array([1, 1, 1 + 2**-7, -1], np.float32))
    np.testing.assert_allclose(bits.view(np.float32)[4:], values[4:], rtol=4e-3, atol=1e-40)


def test_old_files_that_list_their_weights_as_inputs():
    model = onnx.load_from_string(graph([node("Conv", ("x", "w"))], {"w": np.ones((1, 1, 1, 1), np.float32)}))
    model.graph.input.append(onnx.helper.make_tensor_value_info("w", TensorProto.FLOAT, [1, 1, 1, 1]))
    narrow = onnx.load_from_string(in_sixteen_bits(model.SerializeToString(), "f16"))
    assert [value.name for value in narrow.graph.input] == ["x"]


def test_a_weight_that_float16_cannot_hold_is_refused():
    large = graph([node("Conv", ("x", "w"))], {"w": np.full((1, 1, 1, 1), 70_000, np.float32)})
    with pytest.raises(EngineError, match=r"weights 'w' go up to 7e\+04; f16 ends at 65504, so use bf16 or f32"):
        in_sixteen_bits(large, "f16")
    assert in_sixteen_bits(large, "bf16")


def test_contradicting_sizes_are_refused():
    wrong = graph([node("Conv", ("x", "w"))], {"w": np.ones((1, 1, 3), np.float32)})
    with pytest.raises(ModelError, match=r"the sizes in the ONNX graph contradict each other .*spatial dimensions"):
        in_sixteen_bits(wrong, "f16")
