"""Files of packages, honest and hostile: what leads out, what is cut off, what would blow up."""

import io
import os
import time
import zipfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from live_restore.errors import ModelError
from live_restore.models.package_files import DESCRIPTION_LIMIT, open_files, parse_description, parse_npy


@pytest.fixture(params=["folder", "zip", "zip with a folder in it"])
def files(request, tmp_path):
    """The same package in every form."""
    content = {"rdf.yaml": b"name: tiny", "weights.onnx": b"graph", "bin/more.txt": b"more"}
    if request.param == "folder":
        for name, data in content.items():
            (tmp_path / "tiny" / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "tiny" / name).write_bytes(data)
        return open_files(tmp_path / "tiny")
    prefix = "inner/" if "folder" in request.param else ""
    with zipfile.ZipFile(tmp_path / "tiny.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in content.items():
            archive.writestr(prefix + name, data)
    return open_files(tmp_path / "tiny.zip")


def test_every_form_reads_alike(files):
    assert files.read("weights.onnx") == b"graph"
    assert files.read("bin/more.txt") == b"more"
    assert files.size("weights.onnx") == 5
    assert files.read_description() == {"name": "tiny"}


def test_a_missing_file_is_named(files):
    with pytest.raises(ModelError, match=r"the file 'cover\.png' is missing; get the package again"):
        files.read("cover.png")


def test_a_file_over_the_limit_is_refused_before_it_is_read(files):
    with pytest.raises(ModelError, match=r"'weights\.onnx' has 5 bytes, more than the 4 that are read"):
        files.read("weights.onnx", limit=4)


LEADING_OUT = {
    "parent": "../secret",
    "deep parent": "bin/../../secret",
    "absolute": "/etc/passwd",
    "windows": "..\\secret",
    "drive": "C:/secret",
    "url": "https://example.com/weights.onnx",
    "nothing": "",
}


@pytest.mark.parametrize("name", LEADING_OUT.values(), ids=LEADING_OUT)
def test_no_name_leads_out(files, name):
    with pytest.raises(ModelError, match="is no file inside the package; live_restore follows no link out of it and downloads"):
        files.read(name)


def test_no_symbolic_link_leads_out(tmp_path):
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "rdf.yaml").write_text("name: tiny")
    try:
        os.symlink(tmp_path / "secret", tmp_path / "package" / "weights.onnx")
    except OSError:
        pytest.skip("this user may not make symbolic links")
    with pytest.raises(ModelError, match=r"'weights\.onnx' is no file inside the package"):
        open_files(tmp_path / "package").read("weights.onnx")


def test_a_zip_with_names_that_lead_out_writes_nothing(tmp_path):
    with zipfile.ZipFile(tmp_path / "evil.zip", "w") as archive:
        archive.writestr("rdf.yaml", "name: tiny")
        archive.writestr("../evil.txt", "evil")
    assert open_files(tmp_path / "evil.zip").read_description() == {"name": "tiny"}
    assert [path.name for path in tmp_path.rglob("*")] == ["evil.zip"]


def test_a_zip_bomb_is_refused_by_its_size(tmp_path):
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("rdf.yaml", b" " * (DESCRIPTION_LIMIT + 1))
    with pytest.raises(ModelError, match=r"'rdf\.yaml' has 1048577 bytes, more than the 1048576 that are read"):
        open_files(tmp_path / "bomb.zip").read_description()


def test_a_zip_that_lies_about_its_sizes_is_refused(tmp_path):
    path = tmp_path / "liar.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("rdf.yaml", b"name: tiny" + b" " * 100_000)
    true_size, lie = (100_010).to_bytes(4, "little"), (10).to_bytes(4, "little")
    path.write_bytes(path.read_bytes().replace(true_size, lie))
    with pytest.raises(ModelError, match=r"'rdf\.yaml' cannot be read"):
        open_files(path).read_description()


@pytest.mark.parametrize("kept", [0.1, 0.5, 0.95])
def test_a_truncated_zip_is_refused(tmp_path, kept):
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w") as archive:
        archive.writestr("rdf.yaml", "name: tiny")
        archive.writestr("weights.onnx", bytes(1000))
    content = whole.getvalue()
    (tmp_path / "cut.zip").write_bytes(content[: int(kept * len(content))])
    with pytest.raises(ModelError, match=r"cut\.zip is no readable zip file .*; copy or download it again"):
        open_files(tmp_path / "cut.zip")


def test_damage_within_a_zip_is_refused(tmp_path):
    path = tmp_path / "damaged.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("rdf.yaml", "name: tiny and long enough to be damaged")
    path.write_bytes(path.read_bytes().replace(b"long enough", b"l0ng enough"))
    with pytest.raises(ModelError, match=r"'rdf\.yaml' cannot be read .*CRC.*; copy or download the package again"):
        open_files(path).read_description()


NO_PACKAGES = {
    "a folder of something else": ("holds no rdf.yaml or bioimageio.yaml, so it is no model package", "folder"),
    "a file of something else": (
        "is neither a folder, a .zip nor a .yaml, so it is no model package; import it first",
        "file.h5",
    ),
    "nothing": ("there is no model package at", "missing"),
}


@pytest.mark.parametrize(("reason", "name"), NO_PACKAGES.values(), ids=NO_PACKAGES)
def test_what_is_no_package_says_so(tmp_path, reason, name):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file.h5").write_bytes(b"h5")
    with pytest.raises(ModelError, match=reason):
        open_files(tmp_path / name)


def test_the_description_may_be_named_itself(tmp_path):
    (tmp_path / "unusual.yaml").write_text("name: tiny", encoding="utf-8")
    assert open_files(tmp_path / "unusual.yaml").read_description() == {"name": "tiny"}


def test_a_zip_is_known_by_its_content(tmp_path):
    with zipfile.ZipFile(tmp_path / "tiny.bioimageio", "w") as archive:
        archive.writestr("rdf.yaml", "name: tiny")
    assert open_files(tmp_path / "tiny.bioimageio").read_description() == {"name": "tiny"}


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="this user may read everything")
def test_a_folder_that_may_not_be_read_says_so(tmp_path):
    (tmp_path / "locked").mkdir(mode=0)
    with pytest.raises(ModelError, match=r"locked cannot be read .*; check its permissions"):
        open_files(tmp_path / "locked")


def laughs(levels=12):
    lines = ["a0: &a0 [ha, ha, ha, ha, ha, ha, ha, ha, ha]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, levels)]
    return "\n".join(lines).encode()


BOMBS = {
    "a billion laughs": laughs(),
    "merged laughs": b"a: &a {x: 1}\n"
    + b"".join(b"m%d: &m%d {<<: [%s]}\n" % (n, n, b", ".join([b"*a"] * 9)) for n in range(20_000)),
    "endless": b"a: &a [*a]",
    "deep": b"[" * 500_000,
    "deep blocks": b"".join(b" " * n + b"- \n" for n in range(400)),
}


@pytest.mark.parametrize("bomb", BOMBS.values(), ids=BOMBS)
def test_bombs_are_refused_at_once(bomb):
    started = time.monotonic()
    with pytest.raises(ModelError, match=r"stands for more than 100000 entries or nests deeper|is no readable YAML"):
        parse_description(bomb, "bomb")
    assert time.monotonic() - started < 5


def test_honest_aliases_are_read():
    assert parse_description(b"authors: &who [{name: A}]\npackaged_by: *who", "rdf")["packaged_by"] == [{"name": "A"}]


NO_DESCRIPTIONS = {
    "broken": (b"name: [tiny\nmore", r"is no readable YAML \(.* in line 3\)"),
    "no utf-8": (b"name: \xff\xfe", "is no readable YAML"),
    "an object": (b"!!python/object/apply:os.system ['true']", "is no readable YAML.*could not determine a constructor"),
    "a list": (b"- name", "holds a list where a bioimage.io description has fields"),
    "empty": (b"", "holds a NoneType where"),
    "a huge number": (b"a: " + b"9" * 10_000, "is no readable YAML"),
    "no day of the calendar": (b"timestamp: 2020-99-99", "is no readable YAML"),
}


@pytest.mark.parametrize(("text", "reason"), NO_DESCRIPTIONS.values(), ids=NO_DESCRIPTIONS)
def test_what_is_no_description_says_so(text, reason):
    with pytest.raises(ModelError, match=reason):
        parse_description(text, "rdf.yaml")


@given(st.binary(max_size=200))
def test_any_bytes_are_a_description_or_refused(text):
    try:
        assert isinstance(parse_description(text, "rdf.yaml"), dict)
    except ModelError as error:
        assert "rdf.yaml" in str(error)


plain_arrays = arrays.arrays(
    dtype=st.sampled_from([np.uint8, np.uint16, ">i4", np.float32, np.float64, bool]),
    shape=arrays.array_shapes(min_dims=0, max_dims=5, max_side=4),
)


@given(plain_arrays, st.booleans())
def test_arrays_come_back(array, fortran):
    stream = io.BytesIO()
    np.save(stream, np.asfortranarray(array) if fortran else array)
    np.testing.assert_array_equal(parse_npy(stream.getvalue(), "x.npy"), array)


def npy_header(header):
    text = f"{header}\n".encode()
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text


class Bomb:
    def __reduce__(self):
        return os.mkdir, ("bomb-went-off",)


def pickled_array():
    stream = io.BytesIO()
    np.save(stream, np.array([Bomb()], dtype=object), allow_pickle=True)
    return stream.getvalue()


NO_ARRAYS = {
    "text": b"no array",
    "empty": b"",
    "objects": pickled_array(),
    "too large": npy_header("{'descr': '<f4', 'fortran_order': False, 'shape': (1000000, 1000000, 1000)}"),
    "negative": npy_header("{'descr': '<f4', 'fortran_order': False, 'shape': (-1, -5)}"),
    "code": npy_header("__import__('os').mkdir('bomb-went-off')"),
    "fields": npy_header("{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (1,)}") + bytes(4),
    "version": b"\x93NUMPY\x09\x00" + bytes(100),
}


@pytest.mark.parametrize("content", NO_ARRAYS.values(), ids=NO_ARRAYS)
def test_what_is_no_array_says_so_and_runs_nothing(content, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError, match=r"x\.npy is no \.npy file of plain numbers"):
        parse_npy(content, "x.npy")
    assert not (tmp_path / "bomb-went-off").exists()
