"""The index of an NDTiff dataset: where every frame lies, read tolerantly and written in one step.

Receives bytes or entries; hands on entries or bytes. It does not know pixels, nor why an index is short.
"""

import json
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

_NUMBERS = struct.Struct("<8I")
_LENGTH = struct.Struct("<I")


@dataclass(frozen=True, slots=True)
class IndexEntry:
    """Where one frame lies, as the index says; byte offsets in its file.

    Attributes
    ----------
    axes : mapping of str to int or str
    file : str
        Name of the TIFF file, without a folder.
    offset, width, height, pixel_type : int
        Of the pixels.
    metadata_offset, metadata_bytes : int
    compressions : (int, int)
        Of pixels and metadata; always 0 so far.
    """

    axes: Mapping[str, Any]
    file: str
    offset: int
    width: int
    height: int
    pixel_type: int
    metadata_offset: int
    metadata_bytes: int
    compressions: tuple[int, int] = (0, 0)


def read_index(content: bytes) -> tuple[list[IndexEntry], int]:
    """Read as many whole entries as there are, and count the bytes behind them: zeros, or half an entry."""
    entries: list[IndexEntry] = []
    end = 0
    while end < len(content):
        try:
            entry, end = _read_entry(content, end)
        except (struct.error, ValueError):
            break
        entries.append(entry)
    return entries, len(content) - end


def written_index(entries: Iterable[IndexEntry]) -> bytes:
    """Give the bytes of an index."""
    return b"".join(_written_entry(entry) for entry in entries)


def _read_entry(content: bytes, start: int) -> tuple[IndexEntry, int]:
    said, place = _read_text(content, start)
    axes = json.loads(said)
    if not isinstance(axes, dict):
        raise ValueError(f"{said!r} are no axes")
    file, place = _read_text(content, place)
    offset, width, height, kind, packed, metadata_offset, metadata_bytes, packed_metadata = _NUMBERS.unpack_from(content, place)
    packings = (packed, packed_metadata)
    entry = IndexEntry(axes, file.decode(), offset, width, height, kind, metadata_offset, metadata_bytes, packings)
    return entry, place + _NUMBERS.size


def _read_text(content: bytes, place: int) -> tuple[bytes, int]:
    (length,) = _LENGTH.unpack_from(content, place)
    begin, end = place + _LENGTH.size, place + _LENGTH.size + length
    if not length or end > len(content):
        raise ValueError(f"text of {length} bytes at {place} is not whole")
    return content[begin:end], end


def _written_entry(entry: IndexEntry) -> bytes:
    texts = (json.dumps(dict(entry.axes)).encode(), entry.file.encode())
    packed, packed_metadata = entry.compressions
    place = (entry.offset, entry.width, entry.height, entry.pixel_type, packed)
    numbers = _NUMBERS.pack(*place, entry.metadata_offset, entry.metadata_bytes, packed_metadata)
    return b"".join(_LENGTH.pack(len(text)) + text for text in texts) + numbers
