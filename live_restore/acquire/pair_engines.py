"""The two engines that can carry out a calibration, each drawing frame after frame and saving nothing itself.

Receives a core and a course, which gives the frames and takes the images; hands on whether somebody stopped it. It does not
know what is taken, nor what becomes of it.
"""

import threading
from contextlib import suppress
from typing import Any

from live_restore.acquire.course import Course
from live_restore.acquire.hook import RestoreHook
from live_restore.config import MicroManager

_LOOK_S = 0.05
# The port of the discard service: frames of a calibration go to the pair log, not to a restore process.
_NOBODY = "tcp://127.0.0.1:9"


def by_pymmcore_plus(core: Any, course: Course) -> bool:
    """Run pymmcore-plus's engine in a thread of its own, so that Ctrl-C comes through; whether somebody pressed it."""

    def came(image: Any, event: Any, _said: Any) -> None:
        course.read()
        course.image(event.metadata["axes"], image)

    def drive() -> None:
        try:
            # an iterator is carried out event by event; a list would be merged into camera sequences where devices can
            core.mda.run(frame.as_mda_event(settings) for frame, settings in course.frames())
        except Exception as error:  # whatever a driver may raise
            course.fail(error)

    core.mda.events.frameReady.connect(came)
    thread = threading.Thread(target=drive, name="calibration", daemon=True)
    thread.start()
    stopped = False
    try:
        while thread.is_alive():
            try:
                thread.join(_LOOK_S)
            except KeyboardInterrupt:
                if stopped:
                    raise
                stopped = True
                course.stop()
    finally:
        core.mda.events.frameReady.disconnect(came)
    return stopped


class _Onlooker(RestoreHook):
    """Guards an acquisition as the hook does, and lets its frames be: they go to the pair log."""

    def __call__(self, image: Any, metadata: Any) -> tuple[Any, Any]:
        """Leave the frame alone."""
        return image, metadata


def by_pycromanager(core: Any, course: Course, said: MicroManager) -> bool:
    """Run pycro-manager's acquisition, saving nothing; whether somebody pressed Ctrl-C."""
    if said.backend != "java":
        from live_restore.acquire.simulate.microscope import pycromanager_core

        pycromanager_core(core)

    def settled(event: Any) -> Any:
        course.read()
        return event

    def came(image: Any, metadata: Any) -> None:
        course.image(metadata["Axes"], image)

    options = {"port": said.port, "show_display": False} if said.backend == "java" else {}
    stopped = True  # until all is well: a second Ctrl-C ends it anywhere below
    with _Onlooker(_NOBODY, core=core) as hook, suppress(KeyboardInterrupt):
        with hook.acquisition(None, "pairs", image_process_fn=came, post_hardware_hook_fn=settled, **options) as acquisition:
            # as a generator each event is carried out by itself and its properties are set; a list would merge them
            acquisition.acquire(frame.as_event(settings) for frame, settings in course.frames())
            try:
                course.wait(lambda: acquisition.over)
                stopped = False
            except KeyboardInterrupt:
                course.stop()
    return stopped
