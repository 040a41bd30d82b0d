"""The recipes of TensorRT plans: those that come with live_restore, and what is refused in one's own. No TensorRT is needed."""

from pathlib import Path

import pytest
from small_graphs import graph, net_graph, node

from live_restore.engines.certificates.certificate import Tolerance
from live_restore.engines.graphs.counts_graph import from_counts
from live_restore.engines.graphs.pooling import applying, measuring
from live_restore.engines.tensorrt import recipe as tensorrt_recipe
from live_restore.engines.tensorrt.recipe import (
    Profile,
    exactly,
    fits,
    own_recipes_folder,
    read_recipe,
    recipe_for,
    recipes_folder,
    shipped_recipes,
)
from live_restore.engines.tensorrt.targets import Target, generation_of, target_named
from live_restore.errors import ConfigError, EngineError, EngineUnavailable

RECIPE = """
name = "mine"
axes = "YX"
attention = false

[[profiles]]
name = "frames"
min = [1, 16, 16]
opt = [1, 512, 512]
max = [1, 1024, 1024]
"""


@pytest.fixture
def written(tmp_path):
    def write(text):
        (tmp_path / "mine.toml").write_text(text, encoding="utf-8")
        return tmp_path / "mine.toml"

    return write


def nets():
    care = net_graph("care", n_dim=2, first_filters=4)
    rcan = net_graph("rcan", n_dim=2, groups=1, blocks=1, channels=8)
    return {
        "care2d": care,
        "care3d": net_graph("care", n_dim=3, first_filters=4),
        "rcan2d": rcan,
        "rcan3d": net_graph("rcan", n_dim=3, groups=1, blocks=1, channels=8),
        "care2d from counts": from_counts(care),
        "care2d to whole counts": from_counts(care, rounded=True),
        "rcan2d from counts": from_counts(rcan),
        "rcan2d first pass": from_counts(measuring(rcan)),
        "rcan2d second pass": from_counts(applying(rcan)),
        "care3d projection": net_graph("projection_care", n_dim=3, first_filters=4),
    }


@pytest.mark.parametrize("name", list(nets()))
def test_every_network_has_its_recipe(name):
    assert recipe_for(nets()[name]).name == name.split()[0]


@pytest.mark.parametrize("recipe", shipped_recipes(), ids=lambda recipe: recipe.name)
def test_what_comes_with_live_restore(recipe):
    assert (recipes_folder() / f"{recipe.name}.toml").is_file()
    assert recipe.precisions[0] == "f16" and set(recipe.targets) >= {"this", "rtx30", "rtx40", "rtx50"}
    assert recipe.tolerance.limits() == Tolerance()
    for profile in recipe.profiles:
        # poolings of depth 4 divide them, and no joined feature of CARE or RCAN has 2^31 numbers
        assert all(size % 16 == 0 for size in profile.opt[1:])
        widest = 32 if recipe.attention else 96
        batch, *sizes = profile.max
        pixels = batch
        for size in sizes:
            pixels *= size
        assert widest * pixels < 2**31


def test_the_recipes_of_a_wheel_lie_within_the_package(tmp_path, monkeypatch):
    package = tmp_path / "live_restore"
    (package / "engines" / "tensorrt").mkdir(parents=True)
    (package / "tensorrt_engines").mkdir()
    (package / "tensorrt_engines" / "mine.toml").write_text(RECIPE, encoding="utf-8")
    monkeypatch.setattr(tensorrt_recipe, "__file__", str(package / "engines" / "tensorrt" / "recipe.py"))
    assert recipes_folder() == package / "tensorrt_engines"
    (package / "tensorrt_engines" / "mine.toml").unlink()
    with pytest.raises(EngineError, match=r"the build recipes are not in .*install live_restore again, or give one: --recipe"):
        recipes_folder()


def test_a_network_without_recipe_is_refused():
    with pytest.raises(EngineError, match=r"no build recipe for a network with 3 axes without attention.*put it into"):
        recipe_for(graph([node("Identity")], shape=["n", 1, "x"]))


def test_ones_own_recipes_go_first(written, tmp_path, monkeypatch):
    monkeypatch.setenv("LIVE_RESTORE_CONFIG", str(tmp_path / "settings"))
    care = net_graph("care", n_dim=2, first_filters=4)
    assert recipe_for(care).name == "care2d" and recipe_for(care).tolerance.limits() == Tolerance()
    own_recipes_folder().mkdir(parents=True)
    mine = written(RECIPE + "\n[tolerance]\nbias = 0.01\n").rename(own_recipes_folder() / "mine.toml")
    assert recipe_for(care).name == "mine" and recipe_for(care).tolerance.limits() == Tolerance(bias=0.01)
    assert recipe_for(net_graph("care", n_dim=3, first_filters=4)).name == "care3d"
    mine.write_text("nonsense", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"mine.toml is not valid TOML"):
        recipe_for(care)


def test_the_nearest_profile_that_takes_a_shape_is_chosen():
    recipe = next(recipe for recipe in shipped_recipes() if recipe.name == "care2d")
    named = {
        sizes: getattr(recipe.profile_for(*sizes), "name", None)
        for sizes in [(1, (2048, 2048)), (1, (512, 512)), (4, (512, 512)), (1, (4096, 4096)), (1, (8, 8)), (1, (5000, 64))]
    }
    assert list(named.values()) == ["frames", "tiles", "tiles", "frames", None, None]
    assert recipe.profile_for(1, (16, 512, 512)) is None


def test_one_exact_shape():
    profile = exactly(1, (16, 512, 512))
    assert profile.takes(1, (16, 512, 512)) and not profile.takes(1, (16, 512, 513)) and str(profile) == "exact 1x16x512x512"


def test_ones_own_recipe(written):
    recipe = read_recipe(written(RECIPE + "\n[tolerance]\npsnr_loss_db = 0.1\n"))
    assert recipe.tolerance.limits() == Tolerance(psnr_loss_db=0.1) and recipe.precisions == ("f16", "f32") and not recipe.tf32
    assert str(recipe.profiles[0]) == "frames 1x16x16..1x1024x1024, best 1x512x512"
    assert fits(recipe, net_graph("care", n_dim=2, first_filters=4))
    assert not fits(recipe, net_graph("care", n_dim=3, first_filters=4))


def test_the_hash_is_of_all_but_shapes_and_words(written):
    recipe = read_recipe(written(RECIPE))
    same = read_recipe(
        written(RECIPE.replace("1024", "2048") + '\n[[profiles]]\nname = "b"\nmin=[1,8,8]\nopt=[1,8,8]\nmax=[1,8,8]\n')
    )
    other = read_recipe(written("tf32 = true\n" + RECIPE))
    assert recipe.sha256 == same.sha256 != other.sha256


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("axes", "axis"), "'axis' is not known; did you mean axes"),
        (('"YX"', '"XY"'), "axes = 'XY'"),
        (("[1, 512, 512]", "[1, 2000, 512]"), r"'frames' needs min <= opt <= max in every axis; it has"),
        (("[1, 512, 512]", "[1, 512]"), "min, opt and max of 'frames' must have equally many sizes"),
        (("[1, 16, 16]", "[0, 16, 16]"), "profiles 1.min 1 = 0"),
        (("1, ", "1, 1, "), r"profile 'frames' must give 1 \+ 2 sizes: images at once, YX"),
        (("[[profiles]]", "[profile]"), "profiles is missing"),
        (("attention", 'precisions = ["int8"]\nattention'), "precisions 1 = 'int8'"),
        (("attention", 'targets = ["rtx60"]\nattention'), "targets 1 = 'rtx60'"),
    ],
)
def test_what_is_refused(written, change, words):
    with pytest.raises(ConfigError, match=words):
        read_recipe(written(RECIPE.replace(*change)))


def test_two_profiles_of_one_name_are_refused(written):
    with pytest.raises(ConfigError, match="two profiles are called 'frames'"):
        read_recipe(written(RECIPE + RECIPE[RECIPE.index("[[") :]))


def test_a_recipe_that_is_not_there():
    with pytest.raises(ConfigError, match="cannot be read"):
        read_recipe(Path("no_such_recipe.toml"))


def test_targets():
    assert [str(target_named(name)) for name in ("rtx20", "rtx30", "rtx40", "rtx50")] == [
        "rtx20 (7.5)",
        "rtx30 (8.6)",
        "rtx40 (8.9)",
        "rtx50 (12.0)",
    ]
    assert generation_of((8, 9)) == Target("rtx40", "rtx40", (8, 9), "any") and generation_of((9, 0)) is None
    with pytest.raises(EngineUnavailable, match="no target 'rtx60'; the targets are this, rtx20, rtx30, rtx40, rtx50"):
        target_named("rtx60")


def test_profiles_need_a_plain_name():
    with pytest.raises(ValueError, match="string_pattern_mismatch"):
        Profile(name="All Frames", min=(1,), opt=(1,), max=(1,))
