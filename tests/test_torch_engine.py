"""The torch engine as it runs on a CUDA device: weights cast once, sizes captured, batches overlapped; here a simulated one."""

import inspect

import numpy as np
import pytest
import torch
from simulated_cuda import SimulatedCuda
from small_graphs import graph, image, net_graph, node
from torch.utils._python_dispatch import TorchDispatchMode

from live_restore.engines.cuda.calls import Cuda, CudaDevice, OutOfDeviceMemory
from live_restore.engines.engine import open_engine, what_is_offered
from live_restore.engines.graphs.counts_graph import from_counts
from live_restore.engines.graphs.onnx_file import read_onnx
from live_restore.engines.graphs.pooling import applying, measuring
from live_restore.engines.graphs.sixteen_bits import in_sixteen_bits
from live_restore.engines.torch import cuda as torch_cuda
from live_restore.engines.torch import graph as torch_graph
from live_restore.engines.torch.cuda import TorchCuda
from live_restore.engines.torch.engine import TorchEngine, on_card
from live_restore.errors import EngineError, EngineMismatch, EngineUnavailable

CARE = net_graph("care", n_dim=2, first_filters=4)
RANGES = np.array([[90.0], [400.0]], np.float32), np.array([[100.0], [500.0]], np.float32)  # low and span
CPU = torch.device("cpu")


class SimulatedMemory(SimulatedCuda):
    """The simulated device, whose memory torch looks at."""

    def tensor_at(self, address, n_bytes):
        return torch.frombuffer(self.bytes_at(address, n_bytes), dtype=torch.uint8)

    def ask(self, stream, work):
        self.kernel("network", stream, work)


def frame(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 65536, shape, np.uint16)


def through_a_device(onnx, precision="f32", order="late", **options):
    memory = SimulatedMemory(order, **options)
    return TorchEngine(onnx, precision, memory=memory), memory


# --- on the processor


@pytest.mark.parametrize("rounded", [False, True], ids=["float32", "uint16"])
def test_camera_counts_on_the_processor(rounded):
    onnx, batch = from_counts(CARE, rounded=rounded), (frame(2, 1, 32, 48), *RANGES)
    with open_engine("torch", onnx) as engine, open_engine("openvino", onnx) as reference:
        found, wanted = engine.infer(*batch)[-1], reference.infer(*batch)[-1]
    assert found.dtype == (np.uint16 if rounded else np.float32)
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1 if rounded else 0.1)


def test_f16_is_for_cuda_devices():
    if torch.cuda.is_available():
        pytest.skip("this machine has a CUDA device")
    with pytest.raises(EngineUnavailable, match=r"does not compute in 'f16' on this machine; .*CUDA devices only"):
        open_engine("torch", CARE, "f16")
    with pytest.raises(EngineUnavailable, match="no CUDA device, which torch-compiled is for; use --engine torch"):
        what_is_offered("torch-compiled")


CARDS = [
    ("hopper", (9, 0), ("f32", "f16", "bf16"), "int8: torch computes in f32, f16 and bf16"),
    ("turing", (7, 5), ("f32", "f16"), "bf16: cards compute it from compute capability 8.0 on"),
]


@pytest.mark.parametrize(("capability", "precisions", "why_not"), [row[1:] for row in CARDS], ids=[row[0] for row in CARDS])
def test_what_is_offered_depends_on_the_card(capability, precisions, why_not):
    offer = on_card("2.13.0", CudaDevice("a card", capability, "13.0", 6_000, 8_000))
    assert (offer.precisions, offer.why_not, offer.free_bytes) == (precisions, why_not, 6_000)


# --- through a device


@pytest.mark.parametrize("order", ["late", "soon", 1, 2])
def test_through_a_device_the_results_are_those_of_the_processor(order):
    onnx = from_counts(CARE, rounded=True)
    batches = [(frame(1, 1, 32, 32 + 16 * (i % 2), seed=i), *RANGES) for i in range(6)]
    with open_engine("torch", onnx) as engine:
        wanted = [engine.infer(*batch)[-1] for batch in batches]
    engine, memory = through_a_device(onnx, order=order)
    with engine:
        many = [result[-1].copy() for result in engine.infer_many(batches)]
        alone = [engine.infer(*batch)[-1] for batch in batches]
    for found, one, want in zip(many, alone, wanted, strict=True):
        np.testing.assert_array_equal(found, want)
        np.testing.assert_array_equal(one, want)
        assert one.dtype == np.uint16
    assert memory.held == {}


NETWORKS = [
    ("care 2d", "care", {"n_dim": 2, "first_filters": 8}, (1, 1, 64, 48)),
    ("care 3d", "care", {"n_dim": 3, "first_filters": 8}, (1, 1, 8, 32, 36)),
    ("rcan 2d", "rcan", {"n_dim": 2, "channels": 16, "groups": 2}, (2, 1, 33, 47)),
    ("rcan 3d", "rcan", {"n_dim": 3, "channels": 16, "groups": 2}, (1, 1, 7, 20, 21)),
    ("probabilistic", "care", {"n_dim": 2, "first_filters": 8, "probabilistic": True}, (1, 1, 64, 64)),
    ("projection", "projection_care", {"n_dim": 3, "first_filters": 4, "proj_n_depth": 2}, (1, 1, 5, 32, 32)),
]


@pytest.mark.parametrize("precision", ["f16", "bf16"])
@pytest.mark.parametrize(("network", "options", "shape"), [row[1:] for row in NETWORKS], ids=[row[0] for row in NETWORKS])
def test_weights_cast_once_compute_nearly_the_same(network, options, shape, precision):
    onnx, batch = net_graph(network, **options), image(*shape)
    with open_engine("torch", onnx) as reference:
        wanted = reference.infer(batch)[0]
    engine, _ = through_a_device(onnx, precision)
    with engine:
        found = engine.infer(batch)[0]
    assert found.dtype == np.float32
    difference = np.sqrt(np.mean((found - wanted) ** 2)) / np.ptp(wanted)
    assert 0 < difference < (1e-3 if precision == "f16" else 6e-3)


def test_the_weights_are_stored_in_the_precision():
    engine, _ = through_a_device(CARE, "bf16")
    kernels = [tensor for tensor in engine._opened().placed.values() if tensor.ndim == 4]
    assert kernels
    assert {tensor.dtype for tensor in kernels} == {torch.bfloat16}
    assert all(tensor.is_contiguous(memory_format=torch.channels_last) for tensor in kernels)


def test_counts_are_scaled_in_float32_whatever_the_precision():
    """65535 is beyond f16, and bf16 knows only every 256th number there."""
    onnx = from_counts(graph([node("Conv", ["x", "w"])], {"w": np.ones((1, 1, 1, 1), np.float32)}))
    batch = (
        np.full((1, 1, 8, 8), 65535, np.uint16),
        np.array([[65035.0], [1000.0]], np.float32),
        np.array([[65000], [1000]], "f4"),
    )
    for precision in ("f16", "bf16"):
        engine, _ = through_a_device(onnx, precision)
        np.testing.assert_array_equal(engine.infer(*batch)[0], np.float32(65500))


def test_the_second_run_of_a_size_is_captured():
    engine, memory = through_a_device(CARE)
    engine.warm_up((1, 1, 32, 32))
    assert memory.names("capture", "launch") == ["capture", "launch"]
    memory.calls.clear()
    engine.infer(image(1, 1, 32, 32))
    assert memory.names("capture", "launch", "allocate device", "allocate pinned") == ["launch"]


def test_the_shape_of_a_result_is_known_before_anything_is_computed():
    enlarging = net_graph("rcan", n_dim=2, channels=8, groups=1, upscale=2)
    engine, memory = through_a_device(enlarging)
    assert engine.infer(image(1, 1, 20, 24))[0].shape == (1, 1, 40, 48)
    allocated = [n_bytes for call, n_bytes in memory.calls if call == "allocate device"]
    assert allocated == [20 * 24 * 4, 40 * 48 * 4]


def test_a_size_that_the_network_does_not_divide():
    engine, memory = through_a_device(CARE)
    with pytest.raises(EngineMismatch, match="the graph does not accept input of 1x1x30x33; every size must be a multiple"):
        engine.infer(image(1, 1, 30, 33))
    engine.close()
    assert memory.held == {}


def test_a_closed_engine_stays_closed():
    engine, memory = through_a_device(CARE)
    engine.infer(image(1, 1, 32, 32))
    engine.close()
    engine.close()
    assert memory.held == {}
    with pytest.raises(EngineError, match="this torch engine is closed; open a new one"):
        engine.infer_many([])
    with pytest.raises(EngineError, match="this torch engine is closed; open a new one"):
        engine.warm_up((1, 1, 32, 32))


# --- what a CUDA graph can capture: nothing is read from the device, nothing is copied to it on the way


class NoTraffic(TorchDispatchMode):
    """Refuses what would wait for the device or copy to it."""

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        made = operation(*args, **(kwargs or {}))
        given = [each for each in args if isinstance(each, torch.Tensor)]
        moved = isinstance(made, torch.Tensor) and {each.device.type for each in given} - {made.device.type}
        assert not moved, f"{operation} moves {given[0].device} to {made.device}"
        return made


RCAN = net_graph("rcan", n_dim=3, channels=16, groups=2)
CAPTURED = [
    ("care", from_counts(CARE), [(1, 1, 32, 32), (2, 1), (2, 1)]),
    ("care rounded", from_counts(CARE, rounded=True), [(1, 1, 32, 32), (2, 1), (2, 1)]),
    ("rcan 3d", from_counts(RCAN), [(1, 1, 8, 16, 16), (2, 1), (2, 1)]),
    (
        "rcan enlarging",
        from_counts(net_graph("rcan", n_dim=2, channels=8, groups=1, upscale=2)),
        [(1, 1, 16, 16), (2, 1), (2, 1)],
    ),
    ("measuring", from_counts(measuring(RCAN)), [(1, 1, 8, 16, 16), (1, 1, 8, 16, 16), (2, 1), (2, 1)]),
    ("applying", from_counts(applying(RCAN)), [(1, 1, 8, 16, 16), (1, 1, 8, 16, 16), (1, 96), (2, 1), (2, 1)]),
    (
        "projection",
        net_graph("projection_care", n_dim=3, first_filters=4, proj_n_depth=2),
        [(1, 1, 5, 32, 32)],
    ),
]


@pytest.mark.parametrize("precision", ["f32", "f16", "bf16"])
@pytest.mark.parametrize(("onnx", "shapes"), [row[1:] for row in CAPTURED], ids=[row[0] for row in CAPTURED])
def test_a_run_neither_waits_for_the_device_nor_copies_to_it(onnx, shapes, precision):
    """Tensors on `meta` have no numbers: whoever asks for one fails."""
    file = read_onnx(onnx if precision == "f32" else in_sixteen_bits(onnx, precision))
    nowhere = torch.device("meta")
    made = torch_graph.on(file, nowhere, channels_last=True)
    with torch.inference_mode(), NoTraffic():
        results = made.run([torch.empty(shape, device=nowhere) for shape in shapes])
    assert {result.device.type for result in results} == {"meta"}


def test_sizes_that_are_computed_stay_beside_the_processor():
    """A network that asks for its own sizes and resizes to twice as much, as careless exports do."""
    nodes = [
        node("Shape", ["x"], ["sizes"]),
        node("Constant", [], ["twice"], value_ints=[1, 1, 2, 2]),
        node("Mul", ["sizes", "twice"], ["wanted"]),
        node(
            "Resize",
            ["x", "", "", "wanted"],
            ["y"],
            mode="nearest",
            nearest_mode="floor",
            coordinate_transformation_mode="asymmetric",
        ),
    ]
    nowhere = torch.device("meta")
    made = torch_graph.on(read_onnx(graph(nodes)), nowhere, channels_last=True)
    assert [each.op for each in made.nodes] == ["Shape", "Mul", "Resize"]
    with torch.inference_mode(), NoTraffic():
        assert made.run([torch.empty(1, 1, 4, 6, device=nowhere)])[0].shape == (1, 1, 8, 12)
    with open_engine("torch", graph(nodes)) as engine:
        assert engine.infer(image(1, 1, 4, 6))[0].shape == (1, 1, 8, 12)


def test_what_is_known_beforehand_is_not_computed_again():
    nodes = [
        node("Constant", [], ["two"], value_float=2.0),
        node("Mul", ["two", "w"], ["four"]),
        node("Mul", ["x", "four"], ["y"]),
    ]
    made = torch_graph.on(read_onnx(graph(nodes, {"w": np.float32(2)})), CPU, channels_last=False)
    assert [each.op for each in made.nodes] == ["Mul"]
    assert made.run([torch.ones(1, 1, 2, 2)])[0].tolist() == [[[[4.0, 4.0], [4.0, 4.0]]]]


def test_a_graph_that_hands_out_a_constant():
    onnx = graph([node("Identity", ["w"], ["y"])], {"w": image(1, 1, 2, 2)})
    with open_engine("torch", onnx) as engine:
        np.testing.assert_array_equal(engine.infer(image(1, 1, 2, 2, seed=1))[0], image(1, 1, 2, 2))


@pytest.mark.parametrize("onnx", [from_counts(CARE), in_sixteen_bits(RCAN, "bf16")], ids=["care", "rcan"])
def test_the_compiler_takes_the_graph_as_a_whole(onnx):
    """Traced as the compiler does, without making kernels: a break in the graph would fail here."""
    made = torch_graph.on(read_onnx(onnx), CPU, channels_last=True)
    shapes = [(1, 1, 32, 32), (2, 1), (2, 1)] if len(made.input_names) == 3 else [(1, 1, 8, 16, 16)]
    inputs = [torch.from_numpy(image(*shape)) for shape in shapes]
    run = torch_graph.compiled(made, backend="eager")
    with torch.inference_mode():
        wanted = made.run(inputs)
        for _ in range(2):
            torch.testing.assert_close(run(inputs), wanted)


def test_torch_as_a_device_has_the_same_calls():
    for name in (name for name in vars(Cuda) if not name.startswith("_")):
        wanted = list(inspect.signature(getattr(Cuda, name)).parameters)
        assert list(inspect.signature(getattr(TorchCuda, name)).parameters) == wanted


FAILURES = [
    (
        "memory",
        torch.OutOfMemoryError("CUDA out of memory. Tried to"),
        OutOfDeviceMemory,
        "torch ran out of memory on the CUDA device",
    ),
    (
        "other",
        RuntimeError("CUDA error: an illegal access"),
        EngineError,
        r"refused torch its work \(CUDA error: an illegal access\)",
    ),
]


@pytest.mark.parametrize(("thrown", "error", "words"), [row[1:] for row in FAILURES], ids=[row[0] for row in FAILURES])
def test_what_torch_throws_on_a_device_is_put_into_words(thrown, error, words):
    with pytest.raises(error, match=words), torch_cuda._said("its work"):
        raise thrown


# --- with a card


@pytest.mark.gpu
@pytest.mark.parametrize("kind", ["torch", "torch-compiled"])
def test_on_a_real_card_the_results_are_those_of_the_processor(kind):
    if not torch.cuda.is_available():
        pytest.skip("torch finds no CUDA device on this machine")
    onnx = from_counts(CARE)
    batches = [(frame(1, 1, 256, 256, seed=i), *RANGES) for i in range(6)]
    with open_engine("openvino", onnx) as reference:
        wanted = [reference.infer(*batch)[0] for batch in batches]
    for precision in what_is_offered(kind).precisions:
        with open_engine(kind, onnx, precision) as engine:
            for found, want in zip(engine.infer_many(batches), wanted, strict=True):
                assert np.abs(found[0] - want).max() < (1e-4 if precision == "f32" else 3e-2) * np.ptp(want)
