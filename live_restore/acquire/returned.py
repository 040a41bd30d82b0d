"""Restored volumes on their way back into the script: an iterator, and a callback.

Receives volumes from the sender's thread; hands them to whoever iterates, and to the callback in a thread of its own.
Nobody here makes the sender wait: of what is not taken in time, the newest stay and the others are counted. It does not
know where the volumes come from.
"""

import logging
from collections import deque
from collections.abc import Callable, Iterator
from threading import Condition, Thread

from live_restore.frames import LiveRestored

_logger = logging.getLogger(__name__)

# How often somebody who waits looks up, so that Ctrl-C gets through on every system.
_LOOK_UP_S = 0.2

Wanted = Callable[[], None]
Callback = Callable[[LiveRestored], object]


class _Shelf:
    """A few volumes, the newest of all that came."""

    def __init__(self, most: int) -> None:
        self.changed = Condition()
        self.dropped = 0
        self.ended = False
        self._volumes: deque[LiveRestored] = deque()
        self._most = most

    def put(self, volume: LiveRestored) -> None:
        with self.changed:
            if len(self._volumes) >= self._most:
                self._volumes.popleft()
                self.dropped += 1
            self._volumes.append(volume)
            self.changed.notify_all()

    def end(self) -> None:
        with self.changed:
            self.ended = True
            self.changed.notify_all()

    def clear(self) -> None:
        with self.changed:
            self.ended = False
            self._volumes.clear()

    def take(self, timeout_s: float | None = None) -> LiveRestored | None:
        """Wait for a volume; None if no more will come, or time is up."""
        with self.changed:
            left_s = timeout_s
            while not self._volumes and not self.ended and (left_s is None or left_s > 0):
                self.changed.wait(_LOOK_UP_S if left_s is None else min(left_s, _LOOK_UP_S))
                left_s = None if left_s is None else left_s - _LOOK_UP_S
            return self._volumes.popleft() if self._volumes else None

    def __len__(self) -> int:
        return len(self._volumes)


class Returned:
    """Restored volumes as they come back: ``for volume in hook.restored: ...``.

    Parameters
    ----------
    wanted : callable
        Told when somebody first wants volumes: then the restore process is asked for them.
    most : int
        How many are kept for who does not take them in time.

    Attributes
    ----------
    wanted : bool
        Whether somebody uses them.
    count, failures : int
        Volumes that came back; calls of callbacks that failed.
    """

    def __init__(self, wanted: Wanted, most: int = 8) -> None:
        self._want = wanted
        self.wanted = False
        self.count = 0
        self._most = most
        self._shelf = _Shelf(most)
        self._callbacks: list[_Shelf] = []
        self.failures = 0

    def __iter__(self) -> Iterator[LiveRestored]:
        """Give volumes as they come; ends with the acquisition, when all have come or the restore process is gone."""
        self._ask()
        return self._each()

    def _each(self) -> Iterator[LiveRestored]:
        while (volume := self._shelf.take()) is not None:
            yield volume

    def next(self, timeout_s: float) -> LiveRestored | None:
        """Wait for one volume; None if none comes in time or none will come any more."""
        self._ask()
        return self._shelf.take(timeout_s)

    def callback(self, function: Callback) -> None:
        """Call a function with every volume, in a thread of its own; what it raises is logged once and counted."""
        self._ask()
        shelf = _Shelf(self._most)
        self._callbacks.append(shelf)
        Thread(target=self._call, args=(shelf, function), name="live_restore callback", daemon=True).start()

    def put(self, volume: LiveRestored) -> None:
        """Hand a volume on that came."""
        self.count += 1
        for shelf in (self._shelf, *self._callbacks):
            shelf.put(volume)

    def begin(self) -> None:
        """Expect volumes: an acquisition begins. Those of the one before that nobody took are forgotten."""
        self._shelf.clear()

    def end(self) -> None:
        """Expect no more volumes: who iterates is done when the last is taken."""
        self._shelf.end()

    def close(self) -> None:
        """Let the callback's threads end after what has come."""
        self.end()
        for shelf in self._callbacks:
            shelf.end()

    @property
    def complete(self) -> bool:
        """Whether no more will come, and every callback has had what came."""
        return self._shelf.ended and not any(len(shelf) for shelf in self._callbacks)

    @property
    def dropped(self) -> int:
        """How many volumes nobody took in time."""
        return max([0, *(shelf.dropped for shelf in self._callbacks)]) if self._callbacks else self._shelf.dropped

    def _ask(self) -> None:
        self.wanted = True
        self._want()

    def _call(self, shelf: _Shelf, function: Callback) -> None:
        while (volume := shelf.take()) is not None:
            try:
                function(volume)
            except Exception:  # somebody else's code: whatever it raises must not end the volumes
                self.failures += 1
                if self.failures == 1:
                    _logger.exception("the callback of hook.restored failed; further failures are counted only")
