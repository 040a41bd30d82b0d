"""A TensorRT plan, made ready to run: one execution context per slot, memory for what happens within it per size.

Receives the bytes of a plan and the flavour of TensorRT that built it; hands on what runs it for inputs of one
size, see `live_restore.engines.cuda.slot.Runnable`. It does not know where plans come from.

A CUDA graph holds on to the context, the addresses and the scratch memory it was captured with, so that each slot has a
context of its own. What the layers write between them (scratch) is shared by all contexts of one size: they run one after
the other in the same stream.

Source: NVIDIA, TensorRT 10 and TensorRT for RTX 1.7, Python API and developer guide (dynamic shapes, CUDA graphs).
"""

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np

from live_restore.engines.batches import Shapes
from live_restore.engines.cuda.calls import Cuda
from live_restore.engines.cuda.slot import Port
from live_restore.engines.tensorrt.flavour import Flavour
from live_restore.errors import EngineError, EngineMismatch

# A context wants an address even where its layers need nothing between them.
_LEAST_SCRATCH = 256


class PlanRefused(EngineError):
    """The runtime does not take this plan on this device; it has to be built again."""


class TensorRtPlan:
    """A plan on the device, with its weights.

    Parameters
    ----------
    flavour : Flavour
        The one that it was built by.
    cuda : Cuda
    plan : bytes
    compiled : bytes
        What an earlier `compiled` gave, so that nothing is compiled twice; empty for nothing. What does not fit this device
        any more is ignored by the runtime.

    Raises
    ------
    PlanRefused
        If the plan is not for this device, driver or version.
    """

    def __init__(self, flavour: Flavour, cuda: Cuda, plan: bytes, compiled: bytes = b"") -> None:
        trt = flavour.module
        self._trt, self._cuda = trt, cuda
        self._complaints = _complaints(trt)
        self._runtime = trt.Runtime(flavour.log)
        self._runtime.error_recorder = self._complaints
        self._check_validity(plan)
        self._engine = self._runtime.deserialize_cuda_engine(plan)
        if self._engine is None:
            raise PlanRefused(f"TensorRT cannot load this plan ({self._complaints.words()}); it has to be built again")
        names = [self._engine.get_tensor_name(at) for at in range(self._engine.num_io_tensors)]
        self.input_names = [name for name in names if self._engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT]
        self.output_names = [name for name in names if name not in self.input_names]
        self._config, self._cache = self._configured(compiled)

    def sized(self, shapes: Shapes, stream: int) -> "SizedPlan":
        """Make everything for inputs of these shapes that slots share.

        Parameters
        ----------
        shapes : tuple of tuple of int
            One per input, in the order of `input_names`.
        stream : int
            The stream in which it will run.

        Raises
        ------
        EngineMismatch
            If no profile of the plan holds these shapes, or the network does not take them.
        OutOfDeviceMemory
        """
        return SizedPlan(self, shapes, self._profile(shapes), stream)

    def context(self) -> Any:
        """Make an execution context that brings no memory of its own."""
        strategy = self._trt.ExecutionContextAllocationStrategy.USER_MANAGED
        made = self._engine.create_execution_context(strategy if self._config is None else self._config)
        if made is None:
            raise self.failed("make an execution context")
        made.error_recorder = self._complaints
        return made

    def port(self, context: Any, name: str) -> Port:
        """Describe an input or output for the shapes that the context has."""
        dtype = np.dtype(self._trt.nptype(self._engine.get_tensor_dtype(name)))
        return Port(name, tuple(context.get_tensor_shape(name)), dtype)

    def failed(self, verb: str) -> EngineError:
        """Put what TensorRT complained of into words."""
        return EngineError(f"TensorRT could not {verb} ({self._complaints.words()}); if memory is short, use smaller tiles")

    @property
    def cuda(self) -> Cuda:
        """The device."""
        return self._cuda

    @property
    def compiled(self) -> bytes:
        """What was compiled on this device so far; empty for the flavour that compiles when it builds."""
        return b"" if self._cache is None else bytes(self._cache.serialize())

    def close(self) -> None:
        """Give the weights back."""
        self._cache = self._config = self._engine = self._runtime = None

    def _check_validity(self, plan: bytes) -> None:
        if not hasattr(self._runtime, "get_engine_validity"):
            return  # older runtimes tell when they load it
        validity, diagnostics = self._runtime.get_engine_validity(plan)
        if validity == self._trt.EngineValidity.INVALID:
            reasons = self._trt.EngineInvalidityDiagnostics.__members__.items()
            found = [name.lower().replace("_", " ") for name, reason in reasons if int(reason.value) & int(diagnostics)]
            words = ", ".join(found) or self._complaints.words()
            raise PlanRefused(f"TensorRT says that this plan does not fit this device: {words}; it has to be built again")

    def _configured(self, compiled: bytes) -> tuple[Any, Any]:
        """Configure TensorRT for RTX, which compiles its kernels on the card, for each shape before it is first run."""
        if not hasattr(self._trt, "IRuntimeCache"):
            return None, None
        config = self._engine.create_runtime_config()
        config.set_execution_context_allocation_strategy(self._trt.ExecutionContextAllocationStrategy.USER_MANAGED)
        # lazily compiled, the first batches would run other kernels, and those would be captured
        config.dynamic_shapes_kernel_specialization_strategy = self._trt.DynamicShapesKernelSpecializationStrategy.EAGER
        cache = config.create_runtime_cache()
        if compiled:
            cache.deserialize(compiled)
        config.set_runtime_cache(cache)
        return config, cache

    def _profile(self, shapes: Shapes) -> int:
        """Find the profile that holds these shapes, of several the one whose optimum is nearest in pixels."""
        fitting = [at for at in range(self._engine.num_optimization_profiles) if self._holds(at, shapes)]
        if not fitting:
            asked = " and ".join("x".join(map(str, shape)) for shape in shapes)
            raise EngineMismatch(
                f"no profile of this plan holds inputs of {asked} (the largest: {self._largest()}); use smaller tiles, or add "
                "a profile to the recipe and build again"
            )
        return min(fitting, key=lambda at: abs(prod(self._limits(at, self.input_names[0])[1]) - prod(shapes[0])))

    def _holds(self, profile: int, shapes: Shapes) -> bool:
        limits = [self._limits(profile, name) for name in self.input_names]
        return all(
            len(shape) == len(least) and all(low <= size <= high for low, size, high in zip(least, shape, most, strict=True))
            for shape, (least, _, most) in zip(shapes, limits, strict=True)
        )

    def _largest(self) -> str:
        most = [self._limits(at, self.input_names[0])[2] for at in range(self._engine.num_optimization_profiles)]
        return "x".join(map(str, max(most, key=prod)))

    def _limits(self, profile: int, name: str) -> list[tuple[int, ...]]:
        return [tuple(sizes) for sizes in self._engine.get_tensor_profile_shape(name, profile)]


class SizedPlan:
    """A plan for inputs of one size: the scratch memory, and a context for each slot."""

    def __init__(self, plan: TensorRtPlan, shapes: Shapes, profile: int, stream: int) -> None:
        self._plan, self._shapes, self._profile, self._stream = plan, shapes, profile, stream
        self._scratch = 0
        self._scratch_bytes = 0

    def runnable(self) -> "SlotPlan":
        """Make a context for one more slot."""
        context = self._plan.context()
        if not context.set_optimization_profile_async(self._profile, self._stream):
            raise self._plan.failed(f"take profile {self._profile}")
        self._plan.cuda.synchronize(self._stream)
        self._set_shapes(context)
        needed = max(_LEAST_SCRATCH, int(context.update_device_memory_size_for_shapes()))
        if not self._scratch:
            self._scratch, self._scratch_bytes = self._plan.cuda.allocate(needed), needed
        context.set_device_memory(self._scratch, self._scratch_bytes)
        return SlotPlan(self._plan, context)

    def close(self) -> None:
        """Give the scratch memory back; all slots must be closed."""
        if self._scratch:
            self._plan.cuda.free(self._scratch)
        self._scratch = 0

    def _set_shapes(self, context: Any) -> None:
        for name, shape in zip(self._plan.input_names, self._shapes, strict=True):
            if not context.set_input_shape(name, shape):
                raise self._misfit(name)
        try:
            missing = context.infer_shapes()
        except RuntimeError as refused:
            raise self._misfit(str(refused)) from refused
        if missing:
            raise self._misfit(", ".join(missing))

    def _misfit(self, what: str) -> EngineMismatch:
        asked = " and ".join("x".join(map(str, shape)) for shape in self._shapes)
        return EngineMismatch(
            f"the graph does not accept input of {asked}; every size must be a multiple of what the network's poolings divide "
            f"by, so pad it (TensorRT: {what})"
        )


class SlotPlan:
    """A context of its own; see `live_restore.engines.cuda.slot.Runnable`."""

    def __init__(self, plan: TensorRtPlan, context: Any) -> None:
        self._plan, self._context = plan, context
        self.inputs: Sequence[Port] = [plan.port(context, name) for name in plan.input_names]
        self.outputs: Sequence[Port] = [plan.port(context, name) for name in plan.output_names]

    def bind(self, name: str, address: int) -> None:
        """Say where an input or output lies."""
        if not self._context.set_tensor_address(name, address):
            raise self._plan.failed(f"take an address for {name!r}")

    def enqueue(self, stream: int) -> None:
        """Ask the stream to run the plan once."""
        if not self._context.execute_async_v3(stream):
            raise self._plan.failed("run the network")

    def capturable(self, stream: int) -> bool:
        """Tell whether it may be captured; the flavour that cannot be asked may always."""
        return not hasattr(self._context, "is_stream_capturable") or bool(self._context.is_stream_capturable(stream))

    def close(self) -> None:
        """Give the context back."""
        self._context = None


def _complaints(trt: Any) -> Any:
    """Make an object that collects what a TensorRT runtime complains of; its class can only be made once `trt` is there."""

    class Complaints(trt.IErrorRecorder):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IErrorRecorder.__init__(self)
            self.lines: list[tuple[Any, str]] = []

        def num_errors(self) -> int:
            return len(self.lines)

        def get_error_code(self, at: int) -> Any:
            return self.lines[at][0]

        def get_error_desc(self, at: int) -> str:
            return self.lines[at][1]

        def has_overflowed(self) -> bool:
            return False

        def clear(self) -> None:
            self.lines.clear()

        def report_error(self, code: Any, words: str) -> bool:
            self.lines.append((code, words))
            return False

        def words(self) -> str:
            """Give what was complained of since the last time."""
            found = "; ".join(words.strip() for _, words in self.lines)
            self.clear()
            return found or "it gives no reason"

    return Complaints()
