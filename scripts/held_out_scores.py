"""Score a network on cells and cameras it never saw, beside the best Gaussian filter: ``python scripts/held_out_scores.py``.

Receives what restores (run as a script: every bundled package, on OpenVINO); hands on one row per field and light level (and
prints the table of the documentation). It does not know how a network was trained.
"""

import argparse
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
from scipy.ndimage import gaussian_filter
from training_fields import CAMERAS, HELD_OUT_SEED, Exposure, FloatArray, build_cameras, expose, in_network_units, render_fields

from live_restore.acquire.simulate.specimen import KINDS
from live_restore.engines.engine import Engine, open_engine
from live_restore.models.package import open_package
from live_restore.score import Score, fit_affine, means, score_pair

TESTED_PEAK_PHOTONS = (5.0, 15.0, 60.0)
BUNDLED = Path(__file__).resolve().parents[1] / "live_restore" / "bundled"
# What a patient user would try by hand, pixels in Y and X, planes in Z; the best one is chosen with the truth in hand.
_SIGMAS_PX = (0.7, 1.0, 1.4, 2.0, 2.8)
_SIGMAS_PLANES = (0.0, 0.6, 1.2)


@dataclass(frozen=True, eq=False)
class Row:
    """One field at one light level: what was restored, and what the best Gaussian filter would have gained."""

    kind: str
    peak_photons: float
    score: Score
    gaussian_gain_db: float


def held_out(number: int, shape: tuple[int, ...]) -> Iterator[tuple[str, float, Exposure]]:
    """Expose fields that nobody trained on at each light level; (kind, peak photons, exposure)."""
    fields, cameras = render_fields(HELD_OUT_SEED, number, shape), build_cameras(HELD_OUT_SEED, shape)
    for peak_photons in TESTED_PEAK_PHOTONS:
        rng = np.random.default_rng([HELD_OUT_SEED, int(peak_photons)])
        for place, field in enumerate(fields):
            yield KINDS[place % len(KINDS)], peak_photons, expose(field, peak_photons, cameras[place % CAMERAS], rng)


def score_held_out(engine: Engine, number: int, shape: tuple[int, ...]) -> list[Row]:
    """Restore every held-out exposure and score it against its truth."""
    rows = []
    for kind, peak_photons, taken in held_out(number, shape):
        score = score_pair(restore(engine, taken), taken.clean, taken.raw)
        rows.append(Row(kind, peak_photons, score, best_gaussian_gain_db(taken)))
    return rows


def restore(engine: Engine, exposure: Exposure) -> FloatArray:
    """Restore an image as `live-restore restore` would; ([Z,] Y, X), counts."""
    raw, _, measured = in_network_units(exposure)
    (output,) = engine.infer(raw[None])  # (1, 1, [Z,] Y, X)
    return measured.unscale(output[0])[0]


def best_gaussian_gain_db(exposure: Exposure) -> float:
    """Try many Gaussian filters; what the best one gains over raw, dB."""
    raw = exposure.raw.astype(np.float32)
    along_z = _SIGMAS_PLANES if raw.ndim == 3 else (0.0,)
    errors = [
        _error(gaussian_filter(raw, (*(planes,) * (raw.ndim - 2), pixels, pixels)), exposure.clean)
        for pixels, planes in product(_SIGMAS_PX, along_z)
    ]
    return 10 * math.log10(_error(raw, exposure.clean) / min(errors))


def _error(image: FloatArray, clean: FloatArray) -> float:
    """Mean squared error after the affine fit, as `live_restore.score` takes it."""
    stack, aim = (pixels.reshape(-1, *pixels.shape[-2:]) for pixels in (image, clean))
    slope, offset = fit_affine(stack, aim)
    return float(np.mean((slope * stack + offset - aim) ** 2, dtype=np.float64))


def summary(rows: Sequence[Row]) -> dict[str, float]:
    """Means over all rows, and the gain by light level and by kind: what a package states as its scores."""
    scores = {f"gain_db_at_{level:g}_photons": _gain(rows, peak_photons=level) for level in TESTED_PEAK_PHOTONS}
    scores |= {f"gain_db_{kind}": _gain(rows, kind=kind) for kind in KINDS if any(row.kind == kind for row in rows)}
    scores |= means([row.score for row in rows])
    scores["slope"] = float(np.mean([row.score.restored.slope for row in rows]))
    scores["gaussian_gain_db"] = float(np.mean([row.gaussian_gain_db for row in rows]))
    return {key: round(value, 4) for key, value in scores.items()}


def _gain(rows: Sequence[Row], **wanted: float | str) -> float:
    return means([row.score for row in rows if all(getattr(row, key) == value for key, value in wanted.items())])["gain_db"]


def table(rows: Sequence[Row]) -> list[str]:
    """Lines of a Markdown table: a row per kind and light level."""
    lines = ["| kind | photons | raw dB | best Gaussian | restored dB | gain | slope |", "|---|---|---|---|---|---|---|"]
    for kind, level in product(KINDS, TESTED_PEAK_PHOTONS):
        chosen = [row for row in rows if row.kind == kind and row.peak_photons == level]
        if not chosen:
            continue
        mean = means([row.score for row in chosen])
        slope = np.mean([row.score.restored.slope for row in chosen])
        gaussian = mean["raw_psnr_db"] + np.mean([row.gaussian_gain_db for row in chosen])
        figures = f"{mean['raw_psnr_db']:.1f} | {gaussian:.1f} | {mean['psnr_db']:.1f} | {mean['gain_db']:+.1f} | {slope:.2f}"
        lines.append(f"| {kind} | {level:g} | {figures} |")
    return lines


def main() -> None:
    """Score bundled packages and print their tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", default=sorted(path.name for path in BUNDLED.iterdir()))
    parser.add_argument("--fields", type=int, default=8, help="stacks or planes per light level")
    options = parser.parse_args()
    for name in options.names:
        package = open_package(BUNDLED / name)
        shape = (512, 512) if package.facts.geometry.n_dim == 2 else (12, 512, 512)
        with open_engine("openvino", package.onnx(), "f32") as engine:
            rows = score_held_out(engine, options.fields, shape)
        print(f"\n{name}, {options.fields} fields of {shape}", *table(rows), summary(rows), sep="\n")


if __name__ == "__main__":
    main()
