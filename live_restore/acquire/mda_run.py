"""An acquisition by pymmcore-plus's own engine, every raw frame saved here, since the engine writes no NDTiff.

Receives the frames that are to be taken, a core and a hook; hands on how many were taken and where they are. It does not know
configurations and plans, nor what the hook does.
"""

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from live_restore.acquire.hook import RestoreHook
from live_restore.acquire.mda import connect
from live_restore.acquire.planned import PlannedFrame, Setting
from live_restore.acquire.raw_dataset import RawDataset
from live_restore.errors import AcquisitionError

Progress = Callable[[int, int], None]
Settings = Callable[[PlannedFrame], list[Setting]]

_NAMED_GROUP = "live_restore"
_LOOK_S = 0.05


def run_mda(
    core: Any,
    frames: Sequence[PlannedFrame],
    settings: Settings,
    place: tuple[Path, str, Mapping[str, Any]],
    hook: RestoreHook | None,
    progress: Progress,
) -> tuple[int, Path, bool]:
    """Run the engine in a thread of its own, so that Ctrl-C comes through.

    Parameters
    ----------
    core : CMMCorePlus
    frames : sequence of PlannedFrame
    settings : callable
        Which device properties make a frame's light.
    place : (Path, str, mapping)
        Directory, name and summary of the dataset.
    hook : RestoreHook or None
    progress : callable
        Told how many frames are saved, of how many.

    Returns
    -------
    (int, Path, bool)
        Frames saved, their dataset, and whether somebody pressed Ctrl-C.

    Raises
    ------
    AcquisitionError
        If the engine failed, or a frame could not be saved; the frames before are safe.
    """
    events = [frame.as_mda_event(settings(frame)) for frame in _by_name(frames, core)]
    failures: list[Exception] = []
    with RawDataset(*place) as raw:
        writer = _Writer(core, raw, failures)
        core.mda.events.frameReady.connect(writer.save)
        connection = None if hook is None else connect(hook, core, raw.path)
        try:
            watched = events if connection is None else connection.watch(events)
            stopped = _until_it_ends(core, watched, lambda: progress(raw.frames, len(events)), failures)
        finally:
            core.mda.events.frameReady.disconnect(writer.save)
            if connection is not None:
                connection.disconnect()
    progress(raw.frames, len(events))
    if failures:
        sentence = f"the acquisition ended after {raw.frames} of {len(events)} frames, which are in {raw.path}: {failures[0]}"
        raise AcquisitionError(sentence) from failures[0]
    return raw.frames, raw.path, stopped


class _Writer:
    """Saves what comes; the first failure ends the acquisition."""

    def __init__(self, core: Any, raw: RawDataset, failures: list[Exception]) -> None:
        self._core, self._raw, self._failures = core, raw, failures
        self._began_s = time.monotonic()

    def save(self, image: Any, event: Any, said: Mapping[str, Any]) -> None:
        """Save a frame; a slot of ``frameReady``, so it does not raise."""
        if self._failures:
            return
        try:
            self._raw.write(event.metadata["axes"], image, _metadata(event, said, time.monotonic() - self._began_s))
        except Exception as error:  # pymmcore-plus would only log it
            self._failures.append(error)
            self._core.mda.cancel()


def _until_it_ends(core: Any, events: list[Any], tell: Callable[[], None], failures: list[Exception]) -> bool:
    """Run the engine; whether somebody pressed Ctrl-C. A second time gives up waiting."""

    def drive() -> None:
        try:
            core.mda.run(events)
        except Exception as error:  # whatever a driver may raise
            failures.append(error)

    thread = threading.Thread(target=drive, name="acquisition", daemon=True)
    thread.start()
    stopped = False
    while thread.is_alive():
        try:
            thread.join(_LOOK_S)
            tell()
        except KeyboardInterrupt:
            if stopped:
                raise
            stopped = True
            core.mda.cancel()
    return stopped


def _by_name(frames: Sequence[PlannedFrame], core: Any) -> Iterator[PlannedFrame]:
    """Give every channel a preset of its own name: by that pymmcore-plus calls it."""
    for frame in frames:
        name = str(frame.axes.get("channel", frame.preset))
        if not frame.group or name == frame.preset:
            yield frame
            continue
        if name not in core.getAvailableConfigs(_NAMED_GROUP):
            for device, setting, value in core.getConfigData(frame.group, frame.preset):
                core.defineConfig(_NAMED_GROUP, name, device, setting, value)
        yield replace(frame, group=_NAMED_GROUP, preset=name)


def _metadata(event: Any, said: Mapping[str, Any], elapsed_s: float) -> dict[str, Any]:
    """Say of a frame what Micro-Manager would."""
    found = {
        "Channel": event.channel.config if event.channel else None,
        "Exposure": said.get("exposure_ms"),
        "PixelSize_um": said.get("pixel_size_um"),
        "Camera": said.get("camera_device"),
        "PixelType": "GRAY16",
        "ElapsedTime-ms": round(1e3 * elapsed_s, 3),
        "XPosition_um_Intended": event.x_pos,
        "YPosition_um_Intended": event.y_pos,
        "ZPosition_um_Intended": event.z_pos,
    }
    return {name: value for name, value in found.items() if value is not None}
