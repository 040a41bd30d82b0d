"""Training options: every preset, there and back through TOML, and what they refuse."""

import inspect
import tomllib

import pytest

from live_restore.errors import ConfigError
from live_restore.models.nets.care import CareNet
from live_restore.models.nets.rcan import RcanNet
from live_restore.training.options import NET_OPTIONS, TrainingOptions
from live_restore.training.presets import preset
from live_restore.training.toml_text import to_toml

PRESETS = [
    (kind, n_dim, name, probabilistic)
    for kind in ("care", "rcan")
    for n_dim in (2, 3)
    for name in ("quick", "best")
    for probabilistic in (False, True)
    if kind == "care" or not probabilistic
]


def read(tmp_path, text):
    path = tmp_path / "training.toml"
    path.write_text(text, encoding="utf-8")
    return TrainingOptions.from_file(path)


@pytest.mark.parametrize("chosen", PRESETS, ids=lambda chosen: "-".join(map(str, chosen)))
def test_presets_build_their_network_and_come_back_from_toml(chosen, tmp_path):
    kind, n_dim, _, probabilistic = chosen
    options = preset(*chosen)
    assert read(tmp_path, options.to_toml()) == options
    net = {"care": CareNet, "rcan": RcanNet}[kind](**options.network.net_options)
    assert net.divisible_by == (options.network.divisible_by,) * n_dim
    assert options.network.probabilistic == probabilistic
    assert (options.fit.loss == "laplace") == probabilistic
    assert all(len(patch) == n_dim for patch in options.sampling.patches)


def test_a_3d_network_sees_several_depths():
    for kind in ("care", "rcan"):
        assert len({patch[0] for patch in preset(kind, 3).sampling.patches}) >= 3


def test_best_is_larger_and_longer_than_quick():
    for kind, n_dim in (("care", 2), ("care", 3), ("rcan", 2), ("rcan", 3)):
        quick, best = preset(kind, n_dim), preset(kind, n_dim, "best")
        assert best.fit.minutes > quick.fit.minutes
        assert best.pixels_per_step >= quick.pixels_per_step


def test_the_options_of_networks_are_those_that_the_networks_have():
    for kind, net_class in (("care", CareNet), ("rcan", RcanNet)):
        known = set(inspect.signature(net_class).parameters) - {"n_dim", "channels_in", "channels_out", "upscale"}
        assert set(NET_OPTIONS[kind]) == known


def test_all_sections_come_back_from_toml(tmp_path):
    options = preset("care", 2).changed(
        pairs={"channel": 'G"FP\\', "position": r"^(\d+)_", "held_out": ("067", "073")},
        simulate={"photons": (2.0, 30.0), "blur_px": (0.0, 1.5), "high_offset_adu": 100.0, "high_gain_adu_per_e": 0.5},
        fit={"steps": 7},
    )
    assert read(tmp_path, options.to_toml()) == options
    assert options.simulate.blurs
    assert not preset("care", 2).changed(simulate={}).simulate.blurs


def test_minutes_and_steps_take_each_others_place():
    options = preset("rcan", 2)
    assert (options.with_steps(30).fit.steps, options.with_steps(30).fit.minutes) == (30, None)
    assert (options.with_steps(30).with_minutes(2).fit.steps, options.with_minutes(2).fit.minutes) == (None, 2)


REFUSED = {
    "nearest section": ("[samplig]\nbatch = 3\n[fit]\nsteps = 1", "did you mean sampling"),
    "nearest word": ("[fit]\nminuts = 3\nsteps = 1", "did you mean minutes"),
    "nearest option": ("[network.options]\nfirst_filter = 3\n[fit]\nsteps = 1", "did you mean first_filters"),
    "strange option": ("[network.options]\nxyz = 3\n[fit]\nsteps = 1", "its options are depth, kernel"),
    "no end": ("[fit]\nloss = 'mae'", "neither minutes nor steps"),
    "patch axes": ("[sampling]\npatches = [[8, 64, 64]]\n[fit]\nsteps = 1", r"has 3 sizes; a 2D network needs 2: \[Y, X\]"),
    "patch size": ("[sampling]\npatches = [[90, 96]]\n[fit]\nsteps = 1", r"patch \[90, 96\] cannot be halved.*use \[88, 96\]"),
    "laplace alone": ("[fit]\nsteps = 1\nloss = 'laplace'", "write probabilistic = true"),
    "scale untrained": ("[network.options]\nprobabilistic = true\n[fit]\nsteps = 1", "write loss = \"laplace\""),
    "loss": ("[fit]\nsteps = 1\nloss = 'l1'", "fit.loss = 'l1'"),
    "thinning": ("[augment]\nthinning = [0.5, 1.5]\n[fit]\nsteps = 1", "thinning .* up to 1"),
    "photons": ("[simulate]\nphotons = [9, 3]\n[fit]\nsteps = 1", "photons .* must have the smaller first"),
    "half a camera": ("[simulate]\nhigh_offset_adu = 9\n[fit]\nsteps = 1", "give both, or neither"),
    "percentiles": ("[normalisation]\nlow_percentile = 99.9\n[fit]\nsteps = 1", "low_percentile 99.9 must be below"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_refused_in_words(case, tmp_path):
    text, words = REFUSED[case]
    with pytest.raises(ConfigError, match=words):
        read(tmp_path, text)


def test_presets_that_are_none():
    with pytest.raises(ValueError, match="no preset 'slow' for care 2D"):
        preset("care", 2, "slow")
    with pytest.raises(ValueError, match="only care can be probabilistic"):
        preset("rcan", 2, probabilistic=True)


def test_toml_text_is_toml():
    words = {"a b": 1, "s": 'line\n"\x7fé', "t": [1.5, True, ["x"]], "e": {}, "u": {"v": {"w": 1e-7}, "n": -3}}
    assert tomllib.loads(to_toml(words)) == words
    with pytest.raises(TypeError, match="no word for None"):
        to_toml({"a": None})
