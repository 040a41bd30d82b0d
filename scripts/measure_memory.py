"""Restore a large stack within a byte budget, and measure what it really took.

    python scripts/measure_memory.py [--shape 40x2048x2048] [--memory 1GB] [--filters 32]

Writes a stack of noise, restores it with a CARE 3D of CSBDeep's default structure (random weights; speed and memory do
not depend on them) through `live-restore restore` in a process of its own, and prints the largest resident memory of
that process, the tiles, and the time.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import psutil
import tifffile

from live_restore.models.facts import Architecture, Normalisation
from live_restore.models.foreign.imported import Imported
from live_restore.models.foreign.importing import write_imported
from live_restore.models.nets import build_net
from live_restore.records.restored import read_provenance


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", default="40x2048x2048", help="Z x Y x X")
    parser.add_argument("--memory", default="1GB", help="budget for the network")
    parser.add_argument("--filters", type=int, default=32, help="first filters of the network; CSBDeep's default is 32")
    parser.add_argument("--precision", default="bf16", choices=("f32", "bf16"))
    chosen = parser.parse_args()
    shape = tuple(int(size) for size in chosen.shape.split("x"))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_stack(folder / "stack.tif", shape)
        write_package(folder / "package", chosen.filters)
        command = ["restore", "stack.tif", "-o", "out.ome.tif", "--model", "package", "--dtype", "uint16"]
        options = ["--memory", chosen.memory, "--precision", chosen.precision]
        print(json.dumps(watch(folder, [*command, *options]), indent=2))


def write_stack(path: Path, shape: tuple[int, ...]) -> None:
    """Write planes of noise, one at a time."""
    rng = np.random.default_rng(0)
    with tifffile.TiffWriter(path) as tif:
        planes = (rng.integers(90, 1000, shape[1:], np.uint16) for _ in range(shape[0]))
        tif.write(planes, shape=shape, dtype=np.uint16, photometric="minisblack", metadata={"axes": "ZYX"})


def write_package(path: Path, filters: int) -> None:
    """Write a package of a CARE 3D with random weights."""
    net = build_net("care", {"n_dim": 3, "first_filters": filters}, seed=0)
    parameters = sum(p.numel() for p in net.parameters())
    architecture = Architecture(kind="care", options=net.options, parameters=parameters)
    imported = Imported(
        net=net,
        architecture=architecture,
        normalisation=Normalisation(),
        source_format="random",
        source_name="measure_memory.py",
        source_sha256="0" * 64,
        name="random CARE 3D",
    )
    write_imported(imported, path)


def watch(folder: Path, words: list[str]) -> dict[str, object]:
    """Run the command and follow its memory."""
    began = time.perf_counter()
    process = psutil.Popen([sys.executable, "-m", "live_restore.cli", *words], cwd=folder, stderr=subprocess.PIPE, text=True)
    peak = [0]
    follower = threading.Thread(target=follow, args=(process, peak))
    follower.start()
    _, said = process.communicate()
    follower.join()
    if process.returncode:
        raise SystemExit(said)
    (volume,) = read_provenance(folder / "out.ome.tif")["volumes"]
    stack, out = (folder / "stack.tif").stat().st_size, (folder / "out.ome.tif").stat().st_size
    return {
        "command": "live-restore " + " ".join(words),
        "stack_MB": round(stack / 1e6),
        "result_MB": round(out / 1e6),
        "peak_resident_MB": round(peak[0] / 1e6),
        "tiles": volume["tiles"],
        "seconds": round(time.perf_counter() - began, 1),
    }


def follow(process: psutil.Popen, peak: list[int]) -> None:
    """Keep the largest resident size until the process ends."""
    while process.poll() is None:
        try:
            peak[0] = max(peak[0], process.memory_info().rss)
        except psutil.Error:
            return
        time.sleep(0.02)


if __name__ == "__main__":
    main()
