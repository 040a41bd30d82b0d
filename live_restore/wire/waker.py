"""The waker: what makes a thread that waits for messages look up, called from any other thread.

Receives calls; hands on one readable byte, however often it was called. A pair of connected sockets, because that is what
can be polled beside ZeroMQ's sockets on every system. It does not know why somebody is woken.
"""

import socket


class Waker:
    """A bell that can be rung from any thread: it never blocks, and rings once until it is heard."""

    def __init__(self) -> None:
        self._heard, self._bell = socket.socketpair()
        self._heard.setblocking(False)
        self._bell.setblocking(False)
        self._rung = False

    def fileno(self) -> int:
        """Give the descriptor that becomes readable."""
        return self._heard.fileno()

    def ring(self) -> None:
        """Make the waiting thread look up; does nothing where it was rung already or is closed."""
        if self._rung:
            return
        self._rung = True
        try:
            self._bell.send(b"\0")
        except OSError:  # full: it is rung already; closed: nobody waits any more
            pass

    def hear(self) -> None:
        """Take the ring back. Who rings while this runs is heard too: the caller looks around only afterwards."""
        try:
            while self._heard.recv(64):
                pass
        except OSError:  # empty, which is what is wanted; or closed
            pass
        self._rung = False

    def close(self) -> None:
        """Close both ends; closing twice is fine."""
        self._heard.close()
        self._bell.close()
