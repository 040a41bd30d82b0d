"""Every engine on the same batches, and what every engine refuses."""

import subprocess
import sys

import numpy as np
import pytest
from small_graphs import graph, image, net_graph, node, single

from live_restore.engines.engine import ENGINES, EngineSpec, engine_status, open_engine, what_is_offered
from live_restore.errors import EngineError, EngineMismatch, EngineUnavailable

NETWORK_ENGINES = [kind.name for kind in ENGINES if kind.name != "identity"]


@pytest.fixture(params=NETWORK_ENGINES)
def kind(request):
    """Every engine that runs networks, as far as it is installed."""
    try:
        what_is_offered(request.param)
    except EngineUnavailable as refused:
        pytest.skip(str(refused))
    return request.param


@pytest.fixture
def in_bf16(kind):
    offer = what_is_offered(kind)
    if "bf16" not in offer.precisions:
        pytest.skip(f"{kind}: {offer.why_not}")
    return kind


# name, network, options, batch
AGREE = [
    ("care 2d", "care", {"n_dim": 2, "first_filters": 8}, (2, 1, 64, 48)),
    ("care 2d channels", "care", {"n_dim": 2, "first_filters": 8, "channels_in": 2, "channels_out": 3}, (1, 2, 32, 32)),
    ("care 3d", "care", {"n_dim": 3, "first_filters": 8}, (1, 1, 8, 32, 36)),
    ("care probabilistic", "care", {"n_dim": 2, "first_filters": 8, "probabilistic": True}, (1, 1, 64, 64)),
    ("care folded", "care", {"n_dim": 2, "kernel": 3, "first_filters": 8, "entry": 2, "skip_kernel": 7}, (2, 1, 64, 48)),
    ("care folded 3d", "care", {"n_dim": 3, "first_filters": 8, "entry": 2, "skip_kernel": 3}, (1, 1, 8, 32, 40)),
    ("projection", "projection_care", {"n_dim": 3, "first_filters": 4, "proj_n_depth": 2}, (1, 1, 5, 32, 32)),
    ("rcan 2d", "rcan", {"n_dim": 2, "channels": 16, "groups": 2}, (3, 1, 33, 47)),
    ("rcan 3d", "rcan", {"n_dim": 3, "channels": 16, "groups": 2}, (1, 1, 7, 20, 21)),
    ("rcan enlarging", "rcan", {"n_dim": 2, "channels": 16, "groups": 1, "upscale": 2}, (1, 1, 24, 32)),
]


def relative(found, expected):
    """Largest and rms difference, relative to the range of the expected image."""
    difference = found.astype(np.float64) - expected
    span = float(expected.max() - expected.min())
    return np.abs(difference).max() / span, np.sqrt(np.mean(difference**2)) / span


@pytest.mark.parametrize(("network", "options", "shape"), [row[1:] for row in AGREE], ids=[row[0] for row in AGREE])
def test_engines_agree(kind, network, options, shape):
    onnx, batch = net_graph(network, **options), image(*shape)
    with open_engine(kind, onnx) as engine, open_engine("torch", onnx) as reference:
        (found,), (expected,) = engine.infer(batch), reference.infer(batch)
    assert found.shape == expected.shape
    assert relative(found, expected)[0] < 1e-5


# bf16 has 8 bits of mantissa: 4e-3 per number, less in the mean. RCAN is deeper, and so is its error.
@pytest.mark.parametrize(("network", "options", "shape"), [row[1:] for row in AGREE], ids=[row[0] for row in AGREE])
def test_bf16_agrees_with_f32(in_bf16, network, options, shape):
    onnx, batch = net_graph(network, **options), image(*shape)
    with open_engine(in_bf16, onnx, "bf16") as engine, open_engine(in_bf16, onnx) as reference:
        found, expected = engine.infer(batch)[0], reference.infer(batch)[0]
    assert 0 < relative(found, expected)[1] < 5e-3
    assert relative(found, expected)[0] < 3e-2


CARE = {"n_dim": 2, "first_filters": 4}


def test_results_belong_to_the_caller(kind):
    with open_engine(kind, net_graph("care", **CARE)) as engine:
        (first,) = engine.infer(image(1, 1, 32, 32))
        kept = first.copy()
        engine.infer(image(1, 1, 32, 32, seed=1))
        np.testing.assert_array_equal(first, kept)
        first[...] = 7
        np.testing.assert_array_equal(engine.infer(image(1, 1, 32, 32))[0], kept)


def test_the_batch_is_not_changed_and_not_returned(kind):
    batch = image(1, 1, 32, 32)
    with open_engine(kind, single("Relu")) as engine, open_engine(kind, graph([node("Dropout")])) as nothing:
        for opened in (engine, nothing):
            (output,) = opened.infer(batch)
            np.testing.assert_array_equal(output, batch)
            output[...] = 7
    np.testing.assert_array_equal(batch, image(1, 1, 32, 32))


def test_batches_of_any_number_and_layout(kind):
    batch = image(5, 1, 32, 40)
    with open_engine(kind, net_graph("care", **CARE)) as engine:
        engine.warm_up((5, 1, 32, 40))
        (together,) = engine.infer(batch)
        for i in range(5):
            np.testing.assert_allclose(engine.infer(batch[i : i + 1])[0][0], together[i], atol=1e-6)
        turned = np.ascontiguousarray(batch.transpose(0, 1, 3, 2)).transpose(0, 1, 3, 2)
        np.testing.assert_allclose(engine.infer(turned)[0], together, atol=1e-6)


def test_read_only_batches(kind):
    batch = image(1, 1, 32, 32)
    with open_engine(kind, net_graph("care", **CARE)) as engine:
        (expected,) = engine.infer(batch)
        batch.flags.writeable = False
        np.testing.assert_array_equal(engine.infer(batch)[0], expected)


def test_many_shapes_in_turn(kind):
    shapes = [(1, 1, 16, 16 + 4 * i) for i in range(7)]
    with open_engine(kind, net_graph("care", **CARE)) as engine:
        firsts = [engine.infer(image(*shape))[0] for shape in shapes]
        for shape, first in zip(shapes, firsts, strict=True):
            np.testing.assert_array_equal(engine.infer(image(*shape))[0], first)


def test_fixed_sizes_in_the_graph_do_not_bind(kind):
    weights = {"w": image(1, 1, 3, 3)}
    onnx = graph([node("Conv", ["x", "w"], pads=[1, 1, 1, 1])], weights, shape=[1, 1, 64, 64])
    with open_engine(kind, onnx) as engine:
        assert engine.infer(image(3, 1, 20, 30))[0].shape == (3, 1, 20, 30)


def test_spec_names_what_runs(kind):
    with open_engine(kind, net_graph("care", **CARE), threads=1) as engine:
        assert engine.spec.kind == kind
        assert engine.spec.precision == "f32"
        assert str(engine.spec) == f"{kind} {engine.spec.version}, f32, on {engine.spec.device}"


def test_closing_twice_is_fine_and_final(kind):
    engine = open_engine(kind, net_graph("care", **CARE))
    engine.close()
    engine.close()
    with pytest.raises(EngineError, match=f"this {kind} engine is closed; open a new one"):
        engine.infer(image(1, 1, 32, 32))


MISFITS = [
    ("two", [image(1, 1, 32, 32)] * 2, "2 arrays were given to a graph with 1 inputs; it takes input"),
    ("none", [], "0 arrays were given"),
    ("axes", [image(1, 32, 32)], r"has shape \(1, 32, 32\); the graph takes 4 axes there \(N, C, Y, X\)"),
    ("channels", [image(1, 2, 32, 32)], "'input' has 2 channels; the graph takes 1"),
    ("dtype", [image(1, 1, 32, 32).astype(np.float64)], r"is float64; engines take float32, so use .astype\(np.float32\)"),
    ("empty", [image(1, 1, 0, 32)], "no pixel at all; every axis needs 1 or more"),
    ("indivisible", [image(1, 1, 32, 33)], "does not accept input of 1x1x32x33; every size must be a multiple"),
]


@pytest.mark.parametrize(("batches", "words"), [row[1:] for row in MISFITS], ids=[row[0] for row in MISFITS])
def test_misfits_are_named(kind, batches, words):
    with open_engine(kind, net_graph("care", **CARE)) as engine:
        with pytest.raises(EngineMismatch, match=words):
            engine.infer(*batches)
        assert engine.infer(image(1, 1, 32, 32))[0].shape == (1, 1, 32, 32)  # and it still works


def test_warm_up_checks_its_shapes(kind):
    with open_engine(kind, net_graph("care", **CARE)) as engine:
        with pytest.raises(EngineMismatch, match="2 shapes were given for a graph with 1 inputs"):
            engine.warm_up((1, 1, 8, 8), (1, 1, 8, 8))
        with pytest.raises(EngineMismatch, match="has 3 channels; the graph takes 1"):
            engine.warm_up((1, 3, 8, 8))


def test_what_is_no_graph_is_refused(kind):
    for damaged in (b"", b"noise" * 99, net_graph("care", **CARE)[:-99]):
        with pytest.raises(EngineError, match=r"graph"):
            open_engine(kind, damaged)


def test_out_of_memory_is_said(kind):
    petabyte = np.int64([1, 1 << 16, 1 << 16, 1 << 16])
    onnx = graph([node("Expand", ["x", "shape"], ["a"]), node("Relu", ["a"])], {"shape": petabyte})
    with open_engine(kind, onnx) as engine, pytest.raises(EngineError, match="use smaller tiles"):
        engine.infer(image(1, 1, 1, 1))


def test_identity_gives_back_a_copy_of_its_first_input():
    with open_engine("identity", b"") as engine:
        batch = image(1, 2, 3, 4)
        engine.warm_up(batch.shape)
        (output,) = engine.infer(batch, batch + 1)
        assert output is not batch
        np.testing.assert_array_equal(output, batch)
        with pytest.raises(EngineMismatch, match="0 arrays were given; the identity takes 1 or more"):
            engine.infer()
    assert engine.spec == EngineSpec("identity", engine.spec.version, "no device", "f32")


UNAVAILABLE = [
    ("engine", ("abacus", "f32"), "there is no engine 'abacus'; the engines are openvino, tensorrt, torch, torch-compiled"),
    ("precision", ("identity", "f64"), "engine 'identity' does not compute in 'f64' on this machine; use f32 or bf16"),
]


@pytest.mark.parametrize(("asked", "words"), [row[1:] for row in UNAVAILABLE], ids=[row[0] for row in UNAVAILABLE])
def test_unavailable_is_refused(asked, words):
    with pytest.raises(EngineUnavailable, match=words):
        open_engine(asked[0], b"", asked[1])


def test_threads_must_be_positive():
    with pytest.raises(ValueError, match="threads 0 is not possible"):
        open_engine("identity", b"", threads=0)


def test_status_has_one_line_per_engine():
    lines = engine_status()
    assert [line.kind.name for line in lines] == [kind.name for kind in ENGINES]
    for line in lines:
        assert (line.offer is None) <= ("needs: pip install" in line.why_not or "no CUDA device" in line.why_not)


def run_python(program, *words):
    return subprocess.run([sys.executable, "-c", program, *words], capture_output=True, text=True, check=False, timeout=120)


MISSING = """
import sys
sys.modules["torch"] = None  # as if it were not installed
from live_restore.engines.engine import engine_status, open_engine
print([line.why_not for line in engine_status() if line.kind.name == "torch"])
open_engine("torch", b"")
"""


def test_a_missing_runtime_says_how_to_get_it():
    ended = run_python(MISSING)
    assert "engine 'torch' needs: pip install live_restore[train]" in ended.stdout
    assert "EngineUnavailable: engine 'torch' needs: pip install live_restore[train]" in ended.stderr


QUIET = """
import sys
from pathlib import Path
seen = []
sys.addaudithook(lambda event, args: event.startswith("socket.") and seen.append((event, args)))
from live_restore.engines.engine import open_engine
import numpy as np
with open_engine("openvino", Path(sys.argv[1] if len(sys.argv) > 1 else {path!r}).read_bytes()) as engine:
    engine.infer(np.zeros((1, 1, 32, 32), np.float32))
print("sockets", seen)
print("modules", sorted({{"torch", "onnx", "openvino_telemetry"}} & set(sys.modules)))
"""


def test_openvino_runs_without_network_torch_or_onnx(tmp_path):
    path = tmp_path / "net.onnx"
    path.write_bytes(net_graph("care", **CARE))
    ended = run_python(QUIET.format(path=str(path)))
    assert ended.stdout.splitlines() == ["sockets []", "modules []"], ended.stderr


INTERRUPTED = """
import gc, signal, sys
from pathlib import Path
from live_restore.engines.engine import open_engine
onnx = Path(sys.argv[1]).read_bytes()
signal.signal(signal.SIGINT, signal.default_int_handler)
engines = [open_engine("openvino", onnx) for _ in range(2)]
for engine in engines:
    engine.warm_up((1, 1, 32, 32))
while engines:  # the first one goes first, as where a model is swapped
    engines.pop(0).close()
    gc.collect()
try:
    signal.raise_signal(signal.SIGINT)
except KeyboardInterrupt:
    print("interrupted")
"""


def test_ctrl_c_after_several_openvino_engines_is_only_ctrl_c(tmp_path):
    """Two of openvino's cores, closed in this order, leave the signal stack in freed memory: a segmentation fault."""
    path = tmp_path / "net.onnx"
    path.write_bytes(net_graph("care", **CARE))
    ended = run_python(INTERRUPTED, str(path))
    assert (ended.returncode, ended.stdout.strip()) == (0, "interrupted"), ended.stderr
