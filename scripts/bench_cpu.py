"""The best CPU path beside CSBDeep, 3D-RCAN, ONNX Runtime and PyTorch: one table, everybody in turn.

    python scripts/bench_cpu.py [--packages FOLDER] [--csbdeep-python PYTHON] [--rcan-python PYTHON --rcan-source FOLDER]
                                [--pairs-2d FOLDER] [--pairs-3d FOLDER] [--seconds 12] [--json FILE]

Networks: CARE 2D (kernel 5 and 3), CARE 3D, RCAN 2D and 3D as their authors set them, and the bundled packages. FOLDER holds
trained packages named care2d, care2d-k3, care3d, rcan2d, rcan3d; what is missing gets random weights, for which nobody can
certify anything. With --pairs-2d and --pairs-3d int8 layers are found first for those packages that have none on this machine
(for the bundled ones on the images that they carry).
Everybody restores the same image, counts in to counts out, in a process of its own (3D-RCAN and ONNX Runtime and PyTorch
without measuring percentiles, which favours them; 3D-RCAN only its forward pass). Medians; ratios hold on a busy machine too.

The pythons are environments with csbdeep and tensorflow; 3D-RCAN's source is got by you: git clone -b TF2
https://github.com/AiviaCommunity/3D-RCAN (CC BY-NC 4.0).
"""

import argparse
import json
import os
import sys
import tempfile
from contextlib import ExitStack
from math import prod
from pathlib import Path

import numpy as np

from live_restore.bench.conditions import conditions, load
from live_restore.bench.networks import bench_networks
from live_restore.bench.peers import TurnProcess
from live_restore.bench.scenes import low_light
from live_restore.bench.timing import Spread, Turns, alternate
from live_restore.bench.work import peer_options, size_text, why_peer_cannot
from live_restore.build_int8 import build_int8
from live_restore.engines.graphs.counts_graph import from_counts
from live_restore.engines.openvino.int8 import load_layers
from live_restore.engines.openvino.quantise import folded
from live_restore.errors import EngineUnavailable, LiveRestoreError

# Name, size, the peer that it is measured against, how many times faster it has to be.
CASES = (
    ("care2d", (512, 512), "csbdeep", 4.0),
    ("care2d-k3", (512, 512), "csbdeep", 4.0),
    ("care3d", (16, 256, 256), "csbdeep", 4.0),
    ("rcan3d", (16, 128, 128), "3d-rcan", 4.0),
    ("rcan2d", (256, 256), "onnxruntime", 1.3),
    ("care2d_demo", (512, 512), "onnxruntime", 1.3),
    ("care3d_demo", (16, 256, 256), "onnxruntime", 1.3),
    ("rcan3d_demo", (16, 128, 128), "onnxruntime", 1.3),
)
OURS = ("f32", "bf16", "int8", "auto")
PEERS = ("csbdeep", "3d-rcan", "onnxruntime", "torch")


def main() -> None:
    """Run the comparison."""
    chosen = parse()
    found = {"conditions": conditions(), "networks": {}}
    print("; ".join(f"{name}: {words}" for name, words in found["conditions"].items()), flush=True)
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent), *([before] if before else [])])  # peer_3d_rcan
    with tempfile.TemporaryDirectory(prefix="bench_cpu_") as name:
        for case in CASES:
            if not chosen.only or case[0] in chosen.only:
                found["networks"][case[0]] = row = measure(case, Path(name) / case[0], chosen)
                show(case, row)
    found["conditions"]["load after"] = load()
    if chosen.json:
        chosen.json.write_text(json.dumps(found, indent=2), encoding="utf-8")


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--packages", type=Path, help="trained packages by the names above")
    parser.add_argument("--only", action="append", choices=[case[0] for case in CASES], help="this network; repeat it")
    parser.add_argument("--csbdeep-python", help="a Python with csbdeep and tensorflow")
    parser.add_argument("--rcan-python", help="a Python with tensorflow; default: the same")
    parser.add_argument("--rcan-source", type=Path, help="3D-RCAN's source, branch TF2")
    parser.add_argument("--pairs-2d", type=Path, help="pairs to find int8 layers on")
    parser.add_argument("--pairs-3d", type=Path, help="the same, stacks")
    parser.add_argument("--seconds", type=float, default=12.0, help="of turns for each network")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    return parser.parse_args()


def measure(case: tuple, folder: Path, chosen: argparse.Namespace) -> dict:
    """Let everybody restore one image of one network."""
    name, size, _, _ = case
    given = chosen.packages / name if chosen.packages else None
    network = bench_networks([str(given) if given and given.exists() else name], folder / "package")[0]
    if network.package is None:
        return {"cannot": {"all": network.why_not}}
    package = network.package
    real = chosen.pairs_2d if package.facts.geometry.n_dim == 2 else chosen.pairs_3d
    pairs = None if name.endswith("_demo") else real  # the bundled ones have learned from rendered cells, and carry some
    without_layers = find_layers(package, pairs)
    shape = (1, *size) if len(size) == 2 else size
    image = low_light(shape, 1)[0][None]  # (C, Z, Y, X)
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / "image.npy", image)
    options = {"image": str(folder / "image.npy"), **peer_options(package, image, folder)}
    programs, refused = {}, {}
    for precision in OURS:
        if precision == "int8" and without_layers:
            refused["int8"] = without_layers
        else:
            said = {"package": str(package.path), "engine": "openvino", "precision": precision}
            programs[precision] = ("ours", {**options, **said}, sys.executable)
    for peer in PEERS:
        why_not = missing(peer, package, size, chosen)
        if why_not:
            refused[peer] = why_not
        else:
            programs[peer] = program_of(peer, options, chosen)
    return take_turns(programs, refused, folder, chosen.seconds)


def find_layers(package, pairs: Path | None) -> str:
    """Find int8 layers for a package that has none here; why that cannot be, or nothing."""
    try:
        load_layers(folded(from_counts(package.onnx())))
    except EngineUnavailable as missing_layers:
        if package.real_images() is None:
            return f"{missing_layers}"
        try:
            build_int8(package, [pairs] if pairs else [])
        except LiveRestoreError as refused:
            return str(refused)
    return ""


def missing(peer: str, package, size: tuple[int, ...], chosen: argparse.Namespace) -> str:
    """Say why a peer is not there or cannot do this; empty if it can."""
    facts = package.facts
    if peer == "csbdeep":
        return why_peer_cannot(peer, facts, size) or ("" if chosen.csbdeep_python else "no --csbdeep-python")
    if peer == "3d-rcan":
        if facts.architecture.kind != "rcan":
            return "3D-RCAN builds RCAN only"
        return "" if chosen.rcan_source and (chosen.rcan_python or chosen.csbdeep_python) else "no --rcan-source"
    return why_peer_cannot(peer, facts, size)


def program_of(peer: str, options: dict, chosen: argparse.Namespace) -> tuple[str, dict, str]:
    """Give program, options and python of a peer."""
    if peer == "csbdeep":
        return "csbdeep_peer", options, chosen.csbdeep_python
    if peer == "3d-rcan":
        return (
            "peer_3d_rcan",
            {**options, "source": str(chosen.rcan_source.resolve())},
            chosen.rcan_python or chosen.csbdeep_python,
        )
    return f"{peer}_peer", options, sys.executable


def take_turns(programs: dict, refused: dict, folder: Path, seconds: float) -> dict:
    """Start everybody, alternate, and sum up."""
    said: dict[str, dict] = {}
    with ExitStack() as stack:
        started = {}
        for name, (program, options, python) in programs.items():
            try:
                process = TurnProcess(program, {**options, "result": str(folder / f"{name}.npy")}, python, 300.0)
            except LiveRestoreError as why:
                refused[name] = str(why)
            else:
                stack.callback(process.close)
                started[name], said[name] = process, process.said
        taken = alternate({name: each.turn for name, each in started.items()}, Turns(2, 5, 25, seconds))
    ran = {name: each for name, each in taken.items() if isinstance(each, Spread)}
    return {
        "median_ms": {name: round(each.median_ms, 2) for name, each in ran.items()},
        "turns": {name: each.turns for name, each in ran.items()},
        "runs_on": {name: f"{said[name]['kind']} {said[name]['version']} {said[name]['precision']}" for name in ran},
        "certificate": {name: said[name]["certificate"] for name in ran if said[name].get("certificate")},
        "cannot": refused | {name: each for name, each in taken.items() if not isinstance(each, Spread)},
    }


def show(case: tuple, row: dict) -> None:
    """Print one network."""
    name, size, against, aim = case
    medians = row.get("median_ms", {})
    print(f"\n{name}, {size_text(size)}, {prod(size) / 1e6:.2f} Mpx")
    for who, ms in medians.items():
        beside = ", ".join(f"{medians[peer] / ms:.2f}x {peer}" for peer in PEERS if peer in medians and who in OURS)
        print(f"  {who:12} {ms:8.1f} ms  {row['runs_on'][who]:34} {beside}")
        if (certificate := row["certificate"].get(who)) is not None:
            loss = certificate["psnr_loss_db"]
            words = "unknown" if loss is None else f"{loss:.4f} dB"
            print(f"  {'':12} relative error {certificate['relative_error']:.2g}, PSNR loss {words} on {certificate['source']}")
    for who, why in row["cannot"].items():
        print(f"  {who:12} {why[:150]}")
    for peer, wanted in {against: aim, "onnxruntime": 1.3}.items():
        if peer in medians and "auto" in medians:
            ratio = medians[peer] / medians["auto"]
            verdict = "reached" if ratio >= wanted else "NOT reached"
            print(f"  auto against {peer}: {ratio:.2f}x, aim {wanted:g}x: {verdict}", flush=True)


if __name__ == "__main__":
    main()
