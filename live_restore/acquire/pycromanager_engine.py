"""pycro-manager's acquisition from within: how to start it clean, stop it, see whether it lives, and leave it behind.

Receives an acquisition of pycro-manager 1.0.2; hands on what it keeps to itself. Much of this is private to pycro-manager,
which its Python backend leaves no way around, and all of it is in this file. It does not know why somebody wants to stop.
"""

import atexit
import re
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import thread as futures_thread
from contextlib import suppress
from pathlib import Path
from typing import Any

_EXECUTORS = {"acq_executor": "Acquisition Engine Thread", "event_generator_executor": "Acq Eng event generator"}
# A line of a traceback that says what was raised.
_ERROR = re.compile(r"^[\w.]*(?:Error|Exception): (?P<said>.+)$", re.MULTILINE)
_WAITING = ("threading.py", "queue.py", "_base.py")
# Cores that will be quiet at the end: one per process, for pycro-manager keeps its first.
_quietened: list[Any] = []
# Long before any start time: an aborted engine waits for the start time of its event, without rest.
_LONG_AGO_MS = -1e15


class Engine:
    """Pycro-manager's Python engine, of which a process has one; or its Java engine, which keeps everything to itself.

    Parameters
    ----------
    python_backend : bool

    Attributes
    ----------
    device_words : str
        What a device said when it last failed; the engine's own errors leave it out.
    failed_event : BaseException or None
        What the first event that failed by itself ended with: of an event that is not merged with others, the engine tells
        nobody.
    """

    def __init__(self, python_backend: bool) -> None:
        self.python_backend = python_backend
        self.device_words = ""
        self.failed_event: BaseException | None = None
        self._acquisition: Any = None
        self._inner: Any = None
        self._core: Any = None
        self._own_log: Any = None

    def start(self, options: dict[str, Any]) -> Any:
        """Make an acquisition; call this in a daemon thread, whose kind all of its threads are then.

        An engine remembers the last event of the last acquisition and does not set again what it believes to be set, so
        that is forgotten. Its two threads live as long as the process; those that are no daemons are replaced.
        """
        from pycromanager import Acquisition

        if self.python_backend:
            self._refresh()
        self._acquisition = Acquisition(**options)
        self._inner = self._acquisition._acq if self.python_backend else None  # noqa: SLF001
        return self._acquisition

    def _refresh(self) -> None:
        engine = _singleton()
        if engine is None:
            return
        engine.last_event = None
        for name, prefix in _EXECUTORS.items():
            executor = getattr(engine, name)
            if any(not thread.daemon for thread in executor._threads):  # noqa: SLF001
                executor.shutdown(wait=False)
                executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix=prefix)
                setattr(engine, name, executor)
            executor.submit(int)  # a first task makes the thread, here and now
        self._listen(engine.core)
        self._look_at_events(engine)
        if engine.core not in _quietened:
            _quietened.append(engine.core)
            atexit.register(_quieten, engine.core)

    def _listen(self, core: Any) -> None:
        """Hear what the engine writes into Micro-Manager's log when a device fails, for it tells nobody else."""
        log = core.log_message

        def tee(text: str, *more: Any) -> Any:
            first = _ERROR.search(text)  # later ones are what pycro-manager made of it
            if first is not None:
                self.device_words = first["said"].strip()
            return log(text, *more)

        own = vars(core).get("log_message")  # a core that was made to look like pycro-manager's has one
        core.log_message = tee
        self._core, self._own_log = core, own

    def _look_at_events(self, engine: Any) -> None:
        """Look at what every event ended with."""
        submit = type(engine).submit_event_iterator

        def noted(events: Any) -> Any:
            future = submit(engine, events)
            future.add_done_callback(self._note)
            return future

        engine.submit_event_iterator = noted

    def _note(self, future: Any) -> None:
        if not future.cancelled() and self.failed_event is None:
            self.failed_event = future.exception()

    def stop_listening(self) -> None:
        """Leave engine and core as they were."""
        if self.python_backend and (engine := _singleton()) is not None:
            vars(engine).pop("submit_event_iterator", None)
        if self._core is not None:
            with suppress(AttributeError):
                del self._core.log_message
            if self._own_log is not None:
                self._core.log_message = self._own_log
            self._core = None

    def abort(self) -> None:
        """Stop as soon as possible; frames that were taken are still saved."""
        if self._acquisition is None:
            return
        if self._inner is not None:
            self._inner.set_start_time_ms(_LONG_AGO_MS)
        with suppress(AttributeError):  # it is over already
            self._acquisition.abort()
        if self._acquisition._event_queue is not None:  # noqa: SLF001
            self._acquisition._event_queue.put(None)  # noqa: SLF001  (aborting also clears the sign that no more events come)

    @property
    def exception(self) -> BaseException | None:
        """What ended the acquisition, and was perhaps not raised."""
        found = self._acquisition._exception  # noqa: SLF001
        if found is None and self._inner is not None:
            found = self._inner.abort_exception_
        return found if isinstance(found, BaseException) else None

    @property
    def saved(self) -> bool:
        """Whether all is taken and saved, as far as can be seen from here."""
        if self._inner is None:
            return False
        sink = self._inner.get_data_sink()
        return bool(self._inner.are_events_finished() and (sink is None or sink.is_finished()))

    @property
    def dead(self) -> bool:
        """Whether the thread that submits events has died before its time: then nothing more will ever come."""
        if self._inner is None:
            return False
        thread = self._acquisition._event_thread  # noqa: SLF001
        return not thread.is_alive() and not self._inner.are_events_finished()

    def flush(self) -> None:
        """Write the index of the dataset out: otherwise a killed process loses its last frames from it."""
        file = getattr(self._acquisition.get_dataset(), "_index_file", None)
        if file is not None:
            with suppress(ValueError, OSError):  # closed meanwhile, or the disk is full
                file.flush()

    def leave_behind(self) -> list[str]:
        """Give up threads that do not end, so that neither the next acquisition nor the interpreter's end waits for them.

        Returns
        -------
        list of str
            Where each of the engine's threads is.
        """
        engine = _singleton() if self.python_backend else None
        where: list[str] = []
        for name, prefix in _EXECUTORS.items() if engine is not None else ():
            executor = getattr(engine, name)
            for thread in executor._threads:  # noqa: SLF001
                where += [f"{prefix}: {place}"] if (place := _where(thread)) else []
                futures_thread._threads_queues.pop(thread, None)  # type: ignore[attr-defined]  # noqa: SLF001
            executor.shutdown(wait=False)
            setattr(engine, name, ThreadPoolExecutor(max_workers=1, thread_name_prefix=prefix))
        return where


def _quieten(core: Any) -> None:
    """Let a core say nothing more at the end of the interpreter.

    mmpycorex unloads the devices then; of that the core's own thread tells pymmcore-plus, in a Python that is going, and the
    process is aborted: measured in three of four runs. pymmcore-plus has no public way to stop it.
    """
    import pymmcore

    with suppress(AttributeError, TypeError):
        pymmcore.CMMCore.registerCallback(core, None)


def _singleton() -> Any:
    from pycromanager.acquisition.acq_eng_py.internal.engine import Engine as PycromanagerEngine

    return PycromanagerEngine.get_instance()


def _where(thread: threading.Thread) -> str:
    """Name the function that a thread is in, of those that wait whom they wait for."""
    frame = sys._current_frames().get(thread.ident or 0)  # noqa: SLF001
    while frame is not None and frame.f_back is not None and Path(frame.f_code.co_filename).name in _WAITING:
        frame = frame.f_back
    return f"{frame.f_code.co_filename}:{frame.f_lineno} in {frame.f_code.co_name}" if frame is not None else ""
