"""The views: the newest volume of every position and channel, raw and restored, and the viewers that wait for something newer.

Receives volumes and what became of them, and the asks of viewers; hands on `View` messages. Newest wins: nothing is queued for
anybody. It does not know sockets. Planes are views of the volumes, and a maximum projection is made once per volume.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from live_restore.frames import Volume, VolumeKey
from live_restore.wire.messages import Ask, View

_NS = 1_000_000_000
# Raw is shown without its restoration when that has been missing for so long, and for so many times as long as it took last.
_BEHIND_S, _BEHIND_TIMES, _BEHIND_MOST_S = 2.0, 3, 60.0
# A viewer that has not asked for so long is gone.
GONE_S = 10.0
_MAXIMUM = -1
_MOST_PENDING = 8
_MOST_VIEWERS = 64
_MOST_PLACES = 4096
Place = tuple[str, str]  # position, channel
Images = tuple[NDArray[Any], NDArray[Any] | None, NDArray[np.int8] | None]


@dataclass(slots=True, eq=False)
class Shown:
    """One volume that can be looked at.

    Attributes
    ----------
    number : int
        Counts up with everything new; 0: not to be shown yet.
    volume : Volume
    restored : ndarray, (Z', Y', X'), float32, or None
    trust : ndarray, (Z, Y, X), int8, or None
    said : mapping
    slab : int
        How many planes were there; 0: the whole volume.
    since_ns : int
        When it came.
    waited_ns : int
        How long its restoration took, waiting included.
    """

    number: int
    volume: Volume
    restored: NDArray[np.float32] | None = None
    trust: NDArray[np.int8] | None = None
    said: Mapping[str, Any] = field(default_factory=dict)
    slab: int = 0
    since_ns: int = 0
    waited_ns: int = 0
    _projected: Images | None = None

    @property
    def nbytes(self) -> int:
        """What it keeps in memory."""
        return sum(pixels.nbytes for pixels in (self.volume.pixels, self.restored, self.trust) if pixels is not None)

    def images(self, z: int) -> Images:
        """Give raw, restored and trust of plane `z`, the nearest there is, or the maximum projection for -1; (Y, X) each."""
        if z == _MAXIMUM:
            return self.project()
        planes = len(self.volume.pixels)
        at = min(z, planes - 1)
        finer = None if self.restored is None else self.restored[(2 * at + 1) * len(self.restored) // (2 * planes)]
        return self.volume.pixels[at], finer, None if self.trust is None else self.trust[at]

    def project(self) -> Images:
        """Make the maximum projections, the first time; trust keeps the deviation of largest size, with its sign."""
        if self._projected is None:
            restored = None if self.restored is None else _highest(self.restored)
            trust = None if self.trust is None else _largest(self.trust)
            self._projected = _highest(self.volume.pixels), restored, trust
        return self._projected


def _highest(pixels: NDArray[Any]) -> NDArray[Any]:
    highest: NDArray[Any] = pixels[0] if len(pixels) == 1 else pixels.max(axis=0)  # (Y, X)
    return highest


def _largest(trust: NDArray[np.int8]) -> NDArray[np.int8]:
    if len(trust) == 1:
        plane: NDArray[np.int8] = trust[0]
        return plane
    low, high = trust.min(axis=0), trust.max(axis=0)
    largest: NDArray[np.int8] = np.where(high.astype(np.int16) >= -low.astype(np.int16), high, low)  # (Y, X)
    return largest


@dataclass(slots=True, eq=False)
class _Place:
    """What there is to see of one position and channel: the last that was restored, and a newer one that is not yet."""

    restored: Shown | None = None
    raw: Shown | None = None
    reference: Shown | None = None

    @property
    def nbytes(self) -> int:
        return sum(shown.nbytes for shown in (self.restored, self.raw, self.reference) if shown)

    def overdue(self, now_ns: int) -> bool:
        """Whether the restoration of the newest raw volume is missing for longer than it should."""
        if self.raw is None or self.restored is None:
            return self.raw is not None
        patience_s = min(_BEHIND_MOST_S, max(_BEHIND_S, _BEHIND_TIMES * self.restored.waited_ns / _NS))
        return now_ns - max(self.raw.since_ns, self.restored.since_ns) > patience_s * _NS

    @property
    def newest(self) -> int:
        return max(shown.since_ns for shown in (self.restored, self.raw, self.reference) if shown)


class Views:
    """The newest of every position and channel; usable from any thread.

    Parameters
    ----------
    max_bytes : int
        What they may take together; the oldest places go first, and the newest always stays.
    """

    def __init__(self, max_bytes: int = 4 << 30) -> None:
        self._max_bytes, self._lock = max_bytes, Lock()
        self._places: dict[Place, _Place] = {}
        self._number = 0

    @property
    def number(self) -> int:
        """The number given last."""
        return self._number

    def show_raw(self, volume: Volume, now_ns: int) -> None:
        """Take a volume that is whole; it is shown without a restoration where none comes."""
        with self._lock:
            place = self._place(volume.key)
            shown = Shown(0, volume, since_ns=now_ns)
            if volume.key.light == "high":
                place.reference = shown
            else:
                place.raw = shown
            self._make_room()

    def show_restored(self, shown: Shown) -> Shown:
        """Take a restored volume, or a slab of one; gives it with its number."""
        with self._lock:
            place = self._place(shown.volume.key)
            self._number += 1
            shown.number = self._number
            place.restored = shown
            if place.raw is not None and _same(place.raw, shown):
                place.raw = None
            self._make_room()
            return shown

    def find(self, position: str, channel: str, now_ns: int) -> Shown | None:
        """Give the newest that there is to see; empty names stand for any."""
        with self._lock:
            candidates = [
                self._visible(place, now_ns)
                for (p, c), place in self._places.items()
                if position in ("", p) and channel in ("", c)
            ]
            return max((shown for shown in candidates if shown), key=lambda shown: shown.number, default=None)

    def _visible(self, place: _Place, now_ns: int) -> Shown | None:
        shown = place.restored or place.raw or place.reference
        if place.overdue(now_ns):
            shown = place.raw
        if shown is not None and not shown.number:
            self._number += 1
            shown.number = self._number
        return shown

    def _place(self, key: VolumeKey) -> _Place:
        return self._places.setdefault((key.position, key.channel), _Place())

    def _make_room(self) -> None:
        while len(self._places) > _MOST_PLACES or (
            len(self._places) > 1 and sum(place.nbytes for place in self._places.values()) > self._max_bytes
        ):
            del self._places[min(self._places, key=lambda name: self._places[name].newest)]


def _same(one: Shown, other: Shown) -> bool:
    """Whether both are of the same volume, and not of one that was taken anew since."""
    return one.volume.run == other.volume.run and one.volume.key == other.volume.key and not other.slab


@dataclass(slots=True)
class _Pending:
    """An ask; `fresh`: it is of another plane, channel or position than this viewer's ask before it."""

    ask: Ask
    until_ns: int
    fresh: bool


@dataclass(slots=True)
class _Viewer:
    """When a viewer was heard last, what it waits for, and what it asked for last: position, channel, z, trust.

    `told`: the status that it has, where it wants none twice.
    """

    heard_ns: int
    pending: list[_Pending] = field(default_factory=list)
    wish: tuple[str, str, int, bool] | None = None
    told: Mapping[str, Any] | None = None
    sparing: bool = False


class Viewers:
    """The viewers and their asks; the network thread's.

    Parameters
    ----------
    views : Views

    Attributes
    ----------
    waiting : bool
        Whether an ask is open; other threads may look at it, for viewers come and go meanwhile.
    """

    def __init__(self, views: Views) -> None:
        self._views = views
        self._viewers: dict[bytes, _Viewer] = {}
        self.waiting = False

    def ask(self, client: bytes, ask: Ask, now_ns: int) -> None:
        """Take an ask; a viewer that asks too much at once loses the oldest of its asks."""
        viewer = self._viewers.setdefault(client, _Viewer(now_ns))
        wish = (ask.position, ask.channel, ask.z, ask.trust)
        viewer.pending.append(_Pending(ask, now_ns + ask.wait_ms * 1_000_000, wish != viewer.wish))
        viewer.heard_ns, viewer.wish, viewer.sparing = now_ns, wish, ask.sparing
        self.waiting = True
        del viewer.pending[:-_MOST_PENDING]
        if len(self._viewers) > _MOST_VIEWERS:
            del self._viewers[min(self._viewers, key=lambda name: self._viewers[name].heard_ns)]

    def looking(self, now_ns: int) -> bool:
        """Whether anybody looks."""
        return any(now_ns - viewer.heard_ns < GONE_S * _NS for viewer in self._viewers.values())

    def news(self, client: bytes, status: Mapping[str, Any]) -> Mapping[str, Any]:
        """Give what a viewer is to be told of a status: all of it, or nothing where it has that one and is sparing."""
        viewer = self._viewers[client]
        if viewer.sparing and viewer.told is status:
            return {}
        viewer.told = status
        return status

    def unheard(self, client: bytes) -> None:
        """Note that a view did not go out."""
        self._viewers[client].told = None

    def next_ns(self) -> int | None:
        """When the next ask must be answered, come what may."""
        return min((pending.until_ns for viewer in self._viewers.values() for pending in viewer.pending), default=None)

    def answers(self, now_ns: int) -> list[tuple[bytes, View]]:
        """Give the views that are due, without status: something newer, something else, or an empty one after the wait."""
        due = []
        for client, viewer in self._viewers.items():
            for pending in list(viewer.pending):
                view = self._answer(pending, now_ns)
                if view is not None:
                    viewer.pending.remove(pending)
                    due.append((client, view))
        self.waiting = any(viewer.pending for viewer in self._viewers.values())
        return due

    def _answer(self, pending: _Pending, now_ns: int) -> View | None:
        ask = pending.ask
        shown = self._views.find(ask.position, ask.channel, now_ns)
        # a number larger than any of ours is from a restore process before this one
        if shown and (pending.fresh or shown.number > ask.after or self._views.number < ask.after):
            return _view(shown, ask)
        if now_ns < pending.until_ns:
            return None
        return View(shown.number if shown else 0)


def _view(shown: Shown, ask: Ask) -> View:
    raw, restored, trust = shown.images(ask.z)
    volume = shown.volume
    planes = max(len(volume.pixels), volume.expected)
    view = View(shown.number, volume.run, volume.key, ask.z, planes, shown.slab, raw, restored, said=shown.said)
    return replace(view, trust=trust) if ask.trust else view
