"""The look at pairs of other origin before they are learned from: the bad ones are left out, with their reasons.

Receives the pairs of a folder; hands on the same, with those rejected that nothing can be learned from, or that would teach
something wrong. Folders with a pair log were judged when they were taken, and are left as they are. It writes nothing.

Two depths. Every pair is read and compared in the cheapest way: whole, of one shape and bit depth, numbers everywhere, low
follows high. What `live_restore.pairs.check` finds beyond that (low and high swapped, shift, motion, focus, saturation) takes
0.3 s for 512 x 512 pixels; it is done where that is a small part of the training.
"""

from collections.abc import Callable
from dataclasses import replace

from live_restore.errors import PairError
from live_restore.pairs.check import CheckedPair, check_pairs
from live_restore.pairs.quality import QualityLimits
from live_restore.pairs.reasons import why_no_pair
from live_restore.records.pairs import Pair, PairSet
from live_restore.training.options import Fit
from live_restore.training.targets import fit_counts

# What the thorough look takes, in seconds for 512 x 512 pixels on one core; and the share of a run, and the time, it may take.
_PAIR_S = 0.3
_SHARE, _MOST_S = 0.1, 120.0
# Of pairs that nobody registered a shift is believed, and taken off, from this size on and if it is so many errors large.
_LEAST_SHIFT_PX, _ERRORS = 0.25, 3.0
_MOST_NAMED = 8

Saying = Callable[[str], None]


def check_foreign(found: PairSet, fit: Fit, said: Saying) -> PairSet:
    """Reject the bad pairs of a folder that has no pair log.

    Parameters
    ----------
    found : PairSet
    fit : Fit
        For the time that there is.
    said : callable (sentence)

    Raises
    ------
    PairError
        If none is good.
    """
    if any(pair.said for pair in found.pairs):
        return found
    judged = tuple(_glance(pair) for pair in found.pairs)
    notes: tuple[str, ...] = ()
    cost, most = _thorough_s(judged), thorough_limit_s(fit)
    if cost > most:
        said(
            f"{found.folder.name}: low and high are not looked at for swaps, shifts and focus, which would take {cost:.0f} s "
            f"(limit {most:.0f} s): live-restore pairs check {found.folder} --write"
        )
    else:
        judged, notes = _thorough(replace(found, pairs=judged))
    left = [pair for pair in judged if not pair.accepted]
    if len(left) == len(judged):
        words = "; ".join(dict.fromkeys((*notes, f"'{left[0].name}': {left[0].reason}")))
        raise PairError(f"{found.folder.name}: {words} (--no-check learns from them all the same)")
    for pair in left[:_MOST_NAMED]:
        said(f"left out: {pair.name}: {pair.reason}")
    if len(left) > _MOST_NAMED:
        said(f"left out: {len(left) - _MOST_NAMED} more; all of them: live-restore pairs check {found.folder}")
    return replace(found, pairs=judged)


def thorough_limit_s(fit: Fit) -> float:
    """Say how long the thorough look may take."""
    return _MOST_S if fit.minutes is None else min(_MOST_S, _SHARE * 60 * fit.minutes)


def _glance(pair: Pair) -> Pair:
    """Look for what makes a pair no pair."""
    if not pair.accepted:
        return pair
    try:
        low, high = pair.read()
        reason = why_no_pair(low, high, None, QualityLimits(least_side_px=16))
        if not reason:
            fit_counts(low, high)
    except PairError as error:
        reason = str(error)
    return replace(pair, accepted=not reason, reason=reason)


def _thorough_s(pairs: tuple[Pair, ...]) -> float:
    """Guess what the thorough look takes; the files of a folder are about equally large."""
    good = [pair for pair in pairs if pair.accepted]
    return len(good) * _PAIR_S * good[0].read()[0].size / 512**2 if good else 0.0


def _thorough(found: PairSet) -> tuple[tuple[Pair, ...], tuple[str, ...]]:
    good = replace(found, pairs=found.accepted, notes=())
    if not good.pairs:
        return found.pairs, ()
    check = check_pairs(good, QualityLimits(least_side_px=16))
    judged = {one.pair.name: _as_learned(one) for one in check.checked}
    notes = tuple(note for note in check.notes if "swapped" in note)
    return tuple(judged.get(pair.name, pair) if pair.accepted else pair for pair in found.pairs), notes


def _as_learned(one: CheckedPair) -> Pair:
    """Keep a shift only where it is surely there: moving an image by chance would blur it for nothing."""
    errors = one.facts.shift_error_px if one.facts else ()
    sure = any(
        abs(px) >= _LEAST_SHIFT_PX and error is not None and abs(px) > _ERRORS * error
        for px, error in zip(one.pair.shift_px, errors, strict=False)
    )
    return one.pair if sure else replace(one.pair, shift_px=())
