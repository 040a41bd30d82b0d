"""The report of a network: one page that holds everything, to be read, printed, or put into a supplement.

Receives an `Evaluation`, the history of the training, its options and the cards of its pairs; hands on an HTML file without
scripts, into which every figure is written. It measures nothing.
"""

import json
import os
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from html import escape
from pathlib import Path
from typing import Any

from live_restore.evaluation import report_page as html
from live_restore.evaluation.card_words import card_words
from live_restore.evaluation.doubts import doubts
from live_restore.evaluation.report_figures import bias_figure, case_picture, history_figure, interval_figure, score_figure
from live_restore.evaluation.scores import LEVELS, Evaluation, PairScore, means
from live_restore.models.package import ModelPackage

_OPTIONS, _HISTORY = "training.toml", "history.json"
_WORST = 5


def write_report(
    path: Path,
    evaluation: Evaluation,
    *,
    history: Mapping[str, Any] | None = None,
    options_toml: str = "",
    cards: Sequence[Mapping[str, Any]] = (),
    further: Sequence[str] = (),
) -> None:
    """Write the report; it appears whole or not at all.

    Parameters
    ----------
    path : Path
        Ends in ``.html``.
    evaluation : Evaluation
    history : mapping or None
        Of which an entry is a list of rows with any of ``elapsed_s, step, member, loss, held_out_loss, psnr_db, raw_psnr_db``.
    options_toml : str
        The options of the training; empty if it was trained elsewhere.
    cards : sequence of mapping
        Dataset cards of the pairs that it learnt from.
    further : sequence of str
        Sections, as HTML, that stand behind the head.

    Raises
    ------
    ValueError
        If the path has another suffix.
    """
    path = Path(path)
    if path.suffix.lower() not in (".html", ".htm"):
        raise ValueError(f"a report is a page, '{path.name}' is none; let its name end in .html")
    sections = [
        _head(evaluation),
        *further,
        _scores(evaluation),
        _looks(evaluation),
        _intensities(evaluation),
        _intervals(evaluation),
        _photons(evaluation),
        _training(history, options_toml, cards),
        _provenance(evaluation),
    ]
    kind = "Training report" if options_toml else "Evaluation"
    subtitle = f"{evaluation.network} · {evaluation.title} · {_date(evaluation.made)}"
    footer = "Raw is the record; restored is a prediction."
    text = html.page(evaluation.model, kind, subtitle, [one for one in sections if one], footer)
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.new")
    draft.write_text(text, encoding="utf-8")
    os.replace(draft, path)


def write_package_report(
    path: Path,
    evaluation: Evaluation,
    package: ModelPackage,
    cards: Sequence[Mapping[str, Any]] = (),
    further: Sequence[str] = (),
) -> None:
    """Write the report, with the options and the history that a package of ours holds; of other packages, without.

    Raises
    ------
    ValueError
        As `write_report`.
    """
    names = package.files.names()
    history = json.loads(package.files.read(_HISTORY)) if _HISTORY in names else None
    options = package.files.read(_OPTIONS).decode("utf-8") if _OPTIONS in names else ""
    write_report(path, evaluation, history=history, options_toml=options, further=further)


def _head(evaluation: Evaluation) -> str:
    mean, bias, coverage = evaluation.mean, evaluation.bias, evaluation.coverage
    lead = _lead(mean)
    over = "PSNR over raw" if evaluation.has_truth else f"PSNR over raw, against {evaluation.truth}"
    cells = [html.fact(f"{mean['gain_db']:+.1f}", "dB", f"{over}: {_rise(mean, 'psnr_db', 1)}", mean["gain_db"] <= 0)]
    if lead is not None:
        cells.append(html.fact(f"{lead:+.1f}", "dB", "over the Gaussian filter at its best", lead < 0))
    if "nlm_lead_db" in mean:
        cells.append(
            html.fact(f"{mean['nlm_lead_db']:+.1f}", "dB", "over non-local means at their best", mean["nlm_lead_db"] < 0)
        )
    cells.append(html.fact(f"{mean['ssim']:.2f}", "", f"SSIM; raw {mean['raw_ssim']:.2f}", mean["ssim"] < mean["raw_ssim"]))
    if bias is not None:
        cells.append(html.fact(f"{bias.worst:.1f}", "%", "of the range: largest bias of a tenth of the pixels"))
    if coverage:
        cells.append(html.fact(f"{coverage[LEVELS.index(0.9)]:.0%}", "", "of the truth within the predicted 90 % interval"))
    said = doubts(evaluation)
    below = html.warning("Before you use it", said) if said else html.fine("Nothing was found that speaks against using it.")
    return html.facts(cells) + below


def _lead(mean: Mapping[str, float]) -> float | None:
    return mean["gain_db"] - mean["gaussian_gain_db"] if "gaussian_gain_db" in mean else None


def _rise(mean: Mapping[str, float], key: str, digits: int) -> str:
    return f"{mean[f'raw_{key}']:.{digits}f} → {mean[key]:.{digits}f}"


def _scores(evaluation: Evaluation) -> str:
    groups = {f"channel {name}": scores for name, scores in evaluation.by_channel().items() if name}
    groups |= evaluation.by_snr()
    rows = [_row(name, scores) for name, scores in groups.items()]
    rows.append(_row("all", evaluation.scores))
    headings = ("", "pairs", "raw dB", "restored dB", "gain dB", "best Gaussian", "non-local means", "SSIM", "NRMSE")
    caption = (
        "Left: every pair, the best gain on top. Right: what was gained over raw, by the signal-to-noise ratio that the live "
        "preview shows."
    )
    note = (
        f"PSNR, SSIM and NRMSE after a least-squares fit a·x + b to each of {evaluation.truth}; the range is its percentile "
        "99.9 minus its percentile 0.1. Both filters' columns are gains over raw in dB; red: the network gains less."
    )
    worst = [
        [s.name, s.channel or "-", _decimals(s.snr, 1), *_row("", [s])[2:6], s.why or "-"] for s in evaluation.worst(_WORST)
    ]
    worst_headings = ("the worst", "channel", "SNR", "raw dB", "restored dB", "gain dB", "best Gaussian", "photons")
    return html.section(
        f"Against {evaluation.truth}",
        html.picture(score_figure(evaluation.scores), "PSNR of every pair", caption),
        html.table(headings, rows, totals=1),
        html.paragraph(" ".join([note, *(f"{note[:1].upper()}{note[1:]}." for note in evaluation.notes)]), muted=True),
        html.table(worst_headings, worst, words=1) if len(evaluation.scores) > _WORST else "",
    )


def _row(name: str, scores: Sequence[PairScore]) -> list[str]:
    mean = means(scores)
    ours = mean["gain_db"]
    filters = []
    for key, lead in (("gaussian_gain_db", _lead(mean)), ("nlm_gain_db", mean.get("nlm_lead_db"))):
        beaten = "!" if lead is not None and lead < 0 else ""
        filters.append(f"{beaten}{mean[key]:+.2f}" if key in mean else "-")
    gain = f"{'!' if ours <= 0 else ''}{ours:+.2f}"
    figures = [f"{mean['raw_psnr_db']:.2f}", f"{mean['psnr_db']:.2f}", gain, *filters]
    return [name, str(len(scores)), *figures, _rise(mean, "ssim", 2), _rise(mean, "nrmse", 3)]


def _looks(evaluation: Evaluation) -> str:
    if not evaluation.cases:
        return ""
    pieces = [
        html.picture(
            case_picture(case),
            f"low, restored, high and error of {case.name}",
            f"{case.kind.capitalize()}: {case.name}, {case.gain_db:+.1f} dB over raw. This part begins at pixel {case.corner}.",
        )
        for case in evaluation.cases
    ]
    whose = "high" if evaluation.has_truth else f"high, here {evaluation.truth},"
    intro = f"Each is shown where the restored image is most wrong, in one contrast; {whose} is fitted to the counts of low."
    return html.section("Best, median and worst", html.paragraph(intro, muted=True), *pieces)


def _intensities(evaluation: Evaluation) -> str:
    bias = evaluation.bias
    if bias is None:
        return ""
    each = [score.bias for score in evaluation.scores if score.bias is not None]
    words = (
        f"Restored against true counts: slope {bias.slope:.2f}; the brightest hundredth of the pixels is off by "
        f"{bias.brightest:+.1f} % of the range. True counts: {evaluation.truth}, fitted to the counts of the low ones. A "
        "network that is unsure pulls bright structures towards the mean: expect the brightest tenth to be somewhat too dark."
    )
    thin = " Thin lines: every image." if len(each) > 1 else ""
    caption = f"Mean error of each tenth of the pixels.{thin}"
    picture = html.picture(bias_figure(bias, each), "bias per tenth of the pixels", caption)
    return html.section("Intensities", html.beside(picture, html.paragraph(words)))


def _intervals(evaluation: Evaluation) -> str:
    coverage = evaluation.coverage
    if not coverage:
        why = "This network predicts a value for every pixel, and no scale: how sure it is cannot be told from it."
        return html.section("Predicted intervals", html.paragraph(why, muted=True))
    each = [score.coverage for score in evaluation.scores]
    half, most = (coverage[LEVELS.index(level)] for level in (0.5, 0.9))
    words = (
        "The network predicts a Laplace distribution for every pixel. Its 50 % interval holds the high-light value in "
        f"{half:.1%} of the pixels, its 90 % interval in {most:.1%}. The high-light image has noise of its own, which no "
        "interval accounts for."
    )
    picture = html.picture(interval_figure(coverage, each), "how much of the truth the predicted intervals hold")
    return html.section("Predicted intervals", html.beside(picture, html.paragraph(words)))


def _photons(evaluation: Evaluation) -> str:
    judged = [score for score in evaluation.scores if score.trusted is not None]
    if not judged:
        why = "The camera's noise was not given, so the restored images were not checked against the photons that were counted."
        return html.section("Agreement with the photons", html.paragraph(why, muted=True))
    trusted = sum(score.trusted is True for score in judged)
    words = (
        f"{trusted} of {len(judged)} restored images agree with their own raw images within the noise of photons and camera "
        f"({evaluation.noise or 'estimated'} camera noise)."
    )
    rows = [[s.name, s.channel or "-", f"{100 * (s.raised or 0):.2g} %", s.why] for s in evaluation.distrusted]
    below = html.table(("pair", "channel", "area raised", "why"), rows, words=1) if rows else ""
    return html.section("Agreement with the photons", html.paragraph(words), below)


def _training(history: Mapping[str, Any] | None, options_toml: str, cards: Sequence[Mapping[str, Any]]) -> str:
    rows = _history_rows(history)
    pieces = [html.picture(history_figure(rows), "loss and PSNR while training")] if rows else []
    for card in cards:
        pieces += [f"<h3>{escape(str(card.get('name') or 'pairs'))}</h3>", html.definitions(card_words(card))]
    if options_toml.strip():
        pieces += ["<h3>Options</h3>", html.verbatim(options_toml)]
    return html.section("What it was trained on, and how", *pieces) if pieces else ""


def _history_rows(history: Mapping[str, Any] | None) -> list[Mapping[str, Any]]:
    """Find the list of rows in a history, whatever it is called there."""
    for value in (history or {}).values():
        if isinstance(value, (list, tuple)) and value and all(isinstance(row, Mapping) for row in value):
            return list(value)
    return []


def _provenance(evaluation: Evaluation) -> str:
    words = {
        "model": evaluation.model,
        "network": evaluation.network,
        "model sha256": evaluation.model_sha256,
        "pairs sha256": evaluation.pairs_sha256,
        "restored by": f"{evaluation.engine}, {evaluation.precision}; intensities: {evaluation.normalisation}",
        "software": evaluation.software,
        "evaluated": _date(evaluation.made),
    }
    return html.section("Provenance", html.definitions({term: text for term, text in words.items() if text}))


def _date(made: str) -> str:
    try:
        return datetime.fromisoformat(made).astimezone(UTC).strftime("%d %B %Y, %H:%M UTC").lstrip("0")
    except ValueError:
        return made


def _decimals(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
