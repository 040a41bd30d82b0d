"""Event-driven microscopy: scan at low light, look at the restored volumes, and image the brightest cell again.

Start the restore process first, ``live-restore serve --model care2d_demo``, then ``python scripts/find_bright_cell.py``.
It drives the demo microscope through pycro-manager; on a rig, leave `open_microscope` out and start Micro-Manager or
`start_headless` as always.
"""

import argparse
from pathlib import Path

import numpy as np

from live_restore.acquire.hook import RestoreHook

STEP_UM, PLANES = 0.5, 5
SITES_UM = [(0.0, 0.0), (40.0, 0.0), (0.0, 40.0), (40.0, 40.0)]


def open_microscope():
    """Make the demo microscope the core of pycro-manager."""
    from live_restore.acquire.simulate.microscope import demo_core, pycromanager_core

    core = demo_core()
    core.setConfig("Channel", "DAPI")
    pycromanager_core(core)
    return core


def stack(site, middle_um, exposure_ms, light):
    """Give the events of one z-stack; every event says exposure and position, for pycro-manager drops what only some say."""
    x_um, y_um = SITES_UM[site]
    return [
        {
            "axes": {"position": site, "z": plane, "light": light},
            "x": x_um,
            "y": y_um,
            "z": middle_um + STEP_UM * (plane - PLANES // 2),
            "exposure": exposure_ms,
        }
        for plane in range(PLANES)
    ]


def brightness(volume):
    """Measure the counts of the brightest tenth of a percent: a restored pixel is not chosen for its noise."""
    return float(np.percentile(volume.pixels, 99.9))


def main():
    """Scan, decide, image again."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--address", default="tcp://127.0.0.1:5757")
    options.add_argument("--directory", type=Path, default=Path("acquired"))
    said = options.parse_args()
    core = open_microscope()
    middle_um = core.getPosition()
    with (
        RestoreHook(said.address, results="float32") as hook,
        hook.acquisition(said.directory, "bright_cell") as acquisition,
    ):
        found = {}
        for site in range(len(SITES_UM)):
            acquisition.acquire(stack(site, middle_um, 20.0, "low"))
        while len(found) < len(SITES_UM):
            volume = hook.restored.next(timeout_s=30)
            if volume is None:
                raise SystemExit(f"no restored volume came within 30 s; is a restore process running at {said.address}?")
            found[volume.key.position] = brightness(volume)
            print(f"position {volume.key.position}: {found[volume.key.position]:.0f} counts, after {volume.latency_ms:.0f} ms")
        brightest = max(found, key=found.__getitem__)
        print(f"brightest: position {brightest}")
        acquisition.acquire(stack(int(brightest), middle_um, 100.0, "high"))
    print(hook.summary())


if __name__ == "__main__":
    main()
