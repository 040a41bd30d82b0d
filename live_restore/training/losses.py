"""The losses: what a network is punished for, and so what it estimates.

Receives what a network gave and what it should have given, in network units; hands on one number to make small. It does not
know networks, patches or optimizers.

What is estimated matters to whoever measures intensities: where a pixel is uncertain, the mean squared error leads to the
mean of what it may be, the absolute error to the median. For dim, skewed intensities the median lies below the mean.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from live_restore.models.nets.care import SCALE_FLOOR

# Below this difference, in network units, Charbonnier's loss is quadratic: a tenth of a per cent of the image's range.
CHARBONNIER_WIDTH = 1e-3

Compute = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True, slots=True)
class Loss:
    """A row of the table.

    Attributes
    ----------
    name : str
    estimates : str
        Which property of the possible targets of a pixel its minimum is.
    formula, source : str
    probabilistic : bool
        Whether it needs a network that also gives a scale, ``2 * channels_out`` channels.
    compute : callable (output, target) -> loss
        Float32 tensors (N, C or 2 C, [Z,] Y, X) and (N, C, [Z,] Y, X), network units; a scalar.
    """

    name: str
    estimates: str
    formula: str
    source: str
    probabilistic: bool
    compute: Compute


def mae(output: Tensor, target: Tensor) -> Tensor:
    """Take the mean absolute error, ``mean |output - target|``; it estimates the median (CSBDeep's and 3D-RCAN's default)."""
    return functional.l1_loss(output, target)


def mse(output: Tensor, target: Tensor) -> Tensor:
    """Take the mean squared error, ``mean (output - target)**2``; it estimates the mean, hence the highest PSNR."""
    return functional.mse_loss(output, target)


def charbonnier(output: Tensor, target: Tensor) -> Tensor:
    """Take ``mean sqrt((output - target)**2 + width**2)``: absolute for errors above `CHARBONNIER_WIDTH`, squared below.

    It estimates the median, as the absolute error does, with gradients that fade near the minimum instead of changing sign.
    Charbonnier et al. 1994, doi:10.1109/ICIP.1994.413553; for image restoration Lai et al. 2017, doi:10.1109/CVPR.2017.618.
    """
    return (output - target).square().add(CHARBONNIER_WIDTH**2).sqrt().mean()


def laplace(output: Tensor, target: Tensor) -> Tensor:
    """Take the negative log-likelihood of a Laplace distribution, ``mean(|mean - target| / scale + log scale + log 2)``.

    `output` holds means, then scales, as `live_restore.models.nets.care` gives them (the scale is above `SCALE_FLOOR` already).
    The means estimate the median of each pixel, the scales its mean absolute deviation from it. CSBDeep's ``loss_laplace``,
    Weigert et al. 2018, doi:10.1038/s41592-018-0216-7, supplementary note 3.
    """
    means, scales = output.chunk(2, 1)
    scales = scales.clamp_min(SCALE_FLOOR)
    return ((means - target).abs() / scales + scales.log()).mean() + math.log(2)


LOSSES = (
    Loss("mae", "median", "mean |x - y|", "CSBDeep, 3D-RCAN", False, mae),
    Loss("mse", "mean", "mean (x - y)^2", "CSBDeep, 3D-RCAN", False, mse),
    Loss(
        "laplace",
        "median, and mean absolute deviation from it",
        "mean |x - y|/s + log 2s",
        "Weigert et al. 2018",
        True,
        laplace,
    ),
    Loss("charbonnier", "median", "mean sqrt((x - y)^2 + e^2)", "Charbonnier et al. 1994", False, charbonnier),
)


def choose_loss(name: str, probabilistic: bool) -> Loss:
    """Find a loss that fits the network.

    Raises
    ------
    ValueError
        If there is none of that name, or it does not fit what the network gives.
    """
    found = next((loss for loss in LOSSES if loss.name == name), None)
    if found is None:
        raise ValueError(f"no loss {name!r}; the losses are {', '.join(loss.name for loss in LOSSES)}")
    if found.probabilistic != probabilistic:
        cure = "use loss 'laplace', or leave out probabilistic" if probabilistic else "use mae, or say probabilistic"
        gives = "a scale for every pixel" if probabilistic else "no scale"
        raise ValueError(f"loss {name!r} does not fit a network that gives {gives}; {cure}")
    return found


def means_of(output: Tensor, probabilistic: bool) -> Tensor:
    """Give the restored image without its scales, (N, C, [Z,] Y, X)."""
    return torch.chunk(output, 2, 1)[0] if probabilistic else output
