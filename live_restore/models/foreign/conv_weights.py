"""The weights of convolutions as TensorFlow keeps them, checked, and put into a torch network.

Receives kernels and biases from the readers of weight files; hands on a network that holds them. It does not know which
file they came from, nor which network they belong to.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

from live_restore.errors import ModelError

FloatArray = NDArray[np.float32]
# Kernel sizes, channels in, channels out: the shape of a kernel as TensorFlow writes it.
KernelShape = tuple[int, ...]

# The largest restoration networks in use have a few million; a file that claims more is damaged or hostile.
LARGEST_WEIGHTS = 250_000_000


@dataclass(frozen=True, slots=True, eq=False)
class ConvWeights:
    """One convolution.

    Attributes
    ----------
    name : str
        Layer name in the file.
    kernel : ndarray, ([z,] y, x, channels in, channels out), float32
    bias : ndarray, (channels out,), float32
    """

    name: str
    kernel: FloatArray
    bias: FloatArray

    @property
    def n_dim(self) -> int:
        """Number of spatial axes."""
        return self.kernel.ndim - 2

    @property
    def size(self) -> tuple[int, ...]:
        """Kernel size along every spatial axis."""
        return self.kernel.shape[:-2]

    @property
    def channels_in(self) -> int:
        """Channels that it receives."""
        return int(self.kernel.shape[-2])

    @property
    def channels_out(self) -> int:
        """Channels that it gives."""
        return int(self.kernel.shape[-1])


def checked_conv(name: str, arrays: Mapping[str, NDArray[Any]]) -> ConvWeights:
    """Make sure that a layer's arrays are the kernel and bias of a convolution.

    Parameters
    ----------
    name : str
        Layer name, for the messages.
    arrays : mapping from "kernel", "bias", ... to ndarray
        Everything that the file holds under that name.

    Raises
    ------
    ModelError
        If something is missing, there is something else, shapes do not fit, or a number is not finite.
    """
    if set(arrays) != {"kernel", "bias"}:
        raise ModelError(_not_a_convolution(name, sorted(arrays)))
    kernel, bias = (np.ascontiguousarray(arrays[part], dtype=np.float32) for part in ("kernel", "bias"))
    if kernel.ndim not in (4, 5):
        raise ModelError(f"the kernel of layer '{name}' has {kernel.ndim} axes; 2D convolutions have 4, 3D convolutions 5")
    if bias.shape != kernel.shape[-1:]:
        raise ModelError(f"layer '{name}': bias of shape {bias.shape} does not fit the kernel of shape {kernel.shape}")
    for part, array in (("kernel", kernel), ("bias", bias)):
        if bad := int(array.size - np.isfinite(array).sum()):
            raise ModelError(f"the {part} of layer '{name}' has {bad} numbers that are NaN or infinite; the training diverged")
    return ConvWeights(name, kernel, bias)


def _not_a_convolution(name: str, parts: list[str]) -> str:
    missing = [part for part in ("kernel", "bias") if part not in parts]
    if parts and not set(parts) - {"kernel", "bias"}:
        return (
            f"layer '{name}' has no {missing[0]}; CARE and RCAN convolutions have a kernel and a bias, the file is incomplete"
        )
    return (
        f"layer '{name}' holds {', '.join(parts) or 'nothing'}; only convolutions with kernel and bias can be imported "
        "(with batch normalisation it may be a Noise2Void network, which is neither CARE nor RCAN)"
    )


def check_layers(found: Sequence[ConvWeights], expected: Sequence[tuple[str, KernelShape]], network: str) -> None:
    """Refuse convolutions that are not, one for one, those of a network.

    Parameters
    ----------
    found : sequence of ConvWeights
    expected : sequence of (name, kernel shape)
        In the same order; the names are for the messages.
    network : str
        What the network would be, for the messages.
    """
    if len(found) != len(expected):
        raise ModelError(f"the file has {len(found)} convolutions, but {network} has {len(expected)}; these are other weights")
    for conv, (name, shape) in zip(found, expected, strict=True):
        if conv.kernel.shape != shape:
            raise ModelError(
                f"layer '{conv.name}' has a kernel of shape {conv.kernel.shape}, as '{name}' of {network} it would have {shape}"
            )


def check_torch() -> None:
    """Refuse to go on where torch, which only importing and training need, is not installed."""
    if find_spec("torch") is None:
        raise ModelError("importing these weights needs torch; install it with: pip install 'live_restore[train]'")


def built(kind: str, options: Mapping[str, Any], weights: Sequence[ConvWeights]) -> Any:
    """Build a network and put weights into it.

    Parameters
    ----------
    kind, options
        As for `live_restore.models.nets.build_net`.
    weights : sequence of ConvWeights
        In the order of the network's ``convolutions()``; checked against its options beforehand (`check_layers`).

    Returns
    -------
    torch.nn.Module

    Raises
    ------
    ModelError
        If no such network exists.
    """
    from live_restore.models.nets import build_net

    try:
        net: Any = build_net(kind, dict(options))
    except ValueError as error:
        raise ModelError(f"no {kind} network is like this: {error}") from error
    for (_, conv), layer in zip(net.convolutions(), weights, strict=True):
        _fill(conv, layer)
    return net


def _fill(conv: Any, layer: ConvWeights) -> None:
    kernel = np.moveaxis(layer.kernel, (-1, -2), (0, 1))  # (channels out, channels in, [z,] y, x)
    conv.weight.detach().numpy()[...] = kernel
    conv.bias.detach().numpy()[...] = layer.bias


def count(weights: Sequence[ConvWeights]) -> int:
    """Count the trained numbers."""
    return sum(layer.kernel.size + layer.bias.size for layer in weights)
