"""Acquisition plans: from a file to frames, events and a summary, without any microscope."""

from pathlib import Path

import pytest

from live_restore.acquire import pycromanager_traps as traps
from live_restore.acquire.acquisition import read_acquisition
from live_restore.acquire.mda import place_of
from live_restore.config import HardwareConfig
from live_restore.errors import ConfigError
from live_restore.frames import VolumeKey, volume_key

ROOT = Path(__file__).resolve().parents[1]
DEMO = HardwareConfig.from_file(ROOT / "hardware_configs" / "demo.toml")
WITHOUT_LIGHT = DEMO.model_copy(update={"light": None})
CHANNEL = '[[channels]]\nname = "FITC"\n'


@pytest.fixture
def read(tmp_path):
    def read(text, name="plan.toml", config=DEMO):
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return read_acquisition(path, config)

    return read


@pytest.mark.parametrize("path", sorted((ROOT / "acquisitions").iterdir()), ids=lambda path: path.name)
def test_examples_load(path):
    plan = read_acquisition(path, DEMO)
    frames = list(plan.frames())
    assert len({tuple(frame.axes.items()) for frame in frames}) == len(frames) > 100


def test_one_frame(read):
    plan = read(CHANNEL)
    (frame,) = plan.frames((5.0, 6.0, 7.0))
    assert frame.axes == {"channel": "FITC"}
    assert (frame.exposure_ms, frame.power, frame.group, frame.preset) == (20.0, 2.0, "Channel", "FITC")
    assert (frame.x_um, frame.y_um, frame.z_um) == (None, None, None), "nothing moves that need not"


STACKS = [
    ("planes = 3\nstep_um = 0.5", [9.5, 10.0, 10.5]),
    ("planes = 2\nstep_um = 0.3", [9.85, 10.15]),
    ("start_um = 1.0\nstop_um = 1.3\nstep_um = 0.1", [11.0, 11.1, 11.2, 11.3]),
    ("start_um = 0\nstop_um = 1.0\nstep_um = 0.4", [10.0, 10.4, 10.8]),
    ("start_um = 0\nstop_um = 0\nstep_um = 1", [10.0]),
]


@pytest.mark.parametrize(("stack", "heights_um"), STACKS, ids=[stack.replace("\n", ", ") for stack, _ in STACKS])
def test_stacks_are_exact(read, stack, heights_um):
    frames = list(read(f"{CHANNEL}[z]\n{stack}\n").frames((0.0, 0.0, 10.0)))
    assert [frame.z_um for frame in frames] == heights_um
    assert [frame.axes["z"] for frame in frames] == list(range(len(heights_um)))


def test_order_and_times(read):
    text = CHANNEL + '[[channels]]\nname = "DAPI"\n[time]\npoints = 2\ninterval_s = 5\n[z]\nplanes = 2\nstep_um = 1\n'
    frames = list(read(text).frames())
    assert [(f.axes["time"], f.axes["channel"], f.axes["z"]) for f in frames] == [
        (t, c, z) for t in (0, 1) for c in ("FITC", "DAPI") for z in (0, 1)
    ]
    assert [f.start_s for f in frames] == [0.0] * 4 + [5.0] * 4
    by_plane = list(read('[acquisition]\norder = "plane by plane"\n' + text).frames())
    assert [(f.axes["channel"], f.axes["z"]) for f in by_plane[:4]] == [("FITC", 0), ("DAPI", 0), ("FITC", 1), ("DAPI", 1)]


def test_positions_and_grid(read):
    text = CHANNEL + '[[positions]]\nlabel = "A"\nx_um = 100\ny_um = 50\n[[positions]]\nx_um = 0\ny_um = 0\nz_um = 3\n'
    frames = list(read(text).frames())
    assert [(f.axes["position"], f.x_um, f.y_um, f.z_um) for f in frames] == [("A", 100, 50, None), ("1", 0, 0, 3)]
    grid = list(read(CHANNEL + "[grid]\nrows = 1\ncolumns = 2\noverlap_percent = 10\n").frames((10.0, 0.0, 0.0), (50.0, 40.0)))
    assert sorted(f.axes["position"] for f in grid) == ["0_g0", "0_g1"]
    assert abs(grid[0].x_um - grid[1].x_um) == pytest.approx(45)
    assert (grid[0].x_um + grid[1].x_um) / 2 == pytest.approx(10)


def test_references_follow_their_volume_at_high_light(read):
    text = "[acquisition]\nreference_every = 2\n" + CHANNEL + "[time]\npoints = 3\n[z]\nplanes = 2\nstep_um = 1\n"
    frames = list(read(text).frames())
    assert [(f.axes["time"], f.axes["light"], f.power) for f in frames] == [
        *[(0, "low", 2.0)] * 2,
        *[(0, "high", 100.0)] * 2,
        *[(1, "low", 2.0)] * 2,
        *[(2, "low", 2.0)] * 2,
        *[(2, "high", 100.0)] * 2,
    ]
    longer = list(read(text, config=WITHOUT_LIGHT).frames())
    assert [f.exposure_ms for f in longer[:4]] == [20.0, 20.0, 1000.0, 1000.0]


def test_exposure_and_power_of_the_plan_come_first(read):
    (frame,) = read(CHANNEL + "exposure_ms = 7\npower = 40\n").frames()
    assert (frame.exposure_ms, frame.power) == (7.0, 40)


def test_a_channel_may_have_a_preset_of_another_name(read):
    channels = {"tubulin": DEMO.channels["FITC"].model_copy(update={"preset": "FITC"})}
    config = DEMO.model_copy(update={"channels": channels})
    (frame,) = read('[[channels]]\nname = "tubulin"\n', config=config).frames()
    assert (frame.axes["channel"], frame.preset) == ("tubulin", "FITC")
    (same,) = read("channels: [FITC]", "plan.yaml", config).frames()
    assert (same.axes["channel"], same.preset, same.exposure_ms) == ("tubulin", "FITC", 20.0)


# ------------------------------------------------------------------ events


def test_events_are_what_pycromanager_carries_out(read):
    text = (
        "[acquisition]\nreference_every = 1\n"
        + CHANNEL
        + "[time]\npoints = 2\ninterval_s = 1\n[z]\nplanes = 3\nstep_um = 0.1\n"
    )
    frames = list(read(text).frames())
    events = [frame.as_event([("Laser", "Power", frame.power)]) for frame in frames]
    for number, event in enumerate(events):
        traps.refuse(event, number, python_backend=True)
        assert event["exposure"] == 20.0, "on every event"
        assert event["config_group"] == ["Channel", "FITC"]
        assert all(type(value) in (int, str) for value in event["axes"].values())
    assert events[3]["properties"] == [["Laser", "Power", "100.0"]]
    assert "min_start_time" not in events[0]
    assert events[-1]["min_start_time"] == 1.0
    assert events[0]["z"] == -0.1


def test_both_engines_name_the_same_volumes(read):
    places = '[[positions]]\nlabel = "A"\nx_um = 1\ny_um = 2\n[grid]\nrows = 1\ncolumns = 2\n'
    text = "[acquisition]\nreference_every = 2\n" + CHANNEL + "[time]\npoints = 2\n[z]\nplanes = 2\nstep_um = 1\n" + places
    frames = list(read(text).frames((0, 0, 0), (50.0, 50.0)))
    for frame in frames:
        assert place_of(frame.as_mda_event()) == (volume_key(frame.axes), frame.axes["z"])
    assert volume_key(frames[2].axes) == VolumeKey(0, "A_g0", "FITC", "high")


def test_useq_events_are_carried_out_as_they_are(read):
    plan = read(
        "axis_order: tpcz\nchannels: [{config: DAPI, exposure: 3}, {config: other, exposure: 4}]\nz_plan: {range: 2, step: 1}\n"
        "time_plan: [{interval: 1, loops: 2}, {interval: 3, loops: 2}]\nstage_positions: [{x: 1, y: 2, z: 3, name: here}]",
        "plan.useq.yaml",
    )
    assert plan.name == "plan"
    frames = list(plan.frames())
    assert {f.axes["channel"]: f.exposure_ms for f in frames} == {"DAPI": 3.0, "other": 4.0}
    assert [f.z_um for f in frames[:3]] == [2.0, 3.0, 4.0]
    starts = [f.start_s for f in frames]
    assert starts == sorted(starts)
    assert all(f.axes["position"] == "here" for f in frames)


# ------------------------------------------------------------------ the summary


def test_summary(read):
    plan = read(CHANNEL + '[[channels]]\nname = "DAPI"\n[time]\npoints = 30\ninterval_s = 4\n[z]\nplanes = 12\nstep_um = 0.4\n')
    summary = plan.summary(512 * 512 * 2)
    assert (summary.frames, summary.volumes, summary.seconds) == (720, 60, 116.0)
    assert summary.exposures_ms["FITC"] == (7200.0, 360000.0)
    assert summary.in_words() == (
        "720 frames in 60 volumes, at least 1 min 56 s, 0.38 GB. FITC: 7.2 s of light, 98 % less than without restoration. "
        "DAPI: 7.2 s of light, 98 % less than without restoration."
    )


def test_references_cost_light(read):
    plan = read("[acquisition]\nreference_every = 2\n" + CHANNEL + "[time]\npoints = 2\n")
    summary = plan.summary(1)
    assert summary.frames == 3
    assert summary.exposures_ms["FITC"] == (20.0 + 1000.0 + 20.0, 2000.0), "fifty times as bright; two frames are restored"


def test_summary_without_a_reference(read):
    channels = {"FITC": DEMO.channels["FITC"].model_copy(update={"reference_exposure_ms": None})}
    plan = read(CHANNEL, config=DEMO.model_copy(update={"channels": channels}))
    assert plan.summary(100).in_words().endswith("FITC: 0.0 s of light.")


# ------------------------------------------------------------------ refused

REFUSED = [
    ("[time]\npoint = 3\n" + CHANNEL, r"'point' in \[time\] is not known; did you mean points\?"),
    ('[[channels]]\nname = "FTIC"\n', "channel 'FTIC' is not in the hardware configuration; did you mean FITC?"),
    ('[[channels]]\nname = "x"\n', "channel 'x' is not in the hardware configuration; it has DAPI, FITC"),
    ("[time]\npoints = 3\n", "channels is missing"),
    ("channels = []\n", "should have at least 1 item"),
    (CHANNEL + CHANNEL, "a channel is named twice"),
    (CHANNEL + "[z]\nstep_um = 0.1\n", "z: say either planes, or start_um and stop_um"),
    (CHANNEL + "[z]\nstep_um = 0.1\nplanes = 3\nstop_um = 1\n", "z: say either planes, or start_um and stop_um"),
    (CHANNEL + "[z]\nstep_um = 0.1\nstart_um = 3\nstop_um = 1\n", "stop_um 1.0 lies below start_um 3.0"),
    (CHANNEL + "[z]\nstep_um = 0\nplanes = 3\n", "z.step_um = 0: input should be greater than 0"),
    (CHANNEL + 2 * '[[positions]]\nlabel = "A"\n', "two positions have the same label"),
    ('[acquisition]\nname = "a/b"\n' + CHANNEL, "acquisition.name = 'a/b': string should match"),
    (CHANNEL + "exposure_ms = -1\n", "channels 1.exposure_ms = -1: input should be greater than 0"),
]


@pytest.mark.parametrize(("text", "message"), REFUSED, ids=[message[:40] for _, message in REFUSED])
def test_what_cannot_be_is_refused(read, text, message):
    with pytest.raises(ConfigError, match=message.replace("?", r"\?") if "\\" not in message else message):
        read(text)


def test_references_need_a_light(read):
    channels = {"FITC": DEMO.channels["FITC"].model_copy(update={"reference_exposure_ms": None})}
    config = DEMO.model_copy(update={"light": None, "channels": channels})
    with pytest.raises(ConfigError, match=r"nobody says what high light is .* reference_exposure_ms to \[channels.FITC\]"):
        read("[acquisition]\nreference_every = 2\n" + CHANNEL, config=config)


def test_other_files_are_refused(read, tmp_path):
    with pytest.raises(ConfigError, match=r"plan\.txt is no acquisition plan"):
        read("", "plan.txt")
    with pytest.raises(ConfigError, match=r"plan\.yaml is no useq sequence"):
        read("channels: [{colour: red}]", "plan.yaml")
    with pytest.raises(ConfigError, match=r"plan\.json is no useq sequence"):
        read("{", "plan.json")
    with pytest.raises(ConfigError, match=r"absent\.yaml cannot be read"):
        read_acquisition(tmp_path / "absent.yaml", DEMO)


def test_what_is_only_known_when_frames_are_made(read):
    with pytest.raises(ConfigError, match="channel 'other' has no exposure; give one in the plan"):
        list(read("channels: [other]", "plan.yaml").frames())
    with pytest.raises(ConfigError, match="a grid needs the size of the camera's field"):
        list(read(CHANNEL + "[grid]\nrows = 2\ncolumns = 2\n").frames())
    focusing = "channels: [FITC]\nautofocus_plan: {autofocus_device_name: Z, axes: [p]}\nstage_positions: [{x: 0, y: 0}]"
    with pytest.raises(ConfigError, match="the plan asks for HardwareAutofocus, which is not carried out here"):
        list(read(focusing, "plan.yaml").frames())
