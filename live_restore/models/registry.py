"""The registry: the model packages that lie in folders, and what they are in words.

Receives folders; hands on every package found there, or the reason why it cannot be opened, and rows of text for people. It
does not know how text is shown, nor how a model is run.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from live_restore.errors import ModelError
from live_restore.models.description import SPACE_AXES
from live_restore.models.facts import FrozenRange, ModelFacts, Normalisation
from live_restore.models.package import ModelPackage, open_package
from live_restore.models.package_files import DESCRIPTION_NAMES

COLUMNS = ("name", "network", "parameters", "normalisation", "source")

_KINDS = {
    "care": "CARE",
    "projection_care": "CARE, projecting",
    "rcan": "RCAN",
    "careamics_unet": "CAREamics U-Net",
    "onnx": "ONNX graph",
}


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """What lies at a path that looks like a package.

    Attributes
    ----------
    path : Path
    package : ModelPackage or None
    error : str
        Why it cannot be opened, if `package` is None.
    """

    path: Path
    package: ModelPackage | None = None
    error: str = ""


def find_packages(folders: Iterable[Path | str]) -> list[Found]:
    """Open every package in some folders (not in folders of folders); a broken one is listed with its error.

    Parameters
    ----------
    folders : iterable of Path
        A folder that is a package itself, or a zip, counts as one.

    Returns
    -------
    list of Found
        By name, each path once.

    Raises
    ------
    ModelError
        If a folder does not exist.
    """
    paths: dict[Path, None] = {}
    for folder in map(Path, folders):
        if not folder.exists():
            raise ModelError(f"there is no folder {folder}; give one in which model packages lie")
        paths.update(dict.fromkeys([folder] if _looks_like_one(folder) else filter(_looks_like_one, sorted(folder.iterdir()))))
    return [_open(path) for path in paths]


def _looks_like_one(path: Path) -> bool:
    if path.name.startswith("."):  # one that is being written
        return False
    if path.is_dir():
        return any((path / name).is_file() for name in DESCRIPTION_NAMES)
    return path.suffix == ".zip"


def _open(path: Path) -> Found:
    try:
        return Found(path, open_package(path))
    except (ModelError, OSError) as error:
        return Found(path, error=str(error))


def summary_row(found: Found) -> tuple[str, ...]:
    """One line of a list of models, in the order of `COLUMNS`; of a broken package the name and the error."""
    if found.package is None:
        return (found.path.name, found.error, "", "", "")
    facts = found.package.facts
    return (
        found.package.name,
        _network(facts),
        f"{facts.architecture.parameters:,}",
        _normalisation(facts.normalisation),
        facts.provenance.source_format,
    )


def fact_sheet(package: ModelPackage) -> list[tuple[str, str]]:
    """Everything about a package that a user may ask, as (label, text)."""
    facts = package.facts
    geometry, provenance = facts.geometry, facts.provenance
    axes = SPACE_AXES[-geometry.n_dim :]
    rows = [
        ("name", package.name),
        ("description", package.description),
        ("path", str(package.path)),
        ("network", _network(facts)),
        ("options", ", ".join(f"{key}={value}" for key, value in facts.architecture.options.items())),
        ("parameters", f"{facts.architecture.parameters:,}"),
        ("file size", f"{package.files.size(package.weights_name) / 1e6:.2f} MB"),
        ("channels", f"{facts.channels_in} in, {facts.channels_out} out"),
        ("receptive field", _receptive_field(facts)),
        ("image sizes", "multiples of " + " x ".join(map(str, geometry.divisible_by)) + f" ({' x '.join(axes)})"),
        ("output size", _output_size(facts)),
        ("arithmetic", f"{geometry.flop_per_pixel / 1e3:,.1f} kFLOP per pixel, at any precision"),
        ("memory", f"{geometry.bytes_per_pixel:,} bytes of feature maps per pixel"),
        ("procedure", _procedure(facts)),
        ("normalisation", _normalisation(facts.normalisation)),
        ("output intensities", _output(facts.normalisation)),
        ("pixel size", " x ".join(f"{size:g}" for size in facts.pixel_size_um) + " µm" if facts.pixel_size_um else ""),
        ("channel", facts.channel or ""),
        *((f"light level, {name}", f"{value:g}") for name, value in facts.light_levels.items()),
        *((f"score, {name}", f"{value:g}") for name, value in facts.scores.items()),
        *((f"limit, {name}", f"{value:g}") for name, value in facts.limits.items()),
        ("source", f"{provenance.source_format}: {provenance.source_name}, sha256 {provenance.source_sha256}"),
        ("written by", provenance.written_by),
        ("imported by", provenance.imported_by),
        ("licence of the weights", package.licence or "not stated"),
        ("authors", ", ".join(package.authors)),
        ("graph", f"sha256 {package.onnx_sha256}"),
        *(("note", note) for note in provenance.notes),
    ]
    return [(label, text) for label, text in rows if text]


def _network(facts: ModelFacts) -> str:
    kind = _KINDS[facts.architecture.kind]
    return f"{kind} {facts.geometry.n_dim}D{', probabilistic' if facts.probabilistic else ''}"


def _receptive_field(facts: ModelFacts) -> str:
    widths = " x ".join(str(2 * halo + 1) for halo in facts.geometry.halo)
    return f"{widths} pixels" + (", and the average over the whole image" if facts.geometry.global_pooling else "")


def _output_size(facts: ModelFacts) -> str:
    factors = facts.geometry.output_factor
    if set(factors) == {1}:
        return "as the input"
    named = zip(SPACE_AXES[-len(factors) :], factors, strict=True)
    return ", ".join(f"{axis} {'is projected away' if factor == 0 else f'x {factor}'}" for axis, factor in named)


def _procedure(facts: ModelFacts) -> str:
    if facts.procedure == "direct":
        return ""
    ways = {"upsampling": "Z is interpolated first", "isotropic": "XZ and YZ planes of the interpolated volume are restored"}
    return f"{facts.procedure}: {ways[facts.procedure]}" + (f", factor {facts.z_factor:g}" if facts.z_factor else "")


def _normalisation(normalisation: Normalisation) -> str:
    if normalisation.mode == "frozen" and normalisation.frozen:
        return f"frozen: {_counts(normalisation.frozen)} become 0 and 1"
    if normalisation.measure == "none":
        return "none"
    how = {"volume": "of each volume", "rolling": "followed slowly"}.get(normalisation.mode, "")
    together = "" if normalisation.per_channel else ", all channels together"
    if normalisation.measure == "mean_std":
        return f"mean and standard deviation {how}{together}"
    return f"percentiles {normalisation.low_percentile:g} and {normalisation.high_percentile:g} {how}{together}"


def _output(normalisation: Normalisation) -> str:
    if normalisation.output == "frozen" and normalisation.output_range:
        return f"0 and 1 become {_counts(normalisation.output_range)}"
    return {"inverse": "back to the counts of the input"}.get(normalisation.output, "as the network gives them")


def _counts(counts: FrozenRange) -> str:
    pairs = zip(counts.low, counts.high, strict=True)
    return "; ".join(f"{low:g} and {high:g}" for low, high in pairs) + " counts"
