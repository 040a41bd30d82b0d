"""The operations of ONNX in torch: one small function each, `OPERATIONS` says which.

Receives a node and tensors, its inputs in order (None for one left out); hands on a tensor, or several. It does not know the
graph, nor on which device the tensors lie.
"""

from collections.abc import Callable, Sequence
from math import ceil, prod
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from live_restore.engines.graphs.onnx_file import Node

Operation = Callable[..., Any]


def _numbers(tensor: Tensor | None) -> list[int]:
    return [] if tensor is None else [int(number) for number in tensor.ravel().tolist()]


def _padded(node: Node, image: Tensor, kernel: Sequence[int], fill: float = 0.0) -> Tensor:
    """Pad as ``pads`` or ``auto_pad`` say, where torch's own symmetric padding is not enough."""
    pads = _pads(node, image.shape[2:], kernel)
    return functional.pad(image, _interleaved(pads), value=fill) if any(pads) else image


def _pads(node: Node, sizes: Sequence[int], kernel: Sequence[int]) -> list[int]:
    n = len(sizes)
    mode = node.attributes.get("auto_pad", "NOTSET")
    if not mode.startswith("SAME"):
        return list(node.attributes.get("pads") or [0] * 2 * n) if mode == "NOTSET" else [0] * 2 * n
    strides, dilations = _strides(node, n), node.attributes.get("dilations") or [1] * n
    moves = zip(sizes, kernel, strides, dilations, strict=True)
    totals = [max(0, (ceil(size / s) - 1) * s + (k - 1) * d + 1 - size) for size, k, s, d in moves]
    less, more = [total // 2 for total in totals], [total - total // 2 for total in totals]
    return less + more if mode == "SAME_UPPER" else more + less


def _strides(node: Node, n: int) -> list[int]:
    return list(node.attributes.get("strides") or [1] * n)


def _interleaved(pads: Sequence[int]) -> list[int]:
    """ONNX lists all beginnings, then all ends; torch wants (begin, end) pairs from the last axis on."""
    n = len(pads) // 2
    return [pad for axis in reversed(range(n)) for pad in (pads[axis], pads[axis + n])]


def _conv(node: Node, image: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    n = weight.ndim - 2
    conv = (functional.conv1d, functional.conv2d, functional.conv3d)[n - 1]
    pads = _pads(node, image.shape[2:], weight.shape[2:])
    if pads[:n] != pads[n:]:
        image, pads = functional.pad(image, _interleaved(pads)), [0] * 2 * n
    dilations, groups = node.attributes.get("dilations") or 1, node.attributes.get("group", 1)
    return conv(image, weight, bias, stride=_strides(node, n), padding=pads[:n], dilation=dilations, groups=groups)


def _conv_transpose(node: Node, image: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    n = weight.ndim - 2
    conv = (functional.conv_transpose1d, functional.conv_transpose2d, functional.conv_transpose3d)[n - 1]
    dilations, strides = node.attributes.get("dilations") or [1] * n, _strides(node, n)
    extra = node.attributes.get("output_padding") or [0] * n
    pads = _transposed_pads(node, weight.shape[2:], strides, dilations)
    # torch pads symmetrically: compute everything, and cut
    groups = node.attributes.get("group", 1)
    full = conv(image, weight, bias, stride=strides, output_padding=extra, groups=groups, dilation=dilations)
    for axis in range(n):
        full = full.narrow(axis + 2, pads[axis], full.shape[axis + 2] - pads[axis] - pads[axis + n])
    return full


def _transposed_pads(node: Node, kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int]) -> list[int]:
    mode = node.attributes.get("auto_pad", "NOTSET")
    if not mode.startswith("SAME"):
        return list(node.attributes.get("pads") or [0] * 2 * len(kernel))
    totals = [max(0, (k - 1) * d + 1 - s) for k, s, d in zip(kernel, strides, dilations, strict=True)]
    less, more = [total // 2 for total in totals], [total - total // 2 for total in totals]
    return less + more if mode == "SAME_UPPER" else more + less


def _max_pool(node: Node, image: Tensor) -> Tensor:
    kernel = node.attributes["kernel_shape"]
    pool = (functional.max_pool1d, functional.max_pool2d, functional.max_pool3d)[len(kernel) - 1]
    dilations, rounded_up = node.attributes.get("dilations") or 1, bool(node.attributes.get("ceil_mode"))
    padded = _padded(node, image, kernel, fill=-torch.inf)
    return pool(padded, kernel, stride=_strides(node, len(kernel)), dilation=dilations, ceil_mode=rounded_up)


def _average_pool(node: Node, image: Tensor) -> Tensor:
    kernel = node.attributes["kernel_shape"]
    pool = (functional.avg_pool1d, functional.avg_pool2d, functional.avg_pool3d)[len(kernel) - 1]
    stride, rounded_up = _strides(node, len(kernel)), bool(node.attributes.get("ceil_mode"))
    mean = pool(_padded(node, image, kernel), kernel, stride=stride, ceil_mode=rounded_up)
    if node.attributes.get("count_include_pad") or not any(_pads(node, image.shape[2:], kernel)):
        return mean
    counted = pool(_padded(node, torch.ones_like(image[:1, :1]), kernel), kernel, stride=stride, ceil_mode=rounded_up)
    return mean / counted


def _resize(node: Node, image: Tensor, *given: Tensor | None) -> Tensor:
    sizes = _resized(node, image, given)
    scales = [after / before for after, before in zip(sizes, image.shape[2:], strict=True)]
    mode = node.attributes.get("mode", "nearest")
    if mode == "nearest":
        return _nearest(node, image, [round(scale) for scale in scales], sizes)
    where = node.attributes.get("coordinate_transformation_mode", "half_pixel")
    if mode != "linear" or where not in ("half_pixel", "pytorch_half_pixel", "align_corners") or node.op == "Upsample":
        raise ValueError(f"resizing by {mode!r} at {where!r}")
    torch_mode = ("linear", "bilinear", "trilinear")[image.ndim - 3]
    return functional.interpolate(image, sizes, mode=torch_mode, align_corners=where == "align_corners")


def _nearest(node: Node, image: Tensor, factors: list[int], sizes: list[int]) -> Tensor:
    """Repeat pixels; all conventions of rounding agree where a size grows by a whole factor, except one."""
    whole = all(size == before * factor for size, before, factor in zip(sizes, image.shape[2:], factors, strict=True))
    where = node.attributes.get("coordinate_transformation_mode", "half_pixel" if node.opset >= 11 else "asymmetric")
    mode = node.attributes.get("nearest_mode", "round_prefer_floor" if node.opset >= 11 else "floor")
    repeats = node.op == "Upsample" or (where, mode) == ("asymmetric", "floor") or (where == "half_pixel" and "round" in mode)
    if not whole or not repeats:
        raise ValueError(f"nearest resizing from {tuple(image.shape[2:])} to {sizes} at {where!r} with {mode!r}")
    return functional.interpolate(image, sizes, mode="nearest")


def _resized(node: Node, image: Tensor, given: tuple[Tensor | None, ...]) -> list[int]:
    """Read the new spatial sizes from scales (as attribute, or as input 1 or 2) or from sizes (input 3)."""
    if len(given) > 2 and given[2] is not None and given[2].numel():
        return _numbers(given[2])[2:]
    at = 0 if node.op == "Upsample" or node.opset < 11 else 1
    scales = node.attributes["scales"] if "scales" in node.attributes else given[at].tolist()  # type: ignore[union-attr]
    return [int(size * scale) for size, scale in zip(image.shape[2:], scales[2:], strict=True)]


def _depth_to_space(node: Node, image: Tensor) -> Tensor:
    box = node.attributes["blocksize"]
    if node.attributes.get("mode", "DCR") == "CRD":
        return functional.pixel_shuffle(image, box)
    n, c, y, x = image.shape
    split = image.reshape(n, box, box, c // box**2, y, x)  # (N, box y, box x, C, Y, X)
    return split.permute(0, 3, 4, 1, 5, 2).reshape(n, c // box**2, y * box, x * box)


def _space_to_depth(node: Node, image: Tensor) -> Tensor:
    box = node.attributes["blocksize"]
    n, c, y, x = image.shape
    split = image.reshape(n, c, y // box, box, x // box, box)  # (N, C, Y, box y, X, box x)
    return split.permute(0, 3, 5, 1, 2, 4).reshape(n, c * box**2, y // box, x // box)


def _pad(node: Node, image: Tensor, *given: Tensor | None) -> Tensor:
    pads = list(node.attributes.get("pads") or _numbers(given[0]))
    if len(given) > 2 and given[2] is not None:
        raise ValueError("padding with a list of axes")
    mode = {"constant": "constant", "reflect": "reflect", "edge": "replicate"}[node.attributes.get("mode", "constant")]
    if mode == "constant":
        value = float(given[1]) if len(given) > 1 and given[1] is not None else node.attributes.get("value", 0.0)
        return functional.pad(image, _interleaved(pads), value=value)
    n = len(pads) // 2
    return functional.pad(image, _interleaved(pads[2:n] + pads[n + 2 :]), mode=mode)


def _slice(node: Node, tensor: Tensor, *given: Tensor | None) -> Tensor:
    old = "starts" in node.attributes
    starts, stops = (node.attributes["starts"], node.attributes["ends"]) if old else map(_numbers, given[:2])
    axes = node.attributes.get("axes", []) if old else _numbers(given[2] if len(given) > 2 else None)
    steps = [] if old else _numbers(given[3] if len(given) > 3 else None)
    for i, (start, stop) in enumerate(zip(starts, stops, strict=True)):
        axis = (axes[i] if axes else i) % tensor.ndim
        tensor = tensor[(slice(None),) * axis + (slice(start, stop, steps[i] if steps else 1),)]
    return tensor


def _split(node: Node, tensor: Tensor, sizes: Tensor | None = None) -> Sequence[Tensor]:
    axis = node.attributes.get("axis", 0)
    given = node.attributes.get("split") or _numbers(sizes)
    return torch.split(tensor, given or tensor.shape[axis] // len(node.outputs), axis)


def _reshape(node: Node, tensor: Tensor, shape: Tensor) -> Tensor:
    sizes = _numbers(shape)
    if not node.attributes.get("allowzero"):
        sizes = [size or tensor.shape[axis] for axis, size in enumerate(sizes)]
    return tensor.reshape(sizes)


def _axes(node: Node, given: Tensor | None) -> list[int]:
    return list(node.attributes.get("axes") or _numbers(given))


def _squeeze(node: Node, tensor: Tensor, axes: Tensor | None = None) -> Tensor:
    given = _axes(node, axes)
    return tensor.squeeze(given) if given else tensor.squeeze()


def _unsqueeze(node: Node, tensor: Tensor, axes: Tensor | None = None) -> Tensor:
    given = _axes(node, axes)
    for axis in sorted(axis % (tensor.ndim + len(given)) for axis in given):
        tensor = tensor.unsqueeze(axis)
    return tensor


def _reduction(reduce: Callable[..., Tensor]) -> Operation:
    def run(node: Node, tensor: Tensor, axes: Tensor | None = None) -> Tensor:
        given = _axes(node, axes) or ([] if node.attributes.get("noop_with_empty_axes") else list(range(tensor.ndim)))
        return reduce(tensor, given, keepdim=bool(node.attributes.get("keepdims", 1))) if given else tensor

    return run


def _softmax(node: Node, tensor: Tensor) -> Tensor:
    if node.opset >= 13:
        return tensor.softmax(node.attributes.get("axis", -1))
    axis = node.attributes.get("axis", 1) % tensor.ndim
    return tensor.flatten(axis).softmax(-1).reshape(tensor.shape)


def _batch_norm(node: Node, image: Tensor, scale: Tensor, bias: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
    return functional.batch_norm(image, mean, variance, scale, bias, eps=node.attributes.get("epsilon", 1e-5))


def _instance_norm(node: Node, image: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    return functional.instance_norm(image, weight=scale, bias=bias, eps=node.attributes.get("epsilon", 1e-5))


def _clip(node: Node, tensor: Tensor, low: Tensor | None = None, high: Tensor | None = None) -> Tensor:
    lowest = node.attributes.get("min") if low is None else low.item()
    highest = node.attributes.get("max") if high is None else high.item()
    return tensor.clip(lowest, highest) if lowest is not None or highest is not None else tensor


def _gather(node: Node, tensor: Tensor, indices: Tensor) -> Tensor:
    axis = node.attributes.get("axis", 0) % tensor.ndim
    if indices.numel() == 1:  # needs nothing on the device
        picked = tensor.narrow(axis, int(indices.item()) % tensor.shape[axis], 1)
        return picked.reshape((*tensor.shape[:axis], *indices.shape, *tensor.shape[axis + 1 :]))
    return tensor[(slice(None),) * axis + (indices.to(tensor.device) % tensor.shape[axis],)]


def _expand(_: Node, tensor: Tensor, shape: Tensor) -> Tensor:
    return tensor.expand(np.broadcast_shapes(tuple(tensor.shape), tuple(_numbers(shape))))


def _cast(node: Node, tensor: Tensor) -> Tensor:
    names = {
        1: torch.float32,
        4: torch.uint16,
        6: torch.int32,
        7: torch.int64,
        9: torch.bool,
        10: torch.float16,
        11: torch.float32,
        16: torch.bfloat16,
    }
    return tensor.to(names[node.attributes["to"]])


def _constant(node: Node) -> Tensor:
    value = next(value for name, value in node.attributes.items() if name.startswith("value"))
    return tensor_of(np.array(value, np.float32 if isinstance(value, float) else None))


def tensor_of(array: NDArray[Any]) -> Tensor:
    """Make a tensor of an array that came out of an ONNX file; it is a copy."""
    if array.dtype.name == "bfloat16":  # numpy has none of its own, so torch does not know it
        return torch.from_numpy(array.view(np.int16).copy()).view(torch.bfloat16)
    return torch.from_numpy(np.array(array))


def _constant_of_shape(node: Node, shape: Tensor) -> Tensor:
    value = node.attributes.get("value", np.zeros(1, np.float32))
    return torch.full(_numbers(shape), value.ravel()[0].item(), dtype=torch.from_numpy(np.array(value)).dtype)


def _divide(_: Node, a: Tensor, b: Tensor) -> Tensor:
    # whole numbers are divided towards zero, as in C
    return a / b if a.is_floating_point() else torch.div(a, b, rounding_mode="trunc")


OPERATIONS: dict[str, Operation] = {
    "Abs": lambda _, a: a.abs(),
    "Add": lambda _, a, b: a + b,
    "AveragePool": _average_pool,
    "BatchNormalization": _batch_norm,
    "Cast": _cast,
    "Ceil": lambda _, a: a.ceil(),
    "Clip": _clip,
    "Concat": lambda node, *tensors: torch.cat(tensors, node.attributes["axis"]),
    "Constant": _constant,
    "ConstantOfShape": _constant_of_shape,
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "DepthToSpace": _depth_to_space,
    "Div": _divide,
    "Dropout": lambda _, a, *rest: a,
    "Elu": lambda node, a: functional.elu(a, node.attributes.get("alpha", 1.0)),
    "Exp": lambda _, a: a.exp(),
    "Expand": _expand,
    "Flatten": lambda node, a: a.reshape(prod(a.shape[: node.attributes.get("axis", 1)]), -1),
    "Floor": lambda _, a: a.floor(),
    "Gather": _gather,
    "GlobalAveragePool": lambda _, a: a.mean(list(range(2, a.ndim)), keepdim=True),
    "GlobalMaxPool": lambda _, a: a.amax(list(range(2, a.ndim)), keepdim=True),
    "Identity": lambda _, a: a,
    "InstanceNormalization": _instance_norm,
    "LeakyRelu": lambda node, a: functional.leaky_relu(a, node.attributes.get("alpha", 0.01)),
    "Log": lambda _, a: a.log(),
    "MaxPool": _max_pool,
    "Mul": lambda _, a, b: a * b,
    "Neg": lambda _, a: -a,
    "PRelu": lambda _, a, slope: torch.where(a < 0, a * slope, a),
    "Pad": _pad,
    "Pow": lambda _, a, b: a.pow(b),
    "ReduceMax": _reduction(torch.amax),
    "ReduceMean": _reduction(torch.mean),
    "ReduceMin": _reduction(torch.amin),
    "ReduceSum": _reduction(torch.sum),
    "Relu": lambda _, a: a.relu(),
    "Reshape": _reshape,
    "Resize": _resize,
    "Round": lambda _, a: a.round(),
    "Shape": lambda node, a: torch.tensor(a.shape)[node.attributes.get("start", 0) : node.attributes.get("end")],
    "Sigmoid": lambda _, a: a.sigmoid(),
    "Slice": _slice,
    "Softmax": _softmax,
    "Softplus": lambda _, a: functional.softplus(a),
    "SpaceToDepth": _space_to_depth,
    "Split": _split,
    "Sqrt": lambda _, a: a.sqrt(),
    "Squeeze": _squeeze,
    "Sub": lambda _, a, b: a - b,
    "Tanh": lambda _, a: a.tanh(),
    "Transpose": lambda node, a: a.permute(node.attributes.get("perm") or list(range(a.ndim))[::-1]),
    "Unsqueeze": _unsqueeze,
    "Upsample": _resize,
}
