"""The pairing of restored images with their references, by file name and channel."""

import numpy as np
import pytest
import tifffile

from live_restore.errors import ImageError
from live_restore.pairing import score_files


def write(path, shape=(32, 32), seed=0, **metadata):
    path.parent.mkdir(exist_ok=True)
    pixels = np.random.default_rng(seed).poisson(100, shape).astype(np.uint16)
    tifffile.imwrite(path, pixels, ome=".ome." in path.name, metadata=metadata)
    return path


def test_files_are_paired_by_name_whatever_their_suffix(tmp_path):
    for name in ("a", "b"):
        write(tmp_path / "restored" / f"{name}.ome.tif", seed=ord(name))
        write(tmp_path / "high" / f"{name}.tif", seed=ord(name))
    scores = score_files([tmp_path / "restored"], [tmp_path / "high"])
    assert [score.name for score in scores] == ["a", "b"]
    assert all(score.restored.psnr_db == np.inf for score in scores)


def test_one_against_one_needs_no_name(tmp_path):
    (score,) = score_files(
        [write(tmp_path / "x.tif")], [write(tmp_path / "y.tif", seed=1)], [write(tmp_path / "z.tif", seed=1)]
    )
    assert score.raw.psnr_db == np.inf and score.restored.psnr_db < 20


def test_every_volume_is_scored_and_channels_find_each_other(tmp_path):
    names = {"axes": "TCYX", "Channel": {"Name": ["DAPI (raw)", "GFP"]}}
    restored = write(tmp_path / "r.ome.tif", (2, 2, 32, 32), **names)
    reference = write(tmp_path / "h.ome.tif", (2, 2, 32, 32), axes="TCYX", Channel={"Name": ["GFP", "DAPI"]})
    scores = score_files([restored], [reference])
    assert [score.name for score in scores] == ["r GFP t0", "r GFP t1"]


@pytest.mark.parametrize(
    ("restored", "reference", "message"),
    [
        (["a.tif", "b.tif"], ["a.tif", "c.tif"], "1 of 2 restored images have no reference of the same name, the first is 'b'"),
        (["a.tif", "a.ome.tif"], ["a.tif", "b.tif"], "two images are called 'a'"),
    ],
    ids=["lonely", "twice"],
)
def test_names_that_do_not_pair(tmp_path, restored, reference, message):
    sets = [[write(tmp_path / side / name) for name in names] for side, names in (("r", restored), ("h", reference))]
    with pytest.raises(ImageError, match=message):
        score_files(*sets)


def test_images_of_other_length_or_channels(tmp_path):
    movie = write(tmp_path / "m.ome.tif", (3, 32, 32), axes="TYX")
    short = write(tmp_path / "s.ome.tif", (2, 32, 32), axes="TYX")
    with pytest.raises(ImageError, match="'m' has 3 time points, 's' 2"):
        score_files([movie], [short])
    with pytest.raises(ImageError, match="'m' has 3 time points, 's' 2"):
        score_files([movie], [movie], [short])
    two = write(tmp_path / "two.ome.tif", (2, 32, 32), axes="CYX", Channel={"Name": ["A", "B"]})
    three = write(tmp_path / "three.ome.tif", (3, 32, 32), axes="CYX", Channel={"Name": ["C", "D", "E"]})
    with pytest.raises(ImageError, match="channel 'A' of 'two' has no partner; 'three' has C, D, E"):
        score_files([two], [three])
