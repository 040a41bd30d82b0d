"""Tiny real packages for tests: a graph that smooths by 3 x 3, its facts, its test tensors."""

from pathlib import Path

import numpy as np
from onnx import TensorProto, helper, numpy_helper
from scipy.ndimage import uniform_filter

from live_restore.models.facts import Architecture, Geometry, ModelFacts, Normalisation, Provenance
from live_restore.models.package import ModelPackage, write_package
from live_restore.models.tensors import measure


def smoothing_graph(n_dim=2, channels=1):
    """ONNX graph of one grouped convolution that averages 3 x 3 (x 3) neighbours of every channel."""
    weights = numpy_helper.from_array(np.full((channels, 1, *[3] * n_dim), 1 / 3**n_dim, np.float32), "weights")
    node = helper.make_node("Conv", ["input", "weights"], ["output"], pads=[1] * 2 * n_dim, group=channels)
    shape = ("batch", channels, *"zyx"[-n_dim:])
    tensors = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("input", "output")]
    graph = helper.make_graph([node], "smooth", tensors[:1], tensors[1:], [weights])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9).SerializeToString()


def smoothing_tensors(n_dim=2, channels=1, size=32, normalisation=None):
    """Test input, normalised as measured, and what `smoothing_graph` makes of it."""
    counts = np.random.default_rng(7).gamma(2, 100, (channels, *[size] * n_dim)).astype(np.float32)
    test_input = measure(counts, normalisation or Normalisation()).scale(counts)[None]
    test_output = uniform_filter(test_input, (1, 1, *[3] * n_dim), mode="constant")
    return test_input, test_output


def smoothing_facts(n_dim=2, channels=1, **changes):
    return ModelFacts(
        architecture=Architecture(kind="care", parameters=9),
        geometry=Geometry(
            halo=(1,) * n_dim, divisible_by=(4,) * n_dim, output_factor=(1,) * n_dim, bytes_per_pixel=8, flop_per_pixel=18
        ),
        channels_in=channels,
        channels_out=channels,
        provenance=Provenance(
            source_format="trained", source_name="smooth", source_sha256="0" * 64, imported_by="live_restore 0.1.0"
        ),
        **changes,
    )


def write_smoothing_package(path: Path, n_dim=2, channels=1, facts=None, **options) -> ModelPackage:
    facts = facts or smoothing_facts(n_dim, channels)
    test_input, test_output = smoothing_tensors(n_dim, channels, normalisation=facts.normalisation)
    written = {
        "name": "smoothing 3x3",
        "description": "Averages 3 x 3 pixels.",
        "onnx": smoothing_graph(n_dim, channels),
        "test_input": test_input,
        "test_output": test_output,
        "facts": facts,
        **options,
    }
    return write_package(path, **written)
