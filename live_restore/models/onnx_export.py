"""From a torch network to the bytes of an ONNX graph that every engine can run, and the network's own answer to compare with.

Receives a network of `live_restore.models.nets`; hands on an ONNX file in memory: opset 18, one ``input`` and one ``output``,
(N, C, [Z,] Y, X) float32 with batch and sizes left open. It does not know packages, engines or images.
"""

import io
import warnings

import numpy as np
import onnx
import torch
from numpy.typing import NDArray

from live_restore.models.nets.layers import Net

FloatArray = NDArray[np.float32]

OPSET = 18


def to_onnx(net: Net) -> bytes:
    """Write a network as an ONNX graph.

    Parameters
    ----------
    net : Net

    Returns
    -------
    bytes
        Checked by ``onnx.checker``. The weights are initializers under the names of the torch parameters. It holds no trace
        of the machine that wrote it: equal weights give equal bytes.
    """
    sizes = (2 * divisor for divisor in net.divisible_by)
    example = torch.zeros(1, net.options["channels_in"], *sizes, device=next(net.parameters()).device)
    graph = onnx.load_from_string(_trace(net, example))
    _unshare_weights(graph.graph)
    _strip_notes(graph)
    onnx.checker.check_model(graph, full_check=True)
    written: bytes = graph.SerializeToString()
    return written


def run_net(net: Net, batch: FloatArray) -> FloatArray:
    """Run a network as it is, without gradients.

    Parameters
    ----------
    net : Net
        Left in the mode (training or evaluation) in which it came.
    batch : ndarray, (N, C, [Z,] Y, X), float32
        Network units.

    Returns
    -------
    ndarray, float32

    Raises
    ------
    ValueError
        If the sizes are not multiples of ``net.divisible_by``.
    """
    _check_sizes(batch.shape[2:], net.divisible_by)
    training = net.training
    device = next(net.parameters()).device
    try:
        with torch.inference_mode():
            output = net.eval()(torch.as_tensor(np.array(batch, np.float32), device=device))
    finally:
        net.train(training)
    result: FloatArray = output.float().cpu().numpy()
    return result


def _check_sizes(sizes: tuple[int, ...], divisible_by: tuple[int, ...]) -> None:
    if len(sizes) != len(divisible_by):
        raise ValueError(f"the batch has {len(sizes)} spatial axes, the network {len(divisible_by)}; give (N, C, [Z,] Y, X)")
    if any(size % divisor for size, divisor in zip(sizes, divisible_by, strict=True)):
        raise ValueError(f"size {sizes} is not a multiple of {divisible_by}, as this network needs; pad or crop the image")


def _trace(net: Net, example: torch.Tensor) -> bytes:
    file = io.BytesIO()
    with warnings.catch_warnings():
        # torch announces that this exporter is old; the new one needs onnxscript and writes graphs that are harder to walk.
        warnings.filterwarnings("ignore", "You are using the legacy TorchScript-based ONNX export", DeprecationWarning)
        warnings.filterwarnings("ignore", "The feature will be removed", DeprecationWarning, r"torch\.onnx\.")
        torch.onnx.export(
            net,
            (example,),
            file,  # type: ignore[arg-type]  # this exporter takes an open file, which the annotation forgot
            dynamo=False,
            opset_version=OPSET,
            input_names=["input"],
            output_names=["output"],
            dynamic_axes=_open_axes(net, example),
        )
    return file.getvalue()


def _open_axes(net: Net, example: torch.Tensor) -> dict[str, dict[int, str]]:
    """Name the axes whose size is left open. An output axis has the input's name only if it has the input's size."""
    output_shape = run_net(net, example.cpu().numpy()).shape
    inward, outward = {0: "batch"}, {0: "batch"}
    for place, name in ((-1, "x"), (-2, "y"), (-3, "z"))[: example.ndim - 2]:
        inward[example.ndim + place] = name
        if len(output_shape) + place >= 2:  # a projection gives no Z
            same = output_shape[place] == example.shape[place]
            outward[len(output_shape) + place] = name if same else f"{name}_out"
    return {"input": inward, "output": outward}


def _unshare_weights(graph: onnx.GraphProto) -> None:
    """Give every layer its own weights again: the exporter merges equal tensors, as all biases of a fresh network are."""
    weights = {tensor.name: tensor for tensor in graph.initializer}
    for node in [node for node in graph.node if node.op_type == "Identity" and node.input[0] in weights]:
        graph.initializer.add().CopyFrom(weights[node.input[0]])
        graph.initializer[-1].name = node.output[0]
        graph.node.remove(node)


def _strip_notes(graph: onnx.ModelProto) -> None:
    """Remove free text, in which exporters like to leave source lines and paths."""
    for part in (graph, graph.graph, *graph.graph.node, *graph.graph.input, *graph.graph.output):
        part.doc_string = ""
        del part.metadata_props[:]
