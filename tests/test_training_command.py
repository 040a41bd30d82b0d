"""`live-restore train`: what it says, bad pairs that are left out, folders that cannot be learned from."""

import numpy as np
import pytest
import tifffile
from pair_folders import cells, pair, write
from training_folders import Heard, pairs_folder, tiny

from live_restore.cli import main
from live_restore.errors import PairError
from live_restore.models.package import open_package
from live_restore.records.pairs import read_pairs
from live_restore.training.arithmetic import set_threads
from live_restore.training.checked import check_foreign
from live_restore.training.material import dimensions
from live_restore.training.presets import preset


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    set_threads(1)
    return pairs_folder(tmp_path_factory.mktemp("pairs") / "dish")


# --- the command line


def command(*words, capsys):
    with pytest.raises(SystemExit) as ended:
        main([*map(str, words), "--threads", "1"])
    said = capsys.readouterr()
    return ended.value.code, " ".join((said.out + said.err).split())


@pytest.fixture
def quick_toml(tmp_path):
    path = tmp_path / "tiny.toml"
    path.write_text(tiny(6, pairs={"check": True, "held_out": ()}).to_toml(), encoding="utf-8")
    return path


def test_the_command_trains_and_says_what_came_of_it(folder, tmp_path, quick_toml, capsys):
    code, said = command("train", folder, "-o", tmp_path / "net", "--options", quick_toml, capsys=capsys)
    assert code == 0, said
    for words in (
        "on held-out pairs raw restored",
        "dB over raw, mean of",
        "model package:",
        "report:",
        "try it: live-restore",
    ):
        assert words in said
    code, said = command("train", folder, "-o", tmp_path / "net", "--options", quick_toml, capsys=capsys)
    assert code == 1
    assert "net" in said


def test_high_light_alone(tmp_path, quick_toml, capsys):
    images = tmp_path / "stacks"
    images.mkdir()
    for place in range(4):
        tifffile.imwrite(images / f"p{place}.tif", pair(seed=place, field=cells(place, (64, 80)))[1])
    words = ("train", images, "-o", tmp_path / "net", "--options", quick_toml, "--high-light-only")
    code, said = command(*words, "--photons", "5,40", capsys=capsys)
    assert code == 0, said
    package = open_package(tmp_path / "net")
    assert package.facts.light_levels["trained_peak_photons_from"] == 5
    assert "images made dim by computation" in package.description
    code, said = command(*words, "--photons", "many", "--overwrite", capsys=capsys)
    assert code == 1
    assert "--photons 'many' is not FROM,TO" in said


def good(place):
    return pair(seed=place, field=cells(place, (64, 80)))


def bad_pairs():
    low, high = good(3)
    floats = low.astype(np.float32)
    floats[3, 4] = np.nan
    return {
        "q0": ((high, low), "low and high may be swapped"),
        "q1": ((low, high[:40]), "high has shape (40, 80) and low (64, 80)"),
        "q2": ((low, None), "'q2' is in low, but not in high"),
        "q3": ((floats, high.astype(np.float32)), "low has 1 pixels that are NaN"),
        "q4": ((low, np.roll(high, 20, 1)), "high lies 19.9 pixels from low (limit 5)"),
        "q5": ((low, (high >> 8).astype(np.uint8)), "high is uint8 and low uint16"),
        "q6": ((np.full_like(low, 100), high), "low is constant at 100 counts"),
        "q7": ((low, np.where(high > 200, 65535, high).astype(np.uint16)), "of high is saturated"),
    }


def test_bad_pairs_are_left_out_with_their_reasons(tmp_path, quick_toml, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "300")
    bad = bad_pairs()
    folder = write(
        tmp_path / "dish", {f"p{place}": good(place) for place in range(4)} | {name: one for name, (one, _) in bad.items()}
    )
    (folder / "low" / "q9.tif").write_bytes(b"no image")
    tifffile.imwrite(folder / "high" / "q9.tif", good(1)[1])
    code, said = command("train", folder, "-o", tmp_path / "net", "--options", quick_toml, capsys=capsys)
    assert code == 0, said
    for name, (_, words) in bad.items():
        assert f"left out: {name}: " in said
        assert words in said
    assert "left out: 1 more" in said
    assert "3 pairs to learn from, 1 held out" in said
    code, said = command("train", folder, "-o", tmp_path / "all", "--options", quick_toml, "--no-check", capsys=capsys)
    assert code == 1
    assert not (tmp_path / "all").exists()


def test_a_first_pair_that_cannot_be_read_does_not_stop_it(tmp_path):
    folder = write(tmp_path / "dish", {f"p{place}": good(place) for place in range(2)})
    (folder / "low" / "p0.tif").write_bytes(b"no image")
    assert dimensions([folder], tiny()) == 2
    (folder / "low" / "p1.tif").write_bytes(b"no image")
    with pytest.raises(PairError, match=r"none of the pairs can be read; the first: .*p0\.tif"):
        dimensions([folder], tiny())


def folders(tmp_path):
    """Folders that cannot be learned from: how each is made, and what is said of it."""
    fine = {f"p{place}": good(place) for place in range(3)}
    yield "swapped", {name: (high, low) for name, (low, high) in fine.items()}, "low and high look swapped in 3 of 3 pairs"
    yield "unequal", {name: (low, high[:40]) for name, (low, high) in fine.items()}, "high has shape (40, 80) and low (64, 80)"
    yield "lonely", {name: (low, None) for name, (low, _) in fine.items()}, "'p0' is in low, but not in high"
    yield "one", {"p0": fine["p0"]}, "were all taken at one position"


def test_folders_that_cannot_be_learned_from(tmp_path, quick_toml, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "300")
    for name, images, words in folders(tmp_path):
        folder = write(tmp_path / name, images)
        code, said = command("train", folder, "-o", tmp_path / "made" / "net", "--options", quick_toml, capsys=capsys)
        assert code == 1, name
        assert words in said
        assert not (tmp_path / "made").exists(), name


WORDS = {
    "no folder": (("train", "nowhere", "-o", "x"), "nowhere is no folder"),
    "two options": (("train", "DISH", "-o", "x", "--options", "TOML", "--preset", "best"), "--options says which network"),
    "photons": (("train", "DISH", "-o", "x", "--photons", "3,4"), "--photons goes with --high-light-only"),
    "channel": (
        ("train", "DISH", "-o", "x", "--channel", "GFP", "--options", "TOML"),
        "no accepted pair has the channel 'GFP'",
    ),
    "positions": (("train", "DISH", "-o", "x", "--held-out", "z*", "--options", "TOML"), "no position is called z*"),
    "all held out": (("train", "DISH", "-o", "x", "--held-out", "p*", "--options", "TOML"), "all 6 positions are held out"),
    "rcan scale": (("train", "DISH", "-o", "x", "--network", "rcan", "--probabilistic"), "only care can be probabilistic"),
    "other network": (
        ("train", "DISH", "-o", "x", "--network", "rcan", "--from", "care2d_demo"),
        "is a care network; leave out",
    ),
}


@pytest.mark.parametrize("case", WORDS)
def test_words_that_do_not_go_together(case, folder, tmp_path, quick_toml, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "300")
    words, said = WORDS[case]
    places = {"DISH": folder, "TOML": quick_toml, "x": tmp_path / "net"}
    code, heard = command(*(places.get(word, word) for word in words), capsys=capsys)
    assert (code, said in heard) == (1, True), heard
    assert not (tmp_path / "net").exists()


def test_a_large_folder_is_looked_at_as_far_as_there_is_time(folder):
    heard = Heard()
    found = check_foreign(read_pairs(folder), preset("care", 2).with_minutes(1e-3).fit, heard.said)
    assert len(found.accepted) == 6
    assert "are not looked at for swaps, shifts and focus" in heard.text()


def test_an_output_that_cannot_be_is_found_before_training(folder, tmp_path, quick_toml, capsys):
    (tmp_path / "file").write_text("", encoding="utf-8")
    code, said = command("train", folder, "-o", tmp_path / "file" / "net", "--options", quick_toml, capsys=capsys)
    assert code == 1
    assert "no package can be written to" in said and "choose another place with -o" in said
    assert "step" not in said
