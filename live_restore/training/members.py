"""An ensemble: several networks as one, whose disagreement becomes the scale of every pixel.

Receives trained networks of one kind; hands on a network that gives their mean and how far they are apart, in the form of a
probabilistic network: means, then scales. It costs as many times the time and memory as it has members. It does not know how
they were trained.

The members' answers are taken as equal parts of a mixture (Lakshminarayanan et al. 2017, arXiv:1612.01474, section 2.4): its
variance is the variance of the means plus, for members that give a scale b themselves, the mean of their own variances 2b². The
scale handed on is that of the Laplace distribution with this variance, ``sqrt(variance / 2)``.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from live_restore.models.nets.care import SCALE_FLOOR
from live_restore.models.nets.layers import Net


class Ensemble(Net):
    """Networks of one kind, run side by side.

    Parameters
    ----------
    members : sequence of Net
        At least two, with the same options.
    """

    def __init__(self, members: Sequence[Net]) -> None:
        super().__init__()
        if len(members) < 2:
            raise ValueError(f"{len(members)} network(s) cannot disagree; an ensemble has 2 members or more")
        first = members[0]
        if any(member.options != first.options for member in members):
            raise ValueError("the members of an ensemble must be networks with the same options")
        self.options = {**first.options, "members": len(members), "probabilistic": True}
        self.divisible_by = first.divisible_by
        self._scales = bool(first.options.get("probabilistic", False))
        self.members = nn.ModuleList(members)

    def forward(self, image: Tensor) -> Tensor:
        """Restore (N, C, [Z,] Y, X) to (N, 2 C, [Z,] Y, X): means, then scales, float32."""
        answers = [member(image) for member in self.members]
        means = [answer.chunk(2, 1)[0] if self._scales else answer for answer in answers]
        # sums of tensors, not one mean over a stack: in the graph, means over axes are the mark of channel attention
        mean = _sum(means) / len(means)
        variance = _sum([(one - mean) * (one - mean) for one in means]) / (len(means) - 1)
        if self._scales:
            scales = [answer.chunk(2, 1)[1] for answer in answers]
            variance = variance + 2 * _sum([scale * scale for scale in scales]) / len(scales)
        return torch.cat([mean, torch.sqrt(variance / 2) + SCALE_FLOOR], 1)  # (N, 2 C, ...)


def _sum(images: Sequence[Tensor]) -> Tensor:
    total = images[0]
    for image in images[1:]:
        total = total + image
    return total
