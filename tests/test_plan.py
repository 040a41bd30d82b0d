"""What events promise, and which of them pycro-manager would not keep."""

import pytest

from live_restore.acquire import pycromanager_traps as traps
from live_restore.acquire.plan import Plan
from live_restore.acquire.pycromanager_frames import Said, axes_key, number, place_of, promise_of, read_metadata
from live_restore.frames import VolumeKey


def stack(times=2, planes=5, **more):
    return [{"axes": {"time": t, "z": z}, "exposure": 10.0, **more} for t in range(times) for z in range(planes)]


PLACES = [
    ({"time": 3, "position": 1, "channel": "GFP", "z": 4}, VolumeKey(3, "1", "GFP"), 4),
    ({}, VolumeKey(), None),
    ({"z": 0, "light": "high"}, VolumeKey(light="high"), 0),
    ({"channel": 2, "position": "A1"}, VolumeKey(0, "A1", "2"), None),
    ({"row": 1, "column": 2, "time": 0}, VolumeKey(0, "0_column2_row1"), None),
    ({"time": "early", "z": "top"}, VolumeKey(0, "0_ztop_timeearly"), None),
]


@pytest.mark.parametrize(("axes", "key", "z"), PLACES, ids=str)
def test_axes_name_a_volume_and_a_plane(axes, key, z):
    assert place_of(axes) == (key, z)


def test_metadata_are_read_whether_numbers_are_strings_or_not():
    said = read_metadata({"Axes": {"z": 1}, "Exposure": "12.5", "PixelSizeUm": 1, "ZPosition_um_Intended": 3})
    assert said == Said(VolumeKey(), 1, (("z", 1),), 12.5, 1.0, (None, None, 3.0))
    assert read_metadata({"Axes": {}, "PixelSize_um": 0.0}) == Said(VolumeKey(), None, (), None, None, None)
    assert read_metadata({"Axes": {"z": 1}}, {"z": 2}).z == 2
    assert number("no number") is None and number(3) == 3.0
    assert axes_key({"z": 1, "a": 2}) == axes_key({"a": 2, "z": 1})


def test_a_list_is_known_before_the_first_frame():
    plan = Plan()
    events = [e | {"z": 0.5 * e["axes"]["z"], "min_start_time": 30.0 * e["axes"]["time"]} for e in stack(3)]
    plan.promise_all(map(promise_of, events))
    assert plan.planes(VolumeKey(1), 2) == 5
    assert plan.as_mapping() == {
        "times": 3,
        "positions": ["0"],
        "channels": ["Default"],
        "planes": 5,
        "frames": 15,
        "interval_s": 30.0,
        "z_step_um": 0.5,
    }
    assert plan.longest_pause_s == 30.0 and plan.longest_exposure_ms == 10.0


def test_channels_may_have_different_numbers_of_planes():
    plan = Plan()
    events = [{"axes": {"channel": "A", "z": z}} for z in range(7)] + [{"axes": {"channel": "B"}}]
    plan.promise_all(map(promise_of, events))
    assert plan.planes(VolumeKey(channel="A"), 0) == 7 and plan.planes(VolumeKey(channel="B"), None) == 1
    assert plan.as_mapping()["channels"] == ["A", "B"]


def test_planes_of_drawn_events_are_learned_from_the_first_volume():
    plan = Plan()
    for event in stack(1, 4):
        plan.promise(promise_of(event))
        assert plan.planes(VolumeKey(0), event["axes"]["z"]) == 0
    plan.promise(promise_of(stack(2, 4)[4]))  # the next time point begins, so the first is over
    assert plan.planes(VolumeKey(1), 0) == 4
    assert "frames" not in plan.as_mapping()


def test_what_a_list_promised_is_no_news_when_it_is_drawn():
    plan = Plan()
    promises = [promise_of(event) for event in stack(2, 3)]
    plan.promise_all(promises)
    told = dict(plan.as_mapping())
    for promise in promises[:4]:
        plan.promise(promise)
    plan.met(promises[4].key, promises[4].z)  # its frame came, however it was submitted
    assert plan.frames == 6 and plan.as_mapping() == told
    assert (told["times"], told["frames"]) == (2, 6)
    plan.promise(promises[0])  # once more: a frame more
    assert plan.frames == 7 and "frames" not in plan.as_mapping()


def test_lists_that_bring_a_plane_each_are_learned_too():
    plan = Plan()
    for event in stack(2, 3):
        plan.promise_all([promise_of(event)])
    assert plan.planes(VolumeKey(1), 0) == 3


def test_volumes_that_differ_teach_nothing():
    plan = Plan()
    for planes, time in ((3, 0), (4, 1), (3, 2)):
        for z in range(planes):
            plan.met(VolumeKey(time), z)
    assert plan.planes(VolumeKey(2), 0) == 0
    assert Plan(planes=11).planes(VolumeKey(), 0) == 11 and Plan(planes=11).planes(VolumeKey(), None) == 1


def test_interleaved_positions_are_counted_apart():
    plan = Plan()
    for time in range(2):
        for z in range(3):
            for position in ("0", "1"):
                plan.met(VolumeKey(time, position), z)
    assert plan.planes(VolumeKey(1, "1"), 0) == 3


REFUSED = [
    ({"axes": {"z": 0.5}}, True, r"axis 'z' of event 7 is 0\.5, a float"),
    ({"z": 3}, True, "event 7 has no 'axes'"),
    ({"axes": {}, "tags": {"a": 1}}, True, "event 7 has 'tags'"),
    ({"axes": {}, "tags": {"mail": "a@b"}}, False, "the tags of event 7 contain '@'"),
]


@pytest.mark.parametrize(("event", "python_backend", "match"), REFUSED, ids=[case[2] for case in REFUSED])
def test_what_would_hang_is_refused(event, python_backend, match):
    with pytest.raises(ValueError, match=match):
        traps.refuse(event, 7, python_backend)


def test_tags_are_fine_on_the_java_backend():
    traps.refuse({"axes": {"time": 0}, "tags": {"note": "x"}}, 0, python_backend=False)


def laser(value):
    return {"properties": [["Laser", "Power", str(value)]]}


WARNED = [
    ("differ in nothing but their properties", [{"axes": {"light": x}, **laser(x)} for x in ("low", "high")]),
    ("'min_start_time' at the same time index", [{"axes": {"light": x}, "min_start_time": i} for i, x in enumerate("ab")]),
    ("1 of 2 events have 'exposure'", [{"axes": {"time": 0}}, {"axes": {"time": 1}, "exposure": 9.0}]),
    ("1 of 2 events have 'x'", [{"axes": {"time": 0}}, {"axes": {"time": 1}, "x": 9.0, "y": 0.0}]),
    ("have the same axes", [{"axes": {"time": 0}}, {"axes": {"time": 0}}]),
    ("compared with seconds", [{"axes": {"time": 0}, "timeout_ms": 1000}]),
]


@pytest.mark.parametrize(("sentence", "events"), WARNED, ids=[case[0] for case in WARNED])
def test_what_is_done_otherwise_is_named(sentence, events):
    assert any(sentence in said for said in traps.warn(events))


def test_ordinary_events_are_not_warned_of():
    moves = [{"axes": {"z": z}, "z": float(z), "exposure": 10.0, **laser(z)} for z in range(3)]
    waits = [{"axes": {"time": t}, "min_start_time": t, **laser(t)} for t in range(3)]
    assert traps.warn(stack()) == traps.warn(moves) == traps.warn(waits) == []
