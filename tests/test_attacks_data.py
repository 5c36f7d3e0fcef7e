"""Photos, masks and lists that lie: refused in one short line before a training, never taken for something else."""

import errno
import io
import os
import struct
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ssenet_jax import datasets
from ssenet_jax.commands import verify
from ssenet_jax.config import paper_config
from ssenet_jax.datasets import formats
from ssenet_jax.datasets.records import decode_image

GREY = np.random.default_rng(0).integers(0, 256, (20, 30), np.uint8)
PHOTO = Image.fromarray(np.stack([GREY] * 3, -1))
ANSI = "\x1b[31m"
DEEP = GREY.astype(np.uint16)


def encoded(image, kind="png", **options):
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def png(width, height, depth, colour, rows):
    """A PNG put together by hand; `rows` are the bytes of its pixels."""

    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    body = zlib.compress(b"".join(b"\0" + bytes(row) for row in rows))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def deep_rgb(levels):
    return png(30, 20, 16, 2, np.repeat(levels.astype(">u2"), 3, axis=1).view(np.uint8))


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 30 20\n%%EndComments\nshowpage\n"
PHOTOS = {
    "32-bit TIFF of 8-bit range": (encoded(Image.fromarray(GREY.astype(np.int32)), "tiff"), "32 bits a channel"),
    "32-bit TIFF": (encoded(Image.fromarray(GREY.astype(np.int32) << 20), "tiff"), "32 bits a channel"),
    "floating point TIFF": (encoded(Image.fromarray(GREY.astype(np.float32)), "tiff"), "32 bits a channel"),
    "16-bit TIFF of 8-bit range": (encoded(Image.fromarray(DEEP), "tiff"), "all dark"),
    "16-bit TIFF of 12-bit range": (encoded(Image.fromarray(DEEP * 16), "tiff"), "all dark"),
    "16-bit PNG of 8-bit range": (encoded(Image.fromarray(DEEP)), "all dark"),
    "16-bit colour PNG of 8-bit range": (deep_rgb(DEEP), "all dark"),
    "177 megapixels": (png(13300, 13300, 8, 0, []), "13300 x 13300 pixels are more than the 128 million"),
    "a billion pixels": (png(33000, 33000, 1, 0, []), "does not decode"),
    "EPS": (EPS, "is no whole JPEG"),
    "PPM": (encoded(PHOTO, "ppm"), "is no whole JPEG"),
    "TGA": (encoded(PHOTO, "tga"), "is no whole JPEG"),
    "ICO": (encoded(PHOTO, "ico"), "is no whole JPEG"),
    "PDF": (encoded(PHOTO, "pdf"), "is no whole JPEG"),
    "SVG": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "is no whole JPEG"),
    "AVIF": (b"\0\0\0\x1cftypavif" + bytes(40), "is no whole JPEG"),
    "MP4": (b"\0\0\0\x18ftypisom" + bytes(40), "is a video, and only photos are read"),
    "QuickTime": (b"\0\0\0\x14ftypqt  " + bytes(40), "is a video"),
    "Matroska": (b"\x1aE\xdf\xa3" + bytes(40), "is a video"),
    "AVI": (b"RIFF\0\0\0\0AVI LIST", "is a video"),
    "HEIC without a picture": (b"\0\0\0\x18ftypheic" + bytes(40), "does not decode"),
}
GOOD_PHOTOS = {
    "16-bit grey": (encoded(Image.fromarray(DEEP * 257)), GREY),
    "16-bit grey TIFF, big-endian": (encoded(Image.fromarray((DEEP * 257).astype(">u2")), "tiff"), GREY),
    "16-bit colour": (deep_rgb(DEEP * 257), GREY),
    "night in 8 bits": (encoded(Image.fromarray(GREY // 32)), GREY // 32),
    "black in 8 bits": (encoded(Image.fromarray(GREY * 0)), GREY * 0),
    "WebP": (encoded(PHOTO, "webp", lossless=True), GREY),
    "TIFF": (encoded(PHOTO, "tiff"), GREY),
}


def named(table):
    return [name.replace(" ", "-") for name in table]


@pytest.fixture
def own(tmp_path):
    """Two photos with masks and a config that points at them."""
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
    for name in ("a", "b"):
        (tmp_path / f"images/{name}.png").write_bytes(encoded(PHOTO))
        (tmp_path / f"masks/{name}.png").write_bytes(encoded(Image.fromarray(GREY % 3)))
    (tmp_path / "train.csv").write_text("image,labels\na.png,elm\nb.png,oak\n")
    data = paper_config().data
    data.name, data.root, data.eval_split, data.folder.masks = "folder", str(tmp_path), "", "masks"
    return data


def faults(data):
    """What verify-data prints below its head."""
    lines = verify.table(list(verify.faults(data))).splitlines()[1:]
    assert all(line.isprintable() and len(line) < 500 for line in lines)
    return lines


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize(("data", "message"), PHOTOS.values(), ids=named(PHOTOS))
def test_a_photo_that_lies_is_found_and_left_out_when_asked(own, data, message):
    own.folder.masks = ""
    (Path(own.root) / "images/b.png").write_bytes(data)
    (line,) = faults(own)
    assert message in line and "b.png" in line
    own.on_error = "skip"
    assert datasets.load(own, "train").ids == ["a"]


@pytest.mark.parametrize(("data", "grey"), GOOD_PHOTOS.values(), ids=named(GOOD_PHOTOS))
def test_a_photo_in_a_known_format_keeps_its_levels(data, grey):
    np.testing.assert_array_equal(decode_image(data, "photo"), np.stack([grey] * 3, -1))


def test_a_photo_never_starts_ghostscript(tmp_path, monkeypatch):
    (tmp_path / "gs").write_text(f"#!/bin/sh\ntouch {tmp_path}/started\n")
    (tmp_path / "gs").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    with pytest.raises(ValueError, match="is no whole JPEG"):
        decode_image(EPS, "photo.eps")
    assert not (tmp_path / "started").exists()


@pytest.mark.parametrize("kind", ["jpeg", "png", "webp", "tiff", "bmp", "gif"])
def test_the_limit_on_pixels_is_looked_at_before_decoding(monkeypatch, kind):
    data = encoded(PHOTO, kind)
    assert decode_image(data, "photo").shape == (20, 30, 3)
    monkeypatch.setattr(formats, "MOST_PIXELS", 599)
    monkeypatch.setattr(Image.Image, "load", None)
    with pytest.raises(ValueError, match="30 x 20 pixels are more than"):
        decode_image(data, "photo")


def test_a_photo_of_more_pixels_than_pillow_opens_is_refused_in_the_same_words(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 200)
    with pytest.raises(ValueError, match="its pixels are more than the 128 million that are read"):
        decode_image(encoded(PHOTO), "photo")


def test_a_large_photo_is_converted_in_strips_without_a_seam(monkeypatch):
    clear = Image.merge("RGBA", (*PHOTO.split(), Image.fromarray(GREY[::-1].copy())))
    for image in (PHOTO, PHOTO.quantize(16), clear, Image.fromarray(DEEP * 257)):
        whole = decode_image(encoded(image), "photo")
        with monkeypatch.context() as strips:
            strips.setattr("ssenet_jax.datasets.records._STRIP_PIXELS", 90)
            np.testing.assert_array_equal(decode_image(encoded(image), "photo"), whole)


def test_heic_is_read_where_its_package_is(monkeypatch):
    pillow_heif = pytest.importorskip("pillow_heif")
    stream = io.BytesIO()
    pillow_heif.from_pillow(PHOTO.resize((64, 48))).save(stream, quality=95)
    image = decode_image(stream.getvalue(), "photo.heic")
    assert image.shape == (48, 64, 3)
    assert np.abs(image.astype(int) - np.asarray(PHOTO.resize((64, 48)))).mean() < 12


def test_heic_names_its_package_where_it_is_not(monkeypatch):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    formats._add_heif.cache_clear()
    with pytest.raises(ValueError, match="pip install pillow-heif"):
        decode_image(PHOTOS["HEIC without a picture"][0], "photo.heic")


def make_fifo(path):
    path.unlink()
    os.mkfifo(path)


def make_device(path):
    path.unlink()
    path.symlink_to("/dev/zero")


def make_folder(path):
    path.unlink()
    path.mkdir()


def make_sparse(path):
    os.truncate(path, (1 << 30) + 1)


SPECIAL = {
    "pipe": (make_fifo, "not a file"),
    "device": (make_device, "not a file"),
    "folder": (make_folder, "directory"),
    "sparse": (make_sparse, "more than 1 GiB"),
}


@pytest.mark.parametrize("place", ["images/b.png", "masks/b.png", "train.csv"])
@pytest.mark.parametrize(("make", "reason"), SPECIAL.values(), ids=SPECIAL)
def test_what_is_no_file_is_not_waited_for(own, place, make, reason):
    path = Path(own.root) / place
    make(path)
    (line,) = faults(own)
    assert f"{place} ({reason})" in line or "Is a directory" in line
    own.on_error = "skip"
    if place != "train.csv":
        assert datasets.load(own, "train").ids == ["a"]


@pytest.mark.parametrize("code", [errno.EMFILE, errno.EIO, errno.ESTALE], ids=["files", "disk", "share"])
def test_a_machine_short_of_files_or_a_disk_that_fails_is_no_fault_of_the_photo(own, monkeypatch, code):
    source = datasets.load(own, "train")

    def fail(*arguments):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "open", fail)
    with pytest.raises(OSError, match=rf"{os.strerror(code)}.*a\.png"):
        list(datasets.problems(source))


def test_a_photo_is_not_taken_for_its_own_mask(own):
    own.folder.masks = "images"
    assert all("is its own mask" in line for line in faults(own)) and len(faults(own)) == 2
