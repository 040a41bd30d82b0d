"""Packages found in folders, broken ones too, and described in words."""

import numpy as np
import pytest
from tiny_packages import smoothing_facts, write_smoothing_package

from live_restore.errors import ModelError
from live_restore.models.facts import FrozenRange, Geometry, Normalisation
from live_restore.models.registry import COLUMNS, bundled_folder, fact_sheet, find_packages, is_package, summary_row

SAID = {
    "frozen": (
        {"normalisation": Normalisation(mode="frozen", frozen=FrozenRange(low=(100,), high=(1300,)))},
        "normalisation",
        "frozen at 100 to 1300; output back in camera counts by the inverse",
    ),
    "percentiles": ({}, "normalisation", "percentiles 2 and 99.8 of each volume; output back in camera counts by the inverse"),
    "together": (
        {"normalisation": Normalisation(measure="mean_std", per_channel=False, mode="rolling", output="none")},
        "normalisation",
        "mean and standard deviation, channels together, followed slowly; output in the network's own units",
    ),
    "doubling": (
        {"geometry": Geometry(halo=(2, 3), divisible_by=(4, 8), output_factor=(2, 1), bytes_per_pixel=8)},
        "output",
        "Y 2 times larger, X as the input",
    ),
    "reach": (
        {"geometry": Geometry(halo=(2, 3), divisible_by=(4, 8), output_factor=(1, 1), bytes_per_pixel=8)},
        "receptive field",
        "Y ±2, X ±3 pixels",
    ),
    "sizes": ({}, "sizes", "multiples of 4; other images are extended by reflection and cut back"),
    "work": ({}, "work", "0.0 kFLOP and 8 bytes of feature maps per pixel"),
    "pixel size": ({"pixel_size_um": (0.25, 0.25)}, "pixel size", "0.25 x 0.25 µm"),
    "scores": ({"scores": {"psnr_db": 30.25}}, "scores", "psnr_db 30.25"),
}


@pytest.fixture(scope="module")
def shelf(tmp_path_factory):
    """A folder with a package, a zipped package, a broken one, one that is being written, and other things."""
    folder = tmp_path_factory.mktemp("shelf")
    write_smoothing_package(folder / "good")
    write_smoothing_package(folder / "zipped.zip")
    (folder / "broken").mkdir()
    (folder / "broken" / "rdf.yaml").write_text("name: broken")
    (folder / "cut.zip").write_bytes((folder / "zipped.zip").read_bytes()[:2000])
    (folder / "images").mkdir()
    (folder / "notes.txt").write_text("no model")
    return folder


def test_every_package_is_found_and_broken_ones_say_why(shelf):
    found = {entry.path.name: entry for entry in find_packages([shelf])}
    assert sorted(found) == ["broken", "cut.zip", "good", "zipped.zip"]
    assert [name for name, entry in found.items() if entry.package] == ["good", "zipped.zip"]
    assert "describes a bioimage.io None" in found["broken"].error
    assert "no readable zip file" in found["cut.zip"].error


def test_a_package_is_found_once_however_it_is_named(shelf):
    assert len(find_packages([shelf / "good", shelf, shelf / "good"])) == 4


def test_rows_have_all_columns(shelf):
    for entry in find_packages([shelf]):
        assert len(entry.row) == len(COLUMNS)
    good = find_packages([shelf / "good"])[0]
    assert good.row == ("good", *summary_row(good.package))
    assert good.row == ("good", "CARE 2D", "9", "0.0", "±1", "4", "trained")


@pytest.mark.parametrize(("changes", "label", "text"), SAID.values(), ids=SAID)
def test_the_fact_sheet_says(tmp_path, changes, label, text):
    facts = smoothing_facts().model_copy(update=changes)
    output = {}
    if "geometry" in changes and set(facts.geometry.output_factor) != {1}:
        output = {"test_output": np.linspace(0, 1, 64 * 32, dtype=np.float32).reshape(1, 1, 64, 32)}
    assert dict(fact_sheet(write_smoothing_package(tmp_path / "smooth", facts=facts, **output)))[label] == text


def test_a_folder_that_is_not_there_says_so(tmp_path):
    with pytest.raises(ModelError, match="missing is no package and no folder; name a package, or a folder"):
        find_packages([tmp_path / "missing"])


def test_what_a_package_looks_like(shelf):
    assert is_package(shelf / "good")
    assert is_package(shelf / "good" / "rdf.yaml")
    assert not is_package(shelf)


def test_the_bundled_packages_open():
    found = find_packages([bundled_folder()])
    assert found
    assert [entry.error for entry in found] == [""] * len(found)
