"""TensorRT's runtime with the networks run by OpenVINO on the CPU, on the memory of `simulated_cuda`.

It has the names of the real module that the engine uses, and keeps to its rules: shapes before memory, addresses before a
run, nothing done before the stream comes to it, and what was captured stays as it was captured.
"""

from enum import Enum
from functools import cache
from types import SimpleNamespace

import numpy as np
import onnx

from live_restore.engines.openvino.engine import ov, the_core

_DTYPES = {1: np.float32, 2: np.uint8, 6: np.int32}  # of those that ONNX knows, what TensorRT takes in and gives out
_SCRATCH = 4096


@cache
def _compiled(graph, shapes):
    core = the_core()
    model = core.read_model(graph)
    model.reshape({port: ov.PartialShape(shape) for port, shape in zip(model.inputs, shapes, strict=True)})
    return core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1})


def run_by_openvino(graph, *arrays):
    """What the simulated card must give for these inputs, exactly."""
    graph = onnx.load_model_from_string(graph).SerializeToString(deterministic=True)
    request = _compiled(graph, tuple(array.shape for array in arrays)).create_infer_request()
    request.infer(list(arrays))
    return [tensor.data.copy() for tensor in request.output_tensors]


class EngineValidity(Enum):
    VALID, SUBOPTIMAL, INVALID = range(3)


class EngineInvalidityDiagnostics(Enum):
    VERSION_MISMATCH, UNSUPPORTED_CC, OLD_CUDA_DRIVER = 1, 2, 4


class TensorIOMode(Enum):
    NONE, INPUT, OUTPUT = range(3)


class ExecutionContextAllocationStrategy(Enum):
    STATIC, ON_PROFILE_CHANGE, USER_MANAGED = range(3)


class DynamicShapesKernelSpecializationStrategy(Enum):
    LAZY, EAGER, NONE = range(3)


class IErrorRecorder:
    """What the engine's own recorder is made from."""


class SimulatedTensorRt:
    """The module. `graph_of` gives the ONNX graph that a plan stands for, `profiles` its shape profiles.

    A profile is a list of (min, opt, max), one per input; without any, every size is taken.
    """

    EngineValidity, EngineInvalidityDiagnostics = EngineValidity, EngineInvalidityDiagnostics
    TensorIOMode, IErrorRecorder = TensorIOMode, IErrorRecorder
    ExecutionContextAllocationStrategy = ExecutionContextAllocationStrategy
    DynamicShapesKernelSpecializationStrategy = DynamicShapesKernelSpecializationStrategy
    __version__ = "1.7.1.116"

    def __init__(self, cuda, graph_of, profiles=(), with_cache=True):
        self.cuda, self.graph_of, self.profiles = cuda, graph_of, profiles
        self.refused = {}  # plan: diagnostics; what get_engine_validity calls invalid
        self.unreadable = set()  # plans that cannot be loaded
        self.failing = set()  # names of methods that fail from now on
        self.capturable = True
        self.contexts = []
        if with_cache:
            self.IRuntimeCache = RuntimeCache

    def Runtime(self, logger):
        return Runtime(self)

    def nptype(self, dtype):
        return dtype


def _every_size(value):
    sizes = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
    return [tuple(size or other for size in sizes) for other in (1, 64, 65536)]


class Runtime:
    def __init__(self, trt):
        self._trt, self.error_recorder = trt, None

    def get_engine_validity(self, plan):
        wrong = self._trt.refused.get(plan)
        return (EngineValidity.INVALID, wrong) if wrong is not None else (EngineValidity.VALID, 0)

    def deserialize_cuda_engine(self, plan):
        if plan in self._trt.unreadable:
            self.error_recorder.report_error(1, "magicTag assertion failed")
            return None
        return CudaEngine(self._trt, onnx.load_model_from_string(self._trt.graph_of(plan)))


class CudaEngine:
    def __init__(self, trt, model):
        self._trt, self.model = trt, model
        stored = {tensor.name for tensor in model.graph.initializer}
        self.inputs = [value for value in model.graph.input if value.name not in stored]
        self._values = {value.name: value for value in (*self.inputs, *model.graph.output)}
        self.num_io_tensors = len(self._values)
        self.profiles = trt.profiles or [[_every_size(value) for value in self.inputs]]
        self.num_optimization_profiles = len(self.profiles)

    def get_tensor_name(self, at):
        return list(self._values)[at]

    def get_tensor_mode(self, name):
        return TensorIOMode.INPUT if name in [value.name for value in self.inputs] else TensorIOMode.OUTPUT

    def get_tensor_dtype(self, name):
        return _DTYPES[self._values[name].type.tensor_type.elem_type]

    def get_tensor_profile_shape(self, name, profile):
        return self.profiles[profile][[value.name for value in self.inputs].index(name)]

    def create_runtime_config(self):
        return RuntimeConfig()

    def create_execution_context(self, how):
        if "create_execution_context" in self._trt.failing:
            return None
        config = how if isinstance(how, RuntimeConfig) else RuntimeConfig(how)
        assert config.strategy is ExecutionContextAllocationStrategy.USER_MANAGED
        self._trt.contexts.append(ExecutionContext(self._trt, self, config))
        return self._trt.contexts[-1]


class RuntimeConfig:
    def __init__(self, strategy=ExecutionContextAllocationStrategy.STATIC):
        self.strategy, self.cache = strategy, None
        self.dynamic_shapes_kernel_specialization_strategy = DynamicShapesKernelSpecializationStrategy.LAZY

    def set_execution_context_allocation_strategy(self, strategy):
        self.strategy = strategy

    def create_runtime_cache(self):
        return RuntimeCache()

    def set_runtime_cache(self, cache):
        self.cache = cache
        return True


class RuntimeCache:
    """The kernels compiled so far: here, the shapes that were run."""

    def __init__(self):
        self.compiled = b""

    def serialize(self):
        return self.compiled

    def deserialize(self, compiled):
        self.compiled = compiled
        return True


class ExecutionContext:
    def __init__(self, trt, engine, config):
        self._trt, self._engine, self.config = trt, engine, config
        self.error_recorder, self.profile = None, None
        self._shapes, self._addresses, self._scratch = {}, {}, None
        self._compiled = None
        self.runs = 0

    def set_optimization_profile_async(self, profile, stream):
        self.profile = profile
        return "set_optimization_profile_async" not in self._trt.failing and profile < self._engine.num_optimization_profiles

    def set_input_shape(self, name, shape):
        assert self.profile is not None, "a profile comes first"
        self._shapes[name] = tuple(shape)
        return "set_input_shape" not in self._trt.failing

    def infer_shapes(self):
        """Compile for these shapes; a network that does not take them complains here."""
        missing = [value.name for value in self._engine.inputs if value.name not in self._shapes]
        if missing or "infer_shapes" in self._trt.failing:
            return missing or list(self._shapes)
        shapes = tuple(self._shapes[value.name] for value in self._engine.inputs)
        self._compiled = _compiled(self._engine.model.SerializeToString(deterministic=True), shapes)
        outputs = zip(self._engine.model.graph.output, self._compiled.outputs, strict=True)
        self._outputs = {value.name: tuple(port.shape) for value, port in outputs}
        return []

    def update_device_memory_size_for_shapes(self):
        assert self._compiled is not None, "shapes come first"
        return _SCRATCH

    def set_device_memory(self, address, size):
        assert size >= _SCRATCH and address % 256 == 0
        self._scratch = address

    def get_tensor_shape(self, name):
        return self._shapes.get(name) or self._outputs[name]

    def set_tensor_address(self, name, address):
        self._addresses[name] = address
        return "set_tensor_address" not in self._trt.failing and address % 256 == 0

    def is_stream_capturable(self, stream):
        return self._trt.capturable

    def execute_async_v3(self, stream):
        ready = self._scratch is not None and {*self._shapes, *self._outputs} == set(self._addresses)
        if "execute_async_v3" in self._trt.failing or not ready:
            self.error_recorder.report_error(1, "enqueueV3: a layer failed")
            return False
        cuda, compiled, scratch = self._trt.cuda, self._compiled, self._scratch
        places = {name: (address, self.get_tensor_shape(name)) for name, address in self._addresses.items()}
        dtypes = {name: np.dtype(self._engine.get_tensor_dtype(name)) for name in places}

        def view(name):
            address, shape = places[name]
            raw = cuda.bytes_at(address, int(np.prod(shape)) * dtypes[name].itemsize)
            return np.frombuffer(raw, dtypes[name]).reshape(shape)

        def work():
            cuda.bytes_at(scratch, _SCRATCH)[:] = b"\x55" * _SCRATCH
            request = compiled.create_infer_request()
            request.infer([view(name).copy() for name in self._shapes])
            for name, tensor in zip(self._outputs, request.output_tensors, strict=True):
                assert tensor.data.dtype == dtypes[name]
                view(name)[...] = tensor.data
            self.runs += 1

        if self.config.cache is not None:
            self.config.cache.compiled += repr(sorted(self._shapes.items())).encode()
        cuda.kernel("network", stream, work)
        return True


def simulated_flavour(module):
    """As `live_restore.engines.tensorrt.flavour.Flavour`, without a log."""
    return SimpleNamespace(name="tensorrt_rtx", version=module.__version__, module=module, log=None, builds_without_card=True)
