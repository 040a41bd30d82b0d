"""The preview in a real Chromium: what it shows, how it is used, and what happens when things break."""

import io
import shutil
import time

import numpy as np
import pytest
from PIL import Image
from preview_server import Mood, Stack, StandIn, cells

from live_restore.preview.web import Preview

CHROMIUM = next((path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None)
pytestmark = [pytest.mark.browser, pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium on this machine")]

PLANES = 5


@pytest.fixture(scope="module")
def movie():
    return cells(size=96, planes=PLANES, times=4)


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as started:
        chromium = started.chromium.launch(executable_path=CHROMIUM)
        yield chromium
        chromium.close()


@pytest.fixture
def stand_in(movie):
    with StandIn(movie, mood=Mood(every_s=0.15)) as server:
        yield server


@pytest.fixture
def preview(stand_in):
    with Preview(stand_in.address, port=0) as served:
        yield served


class Visit:
    """A page that was opened, and everything it asked for and complained of."""

    def __init__(self, browser, served, query="", **options):
        self.context = browser.new_context(viewport={"width": 1000, "height": 640}, **options)
        self.page = self.context.new_page()
        self.requests, self.complaints = [], []
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("websocket", lambda line: self.requests.append(line.url.replace("ws://", "http://")))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("console", lambda said: said.type == "error" and self.complaints.append(said.text))
        self.page.add_init_script(RECORD_NUMBERS)
        self.page.goto(served.url + query)

    def until(self, script, arg=None, seconds=20):
        """Wait for a condition; as a function, for the page's policy forbids to evaluate text."""
        function = script if "=>" in script else f"() => {script}"
        return self.page.wait_for_function(function, arg=arg, timeout=1000 * seconds)

    def shows(self):
        """Wait for the next view; gives its number."""
        before = self.number
        self.until("before => Number(document.querySelector('#canvas')?.dataset.number ?? 0) > before", before)
        return self.number

    @property
    def number(self):
        return int(self.page.evaluate("Number(document.querySelector('#canvas')?.dataset.number ?? 0)"))

    def pixels(self, left=0.0, right=1.0):
        """What the middle of the frame looks like between two shares of its width, (Y, X, 3)."""
        box = self.page.locator("#stage").bounding_box()
        middle = {"y": box["y"] + 0.35 * box["height"], "height": 0.3 * box["height"]}
        clip = {"x": box["x"] + left * box["width"], "width": (right - left) * box["width"], **middle}
        return np.asarray(Image.open(io.BytesIO(self.page.screenshot(clip=clip))).convert("RGB")).astype(float)

    def text(self, selector):
        return self.page.locator(selector).inner_text()


# Every number that is ever on the canvas, in order; loading a page anew begins a new list.
RECORD_NUMBERS = """
window.numbers = [];
addEventListener("DOMContentLoaded", () => new MutationObserver(() => {
  numbers.push(Number(document.querySelector("#canvas").dataset.number));
}).observe(document.querySelector("#stage"), { attributes: true, attributeFilter: ["data-number"], subtree: true }));
"""


@pytest.fixture
def visit(browser, preview):
    opened = Visit(browser, preview)
    yield opened
    opened.context.close()
    assert not opened.complaints


def test_it_shows_raw_and_restored_and_loads_nothing_from_elsewhere(visit, preview):
    visit.shows()
    raw, restored = visit.pixels(0.25, 0.48), visit.pixels(0.52, 0.75)
    assert raw.max() > 60 and restored.max() > 20
    # noise: raw changes more from pixel to pixel than restored does
    rough, smooth = (np.abs(np.diff(side.sum(axis=2), axis=1)).mean() for side in (raw, restored))
    assert rough > 1.5 * smooth
    base = preview.url.rstrip("/")
    assert visit.requests and all(url.startswith(base) for url in visit.requests)
    assert visit.text("#label-raw").startswith("Raw") and "a prediction" in visit.text("#label-restored")


def test_it_says_what_restores_and_where_every_frame_went(visit):
    visit.shows()
    visit.until("document.querySelector('#restore-sum').textContent.includes('adds up')")
    visit.until("document.querySelector('#model-facts').textContent.includes('care3d_mitochondria')")
    facts = visit.text("#model-facts")
    assert "openvino" in facts and "f32" in facts and "frozen" in facts
    assert "adds up" in visit.text("#hook-sum")
    assert "the restore process has it" in visit.text("#hook-ledger")
    assert visit.text("#dose-saved") == "98 %" and "of exposure instead of" in visit.text("#dose-words")
    assert visit.text("#latency").count("\n") >= 6 and "restore" in visit.text("#latency")
    assert "/data/2025-11-21/cells_1" in visit.text("#raw-path")
    assert "Raw is the record; restored is a prediction" in visit.text(".foot")
    assert visit.page.locator("#chart-snr .curve").get_attribute("d").startswith("M")
    assert "in the volume shown, between" in visit.page.locator("#chart-snr svg").get_attribute("aria-label")
    assert visit.text("#scale-word").endswith("µm")


def test_it_shows_how_far_the_engine_is_from_float32(visit, stand_in):
    """In short beside the precision; the whole certificate on a click, and a word where it is out of bounds."""
    box = visit.page.locator("#certificate-box")
    visit.shows()
    assert not box.is_visible(), "float32 is what others are measured against"
    figures = [["measured on", "8 held-out pairs"], ["relative error", "2.2e-3"], ["worst pixel", "0.28 read noises"]]
    stand_in.mood.certified = {"certified": "error 2.2e-3, -0.005 dB", "certificate": figures, "beyond": ""}
    visit.until("document.querySelector('#model-facts').textContent.includes('error 2.2e-3, -0.005 dB')")
    assert "0.28 read noises" in box.get_attribute("title") and not visit.page.locator("#certificate").is_visible()
    box.locator("summary").click()
    assert visit.text("#certificate").split("\n") == [words for figure in figures for words in figure]
    assert box.get_attribute("data-beyond") == "no"
    stand_in.mood.certified = {**stand_in.mood.certified, "beyond": "bf16: bias 9e-3 is beyond the limit of 2e-3"}
    visit.until("document.querySelector('#certificate').textContent.includes('bias 9e-3 is beyond')")
    assert box.get_attribute("data-beyond") == "yes" and box.evaluate("box => box.open"), "it stays open"


def test_the_divider_moves_by_keyboard_and_by_hand(visit):
    visit.shows()
    divider = visit.page.get_by_role("slider", name="Divider between raw and restored")
    divider.focus()
    for _ in range(5):
        visit.page.keyboard.press("ArrowLeft")
    assert divider.get_attribute("aria-valuenow") == "40"
    assert "40 percent" in divider.get_attribute("aria-valuetext")
    visit.page.keyboard.press("End")
    alone = visit.pixels(0.52, 0.75)
    visit.page.keyboard.press("Home")
    visit.until("document.querySelector('#divider').getAttribute('aria-valuenow') === '0'")
    roughness = [np.abs(np.diff(side.sum(axis=2), axis=1)).mean() for side in (alone, visit.pixels(0.52, 0.75))]
    assert roughness[0] > 1.5 * roughness[1], "the same place was raw, and then restored"
    box = visit.page.locator("#stage").bounding_box()
    grip = divider.bounding_box()
    visit.page.mouse.move(grip["x"] + grip["width"] / 2 + 8, grip["y"] + grip["height"] / 2)
    visit.page.mouse.down()
    visit.page.mouse.move(box["x"] + 0.7 * box["width"], 300)
    visit.page.mouse.up()
    assert abs(int(divider.get_attribute("aria-valuenow")) - 70) <= 1


def test_planes_and_projection(visit, stand_in):
    visit.shows()
    stand_in.mood.paused = True
    assert f"maximum of {PLANES} planes" in visit.text("#stamp")
    projection = visit.pixels()
    slider = visit.page.get_by_role("slider", name="z", exact=True)
    slider.focus()
    visit.page.keyboard.press("ArrowRight")
    visit.until("document.querySelector('#stamp').textContent.includes('z 2 of 5')")
    plane = visit.pixels()
    assert np.abs(plane - projection).mean() > 2
    visit.page.keyboard.press(".")
    visit.until("document.querySelector('#stamp').textContent.includes('z 3 of 5')")
    visit.page.keyboard.press("m")
    visit.until("document.querySelector('#stamp').textContent.includes('maximum of')")
    assert stand_in.asks[-1].z == -1


def test_channels(visit, stand_in):
    visit.until("document.querySelector('#stamp').textContent.includes('GFP')")  # the first view may be of either channel
    before = visit.pixels()
    visit.page.get_by_role("radio", name="DAPI").check(force=True)
    visit.until("document.querySelector('#stamp').textContent.includes('DAPI')")
    visit.until("document.querySelector('#model-facts').textContent.includes('care3d_nuclei')")
    assert np.abs(visit.pixels() - before).mean() > 5
    visit.page.locator("body").press("c")
    visit.until("document.querySelector('#stamp').textContent.includes('GFP')")


def test_contrast_is_steady_and_can_be_set_by_hand(visit, stand_in):
    ranges = set()
    for _ in range(6):
        visit.shows()
        ranges.add((visit.text("#low-word"), visit.text("#high-word")))
    assert len(ranges) <= 2, f"the automatic contrast wanders: {ranges}"
    stand_in.mood.paused = True
    visit.page.get_by_role("slider", name="White").focus()
    before = visit.pixels()
    visit.page.keyboard.press("End")
    assert not visit.page.get_by_role("checkbox", name="Automatic").is_checked()
    visit.until("Number(document.querySelector('#high').value) === 1000")
    visit.page.wait_for_timeout(100)
    assert visit.pixels().mean() < 0.8 * before.mean()
    high = visit.text("#high-word")
    stand_in.mood.paused = False
    visit.shows()
    assert visit.text("#high-word") == high, "what was set by hand stays"


def test_the_overlay_shows_what_was_planted(visit, stand_in):
    visit.shows()
    stand_in.mood.paused = True
    visit.page.get_by_role("checkbox", name="Show where raw disagrees").check(force=True)
    visit.until("!document.querySelector('#legend').hidden")
    assert stand_in.asks[-1].trust
    visit.page.locator("body").press("3")
    seen = np.asarray(Image.open(io.BytesIO(visit.page.screenshot())).convert("RGB")).astype(int)[40:490, :690]
    orange = (np.abs(seen - (184, 127, 0)) < (60, 60, 80)).all(axis=2) & (seen[..., 0] > seen[..., 1] + 20)
    blue = (seen[..., 2] > seen[..., 0] + 60) & (seen[..., 1] > 90)
    assert orange.sum() > 200 and blue.sum() > 200
    assert "invented" in visit.text("#legend") and "erased" in visit.text("#legend")
    visit.page.get_by_role("checkbox", name="Show where raw disagrees").uncheck(force=True)
    visit.until("document.querySelector('#legend').hidden")


def test_a_volume_that_went_unchecked_is_shown_with_the_last_check(visit, stand_in):
    stand_in.mood.unchecked = True
    visit.until("document.querySelector('#trust-facts').textContent.includes('as many as there was time for')")
    visit.page.get_by_role("checkbox", name="Show where raw disagrees").check(force=True)
    visit.until("!document.querySelector('#legend').hidden")
    saw = set()
    while len(saw) < 2:  # an even time point, which was checked, and an odd one
        stand_in.mood.paused = True
        newest = [number for number, _ in stand_in.shown.values()]
        visit.until("newest => newest.includes(Number(document.querySelector('#canvas').dataset.number))", newest)
        drawn = int(visit.text("#stamp").split("time ")[1].split(",")[0])
        assert visit.text("#trust-word") == f"✓ agrees with the photons, time\u00a0{drawn - drawn % 2}"
        assert visit.page.locator("#trust-word").get_attribute("data-trusted") == "yes"
        assert float(visit.text("#chart-snr strong")) > 3
        assert visit.page.locator("#legend").is_visible()
        saw.add(drawn % 2)
        stand_in.mood.paused = False
        visit.shows()


def test_a_browser_that_draws_slowly_beside_the_restoration_does_not_draw_all_the_time(visit):
    visit.shows()
    rests = visit.page.evaluate(
        """async (cases) => {
          const { restAfter } = await import('/static/pace.js');
          return cases.map(([ms, cores]) => restAfter(ms, cores));
        }""",
        [[16, 2], [40, 2], [80, 2], [5000, 2], [80, 4], [80, 8]],
    )
    assert rests == [0, 0, 160, 500, 160, 0]


def test_distrust_is_said_plainly_and_taken_back(browser, movie):
    """Of one image that comes again and again: of a movie, and until a channel is chosen, no two views are equally bright."""
    with StandIn({"GFP": movie["GFP"][:1]}, mood=Mood(every_s=0.15)) as server, Preview(server.address, port=0) as served:
        visit = Visit(browser, served)
        visit.shows()
        assert visit.page.get_by_role("alert").count() == 0
        bright = visit.pixels(0.52, 0.75).max()
        server.mood.trusted = False
        visit.page.get_by_role("alert").get_by_text("Do not trust the restored image").wait_for()
        assert "invented structure on 3.1 %" in visit.text("#alert-text")
        assert "do not trust" in visit.text("#label-restored")
        assert "do not trust" in visit.text("#trust-word")
        visit.shows()
        assert visit.pixels(0.52, 0.75).max() > 0.9 * bright, "it is as bright as before: dimmed is only what is from before"
        server.mood.trusted = True
        visit.until("document.querySelector('#alert').hidden")
        assert "a prediction" in visit.text("#label-restored")
        assert not visit.complaints
        visit.context.close()


# In every frame what the page says of the volume that is drawn; a sentence per disagreement.
WATCH_AGREEMENT = """() => {
  window.saw = { frames: 0, no: 0, yes: 0, wrong: [] };
  const words = (id) => document.querySelector(id).innerText;
  const look = () => {
    const panel = document.querySelector("#trust-word").dataset.trusted;
    const banner = !document.querySelector("#alert").hidden && words("#alert-title").startsWith("Do not trust");
    const corner = words("#label-restored").includes("do not trust");
    const facts = words("#trust-facts");
    const snr = words("#chart-snr strong");
    const [late, top] = [words("#chart-latency strong"), words("#total-latency")];
    saw.frames += 1;
    saw[panel] += 1;
    if (banner !== (panel === "no") || corner !== banner) saw.wrong.push(`panel ${panel}, banner ${banner}, corner ${corner}`);
    if (!facts.includes(snr)) saw.wrong.push(`headline ${snr}, panel ${facts}`);
    if (late !== top) saw.wrong.push(`headline ${late}, top ${top}`);
    requestAnimationFrame(look);
  };
  requestAnimationFrame(look);
}"""


def test_everything_on_the_page_speaks_of_the_volume_that_is_drawn(visit, stand_in):
    stand_in.mood.warnings = ["channel GFP: do not trust the restored image of (another): it disagrees"]
    visit.shows()
    visit.until("document.querySelector('#trust-facts').textContent.includes('SNR')")
    visit.page.evaluate(WATCH_AGREEMENT)
    for trusted in (False, True, False, True):
        stand_in.mood.trusted = trusted
        visit.until("state => document.querySelector('#trust-word').dataset.trusted === state", "yes" if trusted else "no")
        visit.shows()
    assert visit.page.locator("#notice").is_hidden(), "the run's word of another volume does not contradict the one drawn"
    saw = visit.page.evaluate("window.saw")
    assert saw["no"] > 3 and saw["yes"] > 3
    assert not saw["wrong"], saw["wrong"][:5]
    time = int(visit.text("#stamp").split("time ")[1].split(",")[0])
    own = stand_in.figures("GFP", time)
    assert visit.text("#chart-snr strong") == f"{own['snr']:g}"
    assert visit.page.locator("#chart-snr .now").evaluate("dot => dot.style.visibility") == "visible"
    stand_in.stop()
    visit.page.get_by_role("alert").get_by_text("The restore process is gone since").wait_for(timeout=8000)
    assert not visit.page.evaluate("window.saw.wrong.filter((words) => words.startsWith('headline'))")


def test_the_headline_is_the_drawn_volumes_while_the_history_runs_on(visit, stand_in):
    """A view that is asked for again is not drawn again, but the run's history comes with it."""
    stand_in.frozen = True
    visit.shows()
    visit.until("document.querySelector('#stamp').textContent.includes('GFP')")
    visit.until("document.querySelector('#chart-snr svg').ariaLabel.includes('in the volume shown, between 4')")
    shown, label = visit.text("#chart-snr strong"), visit.page.locator("#chart-snr svg").get_attribute("aria-label")
    visit.until("label => document.querySelector('#chart-snr svg').ariaLabel !== label", label)
    own = stand_in.figures("GFP", int(visit.text("#stamp").split("time ")[1].split(",")[0]))
    assert visit.text("#chart-snr strong") == shown == f"{own['snr']:g}"
    assert shown in visit.text("#trust-facts")


def reference(at, raw, restored=None, model="care2d", channel="GFP"):
    """One comparison; `at` seconds after the start."""
    gain = None if restored is None else restored - raw
    named = {"time": at, "position": "0", "channel": channel, "unix_s": at, "model": model, "sha256": model}
    return {**named, "psnr_db": restored, "raw_psnr_db": raw, "gain_db": gain}


def test_references_are_a_chart_of_their_own_where_there_are_any(visit, stand_in):
    visit.shows()
    visit.until("document.querySelector('#stamp').textContent.includes('GFP')")
    chart = visit.page.locator("#chart-reference")
    assert chart.is_hidden()
    stand_in.mood.references = [reference(1, 18.2)]
    chart.wait_for()
    assert visit.text("#chart-reference .span").endswith("raw 18.2\u00a0dB")
    assert "not restored" in chart.locator("svg").get_attribute("aria-label")
    later = [reference(at, 18.2 + 0.1 * (at % 2), 20.1 + 0.2 * (at % 3)) for at in range(5, 30, 5)]
    later += [reference(at, 18.2 + 0.1 * (at % 2), 27.1 + 0.2 * (at % 3), "care2d, trained here") for at in range(30, 45, 5)]
    stand_in.mood.references = [reference(1, 18.2), *later, reference(45, 9.0, 30.0, channel="DAPI")]
    visit.until("document.querySelector('#chart-reference strong').textContent.startsWith('+9')")
    label = chart.locator("svg").get_attribute("aria-label").replace("\u00a0", " ")
    assert (
        label
        == "PSNR against high light: restored 27.3, raw 18.2 dB, +9.1 dB by restoring, then by care2d, trained here; 9 compared"
    )
    curve, raw = (chart.locator(name).get_attribute("d") for name in (".curve", ".beside"))
    heights = [[float(place.split()[1]) for place in line[1:].split("L")] for line in (curve, raw)]
    assert len(heights[0]) == 8 and len(heights[1]) == 9
    assert max(heights[0]) < min(heights[1]), "restored runs above raw, on one scale"
    assert chart.locator(".changes line").count() == 1 and "trained here" in chart.locator(".changes title").text_content()
    boxes = [visit.page.locator(f"#chart-{name}").bounding_box() for name in ("snr", "raised", "reference", "latency")]
    assert len({box["y"] for box in boxes}) == 1 and len({round(box["width"]) for box in boxes}) == 1, "four in a row"
    visit.page.get_by_role("radio", name="DAPI").check(force=True)
    visit.until("document.querySelector('#chart-reference strong').textContent.startsWith('+21')")
    stand_in.mood.references = []
    chart.wait_for(state="hidden")


DOUBT = "one structure may have been removed (22 sd)"
NOTE = "0.2 % of the pixels are saturated and were left out"
PLACES = [
    {"z": 2, "y": 72, "x": 70, "scale_px": 4, "score": 22.3, "sign": "erased"},
    {"z": 1, "y": 24, "x": 80, "scale_px": 1, "score": -11.8, "sign": "invented"},
]


@pytest.fixture
def doubtful(visit, stand_in):
    stand_in.mood.doubts, stand_in.mood.notes, stand_in.mood.places = [DOUBT, "another"], [NOTE], PLACES
    visit.shows()
    visit.page.get_by_text("Look twice at the restored image").wait_for()
    return visit


def test_a_doubt_is_a_yellow_note_and_everything_stands_in_the_panel(doubtful):
    assert doubtful.page.locator("#alert").get_attribute("data-level") == "doubt"
    assert "One structure may have been removed (22 sd)." in doubtful.text("#alert-text")
    assert "in doubt" in doubtful.text("#label-restored") and "doubt" in doubtful.text("#trust-word")
    red, green, blue = doubtful.page.locator("#alert").evaluate("box => getComputedStyle(box).backgroundColor.match(/\\d+/g)")[
        :3
    ]
    assert int(green) > int(red) / 2 > int(blue), "dark yellow, not red"
    said = doubtful.page.locator("#trust-notes li")
    assert said.all_inner_texts() == [DOUBT, "another", NOTE]
    listed = [words.replace("\u00a0", " ") for words in doubtful.page.locator("#trust-places button").all_inner_texts()]
    assert listed == ["plane 3, y 72, x 70: removed, 22 sd", "plane 2, y 24, x 80: invented, 12 sd"]


def test_places_are_marked_where_they_are_and_can_be_gone_to(doubtful, stand_in):
    marks = doubtful.page.locator("#marks .mark")
    assert marks.count() == 2, "in the maximum projection all of them"
    circle = doubtful.page.locator("#marks .line").first.evaluate("c => [c.cx, c.cy, c.r].map((part) => part.baseVal.value)")
    box = doubtful.page.locator("#stage").bounding_box()
    zoom = min(box["width"], box["height"]) / 96
    assert circle == pytest.approx(
        [box["width"] / 2 + (70.5 - 48) * zoom, box["height"] / 2 + (72.5 - 48) * zoom, 12 * zoom], abs=1
    )
    colours = [mark.evaluate("m => getComputedStyle(m.querySelector('.line')).stroke") for mark in marks.all()]
    assert colours == ["rgb(86, 180, 233)", "rgb(230, 159, 0)"]
    marks.first.focus()
    assert doubtful.text("#mark-label").replace("\u00a0", " ") == "plane 3, y 72, x 70: removed, 22 sd"
    doubtful.page.locator("#trust-places button").nth(1).click()
    doubtful.until("document.querySelector('#stamp').textContent.includes('z 2 of 5')")
    doubtful.until("document.querySelectorAll('#marks .mark').length === 1")
    middle = doubtful.page.locator("#marks .line").evaluate("c => [c.cx.baseVal.value, c.cy.baseVal.value]")
    assert middle == pytest.approx([0.75 * box["width"], box["height"] / 2], abs=2), "in the middle of the restored side"
    stand_in.mood.places = PLACES[:1]
    doubtful.until("document.querySelectorAll('#marks .mark').length === 0")


def test_marks_can_be_put_away_and_are_in_the_snapshot(doubtful):
    def blue():
        with doubtful.page.expect_download() as downloaded:
            doubtful.page.get_by_role("button", name="Snapshot").click()
        pixels = np.asarray(Image.open(downloaded.value.path()).convert("RGB")).astype(int)
        return int((np.abs(pixels - (86, 180, 233)) < 30).all(axis=2).sum())

    with_marks = blue()
    box = doubtful.page.get_by_role("checkbox", name="Marks")
    assert box.is_checked() and with_marks > 50
    doubtful.page.locator("body").press("k")
    assert not box.is_checked()
    doubtful.until("document.querySelectorAll('#marks .mark').length === 0")
    assert blue() < with_marks / 5


def test_a_slab_is_called_provisional(visit, stand_in):
    visit.shows()
    assert visit.page.locator("#slab").is_hidden()
    stand_in.mood.slab = 3
    visit.page.get_by_text("provisional: 3 of 5 planes").wait_for()


def test_raw_goes_on_where_nothing_is_restored(visit, stand_in):
    visit.shows()
    stand_in.mood.restores, stand_in.mood.model_state, stand_in.mood.why_failed = False, "failed", "out of memory."
    visit.page.get_by_role("alert").get_by_text("Nothing is restored: the model care3d_mitochondria failed").wait_for()
    first = visit.shows()
    assert visit.shows() > first
    assert visit.pixels(0.25, 0.48).max() > 60 and visit.pixels(0.52, 0.6).max() < 200
    assert "Not restored" in visit.text("#no-restored")


def test_a_warning_of_the_run_is_shown_once_and_can_be_put_away(visit, stand_in):
    visit.shows()
    stand_in.mood.warnings = ["falling behind: restoring 3.2 volumes/s; 20 % are left for backfill"]
    notice = visit.page.locator("#notice-words").get_by_text("falling behind: restoring 3.2")
    notice.wait_for()
    visit.page.get_by_role("button", name="Seen").click()
    stand_in.mood.warnings = ["falling behind: restoring 3.1 volumes/s; 21 % are left for backfill"]
    visit.shows()
    visit.shows()
    assert visit.page.locator("#notice").is_hidden(), "the same warning with other numbers"
    stand_in.mood.warnings = [*stand_in.mood.warnings, "the disk is full: 0 B left"]
    visit.page.locator("#notice-words").get_by_text("the disk is full").wait_for()
    assert visit.text("#notice-text") == "the disk is full: 0 B left", "and it is read out"


@pytest.mark.slow
def test_a_killed_process_is_announced_and_a_new_one_taken_up(visit, stand_in):
    last = visit.shows()
    stand_in.stop()
    visit.page.get_by_role("alert").get_by_text("The restore process is gone since").wait_for(timeout=8000)
    assert ", from " in visit.text("#label-raw")
    assert visit.pixels(0.25, 0.48).max() > 60, "raw stays"
    assert visit.number >= last
    stand_in.start()
    visit.until("document.querySelector('#alert').hidden")
    visit.until("Number(document.querySelector('#canvas').dataset.number) < 40")
    assert "the record" == visit.text("#label-raw-note")


@pytest.mark.slow
def test_it_survives_reload_and_restart_of_its_own_server(browser, stand_in):
    with Preview(stand_in.address, port=0) as first:
        port = first.port
        visit = Visit(browser, first)
        visit.shows()
        visit.page.get_by_role("radio", name="DAPI").check(force=True)
        visit.page.locator("body").press("l")
        visit.page.reload()
        visit.shows()
        assert "DAPI" in visit.text("#stamp"), "what was chosen is kept"
        assert visit.page.locator("#stage").get_attribute("data-layout") == "beside"
    visit.page.get_by_role("alert").get_by_text("The preview's server is gone").wait_for()
    before = visit.number
    with Preview(stand_in.address, port=port):
        visit.until("document.querySelector('#alert').hidden")
        visit.until("before => Number(document.querySelector('#canvas').dataset.number) > before", before)
    visit.context.close()


def test_waiting_is_said_while_nobody_is_there(browser, movie):
    gone = StandIn(movie).start()
    gone.stop()
    with Preview(gone.address, port=0) as served:
        visit = Visit(browser, served)
        visit.page.get_by_role("alert").get_by_text("Waiting for the restore process").wait_for()
        assert "live-restore serve" in visit.text("#alert-text")
        words, grip = (visit.page.locator(name).bounding_box() for name in ("#empty", ".grip"))
        assert words["y"] > grip["y"] + grip["height"], "what is waited for is not under the divider's handle"
        visit.context.close()


def test_two_viewers_see_what_each_of_them_wants(browser, preview):
    one, other = Visit(browser, preview), Visit(browser, preview)
    one.shows()
    other.shows()
    other.page.get_by_role("radio", name="DAPI").check(force=True)
    other.page.get_by_role("checkbox", name="Maximum projection").uncheck(force=True)
    other.until("document.querySelector('#stamp').textContent.includes('DAPI')")
    one.shows()
    other.shows()
    assert "GFP" in one.text("#stamp") and "maximum of" in one.text("#stamp")
    assert "DAPI" in other.text("#stamp") and "z 1 of" in other.text("#stamp")
    for visit in (one, other):
        visit.context.close()


def test_an_older_view_is_never_shown_after_a_newer_one(visit, stand_in):
    stand_in.mood.every_s = 0.02
    stand_in.mood.delay_s = 0.05
    visit.shows()
    visit.until("numbers.length > 25")
    numbers = visit.page.evaluate("numbers")
    assert numbers == sorted(numbers)
    newest = stand_in.shown["GFP"][0]
    visit.shows()
    assert visit.shows() >= newest, "never behind by more than one"


def test_every_control_has_a_name_and_the_keyboard_reaches_it(visit):
    visit.shows()
    session = visit.context.new_cdp_session(visit.page)
    nodes = session.send("Accessibility.getFullAXTree")["nodes"]
    wanted = {"button", "slider", "checkbox", "radio", "combobox", "alert", "image", "img", "DisclosureTriangle"}
    controls = [node for node in nodes if not node.get("ignored") and node["role"]["value"] in wanted - {"alert"}]
    nameless = [node["role"]["value"] for node in controls if not node.get("name", {}).get("value")]
    assert len(controls) > 20 and not nameless
    reached = set()
    for _ in range(40):
        visit.page.keyboard.press("Tab")
        reached.add(visit.page.evaluate("document.activeElement.id || document.activeElement.name"))
    assert {
        "canvas",
        "divider",
        "snapshot",
        "keys",
        "channel",
        "layout",
        "projection",
        "low",
        "high",
        "gamma",
        "colour",
    } <= reached
    assert visit.page.locator("main").count() == 1 and visit.page.locator("h1").count() == 1


def test_keys_are_explained_and_zoom_pan_and_themes_work(visit):
    visit.shows()
    visit.page.keyboard.press("?")
    dialog = visit.page.get_by_role("dialog", name="Keys")
    dialog.wait_for()
    assert "maximum projection" in dialog.inner_text()
    visit.page.keyboard.press("Escape")
    bar = visit.text("#scale-word"), visit.page.locator("#scale-line").bounding_box()["width"]
    for _ in range(4):
        visit.page.locator("body").press("+")
    visit.page.locator("#canvas").focus()
    visit.page.keyboard.press("ArrowRight")
    visit.until("width => document.querySelector('#scale-line').getBoundingClientRect().width !== width", bar[1])
    visit.shows()
    visit.page.locator("body").press("0")
    visit.until("word => document.querySelector('#scale-word').textContent === word", bar[0])
    assert visit.page.locator("html").get_attribute("data-theme") == "dark"
    visit.page.locator("body").press("d")
    assert visit.page.locator("html").get_attribute("data-theme") == "light"


def test_a_snapshot_is_what_is_seen_with_its_labels(visit):
    visit.shows()
    with visit.page.expect_download() as downloaded:
        visit.page.get_by_role("button", name="Snapshot").click()
    picture = Image.open(downloaded.value.path())
    assert downloaded.value.suggested_filename.startswith("cells_1_t")
    box = visit.page.locator("#canvas").bounding_box()
    assert picture.size == (round(box["width"]), round(box["height"]) + 76)
    pixels = np.asarray(picture.convert("RGB"))
    assert pixels[100:400].max() > 100 and pixels[-70:].max() > 100, "cells, and words below them"


@pytest.mark.slow
def test_large_images_are_sent_as_finely_as_the_screen_shows_them(browser):
    """A 2048 x 2048 camera: the whole in blocks, a part of it pixel by pixel."""
    (stack,) = cells(size=128, planes=1, times=1, channels={"GFP": "vesicles"})["GFP"]
    tiled = (np.tile(pixels, (1, 16, 16)) for pixels in (stack.raw, stack.restored, stack.trust))
    movie = {"GFP": [Stack(*tiled)]}
    with StandIn(movie, mood=Mood(every_s=0.1)) as server, Preview(server.address, port=0) as served:
        visit = Visit(browser, served)
        visit.shows()
        visit.shows()
        visit.until("document.querySelector('#canvas').dataset.block >= 3")
        for _ in range(12):
            visit.page.locator("body").press("+")
        visit.until("document.querySelector('#canvas').dataset.block === '1'")
        visit.page.locator("#canvas").focus()
        for _ in range(5):
            visit.page.keyboard.press("ArrowRight")
        visit.shows()
        assert visit.pixels(0.1, 0.45).std() > 3
        assert not visit.complaints
        visit.context.close()


def test_it_draws_without_webgl(browser, preview):
    visit = Visit(browser, preview, "?plain=1")
    visit.shows()
    visit.page.get_by_role("checkbox", name="Show where raw disagrees").check(force=True)
    visit.until("!document.querySelector('#legend').hidden")
    raw, restored = visit.pixels(0.25, 0.48), visit.pixels(0.52, 0.75)
    rough, smooth = (np.abs(np.diff(side.sum(axis=2), axis=1)).mean() for side in (raw, restored))
    assert rough > 1.5 * smooth
    assert not visit.complaints
    visit.context.close()


def test_a_hidden_tab_goes_on_slowly_and_catches_up(visit, stand_in):
    visit.shows()
    visit.page.evaluate(
        "Object.defineProperty(document, 'hidden', { get: () => window.away, configurable: true });"
        "window.away = true; document.dispatchEvent(new Event('visibilitychange'));"
    )
    before = stand_in.answered
    time.sleep(2)
    assert stand_in.answered - before < 8, "it asks about once a second"
    visit.page.evaluate("window.away = false; document.dispatchEvent(new Event('visibilitychange'))")
    newest = stand_in.shown["GFP"][0]
    visit.until("newest => Number(document.querySelector('#canvas').dataset.number) >= newest", newest, seconds=5)
