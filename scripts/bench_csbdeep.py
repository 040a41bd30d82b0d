"""Side by side with CSBDeep: one image through `CARE.predict` and through live_restore, alternating, in one run.

    python scripts/bench_csbdeep.py [--size 512] [--repeats 15] [--kernel 5] [--model FOLDER --image TIFF]

CSBDeep and TensorFlow are installed into a throw-away environment (or taken from --csbdeep-python); it makes a
network with random weights in its own format, which live_restore imports. Both then restore the same image from the same counts
(percentiles, padding and scaling back included) in processes of their own, turn by turn, so that whatever else the
machine does hits both. Prints medians, the ratio, the difference of the results, and the time of a cold start.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path

import numpy as np
import tifffile

CSBDEEP = ("csbdeep==0.8.2", "tensorflow==2.21.0")

PEER = """
import json, os, sys, time
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
import numpy as np
from csbdeep.models import CARE, Config
folder, image, kernel = sys.argv[1], np.load(sys.argv[2]), int(sys.argv[3])
if not os.path.exists(folder + "/peer/config.json"):
    model = CARE(Config("YX", unet_kern_size=kernel, train_tensorboard=False), "peer", folder)
    model.keras_model.save_weights(folder + "/peer/weights_best.h5")
else:
    model = CARE(None, "peer", folder)
sys.stdout.write("ready\\n"); sys.stdout.flush()
for line in sys.stdin:
    began = time.perf_counter()
    restored = model.predict(image, "YX")
    seconds = time.perf_counter() - began
    np.save(folder + "/peer.npy", restored)
    sys.stdout.write("took %.6f\\n" % seconds); sys.stdout.flush()
"""

OURS = """
import sys, time
import numpy as np
from pathlib import Path
from live_restore.models.package import open_package
from live_restore.restorer import Restorer
folder, image, precision = sys.argv[1], np.load(sys.argv[2]), sys.argv[3]
restorer = Restorer(open_package(Path(folder) / "package"), precision=precision)
sys.stderr.write(f"{restorer.engine} ({restorer.choice.why})\\n")
sys.stdout.write("ready\\n"); sys.stdout.flush()
for line in sys.stdin:
    began = time.perf_counter()
    restored = restorer.restore(image[None, None]).pixels[0, 0]
    seconds = time.perf_counter() - began
    np.save(folder + "/ours_" + precision + ".npy", restored)
    sys.stdout.write("took %.6f\\n" % seconds); sys.stdout.flush()
"""


class Worker:
    """A process that restores the image once for every line it is sent."""

    def __init__(self, python: str, source: str, *words: str) -> None:
        self.process = subprocess.Popen(
            [python, "-c", source, *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8"
        )
        self.seconds: list[float] = []
        self.wait_for("ready")

    def wait_for(self, word: str) -> str:
        """Read until a line begins with `word` (TensorFlow and CSBDeep print, too)."""
        for line in self.process.stdout:
            if line.startswith(word):
                return line
        raise SystemExit("a worker ended early; see its message above")

    def turn(self) -> float:
        """Restore once; seconds."""
        self.process.stdin.write("go\n")
        self.process.stdin.flush()
        return float(self.wait_for("took").split()[1])

    def close(self) -> None:
        """End the process."""
        self.process.stdin.close()
        self.process.wait(timeout=30)


def peer_python(folder: Path) -> str:
    """Make a throw-away environment with CSBDeep."""
    print(f"installing {' '.join(CSBDEEP)} into a throw-away environment ...", flush=True)
    venv.create(folder, with_pip=True)
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    subprocess.run([str(python), "-m", "pip", "install", "--quiet", *CSBDEEP], check=True)
    return str(python)


def cold_start(command: list[str]) -> float:
    """Seconds of one whole command, Python's start included; the median of three."""
    seconds = []
    for _ in range(3):
        began = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        seconds.append(time.perf_counter() - began)
    return round(statistics.median(seconds), 2)


def cold_commands(folder: Path, python: str) -> dict[str, list[str]]:
    """One image from file to file: the command lines of both."""
    ours = ["-m", "live_restore.cli", "restore", str(folder / "image.tif"), "-o", str(folder / "cold.ome.tif"), "--overwrite"]
    tool = str(Path(python).with_name("care_predict"))
    peer = [tool, "--input-dir", str(folder), "--input-pattern", "image.tif", "--input-axes", "YX", "--model-basedir"]
    peer += [str(folder), "--model-name", "peer", "--output-dir", str(folder / "predicted")]
    return {"care_predict": peer, "live-restore restore": [sys.executable, *ours, "--model", str(folder / "package")]}


def main() -> None:
    """Run the comparison."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=512, help="height and width of the image")
    parser.add_argument("--repeats", type=int, default=15, help="turns of each")
    parser.add_argument("--kernel", type=int, default=5, help="kernel of the network; CSBDeep's default in 2D is 5")
    parser.add_argument("--model", type=Path, help="a CSBDeep model folder, instead of random weights")
    parser.add_argument("--image", type=Path, help="a TIFF, instead of noise; overrides --size")
    parser.add_argument("--csbdeep-python", help="a Python that has csbdeep and tensorflow")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        image = np.random.default_rng(0).poisson(30, (chosen.size, chosen.size)).astype(np.uint16) + 100
        image = tifffile.imread(chosen.image) if chosen.image else image
        if chosen.model:
            shutil.copytree(chosen.model, folder / "peer")
        np.save(folder / "image.npy", image)
        tifffile.imwrite(folder / "image.tif", image)
        python = chosen.csbdeep_python or peer_python(folder / "environment")
        figures = compare(folder, python, chosen)
        print(json.dumps(figures, indent=2))
        if chosen.json:
            chosen.json.write_text(json.dumps(figures, indent=2), encoding="utf-8")


def compare(folder: Path, python: str, chosen: argparse.Namespace) -> dict[str, object]:
    """Alternate the workers; medians and ratios."""
    from live_restore.models.foreign.importing import import_model

    where = (str(folder), str(folder / "image.npy"))
    workers = {"csbdeep predict": Worker(python, PEER, *where, str(chosen.kernel))}
    import_model(folder / "peer", folder / "package")
    for precision in ("f32", "bf16", "auto"):
        workers[f"live_restore {precision}"] = Worker(sys.executable, OURS, *where, precision)
    for turn in range(chosen.repeats + 2):
        for worker in workers.values():
            seconds = worker.turn()
            if turn >= 2:  # the first turns warm up
                worker.seconds.append(seconds)
    for worker in workers.values():
        worker.close()
    medians = {name: statistics.median(worker.seconds) for name, worker in workers.items()}
    peer = medians["csbdeep predict"]
    reference = np.load(folder / "peer.npy")
    span = np.percentile(reference, 99.9) - np.percentile(reference, 0.1)
    return {
        "image": "x".join(map(str, reference.shape)),
        "model": chosen.model.name if chosen.model else f"random weights, kernel {chosen.kernel}",
        "cores": os.cpu_count(),
        "median_ms": {name: round(1000 * seconds, 1) for name, seconds in medians.items()},
        "times_faster": {name: round(peer / seconds, 2) for name, seconds in medians.items()},
        "largest_difference_of_range": {
            precision: float(f"{np.abs(np.load(folder / f'ours_{precision}.npy') - reference).max() / span:.2g}")
            for precision in ("f32", "bf16", "auto")
        },
        "cold_start_s": {name: cold_start(command) for name, command in cold_commands(folder, python).items()},
    }


if __name__ == "__main__":
    main()
