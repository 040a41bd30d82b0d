"""The engine on an NVIDIA card: TensorRT plans, overlapped copies, CUDA graphs.

Receives an ONNX graph and batches; hands on what the graph makes of them. Frames of uint16 go up as the camera's own bytes
and are put together on the card; whole counts come down as int32. It does not know which sizes will come.

Source: NVIDIA, TensorRT 10 and TensorRT for RTX 1.7; ``cuda.bindings.runtime`` of cuda-python.
"""

from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing
from typing import Any, Self

import numpy as np
from onnx.helper import tensor_dtype_to_np_dtype

from live_restore.engines.batches import GraphInput, Shapes, check_shapes, fit
from live_restore.engines.cuda.batches import CudaBatches, Sized
from live_restore.engines.engine import Array, Batch, EngineSpec, Offer, Precision
from live_restore.engines.graphs.byte_pairs import as_byte_pairs
from live_restore.engines.graphs.onnx_file import read_onnx
from live_restore.engines.tensorrt.card import Card, this_card
from live_restore.engines.tensorrt.plans import Plans
from live_restore.errors import EngineError, ModelError

_UINT16 = np.dtype(np.uint16)
_BF16_FROM = (8, 0)


class TensorRtEngine:
    """See `live_restore.engines.engine.Engine`.

    Parameters
    ----------
    onnx : bytes
        Sizes fixed in the graph are ignored, except for the channels.
    precision : {"f32", "f16", "bf16"}
    threads : int, optional
        Is ignored: the card computes.
    card : Card, optional
        What to run with; default: the first CUDA device, the installed flavour that serves it, and this user's cache.

    Raises
    ------
    EngineUnavailable
        If there is no card, or no TensorRT for it.
    EngineError
        If the graph is none, or there is no recipe for it.
    """

    def __init__(self, onnx: bytes, precision: Precision, threads: int | None = None, card: Card | None = None) -> None:
        card = card or this_card()
        offer = _offer(card)
        self.spec = EngineSpec("tensorrt", offer.version, offer.device, precision)
        try:
            file = read_onnx(onnx)
        except ModelError as refused:
            raise EngineError(str(refused)) from refused
        self._graph_inputs = [_graph_input(value) for value in file.inputs]
        self._dtypes = [_dtype(value) for value in file.graph.output]
        self._plans = Plans(onnx, precision, card)
        self._batches = CudaBatches(card.cuda, self._sized)
        self._closed = False

    @classmethod
    def offer(cls) -> Offer:
        """Ask the driver for its first device, and pip's packages for a TensorRT that serves it."""
        return _offer(this_card())

    def warm_up(self, *shapes: tuple[int, ...]) -> None:
        """Build or load the plan for these shapes, make their memory, run it and capture it."""
        check_shapes(shapes, self._graph_inputs)
        self._check_open()
        self._batches.warm_up(self._sent(shapes))
        self._plans.keep_compiled()

    def infer(self, *inputs: Array) -> tuple[Array, ...]:
        """Run the graph once; the inputs are copied once, and so are the outputs."""
        self._check_open()
        found = self._batches.infer(self._up(fit(inputs, self._graph_inputs)))
        return self._down(found)

    def infer_many(self, batches: Iterable[Batch]) -> Iterator[tuple[Array, ...]]:
        """Run the graph on batches in turn: one goes up or comes down while another is computed."""
        self._check_open()
        sent = (self._up(fit(batch, self._graph_inputs)) for batch in batches)
        return self._taken_down(self._batches.infer_many(sent))

    def close(self) -> None:
        """Give back the card's memory."""
        if self._closed:
            return
        self._closed = True
        try:
            self._plans.keep_compiled()
            self._batches.close()
        finally:
            self._plans.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _check_open(self) -> None:
        if self._closed:
            raise EngineError("this tensorrt engine is closed; open a new one")

    def _sized(self, shapes: Shapes, stream: int) -> Sized:
        image, *others = shapes
        pixels = image[:-1] if self._graph_inputs[0].dtype == _UINT16 else image
        return self._plans.for_shapes((pixels, *others)).sized(shapes, stream)

    def _sent(self, shapes: Shapes) -> Shapes:
        """Say in which shapes inputs of these shapes are sent: uint16 as pairs of bytes."""
        asked = zip(shapes, self._graph_inputs, strict=True)
        return tuple((*shape, 2) if graph_input.dtype == _UINT16 else tuple(shape) for shape, graph_input in asked)

    def _up(self, arrays: Sequence[Array]) -> tuple[Array, ...]:
        return tuple(as_byte_pairs(array) if array.dtype == _UINT16 else array for array in arrays)

    def _taken_down(self, results: Generator[tuple[Array, ...], None, None]) -> Iterator[tuple[Array, ...]]:
        with closing(results):  # whoever stops listening stops the batches that are under way
            for found in results:
                yield self._down(found)

    def _down(self, found: Sequence[Array]) -> tuple[Array, ...]:
        return tuple(array.astype(dtype, copy=False) for array, dtype in zip(found, self._dtypes, strict=True))


def _offer(card: Card) -> Offer:
    device = card.cuda.device()
    words = "{} (compute capability {}.{})".format(device.name, *device.capability)
    version = f"{card.flavour.version} ({card.flavour.name})"
    if device.capability < _BF16_FROM:
        why_not = "bf16: cards compute it from compute capability 8.0 on"
        return Offer(version, words, ("f32", "f16"), why_not, device.free_bytes)
    return Offer(version, words, ("f32", "f16", "bf16"), "int8: plans are built in f32, f16 and bf16", device.free_bytes)


def _graph_input(value: Any) -> GraphInput:
    dims = value.type.tensor_type.shape.dim
    channels = dims[1].dim_value or None if len(dims) > 1 else None
    return GraphInput(value.name, len(dims), channels, _dtype(value))


def _dtype(value: Any) -> "np.dtype[Any]":
    return np.dtype(tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type))
