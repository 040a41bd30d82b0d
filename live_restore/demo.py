"""The demo: rendered low-light fields, restored with the bundled network and drawn.

Receives a seed and a folder; hands on the raw and restored images and a before/after figure in that folder. It does
exactly what a user would do by hand with `live-restore restore`, on images that anybody can make again.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import numpy as np
import tifffile
from numpy.typing import NDArray

from live_restore.acquire.simulate.camera import build_camera
from live_restore.acquire.simulate.specimen import Kind, example_field
from live_restore.channels import Assignment
from live_restore.figures import GalleryRow, gallery
from live_restore.models.package import open_package
from live_restore.models.registry import bundled_folder
from live_restore.offline import Listener, restore_files
from live_restore.outputs import Options
from live_restore.restorer import Restorer
from live_restore.score import Score, score_pair

MODEL = "care2d_demo"
PIXEL_SIZE_UM = 0.1
SHAPE = (512, 512)
# A comfortable exposure has a thousand photons at the brightest structures.
PEAK_PHOTONS = 20.0


@dataclass(frozen=True, slots=True, eq=False)
class Shown:
    """What the demo made.

    Attributes
    ----------
    figure : Path
    scores : list of Score
        Against the noise-free truth, raw beside restored, one per kind of structure.
    engine : str
        What ran, by name.
    """

    figure: Path
    scores: list[Score]
    engine: str


def run_demo(folder: Path, seed: int = 1, listener: Listener | None = None) -> Shown:
    """Render one field per kind of structure at low light, restore it, score it, draw it.

    Parameters
    ----------
    folder : Path
        Made if absent; files of an earlier demo in it are replaced.
    seed : int
        Another seed, other cells and other noise.
    listener : Listener or None
    """
    (folder / "low").mkdir(parents=True, exist_ok=True)
    truths = {kind: _expose(folder / "low" / f"{kind}.ome.tif", kind, seed) for kind in get_args(Kind)}
    with Restorer(open_package(bundled_folder() / MODEL), precision="f32") as restorer:
        restore_files([folder / "low"], folder / "restored", [Assignment(None, restorer)], Options(overwrite=True), listener)
        engine = str(restorer.engine)
    scores, rows = [], []
    for kind, truth in truths.items():
        raw, restored = (tifffile.imread(folder / step / f"{kind}.ome.tif") for step in ("low", "restored"))
        score = score_pair(restored, truth, raw, PIXEL_SIZE_UM, kind)
        title = f"{kind}, {PEAK_PHOTONS:.0f} photons at the brightest"
        gained = f"PSNR {score.raw.psnr_db:.1f} → {score.restored.psnr_db:.1f} dB. " if score.raw else ""
        scores.append(score)
        rows.append(GalleryRow(title, raw, restored, truth, f"{gained}{MODEL}, {engine}", PIXEL_SIZE_UM))
    figure = folder / "before_after.png"
    gallery(rows, figure)
    return Shown(figure, scores, engine)


def _expose(path: Path, kind: Kind, seed: int) -> NDArray[np.float32]:
    """Write one low-light image, OME-TIFF, uint16; the photons it should have had, (Y, X)."""
    photons = example_field(seed, SHAPE, kind, PIXEL_SIZE_UM, PEAK_PHOTONS)
    counts = build_camera(seed, SHAPE).expose(photons, np.random.default_rng(seed))
    physical = {"axes": "YX", "PhysicalSizeX": PIXEL_SIZE_UM, "PhysicalSizeY": PIXEL_SIZE_UM}
    tifffile.imwrite(path, counts, metadata=physical, ome=True)
    return photons
