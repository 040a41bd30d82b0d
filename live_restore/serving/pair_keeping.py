"""The keeping of pairs: a low-light volume and its reference, judged and kept to train on, in the run's own folder.

Receives matches; hands on pairs in ``RUN_FOLDER/pairs`` and words on each. A disk that refuses ends the keeping of pairs with
a warning, and nothing else. The compare thread's; it does not know scores.
"""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from live_restore.errors import LiveRestoreError
from live_restore.frames import Volume
from live_restore.pairs.quality import measure_pair
from live_restore.records.pair_log import PairLog, TakenPair, pair_name
from live_restore.restore.noise import CameraNoise
from live_restore.serving.reference import Match
from live_restore.serving.run import Run

_log = logging.getLogger(__name__)
FOLDER = "pairs"
# The folder of a run, if so many bytes may be written there; raises OSError where not.
Place = Callable[[int], Path]


class PairKeeping:
    """The pairs of one run.

    Parameters
    ----------
    noise : CameraNoise or None
        What is known of the camera.
    """

    def __init__(self, noise: CameraNoise | None) -> None:
        self._noise = noise
        self._log: PairLog | None = None
        self._refused = False

    def keep(self, run: Run, match: Match, place: Place) -> dict[str, Any]:
        """Judge and keep a pair; says its name, whether it is good to learn from and, if not, why. Empty if it was not kept."""
        if self._refused:
            return {}
        taken = _taken(run, match)
        try:
            facts = measure_pair(taken.low, taken.high, noise=self._noise, pixel_size_um=taken.pixel_size_um)
            folder = place(match.low.volume.pixels.nbytes + match.high.pixels.nbytes)
            if self._log is None:
                self._log = PairLog(folder, FOLDER, _card(run))
            pair = self._log.write(taken, facts)
        except (OSError, LiveRestoreError, ValueError) as refused:
            self._leave(run, taken.name, refused)
            return {}
        return {"pair": pair.name, "accepted": pair.accepted, **({"reason": pair.reason} if pair.reason else {})}

    def close(self, run: Run) -> None:
        """Write the dataset card and give the files back."""
        if self._log is None:
            return
        try:
            self._log.finish()
        except LiveRestoreError as refused:
            run.warn("pairs", str(refused))
        self._log = None

    def _leave(self, run: Run, name: str, refused: Exception) -> None:
        _log.warning("pair %s was not kept: %s", name, refused)
        disk = isinstance(refused, OSError) or isinstance(refused.__cause__, OSError)
        self._refused = disk
        end = "; no further pairs of this run are kept, everything else goes on" if disk else ""
        run.warn("pairs", f"pair '{name}' was not kept: {str(refused) or type(refused).__name__}{end}")


def _taken(run: Run, match: Match) -> TakenPair:
    low, high = match.low.volume, match.high
    key, step = low.key, run.plan.get("z_step_um")
    in_plane = low.infos[0].pixel_size_um or run.plan.get("pixel_size_um")
    return TakenPair(
        name=pair_name(key.position, key.channel, key.time),
        channel=key.channel,
        position=key.position,
        repeat=key.time,
        low=_squeezed(low),
        high=_squeezed(high),
        said={"run": run.name, "time": key.time, "low": _words(low), "high": _words(high)},
        pixel_size_um=(abs(step) if step and len(low.pixels) > 1 else None, in_plane, in_plane),
    )


def _squeezed(volume: Volume) -> Any:
    return volume.pixels[0] if len(volume.pixels) == 1 else volume.pixels  # (Y, X) or (Z, Y, X)


def _words(volume: Volume) -> dict[str, Any]:
    """Say how a volume was taken, by its first frame."""
    first = volume.infos[0]
    exposure_ms = first.exposure_ms if first.exposure_ms is not None else first.asked_exposure_ms
    return {"exposure_ms": exposure_ms, "stage_um": first.stage_um, "unix_s": round(first.unix_ns / 1e9, 3)}


def _card(run: Run) -> dict[str, Any]:
    return {
        "run": run.name,
        "raw": None if run.raw is None else str(run.raw),
        "plan": dict(run.plan),
        "origin": "low-light volumes of an ordinary run, and its reference volumes",
    }
