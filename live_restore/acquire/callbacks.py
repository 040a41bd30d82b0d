"""The user's own callbacks beside the hook's, in an acquisition that neither of them can hang.

Receives the functions that a script gives to ``pycromanager.Acquisition``; hands on functions that call them and then the
hook, never raise, count what passes, and keep what was raised. It does not know what happens to the errors.
"""

import time
from collections.abc import Callable, Mapping
from inspect import signature
from typing import Any

import numpy as np

from live_restore.acquire.hook import RestoreHook
from live_restore.acquire.pycromanager_frames import AxesKey, axes_key
from live_restore.errors import AcquisitionError

Function = Callable[..., Any]

# Functions that are called while the microscope is being set: an error there makes all further images worthless.
_HARDWARE = ("event_generation_hook_fn", "pre_hardware_hook_fn", "post_hardware_hook_fn", "post_camera_hook_fn")
_NAMES = (*_HARDWARE, "image_process_fn", "image_saved_fn", "notification_callback_fn")
_SAVED = "image_saved"


class Callbacks:
    """What pycro-manager calls during one acquisition.

    Parameters
    ----------
    hook : RestoreHook
    given : dict
        The options of the acquisition; the user's callbacks are taken out of it.
    python_backend : bool
        There the hook takes frames as ``image_process_fn``; on the Java backend, where that costs a core and hangs, as
        ``image_saved_fn``.
    abort : callable
        Called when a function that sets the microscope has failed.

    Attributes
    ----------
    errors : list of Exception
        What the user's functions raised, and returns that would make pycro-manager hang.
    taken, saved, diverted, cancelled : int
        Images that came by, were saved, were kept from saving by the user's function; events that it cancelled.
    progress_s : float
        When something last happened, by the monotonic clock.
    """

    def __init__(self, hook: RestoreHook, given: dict[str, Any], python_backend: bool, abort: Callable[[], None]) -> None:
        self.errors: list[Exception] = []
        self.taken = self.saved = self.diverted = self.cancelled = 0
        self.progress_s = time.monotonic()
        self.due: dict[AxesKey, None] = {}
        self._hook, self._abort = hook, abort
        self._python = python_backend
        own = (hook, hook.saved, hook.readback)  # given by who did not know that they are there anyway
        found = {name: given.pop(name, None) for name in _NAMES}
        self._user: dict[str, Function | None] = {name: None if user in own else user for name, user in found.items()}

    def options(self) -> dict[str, Any]:
        """Give what ``Acquisition`` is to be called with."""
        wanted: dict[str, Any] = {"notification_callback_fn": self._notified, "post_hardware_hook_fn": self._after_hardware()}
        for name in _HARDWARE:
            user = self._user[name]
            if user is not None and name not in wanted:
                wanted[name] = self._event_function(name, user)
        if self._python or self._user["image_process_fn"] is not None:
            wanted["image_process_fn"] = self._processor()
        if not self._python or self._user["image_saved_fn"] is not None:
            wanted["image_saved_fn"] = self._saver()
        return wanted

    def moved(self) -> None:
        """Note that something happened."""
        self.progress_s = time.monotonic()

    def failed(self, name: str, error: Exception) -> None:
        """Keep an error, and stop if the microscope is not as it should be."""
        if not self.errors:
            self._hook.warn(f"{name} failed: {error!r}")
        if len(self.errors) < 10:
            self.errors.append(error)
        if name in _HARDWARE:
            self._abort()

    def _processor(self) -> Function:
        user = self._user["image_process_fn"]
        count = 2 if user is None else len(signature(user).parameters)

        def process(image: Any, metadata: Any, *queue: Any) -> Any:
            self.moved()
            self.taken += 1
            result = (image, metadata) if user is None else self._processed(user, image, metadata, queue)
            if self._python or result is None:  # the Java backend's other frames still come to the hook, as saved ones
                self.due.pop(axes_key(metadata.get("Axes", {})), None)
            if self._python:
                self._hook(*((image, metadata) if result is None else result))
            return result

        return _taking(count, process)

    def _processed(self, user: Function, image: Any, metadata: Any, queue: tuple[Any, ...]) -> Any:
        """Call the user's processor; the raw image takes the place of what would make pycro-manager hang."""
        try:
            result = user(image, metadata, *queue)
        except Exception as error:  # somebody else's code: whatever it raises must not cost an image
            self.failed("image_process_fn", error)
            return image, metadata
        if result is None:
            self.diverted += 1
            return None
        if not self._python or _savable(result):
            return result
        self.failed("image_process_fn", AcquisitionError(_unsavable(result)))
        return image, metadata

    def _saver(self) -> Function:
        user = self._user["image_saved_fn"]
        count = 2 if user is None else len(signature(user).parameters)

        def saved(axes: Any, dataset: Any, *queue: Any) -> None:
            if not self._python:
                self._hook.saved(axes, dataset)
                self.due.pop(axes_key(axes), None)
            if user is not None:
                try:
                    user(axes, dataset, *queue)
                except Exception as error:  # as above
                    self.failed("image_saved_fn", error)

        return _taking(count, saved)

    def _after_hardware(self) -> Function:
        user = self._user["post_hardware_hook_fn"]
        first = None if user is None else self._event_function("post_hardware_hook_fn", user)

        def one(event: Any, *queue: Any) -> Any:
            self.moved()
            if first is not None:
                event = first(event, *queue)
            return None if event is None else self._hook.readback(event)

        return _taking(1 if user is None else len(signature(user).parameters), one)

    def _event_function(self, name: str, user: Function) -> Function:
        def call(event: Any, *queue: Any) -> Any:
            try:
                result = user(event, *queue)
            except Exception as error:  # as above
                self.failed(name, error)
                return None
            if result is None and name != "post_camera_hook_fn":
                self.cancelled += len(event) if isinstance(event, list) else 1
                self._hook.warn(f"{name} returned None, which cancels the event; return the event unless you mean to")
            return result

        return _taking(len(signature(user).parameters), call)

    def _notified(self, notification: Any) -> None:
        self.moved()
        if getattr(notification, "milestone", None) == _SAVED:
            self.saved += 1
        user = self._user["notification_callback_fn"]
        if user is not None:
            try:
                user(notification)
            except Exception as error:  # as above
                self.failed("notification_callback_fn", error)


def _savable(result: Any) -> bool:
    """Whether pycro-manager's Python backend saves this, and does not hang on it."""
    if not isinstance(result, tuple) or len(result) != 2 or not isinstance(result[1], Mapping):
        return False
    image = result[0]
    return isinstance(image, np.ndarray) and image.ndim == 2 and image.dtype in (np.uint8, np.uint16)


def _unsavable(result: Any) -> str:
    image = result[0] if isinstance(result, tuple) and result else result
    what = (
        f"an image of {image.dtype} and shape {image.shape}" if isinstance(image, np.ndarray) else f"a {type(image).__name__}"
    )
    return (
        f"image_process_fn returned {what}, on which pycro-manager's Python backend hangs; it saves (image, metadata) with a "
        "(Y, X) image of uint8 or uint16 only, so the camera's image was saved instead"
    )


def _taking(count: int, function: Function) -> Function:
    """Make a function of so many parameters: pycro-manager counts them, and gives the queue of events to one more."""

    def one(first: Any) -> Any:
        return function(first)

    def two(first: Any, second: Any) -> Any:
        return function(first, second)

    def three(first: Any, second: Any, third: Any) -> Any:
        return function(first, second, third)

    by_count: dict[int, Function] = {1: one, 2: two, 3: three}
    return by_count.get(count, function)
