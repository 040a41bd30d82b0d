"""Will it keep up: an experiment's demand beside the pace of this machine, before the experiment begins.

Receives a `Demand` and a `Pace` for each channel; hands on an `Outlook` in numbers and in words, and what would help. It does
not know how a pace is measured, nor who asked.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from math import prod
from typing import Any

from live_restore.bench.demand import Demand
from live_restore.bench.pace import Pace
from live_restore.bench.work import size_text
from live_restore.models.package import ModelPackage

# Time of the network is never planned to the last millisecond.
_SPARE = 0.9


@dataclass(frozen=True, slots=True)
class Outlook:
    """How an experiment will go on this machine.

    Attributes
    ----------
    needed_per_s, pace_per_s : float
        Volumes per second that come, and that are restored.
    load : float
        Work per time, 1 is just enough.
    most_waiting : int
        Largest number of volumes that are complete and not yet restored, at any time.
    behind : int
        Volumes that are not restored when the last one is complete.
    lag_s : float
        How long after it the last volume is restored.
    backlog_gb : float
        Raw data of the most that waits.
    seconds : float
        How long the experiment takes.
    paces : mapping of str to Pace
        By channel.
    helps : tuple of str
        What would make it keep up; empty if it does.
    """

    needed_per_s: float
    pace_per_s: float
    load: float
    most_waiting: int
    behind: int
    lag_s: float
    backlog_gb: float
    seconds: float
    paces: Mapping[str, Pace]
    helps: tuple[str, ...] = ()

    @property
    def keeps_up(self) -> bool:
        """Whether the volumes are restored as fast as they come."""
        return self.load <= 1.0

    def as_json(self) -> dict[str, Any]:
        """Give it as what is written into a file."""
        said = asdict(self)
        return {"format": "live_restore.outlook/1", "keeps_up": self.keeps_up, **said, "in_words": self.in_words()}

    def in_words(self) -> list[str]:
        """Say it, a sentence each."""
        any_pace = next(iter(self.paces.values()))
        where = f"{'this GPU' if _is_gpu(any_pace.device) else 'this CPU'} ({any_pace.engine})"
        figures = f"{_rate(self.pace_per_s)} volumes/s; you need {_rate(self.needed_per_s)}"
        if self.keeps_up:
            said = [f"{where} keeps up with {figures}: {100 * (1 - self.load):.0f} % of the time is left"]
            if self.most_waiting > 1:
                said.append(
                    f"at times {self.most_waiting} volumes ({self.backlog_gb:.2g} GB) wait: "
                    f"live-restore serve --max-waiting {self.most_waiting}"
                )
        else:
            said = [
                f"{where} does not keep up: it restores {figures}",
                f"after {_time(self.seconds)} it would be {self.behind} volumes behind, {_time(self.lag_s)} of work and "
                f"{self.backlog_gb:.2g} GB; the live process leaves them out, live-restore backfill restores them afterwards",
            ]
        cut = [pace for pace in self.paces.values() if pace.measured_shape != pace.shape]
        if cut:
            said.append(f"measured on {size_text(cut[0].measured_shape)} and scaled by pixels to {size_text(cut[0].shape)}")
        return said


def outlook(demand: Demand, paces: Mapping[str, Pace], helps: tuple[str, ...] = ()) -> Outlook:
    """Let the volumes of an experiment come, and restore one after the other.

    Parameters
    ----------
    demand : Demand
    paces : mapping of str to Pace
        By channel; ``*`` for all that are not named. Channels without one are not restored.
    helps : tuple of str

    Raises
    ------
    ValueError
        If no channel of the demand has a pace.
    """
    done: list[float] = []
    came: list[float] = []
    free_s = work_s = 0.0
    most = most_bytes = 0
    waiting: list[tuple[float, int]] = []  # when each that is not yet restored will be, and its bytes
    for arrival in demand.arrivals:
        pace = paces.get(arrival.channel, paces.get("*"))
        if pace is None:
            continue
        takes_s = pace.volume_s * arrival.planes / pace.shape[0]
        free_s = max(free_s, arrival.at_s) + takes_s
        work_s += takes_s
        came.append(arrival.at_s)
        done.append(free_s)
        waiting = [each for each in waiting if each[0] > arrival.at_s] + [(free_s, arrival.planes * prod(demand.frame) * 2)]
        most = max(most, len(waiting))
        most_bytes = max(most_bytes, sum(nbytes for _, nbytes in waiting))
    if not came:
        raise ValueError(f"no model is given for the channels {', '.join(demand.shapes)}; name one: --model CHANNEL=PACKAGE")
    return Outlook(
        needed_per_s=len(came) / demand.seconds,
        pace_per_s=len(came) / work_s,
        load=work_s / demand.seconds,
        most_waiting=most,
        behind=sum(moment > came[-1] for moment in done),
        lag_s=done[-1] - came[-1],
        backlog_gb=most_bytes / 1e9,
        seconds=demand.seconds,
        paces=dict(paces),
        helps=helps,
    )


def what_helps(demand: Demand, seen: Outlook, package: ModelPackage, in_bf16: Pace | None = None) -> tuple[str, ...]:
    """Say what would make an experiment keep up that does not.

    Parameters
    ----------
    demand : Demand
    seen : Outlook
    package : ModelPackage
        Of the channel that takes most.
    in_bf16 : Pace or None
        The same, measured in bf16.
    """
    if seen.keeps_up:
        return ()
    slowest = max(seen.paces.values(), key=lambda pace: pace.volume_s)
    helps = []
    if in_bf16 is not None:
        rate = seen.pace_per_s * slowest.volume_s / in_bf16.volume_s
        enough = "enough" if rate >= seen.needed_per_s else "not enough alone"
        helps.append(
            f"--precision bf16: about {_rate(rate)} volumes/s, {enough}; look at its certificate (live-restore engines)"
        )
    planes, height, width = slowest.shape
    flat = package.facts.geometry.n_dim == 2
    images = planes if flat else 1
    target_ms = 1e3 * _SPARE * slowest.restore_s / seen.load / images
    size = size_text((height, width) if flat else slowest.shape)
    helps.append(
        f"a smaller network: live-restore distill {package.path} --target-ms {_ms(target_ms)} --size {size} "
        f"(now {_ms(1e3 * slowest.restore_s / images)} ms)"
    )
    fewer = int(planes / seen.load)
    if 2 <= fewer < planes:
        helps.append(f"fewer planes: {fewer} instead of {planes}")
    helps.append(f"a longer interval: {seen.load:.2g} times as long as planned")
    share = math.sqrt(1 / seen.load)
    helps.append(f"a smaller field of the camera: {int(height * share)}x{int(width * share)} instead of {height}x{width}")
    return tuple(helps)


def _is_gpu(device: str) -> bool:
    return any(word in device.lower() for word in ("nvidia", "geforce", "rtx", "cuda", "tesla", "gpu"))


def _ms(value: float) -> str:
    return f"{value:.3g}" if value < 100 else f"{value:.0f}"


def _rate(per_s: float) -> str:
    return f"{per_s:.2g}" if per_s < 10 else f"{per_s:.0f}"


def _time(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
