"""Backfill: restore afterwards what a live run left out, from the raw dataset, into the same sidecar.

Receives a run folder; finds the raw dataset and the models that it names, and restores the volumes that its journal lacks,
by the same code as live. What was restored is kept at once, so it can be stopped and started again. It does not know how
files are laid out, nor how a network is run.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from live_restore.errors import EngineError, ImageError
from live_restore.frames import Restored, VolumeKey
from live_restore.listener import Listener, Silence
from live_restore.records.raw_volumes import RawRun, RawVolume, Spacing, open_raw
from live_restore.records.runs import HOOK, RESTORE, RUN, RunFolder, run_folder
from live_restore.records.sidecar import Sidecar
from live_restore.restore.noise import CameraNoise
from live_restore.restore.procedures import finer_spacing
from live_restore.restore.trust import TrustCheck
from live_restore.restorer import Restorer
from live_restore.run_models import OTHERS, ModelUsed, models_of, open_used

# Why volumes of the raw dataset are not in the sidecar.
LEFT = {
    "reference": "high light: kept for comparison, never restored",
    "without_model": "their channel has no model",
    "incomplete": "the raw dataset lacks planes of them",
    "empty": "the raw dataset holds nothing but zeros there: never written",
    "failed": "they could not be restored; the warnings say why",
}


@dataclass(slots=True)
class Backfilled:
    """What a backfill did.

    Attributes
    ----------
    folder, raw : Path
        The run folder and the raw dataset.
    restored : int
        Volumes restored now.
    already : int
        Volumes that were restored before, live or by an earlier backfill.
    left : dict of str to list of VolumeKey
        What is not restored, by the reasons in `LEFT`.
    frames : dict of str to int
        The frames of the raw dataset: ``raw``, and of these ``restored`` and each reason of `LEFT`; they add up.
    warnings : list of str
    """

    folder: Path
    raw: Path
    restored: int = 0
    already: int = 0
    left: dict[str, list[VolumeKey]] = field(default_factory=lambda: {reason: [] for reason in LEFT})
    frames: dict[str, int] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        """Whether everything that can be restored is."""
        return not self.left["failed"]

    def warn(self, sentence: str) -> None:
        """Keep a warning, once."""
        if sentence not in self.warnings:
            self.warnings.append(sentence)


def backfill(
    folder: Path,
    raw: Path | None = None,
    models: Mapping[str, Path] | None = None,
    listener: Listener | None = None,
    *,
    noise: CameraNoise | None = None,
    engine: str | None = None,
    precision: str | None = None,
    memory_bytes: int | None = None,
) -> Backfilled:
    """Restore what a run's sidecar lacks.

    Parameters
    ----------
    folder : Path
        The run folder, or the raw dataset it stands beside.
    raw : Path or None
        The raw dataset, where it is not where the run found it.
    models : mapping of str to Path, or None
        Packages by channel, ``*`` for all others; in the place of what the run noted.
    listener : Listener or None
    noise : CameraNoise or None
        For the trust figures; None: estimated from the volumes.
    engine, precision : str or None
        None: those that the run noted, which give the pixels that live would have given.
    memory_bytes : int or None
        What the networks may take; see `Restorer`.

    Raises
    ------
    ImageError
        If there is no run folder or raw dataset, another process is writing, or the disk is full.
    ModelError
        If a model of the run is not there, or is another one than the run's.
    EngineError
        If the engine of the run does not run here.
    """
    with _open_run(folder) as run:
        found = raw or run.raw
        if found is None or not found.exists():
            where = f"the raw dataset of this run, {found}, is not there" if found else "this run did not note its raw dataset"
            raise ImageError(f"{where}; say where it is with --raw")
        used = [_on(model, engine, precision) for model in models_of(run, models or {})]
        with open_raw(found, _plan(run)) as source:
            job = _Backfill(run, source, used, Backfilled(run.path, found), listener or Silence(), noise)
            return job.run(memory_bytes)


class _Backfill:
    """One backfill: what is to be done, and what was."""

    def __init__(
        self,
        run: RunFolder,
        source: RawRun,
        models: Sequence[ModelUsed],
        outcome: Backfilled,
        told: Listener,
        noise: CameraNoise | None,
    ) -> None:
        self._run, self._source, self._models, self._noise = run, source, models, noise
        self._outcome, self._told = outcome, told
        self._groups = self._sorted_out()

    def run(self, memory_bytes: int | None) -> Backfilled:
        """Restore, and note what was done, also if it was stopped."""
        for note in self._source.notes:
            self._outcome.warn(note)
        with Sidecar(self._run.path, **self._sidecar_options()) as sidecar:
            wanted = [volume for _, volumes in self._groups for volume in volumes]
            self._outcome.already = sum(volume.key in sidecar.written for volume in wanted)
            self._told.image(self._outcome.raw.name, len(wanted), self._outcome.already)
            try:
                for used, volumes in self._groups:
                    if any(volume.key not in sidecar.written for volume in volumes):
                        self._restore_group(used, volumes, sidecar, memory_bytes)
            finally:
                self._note(sidecar)
        return self._outcome

    def _sorted_out(self) -> list[tuple[ModelUsed, list[RawVolume]]]:
        """Give every volume that can be restored to its model, movie by movie and in order of time; name the others."""
        by_channel = {used.channel: used for used in self._models}
        groups: dict[str, list[RawVolume]] = {}
        for key, volume in self._source.volumes.items():
            used = by_channel.get(key.channel) or by_channel.get(OTHERS)
            reason = _left(volume, used)
            if reason or used is None:
                self._outcome.left[reason or "without_model"].append(key)
            else:
                groups.setdefault(used.channel, []).append(volume)
        ordered = {channel: sorted(volumes, key=_movie_order) for channel, volumes in groups.items()}
        return [(by_channel[channel], volumes) for channel, volumes in ordered.items()]

    def _sidecar_options(self) -> dict[str, Any]:
        """Say how a group is begun, if live began none."""
        wanted = [volume.key for _, volumes in self._groups for volume in volumes]
        return {
            "pixel_size_um": self._pixel_size_um(),
            "frame_interval_s": self._source.frame_interval_s or _size(_plan(self._run).get("interval_s")),
            "positions": tuple(dict.fromkeys(key.position for key in self._source.volumes)),
            "channels": tuple(dict.fromkeys(key.channel for key in wanted)),
            "provenance": {
                "run": self._run.run,
                "note": "restored pixels are a prediction; the raw images are the record",
                "raw": self._outcome.raw.name,
            },
        }

    def _pixel_size_um(self) -> Spacing:
        """Size of the raw pixels (z, y, x): as the dataset says, or else the plan."""
        z, y, x = self._source.pixel_size_um
        planned, step = (_size(_plan(self._run).get(name)) for name in ("pixel_size_um", "z_step_um"))
        return z or step, y or planned, x or planned

    def _restore_group(self, used: ModelUsed, volumes: Sequence[RawVolume], sidecar: Sidecar, memory_bytes: int | None) -> None:
        """Restore what is missing of the channels that one model takes."""
        package, check = open_used(used), TrustCheck(self._noise)
        with Restorer(
            package,
            engine=used.engine,
            precision=used.precision,
            mode=used.mode,
            memory_bytes=memory_bytes,
            tolerance=used.tolerance,
        ) as restorer:
            for volume in volumes:
                if volume.key not in sidecar.written:
                    self._restore(volume, restorer, check, sidecar)
                elif restorer.normalisation.mode == "rolling":
                    self._observe(volume, restorer)

    def _observe(self, volume: RawVolume, restorer: Restorer) -> None:
        """Let a volume that is restored already move the rolling range, as it did live."""
        try:
            restorer.observe(volume.read()[None], _movie(volume.key))
        except ImageError as failure:
            self._outcome.warn(f"{volume.key} moves no rolling range: {failure}")

    def _restore(self, volume: RawVolume, restorer: Restorer, check: TrustCheck, sidecar: Sidecar) -> None:
        try:
            pixels = volume.read()  # (Z, Y, X)
            if not pixels.any():
                self._outcome.left["empty"].append(volume.key)
                return
            restored = restorer.restore(pixels[None], self._told.tile, _movie(volume.key))
            said = _said(restored, restorer, volume.planes, _trust(check, pixels, restored, restorer))
            sidecar.pixel_size_um = finer_spacing(
                self._pixel_size_um(),
                pixels.shape,
                restored.pixels.shape[1:],
                interpolated=restorer.facts.procedure != "direct",
            )
            sidecar.write(volume.key, restored.pixels[0], said)
        except (ImageError, EngineError) as failure:
            self._outcome.left["failed"].append(volume.key)
            self._outcome.warn(f"{volume.key}: {failure}")
        except OSError as error:
            raise ImageError(
                f"cannot write into {self._run.path}: {error.strerror or error}; make room, then run the same command again: "
                "restored volumes are kept"
            ) from error
        else:
            self._outcome.restored += 1
            self._told.volume()

    def _note(self, sidecar: Sidecar) -> None:
        """Leave word in the run folder: what is restored now, and what is not, to the frame of the raw dataset."""
        planes = {key: volume.planes for key, volume in self._source.volumes.items()}
        frames = {"raw": sum(planes.values()), "restored": sum(planes[key] for key in planes if key in sidecar.written)}
        frames |= {reason: sum(planes[key] for key in keys) for reason, keys in self._outcome.left.items()}
        pending = frames["raw"] - sum(count for name, count in frames.items() if name != "raw")
        self._outcome.frames = {**frames, "pending": pending}
        done = {"restored": self._outcome.restored, "frames": self._outcome.frames, "warnings": self._outcome.warnings}
        before = {k: v for k, v in self._run.described(RESTORE).items() if k not in {"ledger", "process", "earlier"}}
        self._run.describe(RESTORE, {**before, "backfill": done})
        self._run.note("backfill", **done)


def _open_run(path: Path) -> RunFolder:
    """Take up a run folder, also where its raw dataset was named."""
    beside = run_folder(path)
    if not (path / RUN).is_file() and (beside / RUN).is_file():
        return RunFolder.open(beside)
    return RunFolder.open(path)


def _plan(run: RunFolder) -> dict[str, Any]:
    """Gather what was planned, as hook and restore process noted it."""
    plans = [run.described(name).get("plan") for name in (HOOK, RUN)]
    return {name: value for plan in plans if isinstance(plan, dict) for name, value in plan.items() if value is not None}


def _on(model: ModelUsed, engine: str | None, precision: str | None) -> ModelUsed:
    tolerance = None if engine or precision else model.tolerance
    return replace(model, engine=engine or model.engine, precision=precision or model.precision, tolerance=tolerance)


def _left(volume: RawVolume, used: ModelUsed | None) -> str:
    """Why a volume is not to be restored; empty if it is."""
    if volume.key.light == "high":
        return "reference"
    if used is None:
        return "without_model"
    return "" if volume.whole else "incomplete"


def _movie_order(volume: RawVolume) -> tuple[str, str, int]:
    return volume.key.position, volume.key.channel, volume.key.time


def _said(restored: Restored, restorer: Restorer, frames: int, trust: Mapping[str, Any]) -> dict[str, Any]:
    """Say of a volume what restored it and how, in the words of the restore process."""
    provenance = {
        "model": restorer.package.name,
        "sha256": restorer.package.onnx_sha256,
        "engine": str(restorer.engine),
        "precision": restorer.engine.precision,
        **restorer.choice.figures,
        "normalisation": restorer.normalisation.mode,
        "low": float(restored.intensity.low[0]),
        "high": float(restored.intensity.high[0]),
        "guarded": bool(restored.intensity.guarded),
        "tiles": restored.tiles,
    }
    return {"live": False, "frames": frames, "trust": dict(trust), "provenance": provenance}


def _trust(check: TrustCheck, raw: NDArray[Any], restored: Restored, restorer: Restorer) -> dict[str, Any]:
    """Compare with the photons, where the restored pixels are counts in the places of the raw ones."""
    comparable = restored.pixels[0].shape == raw.shape and restorer.normalisation.output != "none"
    if not comparable or raw.dtype not in (np.uint8, np.uint16):
        return {}
    return check.check(raw, restored.pixels[0]).figures


def _movie(key: VolumeKey) -> tuple[str, str]:
    return key.position, key.channel


def _size(value: object) -> float | None:
    return float(value) if isinstance(value, (int, float)) and value > 0 else None
