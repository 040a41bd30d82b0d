"""The geometry of a network, read off its ONNX graph: receptive field, divisibility, memory and arithmetic.

Receives an ONNX graph; hands on `Geometry`. Walks the operations in order with an image so large that its sizes tell the
axes apart; no pixel is computed. What single operations do is in `operation_rules`. It does not know
which network it is, nor tiles.
"""

from dataclasses import dataclass, field
from fractions import Fraction
from math import ceil, lcm, prod
from typing import Any

import numpy as np

from live_restore.engines.graphs.onnx_file import Node, OnnxFile, read_onnx
from live_restore.errors import ModelError
from live_restore.models.facts import Geometry
from live_restore.models.geometry.operation_rules import POINTWISE, RULES
from live_restore.models.geometry.reach import Feature, Part, Reach, Value
from live_restore.models.geometry.shape_arithmetic import fold

# Sizes of the imaginary image, by number of spatial axes: divisible by everything likely, each different.
_SIZES = {2: (1024 * 45, 1024 * 63), 3: (1024 * 27, 1024 * 45, 1024 * 63)}

# Tensors without Z, behind a projection, are shared by the planes of the volume: by this many, nominally.
_PROJECTED_PLANES = 8

_FLOAT_BYTES = 4


def measure_geometry(onnx: bytes) -> Geometry:
    """Measure how a graph treats space.

    Parameters
    ----------
    onnx : bytes
        One input (N, C, [Z,] Y, X) with fixed C, one output (N, C', [Z,] Y, X). Fixed batch and image sizes are taken
        for a habit of the exporter, unless the graph depends on them.

    Returns
    -------
    Geometry
        `halo` is an upper bound, and tight for CARE and RCAN. Along an axis that is projected away `output_factor` is 0
        and `halo` is 0: such an axis must never be split, every tile holds the whole of it. `bytes_per_pixel` counts
        pointwise operations as done in place, which is what engines do; `flop_per_pixel` counts convolutions. Both take
        what lies behind a projection as shared by 8 planes.

    Raises
    ------
    ModelError
        If this is no image network, or has an operation whose reach is not known.
    """
    file = read_onnx(onnx)
    walk = _walk(file)
    name = file.output_names[0]
    output = walk.values.get(name)
    if not isinstance(output, Feature):
        raise ModelError(f"the output {name!r} of the graph does not depend on its input; export the network again")
    return Geometry(
        **_output_geometry(output, walk),
        divisible_by=walk.divisible_by(),
        bytes_per_pixel=_peak_bytes(file, walk),
        flop_per_pixel=_flops(file, walk),
    )


@dataclass
class _Walk:
    """What has been found at every tensor; `sizes` are those of the imaginary image, ([Z,] Y, X)."""

    sizes: tuple[int, ...]
    values: dict[str, Value] = field(default_factory=dict)

    @property
    def features(self) -> dict[str, Feature]:
        return {name: value for name, value in self.values.items() if isinstance(value, Feature)}

    def divisible_by(self) -> tuple[int, ...]:
        """Input sizes that keep every feature's size whole: the largest steps."""
        steps = [[f.reach[s].step for f in self.features.values() if s in f.reach] for s in range(len(self.sizes))]
        return tuple(lcm(*(step.numerator for step in axis)) for axis in steps)


def _walk(file: OnnxFile) -> _Walk:
    name, channels, n_dim = _image_input(file)
    axes = ((), (Part(channels),) if channels > 1 else (), *((Part(size, s),) for s, size in enumerate(_SIZES[n_dim])))
    walk = _Walk(_SIZES[n_dim], dict(file.weights))
    walk.values[name] = Feature(axes, {s: Reach() for s in range(n_dim)})
    for node in file.nodes:
        for output, value in zip(node.outputs, _follow(node, walk), strict=False):
            walk.values[output] = value
    return walk


def _follow(node: Node, walk: _Walk) -> list[Value]:
    """Find what one node makes of its inputs."""
    try:
        inputs = [walk.values[name] if name else None for name in node.inputs]
        if not any(isinstance(value, Feature) for value in inputs):
            known = fold(node, inputs)  # type: ignore[arg-type]
            if known is not None:
                return [known]
        found = RULES[node.op](node, inputs) if node.op in RULES else None
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, ArithmeticError) as reason:
        raise ModelError(
            f"{node.words} of the ONNX graph cannot be followed: {_words(reason)}; export it with open image sizes and plain "
            "operations"
        ) from reason
    if found is None:
        raise ModelError(
            f"the ONNX graph uses {node.words}, whose reach is not known; networks may use {', '.join(sorted(RULES))}"
        )
    return found if isinstance(found, list) else [found]


def _words(reason: Exception) -> str:
    return str(reason) if type(reason) is ValueError else f"{type(reason).__name__} {reason}"


def _image_input(file: OnnxFile) -> tuple[str, int, int]:
    """Find the one image input: its name, its channels, its number of spatial axes."""
    if len(file.inputs) != 1 or len(file.output_names) != 1:
        raise ModelError(
            f"the ONNX graph has {len(file.inputs)} inputs and {len(file.output_names)} outputs; an image network has one of "
            "each, so export it with the restored image as its only output"
        )
    dims = file.inputs[0].type.tensor_type.shape.dim
    if len(dims) not in (4, 5):
        raise ModelError(
            f"the input of the ONNX graph has {len(dims)} axes; an image network takes 4 (N, C, Y, X) or 5 (N, C, Z, Y, X)"
        )
    if not dims[1].dim_value > 0:
        raise ModelError("the ONNX graph leaves the number of channels open; export it with a fixed axis 1 (N, C, [Z,] Y, X)")
    return file.inputs[0].name, dims[1].dim_value, len(dims) - 2


def _output_geometry(output: Feature, walk: _Walk) -> dict[str, Any]:
    kept = _kept_axes(output, len(walk.sizes))
    reach = [output.reach[space] if space in kept else Reach() for space in range(len(walk.sizes))]
    factors = [_factor(output.shape[kept[space]], size) if space in kept else 0 for space, size in enumerate(walk.sizes)]
    return {
        "halo": tuple(max(0, ceil(r.left), ceil(r.right)) for r in reach),
        "output_factor": tuple(factors),
        "global_pooling": bool(output.whole & set(kept)),
    }


def _kept_axes(output: Feature, n_dim: int) -> dict[int, int]:
    """Find at which place of the output, (N, C, [Z,] Y, X), every spatial axis of the input is."""
    places = {axis[0].space: place for place, axis in enumerate(output.axes) if len(axis) == 1 and axis[0].space is not None}
    spatial = list(places.items())
    in_order = spatial == sorted(spatial) and [place for _, place in spatial] == list(range(2, 2 + len(spatial)))
    if not in_order or len(output.axes) != 2 + len(spatial) or not {n_dim - 2, n_dim - 1} <= set(places):
        raise ModelError(
            f"the output of the ONNX graph has shape {output.shape} for an image of {_SIZES[n_dim]}, which is no image "
            "(N, C, [Z,] Y, X); export the network that restores images"
        )
    return {space: place for space, place in places.items() if space is not None}


def _factor(size: int, input_size: int) -> int:
    if size % input_size or not size:
        raise ModelError(
            f"the network turns {input_size} pixels into {size}; it must keep or multiply sizes, so export it with "
            "padding that keeps sizes ('same')"
        )
    return size // input_size


def _per_pixel(feature: Feature, n_dim: int) -> Fraction:
    """Values of a feature per pixel of the input image."""
    if not {n_dim - 2, n_dim - 1} <= set(feature.reach):
        return Fraction(0)  # pooled: a few values per image
    shared = 1 if len(feature.reach) == n_dim else _PROJECTED_PLANES
    return Fraction(feature.channels()) / prod(reach.step for reach in feature.reach.values()) / shared


def _peak_bytes(file: OnnxFile, walk: _Walk) -> int:
    """Add up the features alive at every node, and take the largest sum."""
    size = {name: _per_pixel(feature, len(walk.sizes)) for name, feature in walk.features.items()}
    last_use = {name: at for at, node in enumerate(file.nodes) for name in node.inputs}
    last_use |= dict.fromkeys(file.output_names, len(file.nodes))
    alive = {file.inputs[0].name}
    peak = Fraction(0)
    for at, node in enumerate(file.nodes):
        dying = {name for name in alive if last_use.get(name, -1) <= at}
        made = {name for name in node.outputs if name in size}
        in_place = node.op in POINTWISE and any(size[a] == size[b] for a in dying & set(node.inputs) for b in made)
        peak = max(peak, sum((size[name] for name in alive), Fraction(0)) + (0 if in_place else sum(size[n] for n in made)))
        alive = (alive - dying) | {name for name in made if name in last_use}
    return max(1, ceil(peak * _FLOAT_BYTES))


def _flops(file: OnnxFile, walk: _Walk) -> int:
    """Count the multiplications and additions of the convolutions; all else is a hundredth of them."""
    total = Fraction(0)
    for node in file.nodes:
        if node.op in ("Conv", "ConvTranspose"):
            weight = np.shape(walk.values[node.inputs[1]])
            ends = node.outputs[0] if node.op == "Conv" else node.inputs[0]
            total += 2 * _per_pixel(walk.features[ends], len(walk.sizes)) * prod(weight[1:])
    return ceil(total)
