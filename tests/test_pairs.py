"""The pair log: nothing is lost, nothing is half-written, and folders of any origin are read or refused with a reason."""

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
from pair_folders import RATIO, camera, cells, pair, write

from live_restore.errors import PairError
from live_restore.pairs.check import check_pairs, write_check
from live_restore.pairs.quality import PairFacts, measure_pair
from live_restore.records.pair_log import PairLog, TakenPair, pair_name
from live_restore.records.pair_positions import positions_in_names, split_positions
from live_restore.records.pairs import Pair, pairs_sha256, read_pairs

LOW, HIGH = pair()
GOOD, BAD = PairFacts(shift_px=(0.1, -0.2), snr=3.0), PairFacts(reason="out of focus", snr=1.0)


def taken(position="P0", channel="GFP", repeat=0, low=LOW, high=HIGH, **words):
    name = words.pop("name", pair_name(position, channel, repeat))
    return TakenPair(name, channel, position, repeat, low, high, pixel_size_um=(None, 0.1, 0.1), **words)


def files(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


# ------------------------------------------------------------------ writing


def test_what_is_written_is_read_back(tmp_path):
    with PairLog(tmp_path, "dish", {"instrument": "demo", "light_levels": {"GFP": [1, 30]}}) as log:
        for place in range(7):
            said = {"exposure_ms": 10.0, "stage": np.float64(place), "wrong": float("nan")}
            log.write(taken(f"P{place}", said=said, dose_ratio=30.0), BAD if place == 3 else GOOD)
        card = log.finish(ended="complete")
    assert log.folder == tmp_path / "dish"
    pairs = read_pairs(log.folder)
    assert pairs.card == json.loads((log.folder / "card.json").read_text(encoding="utf-8")) == card
    assert [p.split for p in pairs.pairs] == ["train", "held-out", "train", "", "train", "train", "train"]
    assert [p.name for p in pairs.pairs if not p.accepted] == ["P3_GFP-r0"]
    first = pairs.pairs[0]
    assert (first.channel, first.position, first.shift_px) == ("GFP", "P0", (0.1, -0.2))
    assert first.said["said"] == {"exposure_ms": 10.0, "stage": 0.0, "wrong": None}
    for read, written in zip(first.read(), (LOW, HIGH), strict=True):
        assert read.dtype == np.uint16
        np.testing.assert_array_equal(read, written)
    assert pairs.pairs[3].low == log.folder / "rejected" / "low" / "P3_GFP-r0.tif"
    assert pairs.pairs[3].reason == "out of focus"
    assert len(pairs.of("GFP")) == 6
    assert [p.position for p in pairs.of(split="held-out")] == ["P1"]
    assert pairs.of("DAPI") == ()
    assert (card["accepted"], card["rejected"], card["ended"], card["finished"]) == (6, 1, "complete", True)
    assert card["medians"]["snr"] == 3.0
    assert card["pairs_sha256"] == pairs_sha256(pairs)
    assert pairs.notes == ()


def test_other_software_reads_the_files_as_they_are(tmp_path):
    stack = np.stack([LOW, LOW, LOW])
    with PairLog(tmp_path, "dish") as log:
        log.write(taken(low=stack, high=stack, channel="mCherry"), GOOD)
    path = log.folder / "low" / "P0_mCherry-r0.tif"
    np.testing.assert_array_equal(tifffile.imread(path), stack)
    with tifffile.TiffFile(path) as tif:
        assert tif.is_ome
        assert tif.series[0].axes == "ZYX"
        assert 'PhysicalSizeX="0.1"' in tif.ome_metadata
        assert 'Name="mCherry"' in tif.ome_metadata
        assert tif.pages[0].resolution == (100000, 100000)


def test_a_name_that_is_taken_gets_a_number(tmp_path):
    names = [PairLog(tmp_path, "dish").folder.name for _ in range(3)]
    assert names == ["dish", "dish_2", "dish_3"]


def test_the_hash_does_not_depend_on_order_or_names(tmp_path):
    images = [pair(seed=seed) for seed in range(3)]
    one = write(tmp_path / "one", {f"a{n}": both for n, both in enumerate(images)})
    two = write(tmp_path / "two", {f"b{n}": both for n, both in enumerate(images[::-1])})
    other = write(tmp_path / "other", {f"a{n}": both[::-1] for n, both in enumerate(images)})
    assert pairs_sha256(read_pairs(one)) == pairs_sha256(read_pairs(two).pairs) != pairs_sha256(read_pairs(other))


@pytest.mark.parametrize("name", ["", "a/b", "a:b", "dot.", " a", "a\n", "x" * 121])
def test_names_that_are_none_are_refused(tmp_path, name):
    with pytest.raises(PairError, match="use letters, digits"):
        PairLog(tmp_path, name)
    with PairLog(tmp_path, "dish") as log, pytest.raises(PairError, match="use letters, digits"):
        log.write(taken(name=name), GOOD)


def test_duplicated_names_are_refused(tmp_path):
    with PairLog(tmp_path, "dish") as log:
        log.write(taken(name="A"), GOOD)
        before = files(log.folder)
        with pytest.raises(PairError, match=r"there is a pair 'a' .* already; give every pair a name of its own"):
            log.write(taken(name="a"), GOOD)
        assert files(log.folder) == before


@pytest.mark.parametrize("wrong", [LOW.astype(np.float32), LOW[None, None], LOW[:0]], ids=["real", "4D", "empty"])
def test_only_counts_are_written(tmp_path, wrong):
    with PairLog(tmp_path, "dish") as log, pytest.raises(PairError, match="pairs are kept as raw counts"):
        log.write(taken(high=wrong), GOOD)


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(PairError, match=r"no pairs can be kept in .*; choose another folder"):
        PairLog(tmp_path / "file", "dish")


ALONE = """
import os, signal, sys
from pathlib import Path
import numpy as np
from live_restore.errors import PairError
from live_restore.records import pair_files, pair_log
from live_restore.records.pair_log import PairLog, TakenPair
class Good:
    reason, shift_px = "", ()
    as_json = staticmethod(dict)
def taken(position, side=160, **words):
    image = np.random.default_rng(0).integers(0, 999, (side, side)).astype(np.uint16)
    return TakenPair(f"{position}_GFP-r0", "GFP", position, 0, image, image, **words)
log = PairLog(Path(sys.argv[1]), "dish")
log.write(taken("P0"), Good)
"""
FULL_DISK = (
    ALONE
    + """
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
for attempt in range(2):
    try:
        log.write(taken("P1", int(sys.argv[3]), said={"long": "x" * 3000}), Good)
    except PairError as error:
        print(error)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
log.write(taken("P1"), Good)
log.finish()
"""
)
KILLED = (
    ALONE
    + """
if sys.argv[2] == "line":  # the images are in place, and the line is not
    pair_log.JsonLines.append = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)
else:
    pair_files.put = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
log.write(taken("P1"), Good)
"""
)


def run(script, *arguments):
    command = [sys.executable, "-c", script, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.skipif(sys.platform == "win32", reason="limits of file sizes are POSIX")
@pytest.mark.parametrize(("limit", "side"), [(20_000, 160), (3_000, 8)], ids=["images", "line"])
def test_a_full_disk_leaves_nothing_half_written(tmp_path, limit, side):
    """Images of 160 pixels have 51 kB, of 8 pixels 1 kB; the line 4 kB."""
    done = run(FULL_DISK, tmp_path, limit, side)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("the 1 pairs before it are safe") == 2
    assert files(tmp_path / "dish") == sorted(
        ["card.json", "pairs.jsonl", *(f"{side}/P{n}_GFP-r0.tif" for side in ("low", "high") for n in (0, 1))]
    )
    assert [p.name for p in read_pairs(tmp_path / "dish").accepted] == ["P0_GFP-r0", "P1_GFP-r0"]


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
@pytest.mark.parametrize("moment", ["line", "images"])
def test_a_killed_process_loses_the_pair_in_flight_only(tmp_path, moment):
    done = run(KILLED, tmp_path, moment)
    assert done.returncode == -9, done.stderr
    pairs = read_pairs(tmp_path / "dish")
    assert [p.name for p in pairs.pairs] == ["P0_GFP-r0"]
    pairs.pairs[0].read()
    assert pairs.card["finished"] is False
    if moment == "line":
        (note,) = pairs.notes
        assert re.search(r"low/P1_GFP-r0.tif, high/P1_GFP-r0.tif: no line in pairs.jsonl; the acquisition was killed", note)
    # what is half-written has no name that a pattern for TIFFs would find
    assert len(list((tmp_path / "dish" / "low").glob("*.tif*"))) == (2 if moment == "line" else 1)


def test_a_torn_line_is_no_pair(tmp_path):
    with PairLog(tmp_path, "dish") as log:
        log.write(taken("P0"), GOOD)
        log.write(taken("P1"), GOOD)
    lines = log.folder / "pairs.jsonl"
    lines.write_bytes(lines.read_bytes()[:-40])
    pairs = read_pairs(log.folder)
    assert [p.name for p in pairs.pairs] == ["P0_GFP-r0"]
    assert "P1_GFP-r0" in pairs.notes[0]


def test_a_line_whose_files_are_gone_is_said(tmp_path):
    with PairLog(tmp_path, "dish") as log:
        gone = log.write(taken("P0"), GOOD)
        log.write(taken("P1"), GOOD)
    gone.high.unlink()
    pairs = read_pairs(log.folder)
    assert [p.name for p in pairs.accepted] == ["P1_GFP-r0"]
    assert pairs.pairs[0].reason == "high/P0_GFP-r0.tif is gone; restore the file or leave the pair out"
    with pytest.raises(PairError, match=r"P0_GFP-r0.tif is gone"):
        pairs.pairs[0].read()


# ------------------------------------------------------------------ reading other folders


@pytest.mark.parametrize("names", [("low", "high"), ("Low", "HIGH"), ("low", "GT"), ("raw", "gt")], ids="/".join)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32, np.float64, np.int16])
def test_plain_folders_are_read(tmp_path, names, dtype):
    images = {f"{field:03}_{channel}": (LOW // 8, HIGH // 64) for field in (1, 2, 10) for channel in (0, 1)}
    write(tmp_path, {name: [i.astype(dtype) for i in both] for name, both in images.items()}, *names)
    pairs = read_pairs(tmp_path)
    assert [p.name for p in pairs.pairs] == list(images)
    assert [p.position for p in pairs.pairs] == ["001", "001", "002", "002", "010", "010"]
    low, _ = pairs.pairs[0].read()
    assert low.dtype == (dtype if dtype in (np.uint8, np.uint16, np.float32) else np.float32)
    np.testing.assert_array_equal(low, LOW // 8)
    assert pairs.card == {}
    assert "'001' in '001_0'" in pairs.notes[0]


def test_stacks_are_read_and_other_axes_refused(tmp_path):
    stack = np.stack([LOW] * 5)
    write(tmp_path, {"a": (stack, stack)})
    tifffile.imwrite(tmp_path / "low" / "movie.tif", stack, imagej=True, metadata={"axes": "TYX"})
    tifffile.imwrite(tmp_path / "high" / "movie.tif", np.stack([stack] * 2), imagej=True, metadata={"axes": "ZCYX"})
    (tmp_path / "low" / "broken.tif").write_bytes(b"II*\0 nothing")
    (tmp_path / "high" / "broken.tif").write_bytes(b"")
    stack_pair, broken, movie = read_pairs(tmp_path).pairs
    assert stack_pair.read()[0].shape == (5, 160, 160)
    with pytest.raises(PairError, match="holds 5 time points; save each as a file of its own"):
        movie.read()
    with pytest.raises(PairError, match="holds no pixels"):
        broken.read()


def test_positions_are_read_from_names():
    names = ["s1-a_0", "s1-b_0", "s2-a_0"]
    assert positions_in_names(names, r"^(s\d)")[0] == {"s1-a_0": "s1", "s1-b_0": "s1", "s2-a_0": "s2"}
    whole, note = positions_in_names(["img_1", "img_2", "img_3"])
    assert set(whole.values()) == {"img_1", "img_2", "img_3"}
    assert "every pair counts as one of its own" in note


@pytest.mark.parametrize(
    ("pattern", "match"),
    [("(", "no regular expression"), ("a", "has 0 groups"), ("(a)(b)", "has 2 groups"), ("^(x)", "does not fit 1 of 1 names")],
)
def test_a_wrong_pattern_is_refused(pattern, match):
    with pytest.raises(PairError, match=match):
        positions_in_names(["a_0"], pattern)


# ------------------------------------------------------------------ splitting


def some(positions, split=""):
    folder = Path("pairs/low")
    names = [(place, f"{place}_{number}") for place in positions for number in (0, 1)]
    return [Pair(name, folder / name, Path("high"), position=place, split=split) for place, name in names]


def test_positions_are_split_and_never_parted():
    pairs = some([f"P{number}" for number in range(10)])
    split = split_positions(pairs)
    assert [p.name for p in split] == [p.name for p in pairs]
    sides = {p.position: {q.split for q in split if q.position == p.position} for p in split}
    assert all(len(side) == 1 for side in sides.values())
    assert sum(side == {"held-out"} for side in sides.values()) == 2
    assert split == split_positions(pairs) == tuple(sorted(split_positions(pairs[::-1]), key=lambda p: p.name))
    assert split != split_positions(pairs, seed=1)
    assert sum(p.split == "held-out" for p in split_positions(some(["a", "b"]))) == 2


def test_a_folder_that_is_named_twice_is_one_place():
    pairs = some(["a", "b", "c"])
    again = [replace(pair, low=Path("pairs/../pairs/low") / pair.name) for pair in pairs]
    split = split_positions(pairs + again)
    assert [p.split for p in split[:6]] == [p.split for p in split[6:]], "what is learnt by one name is asked for by another"


def test_a_split_that_was_chosen_stays():
    chosen = some(["a"], "train") + some(["b"], "held-out") + some(["c", "d"])
    split = split_positions(chosen)
    assert [p.split for p in split[:4]] == ["train", "train", "held-out", "held-out"]
    assert {p.split for p in split[4:]} == {"train"}


@pytest.mark.parametrize(
    ("pairs", "match"),
    [
        (some(["a"]), "all taken at one position, .* --held-out-from FOLDER"),
        (some(["a", "b"], "train"), "none is on the side 'held-out'"),
        (some(["a", "b"], "held-out"), "none is on the side 'train'"),
    ],
)
def test_what_cannot_be_split_is_refused(pairs, match):
    with pytest.raises(PairError, match=match):
        split_positions(pairs)


@pytest.mark.parametrize("fraction", [0, 1, -0.1, float("nan")])
def test_the_fraction_is_one(fraction):
    with pytest.raises(ValueError, match="must be above 0 and below 1"):
        split_positions(some(["a", "b"]), fraction)


# ------------------------------------------------------------------ bad folders


def folder_of(tmp_path, **changed):
    """Write four good pairs of four positions, and what is changed."""
    good = {f"p{place}_0": pair(seed=place, field=cells(place, (128, 128))) for place in range(4)}
    return write(tmp_path / "pairs", {**good, **changed})


def found_wrong(folder, name="bad_0"):
    check = check_pairs(read_pairs(folder))
    return next(one.pair.reason for one in check.checked if one.pair.name == name)


FIELD = cells(5, (128, 128))
ONE_LOW, ONE_HIGH = pair(field=FIELD)
WRONG = {
    "swapped": (ONE_HIGH, ONE_LOW, "low and high may be swapped"),
    "unequal shapes": (ONE_LOW, ONE_HIGH[:100], r"high has shape \(100, 128\) and low \(128, 128\)"),
    "missing high": (ONE_LOW, None, "'bad_0' is in low, but not in high; give both the same name"),
    "missing low": (None, ONE_HIGH, "'bad_0' is in high, but not in low"),
    "saturated": (ONE_LOW, np.minimum(ONE_HIGH, int(np.percentile(ONE_HIGH, 95))), "of high is saturated"),
    "NaN": (ONE_LOW.astype(np.float32), np.where(ONE_HIGH > 400, np.nan, ONE_HIGH).astype(np.float32), "that are NaN"),
    "shifted": (ONE_LOW, np.roll(ONE_HIGH, 20, 0), r"high lies (19.9|20..) pixels from low \(limit 5\)"),
    "8 bit": ((ONE_LOW // 2).astype(np.uint8), (ONE_HIGH // 16).astype(np.uint8), "are uint8, those of 4 other pairs uint16"),
    "one of 8 bit": ((ONE_LOW // 2).astype(np.uint8), ONE_HIGH, "high is uint16 and low uint8"),
    "real numbers": (ONE_LOW.astype(np.float32), ONE_HIGH.astype(np.float32), "are float32, those of 4 other pairs uint16"),
    "stack": (np.stack([ONE_LOW] * 2), ONE_HIGH, r"low \(2, 128, 128\)"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_bad_pair_of_a_folder_is_rejected_with_a_sentence(tmp_path, case):
    low, high, match = WRONG[case]
    folder = folder_of(tmp_path, bad_0=(low, high))
    before = files(folder)
    assert re.search(match, found_wrong(folder)), found_wrong(folder)
    assert files(folder) == before
    assert len(check_pairs(read_pairs(folder)).accepted) == 4


def test_duplicated_names_are_told(tmp_path):
    folder = folder_of(tmp_path, bad_0=(ONE_LOW, ONE_HIGH))
    tifffile.imwrite(folder / "low" / "bad_0.tiff", ONE_LOW)
    assert found_wrong(folder) == "2 files of low are called 'bad_0': bad_0.tif, bad_0.tiff; keep one"


def test_a_broken_file_is_told(tmp_path):
    folder = folder_of(tmp_path, bad_0=(ONE_LOW, ONE_HIGH))
    path = folder / "high" / "bad_0.tif"
    path.write_bytes(path.read_bytes()[:5000])
    assert re.search("bad_0.tif (cannot be read as TIFF|is truncated|is incomplete|holds)", found_wrong(folder))


def test_swapped_folders_and_a_single_position_are_told_of_the_whole(tmp_path):
    images = {f"p{place}_0": pair(seed=place, field=cells(place, (128, 128)))[::-1] for place in range(3)}
    notes = check_pairs(read_pairs(write(tmp_path / "swapped", images))).notes
    assert any("low and high look swapped in 3 of 3 pairs; exchange the names" in note for note in notes)
    assert any("none of the 3 pairs is good enough" in note for note in notes)
    one = write(tmp_path / "one", {f"p0_{n}": pair(seed=n) for n in range(2)} | {"p0_x": (LOW, None)})
    assert any("all taken at one position" in note for note in check_pairs(read_pairs(one, "^(p0)")).notes)


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda folder: None, "is no folder; give the one that has the sub-folders low and high"),
        (lambda folder: folder.mkdir(), "has no sub-folders low and high"),
        (lambda folder: write(folder, {}), "holds no pair; a pair is a TIFF in low"),
        (lambda folder: PairLog(folder, "dish").write(taken(), GOOD), "holds 1 folders of pairs, dish; give one of them"),
    ],
)
def test_a_folder_that_holds_no_pairs_is_refused(tmp_path, make, match):
    make(tmp_path / "f")
    with pytest.raises(PairError, match=match):
        read_pairs(tmp_path / "f")


def test_a_check_is_kept_when_asked(tmp_path):
    folder = folder_of(tmp_path, bad_0=(ONE_LOW, np.roll(ONE_HIGH, 20, 0)))
    images = files(folder)
    check = check_pairs(read_pairs(folder))
    assert write_check(check) == folder / "pairs.jsonl"
    assert files(folder) == sorted([*images, "pairs.jsonl"])
    kept = read_pairs(folder)
    assert [(p.name, p.accepted, p.position) for p in kept.pairs] == [
        (one.pair.name, one.pair.accepted, one.pair.position) for one in check.checked
    ]
    assert kept.pairs[0].reason == check.checked[0].pair.reason != ""
    assert kept.accepted[0].said["facts"]["snr"] > 1
    assert check_pairs(kept).accepted == check_pairs(kept).accepted


def test_files_that_came_after_a_check_are_named_with_the_cure(tmp_path):
    folder = write(tmp_path / "others", {"P0_1": (LOW, HIGH), "P1_1": (LOW, HIGH)})
    write_check(check_pairs(read_pairs(folder)))
    write(folder, {"P2_1": (LOW, HIGH)})
    found = read_pairs(folder)
    assert len(found.pairs) == 2
    assert "low/P2_1.tif, high/P2_1.tif: came after a check wrote pairs.jsonl" in found.notes[0]
    (folder / "pairs.jsonl").unlink()
    assert len(read_pairs(folder).pairs) == 3


def test_a_check_of_our_own_folder_keeps_what_only_the_sandwich_told(tmp_path):
    low, high = pair(field=FIELD)
    with PairLog(tmp_path, "dish") as log:
        for place, left in enumerate((1.0, 0.5, 1.0)):
            again = camera(20 * left * FIELD, 50 + place)
            facts = measure_pair(low, high, low_again=again, dose_ratio=RATIO)
            log.write(taken(f"P{place}", low=low, high=high, low_again=again, dose_ratio=RATIO), facts)
    check = check_pairs(read_pairs(log.folder))
    assert [one.pair.accepted for one in check.checked] == [True, False, True]
    assert "was bleached between the two low images" in check.checked[1].pair.reason
    assert check.checked[1].facts.bleaching == pytest.approx(0.5, abs=0.06)


def test_a_folder_that_cannot_be_written_stays_as_it_was(tmp_path):
    folder = write(tmp_path / "pairs", {"a": (LOW, HIGH)})
    (folder / ".pairs.jsonl.new").mkdir()  # in the way
    with pytest.raises(PairError, match=r"cannot be written: .*; nothing was changed"):
        write_check(check_pairs(read_pairs(folder)))
    assert files(folder) == ["high/a.tif", "low/a.tif"]
