"""The microscope that a command is about: the hardware configuration that was named, or the demo's.

Receives a path or nothing; hands on the configuration, or what is known of the camera's noise. Everything is imported when it
is needed. It does not know which command asks.
"""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from live_restore.config import HardwareConfig
    from live_restore.restore.noise import CameraNoise


def rig_of(config: Path | None) -> "HardwareConfig | None":
    """Read the hardware configuration, if one was named."""
    from live_restore.config import HardwareConfig

    return None if config is None else HardwareConfig.from_file(config)


def rig_or_demo(config: Path | None) -> "HardwareConfig":
    """Read the hardware configuration; without one it is the demo microscope."""
    from live_restore.acquire.simulate.microscope import demo_config

    return rig_of(config) or demo_config()


def camera_from(config: Path | None) -> "CameraNoise | None":
    """Give the noise of the camera of a hardware configuration, if one was named."""
    from live_restore.configured import camera_noise

    rig = rig_of(config)
    return camera_noise(rig.camera) if rig else None
