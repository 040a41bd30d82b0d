"""The projecting CARE network of CSBDeep: it finds the surface in a volume, flattens it, and restores the flat image.

Receives (N, C, Z, Y, X) float32 in network units; hands on (N, C, Y, X). A small 3D U-shape says how likely every voxel
lies on the surface (softmax along Z), the volume is summed with those weights, and a 2D `CareNet` restores the sum. It does
not know normalisation, padding, tiles or weight files.
"""

from collections.abc import Iterator, Sequence
from math import lcm

from torch import Tensor, nn
from torch.nn import functional

from live_restore.models.nets.care import CareNet
from live_restore.models.nets.layers import Net, check_at_least_one, check_n_dim, check_odd, conv, max_pool, upsample_nearest

_AXES = ("Z", "Y", "X")


class ProjectionCareNet(Net):
    """CSBDeep's ProjectionCARE; the options of the 2D network are those of `CareNet`, the others begin with ``proj_``.

    Parameters
    ----------
    n_dim : 3
        Spatial axes of the input.
    channels_in, channels_out, depth, first_filters, residual, last_activation, probabilistic
        See `CareNet`.
    kernel : int, optional
        Of the 2D network. Default 3.
    proj_axis : 0
        The axis that is projected away: Z, the first.
    proj_n_depth : int
        Times the volume is pooled by `proj_pool`.
    proj_n_filt : int
        Channels of every convolution of the projection.
    proj_n_conv_per_depth : int
        Convolutions per level.
    proj_kern : sequence of int
        Kernel along (Z, Y, X), odd.
    proj_pool : sequence of int
        Pooling along (Z, Y, X).
    """

    def __init__(  # noqa: PLR0913 (the options of CSBDeep's ProjectionConfig, one for one)
        self,
        n_dim: int = 3,
        channels_in: int = 1,
        channels_out: int = 1,
        *,
        depth: int = 2,
        kernel: int | None = None,
        first_filters: int = 32,
        residual: bool | None = None,
        last_activation: str = "linear",
        probabilistic: bool = False,
        proj_axis: int = 0,
        proj_n_depth: int = 4,
        proj_n_filt: int = 8,
        proj_n_conv_per_depth: int = 1,
        proj_kern: Sequence[int] = (3, 3, 3),
        proj_pool: Sequence[int] = (1, 2, 2),
    ) -> None:
        super().__init__()
        check_n_dim(n_dim, allowed=(3,))
        _check_axis(proj_axis)
        self.projection = SurfaceProjection(
            channels_in, proj_n_depth, proj_n_filt, proj_n_conv_per_depth, tuple(proj_kern), tuple(proj_pool)
        )
        self.unet = CareNet(
            2,
            channels_in,
            channels_out,
            depth=depth,
            kernel=3 if kernel is None else kernel,
            first_filters=first_filters,
            residual=residual,
            last_activation=last_activation,
            probabilistic=probabilistic,
        )
        self.options = self.unet.options | {
            "n_dim": n_dim,
            "proj_axis": proj_axis,
            "proj_n_depth": proj_n_depth,
            "proj_n_filt": proj_n_filt,
            "proj_n_conv_per_depth": proj_n_conv_per_depth,
            "proj_kern": list(proj_kern),
            "proj_pool": list(proj_pool),
        }
        pooled = [pool**proj_n_depth for pool in proj_pool]
        self.divisible_by = tuple(map(lcm, pooled, (1, *self.unet.divisible_by)))
        self.draw_weights()

    def forward(self, volume: Tensor) -> Tensor:
        """Project and restore (N, channels_in, Z, Y, X) to (N, channels_out or 2 * channels_out, Y, X), float32."""
        restored: Tensor = self.unet(self.projection(volume))
        return restored


class SurfaceProjection(nn.Module):
    """The part that flattens: (N, C, Z, Y, X) to (N, C, Y, X), a weighted mean along Z whose weights it computes.

    Parameters
    ----------
    channels, n_depth, n_filt, n_conv_per_depth : int
    kern, pool : sequence of int
        Along (Z, Y, X).
    """

    def __init__(
        self, channels: int, n_depth: int, n_filt: int, n_conv_per_depth: int, kern: Sequence[int], pool: Sequence[int]
    ) -> None:
        super().__init__()
        check_at_least_one(
            channels_in=channels, proj_n_depth=n_depth, proj_n_filt=n_filt, proj_n_conv_per_depth=n_conv_per_depth
        )
        _check_boxes(kern, pool)
        self._n_depth, self._n_conv_per_depth, self._pool = n_depth, n_conv_per_depth, tuple(pool)
        relu_convs = (2 * n_depth + 1) * n_conv_per_depth
        self.features = nn.ModuleList(conv(3, n_filt if i else channels, n_filt, kern) for i in range(relu_convs))
        self.surface = conv(3, n_filt, 1, kern)

    def forward(self, volume: Tensor) -> Tensor:
        """Flatten (N, C, Z, Y, X) to (N, C, Y, X)."""
        layers = iter(self.features)
        features = self._relu_convs(volume, layers)
        for _ in range(self._n_depth):
            features = self._relu_convs(max_pool(features, self._pool), layers)
        for _ in range(self._n_depth):
            features = self._relu_convs(upsample_nearest(features, self._pool), layers)
        weights = functional.softmax(self.surface(features), dim=2)  # (N, 1, Z, Y, X), sums to 1 along Z
        return (volume * weights).sum(dim=2)  # (N, C, Y, X)

    def _relu_convs(self, features: Tensor, layers: Iterator[nn.Module]) -> Tensor:
        for _ in range(self._n_conv_per_depth):
            features = functional.relu(next(layers)(features))
        return features


def _check_axis(proj_axis: int) -> None:
    if proj_axis != 0:
        axis = _AXES[proj_axis] if proj_axis in (1, 2) else "no axis"
        raise ValueError(f"proj_axis {proj_axis} ({axis}) cannot be projected away; only 0 (Z) can")


def _check_boxes(kern: Sequence[int], pool: Sequence[int]) -> None:
    for name, box in (("proj_kern", kern), ("proj_pool", pool)):
        if len(box) != 3:
            raise ValueError(f"{name} {list(box)} has {len(box)} entries; it needs 3, along Z, Y and X")
    for axis, kernel, factor in zip(_AXES, kern, pool, strict=True):
        check_odd(**{f"proj_kern along {axis}": kernel})
        check_at_least_one(**{f"proj_pool along {axis}": factor})
