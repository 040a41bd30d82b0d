"""The calls that an engine on a CUDA device needs, as a protocol: memory, streams, events, graphs.

Receives nothing; hands on words for addresses, streams, events and graphs, all whole numbers, and what each call promises.
Whoever implements it turns every failure into an `EngineError`. It does not know TensorRT, networks or images.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from live_restore.errors import EngineError


class OutOfDeviceMemory(EngineError):
    """There is not as much memory on the device, or pinned beside it."""


@dataclass(frozen=True, slots=True)
class CudaDevice:
    """One CUDA device, as its driver describes it.

    Attributes
    ----------
    name : str
        E.g. ``"NVIDIA GeForce RTX 4070"``.
    capability : (int, int)
        Compute capability, e.g. (8, 9).
    driver : str
        The newest CUDA version that the driver supports, e.g. ``"13.0"``.
    free_bytes, total_bytes : int
        Device memory, when asked.
    """

    name: str
    capability: tuple[int, int]
    driver: str
    free_bytes: int
    total_bytes: int


class Cuda(Protocol):
    """One device. Calls with a stream come back at once; what they ask for is done later, in the order of that stream.

    Raises
    ------
    OutOfDeviceMemory
        From the two that allocate, if there is not as much.
    EngineError
        From every call that the device refuses, also for what an earlier one did.
    """

    def device(self) -> CudaDevice:
        """Describe the device."""

    def allocate(self, n_bytes: int) -> int:
        """Give the address of device memory, aligned to 256 bytes."""

    def free(self, address: int) -> None:
        """Give device memory back."""

    def allocate_pinned(self, n_bytes: int) -> int:
        """Give the address of host memory that the device reads and writes by itself."""

    def free_pinned(self, address: int) -> None:
        """Give pinned memory back."""

    def stream(self) -> int:
        """Make a stream that does not wait for the default one."""

    def destroy_stream(self, stream: int) -> None:
        """Give a stream back."""

    def synchronize(self, stream: int) -> None:
        """Wait here until all that was asked of the stream is done."""

    def event(self) -> int:
        """Make an event, which marks a place in a stream."""

    def destroy_event(self, event: int) -> None:
        """Give an event back."""

    def record(self, event: int, stream: int) -> None:
        """Mark what was asked of the stream so far."""

    def stream_waits(self, stream: int, event: int) -> None:
        """Let a stream wait, from here on, until what the event marks is done."""

    def wait(self, event: int) -> None:
        """Wait here until what the event marks is done."""

    def upload(self, device: int, pinned: int, n_bytes: int, stream: int) -> None:
        """Copy from pinned to device memory."""

    def download(self, pinned: int, device: int, n_bytes: int, stream: int) -> None:
        """Copy from device to pinned memory."""

    def capture(self, stream: int, enqueue: Callable[[], None]) -> int:
        """Make a graph of what `enqueue` asks of the stream; nothing of it is done yet."""

    def launch(self, graph: int, stream: int) -> None:
        """Ask the stream to do what is in the graph."""

    def destroy_graph(self, graph: int) -> None:
        """Give a graph back."""
