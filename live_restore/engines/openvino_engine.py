"""The engine on the CPU: OpenVINO, one compiled graph per input shape.

Receives an ONNX graph and batches; hands on what the graph makes of them. Static shapes are compiled (0.05 to 0.2 s each)
because a dynamic graph, equally fast, holds 1.15 to 1.6 times their memory; the few last used are kept. It does not know
which sizes will come.
"""

import sys
from collections import OrderedDict
from importlib import import_module
from math import prod
from types import ModuleType
from typing import Any, Self

from live_restore.engines.batches import GraphInput, Shapes, check_shapes, fit, last_line, misfit
from live_restore.engines.engine import EngineSpec, FloatArray, Offer, Precision
from live_restore.engines.openvino_upsampling import fold_upsampling
from live_restore.errors import EngineError

_DEVICE = "CPU"

# A compiled shape holds the memory of its feature maps (about 0.5 kB per pixel for CARE). Of several, all but the newest
# go as soon as they are too many or together too large.
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


class OpenVinoEngine:
    """See `live_restore.engines.engine.Engine`.

    Parameters
    ----------
    onnx : bytes
        Sizes fixed in the graph are ignored, except for the channels.
    precision : {"f32", "bf16"}
        Set explicitly: left alone, OpenVINO takes what it thinks is fastest.
    threads : int, optional
        CPU threads; default: one per core.
    """

    def __init__(self, onnx: bytes, precision: Precision, threads: int | None = None) -> None:
        offer = self.offer()
        self.spec = EngineSpec("openvino", offer.version, offer.device, precision)
        self._core = ov.Core()
        self._options = _options(precision, threads)
        self._model = _read(self._core, onnx)
        fold_upsampling(ov, self._model)
        self._graph_inputs = [_graph_input(port) for port in self._model.inputs]
        self._requests: OrderedDict[Shapes, Any] = OrderedDict()  # the last used at the end

    @classmethod
    def offer(cls) -> Offer:
        """Ask OpenVINO which processor this is and what it computes natively."""
        core = ov.Core()
        native_bf16 = "BF16" in core.get_property(_DEVICE, "OPTIMIZATION_CAPABILITIES")
        version, device = ov.__version__.split("-")[0], core.get_property(_DEVICE, "FULL_DEVICE_NAME").strip()
        if native_bf16:
            return Offer(version, device, ("f32", "bf16"))
        return Offer(version, device, ("f32",), "bf16: this CPU has no bf16 arithmetic")

    def warm_up(self, *shapes: tuple[int, ...]) -> None:
        """Compile for these shapes, if that is not done yet."""
        check_shapes(shapes, self._graph_inputs)
        self._request(shapes)

    def infer(self, *inputs: FloatArray) -> tuple[FloatArray, ...]:
        """Run the graph once; the inputs are not copied, the outputs are, once."""
        arrays = fit(inputs, self._graph_inputs)
        request = self._request(tuple(array.shape for array in arrays))
        try:
            for place, array in enumerate(arrays):
                request.set_input_tensor(place, ov.Tensor(array, shared_memory=True))
            request.infer()
            return tuple(tensor.data.copy() for tensor in request.output_tensors)
        except (RuntimeError, MemoryError) as failed:
            raise _failure("run", failed) from failed

    def close(self) -> None:
        """Give back the compiled graphs and their memory."""
        self._requests.clear()
        self._model = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _request(self, shapes: Shapes) -> Any:
        if self._model is None:
            raise EngineError("this openvino engine is closed; open a new one")
        if shapes not in self._requests:
            self._make_room(prod(shapes[0]))
            self._requests[shapes] = self._compile(shapes)
        self._requests.move_to_end(shapes)
        return self._requests[shapes]

    def _make_room(self, pixels: int) -> None:
        while self._requests and (len(self._requests) >= _KEPT_SHAPES or self._kept_pixels() + pixels > _KEPT_PIXELS):
            self._requests.popitem(last=False)

    def _kept_pixels(self) -> int:
        return sum(prod(shapes[0]) for shapes in self._requests)

    def _compile(self, shapes: Shapes) -> Any:
        model = self._model.clone()
        try:
            model.reshape({port: ov.PartialShape(shape) for port, shape in zip(model.inputs, shapes, strict=True)})
        except RuntimeError as refused:
            raise misfit("openvino", shapes, refused) from refused
        try:
            return self._core.compile_model(model, _DEVICE, self._options).create_infer_request()
        except (RuntimeError, MemoryError) as failed:
            raise _failure("compile", failed) from failed


def _options(precision: Precision, threads: int | None) -> dict[str, Any]:
    options: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": precision}
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
    return GraphInput(port.any_name, len(shape), channels)


def _failure(verb: str, reason: Exception) -> EngineError:
    return EngineError(f"openvino could not {verb} the graph ({last_line(reason)}); if memory is short, use smaller tiles")
