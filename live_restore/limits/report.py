"""The report of a study of limits: a page that needs nothing beside it, the figure as a file, and all numbers.

Receives a `Study`; hands on a folder with ``limits.html``, ``limits.png``, ``limits.pdf`` and ``limits.json``. It does not know
how anything was measured.
"""

import base64
import json
import math
import os
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from live_restore import __version__
from live_restore.limits.break_points import COARSER, FALSE_LIMIT, WORTH_DB, BreakPoint, Limits
from live_restore.limits.figure import Picture, draw
from live_restore.limits.paper import SIGMA
from live_restore.limits.study import Study
from live_restore.limits.words import number, why_of_blur

FIGURE_NAMES = ("limits.png", "limits.pdf")
_MEANING = {
    "PSNR, SSIM": (
        "against the truth after a least-squares fit a·x + b of each image; range: percentile 99.9 minus 0.1 of the truth. The "
        "Gaussian filter is the best of all widths for every image and light, chosen with the truth in hand."
    ),
    "helps": (
        f"from the light at which restoring gains {WORTH_DB:g} dB PSNR, and anything in SSIM, over that filter, on the mean "
        "over images."
    ),
    "resolution": (
        "Fourier ring correlation with the truth, threshold 1/7. A filter does not change it, so raw's is also that of every "
        f"filtered raw. The break is where detail must be {COARSER:g} times as coarse as at the most light."
    ),
    "false structure": (
        f"a structure (mean over a Gaussian of {SIGMA} 1.5 px) in the restored image that exceeds everything the truth has "
        "within 4 px by 15 % of the contrast of the restored image, or one of the truth that the restored image lacks. The "
        f"break is at {100 * FALSE_LIMIT:g} % of the area, the share from which the live trust check refuses an image."
    ),
    "beyond 3 sd": (
        f"windows ({SIGMA} 1 to 8 px) in which restored and true counts differ by more than 3 sd of the photon noise of raw."
    ),
    "trust check": (
        "what the live check raises (|z| ≥ 4.2) without knowing the truth; what it raises on the truth itself is taken off "
        f"before the break at {100 * FALSE_LIMIT:g} %. At much light it shows that the network smooths away what raw shows."
    ),
    "SNR": "of raw, as the live trust check tells it: (peak - background) / sqrt(peak + read noise²), electrons.",
    "photons": "per pixel, those that one pixel in a thousand of the sharp truth exceeds; the same light, blurred, for blur.",
    "spread": "90 % of 400 bootstrap samples of the images; bands in the curves: one standard deviation over images.",
}
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #16181c; background: #fff;
  max-width: 1080px; margin: 2rem auto; padding: 0 1.2rem; }
h1 { font-size: 1.5rem; margin: 0 0 .3rem; } h2 { font-size: 1.08rem; margin: 2rem 0 .5rem; }
.said { font-size: 1.12rem; margin: .2rem 0 1.2rem; } img { width: 100%; height: auto; border: 1px solid #e6e9ed; }
.note { border-left: 3px solid #c8322b; padding-left: .7rem; } small, .quiet { color: #5c6570; }
.wide { overflow-x: auto; } table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: .18rem .7rem .18rem 0; border-bottom: 1px solid #e6e9ed; vertical-align: top; }
th:first-child, td:first-child, td.words { text-align: left; } th { font-weight: 600; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .25rem 1.2rem; margin: 0; }
dt { font-weight: 600; } dd { margin: 0; }
@media print { body { margin: 0; font-size: 11px; } h2 { break-after: avoid; } tr { break-inside: avoid; } }
"""


def write_report(found: Study, strip: Sequence[Picture], folder: Path) -> Path:
    """Write the folder; each file appears whole or not at all.

    Returns
    -------
    Path
        Of the page.
    """
    folder.mkdir(parents=True, exist_ok=True)
    title = f"Limits of {found.package.name}"
    about = conditions(found)
    for name in FIGURE_NAMES:
        draft = folder / f".draft-{name}"
        draw(found.measured, found.limits, strip, draft, title=title, summary=found.summary, about=_one_line(about))
        os.replace(draft, folder / name)
    _write(folder / "limits.json", json.dumps(as_json(found), indent=1, allow_nan=False) + "\n")
    picture = base64.b64encode((folder / FIGURE_NAMES[0]).read_bytes()).decode("ascii")
    page = folder / "limits.html"
    _write(page, _page(found, title, about, picture))
    return page


def _write(path: Path, text: str) -> None:
    draft = path.with_name(f".draft-{path.name}")
    draft.write_text(text, encoding="utf-8")
    os.replace(draft, path)


def conditions(found: Study) -> dict[str, str]:
    """Say under which conditions it was measured."""
    measured, package = found.measured, found.package
    grid, network = measured.grid, f"{package.facts.architecture.kind} {package.facts.geometry.n_dim}D"
    pixel = "not known" if measured.pixel_size_um is None else f"{measured.pixel_size_um:g} µm"
    return {
        "model": f"{package.name}, {network}, sha256 {package.onnx_sha256[:16]}",
        "restored by": f"{found.engine}; normalisation '{package.facts.normalisation.mode}'",
        "images": f"{len(measured.names)}: {', '.join(measured.names)}",
        "specimen": f"{found.specimen}; pixel size {pixel}",
        "camera": found.camera_words,
        "light": f"{', '.join(f'{level:g}' for level in grid.photons)} photons per pixel, peak",
        "blur": f"Gaussian, {SIGMA} {', '.join(f'{width:g}' for width in grid.blur_px)} px, in Y and X",
        "noise": f"Poisson and read noise, rounded to counts; seed {found.seed}",
        "by": f"live_restore {__version__}, {datetime.now(UTC):%Y-%m-%d}, in {measured.seconds:.0f} s",
    }


def _one_line(about: dict[str, str]) -> str:
    return (
        ". ".join(f"{name.capitalize()}: {words}" for name, words in about.items() if name not in ("light", "blur", "noise"))
        + "."
    )


def _page(found: Study, title: str, about: dict[str, str], picture: str) -> str:
    notes = "".join(f'<p class="note">{escape(note)}</p>' for note in found.measured.notes)
    return f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{escape(title)}</title>
<style>{_STYLE}</style></head><body>
<h1>{escape(title)}</h1>
<p class="said">{escape(found.summary[:1].upper() + found.summary[1:])}.</p>{notes}
<img alt="{escape(f"{title}: {found.summary}")}" src="data:image/png;base64,{picture}">
<h2>Break points</h2>
{_table(("", "at", "90 % of the bootstrap", "SNR, as told live", ""), _break_rows(found.limits))}
<h2>What was measured, means over images</h2>
<div class="wide">{_table(_HEADS, _light_rows(found))}</div>
<h2>Conditions</h2>
<dl>{_terms(about)}</dl>
<h2>What the words mean</h2>
<dl>{_terms(_MEANING)}</dl>
<p class="quiet">Raw is the record; restored is a prediction. All numbers, image by image, are in limits.json.</p>
</body></html>
"""


def _terms(terms: dict[str, str]) -> str:
    return "".join(f"<dt>{escape(name)}</dt><dd>{escape(words)}</dd>" for name, words in terms.items())


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th>{escape(words)}</th>" for words in heads)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><tr>{head}</tr>{body}</table>"


def _break_rows(limits: Limits) -> list[tuple[str, ...]]:
    beyond = "not within what was tested"
    rows = [
        ("helps down to", "helps_from", "photons", "never" if not limits.helps else beyond),
        ("helps up to", "helps_to", "photons", "never" if not limits.helps else beyond),
        ("invents structure below", "invents_below", "photons", "everywhere" if limits.invents_below.at else beyond),
        ("resolves half of the finest detail down to", "resolves_from", "photons", beyond),
        ("contradicts the photons above", "smooths_above", "photons", beyond if limits.smooths_above.at else "everywhere"),
    ]
    cells = [
        (words, *_cells(getattr(limits, name), unit, otherwise), f"{limits.snr[name]:.2f}" if name in limits.snr else "", "")
        for words, name, unit, otherwise in rows
    ]
    otherwise = "not measured" if limits.blur_photons is None else "0 px" if limits.bears_blur.at == 0 else beyond
    return [*cells, (f"bears further blur up to {SIGMA}", *_cells(limits.bears_blur, "px", otherwise), "", why_of_blur(limits))]


def _cells(point: BreakPoint, unit: str, otherwise: str) -> tuple[str, str]:
    if not point.found:
        return otherwise, ""
    ends = (number(end) if 0 < end < math.inf else "beyond" for end in (point.low, point.high))
    return f"{number(point.at)} {unit}", " to ".join(ends) if point.low < point.high else ""


_HEADS = (
    "photons", "of foreground", "SNR", "raw dB", "filter dB", "restored dB", "raw SSIM", "filter SSIM", "restored SSIM",
    "raw period px", "restored period px", "false %", "filter false %", "beyond 3 sd %", "raised %",
)  # fmt: skip


def _light_rows(found: Study) -> list[tuple[str, ...]]:
    measured = found.measured
    mean = {name: measured.light(name).mean(axis=0) for name in measured.numbers}
    share = float(measured.foreground.mean())
    rows = []
    for at, photons in enumerate(measured.grid.photons):
        decibels = [f"{mean[f'{image}_db'][at]:.2f}" for image in ("raw", "gaussian", "restored")]
        ssims = [f"{mean[f'{image}_ssim'][at]:.3f}" for image in ("raw", "gaussian", "restored")]
        periods = [_period(mean[f"{image}_cutoff"][at]) for image in ("raw", "restored")]
        areas = [f"{100 * mean[name][at]:.3f}" for name in ("false_area", "gaussian_false_area", "beyond_area", "raised")]
        first = f"{photons:g}", number(photons * share), f"{mean['snr'][at]:.2f}"
        rows.append((*first, *decibels, *ssims, *periods, *areas))
    return rows


def _period(cutoff: float) -> str:
    return f"{1 / cutoff:.2f}" if cutoff > 0 else "none"


def as_json(found: Study) -> dict[str, Any]:
    """Give all numbers as JSON's own types; what is infinite or was not measured becomes None."""
    measured = found.measured
    return {
        "summary": found.summary,
        "limits": found.facts,
        "break_points": _plain(asdict(found.limits)),
        "conditions": conditions(found),
        "notes": list(measured.notes),
        "images": list(measured.names),
        "photons": list(measured.grid.photons),
        "blur_px": list(measured.grid.blur_px),
        "foreground": measured.foreground.tolist(),
        "numbers": {name: _plain(np.round(values, 6).tolist()) for name, values in measured.numbers.items()},
    }


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_plain(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
