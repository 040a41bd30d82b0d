"""Pairs and packages for tests of evaluation and promotion: bright blobs at low and high light, and networks of one kernel."""

import json

import numpy as np
import tifffile
from onnx import TensorProto, helper, numpy_helper
from scipy.ndimage import correlate, gaussian_filter
from tiny_packages import smoothing_facts, smoothing_tensors

from live_restore.models.package import write_package
from live_restore.records.pairs import Pair

OFFSET, GAIN, READ_NOISE = 100.0, 2.0, 1.5


def scene(seed, shape=(64, 72), photons=60.0):
    """Blobs on a dark field; photons per pixel, the brightest about `photons`."""
    rng = np.random.default_rng(seed)
    seeds = np.zeros(shape)
    seeds[tuple(rng.integers(0, side, 24) for side in shape)] = rng.uniform(0.4, 1, 24)
    blurred = gaussian_filter(seeds, (2.5,) * len(shape))
    return photons * blurred / blurred.max() + 1.0


def expose(photons, seed):
    """Camera counts of one exposure."""
    rng = np.random.default_rng([seed, 1])
    electrons = rng.poisson(photons) + rng.normal(0, READ_NOISE, photons.shape)
    return np.clip(np.rint(OFFSET + GAIN * electrons), 0, 65535).astype(np.uint16)


def pair_of_files(folder, name, low, high, **said):
    for side, pixels in (("low", low), ("high", high)):
        (folder / side).mkdir(parents=True, exist_ok=True)
        tifffile.imwrite(folder / side / f"{name}.tif", pixels)
    return Pair(name, folder / "low" / f"{name}.tif", folder / "high" / f"{name}.tif", **said)


def write_calibration(folder, channel="FITC", positions=4, held_out=2, photons=60.0, shape=(64, 72), seed=0):
    """A folder of pairs as a calibration leaves it: low and high, and a log that says the split."""
    pairs, lines = [], []
    for place in range(positions):
        truth = scene(seed + place, shape, photons)
        low, high = expose(truth, seed + place), expose(50 * truth, seed + place + 1000)
        said = {"channel": channel, "position": f"p{place}", "split": "held-out" if place < held_out else "train"}
        pairs.append(pair_of_files(folder, f"p{place}", low, high, **said))
        lines.append({"name": f"p{place}", "accepted": True, **said})
    (folder / "pairs.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return pairs


def kernel_graph(kernel, scale=None):
    """ONNX graph of one convolution; with `scale` a second channel of that value, as probabilistic networks have."""
    weights = numpy_helper.from_array(kernel.astype(np.float32)[None, None], "weights")
    pads = [side // 2 for side in kernel.shape] * 2
    outputs, inside = ["output" if scale is None else "mean"], [weights]
    nodes = [helper.make_node("Conv", ["input", "weights"], outputs, pads=pads)]
    if scale is not None:
        inside += [numpy_helper.from_array(np.float32(value), name) for name, value in (("nothing", 0), ("scale", scale))]
        nodes += [
            helper.make_node("Mul", ["mean", "nothing"], ["zeros"]),
            helper.make_node("Add", ["zeros", "scale"], ["scales"]),
            helper.make_node("Concat", ["mean", "scales"], ["output"], axis=1),
        ]
    axes = "zyx"[-kernel.ndim :]
    ends = [("input", 1), ("output", 1 if scale is None else 2)]
    tensors = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ("batch", n, *axes)) for name, n in ends]
    graph = helper.make_graph(nodes, "kernel", tensors[:1], tensors[1:], inside)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9).SerializeToString()


def write_kernel_package(path, kernel, name="kernel", scale=None, **changes):
    """A network that is one kernel: the better it fits the blobs and the noise, the better it restores."""
    kernel = np.asarray(kernel, np.float32)
    facts = smoothing_facts(kernel.ndim, probabilistic=scale is not None, **changes)
    halo = tuple(side // 2 for side in kernel.shape)
    facts = facts.model_copy(update={"geometry": facts.geometry.model_copy(update={"halo": halo})})
    test_input, _ = smoothing_tensors(kernel.ndim)
    test_output = correlate(test_input, kernel[None, None], mode="constant").astype(np.float32)
    if scale is not None:
        test_output = np.concatenate([test_output, np.full_like(test_output, scale)], axis=1)
    onnx = kernel_graph(kernel, scale)
    tensors = {"test_input": test_input, "test_output": test_output}
    return write_package(path, name=name, description="One kernel.", onnx=onnx, facts=facts, **tensors)


def gaussian_kernel(sigma, side=11, gain=1.0):
    point = np.zeros((side, side))
    point[side // 2, side // 2] = 1
    blurred = gaussian_filter(point, sigma)
    return gain * blurred / blurred.sum()


IDENTITY = np.ones((1, 1), np.float32)
