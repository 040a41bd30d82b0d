"""What the figures of an evaluation warn of, in plain sentences for whoever is about to use the network.

Receives an `Evaluation`; hands on sentences. It does not know images.
"""

from collections.abc import Iterable, Sequence

from live_restore.evaluation.scores import LEVELS, Evaluation, PairScore, mean_bias, means

# Mean error of a tenth of the pixels, per cent of the range, from which intensities should not be measured.
BIAS_PERCENT = 3.0
_LEAST_SLOPE = 0.9
# Coverage may lie off by this much: the high-light image has noise of its own.
_COVERAGE_MARGIN = 0.05
_FEWEST_POSITIONS = 3
_MOST_NAMED = 3


def doubts(evaluation: Evaluation) -> tuple[str, ...]:
    """Say what to beware of, the gravest first; empty where nothing was found."""
    scores = evaluation.scores
    gravest = [*_without_truth(evaluation), *_learnt_from(scores), *_worse_than_raw(scores)]
    said = [*gravest, *_beaten(evaluation), *_distrusted(evaluation), *_biased(scores)]
    return (*said, *_intervals(evaluation.coverage), *_few(scores))


def _without_truth(evaluation: Evaluation) -> list[str]:
    if evaluation.has_truth:
        return []
    return [
        f"there was no truth to judge by: every figure here is against {evaluation.truth}, and says how well they are "
        "imitated, not how true they are; what the teacher gets wrong, this network gets wrong too, and no figure shows it"
    ]


def _learnt_from(scores: Sequence[PairScore]) -> list[str]:
    number = sum(score.split == "train" for score in scores)
    if not number:
        return []
    return [f"{number} of {len(scores)} pairs are marked for training: if it learnt from them, these figures flatter it"]


def _worse_than_raw(scores: Sequence[PairScore]) -> list[str]:
    worse = sorted((score for score in scores if score.gain_db <= 0), key=lambda score: score.gain_db)
    if not worse:
        return []
    return [
        f"{len(worse)} of {len(scores)} images came out no better than the raw ones ({_named(worse)}): "
        "do not use it on images like these"
    ]


def _beaten(evaluation: Evaluation) -> list[str]:
    """Name the bins, or without them all pairs together, where a filter gains more than the network."""
    bins = {f"at {label}": scores for label, scores in evaluation.by_snr().items()}
    if _all_beaten(bins.values()):
        bins = {}
    said = []
    for where, scores in (bins or {"on these images": evaluation.scores}).items():
        mean = means(scores)
        gaussian, ours = mean.get("gaussian_gain_db"), mean["gain_db"]
        if gaussian is not None and ours < gaussian:
            said.append(
                f"gains less than the Gaussian filter {where} ({ours:.1f} against {gaussian:.1f} dB, {_images(scores)}): "
                "do not use it there, a filter at its best is better and invents nothing"
            )
        elif mean.get("nlm_lead_db", 0.0) < 0:
            said.append(
                f"non-local means at their best are better than the network {where}, by {-mean['nlm_lead_db']:.1f} dB "
                f"({_images(scores)})"
            )
    return said


def _all_beaten(bins: Iterable[Sequence[PairScore]]) -> bool:
    every = [means(scores) for scores in bins]
    return all(mean["gain_db"] < mean.get("gaussian_gain_db", mean["gain_db"]) for mean in every)


def _distrusted(evaluation: Evaluation) -> list[str]:
    found = evaluation.distrusted
    if not found:
        return []
    first = found[0]
    return [
        f"{len(found)} of {len(evaluation.scores)} restored images disagree with the photons that were counted: "
        f"in {first.name}, {first.why}"
    ]


def _biased(scores: Sequence[PairScore]) -> list[str]:
    bias = mean_bias(scores)
    if bias is None:
        return []
    said = []
    if bias.worst > BIAS_PERCENT:
        tenth = max(range(len(bias.deciles)), key=lambda n: abs(bias.deciles[n]))
        how = "too dark" if bias.deciles[tenth] < 0 else "too bright"
        said.append(
            f"restored intensities are off by up to {bias.worst:.1f} % of the range ({how} in the {_tenth(tenth)} of the "
            "pixels): do not measure intensities on restored images"
        )
    if bias.slope < _LEAST_SLOPE:
        said.append(f"contrast is lost: where the true intensity rises by 1, the restored one rises by {bias.slope:.2f}")
    return said


def _intervals(coverage: tuple[float, ...]) -> list[str]:
    said = []
    for level in (0.5, 0.9) if coverage else ():
        found = coverage[LEVELS.index(level)]
        if found < level - _COVERAGE_MARGIN:
            said.append(
                f"the predicted intervals are too narrow: those of {level:.0%} hold the truth in {found:.0%} of the pixels; "
                "the network is surer than it may be"
            )
        elif found > level + _COVERAGE_MARGIN:
            said.append(
                f"the predicted intervals are too wide: those of {level:.0%} hold the truth in {found:.0%} of the pixels"
            )
    return said


def _few(scores: Sequence[PairScore]) -> list[str]:
    positions = {(score.source, score.position or score.name) for score in scores}
    if len(positions) >= _FEWEST_POSITIONS:
        return []
    return [f"only {len(positions)} position(s) were scored: all these figures may be chance; take more"]


def _tenth(number: int) -> str:
    """Name a tenth of the pixels, counted from 0 in the dark.

    >>> [_tenth(number) for number in (0, 1, 4, 9)]
    ['darkest tenth', '2nd tenth', '5th tenth', 'brightest tenth']
    """
    ends = {0: "darkest", 1: "2nd", 2: "3rd", 9: "brightest"}
    return f"{ends.get(number, f'{number + 1}th')} tenth"


def _images(scores: Sequence[PairScore]) -> str:
    return f"{len(scores)} image{'s' if len(scores) > 1 else ''}"


def _named(scores: Sequence[PairScore]) -> str:
    more = f" and {len(scores) - _MOST_NAMED} more" if len(scores) > _MOST_NAMED else ""
    return ", ".join(score.name for score in scores[:_MOST_NAMED]) + more
