"""The network thread: hears every client, answers, and decides what becomes of a volume that has ended.

Receives messages; hands whole volumes to the restore thread, and answers, receipts and views to the clients. It owns the
`Listener`, the assemblies and the viewers, and it never waits for the other threads. It does not know how a volume is restored.
"""

import logging
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from math import prod
from typing import Any
from weakref import ref

from live_restore.errors import BadMessage
from live_restore.frames import Frame, Volume, VolumeKey
from live_restore.records.runs import volume_words
from live_restore.restore.volumes import Assembly
from live_restore.serving.checking import Checking
from live_restore.serving.comparing import Comparing
from live_restore.serving.hooks import Hooks
from live_restore.serving.models import Models
from live_restore.serving.recording import Recording
from live_restore.serving.restoring import Restoring
from live_restore.serving.run import Run, Runs
from live_restore.serving.status import Status
from live_restore.serving.views import Viewers, Views
from live_restore.wire.messages import (
    Abandon,
    Answer,
    Ask,
    Beat,
    Begin,
    Command,
    End,
    FrameSent,
    Hello,
    Message,
    RestoredSent,
)
from live_restore.wire.sockets import Listener

_log = logging.getLogger(__name__)
_MS = 1_000_000
_BEAT_NS = 500 * _MS
_LOOK_NS = 100 * _MS  # how often time itself may end a volume or a run
_SAVE_NS = 2000 * _MS  # how often the tables are written while a run goes on
_MOST_OPEN_RUNS = 64
# Channels of a plan that are prepared for.
_MOST_CHANNELS = 64


@dataclass(frozen=True, slots=True, eq=False)
class Parts:
    """What the network thread works with."""

    listener: Listener
    models: Models
    runs: Runs
    restoring: Restoring
    checking: Checking
    comparing: Comparing
    recording: Recording
    views: Views
    status: Status


class Network:
    """The network thread's work; other threads may call `send`, `room_made`, `seen_anew` and `looking`.

    Parameters
    ----------
    parts : Parts
    session : str
        Another one after every start.
    deadline_s, quiet_s : float
        See `Assembly`.
    max_bytes : int
        What the unfinished volumes of all runs may take, and what may be on its way back to the acquisitions.
    references_ms : mapping
        Exposures that the dose is compared with, by channel.
    ordered : callable
        Carries out the commands ``swap`` and ``stop``: ``ordered(client, command)``.
    """

    def __init__(
        self,
        parts: Parts,
        session: str,
        *,
        deadline_s: float,
        quiet_s: float,
        max_bytes: int,
        references_ms: Mapping[str, float],
        ordered: Callable[[bytes, Command], None],
    ) -> None:
        self._parts, self._ordered = parts, ordered
        self._deadline_s, self._quiet_s, self._max_bytes = deadline_s, quiet_s, max_bytes
        self._references_ms = references_ms
        self._viewers = Viewers(parts.views)
        self._out: deque[tuple[bytes, Message]] = deque()
        self._going: list[ref[Any]] = []  # pixels that were sent, and that ZeroMQ may still keep
        self._hooks = Hooks(parts.listener, session)
        self._slab: tuple[str, VolumeKey, int] | None = None
        self._looking = False
        self._beat_ns = self._look_ns = self._save_ns = 0
        self._draining = False
        self._hear: dict[type, Callable[[bytes, Any, int], None]] = {
            Hello: self._hello,
            Begin: self._begin,
            FrameSent: self._frame,
            Abandon: self._abandon,
            End: self._end,
            Beat: self._beat,
            Ask: self._ask,
            Command: self._command,
        }

    # --- called by other threads ------------------------------------------------------------------------------------

    def send(self, client: bytes, message: Message) -> None:
        """Let something be said to a client."""
        self._out.append((client, message))
        self._parts.listener.wake()

    def room_made(self) -> None:
        """There is room for another volume; nobody need be told who may send one anyway."""
        if self._hooks.held_back:
            self._parts.listener.wake()

    def seen_anew(self) -> None:
        """There is something new to see; where no viewer waits, its next ask will find it."""
        if self._viewers.waiting:
            self._parts.listener.wake()

    @property
    def looking(self) -> bool:
        """Whether a viewer looks."""
        return self._looking

    # --- the thread ---------------------------------------------------------------------------------------------------

    def turn(self) -> None:
        """Hear what has arrived, waiting for it no longer than until something else is due; then say what is to be said."""
        arrived = self._parts.listener.receive(self._timeout_ms(time.perf_counter_ns()))
        now_ns = time.perf_counter_ns()
        for client, message in arrived:
            self._take(client, message, now_ns)
        if self._hooks.owed:
            self._hooks.say_receipts(self._credit(), now_ns)
        # looked at once more after "no more": whoever made room before it was said did not wake us
        if self._hooks.held_back and (credit := self._credit()) > 0:
            self._hooks.beat(credit)  # at once, for every volume that comes meanwhile is left out
        self.say_what_waits()
        self._show(time.perf_counter_ns())
        self._look_at_the_clock(now_ns)

    def drain(self) -> None:
        """Take no more frames; what has begun ends."""
        self._draining = True
        self._parts.status.state = "draining"
        for run in self._parts.runs.all():
            self._ended(run, run.assembly.end())
            run.ended = True

    def _timeout_ms(self, now_ns: int) -> int:
        if self._out:
            return 0
        due_ns = min(self._beat_ns + _BEAT_NS, self._look_ns + _LOOK_NS, self._viewers.next_ns() or now_ns + _BEAT_NS)
        return max(0, -(-(due_ns - now_ns) // _MS))

    def _take(self, client: bytes, message: Message | BadMessage, now_ns: int) -> None:
        if isinstance(message, BadMessage):
            self._parts.status.bad_messages += 1
            return
        hear = self._hear.get(type(message))
        if hear is None:  # a word that only the restore process says
            self._parts.status.bad_messages += 1
            return
        hear(client, message, now_ns)

    # --- hooks ----------------------------------------------------------------------------------------------------------

    def _hello(self, client: bytes, message: Hello, now_ns: int) -> None:
        if message.role == "hook":
            self._hooks.meet(client)
        self._hooks.welcome(client, self._credit())

    def _begin(self, client: bytes, message: Begin, now_ns: int) -> None:
        self._hooks.meet(client)
        run = self._parts.runs.get(message.run)
        if run is None and sum(not known.closed for known in self._parts.runs.all()) >= _MOST_OPEN_RUNS:
            _log.warning("run %s was not begun: %d runs are open", message.run, _MOST_OPEN_RUNS)
            return
        if run is None:
            run = self._new_run(client, message, now_ns)
            self._parts.recording.note(run, "begun", plan=dict(message.plan), raw=message.raw)
        else:
            again = run.ended or run.closed or run.client != client
            run.begin(message, client, now_ns)
            if again:
                self._parts.recording.note(run, "goes on")
        self._warm_up(run)
        self._out.append((client, Beat(run.name, credit=self._credit())))

    def _new_run(self, client: bytes, message: Begin, now_ns: int) -> Run:
        assembly = Assembly(self._deadline_s, self._quiet_s, self._max_bytes)
        run = Run(message, client, self._parts.restoring.ledger(message.run), assembly, now_ns, self._references_ms)
        for old in self._parts.runs.add(run):
            self._parts.restoring.forget(old.name)
        return run

    def _warm_up(self, run: Run) -> None:
        """Prepare the models for the volumes that the plan announces, where it says how large they are."""
        shape, planes = run.plan.get("shape"), run.plan.get("planes") or 1
        if isinstance(shape, list) and len(shape) == 2 and all(isinstance(n, int) and 0 < n <= 1 << 15 for n in shape):
            for channel in (run.plan.get("channels") or ())[:_MOST_CHANNELS]:
                self._expect(channel, (planes, shape[0], shape[1]))

    def _expect(self, channel: str, shape: tuple[int, int, int]) -> None:
        if prod(shape) * 2 > self._max_bytes:  # such a volume would be refused: nobody need prepare for it
            return
        if self._parts.models.of(channel) and self._parts.models.seen(channel, shape):
            self._parts.restoring.warm_up(channel, shape)

    def _frame(self, client: bytes, message: FrameSent, now_ns: int) -> None:
        frame, info = message.frame, message.frame.info
        run = self._heard(client, info.run, now_ns)
        refused = self._why_not(run, frame)
        if run is not None and not refused:
            before = run.assembly.replaced
            try:
                ended = run.assembly.add(frame, now_ns)
            except (ValueError, MemoryError) as reason:
                refused = str(reason) or "there is no memory left for it"
            else:
                if run.assembly.replaced == before:
                    run.ledger.take()
                run.frame(info, now_ns)
                self._foresee(info.key.channel, info.planes, frame.pixels.shape, ended)
                self._ended(run, ended)
        self._hooks.receipt(client, info.run, info.sequence, refused)

    def _why_not(self, run: Run | None, frame: Frame) -> str:
        key = frame.info.key
        if run is None:
            return "this run has not begun here; say Begin first"
        if self._draining:
            return "the restore process is ending"
        if key.light == "low" and not run.assembly.holds(key) and self._parts.restoring.overfull:
            return "far more volumes were sent than there was credit for; wait for credit"
        if not run.assembly.holds(key):
            taken = sum(other.assembly.nbytes for other in self._parts.runs.all() if other is not run)
            if taken and taken + run.assembly.nbytes + max(1, frame.info.planes) * frame.pixels.nbytes > self._max_bytes:
                return f"the unfinished volumes of all runs take {self._max_bytes / 1e9:.3g} GB already; finish these first"
        return ""

    def _foresee(self, channel: str, planes: int, shape: tuple[int, ...], ended: list[Volume]) -> None:
        """Warm up while the first stack is still coming in."""
        if planes > 1 and not ended:
            self._expect(channel, (planes, shape[0], shape[1]))

    def _abandon(self, client: bytes, message: Abandon, now_ns: int) -> None:
        run = self._heard(client, message.run, now_ns)
        if run is not None:
            self._ended(run, run.assembly.abandon(message.key))

    def _end(self, client: bytes, message: End, now_ns: int) -> None:
        run = self._heard(client, message.run, now_ns)
        if run is not None:
            self._ended(run, run.assembly.end())
            run.end(message.ledger)
            self._parts.recording.note(run, "ended", hook=dict(message.ledger))

    def _beat(self, client: bytes, message: Beat, now_ns: int) -> None:
        self._hooks.meet(client)
        run = self._heard(client, message.run, now_ns) if message.run else None
        if run is not None:
            run.beat(message.ledger, now_ns)

    def _heard(self, client: bytes, name: str, now_ns: int) -> Run | None:
        """Give the run that is spoken of; who speaks of one that has not begun here is told who we are, and can begin anew."""
        run = self._parts.runs.get(name)
        if run is not None:
            run.heard_ns = now_ns
        else:
            self._hooks.introduce(client, self._credit(), now_ns)
        return run

    def _ended(self, run: Run, volumes: list[Volume]) -> None:
        """Decide what becomes of volumes that have ended."""
        now_ns = time.perf_counter_ns()
        for volume in volumes:
            arrived_ns = run.arrived(volume.key, now_ns)
            column = self._column(volume)
            if column:
                self._parts.restoring.settle(volume, column)
                run.volume(column)
            if column == "incomplete":
                words = {**volume_words(volume.key), "planes": len(volume.infos), "expected": volume.expected}
                self._parts.recording.note(run, "incomplete", **words)
                continue
            run.planes = len(volume.infos)
            self._parts.views.show_raw(volume, now_ns)
            if not column:
                self._parts.models.seen(volume.key.channel, volume.pixels.shape)
                self._parts.restoring.offer(volume, arrived_ns)
            elif volume.complete:
                compare = self._parts.comparing.high if column == "reference" else self._parts.comparing.unrestored
                compare(run, volume)

    def _column(self, volume: Volume) -> str:
        """Name the end that a volume has come to already; none if it is to be restored."""
        if volume.key.light == "high":
            return "reference"
        if not volume.complete:
            return "incomplete"
        return "" if self._parts.models.of(volume.key.channel) else "without_model"

    def _credit(self) -> int:
        """How many more volumes each hook may send."""
        if self._draining:
            return 0
        now_ns = time.perf_counter_ns()
        runs = [run for run in self._parts.runs.all() if not run.ended and not run.silent(now_ns)]
        gathering = sum(run.assembly.gathering() for run in runs)
        at_once = max((run.at_once for run in runs), default=1)
        nbytes = sum(run.assembly.nbytes for run in runs) + self._parts.checking.nbytes + self._parts.recording.nbytes
        behind = self._parts.checking.waiting + self._parts.recording.waiting
        credit = self._parts.restoring.credit(gathering, at_once=at_once, behind=behind, nbytes=nbytes)
        return credit if len(runs) <= 1 else -(-credit // len(runs))

    # --- viewers and the command line -------------------------------------------------------------------------------

    def _ask(self, client: bytes, message: Ask, now_ns: int) -> None:
        self._viewers.ask(client, message, now_ns)
        self._looking = True

    def _command(self, client: bytes, message: Command, now_ns: int) -> None:
        if message.name == "status":
            self._out.append((client, Answer(self._parts.status.now())))
        else:
            self._ordered(client, message)

    def _show(self, now_ns: int) -> None:
        """Answer the viewers for whom there is something new, or who have waited long enough."""
        for client, view in self._viewers.answers(now_ns):
            status = self._viewers.news(client, self._parts.status.lately())
            if not self._parts.listener.send(client, replace(view, status=status)):
                self._viewers.unheard(client)

    # --- what is said -------------------------------------------------------------------------------------------------

    def say_what_waits(self) -> None:
        """Say what other threads, and answers, have to say."""
        while self._out:
            client, message = self._out.popleft()
            try:
                said = self._goes_out(message) and self._parts.listener.send(client, message)
            except (ValueError, TypeError) as broken:  # more than the wire carries
                _log.warning("%s was not sent: %s", type(message).__name__, broken)
                continue
            if not said and isinstance(message, RestoredSent) and (run := self._parts.runs.get(message.run)):
                run.volume("not_sent_back")

    def _goes_out(self, message: Message) -> bool:
        """Whether a message may go out: of restored volumes that nobody takes, ZeroMQ would keep more than fits in memory."""
        if not isinstance(message, RestoredSent):
            return True
        self._going = [pixels for pixels in self._going if pixels() is not None]
        under_way = sum(pixels.nbytes for known in self._going if (pixels := known()) is not None)
        if self._going and under_way + message.pixels.nbytes > self._max_bytes:
            return False
        self._going.append(ref(message.pixels))
        return True

    def _look_at_the_clock(self, now_ns: int) -> None:
        if now_ns - self._look_ns >= _LOOK_NS:
            self._look_ns = now_ns
            self._looking = self._viewers.looking(now_ns)
            for run in self._parts.runs.all():
                self._ended(run, run.assembly.overdue(now_ns))
                self._close_if_over(run, now_ns)
            self._offer_slab()
        if now_ns - self._beat_ns >= _BEAT_NS:
            self._beat_ns = now_ns
            self._hooks.beat(self._credit())
        if now_ns - self._save_ns >= _SAVE_NS:
            self._save_ns = now_ns
            for run in self._parts.runs.all():
                if not run.closed:
                    self._parts.recording.save(run)

    def _close_if_over(self, run: Run, now_ns: int) -> None:
        """Close the records of a run that has ended, or was silent for long, when nothing of it waits any more."""
        silent = run.silent(now_ns) and now_ns - run.heard_ns > self._deadline_s * 1000 * _MS
        if (run.ended or silent) and not run.closed and not run.ledger.counts()["waiting"]:
            self._parts.checking.finish(run)
            if all(other.closed for other in self._parts.runs.all()):
                self._parts.restoring.reset()

    def _offer_slab(self) -> None:
        """While somebody looks, let the most advanced unfinished volume be shown as far as it is there."""
        if not self._looking:
            return
        for run in reversed(self._parts.runs.all()):
            slab = run.assembly.slab(self._takes_slabs)
            if slab is None:
                continue
            named = (run.name, slab.key, len(slab.infos))
            if named != self._slab:
                self._slab = named
                self._parts.restoring.offer_slab(slab)
            return

    def _takes_slabs(self, key: VolumeKey) -> bool:
        served = self._parts.models.of(key.channel) if key.light == "low" else None
        return served is not None and served.takes_slabs
