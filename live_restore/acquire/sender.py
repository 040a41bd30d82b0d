"""The sender: the thread that talks to the restore process, so that the acquisition never does.

Receives frames from the hook, at any time and from any thread; hands them on by the outbox's rules, takes receipts,
credit and restored volumes, and notices when the restore process goes and comes. It does not know what is in a frame,
nor who acquires.
"""

import logging
import time
from collections.abc import Callable
from threading import Event, Lock, Thread

import numpy as np

from live_restore import __version__
from live_restore.acquire.live_run import LiveRun
from live_restore.acquire.outbox import FULL, LIMIT_BYTES, Outbox
from live_restore.frames import Frame, LiveRestored, VolumeKey
from live_restore.wire.messages import (
    Abandon,
    Answer,
    Beat,
    Begin,
    Command,
    FrameSent,
    Hello,
    Message,
    Receipt,
    RestoredSent,
    Welcome,
)
from live_restore.wire.sockets import Caller

_logger = logging.getLogger(__name__)

# Heard nothing for so long: the restore process is gone.
SILENCE_S = 2.0
_BEAT_S = 0.5
# How often the sender looks for frames: while they flow, while they may come, and else. The hook does not wake it, because
# waking takes a system call, for which Python and the system let other threads run; measured on two busy cores, that held
# the hook up for 2 to 7 ms in one frame of a hundred. Looking costs one or two percent of a core while frames flow.
_FLOWING_MS, _LIVE_MS, _IDLE_MS = 2, 10, 100
_FLOWING_S = 1.0
# A restore process that does not say how far it is has this long to send a further volume after the end.
_QUIET_S = 5.0

Got = Callable[[LiveRestored], None]


class Sender:
    """Owns the connection to the restore process.

    Parameters
    ----------
    caller : Caller
        Belongs to the sender's thread from now on.
    got : callable
        Told of each restored volume, in the sender's thread.
    ended : callable
        Told when no more volumes of the current run will come.
    warn : callable
        Told, in a sentence, what the user should know.
    limit_bytes : int
        How many bytes of frames may wait or be on their way.

    Attributes
    ----------
    session : str
        Of the restore process; empty while there is none.
    attached : Event
        Set while there is a restore process.
    stumbles, trouble : int, str
        How often the sender's thread failed and went on, and why last.
    """

    def __init__(
        self, caller: Caller, got: Got, ended: Callable[[], None], warn: Callable[[str], None], limit_bytes: int = LIMIT_BYTES
    ) -> None:
        self.session = ""
        self.attached = Event()
        self.trouble = ""
        self.stumbles = 0
        self._caller, self._got, self._ended, self._warn = caller, got, ended, warn
        self._lock = Lock()
        self._runs: dict[str, LiveRun] = {}
        self._outbox = Outbox(self._skip, limit_bytes)
        self._told: dict[str, Begin] = {}
        self._heard_s = self._hello_s = self._beat_s = self._flowed_s = -1e9
        self._awaited: LiveRun | None = None
        self._quiet_since_s = 0.0
        self._finished_once = False
        self._stop = Event()
        self._thread = Thread(target=self._talk, name="live_restore sender", daemon=True)
        self._thread.start()

    # --- from any thread ----------------------------------------------------------------------------------------------

    def open(self, run: LiveRun) -> None:
        """Take up a run that begins."""
        with self._lock:
            self._runs[run.name] = run
            self._outbox.open(run.name, run.ledger)
            self._awaited = None

    def take(self, run: LiveRun, key: VolumeKey, planes: int) -> bool:
        """Decide whether a frame that comes in is sent. If so, `put` or `spoil` must follow."""
        with self._lock:
            return self._outbox.take(run.name, key, planes)

    def put(self, frame: Frame) -> None:
        """Send a frame, as soon as it can go out."""
        with self._lock:
            self._outbox.put(frame)

    def spoil(self, run: LiveRun, key: VolumeKey, why: str) -> None:
        """Give up the volume of a frame that was to be sent and cannot be had."""
        with self._lock:
            self._outbox.spoil(run.name, key, why)

    def end(self, run: LiveRun, drain_s: float) -> None:
        """End a run; what waits has so long to leave. Returns at once: `run.settled` tells when it is done."""
        with self._lock:
            if run.name not in self._runs or run.ended:
                return
            run.give_up_s = time.monotonic() + drain_s
            run.ended = True
        self._caller.wake()

    def close(self) -> None:
        """End the thread, giving up what still waits; a second time is fine."""
        self._stop.set()
        self._caller.wake()
        self._thread.join(5.0)

    # --- in the sender's thread ---------------------------------------------------------------------------------------

    def _talk(self) -> None:
        while not self._stop.is_set():
            try:
                self._turn()
            except Exception as error:  # a sender that ends takes the whole live path along: say it, and go on
                self.trouble = f"{type(error).__name__}: {error}"
                self.stumbles += 1
                if self.stumbles == 1:
                    _logger.exception("the sender stumbled; further failures are counted only")
                self._stop.wait(_BEAT_S)
        with self._lock:
            for run in list(self._runs.values()):
                self._settle(run)
        self._caller.close()

    def _turn(self) -> None:
        for message in self._caller.receive(self._patience_ms()):
            self._hear(message)
        now_s = time.monotonic()
        if self.session and now_s - self._heard_s > SILENCE_S:
            self._lose("nothing was heard of it for 2 s")
        self._greet(now_s)
        self._send_waiting()
        self._finish_runs(now_s)

    def _patience_ms(self) -> int:
        if time.monotonic() - self._flowed_s < _FLOWING_S:
            return _FLOWING_MS
        return _LIVE_MS if self._runs else _IDLE_MS

    def _hear(self, message: Message) -> None:
        if isinstance(message, Welcome):
            self._welcome(message)
        if not self.session:  # said by a process that we do not know, or have given up
            return
        self._heard_s = time.monotonic()
        match message:
            case Receipt():
                self._receipt(message)
            case Beat():
                with self._lock:
                    self._outbox.credit(message.credit)
            case RestoredSent():
                self._restored(message)
            case Answer():
                self._learn_status(message)

    def _welcome(self, message: Welcome) -> None:
        if message.session == self.session:
            with self._lock:
                self._outbox.credit(message.credit)
            return
        if self.session:
            self._lose("another one answers in its place")
        self.session, self._heard_s = message.session, time.monotonic()
        self._told.clear()
        with self._lock:
            self._outbox.came(message.credit)
        self.attached.set()
        _logger.info("attached to the restore process %s at %s", message.software, self._caller.address)

    def _lose(self, why: str) -> None:
        self.session = ""
        self.attached.clear()
        self._told.clear()
        self._hello_s = -1e9
        with self._lock:
            self._outbox.went()
        self._warn(f"the restore process at {self._caller.address} went away ({why}); the acquisition goes on without it")

    def _receipt(self, message: Receipt) -> None:
        if message.refused:
            self._warn(f"the restore process refused frames: {message.refused}")
        with self._lock:
            if message.run in self._runs:
                self._outbox.receipt(message.run, message.sequences, message.credit, message.refused)
            else:
                self._outbox.credit(message.credit)

    def _restored(self, message: RestoredSent) -> None:
        self._quiet_since_s = time.monotonic()
        latency_ms = (time.perf_counter_ns() - message.captured_ns) / 1e6
        self._got(
            LiveRestored(
                message.run,
                message.key,
                message.pixels,
                message.trust,
                message.provenance,
                message.stages_ms,
                latency_ms,
            )
        )

    def _greet(self, now_s: float) -> None:
        """Say hello until somebody answers, then show a sign of life; both twice a second."""
        if not self.session:
            if now_s - self._hello_s >= _BEAT_S and self._caller.send(Hello("hook", f"live_restore {__version__}")):
                self._hello_s = now_s
            return
        if now_s - self._beat_s < _BEAT_S:
            return
        self._beat_s = now_s
        live = self._live()
        for run in live:
            self._tell(run)
        newest = live[-1] if live else self._awaited
        self._caller.send(Beat(newest.name, newest.ledger.counts()) if newest else Beat())
        if self._awaited is not None:
            self._caller.send(Command("status"))

    def _live(self) -> list[LiveRun]:
        with self._lock:
            return [run for run in self._runs.values() if run.begun]

    def _tell(self, run: LiveRun) -> bool:
        """Say what is known of a run, if it was not said; whether it is said now."""
        begin, told = run.begin(), self._told.get(run.name)
        if told is not None and (told.raw, told.plan, told.results) == (begin.raw, begin.plan, begin.results):
            return True
        if not self._caller.send(begin):
            return told is not None
        self._told[run.name] = begin
        return True

    def _send_waiting(self) -> None:
        while self.session:
            with self._lock:
                message = self._outbox.next()
                run = None if message is None else self._runs.get(_run_of(message))
            if message is None:
                return
            if run is None:
                continue
            if not ((run.name in self._told or self._tell(run)) and self._out(message, run)):
                with self._lock:
                    self._outbox.put_back(message)
                return
            self._flowed_s = time.monotonic()

    def _out(self, message: FrameSent | Abandon, run: LiveRun) -> bool:
        """Send it; what cannot be put on the wire at all is given up. False: not now."""
        if isinstance(message, Abandon):
            return self._caller.send(message)
        frame = message.frame
        if not frame.pixels.flags.c_contiguous:
            message = FrameSent(Frame(np.ascontiguousarray(frame.pixels), frame.info))
        try:
            return self._caller.send(message)
        except (TypeError, ValueError) as unfit:
            self._warn(f"a frame cannot be sent: {unfit}")
            with self._lock:
                self._outbox.receipt(run.name, [frame.info.sequence], 0, refused=str(unfit))
            return True

    def _finish_runs(self, now_s: float) -> None:
        """End runs of which every frame is settled, or whose time is up."""
        for run in [run for run in self._live_or_ended() if run.ended]:
            with self._lock:
                held = self._outbox.held(run.name)
            late = run.give_up_s is not None and now_s > run.give_up_s
            if held and not late:
                continue
            said = not self.session or run.name not in self._told or self._caller.send(run.end())
            if said or late:
                self._finish(run)
        if self._awaited is not None and (not self.session or now_s - self._quiet_since_s > _QUIET_S):
            self._nothing_more()

    def _live_or_ended(self) -> list[LiveRun]:
        with self._lock:
            return list(self._runs.values())

    def _finish(self, run: LiveRun) -> None:
        with self._lock:
            self._settle(run)
        if self.session and run.results != "none" and run.ledger["receipted"]:
            self._awaited, self._quiet_since_s, self._finished_once = run, time.monotonic(), False
            self._caller.send(Command("status"))
        else:
            self._ended()

    def _settle(self, run: LiveRun) -> None:
        self._outbox.give_up_all(run.name)
        self._outbox.close(run.name)
        del self._runs[run.name]
        run.ended = True
        run.settled.set()

    def _learn_status(self, message: Answer) -> None:
        """Find out from the restore process whether all volumes of the ended run have been sent back."""
        if self._awaited is None:
            return
        runs = message.said.get("runs")
        for said in runs if isinstance(runs, list) else []:
            if said.get("run") != self._awaited.name:
                continue
            ledger = said.get("ledger", {})
            self._quiet_since_s = time.monotonic()
            whole = ledger.get("waiting", 1) == 0
            if whole and self._finished_once:  # said twice, for a volume may be sent just after it is counted
                self._nothing_more()
                return
            self._finished_once = whole

    def _nothing_more(self) -> None:
        self._awaited = None
        self._ended()

    def _skip(self, run: str, key: VolumeKey, planes: int, why: str) -> None:
        self._runs[run].skip(key, planes, why)
        if why == FULL and key.light == "high":
            self._warn("more high-light frames wait for the restore process than fit in memory; the rest is in the raw dataset")


def _run_of(message: FrameSent | Abandon) -> str:
    return message.run if isinstance(message, Abandon) else message.frame.info.run
