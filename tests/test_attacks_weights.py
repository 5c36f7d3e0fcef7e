"""Weight files that lie about sizes, counts, nesting or names: refused in a line, at the cost of their bytes."""

import io
import pickle
import struct
import tracemalloc
import zipfile
from collections import OrderedDict

import numpy as np
import pytest

from ssenet_jax.pretrained import read_weights

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


def case_ids(table):
    return [name.replace(" ", "-") for name in table]


@pytest.mark.parametrize(("content", "message"), TORCH.values(), ids=case_ids(TORCH))
def test_a_torch_file_that_lies_is_refused_in_one_line(refused, tmp_path, content, message):
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
def test_an_mxnet_file_that_lies_is_refused_in_one_line(refused, tmp_path, content, message):
    path = tmp_path / "bad.params"
    path.write_bytes(content)
    refused(read_weights, path, message)
