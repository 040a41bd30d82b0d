"""Files in, restored files out: real TIFFs, real engines, interruption by kill, and what is refused."""

import json
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import tifffile
from scipy.ndimage import uniform_filter
from tiny_packages import smoothing_facts, write_smoothing_package

from live_restore.channels import Assignment
from live_restore.errors import ImageError
from live_restore.models.facts import Architecture, Normalisation
from live_restore.models.foreign.imported import Imported
from live_restore.models.foreign.importing import write_imported
from live_restore.models.nets import build_net
from live_restore.offline import restore_files
from live_restore.outputs import Options
from live_restore.records.images import open_images
from live_restore.records.restored import read_provenance
from live_restore.restorer import Restorer


@pytest.fixture
def restorer(tmp_path):
    package = write_smoothing_package(tmp_path / "package")
    with Restorer(package, precision="f32") as opened:
        yield opened


def write_movie(path, shape=(3, 2, 4, 40, 44), names=("DAPI", "GFP"), dtype=np.uint16):
    """An OME-TIFF movie, (T, Z, C, Y, X) on disk; the pixels as (T, C, Z, Y, X)."""
    pixels = np.random.default_rng(1).poisson(200, shape).astype(dtype)
    metadata = {
        "axes": "TZCYX",
        "Channel": {"Name": list(names)},
        "PhysicalSizeX": 0.1,
        "PhysicalSizeY": 0.1,
        "PhysicalSizeZ": 0.4,
        "TimeIncrement": 2.0,
    }
    tifffile.imwrite(path, pixels.transpose(0, 2, 1, 3, 4), metadata=metadata, ome=True)
    return pixels


def inside(pixels):
    return pixels[..., 4:-4, 4:-4]


def smoothed(pixels):
    return inside(uniform_filter(pixels.astype(np.float64), (*(1,) * (pixels.ndim - 2), 3, 3)))


@pytest.mark.parametrize("suffix", [".ome.tif", ".ome.zarr"])
def test_a_movie_keeps_its_axes_names_and_sizes(tmp_path, restorer, suffix):
    raw = write_movie(tmp_path / "movie.ome.tif")
    (outcome,) = restore_files([tmp_path / "movie.ome.tif"], tmp_path / f"out{suffix}", [Assignment(None, restorer)])
    assert (outcome.volumes, outcome.already, outcome.warnings) == (6, 0, [])
    (image,) = open_images(outcome.path)
    with image:
        info = image.info
        assert (info.times, info.channels, info.planes) == (3, ("DAPI", "GFP"), 4)
        assert info.pixel_size_um == pytest.approx((0.4, 0.1, 0.1))
        assert info.dtype == np.float32
        for time in range(3):
            for channel in range(2):
                restored = inside(image.volume(time, channel))
                np.testing.assert_allclose(restored, smoothed(raw[time, channel]), rtol=1e-4)


def test_a_model_per_channel_and_the_others_kept(tmp_path, restorer):
    raw = write_movie(tmp_path / "movie.ome.tif")
    options = Options(dtype="uint16")
    (outcome,) = restore_files(
        [tmp_path / "movie.ome.tif"], tmp_path / "out.ome.tif", [Assignment(("GFP",), restorer)], options
    )
    (image,) = open_images(outcome.path)
    with image:
        assert image.info.channels == ("DAPI (raw)", "GFP")
        np.testing.assert_array_equal(image.volume(2, 0), raw[2, 0])
        assert np.abs(inside(image.volume(2, 1)) - smoothed(raw[2, 1])).max() <= 0.51
    provenance = read_provenance(outcome.path)
    assert provenance["channels"][0]["model"] is None
    assert provenance["channels"][1]["model_sha256"] == restorer.package.onnx_sha256
    assert provenance["channels"][1]["engine"].startswith("openvino")


def test_a_folder_gives_a_file_each_and_a_second_run_does_nothing(tmp_path, restorer):
    for name in ("a", "b"):
        write_movie(tmp_path / f"in_{name}.tif", (1, 1, 1, 32, 32), ("c",))
    inputs = [tmp_path / "in_a.tif", tmp_path / "in_b.tif"]
    first = restore_files(inputs, tmp_path / "out", [Assignment(None, restorer)])
    assert [o.path.name for o in first] == ["in_a.ome.tif", "in_b.ome.tif"]
    written = [o.path.stat().st_mtime_ns for o in first]
    second = restore_files(inputs, tmp_path / "out", [Assignment(None, restorer)])
    assert [(o.volumes, o.already) for o in second] == [(0, 1), (0, 1)]
    assert [o.path.stat().st_mtime_ns for o in second] == written


def test_nothing_is_overwritten_by_another_model(tmp_path, restorer):
    write_movie(tmp_path / "in.tif", (1, 1, 1, 32, 32), ("c",))
    out = tmp_path / "out.ome.tif"
    restore_files([tmp_path / "in.tif"], out, [Assignment(None, restorer)])
    with Restorer(restorer.package, precision="f32", mode="rolling") as other:
        with pytest.raises(ImageError, match=r"out\.ome\.tif exists already"):
            restore_files([tmp_path / "in.tif"], out, [Assignment(None, other)])
        (outcome,) = restore_files([tmp_path / "in.tif"], out, [Assignment(None, other)], Options(overwrite=True))
    assert outcome.volumes == 1
    assert read_provenance(out)["channels"][0]["normalisation"]["mode"] == "rolling"


KILLED = """
import sys, time
from pathlib import Path
from live_restore.channels import Assignment
from live_restore.models.package import open_package
from live_restore.listener import Silence
from live_restore.offline import restore_files
from live_restore.outputs import Options
from live_restore.restorer import Restorer
class Slow(Silence):
    def volume(self):
        print("one", flush=True)
        time.sleep(1)
with Restorer(open_package(Path(sys.argv[1])), precision="f32", mode="rolling") as restorer:
    restore_files([Path(sys.argv[2])], Path(sys.argv[3]), [Assignment(None, restorer)], listener=Slow())
"""


@pytest.mark.parametrize("suffix", [".ome.tif", ".ome.zarr"])
def test_a_killed_run_goes_on_and_ends_as_an_undisturbed_one(tmp_path, restorer, suffix):
    """Rolling normalisation, so that the second run must also know what the first one saw."""
    movie = tmp_path / "movie.ome.tif"
    write_movie(movie)
    words = [str(restorer.package.path), str(movie), str(tmp_path / f"killed{suffix}")]
    process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(KILLED), *words], stdout=subprocess.PIPE, text=True)
    assert [process.stdout.readline() for _ in range(3)] == ["one\n"] * 3
    process.kill()
    process.wait(timeout=30)
    assert not Path(words[2]).exists()
    with Restorer(restorer.package, precision="f32", mode="rolling") as rolling:
        (resumed,) = restore_files([movie], Path(words[2]), [Assignment(None, rolling)])
        (whole,) = restore_files([movie], tmp_path / f"whole{suffix}", [Assignment(None, rolling)])
    assert resumed.already >= 2 and resumed.volumes + resumed.already == 6
    assert whole.volumes == 6
    (one,), (other,) = open_images(resumed.path), open_images(whole.path)
    with one, other:
        for time in range(3):
            for channel in range(2):
                np.testing.assert_array_equal(one.volume(time, channel), other.volume(time, channel))
    assert [p.name for p in tmp_path.iterdir() if "partial" in p.name] == []


def test_upsampling_makes_planes_finer(tmp_path):
    write_movie(tmp_path / "stack.tif", (1, 1, 4, 24, 28), ("c",))
    package = write_smoothing_package(tmp_path / "up", 3, facts=smoothing_facts(3, procedure="upsampling", z_factor=2.0))
    with Restorer(package, precision="f32") as up:
        (outcome,) = restore_files([tmp_path / "stack.tif"], tmp_path / "up.ome.tif", [Assignment(None, up)])
    (image,) = open_images(outcome.path)
    with image:
        assert image.info.planes == 8
        assert image.info.pixel_size_um == pytest.approx((0.4 * 3 / 7, 0.1, 0.1))


def test_warnings_of_what_the_camera_did(tmp_path, restorer):
    dark = np.full((32, 32), 100, np.uint16)
    dark[0, 0] = 200
    tifffile.imwrite(tmp_path / "dark.tif", dark)
    bright = np.random.default_rng(0).poisson(120, (32, 32)).astype(np.uint8)
    bright[:8] = 255
    tifffile.imwrite(tmp_path / "bright.tif", bright)
    inputs = [tmp_path / "dark.tif", tmp_path / "bright.tif"]
    flat, eight = restore_files(inputs, tmp_path / "out", [Assignment(None, restorer)])
    assert "flat or almost empty" in " ".join(flat.warnings)
    said = " ".join(eight.warnings)
    assert "the image is 8-bit" in said and "25.00% of the pixels are saturated (255 counts)" in said


def test_clipped_pixels_are_told(tmp_path, restorer):
    pixels = np.random.default_rng(0).normal(0, 50, (32, 32)).astype(np.int16)
    tifffile.imwrite(tmp_path / "signed.tif", pixels)
    options = Options(dtype="uint16")
    (outcome,) = restore_files([tmp_path / "signed.tif"], tmp_path / "out.tif", [Assignment(None, restorer)], options)
    assert any("were outside 0..65535 and were clipped" in sentence for sentence in outcome.warnings)


@pytest.mark.parametrize(
    ("pixels", "metadata", "options", "message"),
    [
        (np.full((8, 8), np.inf, np.float32), {}, Options(), r"not finite numbers, the first at y=0, x=0"),
        (np.zeros((8, 8, 3), np.uint8), {"photometric": "rgb"}, Options(), "colour"),
        (np.zeros((8, 8), np.float32), {}, Options(dtype="uint16"), "which uint16 would round; write it as float32"),
        (np.zeros((3, 8, 8), np.uint16), {"photometric": "minisblack"}, Options(axes="TCYX"), "TCYX"),
    ],
    ids=["infinite", "RGB", "float to uint16", "axes"],
)
def test_images_that_are_refused(tmp_path, restorer, pixels, metadata, options, message):
    tifffile.imwrite(tmp_path / "bad.tif", pixels, **metadata)
    with pytest.raises(ImageError, match=message):
        restore_files([tmp_path / "bad.tif"], tmp_path / "out.ome.tif", [Assignment(None, restorer)], options)
    assert not (tmp_path / "out.ome.tif").exists()


def test_no_channel_with_a_model(tmp_path, restorer):
    write_movie(tmp_path / "movie.tif")
    with pytest.raises(ImageError, match="no channel of 'movie' has a model; its channels are DAPI, GFP"):
        restore_files([tmp_path / "movie.tif"], tmp_path / "out.tif", [])


def test_sizes_that_differ_between_channels(tmp_path):
    write_movie(tmp_path / "stack.tif", (1, 2, 4, 24, 28))
    package = write_smoothing_package(tmp_path / "up", 3, facts=smoothing_facts(3, procedure="upsampling", z_factor=2.0))
    with Restorer(package, precision="f32") as up, pytest.raises(ImageError, match=r"different sizes .* --others leave-out"):
        restore_files([tmp_path / "stack.tif"], tmp_path / "out.tif", [Assignment(("DAPI",), up)])


def test_an_output_that_is_no_intensity_is_not_written_as_counts(tmp_path):
    write_movie(tmp_path / "in.tif", (1, 1, 1, 24, 28), ("c",))
    package = write_smoothing_package(tmp_path / "p", facts=smoothing_facts(normalisation=Normalisation(output="none")))
    with Restorer(package, precision="f32") as restorer, pytest.raises(ImageError, match="not in camera counts"):
        restore_files([tmp_path / "in.tif"], tmp_path / "out.tif", [Assignment(None, restorer)], Options(dtype="uint16"))


def test_provenance_says_how_each_volume_was_scaled(tmp_path, restorer):
    write_movie(tmp_path / "movie.ome.tif")
    (outcome,) = restore_files([tmp_path / "movie.ome.tif"], tmp_path / "out.ome.tif", [Assignment(None, restorer)])
    volumes = read_provenance(outcome.path)["volumes"]
    assert len(volumes) == 6 and json.dumps(volumes)
    assert all(len(volume["low"]) == 1 and volume["low"] < volume["high"] for volume in volumes)


def test_the_raw_image_of_another_input_is_never_replaced(tmp_path, restorer):
    """Both would be called img.ome.tif, and the folder of results is the folder of one of them."""
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        write_movie(tmp_path / folder / "img.ome.tif", (1, 1, 1, 32, 32), ("c",))
    before = (tmp_path / "a" / "img.ome.tif").read_bytes()
    with pytest.raises(ImageError, match="would replace or enter the raw image"):
        restore_files([tmp_path / "b" / "img.ome.tif"], tmp_path / "b", [Assignment(None, restorer)], Options(overwrite=True))
    inputs = [tmp_path / "b" / "img.ome.tif", tmp_path / "a" / "img.ome.tif"]
    with pytest.raises(ImageError, match=r"would both become|would replace or enter the raw image"):
        restore_files(inputs, tmp_path / "a", [Assignment(None, restorer)], Options(overwrite=True))
    assert (tmp_path / "a" / "img.ome.tif").read_bytes() == before


def test_two_images_never_become_one_file(tmp_path, restorer):
    for name in ("img.tif", "IMG.ome.tif"):
        write_movie(tmp_path / name, (1, 1, 1, 32, 32), ("c",))
    with pytest.raises(ImageError, match=r"img\.tif and .*IMG\.ome\.tif would both become|would both become"):
        restore_files([tmp_path / "img.tif", tmp_path / "IMG.ome.tif"], tmp_path / "out", [Assignment(None, restorer)])
    assert not (tmp_path / "out").exists()


def test_a_file_name_for_several_images(tmp_path, restorer):
    for name in ("a.tif", "b.tif"):
        write_movie(tmp_path / name, (1, 1, 1, 32, 32), ("c",))
    with pytest.raises(ImageError, match=r"'out\.ome\.tif' is one file, and these are 2 images; give a folder"):
        restore_files([tmp_path / "a.tif", tmp_path / "b.tif"], tmp_path / "out.ome.tif", [Assignment(None, restorer)])


def test_another_recording_of_the_same_name_is_not_taken_for_the_first(tmp_path, restorer):
    """An OME-Zarr folder: the same file names and sizes, other pixels."""
    import zarr

    for seed in (0, 1):
        group = zarr.open_group(tmp_path / "raw.zarr", mode="w", zarr_format=2)
        pixels = np.random.default_rng(seed).poisson(200, (32, 32)).astype(np.uint16)
        group.create_array("0", data=pixels, compressors=None)
        axes = [{"name": name, "type": "space"} for name in "yx"]
        scale = [{"coordinateTransformations": [{"type": "scale", "scale": [1, 1]}], "path": "0"}]
        group.attrs["multiscales"] = [{"version": "0.4", "axes": axes, "datasets": scale}]
        if seed == 0:
            restore_files([tmp_path / "raw.zarr"], tmp_path / "out.tif", [Assignment(None, restorer)])
    with pytest.raises(ImageError, match=r"out\.tif exists already"):
        restore_files([tmp_path / "raw.zarr"], tmp_path / "out.tif", [Assignment(None, restorer)])


def test_a_run_stopped_between_two_channels_of_one_model_goes_on(tmp_path):
    raw = write_movie(tmp_path / "movie.tif", (2, 2, 1, 32, 32))
    package = write_smoothing_package(tmp_path / "two", 2, 2, facts=smoothing_facts(2, 2))
    with Restorer(package, precision="f32") as restorer:
        job = [Assignment(None, restorer)]
        restore_files([tmp_path / "movie.tif"], tmp_path / "whole.tif", job)
        process = [sys.executable, "-c", textwrap.dedent(HALF_A_PART), str(package.path), str(tmp_path)]
        assert subprocess.run(process, capture_output=True, text=True, check=False).returncode == 9
        (outcome,) = restore_files([tmp_path / "movie.tif"], tmp_path / "half.tif", job)
    assert outcome.volumes >= 1
    (one,), (other,) = open_images(tmp_path / "half.tif"), open_images(tmp_path / "whole.tif")
    with one, other:
        for time in range(2):
            for channel in range(2):
                np.testing.assert_array_equal(one.volume(time, channel), other.volume(time, channel))
    assert raw.shape == (2, 2, 1, 32, 32)


HALF_A_PART = """
import os, sys
from pathlib import Path
from live_restore import offline
from live_restore.channels import Assignment
from live_restore.models.package import open_package
from live_restore.restorer import Restorer
begin = offline.create_restored
def stopping(*words, **options):
    writer = begin(*words, **options)
    write = writer.write
    def once(time, channel, volume, said=None):
        write(time, channel, volume, said)
        if (time, channel) == (1, 0):
            os._exit(9)
    writer.write = once
    return writer
offline.create_restored = stopping
with Restorer(open_package(Path(sys.argv[1])), precision="f32") as restorer:
    folder = Path(sys.argv[2])
    offline.restore_files([folder / "movie.tif"], folder / "half.tif", [Assignment(None, restorer)])
"""


def test_a_folder_of_files_as_one_movie(tmp_path, restorer):
    (tmp_path / "run").mkdir()
    for time in range(3):
        tifffile.imwrite(tmp_path / "run" / f"t{time}.tif", np.full((32, 32), 100 + time, np.uint16))
    options = Options(sequence="T")
    (outcome,) = restore_files([tmp_path / "run"], tmp_path / "out.ome.tif", [Assignment(None, restorer)], options)
    (image,) = open_images(outcome.path)
    with image:
        assert image.info.times == 3


def test_one_bad_image_does_not_end_the_batch(tmp_path, restorer):
    bad = np.full((32, 32), np.nan, np.float32)
    (tmp_path / "in").mkdir()
    write_movie(tmp_path / "in" / "a.tif", (1, 1, 1, 32, 32), ("c",))
    tifffile.imwrite(tmp_path / "in" / "b.tif", bad)
    (tmp_path / "in" / "c.tif").write_bytes(b"no image")
    write_movie(tmp_path / "in" / "d.tif", (1, 1, 1, 32, 32), ("c",))
    outcomes = restore_files([tmp_path / "in"], tmp_path / "out", [Assignment(None, restorer)])
    assert sorted(o.path.name for o in outcomes if not o.failure) == ["a.ome.tif", "d.ome.tif"]
    assert {o.path.name for o in outcomes if o.failure} == {"b.tif", "c.tif"}


def test_results_among_the_raw_images_are_not_restored_again(tmp_path, restorer):
    folder = tmp_path / "run"
    folder.mkdir()
    write_movie(folder / "a.tif", (1, 1, 1, 32, 32), ("c",))
    for volumes in (1, 0):
        (outcome,) = restore_files([folder], folder, [Assignment(None, restorer)])
        assert (outcome.path.name, outcome.volumes) == ("a.ome.tif", volumes)
    (folder / "a.tif").unlink()
    with pytest.raises(ImageError, match="holds restored images only"):
        restore_files([folder], tmp_path / "out", [Assignment(None, restorer)])


def test_overwrite_replaces_nothing_that_is_not_ours(tmp_path, restorer):
    write_movie(tmp_path / "a.tif", (1, 1, 1, 32, 32), ("c",))
    other = tmp_path / "other.tif"
    write_movie(other, (1, 1, 1, 32, 32), ("c",))
    before = other.read_bytes()
    with pytest.raises(ImageError, match="was not written by live_restore, and raw images are never replaced"):
        restore_files([tmp_path / "a.tif"], other, [Assignment(None, restorer)], Options(overwrite=True))
    assert other.read_bytes() == before


def test_samples_come_from_a_finished_file_too(tmp_path, restorer):
    write_movie(tmp_path / "a.tif", (1, 2, 3, 32, 32))
    job = ([tmp_path / "a.tif"], tmp_path / "out.ome.tif", [Assignment(None, restorer)], Options(samples=True))
    (first,), (second,) = restore_files(*job), restore_files(*job)
    assert [s.title for s in first.samples] == ["a, DAPI, maximum projection", "a, GFP, maximum projection"]
    for one, other in zip(first.samples, second.samples, strict=True):
        assert one.title == other.title
        np.testing.assert_array_equal(one.restored, other.restored)


def test_a_name_of_a_file_that_is_not_written(tmp_path, restorer):
    write_movie(tmp_path / "a.tif", (1, 1, 1, 32, 32), ("c",))
    with pytest.raises(ImageError, match=r"cannot write 'out\.png'"):
        restore_files([tmp_path / "a.tif"], tmp_path / "out.png", [Assignment(None, restorer)])


def test_samples_are_alike_in_size_and_say_what_made_them(tmp_path, restorer):
    """A network that enlarges gives no sample: there is nothing to lay beside it."""
    write_movie(tmp_path / "a.tif", (1, 2, 1, 32, 32))
    net = build_net("rcan", {"n_dim": 2, "channels": 8, "blocks": 1, "groups": 1, "upscale": 2}, seed=0)
    large = Imported(
        net=net,
        architecture=Architecture(kind="rcan", options=net.options),
        normalisation=Normalisation(per_channel=False),
        source_format="random",
        source_name="random",
        source_sha256="0" * 64,
        name="enlarging",
    )
    options = Options(samples=True)
    with Restorer(write_imported(large, tmp_path / "large"), precision="f32") as twice:
        (outcome,) = restore_files([tmp_path / "a.tif"], tmp_path / "large.tif", [Assignment(None, twice)], options)
        assert outcome.samples == []
    (outcome,) = restore_files([tmp_path / "a.tif"], tmp_path / "same.tif", [Assignment(None, restorer)], options)
    assert [sample.raw.shape for sample in outcome.samples] == [(32, 32)] * 2
    assert all(sample.caption.startswith("smoothing 3x3 on openvino") for sample in outcome.samples)


def test_a_resumed_run_has_its_samples_too(tmp_path, restorer):
    raw = write_movie(tmp_path / "movie.tif", (3, 1, 1, 32, 32), ("c",))
    command = [sys.executable, "-c", textwrap.dedent(KILLED), str(restorer.package.path), str(tmp_path / "movie.tif")]
    process = subprocess.Popen([*command, str(tmp_path / "out.tif")], stdout=subprocess.PIPE, text=True)
    assert [process.stdout.readline() for _ in range(2)] == ["one\n"] * 2
    process.kill()
    process.wait(timeout=30)
    with Restorer(restorer.package, precision="f32", mode="rolling") as rolling:
        job = [Assignment(None, rolling)]
        (outcome,) = restore_files([tmp_path / "movie.tif"], tmp_path / "out.tif", job, Options(samples=True))
    assert outcome.already >= 1
    (sample,) = outcome.samples
    np.testing.assert_array_equal(sample.raw, raw[1, 0, 0])


def test_overwrite_replaces_no_zarr_that_is_not_ours(tmp_path, restorer):
    import zarr

    group = zarr.open_group(tmp_path / "raw2.ome.zarr", mode="w", zarr_format=2)
    group.create_array("0", data=np.full((8, 8), 7, np.uint16))
    scale = [{"coordinateTransformations": [{"type": "scale", "scale": [1, 1]}], "path": "0"}]
    axes = [{"name": name, "type": "space"} for name in "yx"]
    group.attrs["multiscales"] = [{"version": "0.4", "axes": axes, "datasets": scale}]
    write_movie(tmp_path / "a.tif", (1, 1, 1, 32, 32), ("c",))
    with pytest.raises(ImageError, match="was not written by live_restore, and raw images are never replaced"):
        restore_files([tmp_path / "a.tif"], tmp_path / "raw2.ome.zarr", [Assignment(None, restorer)], Options(overwrite=True))
    assert zarr.open_group(tmp_path / "raw2.ome.zarr", mode="r")["0"][0, 0] == 7


def test_a_raw_image_that_cannot_be_read_is_not_replaced_either(tmp_path, restorer):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
    write_movie(tmp_path / "a" / "img.tif", (1, 1, 1, 32, 32), ("c",))
    (tmp_path / "b" / "img.ome.tif").write_bytes(b"half a recording")
    inputs = [tmp_path / "a" / "img.tif", tmp_path / "b" / "img.ome.tif"]
    with pytest.raises(ImageError, match="would replace or enter the raw image"):
        restore_files(inputs, tmp_path / "b", [Assignment(None, restorer)], Options(overwrite=True))
    assert (tmp_path / "b" / "img.ome.tif").read_bytes() == b"half a recording"
