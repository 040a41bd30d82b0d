"""The layers that networks share: convolution, pooling, upsampling, sub-pixels, their start weights, and their limits.

Receives sizes from the networks; hands on torch layers that compute, and start to train, exactly as Keras' do. It does not
know how a network puts them together.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

ConvLayer = nn.Conv2d | nn.Conv3d


class Net(nn.Module):
    """What every network here offers beside ``forward``.

    Attributes
    ----------
    options : dict
        The complete constructor arguments, as plain numbers, words and lists: what a model package writes down.
    divisible_by : tuple of int
        Input sizes must be multiples of this; one entry per spatial axis, ([Z,] Y, X).
    """

    options: dict[str, Any]
    divisible_by: tuple[int, ...]

    def convolutions(self) -> list[tuple[str, nn.Module]]:
        """List the convolutions in the order in which the Keras file holds their layers.

        Returns
        -------
        list of (str, module)
            The name is the one under which ``get_submodule`` finds it. ``weight`` is (out, in, [kz,] ky, kx), the Keras
            kernel with its last two axes moved to the front and swapped; ``bias`` is (out,).
        """
        return [(name, module) for name, module in self.named_modules() if isinstance(module, ConvLayer)]

    def draw_weights(self, seed: int | None = None) -> None:
        """Draw start weights as Keras does: Glorot-uniform kernels, zero biases.

        Parameters
        ----------
        seed : int, optional
            Same seed, same weights. Without it, they come from torch's global random state.
        """
        dice = None if seed is None else torch.Generator().manual_seed(seed)
        for module in self.modules():
            if isinstance(module, ConvLayer):
                nn.init.xavier_uniform_(module.weight, generator=dice)
                nn.init.zeros_(module.bias)  # type: ignore[arg-type]


def conv(n_dim: int, channels_in: int, channels_out: int, kernel: int | Sequence[int]) -> ConvLayer:
    """Make a convolution with bias that keeps the image's size by padding with zeros (Keras: ``padding="same"``).

    Parameters
    ----------
    n_dim : int
        2 or 3.
    channels_in, channels_out : int
    kernel : int or sequence of int
        Odd; one for all axes, or one per spatial axis.
    """
    sizes = (kernel,) * n_dim if isinstance(kernel, int) else tuple(kernel)
    layer = nn.Conv2d if n_dim == 2 else nn.Conv3d
    return layer(channels_in, channels_out, sizes, padding=tuple(k // 2 for k in sizes))  # type: ignore[arg-type]


def strided_conv(n_dim: int, channels_in: int, channels_out: int, factor: int) -> ConvLayer:
    """Make a convolution whose kernel is its stride: every box of `factor` pixels along each axis becomes one pixel.

    Parameters
    ----------
    n_dim : int
        2 or 3.
    channels_in, channels_out : int
    factor : int
    """
    layer = nn.Conv2d if n_dim == 2 else nn.Conv3d
    return layer(channels_in, channels_out, factor, stride=factor)


class PixelShuffle(nn.Module):
    """Turn channels into pixels, in the channel order of TensorFlow's ``depth_to_space``, in 2D and in 3D.

    With a factor f and C channels that remain, input channel ``((z * f + y) * f + x) * C + c`` (in 2D ``(y * f + x) * C + c``)
    becomes the pixel (z, y, x) of every f x f (x f) box of output channel c. torch's own ``pixel_shuffle`` has C outermost.

    It is computed as a transposed convolution with a kernel of zeros and ones, which is exact, is one operation in the ONNX
    graph at any size, and is the same in 2D and 3D.
    """

    kernel: Tensor

    def __init__(self, n_dim: int, channels: int, factor: int) -> None:
        super().__init__()
        self._factor = factor
        self._transposed = functional.conv_transpose2d if n_dim == 2 else functional.conv_transpose3d
        box = (factor,) * n_dim
        kernel = torch.eye(channels * factor**n_dim).reshape(*box, channels, -1)  # ([z,] y, x, c, input channel)
        kernel = kernel.movedim((-1, -2), (0, 1)).contiguous()  # (input channel, c, [z,] y, x)
        self.register_buffer("kernel", kernel, persistent=False)

    def forward(self, features: Tensor) -> Tensor:
        """Turn (N, C * f**n, [Z,] Y, X) into (N, C, [Z * f,] Y * f, X * f)."""
        return self._transposed(features, self.kernel, stride=self._factor)


def max_pool(image: Tensor, pool: Sequence[int]) -> Tensor:
    """Take the maximum of every ``pool`` box; (N, C, [Z,] Y, X), sizes shrink by ``pool``."""
    if len(pool) == 2:
        return functional.max_pool2d(image, list(pool))
    return functional.max_pool3d(image, list(pool))


def upsample_nearest(image: Tensor, pool: Sequence[int]) -> Tensor:
    """Repeat every pixel into a ``pool`` box; (N, C, [Z,] Y, X), sizes grow by ``pool``."""
    # Whole scale factors, not sizes: the ONNX graph then holds constant scales and stays valid for every image size.
    return functional.interpolate(image, scale_factor=[float(p) for p in pool], mode="nearest")


def check_n_dim(n_dim: int, allowed: tuple[int, ...] = (2, 3)) -> None:
    """Refuse anything but images and volumes."""
    if n_dim not in allowed:
        raise ValueError(f"n_dim {n_dim} is not possible here; use {' or '.join(map(str, allowed))} (spatial axes)")


def check_at_least_one(**numbers: int) -> None:
    """Refuse counts (channels, blocks, factors) that are not whole numbers from 1 up."""
    for name, number in numbers.items():
        if not isinstance(number, int) or isinstance(number, bool) or number < 1:
            raise ValueError(f"{name} {number!r} is not possible; it must be a whole number, 1 or more")


def check_odd(**kernels: int) -> None:
    """Refuse kernels that have no middle pixel."""
    check_at_least_one(**kernels)
    for name, kernel in kernels.items():
        if kernel % 2 == 0:
            raise ValueError(f"{name} {kernel} is even; a kernel needs a middle pixel, use {kernel - 1} or {kernel + 1}")
