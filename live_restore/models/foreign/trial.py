"""The trial of an imported graph on the test image that its package brings.

Receives a graph, a normalisation, an image in counts and the output that the package's authors got; hands on both tensors in
network units and how far the outputs are apart. It does not know descriptions, nor files.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from live_restore.engines.engine import open_engine
from live_restore.errors import EngineError, ModelError
from live_restore.intensity import IntensityRange
from live_restore.models.facts import Normalisation
from live_restore.models.ranges import as_range, measure

FloatArray = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Trial:
    """What a graph made of the test image.

    Attributes
    ----------
    test_input, test_output : ndarray, (N, C, [Z,] Y, X), float32
        In network units: into the graph, and out of it.
    deviation, span : float
        Largest difference from the authors' output, after the way back, and the range of their output.
    """

    test_input: FloatArray
    test_output: FloatArray
    deviation: float
    span: float


def try_out(onnx: bytes, normalisation: Normalisation, image: FloatArray, expected: FloatArray) -> Trial:
    """Run a graph on the test image.

    Parameters
    ----------
    onnx : bytes
    normalisation : Normalisation
    image : ndarray, (N, C, [Z,] Y, X), float32
        As the package has it, before any processing.
    expected : ndarray, float32
        As the package has it, after all processing.

    Raises
    ------
    ModelError
        If the graph cannot be run on it, or gives another shape.
    """
    ranges = [as_range(normalisation.frozen) if normalisation.frozen else measure(pixels, normalisation) for pixels in image]
    test_input = np.stack([counts.scale(pixels) for counts, pixels in zip(ranges, image, strict=True)])
    try:
        with open_engine("openvino", onnx, "f32") as engine:
            test_output = engine.infer(test_input)[0]
    except EngineError as error:
        raise ModelError(f"the graph cannot be run on the package's own test image: {error}") from error
    if test_output.shape != expected.shape:
        raise ModelError(
            f"the graph makes {test_output.shape} of the package's test image, its test output has {expected.shape}; "
            "the ONNX file is another network than the description's: ask its authors"
        )
    back = _back(normalisation, ranges)
    output = (
        np.stack([counts.unscale(pixels) for counts, pixels in zip(back, test_output, strict=True)]) if back else test_output
    )
    return Trial(test_input, test_output, float(np.abs(output - expected).max()), float(np.ptp(expected)))


def _back(normalisation: Normalisation, ranges: list[IntensityRange]) -> list[IntensityRange] | None:
    if normalisation.output == "frozen" and normalisation.output_range:
        return [as_range(normalisation.output_range)] * len(ranges)
    return ranges if normalisation.output == "inverse" else None
