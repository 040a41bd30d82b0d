"""Train a small network that ships with live_restore, and write its package: ``python scripts/train_bundled.py care3d_demo``.

The networks see only rendered specimens: for demonstrations and tests, not for science. Needs the extra ``train``.
Everything comes from seeds; the same versions on the same number of threads give the same weights. What they learn from is
in `training_fields`, how they are scored in `held_out_scores`.
"""

import argparse
import hashlib
import math
import platform
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from held_out_scores import TESTED_PEAK_PHOTONS, score_held_out, summary, table
from training_fields import (
    HELD_OUT_SEED,
    TRAINED_PEAK_PHOTONS,
    TRAINING_SEED,
    Batches,
    FloatArray,
    Sampling,
    build_cameras,
    draw_batches,
    expose,
    fingerprint,
    render_fields,
)

from live_restore import __version__
from live_restore.engines.engine import open_engine
from live_restore.intensity import measure_percentiles
from live_restore.models.facts import Architecture, ModelFacts, Normalisation, Provenance
from live_restore.models.geometry.graph import measure_geometry
from live_restore.models.nets import build_net
from live_restore.models.nets.layers import Net
from live_restore.models.onnx_export import run_net, to_onnx
from live_restore.models.package import open_package, write_package
from live_restore.models.real_images import REAL_IMAGES, RealImages, pack

BUNDLED = Path(__file__).resolve().parents[1] / "live_restore" / "bundled"
CARE = "Weigert et al. 2018, Content-aware image restoration, Nature Methods. doi:10.1038/s41592-018-0216-7"
RCAN = "Chen et al. 2021, Three-dimensional residual channel attention networks, Nature Methods. doi:10.1038/s41592-021-01155-x"
_PURPOSE = "for demonstrations and tests, not for science"


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """One bundled network: what it is, what it is fed, for how long.

    Attributes
    ----------
    title, cite : str
    kind, options
        The network in `live_restore.models.nets`.
    field : tuple of int, ([Z,] Y, X)
        What is rendered for training; a whole field is exposed and its percentiles are measured before patches are cut.
    sampling : Sampling
    fields : int
        How many are rendered.
    steps : int
    learning_rate : float
        The highest.
    test : tuple of int, ([Z,] Y, X)
        Size of the package's test image.
    held_out : tuple of int, ([Z,] Y, X)
        What it is scored on.
    probed : tuple of int, ([Z,] Y, X)
        What the package carries to certify engines with.
    """

    title: str
    cite: str
    kind: Literal["care", "rcan"]
    options: dict[str, int | bool]
    field: tuple[int, ...]
    sampling: Sampling
    fields: int
    steps: int
    learning_rate: float
    test: tuple[int, ...]
    held_out: tuple[int, ...]
    probed: tuple[int, ...]


# Patches of several depths, cut from deeper stacks: a network that has only seen one depth knows every plane by its distance
# to the padding. The larger patches are for channel attention, which pools over a patch here and over a whole stack in use.
RECIPES = {
    "care2d_demo": Recipe(
        title="CARE 2D demo",
        cite=CARE,
        kind="care",
        options={"n_dim": 2, "depth": 2, "kernel": 3, "first_filters": 16, "residual": True},
        field=(256, 256),
        sampling=Sampling(patches=((96, 96),), exposures=4, patches_per_exposure=2),
        fields=120,
        steps=3000,
        learning_rate=2e-3,
        test=(96, 96),
        held_out=(256, 256),
        probed=(256, 256),
    ),
    "care3d_demo": Recipe(
        title="CARE 3D demo",
        cite=CARE,
        kind="care",
        options={"n_dim": 3, "depth": 2, "kernel": 3, "first_filters": 8, "residual": True},
        field=(16, 256, 256),
        sampling=Sampling(patches=((8, 64, 64), (12, 64, 64), (16, 64, 64)), exposures=2, patches_per_exposure=4),
        fields=96,
        steps=2400,
        learning_rate=2e-3,
        test=(12, 64, 64),
        held_out=(12, 512, 512),
        probed=(12, 72, 72),
    ),
    "rcan3d_demo": Recipe(
        title="RCAN 3D demo",
        cite=RCAN,
        kind="rcan",
        options={"n_dim": 3, "channels": 16, "blocks": 1, "groups": 2, "reduction": 4},
        field=(16, 256, 256),
        sampling=Sampling(patches=((8, 80, 80), (12, 80, 80), (16, 80, 80)), exposures=2, patches_per_exposure=1),
        fields=96,
        steps=1800,
        learning_rate=1.5e-3,
        test=(12, 64, 64),
        held_out=(12, 512, 512),
        probed=(12, 72, 72),
    ),
}


def train(recipe: Recipe, batches: Batches, steps: int, seed: int) -> Net:
    """Train from fresh weights: mean absolute error, AdamW, the learning rate rising briefly and falling as a cosine."""
    torch.manual_seed(seed)
    net = build_net(recipe.kind, recipe.options, seed)
    flat = len(recipe.field) == 2
    # two to three times faster, in 2D and in 3D
    layout = torch.channels_last if flat else torch.channels_last_3d
    net.to(memory_format=layout).train()  # type: ignore[call-overload]
    optimizer = torch.optim.AdamW(net.parameters(), lr=recipe.learning_rate, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, recipe.learning_rate, total_steps=steps, pct_start=0.05)
    started, recent = time.monotonic(), 0.0
    for step, (raw, clean) in enumerate(batches, 1):
        # in 3D, oneDNN's bfloat16 weight gradients of shallow patches are wrong by half, and differ from run to run
        with torch.autocast("cpu", torch.bfloat16, enabled=flat):
            restored = net(torch.from_numpy(raw).to(memory_format=layout))
        loss = torch.nn.functional.l1_loss(restored.float(), torch.from_numpy(clean))
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
        recent += _finite(loss.item(), step) / 100
        if step % 100 == 0:
            print(f"step {step} of {steps}, error {recent:.4f}, {time.monotonic() - started:.0f} s", flush=True)
            recent = 0.0
    return net


def _finite(error: float, step: int) -> float:
    if not math.isfinite(error):
        raise FloatingPointError(f"step {step}: the error is {error}, from which no training recovers; lower the learning rate")
    return error


def write(recipe: Recipe, net: Net, scores: dict[str, float], facts: ModelFacts, path: Path) -> None:
    """Write the package, with a corner of a held-out field as its test image."""
    (field,), camera = render_fields(HELD_OUT_SEED + 1, 1, recipe.field), build_cameras(HELD_OUT_SEED, recipe.field)[0]
    taken = expose(field, 15.0, camera, np.random.default_rng(0)).raw
    corner = taken[tuple(slice(size) for size in recipe.test)][None]  # (1, [Z,] Y, X)
    test_input = measure_percentiles(corner).scale(corner)[None]  # (1, 1, [Z,] Y, X)
    write_package(
        path,
        name=recipe.title,
        description=f"A small {recipe.kind.upper()} network trained on rendered cells only: {_PURPOSE}.",
        onnx=to_onnx(net),
        test_input=test_input,
        test_output=run_net(net, test_input),
        facts=facts.model_copy(update={"scores": scores}),
        licence="BSD-3-Clause",
        authors=("the live_restore developers",),
        cite=(recipe.cite,),
        extras={REAL_IMAGES: pack(render_images(recipe))},
        overwrite=True,
    )


def render_images(recipe: Recipe) -> RealImages:
    """Render what engines are certified with: fields and cameras that are neither trained on nor scored with."""
    seed = HELD_OUT_SEED + 2_000
    fields, cameras = render_fields(seed, len(TESTED_PEAK_PHOTONS), recipe.probed), build_cameras(seed, recipe.probed)
    rng, low, high = np.random.default_rng(seed), [], []
    for field, camera, peak_photons in zip(fields, cameras, TESTED_PEAK_PHOTONS, strict=False):
        taken = expose(field, peak_photons, camera, rng)
        clean = taken.clean.astype(np.float64) - taken.clean.min()
        low.append(taken.raw)
        high.append(np.rint(clean * (65535 / clean.max())).astype(np.uint16))
    noises = [np.median(camera.read_noise_e * camera.gain_adu_per_e) for camera in cameras]
    return RealImages(low, high, float(np.median(noises)), "rendered")


def _facts(recipe: Recipe, net: Net, fields: Sequence[FloatArray], steps: int, seed: int) -> ModelFacts:
    onnx = to_onnx(net)
    low, high = TRAINED_PEAK_PHOTONS
    how = recipe.sampling
    return ModelFacts(
        architecture=Architecture(kind=recipe.kind, options=net.options, parameters=sum(p.numel() for p in net.parameters())),
        geometry=measure_geometry(onnx),
        normalisation=Normalisation(measure="percentiles", low_percentile=2.0, high_percentile=99.8, mode="volume"),
        provenance=Provenance(
            source_format="trained",
            source_name=Path(__file__).name,
            source_sha256=hashlib.sha256(onnx).hexdigest(),
            written_by=f"torch {torch.__version__}",
            imported_by=f"live_restore {__version__}",
            notes=(
                f"seed {seed}, {torch.get_num_threads()} thread(s), Python {platform.python_version()}, numpy {np.__version__}",
                f"{steps} steps of {how.batch} patches of {' or '.join(_by(patch) for patch in how.patches)} pixels "
                f"from {len(fields)} rendered fields of {_by(fields[0].shape)}",
                "target: the expected counts, scaled by the percentiles of the raw image, so that the inverse gives counts",
                "scores: against the rendered truth, fields and cameras with other seeds",
            ),
        ),
        light_levels={"trained_peak_photons_from": low, "trained_peak_photons_to": high},
        training_pairs_sha256=fingerprint(fields),
    )


def _by(sizes: tuple[int, ...]) -> str:
    return " x ".join(map(str, sizes))


def main(arguments: Sequence[str] | None = None) -> None:
    """Render, train, score, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", choices=RECIPES)
    parser.add_argument("--steps", type=int, help="default: what the bundled weights took")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1, help="for so small a network more are hardly faster")
    parser.add_argument("--fields", type=int, help="rendered for training; default: as for the bundled weights")
    parser.add_argument("--held-out", type=int, default=8, help="rendered for scoring, at each light level")
    parser.add_argument("--side", type=int, help="Y and X of all fields, for a quick try")
    parser.add_argument("--out", type=Path, help="default: among the bundled models")
    parser.add_argument("--only-real-images", action="store_true", help="put those into the package that is there; no training")
    options = parser.parse_args(arguments)
    if options.only_real_images:
        package = open_package(options.out or BUNDLED / options.name).with_real_images(render_images(RECIPES[options.name]))
        print(f"{package.path} carries {package.real_images().words}")
        return
    torch.set_num_threads(options.threads)
    recipe = RECIPES[options.name]
    steps, path = options.steps or recipe.steps, options.out or BUNDLED / options.name
    started = time.monotonic()
    shape = _narrowed(recipe.field, options.side)
    fields = render_fields(TRAINING_SEED, options.fields or recipe.fields, shape)
    cameras = build_cameras(TRAINING_SEED, shape)
    print(f"rendered in {time.monotonic() - started:.0f} s", flush=True)
    started = time.monotonic()
    net = train(recipe, draw_batches(fields, cameras, recipe.sampling, steps, options.seed), steps, options.seed)
    print(f"trained in {time.monotonic() - started:.0f} s", flush=True)
    facts = _facts(recipe, net, fields, steps, options.seed)
    with open_engine("openvino", to_onnx(net), "f32") as engine:
        rows = score_held_out(engine, options.held_out, _narrowed(recipe.held_out, options.side))
    print(*table(rows), summary(rows), sep="\n")
    write(recipe, net, summary(rows), facts, path)
    print(f"wrote {path}, {sum(file.stat().st_size for file in path.rglob('*') if file.is_file())} bytes")


def _narrowed(shape: tuple[int, ...], side: int | None) -> tuple[int, ...]:
    return shape if side is None else (*shape[:-2], side, side)


if __name__ == "__main__":
    main()
