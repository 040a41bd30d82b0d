"""The importer of bioimage.io packages (formats 0.4 and 0.5) that hold an ONNX graph.

Receives the path of a package's folder, zip or description; hands on an `Imported` whose graph was tried out on the package's
own test image. Nothing is downloaded, no code of a package is run. Packages of CAREamics without ONNX go to
`from_careamics`. It does not know what single steps of the processing mean, nor what is inside the graph.
"""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from live_restore.errors import ModelError
from live_restore.models.facts import Architecture, Normalisation
from live_restore.models.foreign import from_careamics
from live_restore.models.foreign.foreign_tensors import ForeignTensor, entries, read_tensors, words
from live_restore.models.foreign.graph_ends import Ended, embed_weights, put_ends
from live_restore.models.foreign.imported import Imported, sha256_of
from live_restore.models.foreign.processing import Processing, parse_steps, read_postprocessing, read_preprocessing
from live_restore.models.foreign.trial import Trial, try_out
from live_restore.models.package_files import PackageFiles, open_files

FloatArray = NDArray[np.float32]

_FORMATS = ("0.4", "0.5")
_RESTORING = {"denoising", "restoration", "image-restoration", "deconvolution", "care", "noise2void", "n2v"}

# Other engines round otherwise; a misunderstood step is off by far more. As a fraction of the output's range.
_DEVIATION = 0.01


def read(source: Path) -> Imported:
    """Read a bioimage.io package.

    Parameters
    ----------
    source : Path
        Its folder, its zip, or its description. Files that a restoration does not need may be missing.

    Raises
    ------
    ModelError
        If there is no ONNX graph in it, it is damaged, it processes images in a way that we cannot, or its test image does
        not become its test output.
    """
    files = open_files(source)
    description = files.read_description()
    _check_description(description, files.path.name)
    image, result = read_tensors(description, files.path.name)
    if not _onnx_entry(description):
        return _without_onnx(description, files)
    onnx, sha256 = _read_onnx(description, files)
    found = Processing()
    read_preprocessing(parse_steps(image.steps), len(image.axes) - 2, found)
    read_postprocessing(parse_steps(result.steps), found)
    ended = put_ends(onnx, found.before, found.after)
    if ended.n_dim != len(image.axes) - 2:
        raise ModelError(f"{files.path.name}: the graph has {ended.n_dim} spatial axes, its description {len(image.axes) - 2}")
    tests = [_test_tensor(files, tensor) for tensor in (image, result)]
    channels_in, channels_out = _channels(ended.channels_in, tests[0], image), _channels(ended.channels_out, tests[1], result)
    _decide_output(found, description, result, same_channels=channels_in == channels_out)
    _check_ranges(found.normalisation(), channels_in, channels_out, files.path.name)
    trial = _trial(ended, found.normalisation(), tests, found)
    return Imported(
        onnx=ended.onnx,
        architecture=Architecture(kind="onnx", parameters=ended.parameters),
        channels_in=channels_in,
        channels_out=channels_out,
        normalisation=found.normalisation(),
        source_format="bioimageio-onnx",
        source_name=files.path.name,
        source_sha256=sha256,
        written_by=f"bioimage.io format {description['format_version']}",
        notes=tuple(found.notes),
        test_input=trial.test_input if trial else None,
        test_output=trial.test_output if trial else None,
        **_credits(description, files),
    )


def _credits(description: dict[str, Any], files: PackageFiles) -> dict[str, Any]:
    """Give what the package says to people, as arguments of `Imported`."""
    return {
        "name": str(description.get("name") or files.path.stem),
        "description": str(description.get("description") or ""),
        "licence": description["license"] if isinstance(description.get("license"), str) else None,
        "authors": tuple(str(entry["name"]) for entry in entries(description.get("authors")) if "name" in entry),
        "cite": tuple(_reference(entry) for entry in entries(description.get("cite"))),
    }


def _check_description(description: dict[str, Any], label: str) -> None:
    if description.get("type", "model") != "model":
        raise ModelError(f"{label} describes a bioimage.io {description['type']!r}; resources of type 'model' are imported")
    version = str(description.get("format_version"))
    if ".".join(version.split(".")[:2]) not in _FORMATS:
        raise ModelError(
            f"{label} has the bioimage.io format_version {version}; {' and '.join(_FORMATS)} are imported: bring it up to date "
            "with the bioimageio command line, or upgrade live_restore if it is newer"
        )
    config = description.get("config")
    if isinstance(config, dict) and "live_restore" in config:
        raise ModelError(f"{label} is a package of live_restore already; restore with it as it is")
    if not isinstance(description.get("weights"), dict):
        raise ModelError(f"{label} describes no weights; get the package again")


def _onnx_entry(description: dict[str, Any]) -> dict[str, Any]:
    entry = description["weights"].get("onnx")
    return entry if isinstance(entry, dict) and "source" in entry else {}


def _read_onnx(description: dict[str, Any], files: PackageFiles) -> tuple[bytes, str]:
    """Read the graph, with its weights in it, and the hash of the file as it was found."""
    entry = _onnx_entry(description)
    onnx = files.read_unchanged(str(entry["source"]), str(entry.get("sha256") or ""))
    found = sha256_of(onnx)
    external = entry.get("external_data")
    if isinstance(external, dict):
        onnx = embed_weights(onnx, files.read(str(external.get("source"))))
    return onnx, found


def _without_onnx(description: dict[str, Any], files: PackageFiles) -> Imported:
    if from_careamics.is_careamics(description):
        return from_careamics.read_package(files)
    formats = ", ".join(map(str, description["weights"])) or "nothing"
    raise ModelError(
        f"{files.path.name} has weights as {formats}, and live_restore runs no code of others; it needs ONNX: add that to the "
        "package with bioimageio.core (add_weights), or ask its authors for it"
    )


def _test_tensor(files: PackageFiles, tensor: ForeignTensor) -> FloatArray | None:
    try:
        return files.read_array(tensor.test_name).astype(np.float32)
    except ModelError:  # not needed to restore; the notes say that it is missing
        return None


def _channels(stated: int | None, test: FloatArray | None, tensor: ForeignTensor) -> int:
    channels = stated or (test.shape[1] if test is not None and test.ndim > 1 else None)
    if channels is None:
        raise ModelError(f"how many channels '{tensor.name}' has is open in the graph; export it with this number fixed")
    return int(channels)


def _check_ranges(normalisation: Normalisation, channels_in: int, channels_out: int, label: str) -> None:
    sides = ((normalisation.frozen, channels_in), (normalisation.output_range, channels_out))
    for counts, channels in sides:
        if counts and len(counts.low) not in (1, channels):
            raise ModelError(f"{label}: a fixed scaling is given for {len(counts.low)} channels, the graph has {channels}")


def _decide_output(found: Processing, description: dict[str, Any], result: ForeignTensor, same_channels: bool) -> None:
    """Take the output of a restoring network back to counts, where the description does nothing with it."""
    if "output" in found.scheme or not found.scheme:
        return
    tags = {tag.lower() for tag in words(description.get("tags"))} & _RESTORING
    if same_channels and tags and not parse_steps(result.steps):
        found.scheme["output"] = "inverse"
        found.notes.append(
            f"its tags ({', '.join(sorted(tags))}) say that it restores images, its description leaves the output scaled; "
            "here it goes back to counts by the inverse of the input's normalisation"
        )
    else:
        found.notes.append("the output is handed on as the network gives it; it is no intensity in counts")


def _trial(ended: Ended, normalisation: Normalisation, tests: list[FloatArray | None], found: Processing) -> Trial | None:
    """Try the graph out; refuse it if it misses the test output and nothing was said to differ on purpose."""
    image, expected = tests
    if image is None or expected is None:
        found.notes.append("the test tensors are not in the package, so the import was not tried out on them")
        return None
    trial = try_out(ended.onnx, normalisation, image, expected)
    if trial.deviation > _DEVIATION * trial.span and normalisation.output != "inverse":
        raise ModelError(
            "the package's test image becomes something else here than its test output (they differ by up to "
            f"{trial.deviation:.3g} in a range of {trial.span:.3g}): its processing was misunderstood, or its ONNX graph is "
            "another network; ask its authors"
        )
    found.notes.append(
        f"its own test image becomes its test output to within {trial.deviation:.2g}, in a range of {trial.span:.3g}"
    )
    return trial


def _reference(entry: dict[str, Any]) -> str:
    place = f"doi:{entry['doi']}" if entry.get("doi") else entry.get("url")
    return " ".join(str(part) for part in (entry.get("text"), place) if part)
