"""The raw dataset of an acquisition that pymmcore-plus runs: NDTiff, frame by frame, as pycro-manager writes it.

Receives frames with their axes; hands on a folder that every reader of NDTiff opens, ours for backfill included. Its index
is on disk with every frame, so that after a crash at most the frame in flight is missing. It does not know who took the frames.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

# Every file of a dataset is laid out at its full size first; without sparse files that much has to be free.
FILE_BYTES = 4 * 2**30


class RawDataset:
    """An NDTiff dataset that is being written, in a folder of its own: ``name_1``, the next time ``name_2``.

    Parameters
    ----------
    directory : Path
        Made if absent.
    name : str
    summary : mapping
        What holds for every frame, by Micro-Manager's names.
    """

    def __init__(self, directory: Path, name: str, summary: Mapping[str, Any]) -> None:
        from ndstorage import NDTiffDataset

        self._dataset = NDTiffDataset(str(directory), name=name, writable=True)
        self._dataset.initialize(dict(summary))
        self.path = Path(self._dataset.path)
        self.frames = 0

    def write(self, axes: Mapping[str, int | str], pixels: NDArray[np.uint16], metadata: Mapping[str, Any]) -> None:
        """Write a frame, pixels (Y, X).

        Raises
        ------
        OSError
            If the disk is full, or gone.
        """
        self._dataset.put_image(dict(axes), np.ascontiguousarray(pixels), {**metadata, "Axes": dict(axes)})
        self._dataset._index_file.flush()  # noqa: SLF001
        self.frames += 1

    def close(self) -> None:
        """Cut the file to its length; twice is fine."""
        if not self._dataset.is_finished():
            self._dataset.finish()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
