"""Train the small network that ships with live_restore, and write its package: ``python scripts/train_bundled.py``.

It sees only rendered specimens: a 2D CARE of 3x3 kernels and 16 filters, for demonstrations and tests, not for science.
Needs the extra ``train``. Everything comes from seeds; the same versions on the same number of threads give the same weights.

How intensities are treated, which matters more than the network: the raw image is scaled by its own percentiles 2 and 99.8,
and the clean one *by the same two numbers* (CSBDeep takes each image's own). A restored image, scaled back by what was
measured on the raw one, is then in camera counts: it has the raw image's mean brightness, without its noise.
"""

import argparse
import hashlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from live_restore import __version__
from live_restore.acquire.simulate.camera import Camera, build_camera
from live_restore.acquire.simulate.specimen import KINDS, Kind, example_field
from live_restore.intensity import IntensityRange, measure_percentiles
from live_restore.models.facts import Architecture, ModelFacts, Normalisation, Provenance
from live_restore.models.geometry.graph import measure_geometry
from live_restore.models.nets import build_net
from live_restore.models.nets.layers import Net
from live_restore.models.onnx_export import run_net, to_onnx
from live_restore.models.package import write_package
from live_restore.score import means, score_pair

FloatArray = NDArray[np.float32]
Batches = Iterator[tuple[FloatArray, FloatArray]]

PACKAGE = Path(__file__).resolve().parents[1] / "live_restore" / "bundled" / "care2d_demo"
OPTIONS = {"n_dim": 2, "depth": 2, "kernel": 3, "first_filters": 16, "residual": True}

FIELD = (256, 256)
TRAINING_FIELDS = 120
HELD_OUT_FIELDS = 12
# Where seeds of fields and cameras start: small ones are left to whoever plays with the simulator, so that a demonstration
# never shows what was trained on.
TRAINING_SEED = 500_000
HELD_OUT_SEED = 1_000_000
TRAINED_PEAK_PHOTONS = (4.0, 100.0)
TESTED_PEAK_PHOTONS = (5.0, 15.0, 60.0)
PIXEL_SIZES_UM = (0.065, 0.16)
PATCH = 96
BATCH = 8
LEARNING_RATE = 2e-3
CAMERAS = 8


@dataclass(frozen=True, eq=False)
class Exposure:
    """One raw frame and its truth, (Y, X): the frame in counts, and the counts it has on average on a perfect sensor."""

    raw: NDArray[np.uint16]
    clean: FloatArray


def render_fields(first_seed: int, number: int) -> list[FloatArray]:
    """Render fields of all kinds in turn, at random pixel sizes and apertures; (Y, X) photons with a peak of 1."""
    return [_render_field(first_seed + place, KINDS[place % len(KINDS)]) for place in range(number)]


def _render_field(seed: int, kind: Kind) -> FloatArray:
    rng = np.random.default_rng([seed, 1])
    pixel_size_um = float(np.exp(rng.uniform(*np.log(PIXEL_SIZES_UM))))
    return example_field(seed, FIELD, kind, pixel_size_um, peak_photons=1.0, na=float(rng.choice([0.8, 1.0, 1.2])))


def build_cameras(first_seed: int) -> list[Camera]:
    """Build the cameras that the fields are exposed with."""
    return [build_camera(first_seed + place, FIELD) for place in range(CAMERAS)]


def expose(field: FloatArray, peak_photons: float, camera: Camera, rng: np.random.Generator) -> Exposure:
    """Take a frame of a field at a light level."""
    photons = peak_photons * field
    # the truth has no fixed pattern: the network is to remove that as well
    offset, gain = float(np.median(camera.offset_adu)), float(np.median(camera.gain_adu_per_e))
    return Exposure(camera.expose(photons, rng), offset + gain * camera.quantum_efficiency * photons)


def in_network_units(exposure: Exposure) -> tuple[FloatArray, FloatArray, IntensityRange]:
    """Scale both by the percentiles of the raw frame; two (1, Y, X) and the range."""
    measured = measure_percentiles(exposure.raw[None])
    return measured.scale(exposure.raw[None]), measured.scale(exposure.clean[None]), measured


def draw_batches(fields: list[FloatArray], cameras: list[Camera], steps: int, seed: int) -> Batches:
    """Draw batches of raw and clean patches, (N, 1, Y, X) each: two patches of each of N / 2 fresh exposures."""
    rng = np.random.default_rng(seed)
    for _ in range(steps):
        pairs = [pair for _ in range(BATCH // 2) for pair in _draw_patches(fields, cameras, rng)]
        raw, clean = np.stack(pairs, axis=1)  # (N, 1, Y, X) each
        yield raw, clean


def _draw_patches(fields: list[FloatArray], cameras: list[Camera], rng: np.random.Generator) -> list[FloatArray]:
    peak_photons = float(np.exp(rng.uniform(*np.log(TRAINED_PEAK_PHOTONS))))
    # some specimens shine everywhere: up to half the peak as even background
    field = fields[rng.integers(len(fields))] + np.float32(max(0.0, rng.uniform(-0.5, 0.5)))
    raw, clean, _ = in_network_units(expose(field, peak_photons, cameras[rng.integers(len(cameras))], rng))
    both = np.stack([raw, clean])  # (2, 1, Y, X)
    return [_turn(_crop(both, rng), rng) for _ in range(2)]


def _crop(both: FloatArray, rng: np.random.Generator) -> FloatArray:
    top, left = rng.integers(0, FIELD[0] - PATCH + 1), rng.integers(0, FIELD[1] - PATCH + 1)
    return both[..., top : top + PATCH, left : left + PATCH]


def _turn(both: FloatArray, rng: np.random.Generator) -> FloatArray:
    turned = np.rot90(both, rng.integers(4), axes=(-2, -1))
    return turned[..., ::-1] if rng.random() < 0.5 else turned


def train(batches: Batches, steps: int, seed: int) -> Net:
    """Train from fresh weights: mean absolute error, AdamW, the learning rate rising briefly and falling as a cosine."""
    torch.manual_seed(seed)
    net = build_net("care", OPTIONS, seed)
    net.to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.AdamW(net.parameters(), lr=LEARNING_RATE, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=steps, pct_start=0.05)
    started = time.monotonic()
    for step, (raw, clean) in enumerate(batches, 1):
        with torch.autocast("cpu", torch.bfloat16):
            restored = net(torch.from_numpy(raw).to(memory_format=torch.channels_last))
        loss = torch.nn.functional.l1_loss(restored.float(), torch.from_numpy(clean))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 100 == 0:
            print(f"step {step} of {steps}, error {loss.item():.4f}, {time.monotonic() - started:.0f} s", flush=True)
    return net


def restore(net: Net, exposure: Exposure) -> FloatArray:
    """Restore a frame as `live-restore restore` would; (Y, X), counts."""
    raw, _, measured = in_network_units(exposure)
    return measured.unscale(run_net(net, raw[None])[0])[0]


def evaluate(net: Net) -> dict[str, float]:
    """Score fields and cameras it never saw, at each light level of `TESTED_PEAK_PHOTONS`."""
    fields, cameras = render_fields(HELD_OUT_SEED, HELD_OUT_FIELDS), build_cameras(HELD_OUT_SEED)
    found, scores = [], {}
    for peak_photons in TESTED_PEAK_PHOTONS:
        rng = np.random.default_rng([HELD_OUT_SEED, int(peak_photons)])
        taken = [expose(field, peak_photons, cameras[place % CAMERAS], rng) for place, field in enumerate(fields)]
        level = [score_pair(restore(net, one), one.clean, one.raw) for one in taken]
        scores[f"gain_db_at_{peak_photons:g}_photons"] = means(level)["gain_db"]
        found += level
    scores |= means(found)
    scores["slope"] = float(np.mean([score.restored.slope for score in found]))
    return {key: round(value, 4) for key, value in scores.items()}


def write(net: Net, scores: dict[str, float], fields: list[FloatArray], steps: int, path: Path) -> None:
    """Write the package, with a held-out field as its test image."""
    onnx = to_onnx(net)
    field, camera = render_fields(HELD_OUT_SEED + 1, 1)[0], build_cameras(HELD_OUT_SEED)[0]
    corner = expose(field, 15.0, camera, np.random.default_rng(0)).raw[None, :96, :96]  # (1, 96, 96)
    test_input = measure_percentiles(corner).scale(corner)[None]  # (1, 1, 96, 96)
    write_package(
        path,
        name="CARE 2D demo",
        description="A small CARE network trained on rendered cells only: for demonstrations and tests, not for science.",
        onnx=onnx,
        test_input=test_input,
        test_output=run_net(net, test_input),
        facts=_facts(net, onnx, scores, fields, steps),
        licence="BSD-3-Clause",
        authors=("the live_restore developers",),
        cite=("Weigert et al. 2018, Content-aware image restoration, Nature Methods. doi:10.1038/s41592-018-0216-7",),
        overwrite=True,
    )


def _facts(net: Net, onnx: bytes, scores: dict[str, float], fields: list[FloatArray], steps: int) -> ModelFacts:
    low, high = TRAINED_PEAK_PHOTONS
    return ModelFacts(
        architecture=Architecture(kind="care", options=net.options, parameters=sum(p.numel() for p in net.parameters())),
        geometry=measure_geometry(onnx),
        normalisation=Normalisation(measure="percentiles", low_percentile=2.0, high_percentile=99.8, mode="volume"),
        provenance=Provenance(
            source_format="trained",
            source_name=Path(__file__).name,
            source_sha256=hashlib.sha256(onnx).hexdigest(),
            written_by=f"torch {torch.__version__}",
            imported_by=f"live_restore {__version__}",
            notes=(
                f"{steps} steps of {BATCH} patches of {PATCH} x {PATCH} pixels from {TRAINING_FIELDS} rendered fields",
                "target: the expected counts, scaled by the percentiles of the raw image, so that the inverse gives counts",
                "scores: against the rendered truth, fields and cameras with other seeds",
            ),
        ),
        light_levels={"trained_peak_photons_from": low, "trained_peak_photons_to": high},
        scores=scores,
        training_pairs_sha256=hashlib.sha256(np.stack(fields).tobytes()).hexdigest(),
    )


def main() -> None:
    """Render, train, score, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=3000, help="8 patches each; 3000 take about 6 minutes")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1, help="for so small a network more are no faster")
    parser.add_argument("--out", type=Path, default=PACKAGE)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    fields, cameras = render_fields(TRAINING_SEED, TRAINING_FIELDS), build_cameras(TRAINING_SEED)
    started = time.monotonic()
    net = train(draw_batches(fields, cameras, options.steps, options.seed), options.steps, options.seed)
    print(f"trained in {time.monotonic() - started:.0f} s")
    scores = evaluate(net)
    print(scores)
    write(net, scores, fields, options.steps, options.out)
    print(f"wrote {options.out}, {sum(file.stat().st_size for file in options.out.rglob('*') if file.is_file())} bytes")


if __name__ == "__main__":
    main()
