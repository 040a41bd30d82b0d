"""What stands on the dataset card of a calibration beside the counts: instrument, camera, lights, plan.

Receives plan, hardware configuration, core, and the camera's figures once they are measured; hands on words that have JSON. It
does not know how a card is written.
"""

import time
from dataclasses import asdict
from typing import Any

from live_restore.acquire.calibration import CalibratedChannel, CalibrationPlan
from live_restore.config import HardwareConfig
from live_restore.pairs.camera_estimate import CameraEstimate


def card_of(plan: CalibrationPlan, config: HardwareConfig, core: Any, engine: str) -> dict[str, Any]:
    """Say on which instrument, with which camera and lights, pairs are taken."""
    pixel_um = config.optics.pixel_size_um
    return {
        "kind": "calibration",
        "started": time.strftime("%Y-%m-%d %H:%M:%S %z"),
        "instrument": {
            "engine": engine,
            "backend": config.micromanager.backend,
            "demo": config.micromanager.demo,
            "micromanager": str(core.getVersionInfo()),
            "camera_device": str(core.getCameraDevice()),
            "optics": config.optics.model_dump(mode="json"),
        },
        "camera": None if config.camera is None else config.camera.model_dump(mode="json", exclude={"maps"}),
        "pixel_size_um": [plan.step_um, pixel_um, pixel_um],
        "light_levels": {channel.name: _levels(channel) for channel in plan.channels},
        "plan": {
            **plan.head.model_dump(mode="json", exclude={"directory"}),
            "positions": plan.positions,
            "heights_um": list(plan.heights_um),
            "limits": plan.limits.model_dump(mode="json"),
        },
    }


def camera_words(estimate: CameraEstimate) -> dict[str, Any]:
    """Say what was measured of the camera, each figure with its standard error."""
    figures = {name: getattr(estimate, name) for name in ("offset_adu", "gain_adu_per_e", "read_noise_e")}
    return {
        **{name: {"value": figure.value, "error": figure.error} for name, figure in figures.items()},
        "certain": bool(estimate.certain),
        "pixels": estimate.pixels,
        "method": estimate.method,
        "why": estimate.why,
    }


def _levels(channel: CalibratedChannel) -> dict[str, Any]:
    light = channel.light
    sets = None if light is None else light.group or f"{light.device}-{light.property}"
    return {
        "low": asdict(channel.low),
        "high": asdict(channel.high),
        "sets": sets,
        "dose_ratio": channel.dose_ratio,
        "group": channel.group,
        "preset": channel.preset,
    }
