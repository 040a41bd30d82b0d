"""Batches through a CUDA device: slots for every size that comes, two at work at once, the least used given back.

Receives a device and a way to make a network ready for inputs of one size; hands on what comes back for batches, one at a
time or overlapped. It does not know which runtime the network is run by.
"""

import logging
from collections import OrderedDict, deque
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import suppress
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from live_restore.engines.batches import Shapes
from live_restore.engines.cuda.calls import Cuda, OutOfDeviceMemory
from live_restore.engines.cuda.slot import Runnable, Slot, Streams
from live_restore.errors import EngineError

Array = NDArray[Any]

# While one slot uploads or downloads, the other computes; a third would only hold memory.
_SLOTS = 2
# Every size holds memory and graphs of its own.
_KEPT_SIZES = 4
_BUSY = "this engine is in the middle of other batches; take their results first"

_log = logging.getLogger(__name__)


class Sized(Protocol):
    """A network for inputs of one size, and what its slots share."""

    def runnable(self) -> Runnable:
        """Make it ready for one more slot."""

    def close(self) -> None:
        """Give back what is shared; its slots are closed."""


class CudaBatches:
    """See the module; used from one thread at a time.

    Parameters
    ----------
    cuda : Cuda
    sized : callable (shapes, compute stream) -> Sized
    """

    def __init__(self, cuda: Cuda, sized: Callable[[Shapes, int], Sized]) -> None:
        self._cuda, self._sized = cuda, sized
        self._streams = Streams(cuda)
        self._sizes: OrderedDict[Shapes, _Size] = OrderedDict()  # the last used at the end
        self._closed = False

    def warm_up(self, shapes: Shapes) -> None:
        """Make what these shapes need, run it, and capture it."""
        slot = self._slot(shapes)
        while slot.runs < 2:
            self._submit(slot, [np.zeros(port.shape, port.dtype) for port in slot.inputs])
            slot.collect()

    def infer(self, arrays: Sequence[Array]) -> tuple[Array, ...]:
        """Run one batch; the results belong to the caller."""
        slot = self._slot(_shapes(arrays))
        self._submit(slot, arrays)
        return tuple(array.copy() for array in slot.collect())

    def infer_many(self, batches: Iterable[Sequence[Array]]) -> Generator[tuple[Array, ...], None, None]:
        """Run batches in turn, the next one's upload while the last one computes.

        Yields
        ------
        tuple of ndarray
            In pinned memory, which is filled anew when the next result is asked for.
        """
        under_way: deque[Slot] = deque()
        try:
            for arrays in batches:
                shapes = _shapes(arrays)
                slot = self._another(shapes)
                while slot is None:  # no memory for a second one: in turn, then
                    if not under_way:
                        raise EngineError(_BUSY)
                    yield under_way.popleft().collect()
                    slot = self._another(shapes)
                self._submit(slot, arrays)
                under_way.append(slot)
                if len(under_way) == _SLOTS:
                    yield under_way.popleft().collect()
            while under_way:
                yield under_way.popleft().collect()
        finally:
            for slot in under_way:  # whoever stopped listening does not want the rest, nor its errors
                with suppress(EngineError):
                    slot.collect()

    def close(self) -> None:
        """Give everything back; a second time is fine."""
        if self._closed:
            return
        self._closed = True
        try:
            while self._sizes:
                self._sizes.popitem()[1].close()
        finally:
            self._streams.close()

    def _submit(self, slot: Slot, arrays: Sequence[Array]) -> None:
        """Send a batch on its way; some runtimes take memory only then."""
        self._with_room(lambda: slot.submit(arrays), but=self._sizes[_shapes(arrays)])

    def _slot(self, shapes: Shapes) -> Slot:
        """Give a slot that is free; there is one, for nothing is under way."""
        slot = self._another(shapes)
        if slot is None:
            raise EngineError(_BUSY)
        return slot

    def _another(self, shapes: Shapes) -> Slot | None:
        """Give a slot for these shapes that is free; None if there is none and no memory for one."""
        size = self._size(shapes)
        if free := size.free():
            return free
        if len(size.slots) == _SLOTS:
            return None
        try:
            return self._add(size)
        except OutOfDeviceMemory as short:
            if not self._under_way():
                raise
            _log.info("batches are not overlapped: %s", short)
            return None

    def _size(self, shapes: Shapes) -> "_Size":
        if shapes not in self._sizes:
            while len(self._sizes) >= _KEPT_SIZES and self._drop_one():
                pass
            self._sizes[shapes] = self._with_room(lambda: _Size(self._sized(shapes, self._streams.compute)))
        self._sizes.move_to_end(shapes)
        return self._sizes[shapes]

    def _add(self, size: "_Size") -> Slot:
        slot: Slot = self._with_room(lambda: Slot(self._cuda, self._streams, size.network.runnable()), but=size)
        size.slots.append(slot)
        return slot

    def _with_room(self, make: Callable[[], Any], but: "_Size | None" = None) -> Any:
        """Make something on the device; if memory is short, give other sizes back, the least used first."""
        while True:
            try:
                return make()
            except OutOfDeviceMemory:
                if not self._drop_one(but):
                    raise

    def _drop_one(self, but: "_Size | None" = None) -> bool:
        """Give the least used size back, of those that are idle."""
        for shapes, size in list(self._sizes.items()):
            if size is not but and not any(slot.busy for slot in size.slots):
                self._sizes.pop(shapes).close()
                return True
        return False

    def _under_way(self) -> bool:
        return any(slot.busy for size in self._sizes.values() for slot in size.slots)


class _Size:
    """What is there for one size."""

    def __init__(self, network: Sized) -> None:
        self.network = network
        self.slots: list[Slot] = []

    def free(self) -> Slot | None:
        return next((slot for slot in self.slots if not slot.busy), None)

    def close(self) -> None:
        try:
            while self.slots:
                self.slots.pop().close()
        finally:
            self.network.close()


def _shapes(arrays: Sequence[Array]) -> Shapes:
    return tuple(array.shape for array in arrays)
