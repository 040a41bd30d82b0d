"""The work that a peer is given: the same network, the same weights, the same image, and the same range.

Receives a model package and an image; hands on the options of a peer's program, or the reason why a peer cannot do this work.
It does not know how a peer is started.
"""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from live_restore.models.facts import ModelFacts
from live_restore.models.nets import NETS
from live_restore.models.package import ModelPackage
from live_restore.models.ranges import as_range, input_range

# Options of our CARE that CSBDeep's has not.
_OURS_ALONE = ("entry", "skip_kernel")


def parse_size(text: str) -> tuple[int, ...]:
    """``512x512`` to (512, 512), ``16x256x256`` to (16, 256, 256).

    Raises
    ------
    ValueError
        If it is neither.
    """
    sides = text.lower().split("x")
    if len(sides) not in (2, 3) or not all(side.strip().isdecimal() and int(side) > 0 for side in sides):
        raise ValueError(f"'{text}' is no size; write rows x columns, or planes x rows x columns: 512x512, 16x256x256")
    return tuple(map(int, sides))


def size_text(size: tuple[int, ...]) -> str:
    """(16, 256, 256) to ``16x256x256``."""
    return "x".join(map(str, size))


def why_peer_cannot(peer: str, facts: ModelFacts, size: tuple[int, ...]) -> str:
    """Say why a peer cannot do this work; empty if it can."""
    kind, structure = facts.architecture.kind, facts.architecture.options
    if facts.procedure != "direct":
        return f"the comparison covers networks that restore directly; this one's procedure is {facts.procedure}"
    if peer == "csbdeep":
        return _why_csbdeep_cannot(facts)
    if peer == "torch" and (kind not in NETS or not structure):
        return "this package holds a graph only; PyTorch needs the network's definition"
    if peer == "careamics":
        return _why_careamics_cannot(facts)
    uneven = any(side % step for side, step in zip(size, facts.geometry.divisible_by, strict=True))
    if uneven and peer in ("onnxruntime", "torch"):
        return f"{peer} pads nothing, and {size_text(size)} is not a multiple of {size_text(facts.geometry.divisible_by)}"
    return ""


def _why_csbdeep_cannot(facts: ModelFacts) -> str:
    kind, structure, rule = facts.architecture.kind, facts.architecture.options, facts.normalisation
    ours = [name for name in _OURS_ALONE if name in structure]
    if ours:
        return f"CSBDeep cannot build a CARE with {ours[0]}"
    if kind != "care" or not structure:
        return f"CSBDeep cannot build a network of kind '{kind}'"
    if rule.measure != "percentiles" or rule.mode != "volume" or rule.output != "inverse":
        return "CSBDeep measures percentiles on every image; this package is normalised in another way"
    return ""


def _why_careamics_cannot(facts: ModelFacts) -> str:
    if facts.architecture.kind not in ("care", "careamics_unet"):
        return f"CAREamics has no network of kind '{facts.architecture.kind}'"
    if facts.channels_in > 1:
        return f"the comparison with CAREamics covers one channel; this network takes {facts.channels_in}"
    return ""


def peer_options(package: ModelPackage, image: NDArray[np.uint16], folder: Path) -> dict[str, Any]:
    """Write graph and weights where a peer finds them, and name everything.

    Parameters
    ----------
    package : ModelPackage
    image : ndarray, (C, Z, Y, X), uint16
    folder : Path
        Of this comparison.
    """
    facts = package.facts
    graph, weights = folder / "network.onnx", folder / "weights.npz"
    if not graph.exists():
        graph.write_bytes(package.onnx())
        np.savez(weights, allow_pickle=False, **_weights(package.onnx()))
    seen = input_range(image, facts.normalisation)
    back = as_range(facts.normalisation.output_range) if facts.normalisation.output_range else seen
    ones = [1.0] * facts.channels_out
    as_it_is = facts.normalisation.output == "none"
    return {
        "onnx": str(graph),
        "weights": str(weights),
        "kind": facts.architecture.kind,
        "options": facts.architecture.options,
        "n_dim": facts.geometry.n_dim,
        "percentiles": [facts.normalisation.low_percentile, facts.normalisation.high_percentile],
        "low": seen.low.tolist(),
        "span": (seen.high - seen.low).tolist(),
        "low_out": [0.0] * facts.channels_out if as_it_is else _per_channel(back.low, facts.channels_out),
        "span_out": ones if as_it_is else _per_channel(back.high - back.low, facts.channels_out),
    }


def _per_channel(values: NDArray[np.float64], channels: int) -> list[float]:
    found: list[float] = np.broadcast_to(values if len(values) == channels else values[:1], channels).tolist()
    return found


def _weights(onnx: bytes) -> dict[str, NDArray[Any]]:
    import onnx as onnx_format

    graph = onnx_format.load_model_from_string(onnx).graph
    return {tensor.name: onnx_format.numpy_helper.to_array(tensor) for tensor in graph.initializer}
