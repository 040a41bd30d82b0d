"""As configured: a hardware configuration, turned into what the restore process is told.

Receives a `HardwareConfig` and what the command line says besides; hands on `ServeOptions`. It does not know how they
were written, nor what the restore process does with them.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from live_restore.arguments import package_path, split_model
from live_restore.config import CameraFacts, HardwareConfig
from live_restore.errors import ConfigError
from live_restore.restore.noise import CameraNoise
from live_restore.restorer import Mode
from live_restore.server import ModelChoice

_MAPS = ("offset_adu", "gain_adu_per_e", "read_noise_e")


def camera_noise(camera: CameraFacts | None) -> CameraNoise | None:
    """Tell noise from counts by what is known of the camera; None where nothing is.

    Raises
    ------
    ConfigError
        If its maps cannot be read.
    """
    if camera is None:
        return None
    values = {name: getattr(camera, name) for name in _MAPS}
    if camera.maps is not None:
        values |= _maps(camera.maps)
    saturation_adu = float(min((1 << camera.bit_depth) - 1, camera.offset_adu + camera.gain_adu_per_e * camera.full_well_e))
    return CameraNoise(**values, quantum_efficiency=camera.quantum_efficiency, saturation_adu=saturation_adu)


def _maps(path: Path) -> dict[str, np.ndarray[tuple[int, ...], np.dtype[np.float32]]]:
    try:
        with np.load(path, allow_pickle=False) as maps:
            return {name: maps[name].astype(np.float32) for name in _MAPS}
    except (OSError, ValueError, KeyError) as error:
        raise ConfigError(f"camera maps {path} cannot be read: {error}; an .npz with {', '.join(_MAPS)} is needed") from error


def model_choices(
    config: HardwareConfig | None, models: Sequence[str], engine: str | None, precision: str | None, mode: Mode | None
) -> tuple[ModelChoice, ...]:
    """Choose the models: those of the configuration, and in their place those that were named.

    Parameters
    ----------
    config : HardwareConfig or None
    models : sequence of str
        PACKAGE or CHANNEL=PACKAGE.
    engine, precision, mode : str or None
        For all of them, in place of what the configuration says.
    """
    chosen = {} if config is None else _configured(config)
    for text in models:
        channels, path = split_model(text)
        for channel in channels or ("*",):
            chosen[channel] = ModelChoice(channel, package_path(path))
    return tuple(
        ModelChoice(one.channel, one.package, engine or one.engine, precision or one.precision, mode or one.mode)
        for one in chosen.values()
    )


def _configured(config: HardwareConfig) -> dict[str, ModelChoice]:
    return {
        name: ModelChoice(name, package_path(channel.model), channel.engine, channel.precision, channel.normalisation)
        for name, channel in config.channels.items()
        if channel.model != "none"
    }


def references_ms(config: HardwareConfig | None) -> dict[str, float]:
    """Exposures that one would use without restoration, by channel; the dose saved is counted against them."""
    if config is None:
        return {}
    return {name: ms for name, channel in config.channels.items() if (ms := channel.reference_exposure_ms) is not None}
