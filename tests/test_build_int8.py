"""A package gets its int8 layers: found on images, kept, certified, and taken by "auto" if they are good enough."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
import tifffile
from tiny_packages import smoothing_facts, write_smoothing_package
from typer.testing import CliRunner

from live_restore.build_int8 import build_int8
from live_restore.certified import choose_for
from live_restore.cli import app
from live_restore.engines.cache.engine_cache import EngineCache
from live_restore.engines.certificates.certifier import Certifier
from live_restore.engines.engine import what_is_offered
from live_restore.errors import EngineError
from live_restore.models.package import open_package
from live_restore.models.registry import bundled_folder

pytestmark = pytest.mark.skipif(
    "int8" not in what_is_offered("openvino").precisions, reason="OpenVINO has no int8 arithmetic on this processor"
)


@pytest.fixture
def demo(tmp_path):
    """The bundled RCAN of 21,000 parameters and its rendered images."""
    shutil.copytree(bundled_folder() / "rcan3d_demo", tmp_path / "demo")
    return open_package(tmp_path / "demo")


def test_what_is_built_is_certified_and_then_taken(demo, tmp_path):
    assert choose_for(demo, "openvino", cache=EngineCache(tmp_path / "none")).precision != "int8"
    built = build_int8(demo)
    assert built.path.is_file() and built.words.endswith("2 images of the package")
    assert built.certificate.images > 0 and built.certificate.relative_error < 0.01
    chosen = choose_for(demo, "openvino")
    assert (chosen.precision == "int8") == built.certificate.passes


def test_pairs_of_the_user_are_taken_on_the_command_line(demo, tmp_path):
    images = demo.real_images()
    for side, stacks in (("low", images.low), ("high", images.high)):
        (tmp_path / "pairs" / side).mkdir(parents=True)
        for place, stack in enumerate(stacks[:2]):
            tifffile.imwrite(tmp_path / "pairs" / side / f"{place:03d}_0.tif", stack, metadata={"axes": "ZYX"}, imagej=True)
    done = CliRunner().invoke(app, ["build", str(demo.path), "--precision", "int8", "--pairs", str(tmp_path / "pairs")])
    assert done.exit_code == 0, done.output
    assert "convolutions, 2 images; against float32" in " ".join(done.output.split())


def test_pairs_are_for_int8_only(demo, tmp_path):
    done = CliRunner().invoke(app, ["build", str(demo.path), "--pairs", str(tmp_path)])
    assert isinstance(done.exception, ValueError) and "--pairs is for --precision int8" in str(done.exception)


def test_without_images_it_asks_for_some(tmp_path):
    bare = write_smoothing_package(tmp_path / "bare", 2, facts=smoothing_facts(2))
    with pytest.raises(EngineError, match="carries no real images to find int8 layers on; name some: --pairs FOLDER"):
        build_int8(bare)


def test_images_that_are_flat_are_refused(demo, tmp_path):
    for side in ("low", "high"):
        (tmp_path / "flat" / side).mkdir(parents=True)
        tifffile.imwrite(tmp_path / "flat" / side / "000_0.tif", np.full((8, 32, 32), 7, np.uint16), metadata={"axes": "ZYX"})
    with pytest.raises(EngineError, match="none of 1 pairs can be used: flat"):
        build_int8(demo, [tmp_path / "flat"])


def test_several_channels_are_refused(tmp_path):
    two = write_smoothing_package(tmp_path / "two", channels=2)
    with pytest.raises(EngineError, match="takes 2 channels and gives 2; int8 layers are found for networks of one channel"):
        build_int8(two)


def test_what_its_certificate_refuses_is_tried_again_with_less(demo, monkeypatch):
    given, measured = [], Certifier.certificate

    def certificate(self, engine, precision):
        given.append(measured(self, engine, precision))
        return replace(given[-1], psnr_loss_db=1.0) if len(given) == 1 else given[-1]

    monkeypatch.setattr(Certifier, "certificate", certificate)
    said = []
    built = build_int8(demo, tell=said.append)
    assert said.count("certifying") == 2 and built.certificate is given[1]
    assert given[1].relative_error < given[0].relative_error
