import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.image import imread

from live_restore.figure_page import shorten
from live_restore.figures import _LUTS, GalleryRow, busiest_place, gallery, round_length
from live_restore.score_figure import ScoreRow, score_figure


def field(shape=(60, 80), seed=0):
    rng = np.random.default_rng(seed)
    clean = 100 + 50 * np.sin(np.arange(shape[-1]) / 5) * np.ones(shape)
    return rng.poisson(clean).astype(np.uint16), clean.astype(np.float32)


def row(shape=(60, 80), **more):
    raw, clean = field(shape)
    return GalleryRow("a field", raw, clean, caption="CARE, openvino, f32", **more)


ROWS = {
    "plane": [row()],
    "with a reference of other counts": [row(reference=30 * field()[1] - 900, pixel_size_um=0.1)],
    "stack": [row((5, 40, 48), pixel_size_um=0.26)],
    "several": [row(), row((70, 50))],
    "tiny": [row((3, 2))],
    "one pixel": [row((1, 1))],
    "constant": [GalleryRow("flat", *(np.full((20, 20), value) for value in (5, 5.0, 7.0)))],
    "not a number": [GalleryRow("hole", *(np.where(np.eye(30) > 0, np.nan, np.arange(30.0)) for _ in range(2)))],
}


@pytest.mark.parametrize("suffix", [".png", ".pdf"])
@pytest.mark.parametrize("rows", ROWS.values(), ids=ROWS)
@pytest.mark.filterwarnings("error")
def test_gallery_is_drawn(rows, suffix, tmp_path):
    path = tmp_path / f"gallery{suffix}"
    gallery(rows, path)
    assert path.read_bytes()[:4] == {".png": b"\x89PNG", ".pdf": b"%PDF"}[suffix]


def test_gallery_shows_the_pixels(tmp_path):
    """Dark image, bright image: each panel is as bright as its counts on the common scale."""
    raw, restored = np.zeros((40, 40), np.uint16), np.tile(np.repeat([0.0, 100.0], 20), (40, 1))
    gallery([GalleryRow("halves", raw, restored)], tmp_path / "g.png", lut="gray")
    page = imread(tmp_path / "g.png")[..., :3].mean(axis=-1)
    band = page[page.shape[0] // 4]
    assert band[: len(band) // 2].max() < 0.2
    assert np.mean(band > 0.95) == pytest.approx(0.23, abs=0.03), "the bright half of the right panel"


def test_same_gallery_same_file(tmp_path):
    for name in ("one.png", "two.png", "one.pdf", "two.pdf"):
        gallery([row()], tmp_path / name)
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()
    assert (tmp_path / "one.pdf").read_bytes() == (tmp_path / "two.pdf").read_bytes()


@pytest.mark.parametrize("lut", _LUTS)
def test_look_up_tables_only_rise_in_lightness(lut):
    from matplotlib.colors import LinearSegmentedColormap

    colours = LinearSegmentedColormap.from_list(lut, _LUTS[lut])(np.linspace(0, 1, 256))[:, :3]
    linear = np.where(colours <= 0.04045, colours / 12.92, ((colours + 0.055) / 1.055) ** 2.4)
    lightness = np.cbrt(linear @ (0.2126, 0.7152, 0.0722))
    assert np.all(np.diff(lightness) > 0)


@pytest.mark.parametrize(
    ("rows", "name", "lut", "message"),
    [
        ([], "g.png", "ice", "a gallery of no fields"),
        ([row()], "g.jpg", "ice", r"figure 'g.jpg' has the suffix '.jpg'; use .png or .pdf"),
        ([row()], "g.png", "jet", "lut 'jet' is unknown; choose from ice"),
        ([row(reference=np.zeros((9, 9)))], "g.png", "ice", r"'a field': reference has shape \(9, 9\), raw \(60, 80\)"),
        ([row((2, 3, 9, 9))], "g.png", "ice", r"raw has shape \(2, 3, 9, 9\)"),
    ],
    ids=["none", "suffix", "lut", "shape", "axes"],
)
def test_gallery_refuses(rows, name, lut, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        gallery(rows, tmp_path / name, lut)
    assert not list(tmp_path.iterdir())


@given(st.tuples(st.integers(1, 70), st.integers(1, 70)))
@settings(max_examples=40, deadline=None)
def test_busiest_place_lies_inside(shape):
    rows, columns = busiest_place(np.random.default_rng(0).normal(size=shape))
    assert 0 <= rows.start < rows.stop <= shape[0]
    assert 0 <= columns.start < columns.stop <= shape[1]


@pytest.mark.parametrize("corner", [(0, 0), (0, 150), (150, 0), (150, 150), (80, 60)], ids=str)
def test_busiest_place_holds_the_structure(corner):
    plane = np.zeros((200, 200))
    y, x = corner
    plane[y : y + 25 : 2, x : x + 50 : 2] = 1
    rows, columns = busiest_place(plane)
    assert abs(rows.start - y) <= 8
    assert abs(columns.start - x) <= 8


@given(st.floats(1e-3, 1e5))
def test_round_length_is_round_and_not_longer(length):
    rounded = round_length(length)
    assert length / 2.6 < rounded <= length * (1 + 1e-6)
    assert f"{rounded:e}"[0] in "125"


def test_shorten_keeps_both_ends():
    assert shorten("short", 20) == "short"
    assert shorten("x" * 30 + "_t0001.tif", 20).endswith("t0001.tif")
    assert len(shorten("x" * 99, 20)) <= 20


def score_row(title, raw_db=20.0, restored_db=28.0, rings=32):
    frequency = np.arange(1, rings + 1) / (2 * rings)
    curve = np.exp(-6 * frequency)
    return ScoreRow(title, restored_db, raw_db, frequency, curve, None if raw_db is None else curve**2)


SCORES = {
    "one": [score_row("only")],
    "many": [score_row(f"field {n}", 15 + n / 10, 22 + n / 5, rings=32 + n) for n in range(40)],
    "no raw": [score_row("a", None), score_row("b", None)],
    "perfect": [score_row("a", 20.0, np.inf), score_row("b")],
    "long names": [score_row("experiment_of_the_day_position_0001_channel_2.ome.tif")],
}


@pytest.mark.parametrize("rows", SCORES.values(), ids=SCORES)
@pytest.mark.filterwarnings("error")
def test_score_figure_is_drawn(rows, tmp_path):
    score_figure(rows, tmp_path / "score.png")
    assert imread(tmp_path / "score.png").shape[1] == 1920


def test_score_figure_of_nothing(tmp_path):
    with pytest.raises(ValueError, match="a score figure of no fields"):
        score_figure([], tmp_path / "score.png")


def test_figures_load_matplotlib_only_when_drawn():
    imports = "import sys, live_restore.figures, live_restore.score, live_restore.score_figure"
    code = f"{imports}; sys.exit('matplotlib' in sys.modules or 'skimage' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_drawing_leaves_matplotlib_as_it_was(tmp_path):
    import matplotlib

    before = dict(matplotlib.rcParams)
    gallery([row()], tmp_path / "g.png")
    assert dict(matplotlib.rcParams) == before
    assert "matplotlib.pyplot" not in sys.modules or not sys.modules["matplotlib.pyplot"].get_fignums()
