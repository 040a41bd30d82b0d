"""Writes SavedModels as TensorFlow lays them out: an SSTable index, a data file, and a graph in protobuf's wire format.

Written from the description of the formats, without TensorFlow. What it writes is compared with real exports in the tests.
"""

import json
import zipfile

import google_crc32c
from imagecodecs import snappy_encode


def varint(number):
    encoded = b""
    while number > 0x7F:
        encoded, number = encoded + bytes([number & 0x7F | 0x80]), number >> 7
    return encoded + bytes([number])


def field(number, value):
    """A field: whole numbers as varints, text and messages with their length."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    value = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(value)) + value


def fixed32(number, value):
    return varint(number << 3 | 5) + value.to_bytes(4, "little")


def masked(data):
    crc = google_crc32c.value(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def block(pairs, restart_every=16):
    """A block of a table; keys share prefixes with the key before."""
    content, before, restarts = b"", b"", []
    for i, (key, value) in enumerate(pairs):
        if i % restart_every == 0:
            restarts.append(len(content))
            before = b""
        shared = next((n for n, (a, b) in enumerate(zip(before, key, strict=False)) if a != b), min(len(before), len(key)))
        content += varint(shared) + varint(len(key) - shared) + varint(len(value)) + key[shared:] + value
        before = key
    ends = restarts or [0]
    return content + b"".join(n.to_bytes(4, "little") for n in ends) + len(ends).to_bytes(4, "little")


def table(pairs, per_block=7, snappy=False, compression=None):
    """A whole table of sorted (key, value)."""
    pairs, written, index = sorted(pairs), b"", []
    kind = bytes([compression if compression is not None else int(snappy)])

    def append(content):
        nonlocal written
        content = bytes(snappy_encode(content)) if snappy else content
        handle = varint(len(written)) + varint(len(content))
        written += content + kind + masked(content + kind).to_bytes(4, "little")
        return handle

    for start in range(0, len(pairs), per_block):
        some = pairs[start : start + per_block]
        index.append((some[-1][0], append(block(some))))
    handles = append(block([])) + append(block(index))
    return written + handles.ljust(40, b"\0") + (0xDB4775248B80FB57).to_bytes(8, "little")


def entry(array, place, data, **changes):
    """A tensor's place in the data file."""
    told = {"dtype": 1, "shape": array.shape, "shard": 0, "offset": place, "size": len(data), "crc32c": masked(data)} | changes
    shape = b"".join(field(2, field(1, size)) for size in told["shape"])
    numbers = [(3, told["shard"]), (4, told["offset"]), (5, told["size"])]
    return (
        field(1, told["dtype"]) + field(2, shape) + b"".join(field(n, v) for n, v in numbers if v) + fixed32(6, told["crc32c"])
    )


def bundle(tensors, header=b"\x08\x01\x1a\x02\x08\x01", changes=None, **options):
    """Index and data file of tensors by name; `changes` replaces what the index says of some."""
    data, pairs = b"", [(b"", header)]
    for name, array in sorted(tensors.items()):
        raw = array.astype("<f4").tobytes()
        pairs.append((name.encode(), entry(array, len(data), raw, **(changes or {}).get(name, {}))))
        data += raw
    return table(pairs, **options), data


def node(name, op, *inputs, ksize=None):
    attribute = b"" if ksize is None else field(5, field(1, "ksize") + field(2, field(1, field(3, bytes(ksize)))))
    return field(1, name) + field(2, op) + b"".join(field(3, source) for source in inputs) + attribute


def saved_model(nodes, output="output:0", outputs=1):
    """The bytes of saved_model.pb with one signature."""
    graph = b"".join(field(1, one) for one in nodes)
    named = b"".join(field(2, field(1, f"output{i or ''}") + field(2, field(1, output))) for i in range(outputs))
    signature = field(1, "serving_default") + field(2, named)
    return field(1, 1) + field(2, field(1, field(5, "1.15.5")) + field(2, graph) + field(5, signature))


def care_graph(residual=True, last_activation="linear", probabilistic=False, pools=(), add="AddV2"):
    """The end of CSBDeep's graph, and its pools; in between nothing that anybody looks at."""
    nodes = [node("input", "Placeholder")]
    last = "input"
    for i, pool in enumerate(pools):
        nodes.append(node(f"pool_{i}", "MaxPool3D", last, ksize=(1, *pool, 1)))
        last = f"pool_{i}"
    nodes += [node("head/Conv", "Conv2D", last), node("head/BiasAdd", "BiasAdd", "head/Conv")]
    last = "head/BiasAdd"
    if residual:
        nodes.append(node("add", add, last, "input"))
        last = "add"
    nodes.append(node("activation", "Relu" if last_activation == "relu" else "Identity", last, "^some/control"))
    if probabilistic:
        nodes.append(node("concat", "ConcatV2", "activation", "scale", "axis"))
    nodes.append(node("output", "Identity", "concat" if probabilistic else "activation"))
    return saved_model(nodes)


def write_export(path, layers, graph, meta=(), folder=""):
    """A TF_SavedModel.zip of CSBDeep."""
    tensors = {
        f"{name}/{part}": array for name, *arrays in layers for part, array in zip(("kernel", "bias"), arrays, strict=True)
    }
    index, data = bundle(tensors)
    files = {
        "saved_model.pb": graph,
        "variables/variables.index": index,
        "variables/variables.data-00000-of-00001": data,
        "meta.json": json.dumps({"type": "CARE"} | dict(meta)),
    }
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(folder + name, content)
    return path
