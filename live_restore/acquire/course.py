"""The course of a calibration: frames go out one by one, come back, and become pairs.

Receives planned pairs; hands frames to whichever engine draws them, takes the images, and hands complete pairs to a queue. The
next frame goes out only when the last has come, so that what is read back belongs to it, and it waits between two pairs when
the queue is full, never within one. It does not know engines, nor what becomes of a pair.
"""

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from live_restore.acquire.asked_and_read import FrameRead, FrameReader
from live_restore.acquire.calibration import PlannedPair
from live_restore.acquire.pair_queue import PairQueue
from live_restore.acquire.planned import PlannedFrame, Setting
from live_restore.errors import AcquisitionError
from live_restore.records.pair_log import PixelSize, TakenPair

Image = NDArray[np.uint16]
Lit = tuple[PlannedFrame, list[Setting]]

_LOOK_S = 0.05


class Course:
    """Gives frames, takes images; used by one engine.

    Parameters
    ----------
    pairs : sequence of PlannedPair
    settings : callable
        Which device properties make the light of a pair's frame.
    reader : FrameReader
    queue : PairQueue of TakenPair
    frame_bytes : int
    pixel_size_um : tuple of float or None, (z, y, x)
    patience_s : float
        How long an image may take beyond its exposure.

    Attributes
    ----------
    taken : int
        Pairs that are complete.
    failure : Exception or None
        Why it ended before its time.
    """

    def __init__(
        self,
        pairs: Sequence[PlannedPair],
        settings: Callable[[PlannedPair, PlannedFrame], list[Setting]],
        reader: FrameReader,
        queue: PairQueue[TakenPair],
        frame_bytes: int,
        pixel_size_um: PixelSize,
        patience_s: float,
    ) -> None:
        self.taken = 0
        self.failure: Exception | None = None
        self._pairs, self._settings, self._reader, self._queue = pairs, settings, reader, queue
        self._frame_bytes, self._pixel_size_um, self._patience_s = frame_bytes, pixel_size_um, patience_s
        self._stopped = threading.Event()
        self._ended = threading.Event()
        self._came = threading.Event()
        self._due: Lit | None = None
        self._read: FrameRead | None = None
        self._image: Image | None = None

    def frames(self) -> Iterator[Lit]:
        """Give every frame with what makes its light; drawn by the engine, in whatever thread it likes. Never raises."""
        try:
            for pair in self._pairs:
                if not self.over:
                    yield from self._of(pair)
        except Exception as error:  # an engine that hears of it would hang
            self.fail(error)
        finally:
            self._ended.set()

    def read(self) -> None:
        """Read back what makes the frame that is due; never raises."""
        if self._due is None or self._read is not None:
            return
        try:
            self._read = self._reader.read(*self._due)
        except Exception as error:  # as above
            self.fail(error)

    def image(self, axes: Mapping[str, Any], pixels: Any) -> None:
        """Take an image; never raises."""
        try:
            due = None if self._due is None else dict(self._due[0].axes)
            if dict(axes) != due:
                raise AcquisitionError(f"an image of {dict(axes)} came while that of {due} was due; close other acquisitions")
            self._image = _checked(pixels)
        except Exception as error:  # as above
            self.fail(error)
        self._came.set()

    @property
    def over(self) -> bool:
        """Whether it ends before the last frame."""
        return self._stopped.is_set() or self._queue.failure is not None

    def stop(self) -> None:
        """End after the frame that is being taken; the pair it belongs to is not kept."""
        self._stopped.set()

    def fail(self, error: Exception) -> None:
        """End because of an error; the first counts."""
        self.failure = self.failure or error
        self._stopped.set()

    def wait(self, gone: Callable[[], bool]) -> None:
        """Wait until the last frame has come, or the engine is gone."""
        while not self._ended.wait(_LOOK_S):
            if gone():
                self.stop()
                return

    def _of(self, pair: PlannedPair) -> Iterator[Lit]:
        size = len(pair.frames) * self._frame_bytes
        self._queue.wait_for_room(size, lambda: self.over)
        lights: dict[str, list[tuple[Image, FrameRead]]] = {}
        for frame in pair.frames:
            if self.over:
                return
            self._read = self._image = None
            self._came.clear()
            self._due = frame, self._settings(pair, frame)
            yield self._due
            taken = self._await(frame)
            if taken is None:
                return
            lights.setdefault(str(frame.axes["light"]), []).append(taken)
        self._due = None
        self._queue.put(self._pair(pair, lights), size)
        self.taken += 1

    def _await(self, frame: PlannedFrame) -> tuple[Image, FrameRead] | None:
        """Wait for the image that was asked for; None if it ends before."""
        limit_s = self._patience_s + 3 * frame.exposure_ms / 1e3
        began_s = time.monotonic()
        while not self._came.wait(_LOOK_S) and not self.over:
            if time.monotonic() - began_s > limit_s:
                raise AcquisitionError(f"no image came for {dict(frame.axes)} within {limit_s:.0f} s; see what the camera says")
        if self.over or self._image is None or self._read is None:
            return None
        return self._image, self._read

    def _pair(self, pair: PlannedPair, lights: Mapping[str, Sequence[tuple[Image, FrameRead]]]) -> TakenPair:
        volumes = {light: _volume(pair, [image for image, _ in taken]) for light, taken in lights.items()}
        asked = {light: asdict(pair.channel.level(light)) for light in lights}
        reads = {light: _columns([read for _, read in taken]) for light, taken in lights.items()}
        axes = {"position": pair.place.label, "channel": pair.channel.name, "repeat": pair.repeat}
        return TakenPair(
            pair.name,
            pair.channel.name,
            pair.place.label,
            pair.repeat,
            volumes["low"],
            volumes["high"],
            volumes.get("low again"),
            said={"axes": axes, "asked": asked, "read": reads},
            pixel_size_um=self._pixel_size_um,
            dose_ratio=pair.channel.dose_ratio,
        )


def _volume(pair: PlannedPair, images: Sequence[Image]) -> Image:
    return images[0] if pair.planes is None else np.stack(images)  # ([Z,] Y, X)


def _columns(reads: Sequence[FrameRead]) -> dict[str, Any]:
    """Turn what was read frame by frame into a list per device."""
    return {
        "exposure_ms": [read.exposure_ms for read in reads],
        "light": {name: [read.light[name] for read in reads] for name in reads[0].light},
        "stage_um": [read.stage_um for read in reads],
        "read_unix_ns": [read.read_unix_ns for read in reads],
    }


def _checked(pixels: Any) -> Image:
    """Make sure that it is a camera's image, and keep a copy: engines use their buffers again."""
    if not isinstance(pixels, np.ndarray) or pixels.ndim != 2 or pixels.dtype != np.uint16:
        what = f"{pixels.dtype} of shape {pixels.shape}" if isinstance(pixels, np.ndarray) else type(pixels).__name__
        raise AcquisitionError(f"an image is {what}; pairs are (Y, X) images of uint16: set the camera to 16 bit")
    return pixels.copy()
