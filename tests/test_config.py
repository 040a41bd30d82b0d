"""Hardware configurations: the examples load, and what cannot be is refused with its cure."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from live_restore.acquire.acquisition import PlanFile
from live_restore.config import HardwareConfig, Section, check, read_toml
from live_restore.engines.tensorrt.recipe import Recipe
from live_restore.errors import ConfigError

CONFIGS = Path(__file__).resolve().parents[1] / "hardware_configs"
DEMO = (CONFIGS / "demo.toml").read_text(encoding="utf-8")
RIG = """
[micromanager]
config_file = "rig.cfg"
[optics]
pixel_size_um = 0.1
[channels.GFP]
exposure_ms = 10
"""


@pytest.fixture
def written(tmp_path):
    def write(text):
        path = tmp_path / "rig.toml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.toml")), ids=lambda path: path.stem)
def test_examples_load(path):
    config = HardwareConfig.from_file(path)
    assert config.channels
    assert config.optics.na < config.optics.refractive_index
    with pytest.raises(ValidationError, match="frozen"):
        config.optics.na = 0.5


def test_the_demo_is_complete():
    """Every word of every section stands in the demo's file, if only as a comment."""
    config = HardwareConfig.from_file(CONFIGS / "demo.toml")
    assert {"DAPI", "FITC", "Rhodamine", "Cy5"} == set(config.channels)
    sections = [config.camera, config.optics, config.light, config.serve, config.simulation]
    words = {name for section in sections for name in type(section).model_fields}
    missing = [word for word in words if f"{word} = " not in DEMO]
    assert not missing


def test_a_rig_has_the_defaults(written):
    config = HardwareConfig.from_file(written(RIG))
    assert config.micromanager.backend == "pymmcore-plus"
    assert config.serve.address == "tcp://127.0.0.1:5757"
    assert config.camera is None
    assert config.channels["GFP"].group == "Channel"


def test_paths_are_relative_to_the_file(written, tmp_path):
    (tmp_path / "net").mkdir()
    text = RIG + 'model = "net"\n[channels.RFP]\nexposure_ms = 10\nmodel = "care2d_demo"\n[serve]\nkeys = "keys"\n'
    config = HardwareConfig.from_file(written(text))
    assert config.micromanager.config_file == tmp_path / "rig.cfg"
    assert config.serve.keys == tmp_path / "keys"
    assert config.channels["GFP"].model == str(tmp_path / "net")
    assert config.channels["RFP"].model == "care2d_demo"


REFUSED = [
    ("exposure_ms = 20.0", "exposur_ms = 20.0", r"'exposur_ms' in \[channels.DAPI\] is not known; did you mean exposure_ms\?"),
    ("exposure_ms = 20.0\n", "\n", "channels.DAPI.exposure_ms is missing"),
    ("[optics]", "[optix]", r"'optix' is not known; did you mean optics\?"),
    ("seed = 1", "sed = 1", r"'sed' in \[simulation\] is not known; did you mean seed\?"),
    ("seed = 1", "xyz = 1", r"'xyz' in \[simulation\] is not known; valid names: seed, speed"),
    ("na = 1.2", 'na = "wide"', "optics.na = 'wide': input should be a valid number"),
    ("na = 1.2", "na = 1.4", "optics: na 1.4 must be below refractive_index 1.33"),
    ("na = 1.2", "na = inf", "optics.na = inf: input should be a finite number"),
    ("bit_depth = 16", "bit_depth = 32", "camera.bit_depth = 32: input should be less than or equal to 16"),
    ("sensor = [512, 512]", "sensor = [512, 5]", "simulation.sensor 2 = 5: input should be greater than or equal to 16"),
    ('property = "Power"', "", "light: say either device and property, or group"),
    ("demo = true", "demo = false", "config_file is missing"),
    ('backend = "pymmcore-plus"', 'backend = "java"', "the demo devices run in this process"),
    ('backend = "pymmcore-plus"', 'backend = "jav"', "micromanager.backend = 'jav': input should be 'pymmcore-plus'"),
    ('address = "tcp://127.0.0.1:5757"', 'address = "5757"', "serve.address = '5757': string should match"),
    ("demo = true", "demo = ", r"is not valid TOML: .*line 6"),
]


@pytest.mark.parametrize(("word", "wrong", "message"), REFUSED, ids=[wrong.strip() or word for word, wrong, _ in REFUSED])
def test_what_cannot_be_is_refused(written, word, wrong, message):
    assert word in DEMO
    path = written(DEMO.replace(word, wrong, 1))
    with pytest.raises(ConfigError, match=message) as refused:
        HardwareConfig.from_file(path)
    assert str(path) in str(refused.value)


def test_a_rig_is_not_simulated(written):
    with pytest.raises(ConfigError, match=r"\[simulation\] is for the demo microscope; write demo = true"):
        HardwareConfig.from_file(written(RIG + "[simulation]\nseed = 2\n"))


def test_all_that_is_wrong_is_named_at_once(written):
    with pytest.raises(ConfigError, match=r"'prt' in \[micromanager\].*optics.pixel_size_um = -1") as refused:
        HardwareConfig.from_file(written(RIG.replace("0.1", "-1").replace("[optics]", "prt = 1\n[optics]")))
    assert "did you mean port?" in str(refused.value)


def test_unreadable_files(tmp_path):
    with pytest.raises(ConfigError, match=r"nothing.toml cannot be read: .*; examples are in hardware_configs/"):
        HardwareConfig.from_file(tmp_path / "nothing.toml")
    (tmp_path / "latin.toml").write_bytes(b"[optics] # \xb5m")
    with pytest.raises(ConfigError, match=r"latin.toml is not UTF-8 text; save it as UTF-8"):
        HardwareConfig.from_file(tmp_path / "latin.toml")


def test_a_byte_order_mark_is_no_error(tmp_path):
    path = tmp_path / "notepad.toml"
    path.write_text(RIG, encoding="utf-8-sig")
    assert HardwareConfig.from_file(path).channels


class Inner(Section):
    """A table in a list."""

    size: int = 0


class Outer(Section):
    """A table with a list of tables."""

    rows: tuple[Inner, ...] = ()
    one: Inner | None = None


def test_words_are_found_in_lists_and_optional_tables(written):
    with pytest.raises(ConfigError, match=r"'sise' in \[rows 2\] is not known; did you mean size\?"):
        read_toml(written("[[rows]]\nsize = 1\n[[rows]]\nsise = 1\n"), Outer)
    with pytest.raises(ConfigError, match=r"'sizes' in \[one\] is not known; did you mean size\?"):
        check({"one": {"sizes": 1}}, Outer, "a test")


@pytest.mark.parametrize(
    ("kind", "folder"), [(HardwareConfig, "hardware_configs"), (Recipe, "tensorrt_engines"), (PlanFile, "acquisitions")]
)
def test_a_file_that_is_not_there_says_where_examples_are(tmp_path, kind, folder):
    with pytest.raises(ConfigError, match=f"cannot be read: .*; examples are in {folder}/"):
        read_toml(tmp_path / "nope.toml", kind)
    assert list((Path(__file__).parents[1] / folder).glob("*.toml"))
