"""The real images of a package: written, read back, added later; and what is refused of a file that nobody can trust."""

import io
import zipfile

import numpy as np
import pytest
import tifffile
from tiny_packages import write_smoothing_package

from live_restore.errors import ModelError
from live_restore.evaluation.real_crops import real_crops
from live_restore.models.package import open_package
from live_restore.models.real_images import MOST_IMAGES, REAL_IMAGES, RealImages, pack, unpack
from live_restore.models.registry import bundled_folder
from live_restore.records.pairs import Pair
from live_restore.restore.noise import CameraNoise


def counts(*shape, seed=0):
    return np.random.default_rng(seed).integers(90, 900, shape).astype(np.uint16)


def images(number=2, shape=(16, 24), **said):
    sides = ([counts(*shape, seed=2 * n + side) for n in range(number)] for side in (0, 1))
    return RealImages(*sides, **said)


@pytest.mark.parametrize("shape", [(16, 24), (4, 16, 24)], ids=["2D", "3D"])
@pytest.mark.parametrize("said", [{}, {"read_noise": 2.5, "origin": "rendered"}], ids=["plain", "with all"])
def test_through_a_file_and_back(shape, said):
    there = images(3, shape, **said)
    back = unpack(pack(there), "tiny")
    for side in ("low", "high"):
        np.testing.assert_array_equal(getattr(back, side), getattr(there, side))
    assert (back.read_noise, back.origin, back.n_dim) == (there.read_noise, there.origin, len(shape))
    assert pack(there) == pack(back), "the same images, the same bytes"


def test_they_say_what_they_are():
    assert images(8).words == "8 held-out pairs" and images(1).words == "1 held-out pair"
    assert images(3, origin="rendered").words == "3 rendered images, no photographs"
    assert len(images(8).first(3).low) == 3 and len(images(8).first(0).low) == 1


WRONG_IMAGES = [
    ({"low": [], "high": []}, "0 low and 0 high images; give 1 to 8 of each"),
    ({"low": [counts(8, 8)] * 9, "high": [counts(8, 8)] * 9}, "9 low and 9 high"),
    ({"high": [counts(8, 9)]}, r"low has shape \(8, 8\), high \(8, 9\)"),
    ({"low": [counts(8, 8).astype(np.float32)]}, "low is float32, high uint16"),
    ({"low": [counts(8)], "high": [counts(8)]}, r"an image has shape \(8,\)"),
    ({"low": [counts(300, 300)], "high": [counts(300, 300)]}, r"shape \(300, 300\); give"),
    ({"read_noise": -1.0}, "a read noise of -1.0 counts cannot be"),
    ({"origin": "hearsay"}, "there is no origin 'hearsay'"),
]


@pytest.mark.parametrize(("changed", "words"), WRONG_IMAGES, ids=[words[:24] for _, words in WRONG_IMAGES])
def test_what_cannot_be_certified_with_is_refused(changed, words):
    with pytest.raises(ValueError, match=words):
        RealImages(**{"low": [counts(8, 8)], "high": [counts(8, 8)], **changed})


def packed(**arrays):
    stream = io.BytesIO()
    np.savez_compressed(stream, **arrays)
    return stream.getvalue()


def zipped(**members):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return stream.getvalue()


FINE = {"low_0": counts(8, 8), "high_0": counts(8, 8), "read_noise": np.array(np.nan), "origin": np.array(0, np.uint8)}
HOSTILE = [
    ("no zip", b"PK and nothing", "not a zip"),
    ("cut off", packed(**FINE)[:-40], "zip"),
    ("pickled", packed(**FINE | {"low_0": np.array([{}], object)}), "it holds object"),
    ("a bomb", packed(**FINE | {"low_0": np.zeros((3000, 3000), np.uint16)}), "'low_0.npy' has more than"),
    ("large", packed(**FINE | {"low_0": counts(400, 400), "high_0": counts(400, 400)}), r"shape \(400, 400\)"),
    ("many", packed(**{f"low_{n}": counts(4, 4) for n in range(40)}), "40 entries"),
    ("names", packed(**FINE | {"notes": counts(4, 4)}), "it holds high_0, low_0, notes, origin"),
    ("half", packed(**{name: FINE[name] for name in ("low_0", "read_noise", "origin")}), "it holds low_0"),
    ("no image", packed(**{name: FINE[name] for name in ("read_noise", "origin")}), "0 low and 0 high"),
    ("origin", packed(**FINE | {"origin": np.array(77, np.uint8)}), "origin is 77"),
    ("noise", packed(**FINE | {"read_noise": np.array(np.inf)}), "a read noise of inf"),
    ("floats", packed(**FINE | {"low_0": np.ones((8, 8))}), "low is float64"),
    ("text", zipped(**{"low_0.npy": "no array"}), "no .npy file"),
    ("too large", bytes(20 << 20), "20971520 bytes, more than"),
]


@pytest.mark.parametrize(("content", "words"), [row[1:] for row in HOSTILE], ids=[row[0] for row in HOSTILE])
def test_a_hostile_file_is_refused_with_a_cure(content, words):
    with pytest.raises(ModelError, match=words) as refused:
        unpack(content, "tiny/real_images.npz")
    assert "live-restore certify PACKAGE --pairs FOLDER --overwrite" in str(refused.value)


def test_the_other_byte_order_is_read():
    swapped = FINE | {"low_0": FINE["low_0"].astype(">u2")}
    np.testing.assert_array_equal(unpack(packed(**swapped), "tiny").low[0], FINE["low_0"])


@pytest.mark.parametrize("name", ["tiny", "tiny.zip"])
def test_a_package_gets_them_later_and_keeps_all_else(tmp_path, name):
    package = write_smoothing_package(tmp_path / name)
    assert package.real_images() is None
    before = {file: package.files.read(file) for file in package.files.names()}
    for number in (2, 3):
        package = package.with_real_images(images(number))
        assert len(package.real_images().low) == number
    assert {file: package.files.read(file) for file in before} == before
    assert set(package.files.names()) - set(before) == {REAL_IMAGES}
    assert [path.name for path in tmp_path.iterdir()] == [name], "nothing is left beside it"
    again = write_smoothing_package(tmp_path / name, overwrite=True)
    assert again.real_images() is None


def test_a_broken_one_is_named_by_its_package(tmp_path):
    package = write_smoothing_package(tmp_path / "tiny", extras={REAL_IMAGES: b"nothing"})
    with pytest.raises(ModelError, match=r"tiny/real_images.npz holds no images to certify with"):
        package.real_images()


@pytest.mark.parametrize("path", sorted(bundled_folder().iterdir()), ids=lambda path: path.name)
def test_the_bundled_ones_say_that_they_are_rendered(path):
    package = open_package(path)
    found = package.real_images()
    assert found.words == "3 rendered images, no photographs" and 1 < found.read_noise < 10
    assert found.n_dim == package.facts.geometry.n_dim


def write_pair(folder, low, high, name="a", shift_px=()):
    paths = []
    for side, pixels in (("low", low), ("high", high)):
        path = folder / side / f"{name}.tif"
        path.parent.mkdir(exist_ok=True)
        tifffile.imwrite(path, pixels, metadata={"axes": "ZYX"[-pixels.ndim :]})
        paths.append(path)
    return Pair(name, *paths, shift_px=shift_px)


def test_crops_are_the_part_of_most_contrast(tmp_path):
    low, high = np.full((400, 300), 100, np.uint16), np.full((400, 300), 100, np.uint16)
    low[380:, 280:] = high[380:, 280:] = counts(20, 20)
    found = real_crops([write_pair(tmp_path, low, high)], 2)
    assert found.low[0].shape == (256, 256) and found.words == "1 held-out pair"
    np.testing.assert_array_equal(found.low[0], low[-256:, -256:])


def test_few_of_many_are_taken_evenly(tmp_path):
    pairs = [write_pair(tmp_path, counts(24, 24, seed=n), counts(24, 24), f"{n:02}") for n in range(20)]
    found = real_crops(pairs, 2, "given", CameraNoise(100.0, 2.0, 1.5))
    assert len(found.low) == MOST_IMAGES and found.read_noise == 3.0 and found.origin == "given"
    np.testing.assert_array_equal(found.low[-1], counts(24, 24, seed=17))


def test_a_shift_is_undone(tmp_path):
    high = counts(40, 40)
    pair = write_pair(tmp_path, np.roll(high, (-3, 2), (0, 1)), high, shift_px=(3.0, -2.0))
    found = real_crops([pair], 2)
    np.testing.assert_array_equal(found.low[0], found.high[0])


def test_stacks_and_planes(tmp_path):
    stack = write_pair(tmp_path, counts(5, 20, 20), counts(5, 20, 20), "stack")
    plane = write_pair(tmp_path, counts(20, 20), counts(20, 20), "plane")
    np.testing.assert_array_equal(real_crops([stack], 2).low[0], counts(5, 20, 20)[2])
    assert real_crops([stack, plane], 3).low[0].shape == (5, 20, 20)
    assert real_crops([plane], 3) is None


def test_what_is_no_counts(tmp_path):
    real = counts(20, 20).astype(np.float32)
    found = real_crops([write_pair(tmp_path, real + 0.3, real / 1000)], 2)
    np.testing.assert_array_equal(found.low[0], counts(20, 20))
    stretched = found.high[0].astype(float)
    np.testing.assert_allclose(np.corrcoef(stretched.ravel(), real.ravel())[0, 1], 1, atol=1e-6)
    assert (stretched.min(), stretched.max()) == (0, 65535)
    unfit = [
        write_pair(tmp_path, real / 1000, real, "unit"),
        write_pair(tmp_path, real, np.ones_like(real), "flat"),
        write_pair(tmp_path, np.where(real > 880, np.nan, real), real, "holes"),
        write_pair(tmp_path, real, real[:10], "other"),
    ]
    assert all(real_crops([pair], 2) is None for pair in unfit)
