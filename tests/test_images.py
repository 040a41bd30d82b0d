"""What all images have in common: which files are inputs, what things are called, files in sequence."""

import itertools
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st

from live_restore.errors import ImageError
from live_restore.records.images import find_inputs, open_images
from live_restore.records.names import channel_names, natural_key, position_names, stem
from live_restore.records.units import to_s, to_um

Y, X = 16, 24
PLANES = np.random.default_rng(0).integers(0, 4000, (12, Y, X), dtype=np.uint16)


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


# --- inputs ------------------------------------------------------------------------------------------------------


def test_a_folder_stands_for_the_images_in_it_in_natural_order(tmp_path):
    names = ["img10.tif", "img2.tif", "IMG1.TIF", "stack.ome.tiff", "big.btf"]
    touch(*(tmp_path / name for name in names), tmp_path / "notes.txt", tmp_path / "deeper" / "img3.tif")
    touch(tmp_path / "run_1" / "NDTiff.index", tmp_path / "cells.ome.zarr" / "zarr.json", tmp_path / "v3" / "zarr.json")
    found = [path.name for path in find_inputs([tmp_path])]
    assert found == ["big.btf", "cells.ome.zarr", "IMG1.TIF", "img2.tif", "img10.tif", "run_1", "stack.ome.tiff", "v3"]


def test_hidden_and_half_written_files_are_no_inputs(tmp_path):
    touch(tmp_path / "a.tif", tmp_path / "._a.tif", tmp_path / "b.ome.tif.partial.ome.tif")
    touch(tmp_path / "c.ome.zarr.partial.ome.zarr" / "zarr.json")
    assert find_inputs([tmp_path]) == [tmp_path / "a.tif"]


def test_inputs_keep_their_order_and_count_once(tmp_path):
    touch(tmp_path / "a.tif", tmp_path / "b.tif", tmp_path / "c.tif")
    assert find_inputs([tmp_path / "b.tif", tmp_path]) == [tmp_path / "b.tif", tmp_path / "a.tif", tmp_path / "c.tif"]


def test_files_of_one_ome_tiff_set_count_once(tmp_path):
    members = "".join(f'<TiffData IFD="0"><UUID FileName="s_{n}.ome.tif">urn:uuid:{n}</UUID></TiffData>' for n in "12")
    for n in "12":
        tifffile.imwrite(tmp_path / f"s_{n}.ome.tif", PLANES[0], description=f"<OME>{members}</OME>", metadata=None)
    tifffile.imwrite(tmp_path / "other.ome.tif", PLANES[0])
    assert [path.name for path in find_inputs([tmp_path])] == ["other.ome.tif", "s_1.ome.tif"]
    assert find_inputs([tmp_path / "s_2.ome.tif"]) == [tmp_path / "s_2.ome.tif"]


def test_a_member_that_refers_to_its_set_is_left_to_it(tmp_path):
    refers = '<OME><BinaryOnly MetadataFile="z.ome.tif" UUID="urn:uuid:1"/></OME>'
    tifffile.imwrite(tmp_path / "a.ome.tif", PLANES[0], description=refers, metadata=None)
    tifffile.imwrite(tmp_path / "z.ome.tif", PLANES[0])
    touch(tmp_path / "broken.ome.tif")
    assert [path.name for path in find_inputs([tmp_path])] == ["broken.ome.tif", "z.ome.tif"]


NO_INPUTS = [
    ("missing.tif", r"missing\.tif does not exist; check the spelling"),
    ("photo.png", r"photo\.png: '\.png' files are not read; convert it to TIFF"),
    ("noname", r"noname: a file without suffix is not read"),
    ("empty/", r"folder .*empty holds no image; looked for \.tif, \.tiff, \.btf, \.tf8, NDTiff and OME-Zarr folders"),
]


@pytest.mark.parametrize(("name", "words"), NO_INPUTS, ids=[name for name, _ in NO_INPUTS])
def test_what_is_no_input_is_refused(tmp_path, name, words):
    touch(tmp_path / "photo.png", tmp_path / "noname", tmp_path / "empty" / "notes.txt")
    with pytest.raises(ImageError, match=words):
        find_inputs([tmp_path / name])


NO_IMAGES = [
    ("missing.tif", r"missing\.tif does not exist"),
    ("photo.png", r"'\.png' files are not read"),
    ("noname", "a file without suffix is not read"),
    ("empty", "is a folder, but neither an NDTiff dataset nor an OME-Zarr group; give the images in it"),
]


@pytest.mark.parametrize(("name", "words"), NO_IMAGES, ids=[name for name, _ in NO_IMAGES])
def test_what_is_no_image_is_refused(tmp_path, name, words):
    (tmp_path / "photo.png").write_bytes(b"\x89PNG")
    (tmp_path / "noname").write_bytes(b"II*\x00")
    touch(tmp_path / "empty" / "notes.txt")
    with pytest.raises(ImageError, match=words):
        open_images(tmp_path / name)


@given(st.lists(st.text(alphabet="ab01239._-é²", min_size=1, max_size=8)))
def test_natural_order_is_an_order(names):
    ordered = sorted((Path(f"x{name}") for name in names), key=natural_key)
    assert all(natural_key(first) <= natural_key(second) for first, second in itertools.pairwise(ordered))


# --- names and units ---------------------------------------------------------------------------------------------

STEMS = [
    ("a.tif", "a"),
    ("a.ome.tif", "a"),
    ("a.OME.TIFF", "a"),
    ("run_2.0", "run_2.0"),
    ("a.b.ome.zarr", "a.b"),
    ("ndtiffv2.0_test", "ndtiffv2.0_test"),
]


@pytest.mark.parametrize(("name", "expected"), STEMS, ids=[name for name, _ in STEMS])
def test_stems(name, expected):
    assert stem(Path(name)) == expected


@given(st.lists(st.one_of(st.none(), st.text(max_size=6)), min_size=1, max_size=5))
def test_channel_names_are_printable_and_all_different(names):
    given_names = channel_names(names, len(names))
    assert len({name.lower() for name in given_names}) == len(names)
    assert all(name and name.isprintable() for name in given_names)


def test_names_that_do_not_fit_the_channels_are_not_taken():
    assert channel_names(["DAPI"], 2) == ("channel 0", "channel 1")
    assert channel_names(["GFP", None, "GFP", "gfp"], 4) == ("GFP", "channel 1", "GFP 2", "gfp 3")


@given(st.lists(st.text(max_size=6), min_size=1, max_size=5))
def test_position_names_are_file_names(positions):
    names = position_names(Path("run.ome.tif"), positions)
    assert len({name.lower() for name in names}) == len(positions)
    assert not any(set(name) & set('<>:"/\\|?*') or name.endswith((" ", ".")) for name in names)


LENGTHS = [
    ("0.1", "µm", 0.1),
    (100, "nm", 0.1),
    (0.5, "\\u00B5m", 0.5),
    (1, "mm", 1000.0),
    (1, "Å", 1e-4),
    (2, "micron", 2.0),
    (1, "pixel", None),
    (1, None, None),
    (0, "um", None),
    (-1, "um", None),
    ("nan", "um", None),
    (None, "um", None),
]


@pytest.mark.parametrize(("value", "unit", "expected"), LENGTHS, ids=[f"{v} {u}" for v, u, _ in LENGTHS])
def test_lengths(value, unit, expected):
    assert to_um(value, unit) == (None if expected is None else pytest.approx(expected))


@pytest.mark.parametrize(("value", "unit", "expected"), [(250, "ms", 0.25), (2, "min", 120), (3, "s", 3), (1, "um", None)])
def test_durations(value, unit, expected):
    assert to_s(value, unit) == expected


# --- sequences ---------------------------------------------------------------------------------------------------


def write_each(folder: Path, pixels: np.ndarray, **options) -> Path:
    folder.mkdir()
    for number, part in enumerate(pixels):
        tifffile.imwrite(folder / f"img{number}.tif", part, photometric="minisblack", **options)
    return folder


def test_files_as_times(tmp_path):
    (movie,) = open_images(write_each(tmp_path / "movie", PLANES, metadata=None), sequence="T")
    with movie:
        assert movie.info.name == "movie"
        assert movie.info.shape == (12, 1, 1, Y, X)
        np.testing.assert_array_equal(movie.volume(10, 0)[0], PLANES[10])  # img10 after img9


def test_files_as_planes(tmp_path):
    (stack,) = open_images(write_each(tmp_path / "stack", PLANES, metadata=None), sequence="Z")
    assert stack.info.shape == (1, 1, 12, Y, X)
    np.testing.assert_array_equal(stack.volume(0, 0), PLANES)


def test_files_as_channels_are_named_after_them(tmp_path):
    (image,) = open_images(write_each(tmp_path / "image", PLANES[:2], metadata=None), sequence="C")
    assert image.info.channels == ("img0", "img1")
    np.testing.assert_array_equal(image.volume(0, 1)[0], PLANES[1])


def test_stacks_as_times_with_axes_given(tmp_path):
    folder = write_each(tmp_path / "movie", PLANES.reshape(3, 4, Y, X), metadata=None)
    (movie,) = open_images(folder, axes="ZYX", sequence="T")
    assert movie.info.shape == (3, 1, 4, Y, X)
    np.testing.assert_array_equal(movie.volume(2, 0), PLANES[8:])


def other_size(folder: Path) -> None:
    tifffile.imwrite(folder / "img7.tif", PLANES[0, :8], metadata=None)


def other_dtype(folder: Path) -> None:
    tifffile.imwrite(folder / "img7.tif", PLANES[0].astype(np.uint8), metadata=None)


def two_positions(folder: Path) -> None:
    with tifffile.TiffWriter(folder / "img7.tif", ome=True) as tif:
        tif.write(PLANES[0])
        tif.write(PLANES[0])


UNLIKE = [
    (other_size, r"img7\.tif has the shape \(T, C, Z, Y, X\) \(1, 1, 1, 8, 24\) .*the files of a sequence are all alike"),
    (other_dtype, r"img7\.tif has the shape .* and uint8 pixels, unlike img0\.tif"),
    (two_positions, r"img7\.tif holds 2 positions; the files of a sequence hold one each"),
]


@pytest.mark.parametrize(("spoil", "words"), UNLIKE, ids=[spoil.__name__ for spoil, _ in UNLIKE])
def test_files_that_are_not_alike_are_refused(tmp_path, spoil, words):
    folder = write_each(tmp_path / "movie", PLANES[:2], metadata=None)
    spoil(folder)
    with pytest.raises(ImageError, match=words):
        open_images(folder, sequence="T")


def test_sequences_that_make_no_sense_are_refused(tmp_path):
    folder = write_each(tmp_path / "stacks", PLANES.reshape(3, 4, Y, X), metadata=None)
    with pytest.raises(ImageError, match=r"img0\.tif has 4 steps along Z already; a sequence along Z needs files with one"):
        open_images(folder, sequence="Z")
    with pytest.raises(ImageError, match="files cannot be a sequence along 'Q'; it is one of T, C, Z"):
        open_images(folder, sequence="Q")
    with pytest.raises(ImageError, match=r"img0\.tif is no folder; a sequence is a folder of TIFF files"):
        open_images(folder / "img0.tif", sequence="T")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ImageError, match="empty holds no TIFF file"):
        open_images(tmp_path / "empty", sequence="T")


def test_importing_the_nouns_loads_no_format():
    heavy = ["tifffile", "zarr", "ome_writers", "ndstorage", "dask", "torch", "h5py"]
    code = "import sys, live_restore.records.images, live_restore.records.restored\n"
    code += f"print([name for name in {heavy} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
