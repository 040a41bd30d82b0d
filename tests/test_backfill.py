"""Backfill: what live left out comes out as live would have given it, to the bit, from real raw datasets."""

import itertools
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import zarr
from bare_clients import BareHook, options, settled, until
from ndstorage import NDTiffDataset
from tiny_packages import smoothing_facts, write_smoothing_package

from live_restore.backfill import backfill
from live_restore.errors import ImageError, ModelError
from live_restore.frames import VolumeKey, volume_key
from live_restore.listener import Silence
from live_restore.models.facts import FrozenRange, Normalisation
from live_restore.models.package import open_package
from live_restore.records.account import account
from live_restore.records.images import open_images
from live_restore.records.runs import RunFolder, read_journal, run_folder
from live_restore.records.sidecar import Sidecar
from live_restore.restorer import Restorer
from live_restore.server import ModelChoice, Server

Z, Y, X = 3, 32, 40
SUMMARY = {"PixelSize_um": 0.1, "z-step_um": 0.5, "Interval_ms": 2000}
RANGES = Normalisation(mode="volume", frozen=FrozenRange(low=(100,), high=(900,)))


def frame(axes) -> np.ndarray:
    """A frame that tells its axes, whose brightness grows with time."""
    seed = sum(ord(c) * (i + 1) for i, c in enumerate(repr(sorted(axes.items()))))
    return np.random.default_rng(seed).gamma(2, 100 + 20 * int(axes.get("time", 0)), (Y, X)).astype(np.uint16)


def places(**axes):
    return [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]


def write_raw(folder, all_axes, pixels=frame):
    dataset = NDTiffDataset(str(folder), name="raw", writable=True)
    dataset.initialize(SUMMARY)
    for axes in all_axes:
        dataset.put_image(axes, pixels(axes), {"Axes": axes})
    dataset.finish()
    dataset.close()
    return folder / "raw_1"


PLACES = places(time=range(5), position=["A", "B"], channel=["GFP", "RFP"], z=range(Z))


def stack(key, axes=PLACES):
    frames = [a for a in axes if volume_key(a) == key]
    return np.stack([frame(a) for a in sorted(frames, key=lambda a: a.get("z", 0))])


def keys(axes=PLACES):
    return list(dict.fromkeys(volume_key(a) for a in axes))


@pytest.fixture(scope="session")
def package(tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / "smooth"
    write_smoothing_package(path, n_dim=3, facts=smoothing_facts(n_dim=3, normalisation=RANGES))
    return path


def noted(package, mode="volume", channel="*"):
    """A row of ``run.json``, as the restore process notes its models."""
    said = {"channel": channel, "package": str(package), "sha256": open_package(package).onnx_sha256, "state": "ready"}
    return {**said, "engine": "openvino 2026.4, f32, on a CPU", "precision": "f32", "normalisation": mode}


def begin(raw, *models, **said):
    return RunFolder.begin(run_folder(raw), "r1", raw, models=list(models), **said)


def restore_live(run, package, wanted, mode="volume", axes=PLACES):
    """Restore volumes as the restore process does, in this order; gives them."""
    made = {}
    with (
        Restorer(open_package(package), engine="openvino", precision="f32", mode=mode) as restorer,
        Sidecar(run.path, positions=("A", "B")) as sidecar,
    ):
        for key in wanted:
            made[key] = restorer.restore(stack(key, axes)[None], movie=("r1", key.position, key.channel)).pixels[0]
            sidecar.write(key, made[key], {"live": True, "frames": Z})
    return made


def undisturbed(package, tmp_path, mode="volume", axes=PLACES):
    """Give all volumes as a run without any loss."""
    run = RunFolder.begin(tmp_path / "undisturbed", "r0")
    return restore_live(run, package, keys(axes), mode, axes)


def read_all(folder):
    with Sidecar(folder) as sidecar:
        return {key: sidecar.read(key) for key in sidecar.written}


def assert_same(found, expected):
    assert set(found) == set(expected)
    for key, pixels in expected.items():
        np.testing.assert_array_equal(found[key], pixels, err_msg=str(key))


@pytest.mark.parametrize("mode", ["frozen", "volume"])
def test_what_live_left_out_comes_out_to_the_bit(tmp_path, package, mode):
    raw = write_raw(tmp_path, PLACES)
    run = begin(raw, noted(package, mode))
    live = restore_live(run, package, keys()[::2], mode)
    before = {file: file.stat().st_mtime_ns for file in run.path.rglob("c/*/*/*/*/*")}
    done = backfill(run.path)
    assert (done.restored, done.already) == (10, 10)
    assert done.complete
    expected = undisturbed(package, tmp_path, mode)
    assert_same(read_all(run.path), expected)
    assert all(np.array_equal(live[key], expected[key]) for key in live)
    assert {file: file.stat().st_mtime_ns for file in before} == before  # what live wrote is not touched
    journal = read_journal(run.path)
    assert {key for key, line in journal.items() if line["said"]["live"]} == set(live)
    said = journal[keys()[1]]["said"]
    assert said["frames"] == Z
    assert said["provenance"]["normalisation"] == mode
    assert said["trust"]["snr"] >= 0
    assert done.frames == {"raw": 60, "restored": 60, **dict.fromkeys(done.left, 0), "pending": 0}
    assert run.described("restore.json")["backfill"]["restored"] == 10
    assert [event["event"] for event in run.events()] == ["backfill"]


def test_a_second_time_does_nothing(tmp_path, package):
    run = begin(write_raw(tmp_path, PLACES), noted(package))
    assert backfill(run.path).restored == 20
    before = {file: file.read_bytes() for file in run.path.rglob("*") if file.is_file() and file.name.endswith("l")}
    done = backfill(run.path)
    assert (done.restored, done.already) == (0, 20)
    after = {file: file.read_bytes() for file in before if "events" not in file.name}
    assert after == {file: content for file, content in before.items() if file in after}


def test_rolling_ranges_follow_as_in_an_undisturbed_run(tmp_path, package):
    """Live lost the end of the movie: the rest comes out as if it had not."""
    run = begin(write_raw(tmp_path, PLACES), noted(package, "rolling"))
    first = [key for key in keys() if key.time < 2 or (key.time == 2 and key.channel == "GFP")]
    restore_live(run, package, first, "rolling")
    assert backfill(run.path).restored == 20 - len(first)
    expected = undisturbed(package, tmp_path, "rolling")
    assert_same(read_all(run.path), expected)
    assert not np.array_equal(expected[keys()[-1]], undisturbed(package, tmp_path / "other", "volume")[keys()[-1]])


def test_a_run_whose_restore_process_was_never_there(tmp_path, package):
    raw = write_raw(tmp_path, PLACES)
    run = RunFolder.begin(run_folder(raw), "r1", raw, role="hook")
    with pytest.raises(ModelError, match=r"names no model, as no restore process was there; name it with --model PACKAGE"):
        backfill(run.path)
    done = backfill(raw, models={"*": package})  # the raw dataset stands for its run
    assert done.restored == 20
    assert_same(read_all(run.path), undisturbed(package, tmp_path))
    (image,) = open_images(run.path / "restored_B.ome.zarr")
    assert image.info.pixel_size_um == pytest.approx((0.5, 0.1, 0.1))
    assert image.info.frame_interval_s == pytest.approx(2.0)
    assert image.info.channels == ("GFP", "RFP")


AXES = [
    ("time alone", places(time=range(3)), ["restored"]),
    ("no axis", [{}], ["restored"]),
    ("numbered positions", places(position=[0, 2], time=range(2)), ["restored_0", "restored_2"]),
    ("named positions", places(position=["B:2", "A"], channel=["GFP"]), ["restored_A", "restored_B_2"]),
    ("one named position", places(position=["A1"], time=[4, 7]), ["restored"]),
    ("other axes", places(camera=["left", "right"], z=range(2)), ["restored_0_cameraleft", "restored_0_cameraright"]),
    ("numbered channels", places(channel=[0, 1]), ["restored"]),
    ("rows and columns", places(row=[0], column=[1], time=range(2)), ["restored"]),
]


@pytest.mark.parametrize(("case", "axes", "names"), AXES, ids=[case[0] for case in AXES])
def test_axes_become_the_same_volumes_as_live(tmp_path, package, case, axes, names):
    write_smoothing_package(tmp_path / "flat", n_dim=2)
    run = begin(write_raw(tmp_path, axes), noted(tmp_path / "flat"))
    done = backfill(run.path)
    assert done.restored == len(keys(axes))
    assert_same(read_all(run.path), undisturbed(tmp_path / "flat", tmp_path / "u", axes=axes))
    assert sorted(path.name.removesuffix(".ome.zarr") for path in run.path.glob("*.zarr")) == names


def test_references_and_channels_without_a_model_are_left(tmp_path, package):
    axes = places(time=range(2), channel=["GFP", "RFP"], light=["low", "high"], z=range(Z))
    run = begin(write_raw(tmp_path, axes), noted(package, channel="GFP"))
    done = backfill(run.path)
    assert done.restored == 2
    assert done.left["reference"] == [key for key in keys(axes) if key.light == "high"]
    assert done.left["without_model"] == [VolumeKey(t, "0", "RFP") for t in range(2)]
    assert done.complete
    assert done.frames["raw"] == 24 == sum(count for name, count in done.frames.items() if name != "raw")


def test_every_channel_has_its_own_model(tmp_path, package):
    other = write_smoothing_package(tmp_path / "other", n_dim=2)
    run = begin(write_raw(tmp_path, PLACES), noted(package), noted(tmp_path / "other", channel="RFP"))
    backfill(run.path)
    journal = read_journal(run.path)
    for key in keys():
        expected = other.onnx_sha256 if key.channel == "RFP" else noted(package)["sha256"]
        assert journal[key]["said"]["provenance"]["sha256"] == expected


def test_incomplete_volumes_are_listed(tmp_path, package):
    axes = [a for a in PLACES if a != {"time": 1, "position": "A", "channel": "RFP", "z": 1}][:-1]  # a plane lost, and killed
    run = begin(write_raw(tmp_path, axes), noted(package))
    done = backfill(run.path)
    assert done.left["incomplete"] == [VolumeKey(1, "A", "RFP"), VolumeKey(4, "B", "RFP")]
    assert done.restored == 18
    assert done.frames["incomplete"] == 4
    assert VolumeKey(4, "B", "GFP") in read_journal(run.path)  # of the time point at which it broke off


def test_the_plan_tells_that_a_single_volume_is_incomplete(tmp_path, package):
    raw = write_raw(tmp_path, places(z=range(2)))
    run = begin(raw, noted(package))
    run.describe("hook.json", {"plan": {"planes": 3, "times": None}})
    assert backfill(run.path).left["incomplete"] == [VolumeKey()]


def test_nothing_but_zeros_is_no_recording(tmp_path, package):
    axes = places(time=range(2), z=range(Z))
    raw = write_raw(tmp_path, axes, lambda a: frame(a) * np.uint16(a["time"]))
    run = begin(raw, noted(package))
    done = backfill(run.path)
    assert done.left["empty"] == [VolumeKey()]
    assert done.restored == 1


def test_a_volume_that_fails_does_not_end_it(tmp_path, package):
    axes = places(time=range(2), channel=["GFP"]) + places(time=range(2), channel=["RFP"], z=range(Z))
    run = begin(write_raw(tmp_path, axes), noted(package))
    done = backfill(run.path)
    assert not done.complete
    assert done.left["failed"] == [VolumeKey(t, "0", "GFP") for t in range(2)]
    assert (
        "time 0, position 0, GFP: model 'smoothing 3x3' restores z-stacks, and this image has a single plane"
        in done.warnings[0]
    )
    assert done.restored == 2


def test_a_frame_that_was_taken_twice_counts_as_it_was_taken_last(tmp_path, package):
    axes = places(z=range(Z))
    dataset = NDTiffDataset(str(tmp_path), name="raw", writable=True)
    dataset.initialize(SUMMARY)
    for n, a in enumerate([*axes, *axes]):
        dataset.put_image(a, frame(a) + np.uint16(n), {"Axes": a})
    dataset.finish()
    run = begin(tmp_path / "raw_1", noted(package))
    backfill(run.path)
    (raw,) = open_images(tmp_path / "raw_1")
    with Restorer(open_package(package), engine="openvino", precision="f32", mode="volume") as restorer:
        expected = restorer.restore(raw.volume(0, 0)[None]).pixels[0]
    np.testing.assert_array_equal(read_all(run.path)[VolumeKey()], expected)


def test_a_raw_dataset_that_was_moved(tmp_path, package):
    raw = write_raw(tmp_path, PLACES)
    run = begin(raw, noted(package))
    moved = raw.rename(tmp_path / "moved")
    with pytest.raises(ImageError, match=r"the raw dataset of this run, .*raw_1, is not there; say where it is with --raw"):
        backfill(run.path)
    assert backfill(run.path, moved).restored == 20
    unknown = RunFolder.begin(tmp_path / "unknown", "r2", models=[noted(package)])
    with pytest.raises(ImageError, match="this run did not note its raw dataset; say where it is with --raw"):
        backfill(unknown.path)
    with pytest.raises(ImageError, match="is no run folder"):
        backfill(moved)


def test_raw_and_run_are_moved_together(tmp_path, package):
    raw = write_raw(tmp_path / "a", PLACES)
    begin(raw, noted(package))
    shutil.move(tmp_path / "a", tmp_path / "b")
    assert backfill(tmp_path / "b" / "raw_1_restored").restored == 20


def test_a_model_that_is_gone_or_another(tmp_path, package):
    raw = write_raw(tmp_path, PLACES)
    mine = Path(shutil.copytree(package, tmp_path / "mine"))
    run = begin(raw, noted(mine, channel="GFP"))
    shutil.rmtree(mine)
    with pytest.raises(ModelError, match=r"the model of channel 'GFP' of this run, .*mine, is not there; name it with --model"):
        backfill(run.path)
    write_smoothing_package(mine, n_dim=2)
    with pytest.raises(ModelError, match=r"mine has other weights \(sha256 .*\) than the model of channel 'GFP' of this run"):
        backfill(run.path)
    done = backfill(run.path, models={"GFP": package, "RFP": mine})
    assert done.restored == 20


def test_a_model_whose_package_nobody_noted(tmp_path, package):
    said = noted(package)
    del said["package"]
    run = begin(write_raw(tmp_path, PLACES), {**said, "model": "care"}, {**noted(package), "state": "failed"})
    with pytest.raises(ModelError, match="the model of this run, care, is not there; name it with --model"):
        backfill(run.path)


def test_a_model_of_several_channels_is_refused(tmp_path):
    write_smoothing_package(tmp_path / "two", channels=2)
    run = begin(write_raw(tmp_path, PLACES))
    with pytest.raises(ModelError, match=r"takes 2 channel\(s\) and gives 2; in a run every channel is restored on its own"):
        backfill(run.path, models={"*": tmp_path / "two"})


class _Stops(Silence):
    """Presses Ctrl-C at the third volume."""

    def __init__(self):
        self.volumes = 0

    def volume(self):
        self.volumes += 1
        if self.volumes == 3:
            raise KeyboardInterrupt


def test_stopped_and_taken_up(tmp_path, package):
    run = begin(write_raw(tmp_path, PLACES), noted(package))
    with pytest.raises(KeyboardInterrupt):
        backfill(run.path, listener=_Stops())
    said = run.described("restore.json")["backfill"]
    assert said["frames"]["pending"] == 51
    done = backfill(run.path)
    assert (done.restored, done.already) == (17, 3)
    assert_same(read_all(run.path), undisturbed(package, tmp_path))


def test_the_listener_is_told(tmp_path, package):
    told = []

    class Listener(Silence):
        def image(self, name, volumes, already):
            told.append((name, volumes, already))

        def tile(self, done, total):
            told.append("tile")

        def volume(self):
            told.append("volume")

    run = begin(write_raw(tmp_path, PLACES), noted(package))
    restore_live(run, package, keys()[:5])
    backfill(run.path, listener=Listener())
    assert told[0] == ("raw_1", 20, 5)
    assert told.count("volume") == 15 <= told.count("tile")


def test_it_waits_for_the_restore_process(tmp_path, package):
    run = begin(write_raw(tmp_path, PLACES), noted(package))
    with (
        Sidecar(run.path),
        pytest.raises(ImageError, match=f"is being written by process {os.getpid()} on .*; wait until it has"),
    ):
        backfill(run.path)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no limit on the size of files that could stand for a full disk")
def test_a_full_disk_is_told_with_its_cure(tmp_path, package):
    run = begin(write_raw(tmp_path, PLACES), noted(package))
    backfill(run.path, listener=None)
    shutil.rmtree(run.path / "restored_B.ome.zarr")
    code = """
import resource, sys
from pathlib import Path
from live_restore.backfill import backfill
from live_restore.listener import Silence
from live_restore.errors import ImageError
class Limits(Silence):
    def tile(self, done, total): resource.setrlimit(resource.RLIMIT_FSIZE, (2000, resource.RLIM_INFINITY))
try: backfill(Path(sys.argv[1]), listener=Limits())
except ImageError as error: print(error)
"""
    told = subprocess.run([sys.executable, "-c", code, str(run.path)], capture_output=True, text=True, check=False)
    assert "make room, then run the same command again: restored volumes are kept" in told.stdout, told.stderr
    assert backfill(run.path).restored == 10


def test_raw_as_ome_zarr(tmp_path, package):
    from ome_writers import AcquisitionSettings, Dimension, OmeZarrFormat, create_stream

    dimensions = [Dimension(name="t", type="time", count=2), Dimension(name="c", type="channel", count=2)]
    dimensions += [Dimension(name=n, type="space", count=count) for n, count in zip("zyx", (Z, Y, X), strict=True)]
    form = OmeZarrFormat(backend="zarr-python", suffix=".ome.zarr")
    raw = tmp_path / "raw.ome.zarr"
    axes = places(time=range(2), channel=["GFP", "RFP"], z=range(Z))
    with create_stream(
        AcquisitionSettings(root_path=str(raw), dimensions=tuple(dimensions), dtype="uint16", format=form)
    ) as stream:
        for a in axes:
            stream.append(frame(a))
    run = begin(raw, noted(package), plan={"channels": ["GFP", "RFP"], "positions": ["0"]})
    assert run.path == tmp_path / "raw_restored"
    assert backfill(run.path).restored == 4
    assert_same(read_all(run.path), undisturbed(package, tmp_path, axes=axes))


def test_the_account_is_balanced_to_the_frame(tmp_path, package):
    run = begin(write_raw(tmp_path, PLACES), noted(package))
    ends = {"receipted": 30, "skipped": 24, "unattached": 6, "lost": 0, "refused": 0, "waiting": 0}
    run.describe("hook.json", {"ledger": {"taken": 60, **ends}})
    run.describe("restore.json", {"ledger": {"taken": 30, "restored": 30, "waiting": 0}})
    restore_live(run, package, keys()[:10])
    backfill(run.path)
    found = account(run.path)
    assert found.balanced
    assert {row.name: row.frames for row in found.rows if row.frames} == {"restored live": 30, "restored later": 30}


def test_what_a_restore_process_left_out_comes_out_as_it_would_have_given_it(tmp_path, package):
    """A real restore process takes half of the volumes; backfill does the others with the models that it noted."""
    raw = write_raw(tmp_path, PLACES)
    models = (ModelChoice("*", package, "openvino", "f32", "volume"),)
    with (
        Server(options(tmp_path, models=models)) as server,
        BareHook(server.address, run="r1", raw=raw, plan={"positions": ["A", "B"]}, results="float32") as hook,
    ):
        for number, key in enumerate(keys()[::2]):
            hook.volume(stack(key), key.time, position=key.position, channel=key.channel)
            hook.back(number + 1)
        live = {restored.key: restored.pixels for restored in hook.restored}
        hook.end(taken=30, receipted=30)
        settled(server.address, "r1", restored=30, waiting=0)
    done = backfill(run_folder(raw), models={"*": package})
    assert (done.restored, done.already) == (10, 10)
    expected = undisturbed(package, tmp_path)
    assert_same(read_all(run_folder(raw)), expected)
    assert all(np.array_equal(live[key], expected[key]) for key in live)
    said = {line["said"]["live"]: set(line["said"]["provenance"]) for line in read_journal(run_folder(raw)).values()}
    assert said[True] == said[False]  # told in the same words
    found = account(run_folder(raw))
    assert found.balanced
    assert [row.frames for row in found.rows[:1]] == [30]


KILLED = """
import sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from bare_clients import options
from live_restore.records.sidecar import Sidecar
from live_restore.server import ModelChoice, Server
written, most = Sidecar.write_all, int(sys.argv[4])
def write_all(self, volumes):
    room = max(0, most - len(self.written))
    refused = written(self, volumes[:room])
    while room < len(volumes):  # the disk hangs: what is restored from here on was receipted, and is in no journal
        time.sleep(1)
    return refused
Sidecar.write_all = write_all
models = (ModelChoice("*", Path(sys.argv[3]), "openvino", "f32", "volume"),)
with Server(options(Path(sys.argv[2]), models=models)) as server:
    print(server.address, flush=True)
    time.sleep(120)
"""


def test_what_died_with_a_restore_process_after_its_receipt_is_told_of_and_restored(tmp_path, package):
    raw = write_raw(tmp_path, PLACES)
    words = [sys.executable, "-c", KILLED, Path(__file__).parent, tmp_path, package, "4"]
    with subprocess.Popen([str(word) for word in words], stdout=subprocess.PIPE, text=True) as process:
        address = process.stdout.readline().strip()
        with BareHook(address, run="r1", raw=raw, plan={"positions": ["A", "B"]}, results="float32") as hook:
            for number, key in enumerate(keys()[:10]):
                hook.volume(stack(key), key.time, position=key.position, channel=key.channel)
                hook.back(number + 1)
            hook.receipted(30)
        until(lambda: len(read_journal(run_folder(raw))) == 4)
        process.kill()
    with RunFolder.open(run_folder(raw), role="hook") as folder:
        folder.describe("hook.json", {"ledger": {"taken": 30, "receipted": 30, "waiting": 0}})
        assert folder.backlog() == []
    before = account(run_folder(raw))
    assert before.balanced, before.lines()
    assert {row.name: row.frames for row in before.rows if row.frames} == {"restored live": 12, "not restored": 18}
    assert sum(row.frames for row in before.reasons) == 18, before.lines()
    done = backfill(run_folder(raw), models={"*": package})
    assert (done.already, done.restored) == (4, 16)
    assert_same(read_all(run_folder(raw)), undisturbed(package, tmp_path))


ACQUISITION = """
import sys
from live_restore.acquire.simulate.microscope import _demo_adapters
from pycromanager import Acquisition, multi_d_acquisition_events, start_headless
adapters = str(_demo_adapters())
start_headless(adapters, f"{adapters}/MMConfig_demo.cfg", python_backend=True, buffer_size_mb=64)
events = multi_d_acquisition_events(
    num_time_points=2, channel_group="Channel", channels=["DAPI", "FITC"], channel_exposures_ms=[1, 1],
    z_start=0, z_end=2, z_step=1, xy_positions=[(0, 0), (10, 0)], position_labels=["A1", "B2"], order="tpcz")
with Acquisition(directory=sys.argv[1], name="named", show_display=False) as acquisition: acquisition.acquire(events)
events = multi_d_acquisition_events(num_time_points=3, xy_positions=[(0, 0), (10, 0)], order="tp")
with Acquisition(directory=sys.argv[1], name="plain", show_display=False) as acquisition: acquisition.acquire(events)
events = [{"axes": {"time": t, "light": light}} for t in range(2) for light in ("low", "high")]
with Acquisition(directory=sys.argv[1], name="light", show_display=False) as acquisition: acquisition.acquire(events)
"""


@pytest.mark.slow
@pytest.mark.microscope
def test_what_pycro_manager_wrote(tmp_path):
    write_smoothing_package(tmp_path / "flat", n_dim=2)
    done = subprocess.run(
        [sys.executable, "-c", ACQUISITION, str(tmp_path)], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    found = {name: backfill_of(tmp_path, name) for name in ("named", "plain", "light")}
    assert found["named"] == {VolumeKey(t, p, c) for t in range(2) for p in ("A1", "B2") for c in ("DAPI", "FITC")}
    assert found["plain"] == {VolumeKey(t, p, "Default") for t in range(3) for p in "01"}
    assert found["light"] == {VolumeKey(t, "0", "Default") for t in range(2)}
    assert zarr.open_array(tmp_path / "named_1_restored" / "restored_B2.ome.zarr" / "0").shape[:3] == (2, 2, 3)


def backfill_of(folder, name):
    run = begin(folder / f"{name}_1", noted(folder / "flat"))
    done = backfill(run.path)
    assert done.complete
    return set(read_journal(run.path))
