"""The report: one page that holds everything, in a real Chromium: it looks as meant, runs nothing and asks for nothing."""

import math
import re
import shutil
from dataclasses import replace

import numpy as np
import pytest
from judged_pairs import gaussian_kernel, write_calibration, write_kernel_package
from test_evaluate import of, pair_score

from live_restore.evaluation.evaluate import evaluate
from live_restore.evaluation.report import write_package_report, write_report
from live_restore.evaluation.scores import Case
from live_restore.models.package import open_package
from live_restore.restore.noise import CameraNoise

CHROMIUM = next((path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None)

OPTIONS = '[network]\nkind = "care"  # a < b & c\n\n[fit]\nminutes = 4.0\n'
ROWS = [
    {
        "member": member,
        "step": 50 * number,
        "elapsed_s": 6.0 * number,
        "loss": 0.1 * math.exp(-number / 9) + 0.02,
        "held_out_loss": None if number == 3 else 0.11 * math.exp(-number / 9) + 0.02,
        "psnr_db": 27 - 9 * math.exp(-number / 6),
        "raw_psnr_db": 18.3,
    }
    for member in (0, 1)
    for number in range(1, 20)
]
CARD = {
    "name": "beads <b>",
    "finished": True,
    "accepted": 40,
    "channels": {"FITC": 20},
    "light": {"low": {"exposure_ms": 20.0}},
    "reasons": [],
    "note": "x" * 1000,
}


@pytest.fixture(scope="module")
def evaluation(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    pairs = write_calibration(folder / "monday", positions=3, shape=(96, 96))
    package = write_kernel_package(folder / "package", gaussian_kernel(1.4), "blurring", scale=0.05, pixel_size_um=(0.1, 0.1))
    found = evaluate(package.path, pairs, noise=CameraNoise(100.0, 2.0, 1.5))
    return replace(found, model="blurring <script>alert(1)</script>")


@pytest.fixture(scope="module")
def page(evaluation, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "deep" / "report.html"
    write_report(path, evaluation, history={"format": 1, "entries": ROWS}, options_toml=OPTIONS, cards=[CARD])
    return path


def test_the_page_holds_everything_and_loads_nothing(page, evaluation):
    text = page.read_text(encoding="utf-8")
    assert not re.search(r"<script|<link|<iframe|javascript:|@import|url\(", text)
    outside = [address for address in re.findall(r'(?:src|href)="([^"]+)"', text) if not address.startswith("data:image/")]
    assert not outside
    for words in (
        "Training report",
        "3 pairs",
        "SNR",
        "channel FITC",
        evaluation.model_sha256,
        evaluation.pairs_sha256,
        "a &lt; b &amp; c",
        "beads &lt;b&gt;",
        "low (exposure 20 ms)",
        "finished",
        "Raw is the record; restored is a prediction.",
        "Predicted intervals",
        "Agreement with the photons",
        "better than anybody could in use",
    ):
        assert words in text, words
    assert "x" * 700 not in text
    assert [path.name for path in page.parent.iterdir()] == ["report.html"]


def test_equal_content_gives_equal_bytes(tmp_path):
    for name in ("one.html", "two.html"):
        write_report(tmp_path / name, of(pair_score()), history={"entries": ROWS})
    assert (tmp_path / "one.html").read_bytes() == (tmp_path / "two.html").read_bytes()


def test_a_model_from_elsewhere_has_a_report_too(tmp_path):
    rng = np.random.default_rng(1)
    images = [rng.normal(100, 9, (40, 50)).astype(np.float32) for _ in range(3)]
    scores = [pair_score(f"field {n}", snr=None, gain=n / 10) for n in range(50)]
    write_report(tmp_path / "plain.htm", of(*scores, made="yesterday", cases=(Case("best", "field 49", 4.9, *images),)))
    text = (tmp_path / "plain.htm").read_text(encoding="utf-8")
    assert "Evaluation" in text and "yesterday" in text
    assert "no scale: how sure it is cannot be told" in text and "noise was not given" in text
    assert "What it was trained on" not in text and ">Intensities<" not in text
    bare = of(*(pair_score(name, gain=9) for name in "abc"))
    write_report(tmp_path / "bare.html", bare)
    assert "Nothing was found that speaks against using it." in (tmp_path / "bare.html").read_text(encoding="utf-8")


def test_a_package_of_ours_tells_how_it_was_trained(tmp_path):
    evaluation = of(*(pair_score(name, snr=None) for name in "abc"))
    package = write_kernel_package(tmp_path / "package", gaussian_kernel(1.0))
    write_package_report(tmp_path / "without.html", evaluation, package)
    (package.path / "training.toml").write_text(OPTIONS, encoding="utf-8")
    (package.path / "history.json").write_text('{"entries": [{"step": 1, "loss": 0.5}, {"step": 2, "loss": 0.0}]}')
    write_package_report(tmp_path / "with.html", evaluation, open_package(package.path))
    without, with_ = ((tmp_path / name).read_text(encoding="utf-8") for name in ("without.html", "with.html"))
    assert "minutes = 4.0" in with_ and "minutes = 4.0" not in without
    assert with_.count("<img") == without.count("<img") + 1


def test_it_must_be_a_page(tmp_path, evaluation):
    with pytest.raises(ValueError, match=r"a report is a page, 'report.pdf' is none"):
        write_report(tmp_path / "report.pdf", evaluation)


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium on this machine")
def test_chromium_shows_it_on_the_screen_and_on_paper(page, tmp_path):
    playwright = pytest.importorskip("playwright.sync_api")
    complaints, requests = [], []
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM)
        shown = browser.new_page(viewport={"width": 1000, "height": 1200})
        shown.on("console", lambda said: complaints.append(said.text))
        shown.on("pageerror", lambda error: complaints.append(str(error)))
        shown.on("request", lambda request: requests.append(request.url))
        shown.goto(page.as_uri())
        pictures = shown.eval_on_selector_all("img", "all => all.map(one => [one.naturalWidth, one.clientWidth, one.alt])")
        wide = shown.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
        shown.set_viewport_size({"width": 420, "height": 800})
        narrow = shown.evaluate("document.documentElement.scrollWidth")
        paper = shown.pdf(prefer_css_page_size=True)
        assert shown.title() == "blurring <script>alert(1)</script>"
        browser.close()
    assert not complaints
    assert [address for address in requests if not address.startswith("data:")] == [page.as_uri()]
    assert len(pictures) >= 7 and all(natural > 100 and 100 < client <= 820 and alt for natural, client, alt in pictures)
    assert wide and narrow <= 420
    assert paper.startswith(b"%PDF") and len(paper) > 20_000
