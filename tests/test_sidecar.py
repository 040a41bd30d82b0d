"""The sidecar: grows while others read it, holds what its journal says after kill -9, and is valid OME-Zarr at any moment."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import zarr

from live_restore.errors import ImageError
from live_restore.frames import VolumeKey
from live_restore.records.images import find_inputs, open_images
from live_restore.records.runs import RunFolder, read_journal
from live_restore.records.sidecar import Sidecar

Z, Y, X = 3, 16, 24
SAID = {"model": "care", "live": True, "frames": Z}


def volume(time=0, position="0", channel="GFP", shape=(Z, Y, X)):
    """A volume that tells its key: no two are alike."""
    seed = [time, *position.encode(), 0, *channel.encode()]
    return np.random.default_rng(seed).normal(100, 20, shape).astype(np.float32)


def key(time=0, position="0", channel="GFP"):
    return VolumeKey(time, position, channel)


def validate(path):
    import yaozarrs

    yaozarrs.validate_zarr_store(str(path))


@pytest.fixture
def folder(tmp_path):
    return RunFolder.begin(tmp_path / "raw_1_restored", "r1").path


def test_volumes_come_in_any_order_and_axes_grow(folder):
    order = [key(0), key(3), key(1), key(3, channel="RFP"), key(0, channel="RFP"), key(7, channel="Cy5")]
    with Sidecar(folder, pixel_size_um=(0.3, 0.1, 0.1), frame_interval_s=2.0, provenance={"run": "r1"}) as sidecar:
        shapes = []
        for wanted in order:
            path = sidecar.write(wanted, volume(wanted.time, channel=wanted.channel), SAID)
            shapes.append(zarr.open_array(path / "0", mode="r").shape[:2])
            validate(path)
            for written in sidecar.written:
                np.testing.assert_array_equal(sidecar.read(written), volume(written.time, channel=written.channel))
        assert shapes == [(1, 1), (4, 1), (4, 1), (4, 2), (4, 2), (8, 3)]
        assert list(sidecar.written) == order
        assert read_journal(folder)[key(3)]["said"] == SAID
    assert path == folder / "restored.ome.zarr"
    validate(path)
    (image,) = open_images(path)
    assert image.info.shape == (8, 3, Z, Y, X)
    assert image.info.channels == ("GFP", "RFP", "Cy5")
    assert image.info.pixel_size_um == pytest.approx((0.3, 0.1, 0.1))
    assert image.info.frame_interval_s == pytest.approx(2.0)
    np.testing.assert_array_equal(image.volume(3, 1), volume(3, channel="RFP"))
    assert not image.volume(2, 0).any()  # not written


def test_the_group_says_what_made_each_volume(folder):
    with Sidecar(folder, provenance={"run": "r1"}) as sidecar:
        sidecar.write(key(1), volume(1) + 1000, {"trust": {"snr": np.float32(2), "bad": float("nan")}})
        path = sidecar.write(key(0), volume(0), SAID)
    attributes = zarr.open_group(path, mode="r").attrs.asdict()
    said = attributes["live_restore"]
    assert said["run"] == "r1"
    assert said["volumes"][0] == {"time": 0, "position": "0", "channel": "GFP", **SAID}
    assert said["volumes"][1]["trust"] == {"snr": 2.0, "bad": None}
    (channel,) = attributes["ome"]["omero"]["channels"]
    assert channel["label"] == "GFP"
    assert channel["window"]["min"] == pytest.approx(volume(0).min())
    assert channel["window"]["max"] == pytest.approx(volume(1).max() + 1000)
    assert 1000 < channel["window"]["start"] < channel["window"]["end"]  # of the first volume


def test_the_words_on_very_many_volumes_stay_in_the_journal(folder, monkeypatch):
    monkeypatch.setattr("live_restore.records.sidecar_zarr._MOST_SAID", 1)
    with Sidecar(folder) as sidecar:
        path = sidecar.write(key(0), volume(0), SAID)
        sidecar.write(key(1), volume(1), SAID)
    assert "volumes" not in zarr.open_group(path, mode="r").attrs["live_restore"]
    assert len(read_journal(folder)) == 2
    validate(path)


def test_planned_channels_are_there_from_the_start(folder):
    with Sidecar(folder, channels=("GFP", "RFP")) as sidecar:
        path = sidecar.write(key(0, channel="RFP"), volume(channel="RFP"))
        assert zarr.open_array(path / "0", mode="r").shape[:2] == (1, 2)
        sidecar.write(key(0), volume())
        windows = [c["window"] for c in zarr.open_group(path, mode="r").attrs["ome"]["omero"]["channels"]]
        assert all(window["end"] > 100 for window in windows)
    validate(path)


NAMES = [
    ("a single one, planned", ("A1",), ["A1"], ["restored"]),
    ("without a position axis", (), ["0"], ["restored"]),
    ("not planned", (), ["0", "1"], ["restored", "restored_1"]),
    ("planned", ("0", "1"), ["0", "1"], ["restored_0", "restored_1"]),
    ("no file names", ("A/1", "A:1", "a_1", "..."), ["A/1", "A:1", "a_1", "..."], None),
]


@pytest.mark.parametrize(("case", "planned", "positions", "names"), NAMES, ids=[case[0] for case in NAMES])
def test_every_position_has_a_group(folder, case, planned, positions, names):
    names = names or ["restored_A_1", "restored_A_1_2", "restored_a_1_3", "restored_position"]
    for _ in range(2):  # and finds it again
        with Sidecar(folder, positions=planned) as sidecar:
            for position in positions:
                if key(0, position) not in sidecar.written:
                    sidecar.write(key(0, position), volume(position=position))
            assert [sidecar.paths[position].name for position in positions] == [f"{name}.ome.zarr" for name in names]
    for position in positions:
        validate(sidecar.paths[position])


def test_positions_may_differ_in_shape_but_not_their_volumes(folder):
    with Sidecar(folder) as sidecar:
        sidecar.write(key(0), volume())
        sidecar.write(key(0, "1"), volume(shape=(1, 8, 8)))
        with pytest.raises(
            ImageError,
            match=r"time 1, position 0, GFP has the shape \(Z, Y, X\) \(1, 8, 8\), but .* position 0 have \(3, 16, 24\)",
        ):
            sidecar.write(key(1), volume(shape=(1, 8, 8)))
        sidecar.write(key(1), volume(1))
        np.testing.assert_array_equal(sidecar.read(key(0, "1")), volume(shape=(1, 8, 8)))


@pytest.mark.parametrize("side", [2048, 2049, 4096])
def test_large_planes_are_split(folder, side):
    large = volume(shape=(1, 3, side))
    with Sidecar(folder) as sidecar:
        path = sidecar.write(key(), large)
        np.testing.assert_array_equal(sidecar.read(key()), large)
    assert len([file for file in (path / "0" / "c").rglob("*") if file.is_file()]) == -(-side // 2048)


def test_any_layout_in_memory_is_written(folder):
    turned = np.asfortranarray(volume())[:, ::-1]
    with Sidecar(folder) as sidecar:
        sidecar.write(key(), turned)
        np.testing.assert_array_equal(sidecar.read(key()), turned)


def test_pixels_that_are_no_numbers_are_kept(folder):
    broken = volume()
    broken[0, 0, 0], broken[0, 0, 1] = np.nan, np.inf
    with Sidecar(folder) as sidecar:
        path = sidecar.write(key(), broken)
        np.testing.assert_array_equal(sidecar.read(key()), broken)
    validate(path)


REFUSED = [
    (key(-1), volume(), ImageError, r"time -1 is outside 0\.\.10000000; number the time points from 0"),
    (key(10_000_001), volume(), ImageError, "time 10000001 is outside"),
    (key(0, ""), volume(), ImageError, "position '' is no name of 1 to 200 printable characters; rename it"),
    (key(0, "0", "a\nb"), volume(), ImageError, r"channel 'a\\nb' is no name"),
    (key(0, "x" * 201), volume(), ImageError, "is no name of 1 to 200"),
    (VolumeKey(0, "0", "GFP", "high"), volume(), ValueError, "GFP, high light is a reference, which is not restored"),
    (key(), volume().astype(np.uint16), ValueError, r"a restored volume is float32, \(Z, Y, X\); this is uint16"),
    (key(), volume()[0], ValueError, r"of shape \(16, 24\)"),
    (key(), volume()[:0], ValueError, r"of shape \(0, 16, 24\)"),
]


@pytest.mark.parametrize(("wanted", "pixels", "error", "match"), REFUSED, ids=range(len(REFUSED)))
def test_refused(folder, wanted, pixels, error, match):
    with Sidecar(folder) as sidecar:
        with pytest.raises(error, match=match):
            sidecar.write(wanted, pixels)
        assert not sidecar.written
        sidecar.write(key(), volume())


def test_a_volume_is_written_once_and_read_when_written(folder):
    with Sidecar(folder) as sidecar:
        sidecar.write(key(), volume())
        with pytest.raises(ImageError, match="time 0, position 0, GFP is restored already; a volume is written once"):
            sidecar.write(key(), volume())
        with pytest.raises(ImageError, match="holds no restored volume of time 1, position 0, GFP; backfill restores"):
            sidecar.read(key(1))


def test_no_end_of_channels_or_positions(folder, monkeypatch):
    monkeypatch.setattr("live_restore.records.sidecar._MOST_CHANNELS", 2)
    monkeypatch.setattr("live_restore.records.sidecar._MOST_POSITIONS", 2)
    with Sidecar(folder) as sidecar:
        for channel in "ab":
            sidecar.write(key(channel=channel), volume())
        with pytest.raises(ImageError, match="channel 'c' would be number 3; 2 at most"):
            sidecar.write(key(channel="c"), volume())
        sidecar.write(key(0, "1"), volume())
        with pytest.raises(ImageError, match="position '2' would be number 3; 2 at most"):
            sidecar.write(key(0, "2"), volume())


def test_an_absurd_time_costs_nothing(folder):
    with Sidecar(folder) as sidecar:
        path = sidecar.write(key(10_000_000), volume())
        np.testing.assert_array_equal(sidecar.read(key(10_000_000)), volume())
    assert sum(file.stat().st_size for file in path.rglob("*") if file.is_file()) < 100_000


def test_one_process_at_a_time(folder):
    with Sidecar(folder), pytest.raises(ImageError, match=f"the sidecar in .* is being written by process {os.getpid()}"):
        Sidecar(folder)
    sidecar = Sidecar(folder)
    sidecar.close()
    sidecar.close()


def test_what_was_moved_away_is_to_be_restored_again(folder):
    with Sidecar(folder) as sidecar:
        sidecar.write(key(), volume())
        gone = sidecar.write(key(0, "1"), volume())
    gone.rename(folder / "elsewhere")
    with Sidecar(folder) as sidecar:
        assert list(sidecar.written) == [key()]
        sidecar.write(key(1, "1"), volume(1))
    with Sidecar(folder) as sidecar:  # the new group of the old name does not hold what the old one held
        assert list(sidecar.written) == [key(), key(1, "1")]
        sidecar.write(key(0, "1"), volume())


def test_damaged_groups_are_told(folder):
    with Sidecar(folder) as sidecar:
        path = sidecar.write(key(), volume())
    whole = (path / "0" / "zarr.json").read_text()
    for damaged in ("{", "[]", "{}", whole.replace('"blosc"', '"gzip"')):
        (path / "0" / "zarr.json").write_text(damaged)
        with pytest.raises(ImageError, match="move it away, and backfill restores it anew"):
            Sidecar(folder)
    (path / "0" / "zarr.json").write_text(whole)
    next(file for file in (path / "0" / "c").rglob("*") if file.is_file()).write_bytes(b"damaged")
    with Sidecar(folder) as sidecar, pytest.raises(ImageError, match="time 0, channel GFP cannot be read from"):
        sidecar.read(key())


def test_killed_between_the_two_files_of_a_new_channel(folder):
    with Sidecar(folder) as sidecar:
        path = sidecar.write(key(), volume())
    array = json.loads((path / "0" / "zarr.json").read_text())
    array["shape"][1] = 2
    (path / "0" / "zarr.json").write_text(json.dumps(array))
    with Sidecar(folder) as sidecar:
        assert zarr.open_array(path / "0", mode="r").shape[1] == 1
        sidecar.write(key(channel="RFP"), volume(channel="RFP"))
        np.testing.assert_array_equal(sidecar.read(key(channel="RFP")), volume(channel="RFP"))


def test_killed_while_a_group_was_laid_out(folder):
    with Sidecar(folder) as sidecar:
        path = sidecar.write(key(), volume())
    path.rename(path.with_name(f"{path.name}.partial.ome.zarr"))
    with Sidecar(folder) as sidecar:
        assert not sidecar.written
        sidecar.write(key(), volume(1))
    assert [file.name for file in folder.glob("*.ome.zarr")] == ["restored.ome.zarr"]
    with Sidecar(folder) as sidecar:
        np.testing.assert_array_equal(sidecar.read(key()), volume(1))


def test_a_restored_folder_is_nobodys_raw_image(folder):
    with Sidecar(folder) as sidecar:
        path = sidecar.write(key(), volume())
    with pytest.raises(ImageError, match="holds no image"):
        find_inputs([folder.parent])
    assert find_inputs([folder]) == [path]


WRITER = """
import sys
import numpy as np
from pathlib import Path
from live_restore.frames import VolumeKey
from live_restore.records.sidecar import Sidecar
sys.path.insert(0, sys.argv[2])
from test_sidecar import volume, SAID
with Sidecar(Path(sys.argv[1])) as sidecar:
    print("begun", flush=True)
    for time in range(10_000):
        for position in "01":
            for channel in ("GFP", "RFP"):
                key = VolumeKey(time, position, channel)
                if key not in sidecar.written:
                    sidecar.write(key, volume(time, position, channel), SAID)
                    print(f"{time} {position} {channel}", flush=True)
"""


def start_writer(folder):
    tests = str(Path(__file__).parent)
    return subprocess.Popen([sys.executable, "-c", WRITER, str(folder), tests], stdout=subprocess.PIPE, text=True)


def check_readable(folder, told):
    """What was reported as written, and what the journal says, can be read, by zarr alone; every group is valid."""
    written = read_journal(folder)
    assert set(told) <= set(written)
    paths = {"0": folder / "restored.ome.zarr", "1": folder / "restored_1.ome.zarr"}
    for position, path in paths.items():
        if path.exists():
            validate(path)
            array = zarr.open_array(path / "0", mode="r")
            labels = zarr.open_group(path, mode="r").attrs["live_restore"]["channels"]
            for wanted in (k for k in written if k.position == position):
                pixels = array[wanted.time, labels.index(wanted.channel)]
                np.testing.assert_array_equal(pixels, volume(wanted.time, wanted.position, wanted.channel))
    return written


@pytest.mark.slow
def test_kill_at_any_moment_and_go_on(folder):
    """The same folder is written and killed again and again; nothing that was reported is ever lost."""
    rng = np.random.default_rng(1)
    told = []
    for _ in range(5):
        writer = start_writer(folder)
        assert writer.stdout.readline() == "begun\n"
        for _ in range(int(rng.integers(1, 8))):  # a volume more each time, whatever the machine's speed
            line = writer.stdout.readline()
            time_point, position, channel = line.split()
            told.append(VolumeKey(int(time_point), position, channel))
        time.sleep(rng.uniform(0, 0.02))  # so that the kill falls anywhere within a volume
        writer.kill()
        rest, _ = writer.communicate()
        for line in rest.splitlines():
            time_point, position, channel = line.split()
            told.append(VolumeKey(int(time_point), position, channel))
        check_readable(folder, told)
    assert len(told) >= 5
    with Sidecar(folder) as sidecar:
        assert set(told) <= set(sidecar.written)


def test_others_read_while_it_is_written(folder):
    writer = start_writer(folder)
    try:
        assert writer.stdout.readline() == "begun\n"
        for _ in range(6):
            writer.stdout.readline()
        for _ in range(10):
            check_readable(folder, [])
            writer.stdout.readline()
        with pytest.raises(ImageError, match=f"is being written by process {writer.pid} on"):
            Sidecar(folder)
    finally:
        writer.kill()
        writer.communicate()


def test_a_torn_last_line_of_the_journal(folder):
    with Sidecar(folder) as sidecar:
        sidecar.write(key(0), volume(0))
        sidecar.write(key(1), volume(1))
    journal = folder / "volumes.jsonl"
    journal.write_bytes(journal.read_bytes()[:-9])
    assert list(read_journal(folder)) == [key(0)]
    with Sidecar(folder) as sidecar:
        assert list(sidecar.written) == [key(0)]
        sidecar.write(key(1), volume(1))
    assert list(read_journal(folder)) == [key(0), key(1)]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no limit on the size of files that could stand for a full disk")
@pytest.mark.parametrize("limit", [300, 3000], ids=["metadata", "chunks"])
@pytest.mark.parametrize("channel", ["GFP", "RFP"])
def test_a_full_disk_is_told_and_what_is_written_stays(folder, limit, channel):
    code = f"""
import resource, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from test_sidecar import volume, key, Sidecar
large = volume(1, channel="{channel}", shape=(3, 64, 64))
with Sidecar(Path(sys.argv[1])) as sidecar:
    sidecar.write(key(0), volume(0, shape=(3, 64, 64)))
    resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, resource.RLIM_INFINITY))
    try:
        sidecar.write(key(1, channel="{channel}"), large)
    except OSError:
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        assert list(sidecar.written) == [key(0)]
        sidecar.write(key(1, channel="{channel}"), large)
        print("told")
"""
    command = [sys.executable, "-c", code, str(folder), str(Path(__file__).parent)]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "told\n"
    assert list(read_journal(folder)) == [key(0), key(1, channel=channel)]
    assert not list(folder.rglob(".*.new"))
    validate(folder / "restored.ome.zarr")
    with Sidecar(folder) as sidecar:
        large = volume(1, channel=channel, shape=(3, 64, 64))
        np.testing.assert_array_equal(sidecar.read(key(1, channel=channel)), large)


def test_a_volume_that_is_refused_does_not_stretch_the_axis(folder):
    with Sidecar(folder) as sidecar:
        sidecar.write(key(0), volume(0), SAID)
        narrow = (key(5_000_000), volume(1, shape=(Z, Y, X + 1)), SAID)
        speechless = (key(4_000_000), volume(1), {"model": object()})
        half = (key(3_000_000), volume(1).astype(np.float16), SAID)
        refused = sidecar.write_all([narrow, (key(2), volume(2), SAID), speechless, half])
        assert [type(reason) for reason in refused] == [ImageError, type(None), TypeError, ValueError]
        assert zarr.open_array(sidecar.paths["0"] / "0", mode="r").shape[0] == 3


def test_chunks_that_a_kill_left_behind_are_removed_when_it_is_opened_again(folder):
    with Sidecar(folder) as sidecar:
        sidecar.write(key(0), volume(0), SAID)
        chunks = sidecar.paths["0"] / "0" / "c"
    left = [chunks / "7" / "0" / "1" / "0" / ".0.new", chunks / "0" / "3" / "0" / "0" / ".12.new"]
    for path in left:
        path.parent.mkdir(parents=True)
        path.write_bytes(b"half a chunk")
    with Sidecar(folder) as again:
        assert not any(path.exists() for path in left)
        np.testing.assert_array_equal(again.read(key(0)), volume(0))


def test_volumes_that_are_written_together_are_written_each_for_itself(folder):
    """Of several, those that cannot be written are refused by name, and the others are on disk and in the journal."""
    with Sidecar(folder) as sidecar:
        sidecar.write(key(0), volume(0), SAID)
        wanted = [key(0), key(4), key(2), key(4), key(1), key(9)]
        volumes = [(one, volume(one.time), SAID) for one in wanted]
        volumes[2] = (key(2), volume(2, shape=(Z, Y, X + 1)), SAID)
        volumes[4] = (key(1), volume(1), {"model": object()})
        refused = sidecar.write_all(volumes[:4] + volumes[5:])
        assert [str(reason or "").partition(", ")[2].partition(", ")[2][:25] for reason in refused] == [
            "GFP is restored already; ",
            "",
            "GFP has the shape (Z, Y, ",
            "GFP is restored already; ",
            "",
        ]
        assert set(sidecar.written) == {key(0), key(4), key(9)} == set(read_journal(folder))
        assert zarr.open_array(sidecar.paths["0"] / "0", mode="r").shape[0] == 10
        for written in sidecar.written:
            np.testing.assert_array_equal(sidecar.read(written), volume(written.time))
        # words that have no JSON refuse their own volume alone
        refused = sidecar.write_all([volumes[4], (key(3), volume(3), SAID)])
        assert type(refused[0]) is TypeError and refused[1] is None
        assert key(3) in sidecar.written and key(1) not in sidecar.written and sidecar.write_all([]) == []
    with Sidecar(folder) as again:
        assert set(again.written) == {key(0), key(3), key(4), key(9)}
    assert not list(folder.rglob("*.new"))
