"""Importing: from a model of somebody else's software to a package.

Receives a path; hands on a `ModelPackage`. Adds to what an importer read what can be measured on the network itself: its
graph, its geometry, what it makes of a test image. It does not know any foreign format, nor how a package is laid out.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from live_restore import __version__
from live_restore.errors import ModelError
from live_restore.models.facts import Geometry, ModelFacts, Normalisation, Provenance
from live_restore.models.foreign.example_image import render_counts
from live_restore.models.foreign.imported import Imported
from live_restore.models.foreign.importers import read_source
from live_restore.models.ranges import measure

if TYPE_CHECKING:
    from live_restore.models.package import ModelPackage

FloatArray = NDArray[np.float32]
Procedure = Literal["direct", "upsampling", "isotropic"]


# Sizes of the rendered test image, made multiples of what the network divides.
_TEST_SIZES = {2: (128, 128), 3: (16, 64, 64)}


def import_model(  # noqa: PLR0913 (one argument per option of the command)
    source: Path,
    output: Path,
    *,
    name: str | None = None,
    procedure: Procedure = "direct",
    z_factor: float | None = None,
    low_percentile: float | None = None,
    high_percentile: float | None = None,
    overwrite: bool = False,
    weights: Path | None = None,
) -> "ModelPackage":
    """Read a model in a foreign format and write it as a package.

    Parameters
    ----------
    source : Path
        What an importer in `live_restore.models.foreign.importers` reads.
    output : Path
        The package to write: a folder, or a file that ends in ``.zip``.
    name : str, optional
        Default: the source's own.
    procedure : {"direct", "upsampling", "isotropic"}
        How the network was used; CSBDeep's files do not say.
    z_factor : float, optional
        How many times finer Z becomes, for ``upsampling`` and ``isotropic``.
    low_percentile, high_percentile : float, optional
        In percent. Default: what the software that trained the model uses.
    overwrite : bool
        Replace a package that lies at `output`.
    weights : Path, optional
        Which weight file, where a folder holds several.

    Raises
    ------
    ModelError
        If the source cannot be read, or is no network that can be restored with.
    """
    if z_factor is not None and procedure == "direct":
        raise ModelError(f"z_factor {z_factor} needs the procedure that makes Z finer: --procedure upsampling or isotropic")
    imported = read_source(source, weights)
    normalisation = with_percentiles(imported.normalisation, low_percentile, high_percentile)
    return write_imported(imported, output, normalisation, name, procedure, z_factor, overwrite)


def write_imported(
    imported: Imported,
    output: Path,
    normalisation: Normalisation | None = None,
    name: str | None = None,
    procedure: Procedure = "direct",
    z_factor: float | None = None,
    overwrite: bool = False,
) -> "ModelPackage":
    """Measure what a source does not say, its graph, geometry and test images, and write the package.

    Raises
    ------
    ModelError
        If the network cannot be restored with.
    """
    from live_restore.models.geometry.graph import measure_geometry
    from live_restore.models.package import write_package

    onnx = _onnx(imported)
    facts = facts_of(imported, normalisation or imported.normalisation, measure_geometry(onnx), procedure, z_factor)
    test_input, test_output = example_images(imported, onnx, facts)
    return write_package(
        output,
        name=name or _long_enough(imported.name),
        description=imported.description or describe(facts),
        onnx=onnx,
        test_input=test_input,
        test_output=test_output,
        facts=facts,
        licence=imported.licence,
        authors=imported.authors,
        cite=imported.cite,
        overwrite=overwrite,
    )


def describe(facts: ModelFacts) -> str:
    """Describe a network in one sentence, e.g. ``2D CARE network, 332,641 parameters, imported from csbdeep-h5``."""
    architecture = facts.architecture
    kind = architecture.kind.replace("_", " ").replace("care", "CARE").replace("rcan", "RCAN")
    probabilistic = ", probabilistic" if facts.probabilistic else ""
    size = f", {architecture.parameters:,} parameters" if architecture.parameters else ""
    return f"{facts.geometry.n_dim}D {kind} network{probabilistic}{size}, imported from {facts.provenance.source_format}"


def with_percentiles(normalisation: Normalisation, low: float | None, high: float | None) -> Normalisation:
    """Put chosen percentiles, in percent, in place of the source's; None keeps them."""
    if low is None and high is None:
        return normalisation
    if normalisation.measure != "percentiles" or normalisation.mode == "frozen":
        raise ModelError(
            f"this model is normalised by {normalisation.measure} ({normalisation.mode}); leave out the percentiles"
        )
    chosen = {"low_percentile": low, "high_percentile": high}
    try:
        return Normalisation(**normalisation.model_dump() | {key: value for key, value in chosen.items() if value is not None})
    except ValidationError as error:
        raise ModelError(f"these percentiles are not possible: {_reasons(error)}") from error


def _onnx(imported: Imported) -> bytes:
    if imported.onnx is not None:
        return imported.onnx
    from live_restore.models.onnx_export import to_onnx

    return to_onnx(imported.net)


def facts_of(
    imported: Imported, normalisation: Normalisation, geometry: Geometry, procedure: Procedure, z_factor: float | None
) -> ModelFacts:
    """Put together what a package says of itself: what the source told, what was measured, what the user chose."""
    try:
        return ModelFacts(
            architecture=imported.architecture,
            geometry=geometry,
            channels_in=imported.channels_in,
            channels_out=imported.channels_out,
            probabilistic=imported.probabilistic,
            procedure=procedure,
            z_factor=z_factor,
            normalisation=normalisation,
            provenance=_provenance(imported),
        )
    except ValidationError as error:
        raise ModelError(f"{imported.source_name} cannot be imported like this: {_reasons(error)}") from error


def _provenance(imported: Imported) -> Provenance:
    return Provenance(
        source_format=imported.source_format,
        source_name=imported.source_name,
        source_sha256=imported.source_sha256,
        written_by=imported.written_by,
        imported_by=f"live_restore {__version__}",
        notes=imported.notes,
    )


def _reasons(error: ValidationError) -> str:
    return "; ".join(str(entry["msg"]).removeprefix("Value error, ") for entry in error.errors())


def example_images(imported: Imported, onnx: bytes, facts: ModelFacts) -> tuple[FloatArray, FloatArray]:
    """Take the source's own test images, or render one and run the network; (N, C, [Z,] Y, X) float32, network units."""
    as_trained = facts.normalisation == imported.normalisation
    if as_trained and imported.test_input is not None and imported.test_output is not None:
        return imported.test_input, imported.test_output
    batch = _rendered(facts)
    return batch, _run(imported, onnx, batch)


def _rendered(facts: ModelFacts) -> FloatArray:
    geometry = facts.geometry
    sizes = [-(-size // step) * step for size, step in zip(_TEST_SIZES[geometry.n_dim], geometry.divisible_by, strict=True)]
    counts = render_counts((facts.channels_in, *sizes))
    return measure(counts, facts.normalisation).scale(counts)[None]  # (1, C, [Z,] Y, X)


def _run(imported: Imported, onnx: bytes, batch: FloatArray) -> FloatArray:
    """Run the network itself, or, where there is only a graph, the graph on the CPU; float32 either way."""
    if imported.net is not None:
        from live_restore.models.onnx_export import run_net

        return run_net(imported.net, batch)
    from live_restore.engines.engine import open_engine

    with open_engine("openvino", onnx, "f32") as engine:
        outputs: Any = engine.infer(batch)
    result: FloatArray = outputs[0]
    return result


def _long_enough(name: str) -> str:
    """Lengthen a name of less than the five letters that bioimage.io wants."""
    return name if len(name) >= 5 else f"{name} model".strip()
