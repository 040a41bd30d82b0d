"""Recovery of NDTiff datasets whose writer was killed, with real writers and real files."""

import shutil
import struct
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from ndstorage import Dataset, NDTiffDataset

from live_restore.errors import ImageError
from live_restore.records.images import open_images
from live_restore.records.ndtiff_index import read_index, written_index
from live_restore.records.recover import recover

Y, X = 64, 96


def frame(time, channel, z):
    return np.random.default_rng([time, len(channel), z]).integers(1, 4000, (Y, X), dtype=np.uint16)


def axes_of(number):
    return {"time": number // 6, "channel": ("GFP", "mCherry")[number // 3 % 2], "z": number % 3}


def write(folder, frames=24, first=0):
    dataset = NDTiffDataset(str(folder), name="run", writable=True)
    dataset.initialize({"PixelSize_um": 0.1})
    for number in range(first, first + frames):
        axes = axes_of(number)
        dataset.put_image(axes, frame(**axes), {"Axes": axes, "number": number})
    dataset.finish()
    dataset.close()
    return folder / "run_1"


def check(folder, frames):
    """Read frame by frame with ndstorage, and volume by volume with our reader."""
    dataset = Dataset(str(folder))
    for number in range(frames):
        np.testing.assert_array_equal(dataset.read_image(**axes_of(number)), frame(**axes_of(number)))
        assert dataset.read_metadata(**axes_of(number))["number"] == number
    assert len(list(dataset.get_image_coordinates_list())) == frames
    dataset.close()
    (image,) = open_images(folder)
    for time in range(image.info.times):
        for channel, name in enumerate(image.info.channels):
            if (time, channel) not in image.missing:
                expected = np.stack([frame(time, name, z) for z in range(3)])
                np.testing.assert_array_equal(image.volume(time, channel), expected)


def tiff(folder):
    (file,) = folder.glob("*.tif")
    return file


@pytest.fixture(scope="session")
def written(tmp_path_factory):
    return write(tmp_path_factory.mktemp("written"))


@pytest.fixture
def dataset(written, tmp_path):
    return Path(shutil.copytree(written, tmp_path / "run_1"))


def pages(file):
    """Places of the pages of a TIFF file, and of the next page's place in each."""
    content = file.read_bytes()
    (place,) = struct.unpack_from("<I", content, 4)
    while place:
        yield place, place + 2 + 13 * 12
        (place,) = struct.unpack_from("<I", content, place + 2 + 13 * 12)


def test_a_complete_index_is_left_alone(dataset):
    before = {file: (file.read_bytes(), file.stat().st_mtime_ns) for file in dataset.iterdir()}
    done = recover(dataset)
    assert not done.changed
    assert (done.frames, done.before, done.files, done.backup) == (24, 24, 1, None)
    assert done.notes == ("the index is complete: 24 frames",)
    assert {file: (file.read_bytes(), file.stat().st_mtime_ns) for file in dataset.iterdir()} == before


@pytest.mark.parametrize("kept", [0, 1, 100, 1500, -1], ids=lambda kept: f"{kept} bytes")
def test_a_short_index_is_completed(dataset, kept):
    index, whole, pixels = dataset / "NDTiff.index", (dataset / "NDTiff.index").read_bytes(), tiff(dataset).read_bytes()
    index.write_bytes(whole[:kept])
    done = recover(dataset)
    assert done.changed
    assert done.frames == 24
    assert done.backup == dataset / "NDTiff.index.bak"
    assert done.backup.read_bytes() == whole[:kept]
    assert read_index(index.read_bytes()) == read_index(whole)  # but for the order of the axes
    assert tiff(dataset).read_bytes() == pixels
    assert not recover(dataset).changed
    check(dataset, 24)


def test_a_missing_index_is_built(dataset):
    whole = (dataset / "NDTiff.index").read_bytes()
    (dataset / "NDTiff.index").unlink()
    done = recover(tiff(dataset))
    assert (done.before, done.frames, done.backup, done.changed) == (0, 24, None, True)
    assert done.notes == ("24 frames were missing in the index, which names 24 now",)
    assert read_index(done.index.read_bytes()) == read_index(whole)


def test_no_backup_is_ever_replaced(dataset):
    for number, name in enumerate(("NDTiff.index.bak", "NDTiff.index.bak.2", "NDTiff.index.bak.3")):
        (dataset / "NDTiff.index").write_bytes(b"\0" * number)
        assert recover(dataset).backup == dataset / name
    assert (dataset / "NDTiff.index.bak").read_bytes() == b""


def test_zeros_behind_the_index_are_cut(dataset):
    with (dataset / "NDTiff.index").open("ab") as file:
        file.write(b"\0" * 5000)
    assert recover(dataset).changed
    check(dataset, 24)


@pytest.mark.parametrize("pixel_type", [0, 4])
def test_what_the_old_index_said_is_kept(dataset, pixel_type):
    index = dataset / "NDTiff.index"
    entries, torn = read_index(index.read_bytes())
    assert torn == 0
    first = struct.pack("<4I", entries[0].offset, X, Y, 1)
    special = index.read_bytes().replace(first, struct.pack("<4I", entries[0].offset, X, Y, pixel_type), 1)
    index.write_bytes(special[:-5])
    recover(dataset)
    assert read_index(index.read_bytes()) == read_index(special)


@pytest.mark.parametrize(("depth", "pixel_type"), [(12, 4), (16, 1), (8, 1), ("?", 1), (None, 1)])
def test_the_bit_depth_of_a_frame_is_found(tmp_path, depth, pixel_type):
    dataset = NDTiffDataset(str(tmp_path), name="run", writable=True)
    dataset.initialize({})
    dataset.put_image({"time": 0}, frame(0, "a", 0), {"Axes": {"time": 0}, "BitDepth": depth})
    dataset.finish()
    (tmp_path / "run_1" / "NDTiff.index").unlink()
    ((entry,), _) = read_index(recover(tmp_path / "run_1").index.read_bytes())
    assert entry.pixel_type == pixel_type


def test_8_bit(tmp_path):
    dataset = NDTiffDataset(str(tmp_path), name="run", writable=True)
    dataset.initialize({})
    dataset.put_image({"time": 0}, frame(0, "a", 0).astype(np.uint8), {"Axes": {"time": 0}})
    dataset.finish()
    whole = (tmp_path / "run_1" / "NDTiff.index").read_bytes()
    (tmp_path / "run_1" / "NDTiff.index").unlink()
    assert recover(tmp_path / "run_1").index.read_bytes() == whole


def test_several_files(dataset):
    """A dataset beyond 4 GiB goes on in further files; here two datasets are put together."""
    more = write(dataset.parent / "more", 6, first=24)
    file = tiff(more)
    (dataset / "run_NDTiffStack_1.tif").write_bytes(file.read_bytes())
    (dataset / "NDTiff.index").unlink()
    done = recover(dataset)
    assert (done.frames, done.files) == (30, 2)
    entries, _ = read_index(done.index.read_bytes())
    assert [entry.file for entry in entries] == ["run_NDTiffStack.tif"] * 24 + ["run_NDTiffStack_1.tif"] * 6
    check(dataset, 30)


def test_every_truncation_gives_the_frames_before_it(dataset):
    """Cut anywhere: what is whole is found, what is not is not, and nothing breaks."""
    whole = tiff(dataset).read_bytes()
    ends = [entry.metadata_offset + entry.metadata_bytes for entry in read_index((dataset / "NDTiff.index").read_bytes())[0]]
    rng = np.random.default_rng(3)
    cuts = [*rng.integers(0, len(whole), 60), *(end + d for end in ends[:3] for d in (-1, 0, 1)), len(whole)]
    for cut in map(int, cuts):
        (dataset / "NDTiff.index").write_bytes(b"")
        tiff(dataset).write_bytes(whole[:cut])
        expected = sum(end <= cut for end in ends)
        if expected:
            assert recover(dataset).frames == expected
        else:
            with pytest.raises(ImageError, match="holds no whole frame"):
                recover(dataset)


def test_a_file_that_goes_on_in_zeros(dataset):
    """As one of 4 GiB that was allocated beforehand; on disk it takes no room."""
    with tiff(dataset).open("r+b") as file:
        _, following = list(pages(tiff(dataset)))[-1]
        file.seek(following)
        file.write(struct.pack("<I", file.seek(0, 2)))
        file.truncate(1 << 28)
    (dataset / "NDTiff.index").unlink()
    done = recover(dataset)
    assert done.frames == 24
    assert len(done.notes) == 1
    check(dataset, 24)


BOGUS = [("itself", lambda place, size: place), ("back", lambda place, size: 8), ("beyond", lambda place, size: size + 10)]


@pytest.mark.parametrize(("case", "target"), BOGUS, ids=[case[0] for case in BOGUS])
def test_a_chain_that_leads_astray(dataset, case, target):
    file = tiff(dataset)
    content = bytearray(file.read_bytes())
    place, following = list(pages(file))[10]
    struct.pack_into("<I", content, following, target(place, len(content)))
    file.write_bytes(content)
    (dataset / "NDTiff.index").unlink()
    assert recover(dataset).frames == 24
    check(dataset, 24)


def test_a_damaged_place_costs_the_frames_there(dataset):
    file = tiff(dataset)
    content = bytearray(file.read_bytes())
    for number in (5, 6, 15):
        place, _ = list(pages(file))[number]
        content[place : place + 30] = b"\xff" * 30
    file.write_bytes(content)
    (dataset / "NDTiff.index").unlink()
    done = recover(dataset)
    assert done.frames == 21
    assert done.notes[1] == f"{file.name} is damaged in 2 place(s); frames there may be lost"
    found = {tuple(entry.axes.items()) for entry in read_index(done.index.read_bytes())[0]}
    assert found == {tuple(axes_of(number).items()) for number in range(24) if number not in (5, 6, 15)}


def test_random_damage_never_breaks_it(dataset):
    whole = np.frombuffer(tiff(dataset).read_bytes(), np.uint8)
    rng = np.random.default_rng(5)
    for _ in range(30):
        damaged = whole.copy()
        for place in rng.integers(8, len(whole), 20):
            damaged[place : place + 40] = rng.integers(0, 256, 40)[: len(damaged) - place]
        tiff(dataset).write_bytes(damaged.tobytes())
        (dataset / "NDTiff.index").unlink(missing_ok=True)
        done = recover(dataset)
        assert 0 < done.frames <= 24
        for entry in read_index(done.index.read_bytes())[0]:
            assert dict(entry.axes) in [axes_of(number) for number in range(24)] or entry.axes


def test_random_bytes_are_no_index():
    rng = np.random.default_rng(6)
    for length in (0, 3, 4, 40, 400, 4000):
        entries, torn = read_index(rng.integers(0, 256, length, dtype=np.uint8).tobytes())
        assert (entries, torn) == ([], length)


def test_frames_that_are_not_on_disk_are_left_out_when_the_index_is_rewritten(dataset):
    entries, _ = read_index((dataset / "NDTiff.index").read_bytes())
    content = tiff(dataset).read_bytes()
    tiff(dataset).write_bytes(content[: entries[20].offset + 5])
    assert not recover(dataset).changed  # readers cope with it
    (dataset / "NDTiff.index").write_bytes(written_index(entries)[:-3])
    done = recover(dataset)
    assert done.frames == 20
    assert "3 frames that the old index named are not on disk; they are left out" in done.notes


def test_other_tiff_files_are_left_out(dataset):
    (dataset / "run_NDTiffStack_1.tif").write_bytes(b"MM\0*\0\0\0\x08" + b"\0" * 100)
    (dataset / "run_NDTiffStack_2.tif").write_bytes(b"")
    (dataset / "NDTiff.index").unlink()
    done = recover(dataset)
    assert done.frames == 24
    assert done.notes[1:] == (
        "run_NDTiffStack_1.tif is no TIFF file of a little-endian machine; it is left out",
        "run_NDTiffStack_2.tif is empty",
    )


def test_what_is_no_dataset_is_refused(tmp_path):
    with pytest.raises(ImageError, match="does not exist; check the spelling"):
        recover(tmp_path / "none")
    with pytest.raises(ImageError, match="holds no TIFF file of an NDTiff dataset; give the folder with NDTiffStack files"):
        recover(tmp_path)


def test_the_reader_tells_of_the_cure(dataset):
    (dataset / "NDTiff.index").write_bytes(b"")
    with pytest.raises(ImageError, match="rebuild the index: live-restore recover"):
        open_images(dataset)


def test_real_datasets_come_back_to_the_byte(shared_data, tmp_path):
    for index in (shared_data / "ndtiff").rglob("NDTiff.index"):
        copy = Path(shutil.copytree(index.parent, tmp_path / index.parent.parent.name / index.parent.name))
        entries, _ = read_index(index.read_bytes())
        (copy / "NDTiff.index").unlink()
        assert read_index(recover(copy).index.read_bytes())[0] == entries


WRITER = """
import sys
import threading
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from test_recover import NDTiffDataset, axes_of, frame
dataset = NDTiffDataset(sys.argv[1], name="run", writable=True)
dataset.initialize({"PixelSize_um": 0.1})
for number in range(10_000):
    axes = axes_of(number)
    dataset.put_image(axes, frame(**axes), {"Axes": axes, "number": number})
    print(number, flush=True)
"""


@pytest.mark.parametrize("frames", [3, 100])
def test_the_frames_of_a_writer_that_was_killed(tmp_path, frames):
    command = [sys.executable, "-c", WRITER, str(tmp_path), str(Path(__file__).parent)]
    writer = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    for _ in range(frames):
        writer.stdout.readline()
    if sys.platform != "win32":
        with pytest.raises(ImageError, match=rf"is still being written by process {writer.pid} \(.*\); wait until it ends"):
            recover(tmp_path / "run_1")
    writer.kill()
    told = frames + len(writer.communicate()[0].splitlines())
    before = len(read_index((tmp_path / "run_1" / "NDTiff.index").read_bytes())[0])
    done = recover(tmp_path / "run_1")
    assert before < told
    assert told <= done.frames <= told + 1  # the one in flight may be whole
    check(tmp_path / "run_1", done.frames)


ACQUISITION = """
import sys
from live_restore.acquire.simulate.microscope import _demo_adapters
from pycromanager import Acquisition, multi_d_acquisition_events, start_headless
adapters = str(_demo_adapters())
start_headless(adapters, f"{adapters}/MMConfig_demo.cfg", python_backend=True, buffer_size_mb=64)
events = multi_d_acquisition_events(
    num_time_points=2000, channel_group="Channel", channels=["DAPI", "FITC"], channel_exposures_ms=[1, 1],
    z_start=0, z_end=2, z_step=1,
)
seen = lambda axes, dataset: print("saved", flush=True)
with Acquisition(directory=sys.argv[1], name="run", show_display=False, image_saved_fn=seen) as acquisition:
    acquisition.acquire(events)
"""


@pytest.mark.slow
@pytest.mark.microscope
def test_the_frames_of_an_acquisition_that_was_killed(tmp_path):
    """A real acquisition with pycro-manager: what it had saved when it was killed comes back."""
    log = (tmp_path / "log").open("w")
    acquisition = subprocess.Popen(
        [sys.executable, "-c", ACQUISITION, str(tmp_path)], stdout=subprocess.PIPE, stderr=log, text=True
    )
    timer = threading.Timer(120, acquisition.kill)
    timer.start()
    saved = 0
    while saved < 40 and (line := acquisition.stdout.readline()):
        saved += line == "saved\n"
    acquisition.kill()
    saved += acquisition.communicate()[0].count("saved")
    timer.cancel()
    assert saved >= 40, (tmp_path / "log").read_text()
    done = recover(tmp_path / "run_1")
    assert done.frames >= saved
    entries, _ = read_index(done.index.read_bytes())
    assert len({tuple(sorted(entry.axes.items())) for entry in entries}) == len(entries)
    dataset = Dataset(str(tmp_path / "run_1"))
    for entry in entries:
        assert dataset.read_image(**entry.axes).any()
        assert dataset.read_metadata(**entry.axes)["Axes"] == entry.axes
    dataset.close()
    (image,) = open_images(tmp_path / "run_1")
    assert image.info.channels == ("DAPI", "FITC")
    assert image.info.planes == 3
    assert image.volume(0, 1).any()
