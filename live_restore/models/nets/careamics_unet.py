"""The U-Net of CAREamics (CARE, Noise2Noise, Noise2Void, N2V2), and how its checkpoints are read.

Receives (N, C, [Z,] Y, X) float32 in network units and hands on the same sizes; receives checkpoint bytes and hands on plain
dictionaries and tensors, never objects. Unlike CSBDeep's CARE it has 3 x 3 kernels only, batch normalisation, linear
upsampling, and usually no residual. It does not know what a checkpoint's words mean, nor normalisation, padding or tiles.
"""

import io
import pickle
import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from live_restore.errors import ModelError
from live_restore.models.nets.layers import ConvLayer, Net, check_at_least_one, check_n_dim, max_pool

_KERNEL = 3
_BINOMIAL = (0.25, 0.5, 0.25)

# CAREamics' names of the parts, and ours.
_PARTS = {
    "encoder.encoder_blocks.": "down.",
    "decoder.decoder_blocks.": "up.",
    "decoder.bottleneck.": "bottleneck.",
    "final_conv.": "head.",
}


class CareamicsUnet(Net):
    """CAREamics' U-Net.

    Parameters
    ----------
    n_dim : {2, 3}
        Spatial axes.
    channels_in, channels_out : int
    depth : int
        Times the image is halved.
    first_filters : int
        Channels of the first level; they double with every level.
    batch_norm : bool
    residual : bool
        Whether the input is added to the output.
    independent_channels : bool
        Whether every channel has a network of its own (grouped convolutions).
    n2v2 : bool
        Blurring pools, and no skip connection at the top level.
    early : bool
        The decoder of CAREamics 0.0.x up to the middle of 2025: more channels, and all skip connections even in N2V2.
    """

    def __init__(  # noqa: PLR0913 (the options of CAREamics' UNetConfig, one for one)
        self,
        n_dim: int,
        channels_in: int = 1,
        channels_out: int = 1,
        *,
        depth: int = 2,
        first_filters: int = 32,
        batch_norm: bool = True,
        residual: bool = False,
        independent_channels: bool = False,
        n2v2: bool = False,
        early: bool = False,
    ) -> None:
        super().__init__()
        check_n_dim(n_dim)
        check_at_least_one(channels_in=channels_in, channels_out=channels_out, depth=depth, first_filters=first_filters)
        _check_channels(channels_in, channels_out, residual, independent_channels)
        self.options = {
            "n_dim": n_dim,
            "channels_in": channels_in,
            "channels_out": channels_out,
            "depth": depth,
            "first_filters": first_filters,
            "batch_norm": batch_norm,
            "residual": residual,
            "independent_channels": independent_channels,
            "n2v2": n2v2,
            "early": early,
        }
        self.divisible_by = (2**depth,) * n_dim
        self._groups = channels_in if independent_channels else 1
        self._top_skip = early or not n2v2
        self._build(first_filters * self._groups)
        self.draw_weights()

    def _build(self, filters: int) -> None:
        options, groups = self.options, self._groups
        n_dim, depth, norm = options["n_dim"], options["depth"], options["batch_norm"]
        sizes = [filters * 2**level for level in range(depth)]
        entering = [options["channels_in"], *sizes[:-1]]
        self.down = nn.ModuleList(
            Block(n_dim, into, size, size, groups, norm) for into, size in zip(entering, sizes, strict=True)
        )
        self.bottleneck = Block(n_dim, sizes[-1], 2 * sizes[-1], sizes[-1], groups, norm)
        shapes = _early_decoder(sizes) if options["early"] else _decoder(sizes, options["n2v2"])
        self.up = nn.ModuleList(Block(n_dim, *shape, groups, norm) for shape in shapes)
        self.head = grouped_conv(n_dim, filters, options["channels_out"], 1, groups)
        self.pools = nn.ModuleList(BlurPool(n_dim, size) if options["n2v2"] else MaxPool(n_dim) for size in sizes)

    def forward(self, image: Tensor) -> Tensor:
        """Restore (N, channels_in, [Z,] Y, X) to (N, channels_out, [Z,] Y, X), float32."""
        skips, features = [], image
        for block, pool in zip(self.down, self.pools, strict=True):
            features = block(features)
            skips.append(features)
            features = pool(features)
        features = self.bottleneck(features)
        for block, skip in zip(self.up, reversed(skips), strict=True):
            features = upsample_linear(features)
            if skip is not skips[0] or self._top_skip:
                features = interleave(features, skip, self._groups)
            features = block(features)
        restored: Tensor = self.head(features)
        return restored + image if self.options["residual"] else restored


class Block(nn.Module):
    """Two 3 x 3 (x 3) convolutions, each with batch normalisation (if wanted) and ReLU."""

    def __init__(self, n_dim: int, channels_in: int, between: int, channels_out: int, groups: int, batch_norm: bool) -> None:
        super().__init__()
        self.conv1 = grouped_conv(n_dim, channels_in, between, _KERNEL, groups)
        self.conv2 = grouped_conv(n_dim, between, channels_out, _KERNEL, groups)
        norm = (nn.BatchNorm2d if n_dim == 2 else nn.BatchNorm3d) if batch_norm else nn.Identity
        self.batch_norm1, self.batch_norm2 = norm(between), norm(channels_out)

    def forward(self, image: Tensor) -> Tensor:
        """Convolve (N, channels_in, [Z,] Y, X) to (N, channels_out, [Z,] Y, X)."""
        image = functional.relu(self.batch_norm1(self.conv1(image)))
        return functional.relu(self.batch_norm2(self.conv2(image)))


class MaxPool(nn.Module):
    """Halve every spatial axis by the maximum of 2 x 2 (x 2) pixels."""

    def __init__(self, n_dim: int) -> None:
        super().__init__()
        self._box = (2,) * n_dim

    def forward(self, image: Tensor) -> Tensor:
        """Halve (N, C, [Z,] Y, X)."""
        return max_pool(image, self._box)


class BlurPool(nn.Module):
    """Halve every spatial axis by a running maximum of 2, a binomial blur of 3 and every second pixel."""

    def __init__(self, n_dim: int, channels: int) -> None:
        super().__init__()
        line = kernel = torch.tensor(_BINOMIAL)
        for _ in range(n_dim - 1):
            kernel = kernel[..., None] * line
        # as often as there are channels, not repeated in forward: the exporter wants to know the kernel's shape
        self.register_buffer("kernel", torch.stack([kernel[None]] * channels), persistent=False)  # (C, 1, [3,] 3, 3)
        self._channels, self._n_dim = channels, n_dim

    def forward(self, image: Tensor) -> Tensor:
        """Halve (N, C, [Z,] Y, X)."""
        kernel = self.get_buffer("kernel")
        if self._n_dim == 2:
            highest = functional.max_pool2d(image, 2, stride=1)
            return functional.conv2d(highest, kernel, stride=2, padding=1, groups=self._channels)
        highest = functional.max_pool3d(image, 2, stride=1)
        return functional.conv3d(highest, kernel, stride=2, padding=1, groups=self._channels)


def grouped_conv(n_dim: int, channels_in: int, channels_out: int, kernel: int, groups: int) -> ConvLayer:
    """Make a convolution that keeps the image's size; channels of one group do not see those of another."""
    layer = nn.Conv2d if n_dim == 2 else nn.Conv3d
    return layer(channels_in, channels_out, kernel, padding=kernel // 2, groups=groups)


def upsample_linear(image: Tensor) -> Tensor:
    """Double every spatial axis by linear interpolation; (N, C, [Z,] Y, X)."""
    mode = "bilinear" if image.ndim == 4 else "trilinear"
    return functional.interpolate(image, scale_factor=[2.0] * (image.ndim - 2), mode=mode, align_corners=False)


def interleave(image: Tensor, skip: Tensor, groups: int) -> Tensor:
    """Concatenate the channels of two images group by group, so that every group's network sees its own."""
    if groups == 1:
        return torch.cat([image, skip], 1)
    parts = zip(image.chunk(groups, 1), skip.chunk(groups, 1), strict=True)
    return torch.cat([part for pair in parts for part in pair], 1)


def _decoder(sizes: list[int], n2v2: bool) -> list[tuple[int, int, int]]:
    """Channels (in, between, out) of the blocks on the way up, deepest first."""
    shapes = []
    for level in reversed(range(len(sizes))):
        size, top = sizes[level], level == 0
        channels_out = size if top else size // 2
        shapes.append((size if n2v2 and top else 2 * size, channels_out if top else 2 * channels_out, channels_out))
    return shapes


def _early_decoder(sizes: list[int]) -> list[tuple[int, int, int]]:
    """Do the same for CAREamics 0.0.x."""
    entering = [2 * sizes[-1], *(3 * size for size in reversed(sizes[:-1]))]
    return [(into, 2 * size, size) for into, size in zip(entering, reversed(sizes), strict=True)]


def _check_channels(channels_in: int, channels_out: int, residual: bool, independent_channels: bool) -> None:
    if residual and channels_in != channels_out:
        raise ValueError(f"residual needs equally many channels in and out; got {channels_in} and {channels_out}")
    if independent_channels and channels_out % channels_in:
        raise ValueError(f"{channels_in} independent channels cannot give {channels_out}; use a multiple")


def load_checkpoint(content: bytes, label: str) -> Any:
    """Read what ``torch.save`` wrote: numbers, words, lists, dictionaries and tensors. Nothing in it is executed.

    Parameters
    ----------
    content : bytes
        The whole file.
    label : str
        What to call it in errors.

    Raises
    ------
    ModelError
        If it is damaged, or holds any Python object.
    """
    try:
        return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        found = re.search(r"GLOBAL (\S+)", str(error))
        what = f"the Python object {found.group(1)}" if found else "Python objects"
        raise ModelError(
            f"{label} holds {what}, which could run code when it is loaded, so it is not read; load it with the software that "
            "wrote it, on a machine where you trust it, and save it again with numbers and words only"
        ) from error
    except Exception as error:  # torch raises whatever its readers meet in a damaged file
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ModelError(f"{label} is no readable PyTorch file ({reason}); copy or download it again") from error


def net_with_weights(options: Mapping[str, Any], weights: Mapping[str, Any], label: str) -> CareamicsUnet:
    """Build the network and give it CAREamics' weights; a decoder of CAREamics 0.0.x is recognised.

    Parameters
    ----------
    options : dict
        Of `CareamicsUnet`, without ``early``.
    weights : dict
        CAREamics' state dictionary: tensors by name.
    label : str
        What to call the source in errors.

    Raises
    ------
    ModelError
        If the weights are those of another network.
    """
    tensors = {_our_name(str(name)): tensor for name, tensor in weights.items()}
    complete = {**options, "early": _is_early(tensors, options)}
    try:
        with torch.device("meta"):  # shapes without memory: the description may lie about sizes
            wanted = CareamicsUnet(**complete).state_dict()
    except ValueError as error:
        raise ModelError(f"{label} describes an impossible network: {error}") from error
    for name, own in wanted.items():
        _check_shape(name, tensors.get(name), own, label)
    net = CareamicsUnet(**complete)
    net.load_state_dict({name: tensors[name] for name in wanted})
    return net.eval()


def _check_shape(name: str, given: Any, own: Tensor, label: str) -> None:
    shape = list(given.shape) if isinstance(given, Tensor) else "missing"
    if shape != list(own.shape):
        raise ModelError(
            f"{label}: the weights of '{name}' are {shape}, its description says {list(own.shape)}; "
            "weights and description belong to different networks"
        )
    if given.untyped_storage().nbytes() < given.numel() * given.element_size():
        raise ModelError(
            f"{label}: the weights of '{name}' are stretched from fewer numbers than they claim; get the file again"
        )


def _our_name(name: str) -> str:
    bare = name.removeprefix("model.")
    for theirs, ours in _PARTS.items():
        if bare.startswith(theirs):
            place, dot, rest = bare.removeprefix(theirs).partition(".")
            # between the blocks that have weights they count pooling and upsampling
            return f"{ours}{int(place) // 2}{dot}{rest}" if place.isdigit() else f"{ours}{place}{dot}{rest}"
    return name


def _is_early(tensors: Mapping[str, Any], options: Mapping[str, Any]) -> bool:
    """Whether the last block on the way up has twice as many channels between its convolutions as behind them."""
    last = tensors.get(f"up.{options['depth'] - 1}.conv2.weight")
    groups = options["channels_in"] if options["independent_channels"] else 1
    return isinstance(last, Tensor) and last.ndim > 1 and last.shape[1] * groups == 2 * last.shape[0]
