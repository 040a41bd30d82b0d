"""The reader of protobuf's wire format: numbered fields, without schemas and without the protobuf library.

Receives the bytes of a message; hands on its fields as (number, value). Which number means what is known only to those who
ask. It does not know TensorFlow.
"""

from collections.abc import Iterator

from live_restore.errors import ModelError

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_DAMAGED = "a message in the file ends too early or is no protobuf; it is damaged, copy or download it again"

# An unsigned whole number (varint, fixed32, fixed64), or the bytes of a string or of a message within.
FieldValue = int | bytes


def fields(message: bytes) -> Iterator[tuple[int, FieldValue]]:
    """Go through the fields of a message, in the order in which they were written.

    Yields
    ------
    number : int
    value : int or bytes

    Raises
    ------
    ModelError
        If the bytes are no such message.
    """
    place = 0
    while place < len(message):
        tag, place = read_varint(message, place)
        value, place = _value(message, place, tag & 7)
        yield tag >> 3, value


def messages(message: bytes, number: int) -> list[bytes]:
    """Give all fields with this number that hold bytes: strings, or messages within."""
    return [value for field, value in fields(message) if field == number and isinstance(value, bytes)]


def first_bytes(message: bytes, number: int) -> bytes:
    """Give the first such field, empty if there is none (which is what protobuf means by leaving it out)."""
    return next(iter(messages(message, number)), b"")


def first_text(message: bytes, number: int) -> str:
    """Give the first such field as text, empty if there is none."""
    return first_bytes(message, number).decode("utf-8", errors="replace")


def last_number(message: bytes, number: int) -> int:
    """Give the whole number in this field, 0 if there is none."""
    return next((value for field, value in reversed(list(fields(message))) if field == number and isinstance(value, int)), 0)


def read_varint(data: bytes, place: int) -> tuple[int, int]:
    """Read a number of variable length.

    Returns
    -------
    number : int
        At most 64 bits.
    place : int
        Where it ends.
    """
    number = 0
    for i, byte in enumerate(data[place : place + 10]):
        number |= (byte & 0x7F) << 7 * i
        if byte < 0x80:
            return number & 0xFFFFFFFFFFFFFFFF, place + i + 1
    raise ModelError(_DAMAGED)


def _value(message: bytes, place: int, wire_type: int) -> tuple[FieldValue, int]:
    if wire_type == _VARINT:
        return read_varint(message, place)
    if wire_type == _BYTES:
        length, place = read_varint(message, place)
        return _slice(message, place, length), place + length
    if wire_type in (_FIXED32, _FIXED64):
        length = 4 if wire_type == _FIXED32 else 8
        return int.from_bytes(_slice(message, place, length), "little"), place + length
    raise ModelError(_DAMAGED)


def _slice(message: bytes, place: int, length: int) -> bytes:
    if place + length > len(message):
        raise ModelError(_DAMAGED)
    return message[place : place + length]
