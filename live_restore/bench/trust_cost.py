"""What the trust check costs, beside the network whose volumes it checks, turn by turn.

Receives how many turns; hands on figures. It does not know how either works.
"""

import time
from collections.abc import Callable
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from live_restore.acquire.simulate.camera import build_camera
from live_restore.acquire.simulate.specimen import example_field
from live_restore.models.package import open_package
from live_restore.models.registry import bundled_folder
from live_restore.restore.noise import CameraNoise
from live_restore.restore.trust import TrustCheck
from live_restore.restorer import Restorer

_PEAK_PHOTONS = 20.0
# Each bundled network, in a volume such as it meets in the demo.
_CASES: tuple[tuple[str, tuple[int, int, int]], ...] = (
    ("care2d_demo", (1, 512, 512)),
    ("care2d_demo", (1, 2048, 2048)),
    ("care3d_demo", (12, 512, 512)),
    ("rcan3d_demo", (12, 512, 512)),
)


def trust_cost(turns: int) -> list[dict[str, Any]]:
    """Measure network and check in turn.

    Returns
    -------
    list of dict
        ``case``, ``network_ms``, ``check_ms``; medians.
    """
    return [_cost(name, shape, turns) for name, shape in _CASES]


def _cost(name: str, shape: tuple[int, int, int], turns: int) -> dict[str, Any]:
    raw, noise = _exposed(shape)
    check = TrustCheck(noise)
    with Restorer(open_package(bundled_folder() / name), precision="f32") as restorer:
        restored = restorer.restore(raw[None]).pixels[0]
        spent: dict[str, list[float]] = {"network_ms": [], "check_ms": []}
        work: dict[str, Callable[[], object]] = {
            "network_ms": lambda: restorer.restore(raw[None]),
            "check_ms": lambda: check.check(raw, restored),
        }
        for _ in range(turns):
            for what, do in work.items():
                began = time.perf_counter()
                do()
                spent[what].append(1e3 * (time.perf_counter() - began))
    size = "x".join(map(str, shape))
    return {"case": f"{size}, {name}, f32", **{what: median(each) for what, each in spent.items()}}


def _exposed(shape: tuple[int, int, int]) -> tuple[NDArray[np.uint16], CameraNoise]:
    """Render a low-light volume and its camera; large frames repeat a field of 512 x 512."""
    planes, height, width = shape
    field = example_field(1, (planes, 512, 512), peak_photons=_PEAK_PHOTONS)
    photons = np.tile(field, (1, height // 512, width // 512))
    camera = build_camera(1, (height, width))
    noise = CameraNoise(camera.offset_adu, camera.gain_adu_per_e, camera.read_noise_e)
    return camera.expose(photons, np.random.default_rng(1)), noise
