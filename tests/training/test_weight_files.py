"""Files of weights: every type read, none of their code run, and what is broken answered in one line."""

import hashlib
import io
import json
import pickle
import re
import struct
import sys

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from fer_jax.errors import UserError
from fer_jax.weights.files import read_weights


def header_and_data(arrays):
    """The two halves of a .safetensors file, written after its description."""
    names = {np.dtype("f4"): "F32", np.dtype("f8"): "F64", np.dtype("f2"): "F16", np.dtype("i8"): "I64"}
    names[np.dtype(ml_dtypes.bfloat16)] = "BF16"
    header, data = {}, b""
    for name, array in arrays.items():
        begin, data = len(data), data + array.tobytes()
        header[name] = {"dtype": names[array.dtype], "shape": list(array.shape), "data_offsets": [begin, len(data)]}
    return header, data


def pack(header, data):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


ARRAYS = {
    "conv.weight": np.linspace(-2, 2, 24, dtype=np.float32).reshape(2, 3, 2, 2),
    "half": np.array([0.5, -3.0, 6e-5], np.float16),
    "brain": np.array([1.5, -3e38], ml_dtypes.bfloat16),
    "double": np.array(0.1, np.float64),
    "counter": np.array(7, np.int64),
    "nothing": np.zeros((0, 3), np.float32),
}


@pytest.fixture
def write(tmp_path):
    def at(data, name="file.safetensors"):
        (tmp_path / name).write_bytes(data)
        return str(tmp_path / name)

    return at


def check_read(arrays):
    assert set(arrays) == set(ARRAYS)
    for name, array in ARRAYS.items():
        want = array if name == "counter" else array.astype(np.float32)
        assert arrays[name].dtype == want.dtype
        np.testing.assert_array_equal(arrays[name], want)


def test_every_type_is_read_and_becomes_float32(write):
    header, data = header_and_data(ARRAYS)
    file = read_weights(write(pack({"__metadata__": {"format": "pt"}} | header, data)))
    assert file.kind == "safetensors"
    check_read(file.arrays)


@pytest.mark.parametrize("first_byte", [0x80, ord("P")])
def test_a_header_whose_length_looks_like_another_format(first_byte, write):
    header, data = header_and_data(ARRAYS)
    text = json.dumps(header).encode()
    text += b" " * ((first_byte - len(text)) % 256)
    packed = pack(text, data)
    assert packed[0] == first_byte
    assert read_weights(write(packed)).kind == "safetensors"


def test_the_hash_is_that_of_the_file(write):
    data = safetensors.numpy.save({"a": ARRAYS["half"]})
    assert read_weights(write(data)).sha256 == hashlib.sha256(data).hexdigest()


WHOLE = pack(*header_and_data(ARRAYS))
BROKEN = {
    "cut in the data": (WHOLE[:-3], "damaged"),
    "cut in the header": (WHOLE[:60], "damaged"),
    "more data than said": (WHOLE + b"\0", "damaged"),
    "an endless header": (b"\xff" * 7 + b"\x7f{}", "damaged"),
    "no JSON": (pack(b"{nothing}", b""), "damaged"),
    "a deep nest": (pack(b'{"a":' + b"[" * 200_000, b""), "damaged"),
    "unsupported type": (pack({"a": {"dtype": "F8_E4M3", "shape": [2], "data_offsets": [0, 2]}}, b"ab"), "F8_E4M3"),
    "a web page": (b"<!DOCTYPE html><html>Sign in</html>", "web page"),
    "a pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:00", "git lfs pull"),
    "Keras": (b"\x89HDF\r\n\x1a\n" + bytes(64), "HDF5"),
    "empty": (b"", "empty"),
    "a picture": (b"\xff\xd8\xff\xe0JFIF" + bytes(64), "not a weight file: give a .safetensors file"),
    "negative": (pack(*header_and_data({"bn.running_var": np.array([1, -1], np.float32)})), "negative variances"),
    "not a number": (pack(*header_and_data({"a": np.array([1, np.nan], np.float32)})), "a in .* not finite"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_file_gets_one_line(case, write):
    data, says = BROKEN[case]
    with pytest.raises(UserError, match=says) as caught:
        read_weights(write(data))
    assert "\n" not in str(caught.value)


def test_a_missing_file_names_its_neighbour(write, tmp_path):
    write(b"", "resnet18.pth")
    with pytest.raises(UserError, match="resnet81.pth; did you mean 'resnet18.pth'"):
        read_weights(str(tmp_path / "resnet81.pth"))


def torch_file(content, **options):
    torch = pytest.importorskip("torch")
    stream = io.BytesIO()
    torch.save(content, stream, **options)
    return stream.getvalue()


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "before 1.6"])
@pytest.mark.parametrize("wrapper", [(), ("state_dict",), ("model", "state_dict")])
def test_pytorch_files(zipped, wrapper, write):
    torch = pytest.importorskip("torch")
    content = {}
    for name, array in ARRAYS.items():
        wide = torch.from_numpy(np.array(array, np.float32)) if name == "brain" else torch.from_numpy(np.array(array))
        content[name] = wide.to(torch.bfloat16) if name == "brain" else wide
    content["conv.weight"] = torch.nn.Parameter(content["conv.weight"])
    for name in wrapper:
        content = {"epoch": 3, "best": torch.tensor(0.5), name: content, "optimizer": {"state": {}}}
    file = read_weights(write(torch_file(content, _use_new_zipfile_serialization=zipped), "x.pth.tar"))
    assert file.kind == "PyTorch"
    check_read(file.arrays)


class Trap:
    """Unpickled, it writes a file: the proof that code ran."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (self.path, "w"))


@pytest.mark.parametrize("form", ["zip", "before 1.6", "plain pickle"])
def test_a_pickle_that_would_run_code_runs_none(form, write, tmp_path):
    torch = pytest.importorskip("torch")
    sprung = tmp_path / "sprung"
    content = {"state_dict": {"a": torch.zeros(2)}, "extra": Trap(str(sprung))}
    if form == "plain pickle":
        data = pickle.dumps(content["extra"], protocol=2)
    else:
        data = torch_file(content, _use_new_zipfile_serialization=form == "zip")
    path = write(data, "x.pth")
    with pytest.raises(UserError, match="cannot read") as caught:
        read_weights(path)
    assert "\n" not in str(caught.value)
    if form != "plain pickle":
        assert re.search(r"more than weights \(\S*open\), and reading that could run code", str(caught.value))
    assert not sprung.exists()
    if form != "plain pickle":  # the trap is a trap
        torch.load(path, weights_only=False)["extra"].close()
        assert sprung.exists()


def test_a_whole_network_instead_of_its_weights(write):
    torch = pytest.importorskip("torch")
    with pytest.raises(UserError, match=r"more than weights .* torch.save\(model.state_dict\(\)"):
        read_weights(write(torch_file(torch.nn.Linear(2, 2)), "x.pt"))


@pytest.mark.parametrize("share", [0.2, 0.9])
@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "before 1.6"])
def test_a_pytorch_file_that_is_cut_short(share, zipped, write):
    torch = pytest.importorskip("torch")
    data = torch_file({"a": torch.ones(1000)}, _use_new_zipfile_serialization=zipped)
    with pytest.raises(UserError, match="damaged") as caught:
        read_weights(write(data[: int(share * len(data))], "x.pth"))
    assert "\n" not in str(caught.value)


def test_a_small_file_that_claims_a_large_tensor(write):
    torch = pytest.importorskip("torch")
    with pytest.raises(UserError, match="a in .* repeats its numbers"):
        read_weights(write(torch_file({"a": torch.ones(1).expand(10**12)}), "x.pth"))


def test_nothing_that_has_a_name(write):
    torch = pytest.importorskip("torch")
    itself = {}
    itself["model"] = itself
    for content in ([torch.ones(2)], {"epoch": 3}, itself):
        with pytest.raises(UserError, match="holds no named weights"):
            read_weights(write(torch_file(content), "x.pth"))


def test_without_pytorch_the_line_says_what_to_install(write, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(UserError, match=r"pip install 'fer_jax\[torch\]', or give a .safetensors file"):
        read_weights(write(b"PK\x03\x04 archive/data.pkl", "x.pth"))


def test_a_zip_of_another_kind_needs_no_pytorch(write, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    stream = io.BytesIO()
    np.savez(stream, conv=ARRAYS["conv.weight"])
    with pytest.raises(UserError, match="not a weight file") as caught:
        read_weights(write(stream.getvalue(), "x.npz"))
    assert "npz" in str(caught.value)
