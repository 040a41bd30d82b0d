"""Draw the figure of the README: two rendered fields of the demo, raw, restored and true.

    python scripts/readme_figure.py

Writes docs/images/before_after.png, from the same images as `live-restore demo`.
"""

import tempfile
from pathlib import Path

import tifffile
from PIL import Image

from live_restore.acquire.simulate.specimen import example_field
from live_restore.demo import MODEL, PEAK_PHOTONS, PIXEL_SIZE_UM, SHAPE, run_demo
from live_restore.figures import GalleryRow, gallery

KINDS = ("mitochondria", "filaments")
FIGURE = Path(__file__).resolve().parents[1] / "docs" / "images" / "before_after.png"
WIDTH = 1200


def main() -> None:
    """Run the demo, draw two of its fields, and keep the file small."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shown = run_demo(folder)
        gained = {score.name: f"PSNR {score.raw.psnr_db:.1f} → {score.restored.psnr_db:.1f} dB. " for score in shown.scores}
        rows = []
        for kind in KINDS:
            raw, restored = (tifffile.imread(folder / step / f"{kind}.ome.tif") for step in ("low", "restored"))
            truth = example_field(1, SHAPE, kind, PIXEL_SIZE_UM, PEAK_PHOTONS)
            title = f"{kind}, {PEAK_PHOTONS:.0f} photons at the brightest"
            rows.append(GalleryRow(title, raw, restored, truth, f"{gained[kind]}{MODEL}, {shown.engine}", PIXEL_SIZE_UM))
        gallery(rows, folder / "figure.png")
        with Image.open(folder / "figure.png") as figure:
            small = figure.convert("RGB").resize((WIDTH, round(figure.height * WIDTH / figure.width)), Image.Resampling.LANCZOS)
        FIGURE.parent.mkdir(parents=True, exist_ok=True)
        small.quantize(128).save(FIGURE, optimize=True)


if __name__ == "__main__":
    main()
