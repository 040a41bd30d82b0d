"""The two tensors of a bioimage.io description, in either format (0.4 and 0.5), in one form.

Receives the dictionary of a description; hands on a `ForeignTensor` for the image and one for the result. It does not know what
their processing means, nor files.
"""

from dataclasses import dataclass
from typing import Any

from live_restore.errors import ModelError
from live_restore.models.description import SPACE_AXES

_AXES = (("batch", "channel", "y", "x"), ("batch", "channel", *SPACE_AXES))
_OF_LETTERS = {"b": "batch", "c": "channel"}


@dataclass(frozen=True, slots=True)
class ForeignTensor:
    """One tensor of a description.

    Attributes
    ----------
    name : str
    axes : tuple of str
        ``batch``, ``channel``, ``z``, ``y``, ``x``, in the tensor's order.
    steps : list or None
        Its processing, unparsed.
    test_name : str
        The file of its test tensor; empty if none is named.
    """

    name: str
    axes: tuple[str, ...]
    steps: Any
    test_name: str


def read_tensors(description: dict[str, Any], label: str) -> tuple[ForeignTensor, ForeignTensor]:
    """Read the image that goes in and the result that comes out.

    Raises
    ------
    ModelError
        If there are several, both have one name, or their axes are not batch, channel, [z,] y, x.
    """
    image, result = (_tensor(description, side, label) for side in ("inputs", "outputs"))
    if image.name == result.name:
        raise ModelError(
            f"{label}: input and output are both called '{image.name}'; names must differ: correct the description"
        )
    for tensor in (image, result):
        if tensor.axes not in _AXES:
            raise ModelError(
                f"{label}: the tensor '{tensor.name}' has the axes {', '.join(tensor.axes) or 'none'}; a network must have "
                "batch, channel, [z,] y, x in this order: export the graph so"
            )
    return image, result


def entries(value: Any) -> list[dict[str, Any]]:
    """Give the dictionaries of a list, and nothing of what is no list."""
    return [entry for entry in value if isinstance(entry, dict)] if isinstance(value, list) else []


def words(value: Any) -> list[str]:
    """Give the words of a list, and nothing of what is no list."""
    return [entry for entry in value if isinstance(entry, str)] if isinstance(value, list) else []


def _tensor(description: dict[str, Any], side: str, label: str) -> ForeignTensor:
    tensors = entries(description.get(side))
    if len(tensors) != 1:
        raise ModelError(f"{label} has {len(tensors)} {side}; live_restore runs networks of one image in and one out")
    tensor = tensors[0]
    steps = tensor.get("preprocessing" if side == "inputs" else "postprocessing")
    if isinstance(tensor.get("axes"), str):  # format 0.4
        axes = tuple(_OF_LETTERS.get(letter, letter) for letter in tensor["axes"])
        test_names = words(description.get(f"test_{side}"))
        return ForeignTensor(str(tensor.get("name", "")), axes, steps, test_names[0] if test_names else "")
    axes = tuple(_axis_name(axis) for axis in entries(tensor.get("axes")))
    test = tensor.get("test_tensor")
    test_name = str(test.get("source", "")) if isinstance(test, dict) else ""
    return ForeignTensor(str(tensor.get("id", side.removesuffix("s"))), axes, steps, test_name)


def _axis_name(axis: dict[str, Any]) -> str:
    kind = str(axis.get("type"))
    return str(axis.get("id", "x")) if kind == "space" else kind
