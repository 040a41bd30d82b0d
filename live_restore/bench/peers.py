"""The peers: other programs that restore the same image, each in a process of its own and in its own environment.

Receives which Python to start and what the program is to load; hands on turns, in seconds, and what it said of itself. It
does not know what a table is. The programs are in `live_restore.bench.peer_programs`; ours runs in the same way.
"""

import json
import os
import subprocess
import sys
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from queue import Empty, Queue
from threading import Thread
from typing import Any, Self

import psutil

from live_restore.errors import LiveRestoreError

PEERS = ("csbdeep", "careamics", "onnxruntime", "torch")
_TURNS = Path(__file__).parent / "peer_programs" / "turns.py"
_CLOSING_S = 20.0


class TurnProcess:
    """A program that restores one image whenever it is told to.

    Parameters
    ----------
    program : str
        A module of `live_restore.bench.peer_programs`.
    options : mapping
        JSON for it; ``result`` names the file for what it restored.
    python : str
        Which interpreter.
    patience_s : float
        Nothing may take longer: loading with the first turn, and any further turn. What does is ended.

    Attributes
    ----------
    said : dict
        What it said of itself when it was ready: kind, version, device, precision, and more.

    Raises
    ------
    LiveRestoreError
        If it cannot be started, hangs, dies, or says why it cannot.
    """

    def __init__(
        self, program: str, options: Mapping[str, Any], python: str = sys.executable, patience_s: float = 300.0
    ) -> None:
        self._program, self._patience_s = program, patience_s
        self._last: deque[str] = deque(maxlen=4)
        self._lines: Queue[str | None] = Queue()
        try:
            self._process = subprocess.Popen(
                [python, str(_TURNS), program, json.dumps(dict(options))],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                encoding="utf-8",
                errors="replace",
                env={**os.environ, "PYTHONIOENCODING": "utf-8"},
            )
        except OSError as error:
            raise LiveRestoreError(
                f"{python} cannot be started: {error.strerror}; name the python of an environment"
            ) from error
        Thread(target=self._listen, daemon=True).start()
        self.said: dict[str, Any] = dict(self._await("ready", patience_s))

    def turn(self) -> float:
        """Restore once.

        Returns
        -------
        float
            Seconds, by the clock of the program itself.

        Raises
        ------
        LiveRestoreError
            If it dies, hangs, or says why it cannot; it is ended then.
        """
        assert self._process.stdin is not None
        try:
            self._process.stdin.write("go\n")
            self._process.stdin.flush()
        except OSError:
            pass  # it died: what it said last is heard below
        return float(self._await("took", self._patience_s))

    def finish(self) -> dict[str, Any]:
        """Let it end; gives ``peak_mb``, its largest resident memory in 10^6 bytes, or None where that is not known."""
        assert self._process.stdin is not None
        windows = _windows_peak_mb(self._process.pid)
        try:
            self._process.stdin.close()
            ended = dict(self._await("ended", _CLOSING_S))
        except (LiveRestoreError, OSError):
            ended = {"peak_mb": None}
        if ended["peak_mb"] is None:
            ended["peak_mb"] = windows
        self.close()
        return ended

    def close(self) -> None:
        """End it, in whatever state it is."""
        if self._process.poll() is None:
            try:
                if self._process.stdin is not None:
                    self._process.stdin.close()
                self._process.wait(_CLOSING_S)
            except (OSError, subprocess.TimeoutExpired):
                self._process.kill()
        self._process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line.rstrip())
        self._lines.put(None)

    def _await(self, word: str, seconds: float) -> Any:
        while True:
            try:
                line = self._lines.get(timeout=seconds)
            except Empty:
                self._process.kill()
                raise LiveRestoreError(f"{self._program} hung for {seconds:.0f} s and was ended") from None
            if line is None:
                self._lines.put(None)  # whoever asks again is told the same
                self._process.wait()
                words = " / ".join(self._last) or "none"
                raise LiveRestoreError(
                    f"{self._program} died with exit code {self._process.returncode}; its last words: {words}"
                )
            said, _, text = line.removeprefix("turns ").partition(" ")
            if not line.startswith("turns "):
                self._last += [line] if line.strip() else []
            elif said == word:
                return json.loads(text)
            elif said == "cannot":
                self.close()
                raise LiveRestoreError(_reason(self._program, json.loads(text)))


def _reason(program: str, said: Mapping[str, str]) -> str:
    """Say why a program cannot, and what would help."""
    name = program.removesuffix("_peer")
    if said["error"] == "ModuleNotFoundError" and name in PEERS:
        return f"{said['why']}; give --{name}-python, the python of an environment that has {name}"
    return said["why"] if program == "ours" else f"{said['error']}: {said['why']}"


def _windows_peak_mb(pid: int) -> float | None:
    try:
        peak = getattr(psutil.Process(pid).memory_info(), "peak_wset", None)
    except psutil.Error:
        return None
    return None if peak is None else peak / 1e6
