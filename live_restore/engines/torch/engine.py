"""The engine on PyTorch: it runs the same ONNX graph as the others, operation by operation.

Receives an ONNX graph and batches; hands on what the graph makes of them. Only the operations in
`live_restore.engines.torch.operations` are run, and nothing else that may be in the file. On the CPU a feature map is freed as
soon as nobody needs it any more; on a CUDA device, sizes that repeat are captured as CUDA graphs and batches overlap. It does
not know which network the graph is.
"""

from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from typing import Any, Self

import numpy as np
import torch
from onnx.helper import tensor_dtype_to_np_dtype
from torch import Tensor

from live_restore.engines.batches import GraphInput, Shapes, check_shapes, fit, last_line, misfit, one_by_one
from live_restore.engines.cuda.batches import CudaBatches
from live_restore.engines.cuda.calls import CudaDevice
from live_restore.engines.engine import Array, Batch, EngineSpec, Offer, Precision
from live_restore.engines.graphs.onnx_file import OnnxFile, read_onnx
from live_restore.engines.graphs.sixteen_bits import in_sixteen_bits
from live_restore.engines.torch import graph as torch_graph
from live_restore.engines.torch.cuda import SizedGraph, TorchCuda, TorchMemory
from live_restore.engines.torch.graph import Run, TorchGraph
from live_restore.errors import EngineError, EngineUnavailable, ModelError

_BF16_FROM = (8, 0)


class TorchEngine:
    """See `live_restore.engines.engine.Engine`.

    Parameters
    ----------
    onnx : bytes
        Sizes fixed in the graph are ignored, except for the channels.
    precision : {"f32", "bf16", "f16"}
        On a CUDA device the weights of the layers are stored in it. On the CPU bf16 is autocast: weights stay float32,
        convolutions compute in bfloat16; f16 is not to be had.
    threads : int, optional
        CPU threads of torch, for the whole process; default: leave as they are.
    memory : TorchMemory, optional
        The device through which batches go; default: the first CUDA device, or none.
    """

    _KIND = "torch"

    def __init__(
        self, onnx: bytes, precision: Precision, threads: int | None = None, memory: TorchMemory | None = None
    ) -> None:
        offer = self.offer()
        self.spec = EngineSpec(self._KIND, offer.version, offer.device, precision)
        if threads is not None:
            torch.set_num_threads(threads)
        if torch.cuda.is_available():
            memory = memory or TorchCuda()
        file = _read(onnx, precision if memory else "f32")
        self._graph_inputs = [_graph_input(value) for value in file.inputs]
        self._graph: TorchGraph | None = _placed(file, precision)
        self._through = None if memory is None else CudaBatches(memory, self._sized(self._graph, memory))

    @classmethod
    def offer(cls) -> Offer:
        """Ask torch for its device: the first CUDA device, or the processor."""
        if torch.cuda.is_available():
            return on_card(torch.__version__, TorchCuda().device())
        device = f"CPU ({torch.backends.cpu.get_cpu_capability()})"
        if torch.ops.mkldnn._is_mkldnn_bf16_supported():  # noqa: SLF001 (torch has no public name for it)
            return Offer(torch.__version__, device, ("f32", "bf16"), "f16: torch computes in it on CUDA devices only")
        return Offer(torch.__version__, device, ("f32",), "bf16: this CPU has no bf16 arithmetic")

    def warm_up(self, *shapes: tuple[int, ...]) -> None:
        """Check the shapes; for a CUDA device also make their memory, run them and capture them."""
        check_shapes(shapes, self._graph_inputs)
        self._opened()
        if self._through is not None:
            self._through.warm_up(tuple(tuple(shape) for shape in shapes))

    def infer(self, *inputs: Array) -> tuple[Array, ...]:
        """Run the graph once."""
        graph = self._opened()
        arrays = fit(inputs, self._graph_inputs)
        return self._run(graph, arrays) if self._through is None else self._through.infer(arrays)

    def infer_many(self, batches: Iterable[Batch]) -> Iterator[tuple[Array, ...]]:
        """Run the graph on batches in turn; on a CUDA device one goes up or comes down while another is computed."""
        self._opened()
        if self._through is None:
            return one_by_one(self, batches)
        return _all(self._through.infer_many(fit(batch, self._graph_inputs) for batch in batches))

    def close(self) -> None:
        """Give back the weights, and the device's memory."""
        self._graph = None
        if self._through is not None:
            self._through.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _opened(self) -> TorchGraph:
        if self._graph is None:
            raise EngineError(f"this {self._KIND} engine is closed; open a new one")
        return self._graph

    def _runs(self, graph: TorchGraph) -> Run:
        """Give what runs the graph on the device."""
        return graph.run

    def _sized(self, graph: TorchGraph, memory: TorchMemory) -> Any:
        run = self._runs(graph)
        return lambda shapes, _stream: SizedGraph(graph, run, self._graph_inputs, memory, shapes)

    def _arithmetic(self) -> AbstractContextManager[object]:
        return torch.autocast("cpu", torch.bfloat16) if self.spec.precision == "bf16" else nullcontext()

    def _run(self, graph: TorchGraph, arrays: Sequence[Array]) -> tuple[Array, ...]:
        try:
            with torch.inference_mode(), self._arithmetic():
                return tuple(_to_numpy(result) for result in graph.run([torch.from_numpy(array) for array in arrays]))
        except (RuntimeError, MemoryError) as failed:
            if isinstance(failed, MemoryError | torch.OutOfMemoryError) or "memory" in str(failed):
                raise EngineError(f"torch ran out of memory ({last_line(failed)}); use smaller tiles") from failed
            raise misfit("torch", _shapes(arrays), failed) from failed


def on_card(version: str, card: CudaDevice) -> Offer:
    """Say what torch computes on a card."""
    if card.capability < _BF16_FROM:
        why_not = "bf16: cards compute it from compute capability 8.0 on"
        return Offer(version, card.name, ("f32", "f16"), why_not, card.free_bytes)
    return Offer(version, card.name, ("f32", "f16", "bf16"), "int8: torch computes in f32, f16 and bf16", card.free_bytes)


class CompiledTorchEngine(TorchEngine):
    """The same through torch's compiler; see `live_restore.engines.torch.graph.compiled`.

    Raises
    ------
    EngineUnavailable
        Without a CUDA device.
    """

    _KIND = "torch-compiled"

    @classmethod
    def offer(cls) -> Offer:
        """Ask torch for its CUDA device."""
        if not torch.cuda.is_available():
            raise EngineUnavailable("torch finds no CUDA device, which torch-compiled is for; use --engine torch")
        return super().offer()

    def _runs(self, graph: TorchGraph) -> Run:
        return torch_graph.compiled(graph)


def _read(onnx: bytes, precision: Precision) -> OnnxFile:
    """Read a graph, with its weights cast once if it is to be computed in 16 bits."""
    try:
        cast = in_sixteen_bits(onnx, precision) if precision in ("f16", "bf16") else onnx
        return read_onnx(cast)
    except ModelError as refused:
        raise EngineError(str(refused)) from refused


def _placed(file: OnnxFile, precision: Precision) -> TorchGraph:
    if not torch.cuda.is_available():
        return torch_graph.on(file, torch.device("cpu"), channels_last=True)
    # cuDNN's kernels for 16 bits want channels innermost, those for float32 outermost
    return torch_graph.on(file, torch.device("cuda"), channels_last=precision != "f32")


def _all(results: Generator[tuple[Array, ...], None, None]) -> Iterator[tuple[Array, ...]]:
    with closing(results):  # whoever stops listening stops the batches that are under way
        yield from results


def _graph_input(value: Any) -> GraphInput:
    dims = value.type.tensor_type.shape.dim
    channels = dims[1].dim_value or None if len(dims) > 1 else None
    return GraphInput(value.name, len(dims), channels, tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type))


def _shapes(arrays: Sequence[Array]) -> Shapes:
    return tuple(array.shape for array in arrays)


def _to_numpy(tensor: Tensor) -> Array:
    # a copy, since a graph may hand out its input or a weight as its result
    return np.array((tensor.float() if tensor.is_floating_point() else tensor).numpy(), order="C")
