"""Weight files are read without the programs that wrote them, and a bad one is a ValueError that says why."""

import io
import os
import pickle
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest

from ssenet_jax.pretrained import read_mxnet_params, read_npz, read_torch_checkpoint, read_weights
from ssenet_jax.pretrained.load import packaged_weights

SHARED = Path(os.environ.get("SSENET_DATA", Path(__file__).parents[2] / "shared"))
ARRAY = np.arange(6, dtype=np.float32).reshape(2, 3)


def mxnet_array(array, version, storage=0):
    codes = {"float32": 0, "float64": 1, "float16": 2, "uint8": 3, "int32": 4, "int8": 5, "int64": 6}
    if version == 0:
        head = struct.pack(f"<I{array.ndim}I", array.ndim, *array.shape)
    else:
        words = (0xF993FAC8, 0xF993FAC9, 0xF993FACA)
        head = struct.pack("<I", words[version - 1]) + (struct.pack("<i", storage) if version > 1 else b"")
        head += struct.pack(f"<I{array.ndim}q", array.ndim, *array.shape)
    return head + struct.pack("<iii", 1, 0, codes[array.dtype.name]) + array.tobytes()


def mxnet_file(arrays, version=0, names=None, count=None, storage=0):
    names = list(arrays) if names is None else names
    body = b"".join(mxnet_array(array, version, storage) for array in arrays.values())
    text = b"".join(struct.pack("<Q", len(name)) + name.encode() for name in names)
    header = struct.pack("<QQQ", 0x112, 0, len(arrays) if count is None else count)
    return header + body + struct.pack("<Q", len(names)) + text


@pytest.mark.parametrize("version", [0, 1, 2, 3])
def test_every_mxnet_layout(tmp_path, version):
    arrays = {
        "arg:conv1a_weight": ARRAY,
        "aux:steps": np.array([7], np.int64),
        "arg:half": np.ones((1, 2, 2), np.float16),
    }
    path = tmp_path / "a.params"
    path.write_bytes(mxnet_file(arrays, version))
    read = read_mxnet_params(path)
    assert list(read) == list(arrays)
    for name, array in arrays.items():
        assert read[name].dtype == array.dtype
        np.testing.assert_array_equal(read[name], array)


@pytest.mark.skipif(not (SHARED / "mxnet").is_dir(), reason="SSENET_DATA holds no mxnet/legacy.params")
def test_a_real_mxnet_file():
    arrays = read_mxnet_params(SHARED / "mxnet" / "legacy.params")
    assert len(arrays) == 13
    assert arrays["arg:conv3_weight"].shape == (32, 16, 3, 3)
    assert all(np.isfinite(array).all() and array.any() for array in arrays.values())


GOOD = {"arg:a": ARRAY}
HUGE = struct.pack("<QQQ", 0x112, 0, 1)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (mxnet_file(GOOD)[:-1], "name 0 needs"),
        (mxnet_file(GOOD)[:50], "array 0 of shape"),
        (b"", "the header needs"),
        (b"PK" + bytes(40), "starts with"),
        (mxnet_file(GOOD) + b"x", "1 bytes follow"),
        (mxnet_file(GOOD, names=["a", "b"]), "1 arrays but 2 names"),
        (mxnet_file({"a": ARRAY, "b": ARRAY}, names=["a", "a"]), "'a' occurs twice"),
        (mxnet_file(GOOD, count=1 << 60), "claims 1152921504606846976 arrays"),
        (mxnet_file(GOOD, version=2, storage=1), "storage type 1"),
        (
            HUGE + struct.pack("<I2I", 2, 1 << 31, 1 << 31) + struct.pack("<iii", 1, 0, 0) + bytes(40),
            "only 40 are left",
        ),
        (HUGE + struct.pack("<II", 0xF993FAC8, 1 << 30) + bytes(40), "1073741824 axes"),
        (HUGE + struct.pack("<IIq", 0xF993FAC8, 1, -5) + bytes(40), "shape"),
        (HUGE + struct.pack("<II", 1, 2) + struct.pack("<iii", 1, 0, 99) + bytes(40), "dtype code 99"),
    ],
)
def test_bad_mxnet_files(tmp_path, content, message):
    path = tmp_path / "bad.params"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"bad.params: .*{message}"):
        read_mxnet_params(path)


def text(value):
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def numbers(values):
    return b"(" + b"".join(b"I%d\n" % value for value in values) + b"t"


def torch_tensor(shape=(2, 3), strides=(3, 1), offset=0, count=6, kind="FloatStorage", key="0"):
    storage = b"(" + text("storage") + b"ctorch\n" + kind.encode() + b"\n" + text(key) + text("cpu")
    rebuilt = b"ctorch._utils\n_rebuild_tensor_v2\n((" + storage[1:] + b"I%d\ntQ" % count
    return rebuilt + b"I%d\n" % offset + numbers(shape) + numbers(strides) + b"I00\nccollections\nOrderedDict\n)RtR"


def torch_pickle(**entries):
    items = b"".join(text(name.replace("__", ".")) + value for name, value in entries.items())
    return b"\x80\x02ccollections\nOrderedDict\n)R(" + items + b"u."


def torch_zip(content, storages=None, **kwargs):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", **kwargs) as archive:
        archive.writestr("model/data.pkl", content)
        archive.writestr("model/byteorder", "little")
        for key, raw in (storages or {"0": ARRAY.tobytes()}).items():
            archive.writestr(f"model/data/{key}", raw)
    return stream.getvalue()


def torch_stream(content, keys=("0",), count=6):
    heads = (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True})
    stream = b"".join(pickle.dumps(head, 2) for head in heads) + content + pickle.dumps(list(keys), 2)
    return stream + struct.pack("<q", count) + ARRAY.tobytes()


CHECKPOINT = torch_pickle(conv__weight=torch_tensor(), view=torch_tensor((2,), (3,), 1))


@pytest.mark.parametrize("content", [torch_zip(CHECKPOINT), torch_stream(CHECKPOINT)], ids=["zip", "stream"])
def test_both_torch_forms(tmp_path, content):
    path = tmp_path / "a.pth"
    path.write_bytes(content)
    arrays = read_torch_checkpoint(path)
    np.testing.assert_array_equal(arrays["conv.weight"], ARRAY)
    np.testing.assert_array_equal(arrays["view"], [1, 4])


COMMAND = b"\x80\x02cos\nsystem\n(" + text("echo ran > ran") + b"tR."


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (torch_zip(COMMAND), r"os\.system"),
        (torch_stream(COMMAND), r"os\.system"),
        (COMMAND, r"os\.system"),
        (torch_zip(torch_pickle(a=b"cbuiltins\neval\n(" + text("1") + b"tR")), r"builtins\.eval"),
        (torch_zip(torch_pickle(a=b"cnumpy\nload\n")), r"numpy\.load"),
        (torch_zip(torch_pickle(a=b"I3\n")), "'a' is a int"),
        (torch_zip(b"\x80\x02]."), "holds a list"),
        (torch_zip(torch_pickle(a=torch_tensor(key="5"))), "storage '5' is not in the file"),
        (torch_zip(torch_pickle(a=torch_tensor((2, 4), (4, 1)))), "reaches beyond the 6 elements"),
        (torch_zip(torch_pickle(a=torch_tensor((1 << 40, 1 << 40), (0, 0)))), "reaches beyond"),
        (torch_zip(torch_pickle(a=torch_tensor((2, 3), (3, -1)))), "whole numbers"),
        (torch_zip(torch_pickle(a=torch_tensor(count=1 << 50))), "24 bytes"),
        (torch_zip(torch_pickle(a=torch_tensor(kind="WeirdStorage"))), r"torch\.WeirdStorage"),
        (torch_zip(CHECKPOINT, compression=zipfile.ZIP_DEFLATED), "is compressed"),
        (torch_zip(b"\x80\x02N\x72\xff\xff\xff\x7f."), "holds a NoneType"),
        (torch_zip(b"\x80\x05\x96" + struct.pack("<Q", 1 << 60) + b"."), "expected|BYTEARRAY8"),
        (torch_stream(CHECKPOINT, count=1 << 60), "elements"),
        (torch_stream(CHECKPOINT, keys=("0", "9")), "'9' belongs to no tensor"),
        (torch_stream(CHECKPOINT) + b"x", "1 bytes follow"),
        (torch_zip(CHECKPOINT)[:-30], "zip"),
        (b"", "pickle exhausted"),
        (pickle.dumps({"a": 1}, 2), "neither a zip nor a stream"),
    ],
)
def test_bad_torch_files(tmp_path, monkeypatch, content, message):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "bad.pth"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"bad.pth: .*({message})"):
        read_torch_checkpoint(path)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("suffix", "content"),
    [(".pth", torch_zip(CHECKPOINT)), (".pth", torch_stream(CHECKPOINT)), (".params", mxnet_file(GOOD, version=2))],
    ids=["zip", "stream", "mxnet"],
)
def test_any_damage_is_a_value_error_or_harmless(tmp_path, suffix, content):
    rng = np.random.default_rng(0)
    path = tmp_path / f"damaged{suffix}"
    for trial in range(150):
        damaged = bytearray(content)
        if trial % 3 == 0:
            damaged = damaged[: rng.integers(len(content))]
        else:
            damaged[rng.integers(len(content))] = rng.integers(256)
        path.write_bytes(damaged)
        try:
            arrays = read_weights(path)
        except ValueError as error:
            assert "damaged" in str(error)
        else:
            assert sum(array.size for array in arrays.values()) < 100


def test_npz(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, **{"conv.weight": ARRAY})
    np.testing.assert_array_equal(read_npz(path)["conv.weight"], ARRAY)
    np.savez(path, a=np.array([{}], object))
    with pytest.raises(ValueError, match="a.npz: .*Python objects"):
        read_npz(path)
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": (1 << 40,)})
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.npy", header.getvalue() + bytes(40))
    with pytest.raises(ValueError, match="a.npz: .*40 bytes of data, expected shape"):
        read_npz(path)


def test_the_published_lite0_file():
    arrays = read_torch_checkpoint(packaged_weights("efficientnet_lite0"))
    assert arrays["_conv_stem.weight"].shape == (32, 3, 3, 3)
    assert arrays["_fc.weight"].shape == (1000, 1280)
    assert arrays["_blocks.15._bn2.num_batches_tracked"].dtype == np.int64


def test_unknown_suffix_and_missing_file(tmp_path):
    with pytest.raises(ValueError, match=r"\.h5.*\.params, \.pth"):
        read_weights(tmp_path / "a.h5")
    with pytest.raises(FileNotFoundError, match="a.pth: no such weight file"):
        read_weights(tmp_path / "a.pth")
