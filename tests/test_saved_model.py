"""CSBDeep's SavedModel exports: weights and graph read from zip and folder; traps and other models refused."""

import os
import zipfile

import pytest
import tensorflow_files as tf
from keras_files import care_layers

from live_restore.errors import ModelError
from live_restore.models.foreign.saved_graph import GraphFacts, read_graph
from live_restore.models.foreign.saved_model import is_saved_model, read_saved_model, zip_names

GRAPHS = {
    "plain": ({}, True, "linear", ()),
    "old add": ({"add": "Add"}, True, "linear", ()),
    "relu": ({"last_activation": "relu"}, True, "relu", ()),
    "not residual": ({"residual": False}, False, "linear", ()),
    "not residual, relu": ({"residual": False, "last_activation": "relu"}, False, "relu", ()),
    "probabilistic": ({"probabilistic": True, "last_activation": "relu"}, True, "relu", ()),
    "pools": ({"pools": [(1, 2, 2), (1, 2, 2)]}, True, "linear", ((1, 2, 2), (1, 2, 2))),
}


@pytest.mark.parametrize("case", GRAPHS)
def test_the_end_of_the_graph_is_understood(case):
    options, residual, last_activation, pools = GRAPHS[case]
    assert read_graph(tf.care_graph(**options)) == GraphFacts(residual, last_activation, pools, "tensorflow 1.15.5")


def test_a_bias_added_by_old_keras_is_no_residual():
    nodes = [tf.node("conv", "Conv2D"), tf.node("bias", "Reshape"), tf.node("output", "Add", "conv", "bias")]
    assert read_graph(tf.saved_model(nodes)).residual is False
    nodes = [*nodes[:2], tf.node("head", "Add", "conv", "bias"), tf.node("output", "Add", "head", "input")]
    assert read_graph(tf.saved_model(nodes)).residual is True


STRANGE_ENDS = {
    "other operation": [tf.node("output", "Tanh", "x")],
    "circle": [tf.node("output", "Identity", "a"), tf.node("a", "Identity", "output")],
    "nothing behind": [tf.node("output", "Relu", "gone")],
    "no inputs": [tf.node("output", "ConcatV2")],
}


@pytest.mark.parametrize("case", STRANGE_ENDS)
def test_a_strange_end_is_unknown(case):
    facts = read_graph(tf.saved_model(STRANGE_ENDS[case]))
    assert (facts.residual, facts.last_activation) == (None, None)


def test_pools_off_the_way_to_the_output_do_not_count():
    nodes = [tf.node("stray", "MaxPool3D", "x", ksize=(1, 2, 2, 2, 1)), tf.node("output", "Relu", "x")]
    assert read_graph(tf.saved_model(nodes)).pools == ()


def test_a_graph_without_its_output():
    with pytest.raises(ModelError, match="has no operation 'output', its own output; it is damaged"):
        read_graph(tf.saved_model([]))


@pytest.mark.parametrize("outputs", [0, 2])
def test_a_graph_with_another_number_of_outputs(outputs):
    with pytest.raises(ModelError, match=f"has {outputs} outputs, CARE has one; export the model with CSBDeep's export_TF"):
        read_graph(tf.saved_model([tf.node("output", "Relu")], outputs=outputs))


@pytest.mark.parametrize("folder", ["", "export/model/"], ids=["at the root", "in a folder"])
def test_an_export_is_read_from_its_zip(tmp_path, folder):
    layers = care_layers()
    path = tf.write_export(tmp_path / "TF_SavedModel.zip", layers, tf.care_graph(), {"version": "0.6.3"}, folder)
    export = read_saved_model(path)
    assert is_saved_model(path)
    assert sorted(conv.name for conv in export.convolutions) == sorted(name for name, *_ in layers)
    assert export.meta == {"type": "CARE", "version": "0.6.3"}
    assert len(export.sha256) == 64


def test_an_export_is_read_unpacked(tmp_path):
    path = tf.write_export(tmp_path / "TF_SavedModel.zip", care_layers(), tf.care_graph())
    with zipfile.ZipFile(path) as archive:
        archive.extractall(tmp_path / "model")
    zipped, unpacked = read_saved_model(path), read_saved_model(tmp_path / "model")
    assert is_saved_model(tmp_path / "model")
    assert [conv.name for conv in unpacked.convolutions] == [conv.name for conv in zipped.convolutions]
    assert unpacked.meta == zipped.meta


@pytest.mark.parametrize("text", ["", "no json", "[1]", "[" * 50_000], ids=["empty", "text", "list", "deep"])
def test_meta_may_be_missing_or_strange(tmp_path, text):
    path = rewritten(tf.write_export(tmp_path / "a.zip", care_layers(), tf.care_graph()), {"meta.json": text})
    assert read_saved_model(path).meta == {}


def rewritten(path, changes):
    """The same zip with some files changed, or left out where the change is None."""
    with zipfile.ZipFile(path) as archive:
        files = {name: archive.read(name) for name in archive.namelist()} | changes
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            if content is not None:
                archive.writestr(name, content)
    return path


BAD_ZIPS = {
    "no index": ({"variables/variables.index": None}, r"lacks variables/variables\.index; export it again"),
    "no graph": ({"saved_model.pb": None}, r"lacks saved_model\.pb; export it again"),
    "no data": ({"variables/variables.data-00000-of-00001": None}, r"variables\.data-00000-\.\.\., which is missing"),
    "path traversal": ({"../../evil.sh": "x"}, r"holds '\.\./\.\./evil\.sh', which points outside of it"),
    "backslashes": ({"a\\..\\b": "x"}, "which points outside of it"),
    "absolute path": ({"/etc/passwd": "x"}, "holds '/etc/passwd', which points outside of it"),
    "drive letter": ({"C:\\evil": "x"}, "which points outside of it"),
    "bomb": ({"variables/variables.data-00000-of-00001": bytes(40 << 20)}, "from .* to 41,943,040 bytes; a zip bomb, not read"),
}


@pytest.mark.parametrize("case", BAD_ZIPS)
def test_zips_that_are_refused(tmp_path, case):
    changes, message = BAD_ZIPS[case]
    path = rewritten(tf.write_export(tmp_path / "TF_SavedModel.zip", care_layers(), tf.care_graph()), changes)
    with pytest.raises(ModelError, match=message):
        read_saved_model(path)


def test_a_zip_that_claims_gigabytes(tmp_path):
    path = tf.write_export(tmp_path / "a.zip", care_layers(), tf.care_graph())
    content = bytearray(path.read_bytes())
    entry = content.index(b"PK\x01\x02", content.index(b"PK\x01\x02") + 1)  # of the index, the second
    content[entry + 20 : entry + 28] = (2**31).to_bytes(4, "little") + (2**31 + 9).to_bytes(4, "little")
    path.write_bytes(content)
    with pytest.raises(
        ModelError, match="the zip would unpack to 2048 MB, more than 953; no network here is so large, not read"
    ):
        read_saved_model(path)


def test_a_folder_of_gigabytes(tmp_path):
    path = tf.write_export(tmp_path / "a.zip", care_layers(), tf.care_graph())
    with zipfile.ZipFile(path) as archive:
        archive.extractall(tmp_path / "model")
    os.truncate(tmp_path / "model" / "variables" / "variables.data-00000-of-00001", 1_100_000_000)  # sparse
    with pytest.raises(ModelError, match="model holds more than 953 MB; no network here is so large, not read"):
        read_saved_model(tmp_path / "model")


def test_a_damaged_zip(tmp_path):
    path = tf.write_export(tmp_path / "a.zip", care_layers(), tf.care_graph())
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(ModelError, match=r"a\.zip is a damaged or encrypted zip archive .* copy or download it again"):
        read_saved_model(path)
    with pytest.raises(ModelError, match=r"a\.zip is a damaged zip archive"):
        zip_names(path)


def test_an_encrypted_zip(tmp_path):
    path = tf.write_export(tmp_path / "a.zip", care_layers(), tf.care_graph())
    content = bytearray(path.read_bytes())
    for place in (i for i in range(len(content) - 4) if content[i : i + 4] == b"PK\x01\x02"):
        content[place + 8] |= 1  # the flag that says: encrypted
    path.write_bytes(content)
    with pytest.raises(ModelError, match=r"damaged or encrypted zip archive .*password"):
        read_saved_model(path)


@pytest.mark.realdata
def test_a_real_export(shared_data):
    export = read_saved_model(shared_data / "models" / "care2d" / "TF_SavedModel.zip")
    assert export.graph == GraphFacts(True, "linear", (), "tensorflow 2.8.0")
    assert export.meta["type"] == "CARE"
    assert len(export.convolutions) == 11
