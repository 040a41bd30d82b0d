"""Calibration plans: from a file to places, pairs, frames and an estimate, without any microscope."""

import itertools
from pathlib import Path

import pytest

from live_restore.acquire.calibration import read_calibration
from live_restore.config import HardwareConfig
from live_restore.errors import ConfigError

ROOT = Path(__file__).resolve().parents[1]
DEMO = HardwareConfig.from_file(ROOT / "hardware_configs" / "demo.toml")
DISK = HardwareConfig.from_file(ROOT / "hardware_configs" / "spinning_disk.toml")
WITHOUT_LIGHT = DEMO.model_copy(update={"light": None})
AROUND = "[around]\ncount = 3\n"
FITC = '[[channels]]\nname = "FITC"\n'
HOME, FIELD = (100.0, 50.0, 7.0), (51.2, 40.0)


@pytest.fixture
def read(tmp_path):
    def read(text, config=DEMO):
        path = tmp_path / "plan.toml"
        path.write_text(text, encoding="utf-8")
        return read_calibration(path, config)

    return read


def pairs_of(plan, home=HOME, field=FIELD):
    return list(plan.pairs(home, field))


EXAMPLES = [("demo.toml", DEMO, 40, 120), ("spinning_disk.toml", DISK, 60, 60 * 13 * 3)]


@pytest.mark.parametrize(("name", "config", "pairs", "frames"), EXAMPLES, ids=[row[0] for row in EXAMPLES])
def test_examples_load(name, config, pairs, frames):
    plan = read_calibration(ROOT / "calibrations" / name, config)
    taken = pairs_of(plan, field=(249.0, 249.0))
    assert (len(taken), sum(len(pair.frames) for pair in taken)) == (pairs, frames)
    assert len({pair.name.lower() for pair in taken}) == pairs
    dose = plan.dose(2 * 512 * 512)
    assert (dose.pairs, dose.frames, dose.bytes) == (pairs, frames, frames * 2 * 512 * 512)


# ------------------------------------------------------------------ frames


def test_one_pair(read):
    plan = read("[around]\ncount = 1\n" + FITC)
    (pair,) = pairs_of(plan)
    low, high = pair.frames
    assert (pair.name, pair.repeat, pair.planes, pair.channel.dose_ratio) == ("p001_FITC-r0", 0, None, 50.0)
    assert low.axes == {"position": "p001", "channel": "FITC", "light": "low"}
    assert (low.exposure_ms, low.power, high.exposure_ms, high.power) == (20.0, 2.0, 20.0, 100.0)
    assert (low.x_um, low.y_um, low.z_um) == (high.x_um, high.y_um, high.z_um) == HOME
    assert (low.group, low.preset) == ("Channel", "FITC")


ORDERS = [
    ("stack by stack", False, ["low 0", "low 1", "high 0", "high 1"]),
    ("stack by stack", True, ["low 0", "low 1", "high 0", "high 1", "low again 0", "low again 1"]),
    ("plane by plane", False, ["low 0", "high 0", "low 1", "high 1"]),
    ("plane by plane", True, ["low 0", "high 0", "low again 0", "low 1", "high 1", "low again 1"]),
]


@pytest.mark.parametrize(("order", "sandwich", "frames"), ORDERS)
def test_low_is_always_before_high(read, order, sandwich, frames):
    head = f'[calibration]\norder = "{order}"\nsandwich = {str(sandwich).lower()}\n'
    plan = read(head + AROUND + FITC + "[z]\nplanes = 2\nstep_um = 0.5\n")
    pair = pairs_of(plan)[0]
    assert [f"{frame.axes['light']} {frame.axes['z']}" for frame in pair.frames] == frames
    heights = {frame.axes["z"]: frame.z_um for frame in pair.frames}
    assert heights == {0: 6.75, 1: 7.25}
    assert (plan.planes, plan.step_um, pair.planes) == (2, 0.5, 2)


def test_position_by_position_channel_by_channel_repeat_by_repeat(read):
    plan = read("[calibration]\nrepeats = 2\n" + AROUND + FITC + '[[channels]]\nname = "DAPI"\n')
    order = [(pair.place.label, pair.channel.name, pair.repeat) for pair in pairs_of(plan)]
    assert order == list(itertools.product(["p001", "p002", "p003"], ["FITC", "DAPI"], [0, 1]))
    assert [pair.name for pair in pairs_of(plan)][:3] == ["p001_FITC-r0", "p001_FITC-r1", "p001_DAPI-r0"]
    axes = [tuple(frame.axes.items()) for pair in pairs_of(plan) for frame in pair.frames]
    assert len(set(axes)) == len(axes) == 24


# ------------------------------------------------------------------ lights

LIGHTS = [
    ("nothing said", FITC, DEMO, (20, 2.0), (20, 100.0), 50),
    ("no light configured", FITC, WITHOUT_LIGHT, (20, None), (1000, None), 50),
    ("longer", FITC + "high = { exposure_ms = 400 }\n", DEMO, (20, 2.0), (400, 2.0), 20),
    ("brighter", FITC + "high = { power = 30 }\n", DEMO, (20, 2.0), (20, 30.0), 15),
    (
        "both",
        FITC + "low = { exposure_ms = 5, power = 1 }\nhigh = { exposure_ms = 50, power = 10 }\n",
        DEMO,
        (5, 1),
        (50, 10),
        100,
    ),
    ("only low", FITC + "low = { exposure_ms = 10 }\n", DEMO, (10, 2.0), (10, 100.0), 50),
    ("presets", '[[channels]]\nname = "GFP"\n', DISK, (15, "Live"), (15, "Reference"), None),
    ("told", '[[channels]]\nname = "GFP"\ndose_ratio = 12.5\n', DISK, (15, "Live"), (15, "Reference"), 12.5),
    (
        "its own laser",
        FITC + 'device = "L"\nproperty = "P"\nlow = { power = 1.0 }\nhigh = { power = 7.0 }\n',
        DEMO,
        (20, 1.0),
        (20, 7.0),
        7,
    ),
    ("its own group", FITC + 'group = "G"\nlow = { power = "a" }\nhigh = { power = "b" }\n', DEMO, (20, "a"), (20, "b"), None),
]


@pytest.mark.parametrize(("name", "text", "config", "low", "high", "ratio"), LIGHTS, ids=[row[0] for row in LIGHTS])
def test_lights(read, name, text, config, low, high, ratio):
    (channel,) = read(AROUND + text, config).channels
    assert (channel.low.exposure_ms, channel.low.power) == low
    assert (channel.high.exposure_ms, channel.high.power) == high
    assert channel.dose_ratio == (None if ratio is None else pytest.approx(ratio))
    if "its own" in name:
        assert (channel.light.device or channel.light.group) in ("L", "G")


# ------------------------------------------------------------------ places


@pytest.mark.parametrize("count", [1, 2, 9, 20, 57])
def test_a_spiral_never_overlaps_and_goes_from_neighbour_to_neighbour(read, count):
    plan = read(f"[around]\ncount = {count}\n{FITC}")
    places = [pair.place for pair in pairs_of(plan)]
    assert len({(p.x_um, p.y_um) for p in places}) == count
    assert (places[0].x_um, places[0].y_um, places[0].z_um) == HOME
    for one, other in itertools.pairwise(places):
        assert abs(one.x_um - other.x_um) + abs(one.y_um - other.y_um) == pytest.approx(1.5 * 51.2)
    reach = max(max(abs(p.x_um - 100), abs(p.y_um - 50)) for p in places) / (1.5 * 51.2)
    assert reach <= (count**0.5 + 1) / 2, "it stays near"


def test_a_grid_lies_around_the_stage(read):
    plan = read("[grid]\nrows = 2\ncolumns = 3\nspacing_um = 60\n" + FITC)
    places = [pair.place for pair in pairs_of(plan)]
    assert [p.label for p in places] == ["r01c01", "r01c02", "r01c03", "r02c03", "r02c02", "r02c01"], "to and fro"
    assert [p.x_um for p in places] == [40, 100, 160, 160, 100, 40]
    assert [p.y_um for p in places] == [20, 20, 20, 80, 80, 80]


def test_a_list_keeps_what_was_not_said(read):
    text = '[[positions]]\nlabel = "A 1"\nx_um = 0\n[[positions]]\ny_um = 0\nz_um = 3\n'
    one, other = pairs_of(read(text + FITC))
    assert (one.place.label, one.place.x_um, one.place.y_um, one.place.z_um) == ("A 1", 0, 50, 7)
    assert (other.place.label, other.place.x_um, other.place.y_um, other.place.z_um) == ("p002", 100, 0, 3)
    assert one.name == "A-1_FITC-r0"


OVERLAPPING = [
    "[around]\ncount = 2\nspacing_um = 51\n",
    "[grid]\nrows = 3\ncolumns = 1\nspacing_um = 39\n",
    "[[positions]]\nx_um = 0\ny_um = 0\n[[positions]]\nx_um = 90\ny_um = 0\n[[positions]]\nx_um = 51\ny_um = 39\n",
    "[[positions]]\nz_um = 0\n[[positions]]\nz_um = 9\n",
]


@pytest.mark.parametrize("where", OVERLAPPING)
def test_fields_that_overlap_are_refused(read, where):
    with pytest.raises(ConfigError, match=r"overlap.*a field is 51.2 by 40 µm.*spacing_um = 77"):
        pairs_of(read(where + FITC))


def test_fields_may_touch(read):
    assert len(pairs_of(read("[around]\ncount = 9\nspacing_um = 51.2\n" + FITC))) == 9


# ------------------------------------------------------------------ what is refused

REFUSED = [
    ("[arround]\ncount = 3\n" + FITC, "'arround' is not known; did you mean around"),
    ("[calibration]\nsandwitch = true\n" + AROUND + FITC, "did you mean sandwich"),
    (AROUND + FITC + "low = { exposure = 5 }\n", "did you mean exposure_ms"),
    (AROUND + FITC + "[limits]\nbleeching = 0.1\n", "did you mean bleaching"),
    (AROUND + '[[channels]]\nname = "FITZ"\n', "did you mean FITC"),
    (AROUND + '[[channels]]\nname = "zzz"\n', "it has DAPI, FITC"),
    (AROUND, "channels is missing"),
    (FITC, r"one of \[around\], \[grid\] and \[\[positions\]\]; it has none"),
    (AROUND + "[grid]\nrows = 1\ncolumns = 1\n" + FITC, "it has several"),
    ("[around]\ncount = 0\n" + FITC, "count = 0"),
    (AROUND + FITC + FITC, "two channels have the same name"),
    ('[[positions]]\nlabel = "A"\n[[positions]]\nlabel = "a"\nx_um = 900\n' + FITC, "two positions have the same label"),
    ('[[positions]]\nlabel = "a b"\n[[positions]]\nlabel = "a-b"\nx_um = 900\n' + FITC, "makes the same file name"),
    (AROUND + FITC + "high = { power = 1 }\n", "high light .20 ms at 1. is 0.5 times low light .20 ms at 2., and must be more"),
    (AROUND + FITC + "low = { exposure_ms = 50 }\nhigh = { exposure_ms = 50 }\n", "is 1 times low light"),
    (AROUND + FITC + "dose_ratio = 1\n", "dose_ratio = 1"),
    (AROUND + FITC + 'device = "L"\nproperty = "P"\nhigh = { power = 7.0 }\n', "how bright; add power to low and to high"),
    (
        AROUND + FITC + 'device = "L"\nlow = { power = 1.0 }\nhigh = { power = 7.0 }\n',
        "say either device and property, or group",
    ),
    (AROUND + FITC + "[z]\nstep_um = 1\n", "say either planes"),
]


@pytest.mark.parametrize(("text", "says"), REFUSED, ids=[row[1][:40] for row in REFUSED])
def test_what_cannot_be_is_refused_with_a_cure(read, text, says):
    with pytest.raises(ConfigError, match=says):
        read(text)


def test_a_power_needs_what_it_sets(read):
    with pytest.raises(ConfigError, match="nobody says what sets it; add device and property"):
        read(AROUND + FITC + "high = { power = 9 }\n", WITHOUT_LIGHT)


# ------------------------------------------------------------------ the estimate


def test_time_and_dose(read):
    plan = read("[calibration]\nrepeats = 2\nsandwich = true\n" + AROUND + FITC + "[z]\nplanes = 5\nstep_um = 1\n")
    dose = plan.dose(1000)
    assert (dose.positions, dose.pairs, dose.planes, dose.frames, dose.bytes) == (3, 6, 5, 90, 90_000)
    (channel,) = dose.channels
    assert (channel.low_ms, channel.high_ms, channel.relative) == (400.0, 200.0, 2 * 52)
    assert dose.seconds == pytest.approx(3 * (0.3 + 0.6) + 90 * 0.02)
    words = dose.in_words()
    assert words[0] == "6 pairs at 3 positions, 5 planes each, 90 frames: about 4 s, 0.00 GB."
    assert "each field gets 400 ms of low and 200 ms of high light, as much as 104 volumes at low light" in words[1]


def test_what_is_not_known_of_the_dose_is_said(read):
    words = read("[around]\ncount = 1\n" + '[[channels]]\nname = "GFP"\n', DISK).dose(1).in_words()
    assert "add dose_ratio" in words[1]
    assert "take at least five" in words[2]


def test_a_long_one_is_told_in_minutes(read):
    plan = read("[around]\ncount = 100\n" + FITC + "high = { exposure_ms = 3000 }\n")
    assert "about 5 min 36 s" in plan.dose(1).in_words()[0]
