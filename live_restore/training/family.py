"""The family of live networks: ladders of small CARE and RCAN networks, a fifth to a hundredth of CSBDeep's default.

Receives a number of axes and a kind; hands on candidates, largest first, each with its graph (of untrained weights) and the
operations that `live_restore.models.geometry` counts in it. Every candidate is a network of `live_restore.models.nets` as it
is: trained, packed and served like any other. It does not know times, teachers or pairs.

Which candidates stand in a ladder was measured (``docs/distilling.md``). Pixels are folded by `entry` before the U-Net, as most
of a narrow U-Net's time goes into its first level, at full resolution. CPU engines compute channels in blocks of 16: with 20
filters a network is nearly as slow as with 32.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

from live_restore.models.facts import Geometry
from live_restore.training.options import Kind

# CSBDeep's default network, 5x5 kernels in 2D and 3x3x3 in 3D: what "one twentieth" is a twentieth of.
CARE_DEFAULT_FLOP = {2: 462_500, 3: 347_400}


@dataclass(frozen=True)
class Candidate:
    """A network that might become the student.

    Attributes
    ----------
    kind : {"care", "rcan"}
    n_dim : {2, 3}
    options : mapping
        Of the network, as ``[network.options]`` in a training's TOML.
    """

    kind: Kind
    n_dim: Literal[2, 3]
    options: Mapping[str, bool | int | float | str] = field(hash=False)

    @cached_property
    def onnx(self) -> bytes:
        """The graph with untrained weights, which are as quick as trained ones."""
        from live_restore.models.nets import build_net
        from live_restore.models.onnx_export import to_onnx

        return to_onnx(build_net(self.kind, self.net_options, seed=0).eval())

    @cached_property
    def geometry(self) -> Geometry:
        """Halo, divisibility and operations, read off the graph."""
        from live_restore.models.geometry.graph import measure_geometry

        return measure_geometry(self.onnx)

    @property
    def flop_per_pixel(self) -> int:
        """Multiplications and additions per pixel or voxel."""
        return self.geometry.flop_per_pixel

    @cached_property
    def parameters(self) -> int:
        """Number of weights."""
        from live_restore.models.nets import build_net

        return sum(weights.numel() for weights in build_net(self.kind, self.net_options).parameters())

    @property
    def net_options(self) -> dict[str, Any]:
        """What `live_restore.models.nets.build_net` is given."""
        return {"n_dim": self.n_dim, **self.options}

    @property
    def name(self) -> str:
        """Short words for tables: ``CARE 16/3, folded 2`` has 16 filters in the first level, depth 3, pixels folded 2 x 2."""
        words = self.options
        if self.kind == "rcan":
            return f"RCAN {words['channels']}, {words['groups']} x {words['blocks']}"
        folded = f", folded {words['entry']}" if "entry" in words else ""
        return f"CARE {words['first_filters']}/{words['depth']}{folded}"


def _care(n_dim: Literal[2, 3], depth: int, filters: int, entry: int) -> Candidate:
    options = {"depth": depth, "kernel": 3, "first_filters": filters, "residual": True}
    folded = {"entry": entry} if entry > 1 else {}
    return Candidate("care", n_dim, {**options, **folded, "skip_kernel": 7 if n_dim == 2 else 5})


def _rcan(n_dim: Literal[2, 3], channels: int, groups: int, blocks: int) -> Candidate:
    return Candidate("rcan", n_dim, {"channels": channels, "blocks": blocks, "groups": groups, "reduction": 4})


# depth, first filters, entry
_CARE: dict[int, tuple[tuple[int, int, int], ...]] = {
    2: ((2, 46, 2), (2, 32, 2), (3, 16, 2), (2, 15, 2), (1, 32, 4), (2, 8, 2), (1, 16, 4)),
    3: ((1, 48, 2), (2, 32, 2), (1, 32, 2), (2, 16, 2), (1, 16, 2), (2, 8, 2), (1, 8, 2)),
}
# channels, groups, blocks
_RCAN: dict[int, tuple[tuple[int, int, int], ...]] = {
    2: ((16, 2, 3), (16, 2, 2), (16, 2, 1), (8, 2, 2), (8, 2, 1), (8, 1, 1)),
    3: ((16, 2, 1), (8, 2, 2), (8, 2, 1), (8, 1, 1), (4, 2, 1)),
}


def family(n_dim: int, kind: Kind = "care") -> tuple[Candidate, ...]:
    """List the candidates, the largest (in operations per pixel) first.

    Parameters
    ----------
    n_dim : {2, 3}
    kind : {"care", "rcan"}
        RCAN is for those whose images need channel attention: of one size it takes longer to train and to serve than CARE.

    Raises
    ------
    ValueError
        If there is no such ladder.
    """
    if n_dim not in (2, 3) or kind not in ("care", "rcan"):
        raise ValueError(f"there is no family of {kind} networks with {n_dim} axes; kinds are care and rcan, axes 2 and 3")
    axes: Literal[2, 3] = 2 if n_dim == 2 else 3
    if kind == "rcan":
        rungs = [_rcan(axes, *numbers) for numbers in _RCAN[axes]]
    else:
        rungs = [_care(axes, *numbers) for numbers in _CARE[axes]]
    return tuple(sorted(rungs, key=lambda rung: -rung.flop_per_pixel))
