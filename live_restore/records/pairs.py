"""The pair log: low and high-light images of the same field under the same name, as files that other software reads too.

Receives pairs and what was measured on them; hands on a folder, and from any such folder its pairs. It does not know how a
pair is judged, nor what learns from it.

::

    pairs/NAME/
      low/ID.tif          raw counts, uint16, OME-TIFF, ([Z,] Y, X): what CSBDeep, CAREamics and 3D-RCAN read as it is
      high/ID.tif         the same field, plenty of light
      rejected/low/…      pairs that failed the check (kept, but out of the way of other software)
      pairs.jsonl         one line per pair
      card.json           the dataset card
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Counts = NDArray[np.uint16]
Split = Literal["train", "held-out", ""]


@dataclass(frozen=True, slots=True)
class Pair:
    """One field at low and at high light.

    Attributes
    ----------
    name : str
        The stem of both files.
    low, high : Path
    channel : str
        Empty where nobody said.
    position : str
        The place of the stage; pairs of one position never stand on both sides of a split.
    split : {"train", "held-out", ""}
        Empty where nobody said.
    accepted : bool
    reason : str
        Why it was not accepted; empty if it was.
    shift_px : tuple of float
        ([z,] y, x): what lies at r in low lies at r + shift in high. Empty where it was not measured.
    said : mapping
        The whole line of ``pairs.jsonl``; empty for folders of other origin.
    """

    name: str
    low: Path
    high: Path
    channel: str = ""
    position: str = ""
    split: Split = ""
    accepted: bool = True
    reason: str = ""
    shift_px: tuple[float, ...] = ()
    said: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PairSet:
    """The pairs of a folder.

    Attributes
    ----------
    folder : Path
    pairs : tuple of Pair
        Accepted or not, in order of their names.
    card : mapping
        The dataset card; empty for folders of other origin.
    """

    folder: Path
    pairs: tuple[Pair, ...]
    card: Mapping[str, Any] = field(default_factory=dict)
