"""A folder of pairs, trained in CSBDeep as it is: no conversion, no list of files, only the folder.

    python scripts/pairs_to_csbdeep.py [--pairs FOLDER] [--seconds 60] [--csbdeep-python PYTHON]

Without --pairs, cells are rendered and written by the pair log, at low and at 30 times the light, one pair of them rejected.
CSBDeep and TensorFlow are installed into a throw-away environment (or taken from --csbdeep-python), which knows nothing of
live_restore. It reads the folder with `RawData.from_folder`, trains a small CARE network for a minute, and restores some of
the pairs; the rejected one is not seen. CSBDeep knows no split and has learned from all it read, so the figures say that it
trains, not how well.
"""

import argparse
import json
import os
import subprocess
import tempfile
import venv
from pathlib import Path

import numpy as np

CSBDEEP = ("csbdeep==0.8.2", "tensorflow==2.21.0")
RATIO = 30.0

PEER = """
import json, os, sys, time
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
from pathlib import Path
import numpy as np
from tifffile import imread
from csbdeep.data import RawData, create_patches
from csbdeep.models import CARE, Config
folder, scratch, seconds, names = Path(sys.argv[1]), sys.argv[2], float(sys.argv[3]), json.loads(sys.argv[4])
axes = "ZYX"[-imread(next((folder / "low").glob("*.tif"))).ndim:]
raw = RawData.from_folder(str(folder), source_dirs=["low"], target_dir="high", axes=axes)
sys.stdout.write("RawData.from_folder: %d pairs, axes %s\\n" % (raw.size, axes))
size = (64, 64) if axes == "YX" else (4, 64, 64)
X, Y, patch_axes = create_patches(raw, patch_size=size, n_patches_per_image=24, verbose=False)
X, Y = (np.moveaxis(each, 1, -1) for each in (X, Y))
config = Config(axes, unet_kern_size=3, unet_n_depth=2, unet_n_first=16, train_batch_size=8, train_epochs=1,
                train_steps_per_epoch=20, train_tensorboard=False, train_learning_rate=1e-3, train_reduce_lr=None)
model = CARE(config, "peer", scratch)
began, epochs = time.monotonic(), 0
while time.monotonic() - began < seconds:
    losses = model.train(X, Y, validation_data=(X[:16], Y[:16])).history["loss"]
    epochs += 1
trained = time.monotonic() - began

def psnr(image, target):
    slope, offset = np.polyfit(image.ravel(), target.ravel(), 1)
    low, high = np.percentile(target, (0.1, 99.9))
    return 10 * np.log10((high - low) ** 2 / np.mean((slope * image + offset - target) ** 2))

gains = []
for name in names:
    low, high = (imread(folder / side / (name + ".tif")).astype(np.float64) for side in ("low", "high"))
    gains.append((psnr(low, high), psnr(model.predict(low, axes), high)))
raw_db, restored_db = np.mean(gains, axis=0)
figures = {"pairs_read": raw.size, "seconds": round(trained, 1), "steps": 20 * epochs, "last_loss": round(float(losses[-1]), 4),
           "raw_db": round(float(raw_db), 2), "restored_db": round(float(restored_db), 2), "pairs_restored": len(gains)}
sys.stdout.write("FIGURES " + json.dumps(figures) + "\\n")
"""


def rendered_pairs(folder: Path) -> Path:
    """Write ten positions of rendered cells as pairs, one of them swapped, so that it is rejected."""
    from live_restore.acquire.simulate.specimen import example_field
    from live_restore.pairs.quality import measure_pair
    from live_restore.records.pair_log import PairLog, TakenPair, pair_name

    rng = np.random.default_rng(0)
    with PairLog(folder, "rendered", {"instrument": "rendered cells"}) as log:
        for place in range(10):
            photons = example_field(place, (256, 256), "mitochondria", peak_photons=8.0)
            low, high = (np.rint(2.2 * rng.poisson(light * photons) + 100).astype(np.uint16) for light in (1, RATIO))
            low, high = (high, low) if place == 4 else (low, high)
            position = f"P{place:02}"
            taken = TakenPair(pair_name(position, "Rhodamine"), "Rhodamine", position, 0, low, high, dose_ratio=RATIO)
            log.write(taken, measure_pair(low, high, dose_ratio=RATIO))
        card = log.finish()
    print(f"written: {card['accepted']} pairs accepted, {card['rejected']} rejected, in {log.folder}")
    return log.folder


def peer_python(folder: Path) -> str:
    """Make a throw-away environment with CSBDeep."""
    print(f"installing {' '.join(CSBDEEP)} into a throw-away environment ...", flush=True)
    venv.create(folder, with_pip=True)
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    subprocess.run([str(python), "-m", "pip", "install", "--quiet", *CSBDEEP], check=True)
    return str(python)


def names_to_restore(folder: Path) -> list[str]:
    """Name some pairs: those that the log holds out, or a fifth of a folder of other origin."""
    from live_restore.records.pair_positions import split_positions
    from live_restore.records.pairs import read_pairs

    return [pair.name for pair in split_positions(read_pairs(folder).accepted) if pair.split == "held-out"]


def main() -> None:
    """Write pairs, train CSBDeep on them, and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=Path, help="a folder that live-restore calibrate wrote, instead of rendered cells")
    parser.add_argument("--seconds", type=float, default=60.0, help="how long to train")
    parser.add_argument("--csbdeep-python", help="a Python that has csbdeep and tensorflow")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        folder = (chosen.pairs or rendered_pairs(scratch / "pairs")).resolve()
        python = chosen.csbdeep_python or peer_python(scratch / "environment")
        words = [python, "-c", PEER, str(folder), str(scratch), str(chosen.seconds), json.dumps(names_to_restore(folder))]
        done = subprocess.run(words, stdout=subprocess.PIPE, text=True, encoding="utf-8", check=False)
    told = [line for line in done.stdout.splitlines() if line.startswith(("RawData", "FIGURES"))]
    if done.returncode or len(told) != 2:
        raise SystemExit(f"CSBDeep ended with {done.returncode}; see its message above")
    figures = json.loads(told[1].removeprefix("FIGURES "))
    print(told[0])
    print(json.dumps(figures, indent=2))
    if chosen.json:
        chosen.json.write_text(json.dumps(figures, indent=2), encoding="utf-8")


if __name__ == "__main__":
    main()
