"""A CUDA device in numpy: memory, streams, events and graphs that really copy bytes and keep to CUDA's rules.

What a stream is asked for waits in its queue until somebody waits for it, or is done at once, or in any order between the
streams that the events allow: whoever relies on an order that was never asked for gets wrong bytes. Every call is written
down, and what was not given back is known.
"""

import ctypes
import random
from collections import deque

from live_restore.engines.cuda.calls import CudaDevice, OutOfDeviceMemory
from live_restore.errors import EngineError


class SimulatedCuda:
    """See `live_restore.engines.cuda.calls.Cuda`.

    `order`: "late" (nothing is done before somebody waits), "soon" (all is done at once), or a seed for any order between.
    """

    def __init__(self, order="late", most_bytes=None, capturable=True):
        self.order, self.most_bytes, self.capturable = order, most_bytes, capturable
        self.calls = []  # (name, what)
        self.failing = set()  # names of calls that fail from now on
        self._random = random.Random(order if isinstance(order, int) else 0)
        self._memory, self._queues, self._events, self._graphs = {}, {}, {}, {}
        self._capturing = None  # (stream, list)
        self._next = 1
        self.done = []  # what the device really did, in order

    # --- what the engine calls

    def device(self):
        return CudaDevice("Simulated card", (8, 9), "13.0", 1 << 33, 1 << 33)

    def allocate(self, n_bytes):
        return self._allocate("device", n_bytes)

    def free(self, address):
        self._free("device", address)

    def allocate_pinned(self, n_bytes):
        return self._allocate("pinned", n_bytes)

    def free_pinned(self, address):
        self._free("pinned", address)

    def stream(self):
        self._called("stream")
        return self._numbered(self._queues, deque())

    def destroy_stream(self, stream):
        self._called("destroy_stream", stream)
        assert not self._queues.pop(stream), "a stream was destroyed with work in it"

    def synchronize(self, stream):
        self._called("synchronize", stream)
        while self._queues[stream]:
            self._advance(stream)

    def event(self):
        self._called("event")
        return self._numbered(self._events, None)

    def destroy_event(self, event):
        self._called("destroy_event", event)
        del self._events[event]

    def record(self, event, stream):
        self._called("record", (event, stream))
        mark = object()
        self._events[event] = (stream, mark)
        self._ask(stream, ("mark", mark, None))

    def stream_waits(self, stream, event):
        self._called("stream_waits", (stream, event))
        self._ask(stream, ("wait", self._events[event], None))

    def wait(self, event):
        self._called("wait", event)
        self._reach(self._events[event])

    def upload(self, device, pinned, n_bytes, stream):
        self._called("upload", n_bytes)
        self._check(device, "device", n_bytes), self._check(pinned, "pinned", n_bytes)
        self._ask(stream, ("do", "upload", lambda: ctypes.memmove(device, pinned, n_bytes)))

    def download(self, pinned, device, n_bytes, stream):
        self._called("download", n_bytes)
        self._check(device, "device", n_bytes), self._check(pinned, "pinned", n_bytes)
        self._ask(stream, ("do", "download", lambda: ctypes.memmove(pinned, device, n_bytes)))

    def capture(self, stream, enqueue):
        self._called("capture", stream)
        self._capturing = (stream, [])
        try:
            enqueue()
            return self._numbered(self._graphs, self._capturing[1])
        finally:
            self._capturing = None

    def launch(self, graph, stream):
        self._called("launch", graph)
        for step in self._graphs[graph]:
            self._ask(stream, step)

    def destroy_graph(self, graph):
        self._called("destroy_graph", graph)
        del self._graphs[graph]

    # --- what a network on it calls

    def kernel(self, name, stream, work):
        """Ask a stream for some work, as TensorRT does."""
        self._called("kernel", name)
        self._ask(stream, ("do", name, work))

    def bytes_at(self, address, n_bytes, kind="device"):
        """View memory; nothing but the device's own may be looked at so."""
        self._check(address, kind, n_bytes)
        return (ctypes.c_uint8 * n_bytes).from_address(address)

    @property
    def held(self):
        """What was not given back."""
        counted = {"streams": len(self._queues), "events": len(self._events), "graphs": len(self._graphs)}
        for kind in ("device", "pinned"):
            counted[kind] = sum(1 for found, _, _ in self._memory.values() if found == kind)
        return {name: count for name, count in counted.items() if count}

    def names(self, *wanted):
        """The calls of these names, in order."""
        return [name for name, _ in self.calls if name in wanted]

    # --- the rules

    def _called(self, name, what=None):
        self.calls.append((name, what))
        if name in self.failing:
            raise EngineError(f"the CUDA device refused {name}")

    def _numbered(self, table, thing):
        number, self._next = self._next, self._next + 1
        table[number] = thing
        return number

    def _allocate(self, kind, n_bytes):
        self._called(f"allocate {kind}", n_bytes)
        assert n_bytes > 0
        held = sum(size for found, size, _ in self._memory.values() if found == kind == "device")
        if kind == "device" and self.most_bytes is not None and held + n_bytes > self.most_bytes:
            raise OutOfDeviceMemory(f"{n_bytes} bytes of device memory are not to be had on the CUDA device; use smaller tiles")
        memory = ctypes.create_string_buffer(b"\xaa" * (n_bytes + 256), n_bytes + 256)  # never zero: it is nobody's
        address = -(-ctypes.addressof(memory) // 256) * 256
        self._memory[address] = (kind, n_bytes, memory)
        return address

    def _free(self, kind, address):
        self._called(f"free {kind}", address)
        assert self._memory[address][0] == kind
        assert not any(step[0] == "do" for queue in self._queues.values() for step in queue), "memory was freed while in use"
        del self._memory[address]

    def _check(self, address, kind, n_bytes):
        found, size, _ = self._memory[address]
        assert found == kind and n_bytes <= size, (found, kind, size, n_bytes)

    def _ask(self, stream, step):
        if self._capturing is not None and self._capturing[0] == stream:
            self._capturing[1].append(step)
            return
        self._queues[stream].append(step)
        if self.order == "soon":
            self.synchronize_all()
        elif isinstance(self.order, int):
            for _ in range(self._random.randrange(3)):
                waiting = [number for number, queue in self._queues.items() if queue]
                if waiting:
                    self._advance(self._random.choice(waiting))

    def synchronize_all(self):
        for stream in list(self._queues):
            while self._queues[stream]:
                self._advance(stream)

    def _advance(self, stream):
        """Do the next thing in a stream, after what it waits for."""
        kind, what, work = self._queues[stream][0]
        if kind == "wait":
            self._reach(what)
        self._queues[stream].popleft()
        if kind == "do":
            self.done.append(what)
            work()

    def _reach(self, marked):
        if marked is None:
            return  # an event that was never recorded is no reason to wait
        stream, mark = marked
        while any(step[0] == "mark" and step[1] is mark for step in self._queues[stream]):
            self._advance(stream)
