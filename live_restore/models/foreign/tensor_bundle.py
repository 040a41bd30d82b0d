"""The reader of TensorFlow's weight files (``variables.index`` and ``variables.data-...``), without TensorFlow.

Receives the bytes of the index and of its shards; hands on the tensors by name, each checked against its checksum. It does
not know where the bytes came from, nor which network the tensors belong to.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

import numpy as np
from numpy.typing import NDArray

from live_restore.errors import ModelError
from live_restore.models.foreign.conv_weights import LARGEST_WEIGHTS, ConvWeights, checked_conv
from live_restore.models.foreign.protobuf import fields, last_number, messages
from live_restore.models.foreign.sstable import masked_crc32c, read_table

FloatArray = NDArray[np.float32]

_FLOAT32 = 1  # TensorFlow's DT_FLOAT
_BIG_ENDIAN = 1
_CURE = "copy or download the model again"

# Optimizer states and counters, which an export in mid-training may hold beside the weights.
_NO_WEIGHTS = ("Adam", "adam", "training", "global_step", "iterations", "optimizer", "save_counter")


@dataclass(frozen=True, slots=True)
class _Entry:
    """Where a tensor lies: field numbers are those of TensorFlow's BundleEntryProto."""

    name: str
    dtype: int
    shape: tuple[int, ...]
    shard: int
    offset: int
    size: int
    crc32c: int
    sliced: bool


def read_tensors(index: bytes, shards: Mapping[int, bytes]) -> dict[str, FloatArray]:
    """Read all float32 tensors of a bundle.

    Parameters
    ----------
    index : bytes
        ``variables.index``.
    shards : mapping from shard number to bytes
        ``variables.data-00000-of-00001`` is shard 0.

    Returns
    -------
    dict of ndarray, float32
        By variable name, e.g. ``down_level_0_no_0/kernel``. Counters and optimizer states are left out.

    Raises
    ------
    ModelError
        If anything is damaged, missing, or of another type.
    """
    table = read_table(index)
    _check_header(table.pop(b"", b""))
    entries = [_entry(key.decode("utf-8", errors="replace"), value) for key, value in table.items()]
    if any(".ATTRIBUTES" in entry.name for entry in entries):
        raise ModelError(
            "this SavedModel was written by Keras itself, not by CSBDeep's export_TF: it does not keep the layers' names; "
            "import the .h5 weights of the model folder instead"
        )
    return {entry.name: _tensor(entry, shards) for entry in entries if not set(entry.name.split("/")) & set(_NO_WEIGHTS)}


def convolutions_of(tensors: Mapping[str, FloatArray]) -> tuple[ConvWeights, ...]:
    """Pair ``<layer>/kernel`` with ``<layer>/bias``; the layer's own name is the last part before them."""
    by_layer: dict[str, dict[str, FloatArray]] = {}
    for name, tensor in tensors.items():
        scope, _, part = name.rpartition("/")
        by_layer.setdefault(scope, {})[part] = tensor
    return tuple(checked_conv(scope.rpartition("/")[2], parts) for scope, parts in by_layer.items())


def _check_header(header: bytes) -> None:
    if last_number(header, 2) == _BIG_ENDIAN:
        raise ModelError(
            "the weights were written on a big-endian machine, which is not supported; export the model again on a PC"
        )


def _entry(name: str, message: bytes) -> _Entry:
    shape = tuple(last_number(size, 1) for part in messages(message, 2) for size in messages(part, 2))
    numbers = {number: value for number, value in fields(message) if isinstance(value, int)}
    dtype, shard, offset, size, crc32c = (numbers.get(number, 0) for number in (1, 3, 4, 5, 6))
    return _Entry(name, dtype, shape, shard, offset, size, crc32c, sliced=bool(messages(message, 7)))


def _tensor(entry: _Entry, shards: Mapping[int, bytes]) -> FloatArray:
    _check_entry(entry)
    if entry.shard not in shards:
        raise ModelError(f"tensor '{entry.name}' lies in variables.data-{entry.shard:05d}-..., which is missing; {_CURE}")
    data = shards[entry.shard][entry.offset : entry.offset + entry.size]
    if len(data) != entry.size:
        raise ModelError(f"tensor '{entry.name}' reaches beyond the end of its data file, which is cut short; {_CURE}")
    if masked_crc32c(data) != entry.crc32c:
        raise ModelError(f"tensor '{entry.name}' is damaged: its checksum is wrong; {_CURE}")
    return np.frombuffer(data, "<f4").astype(np.float32).reshape(entry.shape)


def _check_entry(entry: _Entry) -> None:
    if entry.dtype != _FLOAT32 or entry.sliced:
        what = "is stored in slices" if entry.sliced else f"is not float32 (TensorFlow's type number {entry.dtype})"
        raise ModelError(f"tensor '{entry.name}' {what}; CARE's weights are whole float32 arrays, this is another model")
    if prod(entry.shape) > LARGEST_WEIGHTS:
        raise ModelError(f"tensor '{entry.name}' claims shape {entry.shape}, more than {LARGEST_WEIGHTS:,} numbers; not read")
    if prod(entry.shape) * 4 != entry.size:
        raise ModelError(
            f"tensor '{entry.name}' of shape {entry.shape} claims {entry.size} bytes, not {4 * prod(entry.shape)}; {_CURE}"
        )
