"""The lane: a thread that does one piece of work after another.

Receives work to do, and what to do instead if there is no time left; hands on nothing. It does not know what the work is.
"""

import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from threading import Condition, Thread

_log = logging.getLogger(__name__)
Work = Callable[[], None]
_MOST_NOTES = 1000


def _nothing() -> None:
    """Do nothing instead."""


@dataclass(frozen=True, slots=True)
class _Piece:
    work: Work
    otherwise: Work
    nbytes: int = 0
    counted: bool = False


class Lane:
    """Begun by `start`, ended by `stop` and `join`.

    Parameters
    ----------
    name : str
        Of the thread.

    Attributes
    ----------
    waiting : int
        How many pieces of work wait, notes not among them. Whoever gives work looks at it: nothing here ever waits or drops.
    nbytes : int
        What they keep in memory.
    """

    def __init__(self, name: str) -> None:
        self.waiting = self.nbytes = 0
        self._queue = deque[_Piece]()
        self._changed = Condition()
        self._stopping = self._hurrying = False
        self._thread = Thread(target=self._main, name=name, daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def put(self, work: Work, otherwise: Work = _nothing, nbytes: int = 0) -> None:
        """Give work that keeps so many bytes; `otherwise` is done in its place if there is no time left."""
        with self._changed:
            self.waiting, self.nbytes = self.waiting + 1, self.nbytes + nbytes
            self._queue.append(_Piece(work, otherwise, nbytes, counted=True))
            self._changed.notify()

    def add(self, work: Work) -> None:
        """Give a small piece of work; it is done even if there is no time left."""
        with self._changed:
            self._queue.append(_Piece(work, work))
            self._changed.notify()

    def note(self, work: Work) -> None:
        """Give what is done if a thousand other things do not wait: a disk that hangs must not fill the memory."""
        if len(self._queue) < _MOST_NOTES:
            self.add(work)

    def hurry(self) -> None:
        """Do only what must be done from here on: of the work that waits, what stands in its place."""
        with self._changed:
            self._hurrying = True

    def stop(self) -> None:
        """End when all is done; a second time is fine."""
        with self._changed:
            self._stopping = True
            self._changed.notify()

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
            piece = self._queue.popleft()
            self.waiting, self.nbytes = self.waiting - piece.counted, self.nbytes - piece.nbytes
            return piece.otherwise if self._hurrying else piece.work
