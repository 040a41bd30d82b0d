"""One place for a batch on its way through a CUDA device: up, through the network, down.

Receives arrays; hands on the arrays that come back. A slot has its memory made once, on the device and pinned beside it,
and runs the network by itself twice at most: the second time it is captured as a CUDA graph, which is launched from then on.
Two slots on the same three streams overlap: one's upload and the other's download go on while a third thing computes. It
does not know TensorRT, nor how many slots there are.
"""

import ctypes
import logging
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from math import prod
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from live_restore.engines.cuda.calls import Cuda
from live_restore.errors import EngineError

Array = NDArray[Any]
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Port:
    """One input or output of a network on the device, for one size.

    Attributes
    ----------
    name : str
    shape : tuple of int
    dtype : numpy dtype
    """

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def n_bytes(self) -> int:
        """How much memory it takes."""
        return prod(self.shape) * self.dtype.itemsize


class Runnable(Protocol):
    """A network made ready for inputs of one size; it belongs to one slot."""

    inputs: Sequence[Port]
    outputs: Sequence[Port]

    def bind(self, name: str, address: int) -> None:
        """Say where on the device an input or output lies; called for each, once."""

    def enqueue(self, stream: int) -> None:
        """Ask the stream to run it once."""

    def capturable(self, stream: int) -> bool:
        """Tell whether it may be captured as a graph."""

    def close(self) -> None:
        """Give back what it holds."""


class Streams:
    """The three streams of an engine: upload, compute, download."""

    def __init__(self, cuda: Cuda) -> None:
        with ExitStack() as made:
            self.upload, self.compute, self.download = (_made(made, cuda.stream, cuda.destroy_stream) for _ in range(3))
            self._given_back = made.pop_all()

    def close(self) -> None:
        """Give them back."""
        self._given_back.close()


class Place:
    """Memory of one input or output, on the device and pinned."""

    def __init__(self, cuda: Cuda, port: Port) -> None:
        self.port = port
        with ExitStack() as made:
            self.device = _made(made, lambda: cuda.allocate(port.n_bytes), cuda.free)
            self.pinned = _made(made, lambda: cuda.allocate_pinned(port.n_bytes), cuda.free_pinned)
            self._given_back = made.pop_all()
        memory = memoryview((ctypes.c_uint8 * port.n_bytes).from_address(self.pinned))
        self.array: Array = np.frombuffer(memory, port.dtype).reshape(port.shape)

    def close(self) -> None:
        """Give it back; its array may not be touched afterwards."""
        del self.array
        self._given_back.close()


class Slot:
    """See the module.

    Parameters
    ----------
    cuda : Cuda
    streams : Streams
        Shared with the other slots.
    network : Runnable
        Its own; closed with the slot.

    Attributes
    ----------
    busy : bool
        Whether it holds a batch.
    runs : int
        How often it ran.

    Raises
    ------
    OutOfDeviceMemory
        If its memory is not to be had; nothing is held then.
    """

    def __init__(self, cuda: Cuda, streams: Streams, network: Runnable) -> None:
        self._cuda, self._streams, self._network = cuda, streams, network
        self.busy = False
        self.runs = 0
        self._graph = 0
        with ExitStack() as made:
            made.callback(network.close)
            self._inputs = [_place(made, cuda, port) for port in network.inputs]
            self._outputs = [_place(made, cuda, port) for port in network.outputs]
            self._uploaded, self._computed, self._downloaded = (_made(made, cuda.event, cuda.destroy_event) for _ in range(3))
            for place in (*self._inputs, *self._outputs):
                network.bind(place.port.name, place.device)
            self._given_back = made.pop_all()

    @property
    def inputs(self) -> Sequence[Port]:
        """What `submit` takes."""
        return self._network.inputs

    @property
    def captured(self) -> bool:
        """Whether it runs as a graph by now."""
        return bool(self._graph)

    def submit(self, arrays: Sequence[Array]) -> None:
        """Send a batch on its way; comes back before it is there.

        Parameters
        ----------
        arrays : sequence of ndarray
            As `Runnable.inputs` say, any layout; they are copied before this returns.
        """
        if self.busy:
            raise EngineError("this slot still holds a batch; collect it first")
        cuda, streams = self._cuda, self._streams
        for place, array in zip(self._inputs, arrays, strict=True):
            np.copyto(place.array, array, casting="no")
            cuda.upload(place.device, place.pinned, place.port.n_bytes, streams.upload)
        cuda.record(self._uploaded, streams.upload)
        cuda.stream_waits(streams.compute, self._uploaded)
        self._compute()
        cuda.record(self._computed, streams.compute)
        cuda.stream_waits(streams.download, self._computed)
        for place in self._outputs:
            cuda.download(place.pinned, place.device, place.port.n_bytes, streams.download)
        cuda.record(self._downloaded, streams.download)
        self.busy = True

    def collect(self) -> tuple[Array, ...]:
        """Wait for the batch; its results lie in pinned memory until the next `submit`."""
        if not self.busy:
            raise EngineError("this slot holds no batch; submit one first")
        self.busy = False
        self._cuda.wait(self._downloaded)
        return tuple(place.array for place in self._outputs)

    def close(self) -> None:
        """Wait until nothing is under way any more, and give everything back."""
        try:
            for stream in (self._streams.upload, self._streams.compute, self._streams.download):
                self._cuda.synchronize(stream)
        finally:
            self._given_back.close()

    def _compute(self) -> None:
        """Run for the first time, capture the second time, launch from then on."""
        if self.runs == 1:
            self._capture()
        if self._graph:
            self._cuda.launch(self._graph, self._streams.compute)
        else:
            self._network.enqueue(self._streams.compute)
        self.runs += 1

    def _capture(self) -> None:
        compute = self._streams.compute
        if not self._network.capturable(compute):
            return
        try:
            graph = self._cuda.capture(compute, lambda: self._network.enqueue(compute))
        except EngineError as refused:
            _log.warning("no CUDA graph of this network: %s; every batch is enqueued kernel by kernel", refused)
            return
        self._graph = graph
        self._given_back.callback(self._cuda.destroy_graph, graph)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def _made(made: ExitStack, make: Callable[[], int], give_back: Callable[[int], None]) -> int:
    thing = make()
    made.callback(give_back, thing)
    return thing


def _place(made: ExitStack, cuda: Cuda, port: Port) -> Place:
    place = Place(cuda, port)
    made.callback(place.close)
    return place
