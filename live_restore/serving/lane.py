"""The lane: a thread that does one piece of work after another.

Receives work to do, and what to do instead if there is no time left; hands on nothing. It does not know what the work is.
"""

import logging
from collections import deque
from collections.abc import Callable
from threading import Condition, Thread

_log = logging.getLogger(__name__)
Work = Callable[[], None]
# Where a disk hangs, notes are left out beyond so many.
_MOST_NOTES = 10_000


def _nothing() -> None:
    """Do nothing instead."""


class Lane:
    """Begun by `start`, ended by `stop` and `join`.

    Parameters
    ----------
    name : str
        Of the thread.

    Attributes
    ----------
    waiting : int
        How many pieces of work wait, notes not among them: whoever gives work looks at it, for nothing here ever waits or drops.
    nbytes : int
        What they keep in memory.
    """

    def __init__(self, name: str) -> None:
        self.waiting = self.nbytes = 0
        self._queue = deque[tuple[Work, Work, int]]()
        self._changed = Condition()
        self._stopping = self._at_once = False
        self._thread = Thread(target=self._main, name=name, daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def put(self, work: Work, otherwise: Work = _nothing, nbytes: int = 0) -> None:
        """Give work that keeps so many bytes; `otherwise` is done in its place if the lane stops at once."""
        with self._changed:
            self.waiting, self.nbytes = self.waiting + 1, self.nbytes + nbytes
            self._queue.append((work, otherwise, nbytes))
            self._changed.notify()

    def add(self, work: Work) -> None:
        """Give a small piece of work, such as a note; it is done even if the lane stops at once."""
        with self._changed:
            if len(self._queue) < _MOST_NOTES:
                self._queue.append((work, work, 0))
            self._changed.notify()

    def stop(self, *, at_once: bool = False) -> None:
        """End when all work is done, or with the piece in hand; a second time is fine."""
        with self._changed:
            self._stopping, self._at_once = True, self._at_once or at_once
            self._changed.notify_all()

    def join(self, timeout_s: float | None = None) -> bool:
        """Wait until it has ended; whether it has."""
        if self._thread.ident is not None:
            self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _main(self) -> None:
        while (work := self._next()) is not None:
            try:
                work()
            except Exception:  # one piece of work that fails must not end the restore process
                _log.exception("%s", self._thread.name)

    def _next(self) -> Work | None:
        with self._changed:
            self._changed.wait_for(lambda: self._queue or self._stopping)
            if not self._queue:
                return None
            work, otherwise, nbytes = self._queue.popleft()
            self.waiting, self.nbytes = self.waiting - (work is not otherwise), self.nbytes - nbytes
            return otherwise if self._at_once else work
