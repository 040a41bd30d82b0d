"""NDTiff datasets, written by ndstorage as pycro-manager does, whole and broken off, and real ones of Micro-Manager."""

import itertools
import struct
from pathlib import Path

import numpy as np
import pytest
import tifffile
from ndstorage import NDTiffDataset

from live_restore.errors import ImageError
from live_restore.records.images import find_inputs, open_images

Y, X = 16, 24
SUMMARY = {"PixelSize_um": 0.108, "z-step_um": -0.25, "Interval_ms": 500}


def frame(**axes) -> np.ndarray:
    """A frame that tells its axes: no two are alike."""
    seed = sum(ord(c) * (i + 1) for i, c in enumerate(repr(sorted(axes.items()))))
    return np.random.default_rng(seed).integers(0, 4000, (Y, X), dtype=np.uint16)


def write(folder: Path, places: list[dict], summary: dict | None = None, metadata=lambda axes: {}, dtype=np.uint16) -> Path:
    dataset = NDTiffDataset(str(folder), name="run", writable=True)
    dataset.initialize(SUMMARY if summary is None else summary)
    for axes in places:
        dataset.put_image(axes, frame(**axes).astype(dtype), metadata(axes))
    dataset.finish()
    dataset.close()
    return folder / "run_1"


def places(**axes) -> list[dict]:
    """All combinations, the last axis fastest."""
    return [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]


def volume(zs, **axes) -> np.ndarray:
    return np.stack([frame(**axes, z=z) for z in zs])


def test_times_channels_and_planes(tmp_path):
    path = write(tmp_path, places(time=range(3), channel=["GFP", "DAPI"], z=range(4)))
    (image,) = open_images(path)
    with image:
        assert image.info.name == "run_1"
        assert image.info.shape == (3, 2, 4, Y, X)
        assert image.info.channels == ("GFP", "DAPI")  # in the order of acquisition
        assert image.info.dtype == np.uint16
        assert image.info.pixel_size_um == pytest.approx((0.25, 0.108, 0.108))
        assert image.info.frame_interval_s == pytest.approx(0.5)
        assert image.info.notes == ()
        assert not image.missing
        np.testing.assert_array_equal(image.volume(2, 0), volume(range(4), time=2, channel="GFP"))
        np.testing.assert_array_equal(image.volume(0, 1), volume(range(4), time=0, channel="DAPI"))


def test_channels_follow_the_plan(tmp_path):
    path = write(tmp_path, places(time=[0], channel=["GFP", "DAPI"]), {**SUMMARY, "ChNames": ["DAPI", "GFP"]})
    (image,) = open_images(path)
    assert image.info.channels == ("DAPI", "GFP")
    np.testing.assert_array_equal(image.volume(0, 0)[0], frame(time=0, channel="DAPI"))


NUMBERED = [
    ("named in the summary", {"ChNames": ["DAPI", "GFP"]}, {}, ("DAPI", "GFP")),
    ("named in the frames", {}, {0: "Cy3", 1: "Cy5"}, ("Cy3", "Cy5")),
    ("named alike", {}, {0: "Default", 1: "Default"}, ("Default", "Default 2")),
    ("not named", {}, {}, ("channel 0", "channel 1")),
]


@pytest.mark.parametrize(("case", "summary", "names", "expected"), NUMBERED, ids=[case[0] for case in NUMBERED])
def test_numbered_channels(tmp_path, case, summary, names, expected):
    metadata = lambda axes: {"Channel": names.get(axes["channel"], "")}  # noqa: E731
    (image,) = open_images(write(tmp_path, places(time=[0], channel=[0, 1]), summary, metadata))
    assert image.info.channels == expected


def test_a_single_plane_without_any_axis_but_time(tmp_path):
    (image,) = open_images(write(tmp_path, places(time=range(2)), summary={}))
    assert image.info.shape == (2, 1, 1, Y, X)
    assert image.info.pixel_size_um == (None, None, None)
    np.testing.assert_array_equal(image.volume(1, 0)[0], frame(time=1))


def test_sizes_from_the_frames_where_the_summary_has_none(tmp_path):
    metadata = lambda axes: {"PixelSizeUm": 0.2, "ZPosition_um_Intended": 10 - 0.5 * axes["z"]}  # noqa: E731
    (image,) = open_images(write(tmp_path, places(z=range(3)), {}, metadata))
    assert image.info.pixel_size_um == pytest.approx((0.5, 0.2, 0.2))


POSITIONS = [
    ("numbers", {"position": [0, 1, 10]}, ["run_1_pos0", "run_1_pos1", "run_1_pos10"]),
    ("names", {"position": ["A/1", "B:2"]}, ["run_1_A_1", "run_1_B_2"]),
    ("names that become alike", {"position": ["A/1", "A:1"]}, ["run_1_A_1", "run_1_A_1_2"]),
    ("rows and columns", {"row": [0, 1], "column": [0]}, ["run_1_column0_row0", "run_1_column0_row1"]),
    ("light", {"light": ["low", "high"]}, ["run_1_high", "run_1_low"]),
]


@pytest.mark.parametrize(("case", "axes", "names"), POSITIONS, ids=[case[0] for case in POSITIONS])
def test_every_other_axis_makes_images_of_their_own(tmp_path, case, axes, names):
    all_places = places(time=range(2), **axes)
    images = open_images(write(tmp_path, all_places))
    assert [image.info.name for image in images] == names
    read = {image.volume(1, 0).tobytes() for image in images}
    assert read == {frame(**place).tobytes() for place in all_places if place["time"] == 1}


def test_8_bit(tmp_path):
    (image,) = open_images(write(tmp_path, places(z=range(2)), dtype=np.uint8))
    assert image.info.dtype == np.uint8
    np.testing.assert_array_equal(image.volume(0, 0)[1], frame(z=1).astype(np.uint8))


def test_a_dataset_is_found_by_its_folder_its_file_and_its_parent(tmp_path):
    path = write(tmp_path, places(time=range(2)))
    (file,) = path.glob("*.tif")
    assert find_inputs([path]) == find_inputs([file]) == find_inputs([tmp_path]) == [path]
    assert open_images(file)[0].info.name == "run_1"


# --- recordings that broke off -----------------------------------------------------------------------------------


def cut_index(path: Path, entries: int, rest: bytes = b"") -> None:
    """Keep the first entries of the index, and then `rest`."""
    index, position = (path / "NDTiff.index").read_bytes(), 0
    for _ in range(entries):
        for extra in (0, 32):
            (length,) = struct.unpack("<I", index[position : position + 4])
            position += 4 + length + extra
    (path / "NDTiff.index").write_bytes(index[:position] + rest)


RESTS = [("clean end", b""), ("half an entry", b"\x12\x00\x00\x00{'ti"), ("zeros, as Java leaves them", bytes(4096))]


@pytest.mark.parametrize(("case", "rest"), RESTS, ids=[case for case, _ in RESTS])
def test_a_killed_recording_is_read_as_far_as_it_goes(tmp_path, case, rest):
    path = write(tmp_path, places(time=range(4), channel=["DAPI", "GFP"], z=range(3)))
    cut_index(path, 2 * 6 + 4, rest)
    (image,) = open_images(path)
    assert image.info.times == 2
    assert image.info.notes == ("run_1: the recording broke off; 2 of 3 time points are whole, the rest is left out",)
    assert not image.missing
    np.testing.assert_array_equal(image.volume(1, 1), volume(range(3), time=1, channel="GFP"))


def test_frames_that_are_in_the_index_but_not_on_disk_do_not_count(tmp_path):
    path = write(tmp_path, places(time=range(4)))
    (file,) = path.glob("*.tif")
    file.write_bytes(file.read_bytes()[: int(file.stat().st_size * 0.6)])
    (image,) = open_images(path)
    assert image.info.times == 2
    assert "2 of 4 time points are whole" in image.info.notes[0]
    np.testing.assert_array_equal(image.volume(1, 0)[0], frame(time=1))


def test_a_channel_that_is_taken_now_and_then_is_missing_in_between(tmp_path):
    kept = [
        place
        for place in places(time=range(5), channel=["DAPI", "GFP"])
        if place["channel"] == "DAPI" or place["time"] % 2 == 0
    ]
    (image,) = open_images(write(tmp_path, kept))
    assert image.info.times == 5
    assert image.missing == {(1, 1), (3, 1)}
    np.testing.assert_array_equal(image.volume(4, 1)[0], frame(time=4, channel="GFP"))
    with pytest.raises(ImageError, match=r"'run_1' lacks 1 of 1 planes \(z 0\) of time 3, channel 1; leave them out"):
        image.volume(3, 1)


def test_a_plane_missing_within_is_named(tmp_path):
    kept = [place for place in places(time=range(3), z=range(12)) if place["time"] != 1 or place["z"] == 0]
    (image,) = open_images(write(tmp_path, kept))
    assert image.info.times == 3
    assert image.missing == {(1, 0)}
    with pytest.raises(ImageError, match=r"lacks 11 of 12 planes \(z 1, 2, 3, 4, 5, 6, 7, 8, \.\.\.\) of time 1"):
        image.volume(1, 0)


def test_times_that_were_never_recorded_are_told(tmp_path):
    (image,) = open_images(write(tmp_path, places(time=[0, 1, 3, 4])))
    assert image.info.times == 4
    assert image.info.notes == ("run_1: some time indices between 0 and 4 were not recorded; the others follow suit",)
    np.testing.assert_array_equal(image.volume(2, 0)[0], frame(time=3))


def test_evenly_spaced_indices_are_no_gaps(tmp_path):
    (image,) = open_images(write(tmp_path, places(time=[0, 10, 20])))
    assert image.info.notes == ()


# --- refused -----------------------------------------------------------------------------------------------------


def rewrite_index(path: Path, change) -> None:
    """Write the index again with the numbers of every entry changed."""
    entries = list(tifffile.read_ndtiff_index(path / "NDTiff.index"))
    with (path / "NDTiff.index").open("wb") as index:
        for number, (axes, file, *numbers) in enumerate(entries):
            for text in (repr(axes).replace("'", '"'), file):
                index.write(struct.pack("<I", len(text)) + text.encode())
            index.write(struct.pack("<8I", *change(number, numbers)))


def set_type(kind):
    return lambda number, numbers: [*numbers[:3], kind, *numbers[4:]]


def make_mixed(number, numbers):
    return [numbers[0], numbers[1] - number, *numbers[2:]]


CHANGED = [
    ("colour", set_type(2), r"holds colour frames \(8-bit RGB\); record in grayscale"),
    ("unknown type", set_type(9), r"holds frames of unknown pixel type 9; known are \[0, 1, 3, 4, 5, 6\]"),
    ("two sizes", make_mixed, r"holds frames of different kinds, \('uint16', 16, 23\) and \('uint16', 16, 24\)"),
    ("beyond the file", lambda _, n: [n[0] + 10**6, *n[1:]], "none of its 2 frames is on disk; .* not copied whole"),
]


@pytest.mark.parametrize(("case", "change", "words"), CHANGED, ids=[case[0] for case in CHANGED])
def test_what_cannot_be_read_is_refused(tmp_path, case, change, words):
    path = write(tmp_path, places(time=range(2)))
    rewrite_index(path, change)
    with pytest.raises(ImageError, match=words):
        open_images(path)


def test_an_empty_index_is_refused(tmp_path):
    path = write(tmp_path, places(time=range(2)))
    cut_index(path, 0)
    with pytest.raises(ImageError, match="its index names no frame; the recording was cut off"):
        open_images(path)


def test_a_position_without_frames_on_disk_is_refused(tmp_path):
    path = write(tmp_path, places(position=[0, 1], time=range(2)))
    rewrite_index(path, lambda number, n: [n[0] + 10**6 * (number > 1), *n[1:]])
    with pytest.raises(ImageError, match="holds no frame of 'run_1_pos1', though its index names 2"):
        open_images(path)


def test_version_1_is_refused(tmp_path):
    (tmp_path / "old" / "Full resolution").mkdir(parents=True)
    with pytest.raises(ImageError, match=r"NDTiff dataset of version 1 .* export it as OME-TIFF from Micro-Manager"):
        open_images(tmp_path / "old")


def test_axes_are_not_asked_for(tmp_path):
    path = write(tmp_path, places(time=range(2)))
    with pytest.raises(ImageError, match="which says what its axes are; leave --axes out"):
        open_images(path, axes="TYX")


def test_a_file_that_vanishes_is_told(tmp_path):
    path = write(tmp_path, places(time=range(2)))
    (image,) = open_images(path)
    next(path.glob("*.tif")).unlink()
    with pytest.raises(ImageError, match=r"frame \{'time': 1\} cannot be read from"):
        image.volume(1, 0)


# --- real ones ---------------------------------------------------------------------------------------------------

REAL = [
    ("v2/ndtiffv2.0_test", (5, 2, 1, 32, 32), ("DAPI", "FITC")),
    ("v3/12_bit_pycromanager_mda", (4, 2, 1, 64, 64), ("DAPI", "FITC")),
    ("v3/ndtiff3.2_monochrome", (8, 1, 16, 64, 64), ("channel 0",)),
]


@pytest.mark.realdata
@pytest.mark.parametrize(("name", "shape", "channels"), REAL, ids=[case[0] for case in REAL])
def test_real_datasets_agree_with_ndstorage(shared_data, name, shape, channels):
    from ndstorage import Dataset

    path = shared_data / "ndtiff" / name
    (image,) = open_images(path)
    assert (image.info.shape, image.info.channels) == (shape, channels)
    assert image.info.pixel_size_um[1:] == (1.0, 1.0)
    theirs = Dataset(str(path))
    last = {"time": shape[0] - 1}
    last |= {"channel": channels[1] if name.startswith("v3") else 1} if shape[1] > 1 else {}
    last |= {"z": shape[2] - 1} if shape[2] > 1 else {}
    np.testing.assert_array_equal(image.volume(shape[0] - 1, shape[1] - 1)[-1], theirs.read_image(**last))
    theirs.close()
