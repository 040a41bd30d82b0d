"""bioimage.io packages as other software writes them, around the graph that smooths, for tests of the importers."""

import hashlib
import zipfile
from pathlib import Path

import numpy as np
import yaml
from scipy.ndimage import uniform_filter
from tiny_packages import smoothing_graph

SPACE = ("z", "y", "x")


def smooth(image):
    """What `smoothing_graph` does; (N, C, [Z,] Y, X)."""
    return uniform_filter(image, (1, 1, *[3] * (image.ndim - 2)), mode="constant")


def counts(n_dim=2, channels=1, size=32):
    """Low-light camera counts, (2, C, [Z,] Y, X) uint16."""
    return np.random.default_rng(3).gamma(2, 100, (2, channels, *[size] * n_dim)).astype(np.uint16)


def described(version, n_dim=2, channels=1, pre=(), post=(), **changes):
    """A description of format 0.4 or 0.5 with these steps, a package's minimum."""
    if version == "0.4":
        axes = "bc" + "".join(SPACE[-n_dim:])
        tensors = {
            "inputs": [{"name": "raw", "axes": axes, "data_type": "float32", "preprocessing": list(pre)}],
            "outputs": [{"name": "restored", "axes": axes, "data_type": "float32", "postprocessing": list(post)}],
            "test_inputs": ["test_input.npy"],
            "test_outputs": ["test_output.npy"],
            "format_version": "0.4.10",
        }
    else:
        axes = [{"type": "batch"}, {"type": "channel", "channel_names": [f"c{i}" for i in range(channels)]}]
        axes += [{"type": "space", "id": name, "size": 32} for name in SPACE[-n_dim:]]
        tensors = {
            "inputs": [{"id": "raw", "axes": axes, "test_tensor": {"source": "test_input.npy"}, "preprocessing": list(pre)}],
            "outputs": [
                {"id": "restored", "axes": axes, "test_tensor": {"source": "test_output.npy"}, "postprocessing": list(post)}
            ],
            "format_version": "0.5.4",
        }
    return {
        "type": "model",
        "name": "foreign smoother",
        "description": "Smooths.",
        "license": "MIT",
        "authors": [{"name": "A. Author"}],
        "cite": [{"text": "A. Author 2020", "doi": "10.1234/abc"}],
        "tags": ["segmentation"],
        "covers": ["missing.png"],
        **tensors,
        "weights": {"onnx": {"source": "weights.onnx", "sha256": hashlib.sha256(smoothing_graph(n_dim, channels)).hexdigest()}},
        **changes,
    }


def write_foreign(folder: Path, description, image=None, result=None, onnx=None) -> Path:
    """Write a package: the description, its graph, and test tensors where given."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "rdf.yaml").write_text("%YAML 1.2\n---\n" + yaml.safe_dump(description), encoding="utf-8")
    if onnx is not None:
        (folder / "weights.onnx").write_bytes(onnx)
    if image is not None:
        np.save(folder / "test_input.npy", image)
    if result is not None:
        np.save(folder / "test_output.npy", np.asarray(result, np.float32))
    return folder


def zipped(folder: Path) -> Path:
    """Zip a package."""
    path = folder.with_suffix(".zip")
    with zipfile.ZipFile(path, "w") as archive:
        for file in folder.iterdir():
            archive.write(file, file.name)
    return path
