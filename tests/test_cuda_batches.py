"""The order of what is asked of a CUDA device, on a simulated one that really copies and really runs the network."""

import numpy as np
import pytest
from simulated_cuda import SimulatedCuda
from simulated_tensorrt import SimulatedTensorRt, run_by_openvino, simulated_flavour
from small_graphs import image, net_graph, single

from live_restore.engines.cuda.batches import CudaBatches
from live_restore.engines.cuda.calls import OutOfDeviceMemory
from live_restore.engines.cuda.slot import Slot, Streams
from live_restore.engines.tensorrt.plan import PlanRefused, TensorRtPlan
from live_restore.errors import EngineError, EngineMismatch

CARE = net_graph("care", n_dim=2, first_filters=4)
TO_64 = [[((1, 1, 4, 4), (1, 1, 32, 32), (4, 1, 64, 64))]]


def on_device(cuda, graph=CARE, profiles=TO_64, **options):
    """Make batches through a simulated device; the module comes with it."""
    trt = SimulatedTensorRt(cuda, lambda plan: plan, profiles, **options)
    plan = TensorRtPlan(simulated_flavour(trt), cuda, graph)
    return CudaBatches(cuda, plan.sized), trt


def expected(graph, *batches):
    return [run_by_openvino(graph, batch)[0] for batch in batches]


ORDERS = ["late", "soon", *range(6)]


@pytest.mark.parametrize("order", ORDERS)
def test_whatever_the_order_the_results_are_right(order):
    cuda = SimulatedCuda(order)
    batches = [image(1, 1, 32, 32 + 16 * (i % 2), seed=i) for i in range(7)]
    wanted = expected(CARE, *batches)
    through, _ = on_device(cuda)
    many = [result[0].copy() for result in through.infer_many((batch,) for batch in batches)]
    single_ones = [through.infer((batch,))[0] for batch in batches]
    through.close()
    for found, one, want in zip(many, single_ones, wanted, strict=True):
        np.testing.assert_array_equal(found, want)
        np.testing.assert_array_equal(one, want)
    assert cuda.held == {}


def test_up_compute_down_and_which_waits_for_which():
    cuda = SimulatedCuda("late")
    through, _ = on_device(cuda)
    cuda.calls.clear()
    through.infer((image(1, 1, 16, 16),))
    first = [call for call, _ in cuda.calls if not call.startswith(("allocate", "event", "free"))]
    assert first == [
        "synchronize",
        "upload",
        "record",
        "stream_waits",
        "kernel",
        "record",
        "stream_waits",
        "download",
        "record",
        "wait",
    ]
    waits = [what for call, what in cuda.calls if call == "stream_waits"]
    records = [what for call, what in cuda.calls if call == "record"]
    (up, compute, down) = (stream for _, stream in records)
    assert len({up, compute, down}) == 3
    assert waits == [(compute, records[0][0]), (down, records[1][0])]
    assert cuda.calls[-1] == ("wait", records[2][0])


def test_memory_is_made_once_per_size():
    cuda = SimulatedCuda()
    through, _ = on_device(cuda)
    through.warm_up(((1, 1, 32, 32),))
    cuda.calls.clear()
    for seed in range(4):
        through.infer((image(1, 1, 32, 32, seed=seed),))
    assert not cuda.names("allocate device", "allocate pinned", "event", "stream", "free device", "free pinned")


def test_the_second_run_of_a_size_is_captured_and_launched_from_then_on():
    cuda = SimulatedCuda()
    through, _ = on_device(cuda)
    batch = image(1, 1, 32, 32)
    wanted = expected(CARE, batch)[0]
    for _ in range(4):
        np.testing.assert_array_equal(through.infer((batch,))[0], wanted)
    assert cuda.names("kernel", "capture", "launch") == ["kernel", "capture", "kernel", "launch", "launch", "launch"]
    assert cuda.done.count("network") == 4  # what is captured is not done for that


def test_warming_up_captures():
    cuda = SimulatedCuda()
    through, _ = on_device(cuda)
    through.warm_up(((1, 1, 32, 32),))
    through.warm_up(((1, 1, 32, 32),))
    assert cuda.names("kernel", "capture", "launch") == ["kernel", "capture", "kernel", "launch"]
    cuda.calls.clear()
    through.infer((image(1, 1, 32, 32),))
    assert cuda.names("kernel", "capture", "launch") == ["launch"]


@pytest.mark.parametrize("refused_by", ["the network", "the device"])
def test_what_cannot_be_captured_runs_kernel_by_kernel(refused_by, caplog):
    cuda = SimulatedCuda()
    through, trt = on_device(cuda)
    trt.capturable = refused_by != "the network"
    cuda.failing = {"capture"} if refused_by == "the device" else set()
    batch = image(1, 1, 32, 32)
    found = [through.infer((batch,))[0] for _ in range(3)]
    np.testing.assert_array_equal(found[2], expected(CARE, batch)[0])
    assert cuda.names("kernel", "launch") == ["kernel"] * 3
    assert ("no CUDA graph of this network" in caplog.text) == (refused_by == "the device")


def test_one_uploads_while_another_computes():
    """With the device doing as little as possible, the second batch is on its way before the first is waited for."""
    cuda = SimulatedCuda("late")
    through, _ = on_device(cuda)
    results = through.infer_many((image(1, 1, 32, 32, seed=i),) for i in range(4))
    next(results)
    assert cuda.names("upload", "wait") == ["upload", "upload", "wait"]
    next(results)
    assert cuda.names("upload", "wait") == ["upload", "upload", "wait", "upload", "wait"]
    assert len(list(results)) == 2


def test_a_result_holds_until_the_next_is_asked_for():
    cuda = SimulatedCuda("soon")
    batches = [image(1, 1, 32, 32, seed=i) for i in range(5)]
    wanted = expected(CARE, *batches)
    through, _ = on_device(cuda)
    for found, want in zip(through.infer_many((batch,) for batch in batches), wanted, strict=True):
        cuda.synchronize_all()
        np.testing.assert_array_equal(found[0], want)


def test_stopping_in_the_middle_leaves_nothing_under_way():
    cuda = SimulatedCuda("late")
    through, _ = on_device(cuda)
    results = through.infer_many((image(1, 1, 32, 32, seed=i),) for i in range(4))
    next(results)
    results.close()
    assert cuda.names("wait") == ["wait", "wait"]
    batch = image(1, 1, 32, 32)
    np.testing.assert_array_equal(through.infer((batch,))[0], expected(CARE, batch)[0])
    through.close()
    assert cuda.held == {}


@pytest.mark.parametrize("many", [False, True])
def test_one_batch_amid_many_waits_for_its_turn(many):
    through, _ = on_device(SimulatedCuda("late", most_bytes=40 * 1024))  # for one slot, see below

    def camera():
        for seed in range(4):
            if seed:
                other = (image(1, 1, 64, 64),)
                list(through.infer_many([other])) if many else through.infer(other)
            yield (image(1, 1, 64, 64, seed=seed),)

    with pytest.raises(EngineError, match="in the middle of other batches; take their results first"):
        list(through.infer_many(camera()))


def test_a_failing_batch_leaves_the_others():
    cuda = SimulatedCuda()
    through, trt = on_device(cuda)
    batch = image(1, 1, 32, 32)
    trt.failing = {"execute_async_v3"}
    with pytest.raises(EngineError, match=r"TensorRT could not run the network \(enqueueV3: a layer failed\)"):
        through.infer((batch,))
    trt.failing = set()
    np.testing.assert_array_equal(through.infer((batch,))[0], expected(CARE, batch)[0])


@pytest.mark.parametrize("call", ["upload", "download", "record", "wait", "stream_waits", "launch"])
def test_whatever_the_device_refuses_is_said(call):
    cuda = SimulatedCuda()
    through, _ = on_device(cuda)
    through.warm_up(((1, 1, 32, 32),))
    cuda.failing = {call}
    with pytest.raises(EngineError, match=f"the CUDA device refused {call}"):
        through.infer((image(1, 1, 32, 32),))


@pytest.mark.parametrize("call", ["stream", "event", "allocate pinned"])
def test_what_fails_on_the_way_gives_everything_back(call):
    cuda = SimulatedCuda()
    through, _ = on_device(cuda)
    cuda.failing = {call}
    if call == "stream":
        with pytest.raises(EngineError, match="refused stream"):
            on_device(cuda)
        return
    with pytest.raises(EngineError, match=f"refused {call}"):
        through.infer((image(1, 1, 32, 32),))
    cuda.failing = set()
    through.close()
    assert cuda.held == {}


# one input or output of 1 x 1 x 64 x 64 is 16 KiB, and so is that of 32 x 32 times 4; 4 KiB are scratch
def test_the_least_used_size_gives_way_when_memory_is_short():
    cuda = SimulatedCuda(most_bytes=48 * 1024)
    through, _ = on_device(cuda)
    first = image(1, 1, 64, 64)
    wanted = expected(CARE, first)[0]
    np.testing.assert_array_equal(through.infer((first,))[0], wanted)
    through.infer((image(1, 1, 48, 64),))
    np.testing.assert_array_equal(through.infer((first,))[0], wanted)
    through.close()
    assert cuda.held == {}


def test_without_memory_for_two_at_once_batches_go_in_turn():
    cuda = SimulatedCuda(most_bytes=40 * 1024)
    batches = [image(1, 1, 64, 64, seed=i) for i in range(3)]
    wanted = expected(CARE, *batches)
    through, _ = on_device(cuda)
    for found, want in zip(through.infer_many((batch,) for batch in batches), wanted, strict=True):
        np.testing.assert_array_equal(found[0], want)
    through.close()


def test_without_memory_for_one_smaller_tiles_are_asked_for():
    cuda = SimulatedCuda(most_bytes=20 * 1024)
    through, _ = on_device(cuda)
    with pytest.raises(OutOfDeviceMemory, match=r"16384 bytes of device memory are not to be had .* use smaller tiles"):
        through.infer((image(1, 1, 64, 64),))
    through.infer((image(1, 1, 16, 16),))
    through.close()
    assert cuda.held == {}


def test_only_so_many_sizes_are_kept():
    cuda = SimulatedCuda()
    through, _ = on_device(cuda)
    for width in (16, 20, 24, 28, 32, 36):
        through.infer((image(1, 1, 16, width),))
    assert cuda.held["device"] == 4 * 3  # input, output, scratch
    through.close()
    through.close()
    assert cuda.held == {}


def test_a_size_beyond_the_profile_says_what_to_do():
    through, _ = on_device(SimulatedCuda())
    with pytest.raises(
        EngineMismatch, match=r"no profile of this plan holds inputs of 1x1x128x64 \(the largest: 4x1x64x64\); use"
    ):
        through.infer((image(1, 1, 128, 64),))


def test_a_size_that_the_network_does_not_divide_says_so():
    through, _ = on_device(SimulatedCuda())
    with pytest.raises(EngineMismatch, match="the graph does not accept input of 1x1x30x33; every size must be a multiple"):
        through.infer((image(1, 1, 30, 33),))


def test_of_several_profiles_the_nearest_is_taken():
    small, large = ((1, 1, 4, 4), (1, 1, 16, 16), (4, 1, 64, 64)), ((1, 1, 4, 4), (1, 1, 64, 64), (4, 1, 64, 64))
    through, trt = on_device(SimulatedCuda(), profiles=[[small], [large]])
    through.infer((image(1, 1, 16, 20),))
    through.infer((image(1, 1, 60, 64),))
    assert [context.profile for context in trt.contexts] == [0, 1]


def test_a_context_of_its_own_for_each_slot_with_shared_scratch():
    cuda = SimulatedCuda()
    through, trt = on_device(cuda)
    list(through.infer_many((image(1, 1, 32, 32, seed=i),) for i in range(5)))
    assert len(trt.contexts) == 2
    assert [context.runs for context in trt.contexts] == [3, 2]
    assert cuda.held["device"] == 2 * 2 + 1


def test_plans_that_the_runtime_refuses():
    trt = SimulatedTensorRt(SimulatedCuda(), lambda plan: plan, TO_64)
    trt.refused[b"old"] = 3
    with pytest.raises(
        PlanRefused, match="does not fit this device: version mismatch, unsupported cc; it has to be built again"
    ):
        TensorRtPlan(simulated_flavour(trt), trt.cuda, b"old")
    trt.unreadable.add(b"torn")
    with pytest.raises(PlanRefused, match=r"cannot load this plan \(magicTag assertion failed\); it has to be built again"):
        TensorRtPlan(simulated_flavour(trt), trt.cuda, b"torn")


REFUSED = [
    (
        "create_execution_context",
        EngineError,
        r"TensorRT could not make an execution context \(it gives no reason\); if memory is",
    ),
    ("set_optimization_profile_async", EngineError, "TensorRT could not take profile 0"),
    ("set_input_shape", EngineMismatch, "does not accept input of 1x1x32x32; .* so pad it"),
    ("infer_shapes", EngineMismatch, "does not accept input of 1x1x32x32; .* so pad it"),
    ("set_tensor_address", EngineError, "TensorRT could not take an address for 'input'"),
]


@pytest.mark.parametrize(("method", "error", "words"), REFUSED, ids=[row[0] for row in REFUSED])
def test_what_tensorrt_refuses_is_said_and_leaves_nothing_behind(method, error, words):
    cuda = SimulatedCuda()
    through, trt = on_device(cuda)
    trt.failing = {method}
    with pytest.raises(error, match=words):
        through.infer((image(1, 1, 32, 32),))
    trt.failing = set()
    through.infer((image(1, 1, 32, 32),))
    through.close()
    assert cuda.held == {}


def test_a_slot_holds_one_batch():
    cuda = SimulatedCuda()
    trt = SimulatedTensorRt(cuda, lambda plan: plan, TO_64)
    streams = Streams(cuda)
    sized = TensorRtPlan(simulated_flavour(trt), cuda, CARE).sized(((1, 1, 32, 32),), streams.compute)
    with Slot(cuda, streams, sized.runnable()) as slot:
        with pytest.raises(EngineError, match="this slot holds no batch; submit one first"):
            slot.collect()
        slot.submit([image(1, 1, 32, 32)])
        with pytest.raises(EngineError, match="this slot still holds a batch; collect it first"):
            slot.submit([image(1, 1, 32, 32)])
        slot.collect()
        assert not slot.captured
        slot.submit([image(1, 1, 32, 32)])
        assert slot.captured
    sized.close()
    streams.close()
    assert cuda.held == {}


def test_what_was_compiled_on_the_card_is_kept_and_given_back():
    cuda = SimulatedCuda()
    trt = SimulatedTensorRt(cuda, lambda plan: plan, TO_64)
    plan = TensorRtPlan(simulated_flavour(trt), cuda, CARE)
    assert plan.compiled == b""
    through = CudaBatches(cuda, plan.sized)
    through.warm_up(((1, 1, 16, 16),))
    assert b"16, 16" in plan.compiled
    assert TensorRtPlan(simulated_flavour(trt), cuda, CARE, plan.compiled).compiled == plan.compiled
    eager = trt.DynamicShapesKernelSpecializationStrategy.EAGER
    assert trt.contexts[0].config.dynamic_shapes_kernel_specialization_strategy is eager


def test_the_flavour_that_compiles_when_it_builds_keeps_nothing():
    cuda = SimulatedCuda()
    trt = SimulatedTensorRt(cuda, lambda plan: plan, [[((1, 1, 4, 4),) * 3]], with_cache=False)
    plan = TensorRtPlan(simulated_flavour(trt), cuda, single("Relu"))
    through = CudaBatches(cuda, plan.sized)
    batch = image(1, 1, 4, 4)
    np.testing.assert_array_equal(through.infer((batch,))[0], batch)
    assert plan.compiled == b""
    plan.close()
