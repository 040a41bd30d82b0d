"""Engines that are built beside the restoration, by a process of their own at low priority.

Receives choices of models; says with which engine to begin where the wanted one takes minutes to build, has it built, and swaps
it in. Whatever fails is said in the model's row, and the restoration goes on with the engine it has. It does not know frames.
"""

import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from threading import Event, Lock, Thread

import psutil

from live_restore.engines.choice import AUTO
from live_restore.engines.engine import what_is_offered
from live_restore.errors import EngineError, EngineUnavailable, LiveRestoreError
from live_restore.models.package import open_package
from live_restore.serving.models import ModelChoice, Models

_SLOW = "tensorrt"
_MEANWHILE = "the engine for this card is being built, which takes minutes; until then another one restores"
# What is said last by a process that failed is the reason.
_LAST_WORDS = 2000
# A model that is just being swapped in takes seconds; whoever ends does not wait for all of them.
_PATIENCE_S = 5.0

_log = logging.getLogger(__name__)


def takes_minutes(choice: ModelChoice) -> bool:
    """Whether the engine that is wanted has to be built first, and slowly: by TensorRT on the data-centre card itself.

    TensorRT for RTX builds in a second, so that nothing has to be done beforehand.
    """
    if choice.engine not in (AUTO, _SLOW):
        return False
    from live_restore.engines.tensorrt.card import this_card

    try:
        card = this_card()
    except EngineUnavailable:
        return False
    if card.flavour.builds_without_card:
        return False
    from live_restore.engines.graphs.counts_graph import from_counts
    from live_restore.engines.tensorrt.plans import to_build

    try:
        return bool(to_build(from_counts(open_package(choice.package).onnx()), choice.precision, card))
    except LiveRestoreError as refused:  # no recipe for it, or no package: whoever opens it says so, or takes another engine
        _log.info("%s", refused)
        return False


def build_command(choice: ModelChoice) -> list[str]:
    """Say which process builds the engine of a choice."""
    words = [sys.executable, "-m", "live_restore.cli", "build", str(choice.package), "--for", "this"]
    return words if choice.precision == AUTO else [*words, "--precision", choice.precision]


class EngineBuilds:
    """See the module.

    Parameters
    ----------
    slow : callable (ModelChoice) -> bool
        Whether the engine of a choice has to be built first.
    command : callable (ModelChoice) -> sequence of str
        The process that builds it; it ends with 0 if it did.
    """

    def __init__(
        self,
        slow: Callable[[ModelChoice], bool] = takes_minutes,
        command: Callable[[ModelChoice], Sequence[str]] = build_command,
    ) -> None:
        self._slow, self._command = slow, command
        self._later: list[tuple[ModelChoice, ModelChoice]] = []  # (meanwhile, wanted)
        self._stopped = Event()
        self._building = Lock()  # one at a time: they would only slow each other down
        self._process: psutil.Popen | None = None
        self._thread: Thread | None = None

    def at_once(self, choices: Iterable[ModelChoice]) -> list[ModelChoice]:
        """Give what to begin with: each choice, or what does for it until its engine is built.

        An engine that was asked for by name is not replaced by another: it is waited for.
        """
        begun = []
        for choice in choices:
            if choice.engine == AUTO and self._slow(choice):
                self._later.append((replace(choice, engine=_other_engine()), choice))
                begun.append(self._later[-1][0])
            else:
                begun.append(choice)
        return begun

    def start(self, models: Models) -> None:
        """Build what was put off, one after the other, and swap each in when it is built."""
        if self._later:
            self._thread = Thread(target=self._build_all, args=(models,), name="engine builds", daemon=True)
            self._thread.start()

    def before_swap(self, models: Models, choice: ModelChoice) -> None:
        """Build the engine of a model that is about to be swapped in, if that takes long; waits for it.

        Raises
        ------
        EngineError
            If it cannot be built.
        """
        if self._slow(choice):
            self._build(models, choice)

    def stop(self) -> None:
        """End the process that builds, if there is one, and begin no other."""
        self._stopped.set()
        process = self._process
        if process is not None:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        if self._thread is not None:
            self._thread.join(_PATIENCE_S)

    def _build_all(self, models: Models) -> None:
        for _, wanted in self._later:
            models.announce(wanted, "building", _MEANWHILE)
        for meanwhile, wanted in self._later:
            try:
                self._build(models, wanted)
                served = models.of(wanted.channel)
                if served is not None and served.choice == meanwhile:  # nobody has put another model there since
                    models.swap(wanted)
            except Exception as failed:  # the old engine goes on, whatever the new one threw, and the next is built
                if self._stopped.is_set():
                    return
                _log.warning("%s", failed)  # the model's row says it too

    def _build(self, models: Models, choice: ModelChoice) -> None:
        models.announce(choice, "building", _MEANWHILE)
        with self._building:
            if self._stopped.is_set():
                raise EngineError("the restore process ends, so no engine is built")
            try:
                code, said = self._ended(self._command(choice))
            except OSError as refused:
                code, said = -1, str(refused)
        if code:
            reason = said or f"the build ended with code {code}"
            why = f"the engine was not built: {reason}; the model goes on with the one it has"
            models.announce(choice, "failed", why)
            raise EngineError(why)

    def _ended(self, command: Sequence[str]) -> tuple[int, str]:
        """Run a process at low priority to its end; what it ended with, and what it said last."""
        process = psutil.Popen(
            list(command),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
            errors="replace",
            env={**os.environ, "PYTHONIOENCODING": "utf-8"},
            creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),  # a Ctrl-C is for us to pass on
            start_new_session=sys.platform != "win32",
        )
        self._process = process
        try:
            _lower(process)
            if self._stopped.is_set():
                process.kill()
            said, _ = process.communicate()
        finally:
            self._process = None
        return process.returncode, " ".join(said[-_LAST_WORDS:].split())


def _lower(process: psutil.Popen) -> None:
    """Let everything else go first."""
    lowest = getattr(psutil, "IDLE_PRIORITY_CLASS", 19)
    with suppress(psutil.Error, OSError):  # it has ended already, or may not be changed
        process.nice(lowest)


def _other_engine() -> str:
    """Name the engine to begin with: torch where it computes on a CUDA device, or else the embedded one."""
    with suppress(EngineUnavailable):
        if "f16" in what_is_offered("torch").precisions:  # which torch offers on CUDA devices only
            return "torch"
    return "openvino"
