"""OME-Zarr groups: versions 0.4 and 0.5, alone, several in one group, plates; and groups that are none."""

import json
from pathlib import Path

import numpy as np
import ome_writers
import pytest
import zarr

from live_restore.errors import ImageError
from live_restore.records.images import find_inputs, open_images

T, C, Z, Y, X = 2, 2, 3, 16, 20
PIXELS = np.random.default_rng(0).integers(0, 4000, (T, C, Z, Y, X), dtype=np.uint16)
AXES = {
    "t": {"name": "t", "type": "time", "unit": "millisecond"},
    "c": {"name": "c", "type": "channel"},
    "z": {"name": "z", "type": "space", "unit": "nanometer"},
    "y": {"name": "y", "type": "space", "unit": "micrometer"},
    "x": {"name": "x", "type": "space", "unit": "micrometer"},
}
SCALE = {"t": 250.0, "c": 1.0, "z": 300.0, "y": 0.1, "x": 0.2}


def multiscales(axes: str, path: str = "0", scale: dict | None = None) -> list[dict]:
    transform = {"type": "scale", "scale": [(scale or SCALE)[axis] for axis in axes]}
    return [
        {
            "version": "0.4",
            "axes": [AXES[axis] for axis in axes],
            "datasets": [{"path": path, "coordinateTransformations": [transform]}],
        }
    ]


def write(folder: Path, pixels: np.ndarray, version: str = "0.4", axes: str = "tczyx", **said) -> Path:
    """One image as its metadata describe it; a second level shows that the first is taken."""
    zarr_format = 2 if version == "0.4" else 3
    group = zarr.create_group(folder, zarr_format=zarr_format, overwrite=True)
    for path, level in (("0", pixels), ("1", pixels[..., ::2, ::2])):
        array = group.create_array(path, shape=level.shape, dtype=level.dtype, chunks=(*[1] * (level.ndim - 2), 8, 8))
        array[...] = level
    described = {"multiscales": multiscales(axes), **said}
    described["multiscales"][0]["datasets"].append({"path": "1"})
    group.attrs.update(described if version == "0.4" else {"ome": {"version": version, **described}})
    return folder


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_an_image_of_either_version(tmp_path, version):
    omero = {"channels": [{"label": "DAPI"}, {"label": "GFP"}]}
    path = write(tmp_path / "cells.ome.zarr", PIXELS, version, omero=omero)
    (image,) = open_images(path)
    with image:
        assert image.info.name == "cells"
        assert image.info.shape == PIXELS.shape
        assert image.info.channels == ("DAPI", "GFP")
        assert image.info.pixel_size_um == pytest.approx((0.3, 0.1, 0.2))
        assert image.info.frame_interval_s == pytest.approx(0.25)
        assert image.info.dtype == np.uint16
        assert not image.missing
        np.testing.assert_array_equal([[image.volume(t, c) for c in range(C)] for t in range(T)], PIXELS)


FEWER = [("yx", PIXELS[0, 0, 0]), ("zyx", PIXELS[0, 0]), ("tyx", PIXELS[:, 0, 0]), ("cyx", PIXELS[0, :, 0]), ("tczyx", PIXELS)]


@pytest.mark.parametrize(("axes", "pixels"), FEWER, ids=[axes for axes, _ in FEWER])
def test_fewer_axes(tmp_path, axes, pixels):
    (image,) = open_images(write(tmp_path / "a.zarr", pixels, axes=axes))
    assert image.info.shape == tuple(size if axis in axes else 1 for axis, size in zip("tczyx", PIXELS.shape, strict=True))
    np.testing.assert_array_equal(image.volume(0, 0), PIXELS[0, 0, : image.info.planes])


def test_sizes_without_a_unit_are_unknown(tmp_path):
    path = write(tmp_path / "a.zarr", PIXELS[0, 0, 0], axes="yx")
    said = json.loads((path / ".zattrs").read_text("utf-8"))
    for axis in said["multiscales"][0]["axes"]:
        del axis["unit"]
    (path / ".zattrs").write_text(json.dumps(said), "utf-8")
    assert open_images(path)[0].info.pixel_size_um == (None, None, None)


def test_scales_of_the_level_and_of_all_levels_multiply(tmp_path):
    path = write(tmp_path / "a.zarr", PIXELS[0, 0, 0], axes="yx")
    said = json.loads((path / ".zattrs").read_text("utf-8"))
    said["multiscales"][0]["coordinateTransformations"] = [{"type": "scale", "scale": [2.0, 3.0]}]
    (path / ".zattrs").write_text(json.dumps(said), "utf-8")
    assert open_images(path)[0].info.pixel_size_um[1:] == pytest.approx((0.2, 0.6))


def test_big_endian_pixels_become_native(tmp_path):
    (image,) = open_images(write(tmp_path / "a.zarr", PIXELS[0, 0].astype(">u2"), axes="zyx"))
    assert image.info.dtype.isnative
    assert image.volume(0, 0).dtype.isnative
    np.testing.assert_array_equal(image.volume(0, 0), PIXELS[0, 0])


# --- several images ----------------------------------------------------------------------------------------------


def test_positions_written_by_ome_writers(tmp_path):
    positions = ome_writers.Dimension(name="p", type="position", coords=["A1", "B2"])
    sizes = dict(zip("tczyx", PIXELS.shape, strict=True))
    dimensions = [positions, *ome_writers.dims_from_standard_axes({**sizes, "c": ["DAPI", "GFP"]})]
    settings = ome_writers.AcquisitionSettings(
        root_path=str(tmp_path / "run.ome.zarr"), dimensions=tuple(dimensions), dtype="uint16"
    )
    with ome_writers.create_stream(settings) as stream:
        for offset in (0, 5):
            for plane in PIXELS.reshape(-1, Y, X):
                stream.append(plane + offset)
    images = open_images(tmp_path / "run.ome.zarr")
    assert [image.info.name for image in images] == ["run_A1", "run_B2"]
    assert images[1].info.channels == ("DAPI", "GFP")
    np.testing.assert_array_equal(images[1].volume(1, 1), PIXELS[1, 1] + 5)


def test_numbered_images_without_a_list(tmp_path):
    root = tmp_path / "run.zarr"
    zarr.create_group(root, zarr_format=2, attributes={"bioformats2raw.layout": 3})
    for name in ("0", "2", "10"):
        write(root / name, PIXELS[0, 0] + int(name), axes="zyx")
    images = open_images(root)
    assert [image.info.name for image in images] == ["run_0", "run_2", "run_10"]
    np.testing.assert_array_equal(images[2].volume(0, 0), PIXELS[0, 0] + 10)


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_a_plate(tmp_path, version):
    root, zarr_format = tmp_path / "plate.zarr", 2 if version == "0.4" else 3

    def wrapped(said: dict) -> dict:
        return said if version == "0.4" else {"ome": said}

    wells = [{"path": "A/1"}, {"path": "B/2"}]
    zarr.create_group(root, zarr_format=zarr_format, attributes=wrapped({"plate": {"wells": wells}}))
    for number, well in enumerate(wells):
        fields = [{"path": "0"}, {"path": "1"}]
        zarr.create_group(root / well["path"], zarr_format=zarr_format, attributes=wrapped({"well": {"images": fields}}))
        for field in fields:
            write(root / well["path"] / field["path"], PIXELS[0, 0] + number, version, axes="zyx")
    images = open_images(root)
    assert [image.info.name for image in images] == ["plate_A_1_0", "plate_A_1_1", "plate_B_2_0", "plate_B_2_1"]
    np.testing.assert_array_equal(images[3].volume(0, 0), PIXELS[0, 0] + 1)


def test_a_group_is_one_input(tmp_path):
    path = write(tmp_path / "a.ome.zarr", PIXELS)
    assert find_inputs([tmp_path]) == find_inputs([path]) == [path]


# --- refused -----------------------------------------------------------------------------------------------------


def change(path: Path, edit) -> None:
    said = json.loads((path / ".zattrs").read_text("utf-8"))
    edit(said)
    (path / ".zattrs").write_text(json.dumps(said), "utf-8")


def strange_axis(said):
    said["multiscales"][0]["axes"][0] = {"name": "phase", "type": "other"}


def z_first(said):
    axes = said["multiscales"][0]["axes"]
    said["multiscales"][0]["axes"] = [axes[2], axes[0], axes[1], axes[3], axes[4]]


REFUSED = [
    ("no multiscales", lambda said: said.pop("multiscales"), "holds no OME-Zarr image: it says nothing of multiscales"),
    ("no axes", lambda said: said["multiscales"][0].pop("axes"), r"is no OME-Zarr image of version 0\.4 or 0\.5: KeyError"),
    (
        "old axes",
        lambda said: said["multiscales"][0].update(axes=["t", "c", "z", "y", "x"]),
        r"no OME-Zarr image of version 0\.4",
    ),
    ("no level", lambda said: said["multiscales"][0].update(datasets=[]), r"is no OME-Zarr image of version"),
    ("level not there", lambda said: said["multiscales"][0]["datasets"][0].update(path="7"), "is no readable Zarr array"),
    ("strange axis", strange_axis, r"has the axes \['phase', 'c', 'z', 'y', 'x'\]; those of an image are t, c, z, y, x"),
    ("z before t", z_first, "stores its axes in the order ztcyx; z, y and x must come last"),
    ("nonsense", lambda said: said.update(multiscales="many"), r"is no OME-Zarr image of version"),
    ("nonsense for channels", lambda said: said.update(omero={"channels": [1, 2]}), r"is no OME-Zarr image of version"),
    ("a plate of nonsense", lambda said: (said.pop("multiscales"), said.update(plate={"wells": [1]})), "is no OME-Zarr image"),
    ("too few axes", lambda said: said["multiscales"][0]["axes"].pop(0), r"has 5 axes but names 4 \(czyx\)"),
]


@pytest.mark.parametrize(("case", "edit", "words"), REFUSED, ids=[case[0] for case in REFUSED])
def test_what_is_no_image_is_refused(tmp_path, case, edit, words):
    path = write(tmp_path / "a.ome.zarr", PIXELS)
    change(path, edit)
    with pytest.raises(ImageError, match=words):
        open_images(path)


def test_complex_numbers_are_refused(tmp_path):
    with pytest.raises(ImageError, match="has complex64 pixels; intensities are whole or real numbers"):
        open_images(write(tmp_path / "a.zarr", PIXELS[0, 0].astype(np.complex64), axes="zyx"))


def test_an_empty_image_is_refused(tmp_path):
    path = write(tmp_path / "a.zarr", PIXELS[0, 0], axes="zyx")
    zarr.open_group(path, mode="r+").create_array("0", shape=(0, Y, X), dtype="u2", chunks=(1, Y, X), overwrite=True)
    with pytest.raises(ImageError, match=r"is empty: its shape \(T, C, Z, Y, X\) is \(1, 1, 0, 16, 20\)"):
        open_images(path)


def test_damaged_metadata_are_refused(tmp_path):
    path = write(tmp_path / "a.ome.zarr", PIXELS)
    (path / ".zattrs").write_text("{", "utf-8")
    with pytest.raises(ImageError, match=r"the metadata of .* are damaged: .*; copy or export it again"):
        open_images(path)


def test_a_folder_that_only_looks_like_zarr_is_refused(tmp_path):
    (tmp_path / "a.zarr").mkdir()
    with pytest.raises(ImageError, match="holds no OME-Zarr image"):
        open_images(tmp_path / "a.zarr")


def test_a_damaged_chunk_is_refused_when_it_is_read(tmp_path):
    path = write(tmp_path / "a.ome.zarr", PIXELS)
    (image,) = open_images(path)
    (path / "0" / "1.0.2.1.1").write_bytes(b"no chunk")
    np.testing.assert_array_equal(image.volume(1, 1), PIXELS[1, 1])
    with pytest.raises(ImageError, match="time 1, channel 0 of 'a' cannot be read"):
        image.volume(1, 0)


def test_axes_are_not_asked_for(tmp_path):
    with pytest.raises(ImageError, match="which says what its axes are; leave --axes out"):
        open_images(write(tmp_path / "a.zarr", PIXELS), axes="TCZYX")
