"""The files of a model package: a folder or a .zip, read and replaced by name, never outside of it.

Receives the path of a folder, a zip or the description in a folder; hands on bytes, the description as a dictionary,
and arrays. Whoever made the package is not trusted: sizes are limited, names stay inside, nothing is executed or
unpickled. It does not know what the description means.
"""

import hashlib
import io
import math
import os
import shutil
import tempfile
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import yaml
from numpy.lib.format import read_array_header_1_0, read_array_header_2_0, read_magic
from numpy.typing import NDArray

from live_restore.errors import ModelError

DESCRIPTION_NAMES = ("rdf.yaml", "bioimageio.yaml", "model.yaml")

_MEBI = 1 << 20
DESCRIPTION_LIMIT = 1 * _MEBI
FILE_LIMIT = 2048 * _MEBI  # what one ONNX file can hold
_DEEPEST = 60
_MOST_NODES = 100_000

# The parser in C reads a description in 2 ms, the one in Python in 30.
_SafeLoader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

_NPY_HEADERS = {(1, 0): read_array_header_1_0, (2, 0): read_array_header_2_0}

# What zipfile raises on archives that are cut off, damaged, encrypted or packed in a way unknown to it.
_BAD_ZIP = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, OSError)


@dataclass(frozen=True, slots=True)
class PackageFiles:
    """The files of one package.

    Attributes
    ----------
    path : Path
        The folder or the zip file.
    description_name : str
        Name of its description, e.g. ``rdf.yaml``; the files are named relative to it.
    """

    path: Path
    description_name: str

    @property
    def zipped(self) -> bool:
        """Whether the package is a zip file."""
        return self.path.is_file()

    def names(self) -> list[str]:
        """Name every file of the package, relative to the package."""
        return _zip_names(self.path) if self.zipped else _folder_names(self.path)

    def size(self, name: str) -> int:
        """Size of a file in bytes, unpacked."""
        try:
            if not self.zipped:
                return self._inside(name).stat().st_size
            with zipfile.ZipFile(self.path) as archive:
                return archive.getinfo(self._member(name)).file_size
        except (KeyError, *_BAD_ZIP) as error:
            raise ModelError(_not_readable(self.path, name, error)) from error

    def read(self, name: str, limit: int = FILE_LIMIT) -> bytes:
        """Read one file.

        Parameters
        ----------
        name : str
            As the description names it, relative to the description.
        limit : int
            Most bytes that will be read.

        Raises
        ------
        ModelError
            If the name leads out of the package, the file is missing or damaged, or larger than `limit`.
        """
        if self.size(name) > limit:
            raise ModelError(
                f"{self.path.name}: the file '{name}' has {self.size(name)} bytes, more than the {limit} that are read; "
                "get the package again from where it came"
            )
        try:
            return self._read(name)
        except _BAD_ZIP as error:
            raise ModelError(_not_readable(self.path, name, error)) from error

    def read_unchanged(self, name: str, sha256: str) -> bytes:
        """Read one file; ModelError if it does not have this hash (hexadecimal; empty: none is known)."""
        content = self.read(name)
        found = hashlib.sha256(content).hexdigest()
        if sha256 and found != sha256.lower():
            raise ModelError(
                f"{self.path.name}: '{name}' has sha256 {found[:12]}..., its description says {sha256[:12]}...: the file is "
                "damaged or was exchanged; get the package again"
            )
        return content

    def _read(self, name: str) -> bytes:
        if not self.zipped:
            return self._inside(name).read_bytes()
        with zipfile.ZipFile(self.path) as archive:
            return archive.read(self._member(name))

    def read_description(self) -> dict[str, Any]:
        """Read the description as a dictionary."""
        return self.read_yaml(PurePosixPath(self.description_name).name)

    def read_yaml(self, name: str) -> dict[str, Any]:
        """Read a YAML file as a dictionary."""
        return parse_description(self.read(name, DESCRIPTION_LIMIT), f"{self.path.name}/{name}")

    def read_array(self, name: str) -> NDArray[Any]:
        """Read a ``.npy`` file."""
        return parse_npy(self.read(name), f"{self.path.name}/{name}")

    def replace(self, name: str, content: bytes) -> None:
        """Write one file, whole or not at all; every other one stays as it is.

        Raises
        ------
        OSError
            If it cannot be written.
        """
        place = self.path if self.zipped else self._inside(name)
        # beside the package, never in it: what a crash leaves is then no part of it
        with tempfile.TemporaryDirectory(
            dir=self.path.resolve().parent, prefix=".replacing-", ignore_cleanup_errors=True
        ) as hidden:
            draft = Path(hidden) / place.name
            if self.zipped:
                self._copy_but(self._member(name), content, draft)
            else:
                draft.write_bytes(content)
            shutil.copymode(place if place.exists() else self._inside(self.description_name), draft)
            os.replace(draft, place)

    def _copy_but(self, replaced: str, content: bytes, draft: Path) -> None:
        with zipfile.ZipFile(self.path) as before, zipfile.ZipFile(draft, "w", zipfile.ZIP_DEFLATED) as after:
            for member in before.infolist():
                after.writestr(member, content if member.filename == replaced else before.read(member))
            if replaced not in before.namelist():
                after.writestr(replaced, content)

    def _member(self, name: str) -> str:
        return str(PurePosixPath(self.description_name).parent / self._checked(name))

    def _inside(self, name: str) -> Path:
        folder = self.path.resolve()
        file = (folder / self._checked(name)).resolve()
        if not file.is_relative_to(folder):  # by a symbolic link
            raise ModelError(self._leads_out(name))
        return file

    def _checked(self, name: str) -> PurePosixPath:
        pure = PurePosixPath(name)
        if pure.is_absolute() or ".." in pure.parts or "\\" in name or ":" in name or not pure.name:
            raise ModelError(self._leads_out(name))
        return pure

    def _leads_out(self, name: str) -> str:
        return (
            f"{self.path.name}: '{name}' is no file inside the package; live_restore follows no link out of it and downloads "
            "nothing: put the file into the package and name it alone"
        )


def open_files(path: Path) -> PackageFiles:
    """Find the description of the package at `path`: a folder, a zip, or the description itself.

    Raises
    ------
    ModelError
        If there is none.
    """
    if path.suffix in (".yaml", ".yml") and path.is_file():
        return PackageFiles(path.parent, path.name)
    if path.is_dir():
        return PackageFiles(path, _description_among(_folder_names(path), path))
    if path.is_file() and (path.suffix.lower() == ".zip" or zipfile.is_zipfile(path)):
        return PackageFiles(path, _description_among(_zip_names(path), path))
    if path.exists():
        raise ModelError(
            f"{path} is neither a folder, a .zip nor a .yaml, so it is no model package; "
            f"import it first: live-restore import {path.name} -o NEW_PACKAGE"
        )
    raise ModelError(f"there is no model package at {path}; see what there is with: live-restore models FOLDER")


def _description_among(names: list[str], path: Path) -> str:
    for wanted in DESCRIPTION_NAMES:
        found = [name for name in names if PurePosixPath(name).name == wanted and "__MACOSX" not in name]
        if found:
            return min(found, key=lambda name: name.count("/"))
    raise ModelError(
        f"{path} holds no {DESCRIPTION_NAMES[0]} or {DESCRIPTION_NAMES[1]}, so it is no model package; "
        f"a model of other software is imported first: live-restore import {path.name} -o NEW_PACKAGE"
    )


def _folder_names(folder: Path) -> list[str]:
    try:
        return sorted(entry.name for entry in folder.iterdir())
    except OSError as error:
        raise ModelError(f"the folder {folder} cannot be read ({error}); check its permissions") from error


def _zip_names(path: Path) -> list[str]:
    try:
        with zipfile.ZipFile(path) as archive:
            return [name for name in archive.namelist() if not name.endswith("/")]
    except _BAD_ZIP as error:
        raise ModelError(f"{path} is no readable zip file ({error}); copy or download it again") from error


def _not_readable(path: Path, name: str, error: Exception) -> str:
    if isinstance(error, KeyError | FileNotFoundError):
        return f"{path.name}: the file '{name}' is missing; get the package again from where it came"
    return f"{path.name}: the file '{name}' cannot be read ({error}); copy or download the package again"


def parse_description(text: bytes, label: str) -> dict[str, Any]:
    """Parse a description in YAML (safe subset: no objects), as hostile as it may be.

    Parameters
    ----------
    text : bytes
        UTF-8.
    label : str
        What to call it in errors.

    Raises
    ------
    ModelError
        If it is no YAML, no mapping, nested too deeply, or a few lines that stand for billions (aliases of aliases).
    """
    try:
        _refuse_bombs(text, label)
        content = yaml.load(text, Loader=_SafeLoader)
    except (yaml.YAMLError, ValueError, UnicodeDecodeError) as error:
        raise ModelError(f"{label} is no readable YAML ({_first_line(error)}); get the package again") from error
    if not isinstance(content, dict):
        raise ModelError(
            f"{label} holds a {type(content).__name__} where a bioimage.io description has fields; get the package again"
        )
    return content


def _refuse_bombs(text: bytes, label: str) -> None:
    """Count what the document would be with its aliases written out; parsing events costs no memory and no recursion."""
    sizes: dict[str, int] = {}  # of what an anchor stands for
    unfinished: list[tuple[str, int]] = []  # (anchor, nodes before it)
    nodes = 0
    for event in yaml.parse(text, Loader=_SafeLoader):
        if isinstance(event, yaml.AliasEvent):
            # an unknown size is an alias inside of what it stands for: endless
            nodes += sizes.get(event.anchor or "", _MOST_NODES)
        elif isinstance(event, yaml.CollectionStartEvent):
            unfinished.append((event.anchor or "", nodes))
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, before = unfinished.pop()
            nodes += 1
            sizes[anchor] = nodes - before
        elif isinstance(event, yaml.ScalarEvent):
            nodes += 1
            sizes[event.anchor or ""] = 1
        if nodes >= _MOST_NODES or len(unfinished) > _DEEPEST:
            raise ModelError(
                f"{label} stands for more than {_MOST_NODES} entries or nests deeper than {_DEEPEST} levels; "
                "no model description does, so it is not read"
            )


def _first_line(error: Exception) -> str:
    mark = getattr(error, "problem_mark", None)
    where = f" in line {mark.line + 1}" if mark is not None else ""
    return f"{getattr(error, 'problem', None) or str(error).splitlines()[0]}{where}"


def parse_npy(content: bytes, label: str) -> NDArray[Any]:
    """Parse a ``.npy`` file of plain numbers; never unpickles, never allocates more than the file holds.

    Returns
    -------
    ndarray
        Read-only view of `content`.
    """
    try:
        stream = io.BytesIO(content)
        shape, fortran_order, dtype = _NPY_HEADERS[read_magic(stream)](stream)
        if dtype.kind not in "biuf":
            raise ValueError(f"it holds {dtype}")
        numbers = np.frombuffer(content, dtype, math.prod(shape), stream.tell())
        return numbers.reshape(shape, order="F" if fortran_order else "C")
    except (ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{label} is no .npy file of plain numbers ({error}); get the package again") from error
