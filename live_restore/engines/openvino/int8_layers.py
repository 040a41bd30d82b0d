"""A network in whole numbers: what is known of its layers, as bytes and back.

Receives the int8 weights, the ranges of feature maps and the corrected biases by name, or the bytes that hold them; hands
on the other. Plain arrays, no code. It does not know the graph that the names belong to.
"""

import io
import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from live_restore.errors import EngineError

_FORMAT = 2
_FORMAT_NAME = "live_restore int8 layers"


@dataclass(frozen=True, slots=True, eq=False)
class FeatureRange:
    """How a feature map becomes 256 whole numbers.

    Attributes
    ----------
    channels : ndarray, (C,), float32
        The value of every channel that becomes 1.
    signed : bool
        Whether 256 levels span -1 .. 1 or 0 .. 1.
    """

    channels: NDArray[np.float32]
    signed: bool


@dataclass(frozen=True, slots=True, eq=False)
class Int8Weights:
    """The kernel of one convolution, for feature maps between -1 and 1.

    Attributes
    ----------
    kernel : ndarray, int8
        Laid out as in the graph.
    steps : ndarray, float32
        What one level is worth; 1 on every axis but that of the output channels.
    bias : ndarray, (C,), float32
        What has to be added because of the rounding, per output channel.
    """

    kernel: NDArray[np.int8]
    steps: NDArray[np.float32]
    bias: NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Int8Layers:
    """All that turns a float32 graph into an int8 one.

    Attributes
    ----------
    ranges : dict of FeatureRange
        By the name of the operation that makes the feature map.
    weights : dict of Int8Weights
        By the name of the convolution; convolutions that are missing stay as they are.
    scaled : dict of FeatureRange
        Of what attention scales: by the name of the convolution that gives it.
    words : str
        How it was made, for people.
    """

    ranges: Mapping[str, FeatureRange]
    weights: Mapping[str, Int8Weights]
    scaled: Mapping[str, FeatureRange] = field(default_factory=dict)
    words: str = ""

    def to_bytes(self) -> bytes:
        """Pack it; the same layers give the same bytes."""
        arrays: dict[str, NDArray[Any]] = {}
        for place, found in enumerate(self.ranges.values()):
            arrays[f"range_{place}"] = found.channels
        for place, layer in enumerate(self.weights.values()):
            arrays |= {f"kernel_{place}": layer.kernel, f"steps_{place}": layer.steps, f"bias_{place}": layer.bias}
        for place, found in enumerate(self.scaled.values()):
            arrays[f"scaled_{place}"] = found.channels
        said = {
            "format": [_FORMAT_NAME, _FORMAT],
            "ranges": [[name, found.signed] for name, found in self.ranges.items()],
            "weights": list(self.weights),
            "scaled": [[name, found.signed] for name, found in self.scaled.items()],
            "words": self.words,
        }
        arrays["said"] = np.frombuffer(json.dumps(said).encode(), np.uint8)
        stream = io.BytesIO()
        np.savez(stream, allow_pickle=False, **arrays)
        return stream.getvalue()


def from_bytes(content: bytes) -> Int8Layers:
    """Unpack what `Int8Layers.to_bytes` made.

    Raises
    ------
    EngineError
        If it is something else, or damaged.
    """
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            said = json.loads(arrays["said"].tobytes())
            if said["format"] != [_FORMAT_NAME, _FORMAT]:
                raise EngineError(f"these int8 layers have the format {said['format']}; build them again")
            ranges, scaled = (
                {name: FeatureRange(arrays[f"{kind}_{place}"], bool(signed)) for place, (name, signed) in enumerate(listed)}
                for kind, listed in (("range", said["ranges"]), ("scaled", said["scaled"]))
            )
            weights = {
                name: Int8Weights(arrays[f"kernel_{place}"], arrays[f"steps_{place}"], arrays[f"bias_{place}"])
                for place, name in enumerate(said["weights"])
            }
            return Int8Layers(ranges, weights, scaled, str(said["words"]))
    except (ValueError, KeyError, TypeError, OSError, EOFError, zipfile.BadZipFile) as damaged:
        raise EngineError(
            f"these {len(content)} bytes are no int8 layers, or damaged ones ({damaged}); build them again"
        ) from damaged
