"""The CUDA runtime through NVIDIA's cuda-python: the one file that knows its names.

Receives the calls of `live_restore.engines.cuda.calls.Cuda`; hands on what the driver gives, and every error code as an
`EngineError` in words. It does not know TensorRT, networks or images.

Source: NVIDIA, CUDA Runtime API 13, and the docstrings of ``cuda.bindings.runtime``.
"""

from collections.abc import Callable
from typing import Any

from cuda.bindings import runtime

from live_restore.engines.cuda.calls import CudaDevice, OutOfDeviceMemory
from live_restore.errors import EngineError, EngineUnavailable

_NO_DEVICE = "no CUDA device can be used here"
_CURE = "install the driver of an NVIDIA card (nvidia.com/drivers), or use --engine openvino"
_ASYNC = 0  # no flags


class CudaRuntime:
    """The first CUDA device; see `live_restore.engines.cuda.calls.Cuda`.

    Raises
    ------
    EngineUnavailable
        If there is no driver or no device.
    """

    def __init__(self) -> None:
        check_found(*runtime.cudaGetDeviceCount())

    def device(self) -> CudaDevice:
        """Describe the device."""
        properties = _done("cudaGetDeviceProperties", runtime.cudaGetDeviceProperties(0))
        driver = int(_done("cudaDriverGetVersion", runtime.cudaDriverGetVersion()))
        free, total = _done("cudaMemGetInfo", runtime.cudaMemGetInfo())
        name = properties.name.decode("utf-8", "replace").rstrip("\0")
        driver_words = f"{driver // 1000}.{driver % 1000 // 10}"  # 13040 is 13.4
        return CudaDevice(name, (int(properties.major), int(properties.minor)), driver_words, int(free), int(total))

    def allocate(self, n_bytes: int) -> int:
        """Give the address of device memory; CUDA aligns it to 256 bytes."""
        return int(_allocated("device", n_bytes, runtime.cudaMalloc(n_bytes)))

    def free(self, address: int) -> None:
        """Give device memory back."""
        _done("cudaFree", runtime.cudaFree(address))

    def allocate_pinned(self, n_bytes: int) -> int:
        """Give the address of pinned host memory."""
        return int(_allocated("pinned host", n_bytes, runtime.cudaHostAlloc(n_bytes, runtime.cudaHostAllocDefault)))

    def free_pinned(self, address: int) -> None:
        """Give pinned memory back."""
        _done("cudaFreeHost", runtime.cudaFreeHost(address))

    def stream(self) -> int:
        """Make a stream that does not wait for the default one."""
        return int(_done("cudaStreamCreateWithFlags", runtime.cudaStreamCreateWithFlags(runtime.cudaStreamNonBlocking)))

    def destroy_stream(self, stream: int) -> None:
        """Give a stream back."""
        _done("cudaStreamDestroy", runtime.cudaStreamDestroy(stream))

    def synchronize(self, stream: int) -> None:
        """Wait here until all that was asked of the stream is done."""
        _done("cudaStreamSynchronize", runtime.cudaStreamSynchronize(stream))

    def event(self) -> int:
        """Make an event without a clock; waiting for it lets the processor do something else."""
        flags = runtime.cudaEventDisableTiming | runtime.cudaEventBlockingSync
        return int(_done("cudaEventCreateWithFlags", runtime.cudaEventCreateWithFlags(flags)))

    def destroy_event(self, event: int) -> None:
        """Give an event back."""
        _done("cudaEventDestroy", runtime.cudaEventDestroy(event))

    def record(self, event: int, stream: int) -> None:
        """Mark what was asked of the stream so far."""
        _done("cudaEventRecord", runtime.cudaEventRecord(event, stream))

    def stream_waits(self, stream: int, event: int) -> None:
        """Let a stream wait until what the event marks is done."""
        _done("cudaStreamWaitEvent", runtime.cudaStreamWaitEvent(stream, event, _ASYNC))

    def wait(self, event: int) -> None:
        """Wait here until what the event marks is done."""
        _done("cudaEventSynchronize", runtime.cudaEventSynchronize(event))

    def upload(self, device: int, pinned: int, n_bytes: int, stream: int) -> None:
        """Copy from pinned to device memory."""
        kind = runtime.cudaMemcpyKind.cudaMemcpyHostToDevice
        _done("cudaMemcpyAsync", runtime.cudaMemcpyAsync(device, pinned, n_bytes, kind, stream))

    def download(self, pinned: int, device: int, n_bytes: int, stream: int) -> None:
        """Copy from device to pinned memory."""
        kind = runtime.cudaMemcpyKind.cudaMemcpyDeviceToHost
        _done("cudaMemcpyAsync", runtime.cudaMemcpyAsync(pinned, device, n_bytes, kind, stream))

    def capture(self, stream: int, enqueue: Callable[[], None]) -> int:
        """Make a graph; other threads may go on allocating meanwhile."""
        mode = runtime.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        _done("cudaStreamBeginCapture", runtime.cudaStreamBeginCapture(stream, mode))
        try:
            enqueue()
        except BaseException:
            runtime.cudaStreamEndCapture(stream)  # the stream must leave capture; what it says about it is of no use
            raise
        graph = _done("cudaStreamEndCapture", runtime.cudaStreamEndCapture(stream))
        try:
            return int(_done("cudaGraphInstantiate", runtime.cudaGraphInstantiate(graph, _ASYNC)))
        finally:
            _done("cudaGraphDestroy", runtime.cudaGraphDestroy(graph))

    def launch(self, graph: int, stream: int) -> None:
        """Ask the stream to do what is in the graph."""
        _done("cudaGraphLaunch", runtime.cudaGraphLaunch(graph, stream))

    def destroy_graph(self, graph: int) -> None:
        """Give a graph back."""
        _done("cudaGraphExecDestroy", runtime.cudaGraphExecDestroy(graph))


def check_found(code: Any, count: int | None) -> None:
    """Refuse what the driver answers where there is no device."""
    if code != runtime.cudaError_t.cudaSuccess:
        raise EngineUnavailable(f"{_NO_DEVICE}: {_words(code)}; {_CURE}")
    if not count:
        raise EngineUnavailable(f"{_NO_DEVICE}: the driver knows none; {_CURE}")


def _done(call: str, answer: tuple[Any, ...]) -> Any:
    """Take the values out of an answer (error code, values...), or raise what the code means."""
    code, *values = answer
    if code != runtime.cudaError_t.cudaSuccess:
        raise EngineError(f"the CUDA device refused {call}: {_words(code)}; if it goes on, start the restore process again")
    return values[0] if len(values) == 1 else tuple(values)


def _allocated(where: str, n_bytes: int, answer: tuple[Any, ...]) -> Any:
    if answer[0] == runtime.cudaError_t.cudaErrorMemoryAllocation:
        raise OutOfDeviceMemory(
            f"{n_bytes / 1e6:.6g} MB of {where} memory are not to be had on the CUDA device; use smaller tiles"
        )
    return _done(f"{n_bytes} bytes of {where} memory", answer)


def _words(code: Any) -> str:
    _, text = runtime.cudaGetErrorString(code)
    return f"{text.decode('utf-8', 'replace')} ({code.name})"
