"""The bioimage.io description (format 0.5) of a package, made from the facts.

Receives facts and the shapes of the test tensors; hands on the dictionary that becomes ``rdf.yaml`` and the text that
becomes ``README.md``. Pure: it knows no files, and not how the network is run.

Other software reads here how to normalise. What bioimage.io can say, it says: percentiles, mean and variance, fixed
ranges, and the way back of a fixed range. The way back of a range measured on each image it cannot say: there other
software gets the network's units.
"""

import math
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from live_restore.models.facts import FrozenRange, Geometry, ModelFacts, Normalisation

# The oldest format that has all we write, so that older readers take it too.
FORMAT_VERSION = "0.5.4"

README_NAME = "README.md"
WEIGHTS_NAME = "weights.onnx"
TEST_INPUT_NAME = "test_input.npy"
TEST_OUTPUT_NAME = "test_output.npy"

SPACE_AXES = ("z", "y", "x")

_CARE_CITE = "Weigert et al. 2018, Content-aware image restoration, Nature Methods. doi:10.1038/s41592-018-0216-7"
_RCAN_CITE = (
    "Chen et al. 2021, Three-dimensional residual channel attention networks denoise and sharpen fluorescence microscopy "
    "image volumes, Nature Methods. doi:10.1038/s41592-021-01155-x"
)
ARCHITECTURE_CITES = {"care": _CARE_CITE, "projection_care": _CARE_CITE, "careamics_unet": _CARE_CITE, "rcan": _RCAN_CITE}

# Far below any contrast of an image; bioimage.io asks for more than nothing.
_EPS = 1e-12


@dataclass(frozen=True, slots=True)
class About:
    """What a package says of itself to people.

    Attributes
    ----------
    name, description : str
        Characters that bioimage.io does not allow in a name become ``-`` in the description file.
    licence : str or None
        SPDX identifier.
    authors, cite : tuple of str
        Names; references, of which bioimage.io takes those that have a DOI.
    """

    name: str
    description: str
    licence: str | None = None
    authors: tuple[str, ...] = ()
    cite: tuple[str, ...] = ()


def describe_model(
    about: About, facts: ModelFacts, *, input_shape: tuple[int, ...], sha256: dict[str, str], opset: int, highest_output: float
) -> dict[str, Any]:
    """Describe a model as bioimage.io does.

    Parameters
    ----------
    about : About
    facts : ModelFacts
    input_shape : tuple of int
        Of the test input, (N, C, [Z,] Y, X).
    sha256 : dict
        Hash of each file by its name.
    opset : int
        Of the ONNX graph.
    highest_output : float
        Largest value of the test output as it is filed; other software may miss it by a thousandth of this.
    """
    return {
        "type": "model",
        "format_version": FORMAT_VERSION,
        "name": fitting_name(about.name),
        "description": about.description,
        **({"license": about.licence} if about.licence else {}),
        "authors": [{"name": re.sub(r"[/\\]", " ", author)} for author in about.authors or ("unknown",)],
        "cite": _citations(about.cite, facts.architecture.kind),
        "tags": ["restoration", "denoising", "fluorescence", f"{facts.geometry.n_dim}d", facts.architecture.kind],
        "documentation": README_NAME,
        "timestamp": datetime.now(UTC).isoformat(timespec="seconds"),
        "inputs": [_describe_input(facts, input_shape, sha256)],
        "outputs": [_describe_output(facts, input_shape, sha256)],
        "weights": {"onnx": {"source": WEIGHTS_NAME, "sha256": sha256[WEIGHTS_NAME], "opset_version": opset}},
        "config": {
            "bioimageio": {"reproducibility_tolerance": [_tolerance(highest_output)]},
            "live_restore": facts.model_dump(mode="json"),
        },
    }


def fitting_name(name: str) -> str:
    """Make a name that bioimage.io accepts: 5 to 128 letters, digits, spaces and ``_+-()``."""
    fitting = re.sub(r"[^A-Za-z0-9_+\- ()]", "-", name).strip()[:128]
    return fitting if len(fitting) >= 5 else f"{fitting} model".strip()


def _citations(cite: tuple[str, ...], kind: str) -> list[dict[str, str]]:
    references = cite or ((ARCHITECTURE_CITES[kind],) if kind in ARCHITECTURE_CITES else ())
    found = ((text, re.search(r"10\.\d{4,9}/[^\s,;]+", text)) for text in references)
    return [{"text": text, "doi": doi.group().rstrip(".")} for text, doi in found if doi]


def _tolerance(highest_output: float) -> dict[str, Any]:
    absolute = max(1e-3 * highest_output, 1e-9)
    return {"relative_tolerance": 1e-3, "absolute_tolerance": absolute, "mismatched_elements_per_million": 100}


def _describe_input(facts: ModelFacts, shape: tuple[int, ...], sha256: dict[str, str]) -> dict[str, Any]:
    return {
        "id": "input",
        "description": "camera counts",
        "axes": [{"type": "batch"}, _channels(facts.channels_in, "channel"), *_input_axes(facts.geometry, shape[2:])],
        "test_tensor": {"source": TEST_INPUT_NAME, "sha256": sha256[TEST_INPUT_NAME]},
        "data": {"type": "float32"},
        "preprocessing": preprocessing(facts.normalisation, facts.geometry.n_dim),
    }


def _describe_output(facts: ModelFacts, shape: tuple[int, ...], sha256: dict[str, str]) -> dict[str, Any]:
    channels = _channels(facts.channels_out, "channel")
    if facts.probabilistic:
        channels["channel_names"] += _channels(facts.channels_out, "scale")["channel_names"]
    return {
        "id": "output",
        "description": "restored image",
        "axes": [{"type": "batch"}, channels, *_output_axes(facts.geometry, shape[2:])],
        "test_tensor": {"source": TEST_OUTPUT_NAME, "sha256": sha256[TEST_OUTPUT_NAME]},
        "data": {"type": "float32"},
        "postprocessing": postprocessing(facts),
    }


def _channels(count: int, name: str) -> dict[str, Any]:
    return {"type": "channel", "channel_names": [f"{name}{i}" for i in range(count)]}


def _input_axes(geometry: Geometry, sizes: tuple[int, ...]) -> list[dict[str, Any]]:
    smallest = [
        step if halo == 0 else (2 * halo // step + 1) * step
        for step, halo in zip(geometry.divisible_by, _stated_halo(geometry, sizes), strict=True)
    ]
    names = SPACE_AXES[-geometry.n_dim :]
    return [
        {"type": "space", "id": name, "size": {"min": least, "step": step}}
        for name, least, step in zip(names, smallest, geometry.divisible_by, strict=True)
    ]


def _output_axes(geometry: Geometry, sizes: tuple[int, ...]) -> list[dict[str, Any]]:
    names = SPACE_AXES[-geometry.n_dim :]
    axes = zip(names, geometry.output_factor, _stated_halo(geometry, sizes), strict=True)
    return [_output_axis(name, factor, halo) for name, factor, halo in axes if factor]


def _output_axis(name: str, factor: int, halo: int) -> dict[str, Any]:
    axis: dict[str, Any] = {"type": "space", "id": name, "size": {"tensor_id": "input", "axis_id": name}}
    if factor != 1:
        axis["scale"] = 1 / factor
    if halo:
        axis["halo"] = halo * factor
    return axis


def _stated_halo(geometry: Geometry, sizes: tuple[int, ...]) -> list[int]:
    """Per axis the halo, or 0 where bioimage.io cannot state it: it wants a test input larger than two halos."""
    even = [halo + halo % 2 for halo in geometry.halo]  # its older readers refuse odd ones
    axes = zip(even, geometry.divisible_by, geometry.output_factor, sizes, strict=True)
    return [halo if factor and size >= (2 * halo // step + 1) * step else 0 for halo, step, factor, size in axes]


def preprocessing(normalisation: Normalisation, n_dim: int) -> list[dict[str, Any]]:
    """Say the normalisation as bioimage.io's preprocessing; a rolling range becomes one per image."""
    axes = [*([] if normalisation.per_channel else ["channel"]), *SPACE_AXES[-n_dim:]]
    if normalisation.mode == "frozen" and normalisation.frozen:
        return _to_unit_range(normalisation.frozen)
    if normalisation.measure == "mean_std":
        return [{"id": "zero_mean_unit_variance", "kwargs": {"axes": axes, "eps": _EPS}}]
    if normalisation.measure == "percentiles":
        percentiles = {"min_percentile": normalisation.low_percentile, "max_percentile": normalisation.high_percentile}
        return [{"id": "scale_range", "kwargs": {"axes": axes, **percentiles, "eps": _EPS}}]
    return []


def postprocessing(facts: ModelFacts) -> list[dict[str, Any]]:
    """Say the way back to counts, where there is one that depends on no image."""
    counts = output_range(facts)
    if counts is None:
        return []
    low, span = list(counts.low), _spans(counts)
    if facts.probabilistic:  # a scale has no offset
        low, span = (
            _per_channel(low, facts.channels_out) + [0.0] * facts.channels_out,
            _per_channel(span, facts.channels_out) * 2,
        )
    if set(low) == {0.0} and set(span) == {1.0}:
        return []
    kwargs = {"gain": span[0], "offset": low[0]} if len(low) == 1 else {"axis": "channel", "gain": span, "offset": low}
    return [{"id": "scale_linear", "kwargs": kwargs}]


def output_range(facts: ModelFacts) -> FrozenRange | None:
    """Give the counts that the network's 0 and 1 become, or None if they differ from image to image."""
    normalisation = facts.normalisation
    if normalisation.output == "frozen":
        return normalisation.output_range
    if normalisation.output == "inverse" and normalisation.mode == "frozen":
        return normalisation.frozen
    return None


def _to_unit_range(counts: FrozenRange) -> list[dict[str, Any]]:
    low, span = list(counts.low), _spans(counts)
    kwargs = {"mean": low[0], "std": span[0]} if len(low) == 1 else {"axis": "channel", "mean": low, "std": span}
    return [{"id": "fixed_zero_mean_unit_variance", "kwargs": kwargs}]


def _spans(counts: FrozenRange) -> list[float]:
    return [high - low for low, high in zip(counts.low, counts.high, strict=True)]


def _per_channel(values: list[float], channels: int) -> list[float]:
    return values * channels if len(values) == 1 else values


def readme(about: About, facts: ModelFacts) -> str:
    """Write the documentation of a package, in Markdown."""
    geometry, provenance = facts.geometry, facts.provenance
    factor = " x ".join(map(str, geometry.divisible_by))
    notes = "".join(f"- {note}\n" for note in provenance.notes) or "- none\n"
    return f"""# {about.name}

{about.description}

A {geometry.n_dim}D network of the kind `{facts.architecture.kind}` with {facts.architecture.parameters:,} trained numbers.
Image sizes must be multiples of {factor} ({" ".join(SPACE_AXES[-geometry.n_dim :])}); no output pixel depends on input
further away than {max(geometry.halo)} pixels{" and the average over the whole image" if geometry.global_pooling else ""}.

## Normalisation

{_normalisation_text(facts)}

`{TEST_INPUT_NAME}` is an image before this normalisation, `{TEST_OUTPUT_NAME}` the output after the way back, where there
is one.

## Validation

Restored pixels are a prediction; the raw image is the record. Compare with images taken at high light that the network
has not seen, by PSNR, SSIM and by the eye. {_scores_text(facts)}

## Where it came from

{provenance.source_format}: `{provenance.source_name}` (sha256 {provenance.source_sha256}), written by
{provenance.written_by}, imported by {provenance.imported_by}. Assumed while importing:

{notes}
## References

{"".join(f"- {text}{chr(10)}" for text in about.cite) or ARCHITECTURE_CITES.get(facts.architecture.kind, "none stated")}
"""


def _normalisation_text(facts: ModelFacts) -> str:
    normalisation = facts.normalisation
    if normalisation.mode == "frozen" and normalisation.frozen:
        text = f"Camera counts {normalisation.frozen.low} become 0 and {normalisation.frozen.high} become 1, in every image."
    elif normalisation.measure == "percentiles":
        text = f"Percentiles {normalisation.low_percentile} and {normalisation.high_percentile} of each image become 0 and 1."
    elif normalisation.measure == "mean_std":
        text = "Each image is brought to zero mean and unit variance."
    else:
        text = "The network takes the image as it is."
    if facts.normalisation.output == "inverse" and output_range(facts) is None and normalisation.measure != "none":
        text += " live_restore undoes this on the output; bioimage.io cannot say so, and other software gets the scaled output."
    if facts.procedure == "upsampling":
        text += f" The image is interpolated along Z by {facts.z_factor} first."
    if facts.procedure == "isotropic":
        text += f" The volume is interpolated along Z by {facts.z_factor}; the network restores its XZ and YZ planes."
    return text


def _scores_text(facts: ModelFacts) -> str:
    scores = ", ".join(f"{name} {score:g}" for name, score in facts.scores.items() if math.isfinite(score))
    return f"Held-out scores: {scores}." if scores else "No held-out scores are stated."
