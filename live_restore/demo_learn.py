"""The demo that learns: pairs from the demo microscope, a network trained on them, and promoted into a running acquisition.

Receives a folder and a number of minutes to train; hands on the pairs, the model package with its report, raw and restored
data, and how like the reference volumes raw and restored were, before and after the promotion. It does what a user would do
by hand with ``calibrate``, ``noise``, ``train``, ``serve``, ``acquire`` and ``promote``, with the files it leaves behind.
"""

import subprocess
import sys
import time
import webbrowser
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from threading import Event, Thread
from typing import TYPE_CHECKING, Any

from live_restore.acquire.acquisition import AcquisitionPlan, read_acquisition
from live_restore.acquire.calibrate import Progress, calibrate
from live_restore.acquire.calibration import read_calibration
from live_restore.acquire.hook import RestoreHook
from live_restore.acquire.run import run
from live_restore.config import HardwareConfig
from live_restore.demo import PAGE_PORT, Listener
from live_restore.errors import AcquisitionError, LiveRestoreError
from live_restore.launch import start_restore_process, start_viewer, stop_restore_process
from live_restore.records.runs import RunFolder, run_folder

if TYPE_CHECKING:
    from live_restore.acquire.simulate.microscope import DemoCore

CHANNEL = "FITC"
POSITIONS = 20
POINTS, INTERVAL_S, REFERENCE_EVERY = 24, 4.0, 2
# The model is promoted when so much of the time-lapse has been taken.
PROMOTED_AT = 1 / 3
_ANSWER_S = 10.0
_LAST_WORDS = 12

_RIG = """\
# The microscope of this demo; every word is explained in hardware_configs/demo.toml. Nothing is said of the camera:
# offset, gain and read noise are measured on the pairs, and written here by live-restore noise.
[micromanager]
demo = true

[optics]
pixel_size_um = 0.1

[light]
device = "Laser"
property = "Power"
low = 2.0
high = 100.0

[channels.FITC]
exposure_ms = 20.0
reference_exposure_ms = 1000.0

[simulation]
seed = {seed}
"""

_CALIBRATION = """\
# The pairs of this demo; every word is explained in calibrations/demo.toml.
[calibration]
name = "demo"
directory = "pairs"
sandwich = true

[around]
count = {positions}

[[channels]]
name = "FITC"
"""

_PLAN = """\
# What is acquired while the new network is promoted: some time points at high light too, to see what it is worth.
[acquisition]
name = "cells"
reference_every = {reference_every}

[time]
points = {points}
interval_s = {interval_s}

[[channels]]
name = "FITC"
"""


@dataclass(frozen=True, slots=True)
class Compared:
    """One low-light image of the time-lapse against its reference at high light; PSNR in dB."""

    time: int
    raw_db: float
    restored_db: float | None


@dataclass(frozen=True, slots=True)
class Learned:
    """What the demo learned.

    Attributes
    ----------
    accepted, positions : int
        Pairs taken, and the places they come from.
    package, report, raw, figure : Path
    compared : tuple of Compared
    seconds : mapping of str to float
        How long each part took.
    warnings : tuple of str
    """

    accepted: int
    positions: int
    package: Path
    raw: Path
    compared: tuple[Compared, ...]
    seconds: dict[str, float]
    warnings: tuple[str, ...] = field(default=())

    @property
    def gain_db(self) -> float | None:
        """Median of what restoring gained over raw, of the references after the promotion; None without any."""
        gains = [one.restored_db - one.raw_db for one in self.compared if one.restored_db is not None]
        return median(gains) if gains else None

    def as_json(self) -> dict[str, Any]:
        """Give everything, as JSON has it."""
        return {
            "accepted": self.accepted,
            "positions": self.positions,
            "package": str(self.package),
            "raw": str(self.raw),
            "gain_db": self.gain_db,
            "compared": [{"time": c.time, "raw_db": c.raw_db, "restored_db": c.restored_db} for c in self.compared],
            "seconds": self.seconds,
            "warnings": list(self.warnings),
        }


def run_learn(
    folder: Path,
    *,
    minutes: float,
    listener: Listener,
    seed: int = 1,
    browser: bool = True,
    positions: int = POSITIONS,
    points: int = POINTS,
) -> Learned:
    """Calibrate, train, and promote what was trained into a running acquisition.

    Parameters
    ----------
    folder : Path
        Made if absent; every demo adds pairs, a model and a dataset.
    minutes : float
        How long training may take.
    listener : Listener
    seed : int
        Another seed, other cells and another camera.
    browser : bool
        Whether to open the preview.
    positions : int
        Where pairs are taken.
    points : int
        Time points of the acquisition.

    Raises
    ------
    LiveRestoreError
        If any of its steps fails.
    """
    from live_restore.acquire.simulate.microscope import demo_core

    if folder.exists() and any(folder.iterdir()):  # pairs and models of another specimen would have a say
        folder = _free(folder)
        listener.say(f"there is a demo already; this one goes into {folder}")
    folder.mkdir(parents=True, exist_ok=True)
    rig, package, seconds = folder / "rig.toml", folder / "learned.bioimageio", _Clock()
    config, plan = _written(folder, seed, positions, points)
    listener.say("growing cells under the demo microscope")
    core = demo_core(config)
    core.clock.set(0.0)  # pairs are taken of cells that stand still, as of fixed ones
    pairs, accepted = _calibrated(folder, config, core, listener)
    core.clock.run()
    _command(listener, "noise", str(pairs), "--config", str(rig), "--write")
    seconds.lap("calibrate")
    listener.say(f"training on {accepted} pairs for {minutes:g} minutes at most")
    _command(listener, "train", str(pairs), "-o", str(package), "--minutes", str(minutes), "--channel", CHANNEL)
    seconds.lap("train")
    filmed = _film(folder, rig, package, config, plan, core, listener, browser)
    seconds.lap("film and promote")
    return Learned(accepted, positions, package, filmed.raw, filmed.compared, seconds.laps, filmed.warnings)


def _written(folder: Path, seed: int, positions: int, points: int) -> tuple[HardwareConfig, AcquisitionPlan]:
    """Write the files that a user would write, and read them."""
    files = {
        "rig.toml": _RIG.format(seed=seed),
        "calibration.toml": _CALIBRATION.format(positions=positions),
        "plan.toml": _PLAN.format(points=points, interval_s=INTERVAL_S, reference_every=REFERENCE_EVERY),
    }
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8")
    config = HardwareConfig.from_file(folder / "rig.toml")
    return config, read_acquisition(folder / "plan.toml", config)


def _calibrated(folder: Path, config: HardwareConfig, core: "DemoCore", listener: Listener) -> tuple[Path, int]:
    """Take the pairs; where they are, and how many were accepted."""

    def show(progress: Progress) -> None:
        listener.frames(progress.done, progress.total)
        if progress.reason:
            listener.say(f"{progress.name} was rejected: {progress.reason}")

    listener.say("taking pairs of low and high-light images")
    done = calibrate(read_calibration(folder / "calibration.toml", config), config, progress=show, core=core)
    if done.stopped:
        raise AcquisitionError(f"the calibration was stopped; the pairs that were complete are in {done.pairs.folder}")
    accepted = len(done.pairs.accepted)
    listener.say(f"{accepted} of {len(done.pairs.pairs)} pairs accepted: {done.pairs.folder}")
    return done.pairs.folder, accepted


@dataclass(frozen=True, slots=True)
class _Filmed:
    """A time-lapse, and how like their references its images were."""

    raw: Path
    compared: tuple[Compared, ...]
    warnings: tuple[str, ...]


def _film(
    folder: Path,
    rig: Path,
    package: Path,
    config: HardwareConfig,
    plan: AcquisitionPlan,
    core: "DemoCore",
    listener: Listener,
    browser: bool,
) -> _Filmed:
    """Film without any network, and promote the new one meanwhile."""
    with ExitStack() as children:
        restoring = children.enter_context(start_restore_process([], "--config", str(rig)))
        viewing = children.enter_context(start_viewer(restoring.where, PAGE_PORT))
        listener.say(f"live preview: {viewing.where}; nothing is restored yet")
        if browser:
            webbrowser.open(viewing.where)
        words = ("promote", str(package), "--channel", CHANNEL, "--config", str(rig), "--address", restoring.where)
        promotion = _Promotion(words, listener)
        with RestoreHook(restoring.where) as hook:
            if not hook.wait_attached(_ANSWER_S):
                raise AcquisitionError(f"the restore process at {restoring.where} does not answer; see live-restore doctor")
            done = run(plan, config, hook, directory=folder, progress=promotion.progress, core=core)
        promotion.finish()
        stop_restore_process(restoring)
    return _Filmed(done.raw, _compared(run_folder(done.raw)), tuple(hook.warnings))


class _Promotion:
    """Promotes the new model once, when enough of the acquisition has been taken, beside it."""

    def __init__(self, words: Sequence[str], listener: Listener) -> None:
        self._words, self._listener = words, listener
        self._due, self._failed = Event(), ""
        self._thread = Thread(target=self._main, name="promotion", daemon=True)
        self._thread.start()

    def progress(self, done: int, total: int) -> None:
        """Hear how far the acquisition is."""
        self._listener.frames(done, total)
        if done >= PROMOTED_AT * total:
            self._due.set()

    def finish(self) -> None:
        """Wait until it is done; raises LiveRestoreError if it failed."""
        self._due.set()
        self._thread.join()
        if self._failed:
            raise LiveRestoreError(self._failed)

    def _main(self) -> None:
        self._due.wait()
        try:
            _command(self._listener, *self._words)
        except LiveRestoreError as error:
            self._failed = str(error)


def _compared(beside: Path) -> tuple[Compared, ...]:
    """Read what the restore process found when it compared low-light images with their references."""
    noted = [line for line in RunFolder.open(beside).events() if line.get("event") == "reference"]
    found = [Compared(int(line["time"]), float(line["raw_psnr_db"]), line.get("psnr_db")) for line in noted]
    return tuple(sorted(found, key=lambda one: one.time))


def _command(listener: Listener, *words: str) -> None:
    """Run a command of live_restore as a user would, in a process of its own; its lines are passed on."""
    listener.say(f"live-restore {' '.join(words)}")
    process = subprocess.Popen(
        [sys.executable, "-m", "live_restore.cli", *words],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
        errors="replace",
    )
    said: list[str] = []
    try:
        assert process.stdout is not None
        for line in process.stdout:
            said.append(line.rstrip())
            listener.say(f"    {line.rstrip()}")
        process.wait()
    finally:
        process.kill()
        process.wait()
    if process.returncode:
        raise LiveRestoreError(f"'live-restore {words[0]}' failed; its last words: {' / '.join(said[-_LAST_WORDS:])}")


def _free(path: Path) -> Path:
    """Give the path, with a number if there is something already."""
    number, found = 1, path
    while found.exists():
        number += 1
        found = path.with_stem(f"{path.stem}_{number}")
    return found


class _Clock:
    """How long each part takes, in seconds."""

    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._began_s = time.monotonic()

    def lap(self, name: str) -> None:
        """End a part."""
        now_s = time.monotonic()
        self.laps[name] = round(now_s - self._began_s, 1)
        self._began_s = now_s
