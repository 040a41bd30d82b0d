"""Distilling on real pairs: a teacher, two students of it, and the same small networks trained plainly in the same time.

    python scripts/bench_distill.py PAIRS --train 001-061 --held-out 067-079 [--json FILE]

PAIRS holds `low` and `high` with the same file names; fields are named as for `bench_training.py`. One student has at most a
twentieth of the operations of CSBDeep's default network (462.5 kFLOP per pixel), one at most a fortieth. All are trained by the
command line, with as many threads, and students with as many minutes of wall time each; what the timing of the family and the
teacher's work take on top is printed. All restore the held-out images through `Restorer`; PSNR is that of `live_restore.score`.
In the end all are timed in turns on 512 x 512 pixels, counts in and counts out.

Run it on a machine that does nothing else: the minutes are wall time. With the defaults it takes about 18 minutes.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import tifffile
from bench_training import environment, psnrs, split

from live_restore.evaluation.distilled import DISTILLATION
from live_restore.models.package import ModelPackage, open_package
from live_restore.restorer import Restorer
from live_restore.training.family import CARE_DEFAULT_FLOP
from live_restore.training.student_timing import Served, time_packages

SHARES = (20, 40)
LIMITS_DB = {20: 0.2, 40: 0.5}
SHAPE = (1, 512, 512)


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pairs", type=Path, help="a folder with sub-folders low and high")
    parser.add_argument("--train", default="001-061", help="fields to learn from")
    parser.add_argument("--held-out", default="067-079", help="fields to judge by")
    parser.add_argument("--field", default=r"^(.+)_([^_]+)$", help="groups for field and channel in a file's stem")
    parser.add_argument("--teachers", type=int, default=1, help="so many are trained, with other seeds; their mean teaches")
    parser.add_argument("--teacher-minutes", type=float, default=4.5)
    parser.add_argument("--student-minutes", type=float, default=3.0)
    parser.add_argument("--teacher-weight", type=float, help="default: measured")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--distilled-only", action="store_true", help="leave the same networks without a teacher out")
    parser.add_argument("--keep", type=Path, help="leave the packages in this folder, which must not exist")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        channels = split(chosen, folder)
        packages = folder / "packages"
        packages.mkdir()
        train_all(chosen, folder, packages)
        rows = score_all(chosen, folder, packages, channels)
        if chosen.keep:
            shutil.copytree(packages, chosen.keep)
    print_table(rows)
    if chosen.json:
        chosen.json.write_text(json.dumps({"options": {**vars(chosen), "pairs": ""}, "rows": rows}, indent=1, default=str))


def train_all(chosen: argparse.Namespace, folder: Path, packages: Path) -> None:
    """Train teachers, students, and the same networks without a teacher."""
    teachers = [
        packages / f"teacher {number}" if chosen.teachers > 1 else packages / "teacher" for number in range(chosen.teachers)
    ]
    for number, teacher in enumerate(teachers):
        live_restore(chosen, folder, "train", folder / "train", "-o", teacher, chosen.teacher_minutes, "--seed", number)
    for share in SHARES:
        most = CARE_DEFAULT_FLOP[2] / 1000 / share
        student = packages / f"distilled, 1:{share}"
        words = ["--pairs", folder / "train", "--most-kflop", most, "--target-ms", 1e6, "--size", "512x512"]
        if chosen.teacher_weight is not None:
            words += ["--teacher-weight", chosen.teacher_weight]
        live_restore(chosen, folder, "distill", *teachers, *words, "-o", student, chosen.student_minutes)
        if chosen.distilled_only:
            continue
        plain = packages / f"plain, 1:{share}"
        options = student / "training.toml"
        live_restore(chosen, folder, "train", folder / "train", "--options", options, "-o", plain, chosen.student_minutes)


def live_restore(chosen: argparse.Namespace, folder: Path, *words: object) -> None:
    """Call the command line; the word behind ``-o PACKAGE`` is the minutes."""
    at = words.index("-o")
    package, minutes, rest = words[at + 1], words[at + 2], words[at + 3 :]
    print(f"\n{words[0]} {Path(str(package)).name}: {minutes} minutes ...", flush=True)
    command = [sys.executable, "-m", "live_restore.cli", *map(str, words[:at]), "-o", str(package), "--minutes", str(minutes)]
    command += ["--held-out-from", str(folder / "held_out"), "--threads", str(chosen.threads), *map(str, rest)]
    began = time.monotonic()
    subprocess.run(command, check=True, env=environment(chosen.threads))
    print(f"took {(time.monotonic() - began) / 60:.1f} minutes in all", flush=True)


def score_all(chosen: argparse.Namespace, folder: Path, packages: Path, channels: dict[str, str]) -> list[dict[str, object]]:
    """Restore the held-out images with every package, and time all of them in turns."""
    opened = {path.name: open_package(path) for path in sorted(packages.iterdir()) if path.is_dir()}
    timings = time_packages(opened, SHAPE, Served())
    lows = {path.stem: tifffile.imread(path) for path in sorted((folder / "held_out" / "low").iterdir())}
    restored = {name: restore(package, lows) for name, package in opened.items()}
    teachers = [images for name, images in restored.items() if name.startswith("teacher")]
    rows = [{"name": "raw", **decibels(folder, lows, channels)}]
    if len(teachers) > 1:
        mean = {stem: np.mean([images[stem] for images in teachers], 0) for stem in lows}
        rows.append({"name": "mean of the teachers", **decibels(folder, mean, channels)})
    for name, package in opened.items():
        facts = package.facts
        rows.append(
            {
                "name": name,
                "kflop_per_pixel": facts.geometry.flop_per_pixel / 1000,
                "parameters": facts.architecture.parameters,
                "minutes": chosen.teacher_minutes if name.startswith("teacher") else chosen.student_minutes,
                **decibels(folder, restored[name], channels),
                "median_ms": timings[name].median_ms,
                "p95_ms": timings[name].p95_ms,
                "engine": timings[name].engine,
                "teachers_weight": weight(package),
            }
        )
    best = max(float(row["mean_db"]) for row in rows)
    return [{**row, "below_best_db": round(best - float(row["mean_db"]), 3)} for row in rows]


def restore(package: ModelPackage, lows: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Restore all images as users do."""
    with Restorer(package) as restorer:
        return {name: restorer.restore(low[None, None]).pixels[0, 0] for name, low in lows.items()}


def decibels(folder: Path, images: dict[str, np.ndarray], channels: dict[str, str]) -> dict[str, object]:
    """Score images; PSNR in dB, mean and by channel."""
    scores = psnrs(folder, images)
    by_channel = {
        channel: round(float(np.mean([scores[name] for name in scores if channels[name] == channel])), 3)
        for channel in sorted(set(channels.values()))
    }
    return {"mean_db": round(float(np.mean(list(scores.values()))), 3), "channel_db": by_channel}


def weight(package: ModelPackage) -> float | None:
    """Say what the weight of the teacher was; None where nobody taught."""
    if DISTILLATION not in package.files.names():
        return None
    return float(json.loads(package.files.read(DISTILLATION))["weight"])


def print_table(rows: list[dict[str, object]]) -> None:
    """Print a row per network, and whether the students keep to what is asked of them."""
    names = list(rows[0]["channel_db"])
    heads = [
        "".ljust(22),
        "kFLOP/px",
        " weights",
        "   min",
        "  mean",
        *(f" ch {name:>3}" for name in names),
        " below best",
        "      ms",
        "  p95 ms",
    ]
    print("\nPSNR in dB on held-out images, mean and by channel; time of 512 x 512 through Restorer, median and 95 %")
    print("  ".join(heads))
    for row in rows:
        cells = [str(row["name"]).ljust(22), number(row, "kflop_per_pixel", 8, 2), number(row, "parameters", 8, 0)]
        cells += [
            number(row, "minutes", 6, 1),
            f"{row['mean_db']:6.2f}",
            *(f"{value:7.2f}" for value in row["channel_db"].values()),
        ]
        cells += [f"{row['below_best_db']:11.2f}", number(row, "median_ms", 8, 2), number(row, "p95_ms", 8, 2)]
        print("  ".join(cells))
    for share in SHARES:
        row = next(row for row in rows if row["name"] == f"distilled, 1:{share}")
        kept = "within" if row["below_best_db"] <= LIMITS_DB[share] else "NOT within"
        fewer = CARE_DEFAULT_FLOP[2] / 1000 / row["kflop_per_pixel"]
        lost = f"{row['below_best_db']:.2f} dB below the best, {kept} {LIMITS_DB[share]} dB"
        print(f"1/{fewer:.0f} of the operations of CARE's default: {lost}")
    print(f"{os.cpu_count()} cores")


def number(row: dict[str, object], key: str, width: int, digits: int) -> str:
    """Write a number, or nothing where there is none."""
    return f"{row[key]:{width}.{digits}f}" if key in row else " " * width


if __name__ == "__main__":
    main()
