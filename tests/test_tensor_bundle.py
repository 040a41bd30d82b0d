"""TensorFlow's weight files: read without TensorFlow, every checksum checked, and refused with a cure when damaged."""

import zipfile

import numpy as np
import pytest
import tensorflow_files as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from live_restore.errors import ModelError
from live_restore.models.foreign.protobuf import fields, first_text, last_number, messages, read_varint
from live_restore.models.foreign.sstable import masked_crc32c, read_table
from live_restore.models.foreign.tensor_bundle import convolutions_of, read_tensors

DICE = np.random.default_rng(3)
TENSORS = {
    f"{layer}/{part}": DICE.normal(size=shape).astype(np.float32)
    for layer in ("down_level_0_no_0", "down_level_0_no_1", "middle_0", "middle_2", "up_level_0_no_0", "conv2d_1")
    for part, shape in (("kernel", (3, 3, 2, 4)), ("bias", (4,)))
}


def assert_same(found, tensors):
    assert sorted(found) == sorted(tensors)
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(found[name], tensor)
        assert found[name].dtype == np.float32


@pytest.mark.parametrize("options", [{}, {"per_block": 1}, {"per_block": 100}, {"snappy": True}], ids=str)
def test_tensors_come_back(options):
    index, data = tf.bundle(TENSORS, **options)
    assert_same(read_tensors(index, {0: data}), TENSORS)


def test_tensors_in_several_shards():
    index, data = tf.bundle(TENSORS, changes={"middle_0/bias": {"shard": 1, "offset": 5}})
    moved = TENSORS["middle_0/bias"].tobytes()
    assert_same(read_tensors(index, {0: data, 1: b"12345" + moved}), TENSORS)


def test_layers_are_paired_and_scopes_dropped():
    scoped = {f"model_3/{name}": tensor for name, tensor in TENSORS.items()}
    layers = {conv.name: conv for conv in convolutions_of(scoped)}
    assert sorted(layers) == sorted({name.partition("/")[0] for name in TENSORS})
    np.testing.assert_array_equal(layers["conv2d_1"].kernel, TENSORS["conv2d_1/kernel"])


def test_optimizer_states_are_left_out():
    index, data = tf.bundle(TENSORS | {"training/Adam/down_level_0_no_0/kernel/m": np.zeros(3, np.float32)})
    assert_same(read_tensors(index, {0: data}), TENSORS)


@given(
    st.dictionaries(st.binary(min_size=1, max_size=30), st.binary(max_size=200), max_size=40), st.integers(1, 50), st.booleans()
)
@settings(max_examples=60, deadline=None)
def test_any_table_comes_back(pairs, per_block, snappy):
    assert read_table(tf.table(list(pairs.items()), per_block=per_block, snappy=snappy)) == pairs


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_any_changed_byte_is_noticed(data):
    index, content = tf.bundle(TENSORS)
    which = data.draw(st.sampled_from(["index", "data"]))
    spoiled = bytearray(index if which == "index" else content)
    place = data.draw(st.integers(0, len(spoiled) - 1))
    spoiled[place] ^= data.draw(st.integers(1, 255))
    try:
        found = read_tensors(bytes(spoiled), {0: content}) if which == "index" else read_tensors(index, {0: bytes(spoiled)})
    except ModelError:
        return
    # the footer's padding and the empty meta-index carry nothing
    assert which == "index"
    assert place >= len(index) - 200
    assert_same(found, TENSORS)


@given(st.binary(max_size=300))
@settings(max_examples=200, deadline=None)
def test_any_bytes_are_a_message_or_a_model_error(noise):
    try:
        for _, value in fields(noise):
            assert isinstance(value, int | bytes)
    except ModelError:
        pass


@given(st.integers(0, 2**64 - 1))
def test_varints_come_back(number):
    encoded = tf.varint(number)
    assert read_varint(b"x" + encoded + b"y", 1) == (number, 1 + len(encoded))


def test_fields_are_found_by_number():
    message = tf.field(1, 300) + tf.field(2, "word") + tf.field(2, b"more") + tf.fixed32(6, 77) + tf.field(1, 5)
    assert list(fields(message)) == [(1, 300), (2, b"word"), (2, b"more"), (6, 77), (1, 5)]
    assert messages(message, 2) == [b"word", b"more"]
    assert first_text(message, 2) == "word"
    assert (last_number(message, 1), last_number(message, 6), last_number(message, 9)) == (5, 77, 0)


@pytest.mark.parametrize(
    "message", [b"\x0a\x05ab", b"\xff" * 11, b"\x0d\x01", b"\x0b", b"\x08"], ids=["string", "varint", "fixed", "group", "tag"]
)
def test_a_message_that_ends_too_early(message):
    with pytest.raises(ModelError, match="ends too early or is no protobuf; it is damaged"):
        list(fields(message))


def test_known_checksum():
    # CRC-32C of these nine digits is 0xE3069283 by every description of it
    crc = 0xE3069283
    assert masked_crc32c(b"123456789") == ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


# --- indices that are not what they should be ----------------------------------------------------------------------

TABLES = {
    "empty": (b"", "does not end like one of TensorFlow's"),
    "text": (b"this is no table at all, and yet it has more bytes than a footer", "does not end like one of TensorFlow's"),
    "cut short": (tf.bundle(TENSORS)[0][:-9], "does not end like one of TensorFlow's; it is cut short"),
    "unknown compression": (
        tf.table([(b"a", b"b")], compression=4),
        r"compressed in an unknown way \(type 4\); export the model again",
    ),
    "no snappy": (tf.table([(b"a", b"b" * 300)], compression=1), "cannot be unpacked"),
    "beyond the end": (
        (b"\0\0" + tf.varint(9000) + tf.varint(10)).ljust(40, b"\0") + tf.table([])[-8:],
        "points beyond its own end",
    ),
}


@pytest.mark.parametrize("case", TABLES)
def test_tables_that_are_none(case):
    table, message = TABLES[case]
    with pytest.raises(ModelError, match=message):
        read_table(table)


def one_block(content, kind=0):
    """A table whose only index block is `content`."""
    kind = bytes([kind])
    handles = b"\0\0" + b"\0" + tf.varint(len(content))
    footer = handles.ljust(40, b"\0") + (0xDB4775248B80FB57).to_bytes(8, "little")
    return content + kind + tf.masked(content + kind).to_bytes(4, "little") + footer


def test_a_block_that_would_unpack_to_gigabytes():
    with pytest.raises(ModelError, match=r"claims to unpack to 3,000,000,000 bytes, more than 67,108,864; not read"):
        read_table(one_block(tf.varint(3_000_000_000) + b"x", kind=1))


def test_a_block_with_more_restarts_than_bytes():
    with pytest.raises(ModelError, match="claims 1000 restarts in 4 bytes"):
        read_table(one_block((1000).to_bytes(4, "little")))


def test_an_entry_longer_than_its_block():
    content = b"\0\x01\x7fk" + b"v" * 20 + b"\0\0\0\0" + (1).to_bytes(4, "little")
    with pytest.raises(ModelError, match="an entry of the weights' index runs beyond its block"):
        read_table(one_block(content))


def test_a_wrong_checksum_of_the_index():
    index = bytearray(tf.bundle(TENSORS)[0])
    index[3] ^= 1
    with pytest.raises(ModelError, match="the checksum of its block at byte 0 is wrong; copy or download the model again"):
        read_table(bytes(index))


ENTRIES = {
    "wrong type": ({"dtype": 3}, r"'middle_0/bias' is not float32 \(TensorFlow's type number 3\)"),
    "wrong checksum": ({"crc32c": 1}, "'middle_0/bias' is damaged: its checksum is wrong"),
    "wrong size": ({"size": 20}, r"of shape \(4,\) claims 20 bytes, not 16"),
    "absurd shape": (
        {"shape": (1_000_000, 1_000_000)},
        r"claims shape \(1000000, 1000000\), more than 250,000,000 numbers; not read",
    ),
    "negative shape": ({"shape": (2**64 - 1,)}, "more than 250,000,000 numbers"),
    "beyond the end": ({"offset": 10**9}, "'middle_0/bias' reaches beyond the end of its data file, which is cut short"),
    "missing shard": ({"shard": 2}, r"lies in variables\.data-00002-\.\.\., which is missing"),
}


@pytest.mark.parametrize("case", ENTRIES)
def test_tensors_that_are_not_what_the_index_says(case):
    changes, message = ENTRIES[case]
    index, data = tf.bundle(TENSORS, changes={"middle_0/bias": changes})
    with pytest.raises(ModelError, match=message):
        read_tensors(index, {0: data})


def test_slices_are_refused():
    raw = TENSORS["middle_0/bias"].tobytes()
    entry = tf.entry(TENSORS["middle_0/bias"], 0, raw) + tf.field(7, b"")
    with pytest.raises(ModelError, match="'middle_0/bias' is stored in slices; CARE's weights are whole float32 arrays"):
        read_tensors(tf.table([(b"", b""), (b"middle_0/bias", entry)]), {0: raw})


def test_big_endian_is_refused():
    with pytest.raises(ModelError, match="written on a big-endian machine"):
        read_tensors(tf.bundle(TENSORS, header=tf.field(1, 1) + tf.field(2, 1))[0], {})


def test_an_export_of_keras_itself_is_named():
    index, data = tf.bundle({"layer_with_weights-0/kernel/.ATTRIBUTES/VARIABLE_VALUE": np.zeros(3, np.float32)})
    with pytest.raises(ModelError, match=r"written by Keras itself, not by CSBDeep's export_TF: .* import the \.h5 weights"):
        read_tensors(index, {0: data})


def test_a_kernel_without_bias():
    with pytest.raises(ModelError, match="layer 'middle_0' has no bias"):
        convolutions_of({"middle_0/kernel": TENSORS["middle_0/kernel"]})


@pytest.mark.realdata
def test_a_real_export(shared_data):
    with zipfile.ZipFile(shared_data / "models" / "care2d" / "TF_SavedModel.zip") as archive:
        index = archive.read("variables/variables.index")
        tensors = read_tensors(index, {0: archive.read("variables/variables.data-00000-of-00001")})
    assert len(tensors) == 22
    assert sum(tensor.size for tensor in tensors.values()) == 332_641
    assert tensors["conv2d_1/kernel"].shape == (1, 1, 32, 1)
