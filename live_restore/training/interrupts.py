"""Ctrl-C as a flag: training ends between two steps, and keeps what it has.

Hands on an event; it does not know what is interrupted.
"""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def noted_interrupts() -> Iterator[threading.Event]:
    """Set an event at the first Ctrl-C; the second one raises KeyboardInterrupt at once. Where it is ignored, it stays so."""
    interrupted = threading.Event()
    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or before == signal.SIG_IGN:
        yield interrupted
        return
    if not callable(before):  # the system's own would end the process in the middle of writing
        before = signal.default_int_handler

    def note(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, before)
        interrupted.set()

    signal.signal(signal.SIGINT, note)
    try:
        yield interrupted
    finally:
        signal.signal(signal.SIGINT, before)
