"""What the trust check finds, what it raises for nothing, and what it costs.

    python scripts/measure_trust.py [--fields 3] [--rounds 20] [--figure docs/images/trust_detection.png] [--no-cost]

Rendered fields of every kind through the bundled network. Prints, as in docs/trust.md: the area raised on perfect restorations
and on those of the network, and how much of it is really wrong, against the truth; how many structures of known
matched-filter SNR are found that were invented or erased; the check's time beside the network's, turn by turn.
"""

import argparse
import statistics
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from planted_structures import Exposed, Planted, Structure, of_strength, plant
from trust_figure import Example, draw

from live_restore.acquire.simulate.specimen import KINDS
from live_restore.engines.engine import open_engine
from live_restore.models.package import open_package
from live_restore.models.registry import bundled_folder
from live_restore.restore.consistency import Consistency, Sensor
from live_restore.restore.photon_fit import Line
from live_restore.restore.trust import SCALES_PX, Trust, TrustCheck
from live_restore.restore.volume_check import tolerated_disagreement
from live_restore.restorer import Restorer

FloatArray = NDArray[np.float32]

PACKAGE = bundled_folder() / "care2d_demo"
FIGURE = Path(__file__).resolve().parents[1] / "docs" / "images" / "trust_detection.png"
# Neither what the network was trained on nor its held-out fields.
FIRST_SEED = 30_000_000
PEAKS = (5, 20, 60, 100)
MAIN_PEAK = 20
SNRS = tuple(range(1, 11))
CLAIMED = (*(Structure("blob", size) for size in (1, 1.5, 2, 3, 4)), Structure("filament", 10))
WIDE = Structure("blob", 8)


def check_plane(check: TrustCheck, raw: NDArray[np.uint16], restored: FloatArray) -> Trust:
    """Check one plane, without what earlier ones told of hot pixels."""
    return check.check(raw[None], restored[None])


def restore(restorer: Restorer, raw: NDArray[np.uint16]) -> FloatArray:
    """Restore a plane."""
    return restorer.restore(raw[None, None]).pixels[0, 0]


def really_wrong(exposed: Exposed, restored: FloatArray, trust: Trust) -> tuple[int, int, int]:
    """Count raised windows of all scales, and those whose true error is beyond 2 and 3 standard deviations."""
    shape = (restored.shape[0], restored.shape[1])
    sensor, consistency = Sensor(exposed.noise, shape), Consistency(shape, len(SCALES_PX))
    line, none = Line(trust.figures["slope"], trust.figures["offset"]), np.zeros(0, np.intp)
    consistency.compare(exposed.raw, restored, sensor, line, none)
    raised = []
    for level, scale_px in enumerate(SCALES_PX):
        of_level, of_peak = tolerated_disagreement(scale_px)
        tenths = consistency.beyond(level, of_level, of_peak * trust.figures["peak_e"])
        raised.append(np.abs(tenths) >= round(10 * trust.figures["threshold"]))
    # the same windows on what the camera would give without noise
    truth = exposed.camera.mean_adu(exposed.electrons / exposed.camera.quantum_efficiency)
    consistency.compare(truth, restored, sensor, line, none)
    errors = np.abs(np.concatenate([level.z[where] for level, where in zip(consistency.levels, raised, strict=True)]))
    return errors.size, int(np.count_nonzero(errors > 2)), int(np.count_nonzero(errors > 3))


def honest(restorer: Restorer, fields: int) -> dict[tuple[str, int], list[float]]:
    """Print what is raised on restorations as they are; the areas in percent by kind and peak."""
    print(f"\n## Raised on honest restorations, per cent of the area; {fields} fields of each kind")
    print("| photons at the brightest | perfect | network, mean | worst field | raised windows | truly off: > 2 sd | > 3 sd |")
    print("|---|---|---|---|---|---|---|")
    areas: dict[tuple[str, int], list[float]] = defaultdict(list)
    for peak in PEAKS:
        perfect, wrong, sds = [], np.zeros(3, int), []
        for number, kind in enumerate(KINDS * fields):
            exposed = Exposed.take(kind, peak, FIRST_SEED + number)
            restored = restore(restorer, exposed.raw)
            perfect.append(check_plane(TrustCheck(exposed.noise), exposed.raw, exposed.perfect).figures["raised"])
            trust = check_plane(TrustCheck(exposed.noise), exposed.raw, restored)
            areas[kind, peak].append(100 * trust.figures["raised"])
            sds.append(list(trust.figures["sd_z"].values()))
            wrong += really_wrong(exposed, restored, trust)
        level = [area for (_, at), found in areas.items() if at == peak for area in found]
        shares = " | ".join(f"{100 * share:.0f} %" for share in wrong[1:] / max(1, wrong[0]))
        print(f"| {peak} | {100 * np.mean(perfect):.4f} | {np.mean(level):.3f} | {max(level):.3f} | {wrong[0]} | {shares} |")
        print(f"<!-- sd of z at {SCALES_PX} px: {np.mean(sds, axis=0).round(2)} -->")
    for kind in KINDS:
        print(f"<!-- {kind}: " + ", ".join(f"{peak}: {np.mean(areas[kind, peak]):.3f}" for peak in PEAKS) + " -->")
    return areas


def detect(
    restorer: Restorer,
    rounds: int,
    structures: tuple[Structure, ...],
    snrs: tuple[float, ...],
    calibrated: bool = True,
    peak: int = MAIN_PEAK,
) -> list[Planted]:
    """Plant and look, on fields of every kind."""
    found: list[Planted] = []
    for number, kind in enumerate(KINDS):
        exposed = Exposed.take(kind, peak, FIRST_SEED + 100 + number)
        restored = restore(restorer, exposed.raw)

        def look(raw: NDArray[np.uint16], pixels: FloatArray, exposed: Exposed = exposed) -> Trust:
            return check_plane(TrustCheck(exposed.noise if calibrated else None), raw, pixels)

        for turn in range(rounds):
            found += plant(exposed, restored, structures, snrs, np.random.default_rng([number, turn, peak]), look)
    return found


def share(planted: list[Planted], choose: Callable[[Planted], bool]) -> tuple[float, int]:
    """How many per cent of the chosen were found, and how many were chosen."""
    chosen = [one.found for one in planted if choose(one)]
    return (100 * sum(chosen) / len(chosen) if chosen else float("nan")), len(chosen)


def print_detection(planted: list[Planted], wide: list[Planted]) -> None:
    """Print the table of structures against SNR."""
    print(f"\n## Found, per cent, at {MAIN_PEAK} photons at the brightest")
    print("| structure | | " + " | ".join(f"SNR {snr}" for snr in SNRS) + " |")
    print("|---|---|" + "---|" * len(SNRS))
    for structure in (*CLAIMED, WIDE):
        for way in ("erased", "invented"):
            cells = [
                share(planted + wide, lambda one, s=structure, w=way, n=snr: (one.structure, one.way, one.snr) == (s, w, n))
                for snr in SNRS
            ]
            number = round(statistics.mean(count for _, count in cells))
            print(f"| {structure} | {way} | " + " | ".join(f"{found:.0f}" for found, _ in cells) + f" | <!-- {number} each -->")
    print_claim("calibrated camera", planted)


def print_claim(name: str, planted: list[Planted]) -> None:
    """Print the share of all that are strong enough."""
    for way in ("erased", "invented"):
        at, number = share(planted, lambda one, w=way: one.way == w and one.snr == 6)
        strong, many = share(planted, lambda one, w=way: one.way == w and one.snr >= 6)
        print(f"{name}, {way}: {at:.1f} % of {number} at SNR 6, {strong:.1f} % of {many} at SNR 6 to 10")
    print(f"{name}, both: {share(planted, lambda one: one.snr >= 6)[0]:.1f} % at SNR 6 to 10")


def cost(restorer: Restorer, turns: int = 25) -> None:
    """Print the check's time beside the networks', turn by turn."""
    print("\n## Cost, ms: the fastest of turns that alternate in one run, and processor time (all threads, median)")
    print("| network, one plane | network | check | of it | network, processor | check, processor | of it |")
    print("|---|---|---|---|---|---|---|")
    for size in (512, 2048):
        exposed = Exposed.take("mitochondria", MAIN_PEAK, FIRST_SEED, (size, size))
        check, restored = TrustCheck(exposed.noise), restore(restorer, exposed.raw)

        def network(exposed: Exposed = exposed) -> None:
            restore(restorer, exposed.raw)

        _print_turns(
            f"bundled CARE 2D, 3x3, 16 filters, f32, {size}²", network, check, exposed, restored, turns if size == 512 else 5
        )
        if size == 512:
            with open_engine("openvino", _default_care(), "f32") as engine:
                batch = restored[None, None].astype(np.float32)

                def default(batch: FloatArray = batch) -> None:
                    engine.infer(batch)

                _print_turns("CARE 2D default, 5x5, 32 filters, f32, 512²", default, check, exposed, restored, turns)


def _print_turns(
    name: str, network: Callable[[], None], check: TrustCheck, exposed: Exposed, restored: FloatArray, turns: int
) -> None:
    spent: dict[str, list[tuple[float, float]]] = {"network": [], "check": []}
    work = {"network": network, "check": lambda: check_plane(check, exposed.raw, restored)}
    for turn in range(turns + 2):
        for what, do in work.items():
            began, busy = time.perf_counter(), time.process_time()
            do()
            if turn >= 2:
                spent[what].append((1e3 * (time.perf_counter() - began), 1e3 * (time.process_time() - busy)))
    fastest = [min(wall for wall, _ in spent[what]) for what in work]
    busy_ms = [statistics.median(processor for _, processor in spent[what]) for what in work]
    columns = (f"{a:.1f} | {b:.1f} | {100 * b / a:.1f} %" for a, b in (fastest, busy_ms))
    print(f"| {name} | " + " | ".join(columns) + " |", flush=True)


def _default_care() -> bytes:
    from live_restore.models.nets import build_net
    from live_restore.models.onnx_export import to_onnx

    return to_onnx(build_net("care", {"n_dim": 2}, seed=0))


def example(restorer: Restorer) -> Example:
    """Make the picture of the figure: one structure invented, one erased."""
    exposed = Exposed.take("mitochondria", MAIN_PEAK, FIRST_SEED + 101)
    restored = restore(restorer, exposed.raw)
    rng = np.random.default_rng(5)
    blob, reach = Structure("blob", 2), 28
    top, left = 190, 190
    invented, erased = (top + 62, left + 120), (top + 128, left + 60)
    squares = [(slice(y - reach, y + reach + 1), slice(x - reach, x + reach + 1)) for y, x in (invented, erased)]
    added = of_strength(blob.draw(rng), 7.0, exposed, squares[0])
    hidden = of_strength(blob.draw(rng), 7.0, exposed, squares[1])
    shown, raw = restored.copy(), exposed.raw.copy()
    shown[squares[0]] += exposed.gain * added
    shot = exposed.camera.gain_adu_per_e[squares[1]] * rng.poisson(hidden)
    raw[squares[1]] = np.rint(raw[squares[1]] + shot).astype(np.uint16)
    trust = check_plane(TrustCheck(exposed.noise), raw, shown)
    window = slice(top, top + 190), slice(left, left + 190)
    places = [(y - top, x - left) for y, x in (invented, erased)]
    return Example(raw[window], shown[window], trust.map[0][window], trust.figures["threshold"], places[0], places[1])


def main() -> None:
    """Measure, print, draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--fields", type=int, default=3, help="of each kind, for what is raised")
    parser.add_argument("--rounds", type=int, default=40, help="of planting, on a field of each kind")
    parser.add_argument("--figure", type=Path, default=FIGURE)
    parser.add_argument("--no-cost", action="store_true")
    options = parser.parse_args()
    with Restorer(open_package(PACKAGE), engine="openvino", precision="f32") as restorer:
        areas = honest(restorer, options.fields)
        planted = detect(restorer, options.rounds, CLAIMED, SNRS)
        wide = detect(restorer, max(1, options.rounds // 6), (WIDE,), SNRS)
        print_detection(planted, wide)
        few = max(1, options.rounds // 6)
        print_claim("estimated noise", detect(restorer, few, CLAIMED, (6, 7, 8, 9, 10), calibrated=False))
        for peak in (5, 100):
            print_claim(f"{peak} photons", detect(restorer, few, CLAIMED, (6, 7, 8, 9, 10), peak=peak))
        draw(example(restorer), planted, CLAIMED, areas, options.figure)
        print(f"\ndrew {options.figure}")
        if not options.no_cost:
            cost(restorer)


if __name__ == "__main__":
    main()
