"""The camera measured: from folders of pairs, from files of dark and flat frames, or from both.

Receives paths; hands on a `CameraEstimate`. It does not know how the figures come about, nor where they go.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from live_restore.errors import PairError
from live_restore.pairs.camera_estimate import CameraEstimate
from live_restore.pairs.camera_frames import estimate_from_frames, with_dark
from live_restore.pairs.photon_transfer import estimate_from_pairs
from live_restore.records.images import open_images
from live_restore.records.pairs import read_pairs


def measure_camera(
    paths: Sequence[Path], dark: Path | None = None, flats: Sequence[Path] = (), position: str | None = None
) -> CameraEstimate:
    """Measure a camera.

    Parameters
    ----------
    paths : sequence of Path
        Folders of pairs; files among them are further files of flat frames, where there are any.
    dark : Path or None
    flats : sequence of Path
    position : str or None
        See `live_restore.records.pairs.read_pairs`.

    Raises
    ------
    PairError
        If there is nothing to go by, or it cannot be used.
    ImageError
        If a file of frames cannot be read.
    """
    files = [path for path in paths if path.is_file()]
    folders = [path for path in paths if path not in files]
    if files and not flats:
        raise PairError(f"{files[0]} is a file; give a folder of pairs, or --flat with files of flat frames")
    if flats and dark is None:
        raise PairError("flat frames need dark ones to start from; give them with --dark")
    if flats and folders:
        raise PairError("flat frames and pairs both tell the gain; give one of them")
    if dark is None and not folders:
        raise PairError("there is nothing to go by; give a folder of pairs, or --dark and --flat")
    darks = None if dark is None else estimate_from_frames(read_frames(dark), [read_frames(f) for f in (*flats, *files)])
    if darks is not None and not folders:
        return darks
    pairs = [pair for folder in folders for pair in read_pairs(folder, position).pairs]
    if darks is None:
        return estimate_from_pairs(pairs)
    return with_dark(darks, estimate_from_pairs(pairs, np.asarray(darks.maps["offset_adu"], np.float64)))


def read_frames(path: Path) -> NDArray[Any]:
    """Read all frames of a file or dataset of one channel, whatever their axis is called; (N, Y, X).

    Raises
    ------
    ImageError
        If it cannot be read.
    PairError
        If it has several channels.
    """
    stacks = []
    for opened in open_images(path):
        with opened as image:
            if len(image.info.channels) > 1:
                raise PairError(f"{path} has {len(image.info.channels)} channels; save the frames of one camera on their own")
            stacks += [image.volume(time, 0) for time in range(image.info.times)]
    if len({stack.shape[1:] for stack in stacks}) > 1:
        raise PairError(f"{path} has frames of different sizes; take all alike")
    return np.concatenate(stacks)  # (N, Y, X)
