"""The engine on the CPU: OpenVINO, one compiled graph per input shape.

Receives an ONNX graph and batches; hands on what the graph makes of them. Static shapes are compiled (0.05 to 0.2 s each)
because a dynamic graph, equally fast, holds 1.15 to 1.6 times their memory; the few last used are kept. It does not know
which sizes will come.
"""

import sys
from collections import OrderedDict, deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from math import prod
from types import ModuleType
from typing import Any, Self

import numpy as np

from live_restore.engines.batches import GraphInput, Shapes, check_shapes, fit, last_line, misfit
from live_restore.engines.engine import Array, Batch, EngineSpec, Offer, Precision
from live_restore.engines.openvino.axes import planes_along_y
from live_restore.engines.openvino.int8 import load_layers, put_in
from live_restore.engines.openvino.narrow import deal_out_pixels, fold_columns
from live_restore.engines.openvino.patches import compute_patches
from live_restore.engines.openvino.result_memory import ResultMemory
from live_restore.engines.openvino.upsampling import fold_upsampling
from live_restore.errors import EngineError

_DEVICE = "CPU"

# A compiled shape holds the memory of its feature maps (about 0.5 kB per pixel for CARE). Of several, all but the newest
# go as soon as they are too many or together too large.
_AT_ONCE = 2
_KEPT_SHAPES = 4
_KEPT_PIXELS = 512 * 1024


def _import_openvino() -> ModuleType:
    """Import openvino without its model converter.

    The converter, which is not needed to run a network, reports every ``import openvino`` to its maker's usage statistics
    and writes an identity into the home directory unless somebody has opted out. openvino takes its absence silently.
    """
    if "openvino" not in sys.modules:
        sys.modules["openvino.tools.ovc"] = None  # type: ignore[assignment]
        try:
            import_module("openvino")
        finally:
            del sys.modules["openvino.tools.ovc"]
    return import_module("openvino")


ov: Any = _import_openvino()


@cache
def the_core() -> Any:
    """Give the one `openvino.Core` of this process, which is never let go.

    A core moves the stack on which signals are handled, and where two have lived it is left in memory that is gone: the next
    Ctrl-C then ends the process with a segmentation fault (openvino 2026.4, Linux).
    """
    return ov.Core()


def rewrite_for_sizes(model: Any) -> None:
    """Rewrite a graph whose sizes are fixed, as every graph is before it is compiled: the same numbers, sooner.

    Parameters
    ----------
    model : openvino.Model
        Changed in place.
    """
    planes_along_y(ov, model)
    fold_columns(ov, model)
    compute_patches(ov, model)


class OpenVinoEngine:
    """See `live_restore.engines.engine.Engine`.

    Parameters
    ----------
    onnx : bytes
        Sizes fixed in the graph are ignored, except for the channels.
    precision : {"f32", "bf16", "int8"}
        Set explicitly: left alone, OpenVINO takes what it thinks is fastest. int8 needs layers that were built for these
        weights on this machine (`live_restore.engines.openvino.int8`); what they leave is computed in bf16 or float32.
    threads : int, optional
        CPU threads; default: one per core.
    """

    def __init__(self, onnx: bytes, precision: Precision, threads: int | None = None) -> None:
        offer = self.offer()
        self.spec = EngineSpec("openvino", offer.version, offer.device, precision)
        self._core = the_core()
        self._options = _options(precision, threads, offer)
        self._model = _read(self._core, onnx)
        fold_upsampling(ov, self._model)
        if precision == "int8":
            put_in(ov, self._model, load_layers(self._model))
        deal_out_pixels(ov, self._model)
        self._graph_inputs = [_graph_input(port) for port in self._model.inputs]
        self._compiled: OrderedDict[Shapes, _Compiled] = OrderedDict()  # the last used at the end

    @classmethod
    def offer(cls) -> Offer:
        """Ask OpenVINO which processor this is and what it computes natively."""
        core = the_core()
        native = core.get_property(_DEVICE, "OPTIMIZATION_CAPABILITIES")
        int8: tuple[Precision, ...] = ("int8",) if "INT8" in native else ()
        version, device = ov.__version__.split("-")[0], core.get_property(_DEVICE, "FULL_DEVICE_NAME").strip()
        if "BF16" in native:
            return Offer(version, device, ("f32", "bf16", *int8))
        return Offer(version, device, ("f32", *int8), "bf16: this CPU has no bf16 arithmetic")

    def warm_up(self, *shapes: tuple[int, ...]) -> None:
        """Compile for these shapes, if that is not done yet."""
        check_shapes(shapes, self._graph_inputs)
        self._for_shapes(shapes)

    def infer(self, *inputs: Array) -> tuple[Array, ...]:
        """Run the graph once; neither inputs nor outputs are copied."""
        arrays = fit(inputs, self._graph_inputs)
        return self._for_shapes(_shapes(arrays)).run(arrays)

    def infer_many(self, batches: Iterable[Batch]) -> Iterator[tuple[Array, ...]]:
        """Run the graph on batches: one is computed while the one after it is made and the one before it is kept."""
        running: deque[_Running] = deque()
        try:
            for batch in batches:
                arrays = fit(batch, self._graph_inputs)
                running.append(self._for_shapes(_shapes(arrays)).start(arrays))
                if len(running) == _AT_ONCE:
                    yield running.popleft().result()
            while running:
                yield running.popleft().result()
        finally:
            # the arrays of what still runs are the caller's
            for left in running:
                left.end()

    def close(self) -> None:
        """Give back the compiled graphs and their memory."""
        self._compiled.clear()
        self._model = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _for_shapes(self, shapes: Shapes) -> "_Compiled":
        if self._model is None:
            raise EngineError("this openvino engine is closed; open a new one")
        if shapes not in self._compiled:
            self._make_room(prod(shapes[0]))
            self._compiled[shapes] = self._compile(shapes)
        self._compiled.move_to_end(shapes)
        return self._compiled[shapes]

    def _make_room(self, pixels: int) -> None:
        while self._compiled and (len(self._compiled) >= _KEPT_SHAPES or self._kept_pixels() + pixels > _KEPT_PIXELS):
            self._compiled.popitem(last=False)

    def _kept_pixels(self) -> int:
        return sum(prod(shapes[0]) for shapes in self._compiled)

    def _compile(self, shapes: Shapes) -> "_Compiled":
        model = self._model.clone()
        try:
            model.reshape({port: ov.PartialShape(shape) for port, shape in zip(model.inputs, shapes, strict=True)})
        except RuntimeError as refused:
            raise misfit("openvino", shapes, refused) from refused
        rewrite_for_sizes(model)
        try:
            return _Compiled(self._core.compile_model(model, _DEVICE, self._options))
        except (RuntimeError, MemoryError) as failed:
            raise _failure("compile", failed) from failed


class _Compiled:
    """The graph for inputs of one shape, and the requests that run it; feature maps exist once, whatever their number."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self._results = [ResultMemory(tuple(port.shape), np.dtype(port.element_type.to_dtype())) for port in model.outputs]
        self._single = model.create_infer_request()
        self._in_turn: deque[Any] = deque()

    def run(self, arrays: Sequence[Array]) -> tuple[Array, ...]:
        """Run on arrays, into others that belong to the caller."""
        try:
            results = tuple(memory.array() for memory in self._results)
            for place, result in enumerate(results):
                self._single.set_output_tensor(place, ov.Tensor(result, shared_memory=True))
            _give(self._single, arrays)
            self._single.infer()
        except (RuntimeError, MemoryError) as failed:
            raise _failure("run", failed) from failed
        return results

    def start(self, arrays: Sequence[Array]) -> "_Running":
        """Run on arrays while the caller does something else, into the memory of the requests, which take turns."""
        if len(self._in_turn) < _AT_ONCE:
            self._in_turn.appendleft(self._model.create_infer_request())
        request = self._in_turn[0]
        self._in_turn.rotate(-1)
        try:
            _give(request, arrays)
            request.start_async()
        except (RuntimeError, MemoryError) as failed:
            raise _failure("run", failed) from failed
        return _Running(request, arrays)


@dataclass(frozen=True, slots=True)
class _Running:
    """A request that was started, and the arrays that it reads."""

    request: Any
    arrays: Sequence[Array]

    def result(self) -> tuple[Array, ...]:
        """Wait for it, and view what it wrote."""
        try:
            self.request.wait()
        except (RuntimeError, MemoryError) as failed:
            raise _failure("run", failed) from failed
        return tuple(tensor.data for tensor in self.request.output_tensors)

    def end(self) -> None:
        """Wait for it, whatever comes of it."""
        with suppress(RuntimeError, MemoryError):
            self.request.wait()


def _give(request: Any, arrays: Sequence[Array]) -> None:
    for place, array in enumerate(arrays):
        request.set_input_tensor(place, ov.Tensor(array, shared_memory=True))


def _shapes(arrays: Sequence[Array]) -> Shapes:
    return tuple(array.shape for array in arrays)


def _options(precision: Precision, threads: int | None, offer: Offer) -> dict[str, Any]:
    rest = "bf16" if "bf16" in offer.precisions else "f32"
    options: dict[str, Any] = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": rest if precision == "int8" else precision,
    }
    if threads is not None:
        options["INFERENCE_NUM_THREADS"] = threads
    return options


def _read(core: Any, onnx: bytes) -> Any:
    try:
        return core.read_model(onnx)
    except RuntimeError as refused:
        raise EngineError(f"openvino cannot read this graph ({last_line(refused)}); check it with another engine") from refused


def _graph_input(port: Any) -> GraphInput:
    shape = port.partial_shape
    channels = shape[1].get_length() if len(shape) > 1 and shape[1].is_static else None
    return GraphInput(port.any_name, len(shape), channels, np.dtype(port.element_type.to_dtype()))


def _failure(verb: str, reason: Exception) -> EngineError:
    return EngineError(f"openvino could not {verb} the graph ({last_line(reason)}); if memory is short, use smaller tiles")
