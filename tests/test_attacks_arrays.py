"""The same for `.npz` and `.safetensors`, and what honest writers of them make is read."""

import io
import json
import struct
import zipfile
import zlib

import ml_dtypes
import numpy as np
import pytest

from ssenet_jax.arrays import read_npy
from ssenet_jax.pretrained import read_npz, read_safetensors, read_weights

RAW = np.arange(6, dtype=np.float32).tobytes()
ANSI = "\x1b[31mred"


def zipped(entries, method=zipfile.ZIP_STORED):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        for name, content in entries:
            archive.writestr(name, content)
    return stream.getvalue()


def case_ids(table):
    return [name.replace(" ", "-") for name in table]


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


def directory_moved(data):
    """Where the directory stands and its length, in the last record of a zip, made to lie before the first byte."""
    end = data.rindex(b"PK\x05\x06")
    return data[: end + 12] + struct.pack("<II", len(data) * 2, len(data)) + data[end + 20 :]


GOOD = npy(header(), RAW)
NPZ = {
    "a bomb whose header agrees": (deflate_bomb(200 << 20), "without compression"),
    "two entries of one name": (
        zipped([("a.npy", GOOD), ("b.npy", GOOD)]).replace(b"b.npy", b"a.npy"),
        "two entries named 'a.npy'",
    ),
    "two arrays of one name": (zipped([("a", GOOD), ("a.npy", GOOD)]), "two arrays of one name"),
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
    "a directory before the file's start": (directory_moved(zipped([("a.npy", GOOD)])), "not a readable .npz"),
    "a wrong check sum": (zipped([("a.npy", GOOD)]).replace(struct.pack("<I", zlib.crc32(GOOD)), b"abcd"), "CRC"),
}


@pytest.mark.parametrize(("content", "message"), NPZ.values(), ids=case_ids(NPZ))
def test_an_npz_file_that_lies_is_refused_in_one_line(refused, tmp_path, content, message):
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
def test_a_safetensors_file_that_lies_is_refused_in_one_line(refused, tmp_path, content, message):
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
