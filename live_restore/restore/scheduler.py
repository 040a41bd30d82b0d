"""The scheduler: which volume is restored next, and how many more the restore process takes.

Receives volumes, and what is said of them when they are done; hands on the next job, a number called credit, and a ledger
for every run. Pure: it knows no threads, clocks or sockets; who shares it between threads holds a lock.

Nothing that was offered is ever dropped here. Falling behind shows as a credit of 0: then the sender leaves out whole
volumes, before their first frame, and writes them down for later.
"""

from collections import deque
from dataclasses import dataclass

from live_restore.frames import Volume
from live_restore.ledger import RESTORE_COLUMNS, Ledger


@dataclass(frozen=True, slots=True, eq=False)
class Job:
    """What to restore next.

    Attributes
    ----------
    volume : Volume
    slab : bool
        The planes that are there of a volume still coming in: to be shown, never recorded, and it moves no rolling range.
    offered_ns : int
        When the volume was offered, by the clock of the one who offered it.
    arrived_ns : int
        When its last frame had arrived, by the same clock.
    """

    volume: Volume
    slab: bool = False
    offered_ns: int = 0
    arrived_ns: int = 0


class Scheduler:
    """First come, first restored; slabs only where nothing else waits.

    Parameters
    ----------
    max_waiting : int
        How many volumes may wait, besides the one in hand and those still coming in.
    max_waiting_bytes : int
        What they may take together; one volume is always taken, however large.

    Attributes
    ----------
    offered, taken, settled : int
        Volumes so far, slabs not among them: ``offered == waiting + taken``.
    """

    def __init__(self, max_waiting: int = 4, max_waiting_bytes: int = 4 << 30) -> None:
        if max_waiting < 0 or max_waiting_bytes < 1:
            raise ValueError(f"max_waiting {max_waiting} must be at least 0, max_waiting_bytes {max_waiting_bytes} at least 1")
        self.max_waiting, self.max_waiting_bytes = max_waiting, max_waiting_bytes
        self.offered = self.taken = self.settled = 0
        self._waiting: deque[Job] = deque()
        self._slab: Job | None = None
        self._ledgers: dict[str, Ledger] = {}

    def ledger(self, run: str) -> Ledger:
        """Give the table of a run's frames, begun when it is first asked for."""
        return self._ledgers.setdefault(run, Ledger(RESTORE_COLUMNS))

    def forget(self, run: str) -> None:
        """Drop the table of a run that is over."""
        self._ledgers.pop(run, None)

    def credit(self, gathering: int, *, at_once: int = 1, behind: int = 0, nbytes: int = 0) -> int:
        """Say how many volumes more are taken, beyond those of which a frame is there.

        Parameters
        ----------
        gathering : int
            Volumes still coming in.
        at_once : int
            How many volumes come in side by side when all is well: 1, or the number of channels where they take turns
            within a stack. That many may be on their way without standing in anybody's light.
        behind : int
            Volumes that are restored, and wait for what comes after: they count as those that wait to be restored.
        nbytes : int
            What the volumes still coming in take, and those that are restored and wait.
        """
        if self.waiting_bytes + nbytes >= self.max_waiting_bytes:
            return 0
        return max(0, self.max_waiting + at_once - len(self._waiting) - behind - gathering)

    def offer(self, volume: Volume, now_ns: int = 0, arrived_ns: int | None = None) -> None:
        """Take a whole volume, to be restored in its turn; a slab of it has had its time."""
        self.offered += 1
        self._waiting.append(Job(volume, False, now_ns, now_ns if arrived_ns is None else arrived_ns))
        if self._slab is not None and self._slab.volume.key == volume.key:
            self._slab = None

    def offer_slab(self, volume: Volume | None, now_ns: int = 0) -> None:
        """Take the planes that are there of a volume still coming in; the newest replaces any before it, None withdraws it."""
        self._slab = None if volume is None else Job(volume, True, now_ns, now_ns)

    def take(self) -> Job | None:
        """Give what is to be restored now; whole volumes must be settled afterwards. None: nothing waits."""
        if self._waiting:
            self.taken += 1
            return self._waiting.popleft()
        slab, self._slab = self._slab, None
        return slab

    def settle(self, volume: Volume, column: str) -> None:
        """Say how a volume ended, one that was taken or one that never needed to be: all its frames go to that column."""
        self.ledger(volume.run).settle(column, len(volume.infos))
        self.settled += 1

    def withdraw(self) -> list[Volume]:
        """Give back all that waits, to be settled otherwise: the restore process ends."""
        volumes = [job.volume for job in self._waiting]
        self.taken += len(volumes)
        self._waiting.clear()
        self._slab = None
        return volumes

    @property
    def waiting(self) -> int:
        """Whole volumes that wait."""
        return len(self._waiting)

    @property
    def waiting_bytes(self) -> int:
        """What they take."""
        return sum(job.volume.pixels.nbytes for job in self._waiting)

    def waits(self, run: str) -> bool:
        """Whether a volume of this run waits."""
        return any(job.volume.run == run for job in self._waiting)

    def __bool__(self) -> bool:
        return bool(self._waiting) or self._slab is not None

    def __repr__(self) -> str:
        slab = ", a slab" if self._slab else ""
        ledgers = "".join(f"; {run}: {ledger!r}" for run, ledger in self._ledgers.items())
        counts = f"offered {self.offered}, waiting {self.waiting}, taken {self.taken}, settled {self.settled}"
        return f"<Scheduler {counts}{slab}{ledgers}>"
