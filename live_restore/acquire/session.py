"""An acquisition that ends: pycro-manager's, with the hook in it, and with whatever it keeps to itself brought to light.

Receives what ``pycromanager.Acquisition`` takes; hands on an acquisition that returns, or raises one error that says what
is missing and why. All of its threads die with the interpreter, so a device that never answers cannot keep a script from
ending. It does not know the wire, nor pycro-manager from within (`pycromanager_engine` does).
"""

import logging
import math
import queue
import signal
import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from live_restore.acquire.callbacks import Callbacks
from live_restore.acquire.pycromanager_engine import Engine
from live_restore.acquire.pycromanager_frames import axes_key
from live_restore.acquire.readback import on_python_backend
from live_restore.errors import AcquisitionError

if TYPE_CHECKING:
    from live_restore.acquire.hook import RestoreHook
    from live_restore.acquire.live_run import LiveRun

_logger = logging.getLogger(__name__)

# How long nothing may happen, beyond the longest exposure and pause that were asked for.
_STALL_S = 60.0
# How long an aborted acquisition has to save what it took; where all is saved, its threads have a second to end.
_GRACE_S, _END_S = 15.0, 1.0
_LOOK_S = 0.05
_ATTACH_S = 0.5


class Session:
    """One acquisition, as a context manager; made by `RestoreHook.acquisition`.

    What is not found here (``get_dataset``, ``get_viewer``, …) is that of pycro-manager's acquisition.

    Parameters
    ----------
    hook : RestoreHook
    directory : path or None
        Where the dataset's folder is made.
    name : str
        Of that folder; pycro-manager adds a number.
    stall_s : float or None
        How long nothing may happen before the acquisition is given up; None: a minute more than the longest exposure and
        pause of the events. A camera that waits for an outer trigger wants more, ``math.inf`` for ever.
    options
        As pycro-manager's: callbacks, which are called beside the hook's, ``napari_viewer``, ``show_display``, ``port``, …

    Raises
    ------
    AcquisitionError
        On leaving, if frames are missing, a callback failed, or nothing happened any more.
    """

    def __init__(
        self, hook: "RestoreHook", directory: Path | str | None, name: str, *, stall_s: float | None = None, **options: Any
    ) -> None:
        self._hook = hook
        self._stall_s = stall_s
        python_backend = on_python_backend()
        self._engine = Engine(python_backend)
        self._callbacks = Callbacks(hook, options, python_backend, self._stop_for_failure)
        place = None if directory is None else str(Path(directory).expanduser().absolute())
        self._options = {"directory": place, "name": name, **options}
        self._thread = _Thread()
        self._acquisition: Any = None
        self._events = 0
        self._run: LiveRun | None = None
        self._drawing = self._aborted = self._in_body = self._marked = False
        self._stalled = ""
        self._ending_s = math.inf
        self._over = threading.Event()
        self._body: threading.Thread | None = None
        self._guard_thread = threading.Thread(target=self._stand_guard, name="live_restore guard", daemon=True)

    def __enter__(self) -> Self:
        self._hook.wait_attached(_ATTACH_S)
        started = self._thread.start(lambda: self._engine.start({**self._options, **self._callbacks.options()}))
        try:
            self._acquisition = started.result()
        except BaseException:  # Ctrl-C, or what pycro-manager says of a camera that it cannot use
            self._thread.start(self._engine.abort)
            self._thread.close()
            self._engine.stop_listening()
            raise
        raw = getattr(self._acquisition.get_dataset(), "path", None) if self._options["directory"] else None
        self._hook.begin_run(raw)
        self._run = self._hook.run
        self._hook.chores.add(self._engine.flush)
        self._body, self._in_body = threading.current_thread(), True
        self._callbacks.moved()
        self._guard_thread.start()
        return self

    def acquire(self, events: Any) -> Any:
        """Submit an event, a list, or an iterator of events, watched by the hook; gives pycro-manager's future.

        Raises
        ------
        ValueError
            If an event would make pycro-manager hang.
        """
        if isinstance(events, Iterator):
            return self._acquisition.acquire(self._drawn(events))
        events = events if isinstance(events, Mapping) else list(events)
        self._hook.watch(events)
        for event in [events] if isinstance(events, Mapping) else events:
            self._expect(event)
        self._callbacks.moved()
        return self._acquisition.acquire(events)

    def mark_finished(self) -> None:
        """Say that no more events will come: then ``for volume in hook.restored`` ends after the last volume."""
        self._marked = True
        self._acquisition.mark_finished()

    def abort(self) -> None:
        """Stop; frames that were taken stay, and those that were not are not missed."""
        self._aborted = True
        self._hook.restored.end()
        self._engine.abort()

    @property
    def over(self) -> bool:
        """Whether nothing more will come: it was stopped or given up, or a device or callback has failed."""
        failed = (self._engine.exception or self._engine.failed_event) is not None or bool(self._callbacks.errors)
        return failed or self._aborted or bool(self._stalled)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._acquisition, name)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._in_body = False
        interrupted = isinstance(error, (KeyboardInterrupt, SystemExit))
        if interrupted and not self._stalled:
            self.abort()
        finished = self._thread.start(self._finish)
        interrupted = self._wait(finished) or interrupted
        self._over.set()
        self._hook.chores.remove(self._engine.flush)
        self._engine.stop_listening()
        left = [] if finished.done else self._engine.leave_behind()
        self._thread.close()
        self._hook.end_run(0.0 if interrupted and not self._stalled else None)
        self._conclude(error, interrupted, finished, left)

    def _finish(self) -> None:
        if not self._marked:
            self._acquisition.mark_finished()
        self._acquisition.await_completion()

    def _wait(self, finished: "_Result") -> bool:
        """Wait for the end, or until it is certain that there will be none; whether somebody pressed Ctrl-C meanwhile."""
        interrupted = False
        while True:
            try:
                while not finished.wait(_LOOK_S) and not self._hopeless():
                    pass
            except KeyboardInterrupt:
                if self._stalled:  # that was our own
                    continue
                if interrupted:
                    return True
                interrupted = True
                self.abort()
            else:
                return interrupted

    def _hopeless(self) -> bool:
        if math.isinf(self._ending_s) and (self._aborted or self._stalled or self._engine.exception is not None):
            self._ending_s = time.monotonic()
        waited_s = time.monotonic() - self._ending_s
        quiet_s = time.monotonic() - self._callbacks.progress_s
        patience_s = _END_S if self._engine.saved else min(_GRACE_S, max(3 * _END_S, self._patience_s()))
        return waited_s > patience_s and quiet_s > patience_s

    def _stand_guard(self) -> None:
        """Watch over the acquisition, from its own thread: the script's may be waiting for something that never comes."""
        while not self._over.wait(_LOOK_S):
            if self._engine.dead:
                self._stall("the thread of pycro-manager that submits events has died")
            elif self._is_stuck():
                self._stall(f"nothing has happened for {self._patience_s():g} s")
            if self._stalled:
                return
            if self._marked and self._in_body and self._hook.run is self._run and self._is_taken():
                self._hook.end_run(0.0)

    def _is_taken(self) -> bool:
        if self._engine.python_backend:
            return self._engine.saved
        # what was saved need not have come to the hook yet: word of it, and the frame itself, come in threads of their own
        return len(self._callbacks.due) <= self._callbacks.cancelled

    def _is_stuck(self) -> bool:
        waits_for_script = not self._is_due() and (self._drawing or (self._in_body and not self._marked))
        return not waits_for_script and time.monotonic() - self._callbacks.progress_s > self._patience_s()

    def _is_due(self) -> bool:
        return self._events - self._callbacks.cancelled > max(self._callbacks.taken, self._callbacks.saved)

    def _patience_s(self) -> float:
        if self._stall_s is not None:
            return self._stall_s
        plan = self._hook.plan
        return _STALL_S + plan.longest_pause_s + 3 * plan.longest_exposure_ms / 1000

    def _stall(self, why: str) -> None:
        self._stalled = why
        _logger.error("the acquisition is given up: %s", why)
        self._hook.restored.end()
        self._engine.abort()
        if self._in_body and self._body is threading.main_thread():
            _interrupt(self._body)

    def _stop_for_failure(self) -> None:
        self._engine.abort()

    def _drawn(self, events: Iterator[Any]) -> Generator[Any, None, None]:
        """Draw events for pycro-manager; what the script's generator raises would otherwise make it hang."""
        watched = self._hook.watch(events)
        failures = self._hook.errors
        while True:
            self._drawing = True
            try:
                event = next(watched, None)
            except Exception as error:  # somebody else's code, in pycro-manager's thread
                self._callbacks.failed("the generator of events", error)
                event = None
            finally:
                self._callbacks.moved()
                self._drawing = False
            if event is None:
                if self._hook.errors > failures and isinstance(self._hook.failure, ValueError):
                    self._callbacks.errors.append(self._hook.failure)
                return
            self._expect(event)
            yield event

    def _expect(self, event: Mapping[str, Any]) -> None:
        self._events += 1
        self._callbacks.due[axes_key(event["axes"])] = None

    def _conclude(self, error: BaseException | None, interrupted: bool, finished: "_Result", left: list[str]) -> None:
        """Raise what has to be raised, if anything."""
        cause = self._cause(finished)
        sentence = self._verdict(cause, left)
        if interrupted and not self._stalled:
            if error is None:
                raise KeyboardInterrupt
            return
        if not sentence:
            return
        if error is None or self._stalled or type(error).__name__ == "AcqAlreadyCompleteException":
            raise AcquisitionError(sentence) from cause
        _logger.error("%s", sentence)

    def _cause(self, finished: "_Result") -> BaseException | None:
        if self._callbacks.errors:
            return self._callbacks.errors[0]
        return self._engine.exception or finished.error or self._engine.failed_event

    def _verdict(self, cause: BaseException | None, left: list[str]) -> str:
        """Say in words how the acquisition ended; empty if as it should."""
        missing = self._missing()
        if not missing and cause is None and not self._stalled and not left:
            return ""
        taken = max(self._callbacks.taken, self._callbacks.saved)
        words = [f"the acquisition ended after {taken} of {self._events} frames"]
        if missing:
            words.append(missing)
        if self._stalled:
            words.append(f"{self._stalled}; a camera that waits for a trigger wants a longer stall_s")
        if cause is not None:
            words.append(f"the cause: {_words(cause)}")
        if self._engine.device_words and missing:
            words.append(f"the device said: {self._engine.device_words}")
        if left:
            words.append(f"left behind: {', '.join(left)}; restart Python before the next acquisition")
        return "; ".join(words)

    def _missing(self) -> str:
        callbacks = self._callbacks
        if self._aborted and not self._stalled:
            return ""
        distinct_due = len(callbacks.due) - callbacks.cancelled  # two events of the same axes are one image
        if self._is_due() and distinct_due > 0:
            return f"{distinct_due} are missing, the first is {dict(next(iter(callbacks.due)))}"
        unsaved = callbacks.taken - callbacks.diverted - callbacks.saved
        if self._engine.python_backend and unsaved > 0:
            return f"{unsaved} were taken and not saved"
        return ""


class _Result:
    """What a task will have come to."""

    def __init__(self) -> None:
        self.error: BaseException | None = None
        self._value: Any = None
        self._done = threading.Event()

    @property
    def done(self) -> bool:
        return self._done.is_set()

    def wait(self, timeout_s: float) -> bool:
        return self._done.wait(timeout_s)

    def run(self, task: Callable[[], Any]) -> None:
        try:
            self._value = task()
        except BaseException as error:  # handed to who asked
            self.error = error
        self._done.set()

    def result(self) -> Any:
        while not self.wait(_LOOK_S):
            pass
        if self.error is not None:
            raise self.error
        return self._value


class _Thread:
    """A daemon thread that does one task after the other: threads that are made in it are daemons too."""

    def __init__(self) -> None:
        self._tasks: queue.SimpleQueue[tuple[Callable[[], Any], _Result] | None] = queue.SimpleQueue()
        threading.Thread(target=self._work, name="live_restore acquisition", daemon=True).start()

    def start(self, task: Callable[[], Any]) -> _Result:
        result = _Result()
        self._tasks.put((task, result))
        return result

    def close(self) -> None:
        self._tasks.put(None)

    def _work(self) -> None:
        while (asked := self._tasks.get()) is not None:
            task, result = asked
            result.run(task)


def _interrupt(thread: threading.Thread) -> None:
    """Raise KeyboardInterrupt in the main thread, also while it waits."""
    if hasattr(signal, "pthread_kill") and thread.ident is not None:
        signal.pthread_kill(thread.ident, signal.SIGINT)
    else:
        signal.raise_signal(signal.SIGINT)


def _words(error: BaseException) -> str:
    """Say what an error and those before it say, each once."""
    said: list[str] = []
    link: BaseException | None = error
    while link is not None:
        text = str(link) or type(link).__name__
        if text not in said:
            said.append(text)
        link = link.__cause__ or link.__context__
    return ", because ".join(said)
