"""The raw dataset of an acquisition that pymmcore-plus runs: NDTiff, frame by frame, as pycro-manager writes it.

Receives frames with their axes; hands on a folder that every reader of NDTiff opens, ours for backfill included. Its index
is on disk with every frame, so that after a crash at most the frame in flight is missing. It does not know who took the frames.
"""

from collections.abc import Mapping
from contextlib import suppress
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
        self._whole: tuple[Path, int, int] | None = None

    def write(self, axes: Mapping[str, int | str], pixels: NDArray[np.uint16], metadata: Mapping[str, Any]) -> None:
        """Write a frame, pixels (Y, X).

        Raises
        ------
        OSError
            If the disk is full, or gone.
        """
        self._dataset.put_image(dict(axes), np.ascontiguousarray(pixels), {**metadata, "Axes": dict(axes)})
        self._dataset._index_file.flush()  # noqa: SLF001
        writer = self._dataset.current_writer
        self._whole = Path(writer.filename), writer.file.tell(), writer.next_ifd_offset_location
        self.frames += 1

    def close(self) -> None:
        """Cut the file to its length, on a full disk too; twice is fine."""
        if self._dataset.is_finished():
            return
        try:
            self._dataset.finish()
        except OSError:
            self._cut_off()

    def _cut_off(self) -> None:
        """End the file behind the last whole frame, where the disk had no room for the next."""
        for file in (self._dataset.current_writer.file, self._dataset._index_file):  # noqa: SLF001
            with suppress(OSError):
                file.close()
        self._dataset._finished_event.set()  # noqa: SLF001
        if self._whole is not None:
            name, end, last_link = self._whole
            with name.open("rb+") as file:
                file.truncate(end)
                file.seek(last_link)
                file.write(bytes(4))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
