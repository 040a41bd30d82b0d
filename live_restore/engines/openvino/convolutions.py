"""The plain convolutions of an OpenVINO graph, found and rewritten one by one.

Receives a graph, which convolutions are wanted and what becomes of each; hands on how many were rewritten. It does not know
what they are rewritten to.
"""

from collections.abc import Callable
from typing import Any


def rewrite_convolutions(model: Any, is_wanted: Callable[[Any], bool], rewrite: Callable[[Any], bool]) -> int:
    """Rewrite every plain convolution that is wanted.

    Parameters
    ----------
    model : openvino.Model
        Changed in place.
    is_wanted, rewrite : callable (node)
        The latter says whether it changed anything.

    Returns
    -------
    int
        How many convolutions were rewritten.
    """
    rewritten = 0
    for node in model.get_ordered_ops():
        if node.get_type_name() == "Convolution" and _is_plain(node) and is_wanted(node):
            rewritten += rewrite(node)
    model.validate_nodes_and_infer_types()
    return rewritten


def _is_plain(conv: Any) -> bool:
    """Whether it is an odd kernel of constants with stride 1 that keeps the size."""
    said, weights = conv.get_attributes(), conv.input_value(1).get_node()
    if weights.get_type_name() != "Constant":
        return False
    sizes = list(weights.get_output_shape(0))[2:]
    same = [size // 2 for size in sizes]
    once = all(step == 1 for step in (*said["strides"], *said["dilations"]))
    odd = all(size % 2 for size in sizes)
    return once and odd and list(said["pads_begin"]) == same == list(said["pads_end"]) and said["auto_pad"] == "explicit"
