"""The test tensors of a package: between network units and what bioimage.io keeps in files.

Receives test tensors in network units, with the facts; hands on what the files hold, and the way back. It does not know
the files, and not the graph that makes one tensor of the other.

bioimage.io wants the image before normalisation, and the output after the way back. For a frozen range one is computed
from the other. For a range measured on each image the file holds an image that is normalised already: normalising
leaves it as it is.
"""

import numpy as np
from numpy.typing import NDArray

from live_restore.intensity import IntensityRange
from live_restore.models.description import output_range
from live_restore.models.facts import ModelFacts, Normalisation
from live_restore.models.ranges import as_range, measure

FloatArray = NDArray[np.float32]

# How far normalising may move a test input that ought to be normalised.
_NORMALISED = 1e-4


def input_to_file(pixels: FloatArray, facts: ModelFacts) -> FloatArray:
    """Test input in network units to what is filed; (N, C, [Z,] Y, X) float32."""
    counts = _input_range(facts.normalisation)
    return pixels if counts is None else np.stack([counts.unscale(image) for image in pixels])


def input_from_file(pixels: FloatArray, facts: ModelFacts) -> FloatArray:
    """Inverse of `input_to_file`."""
    counts = _input_range(facts.normalisation)
    return pixels if counts is None else np.stack([counts.scale(image) for image in pixels])


def output_to_file(pixels: FloatArray, facts: ModelFacts) -> FloatArray:
    """Test output in network units to what is filed; (N, C or 2 C, [Z,] Y, X) float32."""
    counts = _output_range(facts)
    return pixels if counts is None else np.stack([counts.unscale(image) for image in pixels])


def output_from_file(pixels: FloatArray, facts: ModelFacts) -> FloatArray:
    """Inverse of `output_to_file`."""
    counts = _output_range(facts)
    return pixels if counts is None else np.stack([counts.scale(image) for image in pixels])


def _input_range(normalisation: Normalisation) -> IntensityRange | None:
    return as_range(normalisation.frozen) if normalisation.mode == "frozen" and normalisation.frozen else None


def _output_range(facts: ModelFacts) -> IntensityRange | None:
    frozen = output_range(facts)
    if frozen is None:
        return None
    counts = as_range(frozen)
    if not facts.probabilistic:
        return counts
    channels = np.ones(facts.channels_out)
    low = np.concatenate([counts.low * channels, 0 * channels])  # (2 C,); the scales have no offset
    return IntensityRange(low, low + np.tile((counts.high - counts.low) * channels, 2))


def check_test_tensors(test_input: FloatArray, test_output: FloatArray, facts: ModelFacts) -> None:
    """Refuse test tensors that do not fit the facts, or that other software would normalise once more."""
    channels_out = facts.channels_out * (2 if facts.probabilistic else 1)
    axes_out = sum(factor > 0 for factor in facts.geometry.output_factor)
    _check_shape("test_input", test_input, facts.channels_in, 2 + facts.geometry.n_dim)
    _check_shape("test_output", test_output, channels_out, 2 + axes_out)
    if any(size % step for size, step in zip(test_input.shape[2:], facts.geometry.divisible_by, strict=True)):
        raise ValueError(
            f"test_input has shape {test_input.shape}; its axes must be multiples of {facts.geometry.divisible_by}"
        )
    if _input_range(facts.normalisation) is None:
        for image in test_input:
            _check_normalised(image, facts.normalisation)


def _check_shape(name: str, pixels: FloatArray, channels: int, ndim: int) -> None:
    if pixels.ndim != ndim or pixels.shape[1] != channels or pixels.dtype != np.float32:
        raise ValueError(
            f"{name} is {pixels.dtype} {pixels.shape}; the facts say float32 with {ndim} axes (N, C, [Z,] Y, X) "
            f"and {channels} channels"
        )


def _check_normalised(image: FloatArray, normalisation: Normalisation) -> None:
    if normalisation.measure == "none":
        return
    measured = measure(image, normalisation)
    if max(np.abs(measured.low).max(), np.abs(measured.high - 1).max()) > _NORMALISED:
        raise ValueError(
            f"test_input must be normalised as the facts say ({normalisation.measure}); its range is "
            f"{measured.low.tolist()} to {measured.high.tolist()} instead of 0 to 1: scale it by "
            f"live_restore.intensity.measure_{normalisation.measure} first"
        )
