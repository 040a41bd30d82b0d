"""The moving average of a network's weights, which restores better than the weights of any one step.

Receives a network after every step; hands on the averaged one. It does not know optimizers or files.

The average fits itself to the length of the run: after step t it keeps ``(1 - 1/t)**(1 + power)`` of itself, and so looks back
over the same fraction of the run, short or long, and never on the start weights (the power-function average of Karras et al.
2024, arXiv:2312.02696, equation 2); in long runs over no more steps than it is told.
"""

import copy
from collections.abc import Mapping
from typing import Any

import torch

from live_restore.models.nets.layers import Net

# Looks back over a twentieth of the run (standard deviation; Karras et al. 2024, equation 3).
POWER = 16.97


class Average:
    """The averaged twin of a network.

    Parameters
    ----------
    net : Net
        It is copied.
    longest : float
        The largest part of itself that the average ever keeps: it looks back over ``1 / (1 - longest)`` steps at most; 0: no
        average, the twin follows the network.
    """

    def __init__(self, net: Net, longest: float) -> None:
        self._longest = longest
        self.net: Net = copy.deepcopy(net).requires_grad_(False).eval()

    def keep(self, step: int) -> float:
        """Give the part of itself that the average keeps at step 1, 2, ..."""
        return float(min(self._longest, (1 - 1 / step) ** (1 + POWER)))

    @torch.no_grad()
    def update(self, net: Net, step: int) -> None:
        """Take in the weights after a step, counted from 1."""
        mine, theirs = [*self.net.parameters()], [weights.detach() for weights in net.parameters()]
        torch._foreach_lerp_(list[torch.Tensor](mine), theirs, 1 - self.keep(step))
        for kept, new in zip(self.net.buffers(), net.buffers(), strict=True):
            kept.copy_(new)

    def state(self) -> dict[str, Any]:
        """Give the averaged weights."""
        return self.net.state_dict()

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on from averaged weights."""
        self.net.load_state_dict(state)
