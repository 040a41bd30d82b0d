"""Files of one JSON object per line, added to line by line, readable after a crash.

Receives mappings; hands them back. A line that a killed process or a full disk left half-written is cut off before the
next is added, and passed over in reading. One process writes a file, any number read it. It does not know what the
lines mean, and loads nothing but the standard library.
"""

import errno
import json
import math
import os
import time
from collections.abc import Iterable, Mapping
from io import FileIO
from pathlib import Path
from threading import Lock
from typing import Any, Self

_TAIL_BYTES = 1 << 16
# On Windows a file cannot be replaced while somebody reads it: try again for about a second.
_REPLACE_TRIES, _REPLACE_PAUSE_S = 100, 0.01


class JsonLines:
    """A file of lines, opened for adding at the first `append`; usable from several threads.

    Parameters
    ----------
    path : Path
        Need not exist; its folder must.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = Lock()
        self._file: FileIO | None = None
        self._end = 0

    def append(self, said: Mapping[str, Any], *, durable: bool = False) -> None:
        """Add a line; the operating system has it when this returns, and with `durable` the disk has.

        Raises
        ------
        OSError
            If the disk is full or refuses; then the line counts as never written.
        TypeError
            If something in it has no JSON.
        """
        self.append_all([said], durable=durable)

    def append_all(self, said: Iterable[Mapping[str, Any]], *, durable: bool = False) -> None:
        """Add several lines as `append` adds one: all of them, or none where that is refused."""
        lines = b"".join(json.dumps(plain(each), allow_nan=False).encode() + b"\n" for each in said)
        if not lines:
            return
        with self._lock:
            file = self._opened()
            file.seek(self._end)  # over what a full disk may have left of an earlier line
            if file.write(lines) != len(lines):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            if durable:
                os.fsync(file.fileno())
            self._end += len(lines)

    def close(self) -> None:
        """Give the file back; the next `append` opens it again."""
        with self._lock:
            if self._file is not None:
                self._file.close()
            self._file = None

    def _opened(self) -> FileIO:
        if self._file is None:
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o666)
            self._file = FileIO(descriptor, "r+")
            self._end = _whole_bytes(self._file)
            self._file.truncate(self._end)
        return self._file

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Read every whole line; what is torn or no JSON object is passed over, and a missing file has no lines."""
    try:
        lines = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return []
    said = (_parsed(line) for line in lines[:-1])  # behind the last line feed stands nothing, or a torn line
    return [line for line in said if line is not None]


def rewrite_lines(path: Path, lines: Iterable[Mapping[str, Any]]) -> None:
    """Replace a file by these lines in one step, safely on disk; nobody has it open for adding."""
    new = path.with_name(f".{path.name}.new")
    with new.open("wb") as file:
        file.writelines(json.dumps(plain(line), allow_nan=False).encode() + b"\n" for line in lines)
        file.flush()
        os.fsync(file.fileno())
    put(new, path)


def put(new: Path, path: Path) -> None:
    """Put a file in the place of another; on Windows that waits until nobody reads the old one, a second at most."""
    for trial in range(_REPLACE_TRIES):
        try:
            new.replace(path)
        except PermissionError:
            if trial == _REPLACE_TRIES - 1:
                raise
            time.sleep(_REPLACE_PAUSE_S)
        else:
            return


def plain(said: Any) -> Any:
    """Turn numpy numbers and arrays, tuples and paths into what JSON has; numbers that are none become null."""
    if isinstance(said, Mapping):
        return {str(key): plain(value) for key, value in said.items()}
    if isinstance(said, (list, tuple)):
        return [plain(value) for value in said]
    if isinstance(said, float):
        return float(said) if math.isfinite(said) else None
    if isinstance(said, Path):
        return said.as_posix()
    if hasattr(said, "tolist"):
        return plain(said.tolist())
    return said


def _parsed(line: bytes) -> dict[str, Any] | None:
    try:
        said = json.loads(line)
    except ValueError:
        return None
    return said if isinstance(said, dict) else None


def _whole_bytes(file: FileIO) -> int:
    """Count the bytes up to and with the last line feed."""
    end = file.seek(0, os.SEEK_END)
    while end > 0:
        begin = max(0, end - _TAIL_BYTES)
        file.seek(begin)
        found = file.read(end - begin).rfind(b"\n")
        if found >= 0:
            return begin + found + 1
        end = begin
    return 0
