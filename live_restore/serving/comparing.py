"""The compare thread: what was restored is scored against the reference volumes of the run, and both are kept as a pair.

Receives low-light volumes from the check thread and high-light ones from the network thread; hands figures to the run and
its events, and pairs to the pair log in the run's folder, to train on later. It has the time that others do not have: it never
holds up a volume, and where it cannot keep up, references are left out and counted. It does not know sockets.
"""

import logging
from collections.abc import Mapping, Sequence
from threading import Lock
from typing import Any

from live_restore.errors import LiveRestoreError
from live_restore.frames import Volume, VolumeKey
from live_restore.records.runs import volume_words
from live_restore.restore.noise import CameraNoise
from live_restore.serving.lane import Lane
from live_restore.serving.left_out import with_low_from_disk
from live_restore.serving.pair_keeping import PairKeeping
from live_restore.serving.recording import Recording
from live_restore.serving.reference import FloatArray, Low, Match, References, compare
from live_restore.serving.run import Run

_log = logging.getLogger(__name__)
# So many comparisons, and bytes in them, may wait.
_MOST_WAITING, _MOST_BYTES = 8, 1 << 30


class Comparing:
    """The compare thread; other threads may call what is public, and none of it waits.

    Parameters
    ----------
    recording : Recording
        Gets the events, and says where pairs may be kept.
    noise : CameraNoise or None
        What is known of the camera; pairs are judged by it.
    """

    def __init__(self, recording: Recording, noise: CameraNoise | None = None) -> None:
        self._recording, self._noise = recording, noise
        self._references, self._lock = References(), Lock()
        self._pairs: dict[str, PairKeeping] = {}
        self._lane = Lane("compare")

    def start(self) -> None:
        """Begin."""
        self._lane.start()

    def high(self, run: Run, volume: Volume) -> None:
        """Take a reference volume."""
        with self._lock:
            match = self._references.high(volume)
            dropped = self._references.dropped(run.name)
        self._take(run, match)
        self._leave_dropped(run, dropped)

    def restored(
        self, run: Run, volume: Volume, pixels: FloatArray, said: Mapping[str, Any], *, interpolated: bool = False
    ) -> None:
        """Take a restored volume; `said` as in the journal, `interpolated`: it was made finer along Z before the network."""
        provenance = said.get("provenance", {})
        model, sha256 = (str(provenance.get(name, "")) for name in ("model", "sha256"))
        self._low(run, Low(volume, pixels, model, sha256, interpolated))

    def unrestored(self, run: Run, volume: Volume) -> None:
        """Take a whole low-light volume that is not going to be restored here."""
        self._low(run, Low(volume))

    def finish(self, run: Run) -> None:
        """Let the records of a run be closed, after all that is on its way."""
        self._lane.put(lambda: self._take_up(run), lambda: self._give_up(run, "the restore process was stopped"))
        self._lane.add(lambda: self._finish(run))

    def hurry(self) -> None:
        """Do only what must be done from here on."""
        self._lane.hurry()

    def stop(self) -> None:
        """End when all is done."""
        self._lane.stop()

    def join(self, timeout_s: float | None = None) -> bool:
        """Wait until it has ended; whether it has."""
        return self._lane.join(timeout_s)

    def _low(self, run: Run, low: Low) -> None:
        with self._lock:
            match = self._references.low(low)
            dropped = self._references.dropped(run.name)
        self._take(run, match)
        self._leave_dropped(run, dropped)

    def _take(self, run: Run, match: Match | None) -> None:
        if match is None:
            return
        if self._lane.waiting >= _MOST_WAITING or self._lane.nbytes + match.nbytes > _MOST_BYTES + match.low.nbytes:
            self._leave(run, match.high.key, "more references come than can be compared")
            run.warn("references", "references come faster than they can be compared; some are left out of the scores")
            return
        self._lane.put(
            lambda: self._compare(run, match),
            lambda: self._leave(run, match.high.key, "the restore process was stopped"),
            match.nbytes,
        )

    def _leave(self, run: Run, key: VolumeKey, why: str) -> None:
        self._recording.note(run, "not_compared", **volume_words(key), why=why)

    def _leave_dropped(self, run: Run, dropped: Sequence[VolumeKey]) -> None:
        for key in dropped:
            self._leave(run, key, "there was no memory left to wait for its low-light volume")

    def _compare(self, run: Run, match: Match) -> None:
        key = match.low.volume.key
        try:
            figures = compare(match)
        except LiveRestoreError as refused:
            self._leave(run, match.high.key, str(refused))
            run.warn(f"reference {key.channel}", f"channel {key.channel}: {key} was not compared: {refused}")
            return
        run.unwarn(f"reference {key.channel}")
        unix_s = round(max(info.unix_ns for info in match.low.volume.infos) / 1e9, 3)
        said = {**figures, **self._keep(run, match)}
        run.referenced(key, unix_s, said)
        self._recording.note(run, "reference", **volume_words(key), **said)

    def _keep(self, run: Run, match: Match) -> dict[str, Any]:
        """Keep the pair; what is said of that."""
        keeping = self._pairs.setdefault(run.name, PairKeeping(self._noise))
        return keeping.keep(run, match, lambda nbytes: self._recording.place(run, match.low.volume, nbytes))

    def _take_up(self, run: Run) -> None:
        """Compare with the references whose low-light volumes were never sent here, where these are on disk."""
        with self._lock:
            alone, dropped = self._references.end(run.name), self._references.dropped(run.name)
        self._leave_dropped(run, dropped)
        for high, match in with_low_from_disk(run.raw, run.plan, alone):
            if match is None:
                self._leave(run, high.key, "its low-light volume was not sent here")
            else:
                self._compare(run, match)

    def _give_up(self, run: Run, why: str) -> None:
        with self._lock:
            alone, dropped = self._references.end(run.name), self._references.dropped(run.name)
        self._leave_dropped(run, dropped)
        for high in alone:
            self._leave(run, high.key, why)

    def _finish(self, run: Run) -> None:
        keeping = self._pairs.pop(run.name, None)
        if keeping is not None:
            keeping.close(run)
        self._recording.finish(run)
