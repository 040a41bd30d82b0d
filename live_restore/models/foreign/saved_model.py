"""The reader of a SavedModel that CSBDeep exported: a zip or a folder with weights, a graph and a few words about itself.

Receives a path; hands on the weights by layer name and what the graph says beyond them. Nothing of the graph is run. It does
not know how a network is built.
"""

import json
import re
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from live_restore.errors import ModelError
from live_restore.models.foreign.conv_weights import LARGEST_WEIGHTS, ConvWeights
from live_restore.models.foreign.file_kind import check_kind
from live_restore.models.foreign.imported import sha256_of
from live_restore.models.foreign.saved_graph import GraphFacts, read_graph
from live_restore.models.foreign.tensor_bundle import convolutions_of, read_tensors

GRAPH = "saved_model.pb"
_INDEX = "variables/variables.index"
_SHARD = re.compile(r"variables/variables\.data-(\d{5})-of-\d{5}")
_META = "meta.json"

_LARGEST_BYTES = 4 * LARGEST_WEIGHTS
# Weights do not compress; a graph's text does, about tenfold.
_LARGEST_RATIO = 200


@dataclass(frozen=True, slots=True, eq=False)
class SavedModel:
    """What an export holds.

    Attributes
    ----------
    convolutions : tuple of ConvWeights
        In no particular order.
    graph : GraphFacts
    meta : dict
        CSBDeep's ``meta.json``: ``type`` (class name), ``version``, ``axes``, ...; empty without it.
    sha256 : str
        Of the zip, or of the data file of a folder.
    """

    convolutions: tuple[ConvWeights, ...]
    graph: GraphFacts
    meta: dict[str, Any]
    sha256: str


def read_saved_model(path: Path) -> SavedModel:
    """Read an export.

    Parameters
    ----------
    path : Path
        The zip, or the folder that holds ``saved_model.pb`` and ``variables``.

    Raises
    ------
    ModelError
        If it is none, is incomplete or damaged, or could be a trap.
    """
    files = _folder_files(path) if path.is_dir() else _zip_files(path)
    if missing := sorted({GRAPH, _INDEX} - set(files)):
        raise ModelError(
            f"{path.name} is no complete SavedModel, it lacks {' and '.join(missing)}; export it again with CSBDeep's export_TF"
        )
    shards = {int(match[1]): data for name, data in files.items() if (match := _SHARD.fullmatch(name))}
    tensors = read_tensors(files[_INDEX], shards)
    digest = sha256_of(b"".join(shards[number] for number in sorted(shards)) if path.is_dir() else path)
    return SavedModel(convolutions_of(tensors), read_graph(files[GRAPH]), _meta(files.get(_META, b"")), digest)


def is_saved_model(path: Path) -> bool:
    """Whether a folder or zip holds a SavedModel, by the names in it."""
    if path.is_dir():
        return (path / GRAPH).is_file()
    return any(name.rpartition("/")[2] == GRAPH for name in zip_names(path))


def zip_names(path: Path) -> list[str]:
    """Names of the files in a zip; refuses what is none."""
    check_kind(path, "zip")
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError) as error:
        raise ModelError(f"{path.name} is a damaged zip archive ({error}); copy or download it again") from error


def _folder_files(folder: Path) -> dict[str, bytes]:
    names = [GRAPH, _META, *(f"variables/{path.name}" for path in sorted((folder / "variables").glob("variables.*")))]
    found = {name: folder / name for name in names if (folder / name).is_file()}
    if sum(path.stat().st_size for path in found.values()) > _LARGEST_BYTES:
        raise ModelError(f"{folder.name} holds more than {_LARGEST_BYTES >> 20} MB; no network here is so large, not read")
    return {name: path.read_bytes() for name, path in found.items()}


def _zip_files(path: Path) -> dict[str, bytes]:
    check_kind(path, "zip")
    try:
        with zipfile.ZipFile(path) as archive:
            wanted = _wanted(archive.infolist())
            return {name: archive.read(entry) for name, entry in wanted.items()}
    except (zipfile.BadZipFile, OSError, ValueError, RuntimeError, NotImplementedError) as error:
        raise ModelError(f"{path.name} is a damaged or encrypted zip archive ({error}); copy or download it again") from error


def _wanted(entries: list[zipfile.ZipInfo]) -> dict[str, zipfile.ZipInfo]:
    """Choose the SavedModel's files, wherever in the zip its folder lies, once their names and sizes are harmless."""
    for entry in entries:
        _check_entry(entry)
    graph = next((entry.filename for entry in entries if entry.filename.rpartition("/")[2] == GRAPH), GRAPH)
    inner = {entry.filename.removeprefix(graph.removesuffix(GRAPH)): entry for entry in entries}
    wanted = {name: entry for name, entry in inner.items() if name in (GRAPH, _INDEX, _META) or _SHARD.fullmatch(name)}
    if (total := sum(entry.file_size for entry in wanted.values())) > _LARGEST_BYTES:
        raise ModelError(
            f"the zip would unpack to {total >> 20} MB, more than {_LARGEST_BYTES >> 20}; no network here is so large, not read"
        )
    return wanted


def _check_entry(entry: zipfile.ZipInfo) -> None:
    name = entry.filename
    if name.startswith(("/", "\\")) or ".." in re.split(r"[/\\]", name) or ":" in name:
        raise ModelError(f"the zip holds '{name}', which points outside of it; it is no export of CSBDeep, not read")
    if entry.file_size > _LARGEST_RATIO * max(entry.compress_size, 1) and entry.file_size > 1 << 20:
        raise ModelError(
            f"'{name}' in the zip would unpack from {entry.compress_size:,} to {entry.file_size:,} bytes; a zip bomb, not read"
        )


def _meta(text: bytes) -> dict[str, Any]:
    try:
        meta = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return meta if isinstance(meta, dict) else {}
