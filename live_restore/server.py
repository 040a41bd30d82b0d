"""The restore process: startup, loop, shutdown. Frames come in over the wire; restored volumes go back, on screens and on disk.

Receives options; hands on nothing, and ends when it is told to. This is where the rooms meet; each of its threads is a file of
its own in `live_restore.serving`::

    clients ══ network ──► restore ──► check ──► record
                  ▲ │         │          │          ▲
                  └─┼─────────┴──────────┤          │   restored volumes for the acquisition, views for the viewers
                    └────────────────────┴─► compare┘   with reference volumes at high light, where there are any

It does not know acquisition engines or browsers.
"""

import logging
import signal
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from threading import Event, Thread
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from live_restore.frames import Volume
from live_restore.records.runs import volume_words
from live_restore.restore.noise import CameraNoise
from live_restore.restore.scheduler import Scheduler
from live_restore.serving.checking import Checking, Checks, LeaveOut, NoChecks, checked, said_of
from live_restore.serving.comparing import Comparing
from live_restore.serving.engine_builds import EngineBuilds
from live_restore.serving.models import ModelChoice, Models, choice_of
from live_restore.serving.network import Network, Parts
from live_restore.serving.recording import Recording
from live_restore.serving.restoring import Outcome, Restoring
from live_restore.serving.run import Runs
from live_restore.serving.status import Identity, Status
from live_restore.serving.views import Views
from live_restore.wire.messages import Answer, Command, RestoredSent
from live_restore.wire.security import ServerKeys
from live_restore.wire.sockets import ENDPOINT, Listener

__all__ = ["ModelChoice", "ServeOptions", "Server", "serve"]

_log = logging.getLogger(__name__)
# A network thread that fails this often in a row is broken for good.
_MOST_FAILURES = 100
# How long a second stop waits for what a thread has in hand.
_AT_ONCE_S = 5.0
# Threads hand the interpreter on after this long; Python's own 5 ms would add up to a volume's whole latency.
_SWITCH_S = 0.0005
# Which volumes go unchecked.
_LEFT_OUT: Mapping[str, LeaveOut] = {"paced": "paced", "newest": "overtaken"}


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeOptions:
    """What the restore process is to do.

    Attributes
    ----------
    address : str
        Where it listens; port 0: any that is free.
    models : tuple of ModelChoice
        Channels without one are shown as they are.
    noise : CameraNoise or None
        Of the camera; None: estimated from the images.
    trust : {"paced", "every", "newest", "before", "none"}
        Which restored volumes are checked for photon consistency. ``paced``: every one, beside the restoration of the next,
        so that a volume goes back to the acquisition at once, without the figures; but where volumes wait to be restored,
        checks take a tenth of the time at most, and what they leave out is counted. ``every``: none is left out; a check
        that is slower than the network slows all down. ``newest``: only what the check cannot keep up with is left out.
        ``before``: every volume, before it goes back, with the figures. ``none``: none.
    references_ms : mapping of str to float
        Exposures that one would use without restoration, by channel: the dose saved is counted against them, else against
        the high-light frames of the run.
    max_waiting : int
        How many whole volumes may wait, besides one per channel: more are restored of a burst, fewer come late.
    max_waiting_bytes : int
        What waiting and unfinished volumes may take.
    deadline_s, quiet_s : float
        When unfinished volumes end, see `live_restore.restore.volumes.Assembly`.
    records : Path or None
        Where runs are recorded whose raw dataset is not on this machine; None: ``live_restore_runs`` in the current folder.
    keys : Path or None
        Folder of the keys that addresses other than this machine's need.
    expected : (Z, Y, X) or None
        Shape of the volumes to come: every model is warmed up for it before clients are answered, so that the first volume
        is as quick as the rest. None: with the first volume, or the plan of the first run that says how large its frames are.
    """

    address: str = ENDPOINT
    models: tuple[ModelChoice, ...] = ()
    noise: CameraNoise | None = None
    trust: Literal["paced", "every", "newest", "before", "none"] = "paced"
    references_ms: Mapping[str, float] = field(default_factory=dict)
    max_waiting: int = 2
    max_waiting_bytes: int = 4 << 30
    deadline_s: float = 60.0
    quiet_s: float = 2.0
    records: Path | None = None
    keys: Path | None = None
    expected: tuple[int, int, int] | None = None


def serve(
    options: ServeOptions,
    ready: Callable[[str], None] = lambda address: None,
    loaded: Callable[[list[dict[str, Any]]], None] = lambda models: None,
) -> None:
    """Run the restore process until it is stopped, by the command ``stop`` or a signal: once to drain, twice to end at once.

    Parameters
    ----------
    options : ServeOptions
    ready : callable
        Told the address when clients can come.
    loaded : callable
        Told before that which models are ready, as the status says it.

    Raises
    ------
    WireError
        If the address cannot be used.
    ModelError, EngineError, ValueError
        If a model cannot be loaded or served.
    ImageError
        If a model cannot restore volumes of the shape that is expected.
    """
    sys.setswitchinterval(_SWITCH_S)
    with Server(options) as server, _signals(server.stop):
        loaded(server.models)
        ready(server.address)
        while not server.wait(0.5):  # in steps, so that signals are heard on every system
            pass


class Server:
    """The restore process, within whatever process makes it; a context manager that starts and stops it.

    Attributes
    ----------
    address : str
        With the real port.
    """

    def __init__(self, options: ServeOptions, builds: EngineBuilds | None = None) -> None:
        self._options = options
        self._builds = builds or EngineBuilds()
        keys = ServerKeys.read(options.keys) if options.keys else None
        self._listener = Listener(options.address, keys)
        self.address = self._listener.address
        try:
            self._models = _ready_models(options, self._builds)
        except BaseException:
            self._listener.close()
            raise
        self._stops = self._draining = 0
        self._over = Event()
        self._swapping = False
        self._connect(options)
        self._thread = Thread(target=self._main, name="network", daemon=True)

    def _connect(self, options: ServeOptions) -> None:
        """Make the parts, and tell each who comes after it."""
        session = uuid.uuid4().hex
        self._runs, self._views = Runs(), Views(options.max_waiting_bytes)
        self._checks: Checks | NoChecks = NoChecks() if options.trust == "none" else Checks(options.noise)
        self._recording = Recording(options.records, lambda: {"models": self._models.described()})
        self._comparing = Comparing(self._recording, options.noise)
        self._checking = Checking(
            NoChecks() if options.trust == "before" else self._checks,
            self._views,
            self._recording,
            self._comparing,
            leave_out=_LEFT_OUT.get(options.trust, "none"),
            behind=lambda: self._restoring.behind,
            looking=lambda: self._network.looking,
            shown=self._seen_anew,
        )
        scheduler = Scheduler(options.max_waiting, options.max_waiting_bytes)
        self._restoring = Restoring(self._models, scheduler, self._restored, self._failed, self._room_made)
        identity = Identity(session, self.address, time.perf_counter_ns())
        self._network = Network(
            Parts(
                self._listener,
                self._models,
                self._runs,
                self._restoring,
                self._checking,
                self._comparing,
                self._recording,
                self._views,
                Status(identity, self._models, self._runs),
            ),
            session,
            deadline_s=options.deadline_s,
            quiet_s=options.quiet_s,
            max_bytes=2 * options.max_waiting_bytes,
            references_ms=options.references_ms,
            ordered=self._ordered,
        )

    @property
    def models(self) -> list[dict[str, Any]]:
        """Which models are ready, as the status says it."""
        return self._models.described()

    def start(self) -> None:
        """Begin to serve."""
        for part in (self._recording, self._comparing, self._checking, self._restoring, self._thread):
            part.start()
        self._builds.start(self._models)

    def stop(self) -> None:
        """End: the first time when all that was accepted is done, the second time at once. From any thread, or a signal."""
        self._stops += 1
        self._listener.wake()

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait until it has ended; whether it has."""
        return self._over.wait(timeout_s)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stops = max(1, self._stops)
        self._listener.wake()
        self.wait()

    # --- the network thread -------------------------------------------------------------------------------------------

    def _main(self) -> None:
        failures = 0
        while not self._ended():
            try:
                self._network.turn()
                failures = 0
            except Exception:  # a message nobody foresaw must not end the process
                _log.exception("network thread")
                failures += 1
                if failures == _MOST_FAILURES:
                    break
        self._builds.stop()
        self._network.say_what_waits()
        self._listener.close()
        self._over.set()

    def _ended(self) -> bool:
        """Carry a stop on, from thread to thread; whether all have ended."""
        if self._stops and not self._draining:
            self._draining = 1
            self._network.drain()
            self._restoring.stop()
        if self._stops > 1 and self._draining < 2:
            self._draining, self._deadline_s = 2, time.monotonic() + _AT_ONCE_S
            self._restoring.stop(at_once=True)
            self._checking.hurry()
            self._comparing.hurry()
            self._recording.hurry()
        return self._draining > 0 and self._have_ended()

    def _have_ended(self) -> bool:
        late = self._draining == 2 and time.monotonic() > self._deadline_s
        if not self._restoring.join(0) and not late:
            return False
        for run in self._runs.all():
            if not run.closed:
                self._checking.finish(run)
        self._checking.stop()
        if not self._checking.join(0) and not late:
            return False
        self._comparing.stop()
        if not self._comparing.join(0) and not late:
            return False
        self._recording.stop()
        return self._recording.join(0) or late

    # --- what the threads tell ----------------------------------------------------------------------------------------

    def _room_made(self) -> None:
        self._network.room_made()

    def _seen_anew(self) -> None:
        self._network.seen_anew()

    def _restored(self, outcome: Outcome) -> None:
        """Take what the restore thread made: it goes back to the acquisition before anything else is done with it."""
        run = self._runs.get(outcome.volume.run)
        if run is None:
            return
        said, trust = said_of(outcome), None
        if outcome.slab:
            self._checking.take(run, outcome, said)
            return
        if self._options.trust == "before":
            said, trust = checked(self._checks, outcome, said)
        if run.results != "none":
            self._network.send(run.client, _sent(outcome, run.results, said))
        run.volume("restored")
        self._checking.take(run, outcome, said, trust)

    def _failed(self, volume: Volume, why: str) -> None:
        """Say that a volume could not be restored, and why."""
        run = self._runs.get(volume.run)
        if run is None:
            return
        run.volume("failed")
        self._comparing.unrestored(run, volume)
        run.warn(f"failed {volume.key.channel}", f"{volume.key} could not be restored: {why}")
        self._recording.note(run, "failed", **volume_words(volume.key), planes=len(volume.infos), why=why)

    def _ordered(self, client: bytes, command: Command) -> None:
        """Carry out an order."""
        if command.name == "stop":
            self._stops += 1
            self._network.send(client, Answer({"state": "draining" if self._stops == 1 else "ending"}))
            return
        try:
            choice = choice_of(command.options)
            if self._swapping:
                raise ValueError("another model is being loaded; try again when it is ready")
        except ValueError as wrong:
            self._network.send(client, Answer(refused=str(wrong)))
            return
        self._swapping = True
        Thread(target=self._swap, args=(client, choice), name="swap", daemon=True).start()

    def _swap(self, client: bytes, choice: ModelChoice) -> None:
        """Change a channel's model; a thread of its own, for loading takes seconds."""
        asked = {**asdict(choice), "package": str(choice.package)}
        try:
            self._builds.before_swap(self._models, choice)
            loaded = self._models.swap(choice)
        except Exception as failed:  # the old model goes on, whatever the new one threw
            why = str(failed) or type(failed).__name__
            self._tell_runs("model not changed", f"the model was not changed: {why}", asked=asked, why=why)
            answer = Answer(refused=why)
        else:
            self._tell_runs("model changed", "", asked=asked, loaded=loaded)
            answer = Answer(loaded)
        self._swapping = False
        self._network.send(client, answer)

    def _tell_runs(self, event: str, warning: str, **said: Any) -> None:
        for run in self._runs.all():
            if run.closed:
                continue
            self._recording.note(run, event, **said)
            if warning:
                run.warn("swap", warning)
            else:
                run.unwarn("swap")
                self._recording.describe(run)


def _ready_models(options: ServeOptions, builds: EngineBuilds) -> Models:
    """Load the models, and warm them up for what is expected."""
    models = Models(builds.at_once(options.models))
    try:
        if options.expected is not None:
            models.expect(options.expected)
    except BaseException:
        models.close()
        raise
    return models


def _sent(outcome: Outcome, results: str, said: dict[str, Any]) -> RestoredSent:
    volume = outcome.volume
    return RestoredSent(
        volume.run,
        volume.key,
        _in_counts(outcome.pixels) if results == "uint16" else np.ascontiguousarray(outcome.pixels).view(),  # lives as long as
        # the message does, see `Network`
        max(info.captured_ns for info in volume.infos),
        said["trust"],
        said["provenance"],
        said["stages_ms"],
    )


def _in_counts(pixels: NDArray[np.float32]) -> NDArray[np.uint16]:
    """Round to whole counts, 0 to 65535."""
    rounded = pixels + np.float32(0.5)
    np.clip(rounded, 0, 65535, out=rounded)
    return rounded.astype(np.uint16)


@contextmanager
def _signals(stop: Callable[[], None]) -> Iterator[None]:
    """Let Ctrl-C and the system's request to end call `stop`; only the main thread may ask for that."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    names = [name for name in ("SIGINT", "SIGTERM", "SIGBREAK") if hasattr(signal, name)]
    before = {name: signal.signal(getattr(signal, name), lambda number, frame: stop()) for name in names}
    try:
        yield
    finally:
        for name, handler in before.items():
            signal.signal(getattr(signal, name), handler)
