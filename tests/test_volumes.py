"""The assembly: any order of arrival, every way in which a volume ends, no frame lost."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from live_restore.frames import Frame, FrameInfo, VolumeKey
from live_restore.restore.volumes import Assembly

S = 1_000_000_000


def frame(z=0, time=0, planes=0, *, channel="GFP", position="0", light="low", shape=(4, 5), dtype=np.uint16, value=None):
    key = VolumeKey(time, position, channel, light)
    pixels = np.full(shape, 100 * time + z if value is None else value, dtype)
    return Frame(pixels, FrameInfo("run", 1000 * time + z, key, z, planes))


def places(volume):
    """Value of each plane: 100 times the time, plus z."""
    return volume.pixels[:, 0, 0].tolist()


@pytest.mark.parametrize("order", [[0, 1, 2], [2, 1, 0], [1, 2, 0]], ids=str)
def test_planes_come_in_any_order(order):
    assembly = Assembly()
    ended = [assembly.add(frame(z, planes=3), z) for z in order]
    assert ended[:2] == [[], []]
    (volume,) = ended[2]
    assert volume.complete and volume.expected == 3
    assert places(volume) == [0, 1, 2]
    assert [info.z for info in volume.infos] == [0, 1, 2]
    assert assembly.frames == 0 and not volume.pixels.flags.writeable


def test_no_end_of_unfinished_volumes(monkeypatch):
    monkeypatch.setattr("live_restore.restore.volumes._MOST_GATHERING", 3)
    assembly = Assembly()
    for position in "abc":
        assembly.add(frame(0, planes=2, position=position), 0)
    with pytest.raises(ValueError, match="3 volumes are unfinished, which is the limit"):
        assembly.add(frame(0, planes=2, position="d"), 0)
    assert assembly.add(frame(1, planes=2, position="a"), 0) and assembly.add(frame(0, planes=2, position="d"), 0) == []


def test_a_single_plane_is_not_copied():
    only = frame(planes=1)
    (volume,) = Assembly().add(only, 0)
    assert volume.pixels.shape == (1, 4, 5) and np.shares_memory(volume.pixels, only.pixels)


@pytest.mark.parametrize("numbers", [[5, 6, 7], [7, 5, 6], [0, 10, 20], [-3, 0, 1], [0, 1, 7]], ids=str)
def test_planes_need_not_be_numbered_from_zero(numbers):
    assembly = Assembly()
    volumes = [volume for z in numbers for volume in assembly.add(frame(z, 3, planes=3), 0)]
    assert [places(volume) for volume in volumes] == [[300 + z for z in sorted(numbers)]]


def test_channels_positions_and_lights_do_not_mix():
    assembly, ended = Assembly(), []
    kinds = [("GFP", "0", "low"), ("DAPI", "0", "low"), ("GFP", "1", "low"), ("GFP", "0", "high")]
    for z in range(2):
        for channel, position, light in kinds:
            ended += assembly.add(frame(z, planes=2, channel=channel, position=position, light=light), 0)
    assert [(v.key.channel, v.key.position, v.key.light) for v in ended] == kinds
    assert all(volume.complete for volume in ended)


def test_an_unknown_number_of_planes_is_complete_when_the_next_time_begins_and_is_learned():
    assembly = Assembly()
    for z in range(3):
        assert assembly.add(frame(z, 0), z) == []
    (first,) = assembly.add(frame(0, 1), 3)
    assert first.complete and places(first) == [0, 1, 2]
    assert assembly.add(frame(1, 1), 4) == []
    (second,) = assembly.add(frame(2, 1), 5)
    assert second.complete and second.expected == 3 and places(second) == [100, 101, 102]
    (elsewhere,) = [v for z in range(3) for v in assembly.add(frame(z, 0, position="1"), 6)]
    assert elsewhere.expected == 3
    assert assembly.add(frame(0, 2, channel="DAPI"), 7) == []


def test_what_was_learned_too_small_is_forgotten():
    assembly = Assembly()
    assembly.add(frame(0, 0), 0)
    assert [v.key.time for v in assembly.add(frame(0, 1), 0)] == [0, 1]  # time 1 by what was learned from time 0
    assert assembly.add(frame(1, 1), 0) == []
    assert [v.key.time for v in assembly.add(frame(0, 2), 0)] == [1]
    assert assembly.add(frame(1, 2), 0) == []


def test_what_was_learned_too_large_is_forgotten():
    assembly = Assembly(deadline_s=60, quiet_s=2)
    for z in range(3):
        assembly.add(frame(z, 0), 0)
    assembly.add(frame(0, 1), 0)
    assert assembly.overdue(3 * S) == []
    assert [v.complete for v in assembly.overdue(60 * S)] == [False]
    assembly.add(frame(0, 2), 60 * S)
    assert [v.complete for v in assembly.overdue(62 * S)] == [True]


def test_an_unknown_number_of_planes_is_complete_when_it_has_been_quiet():
    assembly = Assembly(quiet_s=2)
    assembly.add(frame(0), 0)
    assembly.add(frame(1), 1 * S)
    assert assembly.overdue(int(2.9 * S)) == []
    (volume,) = assembly.overdue(3 * S)
    assert volume.complete and places(volume) == [0, 1]


def test_an_unknown_number_of_planes_is_complete_when_the_run_ends():
    assembly = Assembly()
    assembly.add(frame(0), 0)
    assert [volume.complete for volume in assembly.end()] == [True]


def test_the_number_may_be_told_later():
    assembly = Assembly()
    assembly.add(frame(0), 0)
    (volume,) = assembly.add(frame(1, planes=2), 0)
    assert volume.complete and volume.expected == 2


def test_missing_planes_are_incomplete_when_a_later_time_is_complete():
    assembly = Assembly()
    assembly.add(frame(0, 0, planes=2), 0)
    assert assembly.add(frame(0, 1, planes=2), 0) == []
    earlier, later = assembly.add(frame(1, 1, planes=2), 0)
    assert (earlier.key.time, earlier.complete, later.key.time, later.complete) == (0, False, 1, True)


def test_missing_planes_are_incomplete_when_given_up():
    assembly = Assembly()
    assembly.add(frame(0, planes=3), 0)
    (volume,) = assembly.abandon(frame(0).info.key)
    assert not volume.complete and len(volume.infos) == 1
    assert assembly.abandon(frame(0).info.key) == []


def test_what_was_given_up_is_incomplete_even_if_nobody_knows_how_many_planes_it_has():
    assembly = Assembly()
    assembly.add(frame(0), 0)
    assert [volume.complete for volume in assembly.abandon(frame(0).info.key)] == [False]


def test_missing_planes_are_incomplete_after_the_deadline_and_at_the_end():
    assembly = Assembly(deadline_s=60)
    assembly.add(frame(0, 0, planes=2), 0)
    assembly.add(frame(0, 1, planes=2, position="1"), 30 * S)
    assert [v.complete for v in assembly.overdue(60 * S)] == [False]
    assert [v.complete for v in assembly.end()] == [False]


def test_a_plane_that_comes_twice_is_replaced_and_counted():
    assembly = Assembly()
    assembly.add(frame(0, planes=2, value=7), 0)
    assert assembly.add(frame(0, planes=2, value=8), 0) == []
    (volume,) = assembly.add(frame(1, planes=2, value=9), 0)
    assert places(volume) == [8, 9] and assembly.replaced == 1


@pytest.mark.parametrize(
    ("odd", "message"),
    [
        (frame(1, planes=2, shape=(4, 6)), r"plane 1 of time 0, .*uint16 of shape \(4, 6\); .* must be alike"),
        (frame(1, planes=2, dtype=np.uint8), r"is uint8 of shape \(4, 5\); the planes before it are uint16"),
        (frame(0, planes=30_000, channel="DAPI", shape=(100, 100)), r"30000 plane\(s\) takes 0\.6 GB, .* of 0\.1 GB are taken"),
    ],
    ids=["shape", "dtype", "size"],
)
def test_what_does_not_fit_is_refused_and_the_volume_goes_on(odd, message):
    assembly = Assembly(max_bytes=10**8)
    assembly.add(frame(0, planes=2), 0)
    with pytest.raises(ValueError, match=message):
        assembly.add(odd, 0)
    assert [volume.complete for volume in assembly.add(frame(1, planes=2), 0)] == [True]


def test_a_slab_is_what_is_there_of_the_most_advanced_volume():
    assembly = Assembly()
    assert assembly.slab(lambda key: True) is None
    for z in range(2):
        assembly.add(frame(z, planes=4), 0)
    assembly.add(frame(0, planes=4, channel="DAPI"), 0)
    slab = assembly.slab(lambda key: True)
    assert (slab.key.channel, places(slab), slab.complete) == ("GFP", [0, 1], False)
    assert assembly.slab(lambda key: key.channel == "DAPI").key.channel == "DAPI"
    assert assembly.gathering() == 2 and assembly.holds(slab.key)
    for z in (2, 3):
        ended = assembly.add(frame(z, planes=4), 0)
    assert np.shares_memory(slab.pixels, ended[0].pixels)
    assert "1 volumes of 1 frames" in repr(assembly)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3), st.sampled_from([0, 0, 3])), max_size=40), st.booleans())
def test_every_frame_ends_in_exactly_one_volume(arrivals, abandon):
    assembly, ended = Assembly(quiet_s=3e-9, deadline_s=6e-9), []
    for now, (time, z, planes) in enumerate(arrivals):
        ended += assembly.add(frame(z, time, planes), now)
        ended += assembly.overdue(now)
        assert len(arrivals[: now + 1]) == sum(len(v.infos) for v in ended) + assembly.frames + assembly.replaced
    if abandon and arrivals:
        ended += assembly.abandon(frame(time=arrivals[0][0]).info.key)
    ended += assembly.end()
    assert len(arrivals) == sum(len(volume.infos) for volume in ended) + assembly.replaced
    for volume in ended:
        assert places(volume) == [100 * volume.key.time + info.z for info in volume.infos]
        assert [info.z for info in volume.infos] == sorted(info.z for info in volume.infos)
