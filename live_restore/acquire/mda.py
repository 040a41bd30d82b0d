"""pymmcore-plus: its frames, under our names.

Receives what pymmcore-plus says while its engine runs; hands frames to a `RestoreHook`. The only file that knows the
names of pymmcore-plus and useq; it loads neither. It does not know what the hook does with a frame.
"""

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from live_restore.acquire.hook import RestoreHook
from live_restore.acquire.plan import Promise
from live_restore.frames import Light, VolumeKey

# Axes that have a field of their own; every other (grid, angle, …) is part of the position's label.
_NAMED = ("t", "p", "c", "z", "light")
# A sequence is gone through before it starts, up to here; longer ones are learned as they run.
_MOST_EVENTS = 20_000
# The kind of sequence that stands for a list or an iterator of events, and knows none of them.
_UNKNOWN = "GeneratorMDASequence"


class MdaFrames:
    """The connection of a hook to pymmcore-plus's engine; made by `connect`.

    Parameters
    ----------
    hook : RestoreHook
    raw : Path or None
        Where the engine writes, since it tells nobody.
    """

    def __init__(self, hook: RestoreHook, raw: Path | None = None) -> None:
        self._hook, self._raw = hook, raw
        self._promised = False
        self._signals: Any = None

    def watch(self, events: Any) -> Any:
        """Look at a list of events, or at an iterator's as they are drawn, on their way to ``core.mda.run``."""
        if isinstance(events, Iterator):
            return self._drawn(events)
        if isinstance(events, list):
            self._promise(events)
        return events

    def started(self, sequence: Any, _: Any = None) -> None:
        """Take up a run that begins; a slot, so it does not raise."""
        try:
            if not self._promised and type(sequence).__name__ != _UNKNOWN:
                self._promise(islice(iter(sequence), _MOST_EVENTS))
            self._hook.begin_run(self._raw)
        except Exception as error:  # pymmcore-plus would only log it
            self._hook.fail(error)

    def frame(self, image: Any, event: Any, meta: Mapping[str, Any]) -> None:
        """Hand a frame on; a slot of ``frameReady``, so it does not raise."""
        try:
            key, z = place_of(event)
            self._hook.take(image, key, z, **_read(event, meta))
        except Exception as error:  # as above
            self._hook.fail(error)

    def finished(self, _: Any = None) -> None:
        """End the run without waiting for frames that have not left."""
        self._promised = False
        self._hook.end_run(0.0)

    def disconnect(self) -> None:
        """Leave the engine as it was; twice is fine."""
        signals, self._signals = self._signals, None
        if signals is not None:
            signals.sequenceStarted.disconnect(self.started)
            signals.frameReady.disconnect(self.frame)
            signals.sequenceFinished.disconnect(self.finished)

    def connect(self, signals: Any) -> None:
        """Listen to an engine's signals."""
        self._signals = signals
        signals.sequenceStarted.connect(self.started)
        signals.frameReady.connect(self.frame)
        signals.sequenceFinished.connect(self.finished)

    def _promise(self, events: Iterable[Any]) -> None:
        self._hook.plan.promise_all(promise_of(event) for event in events)
        self._promised = True

    def _drawn(self, events: Iterator[Any]) -> Iterator[Any]:
        for event in events:
            self._hook.plan.promise(promise_of(event))
            yield event


def connect(hook: RestoreHook, core: Any, raw: Path | str | None = None) -> MdaFrames:
    """Send every frame of a core's engine to the restore process.

    Parameters
    ----------
    hook : RestoreHook
    core : CMMCorePlus or UniMMCore
    raw : path or None
        Where the engine writes (its ``output``): the run folder is made beside it.

    Returns
    -------
    MdaFrames
        To `disconnect`, and to `watch` events that are no ``MDASequence``.
    """
    frames = MdaFrames(hook, None if raw is None else Path(raw))
    frames.connect(core.mda.events)
    return frames


def place_of(event: Any) -> tuple[VolumeKey, int | None]:
    """Name the volume of a frame, and its plane; None for a frame without z."""
    index: Mapping[str, int] = event.index
    said = str(event.metadata.get("light", index.get("light", "low"))).lower()
    light: Light = "high" if said == "high" else "low"
    name = event.pos_name or str(index.get("p", 0))
    unnamed = [f"{axis}{value}" for axis, value in sorted(index.items()) if axis not in _NAMED]
    channel = event.channel.config if event.channel is not None else str(index.get("c", "Default"))
    return VolumeKey(int(index.get("t", 0)), "_".join([name, *unnamed]), channel, light), index.get("z")


def promise_of(event: Any) -> Promise:
    """Read an event."""
    key, z = place_of(event)
    return Promise(key, z, event.exposure, event.min_start_time, event.z_pos)


def _read(event: Any, meta: Mapping[str, Any]) -> dict[str, Any]:
    """Read what the engine says of a frame; what it triggers in hardware it does not read back."""
    stage = meta.get("position") or {"x": event.x_pos, "y": event.y_pos, "z": event.z_pos}
    place = (stage.get("x"), stage.get("y"), stage.get("z"))
    exposure_ms, asked_ms = meta.get("exposure_ms"), event.exposure
    if meta.get("hardware_triggered") and exposure_ms != asked_ms:
        exposure_ms = None
    return {
        "exposure_ms": exposure_ms,
        "asked_exposure_ms": asked_ms,
        "pixel_size_um": meta.get("pixel_size_um") or None,
        "stage_um": None if place == (None, None, None) else place,
    }
