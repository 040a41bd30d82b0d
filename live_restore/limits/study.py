"""A study of limits, start to end: fields, sweep, break points, report, and the package's own facts.

Receives the path of a package and what the user chose; hands on a `Study`, and a folder with its report. It does not know the
command line.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from live_restore.limits.break_points import Limits, find_limits
from live_restore.limits.fields import (
    USUAL_IMAGES,
    USUAL_SIZE,
    USUAL_SIZE_3D,
    check_measurable,
    demo_fields,
    planes_for,
    read_fields,
)
from live_restore.limits.light import Field, describe_camera, noise_at, own_noise, usual_camera
from live_restore.limits.sweep import Grid, Sweep, Told, sweep
from live_restore.limits.words import facts_of, summary
from live_restore.models.package import ModelPackage, open_package, update_facts
from live_restore.models.registry import bundled_folder
from live_restore.restore.noise import CameraNoise
from live_restore.restorer import Restorer

# A raw image must be so many times noisier than the truth that it is made from.
_NOISIER = 3.0
_LEAST_LEVELS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Choices:
    """What a study is made of.

    Attributes
    ----------
    images : tuple of Path
        High-light images, folders of them, folders of pairs; none: the demo specimen is rendered.
    noise : CameraNoise or None
        None: a simulated scientific CMOS camera.
    photons, blur_px : tuple of float
    most_images : int
    size : int or None
        Side of what is cut out of every image, pixels; None: 256, for 3D networks 160.
    minutes : float
        What it may take.
    axes : str or None
        Meaning of the axes of plain TIFFs.
    pixel_size_um : float or None
        Where the images do not say.
    seed : int
    """

    images: tuple[Path, ...] = ()
    noise: CameraNoise | None = None
    grid: Grid = field(default_factory=Grid)
    most_images: int = USUAL_IMAGES
    size: int | None = None
    minutes: float = 5.0
    axes: str | None = None
    pixel_size_um: float | None = None
    seed: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class Study:
    """What was found.

    Attributes
    ----------
    package : ModelPackage
    measured : Sweep
    limits : Limits
    fields : tuple of Field
        Those that were measured.
    camera : CameraNoise
    engine, specimen, camera_words : str
        Conditions, in words.
    seed : int
    """

    package: ModelPackage
    measured: Sweep
    limits: Limits
    fields: tuple[Field, ...]
    camera: CameraNoise
    engine: str
    specimen: str
    camera_words: str
    seed: int

    @property
    def facts(self) -> dict[str, float]:
        """What the package's facts are to say under ``limits``."""
        return facts_of(self.limits, self.measured.pixel_size_um)

    @property
    def summary(self) -> str:
        """The limits in one line."""
        return summary(self.limits, self.measured.pixel_size_um)


def study_limits(path: Path, choices: Choices | None = None, told: Told = lambda done, total: None) -> Study:
    """Measure the limits of a package; nothing is written.

    Parameters
    ----------
    path : Path
        Of the package.
    choices : Choices or None
    told : callable (done, total)
        Called after every image restored.

    Raises
    ------
    ModelError, ImageError, EngineError
        If the package or the images cannot be used, or the engine fails.
    """
    chosen = choices or Choices()
    package = open_package(path)
    check_measurable(package)
    fields = _fields(package, chosen)
    shape = (fields[0].photons.shape[1], fields[0].photons.shape[2])
    camera = chosen.noise or usual_camera(shape, chosen.seed)
    grid, note = within_the_truth(chosen.grid, fields, camera)
    with Restorer(package, engine="openvino", precision="f32") as restorer:
        engine = str(restorer.engine)
        measured = sweep(restorer, fields, camera, grid, seconds=60 * chosen.minutes, seed=chosen.seed, told=told)
    measured = replace(measured, notes=(*note, *measured.notes))
    stated = "from the hardware configuration" if chosen.noise else "a simulated scientific CMOS camera, as none was named"
    return Study(
        package,
        measured,
        find_limits(measured, chosen.seed),
        tuple(fields[: len(measured.names)]),
        camera,
        engine,
        _specimen(chosen, fields),
        f"{describe_camera(camera)}: {stated}",
        chosen.seed,
    )


def within_the_truth(grid: Grid, fields: Sequence[Field], camera: CameraNoise) -> tuple[Grid, tuple[str, ...]]:
    """Leave out the light at which the noise of the high-light images themselves would be taken for structure.

    Returns
    -------
    grid : Grid
        With three levels at least.
    notes : tuple of str
        What was left out, in words; empty if nothing.
    """
    own = float(np.mean([own_noise(one) for one in fields]))
    kept = [level for level in grid.photons if np.mean([noise_at(one, level, camera) for one in fields]) > _NOISIER * own]
    kept = kept if len(kept) >= _LEAST_LEVELS else list(grid.photons[:_LEAST_LEVELS])
    if len(kept) == len(grid.photons):
        return grid, ()
    said = (
        f"the high-light images have noise of their own, {100 * own:.2g} % of their peak; more than {kept[-1]:g} photons were "
        "left out, as it would be taken for structure: average more high-light frames to test more light"
    )
    return replace(grid, photons=tuple(kept)), (said,)


def _fields(package: ModelPackage, chosen: Choices) -> list[Field]:
    planes = planes_for(package.facts)
    size = chosen.size or (USUAL_SIZE if planes == 1 else USUAL_SIZE_3D)
    if not chosen.images:
        return demo_fields(chosen.most_images, size, planes)
    offset_adu = None if chosen.noise is None else float(np.median(chosen.noise.offset_adu))
    return read_fields(
        chosen.images,
        chosen.most_images,
        size,
        planes,
        axes=chosen.axes,
        offset_adu=offset_adu,
        pixel_size_um=chosen.pixel_size_um,
        channel=package.facts.channel,
    )


def _specimen(chosen: Choices, fields: Sequence[Field]) -> str:
    planes, height, width = fields[0].photons.shape
    shape = f"{height} x {width} pixels" + (f" and {planes} planes" if planes > 1 else "")
    if not chosen.images:
        return f"rendered cells (the demo specimen), {shape}, free of noise"
    dark = "the offset of the configuration" if chosen.noise is not None else "the darkest pixels of each"
    return f"high-light images, {shape} cut out of each where there is most to see; {dark} taken for no light"


def keep(found: Study, *, also_bundled: bool = False) -> bool:
    """Write the limits into the package's facts; whether that was done: bundled packages are left alone unless told."""
    bundled = found.package.path.resolve().parent == bundled_folder().resolve()
    if bundled and not also_bundled:
        return False
    update_facts(found.package.path, limits=found.facts)
    return True
