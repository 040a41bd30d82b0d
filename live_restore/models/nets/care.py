"""The CARE network as CSBDeep builds it: a U-Net that predicts the residual, and optionally how sure it is.

Receives (N, C, [Z,] Y, X) float32 in network units; hands on the same, restored. It does not know normalisation, padding,
tiles or weight files. The layer names are CSBDeep's, so that its files can be read by name.

Two options are ours, and make it learn faster and run faster; without them it is CSBDeep's network. `entry` folds pixels into
channels before the U-Net and unfolds them behind it, so that it works on fewer, richer pixels. `skip_kernel` puts a learned
linear filter where CSBDeep adds the raw image: to a noisy image the U-Net would have to add the very noise with its sign
turned, pixel by pixel, while from a smoothed one only structure is missing.
"""

import torch
from torch import Tensor
from torch.nn import functional

from live_restore.models.nets.layers import (
    ConvLayer,
    Net,
    PixelShuffle,
    check_at_least_one,
    check_n_dim,
    check_odd,
    conv,
    max_pool,
    strided_conv,
    upsample_nearest,
)

LAST_ACTIVATIONS = ("linear", "relu")

# CSBDeep adds this to the Laplace scale, which the logarithm in its loss needs to stay away from 0.
SCALE_FLOOR = 1e-3

# The filter of the skip starts as a Gaussian of this width, in pixels.
_SKIP_SIGMA_PX = 1.0


class CareNet(Net):
    """CSBDeep's U-Net: two convolutions a level, ReLU, max-pooling, nearest upsampling, a 1x1 head.

    Parameters
    ----------
    n_dim : int
        2 for (Y, X), 3 for (Z, Y, X).
    channels_in, channels_out : int
    depth : int
        Times the image is halved; its sizes must be multiples of ``2**depth``.
    kernel : int, optional
        Odd. Default 5 in 2D, 3 in 3D.
    first_filters : int
        Channels of the first level; they double with every level.
    residual : bool, optional
        Whether the input is added to the output. Default: if that is possible, which needs ``channels_in == channels_out``.
    last_activation : {"linear", "relu"}
        Applied to the restored image (never to the scale).
    probabilistic : bool
        Whether a second head predicts the Laplace scale of every pixel. The output then has ``2 * channels_out``
        channels: first the means, then the scales.
    entry : int
        Pixels along each axis that are folded into one before the U-Net; 1 folds none. Sizes must be multiples of
        ``entry * 2**depth``.
    skip_kernel : int
        Odd size of the learned filter through which the input is added to the output; 0 adds it as it is. Only for a
        residual network.
    """

    def __init__(  # noqa: PLR0913 (the options of CSBDeep's Config, one for one)
        self,
        n_dim: int,
        channels_in: int = 1,
        channels_out: int = 1,
        *,
        depth: int = 2,
        kernel: int | None = None,
        first_filters: int = 32,
        residual: bool | None = None,
        last_activation: str = "linear",
        probabilistic: bool = False,
        entry: int = 1,
        skip_kernel: int = 0,
    ) -> None:
        super().__init__()
        check_n_dim(n_dim)
        if kernel is None:
            kernel = 5 if n_dim == 2 else 3
        if residual is None:
            residual = channels_in == channels_out
        check_at_least_one(channels_in=channels_in, channels_out=channels_out, depth=depth, first_filters=first_filters)
        check_at_least_one(entry=entry)
        check_odd(kernel=kernel)
        _check_skip(skip_kernel, residual)
        _check_head(channels_in, channels_out, residual, last_activation)
        self.options = {
            "n_dim": n_dim,
            "channels_in": channels_in,
            "channels_out": channels_out,
            "depth": depth,
            "kernel": kernel,
            "first_filters": first_filters,
            "residual": residual,
            "last_activation": last_activation,
            "probabilistic": probabilistic,
        }
        # named only where they are used: what CSBDeep trained is described as it always was
        self.options |= {"entry": entry} if entry > 1 else {}
        self.options |= {"skip_kernel": skip_kernel} if skip_kernel else {}
        self._entry, self._filters_skip = entry, skip_kernel > 0
        self.divisible_by = (entry * 2**depth,) * n_dim
        self._pool = (2,) * n_dim
        if entry > 1:
            self.fold = strided_conv(n_dim, channels_in, first_filters, entry)
            self.unfold = PixelShuffle(n_dim, channels_out, entry)
        for name, fan_in, fan_out in unet_layers(channels_in if entry == 1 else first_filters, depth, first_filters):
            self.add_module(name, conv(n_dim, fan_in, fan_out, kernel))
        self.head_mean = conv(n_dim, first_filters, channels_out * entry**n_dim, 1)
        if probabilistic:
            self.head_scale = conv(n_dim, first_filters, channels_out * entry**n_dim, 1)
        if skip_kernel:
            self.skip = conv(n_dim, channels_in, channels_out, skip_kernel)
        self.draw_weights()

    def draw_weights(self, seed: int | None = None) -> None:
        """Draw start weights as Keras does; the filter of the skip, if there is one, starts as a smoothing one."""
        super().draw_weights(seed)
        if self._filters_skip:
            _smooth(self.skip)

    def forward(self, image: Tensor) -> Tensor:
        """Restore (N, channels_in, [Z,] Y, X) to (N, channels_out or 2 * channels_out, [Z,] Y, X), float32."""
        features = self._features(image if self._entry == 1 else self._relu_conv("fold", image))
        mean = self._unfolded(self.head_mean(features))
        if self.options["residual"]:
            mean = mean + (self.skip(image) if self._filters_skip else image)
        if self.options["last_activation"] == "relu":
            mean = functional.relu(mean)
        if not self.options["probabilistic"]:
            return mean
        scale = functional.softplus(self._unfolded(self.head_scale(features))) + SCALE_FLOOR
        return torch.cat([mean, scale], 1)  # (N, 2 * channels_out, ...)

    def _features(self, image: Tensor) -> Tensor:
        depth = self.options["depth"]
        skips = []
        for level in range(depth):
            image = self._relu_conv(f"down_level_{level}_no_0", image)
            image = self._relu_conv(f"down_level_{level}_no_1", image)
            skips.append(image)
            image = max_pool(image, self._pool)
        image = self._relu_conv("middle_0", image)
        image = self._relu_conv("middle_2", image)
        for level in reversed(range(depth)):
            image = torch.cat([upsample_nearest(image, self._pool), skips[level]], 1)
            image = self._relu_conv(f"up_level_{level}_no_0", image)
            image = self._relu_conv(f"up_level_{level}_no_2", image)
        return image

    def _unfolded(self, image: Tensor) -> Tensor:
        """Turn channels back into the pixels that the entry folded; (N, C * entry**n, ...) to (N, C, ...)."""
        unfolded: Tensor = image if self._entry == 1 else self.unfold(image)
        return unfolded

    def _relu_conv(self, name: str, image: Tensor) -> Tensor:
        return functional.relu(self.get_submodule(name)(image))


def unet_layers(channels_in: int, depth: int, first_filters: int) -> list[tuple[str, int, int]]:
    """List the convolutions of the U-Net without its heads.

    Returns
    -------
    list of (name, channels in, channels out)
        In the order of CSBDeep's files, under its names: there is a ``middle_2`` but no ``middle_1``, an ``up_..._no_2``
        but no ``up_..._no_1``.
    """
    filters = [first_filters * 2**level for level in range(depth + 1)]
    layers = []
    for level in range(depth):
        before = filters[level - 1] if level else channels_in
        layers.append((f"down_level_{level}_no_0", before, filters[level]))
        layers.append((f"down_level_{level}_no_1", filters[level], filters[level]))
    layers.append(("middle_0", filters[depth - 1], filters[depth]))
    layers.append(("middle_2", filters[depth], filters[depth - 1]))
    for level in reversed(range(depth)):
        # upsampled from below (already narrowed to this level's width), and the skip beside it
        layers.append((f"up_level_{level}_no_0", 2 * filters[level], filters[level]))
        layers.append((f"up_level_{level}_no_2", filters[level], filters[max(0, level - 1)]))
    return layers


def _check_head(channels_in: int, channels_out: int, residual: bool, last_activation: str) -> None:
    if residual and channels_in != channels_out:
        raise ValueError(
            f"a residual network adds its input to its output, so {channels_in} channels in cannot become {channels_out} "
            "channels out; use equal numbers, or residual=False"
        )
    if last_activation not in LAST_ACTIVATIONS:
        raise ValueError(f"last_activation {last_activation!r} is unknown; use {' or '.join(LAST_ACTIVATIONS)}")


def _check_skip(skip_kernel: int, residual: bool) -> None:
    if skip_kernel == 0:
        return
    check_odd(skip_kernel=skip_kernel)
    if not residual:
        raise ValueError(f"skip_kernel {skip_kernel} filters what a residual network adds; use residual=True, or skip_kernel=0")


@torch.no_grad()
def _smooth(layer: ConvLayer) -> None:
    """Make a convolution that smooths every channel by a Gaussian, and mixes none."""
    kernel = torch.ones(())
    for size in layer.kernel_size:
        line = torch.exp(-0.5 * ((torch.arange(size) - size // 2) / _SKIP_SIGMA_PX) ** 2)
        kernel = kernel[..., None] * (line / line.sum())  # ([kz,] ky, kx) in the end
    layer.weight.zero_()
    for channel in range(layer.out_channels):
        layer.weight[channel, channel] = kernel
