"""Micro-Manager's image stack files, written here as Micro-Manager writes them: tests need recordings that broke off.

The layout is that of micro-manager.org/Micro-Manager_File_Formats: a header with the summary, one page per frame with
its pixels right behind the 162 bytes of its entries, and an index of all frames at the end.
"""

import json
import struct
from pathlib import Path

import numpy as np

_SUMMARY, _INDEX = 2355492, 3453623
_PAGE_BYTES = 162
_METADATA = b'{"Camera":"demo"}   '


def write_stack(path: Path, frames: dict[tuple[int, int, int, int], np.ndarray], summary: dict, kept: int | None = None):
    """Write frames by (channel, z, time, position) as one ``_MMStack`` file.

    Parameters
    ----------
    frames : dict of ndarray, (Y, X), uint16
    summary : dict
        Of the planned acquisition, which may be larger.
    kept : int or None
        Write the pixels of only so many frames, as when the disk is full; the index still names them all.
    """
    said = json.dumps({"MicroManagerVersion": "2.0", **summary}).encode()
    body = bytearray(struct.pack("<II", _SUMMARY, len(said)) + said)
    begin = 32 + len(body)
    index = b""
    for number, (place, pixels) in enumerate(frames.items()):
        frame_bytes = _PAGE_BYTES + pixels.nbytes + len(_METADATA)
        offset = begin + number * frame_bytes
        index += struct.pack("<5I", *place, offset)
        if kept is None or number < kept:
            following = offset + frame_bytes if number + 1 < len(frames) else 0
            body += _page(offset, pixels, following) + pixels.tobytes() + _METADATA
    header = struct.pack("<2sHI", b"II", 42, begin) + struct.pack("<II", 54773648, 32 + len(body))
    header += struct.pack("<4I", 483765892, 0, 99384722, 0)
    path.write_bytes(header + body + struct.pack("<II", _INDEX, len(frames)) + index)


def _page(offset: int, pixels: np.ndarray, following: int) -> bytes:
    height, width = pixels.shape
    entries = [
        (256, 4, 1, width),
        (257, 4, 1, height),
        (258, 3, 1, 8 * pixels.itemsize),
        (259, 3, 1, 1),
        (262, 3, 1, 1),
        (273, 4, 1, offset + _PAGE_BYTES),
        (277, 3, 1, 1),
        (278, 3, 1, height),
        (279, 4, 1, pixels.nbytes),
        (282, 4, 1, 1),
        (283, 4, 1, 1),
        (296, 3, 1, 3),
        (51123, 2, len(_METADATA), offset + _PAGE_BYTES + pixels.nbytes),
    ]
    return (
        struct.pack("<H", len(entries))
        + b"".join(struct.pack("<HHII", *entry) for entry in entries)
        + struct.pack("<I", following)
    )
