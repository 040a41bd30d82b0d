"""The residual channel attention network as 3D-RCAN builds it, for images and for volumes, with optional upscaling.

Receives (N, C, [Z,] Y, X) float32 in network units, nominally 0..1; hands on the same, restored, larger if it upscales.
Written from a description of the topology. It does not know normalisation, tiles or weight files. Attention pools over the
whole input, so that what a tile gives depends a little on the rest of the tile.
"""

from math import isfinite

import torch
from torch import Tensor, nn
from torch.nn import functional

from live_restore.models.nets.layers import ConvLayer, Net, PixelShuffle, check_at_least_one, check_n_dim, conv

KERNEL = 3


class RcanNet(Net):
    """Residual groups of residual blocks with channel attention, between a head and a tail convolution.

    Parameters
    ----------
    n_dim : int
        2 for (Y, X), 3 for (Z, Y, X).
    channels_in, channels_out : int
        Of the image.
    channels : int
        Of every feature map.
    blocks : int
        Residual blocks per group.
    groups : int
        Residual groups. A single group has neither its own closing convolution nor its own skip.
    reduction : int
        Channel attention squeezes `channels` to ``channels / reduction``.
    residual_scaling : float
        Factor on what every block adds to its input.
    upscale : int
        Output size over input size, on every spatial axis: powers of two in steps of 2, any other factor in one step.
    """

    def __init__(  # noqa: PLR0913 (one argument per option of the network)
        self,
        n_dim: int,
        channels_in: int = 1,
        channels_out: int = 1,
        *,
        channels: int = 32,
        blocks: int = 3,
        groups: int = 5,
        reduction: int = 8,
        residual_scaling: float = 1.0,
        upscale: int = 1,
    ) -> None:
        super().__init__()
        check_n_dim(n_dim)
        check_at_least_one(channels_in=channels_in, channels_out=channels_out, channels=channels, blocks=blocks, groups=groups)
        check_at_least_one(reduction=reduction, upscale=upscale)
        _check_attention(channels, reduction)
        _check_scaling(residual_scaling)
        self.options = {
            "n_dim": n_dim,
            "channels_in": channels_in,
            "channels_out": channels_out,
            "channels": channels,
            "blocks": blocks,
            "groups": groups,
            "reduction": reduction,
            "residual_scaling": residual_scaling,
            "upscale": upscale,
        }
        self.divisible_by = (1,) * n_dim  # any size will do
        self.head = conv(n_dim, channels_in, channels, KERNEL)
        self.groups = nn.Sequential()
        for _ in range(groups):
            chain = [ResidualBlock(n_dim, channels, reduction, residual_scaling) for _ in range(blocks)]
            self.groups.append(
                ResidualGroup(chain, conv(n_dim, channels, channels, KERNEL)) if groups > 1 else nn.Sequential(*chain)
            )
        self.body = conv(n_dim, channels, channels, KERNEL)
        self.upscaling = nn.Sequential(*(SubPixelStep(n_dim, channels, factor) for factor in upscale_steps(upscale)))
        self.tail = conv(n_dim, channels, channels_out, KERNEL)
        self.draw_weights()

    def forward(self, image: Tensor) -> Tensor:
        """Restore (N, channels_in, [Z,] Y, X) to (N, channels_out, [Z,] Y, X), each axis times `upscale`, float32."""
        features = self.head(2.0 * image - 1.0)
        features = self.body(self.groups(features)) + features
        restored: Tensor = self.tail(self.upscaling(features))
        return 0.5 * restored + 0.5


class ResidualGroup(nn.Module):
    """A chain of blocks, a closing convolution, and a skip around both; (N, C, [Z,] Y, X) in and out."""

    def __init__(self, blocks: list["ResidualBlock"], closing: ConvLayer) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*blocks)
        self.conv = closing

    def forward(self, features: Tensor) -> Tensor:
        """Add what the chain finds to `features`."""
        added: Tensor = self.conv(self.blocks(features))
        return added + features


class ResidualBlock(nn.Module):
    """Two convolutions and a channel attention, scaled and added to the input; (N, C, [Z,] Y, X) in and out."""

    def __init__(self, n_dim: int, channels: int, reduction: int, residual_scaling: float) -> None:
        super().__init__()
        self.conv_0 = conv(n_dim, channels, channels, KERNEL)
        self.conv_1 = conv(n_dim, channels, channels, KERNEL)
        self.attention = ChannelAttention(n_dim, channels, reduction)
        self._residual_scaling = residual_scaling

    def forward(self, features: Tensor) -> Tensor:
        """Add what the block finds to `features`."""
        added: Tensor = self.attention(self.conv_1(functional.relu(self.conv_0(features))))
        if self._residual_scaling != 1:
            added = added * self._residual_scaling
        return added + features


class ChannelAttention(nn.Module):
    """Weigh every channel by 0..1, computed from the means of all channels over the whole input.

    In an ONNX graph this is exactly one ReduceMean over the spatial axes, which is how it can be found there.
    """

    def __init__(self, n_dim: int, channels: int, reduction: int) -> None:
        super().__init__()
        self.squeeze = conv(n_dim, channels, channels // reduction, 1)
        self.excite = conv(n_dim, channels // reduction, channels, 1)
        self._spatial = tuple(range(2, 2 + n_dim))

    def forward(self, features: Tensor) -> Tensor:
        """Weigh the channels of (N, C, [Z,] Y, X)."""
        means = features.mean(dim=self._spatial, keepdim=True)  # (N, C, [1,] 1, 1)
        return features * torch.sigmoid(self.excite(functional.relu(self.squeeze(means))))


class SubPixelStep(nn.Module):
    """Enlarge by a whole factor: a convolution to ``factor**n_dim`` times the channels, which then become pixels."""

    def __init__(self, n_dim: int, channels: int, factor: int) -> None:
        super().__init__()
        self.conv = conv(n_dim, channels, channels * factor**n_dim, KERNEL)
        self.shuffle = PixelShuffle(n_dim, channels, factor)

    def forward(self, features: Tensor) -> Tensor:
        """Enlarge (N, C, [Z,] Y, X) to (N, C, [Z * factor,] Y * factor, X * factor)."""
        enlarged: Tensor = self.shuffle(self.conv(features))
        return enlarged


def upscale_steps(upscale: int) -> list[int]:
    """Split an upscaling factor into sub-pixel steps: 1 needs none, 8 is 2, 2, 2, and 6 is one step of 6."""
    doublings = upscale.bit_length() - 1
    return [2] * doublings if upscale == 2**doublings else [upscale]


def _check_attention(channels: int, reduction: int) -> None:
    if channels % reduction:
        raise ValueError(f"reduction {reduction} does not divide the {channels} channels; use a divisor of {channels}")


def _check_scaling(residual_scaling: float) -> None:
    if not isfinite(residual_scaling):
        raise ValueError(f"residual_scaling {residual_scaling} is not a finite number; 1.0 is what 3D-RCAN uses")
