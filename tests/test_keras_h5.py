"""Keras weight files: read as they are written, and refused with a cure when they are not what they should be."""

import pickle

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras_files import care_layers, random_layer, rcan_layers, write_care, write_model, write_projection, write_weights

from live_restore.errors import ModelError
from live_restore.models.foreign.keras_h5 import read_keras_h5, read_layer_names


def assert_same(convolutions, layers):
    assert [conv.name for conv in convolutions] == [name for name, *_ in layers]
    for conv, (_, kernel, bias) in zip(convolutions, layers, strict=True):
        np.testing.assert_array_equal(conv.kernel, kernel)
        np.testing.assert_array_equal(conv.bias, bias)


@pytest.mark.parametrize("keras", [2, 3])
@pytest.mark.parametrize("n_dim", [2, 3])
def test_weights_come_back_in_order(tmp_path, keras, n_dim):
    layers = write_care(tmp_path, keras=keras, n_dim=n_dim, probabilistic=True, head=9)
    file = read_keras_h5(tmp_path / "weights_best.h5")
    assert_same(file.convolutions, layers)
    assert {"input", "add_3", "conv2d_9" if n_dim == 2 else "conv3d_9"} < set(file.layer_names)
    assert file.written_by == ("keras 2.8.0" if keras == 2 else "keras 3.15.1")
    assert file.trained_on is None


def test_whole_model_is_read_in_its_order_and_says_its_block_size(tmp_path):
    layers = rcan_layers(n_dim=3)
    file = read_keras_h5(write_model(tmp_path / "w.hdf5", layers, block=(16, 256, 128)))
    assert_same(file.convolutions, layers)
    assert file.written_by == "keras 2.2.4"
    assert file.trained_on == (16, 256, 128)


def test_nested_models_are_read_layer_by_layer(tmp_path):
    surface, flat = write_projection(tmp_path)
    assert_same(read_keras_h5(tmp_path / "weights_best.h5").convolutions, surface + flat)


def test_names_spread_over_several_attributes_are_joined(tmp_path):
    layers = care_layers()
    path = write_weights(tmp_path / "w.h5", layers)
    with h5py.File(path, "a") as file:
        names = file.attrs["layer_names"]
        del file.attrs["layer_names"]
        file.attrs["layer_names0"], file.attrs["layer_names1"] = names[:4], names[4:]
    assert_same(read_keras_h5(path).convolutions, layers)


@pytest.mark.parametrize(
    "config",
    [b"no json", b"[" * 100_000, b'{"config": 3}', b'{"config": {"layers": []}}'],
    ids=["text", "deep", "number", "empty"],
)
def test_a_strange_model_config_is_no_obstacle(tmp_path, config):
    path = write_model(tmp_path / "w.hdf5", rcan_layers())
    with h5py.File(path, "a") as file:
        file.create_dataset("large", data=0)
        file.attrs["model_config"] = config[:60_000]
    assert read_keras_h5(path).trained_on is None


@given(
    st.integers(0, 2**32 - 1),
    st.lists(st.integers(1, 5), min_size=1, max_size=6),
    st.sampled_from([2, 3]),
    st.sampled_from([2, 3]),
)
@settings(max_examples=25, deadline=None)
def test_any_chain_of_convolutions_comes_back(tmp_path_factory, seed, channels, n_dim, keras):
    dice = np.random.default_rng(seed)
    ends = zip([1, *channels[:-1]], channels, strict=True)
    layers = [random_layer(f"layer_{i}", (*dice.choice([1, 3], n_dim), *end), dice) for i, end in enumerate(ends)]
    path = write_weights(tmp_path_factory.mktemp("h5") / "w.h5", layers, keras=keras)
    assert_same(read_keras_h5(path).convolutions, layers)


def test_half_and_double_precision_become_float32(tmp_path):
    name, kernel, bias = care_layers()[0]
    path = write_weights(tmp_path / "w.h5", [(name, kernel.astype(np.float64), bias.astype(np.float16))])
    (conv,) = read_keras_h5(path).convolutions
    assert conv.kernel.dtype == conv.bias.dtype == np.float32


# --- files that are something else ---------------------------------------------------------------------------------

FOREIGN = {
    "pickle": (pickle.dumps({"kernel": 1}), "is a Python pickle; it could run any program"),
    "web page": (b"\n<!DOCTYPE html><html>404 Not Found</html>", "is a web page; download the weight file itself"),
    "git lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "is a Git LFS pointer; run 'git lfs pull'"),
    "empty": (b"", r"is empty \(0 bytes\); copy or download it again"),
    "json": (b'{"error": "gone"}', "is a JSON text; download the weight file itself"),
    "gzip": (b"\x1f\x8b\x08\x00", "is a gzip archive; unpack it"),
    "zip": (b"PK\x03\x04rest", "is a zip archive"),
    "noise": (b"\x01\x02\x03\x04", "is of no kind that is known here"),
}


@pytest.mark.parametrize("case", FOREIGN)
def test_what_is_no_hdf5_is_named(tmp_path, case):
    content, message = FOREIGN[case]
    path = tmp_path / "weights_best.h5"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=f"weights_best.h5 should be an HDF5 file but {message}"):
        read_keras_h5(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ModelError, match=r"cannot read .*gone\.h5: No such file"):
        read_keras_h5(tmp_path / "gone.h5")


@pytest.mark.parametrize("kept", [100, 2000, -500], ids=["header only", "names only", "end missing"])
def test_a_file_cut_short_is_damaged(tmp_path, kept):
    path = write_weights(tmp_path / "w.h5", care_layers())
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(ModelError, match=r"w\.h5 is damaged or cut short .* copy or download it again"):
        read_keras_h5(path)


@given(share=st.floats(0.02, 0.98))
@settings(max_examples=40, deadline=None)
def test_a_file_cut_short_anywhere_is_a_model_error(tmp_path_factory, share):
    folder = tmp_path_factory.mktemp("cut")
    content = write_weights(folder / "w.h5", care_layers(depth=1)).read_bytes()
    (folder / "v.h5").write_bytes(content[: int(len(content) * share)])
    with pytest.raises(ModelError, match="damaged or cut short"):
        read_keras_h5(folder / "v.h5")


def test_keras3_weights_format_is_named_with_its_cure(tmp_path):
    with h5py.File(tmp_path / "model.weights.h5", "w") as file:
        file.create_group("layers/conv2d/vars").create_dataset("0", data=np.zeros((3, 3, 1, 4), np.float32))
    with pytest.raises(ModelError, match=r"Keras 3's new format .* save it as plain \.h5: model\.keras_model\.save_weights"):
        read_keras_h5(tmp_path / "model.weights.h5")


def test_an_hdf5_of_something_else_is_named(tmp_path):
    with h5py.File(tmp_path / "images.h5", "w") as file:
        file["pixels"] = np.zeros((4, 4))
    with pytest.raises(ModelError, match=r"images\.h5 is an HDF5 file without Keras layers"):
        read_layer_names(tmp_path / "images.h5")


# --- files of the right kind with wrong things in them -------------------------------------------------------------


def _delete(group, name):
    del group[name]


def _replace(group, name, **dataset):
    del group[name]
    group.create_dataset(name, **dataset)


def _nan(group):
    group["middle_0/bias:0"][1] = np.nan


def _infinite(group):
    group["middle_0/kernel:0"][0, 0, 0, 0] = -np.inf


def _soft_link(group):
    del group["middle_0/kernel:0"]
    group["middle_0/kernel:0"] = h5py.SoftLink("/middle_2/middle_2/kernel:0")


def _external_link(group):
    del group["middle_0"]
    group["middle_0"] = h5py.ExternalLink("/etc/other.h5", "/middle_0")


def _virtual(group):
    layout = h5py.VirtualLayout((3, 3, 8, 16), np.float32)
    layout[...] = h5py.VirtualSource("other.h5", "kernel", (3, 3, 8, 16))
    del group["middle_0/kernel:0"]
    group.create_virtual_dataset("middle_0/kernel:0", layout)


def _external_storage(group):
    _replace(group, "middle_0/kernel:0", shape=(3, 3, 8, 16), dtype="f4", external=[("raw.bin", 0, h5py.h5f.UNLIMITED)])


def _objects(group):
    _replace(group, "middle_0/bias:0", data=np.array([b"run this"] * 16, dtype=object))


def _references(group):
    _replace(group, "middle_0/bias:0", data=np.array([group.ref] * 16, dtype=h5py.ref_dtype))


def _huge(group):
    _replace(group, "middle_0/kernel:0", shape=(3, 3, 1_000_000, 1_000_000), dtype="f4", chunks=(3, 3, 10, 10))


def _unwritten(group):
    _replace(group, "middle_0/kernel:0", shape=(3, 3, 8, 16), dtype="f4")


def _compressed(group):
    _replace(group, "middle_0/kernel:0", data=np.ones((3, 3, 8, 16), np.float32), compression="gzip")


def _group_for_dataset(group):
    _delete(group, "middle_0/bias:0")
    group.create_group("middle_0/bias:0")


def _batch_norm(group):
    write_names(group, ["gamma:0", "beta:0", "moving_mean:0"])


def _no_bias(group):
    write_names(group, ["kernel:0"])


def write_names(group, names):
    for name in names:
        if f"middle_0/{name}" not in group:
            group.create_dataset(f"middle_0/{name}", data=np.ones(16, np.float32))
    group.attrs["weight_names"] = [f"middle_0/{name}".encode() for name in names]


SPOILED = {
    "no bias": (_no_bias, "layer 'middle_0' has no bias; CARE and RCAN convolutions have a kernel and a bias"),
    "bias not in file": (
        lambda g: _delete(g, "middle_0/bias:0"),
        "names 'middle_0/bias:0' but holds no 'bias:0'; it is incomplete",
    ),
    "group for dataset": (_group_for_dataset, "should be an array of weights but is a group"),
    "batch normalisation": (_batch_norm, "'middle_0' holds beta, gamma, moving_mean; only convolutions .* Noise2Void"),
    "NaN": (_nan, "the bias of layer 'middle_0' has 1 numbers that are NaN or infinite; the training diverged"),
    "infinite": (_infinite, "the kernel of layer 'middle_0' has 1 numbers that are NaN"),
    "soft link": (_soft_link, "'middle_0/kernel:0' is a SoftLink to elsewhere, not followed"),
    "external link": (_external_link, "'middle_0/kernel:0' is a ExternalLink to elsewhere, not followed"),
    "virtual": (_virtual, "refers to data in other files; weights must lie in the file itself"),
    "external storage": (_external_storage, "refers to data in other files"),
    "objects": (_objects, "has dtype object; weights are floating-point numbers"),
    "references": (_references, "has dtype object; weights are floating-point numbers"),
    "huge": (_huge, r"claims shape \(3, 3, 1000000, 1000000\) but the file does not hold so many numbers"),
    "unwritten": (_unwritten, r"claims shape \(3, 3, 8, 16\) but the file does not hold"),
    "compressed": (_compressed, "is compressed, which Keras never does; unpack it with: h5repack"),
    "kernel of 3 axes": (
        lambda g: _replace(g, "middle_0/kernel:0", data=np.ones((3, 8, 16), "f4")),
        "has 3 axes; 2D convolutions have 4",
    ),
    "bias too long": (
        lambda g: _replace(g, "middle_0/bias:0", data=np.ones(17, "f4")),
        r"bias of shape \(17,\) does not fit the kernel",
    ),
}


@pytest.mark.parametrize("case", SPOILED)
def test_spoiled_weights_are_refused(tmp_path, case):
    spoil, message = SPOILED[case]
    path = write_weights(tmp_path / "w.h5", care_layers())
    with h5py.File(path, "a") as file:
        spoil(file["middle_0"])
    with pytest.raises(ModelError, match=message):
        read_keras_h5(path)


def test_more_weights_than_any_network_has_are_not_read(tmp_path):
    path = write_weights(tmp_path / "w.h5", care_layers())
    shape = (1, 1, 16000, 16000)  # 256 million numbers, allotted but never written: a sparse file
    with h5py.File(path, "a") as file:
        del file["middle_0/middle_0/kernel:0"]
        kept = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        kept.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
        kept.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
        space = h5py.h5s.create_simple(shape)
        h5py.h5d.create(file["middle_0/middle_0"].id, b"kernel:0", h5py.h5t.IEEE_F16LE, space, kept)
    with pytest.raises(ModelError, match=r"claims more than 250,000,000 weights \(at layer 'middle_0'\)"):
        read_keras_h5(path)


def test_a_layer_that_is_named_but_missing(tmp_path):
    path = write_weights(tmp_path / "w.h5", care_layers())
    with h5py.File(path, "a") as file:
        del file["middle_2"]
    with pytest.raises(ModelError, match="names 'middle_2' but holds no 'middle_2'; it is incomplete"):
        read_keras_h5(path)


def test_names_that_are_no_text(tmp_path):
    path = write_weights(tmp_path / "w.h5", care_layers())
    with h5py.File(path, "a") as file:
        file.attrs["layer_names"] = [1, 2]
    with pytest.raises(ModelError, match="a name in the file is no text but int64; this is no weight file of Keras"):
        read_keras_h5(path)


def test_a_link_in_place_of_the_weights_is_not_followed(tmp_path):
    with h5py.File(tmp_path / "w.h5", "w") as file:
        file["model_weights"] = h5py.ExternalLink("other.h5", "/")
    with pytest.raises(ModelError, match="'model_weights' is a ExternalLink to elsewhere, not followed"):
        read_keras_h5(tmp_path / "w.h5")


@pytest.mark.realdata
def test_a_real_file_of_csbdeep(shared_data):
    file = read_keras_h5(shared_data / "models" / "care2d" / "weights_best.h5")
    assert len(file.convolutions) == 11
    assert file.convolutions[-1].name == "conv2d"
    assert file.written_by == "keras 2.8.0"
