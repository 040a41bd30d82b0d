"""The model package: a bioimage.io 0.5 folder or .zip with an ONNX graph and our facts; opened and written here.

Receives the path of a package, or a graph with its facts; hands on a `ModelPackage`. It does not know where a model
came from, nor how its graph is run.
"""

import hashlib
import io
import shutil
import tempfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray
from pydantic import ValidationError

from live_restore.errors import ModelError
from live_restore.models.description import (
    README_NAME,
    TEST_INPUT_NAME,
    TEST_OUTPUT_NAME,
    WEIGHTS_NAME,
    About,
    describe_model,
    readme,
)
from live_restore.models.facts import ModelFacts
from live_restore.models.package_files import DESCRIPTION_NAMES, PackageFiles, open_files
from live_restore.models.real_images import REAL_IMAGES, RealImages, pack, unpack
from live_restore.models.tensors import (
    check_test_tensors,
    input_from_file,
    input_to_file,
    output_from_file,
    output_to_file,
)

FloatArray = NDArray[np.float32]

_OUR_FILES = {DESCRIPTION_NAMES[0], README_NAME, WEIGHTS_NAME, TEST_INPUT_NAME, TEST_OUTPUT_NAME}
# The sha256 of every low-light image that the network has learned from, a line each: nobody is to be judged by those.
LEARNED_FROM = "learned_from.txt"
# What training, the search for limits and certifying lay beside them.
EXTRA_NAMES = frozenset(
    {"training.toml", "history.json", "evaluation.json", "report.html", "limits.json", "limits.html", "limits.png"}
    | {LEARNED_FROM, REAL_IMAGES, "distillation.json"}
)
_FACTS_FORMAT = 1


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class ModelPackage:
    """A model, ready to be run.

    Attributes
    ----------
    path : Path
        The folder or the zip file.
    name, description : str
    licence : str or None
        SPDX identifier of the weights' licence, if stated.
    authors : tuple of str
    facts : ModelFacts
    onnx_sha256 : str
        Hash of the graph, hexadecimal; engines are cached by it.
    files : PackageFiles
    weights_name, test_input_name, test_output_name : str
        Names of files in the package.
    """

    path: Path
    name: str
    description: str
    licence: str | None
    authors: tuple[str, ...]
    facts: ModelFacts
    onnx_sha256: str
    files: PackageFiles
    weights_name: str
    test_input_name: str
    test_output_name: str

    def onnx(self) -> bytes:
        """Read the graph; ModelError if it is not the one that the description names."""
        return self.files.read_unchanged(self.weights_name, self.onnx_sha256)

    def test_input(self) -> FloatArray:
        """Read the test input in network units, (N, C, [Z,] Y, X) float32."""
        return input_from_file(self.files.read_array(self.test_input_name).astype(np.float32), self.facts)

    def learned_from(self) -> frozenset[str]:
        """Read the sha256 of the low-light images that it has learned from; empty where nobody wrote them down."""
        if LEARNED_FROM not in self.files.names():
            return frozenset()
        return frozenset(self.files.read(LEARNED_FROM).decode().split())

    def real_images(self) -> RealImages | None:
        """Read the images that engines are certified with; None if it carries none."""
        if REAL_IMAGES not in self.files.names():
            return None
        return unpack(self.files.read(REAL_IMAGES), f"{self.path.name}/{REAL_IMAGES}")

    def with_real_images(self, images: RealImages) -> "ModelPackage":
        """Put them into the package on disk, whole or not at all, in the place of those that it may have; OSError if not."""
        self.files.replace(REAL_IMAGES, pack(images))
        return open_package(self.path)

    def test_output(self) -> FloatArray:
        """Read what the bare graph made of `test_input`, (N, C or 2 C, [Z,] Y, X) float32."""
        return output_from_file(self.files.read_array(self.test_output_name).astype(np.float32), self.facts)


def open_package(path: Path | str) -> ModelPackage:
    """Open a package: its folder, its .zip, or the description in its folder.

    Raises
    ------
    ModelError
        If it is no package of live_restore, or damaged; the message names the field and the cure.
    """
    files = open_files(Path(path))
    content = files.read_description()
    facts = _facts_of(content, files)
    package = _package_of(content, files, facts)
    package.onnx()
    return package


def _facts_of(content: dict[str, Any], files: PackageFiles) -> ModelFacts:
    label = files.path.name
    _check_format(content, label)
    config = content.get("config")
    facts = config.get("live_restore") if isinstance(config, dict) else None
    if not isinstance(facts, dict):
        raise ModelError(
            "this bioimage.io package was not made by live_restore; import it first: "
            f"live-restore import {label} -o NEW_PACKAGE"
        )
    if facts.get("format") != _FACTS_FORMAT:
        raise ModelError(
            f"{label}: config.live_restore.format is {facts.get('format')!r}; this live_restore reads format {_FACTS_FORMAT}: "
            "upgrade it (pip install -U live_restore), or import the model again"
        )
    try:
        return ModelFacts.model_validate(facts)
    except ValidationError as error:
        raise ModelError(
            f"{label}: {_sentence(error)}; correct it in {files.description_name}, or import the model again"
        ) from error


def _check_format(content: dict[str, Any], label: str) -> None:
    if content.get("type") != "model":
        raise ModelError(
            f"{label} describes a bioimage.io {content.get('type')!r}; live_restore runs resources of type 'model'"
        )
    version = str(content.get("format_version"))
    if version.split(".")[:2] != ["0", "5"]:
        raise ModelError(
            f"{label} has the bioimage.io format_version {version}; packages of live_restore have 0.5: import it first "
            f"(live-restore import {label} -o NEW_PACKAGE), or upgrade live_restore if it is newer"
        )


def _sentence(error: ValidationError) -> str:
    first = error.errors()[0]
    where = ".".join(str(part) for part in ("config", "live_restore", *first["loc"]))
    said = first["msg"].removeprefix("Value error, ")
    said = said[:1].lower() + said[1:]
    value = repr(first["input"])
    return f"{where}: {said}" if len(value) > 80 else f"{where} is {value}: {said}"


def _package_of(content: dict[str, Any], files: PackageFiles, facts: ModelFacts) -> ModelPackage:
    try:
        weights = content["weights"]["onnx"]
        return ModelPackage(
            path=files.path,
            name=str(content["name"]),
            description=str(content.get("description", "")),
            licence=content.get("license") if isinstance(content.get("license"), str) else None,
            authors=tuple(str(author["name"]) for author in content.get("authors", ())),
            facts=facts,
            onnx_sha256=str(weights["sha256"]).lower(),
            files=files,
            weights_name=str(weights["source"]),
            test_input_name=str(content["inputs"][0]["test_tensor"]["source"]),
            test_output_name=str(content["outputs"][0]["test_tensor"]["source"]),
        )
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        raise ModelError(
            f"{files.path.name}: the description lacks, or has in another form than format 0.5, the field {error}; "
            "import the model again"
        ) from error


def write_package(  # noqa: PLR0913  (keywords, each a line of the package)
    path: Path | str,
    *,
    name: str,
    description: str,
    onnx: bytes,
    test_input: FloatArray,
    test_output: FloatArray,
    facts: ModelFacts,
    licence: str | None = None,
    authors: tuple[str, ...] = (),
    cite: tuple[str, ...] = (),
    extras: Mapping[str, bytes] | None = None,
    overwrite: bool = False,
) -> ModelPackage:
    """Write a package, check it with bioimageio.spec, and open it. It appears whole or not at all.

    Parameters
    ----------
    path : Path
        A folder, or a file that ends in ``.zip``.
    name, description : str
        A name has 5 to 128 letters, digits, spaces and ``_+-()``; others become ``-``.
    onnx : bytes
        The graph, from ``input`` to ``output``.
    test_input, test_output : ndarray, (N, C, [Z,] Y, X), float32
        In network units. Unless the range is frozen, every image of the input must be normalised as `facts` say,
        for instance by `live_restore.intensity.measure_percentiles`.
    facts : ModelFacts
    licence : str or None
        SPDX identifier, e.g. ``BSD-3-Clause``; None if the weights came without.
    authors : tuple of str
    cite : tuple of str
        References, with a DOI in their text; empty: the paper of the architecture.
    extras : mapping of str to bytes, optional
        Further files, by names among `EXTRA_NAMES`.
    overwrite : bool
        Replace a package that is there already. Nothing but a package is ever replaced.

    Raises
    ------
    ModelError
        If something is there already, or bioimageio.spec refuses what was written.
    ValueError
        If the test tensors do not fit the facts, or an extra file has a name that no package has.
    """
    path = Path(path)
    if strange := sorted(set(extras or {}) - EXTRA_NAMES):
        raise ValueError(f"'{strange[0]}' is no file of a package; further files are {', '.join(sorted(EXTRA_NAMES))}")
    check_free(path, overwrite)
    check_test_tensors(test_input, test_output, facts)
    about = About(name, description, licence, authors, cite)
    filed_output = output_to_file(test_output, facts)
    files = {
        WEIGHTS_NAME: onnx,
        TEST_INPUT_NAME: _npy(input_to_file(test_input, facts)),
        TEST_OUTPUT_NAME: _npy(filed_output),
        README_NAME: readme(about, facts).encode(),
    }
    described = describe_model(
        about,
        facts,
        input_shape=test_input.shape,
        sha256={file: hashlib.sha256(content).hexdigest() for file, content in files.items()},
        opset=_opset(onnx),
        highest_output=float(filed_output.max()),
    )
    files[DESCRIPTION_NAMES[0]] = _yaml(described)
    files.update(extras or {})
    _write_whole(path, files)
    return open_package(path)


def update_facts(path: Path | str, **changes: Any) -> ModelPackage:
    """Change facts of a package in its place: its description, whole or not at all; every other file stays as it is.

    Parameters
    ----------
    path : Path
        As for `open_package`.
    **changes
        Fields of `ModelFacts` and their new values, e.g. ``limits={"snr_low": 2.1}``.

    Returns
    -------
    ModelPackage
        The package as it is now.

    Raises
    ------
    ModelError
        If it is no package, or the facts would not be valid; nothing is changed then.
    OSError
        If it cannot be written.
    """
    package = open_package(path)
    files = package.files
    content = files.read_description()
    facts = content["config"]["live_restore"]
    changed = {**facts, **changes}
    try:
        valid = ModelFacts.model_validate(changed).model_dump(mode="json")
    except ValidationError as error:
        raise ModelError(f"{files.path.name} was not changed: {_sentence(error)}") from error
    content["config"]["live_restore"] = {name: valid[name] for name in changed}
    files.replace(PurePosixPath(files.description_name).name, _yaml(content))
    return open_package(path)


def check_free(path: Path, overwrite: bool) -> None:
    """Refuse to write a package where something is that may not be replaced, before any work is done.

    Raises
    ------
    ModelError
    """
    if not path.exists():
        return
    if not overwrite:
        raise ModelError(f"{path} exists already; choose another name, or overwrite it (--overwrite)")
    try:
        foreign = sorted(set(open_files(path).names()) - _OUR_FILES - EXTRA_NAMES)
    except ModelError as error:
        raise ModelError(f"{path} is no model package, and nothing else is ever replaced; choose another name") from error
    if foreign:
        raise ModelError(f"{path} holds '{foreign[0]}', which is no part of a package; move it away, or choose another name")


def _write_whole(path: Path, files: dict[str, bytes]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    # beside its place, not in the system's temporary folder: a rename is atomic within one file system only
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.stem}-", ignore_cleanup_errors=True) as hidden:
        draft = Path(hidden) / path.stem
        draft.mkdir()
        for name, content in files.items():
            (draft / name).write_bytes(content)
        _validate(draft)
        _put(_zipped(draft) if path.suffix == ".zip" else draft, path)


def _put(draft: Path, path: Path) -> None:
    """Move the draft to its place; what was there stays until the draft is."""
    replaced = draft.parent / "replaced"
    if path.exists():
        path.rename(replaced)
    try:
        draft.rename(path)
    except OSError:
        if replaced.exists():
            replaced.rename(path)
        raise


def _zipped(folder: Path) -> Path:
    draft = folder.parent / "package.zip"
    with zipfile.ZipFile(draft, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(folder.iterdir()):
            archive.write(file, file.name)
    shutil.rmtree(folder)
    return draft


def _validate(folder: Path) -> None:
    """Have bioimageio.spec check what was written, against its newest format; it downloads nothing here."""
    from bioimageio.spec import InvalidDescr, ValidationContext, load_description

    with ValidationContext(perform_io_checks=True, log_warnings=False):
        checked = load_description(folder, format_version="latest", perform_io_checks=True)
    if isinstance(checked, InvalidDescr):
        errors = [
            f"{'.'.join(map(str, e.loc))}: {e.msg}" for detail in checked.validation_summary.details for e in detail.errors
        ]
        raise ModelError(f"bioimageio.spec refuses the package: {'; '.join(errors)}")


def _opset(onnx: bytes) -> int:
    import onnx as onnx_format

    try:
        model = onnx_format.load_model_from_string(onnx)
    except Exception as error:
        raise ModelError(f"these {len(onnx)} bytes are no ONNX graph ({error}); export the network again") from error
    return max(int(entry.version) for entry in model.opset_import if entry.domain in ("", "ai.onnx"))


def _yaml(content: dict[str, Any]) -> bytes:
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=120, default_flow_style=None).encode()


def _npy(pixels: FloatArray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, np.ascontiguousarray(pixels), allow_pickle=False)
    return stream.getvalue()
