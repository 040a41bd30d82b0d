"""The engine on PyTorch: it runs the same ONNX graph as the others, operation by operation.

Receives an ONNX graph and batches; hands on what the graph makes of them. Only the operations in
`live_restore.engines.torch_operations` are run, and nothing else that may be in the file. A feature map is freed as soon as
nobody needs it any more. It does not know which network the graph is.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from live_restore.engines.batches import GraphInput, check_shapes, fit, last_line, misfit
from live_restore.engines.engine import EngineSpec, FloatArray, Offer, Precision
from live_restore.engines.onnx_file import Node, OnnxFile, read_onnx
from live_restore.engines.torch_operations import OPERATIONS
from live_restore.errors import EngineError, ModelError

Values = list[Tensor | None]


class TorchEngine:
    """See `live_restore.engines.engine.Engine`.

    Parameters
    ----------
    onnx : bytes
        Sizes fixed in the graph are ignored, except for the channels.
    precision : {"f32", "bf16"}
        bf16 is autocast: weights stay float32, convolutions compute in bfloat16.
    threads : int, optional
        CPU threads of torch, for the whole process; default: leave as they are.
    """

    def __init__(self, onnx: bytes, precision: Precision, threads: int | None = None) -> None:
        offer = self.offer()
        self.spec = EngineSpec("torch", offer.version, offer.device, precision)
        if threads is not None:
            torch.set_num_threads(threads)
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        file = _read(onnx)
        self._graph_inputs = [_graph_input(value) for value in file.inputs]
        self._output_names = file.output_names
        self._nodes = file.nodes
        self._weights = {
            name: _channels_last(_placed(torch.from_numpy(np.array(array)), self._device))
            for name, array in file.weights.items()
        }
        self._dead_after = _dead_after(file)

    @classmethod
    def offer(cls) -> Offer:
        """Ask torch for its device: the first CUDA device, or the processor."""
        if torch.cuda.is_available():
            return Offer(torch.__version__, torch.cuda.get_device_name(), ("f32", "bf16"))
        device = f"CPU ({torch.backends.cpu.get_cpu_capability()})"
        if torch.ops.mkldnn._is_mkldnn_bf16_supported():  # noqa: SLF001 (torch has no public name for it)
            return Offer(torch.__version__, device, ("f32", "bf16"))
        return Offer(torch.__version__, device, ("f32",), "bf16: this CPU has no bf16 arithmetic")

    def warm_up(self, *shapes: tuple[int, ...]) -> None:
        """Check the shapes; torch itself prepares nothing."""
        check_shapes(shapes, self._graph_inputs)

    def infer(self, *inputs: FloatArray) -> tuple[FloatArray, ...]:
        """Run the graph once."""
        if not self._nodes:
            raise EngineError("this torch engine is closed; open a new one")
        arrays = fit(inputs, self._graph_inputs)
        try:
            with torch.inference_mode(), self._arithmetic():
                return self._run(arrays)
        except (RuntimeError, MemoryError) as failed:
            if isinstance(failed, MemoryError | torch.OutOfMemoryError) or "memory" in str(failed):
                raise EngineError(f"torch ran out of memory ({last_line(failed)}); use smaller tiles") from failed
            raise misfit("torch", tuple(array.shape for array in arrays), failed) from failed

    def close(self) -> None:
        """Give back the weights."""
        self._weights, self._nodes = {}, []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _arithmetic(self) -> AbstractContextManager[object]:
        if self.spec.precision == "bf16":
            return torch.autocast(self._device.type, torch.bfloat16)
        if self._device.type == "cpu":
            return nullcontext()
        # cuDNN would otherwise round float32 to 10 bits of mantissa (TF32), which is not what f32 promises
        flags: AbstractContextManager[object] = torch.backends.cudnn.flags(enabled=True, allow_tf32=False)
        return flags

    def _run(self, arrays: Sequence[FloatArray]) -> tuple[FloatArray, ...]:
        live: dict[str, Tensor] = dict(self._weights)
        for graph_input, array in zip(self._graph_inputs, arrays, strict=True):
            live[graph_input.name] = _channels_last(torch.from_numpy(array).to(self._device))
        for node, dead in zip(self._nodes, self._dead_after, strict=True):
            made = _run_node(node, [live[name] if name else None for name in node.inputs])
            live.update(zip(node.outputs, (_placed(tensor, self._device) for tensor in made), strict=False))
            for name in dead:
                live.pop(name, None)  # an optional result may not have been made
        return tuple(_to_numpy(live[name]) for name in self._output_names)


def _read(onnx: bytes) -> OnnxFile:
    try:
        file = read_onnx(onnx)
    except ModelError as refused:
        raise EngineError(str(refused)) from refused
    for node in file.nodes:
        if node.op not in OPERATIONS:
            raise EngineError(f"the torch engine does not know {node.words}; run this network with another engine")
    return file


def _graph_input(value: Any) -> GraphInput:
    dims = value.type.tensor_type.shape.dim
    return GraphInput(value.name, len(dims), dims[1].dim_value or None if len(dims) > 1 else None)


def _dead_after(file: OnnxFile) -> list[list[str]]:
    """List for every node the tensors that nobody needs after it."""
    last_use = {name: at for at, node in enumerate(file.nodes) for name in (*node.outputs, *node.inputs) if name}
    kept = set(file.output_names) | set(file.weights)
    dead: list[list[str]] = [[] for _ in file.nodes]
    for name, at in last_use.items():
        if name not in kept:
            dead[at].append(name)
    return dead


def _run_node(node: Node, inputs: Values) -> Sequence[Tensor]:
    try:
        made = OPERATIONS[node.op](node, *inputs)
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as wrong:
        raise EngineError(f"torch cannot run {node.words}: {wrong}; run this network with another engine") from wrong
    return (made,) if isinstance(made, Tensor) else made


def _placed(tensor: Tensor, device: torch.device) -> Tensor:
    """Put a tensor where it belongs; whole numbers are shape arithmetic and stay on the CPU."""
    return tensor.to(device) if tensor.is_floating_point() else tensor.cpu()


def _channels_last(tensor: Tensor) -> Tensor:
    """Lay channels innermost, which makes convolutions on the CPU about 1.5 times faster."""
    if tensor.ndim not in (4, 5):
        return tensor
    return tensor.contiguous(memory_format=torch.channels_last if tensor.ndim == 4 else torch.channels_last_3d)


def _to_numpy(tensor: Tensor) -> FloatArray:
    # a copy, since a graph may hand out its input or a weight as its result
    return np.array(tensor.float().cpu().numpy(), order="C")
