"""As configured: a hardware configuration, turned into what the restore process is told.

Receives a `HardwareConfig` and what the command line says besides; hands on `ServeOptions`. It does not know how they
were written, nor what the restore process does with them.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from live_restore.arguments import package_path, split_model
from live_restore.config import CameraFacts, HardwareConfig
from live_restore.errors import ConfigError
from live_restore.models.package import open_package
from live_restore.records.promotions import Promotions
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
    config: HardwareConfig | None,
    models: Sequence[str],
    engine: str | None,
    precision: str | None,
    mode: Mode | None,
    tolerate: bool = False,
) -> tuple[ModelChoice, ...]:
    """Choose the models: those of the configuration, in their place those promoted, and before all those that were named.

    Parameters
    ----------
    config : HardwareConfig or None
    models : sequence of str
        PACKAGE or CHANNEL=PACKAGE.
    engine, precision, mode : str or None
        For all of them, in place of what the configuration says.
    tolerate : bool
        Take the precision that is asked for, whatever its certificate says.

    Raises
    ------
    ConfigError
        If a model that was promoted is gone, or is no longer what it was.
    """
    chosen = {} if config is None else _configured(config)
    for text in models:
        channels, path = split_model(text)
        for channel in channels or ("*",):
            chosen[channel] = ModelChoice(channel, package_path(path))
    return tuple(
        replace(
            one,
            engine=engine or one.engine,
            precision=precision or one.precision,
            mode=mode or one.mode,
            tolerate=tolerate or one.tolerate,
        )
        for one in chosen.values()
    )


def _configured(config: HardwareConfig) -> dict[str, ModelChoice]:
    choices = {name: configured_choice(config, name) for name in config.channels}
    return {name: choice for name, choice in choices.items() if choice is not None}


def configured_choice(config: HardwareConfig, channel: str) -> ModelChoice | None:
    """Choose the model of one channel: the promoted one, else that of the configuration; None if it has none.

    Raises
    ------
    ConfigError
        If the model that was promoted is gone, or is no longer what it was.
    """
    said, promotions = config.channels[channel], Promotions(config.learn.models, channel)
    serving = promotions.serving
    if serving is None:
        return None if said.model == "none" else choice_for(config, channel, package_path(said.model))
    path = promotions.path(serving)
    found = open_package(path).onnx_sha256
    if found != serving.sha256:
        raise ConfigError(
            f"{path} has another network (sha256 {found[:12]}...) than the one promoted for {channel} on {serving.when} "
            f"({serving.sha256[:12]}...); promote it anew, or: live-restore rollback --channel {channel}"
        )
    return choice_for(config, channel, path)


def choice_for(config: HardwareConfig, channel: str, package: Path) -> ModelChoice:
    """Say how a package would be served for a channel: with the engine and normalisation of the configuration."""
    said = config.channels[channel]
    return ModelChoice(channel, package, said.engine, said.precision, said.normalisation, said.tolerate)


def promoted_words(config: HardwareConfig | None, choice: ModelChoice) -> str:
    """Say when the package of a choice was promoted; nothing if it was not."""
    promotions = None if config is None else Promotions(config.learn.models, choice.channel)
    serving = promotions.serving if promotions else None
    if promotions is None or serving is None or promotions.folder / serving.package != choice.package:
        return ""
    insisted = ", by force" if serving.forced else ""
    return f", promoted on {serving.when} by {serving.by}{insisted}"


def references_ms(config: HardwareConfig | None) -> dict[str, float]:
    """Exposures that one would use without restoration, by channel; the dose saved is counted against them."""
    if config is None:
        return {}
    return {name: ms for name, channel in config.channels.items() if (ms := channel.reference_exposure_ms) is not None}
