"""The demo: a simulated microscope films living cells at low light, and what it sees is restored while it runs.

Receives a folder and a number of seconds; hands on raw and restored data, a before/after figure and an account of every
frame. It does what a user would do by hand with ``serve``, ``view`` and ``acquire``, with the files it leaves behind:
``rig.toml`` and ``plan.toml``.
"""

import webbrowser
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from live_restore.acquire.acquisition import AcquisitionPlan, read_acquisition
from live_restore.acquire.hook import RestoreHook
from live_restore.config import HardwareConfig
from live_restore.errors import AcquisitionError, WireError
from live_restore.figures import GalleryRow, gallery
from live_restore.frames import VolumeKey, volume_key
from live_restore.launch import Child, start_restore_process, start_viewer, stop_restore_process
from live_restore.records.account import Account, account
from live_restore.records.raw_volumes import open_raw
from live_restore.records.runs import RESTORE, RunFolder, read_journal, run_folder
from live_restore.records.sidecar import Sidecar
from live_restore.score import score_pair
from live_restore.wire.messages import Answer, Command
from live_restore.wire.sockets import Caller

if TYPE_CHECKING:
    from live_restore.acquire.simulate.microscope import DemoCore
    from live_restore.acquire.simulate.sim_camera import Seen

INTERVAL_S = 4.0
PLANES = 8
SENSOR = (512, 512)
PIXEL_SIZE_UM = 0.1
PAGE_PORT = 8757
_MAPS = "camera_maps.npz"
_QUANTUM_EFFICIENCY = 0.72
_ANSWER_S = 10.0

_RIG = """\
# The microscope of this demo; every word is explained in hardware_configs/demo.toml.
[micromanager]
demo = true

[camera]
device = "SimCamera"
offset_adu = 97.0
gain_adu_per_e = 2.18
read_noise_e = 1.3
quantum_efficiency = {quantum_efficiency}
maps = "{maps}"

[optics]
pixel_size_um = {pixel_size_um}

[light]
device = "Laser"
property = "Power"
low = 2.0
high = 100.0

[channels.DAPI]
exposure_ms = 20.0
reference_exposure_ms = 1000.0
model = "care3d_demo"

[channels.FITC]
exposure_ms = 20.0
reference_exposure_ms = 1000.0
model = "rcan3d_demo"

[serve]
max_waiting = 0                  # whoever watches wants the newest volume; the others are left for live-restore backfill

[simulation]
seed = {seed}
quantum_efficiency = {quantum_efficiency}
"""

_PLAN = """\
# What this demo acquires; try it again with: live-restore acquire plan.toml --config rig.toml
[acquisition]
name = "cells"

[time]
points = {points}
interval_s = {interval_s}

[z]
planes = {planes}
step_um = 0.5

[[channels]]
name = "DAPI"

[[channels]]
name = "FITC"
"""


class Listener(Protocol):
    """Who is told how far the demo is."""

    def say(self, sentence: str) -> None:
        """Tell what happens."""

    def frames(self, done: int, total: int) -> None:
        """Tell how many frames are taken, of how many."""


@dataclass(frozen=True, slots=True)
class Scored:
    """What the last volume of a channel gained, PSNR against the noise-free truth."""

    channel: str
    model: str
    raw_db: float
    restored_db: float


@dataclass(frozen=True, slots=True, eq=False)
class Shown:
    """What the demo made.

    Attributes
    ----------
    raw, run_folder : Path
        The raw dataset, and what is kept beside it.
    figure : Path or None
        None if no volume was restored.
    scores : tuple of Scored
    sentences : tuple of str
        How fast it went, how much light was saved, warnings.
    account : Account
        What became of every frame.
    hook : mapping of str to int
        The hook's table.
    """

    raw: Path
    run_folder: Path
    figure: Path | None
    scores: tuple[Scored, ...]
    sentences: tuple[str, ...]
    account: Account
    hook: dict[str, int]

    def as_json(self) -> dict[str, Any]:
        """Give everything, as JSON has it."""
        return {
            "raw": str(self.raw),
            "run_folder": str(self.run_folder),
            "figure": None if self.figure is None else str(self.figure),
            "scores": [asdict(score) for score in self.scores],
            "sentences": list(self.sentences),
            "account": self.account.lines(),
            "balanced": self.account.balanced,
            "hook": self.hook,
        }


@dataclass(frozen=True, slots=True, eq=False)
class _Last:
    """The last volume of a channel that was restored, (Z, Y, X) each."""

    key: VolumeKey
    model: str
    engine: str
    raw: NDArray[np.uint16]
    restored: NDArray[np.float32]
    truth: NDArray[np.float32]


def run_demo(
    folder: Path,
    *,
    seconds: float,
    listener: Listener,
    seed: int = 1,
    engine: Literal["pymmcore-plus", "pycromanager"] = "pymmcore-plus",
    browser: bool = True,
) -> Shown:
    """Film, restore, show. Ctrl-C ends the time-lapse early.

    Parameters
    ----------
    folder : Path
        Made if absent; every demo adds a dataset.
    seconds : float
        How long the time-lapse takes.
    listener : Listener
    seed : int
        Another seed, other cells and other noise.
    engine : {"pymmcore-plus", "pycromanager"}
        Who drives the microscope.
    browser : bool
        Whether to open the preview.

    Raises
    ------
    LiveRestoreError
        If a process does not start, or the acquisition fails.
    """
    from live_restore.acquire.run import run
    from live_restore.acquire.simulate.microscope import demo_core

    folder.mkdir(parents=True, exist_ok=True)
    config, plan = _written(folder, seconds, seed)
    listener.say("growing cells under the demo microscope")
    core = demo_core(config)
    _calibrated(core, folder / _MAPS)
    with ExitStack() as children:
        listener.say("starting the restore process: two small networks are loaded and warmed up")
        expected = "x".join(map(str, (PLANES, *SENSOR)))
        words = ("--config", str(folder / "rig.toml"), "--expect", expected)
        restoring = children.enter_context(start_restore_process([], *words))
        viewing = children.enter_context(start_viewer(restoring.where, PAGE_PORT))
        listener.say(f"live preview: {viewing.where}")
        listener.say(f"from another terminal: live-restore status --watch --address {restoring.where}")
        if browser:
            webbrowser.open(viewing.where)
        with RestoreHook(restoring.where) as hook:
            if not hook.wait_attached(_ANSWER_S):
                raise AcquisitionError(f"the restore process at {restoring.where} does not answer; see live-restore doctor")
            done = run(plan, config, hook, engine=engine, directory=folder, progress=listener.frames, core=core)
        listener.say("the microscope has stopped; the last volumes are being restored")
        said = _status(restoring)
        ended = _stopped(restoring)
    beside = run_folder(done.raw)
    counted = account(beside)
    lasts = _last_volumes(plan, done.raw, beside, core)
    sentences = (*_models(said), *_told(beside), *ended, *hook.warnings, *_left(counted, beside))
    figure = _drawn(lasts, folder / "before_after.png")
    return Shown(done.raw, beside, figure, _scored(lasts), sentences, counted, hook.ledger.counts())


def _written(folder: Path, seconds: float, seed: int) -> tuple[HardwareConfig, AcquisitionPlan]:
    """Write the two files that a user would write, and read them."""
    points = max(1, round(seconds / INTERVAL_S))
    rig, plan = folder / "rig.toml", folder / "plan.toml"
    said = _RIG.format(pixel_size_um=PIXEL_SIZE_UM, seed=seed, quantum_efficiency=_QUANTUM_EFFICIENCY, maps=_MAPS)
    rig.write_text(said, encoding="utf-8")
    plan.write_text(_PLAN.format(points=points, interval_s=INTERVAL_S, planes=PLANES), encoding="utf-8")
    config = HardwareConfig.from_file(rig)
    return config, read_acquisition(plan, config)


def _calibrated(core: "DemoCore", path: Path) -> None:
    """Write what a calibration of the camera would give, so that the trust check knows its noise pixel by pixel."""
    sensor = core.sim_camera.sensor
    np.savez_compressed(
        path,
        offset_adu=sensor.offset_adu,
        gain_adu_per_e=sensor.gain_adu_per_e,
        read_noise_e=sensor.read_noise_e,
    )


def _status(restoring: Child) -> dict[str, Any]:
    """Ask the restore process what it says of itself; nothing if it is gone."""
    if not restoring.alive:
        return {}
    try:
        with Caller(restoring.where) as caller:
            answer = caller.ask(Command("status"), _ANSWER_S)
    except WireError:
        return {}
    return dict(answer.said) if isinstance(answer, Answer) else {}


def _stopped(restoring: Child) -> list[str]:
    """Let the restore process finish; what is to be said if it did not."""
    if not restoring.alive:
        return ["the restore process ended before the microscope did; raw frames are complete, see below"]
    if not stop_restore_process(restoring):
        return ["the restore process did not end in time and was killed; what it had written is safe"]
    return []


def _models(said: dict[str, Any]) -> list[str]:
    return [f"{row['channel']}: {row['model']} on {row['engine']}" for row in said.get("models", ())]


def _told(beside: Path) -> list[str]:
    """How fast it went, how much light was saved, and what was warned of, to the last volume."""
    sentences = []
    restore = RunFolder.open(beside).described(RESTORE)
    if total := restore.get("latency_ms", {}).get("total"):
        sentences.append(f"from the last frame of a stack to its restored volume: median {total['p50']:.0f} ms")
    spent = restore.get("exposure_ms", {}).values()
    light_ms, reference_ms = (sum(one.get(name) or 0.0 for one in spent) for name in ("low_ms", "reference_ms"))
    if reference_ms:
        saved = 100 * (1 - light_ms / reference_ms)
        sentences.append(f"{light_ms / 1e3:.1f} s of light in place of {reference_ms / 1e3:.0f} s: {saved:.0f} % saved")
    return [*sentences, *(str(sentence) for sentence in restore.get("warnings", ()))]


def _left(counted: Account, beside: Path) -> list[str]:
    """How to restore what was left out."""
    left = next((row.frames for row in counted.rows if row.name == "not restored"), 0)
    return [f"{left} frames were left out while it ran; restore them with: live-restore backfill {beside}"] if left else []


def _last_volumes(plan: AcquisitionPlan, raw: Path, beside: Path, core: "DemoCore") -> list[_Last]:
    """For every channel the last volume that was restored, with the truth it should show."""
    said = {key: line["said"] for key, line in read_journal(beside).items()}
    newest = {key.channel: key for key in sorted(said)}
    if not newest:
        return []
    with open_raw(raw, {}) as taken, Sidecar(beside) as sidecar:
        return [
            _Last(
                key,
                str(said[key].get("provenance", {}).get("model", "")),
                str(said[key].get("provenance", {}).get("engine", "")),
                taken.volumes[key].read(),
                sidecar.read(key),
                _truth(plan, key, core),
            )
            for key in newest.values()
        ]


def _truth(plan: AcquisitionPlan, key: VolumeKey, core: "DemoCore") -> NDArray[np.float32]:
    """Photons that the frames of a volume had on average: the microscope remembers what it saw, exposure by exposure."""
    seen: Sequence[Seen] = list(core.sim_camera.seen)
    places = [number for number, frame in enumerate(plan.frames()) if volume_key(frame.axes) == key]
    return np.stack([core.sim_camera.expected(seen[number]) for number in places])


def _scored(lasts: list[_Last]) -> tuple[Scored, ...]:
    scores = []
    for last in lasts:
        score = score_pair(last.restored, last.truth, last.raw)
        raw_db = score.raw.psnr_db if score.raw else float("nan")
        scores.append(Scored(last.key.channel, last.model, round(raw_db, 2), round(score.restored.psnr_db, 2)))
    return tuple(scores)


def _drawn(lasts: list[_Last], path: Path) -> Path | None:
    if not lasts:
        return None
    gallery([_row(last) for last in lasts], path)
    return path


def _row(last: _Last) -> GalleryRow:
    brightest = int(last.truth.mean(axis=(1, 2)).argmax())
    title = f"{last.key.channel}, {np.percentile(last.truth, 99.9):.0f} photons at the brightest"
    raw, restored, truth = last.raw[brightest], last.restored[brightest], last.truth[brightest]
    caption = f"Time point {last.key.time}, plane {brightest + 1} of {len(last.raw)}. {last.model}, {last.engine}"
    return GalleryRow(title, raw, restored, truth, caption, PIXEL_SIZE_UM)
