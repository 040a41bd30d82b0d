"""The outbox: which frames are sent to the restore process, in what order, and what became of each.

Receives frames, receipts, credit, and word that the restore process came or went; hands on what to send next. Volumes
are sent whole or not at all, which is decided at their first frame. Pure: no thread, clock or socket; `sender` has them.
"""

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from live_restore.frames import Frame, VolumeKey
from live_restore.ledger import Ledger
from live_restore.wire.messages import Abandon, FrameSent

# Bytes of frames that may wait or be on their way, for each kind of light.
LIMIT_BYTES = 1 << 30
# Volumes whose fate is remembered for frames to come; the oldest are forgotten beyond.
_MOST_VOLUMES = 10_000

Place = tuple[str, VolumeKey]
Skipped = Callable[[str, VolumeKey, int, str], None]

SENT = "sent"
_NOBODY = "there was no restore process"
_BUSY = "the restore process was busy"
FULL = "too many frames were waiting for the restore process"
_WENT = "the restore process went away"


@dataclass(slots=True)
class _Volume:
    """A volume that has begun: `fate` is ``sent``, or the column that its frames end in.

    Of its `frames` so far, `held` wait or are on their way. `over`: another time point of the same kind has begun. `why`
    is for the backlog, if a frame still comes.
    """

    fate: str
    planes: int
    frames: int = 0
    held: int = 0
    on_wire: bool = False
    over: bool = False
    why: str = ""

    @property
    def done(self) -> bool:
        """Whether nothing more can happen to it."""
        return not self.held and (self.over or 0 < self.planes <= self.frames)


@dataclass(frozen=True, slots=True)
class _Flying:
    """A frame on its way: where it belongs, and what it weighs."""

    place: Place
    nbytes: int


class Outbox:
    """Decides whole volumes, keeps the order, and settles every frame in its run's ledger exactly once.

    Parameters
    ----------
    skipped : callable
        Told ``(run, key, planes, why)`` of each volume that is not sent, or not wholly: the backlog.
    limit_bytes : int
        How much may wait or be on its way, for low and for high light each.

    Attributes
    ----------
    attached : bool
        Whether there is a restore process.
    """

    def __init__(self, skipped: Skipped, limit_bytes: int = LIMIT_BYTES) -> None:
        self.attached = False
        self._skipped = skipped
        self._limit_bytes = limit_bytes
        self._ledgers: dict[str, Ledger] = {}
        self._volumes: dict[Place, _Volume] = {}
        self._waiting: deque[Frame | Abandon] = deque()
        self._flying: dict[tuple[str, int], _Flying] = {}
        self._unanswered: set[Place] = set()
        self._latest: dict[tuple[str, str, str, str], Place] = {}
        self._credit = 0
        self._held = {"low": 0, "high": 0}

    def open(self, run: str, ledger: Ledger) -> None:
        """Take up a run that begins."""
        self._ledgers[run] = ledger

    def take(self, run: str, key: VolumeKey, planes: int) -> bool:
        """Count a frame that comes in, and decide whether it is sent. If so, `put` or `spoil` must follow.

        Parameters
        ----------
        run : str
        key : VolumeKey
        planes : int
            How many planes its volume will have; 0 where nobody knows.
        """
        ledger = self._ledgers[run]
        ledger.take()
        volume = self._volumes.get((run, key)) or self._begin(run, key, planes)
        volume.frames += 1
        volume.planes = max(volume.planes, planes)
        if volume.why:
            self._skipped(run, key, volume.planes, volume.why)
            volume.why = ""
        sent = volume.fate == SENT
        if sent:
            volume.held += 1
        else:
            ledger.settle(volume.fate)
            self._forget_done((run, key))
        return sent

    def put(self, frame: Frame) -> None:
        """Keep a frame that `take` said yes to until it can go out."""
        place = (frame.info.run, frame.info.key)
        light = frame.info.key.light
        if place[0] not in self._ledgers:  # the run was closed meanwhile, and has settled it
            return
        if self._held[light] + frame.pixels.nbytes > self._limit_bytes:
            self._give_up(place, "lost", FULL)
        volume = self._volumes.get(place)
        if volume is not None and volume.fate != SENT:  # given up since it was taken
            self._settle(place, 0, volume.fate)
            return
        self._held[light] += frame.pixels.nbytes
        self._waiting.append(frame)

    def spoil(self, run: str, key: VolumeKey, why: str) -> None:
        """Give a volume up, because a frame that `take` said yes to cannot be had."""
        if run in self._ledgers:
            self._give_up((run, key), "lost", why)
            self._settle((run, key), 0, "lost")

    def next(self) -> FrameSent | Abandon | None:
        """Give what to send now, and count it as on its way; None if there is nothing, or nobody to send it to."""
        if not self.attached or not self._waiting:
            return None
        first = self._waiting.popleft()
        if isinstance(first, Abandon):
            return first
        place = (first.info.run, first.info.key)
        self._flying[first.info.run, first.info.sequence] = _Flying(place, first.pixels.nbytes)
        volume = self._volumes.get(place)
        if volume is not None:
            volume.on_wire = True
        return FrameSent(first)

    def put_back(self, message: FrameSent | Abandon) -> None:
        """Take back what `next` gave and could not go out: it stays the first."""
        if isinstance(message, FrameSent):
            info = message.frame.info
            if self._flying.pop((info.run, info.sequence), None) is None:
                return
            self._waiting.appendleft(message.frame)
        else:
            self._waiting.appendleft(message)

    def receipt(self, run: str, sequences: Iterable[int], credit: int, refused: str = "") -> None:
        """Settle frames that the restore process has, or refuses; what was settled before is passed over."""
        self._credit = credit
        for sequence in sequences:
            frame = self._flying.pop((run, sequence), None)
            if frame is None:
                continue
            self._settle(frame.place, frame.nbytes, "refused" if refused else "receipted")
            self._unanswered.discard(frame.place)
            if refused:
                self._give_up(frame.place, "refused", refused)

    def credit(self, volumes: int) -> None:
        """Note how many more volumes the restore process takes."""
        self._credit = volumes

    def came(self, credit: int) -> None:
        """Note that there is a restore process, and nothing on its way to it."""
        self.attached, self._credit = True, credit

    def went(self) -> None:
        """Note that the restore process went away: what it had not answered is lost, and the rest of half-sent volumes.

        Frames of high light whose volume has not begun to leave wait for the next restore process.
        """
        self.attached, self._credit = False, 0
        places = [frame.place for frame in self._flying.values()]
        for frame in list(self._flying.values()):
            self._settle(frame.place, frame.nbytes, "lost")
        self._flying.clear()
        begun = [place for place, volume in self._volumes.items() if volume.fate == SENT and volume.on_wire]
        low = [(f.info.run, f.info.key) for f in self._waiting if isinstance(f, Frame) and f.info.key.light == "low"]
        unsent = [p for p, volume in self._volumes.items() if volume.fate == SENT and p[1].light == "low"]
        for place in dict.fromkeys((*places, *begun, *low, *unsent)):
            self._give_up(place, "lost", _WENT, tell=False)

    def give_up_all(self, run: str) -> None:
        """Settle what is left of a run for which nobody will wait longer."""
        for key, frame in [item for item in self._flying.items() if item[0][0] == run]:
            del self._flying[key]
            self._settle(frame.place, frame.nbytes, "lost")
            self._give_up(frame.place, "lost", _WENT, tell=False)
        for place in dict.fromkeys((f.info.run, f.info.key) for f in self._waiting if isinstance(f, Frame)):
            if place[0] == run:
                self._give_up(place, "lost" if self.attached else "unattached", FULL if self.attached else _NOBODY)

    def close(self, run: str) -> None:
        """Forget a run of which everything is settled, but for what was taken and not put yet: that is lost."""
        ledger = self._ledgers.pop(run, None)
        if ledger is not None and (left := ledger["waiting"]):
            ledger.settle("lost", left)
        for place in [place for place in self._volumes if place[0] == run]:
            del self._volumes[place]
        self._unanswered = {place for place in self._unanswered if place[0] != run}
        self._latest = {kind: place for kind, place in self._latest.items() if kind[0] != run}

    def held(self, run: str) -> int:
        """How many frames of a run wait or are on their way."""
        waiting = sum(isinstance(f, Frame) and f.info.run == run for f in self._waiting)
        return waiting + sum(name == run for name, _ in self._flying)

    @property
    def held_bytes(self) -> int:
        """Weight of all frames that wait or are on their way."""
        return sum(self._held.values())

    def _begin(self, run: str, key: VolumeKey, planes: int) -> _Volume:
        self._end_earlier(run, key)
        volume = self._volumes[run, key] = _Volume(self._decide(key), planes)
        if volume.fate != SENT:
            self._skipped(run, key, planes, self._why(key))
        elif key.light == "low":
            self._unanswered.add((run, key))
        while len(self._volumes) > _MOST_VOLUMES:
            oldest = next(iter(self._volumes))
            del self._volumes[oldest]
            self._unanswered.discard(oldest)
        return volume

    def _end_earlier(self, run: str, key: VolumeKey) -> None:
        """Where nobody knows how many planes a volume has, it ends when another time point of its kind begins."""
        kind = (run, key.position, key.channel, key.light)
        earlier = self._latest.get(kind)
        volume = None if earlier is None else self._volumes.get(earlier)
        if earlier is not None and volume is not None and not volume.planes:
            volume.over = True
            self._forget_done(earlier)
        self._latest[kind] = (run, key)

    def _decide(self, key: VolumeKey) -> str:
        """Decide a volume at its first frame. It must have room to grow: half of the limit is for what has begun."""
        full = 2 * self._held[key.light] > self._limit_bytes
        if key.light == "high":
            return SENT if not full else "skipped" if self.attached else "unattached"
        if not self.attached:
            return "unattached"
        return "skipped" if full or self._credit <= len(self._unanswered) else SENT

    def _why(self, key: VolumeKey) -> str:
        if not self.attached and key.light == "low":
            return _NOBODY
        return FULL if 2 * self._held[key.light] > self._limit_bytes else _BUSY

    def _give_up(self, place: Place, column: str, why: str, tell: bool = True) -> None:
        """Settle what waits of a volume, and let its frames to come end in the same column."""
        volume = self._volumes.setdefault(place, _Volume(SENT, 0))
        if volume.fate != SENT:
            return
        whole = not volume.held and not volume.planes  # perhaps: then only a further frame shows that it was not
        volume.fate = column
        self._unanswered.discard(place)
        mine = [f for f in self._waiting if isinstance(f, Frame) and (f.info.run, f.info.key) == place]
        if mine:
            self._waiting = deque(f for f in self._waiting if not (isinstance(f, Frame) and (f.info.run, f.info.key) == place))
        for frame in mine:
            self._settle(place, frame.pixels.nbytes, column)
        if tell and volume.on_wire and self.attached:
            self._waiting.appendleft(Abandon(*place))
        if whole:
            volume.why = why
        else:
            self._skipped(*place, volume.planes, why)

    def _settle(self, place: Place, nbytes: int, column: str) -> None:
        self._ledgers[place[0]].settle(column)
        self._held[place[1].light] -= nbytes
        volume = self._volumes.get(place)
        if volume is not None:
            volume.held -= 1
            self._forget_done(place)

    def _forget_done(self, place: Place) -> None:
        volume = self._volumes.get(place)
        if volume is not None and volume.done:
            del self._volumes[place]
            self._unanswered.discard(place)
