"""The reader of sorted string tables (LevelDB's file format), in which TensorFlow keeps the index of its weights.

Receives the bytes of a table; hands on its keys and values, every block checked against its checksum. It does not know what
the values mean.
"""

from collections.abc import Iterator

from live_restore.errors import ModelError
from live_restore.models.foreign.protobuf import read_varint

_FOOTER_BYTES = 48
_MAGIC = 0xDB4775248B80FB57
_TRAILER_BYTES = 5  # one for the compression, four for the checksum
_NO_COMPRESSION, _SNAPPY = 0, 1
# An index of thousands of tensors takes well below this.
_LARGEST_BLOCK = 64 << 20
_CURE = "copy or download the model again"


def read_table(table: bytes) -> dict[bytes, bytes]:
    """Read all keys and values.

    Raises
    ------
    ModelError
        If it is no table, or is damaged.
    """
    footer = table[-_FOOTER_BYTES:]
    if len(footer) < _FOOTER_BYTES or int.from_bytes(footer[-8:], "little") != _MAGIC:
        raise ModelError(
            f"the weights' index does not end like one of TensorFlow's; it is cut short or something else, {_CURE}"
        )
    _, _, place = _read_handle(footer, 0)  # the meta-index, always empty
    offset, size, _ = _read_handle(footer, place)
    pairs: dict[bytes, bytes] = {}
    for _, handle in _entries(_block(table, offset, size)):
        block_offset, block_size, _ = _read_handle(handle, 0)
        pairs.update(_entries(_block(table, block_offset, block_size)))
    return pairs


def masked_crc32c(data: bytes) -> int:
    """Checksum as TensorFlow stores it: CRC-32C, rotated and shifted so that checksums of checksums stay useful."""
    import google_crc32c

    crc: int = google_crc32c.value(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def _read_handle(data: bytes, place: int) -> tuple[int, int, int]:
    offset, place = read_varint(data, place)
    size, place = read_varint(data, place)
    return offset, size, place


def _block(table: bytes, offset: int, size: int) -> bytes:
    content, trailer = table[offset : offset + size], table[offset + size : offset + size + _TRAILER_BYTES]
    if len(content) != size or len(trailer) != _TRAILER_BYTES:
        raise ModelError(f"the weights' index points beyond its own end (to byte {offset + size} of {len(table)}); {_CURE}")
    if masked_crc32c(content + trailer[:1]) != int.from_bytes(trailer[1:], "little"):
        raise ModelError(f"the weights' index is damaged: the checksum of its block at byte {offset} is wrong; {_CURE}")
    return _decompressed(content, trailer[0])


def _decompressed(content: bytes, compression: int) -> bytes:
    if compression == _NO_COMPRESSION:
        return content
    if compression != _SNAPPY:
        raise ModelError(f"the weights' index is compressed in an unknown way (type {compression}); export the model again")
    length, _ = read_varint(content, 0)
    if length > _LARGEST_BLOCK:
        raise ModelError(
            f"a block of the weights' index claims to unpack to {length:,} bytes, more than {_LARGEST_BLOCK:,}; not read"
        )
    from imagecodecs import SnappyError, snappy_decode

    try:
        return bytes(snappy_decode(content))
    except (SnappyError, ValueError) as error:
        raise ModelError(f"the weights' index cannot be unpacked ({error}); {_CURE}") from error


def _entries(block: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Go through a block; every key is stored as what differs from the key before."""
    restarts = int.from_bytes(block[-4:], "little")
    end = len(block) - 4 - 4 * restarts
    if end < 0:
        raise ModelError(f"a block of the weights' index claims {restarts} restarts in {len(block)} bytes; {_CURE}")
    place, key = 0, b""
    while place < end:
        shared, place = read_varint(block, place)
        added, place = read_varint(block, place)
        length, place = read_varint(block, place)
        key = key[:shared] + block[place : place + added]
        place += added + length
        if place > end:
            raise ModelError(f"an entry of the weights' index runs beyond its block; {_CURE}")
        yield key, block[place - length : place]
