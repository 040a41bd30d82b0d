"""The rules for windows: operations that look at a neighbourhood, or change the size of the image.

Each function receives a node and what is known of its inputs, and hands on what is known of its output: see
`live_restore.models.geometry.reach`. It does not know the graph as a whole.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from fractions import Fraction
from math import ceil, floor
from typing import Any

import numpy as np

from live_restore.engines.graphs.onnx_file import Node
from live_restore.models.geometry.reach import MOST_STEP, Feature, Part, Value, as_feature, plain_axis, space_of
from live_restore.models.geometry.shape_arithmetic import integers


@dataclass(frozen=True, slots=True)
class Window:
    """How a convolution or pooling moves along one axis, in pixels of its own input."""

    kernel: int
    stride: int
    dilation: int
    pads: tuple[int, int]

    @property
    def span(self) -> int:
        """Distance from its first to its last pixel."""
        return (self.kernel - 1) * self.dilation

    def sources(self, j: int) -> tuple[int, int]:
        """Tell which input pixels, first and last, reach output pixel j when the convolution is transposed."""
        # input i reaches i * stride + tap - pad, for the taps 0..span
        at = j + self.pads[0]
        return ceil(Fraction(at - self.span, self.stride)), at // self.stride


def _windows(node: Node, sizes: tuple[int, ...], kernel: Iterable[int]) -> list[Window]:
    n = len(sizes)
    kernel = node.attributes.get("kernel_shape") or list(kernel)
    strides = node.attributes.get("strides") or [1] * n
    dilations = node.attributes.get("dilations") or [1] * n
    pads = node.attributes.get("pads") or [0] * 2 * n
    moves = zip(kernel, strides, dilations, zip(pads[:n], pads[n:], strict=True), strict=True)
    windows = [Window(*move) for move in moves]
    return [_auto_padded(node, size, window) for size, window in zip(sizes, windows, strict=True)]


def _auto_padded(node: Node, size: int, window: Window) -> Window:
    mode = node.attributes.get("auto_pad", "NOTSET")
    if mode == "VALID":
        return replace(window, pads=(0, 0))
    if not mode.startswith("SAME"):
        return window
    if node.op == "ConvTranspose":
        total = window.span + 1 - window.stride
    else:
        total = (ceil(size / window.stride) - 1) * window.stride + window.span + 1 - size
    less, more = max(total, 0) // 2, max(total, 0) - max(total, 0) // 2
    return replace(window, pads=(less, more) if mode == "SAME_UPPER" else (more, less))


def _slide(node: Node, feature: Feature, kernel: Iterable[int], channels: int) -> Feature:
    """Move windows over the spatial axes; `channels` come out."""
    axes, reach = list(feature.axes), dict(feature.reach)
    axes[1] = plain_axis(channels)
    windows = _windows(node, feature.shape[2:], kernel)
    for place, window in enumerate(windows, start=2):
        size = feature.shape[place] + sum(window.pads) - window.span
        if not axes[place]:  # pooled to one pixel: a 1x1 convolution there looks at nothing else
            axes[place] = plain_axis((size - 1) // window.stride + 1)
            continue
        space = space_of(axes[place])
        reach[space] = reach[space].read(-window.pads[0], window.span - window.pads[0], window.stride)
        rounded = ceil if node.attributes.get("ceil_mode") else floor
        axes[place] = (Part(rounded(Fraction(size - 1, window.stride)) + 1, space),)
    return Feature(tuple(axes), reach, feature.whole)


def convolve(node: Node, inputs: list[Any]) -> Value:
    """Conv: windows over all channels."""
    image, weight = inputs[0], inputs[1]
    return _slide(node, as_feature(image), weight.shape[2:], weight.shape[0])


def pool(node: Node, inputs: list[Any]) -> Value:
    """MaxPool and AveragePool: windows channel by channel."""
    feature = as_feature(inputs[0])
    return _slide(node, feature, (), feature.shape[1])


def convolve_transposed(node: Node, inputs: list[Any]) -> Value:
    """ConvTranspose: every input pixel is spread over a window of a larger image."""
    feature, weight = as_feature(inputs[0]), inputs[1]
    if node.attributes.get("output_shape"):
        raise ValueError("it fixes the size of its output")
    axes, reach = list(feature.axes), dict(feature.reach)
    axes[1] = plain_axis(weight.shape[1] * node.attributes.get("group", 1))
    windows = _windows(node, feature.shape[2:], weight.shape[2:])
    extra = node.attributes.get("output_padding") or [0] * len(windows)
    for place, (window, more) in enumerate(zip(windows, extra, strict=True), start=2):
        space = space_of(axes[place])
        first, last = _phases(window.stride, window.sources)
        reach[space] = reach[space].read(first, last, Fraction(1, window.stride))
        size = (feature.shape[place] - 1) * window.stride + window.span + 1 - sum(window.pads) + more
        axes[place] = (Part(size, space),)
    return Feature(tuple(axes), reach, feature.whole)


def _phases(up: int, reads: Callable[[int], tuple[int, int]], down: int = 1) -> tuple[Fraction, Fraction]:
    """Find the furthest reads, relative to ``j * down / up``, over all phases of an enlargement.

    Parameters
    ----------
    up, down : int
        Output pixel j lies at input pixel ``j * down / up``.
    reads : function
        Output pixel j to the first and last input pixel that it reads.
    """
    if up > MOST_STEP:
        raise ValueError(f"it enlarges by {up}")
    spans = [(reads(j), Fraction(j * down, up)) for j in range(up)]
    return min(first - at for (first, _), at in spans), max(last - at for (_, last), at in spans)


def resize(node: Node, inputs: list[Any]) -> Value:
    """Resize and Upsample."""
    feature = as_feature(inputs[0])
    axes, reach = list(feature.axes), dict(feature.reach)
    for place, ratio in enumerate(_ratios(node, feature.shape, inputs)):
        if ratio == 1:
            continue
        space = space_of(axes[place])
        reads = _resize_reads(node, ratio)
        first, last = _phases(ratio.numerator, reads, ratio.denominator)
        reach[space] = reach[space].read(first, last, 1 / ratio)
        axes[place] = (Part(floor(feature.shape[place] * ratio), space),)
    return Feature(tuple(axes), reach, feature.whole)


def _ratios(node: Node, shape: tuple[int, ...], inputs: list[Any]) -> list[Fraction]:
    """Read the enlargement of every axis, from scales (as attribute, or as input 1 or 2) or from sizes (input 3)."""
    if node.op == "Upsample" and "scales" in node.attributes:
        scales = node.attributes["scales"]
    elif len(inputs) > 3 and inputs[3] is not None and inputs[3].size:
        return [Fraction(size, before) for size, before in zip(integers(inputs[3]), shape, strict=True)]
    else:
        at = 1 if node.op == "Upsample" or node.opset < 11 else 2
        scales = np.asarray(inputs[at]).ravel().tolist()
    return [Fraction(scale).limit_denominator(MOST_STEP) for scale, _ in zip(scales, shape, strict=True)]


def _resize_reads(node: Node, ratio: Fraction) -> Callable[[int], tuple[int, int]]:
    half_pixel = {"half_pixel", "pytorch_half_pixel", "half_pixel_symmetric"}
    where = node.attributes.get("coordinate_transformation_mode", "half_pixel" if node.opset >= 11 else "asymmetric")
    where = "asymmetric" if node.op == "Upsample" else where
    if where not in half_pixel | {"asymmetric"}:
        raise ValueError(f"it resizes with {where!r}; use 'asymmetric' or 'half_pixel' (align_corners=False)")
    if node.attributes.get("antialias"):
        raise ValueError("it resizes with antialiasing")
    shift = Fraction(1, 2) if where in half_pixel else Fraction(0)
    around = {"nearest": 0, "linear": 1, "cubic": 2}[node.attributes.get("mode", "nearest")]

    def reads(j: int) -> tuple[int, int]:
        at = (j + shift) / ratio - shift
        if around:
            return floor(at) - around + 1, ceil(at) + around - 1
        return _nearest(node, at), _nearest(node, at)

    return reads


def _nearest(node: Node, at: Fraction) -> int:
    mode = node.attributes.get("nearest_mode", "round_prefer_floor" if node.opset >= 11 and node.op == "Resize" else "floor")
    half = Fraction(1, 2)
    return {
        "floor": floor(at),
        "ceil": ceil(at),
        "round_prefer_floor": ceil(at - half),
        "round_prefer_ceil": floor(at + half),
    }[mode]


def to_depth(node: Node, inputs: list[Any]) -> Value:
    """SpaceToDepth: boxes of pixels become channels."""
    feature, box = as_feature(inputs[0]), node.attributes["blocksize"]
    axes, reach = list(feature.axes), dict(feature.reach)
    axes[1] = plain_axis(feature.shape[1] * box**2)
    for place in (2, 3):
        space = space_of(axes[place])
        reach[space] = reach[space].read(0, box - 1, box)
        axes[place] = (Part(feature.shape[place] // box, space),)
    return Feature(tuple(axes), reach, feature.whole)


def to_space(node: Node, inputs: list[Any]) -> Value:
    """DepthToSpace: channels become boxes of pixels."""
    feature, box = as_feature(inputs[0]), node.attributes["blocksize"]
    axes, reach = list(feature.axes), dict(feature.reach)
    axes[1] = plain_axis(feature.shape[1] // box**2)
    for place in (2, 3):
        space = space_of(axes[place])
        reach[space] = reach[space].read(Fraction(1 - box, box), 0, Fraction(1, box))
        axes[place] = (Part(feature.shape[place] * box, space),)
    return Feature(tuple(axes), reach, feature.whole)
