"""`live-restore pairs check` and `show`: any folder of pairs, in words and as a picture."""

import io
from pathlib import Path

import numpy as np
import pytest
import tifffile
from matplotlib.image import imread
from pair_folders import cells, pair, write
from rich.console import Console

from live_restore.cli import main
from live_restore.pairs.check import check_pairs
from live_restore.pairs.contact_sheet import contact_sheet
from live_restore.records.pairs import read_pairs
from live_restore.terminal.pairs import print_check


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Three good pairs, one that is shifted, one without its partner, one of another shape."""
    images = {f"p{place}_0": pair(seed=place, field=cells(place, (96, 128))) for place in range(4)}
    low, high = images["p3_0"]
    images |= {"p3_0": (low, np.roll(high, 20, 1)), "p4_0": (low, None), "p5_0": (low, high[:64])}
    return write(tmp_path_factory.mktemp("pairs") / "dish", images)


def words(capsys):
    return " ".join(capsys.readouterr().out.split())


def test_check_says_which_are_good_and_why_not(folder, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")
    with pytest.raises(SystemExit) as ended:
        main(["pairs", "check", str(folder)])
    said = words(capsys)
    assert ended.value.code == 0
    assert "3 of 6 pairs are good, 3 rejected; 3 positions, median SNR" in said
    assert "p3_0: high lies 19.9 pixels" in said
    assert "p4_0: 'p4_0' is in low, but not in high" in said
    assert "p5_0: high has shape (64, 128) and low (96, 128)" in said
    assert not (folder / "pairs.jsonl").exists()


def test_check_keeps_its_verdicts_when_asked(folder, tmp_path, capsys):
    copy = write(tmp_path / "copy", {})
    for path in folder.rglob("*.tif"):
        (copy / path.parent.name / path.name).write_bytes(path.read_bytes())
    with pytest.raises(SystemExit):
        main(["pairs", "check", str(copy), "--write", "--position", "^(p[0-9])"])
    assert "written:" in words(capsys)
    assert [p.name for p in read_pairs(copy).accepted] == ["p0_0", "p1_0", "p2_0"]


def test_check_takes_limits_and_ends_with_1_if_no_pair_is_good(folder, tmp_path, capsys):
    limits = tmp_path / "plan.toml"
    limits.write_text("[limits]\nleast_side_px = 500\n", encoding="utf-8")
    with pytest.raises(SystemExit) as ended:
        main(["pairs", "check", str(folder), "--limits", str(limits), "--all"])
    assert ended.value.code == 1
    assert "none of the 6 pairs is good enough to learn from" in words(capsys)


def test_check_knows_the_camera_of_a_configuration(folder, tmp_path, capsys):
    demo = Path(__file__).parents[1] / "hardware_configs" / "demo.toml"
    config = tmp_path / "rig.toml"
    # a camera whose pixels are full after so few electrons has saturated in these images
    config.write_text(
        demo.read_text(encoding="utf-8").replace("full_well_e = 30000.0", "full_well_e = 100.0"), encoding="utf-8"
    )
    with pytest.raises(SystemExit):
        main(["pairs", "check", str(folder), "--config", str(config)])
    assert "of high is saturated" in words(capsys)


def test_an_error_is_a_sentence(tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["pairs", "check", str(tmp_path)])
    assert ended.value.code == 1
    assert "has no sub-folders low and high" in " ".join(capsys.readouterr().err.split())


def test_a_large_folder_is_shown_in_part(tmp_path, capsys):
    low, high = pair(field=cells(0, (32, 32)))
    write(tmp_path / "many", {f"p{number}": (low, high) for number in range(62)})
    with pytest.raises(SystemExit):
        main(["pairs", "check", str(tmp_path / "many")])
    assert "more accepted pairs; --all shows them" in words(capsys) or "rejected" in words(capsys)


@pytest.mark.parametrize("suffix", [".png", ".pdf"])
def test_show_draws_a_sheet(folder, tmp_path, capsys, suffix):
    sheet = tmp_path / f"sheet{suffix}"
    with pytest.raises(SystemExit):
        main(["pairs", "show", str(folder), "-o", str(sheet)])
    assert "written:" in words(capsys)
    if suffix == ".png":
        picture = imread(sheet)
        assert picture.shape[1] == 1920
        # pictures, not an empty page: ice-blue, amber and green are there
        assert picture[..., :3].std() > 0.1
    else:
        assert sheet.read_bytes().startswith(b"%PDF")


def test_show_draws_all_pairs_of_stacks_on_several_pages(tmp_path):
    stack = cells(3, (3, 48, 64), "mitochondria")
    folder = write(tmp_path / "stacks", {f"p{number:02}_0": pair(40.0, number, stack) for number in range(17)})
    tifffile.imwrite(folder / "low" / "p00_0.tif", np.zeros((3, 48, 64), np.uint16), photometric="minisblack")
    (folder / "high" / "p01_0.tif").write_bytes(b"no image")
    check = check_pairs(read_pairs(folder))
    pages = contact_sheet(check, tmp_path / "sheet.png", everything=True)
    assert [page.name for page in pages] == ["sheet.png", "sheet_2.png"]
    assert contact_sheet(check, tmp_path / "one.png") == [tmp_path / "one.png"]


def test_a_sheet_is_a_figure(folder, tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["pairs", "show", str(folder), "-o", str(tmp_path / "sheet.jpg")])
    assert "a figure is .png or .pdf" in " ".join(capsys.readouterr().err.split())


def test_figures_are_whole_in_a_narrow_window(folder):
    check = check_pairs(read_pairs(folder))
    narrow = Console(file=io.StringIO(), width=60)
    print_check(narrow, check)
    text = narrow.file.getvalue()
    assert "…" not in text
    rows = [line for line in text.splitlines() if line.rstrip().endswith(("good", "rejected"))]
    assert len(rows) == len(check.checked), "a line per pair"
