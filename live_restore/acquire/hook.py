"""The hook: what a microscope's script puts into its acquisition, so that every frame is restored while it is taken.

Receives the frames of pycro-manager (as ``image_process_fn`` or ``image_saved_fn``) and, through `mda`, of pymmcore-plus;
hands the identical objects back and a reference to the sender. It never raises into the acquisition, never blocks it and
never touches a pixel. It does not know what becomes of a frame, nor what is behind the wire.
"""

import atexit
import functools
import logging
import os
import time
import weakref
from collections.abc import Generator, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from live_restore.acquire import pycromanager_traps as traps
from live_restore.acquire.clerk import Clerk
from live_restore.acquire.live_run import LiveRun, Results
from live_restore.acquire.outbox import LIMIT_BYTES
from live_restore.acquire.plan import Plan
from live_restore.acquire.pycromanager_frames import Said, Stage, axes_key, place_of, promise_of, read_metadata
from live_restore.acquire.readback import Read, Readback, on_python_backend
from live_restore.acquire.returned import Returned
from live_restore.acquire.sender import Sender
from live_restore.acquire.summary import Summary
from live_restore.frames import Frame, FrameInfo, VolumeKey
from live_restore.ledger import HOOK_COLUMNS, Ledger
from live_restore.wire.security import ClientKeys
from live_restore.wire.sockets import ENDPOINT, Caller

if TYPE_CHECKING:
    from live_restore.acquire.session import Session

_logger = logging.getLogger(__name__)

_MOST_WARNINGS = 100
# An exposure that was asked for and one that was read back are the same within this: cameras round to their line time.
_SAME_EXPOSURE, _SAME_EXPOSURE_MS = 0.01, 0.05

_NOTHING_READ = Read(None, None, None)

Moment = tuple[int, int]
Events = TypeVar("Events")


class RestoreHook:
    """Sends every frame of an acquisition to the restore process, and brings restored volumes back.

    Use one of: ``Acquisition(..., image_process_fn=hook, post_hardware_hook_fn=hook.readback)`` (pycro-manager's Python
    backend), ``Acquisition(..., image_saved_fn=hook.saved, post_hardware_hook_fn=hook.readback)`` (its Java backend),
    `acquisition`, which does either and makes the acquisition safe, or `live_restore.acquire.mda.connect` (pymmcore-plus).

    Parameters
    ----------
    address : str
        Of the restore process; it may be started later, or again.
    planes : int
        Planes of every z-stack, where the events are not shown to `watch`; 0: found out.
    results : {"none", "float32", "uint16"}
        Whether restored volumes come back; asked for by itself once somebody uses `restored`.
    keys : ClientKeys, folder or None
        Needed beyond this machine, see ``live-restore keys``.
    core : Any
        Whose devices are read back; None: the core that pycro-manager runs on.
    raw : path or None
        Folder of the raw dataset, where it cannot be found out: the run folder is made beside it.
    run : str or None
        Name of the acquisition, unique and fit for a file name.
    limit_bytes : int
        How many bytes of frames may wait or be on their way, for low and high light each.

    Attributes
    ----------
    drain_s : float
        How long the end of an acquisition may wait for frames to leave; 10.
    restored : Returned
        Restored volumes: iterate, or give a callback.
    warnings : list of str
        Plain sentences, each once.
    errors : int
        Frames that could not be used, and anything else that went wrong within the hook.
    failure : Exception or None
        The first of the errors.

    Raises
    ------
    WireError
        If the address cannot be one, or needs keys.
    """

    def __init__(
        self,
        address: str = ENDPOINT,
        *,
        planes: int = 0,
        results: Results = "none",
        keys: "ClientKeys | Path | str | None" = None,
        core: Any = None,
        raw: Path | str | None = None,
        run: str | None = None,
        limit_bytes: int = LIMIT_BYTES,
    ) -> None:
        self.warnings: list[str] = []
        self.errors = 0
        self.failure: Exception | None = None
        self.restored = Returned(self._want_results)
        self._planes, self._results, self.drain_s = planes, results, 10.0
        self._named, self._raw = run, None if raw is None else Path(raw)
        self._plan = Plan(planes)
        self._run: LiveRun | None = None
        self._last: LiveRun | None = None
        self._runs = 0
        self._processes = False
        self._guard = _Guard(self)
        self._readback = Readback(core)
        caller = Caller(address, ClientKeys.read(Path(keys)) if isinstance(keys, (str, Path)) else keys)
        self._sender = Sender(caller, self.restored.put, self.restored.end, self.warn, limit_bytes)
        self._clerk = Clerk(self._describe, self.warn)
        self._closed = False
        self._at_exit = functools.partial(_close, weakref.ref(self), os.getpid())
        atexit.register(self._at_exit)

    # --- what the acquisition calls -----------------------------------------------------------------------------------

    def __call__(self, image: Any, metadata: Any) -> tuple[Any, Any]:
        """Pycro-manager's ``image_process_fn``: hand a frame on, and give back the identical objects."""
        with self._guard:
            now = _now()
            said = read_metadata(metadata)
            self._running()
            self._processes = True
            self._take(image, said, self._readback.take(said.axes), now)
        return image, metadata

    def saved(self, axes: Any, dataset: Any) -> None:
        """Pycro-manager's ``image_saved_fn``: read a frame back from the dataset, only if its volume is sent."""
        with self._guard:
            now, run = _now(), self._running()
            path = getattr(dataset, "path", None)
            if run.raw is None and path:
                run.raw = Path(path).absolute()
            if not self._processes:  # else the same frame came as image_process_fn
                self._take_saved(axes, dataset, run, now)

    def readback(self, event: Any) -> Any:
        """Pycro-manager's ``post_hardware_hook_fn``: read exposure and stage back; gives the event back, always."""
        with self._guard:
            events = event if isinstance(event, list) else [event]
            if all(isinstance(one, Mapping) and "special" not in one for one in events):
                for read in self._readback.read(events):
                    self._compare(read.asked_exposure_ms, read.exposure_ms)
            while self._readback.problems:
                self.warn(self._readback.problems.pop(0))
        return event

    def take(
        self,
        pixels: Any,
        key: VolumeKey,
        z: int | None = None,
        *,
        exposure_ms: float | None = None,
        asked_exposure_ms: float | None = None,
        pixel_size_um: float | None = None,
        stage_um: Stage | None = None,
    ) -> None:
        """Hand a frame on, under our own names; what every adapter calls. Never raises, never blocks.

        Parameters
        ----------
        pixels : ndarray, (Y, X), uint8 or uint16
            Camera counts; kept without copying, so nobody may write into them.
        key : VolumeKey
        z : int or None
            Index of the plane; None: its volume is a single plane.
        exposure_ms, asked_exposure_ms : float or None
            As read back from the camera; as it was asked for.
        pixel_size_um : float or None
        stage_um : tuple or None
            (x, y, z).
        """
        with self._guard:
            said = Said(key, z, (), asked_exposure_ms, pixel_size_um, stage_um)
            self._take(pixels, said, Read(exposure_ms, asked_exposure_ms, None), _now())

    # --- what the script calls ----------------------------------------------------------------------------------------

    def watch(self, events: Events) -> Events:
        """Look at pycro-manager's events on their way to ``acquire()``, so that volumes have a known number of planes.

        A list comes back as it is. An iterator comes back as a generator of the same events, which are looked at when they
        are drawn: nothing is drawn ahead, for what comes next may depend on what was seen.

        Raises
        ------
        ValueError
            If an event of a list would make pycro-manager hang. In an iterator such an event, and all behind it, is left
            out and kept in `failure`: raising there would itself make pycro-manager hang.
        """
        if isinstance(events, Mapping):
            traps.refuse(events, 0, on_python_backend())
            self._plan.promise(promise_of(events))
            return events
        if isinstance(events, Iterator):
            return self._drawn(events)  # type: ignore[return-value]
        if isinstance(events, Sequence):
            for number, event in enumerate(events):
                traps.refuse(event, number, on_python_backend())
            for sentence in traps.warn(events):
                self.warn(sentence)
            self._plan.promise_all(promise_of(event) for event in events)
        return events

    def acquisition(self, directory: Path | str | None = None, name: str = "acquisition", **options: Any) -> "Session":
        """Make a pycro-manager acquisition with this hook in it, which ends: with an error perhaps, but never with a hang.

        ``with hook.acquisition(folder, "mitosis") as acq: acq.acquire(events)``; see `live_restore.acquire.session.Session`.
        """
        from live_restore.acquire.session import Session

        return Session(self, directory, name, **options)

    def wait_attached(self, timeout_s: float) -> bool:
        """Wait for the restore process; whether it is there."""
        return self._sender.attached.wait(timeout_s)

    def begin_run(self, raw: Path | str | None = None, run: str | None = None) -> None:
        """Begin a new acquisition, and end the one before. Without this, the first frame begins one."""
        self.end_run(wait_s=0.0)
        self._runs += 1
        given = self._named if self._runs == 1 or self._named is None else f"{self._named}-{self._runs}"
        live = LiveRun(run or given, self._raw if raw is None else Path(raw), self._plan, self._results)
        self._processes = False
        self._sender.open(live)
        self._clerk.open(live)
        self.restored.begin()
        self._run = self._last = live

    def end_run(self, wait_s: float | None = None) -> None:
        """End the acquisition; wait for frames that have not left, `drain_s` at most, or as long as is said."""
        run, self._run = self._run, None
        if run is not None:
            self._plan = Plan(self._planes)
            self._readback.forget()
            self._sender.end(run, self.drain_s)
        if self._last is not None and self._last.settled.wait(self.drain_s + 2.0 if wait_s is None else wait_s):
            self._clerk.finish(self._last)

    def close(self) -> None:
        """End the acquisition, wait a bounded time for what is on its way, and give everything back; twice is fine."""
        if self._closed:
            return
        self._closed = True
        deadline_s = time.monotonic() + self.drain_s + 2.0
        self.end_run()
        while not self.restored.complete and self.restored.wanted and time.monotonic() < deadline_s:
            time.sleep(0.02)
        self._sender.close()
        self._clerk.close()
        self.restored.close()
        atexit.unregister(self._at_exit)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    @property
    def ledger(self) -> Ledger:
        """What became of the frames of this acquisition, or of the last one."""
        return Ledger(HOOK_COLUMNS) if self._last is None else self._last.ledger

    @property
    def run(self) -> LiveRun | None:
        """Give this acquisition, or the last one."""
        return self._last

    @property
    def plan(self) -> Plan:
        """What the events promised so far."""
        return self._plan

    @property
    def chores(self) -> Clerk:
        """Who does what is to be done every second."""
        return self._clerk

    def summary(self) -> Summary:
        """Say what became of this acquisition, or of the last one."""
        last = self._last
        return Summary(
            "" if last is None else last.name,
            self.ledger.counts(),
            {} if last is None else last.skipped,
            self.restored.count,
            self.restored.dropped,
            self.errors + self._sender.stumbles,
            tuple(self.warnings),
            None if last is None else last.folder,
        )

    def warn(self, sentence: str) -> None:
        """Keep a warning, once, and say it in the log."""
        if sentence in self.warnings or len(self.warnings) >= _MOST_WARNINGS:
            return
        self.warnings.append(sentence)
        _logger.warning("%s", sentence)

    def fail(self, error: Exception) -> None:
        """Count an error that must not reach the acquisition; the first is logged with its traceback."""
        self.errors += 1
        if self.failure is None:
            self.failure = error
            _logger.error("the hook failed, and the acquisition goes on; further failures are counted only", exc_info=error)

    # --- within ---------------------------------------------------------------------------------------------------------

    def _running(self) -> LiveRun:
        if self._run is None:
            self.begin_run()
        assert self._run is not None
        return self._run

    def _take(self, image: Any, said: Said, read: Read | None, now: Moment) -> None:
        _check(image)
        run = self._running()
        info = self._info(run, said, read, now)
        if not run.begun:
            _begin(run, image, said)
        if self._sender.take(run, said.key, info.planes):
            self._sender.put(Frame(image, info))

    def _take_saved(self, axes: Any, dataset: Any, run: LiveRun, now: Moment) -> None:
        """Decide first, then read: a frame of a volume that is left out costs nothing."""
        key, z = place_of(axes)
        run.begun = True
        if not self._sender.take(run, key, self._planes_of(key, z)):
            run.number()
            self._readback.take(axes_key(axes))
            return
        try:
            said = read_metadata(dataset.read_metadata(**axes), axes)
            image = dataset.read_image(**axes)
            _check(image)
            _begin(run, image, said)
        except Exception as error:
            self._sender.spoil(run, key, f"a frame cannot be read from the dataset: {error}")
            raise
        self._sender.put(Frame(image, self._info(run, said, self._readback.take(said.axes), now, learn=False)))

    def _info(self, run: LiveRun, said: Said, read: Read | None, now: Moment, learn: bool = True) -> FrameInfo:
        got = read or _NOTHING_READ
        asked_ms = said.asked_exposure_ms if got.asked_exposure_ms is None else got.asked_exposure_ms
        self._compare(said.asked_exposure_ms, got.exposure_ms)
        planes = self._planes_of(said.key, said.z) if learn else self._plan.planes(said.key, said.z)
        return FrameInfo(
            run.name,
            run.number(),
            said.key,
            said.z or 0,
            planes,
            *now,
            got.exposure_ms,
            asked_ms,
            said.pixel_size_um,
            _merged(got.stage_um, said.stage_um),
        )

    def _planes_of(self, key: VolumeKey, z: int | None) -> int:
        self._plan.met(key, z)
        return self._plan.planes(key, z)

    def _compare(self, asked_ms: float | None, got_ms: float | None) -> None:
        if asked_ms is None or got_ms is None or abs(asked_ms - got_ms) <= max(_SAME_EXPOSURE_MS, _SAME_EXPOSURE * asked_ms):
            return
        self.warn(
            f"an exposure of {asked_ms:g} ms was asked for and the camera stands at {got_ms:g} ms: it was not applied. "
            "Put 'exposure' on every event, give events as a generator, and leave exposure sequences off"
        )

    def _drawn(self, events: Iterator[Any]) -> Generator[Any, None, None]:
        for number, event in enumerate(events):
            try:
                traps.refuse(event, number, on_python_backend())
                self._plan.promise(promise_of(event))
            except ValueError as refused:
                self.fail(refused)
                self.warn(f"the acquisition ends before an event that would make it hang: {refused}")
                return
            yield event

    def _want_results(self) -> None:
        if self._results == "none":
            self._results = "float32"
            if self._run is not None:
                self._run.results = "float32"

    def _describe(self, run: LiveRun) -> dict[str, Any]:
        return {
            "ledger": run.ledger.counts(),
            "ended": run.settled.is_set(),
            "errors": self.errors,
            "warnings": list(self.warnings),
        }


class _Guard:
    """Lets nothing through: the one place where the hook catches whatever goes wrong."""

    def __init__(self, hook: RestoreHook) -> None:
        self._hook = weakref.ref(hook)

    def __enter__(self) -> None:
        return

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> bool:
        if not isinstance(error, Exception):
            return False
        hook = self._hook()
        if hook is not None:
            hook.fail(error)
        return True


def _check(image: Any) -> None:
    """Refuse what is no camera image."""
    if not isinstance(image, np.ndarray) or image.ndim != 2 or image.dtype not in (np.uint8, np.uint16):
        what = f"{image.dtype} of shape {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__
        raise ValueError(f"a frame is {what}; live_restore takes (Y, X) images of uint8 or uint16: set the camera to 16 bit")


def _begin(run: LiveRun, image: NDArray[np.integer[Any]], said: Said) -> None:
    """Note what a first frame shows."""
    if not run.facts:
        run.facts = {"shape": list(image.shape), **({"pixel_size_um": said.pixel_size_um} if said.pixel_size_um else {})}
    run.begun = True


def _now() -> Moment:
    """Take the time, by the monotonic clock and by that on the wall, in nanoseconds."""
    return time.perf_counter_ns(), time.time_ns()


def _merged(read: Stage | None, said: Stage | None) -> Stage | None:
    """Take what was read back, and what was commanded where nothing was read."""
    if read is None or said is None:
        return read or said
    return tuple(b if a is None else a for a, b in zip(read, said, strict=True))  # type: ignore[return-value]


def _close(hook: "weakref.ref[RestoreHook]", process: int) -> None:
    """At the end of the interpreter: what was not closed is, without waiting for long; but not at that of a forked child."""
    left = hook()
    if left is not None and os.getpid() == process:
        left.drain_s = min(left.drain_s, 1.0)
        left.close()
