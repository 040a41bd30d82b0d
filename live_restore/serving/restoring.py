"""The restore thread: one volume after another through its channel's model.

Receives whole volumes, and slabs of volumes still coming in; hands on what came out, with the word on how, to whoever was
named. It owns the restorers. It does not know sockets, files or viewers.
"""

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from threading import Condition, Thread
from typing import Any

import numpy as np
from numpy.typing import NDArray

from live_restore.frames import Restored, Volume, VolumeKey
from live_restore.ledger import Ledger
from live_restore.restore.scheduler import Job, Scheduler
from live_restore.serving.models import Models, Served, Shape

_log = logging.getLogger(__name__)
_MS = 1e6  # nanoseconds
# Channels that take turns within a stack may finish together.
_MORE_THAN_ANY_CREDIT = 64
FloatArray = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    """What became of a volume.

    Attributes
    ----------
    volume : Volume
    pixels : ndarray, (Z', Y', X'), float32
        Camera counts.
    served : Served
        The model that restored it.
    provenance : mapping
        In JSON: what restored it, and how.
    queue_ms, restore_ms : float
    arrived_ns, offered_ns, done_ns : int
        When its last frame had arrived, when it was whole, and when it was restored.
    slab : bool
    """

    volume: Volume
    pixels: FloatArray
    served: Served
    provenance: Mapping[str, Any]
    queue_ms: float
    restore_ms: float
    arrived_ns: int
    offered_ns: int
    done_ns: int
    slab: bool


@dataclass(slots=True, eq=False)
class _Slab:
    """The planes of one volume that were restored ahead of the rest."""

    run: str = ""
    key: VolumeKey | None = None
    served: Served | None = None
    planes: dict[int, FloatArray] = field(default_factory=dict)  # by sequence number of the frame


class _Stopped(Exception):
    """The restore process ends now."""


class Restoring:
    """The restore thread and what waits for it; other threads may call what is public.

    Parameters
    ----------
    models : Models
    scheduler : Scheduler
        From here on only used here.
    restored : callable
        Told each outcome, in the restore thread; a whole volume is settled when it returns.
    failed : callable
        Told a volume and the reason why it could not be restored.
    taken : callable
        Called when a volume no longer waits, so that there is room for another.
    """

    def __init__(
        self,
        models: Models,
        scheduler: Scheduler,
        restored: Callable[[Outcome], None],
        failed: Callable[[Volume, str], None],
        taken: Callable[[], None] = lambda: None,
    ) -> None:
        self._models, self._scheduler = models, scheduler
        self._restored, self._failed, self._taken = restored, failed, taken
        self._changed = Condition()
        self._in_hand: Volume | None = None
        self._warm: dict[str, Shape] = {}
        self._reset = self._stopping = self._at_once = False
        self._slab = _Slab()
        self._thread = Thread(target=self._main, name="restore", daemon=True)

    # --- called by other threads ------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def offer(self, volume: Volume, arrived_ns: int) -> None:
        """Take a whole volume; its last frame arrived at that time."""
        with self._changed:
            self._scheduler.offer(volume, time.perf_counter_ns(), arrived_ns)
            self._changed.notify()

    def ledger(self, run: str) -> Ledger:
        """Give the table of a run."""
        with self._changed:
            return self._scheduler.ledger(run)

    def forget(self, run: str) -> None:
        """Drop the table of a run that is over."""
        with self._changed:
            self._scheduler.forget(run)

    def offer_slab(self, volume: Volume | None) -> None:
        """Take the planes that are there of a volume still coming in; None withdraws it."""
        with self._changed:
            self._scheduler.offer_slab(volume, time.perf_counter_ns())
            self._changed.notify()

    def settle(self, volume: Volume, column: str) -> None:
        """Say how a volume ended that needs no restoration."""
        with self._changed:
            self._scheduler.settle(volume, column)

    def credit(self, gathering: int, **said: int) -> int:
        """Say how many more volumes are taken, see `Scheduler.credit`."""
        with self._changed:
            return self._scheduler.credit(gathering, **said)

    @property
    def overfull(self) -> bool:
        """Whether twice as much waits as may: somebody sends without credit."""
        with self._changed:
            scheduler = self._scheduler
            too_many = scheduler.waiting > 2 * scheduler.max_waiting + _MORE_THAN_ANY_CREDIT
            return too_many or (scheduler.waiting > 1 and scheduler.waiting_bytes > 2 * scheduler.max_waiting_bytes)

    @property
    def behind(self) -> bool:
        """Whether whole volumes wait."""
        return self._scheduler.waiting > 0

    def warm_up(self, channel: str, shape: Shape) -> None:
        """Prepare for volumes of this shape (Z, Y, X) when there is nothing else to do."""
        with self._changed:
            self._warm[channel] = shape
            self._changed.notify()

    def reset(self) -> None:
        """Forget the rolling ranges when there is nothing else to do: no run goes on."""
        with self._changed:
            self._reset = True
            self._changed.notify()

    def stop(self, *, at_once: bool = False) -> None:
        """End when nothing waits; at once: with the tile in hand, and all that waits has failed."""
        with self._changed:
            self._stopping, self._at_once = True, self._at_once or at_once
            withdrawn = self._scheduler.withdraw() if at_once else []
            withdrawn += [self._in_hand] if at_once and self._in_hand else []
            self._in_hand = None if at_once else self._in_hand
            self._changed.notify()
        for volume in withdrawn:
            self._fail(volume, "the restore process was stopped")

    def join(self, timeout_s: float | None = None) -> bool:
        """Wait until it has ended; whether it has."""
        if self._thread.ident is not None:
            self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def __repr__(self) -> str:
        with self._changed:
            return repr(self._scheduler)

    # --- the thread ---------------------------------------------------------------------------------------------------

    def _main(self) -> None:
        while self._guarded_turn():
            pass
        self._models.close()

    def _guarded_turn(self) -> bool:
        try:
            return self._turn()
        except Exception:  # of whoever was told of an outcome; the next volume gets its turn
            _log.exception("restore thread")
            return True

    def _turn(self) -> bool:
        """Do one thing; False when all is done."""
        with self._changed:
            self._changed.wait_for(lambda: self._scheduler or self._warm or self._reset or self._stopping)
            if self._at_once or (self._stopping and not self._scheduler.waiting):
                return False
            job = self._scheduler.take()
            self._in_hand = job.volume if job and not job.slab else None
            warm = self._warm.popitem() if job is None and self._warm else None
            reset, self._reset = (self._reset and job is None), (self._reset and job is not None)
        self._models.close_retired()
        if job is not None:
            self._taken()
            self._do(job)
        elif warm is not None:
            self._prepare(*warm)
        if reset:
            self._models.reset()
        return True

    def _do(self, job: Job) -> None:
        try:
            outcome = self._slab_outcome(job) if job.slab else self._outcome(job)
        except _Stopped:
            return
        except Exception as failed:  # whatever a runtime throws: the volume failed, the restore process goes on
            _log.warning("%s could not be restored", job.volume.key, exc_info=not str(failed))
            if not job.slab and self._claim(job.volume):
                self._fail(job.volume, str(failed) or type(failed).__name__)
            return
        if job.slab:
            self._restored(outcome)
        elif self._claim(job.volume):
            self._deliver(outcome)

    def _deliver(self, outcome: Outcome) -> None:
        try:
            self._restored(outcome)
        finally:
            with self._changed:
                self._scheduler.settle(outcome.volume, "restored")

    def _claim(self, volume: Volume) -> bool:
        """Take the volume in hand for one's own, unless `stop` was first."""
        with self._changed:
            mine = self._in_hand is volume
            self._in_hand = None
            return mine

    def _fail(self, volume: Volume, why: str) -> None:
        with self._changed:
            self._scheduler.settle(volume, "failed")
        self._failed(volume, why)

    def _outcome(self, job: Job) -> Outcome:
        volume, began_ns = job.volume, time.perf_counter_ns()
        served = self._served(volume)
        self._slab = _Slab()
        restored = served.restorer.restore(volume.pixels[None], self._progress, _movie(volume))
        served.warmed.add(volume.pixels.shape)
        done_ns = time.perf_counter_ns()
        waited_ms, took_ms = (began_ns - job.offered_ns) / _MS, (done_ns - began_ns) / _MS
        pixels, provenance = restored.pixels[0], {**served.provenance(), **_how(restored)}
        return Outcome(
            volume, pixels, served, provenance, waited_ms, took_ms, job.arrived_ns, job.offered_ns, done_ns, slab=False
        )

    def _slab_outcome(self, job: Job) -> Outcome:
        """Restore those planes that were not there last time; a frozen range and a 2D network give them as in the whole."""
        volume, began_ns = job.volume, time.perf_counter_ns()
        served = self._served(volume)
        if (self._slab.run, self._slab.key, self._slab.served) != (volume.run, volume.key, served):
            self._slab = _Slab(volume.run, volume.key, served)
        for info, plane in zip(volume.infos, volume.pixels, strict=True):
            with self._changed:
                if self._scheduler.waiting:
                    raise _Stopped  # a whole volume goes before
            if info.sequence not in self._slab.planes:
                restored = served.restorer.restore(plane[None, None], self._progress)  # (1, 1, Y, X)
                self._slab.planes[info.sequence] = restored.pixels[0, 0]
        pixels = np.stack([self._slab.planes[info.sequence] for info in volume.infos])  # (Z, Y, X)
        done_ns = time.perf_counter_ns()
        took_ms = (done_ns - began_ns) / _MS
        return Outcome(
            volume, pixels, served, served.provenance(), 0.0, took_ms, job.arrived_ns, job.offered_ns, done_ns, slab=True
        )

    def _served(self, volume: Volume) -> Served:
        served = self._models.of(volume.key.channel)
        if served is None:
            raise ValueError(f"channel '{volume.key.channel}' has no model any more")
        return served

    def _progress(self, done: int, total: int) -> None:
        if self._at_once:
            raise _Stopped

    def _prepare(self, channel: str, shape: Shape) -> None:
        served = self._models.of(channel)
        try:
            if served is not None:
                served.warm_up(shape)
        except Exception as failed:  # the volumes of this shape will tell
            _log.info("warming up for %s in %s: %s", shape, channel, failed)


def _movie(volume: Volume) -> tuple[str, str, str]:
    """Name the series whose rolling range a volume follows."""
    return volume.run, volume.key.position, volume.key.channel


def _how(restored: Restored) -> dict[str, Any]:
    intensity = restored.intensity
    return {
        "low": float(intensity.low[0]),
        "high": float(intensity.high[0]),
        "guarded": bool(intensity.guarded),
        "tiles": restored.tiles,
    }
