"""Recovery of an NDTiff dataset whose index is missing, empty or short: the writing process was killed, or the power failed.

Receives the folder of a dataset; rebuilds ``NDTiff.index`` from the TIFF files, in which every frame carries its axes.
The TIFF files are only read. It does not know what the frames show.
"""

import json
import mmap
import os
import struct
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from live_restore.errors import ImageError
from live_restore.records.names import natural_key
from live_restore.records.ndtiff_index import IndexEntry, read_index, written_index

INDEX, BACKUP = "NDTiff.index", "NDTiff.index.bak"
_FULL_RESOLUTION = "Full resolution"

_WIDTH, _HEIGHT, _OFFSETS, _BYTE_COUNTS, _METADATA = 256, 257, 273, 279, 51123
_NEEDED = {_WIDTH, _HEIGHT, _OFFSETS, _BYTE_COUNTS, _METADATA}
_HEADER = struct.Struct("<2sHI")
_TAG = struct.Struct("<HHII")
# How every page of an NDTiff file begins: 13 tags, and the first is the width, one number of four bytes.
_PAGE_BEGINS = struct.pack("<HHHI", 13, _WIDTH, 4, 1)
_MOST_TAGS = 64
# Files are made 4 GiB large beforehand: behind so many zeros comes nothing more.
_BLOCK, _LONG_ZEROS = 1 << 22, 1 << 26
# Pixel types of the index by bits and by bytes a pixel.
_BY_BITS = {8: 0, 10: 3, 11: 6, 12: 4, 14: 5, 16: 1}
_BY_BYTES = {1: 0, 2: 1, 3: 2}


@dataclass(frozen=True, slots=True)
class Recovered:
    """What a recovery found.

    Attributes
    ----------
    frames : int
        How many frames the index names now.
    before : int
        How many it named before.
    files : int
        How many TIFF files were read.
    index : Path
    backup : Path or None
        The old index; None if there was none, or nothing was changed.
    notes : tuple of str
        What was found, in words.
    """

    frames: int
    before: int
    files: int
    index: Path
    backup: Path | None
    notes: tuple[str, ...]

    @property
    def changed(self) -> bool:
        """Whether the index was written anew."""
        return self.frames != self.before or self.backup is not None


def recover(dataset: Path) -> Recovered:
    """Rebuild the index of an NDTiff dataset, unless it is complete.

    Parameters
    ----------
    dataset : Path
        Its folder, or one of its files.

    Raises
    ------
    ImageError
        If it is no NDTiff dataset, holds no whole frame, or is still being written.
    """
    folder = _folder(dataset)
    files = sorted(folder.glob("*.tif"), key=natural_key)
    if not files:
        raise ImageError(f"{dataset} holds no TIFF file of an NDTiff dataset; give the folder with NDTiffStack files")
    index = folder / INDEX
    old, torn_bytes = read_index(index.read_bytes()) if index.is_file() else ([], 0)
    notes: list[str] = []
    found = [entry for file in files for entry in _frames(file, notes)]
    known = {(entry.file, entry.offset): entry for entry in old}
    missing = [entry for entry in found if (entry.file, entry.offset) not in known]
    if old and not missing and not torn_bytes:
        return Recovered(len(old), len(old), len(files), index, None, (f"the index is complete: {len(old)} frames", *notes))
    kept = [entry for entry in old if _is_on_disk(folder, entry)]
    if len(kept) < len(old):
        notes.append(f"{len(old) - len(kept)} frames that the old index named are not on disk; they are left out")
    if not kept and not missing:
        raise ImageError(f"{dataset} holds no whole frame: {'; '.join(notes) or 'its TIFF files are empty'}")
    place = {file.name: number for number, file in enumerate(files)}
    entries = sorted([*kept, *missing], key=lambda entry: (place.get(entry.file, len(files)), entry.offset))
    _refuse_open([*files, index])
    backup = _write(index, written_index(entries))
    notes.insert(0, f"{len(missing)} frames were missing in the index, which names {len(entries)} now")
    return Recovered(len(entries), len(old), len(files), index, backup, tuple(notes))


def _folder(dataset: Path) -> Path:
    """Find the folder that holds index and TIFF files."""
    folder = dataset if dataset.is_dir() else dataset.parent
    if not dataset.exists():
        raise ImageError(f"{dataset} does not exist; check the spelling")
    full = folder / _FULL_RESOLUTION
    return full if full.is_dir() else folder


def _frames(file: Path, notes: list[str]) -> list[IndexEntry]:
    """Find every whole frame of a TIFF file; what is damaged is noted and passed over."""
    if file.stat().st_size < _HEADER.size:
        notes.append(f"{file.name} is empty")
        return []
    with file.open("rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as content:
        order, magic, first = _HEADER.unpack_from(content)
        if (order, magic) != (b"II", 42):
            notes.append(f"{file.name} is no TIFF file of a little-endian machine; it is left out")
            return []
        pages = _Pages(file.name, content, first)
        found = list(pages)
    if pages.broken:
        notes.append(f"{file.name} is damaged in {pages.broken} place(s); frames there may be lost")
    return found


class _Pages:
    """The frames of a TIFF file, one after the other: by their chain, and where that is broken by their looks.

    It only goes forward, as the file was written; so no chain leads it round in circles.
    """

    def __init__(self, name: str, content: mmap.mmap, first: int) -> None:
        self._name, self._content, self._first = name, content, first
        self.broken = 0

    def __iter__(self) -> Iterator[IndexEntry]:
        place, read, searched = self._first, _HEADER.size, False
        while True:
            page = self._page(place) if place >= read else None
            if page is None:
                # from behind the last frame on, and behind what only looked like a page
                place, searched = self._next_by_looks(place + 1 if searched else read), True
                if place < 0:  # so ends a file that was finished, and one that was cut off
                    return
                continue
            self.broken += searched
            entry, following = page
            yield entry
            place, read, searched = following, entry.metadata_offset + entry.metadata_bytes, False

    def _next_by_looks(self, begin: int) -> int:
        """Find the next place that looks like a page, -1 if none does before a long stretch of zeros or the end."""
        zeros = 0
        while begin < len(self._content) and zeros < _LONG_ZEROS:
            block = self._content[begin : begin + _BLOCK + len(_PAGE_BEGINS)]
            found = block.find(_PAGE_BEGINS)
            if found >= 0:
                return begin + found
            zeros = zeros + _BLOCK if not block.strip(b"\0") else 0
            begin += _BLOCK
        return -1

    def _page(self, place: int) -> tuple[IndexEntry, int] | None:
        """Read the page at a place, and where the next one should be; None if there is no whole frame."""
        try:
            tags, following = _tags(self._content, place)
            (width, _), (height, _) = tags[_WIDTH], tags[_HEIGHT]
            (offset, _), (byte_count, _), (metadata_offset, metadata_bytes) = (
                tags[_OFFSETS],
                tags[_BYTE_COUNTS],
                tags[_METADATA],
            )
            if not width * height or max(offset + byte_count, metadata_offset + metadata_bytes) > len(self._content):
                return None
            said = json.loads(self._content[metadata_offset : metadata_offset + metadata_bytes])
            axes = said["Axes"]
            kind = _pixel_type(said, byte_count / (width * height))
        except (struct.error, ValueError, KeyError, TypeError):
            return None
        if not isinstance(axes, dict) or kind is None or not all(isinstance(value, (int, str)) for value in axes.values()):
            return None
        return IndexEntry(axes, self._name, offset, width, height, kind, metadata_offset, metadata_bytes), following


def _tags(content: mmap.mmap, place: int) -> tuple[dict[int, tuple[int, int]], int]:
    """Read value and count of the tags that matter, and the place of the next page."""
    (number,) = struct.unpack_from("<H", content, place)
    if number > _MOST_TAGS:
        raise ValueError(f"a page of {number} tags")
    tags = {}
    for n in range(number):
        tag, _, count, value = _TAG.unpack_from(content, place + 2 + n * _TAG.size)
        if tag in _NEEDED:
            tags[tag] = (value, count)
    (following,) = struct.unpack_from("<I", content, place + 2 + number * _TAG.size)
    return tags, following


def _pixel_type(said: dict[str, Any], bytes_a_pixel: float) -> int | None:
    """Give the number of the pixel type in the index; None if the bytes fit none."""
    by_bytes = _BY_BYTES.get(int(bytes_a_pixel)) if bytes_a_pixel.is_integer() else None
    bits = said.get("BitDepth")
    if by_bytes == 1 and isinstance(bits, int) and bits > 8:
        return _BY_BITS.get(bits, by_bytes)
    return by_bytes


def _is_on_disk(folder: Path, entry: IndexEntry) -> bool:
    try:
        size = (folder / entry.file).stat().st_size
    except OSError:
        return False
    return max(entry.offset + entry.width * entry.height, entry.metadata_offset + entry.metadata_bytes) <= size


def _refuse_open(files: Sequence[Path]) -> None:
    """Refuse to replace an index under the hands of a process that is writing it."""
    import psutil

    ours = {str(file.resolve()) for file in files}
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            for opened in process.open_files():
                if opened.path in ours and getattr(opened, "mode", "r") != "r":
                    raise ImageError(
                        f"{opened.path} is still being written by process {process.pid} ({process.name()}); wait until it ends"
                    )


def _write(index: Path, content: bytes) -> Path | None:
    """Put a new index in place, and give the backup of the old one."""
    new = index.with_name(f".{index.name}.new")
    backup = _backup(index) if index.is_file() else None
    _write_synced(new, content)
    new.replace(index)
    return backup


def _backup(index: Path) -> Path:
    """Copy the old index beside it, and replace no earlier copy."""
    backup, number = index.with_name(BACKUP), 1
    while backup.exists():
        number += 1
        backup = index.with_name(f"{BACKUP}.{number}")
    _write_synced(backup, index.read_bytes())
    return backup


def _write_synced(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
