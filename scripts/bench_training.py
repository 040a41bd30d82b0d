"""Training side by side with CSBDeep: the same pairs, the same split by field, the same threads, the same minutes, in one run.

    python scripts/bench_training.py PAIRS --train 001-061 --held-out 067-079 [--minutes 4] [--json FILE]

PAIRS holds `low` and `high` with the same file names. A split is a range of fields (numbers), or a regular expression that fits
the whole field; `--field` says where the field stands in a file's name. CSBDeep and TensorFlow are installed into a throw-away
environment (or taken from --csbdeep-python).

CSBDeep is trained as its own examples have it: patches cut beforehand with percentile normalisation and its threshold on
signal, its U-Net and learning rate, its reduction on a plateau, the weights with the lowest validation loss; with 3x3 kernels,
batches of 8 and patches of 96 x 96, with which it learns most in minutes. Its minutes count from the first training step:
reading, cutting and importing are free for it. Those of live_restore are the whole command, from Python's start to the package
on the disk. Both validate on the held-out fields, and both restore the held-out images as users would: `CARE.predict`,
`Restorer`.

Run it on a machine that does nothing else: the minutes are wall time. Prints PSNR after the affine fit of `live_restore.score`.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import tifffile

from live_restore.models.package import open_package
from live_restore.restorer import Restorer
from live_restore.score import score_pair

CSBDEEP = ("csbdeep==0.8.2", "tensorflow==2.21.0")
THREAD_VARIABLES = ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS")

PEER = """
import json, os, sys, time
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
import numpy as np, tensorflow as tf, tifffile
from pathlib import Path
from csbdeep.data import RawData, create_patches
from csbdeep.models import CARE, Config
folder, seconds, threads, seed = Path(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
tf.config.threading.set_intra_op_parallelism_threads(threads)
tf.keras.utils.set_random_seed(seed)

def patches(side, number):
    raw = RawData.from_folder(str(folder / side), ["low"], "high", axes="YX")
    x, y, _ = create_patches(raw, (96, 96), number, verbose=False)
    return np.moveaxis(x, 1, -1), np.moveaxis(y, 1, -1)

x, y = patches("train", 64)
validation = patches("held_out", 16)
config = Config("YX", unet_kern_size=3, train_batch_size=8, train_steps_per_epoch=100, train_epochs=100000,
                train_tensorboard=False)
model = CARE(config, "peer", str(folder))
model.prepare_for_training()

class Clock(tf.keras.callbacks.Callback):
    def on_train_begin(self, logs=None):
        self.began, self.steps = time.monotonic(), 0
    def on_train_batch_end(self, batch, logs=None):
        self.steps += 1
        if time.monotonic() - self.began >= seconds:
            self.model.stop_training = True

clock = Clock()
model.callbacks.append(clock)
model.train(x, y, validation_data=validation)
took = time.monotonic() - clock.began
for path in sorted((folder / "held_out" / "low").iterdir()):
    np.save(folder / "peer_restored" / (path.stem + ".npy"), model.predict(tifffile.imread(path), "YX"))
summary = {"steps": clock.steps, "training_s": round(took, 1), "parameters": model.keras_model.count_params()}
(folder / "peer.json").write_text(json.dumps(summary))
"""


def main() -> None:
    """Run the comparison."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pairs", type=Path, help="a folder with sub-folders low and high")
    parser.add_argument("--train", required=True, help="fields to learn from: 001-061, or a regular expression")
    parser.add_argument("--held-out", required=True, help="fields to judge by: 067-079, or a regular expression")
    parser.add_argument("--field", default=r"^(.+)_([^_]+)$", help="groups for field and channel in a file's stem")
    parser.add_argument("--minutes", type=float, default=4.0, help="of training, for each")
    parser.add_argument("--threads", type=int, default=2, help="of each; no more than there are idle cores")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="every seed is a run of both")
    parser.add_argument("--preset", default="quick", help="of live-restore train")
    parser.add_argument("--csbdeep-python", help="a Python that has csbdeep and tensorflow")
    parser.add_argument("--only", choices=("csbdeep", "live_restore"), help="leave the other one out")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        channels = split(chosen, folder)
        runs = [run for seed in chosen.seeds for run in one_seed(chosen, folder, seed)]
        figures = summary(chosen, folder, runs, channels)
    print_table(figures)
    if chosen.json:
        chosen.json.write_text(json.dumps(figures, indent=1), encoding="utf-8")


def split(chosen: argparse.Namespace, folder: Path) -> dict[str, str]:
    """Copy the pairs into ``train`` and ``held_out``; gives the channel of every held-out name."""
    pattern, channels = re.compile(chosen.field), {}
    counts = {"train": 0, "held_out": 0}
    for low in sorted((chosen.pairs / "low").glob("*.tif*")):
        high, found = chosen.pairs / "high" / low.name, pattern.match(low.stem)
        if not high.is_file() or found is None:
            raise SystemExit(f"{low.name} has no partner in high, or --field {chosen.field} does not fit it")
        sides = [side for side in counts if belongs(found[1], getattr(chosen, side))]
        if len(sides) > 1:
            raise SystemExit(f"field {found[1]} is on both sides of the split")
        for side in sides:
            counts[side] += 1
            for name, path in (("low", low), ("high", high)):
                (folder / side / name).mkdir(parents=True, exist_ok=True)
                shutil.copy(path, folder / side / name / low.name)
            if side == "held_out":
                channels[low.stem] = found[2] if pattern.groups > 1 else ""
    if not all(counts.values()):
        raise SystemExit(f"one side of the split is empty: {counts}")
    return channels


def belongs(field: str, wanted: str) -> bool:
    """Say whether a field is in a range of numbers, or fits a regular expression as a whole.

    >>> belongs("007", "001-061"), belongs("067", "001-061"), belongs("b3", "[ab].*")
    (True, False, True)
    """
    limits = re.fullmatch(r"(\d+)-(\d+)", wanted)
    if limits and field.isdigit():
        return int(limits[1]) <= int(field) <= int(limits[2])
    return re.fullmatch(wanted, field) is not None


def one_seed(chosen: argparse.Namespace, folder: Path, seed: int) -> list[dict[str, object]]:
    """Train both, one after the other, and score what they restore."""
    runs = []
    for name, train in (("csbdeep", train_csbdeep), ("live_restore", train_live_restore)):
        if chosen.only in (None, name):
            print(f"{name}, seed {seed}: training for {chosen.minutes:g} minutes ...", flush=True)
            before = children_cpu_s()
            facts, restored = train(chosen, folder, seed)
            cpu_s = round(children_cpu_s() - before, 1)
            runs.append({"name": name, "seed": seed, **facts, "cpu_s": cpu_s, "psnr_db": psnrs(folder, restored)})
    return runs


def children_cpu_s() -> float:
    """Seconds of processor time of ended child processes; 0 where the system does not say."""
    times = os.times()
    return times.children_user + times.children_system


def train_csbdeep(chosen: argparse.Namespace, folder: Path, seed: int) -> tuple[dict[str, object], dict[str, np.ndarray]]:
    """Train CSBDeep in its own environment; facts and restored images."""
    python = chosen.csbdeep_python or peer_python(folder / "environment")
    shutil.rmtree(folder / "peer", ignore_errors=True)
    (folder / "peer_restored").mkdir(exist_ok=True)
    words = [str(folder), str(60 * chosen.minutes), str(chosen.threads), str(seed)]
    began = time.monotonic()
    subprocess.run([python, "-c", PEER, *words], check=True, env=environment(chosen.threads), stdout=subprocess.DEVNULL)
    facts = json.loads((folder / "peer.json").read_text(encoding="utf-8"))
    facts["whole_s"] = round(time.monotonic() - began, 1)
    return facts, {path.stem: np.load(path) for path in sorted((folder / "peer_restored").iterdir())}


def train_live_restore(chosen: argparse.Namespace, folder: Path, seed: int) -> tuple[dict[str, object], dict[str, np.ndarray]]:
    """Train with the command line, and restore through the package; facts and restored images."""
    package = folder / f"package_{seed}"
    command = [sys.executable, "-m", "live_restore.cli", "train", str(folder / "train"), "-o", str(package)]
    command += ["--held-out-from", str(folder / "held_out"), "--minutes", str(chosen.minutes), "--preset", chosen.preset]
    command += ["--threads", str(chosen.threads), "--seed", str(seed)]
    began = time.monotonic()
    subprocess.run(command, check=True, env=environment(chosen.threads))
    whole_s = round(time.monotonic() - began, 1)
    opened = open_package(package)
    steps = [entry["step"] for entry in json.loads((package / "history.json").read_text(encoding="utf-8"))["entries"]]
    restored = {}
    with Restorer(opened) as restorer:
        for path in sorted((folder / "held_out" / "low").iterdir()):
            restored[path.stem] = restorer.restore(tifffile.imread(path)[None, None]).pixels[0, 0]
    return {"steps": steps[-1], "whole_s": whole_s}, restored


def peer_python(folder: Path) -> str:
    """Make a throw-away environment with CSBDeep."""
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    if not python.is_file():
        print(f"installing {' '.join(CSBDEEP)} into a throw-away environment ...", flush=True)
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", *CSBDEEP], check=True)
    return str(python)


def environment(threads: int) -> dict[str, str]:
    """Give the environment of a process that computes with so many threads."""
    return {**os.environ, **dict.fromkeys(THREAD_VARIABLES, str(threads))}


def psnrs(folder: Path, restored: dict[str, np.ndarray]) -> dict[str, float]:
    """Score every restored image; dB."""
    scores = {}
    for name, image in restored.items():
        reference = tifffile.imread(next((folder / "held_out" / "high").glob(f"{name}.tif*")))
        scores[name] = round(score_pair(image, reference).restored.psnr_db, 3)
    return scores


def summary(
    chosen: argparse.Namespace, folder: Path, runs: list[dict[str, object]], channels: dict[str, str]
) -> dict[str, object]:
    """Put the figures of all runs together: means over all held-out images, and by channel."""
    lows = {path.stem: tifffile.imread(path) for path in sorted((folder / "held_out" / "low").iterdir())}
    raw = {"name": "raw", "psnr_db": psnrs(folder, lows)}
    for run in (raw, *runs):
        scores = run["psnr_db"]
        names = sorted(set(channels.values()))
        run["mean_db"] = round(float(np.mean(list(scores.values()))), 2)
        run["channel_db"] = {
            channel: round(float(np.mean([scores[name] for name in scores if channels[name] == channel])), 2)
            for channel in names
        }
    return {
        "train": chosen.train,
        "held_out": chosen.held_out,
        "images": {side: len(list((folder / side / "low").iterdir())) for side in ("train", "held_out")},
        "minutes": chosen.minutes,
        "threads": chosen.threads,
        "cores": os.cpu_count(),
        "runs": [raw, *runs],
    }


def print_table(figures: dict[str, object]) -> None:
    """Print one row per run: PSNR in dB, mean and by channel."""
    runs = figures["runs"]
    names = list(runs[0]["channel_db"])
    images = figures["images"]
    print(f"\n{images['train']} pairs to learn from, {images['held_out']} held out; PSNR in dB, mean and by channel")
    print("  ".join(["".ljust(22), "mean".rjust(6), *(f"ch {name}".rjust(6) for name in names), " steps", "whole s", "cpu s"]))
    for run in runs:
        label = run["name"] if run["name"] == "raw" else f"{run['name']} (seed {run['seed']})"
        numbers = [run["mean_db"], *run["channel_db"].values()]
        cells = [label.ljust(22), *(f"{number:6.2f}" for number in numbers)]
        facts = [str(run.get(key, "")).rjust(width) for key, width in (("steps", 6), ("whole_s", 7), ("cpu_s", 5))]
        print("  ".join([*cells, *facts]))


if __name__ == "__main__":
    main()
