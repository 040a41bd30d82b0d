"""Restored files: what is written is read back, by us and by others; what is interrupted is taken up again."""

import json
import os
import subprocess
import sys
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st

from live_restore.errors import ImageError
from live_restore.records.images import find_inputs, open_images
from live_restore.records.restored import RestoredInfo, _replace, create_restored, read_provenance
from live_restore.records.restored_journal import Entry, Journal

SUFFIXES = [".ome.tif", ".ome.tiff", ".tif", ".ome.zarr", ".zarr"]
FORMATS = [".ome.tif", ".ome.zarr"]
PROVENANCE = {
    "model": "nuclei <&> {x} µ",
    "model_sha256": "ab" * 32,
    "options": {"percentiles": [2.0, 99.8]},
    "channels": [None],
}


def make_info(path: Path, /, shape=(2, 2, 3, 20, 24), dtype="float32", **changes) -> RestoredInfo:
    times, channels, planes, height, width = shape
    info = RestoredInfo(
        path=path,
        times=times,
        channels=("DAPI", "GFP µ<&>", "Cy5", "Cy7")[:channels],
        planes=planes,
        height=height,
        width=width,
        dtype=np.dtype(dtype),
        pixel_size_um=(0.3, 0.1, 0.2),
        frame_interval_s=0.5,
        provenance=PROVENANCE,
    )
    return replace(info, **changes)


def make_pixels(info: RestoredInfo, seed=0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(0, 4000, info.shape).astype(np.float32)


def write_all(info: RestoredInfo, pixels: np.ndarray, **options) -> int:
    """Write what is pending and finish; tell how many volumes that were."""
    with create_restored(info, **options) as writer:
        pending = writer.pending
        for time, channel in pending:
            writer.write(time, channel, pixels[time, channel])
        assert writer.finish() == info.path
    return len(pending)


def read_all(path: Path) -> np.ndarray:
    (image,) = open_images(path)
    with image:
        return np.array([[image.volume(t, c) for c in range(len(image.info.channels))] for t in range(image.info.times)])


def leftovers(path: Path) -> list[str]:
    return sorted(p.name for p in path.parent.iterdir() if p != path)


# --- round trip --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "uint16"])
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_what_is_written_is_read_back(tmp_path, suffix, dtype):
    info = make_info(tmp_path / f"cells{suffix}", dtype=dtype)
    pixels = make_pixels(info)
    assert write_all(info, pixels) == 4
    (image,) = open_images(info.path)
    assert image.info.name == "cells"
    assert image.info.shape == info.shape
    assert image.info.dtype == info.dtype
    assert image.info.channels == info.channels
    assert image.info.pixel_size_um == pytest.approx(info.pixel_size_um)
    assert image.info.frame_interval_s == pytest.approx(0.5)
    assert image.info.notes == ()
    image.close()
    np.testing.assert_array_equal(read_all(info.path), pixels if dtype == "float32" else np.rint(pixels))
    assert read_provenance(info.path) == PROVENANCE
    assert leftovers(info.path) == []
    assert find_inputs([tmp_path]) == [info.path]


@pytest.mark.parametrize("suffix", FORMATS)
def test_what_is_said_of_volumes_is_kept_also_over_an_interruption(tmp_path, suffix):
    info = make_info(tmp_path / f"a{suffix}")
    pixels = make_pixels(info)
    with create_restored(info) as writer:
        writer.write(1, 0, pixels[1, 0], {"low": [1.5], "note": 'a <"&> µ'})
    with create_restored(info) as writer:
        for time, channel in writer.pending:
            writer.write(time, channel, pixels[time, channel], {"low": [0.0]} if (time, channel) == (0, 1) else None)
        writer.finish()
    volumes = [{"time": 0, "channel": 1, "low": [0.0]}, {"time": 1, "channel": 0, "low": [1.5], "note": 'a <"&> µ'}]
    assert read_provenance(info.path) == {**PROVENANCE, "volumes": volumes}
    np.testing.assert_array_equal(read_all(info.path), pixels)
    (image,) = open_images(info.path)
    assert image.info.channels == info.channels


@pytest.mark.parametrize("suffix", FORMATS)
@settings(max_examples=15, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 3), st.integers(1, 4), st.integers(1, 3), st.integers(1, 9), st.integers(1, 9)),
    dtype=st.sampled_from(["float32", "uint16"]),
    size=st.sampled_from([None, 1e-3, 0.1083, 12.5]),
    interval=st.sampled_from([None, 1e-3, 3600.0]),
    order=st.randoms(use_true_random=False),
)
def test_any_shape_in_any_order(tmp_path_factory, suffix, shape, dtype, size, interval, order):
    path = tmp_path_factory.mktemp("any") / f"a{suffix}"
    info = make_info(path, shape, dtype, pixel_size_um=(size, size, size), frame_interval_s=interval)
    pixels = make_pixels(info)
    with create_restored(info) as writer:
        pending = writer.pending
        order.shuffle(pending)
        for number, (time, channel) in enumerate(pending):
            writer.write(time, channel, pixels[time, channel])
            assert len(writer.pending) == len(pending) - number - 1
        writer.finish()
    (image,) = open_images(path)
    assert (image.info.shape, image.info.channels) == (info.shape, info.channels)
    expected = None if interval is None else pytest.approx(interval)
    assert image.info.frame_interval_s == expected
    assert image.info.pixel_size_um == ((None,) * 3 if size is None else pytest.approx((size,) * 3))
    image.close()
    np.testing.assert_array_equal(read_all(path), pixels if dtype == "float32" else np.rint(pixels))


@pytest.mark.parametrize("dtype", ["float32", "uint16"])
def test_others_read_the_tiff(tmp_path, dtype):
    from ome_types import from_tiff

    info = make_info(tmp_path / "cells.ome.tif", dtype=dtype)
    write_all(info, make_pixels(info))
    ome = from_tiff(info.path)
    (image,) = ome.images
    pixels = image.pixels
    assert image.name == "cells"
    assert ome.creator.startswith("live_restore ")
    assert (pixels.size_t, pixels.size_c, pixels.size_z, pixels.size_y, pixels.size_x) == info.shape
    assert pixels.type.value == {"float32": "float", "uint16": "uint16"}[dtype]
    assert [channel.name for channel in pixels.channels] == list(info.channels)
    assert (pixels.physical_size_x, pixels.physical_size_x_unit.value) == (0.2, "µm")
    assert (pixels.time_increment, pixels.time_increment_unit.value) == (0.5, "s")
    (annotation,) = ome.structured_annotations.map_annotations
    assert annotation.namespace == "live_restore"
    assert json.loads(annotation.value["model_sha256"]) == PROVENANCE["model_sha256"]
    with tifffile.TiffFile(info.path) as tif:
        assert not tif.is_bigtiff
        assert tif.pages[0].get_resolution("CENTIMETER") == pytest.approx((1e4 / 0.2, 1e4 / 0.1))
        assert tif.series[0].axes == "TCZYX"


@pytest.mark.parametrize("dtype", ["float32", "uint16"])
def test_others_read_the_zarr(tmp_path, dtype):
    import yaozarrs
    import zarr

    info = make_info(tmp_path / "cells.ome.zarr", dtype=dtype)
    pixels = make_pixels(info)
    write_all(info, pixels)
    said = json.loads((info.path / "zarr.json").read_text("utf-8"))["attributes"]
    yaozarrs.validate_ome_object(said["ome"], yaozarrs.v05.Image)
    assert said["live_restore"] == PROVENANCE
    first, second = said["ome"]["omero"]["channels"]
    assert (first["label"], second["label"]) == info.channels
    written = pixels[:, 0] if dtype == "float32" else np.clip(pixels[:, 0], 0, 65535)
    assert first["window"]["min"] == first["window"]["start"] == pytest.approx(written.min())
    assert first["window"]["max"] == first["window"]["end"] == pytest.approx(written.max())
    array = zarr.open_array(info.path / "0", mode="r")
    assert array.metadata.dimension_names == ("t", "c", "z", "y", "x")
    assert array.chunks == (1, 1, 1, 20, 24)


@pytest.mark.skipif(sys.platform == "win32", reason="4 GB would really be written: files are not sparse here")
def test_a_large_tiff_becomes_bigtiff(tmp_path):
    info = make_info(tmp_path / "large.ome.tif", (4000, 1, 1, 512, 1024), "uint16")
    with create_restored(info) as writer:
        writer.write(3999, 0, np.full((1, 512, 1024), 7, np.uint16))
        with tifffile.TiffFile(info.partial) as tif:
            assert tif.is_bigtiff
            assert tif.series[0].shape == (4000, 512, 1024)
            assert tif.pages[3999].asarray().mean() == 7
    (tmp_path / "large.ome.tif.partial.ome.tif").unlink()


def test_large_planes_are_chunked(tmp_path):
    import zarr

    info = make_info(tmp_path / "a.ome.zarr", (1, 1, 1, 2100, 30), "uint16")
    pixels = make_pixels(info)
    write_all(info, pixels)
    assert zarr.open_array(info.path / "0", mode="r").chunks == (1, 1, 1, 2048, 30)
    np.testing.assert_array_equal(read_all(info.path), np.rint(pixels))


RAW = [np.uint8, np.uint16, np.int32, np.float64]


@pytest.mark.parametrize("dtype", ["float32", "uint16"])
@pytest.mark.parametrize("raw", RAW, ids=[np.dtype(raw).name for raw in RAW])
def test_volumes_of_any_real_dtype_are_taken(tmp_path, raw, dtype):
    info = make_info(tmp_path / "a.ome.tif", (1, 1, 2, 8, 8), dtype)
    pixels = np.arange(128).reshape(1, 1, 2, 8, 8).astype(raw)
    write_all(info, pixels)
    np.testing.assert_array_equal(read_all(info.path), pixels)


# --- uint16 ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", FORMATS)
def test_uint16_is_rounded_and_clipped_and_counted(tmp_path, suffix):
    info = make_info(tmp_path / f"a{suffix}", (1, 2, 1, 2, 4), "uint16")
    volume = np.array([[[-5, -0.6, -0.4, 0.4], [1.6, 65535.4, 65535.6, np.inf]]], np.float32)
    with create_restored(info) as writer:
        writer.write(0, 0, volume)
        assert writer.clipped == 4
        writer.write(0, 1, -volume)
        assert writer.clipped == 4 + 4
        writer.finish()
    np.testing.assert_array_equal(read_all(info.path)[0, 0, 0], [[0, 0, 0, 0], [2, 65535, 65535, 65535]])


def test_uint16_refuses_nan(tmp_path):
    info = make_info(tmp_path / "a.ome.tif", (3, 1, 1, 2, 4), "uint16")
    volume = np.full((1, 2, 4), np.nan, np.float32)
    with create_restored(info) as writer:
        with pytest.raises(
            ImageError, match="a restored plane of time 2, channel 0 has 8 NaN pixels, which uint16 cannot hold"
        ):
            writer.write(2, 0, volume)
        assert len(writer.pending) == 3


@pytest.mark.parametrize("suffix", FORMATS)
def test_float32_keeps_what_is_not_finite(tmp_path, suffix):
    info = make_info(tmp_path / f"a{suffix}", (1, 1, 1, 2, 2))
    pixels = np.array([[[[[np.nan, np.inf], [-np.inf, 1]]]]], np.float32)
    write_all(info, pixels)
    np.testing.assert_array_equal(read_all(info.path), pixels)


# --- interrupted -------------------------------------------------------------------------------------------------

KILLED = """
import sys
from pathlib import Path
import numpy as np
sys.path.insert(0, {tests!r})
from test_restored import make_info, make_pixels
from live_restore.records.restored import create_restored

info = make_info(Path({path!r}), {shape!r}, {dtype!r})
pixels = make_pixels(info)
with create_restored(info) as writer:
    for time, channel in writer.pending:
        writer.write(time, channel, pixels[time, channel])
        print(time, channel, flush=True)
    input()
"""


@pytest.mark.parametrize("dtype", ["float32", "uint16"])
@pytest.mark.parametrize("suffix", FORMATS)
def test_a_killed_run_is_taken_up_where_it_stopped(tmp_path, suffix, dtype):
    info = make_info(tmp_path / f"a{suffix}", (40, 2, 2, 64, 64), dtype)
    pixels = make_pixels(info)
    code = KILLED.format(tests=str(Path(__file__).parent), path=str(info.path), shape=info.shape, dtype=dtype)
    process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    told = [process.stdout.readline() for _ in range(7)]
    process.kill()  # SIGKILL, or TerminateProcess
    process.communicate()
    assert all(told)
    assert not info.path.exists()
    with create_restored(info) as writer:
        done = 80 - len(writer.pending)
        assert 7 <= done < 80
    # the volumes that the killed run finished are not written again
    assert write_all(info, pixels) == 80 - done
    np.testing.assert_array_equal(read_all(info.path), pixels if dtype == "float32" else np.rint(pixels))
    assert leftovers(info.path) == []


@pytest.mark.parametrize("suffix", FORMATS)
def test_leaving_keeps_what_is_written(tmp_path, suffix):
    info = make_info(tmp_path / f"a{suffix}", dtype="uint16")
    pixels = make_pixels(info)
    with create_restored(info) as writer:
        writer.write(1, 0, pixels[1, 0] - 1e6)
    assert not info.path.exists()
    with create_restored(info) as writer:
        assert writer.pending == [(0, 0), (0, 1), (1, 1)]
        assert writer.clipped == pixels[0, 0].size
        for time, channel in writer.pending:
            writer.write(time, channel, pixels[time, channel])
    assert write_all(info, pixels) == 0  # only the last step was missing
    np.testing.assert_array_equal(read_all(info.path)[1, 0], 0)
    np.testing.assert_array_equal(read_all(info.path)[0], np.rint(pixels[0]))


@pytest.mark.parametrize("suffix", FORMATS)
def test_leaving_without_a_volume_leaves_nothing(tmp_path, suffix):
    info = make_info(tmp_path / f"a{suffix}")
    with create_restored(info) as writer:
        pass
    writer.close()
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ValueError, match=r"the writer of .* is closed"):
        writer.write(0, 0, np.zeros((3, 20, 24), np.float32))
    with pytest.raises(ValueError, match="is closed"):
        writer.finish()


TORN = [b'{"time": 0, "chan', b'{"time": 0, "channel": 1, "clipped": 0, "low": 0.0, "high": 1.0}', b"\xff\xfe\x00"]


@pytest.mark.parametrize("torn", TORN, ids=["half a line", "no end of line", "garbage"])
@pytest.mark.parametrize("suffix", FORMATS)
def test_a_torn_last_line_does_not_count(tmp_path, suffix, torn):
    info = make_info(tmp_path / f"a{suffix}")
    pixels = make_pixels(info)
    with create_restored(info) as writer:
        writer.write(0, 0, pixels[0, 0])
    with info.journal.open("ab") as journal:
        journal.write(torn)
    with create_restored(info) as writer:
        assert writer.pending == [(0, 1), (1, 0), (1, 1)]
        writer.write(0, 1, pixels[0, 1])
    assert write_all(info, pixels) == 2
    np.testing.assert_array_equal(read_all(info.path), pixels)


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_partial_file_without_a_journal_is_begun_anew(tmp_path, suffix):
    info = make_info(tmp_path / f"a{suffix}")
    pixels = make_pixels(info)
    with create_restored(info) as writer:
        writer.write(0, 0, pixels[0, 0])
    info.journal.write_bytes(b'{"jo')  # killed while it was laid out
    assert write_all(info, pixels) == 4
    np.testing.assert_array_equal(read_all(info.path), pixels)


@pytest.mark.parametrize("suffix", FORMATS)
def test_resume_can_be_declined(tmp_path, suffix):
    info = make_info(tmp_path / f"a{suffix}")
    pixels = make_pixels(info)
    with create_restored(info) as writer:
        writer.write(0, 0, pixels[0, 0])
    assert write_all(info, pixels, resume=False) == 4


OTHER_JOBS = [
    ("model", {"provenance": {**PROVENANCE, "model_sha256": "cd" * 32}}, "model_sha256"),
    ("channels", {"channels": ("DAPI", "Cy3")}, "channels"),
    ("dtype", {"dtype": np.dtype("uint16")}, "dtype"),
    ("size", {"height": 19, "pixel_size_um": (None, None, None)}, "pixel_size_um, shape"),
]


@pytest.mark.parametrize(("case", "changes", "differing"), OTHER_JOBS, ids=[case[0] for case in OTHER_JOBS])
@pytest.mark.parametrize("suffix", FORMATS)
def test_the_partial_file_of_another_job_is_not_mixed_up(tmp_path, suffix, case, changes, differing):
    info = make_info(tmp_path / f"a{suffix}")
    with create_restored(info) as writer:
        writer.write(0, 0, make_pixels(info)[0, 0])
    other = replace(info, **changes)
    words = rf"holds 1 volumes of another job \(differing in {differing}\); finish that one .* or discard it with --overwrite"
    with pytest.raises(ImageError, match=words):
        create_restored(other)
    assert write_all(other, make_pixels(other), overwrite=True) == 4
    assert leftovers(info.path) == []


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_partial_file_of_another_job_without_a_volume_is_in_nobodys_way(tmp_path, suffix):
    info = make_info(tmp_path / f"a{suffix}")
    with create_restored(info):
        kept = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    for path, content in kept.items():  # as if it had been killed
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    other = replace(info, channels=("DAPI", "Cy3"))
    assert write_all(other, make_pixels(other)) == 4


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_damaged_partial_file_is_told(tmp_path, suffix):
    info = make_info(tmp_path / f"a{suffix}")
    with create_restored(info) as writer:
        writer.write(0, 0, make_pixels(info)[0, 0])
    (info.partial / "0" / "zarr.json" if info.is_zarr else info.partial).write_bytes(b"nothing")
    with pytest.raises(ImageError, match=r"a\.ome\.\w+\.partial\.ome\.\w+ is damaged: .*; delete it and run"):
        create_restored(info)


# --- names that are taken ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_finished_file_is_never_overwritten_unasked(tmp_path, suffix):
    info = make_info(tmp_path / f"a{suffix}")
    first, second = make_pixels(info, 1), make_pixels(info, 2)
    write_all(info, first)
    with pytest.raises(
        ImageError, match=r"a\.ome\.\w+ exists already; choose another --output, or replace it with --overwrite"
    ):
        create_restored(info)
    with create_restored(info, overwrite=True) as writer:
        writer.write(0, 0, second[0, 0])
        np.testing.assert_array_equal(read_all(info.path), first)  # until the new one is whole
    assert write_all(info, second, overwrite=True) == 3  # an interrupted replacement is taken up, too
    np.testing.assert_array_equal(read_all(info.path), second)
    assert leftovers(info.path) == []


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_folder_of_other_things_is_never_replaced(tmp_path, suffix):
    folder = tmp_path / f"a{suffix}"
    folder.mkdir()
    (folder / "thesis.txt").touch()
    with pytest.raises(ImageError, match="is a folder, and not one of ours; choose another --output"):
        create_restored(make_info(folder), overwrite=True)
    assert (folder / "thesis.txt").exists()


def test_what_cannot_be_replaced_stays(tmp_path):
    """A group whose successor has vanished, or which another program keeps in its place."""
    info = make_info(tmp_path / "a.ome.zarr")
    pixels = make_pixels(info)
    write_all(info, pixels)
    with pytest.raises(FileNotFoundError, match="partial"):
        _replace(info.partial, info.path)
    np.testing.assert_array_equal(read_all(info.path), pixels)


def test_a_file_named_like_a_group_is_not_replaced(tmp_path):
    (tmp_path / "a.ome.zarr").touch()
    with pytest.raises(ImageError, match="is a file, but an OME-Zarr group is a folder"):
        create_restored(make_info(tmp_path / "a.ome.zarr"), overwrite=True)


def test_the_raw_image_is_never_written_to(tmp_path):
    raw = tmp_path / "raw.tif"
    tifffile.imwrite(raw, np.zeros((20, 24), np.uint16))
    (tmp_path / "run_1").mkdir()
    cases = [
        (raw, raw, "is the image to be restored; the raw image is never written to, choose another --output"),
        (tmp_path / "run_1" / "a.ome.tif", tmp_path / "run_1", "lies within the image to be restored"),
        (tmp_path / "all.zarr", tmp_path / "all.zarr" / "0", "is a folder that holds the image to be restored"),
    ]
    for path, source, words in cases:
        with pytest.raises(ImageError, match=words):
            create_restored(make_info(path), overwrite=True, source=source)
    write_all(make_info(tmp_path / "restored.ome.tif"), make_pixels(make_info(tmp_path / "a.tif")), source=raw)


@pytest.mark.skipif(not hasattr(os, "symlink"), reason="no links on this system")
def test_the_raw_image_is_known_by_any_name(tmp_path):
    tifffile.imwrite(tmp_path / "raw.tif", np.zeros((20, 24), np.uint16))
    os.link(tmp_path / "raw.tif", tmp_path / "linked.tif")
    with pytest.raises(ImageError, match="is the image to be restored"):
        create_restored(make_info(tmp_path / "linked.tif"), overwrite=True, source=tmp_path / "raw.tif")


# --- what the disk refuses ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_folder_that_cannot_be_made_is_told(tmp_path, suffix):
    (tmp_path / "file").touch()
    with pytest.raises(
        ImageError, match=r"cannot write .*: .*; make sure that the folder can be written to .* finished volumes are kept"
    ):
        create_restored(make_info(tmp_path / "file" / f"a{suffix}"))


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="this user may write everywhere")
def test_a_folder_without_permission_is_told(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(ImageError, match="Permission denied; make sure that the folder can be written to"):
        create_restored(make_info(tmp_path / "a.ome.tif"))


LIMITED = """
import resource, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from test_restored import make_info, make_pixels
from live_restore.errors import ImageError
from live_restore.records.restored import create_restored

info = make_info(Path({path!r}), {shape!r})
pixels = make_pixels(info)
with create_restored(info) as writer:
    for time, channel in writer.pending:
        if time == 4:
            resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))  # as a full disk: no file may grow or be written further
        try:
            writer.write(time, channel, pixels[time, channel])
        except ImageError as error:
            sys.exit(str(error))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no limit on file sizes to set here")
@pytest.mark.parametrize(("suffix", "side"), [(".ome.tif", 64), (".ome.tif", 16), (".ome.zarr", 64)])
def test_a_full_disk_is_told_and_nothing_is_lost(tmp_path, suffix, side):
    info = make_info(tmp_path / f"a{suffix}", (6, 1, 2, side, side))
    pixels = make_pixels(info)
    code = LIMITED.format(tests=str(Path(__file__).parent), path=str(info.path), shape=info.shape)
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    words = "make room for the whole file of 1 MB, then run the same command again: finished volumes are kept"
    assert words in run.stderr
    assert "Traceback" not in run.stderr
    assert not info.path.exists()
    assert write_all(info, pixels) == 2
    np.testing.assert_array_equal(read_all(info.path), pixels)


@pytest.mark.skipif(sys.platform == "win32", reason="no limit on file sizes to set here")
@pytest.mark.parametrize("suffix", FORMATS)
def test_a_disk_that_is_full_from_the_start_is_told_and_left_clean(tmp_path, suffix):
    path = str(tmp_path / f"a{suffix}")
    code = LIMITED.format(tests=str(Path(__file__).parent), path=path, shape=(6, 1, 2, 64, 64))
    code = code.replace("with create_restored", "resource.setrlimit(resource.RLIMIT_FSIZE, (200, 200))\nwith create_restored")
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "make room for the whole file of 1 MB" in run.stderr
    assert list(tmp_path.iterdir()) == []


SHORT = """
import resource, sys
from pathlib import Path
from live_restore.records.restored_journal import Entry, Journal

journal = Journal.begin(Path({path!r}), {{"a": 1}})
resource.setrlimit(resource.RLIMIT_FSIZE, (30, 30))
journal.add((0, 0), Entry(0, 0.0, 1.0))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no limit on file sizes to set here")
def test_a_line_that_does_not_fit_the_disk_does_not_count(tmp_path):
    code = SHORT.format(path=str(tmp_path / "j"))
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "No space left on device" in run.stderr
    assert (tmp_path / "j").stat().st_size == 30
    assert Journal.take_up(tmp_path / "j").entries == {}


def test_a_line_that_a_full_disk_cut_short_is_written_over(tmp_path):
    journal = Journal.begin(tmp_path / "j", {"a": 1})
    journal.add((0, 0), Entry(0, 0.0, 1.0))
    with (tmp_path / "j").open("ab") as file:
        file.write(b'{"time": 0, "channel": 1, "clip')
    journal.add((0, 2), Entry(3, 0.5, 1.5))
    journal.close()
    journal.close()
    assert Journal.take_up(tmp_path / "j").entries == {(0, 0): Entry(0, 0.0, 1.0), (0, 2): Entry(3, 0.5, 1.5)}
    with pytest.raises(ValueError, match=r"the journal .* is closed"):
        journal.add((0, 1), Entry(0, 0.0, 1.0))


# --- wrong arguments ---------------------------------------------------------------------------------------------

WRONG_INFO = [
    ({"path": Path("a.png")}, ImageError, r"cannot write 'a\.png': the name must end in \.ome\.tif, \.tif or \.ome\.zarr"),
    ({"dtype": np.dtype("float64")}, ValueError, "restored pixels are float32 or uint16, not float64"),
    ({"planes": 0}, ValueError, r"shape \(T, C, Z, Y, X\) \(2, 2, 0, 20, 24\) has an empty axis"),
    ({"channels": ("a", "a")}, ValueError, r"channel names \('a', 'a'\) must be printable and all different"),
    ({"channels": ("a", "b\x00")}, ValueError, "must be printable"),
    ({"channels": ("a", "")}, ValueError, "must be printable"),
]


@pytest.mark.parametrize(("changes", "error", "words"), WRONG_INFO, ids=[repr(case[0]) for case in WRONG_INFO])
def test_wrong_descriptions_are_refused(changes, error, words):
    with pytest.raises(error, match=words):
        make_info(Path("a.tif"), **changes)


@pytest.mark.parametrize("provenance", [{"a": float("nan")}, {"a": object()}], ids=["nan", "object"])
def test_provenance_is_json(tmp_path, provenance):
    with pytest.raises(ValueError, match="the provenance is not JSON"):
        create_restored(make_info(tmp_path / "a.tif", provenance=provenance))


@pytest.mark.parametrize("suffix", FORMATS)
def test_wrong_volumes_are_refused(tmp_path, suffix):
    info = make_info(tmp_path / f"a{suffix}")
    volume = np.zeros((3, 20, 24), np.float32)
    with create_restored(info) as writer:
        with pytest.raises(ValueError, match=r"the volume is float32 of shape \(3, 20, 23\); here it has real numbers"):
            writer.write(0, 0, volume[..., :-1])
        with pytest.raises(ValueError, match="the volume is complex64 of shape"):
            writer.write(0, 0, volume.astype(np.complex64))
        for place in [(2, 0), (0, 2), (-1, 0)]:
            with pytest.raises(ValueError, match="is not pending: written already, or outside the image"):
                writer.write(*place, volume)
        writer.write(0, 0, volume)
        with pytest.raises(ValueError, match=r"volume \(time 0, channel 0\) is not pending: written already"):
            writer.write(0, 0, volume)
        with pytest.raises(ValueError, match=r"3 volumes are not written yet, the first is \(time, channel\) \(0, 1\)"):
            writer.finish()


# --- provenance, memory ------------------------------------------------------------------------------------------


def test_files_of_others_have_no_provenance(tmp_path):
    tifffile.imwrite(tmp_path / "a.ome.tif", np.zeros((8, 8), np.uint16), ome=True)
    tifffile.imwrite(tmp_path / "b.tif", np.zeros((8, 8), np.uint16))
    (tmp_path / "c.tif").write_text("no image", "utf-8")
    (tmp_path / "d.zarr").mkdir()
    (tmp_path / "e.zarr").mkdir()
    (tmp_path / "e.zarr" / "zarr.json").write_text("{", "utf-8")
    assert [read_provenance(path) for path in sorted(tmp_path.iterdir())] == [{}] * 5


@pytest.mark.parametrize("dtype", ["float32", "uint16"])
@pytest.mark.parametrize("suffix", FORMATS)
def test_writing_needs_the_memory_of_planes_not_of_volumes(tmp_path, suffix, dtype):
    info = make_info(tmp_path / f"a{suffix}", (1, 1, 40, 256, 256), dtype)
    volume = make_pixels(info)[0, 0]
    with create_restored(info) as writer:
        tracemalloc.start()
        writer.write(0, 0, volume)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        writer.finish()
    assert peak < 8 * volume[0].nbytes < volume.nbytes / 4
