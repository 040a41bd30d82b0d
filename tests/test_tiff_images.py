"""TIFF images in every dialect, and files that are not whole: read as they are, or refused in words."""

import contextlib
import re
import warnings
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from micromanager_stack import write_stack

from live_restore.errors import ImageError
from live_restore.records.images import open_images

T, C, Z, Y, X = 3, 2, 4, 24, 40
PIXELS = np.random.default_rng(0).integers(100, 4000, (T, C, Z, Y, X), dtype=np.uint16)
TZCYX = PIXELS.transpose(0, 2, 1, 3, 4)
OME = {
    "axes": "TCZYX",
    "Channel": {"Name": ["DAPI", "GFP µ<&>"]},
    "PhysicalSizeX": 108.0,
    "PhysicalSizeXUnit": "nm",
    "PhysicalSizeY": 0.108,
    "PhysicalSizeYUnit": "µm",
    "PhysicalSizeZ": 0.3,
    "TimeIncrement": 250,
    "TimeIncrementUnit": "ms",
}
IMAGEJ = {
    "axes": "TZCYX",
    "spacing": 0.3,
    "unit": "um",
    "finterval": 0.25,
    "Labels": ["DAPI", "GFP µ<&>"] * (T * Z),
}
XML = '<?xml version="1.0" encoding="UTF-8"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"'
PER_UM = (1 / 0.108, 1 / 0.108)


@dataclass
class Dialect:
    name: str
    pixels: np.ndarray
    options: dict = field(default_factory=dict)
    axes: str | None = None
    shape: tuple = (T, C, Z)
    said: bool = False  # whether the file says names and sizes
    suffix: str = ".tif"


DIALECTS = [
    Dialect("ome", PIXELS, {"ome": True, "metadata": OME}, said=True, suffix=".ome.tif"),
    Dialect("ome-bigtiff", PIXELS, {"ome": True, "bigtiff": True, "metadata": OME}, said=True, suffix=".ome.tiff"),
    Dialect("ome-big-endian", PIXELS, {"ome": True, "byteorder": ">", "metadata": OME}, said=True, suffix=".ome.tif"),
    Dialect("ome-lzw", PIXELS, {"ome": True, "compression": "lzw", "metadata": OME}, said=True, suffix=".ome.tif"),
    Dialect("ome-zlib", PIXELS, {"ome": True, "compression": "zlib", "predictor": True, "metadata": OME}, said=True),
    Dialect("ome-zstd", PIXELS, {"ome": True, "compression": "zstd", "metadata": OME}, said=True),
    Dialect("ome-tiled", PIXELS, {"ome": True, "tile": (16, 16), "metadata": OME}, said=True),
    Dialect("imagej", TZCYX, {"imagej": True, "metadata": IMAGEJ, "resolution": PER_UM}, said=True),
    Dialect(
        "imagej-big-endian", TZCYX, {"imagej": True, "byteorder": ">", "metadata": IMAGEJ, "resolution": PER_UM}, said=True
    ),
    Dialect("axes in json", PIXELS, {"metadata": {"axes": "TCZYX"}, "photometric": "minisblack"}),
    Dialect("axes given", PIXELS, {"photometric": "minisblack"}, axes="TCZYX"),
    Dialect("other order given", TZCYX, {"photometric": "minisblack"}, axes="tzcyx"),
    Dialect("one page entry for all", PIXELS, {"metadata": {"axes": "TCZYX"}, "truncate": True, "photometric": "minisblack"}),
    Dialect("one page entry for all, imagej", TZCYX, {"imagej": True, "metadata": {"axes": "TZCYX"}, "truncate": True}),
    Dialect("plain stack", PIXELS[0, 0], {"metadata": None, "photometric": "minisblack"}, shape=(1, 1, Z)),
    Dialect("plain movie", PIXELS[:, 0, 0], {"metadata": None, "photometric": "minisblack"}, axes="TYX", shape=(T, 1, 1)),
    Dialect("plain channels", PIXELS[0, :, 0], {"metadata": None}, axes="CYX", shape=(1, C, 1)),
    Dialect("stack saved as colours", PIXELS[0, 0], {"photometric": "rgb", "planarconfig": "separate"}, "ZYX", (1, 1, Z)),
    Dialect("plain image", PIXELS[0, 0, 0], {"metadata": None}, shape=(1, 1, 1)),
    Dialect("plain image, lzw", PIXELS[0, 0, 0], {"metadata": None, "compression": "lzw"}, shape=(1, 1, 1)),
]


def write(folder: Path, dialect: Dialect) -> Path:
    path = folder / f"cells{dialect.suffix}"
    tifffile.imwrite(path, dialect.pixels, **dialect.options)
    return path


@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda d: d.name)
def test_every_dialect_gives_the_same_volumes(tmp_path, dialect):
    (image,) = open_images(write(tmp_path, dialect), dialect.axes)
    times, channels, planes = dialect.shape
    with image:
        assert image.info.shape == (times, channels, planes, Y, X)
        assert image.info.dtype == np.uint16
        assert image.info.dtype.isnative
        assert image.info.name == "cells"
        assert not image.missing
        for t in range(times):
            for c in range(channels):
                volume = image.volume(t, c)
                assert volume.dtype == image.info.dtype
                np.testing.assert_array_equal(volume, PIXELS[t, c, :planes])


@pytest.mark.parametrize("dialect", [d for d in DIALECTS if d.name.startswith("one page")], ids=lambda d: d.name)
def test_one_page_entry_stands_for_a_whole_hyperstack(tmp_path, dialect):
    """So that the dialects above are what they are called: ImageJ saves more than 4 GB like this."""
    with tifffile.TiffFile(write(tmp_path, dialect)) as tif:
        assert len(tif.pages) == 1


@pytest.mark.parametrize("dialect", [d for d in DIALECTS if d.said], ids=lambda d: d.name)
def test_names_and_sizes_are_read(tmp_path, dialect):
    (image,) = open_images(write(tmp_path, dialect), dialect.axes)
    assert image.info.channels[0] == "DAPI"
    assert image.info.channels[1].startswith("GFP")
    assert image.info.pixel_size_um == pytest.approx((0.3, 0.108, 0.108))
    assert image.info.frame_interval_s == pytest.approx(0.25)


def test_a_file_that_says_nothing_gives_no_sizes(tmp_path):
    tifffile.imwrite(tmp_path / "plain.tif", PIXELS[0, 0, 0], metadata=None)
    (image,) = open_images(tmp_path / "plain.tif")
    assert image.info.channels == ("channel 0",)
    assert image.info.pixel_size_um == (None, None, None)
    assert image.info.frame_interval_s is None


def test_a_stack_of_what_is_taken_for_z_and_said_so(tmp_path):
    tifffile.imwrite(tmp_path / "stack.tif", PIXELS[0, 0], metadata=None, photometric="minisblack")
    (image,) = open_images(tmp_path / "stack.tif")
    assert image.info.planes == Z
    assert image.info.notes == (
        "stack.tif does not say what its 4 planes are; they are taken for Z (if they are times: --axes TYX)",
    )
    (image,) = open_images(tmp_path / "stack.tif", axes="TYX")
    assert image.info.times == Z
    assert image.info.notes == ()


RESOLUTIONS = [
    ("pixels per centimetre", (1e4 / 0.2, 1e4 / 0.1), "CENTIMETER", (None, 0.1, 0.2)),
    ("print resolution", (118.11, 118.11), "CENTIMETER", (None, None, None)),
    ("inches", (300, 300), "INCH", (None, None, None)),
    ("no unit", (1, 1), "NONE", (None, None, None)),
]


@pytest.mark.parametrize(("name", "resolution", "unit", "expected"), RESOLUTIONS, ids=[r[0] for r in RESOLUTIONS])
def test_resolution_tags(tmp_path, name, resolution, unit, expected):
    tifffile.imwrite(tmp_path / "a.tif", PIXELS[0, 0, 0], resolution=resolution, resolutionunit=unit, metadata=None)
    (image,) = open_images(tmp_path / "a.tif")
    assert [None if size is None else round(size, 4) for size in image.info.pixel_size_um] == list(expected)


def test_labels_that_imagej_makes_itself_are_no_channel_names(tmp_path):
    labels = [f"c:{c}/2 t:{t}/3 - a.tif" for t in (1, 2, 3) for c in (1, 2)]
    tifffile.imwrite(tmp_path / "a.tif", PIXELS[:, :, 0], imagej=True, metadata={"axes": "TCYX", "Labels": labels})
    (image,) = open_images(tmp_path / "a.tif")
    assert image.info.channels == ("channel 0", "channel 1")


DTYPES = ["uint8", "int16", "uint32", "float16", "float32", "float64"]


@pytest.mark.parametrize("dtype", DTYPES)
def test_real_dtypes_are_kept(tmp_path, dtype):
    pixels = PIXELS[0, 0].astype(dtype)
    tifffile.imwrite(tmp_path / "a.tif", pixels, metadata={"axes": "ZYX"}, photometric="minisblack")
    (image,) = open_images(tmp_path / "a.tif")
    volume = image.volume(0, 0)
    assert volume.dtype == image.info.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(volume, pixels)


@settings(max_examples=25, deadline=None)
@given(
    shape=st.tuples(*[st.integers(1, 4)] * 3, st.integers(5, 20), st.integers(5, 20)),
    dtype=st.sampled_from(["uint8", "uint16", "float32"]),
    kind=st.sampled_from(["ome", "imagej", "shaped"]),
    big_endian=st.booleans(),
    seed=st.integers(0, 99),
)
def test_any_hyperstack_comes_back(tmp_path_factory, shape, dtype, kind, big_endian, seed):
    pixels = np.random.default_rng(seed).integers(0, 255, shape).astype(dtype)
    path = tmp_path_factory.mktemp("any") / "a.tif"
    stored, axes = (pixels.transpose(0, 2, 1, 3, 4), "TZCYX") if kind == "imagej" else (pixels, "TCZYX")
    options = {kind: True} if kind != "shaped" else {}
    order = ">" if big_endian else "<"
    tifffile.imwrite(path, stored, metadata={"axes": axes}, photometric="minisblack", byteorder=order, **options)
    (image,) = open_images(path)
    with image:
        assert image.info.shape == shape
        read = [[image.volume(t, c) for c in range(shape[1])] for t in range(shape[0])]
    np.testing.assert_array_equal(read, pixels)


# --- several positions -------------------------------------------------------------------------------------------


def test_every_image_of_an_ome_tiff_is_a_position(tmp_path):
    with tifffile.TiffWriter(tmp_path / "wells.ome.tif", ome=True) as tif:
        for name, pixels in (("A1", PIXELS[0, 0]), ("B/2", PIXELS[1, 0, :2])):
            tif.write(pixels, metadata={"axes": "ZYX", "Name": name}, photometric="minisblack")
    images = open_images(tmp_path / "wells.ome.tif")
    assert [image.info.name for image in images] == ["wells_A1", "wells_B_2"]
    images[0].close()
    images[0].close()
    np.testing.assert_array_equal(images[1].volume(0, 0), PIXELS[1, 0, :2])  # the other position stays open
    with pytest.raises(ValueError, match="'wells_A1' is closed"):
        images[0].volume(0, 0)
    images[1].close()


def write_set(folder: Path) -> list[Path]:
    """Two files of one OME-TIFF set, time points in turn, each describing both."""
    uuids = ["urn:uuid:00000000-0000-0000-0000-00000000000" + n for n in "12"]
    paths = [folder / "set_1.ome.tif", folder / "set_2.ome.tif"]
    data = "".join(
        f'<TiffData FirstT="{t}" IFD="0" PlaneCount="1"><UUID FileName="{p.name}">{u}</UUID></TiffData>'
        for t, (p, u) in enumerate(zip(paths, uuids, strict=True))
    )
    for path, uuid, pixels in zip(paths, uuids, PIXELS[:2, 0, 0], strict=True):
        xml = (
            f'{XML} UUID="{uuid}">'
            f'<Image ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XYZCT" Type="uint16" SizeX="{X}" SizeY="{Y}" SizeZ="1" '
            f'SizeC="1" SizeT="2"><Channel ID="Channel:0:0" Name="GFP" SamplesPerPixel="1"/>{data}</Pixels></Image></OME>'
        )
        tifffile.imwrite(path, pixels, description=xml, metadata=None)
    return paths


def test_files_of_one_set_are_one_image(tmp_path):
    first, second = write_set(tmp_path)
    for path in (first, second):
        (image,) = open_images(path)
        with image:
            assert image.info.times == 2
            assert image.info.channels == ("GFP",)
            np.testing.assert_array_equal([image.volume(t, 0)[0] for t in range(2)], PIXELS[:2, 0, 0])


def test_a_set_with_a_file_missing_is_refused(tmp_path):
    first, second = write_set(tmp_path)
    second.unlink()
    with pytest.raises(ImageError, match=r"it holds 1 of 2 planes; files of the same set are not there: set_2\.ome\.tif"):
        open_images(first)


def test_a_member_that_only_refers_to_its_set_is_refused(tmp_path):
    xml = f'{XML} UUID="urn:uuid:1"><BinaryOnly MetadataFile="master.ome.tif" UUID="urn:uuid:2"/></OME>'
    tifffile.imwrite(tmp_path / "part.ome.tif", PIXELS[0, 0], description=xml, metadata=None, photometric="minisblack")
    with pytest.raises(ImageError, match=r"part of a set that 'master\.ome\.tif' describes; open that file instead"):
        open_images(tmp_path / "part.ome.tif")


# --- Micro-Manager -----------------------------------------------------------------------------------------------

SUMMARY = {
    "Frames": T,
    "Slices": Z,
    "Channels": C,
    "Positions": 1,
    "ChNames": ["DAPI", "GFP"],
    "PixelSize_um": 0.108,
    "z-step_um": -0.3,
    "Interval_ms": 500,
}


def frames(times=T, positions=1) -> dict:
    return {
        (c, z, t, p): PIXELS[t, c, z] + p for p in range(positions) for t in range(times) for z in range(Z) for c in range(C)
    }


def test_a_micromanager_stack(tmp_path):
    path = tmp_path / "run_MMStack_Pos0.ome.tif"
    write_stack(path, frames(), SUMMARY)
    (image,) = open_images(path)
    assert image.info.channels == ("DAPI", "GFP")
    assert image.info.pixel_size_um == pytest.approx((0.3, 0.108, 0.108))
    assert image.info.frame_interval_s == pytest.approx(0.5)
    assert image.info.notes == ()
    np.testing.assert_array_equal([[image.volume(t, c) for c in range(C)] for t in range(T)], PIXELS)


def test_positions_of_a_micromanager_stack(tmp_path):
    path = tmp_path / "run_MMStack.ome.tif"
    labels = [{"Label": "Pos-3"}, {"Label": "Pos-1"}]
    write_stack(path, frames(positions=2), {**SUMMARY, "Positions": 2, "StagePositions": labels})
    images = open_images(path)
    assert [image.info.name for image in images] == ["run_MMStack_Pos-3", "run_MMStack_Pos-1"]
    np.testing.assert_array_equal(images[1].volume(2, 1), PIXELS[2, 1] + 1)


def test_a_stopped_micromanager_stack_is_read_as_far_as_it_goes(tmp_path):
    path = tmp_path / "run_MMStack_Pos0.ome.tif"
    recorded = frames()
    for place in [(1, Z - 1, T - 1, 0), (0, Z - 1, T - 1, 0)]:
        del recorded[place]
    write_stack(path, recorded, {**SUMMARY, "Frames": 10})
    (image,) = open_images(path)
    assert image.info.times == T - 1
    assert image.info.notes == (f"{path.name}: the recording broke off; 2 of 10 time points are whole, the rest is left out",)
    np.testing.assert_array_equal(image.volume(1, 1), PIXELS[1, 1])


def test_a_channel_without_z_stack_is_missing_and_named(tmp_path):
    path = tmp_path / "run_MMStack_Pos0.ome.tif"
    recorded = {place: pixels for place, pixels in frames().items() if place[0] == 0 or place[1] == 1}
    write_stack(path, recorded, SUMMARY)
    (image,) = open_images(path)
    assert image.info.times == T
    assert image.missing == {(t, 1) for t in range(T)}
    np.testing.assert_array_equal(image.volume(2, 0), PIXELS[2, 0])
    with pytest.raises(ImageError, match=r"lacks 3 of 4 planes \(z 0, 2, 3\) of time 1, channel 1; leave them out"):
        image.volume(1, 1)


def test_positions_that_a_stopped_recording_never_reached_are_left_out(tmp_path):
    path = tmp_path / "run_MMStack.ome.tif"
    write_stack(path, frames(positions=2), {**SUMMARY, "Positions": 2}, kept=T * C * Z)
    (image,) = open_images(path)
    assert image.info.notes == ("run_MMStack.ome.tif: only 1 of 2 positions were recorded",)
    np.testing.assert_array_equal(image.volume(2, 1), PIXELS[2, 1])


def test_a_micromanager_stack_without_pixels_is_refused(tmp_path):
    path = tmp_path / "run_MMStack.ome.tif"
    write_stack(path, frames(), SUMMARY, kept=0)
    with pytest.raises(ImageError, match=r"holds no pixels; the recording was cut off|cannot be read"):
        open_images(path)


# --- files that are not whole ------------------------------------------------------------------------------------

WHOLE = [
    Dialect("plain pages", PIXELS[:, 0, 0], {"metadata": None, "photometric": "minisblack"}),
    Dialect("plain pages, lzw", PIXELS[:, 0, 0], {"metadata": None, "compression": "lzw", "photometric": "minisblack"}),
    Dialect("shaped", PIXELS, {"photometric": "minisblack", "metadata": {"axes": "TCZYX"}}),
    Dialect("one page entry for all", PIXELS, {"metadata": {"axes": "TCZYX"}, "truncate": True, "photometric": "minisblack"}),
    Dialect("imagej", TZCYX, {"imagej": True, "metadata": IMAGEJ}),
    Dialect("one page entry for all, imagej", TZCYX, {"imagej": True, "metadata": {"axes": "TZCYX"}, "truncate": True}),
    Dialect("ome", PIXELS, {"ome": True, "metadata": OME}),
    Dialect("ome, lzw", PIXELS, {"ome": True, "metadata": OME, "compression": "lzw"}),
    Dialect("ome, zlib", PIXELS, {"ome": True, "metadata": OME, "compression": "zlib"}),
]


@pytest.mark.parametrize("share", [0.05, 0.3, 0.5, 0.75, 0.9, 0.97])
@pytest.mark.parametrize("dialect", WHOLE, ids=lambda d: d.name)
def test_a_truncated_file_is_refused_or_has_lost_no_pixel(tmp_path, dialect, share):
    path = write(tmp_path, dialect)
    whole = path.read_bytes()
    pixels = read_all(path)
    path.write_bytes(whole[: int(len(whole) * share)])
    try:
        left = read_all(path)
    except ImageError as error:
        assert re.search(r"truncated|incomplete|cannot be read|does not hold", str(error))
    else:  # what was cut off lies behind the pixels
        assert share > 0.95
        np.testing.assert_array_equal(left, pixels)


def read_all(path: Path) -> np.ndarray:
    (image,) = open_images(path)
    with image:
        return np.array([[image.volume(t, c) for c in range(len(image.info.channels))] for t in range(image.info.times)])


@settings(max_examples=150, deadline=None)
@given(dialect=st.sampled_from(WHOLE), cut=st.floats(0.01, 0.9999), flipped=st.floats(0, 1), flip=st.booleans())
def test_no_damage_makes_anything_but_an_image_error(tmp_path_factory, dialect, cut, flipped, flip):
    path = write(tmp_path_factory.mktemp("damage"), dialect)
    whole = bytearray(path.read_bytes())
    if flip:
        whole[int(flipped * 400)] ^= 0xFF  # in the header, the first page or its description
    else:
        whole = whole[: int(len(whole) * cut)]
    path.write_bytes(whole)
    with contextlib.suppress(ImageError):
        for image in open_images(path):
            with image:
                if np.prod(image.info.shape[2:]) < 1e7:  # a damaged width may promise terabytes
                    image.volume(0, 0)


@pytest.mark.parametrize("pages", range(1, 5))
def test_pages_cut_off_between_two_pages_are_noticed(tmp_path, pages):
    """The file ends exactly where a page ends: every page that is left is whole."""
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as tif:
        for plane in PIXELS[0, 0, [0, 1, 2, 3, 0]]:
            tif.write(plane, metadata=None, contiguous=False)
    with tifffile.TiffFile(path) as tif:
        end = tif.pages[pages].offset
    path.write_bytes(path.read_bytes()[:end])
    with pytest.raises(ImageError, match=rf"truncated after {pages} pages|cannot be read"):
        open_images(path)


def test_broken_compression_is_refused_when_it_is_read(tmp_path):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, PIXELS[0, 0], compression="lzw", metadata={"axes": "ZYX"}, photometric="minisblack")
    with tifffile.TiffFile(path) as tif:
        begin, count = tif.pages[2].dataoffsets[0], tif.pages[2].databytecounts[0]
    broken = bytearray(path.read_bytes())
    broken[begin : begin + count] = b"\xff" * count
    path.write_bytes(broken)
    (image,) = open_images(path)
    with pytest.raises(ImageError, match="cannot be read as TIFF"):
        image.volume(0, 0)


def test_a_page_without_data_is_refused(tmp_path):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, PIXELS[0, 0], compression="zlib", metadata=None, photometric="minisblack")
    with tifffile.TiffFile(path, mode="r+") as tif:
        tif.pages[1].tags["StripByteCounts"].overwrite(0)
    with pytest.raises(ImageError, match="it holds 3 of 4 planes; copy or export it again"):
        open_images(path)


def colour(path: Path) -> None:
    tifffile.imwrite(path, np.zeros((Y, X, 3), np.uint8), photometric="rgb")


def planar_colour(path: Path) -> None:
    tifffile.imwrite(path, np.zeros((3, Y, X), np.uint8), photometric="rgb", planarconfig="separate")


def colour_with_alpha(path: Path) -> None:
    tifffile.imwrite(path, np.zeros((Y, X, 4), np.uint8), photometric="rgb", extrasamples=["unassalpha"])


def inverted(path: Path) -> None:
    tifffile.imwrite(path, PIXELS[0, 0, 0], photometric="miniswhite")


def bits(path: Path) -> None:
    tifffile.imwrite(path, np.zeros((Y, X), bool))


def complex_numbers(path: Path) -> None:
    tifffile.imwrite(path, np.zeros((Y, X), np.complex64))


def text(path: Path) -> None:
    path.write_text("this is no image\n" * 20, encoding="utf-8")


def nothing(path: Path) -> None:
    path.touch()


def no_pixels(path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tifffile.imwrite(path, np.zeros((0, Y, X), np.uint16), photometric="minisblack")


def samples_last(path: Path) -> None:
    tifffile.imwrite(path, PIXELS[0, 0].transpose(1, 2, 0), metadata={"axes": "YXZ"}, photometric="minisblack")


def colour_filters(path: Path) -> None:
    tifffile.imwrite(path, PIXELS[0, 0, 0], photometric="cfa", metadata=None)


def bricks(path: Path) -> None:
    options = {"volumetric": True, "tile": (4, 16, 16), "compression": "zlib", "photometric": "minisblack"}
    tifffile.imwrite(path, PIXELS[0, 0], metadata={"axes": "ZYX"}, **options)


def unexplained(path: Path) -> None:
    tifffile.imwrite(path, PIXELS[0], photometric="minisblack")


REFUSED = [
    (colour, "is a colour image"),
    (planar_colour, r"is a colour image of shape \(3, 24, 40\) \(SYX\).*; if it is a stack, say of what, e\.g\. --axes ZYX"),
    (colour_with_alpha, "is a colour image"),
    (inverted, r"stores bright as small numbers \(MinIsWhite\)"),
    (colour_filters, r"is a colour image \(CFA\); save each channel as grayscale"),
    (bricks, r"stores pages of shape \(4, 24, 40\) instead of planes \(24, 40\); save it again, one page per plane"),
    (bits, "has bool pixels; intensities are whole or real numbers"),
    (complex_numbers, "has complex64 pixels"),
    (text, "cannot be read as TIFF, it is damaged or something else"),
    (nothing, r"is empty \(0 bytes\)"),
    (no_pixels, r"is empty: its shape is \(0,"),
    (samples_last, "stores its axes in the order YXZ; save it again with Y and X last"),
    (unexplained, r"has the shape \(2, 4, 24, 40\) and does not say what its axes are; say it, e\.g\. --axes TZYX"),
]


@pytest.mark.parametrize(("make", "words"), REFUSED, ids=[make.__name__ for make, _ in REFUSED])
def test_what_is_no_image_of_intensities_is_refused(tmp_path, make, words):
    make(tmp_path / "a.tif")
    with pytest.raises(ImageError, match=words):
        open_images(tmp_path / "a.tif")


AXES = [
    ("TZCYX", r"axes 'TZCYX' do not fit .*a\.tif, whose shape is \(3, 24, 40\): 3 axes, so 3 letters"),
    ("YX", r"do not fit .*whose shape is \(3, 24, 40\)"),
    ("SYX", "axes 'SYX' are not understood: letters of TCZYX"),
    ("TTYX", "axes 'TTYX' are not understood"),
    ("YXT", "axes 'YXT' are not understood: .* Y and X last"),
    ("", "axes '' are not understood"),
]


@pytest.mark.parametrize(("axes", "words"), AXES, ids=[a or "empty" for a, _ in AXES])
def test_axes_that_do_not_fit_are_refused(tmp_path, axes, words):
    tifffile.imwrite(tmp_path / "a.tif", PIXELS[:, 0, 0], metadata=None, photometric="minisblack")
    with pytest.raises(ImageError, match=words):
        open_images(tmp_path / "a.tif", axes)


@pytest.mark.parametrize(("time", "channel"), [(3, 0), (0, 2), (-1, 0)])
def test_a_volume_outside_the_image_is_a_wrong_argument(tmp_path, time, channel):
    tifffile.imwrite(tmp_path / "a.tif", PIXELS, metadata={"axes": "TCZYX"}, photometric="minisblack")
    (image,) = open_images(tmp_path / "a.tif")
    with pytest.raises(ValueError, match=r"is outside 'a', which has 3 times and 2 channels"):
        image.volume(time, channel)


@pytest.mark.realdata
def test_real_files(shared_data):
    (stack,) = open_images(shared_data / "clean_nuclei_3d" / "nuclei.tif")
    assert stack.info.shape == (1, 1, 60, 256, 256)
    assert stack.volume(0, 0).mean() == pytest.approx(7014.64, abs=0.01)
    (field,) = open_images(shared_data / "pairs_widefield_w2s" / "low" / "061_0.tif")
    assert (field.info.shape, field.info.dtype) == ((1, 1, 1, 512, 512), np.uint8)
