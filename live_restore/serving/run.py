"""The run: what the restore process knows of one acquisition.

Receives what the wire, the restore thread and the record thread find out; hands on the run's part of the status. Usable
from any thread. It decides nothing, and touches neither sockets nor files.
"""

from collections import OrderedDict, deque
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

from live_restore.frames import FrameInfo, Volume, VolumeKey
from live_restore.ledger import Ledger
from live_restore.restore.volumes import Assembly
from live_restore.serving.timings import Rate, Timings
from live_restore.wire.messages import Begin

_NS = 1_000_000_000
# A hook that has said nothing for so long is called silent.
SILENT_S = 5.0
# The status tells of so many volumes, and of so many warnings.
_TIMELINE, _WARNINGS = 300, 20
# And of so many comparisons with references.
_COMPARED = 120
# What the hook left out lately is judged over this long.
_BEHIND_S = 10.0
_MOST_CHANNELS = 64
# What is kept of a plan; whatever else a client says is not, for it may say it again and again.
_PLANNED = frozenset(
    {"times", "positions", "channels", "planes", "frames", "interval_s", "z_step_um", "pixel_size_um", "shape"}
)


@dataclass(slots=True)
class _Exposure:
    """Light spent on one channel, milliseconds."""

    frames: int = 0
    low_ms: float = 0.0
    high_frames: int = 0
    high_ms: float = 0.0

    def said(self, reference_ms: float | None) -> dict[str, Any]:
        """Compare with the exposure that one frame would have had: the one given, or that of the high-light frames."""
        if reference_ms is None and self.high_frames:
            reference_ms = self.high_ms / self.high_frames
        whole = None if reference_ms is None else round(self.frames * reference_ms, 3)
        return {"frames": self.frames, "low_ms": round(self.low_ms, 3), "reference_ms": whole}


class Run:
    """One acquisition, from its `Begin` on.

    Attributes
    ----------
    name : str
    raw : Path or None
        The raw dataset.
    plan : mapping
    results : {"none", "float32", "uint16"}
    client : bytes
        Who sends it.
    ledger : Ledger
    assembly : Assembly
        The network thread's.
    folder : Path or None
        Where it is recorded; None as long as nothing is, or nothing can be.
    closed : bool
        Whether its records have been closed.
    """

    def __init__(
        self,
        begin: Begin,
        client: bytes,
        ledger: Ledger,
        assembly: Assembly,
        now_ns: int,
        references_ms: Mapping[str, float] | None = None,
    ) -> None:
        self.name, self.ledger, self.assembly = begin.run, ledger, assembly
        self.raw: Path | None = None
        self.plan: Mapping[str, Any] = {}
        self.folder: Path | None = None
        self.bytes_free: int | None = None
        self.timings = Timings()
        self._references_ms = references_ms or {}
        self._lock = Lock()
        self._arrived: dict[VolumeKey, int] = {}
        self._volumes: dict[str, int] = {}
        self._exposures: dict[str, _Exposure] = {}
        self._timeline: deque[dict[str, Any]] = deque(maxlen=_TIMELINE)
        self._compared: deque[dict[str, Any]] = deque(maxlen=_COMPARED)
        self._warnings: OrderedDict[str, str] = OrderedDict()
        self._hook: dict[str, int] = {}
        self._skips: deque[tuple[int, int, int]] = deque(maxlen=64)
        self._frames, self._restored = Rate(), Rate()
        self.begin(begin, client, now_ns)

    # --- the network thread tells -----------------------------------------------------------------------------------

    def begin(self, begin: Begin, client: bytes, now_ns: int) -> None:
        """Note that the run begins, or goes on."""
        self.raw = Path(begin.raw) if begin.raw else self.raw
        said = {name: what for name, what in begin.plan.items() if name in _PLANNED}
        self.plan, self.results, self.client = {**self.plan, **said}, begin.results, client
        self.ended = self.closed = False
        self.heard_ns = now_ns

    def end(self, hook: Mapping[str, int]) -> None:
        """Note that no frame comes any more."""
        self.ended = True
        self._hook = dict(hook) or self._hook

    def beat(self, hook: Mapping[str, int], now_ns: int) -> None:
        """Take the hook's table."""
        self._hook = dict(hook) or self._hook
        self._skips.append((now_ns, self._hook.get("taken", 0), self._hook.get("skipped", 0)))

    def frame(self, info: FrameInfo, now_ns: int) -> None:
        """Count a frame that was taken, and its light."""
        self._frames.add(now_ns)
        self.closed = False
        self._arrived[info.key] = now_ns
        exposure_ms = info.exposure_ms if info.exposure_ms is not None else info.asked_exposure_ms or 0.0
        with self._lock:
            if info.key.channel not in self._exposures and len(self._exposures) >= _MOST_CHANNELS:
                return
            exposure = self._exposures.setdefault(info.key.channel, _Exposure())
            if info.key.light == "high":
                exposure.high_frames, exposure.high_ms = exposure.high_frames + 1, exposure.high_ms + exposure_ms
            else:
                exposure.frames, exposure.low_ms = exposure.frames + 1, exposure.low_ms + exposure_ms

    def arrived(self, key: VolumeKey, otherwise_ns: int) -> int:
        """Say when the last frame of a volume that ended had arrived; once."""
        return self._arrived.pop(key, otherwise_ns)

    @property
    def at_once(self) -> int:
        """How many volumes come in side by side when all is well: channels may take turns within a stack."""
        planned = self.plan.get("channels")
        return max(1, len(self._exposures), len(planned) if isinstance(planned, list) else 0)

    @property
    def to_come(self) -> int:
        """How many frames the plan announces besides those that were taken; 0 where it does not say, or the run is over."""
        planned = self.plan.get("frames")
        taken = max(self.ledger["taken"], self._hook.get("taken", 0))
        return max(0, planned - taken) if isinstance(planned, int) and not self.ended else 0

    def silent(self, now_ns: int) -> bool:
        """Whether the hook has not been heard of for long."""
        return not self.ended and now_ns - self.heard_ns > SILENT_S * _NS

    # --- any thread tells -------------------------------------------------------------------------------------------

    def volume(self, column: str) -> None:
        """Count a volume that came to an end."""
        with self._lock:
            self._volumes[column] = self._volumes.get(column, 0) + 1

    def restored(self, volume: Volume, said: Mapping[str, Any], now_ns: int) -> None:
        """Keep a restored volume's point on the time line; `said` as in the journal."""
        self._restored.add(now_ns)
        self.timings.add({**said["stages_ms"], "total": said["latency_ms"]})
        key, trust = volume.key, said["trust"]
        point = {
            "time": key.time,
            "position": key.position,
            "channel": key.channel,
            "snr": trust.get("snr"),
            "raised": trust.get("raised"),
            "unix_s": round(max(info.unix_ns for info in volume.infos) / _NS, 3),
            "latency_ms": said["latency_ms"],
        }
        with self._lock:
            self._timeline.append(point)

    def referenced(self, key: VolumeKey, unix_s: float, figures: Mapping[str, Any]) -> None:
        """Keep how like its reference a volume is; the volume's point on the time line, if it has one, tells it too."""
        named = {"time": key.time, "position": key.position, "channel": key.channel}
        short = {name: figures.get(name) for name in ("psnr_db", "raw_psnr_db", "gain_db")}
        with self._lock:
            self._compared.append({**named, "unix_s": unix_s, **figures})
            for at in reversed(range(len(self._timeline))):
                if named.items() <= self._timeline[at].items():
                    # another mapping, for the one before may be on its way to a viewer
                    self._timeline[at] = {**self._timeline[at], "reference": short}
                    break

    def warn(self, about: str, sentence: str) -> bool:
        """Say a warning; a newer one about the same thing replaces it. Tells whether it is a new one."""
        with self._lock:
            before = self._warnings.pop(about, None)
            self._warnings[about] = sentence
            while len(self._warnings) > _WARNINGS:
                self._warnings.popitem(last=False)
            return before != sentence

    def unwarn(self, about: str) -> None:
        """Take a warning back."""
        with self._lock:
            self._warnings.pop(about, None)

    # --- and it is told of ------------------------------------------------------------------------------------------

    def judge_pace(self, now_ns: int) -> None:
        """Warn if the hook leaves out volumes because we are too slow; take it back when it no longer does."""
        lately = [entry for entry in self._skips if now_ns - entry[0] <= _BEHIND_S * _NS]
        taken, skipped = (lately[-1][n] - lately[0][n] if lately else 0 for n in (1, 2))
        if taken <= 0 or skipped <= 0:
            self.unwarn("behind")
            return
        share, restoring = min(1.0, skipped / taken), self._restored.per_s(now_ns)
        arrive = f", {restoring / (1 - share):.2g} arrive" if share < 1 else ""
        rates = f"restoring {restoring:.2g} volumes/s{arrive}" if restoring else "nothing was restored in the last seconds"
        self.warn("behind", f"falling behind: {rates}; {share:.0%} are left for backfill")

    def state(self, now_ns: int) -> str:
        """Say ``running``, ``ended`` or ``silent``."""
        return "ended" if self.ended else "silent" if self.silent(now_ns) else "running"

    def status(self, now_ns: int, *, timeline: bool = True) -> dict[str, Any]:
        """Give everything that a viewer or the command line shows of it, in JSON."""
        self.judge_pace(now_ns)
        with self._lock:
            volumes, points = dict(self._volumes), list(self._timeline) if timeline else []
            compared = list(self._compared) if timeline else []
            warnings = list(self._warnings.values())
            references = self._references_ms
            exposures = {channel: exposure.said(references.get(channel)) for channel, exposure in self._exposures.items()}
        return {
            "run": self.name,
            "raw": None if self.raw is None else str(self.raw),
            "folder": None if self.folder is None else str(self.folder),
            "state": self.state(now_ns),
            "plan": dict(self.plan),
            "hook": dict(self._hook),
            "ledger": self.ledger.counts(),
            "replaced": self.assembly.replaced,
            "volumes": {**volumes, "skipped": self._skipped_volumes()},
            "frames_per_s": self._frames.per_s(now_ns),
            "volumes_per_s": self._restored.per_s(now_ns),
            "bytes_free": self.bytes_free,
            "latency_ms": self.timings.percentiles(),
            "timeline": points,
            "references": compared,
            "exposure_ms": exposures,
            "warnings": warnings,
        }

    def _skipped_volumes(self) -> int:
        """Estimate from the hook's frames how many volumes it left out."""
        planes = self.plan.get("planes") or self.planes
        return -(-self._hook.get("skipped", 0) // max(1, planes))

    planes = 1  # of the last volume that was whole


class Runs:
    """The runs by name, the newest last; those that are over and closed are forgotten beyond a number.

    Parameters
    ----------
    most : int
    """

    def __init__(self, most: int = 20) -> None:
        self._most, self._lock = most, Lock()
        self._runs: OrderedDict[str, Run] = OrderedDict()

    def add(self, run: Run) -> list[Run]:
        """Take a run; gives those that were forgotten for it."""
        with self._lock:
            self._runs[run.name] = run
            over = [old for old in self._runs.values() if old.closed]
            forgotten = over[: max(0, len(self._runs) - self._most)]
            for old in forgotten:
                del self._runs[old.name]
            return forgotten

    def get(self, name: str) -> Run | None:
        """Give a run by name; None if it has not begun here."""
        with self._lock:
            return self._runs.get(name)

    def all(self) -> list[Run]:
        """Give all that are known."""
        with self._lock:
            return list(self._runs.values())
