"""Child processes: starts the restore process and the viewer beside this one, and ends them again.

Receives what the command line would be given; hands on children that are ready, with their addresses. It does not know
what they do.

Every child is a fresh interpreter (never a fork), so that a crash in one, a driver or an engine, leaves the others alone; and
every child ends when this process does, even if it is killed.
"""

import subprocess
import sys
from collections import deque
from collections.abc import Callable, Sequence
from queue import Empty, Queue
from threading import Thread
from typing import Self

from live_restore.errors import LiveRestoreError

# Opening networks on a busy machine takes its time; a child that says nothing for so long has failed.
_READY_S = 120.0
# What it has accepted may take a slow machine minutes.
_STOP_S = 300.0
_LAST_WORDS = 20


class Child:
    """A command of live_restore in a process of its own, ready for use.

    Parameters
    ----------
    words : sequence of str
        The command and its options, as after ``live-restore``.
    ready : str
        What the line of its output begins with that says it is ready; the rest of that line is `where`.

    Attributes
    ----------
    where : str
        The address it listens on.

    Raises
    ------
    LiveRestoreError
        If it ends before it is ready, with its own last words, or says nothing for two minutes.
    """

    def __init__(self, words: Sequence[str], ready: str) -> None:
        self.words = list(words)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "live_restore.cli", *words, "--with-parent"],
            stdin=subprocess.PIPE,  # which closes with this process, however it ends
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
            errors="replace",
            creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),  # a Ctrl-C is for the parent to pass on
            start_new_session=sys.platform != "win32",
        )
        self.said: deque[str] = deque(maxlen=_LAST_WORDS)
        self._found: Queue[str] = Queue()
        Thread(target=self._listen, args=(ready,), daemon=True).start()
        try:
            self.where = self._await_ready()
        except BaseException:  # Ctrl-C while it starts, which is for us to pass on
            self.kill()
            raise

    @property
    def alive(self) -> bool:
        """Whether it still runs."""
        return self.process.poll() is None

    def kill(self) -> None:
        """End it at once, as a crash would."""
        self.process.kill()
        self.process.wait()

    def wait(self, seconds: float) -> bool:
        """Wait until it ends of itself; whether it did."""
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        if self.alive:
            self.kill()

    def _listen(self, ready: str) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.said.append(line.rstrip())
            if line.startswith(ready):
                self._found.put(line.removeprefix(ready).strip())
        self._found.put("")

    def _await_ready(self) -> str:
        try:
            where = self._found.get(timeout=_READY_S)
        except Empty:
            raise LiveRestoreError(
                f"'live-restore {self.words[0]}' was not ready after {_READY_S:.0f} s{self._words()}"
            ) from None
        if not where:
            raise LiveRestoreError(f"'live-restore {self.words[0]}' ended before it was ready{self._words()}")
        return where

    def _words(self) -> str:
        return "; its last words: " + " / ".join(self.said) if self.said else "; it said nothing"


def start_restore_process(models: Sequence[str], *options: str, address: str = "tcp://127.0.0.1:0") -> Child:
    """Start ``live-restore serve``; by default on a free port.

    Parameters
    ----------
    models : sequence of str
        As for ``--model``: PACKAGE or CHANNEL=PACKAGE.
    *options : str
        Further options, as on the command line.
    address : str
        Port 0 stands for any free one.
    """
    given = [word for model in models for word in ("--model", model)]
    return Child(["serve", "--address", address, *given, *options], "listening on ")


def stop_restore_process(child: Child) -> bool:
    """Let a restore process finish what it has and end; whether it did so, and was not killed."""
    from live_restore.wire.messages import Command
    from live_restore.wire.sockets import Caller

    if child.alive:
        with Caller(child.where) as caller:
            caller.ask(Command("stop"), timeout_s=5.0)
    ended = child.wait(_STOP_S)
    if not ended:
        child.kill()
    return ended


def start_viewer(address: str, port: int, *options: str) -> Child:
    """Start ``live-restore view`` without opening a browser."""
    return Child(["view", "--address", address, "--port", str(port), "--no-browser", *options], "page at ")


def end_with_parent(end: Callable[[], None]) -> None:
    """In a child: call `end` once when the parent is gone, which is when the pipe to our standard input closes."""

    def wait() -> None:
        while sys.stdin.buffer.read(1):
            pass
        end()

    Thread(target=wait, name="parent watch", daemon=True).start()
