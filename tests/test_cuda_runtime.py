"""The real interfaces of CUDA and TensorRT, as far as they go on a machine without a card."""

import ast
import inspect
import subprocess
import sys

import pytest
from simulated_cuda import SimulatedCuda
from small_graphs import net_graph, single

from live_restore.engines.cuda.calls import Cuda, OutOfDeviceMemory
from live_restore.engines.engine import engine_status, open_engine, what_is_offered
from live_restore.engines.tensorrt import plan as tensorrt_plan
from live_restore.engines.tensorrt.build import PlanRequest, build_plan
from live_restore.engines.tensorrt.flavour import installed_flavours
from live_restore.engines.tensorrt.recipe import exactly, recipe_for
from live_restore.engines.tensorrt.targets import target_named
from live_restore.errors import EngineError, EngineUnavailable

runtime = pytest.importorskip("cuda.bindings.runtime", reason="CUDA's Python is not installed: pip install cuda-python")
from live_restore.engines.cuda import runtime as cuda_runtime  # noqa: E402 (it needs cuda-python)

CARE = net_graph("care", n_dim=2, first_filters=4)


def needs_tensorrt():
    flavours = installed_flavours()
    if not flavours:
        pytest.skip("TensorRT is not installed: pip install tensorrt-rtx")
    return flavours[0]


def no_driver():
    if runtime.cudaGetDeviceCount()[0] == runtime.cudaError_t.cudaSuccess:
        pytest.skip("this machine has a CUDA device")


def test_without_a_driver_the_engine_says_what_to_do():
    no_driver()
    words = "no CUDA device can be used here: .*; install the driver of an NVIDIA card .*, or use --engine openvino"
    with pytest.raises(EngineUnavailable, match=words):
        what_is_offered("tensorrt")
    with pytest.raises(EngineUnavailable, match=words):
        open_engine("tensorrt", CARE)
    (line,) = [line for line in engine_status() if line.kind.name == "tensorrt"]
    assert line.offer is None
    assert "no CUDA device can be used here" in line.why_not


def test_a_driver_without_a_device():
    with pytest.raises(EngineUnavailable, match="no CUDA device can be used here: the driver knows none; install the driver"):
        cuda_runtime.check_found(runtime.cudaError_t.cudaSuccess, 0)
    cuda_runtime.check_found(runtime.cudaError_t.cudaSuccess, 1)


def call_of(name):
    """Arguments for a call of the protocol, all of them wrong but of the right type."""
    parameters = list(inspect.signature(getattr(Cuda, name)).parameters)[1:]
    return [(lambda: None) if parameter == "enqueue" else 256 for parameter in parameters]


@pytest.mark.parametrize("name", [name for name in vars(Cuda) if not name.startswith("_")])
def test_every_call_that_the_driver_refuses_becomes_an_error_in_words(name):
    no_driver()
    cuda = cuda_runtime.CudaRuntime.__new__(cuda_runtime.CudaRuntime)  # past the door, which is shut here
    with pytest.raises(EngineError, match=r"the CUDA device refused .*: .* \(cudaErrorInsufficientDriver\); if it goes on"):
        getattr(cuda, name)(*call_of(name))


def test_short_memory_asks_for_smaller_tiles():
    no_driver()
    answer = runtime.cudaError_t.cudaErrorMemoryAllocation, None
    with pytest.raises(OutOfDeviceMemory, match=r"8 MB of device memory are not to be had .*; use smaller tiles"):
        cuda_runtime._allocated("device", 8_000_000, answer)


def test_the_simulated_device_has_the_same_calls():
    for name in (name for name in vars(Cuda) if not name.startswith("_")):
        wanted = list(inspect.signature(getattr(Cuda, name)).parameters)
        for implementation in (SimulatedCuda, cuda_runtime.CudaRuntime):
            assert list(inspect.signature(getattr(implementation, name)).parameters) == wanted


def attributes_of(module, *names):
    """What a module's code reads from things that it calls by one of these names."""
    tree = ast.parse(inspect.getsource(module))
    return {
        found.attr
        for found in ast.walk(tree)
        if isinstance(found, ast.Attribute) and ast.unparse(found.value) in names and not found.attr.startswith("__")
    }


def test_every_name_that_is_asked_of_cuda_exists():
    asked = attributes_of(cuda_runtime, "runtime")
    assert len(asked) > 25
    assert asked <= set(dir(runtime))


def test_every_name_that_is_asked_of_tensorrt_exists():
    trt = needs_tensorrt().module
    assert attributes_of(tensorrt_plan, "trt", "self._trt") - {"IRuntimeCache"} <= set(dir(trt))
    for names, owner in (
        (("self._runtime",), trt.Runtime),
        (("self._engine",), trt.ICudaEngine),
        (("context", "self._context", "made"), trt.IExecutionContext),
        (("config",), getattr(trt, "IRuntimeConfig", None)),
    ):
        asked = attributes_of(tensorrt_plan, *names)
        assert asked
        assert owner is None or asked <= set(dir(owner)), (owner, asked - set(dir(owner)))


def test_the_real_runtime_says_why_it_refuses_a_plan():
    flavour = needs_tensorrt()
    with pytest.raises(
        tensorrt_plan.PlanRefused, match=r"does not fit this device: .*malformed engine.*; it has to be built again"
    ):
        tensorrt_plan.TensorRtPlan(flavour, SimulatedCuda(), b"no plan" * 100)


def test_a_real_plan_without_a_card_is_refused_in_words(tmp_path):
    """Up to here it goes without a card: the real plan is read by the real runtime, which then asks for a driver."""
    no_driver()
    flavour = needs_tensorrt()
    small = single("Relu")
    asked = PlanRequest(small, recipe_for(small), exactly(1, (16, 16)), "f32", target_named("rtx40"), flavour)
    plan = build_plan(asked).plan
    with pytest.raises(tensorrt_plan.PlanRefused, match=r"does not fit this device|CUDA driver version is insufficient"):
        tensorrt_plan.TensorRtPlan(flavour, SimulatedCuda(), plan)


ASK = """
import sys
from live_restore.engines.engine import what_is_offered
from live_restore.errors import EngineUnavailable
try:
    what_is_offered("tensorrt")
except EngineUnavailable as refused:
    print(refused)
print([name for name in ("tensorrt", "tensorrt_rtx") if name in sys.modules])
"""


def asked(before=""):
    done = subprocess.run([sys.executable, "-c", before + ASK], capture_output=True, text=True, timeout=120, check=True)
    return done.stdout.splitlines()


def test_without_cuda_python_the_engine_says_what_to_install():
    said, _ = asked("import sys; sys.modules['cuda'] = None\n")
    assert said.startswith('no CUDA device can be asked for, which needs: pip install "live_restore[rtx]"')


def test_nothing_of_tensorrt_is_loaded_before_there_is_a_card():
    no_driver()
    assert asked()[1] == "[]"
