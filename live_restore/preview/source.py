"""The thread that asks the restore process for what one viewer wants to see.

Receives wishes from any thread; hands on `Seen` views and `Link` changes through a callback, from its own thread. It
owns the wire's `Caller`, and does not know browsers.
"""

import logging
from collections.abc import Callable
from threading import Event, Lock, Thread
from time import monotonic
from typing import Self

from live_restore import __version__
from live_restore.errors import WireError
from live_restore.preview.conversation import Conversation, Link, Seen, Wish
from live_restore.wire.security import ClientKeys
from live_restore.wire.sockets import Caller

_log = logging.getLogger(__name__)
# How long the thread sleeps where nothing wakes it: it then says hello again or finds that nobody answers.
_TICK_MS = 100

Deliver = Callable[[Seen | Link], None]


class Watch:
    """One viewer's line to the restore process; several viewers have several.

    Parameters
    ----------
    address : str
        Of the restore process.
    keys : ClientKeys or None
    deliver : callable
        Called with every view and every change of the link, from the watch's thread; must not block.
    """

    def __init__(self, address: str, keys: ClientKeys | None, deliver: Deliver) -> None:
        self._address, self._keys, self._deliver = address, keys, deliver
        self._conversation = Conversation(f"live_restore {__version__} preview")
        self._lock = Lock()
        self._wish: Wish | None = None
        self._caller: Caller | None = None
        self._stopped = Event()
        self._thread = Thread(target=self._main, name="preview-watch", daemon=True)
        self._thread.start()

    def want(self, wish: Wish) -> None:
        """Ask for one view, the newest there is; a later wish replaces an earlier one. From any thread, never blocks."""
        with self._lock:
            self._wish = wish
        self._wake()

    def close(self) -> None:
        """Hang up; twice is fine."""
        self._stopped.set()
        self._wake()
        self._thread.join(timeout=5)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _wake(self) -> None:
        with self._lock:
            if self._caller:
                self._caller.wake()

    def _main(self) -> None:
        try:
            with Caller(self._address, self._keys) as caller:
                self._hold(caller)
                try:
                    self._talk(caller)
                finally:
                    self._hold(None)
        except (WireError, ValueError) as refused:
            _log.warning("the preview cannot reach the restore process: %s", refused)
            self._deliver(Link("failed", why=str(refused)))

    def _hold(self, caller: Caller | None) -> None:
        with self._lock:
            self._caller = caller

    def _talk(self, caller: Caller) -> None:
        known = Link("failed")  # so that the first link is told, whatever it is
        while not self._stopped.is_set():
            self._take_wish()
            held = self._conversation.again()
            if held:
                self._deliver(held)
            self._speak(caller)
            known = self._tell_link(known)
            for message in caller.receive(_TICK_MS):
                seen = self._conversation.hear(message, monotonic())
                known = self._tell_link(known)
                if seen:
                    self._deliver(seen)

    def _take_wish(self) -> None:
        with self._lock:
            wish, self._wish = self._wish, None
        if wish:
            self._conversation.wish(wish)

    def _speak(self, caller: Caller) -> None:
        message = self._conversation.next_message(monotonic())
        if message is None:
            return
        if caller.send(message):
            self._conversation.sent(message, monotonic())
        else:
            self._conversation.unsent(monotonic())

    def _tell_link(self, known: Link) -> Link:
        link = self._conversation.link
        if (link.state, link.session) != (known.state, known.session):
            self._deliver(link)
        return link
