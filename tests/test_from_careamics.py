"""CAREamics models imported: what its checkpoints and packages say, understood; what they should not hold, refused."""

import hashlib
import io
import os

import numpy as np
import pytest
import torch
import yaml
from careamics_checkpoints import STATISTICS, checkpoint, early_checkpoint, picture, state_dict
from foreign_packages import zipped

from live_restore.errors import ModelError
from live_restore.models.foreign import from_bioimageio
from live_restore.models.foreign.from_careamics import read
from live_restore.models.foreign.importing import import_model
from live_restore.models.onnx_export import run_net

PLAIN = {"n_dim": 2, "depth": 1, "first_filters": 8}
SOLID = {"n_dim": 3, "depth": 1, "first_filters": 8}
N2V2 = PLAIN | {"depth": 2, "n2v2": True}
TWO = PLAIN | {"channels_in": 2, "channels_out": 2}


def save(folder, content, name="cells.ckpt"):
    torch.save(content, folder / name)
    return folder / name


# CAREamics' normalisation, and ours: what is measured, its percentiles, per channel, output, ranges in and out
SCHEMES = {
    "mean and standard deviation": (
        STATISTICS,
        ("mean_std", 0, 100, True, "frozen"),
        ([300], [440.000001]),
        ([430], [610.000001]),
    ),
    "without a target": (
        {"name": "mean_std", "input_means": [300.0], "input_stds": [140.0]},
        ("mean_std", 0, 100, True, "inverse"),
        ([300], [440.000001]),
        None,
    ),
    "target left alone": (
        STATISTICS | {"skip_target": True},
        ("mean_std", 0, 100, True, "none"),
        ([300], [440.000001]),
        None,
    ),
    "quantiles": (
        {
            "name": "quantile",
            "per_channel": False,
            "lower_quantiles": [0.02],
            "upper_quantiles": 0.998,
            "input_lower_quantile_values": 100.0,
            "input_upper_quantile_values": [900.0],
            "target_lower_quantile_values": [120.0],
            "target_upper_quantile_values": [2000.0],
        },
        ("percentiles", 2, 99.8, False, "frozen"),
        ([100], [900.00000001]),
        ([120], [2000]),
    ),
    "minimum and maximum": (
        {"name": "min_max", "input_mins": [90.0], "input_maxes": [4000.0]},
        ("percentiles", 0, 100, True, "inverse"),
        ([90], [4000.00000001]),
        None,
    ),
    "none": ({"name": "none"}, ("none", 2, 99.8, True, "none"), None, None),
}


@pytest.mark.parametrize("case", SCHEMES)
def test_its_normalisation_is_understood(tmp_path, case):
    scheme, expected, frozen, target = SCHEMES[case]
    found = read(save(tmp_path, checkpoint(normalization=scheme, **PLAIN))).normalisation
    assert (found.measure, found.per_channel, found.output) == (expected[0], expected[3], expected[4])
    assert (found.low_percentile, found.high_percentile) == pytest.approx(expected[1:3])
    for counts, wanted in ((found.frozen, frozen), (found.output_range, target)):
        assert (counts is None) == (wanted is None)
        if wanted:
            np.testing.assert_allclose((counts.low, counts.high), wanted, rtol=1e-12)


def test_a_checkpoint_says_what_it_is(tmp_path):
    path = save(tmp_path, checkpoint(**PLAIN))
    imported = read(path)
    assert (imported.name, imported.source_format, imported.source_name) == ("cells", "careamics-ckpt", "cells.ckpt")
    assert imported.source_sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert imported.written_by == "CAREamics, configuration 0.3.0"
    assert imported.architecture.kind == "careamics_unet"
    assert imported.architecture.options == imported.net.options
    assert imported.architecture.parameters == sum(tensor.numel() for tensor in imported.net.parameters())
    assert imported.notes == ("trained by CAREamics as 'care'; statistics of its training images are frozen",)
    assert ["10.1038/s41592-018-0216-7" in text for text in imported.cite] == [True]


def test_it_restores_as_its_network_does(tmp_path):
    imported = read(save(tmp_path, checkpoint(**PLAIN)))
    weights = {name.removeprefix("model."): tensor for name, tensor in checkpoint(**PLAIN)["state_dict"].items()}
    head = weights["final_conv.bias"]
    np.testing.assert_array_equal(imported.net.get_parameter("head.bias").detach(), head)
    assert run_net(imported.net, picture((1, 1, 8, 8))).shape == (1, 1, 8, 8)


ALGORITHMS = {
    "n2n": ("n2n", PLAIN, ["10.48550/arXiv.1803.04189"]),
    "n2v": ("n2v", SOLID, ["10.1109/cvpr.2019.00223"]),
    "n2v2": ("n2v", N2V2, ["10.1109/cvpr.2019.00223", "10.1007/978-3-031-25069-9_33"]),
}


@pytest.mark.parametrize("case", ALGORITHMS)
def test_every_algorithm_cites_its_papers(tmp_path, case):
    algorithm, options, dois = ALGORITHMS[case]
    imported = read(save(tmp_path, checkpoint(algorithm, **options)))
    assert len(imported.cite) == len(dois)
    assert all(doi in text for doi, text in zip(dois, imported.cite, strict=True))
    assert imported.notes[0].startswith(f"trained by CAREamics as '{algorithm}'")


@pytest.mark.parametrize("early", [False, True], ids=["0.0.22", "0.0.12"])
def test_early_checkpoints_are_read(tmp_path, early):
    imported = read(save(tmp_path, early_checkpoint(early=early, **PLAIN)))
    assert imported.net.options["early"] == early
    assert imported.normalisation.output == "frozen"
    np.testing.assert_allclose(imported.normalisation.frozen.high, [440], rtol=1e-6)
    assert any("go back by those of the clean images" in note for note in imported.notes)


def test_early_self_supervised_checkpoints_go_back_by_the_input(tmp_path):
    imported = read(save(tmp_path, early_checkpoint("n2v", **N2V2)))
    assert imported.normalisation.output == "inverse"
    assert len(imported.notes) == 1


def test_chosen_channels_and_time_are_noted(tmp_path):
    content = checkpoint(normalization={"name": "none"}, **TWO)
    content["datamodule_hyper_parameters"]["data_config"] |= {"axes": "TCYX", "channels": [0, 2]}
    notes = read(save(tmp_path, content)).notes
    assert "it was trained on the channels [0, 2] of its images; give it these, in this order" in notes
    assert "the axes of its training images were TCYX" in notes


def bmz(folder, content=None, **changes):
    """A package as CAREamics exports it."""
    folder.mkdir()
    stream = io.BytesIO()
    torch.save(content or state_dict(**PLAIN), stream)
    (folder / "weights.pth").write_bytes(stream.getvalue())
    stored = checkpoint(**PLAIN)
    config = {
        "version": "0.3.0",
        "experiment_name": "cells",
        **stored["hyper_parameters"],
        **stored["datamodule_hyper_parameters"],
    }
    (folder / "careamics.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    axes = [{"type": "batch"}, {"type": "channel", "channel_names": ["c"]}]
    axes += [{"type": "space", "id": "y", "size": 64}, {"type": "space", "id": "x", "size": 64}]
    description = {
        "type": "model",
        "format_version": "0.5.12",
        "name": "exported cells",
        "version": "0.3.5",
        "license": "BSD-3-Clause",
        "authors": [{"name": "A. Author"}],
        "attachments": [{"source": "careamics.yaml"}],
        "inputs": [{"id": "input", "axes": axes}],
        "outputs": [{"id": "prediction", "axes": axes}],
        "weights": {
            "pytorch_state_dict": {
                "source": "weights.pth",
                "sha256": hashlib.sha256(stream.getvalue()).hexdigest(),
                "architecture": {"import_from": "careamics.models.unet", "callable": "UNet"},
            }
        },
        **changes,
    }
    (folder / "rdf.yaml").write_text(yaml.safe_dump(description), encoding="utf-8")
    return folder


@pytest.mark.parametrize("reader", [read, from_bioimageio.read], ids=["as CAREamics", "as bioimage.io"])
@pytest.mark.parametrize("form", [lambda f: f, zipped], ids=["folder", "zip"])
def test_exported_packages_are_read(tmp_path, reader, form):
    path = form(bmz(tmp_path / "cells"))
    imported = reader(path)
    assert (imported.name, imported.licence, imported.authors) == ("exported cells", "BSD-3-Clause", ("A. Author",))
    assert (imported.source_format, imported.source_name) == ("careamics-bioimageio", path.name)
    assert imported.written_by == "CAREamics 0.3.5"
    assert imported.normalisation.output == "frozen"


def test_attachments_of_format_0_4_are_read(tmp_path):
    assert read(bmz(tmp_path / "cells", attachments={"files": ["careamics.yaml"]})).name == "exported cells"


@pytest.mark.parametrize("options", [PLAIN, N2V2, SOLID], ids=["2D", "N2V2", "3D"])
def test_an_imported_package_is_one_of_ours(tmp_path, options):
    package = import_model(save(tmp_path, checkpoint(**options)), tmp_path / "ours")
    assert package.facts.architecture.kind == "careamics_unet"
    assert package.facts.geometry.divisible_by == (2 ** options["depth"],) * options["n_dim"]
    assert package.facts.normalisation.frozen.low == (300,)
    net = read(tmp_path / "cells.ckpt").net
    desired = run_net(net, package.test_input())
    assert np.abs(package.test_output() - desired).max() < 1e-5 * np.ptp(desired)


def change(*path_and_value):
    *path, last, value = path_and_value

    def edit(content):
        for key in path:
            content = content[key]
        content[last] = value

    return edit


MODEL = ("hyper_parameters", "algorithm_config", "model")
DATA = ("datamodule_hyper_parameters", "data_config")
REFUSED = {
    "no configuration": (
        change("hyper_parameters", {}),
        "holds weights but no CAREamics configuration, so the network is unknown",
    ),
    "no data": (
        lambda c: c.pop("datamodule_hyper_parameters"),
        "does not hold the normalisation of its training; save the model",
    ),
    "no weights": (change("state_dict", None), r"holds no weights \(state_dict\); import a \.ckpt of the training"),
    "other algorithm": (
        change("hyper_parameters", "algorithm_config", "algorithm", "hdn"),
        "algorithm_config.algorithm is 'hdn' .* imports CAREamics' U-Nets of the algorithms care, n2n and n2v",
    ),
    "other network": (change(*MODEL, "architecture", "LVAE"), "algorithm_config.model.architecture is 'LVAE'"),
    "other activation": (change(*MODEL, "final_activation", "Sigmoid"), "final_activation is 'Sigmoid'"),
    "other depth": (change(*MODEL, "depth", 2), "weights and description belong to different networks"),
    "absurd depth": (change(*MODEL, "depth", 50), "algorithm_config.model.depth is '50'"),
    "impossible channels": (change(*MODEL, "residual", 3), "algorithm_config.model.residual is '3'"),
    "not trained": (
        change(*DATA, "normalization", {"name": "mean_std"}),
        "was saved before its normalisation was measured; import a checkpoint of the training",
    ),
    "means alone": (
        change(*DATA, "normalization", {"name": "mean_std", "input_means": [1.0]}),
        "was saved before its normalisation was measured",
    ),
    "nothing between": (
        change(*DATA, "normalization", {"name": "min_max", "input_mins": [5.0], "input_maxes": [4.0]}),
        "its normalisation is impossible .*every high must exceed its low",
    ),
    "unknown normalisation": (change(*DATA, "normalization", {"name": "magic"}), "data_config.normalization.name is 'magic'"),
    "words for numbers": (
        change(*DATA, "normalization", {"name": "mean_std", "input_means": ["many"], "input_stds": [1.0]}),
        r"data_config.normalization.input_means.0 is 'many'",
    ),
}


@pytest.mark.parametrize(("edit", "reason"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_imported_is_said(tmp_path, edit, reason):
    content = checkpoint(**PLAIN)
    edit(content)
    with pytest.raises(ModelError, match=reason) as caught:
        read(save(tmp_path, content))
    assert "cells.ckpt" in str(caught.value)


def test_a_state_dict_alone_is_not_enough(tmp_path):
    with pytest.raises(ModelError, match="holds weights but no CAREamics configuration"):
        read(save(tmp_path, state_dict(**PLAIN)))
    with pytest.raises(ModelError, match=r"holds a list, no checkpoint; import the \.ckpt that CAREamics wrote"):
        read(save(tmp_path, [1, 2]))


PACKAGES = {
    "no configuration": ({"attachments": []}, r"has no careamics\.yaml, so CAREamics did not export it"),
    "configuration is missing": ({"attachments": [{"source": "bin/careamics.yaml"}]}, "the file .* is missing"),
    "no weights": ({"weights": {"onnx": {}}}, "has no PyTorch weights; export it from CAREamics again"),
    "weights exchanged": (
        {"weights": {"pytorch_state_dict": {"source": "weights.pth", "sha256": "0" * 64}}},
        "the file is damaged or was exchanged",
    ),
    "weights outside": (
        {"weights": {"pytorch_state_dict": {"source": "../weights.pth"}}},
        "is no file inside the package",
    ),
}


@pytest.mark.parametrize(("changes", "reason"), PACKAGES.values(), ids=PACKAGES)
def test_broken_packages_are_refused(tmp_path, changes, reason):
    with pytest.raises(ModelError, match=reason):
        read(bmz(tmp_path / "cells", **changes))


class Bomb:
    def __reduce__(self):
        return os.mkdir, ("bomb-went-off",)


@pytest.mark.parametrize("write", [save, lambda folder, bomb: bmz(folder / "cells", content=bomb)], ids=["ckpt", "package"])
def test_bombs_do_not_go_off(tmp_path, monkeypatch, write):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError, match=r"holds the Python object (posix|nt)\.mkdir, which could run code when it is loaded"):
        read(write(tmp_path, {"state_dict": Bomb()}))
    assert not (tmp_path / "bomb-went-off").exists()
