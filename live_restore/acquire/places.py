"""Where pairs are taken: a list, a grid, or a spiral around where the stage is, and never the same dye twice.

Receives what somebody wrote in a calibration plan, where the stage is and how large the camera's field is; hands on named
places. It does not know light, channels, nor who moves the stage.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from pydantic import Field

from live_restore.acquire.acquisition import Place, PositionAsked
from live_restore.config import Positive, Section
from live_restore.errors import ConfigError

# Distance of neighbouring fields where nobody says: above √2 they do not overlap however the camera is turned.
_SPACING_FIELDS = 1.5
# Stages stand this close to where they were sent: fields that touch by so little do not overlap.
_TOUCHING_UM = 0.1


class Around(Section):
    """Fields in a square spiral about where the stage is, each beside the one before.

    Attributes
    ----------
    count : int
    spacing_um : float or None
        From field to field; None: one and a half fields.
    """

    count: int = Field(ge=1, le=10_000)
    spacing_um: Positive | None = None


class FieldGrid(Section):
    """Fields in rows and columns about where the stage is, to and fro.

    Attributes
    ----------
    rows, columns : int
    spacing_um : float or None
        From field to field; None: one and a half fields.
    """

    rows: int = Field(ge=1, le=100)
    columns: int = Field(ge=1, le=100)
    spacing_um: Positive | None = None


@dataclass(frozen=True, slots=True)
class NamedPlace:
    """A place of the stage, µm."""

    label: str
    x_um: float
    y_um: float
    z_um: float


def places(
    asked: Sequence[PositionAsked] | FieldGrid | Around, home_um: Place, field_um: tuple[float, float]
) -> list[NamedPlace]:
    """Name every place, in the order in which the stage goes there.

    Parameters
    ----------
    asked : sequence of PositionAsked, FieldGrid or Around
    home_um : tuple of float
        Where the stage is: x, y, z.
    field_um : tuple of float
        Width and height of the camera's field.

    Raises
    ------
    ConfigError
        If two fields overlap: high light in one would bleach the other, and what is learned from one would be tested on the
        other.
    """
    x, y, z = home_um
    if isinstance(asked, (FieldGrid, Around)):
        spacing = asked.spacing_um or _SPACING_FIELDS * max(field_um)
        steps = _spiral(asked.count) if isinstance(asked, Around) else _to_and_fro(asked.rows, asked.columns)
        found = [
            NamedPlace(label, round(x + column * spacing, 3), round(y + row * spacing, 3), z) for label, column, row in steps
        ]
    else:
        found = [
            NamedPlace(label_of(p, k), *(home if said is None else said for said, home in zip(_said(p), home_um, strict=True)))
            for k, p in enumerate(asked)
        ]
    _check_apart(found, field_um)
    return found


def label_of(position: PositionAsked, index: int) -> str:
    """Call a position by its label, or by its number counted from 1."""
    return position.label or f"p{index + 1:03d}"


def _said(position: PositionAsked) -> tuple[float | None, float | None, float | None]:
    return position.x_um, position.y_um, position.z_um


def _spiral(count: int) -> Iterator[tuple[str, float, float]]:
    """Step from the middle outwards: (label, column, row)."""
    column, row, d_column, d_row = 0, 0, 1, 0
    side = walked = turned = 0
    for k in range(count):
        yield f"p{k + 1:03d}", column, row
        if walked == side + 1:
            walked, turned = 0, turned + 1
            side += turned % 2 == 0
            d_column, d_row = -d_row, d_column
        column, row, walked = column + d_column, row + d_row, walked + 1


def _to_and_fro(rows: int, columns: int) -> Iterator[tuple[str, float, float]]:
    for r in range(rows):
        for c in range(columns) if r % 2 == 0 else reversed(range(columns)):
            yield f"r{r + 1:02d}c{c + 1:02d}", c - (columns - 1) / 2, r - (rows - 1) / 2


def _check_apart(found: Sequence[NamedPlace], field_um: tuple[float, float]) -> None:
    """Make sure that no field lies over another; fields stand along the axes of the stage, as far as anybody knows."""
    width, height = field_um
    xs, ys = np.array([p.x_um for p in found]), np.array([p.y_um for p in found])
    for k in range(len(found) - 1):
        over = (np.abs(xs[k + 1 :] - xs[k]) < width - _TOUCHING_UM) & (np.abs(ys[k + 1 :] - ys[k]) < height - _TOUCHING_UM)
        if over.any():
            first, second = found[k], found[k + 1 + int(np.argmax(over))]
            apart = f"{abs(first.x_um - second.x_um):g} by {abs(first.y_um - second.y_um):g} µm apart"
            raise ConfigError(
                f"the fields of positions {first.label} and {second.label} overlap: they lie {apart} and a field is "
                f"{width:g} by {height:g} µm, so high light in one would bleach the other; "
                f"move them apart, or write spacing_um = {np.ceil(_SPACING_FIELDS * max(field_um)):g}"
            )
