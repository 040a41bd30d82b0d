"""The checkpoint: all that training needs to go on where it was, in one file that is always whole.

Receives a folder and the state of training; hands it back later, on another day and in another process. It does not know
what the numbers mean. Nothing in a checkpoint is executed: it holds tensors, numbers and words, and is read as that.
"""

import io
import os
import pickle
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch

from live_restore.errors import TrainingError

FORMAT = 1
CHECKPOINT = "checkpoint.pt"
State = dict[str, Any]


@dataclass(frozen=True, slots=True, eq=False)
class Checkpoint:
    """The state of a training after a step.

    Attributes
    ----------
    about : dict
        What must be the same for training to go on: options, pairs, software; words and numbers.
    seconds : float or None
        How long all networks together may be fitted, settled when training began.
    finished : list of dict
        Weights of the networks of an ensemble that are done.
    history : list of dict
        Rows of those networks.
    state : dict
        Of the one that is being trained, see `live_restore.training.fit`: weights, their average, the optimizer, random
        numbers, the best weights so far.
    """

    about: State
    seconds: float | None
    finished: list[State]
    history: list[State]
    state: State


def folder_of(package: Path) -> Path:
    """Where training towards a package keeps its checkpoint: beside it, ``NAME.training``."""
    return package.with_name(f"{package.name}.training")


def save_checkpoint(folder: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint; until it is whole, the last one stays.

    Raises
    ------
    OSError
        If the disk refuses; then the last one stays.
    """
    folder.mkdir(parents=True, exist_ok=True)
    content = {"format": FORMAT} | {field.name: getattr(checkpoint, field.name) for field in fields(checkpoint)}
    draft = folder / f"{CHECKPOINT}.tmp"
    try:
        with draft.open("wb") as file:
            # into memory first: of a full disk torch's own writer says nothing that could be told on
            file.write(_as_bytes(content))
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, folder / CHECKPOINT)
    except OSError:
        draft.unlink(missing_ok=True)
        raise


def _as_bytes(content: State) -> memoryview:
    written = io.BytesIO()
    torch.save(content, written)
    return written.getbuffer()


def load_checkpoint(folder: Path) -> Checkpoint | None:
    """Read the checkpoint of a folder, or None if there is none.

    Raises
    ------
    TrainingError
        If it is damaged, or from another version.
    """
    path = folder / CHECKPOINT
    if not path.exists():
        return None
    cure = "start anew with --fresh"
    try:
        content = torch.load(io.BytesIO(path.read_bytes()), map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError) as error:
        raise TrainingError(f"the checkpoint {path} is damaged ({str(error).splitlines()[0]}); {cure}") from error
    if not isinstance(content, dict) or content.pop("format", None) != FORMAT:
        raise TrainingError(f"the checkpoint {path} was written by another version of live_restore; {cure}")
    try:
        return Checkpoint(**content)
    except TypeError as error:
        raise TrainingError(f"the checkpoint {path} lacks what training needs ({error}); {cure}") from error


def check_same(folder: Path, then: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Refuse to go on with other options or pairs.

    Parameters
    ----------
    folder : Path
    then, now : mapping
        `Checkpoint.about`, and what it would be now; mappings within are compared word by word.

    Raises
    ------
    TrainingError
        Naming the first thing that differs.
    """
    for name, before, today in _differences(then, now, ""):
        raise TrainingError(
            f"training in {folder} was begun with {name} {_short(before)}, and is asked to go on with {_short(today)}; "
            "repeat the first command to go on, or start anew with --fresh"
        )


def _differences(then: Mapping[str, Any], now: Mapping[str, Any], prefix: str) -> list[tuple[str, Any, Any]]:
    found: list[tuple[str, Any, Any]] = []
    for key in sorted({*then, *now}):
        before, today = then.get(key), now.get(key)
        if isinstance(before, Mapping) and isinstance(today, Mapping):
            found += _differences(before, today, f"{prefix}{key}.")
        elif before != today:
            found.append((f"{prefix}{key}", before, today))
    return found


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:24]}..."


def remove_checkpoint(folder: Path) -> None:
    """Remove the folder with all that training left in it."""
    shutil.rmtree(folder, ignore_errors=True)
