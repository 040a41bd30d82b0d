"""Which source options ask for: pairs, or high-light images with a simulated camera; and what a card says of the camera.

Receives options and pairs; hands on a `Source`. It does not know networks, nor how pairs are split.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from live_restore.errors import PairError
from live_restore.intensity import IntensityRange
from live_restore.records.names import TIFF_SUFFIXES, natural_key, stem
from live_restore.records.pair_positions import positions_in_names
from live_restore.records.pairs import Pair, PairSet, read_pairs
from live_restore.restore.noise import CameraNoise
from live_restore.training.options import TrainingOptions
from live_restore.training.simulated import SimulatedSource
from live_restore.training.sources import PairSource, Source


def read_folder(folder: Path, options: TrainingOptions) -> PairSet:
    """Read what a folder holds: pairs, or with ``[simulate]`` high-light images.

    Raises
    ------
    PairError
        If it holds none.
    """
    if options.simulate is None:
        return read_pairs(folder, options.pairs.position)
    return high_images(folder, options.pairs.position)


def open_source(
    pairs: Sequence[Pair],
    options: TrainingOptions,
    camera: CameraNoise | None = None,
    frozen: IntensityRange | None = None,
    held_out: bool = False,
) -> Source:
    """Open pairs, or high-light images, as the options ask for; every file is read once.

    Parameters
    ----------
    pairs : sequence of Pair
        As `read_folder` gives them, one side of a split.
    options : TrainingOptions
    camera : CameraNoise, optional
        Of the low images of pairs, for thinning.
    frozen : IntensityRange, optional
        Of the training source, for the held-out one.
    held_out : bool
        Whether they are only judged by: then nothing is thinned.

    Raises
    ------
    PairError
        If a pair cannot be learned from, or not all of them together.
    """
    n_dim, memory_mb, scaling = options.network.n_dim, options.sampling.memory_mb, options.normalisation
    if options.simulate is not None:
        return SimulatedSource(pairs, options.simulate, scaling, n_dim=n_dim, memory_mb=memory_mb, frozen=frozen)
    thinning = None if held_out else options.augment.thinning
    return PairSource(pairs, scaling, n_dim=n_dim, camera=camera, thinning=thinning, memory_mb=memory_mb, frozen=frozen)


def high_images(folder: Path, position: str | None = None) -> PairSet:
    """List high-light images as pairs that have no low one: `low` is the high file as well.

    Parameters
    ----------
    folder : Path
        With TIFF files, or with a sub-folder ``high`` of them.
    position : str or None
        As for `read_pairs`.

    Raises
    ------
    PairError
        If there are none.
    """
    if not folder.is_dir():
        raise PairError(f"{folder} is no folder; give the one that has the high-light images")
    within = folder / "high" if (folder / "high").is_dir() else folder
    files = sorted((file for file in within.iterdir() if file.name.lower().endswith(TIFF_SUFFIXES)), key=natural_key)
    if not files:
        raise PairError(f"{within} holds no TIFF file; give a folder of high-light images")
    names = [stem(file) for file in files]
    positions, note = positions_in_names(names, position)
    pairs = (Pair(name, file, file, position=positions[name]) for name, file in zip(names, files, strict=True))
    return PairSet(folder, tuple(pairs), notes=(note,) if note and len(files) > 1 else ())


def camera_in(card: Mapping[str, Any]) -> CameraNoise | None:
    """Read the camera's noise from a dataset card: what the configuration said, or else what was measured on the pairs."""
    for name in ("camera", "camera_measured"):
        said = card.get(name) or {}
        figures = [_figure(said.get(key)) for key in ("offset_adu", "gain_adu_per_e", "read_noise_e")]
        offset, gain, read_noise = figures
        if said.get("certain", True) and offset is not None and gain is not None and read_noise is not None:
            return CameraNoise(offset, gain, read_noise)
    return None


def _figure(said: Any) -> float | None:
    """Read a figure, said by itself or with its error."""
    value = said.get("value") if isinstance(said, Mapping) else said
    return float(value) if isinstance(value, (int, float)) else None
