"""Which engine and precision are chosen, and what is said about it."""

import numpy as np
import pytest
from small_graphs import graph, image, net_graph, node, single

from live_restore.engines.choice import BF16_LIMIT, choose, relative_error
from live_restore.engines.engine import open_engine, what_is_offered
from live_restore.errors import EngineError, EngineMismatch, EngineUnavailable

CARE = net_graph("care", n_dim=2, first_filters=8)


@pytest.fixture(scope="module")
def native_bf16():
    offer = what_is_offered("openvino")
    if "bf16" not in offer.precisions:
        pytest.skip(offer.why_not)


def answered(onnx, batch):
    """The test image of a package, and what float32 makes of it."""
    with open_engine("openvino", onnx) as engine:
        return batch, engine.infer(batch)[0]


def test_auto_takes_bf16_where_it_is_close_enough(native_bf16):
    test_input, test_output = answered(CARE, image(1, 1, 64, 64))
    choice = choose(CARE, test_input, test_output)
    with choice.engine as engine:
        assert (choice.kind, choice.precision) == ("openvino", "bf16") == (engine.spec.kind, engine.spec.precision)
        assert 0 < choice.error <= BF16_LIMIT
        assert choice.why.startswith(
            "bf16: this machine computes it natively, and the model's test image differs from float32 by"
        )
        assert choice.why.endswith("of its range (limit 1e-3)")
        np.testing.assert_allclose(relative_error(engine.infer(test_input)[0], test_output), choice.error)


def test_auto_takes_f32_where_bf16_is_too_far_off(native_bf16):
    # a small difference of large numbers, of which bf16 keeps 8 bits
    onnx = graph([node("Add", ["x", "w"], ["a"]), node("Conv", ["a", "k"], ["b"]), node("Sub", ["b", "w"])],
                 {"w": np.full((1, 1, 1, 1), 100, np.float32), "k": np.ones((1, 1, 1, 1), np.float32)})  # fmt: skip
    choice = choose(onnx, *answered(onnx, image(1, 1, 32, 32)))
    with choice.engine as engine:
        assert engine.spec.precision == choice.precision == "f32"
        assert choice.error > BF16_LIMIT
        assert choice.why.startswith("f32: in bf16 the model's test image differs from float32 by")


def test_auto_takes_f32_where_the_test_image_is_flat(native_bf16):
    onnx = single("Relu")
    choice = choose(onnx, *answered(onnx, np.zeros((1, 1, 16, 16), np.float32)))
    with choice.engine:
        assert choice.precision == "f32"
        assert "the model's test image is flat" in choice.why


def test_what_is_asked_for_is_taken_untested():
    nonsense = image(1, 1, 64, 64)
    for kind in ("openvino", "torch", "identity"):
        for precision in what_is_offered(kind).precisions:
            choice = choose(CARE, nonsense, nonsense, kind, precision, threads=1)
            with choice.engine as engine:
                assert (engine.spec.kind, engine.spec.precision) == (kind, precision)
                assert choice.why == f"{precision}: as asked for"
                assert choice.error is None


REFUSED = [
    ("engine", {"kind": "abacus"}, EngineUnavailable, "there is no engine 'abacus'"),
    ("precision", {"precision": "f16"}, EngineUnavailable, "does not compute in 'f16'"),
    ("both", {"kind": "torch", "precision": "int8"}, EngineUnavailable, "'torch' does not compute in 'int8'"),
]


@pytest.mark.parametrize(("asked", "error", "words"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED])
def test_what_is_not_to_be_had_is_refused(asked, error, words):
    test_input, test_output = answered(CARE, image(1, 1, 32, 32))
    with pytest.raises(error, match=words):
        choose(CARE, test_input, test_output, **asked)


def test_a_test_output_of_another_network_is_refused(native_bf16):
    with pytest.raises(EngineMismatch, match=r"gives \(1, 1, 32, 32\) .* its test output has \(1, 1, 64, 64\)"):
        choose(CARE, image(1, 1, 32, 32), image(1, 1, 64, 64))


def test_a_damaged_graph_is_refused():
    with pytest.raises(EngineError, match="openvino cannot read this graph"):
        choose(CARE[:-50], image(1, 1, 32, 32), image(1, 1, 32, 32))


def test_relative_error():
    expected = np.linspace(0, 10, 100_000, dtype=np.float32).reshape(1, 1, 250, 400)
    np.testing.assert_allclose(relative_error(expected + 0.1, expected), 0.1 / 9.98, rtol=1e-3)
    assert relative_error(expected, expected) == 0
    assert np.isnan(relative_error(np.ones((1, 1, 4, 4), np.float32), np.ones((1, 1, 4, 4), np.float32)))
