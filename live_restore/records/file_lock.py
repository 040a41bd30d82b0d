"""A lock that one process holds on a folder, and that ends with it, however it ends.

Receives the path of a lock file; says who holds it. The operating system keeps the lock, so that a killed process leaves
none behind. It does not know what is locked.
"""

import json
import os
import socket
import sys
import time
from contextlib import suppress
from io import FileIO
from pathlib import Path
from typing import Self

from live_restore.errors import ImageError

# The byte that is locked: far behind the words in the file, which on Windows nobody could read otherwise.
_BYTE = 1 << 30


class FileLock:
    """Held from now until `close`.

    Parameters
    ----------
    path : Path
        The lock file; it is made, and stays.
    what : str
        What is locked, for the message.

    Raises
    ------
    ImageError
        If another process holds it, or this one already does.
    OSError
        If the file cannot be made.
    """

    def __init__(self, path: Path, what: str) -> None:
        self._file: FileIO | None = FileIO(os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o666), "r+")
        if not _lock(self._file.fileno()):
            holder = _holder(path)
            self.close()
            raise ImageError(f"{what} is being written by {holder}; wait until it has ended, or stop it")
        said = {"pid": os.getpid(), "host": socket.gethostname(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}
        self._file.truncate(0)
        self._file.write(json.dumps(said).encode() + b"\n")

    def close(self) -> None:
        """Let go; a second time is fine."""
        if self._file is not None:
            self._file.close()  # which unlocks
        self._file = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def _holder(path: Path) -> str:
    with suppress(OSError, ValueError, KeyError, TypeError):
        said = json.loads(path.read_text("utf-8"))
        return f"process {said['pid']} on {said['host']} since {said['since']}"
    return "another process"


if sys.platform == "win32":
    import msvcrt

    def _lock(descriptor: int) -> bool:
        os.lseek(descriptor, _BYTE, os.SEEK_SET)
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        finally:
            os.lseek(descriptor, 0, os.SEEK_SET)
        return True

else:
    import fcntl

    def _lock(descriptor: int) -> bool:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:  # a network share that knows no locks: better written than not
            return True
        return True
