"""The check thread: what was restored is compared with its photons, shown, told of and handed on to be recorded.

Receives outcomes of the restore thread; hands them, with everything that is said of them, to the run, the viewers and the
record thread. Beside the restore thread, so that neither a volume on its way back to the acquisition nor the next one waits
for it. It does not know sockets or files.
"""

import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, Literal

from live_restore.frames import Volume
from live_restore.restore.hot_pixels import HotPixels
from live_restore.restore.noise import CameraNoise
from live_restore.restore.trust import Trust, TrustCheck, beyond_limits, regime
from live_restore.serving.check_pace import CheckPace
from live_restore.serving.comparing import Comparing
from live_restore.serving.lane import Lane
from live_restore.serving.recording import Recording
from live_restore.serving.restoring import Outcome
from live_restore.serving.run import Run
from live_restore.serving.views import Shown, Views

_log = logging.getLogger(__name__)
# Checks remember their camera; so many channels' and sensors' are kept.
_MOST_CHECKS = 64
# Places that a warning names; the figures have them all.
_MOST_SAID = 2
LeaveOut = Literal["none", "overtaken", "paced"]


class Checks:
    """One trust check per run and channel; used by one thread at a time.

    The pixels of the camera are remembered once per run and shape of image, for all channels and positions.

    Parameters
    ----------
    noise : CameraNoise or None
        None: estimated from the volumes.
    """

    def __init__(self, noise: CameraNoise | None) -> None:
        self._noise = noise
        self._checks: OrderedDict[tuple[str, str], TrustCheck] = OrderedDict()
        self._hot: OrderedDict[tuple[str, tuple[int, ...]], HotPixels] = OrderedDict()

    def check(self, outcome: Outcome) -> Trust | None:
        """Compare a restored volume with its raw one; None where they cannot be compared, and that is no fault."""
        volume = outcome.volume
        if (
            outcome.slab
            or volume.pixels.shape != outcome.pixels.shape
            or outcome.served.restorer.normalisation.output == "none"
        ):
            return None
        name = (volume.run, volume.key.channel)
        if name not in self._checks:
            self._checks[name] = TrustCheck(self._noise)
            while len(self._checks) > _MOST_CHECKS:
                self._checks.popitem(last=False)
        camera = (volume.run, volume.pixels.shape[-2:])
        try:
            trust = self._checks[name].check(volume.pixels, outcome.pixels, self._hot.get(camera))
        except Exception as failed:  # a doubt about the check, and no reason to lose the volume
            _log.warning(
                "the trust of %s could not be checked: %s", volume.key, failed, exc_info=not isinstance(failed, ValueError)
            )
            return None
        self._hot[camera] = trust.hot
        while len(self._hot) > _MOST_CHECKS:
            self._hot.popitem(last=False)
        return trust


class NoChecks:
    """Nothing is checked."""

    def check(self, outcome: Outcome) -> Trust | None:
        """Say nothing."""


class Checking:
    """The check thread; other threads may call what is public, and none of it waits.

    Parameters
    ----------
    checks : Checks or NoChecks
    views : Views
    recording : Recording
    comparing : Comparing
    leave_out : {"none", "overtaken", "paced"}
        Which volumes go unchecked: none; what has been overtaken already; and those for which there is no time, see
        `CheckPace`.
    behind : callable
        Whether volumes wait to be restored.
    looking : callable
        Whether a viewer looks: then projections are made here, and not in the network thread.
    shown : callable
        Called when viewers have something new to see.
    """

    def __init__(
        self,
        checks: Checks | NoChecks,
        views: Views,
        recording: Recording,
        comparing: Comparing,
        *,
        leave_out: LeaveOut,
        behind: Callable[[], bool],
        looking: Callable[[], bool],
        shown: Callable[[], None],
    ) -> None:
        self._checks, self._views, self._recording, self._comparing = checks, views, recording, comparing
        self._leave_out, self._behind, self._looking, self._shown = leave_out, behind, looking, shown
        self._pace, self._last = CheckPace(), LastChecks()
        self._lane = Lane("check")

    def start(self) -> None:
        """Begin."""
        self._lane.start()

    def take(self, run: Run, outcome: Outcome, said: Mapping[str, Any], trust: Trust | None = None) -> None:
        """Take what was restored.

        Parameters
        ----------
        run : Run
        outcome : Outcome
        said : mapping
            From `said_of`.
        trust : Trust or None
            Where it was checked already.
        """
        self._lane.put(
            lambda: self._check(run, outcome, said, trust),
            lambda: self._hand_on(run, outcome, said, None),
            outcome.volume.pixels.nbytes + outcome.pixels.nbytes,
        )

    @property
    def waiting(self) -> int:
        """How many restored volumes wait for a check that each of them will have."""
        return self._lane.waiting if self._leave_out == "none" else 0

    @property
    def nbytes(self) -> int:
        """What waits here, and is not done quickly."""
        return self._lane.nbytes

    def finish(self, run: Run) -> None:
        """Let the records of a run be closed, after all that is on its way."""
        run.closed = True
        self._lane.add(lambda: self._comparing.finish(run))

    def hurry(self) -> None:
        """Do only what must be done from here on."""
        self._lane.hurry()

    def stop(self) -> None:
        """End when all is done."""
        self._lane.stop()

    def join(self, timeout_s: float | None = None) -> bool:
        """Wait until it has ended; whether it has."""
        return self._lane.join(timeout_s)

    def _check(self, run: Run, outcome: Outcome, said: Mapping[str, Any], trust: Trust | None) -> None:
        if trust is None and not outcome.slab and self._is_left_out():
            run.volume("unchecked")
            _warn_of_flat(run, outcome)
        else:
            if trust is None:
                began_ns = time.perf_counter_ns()
                said, trust = checked(self._checks, outcome, said)
                self._pace.checked(began_ns, time.perf_counter_ns())
            if not outcome.slab:
                _warn(run, outcome, said["trust"])
        self._hand_on(run, outcome, said, trust)

    def _is_left_out(self) -> bool:
        if self._leave_out == "none":
            return False
        if self._lane.waiting:
            return True
        return self._leave_out == "paced" and not self._pace.due(time.perf_counter_ns(), behind=self._behind())

    def _hand_on(self, run: Run, outcome: Outcome, said: Mapping[str, Any], trust: Trust | None) -> None:
        slab = len(outcome.volume.infos) if outcome.slab else 0
        shown = Shown(0, outcome.volume, outcome.pixels, trust.map if trust else None, self._last.beside(outcome, said), slab)
        shown.since_ns, shown.waited_ns = outcome.done_ns, outcome.done_ns - outcome.offered_ns
        if self._looking():
            shown.project()
        self._views.show_restored(shown)
        self._shown()
        if not outcome.slab:
            run.restored(outcome.volume, said, time.perf_counter_ns())
            interpolated = outcome.served.restorer.facts.procedure != "direct"
            self._recording.write(run, outcome.volume, outcome.pixels, said, interpolated=interpolated)
            self._comparing.restored(run, outcome.volume, outcome.pixels, said, interpolated=interpolated)


class LastChecks:
    """What the last check of every position and channel found, to be shown beside volumes that go unchecked.

    Parameters
    ----------
    most : int
        So many places are remembered.
    """

    def __init__(self, most: int = 256) -> None:
        self._most = most
        self._found: OrderedDict[tuple[str, str, str], dict[str, Any]] = OrderedDict()

    def beside(self, outcome: Outcome, said: Mapping[str, Any]) -> Mapping[str, Any]:
        """Say what viewers are told of a volume; of one without figures also ``checked``, the last one's time and trust."""
        key = outcome.volume.key
        place = (outcome.volume.run, key.position, key.channel)
        if not said["trust"]:
            return {**said, "checked": self._found[place]} if place in self._found and not outcome.slab else said
        self._found[place] = {"time": key.time, "trust": said["trust"]}
        self._found.move_to_end(place)
        while len(self._found) > self._most:
            self._found.popitem(last=False)
        return said


def said_of(outcome: Outcome) -> dict[str, Any]:
    """Say of a restored volume what the acquisition, the viewers and the journal are told, in JSON.

    Returns
    -------
    dict
        ``trust`` (empty until it is checked), ``provenance``, ``stages_ms``, ``latency_ms`` (from the hook's receipt of the
        last frame until it was restored), ``frames``, ``live``.
    """
    captured_ns = captured_of(outcome.volume, outcome.arrived_ns)
    stages = {
        "assemble": (outcome.offered_ns - outcome.arrived_ns) / 1e6,
        "queue": outcome.queue_ms,
        "restore": outcome.restore_ms,
    }
    if captured_ns:
        stages = {"wire": (outcome.arrived_ns - captured_ns) / 1e6, **stages}
    return {
        "trust": {},
        "provenance": dict(outcome.provenance),
        "stages_ms": {stage: round(ms, 3) for stage, ms in stages.items()},
        "latency_ms": round(sum(stages.values()), 3),
        "frames": len(outcome.volume.infos),
        "live": True,
    }


def checked(checks: Checks | NoChecks, outcome: Outcome, said: Mapping[str, Any]) -> tuple[dict[str, Any], Trust | None]:
    """Check a volume; gives what is said of it with the figures, and the trust itself where there is one."""
    began_ns = time.perf_counter_ns()
    trust = checks.check(outcome)
    if trust is None:
        return dict(said), None
    stages = {**said["stages_ms"], "trust": round((time.perf_counter_ns() - began_ns) / 1e6, 3)}
    return {**said, "trust": trust.figures, "stages_ms": stages}, trust


def _warn(run: Run, outcome: Outcome, figures: Mapping[str, Any]) -> None:
    """Say in plain sentences what is wrong with the channel now, and take back what no longer is."""
    key, channel = outcome.volume.key, outcome.volume.key.channel
    _warn_of_flat(run, outcome)
    _say(
        run,
        f"trust {channel}",
        f"channel {channel}: do not trust the restored image of {key}: {figures.get('why')}",
        when=figures.get("trusted") is False,
    )
    doubts = figures.get("doubts") or []
    _say(run, f"doubt {channel}", f"channel {channel}: in {key}, {'; '.join(doubts[:_MOST_SAID])}", when=bool(doubts))
    beyond = regime(figures, outcome.served.restorer.facts.light_levels) if figures else ""
    _say(run, f"light {channel}", f"channel {channel}: {beyond}", when=bool(beyond))
    _warn_of_limits(run, outcome, figures)


def _warn_of_flat(run: Run, outcome: Outcome) -> None:
    key = outcome.volume.key
    _say(
        run,
        f"flat {key.channel}",
        f"channel {key.channel}: the image of {key} is flat or nearly empty, so its intensity range is a guess; "
        "see to the light",
        when=bool(outcome.provenance["guarded"]),
    )


def _warn_of_limits(run: Run, outcome: Outcome, figures: Mapping[str, Any]) -> None:
    """Say where the light is such that the model was found to be of no use."""
    channel = outcome.volume.key.channel
    beyond = beyond_limits(figures, outcome.served.restorer.facts.limits) if figures else ""
    _say(run, f"limits {channel}", f"channel {channel}: {beyond}", when=bool(beyond))


def _say(run: Run, about: str, sentence: str, *, when: bool) -> None:
    if when:
        run.warn(about, sentence)
    else:
        run.unwarn(about)


def captured_of(volume: Volume, arrived_ns: int) -> int:
    """When the hook was given the last frame of a volume; 0 where that cannot be by the clock of this machine."""
    captured_ns = max(info.captured_ns for info in volume.infos)
    return captured_ns if 0 <= arrived_ns - captured_ns < 600 * 10**9 and captured_ns else 0
