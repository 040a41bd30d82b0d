"""Tiled against whole: what is left of seams for CARE and for a trained RCAN.

    python scripts/measure_tiling.py [--seconds 90]

Trains a small RCAN on rendered cells for a while (its attention must have learned something), restores a rendered
field whole and in tiles of falling size, and prints the largest difference as a fraction of the restored image's range
(its percentile 99.9 minus its percentile 0.1): with each tile's own attention, and with the whole image's pooled means
in two passes.
"""

import argparse
import time
from dataclasses import replace

import numpy as np
import torch

from live_restore.acquire.simulate.camera import build_camera
from live_restore.acquire.simulate.specimen import example_field
from live_restore.engines.network_engines import NetworkEngines
from live_restore.intensity import measure_percentiles
from live_restore.models.geometry.graph import measure_geometry
from live_restore.models.nets import build_net
from live_restore.models.onnx_export import to_onnx
from live_restore.restore.pipeline import Network, restore
from live_restore.restore.tiling import Space

RCAN = {"n_dim": 2, "channels": 16, "blocks": 2, "groups": 3, "reduction": 4}
SIZE = 512


def rendered(seed: int, size: int = SIZE) -> tuple[np.ndarray, np.ndarray]:
    """Low-light counts and expected counts of one field, (1, Y, X), scaled by the percentiles of the former."""
    photons = example_field(seed, (size, size), ("mitochondria", "filaments")[seed % 2], peak_photons=15)
    camera = build_camera(seed, (size, size))
    low = camera.expose(photons, np.random.default_rng(seed))[None]
    counts = measure_percentiles(low, 2, 99.9)
    return counts.scale(low), counts.scale(camera.mean_adu(photons)[None])


def trained(seconds: float) -> torch.nn.Module:
    """Train the RCAN on patches of rendered fields."""
    torch.manual_seed(0)
    net = build_net("rcan", RCAN, seed=0)
    pairs = [rendered(seed) for seed in range(100, 108)]
    optimiser = torch.optim.Adam(net.parameters(), 1e-3)
    rng = np.random.default_rng(0)
    began, steps = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        chosen = [(pairs[rng.integers(len(pairs))], *rng.integers(0, SIZE - 64, 2)) for _ in range(8)]
        patches = [np.stack([pair[side][:, y : y + 64, x : x + 64] for pair, y, x in chosen]) for side in (0, 1)]
        low, high = (torch.from_numpy(side.astype(np.float32)) for side in patches)
        optimiser.zero_grad()
        torch.nn.functional.l1_loss(net(low), high).backward()
        optimiser.step()
        steps += 1
    print(f"RCAN {RCAN}: {steps} steps in {seconds:.0f} s")
    return net.eval()


def compare(name: str, net: torch.nn.Module) -> None:
    """Print the differences for one network."""
    onnx = to_onnx(net)
    g = measure_geometry(onnx)
    space = Space(g.halo, g.divisible_by, g.output_factor, g.global_pooling)
    image = rendered(7)[0]
    unit = measure_percentiles(image, 0, 100)
    whole = Network(NetworkEngines(onnx, "openvino", "f32"), space, 1, False, 10**9)
    expected = restore(image, whole, unit, None).pixels
    span = np.percentile(expected, 99.9) - np.percentile(expected, 0.1)
    for side in (256, 160, 112):
        tiled = restore(image, replace(whole, max_pixels=side**2), unit, None)
        line = f"{name}, halo {g.halo[0]}, {tiled.tiles:3} tiles of at most {side}^2: "
        line += f"{np.abs(tiled.pixels - expected).max() / span:.1e}"
        if g.global_pooling:
            alone = replace(whole, space=replace(space, global_pooling=False), max_pixels=side**2)
            own = restore(image, alone, unit, None)
            line += f" in two passes, {np.abs(own.pixels - expected).max() / span:.1e} with each tile's own attention"
        print(line)


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=90, help="training time of the RCAN")
    chosen = parser.parse_args()
    compare("CARE depth 2 kernel 5", build_net("care", {"n_dim": 2, "first_filters": 8}, seed=0))
    compare("RCAN", trained(chosen.seconds))


if __name__ == "__main__":
    main()
