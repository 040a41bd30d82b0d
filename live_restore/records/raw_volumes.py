"""The volumes of a raw dataset, by the same keys under which the hook hands them on while they are taken.

Receives the path of a dataset and what was planned; hands on volumes that are read when asked. It does not know which of
them are wanted.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from live_restore.errors import ImageError
from live_restore.frames import VolumeKey, volume_key
from live_restore.records.images import Image, is_ndtiff, open_images
from live_restore.records.ndtiff_images import NDTiffFrame, read_frames

Spacing = tuple[float | None, float | None, float | None]


@dataclass(frozen=True, slots=True, eq=False)
class RawVolume:
    """One volume on disk.

    Attributes
    ----------
    key : VolumeKey
    planes : int
        How many of its frames are there.
    expected : int
        How many there should be.
    read : callable
        Gives the volume, (Z, Y, X), camera counts.
    """

    key: VolumeKey
    planes: int
    expected: int
    read: Callable[[], NDArray[Any]]

    @property
    def whole(self) -> bool:
        """Whether every frame is there."""
        return self.planes >= self.expected


class RawRun:
    """A raw dataset, opened; close it after use.

    Attributes
    ----------
    volumes : dict of VolumeKey to RawVolume
        In order of acquisition where the dataset says, else by key.
    pixel_size_um : tuple of float or None
        (z, y, x).
    frame_interval_s : float or None
    notes : tuple of str
        What had to be supposed or left out.
    """

    def __init__(self, images: Sequence[Image], volumes: Mapping[VolumeKey, RawVolume]) -> None:
        self.volumes = dict(volumes)
        info = images[0].info
        self.pixel_size_um, self.frame_interval_s = info.pixel_size_um, info.frame_interval_s
        self.notes = tuple(dict.fromkeys(note for image in images for note in image.info.notes))
        self._opened = ExitStack()
        for image in images:
            self._opened.enter_context(image)

    def close(self) -> None:
        """Give the files back; a second time is fine."""
        self._opened.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def open_raw(path: Path, plan: Mapping[str, Any]) -> RawRun:
    """Open the raw dataset of a run.

    Parameters
    ----------
    path : Path
        An NDTiff dataset, whose frames carry their axes; or any other image, whose positions and channels are told by
        the plan, in their order, or else numbered and named as the image says.
    plan : mapping
        As the hook gave it: ``planes``, ``positions``, ``channels``, as far as it knew.

    Raises
    ------
    ImageError
        If it cannot be read.
    """
    images = open_images(path)
    if is_ndtiff(path):
        return RawRun(images, _of_frames(read_frames(path), _planned(plan, "planes", int, 0)))
    found = _of_images(images, _planned(plan, "positions", list, []), _planned(plan, "channels", list, []))
    return RawRun(images, {volume.key: volume for volume in found})


def _of_frames(frames: Sequence[NDTiffFrame], planned: int) -> dict[VolumeKey, RawVolume]:
    """Gather the frames of an NDTiff dataset by volume; a frame that was taken twice counts as it was taken last."""
    by_key: dict[VolumeKey, dict[int, NDTiffFrame]] = {}
    for frame in frames:
        z = frame.axes.get("z", 0)
        planes = by_key.setdefault(volume_key(frame.axes), {})
        if frame.is_on_disk:
            planes[z if isinstance(z, int) else 0] = frame
    most: dict[str, int] = {}
    for key, planes in by_key.items():
        most[key.channel] = max(most.get(key.channel, 0), len(planes))
    # a channel of which no volume has a second plane is taken without a z-stack
    expected = {channel: count if count <= 1 else max(count, planned) for channel, count in most.items()}
    return {
        key: RawVolume(key, len(planes), expected[key.channel], partial(_read, key, [planes[z] for z in sorted(planes)]))
        for key, planes in by_key.items()
    }


def _read(key: VolumeKey, frames: Sequence[NDTiffFrame]) -> NDArray[Any]:
    if not frames:
        raise ImageError(f"the raw dataset holds no frame of {key}")
    first = frames[0]
    volume = np.empty((len(frames), first.height, first.width), first.dtype.newbyteorder("="))  # (Z, Y, X)
    for plane, frame in zip(volume, frames, strict=True):
        frame.read_into(plane)
    return volume


def _of_images(images: Sequence[Image], positions: Sequence[str], channels: Sequence[str]) -> Iterator[RawVolume]:
    """Name the volumes of other images, position by position."""
    for number, image in enumerate(images):
        position = positions[number] if len(positions) == len(images) else str(number)
        names = channels if len(channels) == len(image.info.channels) else _named(image.info.channels)
        for time in range(image.info.times):
            for channel, name in enumerate(names):
                lacking = (time, channel) in image.missing
                planes = 0 if lacking else image.info.planes
                key = VolumeKey(time, str(position), str(name))
                yield RawVolume(key, planes, image.info.planes, partial(image.volume, time, channel))


def _named(channels: Sequence[str]) -> Sequence[str]:
    """Name channels as the hook does: the only one of an image that names none is "Default"."""
    return ("Default",) if tuple(channels) == ("channel 0",) else channels


def _planned(plan: Mapping[str, Any], name: str, kind: type, otherwise: Any) -> Any:
    value = plan.get(name)
    return value if isinstance(value, kind) else otherwise
