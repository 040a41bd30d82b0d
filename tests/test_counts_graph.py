"""Counts in, counts out: the scaling within the graph against the scaling around it."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from small_graphs import graph, image, net_graph, node, single

from live_restore.engines.engine import open_engine, what_is_offered
from live_restore.engines.graphs.counts_graph import from_counts
from live_restore.engines.graphs.pooling import applying, measuring
from live_restore.engines.network_engines import NetworkEngines
from live_restore.errors import EngineError, EngineMismatch, ModelError

LOW, SPAN = 30_100.0, 60.0
ENGINES = ("openvino", "torch")
# name, network, options, batch, channels of the result
NETWORKS = [
    ("care 2d", "care", {"n_dim": 2, "first_filters": 4}, (2, 1, 32, 48), 1),
    ("channels", "care", {"n_dim": 2, "first_filters": 4, "channels_in": 2, "channels_out": 3}, (1, 2, 32, 32), 3),
    ("probabilistic", "care", {"n_dim": 2, "first_filters": 4, "probabilistic": True}, (1, 1, 32, 32), 2),
    ("care 3d", "care", {"n_dim": 3, "first_filters": 4}, (1, 1, 8, 16, 20), 1),
    ("projection", "projection_care", {"n_dim": 3, "first_filters": 4, "proj_n_depth": 2}, (1, 1, 5, 32, 32), 1),
    ("enlarging", "rcan", {"n_dim": 2, "channels": 8, "groups": 1, "blocks": 1, "upscale": 2}, (1, 1, 24, 32), 1),
]


def counts(*shape, seed=0):
    """Dim light on a large offset, as cameras give it."""
    return (np.random.default_rng(seed).poisson(40, shape) + 30_080).astype(np.uint16)


def ranges(channels, low=LOW, span=SPAN):
    """Every channel with a range of its own; (2, C)."""
    at = np.arange(channels, dtype=np.float32)
    return np.stack([low + at, span * (1 + at)]).astype(np.float32)


def scaled(pixels, given):
    low, span = given.reshape(2, 1, -1, *[1] * (pixels.ndim - 2))
    return (pixels.astype(np.float32) - low) / span


def unscaled(result, given):
    low, span = given.reshape(2, 1, -1, *[1] * (result.ndim - 2))
    return result * span + low


@pytest.mark.parametrize("kind", ENGINES)
@pytest.mark.parametrize(
    ("network", "options", "shape", "channels_out"), [row[1:] for row in NETWORKS], ids=[row[0] for row in NETWORKS]
)
def test_the_numbers_are_those_of_scaling_around_the_network(kind, network, options, shape, channels_out):
    plain, pixels = net_graph(network, **options), counts(*shape)
    given, wanted = ranges(shape[1]), ranges(channels_out, 500, 30)
    with open_engine("openvino", plain) as engine:
        expected = unscaled(engine.infer(scaled(pixels, given))[0], wanted)
    for dtype in ("uint16", "float32"):
        with open_engine(kind, from_counts(plain, dtype)) as engine:
            (found,) = engine.infer(pixels.astype(dtype), given, wanted)
        assert (found.dtype, found.shape) == (np.float32, expected.shape)
        np.testing.assert_allclose(found, expected, atol=1e-5 * np.ptp(expected), rtol=1e-6)


@pytest.mark.parametrize("kind", ENGINES)
def test_pooled_variants_take_counts_too(kind):
    plain, pixels = net_graph("rcan", n_dim=2, channels=8, groups=1, blocks=1), counts(1, 1, 24, 32)
    weights, given = np.full(pixels.shape, 1 / pixels.size, np.float32), ranges(1)
    with open_engine("openvino", plain) as engine:
        expected = unscaled(engine.infer(scaled(pixels, given))[0], given)
    with (
        open_engine(kind, from_counts(measuring(plain))) as first,
        open_engine(kind, from_counts(applying(plain), rounded=True)) as later,
    ):
        means, found = first.infer(pixels, weights, given, given)
        again, mean, whole = later.infer(pixels, weights, means, given, given)
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    np.testing.assert_allclose(again, means, atol=1e-5)
    assert (whole.dtype, mean.shape) == (np.uint16, (1, 1, 1, 1))
    assert np.abs(whole - expected).max() <= 0.51


@pytest.mark.parametrize("kind", ENGINES)
@pytest.mark.parametrize("opset", [9, 10, 11, 13, 18, 21])
def test_graphs_of_every_age(kind, opset):
    onnx_bytes = graph([node("Conv", ["x", "w"], pads=[1, 1, 1, 1])], {"w": image(1, 1, 3, 3) / 4}, opset=opset)
    pixels, given = counts(1, 1, 20, 30), ranges(1)
    with open_engine("openvino", onnx_bytes) as engine:
        expected = unscaled(engine.infer(scaled(pixels, given))[0], given)
    with open_engine(kind, from_counts(onnx_bytes)) as engine:
        np.testing.assert_allclose(engine.infer(pixels, given, given)[-1], expected, rtol=1e-6)
    with open_engine(kind, from_counts(onnx_bytes, rounded=True)) as engine:
        mean, whole = engine.infer(pixels, given, given)
    assert np.abs(whole - expected).max() <= 0.51
    assert mean.item() == pytest.approx(expected.mean(), rel=1e-5)


@pytest.mark.parametrize("kind", ENGINES)
def test_rounding_clips_and_goes_to_the_nearest(kind):
    pixels = np.array([0, 1, 2, 3, 40_000, 65_535], np.uint16).reshape(1, 1, 1, 6)
    given, wanted = np.float32([[0], [1]]), np.float32([[-0.75], [1.75]])
    with open_engine(kind, from_counts(single("Relu"), rounded=True)) as engine:
        np.testing.assert_array_equal(engine.infer(pixels, given, wanted)[-1].ravel(), [0, 1, 3, 4, 65_535, 65_535])


@pytest.mark.parametrize("kind", ENGINES)
def test_the_mean_tells_what_rounding_hides(kind):
    broken = single("Add", np.full((1, 1, 1, 1), np.nan, np.float32))
    with open_engine(kind, from_counts(broken, rounded=True)) as engine:
        assert not np.isfinite(engine.infer(counts(1, 1, 16, 16), ranges(1), ranges(1))[0]).all()


@pytest.mark.parametrize("kind", ENGINES)
def test_bf16_is_kept_out_of_the_counts(kind):
    offer = what_is_offered(kind)
    if "bf16" not in offer.precisions:
        pytest.skip(f"{kind}: {offer.why_not}")
    plain, pixels, given = net_graph("care", n_dim=2, first_filters=8), counts(1, 1, 64, 64), ranges(1)
    with open_engine(kind, plain) as exact, open_engine(kind, plain, "bf16") as rough:
        expected = unscaled(exact.infer(scaled(pixels, given))[0], given)
        usual = unscaled(rough.infer(scaled(pixels, given))[0], given)
    with open_engine(kind, from_counts(plain), "bf16") as engine:
        (found,) = engine.infer(pixels, given, given)
    # bf16 knows 30,080 and 30,208, and no counts between
    errors = [np.sqrt(np.mean(np.square(each - expected, dtype=np.float64))) for each in (found, usual)]
    assert errors[0] <= 1.2 * errors[1] < 0.5


def test_weights_that_old_files_list_as_inputs():
    plain = onnx.load_from_string(graph([node("Conv", ["x", "w"], pads=[1, 1, 1, 1])], {"w": image(1, 1, 3, 3)}, opset=9))
    plain.ir_version = 3
    plain.graph.input.append(helper.make_tensor_value_info("w", TensorProto.FLOAT, [1, 1, 3, 3]))
    made = onnx.load_from_string(from_counts(plain.SerializeToString()))
    assert [value.name for value in made.graph.input] == ["counts", "counts_in", "counts_out", "w"]


REFUSED = [
    ("no graph", b"noise" * 99, "no ONNX graph"),
    ("twice", from_counts(single("Relu")), "it takes counts already; give the plain network"),
    ("axes", graph([node("Relu")], shape=["n", "k"]), "'x' of the graph has 2 axes; an image has 4"),
]


@pytest.mark.parametrize(("plain", "words"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED])
def test_graphs_that_cannot_take_counts(plain, words):
    with pytest.raises(ModelError, match=words):
        from_counts(plain)


def test_counts_of_another_dtype_are_refused():
    with open_engine("openvino", from_counts(single("Relu"))) as engine:
        with pytest.raises(EngineMismatch, match=r"'counts' is float32; this graph takes uint16, so use .astype\(np.uint16\)"):
            engine.infer(image(1, 1, 8, 8), ranges(1), ranges(1))
        with pytest.raises(EngineMismatch, match="'counts_in' has shape"):
            engine.infer(counts(1, 1, 8, 8), ranges(1)[0], ranges(1))


def test_the_identity_gives_counts_back():
    with open_engine("identity", from_counts(single("Relu"))) as engine:
        (found,) = engine.infer(counts(1, 1, 8, 8), ranges(1), ranges(1))
    np.testing.assert_array_equal(found, counts(1, 1, 8, 8).astype(np.float32))


def test_of_one_network_only_what_is_in_use_is_open():
    pixels, given = counts(1, 1, 16, 16), ranges(1)
    plain = net_graph("rcan", n_dim=2, channels=8, groups=1, blocks=1)
    with NetworkEngines(plain, "openvino", "f32") as engines:
        whole, measured = engines.whole("uint16"), engines.measuring("uint16")
        assert engines.whole("uint16") is whole
        assert engines.applying("uint16") is not measured
        (expected,) = whole.infer(pixels, given, given)
        np.testing.assert_array_equal(engines.whole("float32").infer(pixels.astype(np.float32), given, given)[0], expected)
        for closed in (whole, measured):
            with pytest.raises(EngineError, match="closed"):
                closed.infer(*(pixels, given, given) if closed is whole else (pixels, pixels.astype(np.float32), given, given))
    with engines:
        np.testing.assert_array_equal(engines.whole("uint16").infer(pixels, given, given)[0], expected)
