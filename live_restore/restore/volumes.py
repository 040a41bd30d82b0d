"""The assembly: from frames, in whatever order they arrive, to volumes in the order of z.

Receives the frames of one run and the time of their arrival; hands on volumes, complete or given up as incomplete. Pure:
it knows neither sockets nor clocks, nor what becomes of a volume.

A volume ends

- complete, when its last plane is there. How many planes it has is said by its frames, or learned from an earlier volume of
  the same channel and light;
- complete, where nobody knows how many planes it has, when a later time of the same position and channel begins, when the
  run ends, or when it has been quiet for a while;
- incomplete, where the number is known and planes are missing, when a later time of the same position and channel is
  complete, when the sender gives it up, when the run ends, or when no plane has come for long.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from live_restore.frames import Frame, FrameInfo, Volume, VolumeKey

Counts = NDArray[np.integer[Any]]
Kind = tuple[str, str]  # channel and light: volumes of one kind have equally many planes

_NS = 1_000_000_000
# Volumes that may be unfinished at once: a stack at every well of a plate, and not whatever somebody makes up.
_MOST_GATHERING = 10_000


class Assembly:
    """The volumes of one run that are still coming in.

    Parameters
    ----------
    deadline_s : float
        A volume of a known number of planes is given up when none has come for this long.
    quiet_s : float
        A volume of an unknown number of planes is taken for complete when none has come for this long.
    max_bytes : int
        What all unfinished volumes together may take; frames that would begin another one beyond are refused.

    Attributes
    ----------
    replaced : int
        Planes that came twice; the later one was taken.
    """

    def __init__(self, deadline_s: float = 60.0, quiet_s: float = 2.0, max_bytes: int = 8 << 30) -> None:
        self._deadline_ns, self._quiet_ns, self._max_bytes = int(deadline_s * _NS), int(quiet_s * _NS), max_bytes
        self._gathering: dict[VolumeKey, _Gathering] = {}
        self._learned: dict[Kind, int] = {}
        self._varying: set[Kind] = set()
        self._by_learning: dict[Kind, tuple[VolumeKey, frozenset[int]]] = {}
        self.replaced = 0

    def add(self, frame: Frame, now_ns: int) -> list[Volume]:
        """Take a frame.

        Parameters
        ----------
        frame : Frame
            Its pixels are kept, not copied, where that is possible; nobody may write into them.
        now_ns : int
            By any clock, the same in all calls.

        Returns
        -------
        list of Volume
            Those that ended by it, earlier times first; each tells itself whether it is `complete`.

        Raises
        ------
        ValueError
            If the frame does not fit its volume, or there is no room for another volume. The volume goes on without it.
        """
        key = frame.info.key
        earlier = self._earlier(key, lambda gathering: not gathering.expected)
        for unknown in earlier:
            self._learn(unknown, self._gathering[unknown])
        gathering = self._gathering.get(key) or self._new(frame)
        gathering.check(frame)
        self._gathering[key] = gathering
        ended = [self._end(unknown) for unknown in earlier]
        self.replaced += gathering.put(frame, now_ns)
        if gathering.full:
            ended += [self._end(incomplete) for incomplete in self._earlier(key, lambda gathering: True)]
            ended.append(self._end(key))
        return ended

    def overdue(self, now_ns: int) -> list[Volume]:
        """End what has waited too long: incomplete after the deadline, complete where nobody knows how many planes come."""
        late = [key for key, gathering in self._gathering.items() if now_ns - gathering.last_ns >= self._patience(gathering)]
        return [self._end(key) for key in late]

    def abandon(self, key: VolumeKey) -> list[Volume]:
        """End a volume whose rest will not come; nothing if it is not being gathered."""
        if key not in self._gathering:
            return []
        gathering = self._gathering[key]
        gathering.expected, gathering.learned = max(gathering.expected, len(gathering.planes) + 1), False
        return [self._end(key)]

    def end(self) -> list[Volume]:
        """End everything: the run is over."""
        for key, gathering in self._gathering.items():
            if not gathering.expected:
                self._learn(key, gathering)
        return [self._end(key) for key in list(self._gathering)]

    def slab(self, wanted: Callable[[VolumeKey], bool]) -> Volume | None:
        """Give the planes that are there of the most advanced volume among those wanted; it goes on being gathered."""
        found = [(g.progress, key) for key, g in self._gathering.items() if g.planes and wanted(key)]
        if not found:
            return None
        return self._gathering[max(found)[1]].volume()

    def holds(self, key: VolumeKey) -> bool:
        """Whether a volume has begun and not ended."""
        return key in self._gathering

    def gathering(self, light: str = "low") -> int:
        """How many volumes of this light have begun and not ended."""
        return sum(key.light == light for key in self._gathering)

    @property
    def frames(self) -> int:
        """How many frames wait for the rest of their volume."""
        return sum(len(gathering.planes) for gathering in self._gathering.values())

    @property
    def nbytes(self) -> int:
        """What the unfinished volumes take."""
        return sum(gathering.nbytes for gathering in self._gathering.values())

    def _new(self, frame: Frame) -> "_Gathering":
        kind = (frame.info.key.channel, frame.info.key.light)
        key, planes = self._by_learning.get(kind, (None, frozenset[int]()))
        if key == frame.info.key and frame.info.z not in planes:
            self._unlearn(kind)  # that volume was not whole yet
        expected = frame.info.planes or self._learned.get(kind, 0)
        self._check_room(max(1, expected) * frame.pixels.nbytes, expected)
        return _Gathering(frame, expected, learned=not frame.info.planes)

    def _check_room(self, nbytes: int, planes: int) -> None:
        if len(self._gathering) >= _MOST_GATHERING:
            raise ValueError(f"{_MOST_GATHERING} volumes are unfinished, which is the limit; finish some of them first")
        taken = self.nbytes
        if taken + nbytes > self._max_bytes:
            raise ValueError(
                f"a volume of {max(1, planes)} plane(s) takes {nbytes / 1e9:.3g} GB, and {taken / 1e9:.3g} of "
                f"{self._max_bytes / 1e9:.3g} GB are taken by unfinished volumes; send smaller volumes, or finish these first"
            )

    def _earlier(self, key: VolumeKey, which: Callable[["_Gathering"], bool]) -> list[VolumeKey]:
        """Name earlier times of the same position, channel and light."""
        place = _place(key)
        return sorted(k for k, g in self._gathering.items() if k.time < key.time and _place(k) == place and which(g))

    def _learn(self, key: VolumeKey, gathering: "_Gathering") -> None:
        """Expect as many planes of the next volumes; where volumes of one kind differ, nothing can be learned."""
        kind, planes = (key.channel, key.light), len(gathering.planes)
        if kind not in self._varying and self._learned.setdefault(kind, planes) != planes:
            self._unlearn(kind)

    def _unlearn(self, kind: Kind) -> None:
        self._varying.add(kind)
        self._learned[kind] = 0

    def _patience(self, gathering: "_Gathering") -> int:
        return self._deadline_ns if gathering.expected else self._quiet_ns

    def _end(self, key: VolumeKey) -> Volume:
        gathering = self._gathering.pop(key)
        kind = (key.channel, key.light)
        if gathering.learned and gathering.full:
            self._by_learning[kind] = key, frozenset(gathering.planes)
        elif gathering.learned and gathering.expected:
            self._unlearn(kind)
        return gathering.volume()

    def __repr__(self) -> str:
        return f"<Assembly {len(self._gathering)} volumes of {self.frames} frames, {self.replaced} replaced>"


class _Gathering:
    """The planes of one volume that are there."""

    def __init__(self, first: Frame, expected: int, learned: bool) -> None:
        self.run, self.key = first.info.run, first.info.key
        self.expected, self.learned = expected, learned
        self.shape, self.dtype = first.pixels.shape, first.pixels.dtype
        self.last_ns = 0
        self.planes: dict[int, tuple[FrameInfo, Counts]] = {}
        # where the number of planes is known, each is copied to its place at once, while the next one is exposed
        self._block = np.empty((expected, *self.shape), self.dtype) if expected > 1 else None  # (Z, Y, X)

    def check(self, frame: Frame) -> None:
        if frame.pixels.shape != self.shape or frame.pixels.dtype != self.dtype:
            raise ValueError(
                f"plane {frame.info.z} of {self.key} is {frame.pixels.dtype} of shape {frame.pixels.shape}; the planes before "
                f"it are {self.dtype} of {self.shape}: all planes of a volume must be alike"
            )

    def put(self, frame: Frame, now_ns: int) -> bool:
        """Take a plane; tell whether it replaced one."""
        z, before = frame.info.z, len(self.planes)
        if not self.expected:
            self.expected, self.learned = frame.info.planes, False
        row = frame.pixels
        if self._block is not None and 0 <= z < len(self._block):
            row = self._block[z]
            row[:] = frame.pixels
        self.planes[z] = (frame.info, row)
        self.last_ns = now_ns
        return len(self.planes) == before

    @property
    def full(self) -> bool:
        return 0 < self.expected <= len(self.planes)

    @property
    def progress(self) -> float:
        return len(self.planes) / (self.expected or len(self.planes) + 1)

    @property
    def nbytes(self) -> int:
        plane: int = int(np.prod(self.shape)) * self.dtype.itemsize
        return plane * max(len(self.planes), 0 if self._block is None else len(self._block))

    def volume(self) -> Volume:
        """Give what is there, in the order of z; without a copy where every plane is in its place."""
        places = sorted(self.planes)
        infos = tuple(self.planes[z][0] for z in places)
        return Volume(self.run, self.key, self._pixels(places), infos, self.expected)

    def _pixels(self, places: list[int]) -> Counts:
        rows = [self.planes[z][1] for z in places]
        if self._block is not None and places == list(range(len(places))) and places[-1] < len(self._block):
            pixels = self._block[: len(places)]
        elif len(rows) == 1:
            pixels = rows[0][None]  # (1, Y, X)
        else:
            pixels = np.stack(rows)  # (Z, Y, X)
        pixels = pixels.view()
        pixels.flags.writeable = False
        return pixels


def _place(key: VolumeKey) -> tuple[str, str, str]:
    return key.position, key.channel, key.light
