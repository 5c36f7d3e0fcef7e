"""Weight files that lie about sizes, counts, nesting or names: refused in a line, at the cost of their bytes."""

import io
import json
import pickle
import struct
import tracemalloc
import zipfile
import zlib
from collections import OrderedDict

import ml_dtypes
import numpy as np
import pytest

from ssenet_jax.arrays import read_npy
from ssenet_jax.pretrained import read_npz, read_safetensors, read_weights

RAW = np.arange(6, dtype=np.float32).tobytes()
ANSI = "\x1b[31mred"


def text(value):
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


def doubled(times=34):
    """A tuple that holds itself twice, that often over: 2^34 numbers when it is followed."""
    return b"K\x01\x85q\x00" + b"".join(b"h%c\x86q%c" % (i, i + 1) for i in range(times))


def storage(kind=None, key=None, count=b"K\x06", dtype=b"ctorch\nFloatStorage\n"):
    return b"(" + (kind or text("storage")) + dtype + (key or text("0")) + text("cpu") + count + b"tQ"


def tensor(store=None, offset=b"K\x00", shape=b"K\x02K\x03\x86", strides=b"K\x03K\x01\x86"):
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + (store or storage()) + offset + shape + strides + b"\x89NtR"


def state(*items):
    return b"\x80\x02}(" + b"".join(items) + b"u."


def zipped(entries, method=zipfile.ZIP_STORED):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        for name, content in entries:
            archive.writestr(name, content)
    return stream.getvalue()


def torch_zip(content, *more):
    return zipped([("m/data.pkl", content), ("m/data/0", RAW), *more])


def overlapping():
    """Thirty entries that claim the same megabyte."""
    data = zipped([("m/data.pkl", state()), *((f"m/data/{i}", b"") for i in range(30)), ("m/data/x", bytes(1 << 20))])
    directory = data.index(b"PK\x01\x02")
    head, tail = data[:directory], bytearray(data[directory:])
    last = tail.rindex(b"PK\x01\x02")
    at = 0
    while (at := tail.find(b"PK\x01\x02", at)) >= 0:
        if at != 0:
            tail[at + 16 : at + 28] = tail[last + 16 : last + 28]
            tail[at + 42 : at + 46] = tail[last + 42 : last + 46]
        at += 4
    return head + bytes(tail)


TORCH = {
    "nested shape": (torch_zip(state(text("a"), tensor(shape=doubled()))), "whole numbers"),
    "nested strides": (torch_zip(state(text("a"), tensor(strides=doubled()))), "whole numbers"),
    "nested offset": (torch_zip(state(text("a"), tensor(offset=doubled()))), "whole numbers"),
    "nested dict key": (torch_zip(state(doubled(), b"N")), "key that is a tuple"),
    "nested storage kind": (torch_zip(state(text("a"), tensor(storage(kind=doubled())))), "plain tensor storage"),
    "nested storage key": (torch_zip(state(text("a"), tensor(storage(key=doubled())))), "described by a name"),
    "nested count": (torch_zip(state(text("a"), tensor(storage(count=doubled())))), "described by a name"),
    "nested storage": (torch_zip(state(text("a"), tensor(doubled()))), "pickle is damaged"),
    "nested value": (torch_zip(state(text("a"), doubled())), "is a tuple"),
    "nested content": (torch_zip(b"\x80\x02" + doubled() + b"."), "holds a tuple"),
    "nested function": (torch_zip(b"\x80\x02" + doubled() + b")R."), "calls a tuple"),
    "nested magic": (b"\x80\x02" + doubled() + b".", "neither a zip nor a stream"),
    "a list that holds itself": (torch_zip(state(text("a"), b"]q\x00h\x00a")), "is a list"),
    "tuples 200,000 deep": (torch_zip(b"\x80\x02)" + b"\x85" * 200_000 + b"."), "holds a tuple"),
    "a shape of 100,000 sizes": (
        torch_zip(state(text("a"), tensor(shape=b"(" + b"K\x01" * 100_000 + b"t"))),
        "100000 sizes",
    ),
    "a size of 2,000 bits": (torch_zip(state(text("a"), tensor(shape=b"\x8a\xfa" + b"\x01" * 250 + b"\x85"))), "sizes"),
    "a global with escape codes": (torch_zip(b"\x80\x02cos\n" + ANSI.encode() + b"\n."), r"os\.\\x1b\[31mred"),
    "a name with escape codes": (torch_zip(state(text(ANSI), tensor())), r"'\\x1b\[31mred' holds control"),
    "a name of 5 MB": (torch_zip(state(text("n" * 5_000_000), b"N")), "is a NoneType"),
    "the same name twice": (torch_zip(state(text("a"), tensor(), text("a"), tensor())), "'a' twice"),
    "a pop below the mark": (torch_zip(b"\x80\x02(\x86."), "pickle is damaged"),
    "an empty stack": (torch_zip(b"\x80\x02."), "pickle is damaged"),
    "a memo that is not there": (torch_zip(b"\x80\x02h\x05."), "pickle is damaged"),
    "a class that is built": (torch_zip(b"\x80\x02ctorch\nFloatStorage\n}b."), "pickle is damaged"),
    "an instance": (torch_zip(b"\x80\x02(ios\nsystem\n."), "uses INST"),
    "an object of a new class": (torch_zip(b"\x80\x02ccollections\nOrderedDict\n)\x81."), "uses NEWOBJ"),
    "a duplicated storage": (
        torch_zip(state(), ("m/data/X", RAW)).replace(b"m/data/X", b"m/data/0"),
        "two entries named 'm/data/0'",
    ),
    "a byteorder that is a bomb": (
        zipped([("m/data.pkl", state()), ("m/byteorder", bytes(99 << 20))], zipfile.ZIP_DEFLATED),
        "is compressed",
    ),
    "entries that overlap": (overlapping(), "claims|Overlapped|differ"),
}


def refused(read, path, message, longest=400):
    """The reader raises one line that names the file, in memory of the order of the file."""
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=message) as error:
            read(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert path.name in str(error.value) and str(error.value).isprintable() and len(str(error.value)) <= longest
    assert peak < 60 * path.stat().st_size + (4 << 20)


def case_ids(table):
    return [name.replace(" ", "-") for name in table]


@pytest.mark.parametrize(("content", "message"), TORCH.values(), ids=case_ids(TORCH))
def test_a_torch_file_that_lies_is_refused_in_one_line(tmp_path, content, message):
    path = tmp_path / "bad.pth"
    path.write_bytes(content)
    refused(read_weights, path, message)


def test_thousands_of_names_for_one_storage_take_no_more_than_the_file(tmp_path):
    path, raw = tmp_path / "tied.pth", bytes(1 << 20)
    many = [
        text(f"n{i}")
        + tensor(storage(count=b"J\x00\x00\x04\x00"), shape=b"J\x00\x00\x04\x00\x85", strides=b"K\x01\x85")
        for i in range(2000)
    ]
    path.write_bytes(zipped([("m/data.pkl", state(*many)), ("m/data/0", raw)]))
    tracemalloc.start()
    arrays = read_weights(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(arrays) == 2000 and arrays["n7"].shape == (1 << 18,) and peak < 30 << 20


def test_what_state_dicts_hold_beside_tensors_is_read(tmp_path):
    """The versions of modules, parameters, and Python 2's ordered dicts and strings."""
    metadata = pickle.dumps({"_metadata": OrderedDict([("", {"version": 1})])}, 2)[2:-1]
    parameter = b"ctorch._utils\n_rebuild_parameter\n(" + tensor() + b"\x88ccollections\nOrderedDict\n)RtR"
    ordered = b"ccollections\nOrderedDict\n"
    new = b"\x80\x02" + ordered + b")R(" + text("a") + parameter + b"u" + metadata + b"b."
    path = tmp_path / "a.pth"
    path.write_bytes(torch_zip(new))
    np.testing.assert_array_equal(read_weights(path)["a"], np.arange(6, dtype=np.float32).reshape(2, 3))
    old = b"\x80\x02" + ordered + b"]](U\x01a" + tensor() + b"ea\x85R."
    path.write_bytes(torch_zip(old))
    assert list(read_weights(path)) == ["a"]


def mxnet(names, count=None, shape=(), code=0, body=b""):
    count = len(names) if count is None else count
    array = struct.pack(f"<II{len(shape)}q", 0xF993FAC8, len(shape), *shape) + struct.pack("<iii", 1, 0, code) + body
    array = array if shape else struct.pack("<II", 0xF993FAC8, 0)
    listed = b"".join(struct.pack("<Q", len(name)) + name for name in names)
    return struct.pack("<QQQ", 0x112, 0, count) + array * count + struct.pack("<Q", len(names)) + listed


MXNET = {
    "30,000 arrays of one name": (mxnet([b""] * 30_000), "'' occurs twice"),
    "a name with escape codes": (mxnet([ANSI.encode()]), r"'\\x1b\[31mred' holds control"),
    "a name with a line break": (mxnet([b"a\nb"]), "holds control characters"),
    "a name that is not UTF-8": (mxnet([b"\xff"]), "is not UTF-8"),
    "no elements of endless axes": (mxnet([b"a"], shape=(0, 1 << 62, 1 << 62)), "sizes are 0 to"),
    "2^48 elements": (mxnet([b"a"], shape=(1 << 48,)), "only .* are left"),
    "32 axes of 2^48": (mxnet([b"a"], shape=(1 << 48,) * 32), "only 17 are left"),
}


@pytest.mark.parametrize(("content", "message"), MXNET.values(), ids=case_ids(MXNET))
def test_an_mxnet_file_that_lies_is_refused_in_one_line(tmp_path, content, message):
    path = tmp_path / "bad.params"
    path.write_bytes(content)
    refused(read_weights, path, message)


def npy(header, body=b"", version=1):
    header = header.encode("latin-1")
    return b"\x93NUMPY" + bytes([version, 0]) + struct.pack("<H" if version == 1 else "<I", len(header)) + header + body


def header(descr="'<f4'", order="False", shape="(6,)"):
    return f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}\n"


def deflated(array_bytes):
    return zipped([("a.npy", array_bytes)], zipfile.ZIP_DEFLATED)


def deflate_bomb(size):
    """An array of zeros whose header agrees, written without ever being held."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("a.npy", "w") as entry:
        entry.write(npy(header(shape=f"({size // 4},)")))
        for _ in range(size >> 20):
            entry.write(bytes(1 << 20))
    return stream.getvalue()


GOOD = npy(header(), RAW)
NPZ = {
    "a bomb whose header agrees": (deflate_bomb(200 << 20), "without compression"),
    "two entries of one name": (
        zipped([("a.npy", GOOD), ("b.npy", GOOD)]).replace(b"b.npy", b"a.npy"),
        "two entries named 'a.npy'",
    ),
    "deep parentheses": (deflated(npy("(" * 9000)), "plain arrays"),
    "a header of 60,000 bytes": (deflated(npy(" " * 60_000)), "header of 60000 bytes"),
    "a header of 4 GB": (deflated(b"\x93NUMPY\x02\x00\xff\xff\xff\xff"), "header of 4294967295"),
    "a call in the header": (deflated(npy(header(shape="(__import__('os').getpid(),)"))), "plain arrays"),
    "an expression for a size": (deflated(npy(header(shape="(2*3,)"), RAW)), "plain arrays"),
    "a negative size": (deflated(npy(header(shape="(-6,)"), RAW)), "plain arrays"),
    "a size of 5,000 digits": (deflated(npy(header(shape=f"({'9' * 5000},)"))), "digits"),
    "a size of 30 digits": (deflated(npy(header(shape=f"({'9' * 30},)"))), "2\\^48"),
    "100 axes": (deflated(npy(header(shape=f"({'1,' * 100})"), RAW[:4])), "64 axes"),
    "no elements of endless axes": (
        deflated(npy(header(shape="(0, 99999999999, 99999999999)"))),
        "damaged|big|axes|shape",
    ),
    "objects": (deflated(npy(header("'|O'"), b"cos\nsystem\n.")), "Python objects"),
    "a structure": (deflated(npy(header("[('a', '<f4')]"), RAW)), "plain arrays"),
    "text": (deflated(npy(header("'<U6'", shape="(1,)"), RAW)), "only numbers"),
    "a dtype that is none": (deflated(npy(header("'<x9'"), RAW)), "no dtype"),
    "a key twice": (deflated(npy("{'descr': '<f4', 'descr': '<f4', 'shape': (6,)}", RAW)), "plain arrays"),
    "bytes after the array": (deflated(GOOD + b"x"), "25 bytes of data"),
    "fewer bytes than it says": (deflated(GOOD[:-1]), "23 bytes of data"),
    "a name with escape codes": (zipped([(f"{ANSI}.npy", GOOD)]), "holds control characters"),
    "another compression": (zipped([("a.npy", GOOD)], zipfile.ZIP_LZMA), "another method"),
    "a wrong check sum": (zipped([("a.npy", GOOD)]).replace(struct.pack("<I", zlib.crc32(GOOD)), b"abcd"), "CRC"),
}


@pytest.mark.parametrize(("content", "message"), NPZ.values(), ids=case_ids(NPZ))
def test_an_npz_file_that_lies_is_refused_in_one_line(tmp_path, content, message):
    path = tmp_path / "bad.npz"
    path.write_bytes(content)
    refused(read_npz, path, message)


@pytest.mark.parametrize(
    "array",
    [
        np.arange(12, dtype=np.float64).reshape(3, 4),
        np.asfortranarray(np.arange(12, dtype=np.int16).reshape(3, 4)),
        np.float32(3),
        np.zeros((0, 3), np.uint8),
        np.array([True, False]),
        np.arange(3, dtype=">i4"),
    ],
    ids=lambda array: f"{array.dtype}{array.shape}",
)
def test_what_numpy_writes_is_read_without_its_parser(tmp_path, monkeypatch, array):
    monkeypatch.setattr("ast.parse", None)
    for save in (np.savez, np.savez_compressed):
        save(tmp_path / "a.npz", array=array)
        read = read_npz(tmp_path / "a.npz")["array"]
        assert read.dtype == array.dtype and read.shape == array.shape and read.flags.writeable
        np.testing.assert_array_equal(read, array)


@pytest.mark.parametrize(
    "text",
    [
        "{'descr': '<f4', 'fortran_order': False, 'shape': (6,)}",
        '{"shape": (2, 3), "descr": "<f4", "fortran_order": True}   \n',
        "{'descr':'<f4','fortran_order':False,'shape':(2L,3L)}",
    ],
)
def test_headers_of_other_writers_are_read(text):
    data = npy(text, RAW, version=2)
    assert read_npy(io.BytesIO(data), len(data)).size == 6


def tensors(header, body=bytes(8), length=None):
    header = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(header) if length is None else length) + header + body


def entry(dtype="F32", shape=(2,), offsets=(0, 8)):
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


ENTRY = json.dumps(entry()).encode()
SAFETENSORS = {
    "empty": (b"", "too small"),
    "cut": (tensors({"a": entry()})[:-1], "not fully covered|incomplete"),
    "a header of 2^60 bytes": (tensors({"a": entry()}, length=1 << 60), "too large"),
    "not JSON": (tensors(b"{"), "JSON"),
    "nested 100,000 deep": (tensors(b"[" * 100_000), "JSON"),
    "a name twice": (tensors(b'{"a":' + ENTRY + b',"a":' + ENTRY + b"}"), "'a' occurs twice"),
    "a name with escape codes": (tensors({ANSI: entry()}), "holds control characters"),
    "a dtype that is not dense numbers": (tensors({"a": entry("F8_E4M3", (8,))}), "'a' has dtype F8_E4M3"),
    "sizes that overflow": (tensors({"a": entry(shape=(1 << 40, 1 << 40))}), "overflow"),
    "fewer bytes than its shape": (tensors({"a": entry(shape=(3,))}), "readable .safetensors"),
    "two arrays on the same bytes": (tensors({"a": entry(), "b": entry()}), "offset|covered"),
}


@pytest.mark.parametrize(("content", "message"), SAFETENSORS.values(), ids=case_ids(SAFETENSORS))
def test_a_safetensors_file_that_lies_is_refused_in_one_line(tmp_path, content, message):
    path = tmp_path / "bad.safetensors"
    path.write_bytes(content)
    refused(read_safetensors, path, message)


def test_a_safetensors_file_is_read_by_its_suffix(tmp_path):
    path = tmp_path / "a.safetensors"
    path.write_bytes(
        tensors({"__metadata__": {"format": "pt"}, "a": entry(), "b": entry("BF16", (2, 2), (8, 16))}, bytes(16))
    )
    weights = read_weights(path)
    assert weights["a"].dtype == np.float32 and weights["b"].dtype == ml_dtypes.bfloat16
    assert weights["b"].shape == (2, 2)
