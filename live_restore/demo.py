"""The demo: a rendered low-light example, restored with the bundled network and drawn.

Receives a seed and a folder; hands on the raw, restored and true images and a before/after figure in that folder. It
does exactly what a user would do by hand with `live-restore restore`, on an image that anybody can make again.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tifffile

from live_restore.acquire.simulate.camera import Camera
from live_restore.acquire.simulate.specimen import example_field
from live_restore.channels import Assignment
from live_restore.figures import GalleryRow, gallery
from live_restore.models.package import open_package
from live_restore.models.registry import bundled_folder
from live_restore.offline import Listener, Options, restore_files
from live_restore.restorer import Restorer
from live_restore.score import Score, score_pair

MODEL = "care2d_demo"
KINDS = ("nuclei", "mitochondria", "filaments")
PIXEL_SIZE_UM = 0.108
SHAPE = (512, 512)
# Expected photons per pixel at the brightest structures; a comfortable exposure has a thousand.
PEAK_PHOTONS = 12.0


@dataclass(frozen=True, slots=True, eq=False)
class Shown:
    """What the demo made.

    Attributes
    ----------
    figure : Path
    raw, restored : list of Score
        Against the noise-free truth, one per kind of structure.
    engine : str
        What ran, by name.
    """

    figure: Path
    raw: list[Score]
    restored: list[Score]
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
    folder.mkdir(parents=True, exist_ok=True)
    truths = [_expose(folder, kind, seed) for kind in KINDS]
    lows = [folder / f"{kind}_low.ome.tif" for kind in KINDS]
    with Restorer(open_package(bundled_folder() / MODEL)) as restorer:
        restore_files(lows, folder / "restored", [Assignment(None, restorer)], Options(overwrite=True), listener)
        engine = str(restorer.engine)
    rows, raw_scores, scores = [], [], []
    for kind, low, truth in zip(KINDS, lows, truths, strict=True):
        raw, restored = tifffile.imread(low), tifffile.imread(folder / "restored" / low.name)
        raw_scores.append(score_pair(raw, truth))
        scores.append(score_pair(restored, truth))
        caption = f"{raw_scores[-1].psnr_db:.1f} → {scores[-1].psnr_db:.1f} dB"
        rows.append(GalleryRow(f"{kind}, {PEAK_PHOTONS:.0f} photons at the brightest", raw, restored, truth, caption, PIXEL_SIZE_UM))
    figure = folder / "before_after.png"
    gallery(rows, figure)
    return Shown(figure, raw_scores, scores, engine)
