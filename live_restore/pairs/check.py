"""The check of a folder of pairs, of any origin: every pair measured anew, and what only the folder as a whole can tell.

Receives a `PairSet`; hands on a `Check`: the same pairs, accepted or not as they are now, what was measured on each, and what
the user should know of the whole. It does not show it; it writes it only when asked.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from live_restore.errors import PairError
from live_restore.pairs.quality import PairFacts, QualityLimits, measure_pair
from live_restore.records.pair_log import rewrite_lines
from live_restore.records.pair_positions import split_positions
from live_restore.records.pairs import LINES, Pair, PairSet
from live_restore.restore.noise import CameraNoise

# If this share of the pairs is swapped, it is the folders that are.
_MOST = 0.5


@dataclass(frozen=True, slots=True)
class CheckedPair:
    """A pair as it is judged now.

    Attributes
    ----------
    pair : Pair
    facts : PairFacts or None
        None where its files could not be read.
    """

    pair: Pair
    facts: PairFacts | None


@dataclass(frozen=True, slots=True)
class Check:
    """A folder of pairs as it is judged now.

    Attributes
    ----------
    folder : Path
    checked : tuple of CheckedPair
        In order of their names.
    notes : tuple of str
        What concerns the folder as a whole, in words for the user.
    limits : QualityLimits
    """

    folder: Path
    checked: tuple[CheckedPair, ...]
    notes: tuple[str, ...]
    limits: QualityLimits

    @property
    def accepted(self) -> tuple[CheckedPair, ...]:
        """The pairs to learn from."""
        return tuple(one for one in self.checked if one.pair.accepted)

    @property
    def rejected(self) -> tuple[CheckedPair, ...]:
        """The others."""
        return tuple(one for one in self.checked if not one.pair.accepted)


def check_pairs(
    pairs: PairSet,
    limits: QualityLimits | None = None,
    noise: CameraNoise | None = None,
    told: Callable[[int, int], None] | None = None,
) -> Check:
    """Measure and judge every pair of a folder; nothing is written.

    Parameters
    ----------
    pairs : PairSet
    limits : QualityLimits, optional
    noise : CameraNoise, optional
        Of the camera, where it is known.
    told : callable, optional
        Told how many pairs of how many are done.

    Returns
    -------
    Check
        A pair whose files are missing or cannot be read is rejected with the reason.
    """
    chosen, checked = limits or QualityLimits(), []
    kinds: dict[str, str] = {}
    for number, pair in enumerate(pairs.pairs, 1):
        one, kind = _checked(pair, chosen, noise)
        checked.append(one)
        kinds |= {pair.name: kind} if kind else {}
        if told:
            told(number, len(pairs.pairs))
    alike = tuple(_of_one_kind(one, kinds) for one in checked)
    return Check(pairs.folder, alike, (*pairs.notes, *_notes(alike)), chosen)


def write_check(check: Check) -> Path:
    """Keep what a check found as ``pairs.jsonl`` in the folder, which then says which pairs are learned from.

    Images stay where they are, so other software still reads the rejected ones.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    PairError
        If the disk refuses; then nothing has changed.
    """
    facts = {one.pair.name: one.facts for one in check.checked if one.facts is not None}
    rewrite_lines([one.pair for one in check.checked], check.folder, facts)
    return check.folder / LINES


def _checked(pair: Pair, limits: QualityLimits, noise: CameraNoise | None) -> tuple[CheckedPair, str]:
    """Judge a pair, and say of which kind its images are; empty if it has none."""
    if not (pair.low.is_file() and pair.high.is_file()) or (pair.reason and not pair.said):
        return CheckedPair(pair, None), ""
    try:
        low, high = pair.read()
    except PairError as error:
        return CheckedPair(replace(pair, accepted=False, reason=str(error)), None), ""
    facts = measure_pair(
        low, high, dose_ratio=_number(pair.said.get("dose_ratio")), noise=noise, pixel_size_um=_sizes(pair.said), limits=limits
    )
    facts = _as_taken(facts, pair, limits)
    judged = replace(pair, accepted=facts.accepted, reason=facts.reason, shift_px=facts.shift_px or pair.shift_px)
    return CheckedPair(judged, facts), f"{low.dtype}"


def _as_taken(facts: PairFacts, pair: Pair, limits: QualityLimits) -> PairFacts:
    """Keep what only the second low image could tell, which is not in the folder."""
    told = pair.said.get("facts")
    if not isinstance(told, dict):
        return facts
    drift = tuple(float(px) for px in told.get("drift_px") or ())
    kept = replace(facts, drift_px=drift, bleaching=_number(told.get("bleaching")))
    was_of_it = "low again" in pair.reason or "two low images" in pair.reason
    return replace(kept, reason=pair.reason) if was_of_it and facts.accepted else kept


def _of_one_kind(one: CheckedPair, kinds: dict[str, str]) -> CheckedPair:
    """Reject a pair of another bit depth than most of the folder's."""
    (usual, number) = Counter(kinds.values()).most_common(1)[0] if kinds else ("", 0)
    kind = kinds.get(one.pair.name, usual)
    if kind == usual or one.facts is None or not one.pair.accepted:
        return one
    reason = f"its images are {kind}, those of {number} other pairs {usual}; export all of one camera alike, as raw counts"
    return CheckedPair(replace(one.pair, accepted=False, reason=reason), replace(one.facts, reason=reason))


def _notes(checked: tuple[CheckedPair, ...]) -> tuple[str, ...]:
    said = []
    good = [one.pair for one in checked if one.pair.accepted]
    swapped = sum("swapped" in one.pair.reason for one in checked)
    if swapped > _MOST * len(checked):
        said.append(f"low and high look swapped in {swapped} of {len(checked)} pairs; exchange the names of the two folders")
    if not good:
        said.append(f"none of the {len(checked)} pairs is good enough to learn from")
        return tuple(said)
    try:
        split_positions(good)
    except PairError as error:
        said.append(str(error))
    return tuple(said)


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, (int, float)) else None


def _sizes(said: Any) -> tuple[float | None, float | None, float | None] | None:
    sizes = said.get("pixel_size_um")
    if not isinstance(sizes, (list, tuple)) or len(sizes) != 3:
        return None
    z, y, x = (_number(size) for size in sizes)
    return z, y, x
