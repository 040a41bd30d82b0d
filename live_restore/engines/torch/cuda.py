"""PyTorch as a CUDA device: its memory, streams, events and graphs behind the same calls as the driver's own.

Receives the calls of `live_restore.engines.cuda.calls.Cuda`, and a graph to be run; hands on what torch makes of them, so that
torch's networks go through the same slots as TensorRT's plans. It does not know engines.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from live_restore.engines.batches import GraphInput, Shapes, last_line, misfit
from live_restore.engines.cuda.calls import Cuda, CudaDevice, OutOfDeviceMemory
from live_restore.engines.cuda.slot import Port
from live_restore.engines.torch.graph import Run, TorchGraph
from live_restore.errors import EngineError


class TorchMemory(Cuda, Protocol):
    """A device whose memory torch can look at."""

    def tensor_at(self, address: int, n_bytes: int) -> Tensor:
        """View device memory, uint8."""

    def ask(self, stream: int, work: Callable[[], None]) -> None:
        """Ask the stream for what torch does in `work`."""


class TorchCuda:
    """The first CUDA device, as torch has it; see `live_restore.engines.cuda.calls.Cuda`."""

    def __init__(self) -> None:
        self._memory: dict[int, Tensor] = {}
        self._streams: dict[int, torch.cuda.Stream] = {}
        self._events: dict[int, torch.cuda.Event] = {}
        self._graphs: dict[int, torch.cuda.CUDAGraph] = {}
        self._pool: Any = None  # one for all graphs: they run one after the other, and nothing in it outlives a run

    def device(self) -> CudaDevice:
        """Describe the device."""
        free, total = torch.cuda.mem_get_info()
        capability = torch.cuda.get_device_capability()
        return CudaDevice(torch.cuda.get_device_name(), capability, str(torch.version.cuda), free, total)

    def allocate(self, n_bytes: int) -> int:
        """Give device memory, from torch's own pool."""
        with _said(f"{n_bytes / 1e6:.6g} MB of device memory"):
            return self._kept(torch.empty(n_bytes, dtype=torch.uint8, device="cuda"))

    def allocate_pinned(self, n_bytes: int) -> int:
        """Give pinned host memory."""
        with _said(f"{n_bytes / 1e6:.6g} MB of pinned memory"):
            return self._kept(torch.empty(n_bytes, dtype=torch.uint8, pin_memory=True))

    def free(self, address: int) -> None:
        """Give memory back to torch's pool."""
        del self._memory[address]

    free_pinned = free

    def stream(self) -> int:
        """Make a stream."""
        with _said("a stream"):
            made = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        self._streams[made.cuda_stream] = made
        return int(made.cuda_stream)

    def destroy_stream(self, stream: int) -> None:
        """Forget a stream; torch keeps them for others."""
        self._streams.pop(stream, None)

    def synchronize(self, stream: int) -> None:
        """Wait until all that was asked of the stream is done."""
        with _said("its work"):
            self._streams[stream].synchronize()

    def event(self) -> int:
        """Make an event; waiting for it lets the processor do something else."""
        made = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
        self._events[id(made)] = made
        return id(made)

    def destroy_event(self, event: int) -> None:
        """Give an event back."""
        del self._events[event]

    def record(self, event: int, stream: int) -> None:
        """Mark what was asked of the stream so far."""
        with _said("an event"):
            self._events[event].record(self._streams[stream])

    def stream_waits(self, stream: int, event: int) -> None:
        """Let a stream wait until what the event marks is done."""
        with _said("an event"):
            self._streams[stream].wait_event(self._events[event])

    def wait(self, event: int) -> None:
        """Wait here until what the event marks is done."""
        with _said("its work"):
            self._events[event].synchronize()

    def upload(self, device: int, pinned: int, n_bytes: int, stream: int) -> None:
        """Copy from pinned to device memory."""
        self.ask(stream, lambda: self._copy(device, pinned, n_bytes))

    def download(self, pinned: int, device: int, n_bytes: int, stream: int) -> None:
        """Copy from device to pinned memory."""
        self.ask(stream, lambda: self._copy(pinned, device, n_bytes))

    def capture(self, stream: int, enqueue: Callable[[], None]) -> int:
        """Make a graph; other threads may go on allocating meanwhile."""
        graph = torch.cuda.CUDAGraph()
        self._pool = self._pool or torch.cuda.graph_pool_handle()
        how = {"stream": self._streams[stream], "pool": self._pool, "capture_error_mode": "thread_local"}
        with _said("a graph"), torch.cuda.graph(graph, **how):
            enqueue()
        self._graphs[id(graph)] = graph
        return id(graph)

    def launch(self, graph: int, stream: int) -> None:
        """Ask the stream to do what is in the graph."""
        self.ask(stream, self._graphs[graph].replay)

    def destroy_graph(self, graph: int) -> None:
        """Give a graph and its memory back."""
        del self._graphs[graph]

    def tensor_at(self, address: int, n_bytes: int) -> Tensor:
        """View memory, uint8."""
        return self._memory[address][:n_bytes]

    def ask(self, stream: int, work: Callable[[], None]) -> None:
        """Ask the stream for what torch does in `work`."""
        with _said("its work"), torch.cuda.stream(self._streams[stream]):
            work()

    def _kept(self, memory: Tensor) -> int:
        self._memory[memory.data_ptr()] = memory
        return memory.data_ptr()

    def _copy(self, to: int, source: int, n_bytes: int) -> None:
        self.tensor_at(to, n_bytes).copy_(self.tensor_at(source, n_bytes), non_blocking=True)


class SizedGraph:
    """A graph for inputs of one size; see `live_restore.engines.cuda.batches.Sized`.

    Parameters
    ----------
    graph : TorchGraph
        On the device.
    run : callable
        ``graph.run``, or what torch's compiler made of it.
    graph_inputs : sequence of GraphInput
    memory : TorchMemory
    shapes : tuple of tuple of int

    Raises
    ------
    EngineMismatch
        If the network does not take these shapes; no pixel is computed for that.
    """

    def __init__(
        self, graph: TorchGraph, run: Run, graph_inputs: Sequence[GraphInput], memory: TorchMemory, shapes: Shapes
    ) -> None:
        self._run, self._memory = run, memory
        self._inputs = [
            Port(graph_input.name, shape, graph_input.dtype) for graph_input, shape in zip(graph_inputs, shapes, strict=True)
        ]
        self._outputs = [
            Port(name, tuple(result.shape), _numpy_dtype(result.dtype))
            for name, result in zip(graph.output_names, _sizes_only(graph, self._inputs), strict=True)
        ]

    def runnable(self) -> "SlotGraph":
        """Make it ready for one more slot; torch makes what it needs in between when it runs."""
        return SlotGraph(self._run, self._memory, self._inputs, self._outputs)

    def close(self) -> None:
        """Do nothing: nothing is shared."""


class SlotGraph:
    """A graph with memory of its own for what goes in and comes out; see `live_restore.engines.cuda.slot.Runnable`."""

    def __init__(self, run: Run, memory: TorchMemory, inputs: Sequence[Port], outputs: Sequence[Port]) -> None:
        self._run, self._memory = run, memory
        self.inputs, self.outputs = inputs, outputs
        self._views: dict[str, Tensor] = {}

    def bind(self, name: str, address: int) -> None:
        """View an input or output where it lies."""
        port = next(port for port in (*self.inputs, *self.outputs) if port.name == name)
        flat = self._memory.tensor_at(address, port.n_bytes).view(_torch_dtype(port.dtype))
        self._views[name] = flat.reshape(port.shape)

    def enqueue(self, stream: int) -> None:
        """Ask the stream to run the graph once."""
        self._memory.ask(stream, self._work)

    def capturable(self, stream: int) -> bool:
        """Tell whether it may be captured; torch finds out when it tries."""
        return True

    def close(self) -> None:
        """Let go of the memory."""
        self._views.clear()

    def _work(self) -> None:
        with torch.inference_mode(), _cudnn():
            results = self._run([self._views[port.name] for port in self.inputs])
            for port, result in zip(self.outputs, results, strict=True):
                self._views[port.name].copy_(result)


def _cudnn() -> Any:
    # benchmark: sizes repeat. cuDNN would otherwise round float32 to 10 bits of mantissa (TF32), which is not what f32 promises
    return torch.backends.cudnn.flags(enabled=True, benchmark=True, allow_tf32=False)


def _sizes_only(graph: TorchGraph, inputs: Sequence[Port]) -> list[Tensor]:
    nowhere = torch.device("meta")
    images = [torch.empty(port.shape, dtype=_torch_dtype(port.dtype), device=nowhere) for port in inputs]
    try:
        with torch.inference_mode():
            return graph.elsewhere(nowhere).run(images)
    except RuntimeError as refused:
        raise misfit("torch", tuple(port.shape for port in inputs), refused) from refused


def _torch_dtype(dtype: "np.dtype[Any]") -> torch.dtype:
    return torch.from_numpy(np.empty(0, dtype)).dtype


def _numpy_dtype(dtype: torch.dtype) -> "np.dtype[Any]":
    """Give the dtype that a result is handed on in; halves become float32."""
    return np.dtype(np.float32) if dtype.is_floating_point else torch.empty(0, dtype=dtype).numpy().dtype


@contextmanager
def _said(what: str) -> Iterator[None]:
    try:
        yield
    except torch.OutOfMemoryError as short:
        raise OutOfDeviceMemory(
            f"torch ran out of memory on the CUDA device ({last_line(short)}); use smaller tiles"
        ) from short
    except RuntimeError as failed:
        raise EngineError(f"the CUDA device refused torch {what} ({last_line(failed)}); start the process again") from failed
