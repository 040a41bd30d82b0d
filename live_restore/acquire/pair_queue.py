"""Pairs between the camera and the disk: none is ever dropped, so the camera waits when too many are there.

Receives pairs from the thread of the acquisition; hands each to whoever checks and writes it, in a thread of its own and in
order. It does not know what becomes of a pair, nor why writing is slow.
"""

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

from live_restore.errors import AcquisitionError

_LOOK_S = 0.05
# A wait that is worth a word.
_SAID_S = 1.0

Taken = TypeVar("Taken")


class PairQueue(Generic[Taken]):
    """A queue that is bounded in bytes and in seconds.

    Parameters
    ----------
    write : callable
        Given each pair; what it raises ends everything, and is found in `failure`.
    limit_bytes : int
        How much may wait or be worked on; a single pair may be larger.
    wait_s : float
        How long to wait for room, or at the end for the last pairs, before giving up.
    waiting : callable
        Told True when the acquisition begins to wait, and False when it goes on.

    Attributes
    ----------
    failure : Exception or None
        What writing raised.
    warnings : list of str
        That the acquisition waited; once.
    """

    def __init__(
        self, write: Callable[[Taken], None], limit_bytes: int, wait_s: float, waiting: Callable[[bool], None]
    ) -> None:
        self.failure: Exception | None = None
        self.warnings: list[str] = []
        self._write, self._limit, self._wait_s, self._tell = write, limit_bytes, wait_s, waiting
        self._pairs: deque[tuple[Taken, int]] = deque()
        self._held = self._number = 0
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="live_restore pairs", daemon=True)
        self._thread.start()

    def wait_for_room(self, pair_bytes: int, stopped: Callable[[], bool]) -> None:
        """Wait until a pair of this size may be taken, or somebody stops.

        Raises
        ------
        AcquisitionError
            If there is none after so long.
        """
        began_s, said = time.monotonic(), False
        try:
            while not self._has_room(pair_bytes) and not stopped():
                waited_s = time.monotonic() - began_s
                if waited_s > self._wait_s:
                    raise AcquisitionError(
                        f"the acquisition waited {self._wait_s:g} s for the disk, with {self._state()}; "
                        "choose a faster disk, smaller stacks, or a larger wait_s or memory_mb"
                    )
                if waited_s > _SAID_S and not said:
                    said = True
                    self._say()
                with self._changed:
                    self._changed.wait(_LOOK_S)
        finally:
            if said:
                self._tell(False)

    def put(self, taken: Taken, pair_bytes: int) -> None:
        """Hand a pair over; never waits."""
        with self._changed:
            self._pairs.append((taken, pair_bytes))
            self._held += pair_bytes
            self._number += 1
            self._changed.notify_all()

    def close(self) -> bool:
        """Wait until all is written, or nothing was for `wait_s`; whether all is. A second time is fine."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            left, since_s = self._number, time.monotonic()
            while self._number and self.failure is None and time.monotonic() - since_s < self._wait_s:
                self._changed.wait(_LOOK_S)
                if self._number < left:
                    left, since_s = self._number, time.monotonic()
            return not self._number

    @property
    def left(self) -> int:
        """Pairs that are not yet checked and written."""
        return self._number

    def _has_room(self, pair_bytes: int) -> bool:
        with self._changed:
            return self.failure is None and (not self._number or self._held + pair_bytes <= self._limit)

    def _state(self) -> str:
        return f"{self._number} pair{'s' if self._number > 1 else ''} ({self._held / 1e6:.0f} MB) to be checked and written"

    def _say(self) -> None:
        self._tell(True)
        if not self.warnings:
            self.warnings.append(f"the acquisition waits for the disk: there are {self._state()}")

    def _work(self) -> None:
        while True:
            with self._changed:
                while not self._pairs and not self._closed:
                    self._changed.wait()
                if not self._pairs:
                    return
                taken, size = self._pairs.popleft()
            try:
                self._write(taken)
            except Exception as error:  # a full disk, or anything else: the acquisition must hear of it
                with self._changed:
                    self.failure = error
                    self._changed.notify_all()
                return
            with self._changed:
                self._held -= size
                self._number -= 1
                self._changed.notify_all()
