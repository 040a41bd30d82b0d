"""What an acquisition's events promise: how many planes a volume has, how many frames come, when.

Receives `Promise`, one per event, as whole lists or one by one as they are drawn; hands on the number of planes of a
volume, and the plan in words for the restore process. It does not know whose events they are.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from threading import Lock
from typing import Any

from live_restore.frames import VolumeKey

# Volumes whose planes are being counted; the oldest are forgotten beyond.
_MOST_OPEN = 1000
# Volumes of lists whose planes are known; a list that promises more has its counts forgotten from the oldest on.
_MOST_KNOWN = 200_000
# Events of lists that were neither drawn nor taken yet.
_MOST_DUE = 1_000_000

Sort = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Promise:
    """What one event says of the frame to come.

    Attributes
    ----------
    key : VolumeKey
    z : int or None
        Index of the plane; None where the event has no z: its volume is a single plane.
    exposure_ms : float or None
    start_s : float or None
        Earliest moment, from the beginning of the acquisition.
    z_um : float or None
        Height it asks for.
    """

    key: VolumeKey
    z: int | None = None
    exposure_ms: float | None = None
    start_s: float | None = None
    z_um: float | None = None


@dataclass(slots=True)
class _Seen:
    """What was seen of one sort of volume (channel and light), to learn its planes."""

    counts: set[int] = field(default_factory=set)
    open: dict[VolumeKey, set[int]] = field(default_factory=dict)


class Plan:
    """What the events promise; learned from whole lists at once, or from single events and frames as they pass.

    Parameters
    ----------
    planes : int
        Planes of every volume that has a z axis, where the user says so; 0: find out.
    """

    def __init__(self, planes: int = 0) -> None:
        self.frames = 0
        self.longest_exposure_ms = 0.0
        self.longest_pause_s = 0.0
        self._said = planes
        self._known: dict[VolumeKey, int] = {}
        self._due: dict[tuple[VolumeKey, int | None], None] = {}  # of lists, until it is drawn or its frame comes
        self._seen: dict[Sort, _Seen] = {}
        self._times: set[int] = set()
        self._positions: dict[str, None] = {}
        self._channels: dict[str, None] = {}
        self._starts: dict[int, float] = {}
        self._last_start: float | None = None
        self._z_step_um: float | None = None
        self._whole = True
        self._mapping: dict[str, Any] | None = None
        self._lock = Lock()

    def promise_all(self, promises: Iterable[Promise]) -> None:
        """Learn from a list: everything that it holds is known before the first frame.

        A list may hold whole volumes, or be one of many lists that bring a plane each. A volume of which a list holds a
        single plane of a z axis is therefore learned as if its event came alone. Where the same events are drawn one by one
        afterwards, `promise` passes them over.
        """
        volumes: dict[VolumeKey, dict[int | None, Promise]] = {}
        with self._lock:
            for promise in promises:
                self._count(promise)
                volumes.setdefault(promise.key, {})[promise.z] = promise
            for key, planes in volumes.items():
                if len(planes) > 1 or None in planes:
                    self._known[key] = max(len(planes), self._known.get(key, 0))
                    self._step(list(planes.values())[:2])
                else:
                    self._learn(key, next(iter(planes)))
                if len(volumes) > 1 or len(planes) > 1:  # a list of one event is never drawn again
                    self._due.update(dict.fromkeys((key, z) for z in planes))
            _forget(self._known, _MOST_KNOWN)
            _forget(self._due, _MOST_DUE)

    def promise(self, promise: Promise) -> None:
        """Learn from one event that is drawn; those behind it are unknown. What a list promised already is no news."""
        with self._lock:
            if (promise.key, promise.z) in self._due:
                del self._due[promise.key, promise.z]
                return
            self._mapping = None if self._whole else self._mapping
            self._whole = False
            self._count(promise)
            self._learn(promise.key, promise.z)

    def met(self, key: VolumeKey, z: int | None) -> None:
        """Learn from a frame, where nobody showed the events."""
        if self.frames:
            self._due.pop((key, z), None)
            return
        with self._lock:
            self._whole = False
            self._learn(key, z)

    def planes(self, key: VolumeKey, z: int | None) -> int:
        """How many planes the volume of a frame will have; 0 where nobody knows yet."""
        if z is None:
            return 1
        if self._said:
            return self._said
        known = self._known.get(key)
        if known is not None:
            return known
        seen = self._seen.get((key.channel, key.light))
        return next(iter(seen.counts)) if seen is not None and len(seen.counts) == 1 else 0

    def as_mapping(self) -> dict[str, Any]:
        """Give what is known, for `live_restore.wire.messages.Begin`; empty where nobody showed the events."""
        with self._lock:
            if self._mapping is None:
                self._mapping = self._told()
            return self._mapping

    def _told(self) -> dict[str, Any]:
        counts = set(self._known.values())
        starts = [self._starts[time] for time in sorted(self._starts)]
        interval_s = (starts[-1] - starts[0]) / (len(starts) - 1) if len(starts) > 1 else None
        told = {
            "times": len(self._times) if self._whole else 0,
            "positions": list(self._positions),
            "channels": list(self._channels),
            "planes": self._said or (counts.pop() if len(counts) == 1 else 0),
            "frames": self.frames if self._whole else 0,
            "interval_s": interval_s if interval_s is None else round(interval_s, 6),
            "z_step_um": self._z_step_um,
        }
        return {name: value for name, value in told.items() if value}

    def _count(self, promise: Promise) -> None:
        self.frames += 1
        self._mapping = None if self._whole else self._mapping
        self.longest_exposure_ms = max(self.longest_exposure_ms, promise.exposure_ms or 0.0)
        if promise.start_s is not None:
            self.longest_pause_s = max(self.longest_pause_s, promise.start_s - (self._last_start or 0.0))
            self._last_start = promise.start_s
            if len(self._starts) < _MOST_KNOWN:
                self._starts.setdefault(promise.key.time, promise.start_s)
        key = promise.key
        if len(self._times) < _MOST_KNOWN:
            self._times.add(key.time)
        if key.position not in self._positions or key.channel not in self._channels:
            self._mapping = None
            self._positions.setdefault(key.position)
            self._channels.setdefault(key.channel)

    def _learn(self, key: VolumeKey, z: int | None) -> None:
        """Count planes; a volume is over once the next of its sort has begun."""
        if z is None:
            return
        seen = self._seen.setdefault((key.channel, key.light), _Seen())
        planes = seen.open.get(key)
        if planes is None:
            over = [other for other in seen.open if other.position == key.position]
            seen.counts |= {len(seen.open.pop(other)) for other in over}
            planes = seen.open[key] = set()
            _forget(seen.open, _MOST_OPEN)
        planes.add(z)

    def _step(self, two: list[Promise]) -> None:
        if len(two) == 2 and two[0].z_um is not None and two[1].z_um is not None and self._z_step_um is None:
            self._z_step_um = round(abs(two[1].z_um - two[0].z_um), 6) or None


def _forget(table: dict[Any, Any], most: int) -> None:
    while len(table) > most:
        table.pop(next(iter(table)))
