"""The registry: which model packages lie in a folder, and what there is to say of one.

Receives folders and packages; hands on rows and fact sheets in words. It does not know how they are shown, nor how a
package is read.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from live_restore.errors import ModelError
from live_restore.models.facts import ModelFacts, Normalisation
from live_restore.models.package import ModelPackage, open_package
from live_restore.models.package_files import DESCRIPTION_NAMES

_AXES = {2: "YX", 3: "ZYX"}
_NETWORKS = {
    "care": "CARE",
    "projection_care": "ProjectionCARE",
    "rcan": "RCAN",
    "careamics_unet": "CAREamics U-Net",
    "onnx": "ONNX graph",
}


@dataclass(frozen=True, slots=True)
class Found:
    """A package in a folder; a broken one has its error in the place of its facts.

    Attributes
    ----------
    path : Path
    package : ModelPackage or None
    error : str
        Why it cannot be opened; empty if it can.
    """

    path: Path
    package: ModelPackage | None
    error: str = ""

    @property
    def row(self) -> tuple[str, ...]:
        """Columns of a table of models, see `COLUMNS`."""
        if self.package is None:
            return self.path.name, f"broken: {self.error}", *("",) * (len(COLUMNS) - 2)
        return self.path.name, *summary_row(self.package)


COLUMNS = ("package", "network", "parameters", "MB", "reach", "multiples of", "from")


def bundled_folder() -> Path:
    """Return the folder of the packages that come with live_restore."""
    return Path(str(files("live_restore"))) / "bundled"


def is_package(path: Path) -> bool:
    """Whether this is a package itself, a folder or a zip, rather than a folder of packages."""
    if path.is_dir():
        return any((path / name).is_file() for name in DESCRIPTION_NAMES)
    return path.suffix == ".zip" or path.name in DESCRIPTION_NAMES


def find_packages(folders: Sequence[Path]) -> list[Found]:
    """Open every package that is named, or lies directly in a folder that is named; broken ones are listed as such.

    Raises
    ------
    ModelError
        If a folder does not exist.
    """
    found: dict[Path, Found] = {}
    for folder in folders:
        if not folder.is_dir() and not is_package(folder):
            raise ModelError(f"{folder} is no package and no folder; name a package, or a folder with packages in it")
        inside = [folder] if is_package(folder) else sorted(folder.iterdir())
        for path in inside:
            if is_package(path) and path.resolve() not in found:
                found[path.resolve()] = _open(path)
    return list(found.values())


def _open(path: Path) -> Found:
    try:
        return Found(path, open_package(path))
    except ModelError as error:
        return Found(path, None, str(error))


def summary_row(package: ModelPackage) -> tuple[str, ...]:
    """Say in a line what a model is; the columns after the first of `COLUMNS`."""
    facts, geometry = package.facts, package.facts.geometry
    return (
        _network(facts),
        f"{facts.architecture.parameters:,}",
        f"{package.files.size(package.weights_name) / 1e6:.1f}",
        _by_axis(geometry.halo, "±"),
        _by_axis(geometry.divisible_by, ""),
        facts.provenance.source_format,
    )


def fact_sheet(package: ModelPackage) -> list[tuple[str, str]]:
    """Say everything about a model, as (label, text)."""
    facts, geometry = package.facts, package.facts.geometry
    made = facts.provenance
    sheet = [
        ("description", package.description),
        ("network", _network(facts)),
        ("options", ", ".join(f"{name} {value}" for name, value in facts.architecture.options.items())),
        ("parameters", f"{facts.architecture.parameters:,}"),
        ("weights", f"{package.files.size(package.weights_name) / 1e6:.2f} MB ONNX, sha256 {package.onnx_sha256[:16]}..."),
        (
            "channels",
            f"{facts.channels_in} in, {facts.channels_out} out" + (", with Laplace scales" if facts.probabilistic else ""),
        ),
        ("procedure", facts.procedure + (f", Z {facts.z_factor:g} times finer" if facts.z_factor else "")),
        ("receptive field", _by_axis(geometry.halo, "±") + " pixels"),
        ("sizes", f"{_sizes(geometry.divisible_by)}; other images are extended by reflection and cut back"),
        ("output", _output_size(facts)),
        ("work", f"{geometry.flop_per_pixel / 1e3:.1f} kFLOP and {geometry.bytes_per_pixel} bytes of feature maps per pixel"),
        ("normalisation", f"{_normalisation(facts.normalisation)}; output {_OUTPUT[facts.normalisation.output]}"),
        (
            "pixel size",
            " x ".join(f"{size:g}" for size in facts.pixel_size_um) + " µm" if facts.pixel_size_um else "not stated",
        ),
        ("channel", facts.channel or "not stated"),
        ("scores", ", ".join(f"{name} {value:g}" for name, value in facts.scores.items()) or "none stated"),
        ("limits", _limits(facts) or "not measured"),
        (
            "source",
            f"{made.source_format}: {made.source_name}, sha256 {made.source_sha256[:16]}..., written by {made.written_by}",
        ),
        ("imported by", made.imported_by),
        ("licence", package.licence or "not stated: ask its authors before passing it on"),
    ]
    sheet += [("authors", ", ".join(package.authors))] if package.authors else []
    return sheet + [("note", note) for note in made.notes]


_OUTPUT = {
    "inverse": "back in camera counts by the inverse",
    "frozen": "in counts by a stored range",
    "none": "in the network's own units",
}


def _limits(facts: ModelFacts) -> str:
    """Say where the model stops being of use, without the spreads and what was tested."""
    points = {name: value for name, value in facts.limits.items() if not name.endswith(("_from", "_to"))}
    return ", ".join(f"{name} {value:g}" for name, value in points.items())


def _network(facts: ModelFacts) -> str:
    kind = _NETWORKS[facts.architecture.kind]
    return f"{kind} {facts.geometry.n_dim}D" + (", probabilistic" if facts.probabilistic else "")


def _by_axis(numbers: tuple[int, ...], before: str) -> str:
    if len(set(numbers)) == 1:
        return f"{before}{numbers[0]}"
    return ", ".join(f"{axis} {before}{number}" for axis, number in zip(_AXES[len(numbers)], numbers, strict=True))


def _sizes(divisible_by: tuple[int, ...]) -> str:
    if set(divisible_by) == {1}:
        return "any"
    return "multiples of " + _by_axis(divisible_by, "")


def _output_size(facts: ModelFacts) -> str:
    factor = facts.geometry.output_factor
    if set(factor) == {1}:
        return "as large as the input"
    words = {0: "projected to one plane", 1: "as the input"}
    return ", ".join(f"{a} {words.get(f, f'{f} times larger')}" for a, f in zip(_AXES[len(factor)], factor, strict=True))


def _normalisation(rule: Normalisation) -> str:
    together = "" if rule.per_channel else ", channels together"
    measured = {
        "percentiles": f"percentiles {rule.low_percentile:g} and {rule.high_percentile:g}",
        "mean_std": "mean and standard deviation",
        "none": "none",
    }[rule.measure]
    if rule.mode == "frozen" and rule.frozen:
        pairs = zip(rule.frozen.low, rule.frozen.high, strict=True)
        return "frozen at " + ", ".join(f"{low:g} to {high:g}" for low, high in pairs)
    return measured + together + {"volume": " of each volume", "rolling": ", followed slowly", "frozen": ""}[rule.mode]
