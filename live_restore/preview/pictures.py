"""A view as the bytes that the page draws from: a JSON header, then the pixels as they are.

Receives a `Seen`; hands on one binary message. It does not know sockets.

Restored pixels travel as 16-bit numbers with their step and offset, the finest power of two that holds the view's
range; at 16 bits over a camera's range that is far below the noise of a single photon.
"""

import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from live_restore.preview.conversation import Seen
from live_restore.preview.windows import averaged, strongest

_ALIGNMENT = 8
_LEVELS = 65535


def picture(seen: Seen) -> bytes:
    """Encode a view for the page.

    Returns
    -------
    bytes
        Four bytes, little-endian: the header's length; the header, JSON, padded to eight bytes; every layer, padded to
        eight bytes, where ``header["layers"][name]["start"]`` says, counted from the end of the header.
    """
    layers: dict[str, dict[str, Any]] = {}
    parts: list[bytes | memoryview] = []
    start = 0
    for name, pixels, scale in _layers(seen):
        layers[name] = {"start": start, "dtype": pixels.dtype.name, "shape": pixels.shape, **scale}
        filling = -pixels.nbytes % _ALIGNMENT
        parts += [pixels.data.cast("B"), bytes(filling)]
        start += pixels.nbytes + filling
    header = _header(seen, layers)
    return b"".join([len(header).to_bytes(4, "little"), header, *parts])


def _layers(seen: Seen) -> list[tuple[str, NDArray[Any], dict[str, float]]]:
    view = seen.view
    layers: list[tuple[str, NDArray[Any], dict[str, float]]] = []
    if view.raw is None or not view.raw.size:
        return layers
    window, shape = seen.wish.window, view.raw.shape
    layers.append(("raw", *_levels(averaged(view.raw, window, shape))))
    if view.restored is not None and view.restored.size:
        layers.append(("restored", *_levels(averaged(view.restored, window, shape))))
    if view.trust is not None and view.trust.size:
        layers.append(("trust", _plain(strongest(view.trust, window, shape)), {}))
    return layers


def _levels(pixels: NDArray[Any]) -> tuple[NDArray[Any], dict[str, float]]:
    if pixels.dtype.kind == "u":
        return _plain(pixels), {"step": 1.0, "offset": 0.0}
    levels, step, offset = quantised(pixels)
    return levels, {"step": step, "offset": offset}


def quantised(pixels: NDArray[np.floating[Any]]) -> tuple[NDArray[np.uint16], float, float]:
    """Turn counts into 16-bit levels; counts = levels · step + offset, to half a step; what is no number becomes the least."""
    low, high = float(pixels.min()), float(pixels.max())
    if not math.isfinite(high - low):  # a minimum of what holds a NaN is NaN
        finite = np.isfinite(pixels)
        pixels = np.where(finite, pixels, pixels[finite].min() if finite.any() else 0)
        low, high = float(pixels.min()), float(pixels.max())
    offset = float(math.floor(low))
    step = 2.0 ** math.ceil(math.log2((high - offset) / _LEVELS)) if high > offset else 1.0
    levels = (pixels - np.float32(offset)) * np.float32(1 / step)
    levels += np.float32(0.5)  # rounded by what follows, which cuts
    return levels.astype(np.uint16), step, offset


def _plain(pixels: NDArray[Any]) -> NDArray[Any]:
    """Contiguous and little-endian, as the page reads them; copied only where they are not."""
    return np.ascontiguousarray(pixels, pixels.dtype.newbyteorder("<"))


def _header(seen: Seen, layers: Mapping[str, Any]) -> bytes:
    view = seen.view
    said = {
        "number": view.number,
        "session": seen.session,
        "serial": seen.wish.serial,
        "run": view.run,
        "time": view.key.time if view.key else None,
        "position": view.key.position if view.key else None,
        "channel": view.key.channel if view.key else None,
        "light": view.key.light if view.key else None,
        "z": view.z,
        "planes": view.planes,
        "slab": view.slab,
        "said": dict(view.said),
        "layers": dict(layers),
        **_frame(seen),
    }
    header = as_json(said).encode()
    return header + b" " * (-(len(header) + 4) % _ALIGNMENT)


def _frame(seen: Seen) -> dict[str, Any]:
    """Say how large the whole raw image is, (width, height), and which region of it, (x0, y0, x1, y1), the layers show."""
    if seen.view.raw is None:
        return {}
    shape = seen.view.raw.shape
    window = seen.wish.window
    return {"size": shape[::-1], "region": window.of(shape), "block": window.block_of(shape)}


def as_json(said: Mapping[str, Any]) -> str:
    """JSON that a browser can read: numbers that are none become null."""
    try:
        return json.dumps(said, allow_nan=False)
    except ValueError:
        return json.dumps(_finite(said), allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _finite(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
