"""What every data set shares: decoding of photos and masks, and leaving out what is broken."""

import io

import numpy as np
import pytest
from PIL import Image

from ssenet_jax import datasets
from ssenet_jax.config import paper_config
from ssenet_jax.datasets import checking
from ssenet_jax.datasets.records import decode_image, decode_mask

GRADIENT = np.stack(np.broadcast_arrays(np.arange(24)[:, None] * 10, np.arange(16)[None] * 15, 90), -1).astype(np.uint8)


def encoded(image: Image.Image, kind: str = "png", **options) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "1", "RGBA", "LA", "CMYK", "I;16"])
def test_every_mode_of_image_becomes_rgb(mode):
    if mode == "I;16":
        image = Image.fromarray(GRADIENT[..., 0].astype(np.uint16) * 256 + 40)
    else:
        image = Image.fromarray(GRADIENT).convert(mode)
    kind = "tiff" if mode == "CMYK" else "png"
    decoded = decode_image(encoded(image, kind), "photo")
    assert decoded.shape == (24, 16, 3) and decoded.dtype == np.uint8
    if mode in ("RGB", "RGBA"):
        np.testing.assert_array_equal(decoded, GRADIENT)
    if mode == "I;16":
        np.testing.assert_array_equal(decoded[..., 0], GRADIENT[..., 0])


def test_a_tiff_of_16_bits_whose_white_is_zero_is_no_negative():
    grey = GRADIENT[..., 0].astype(np.uint16) * 257
    data = encoded(Image.fromarray(65535 - grey), "tiff", tiffinfo={262: 0})
    np.testing.assert_array_equal(decode_image(data, "photo")[..., 0], GRADIENT[..., 0])


def test_transparent_pixels_become_white():
    image = Image.fromarray(GRADIENT).convert("RGBA")
    image.putalpha(0)
    assert (decode_image(encoded(image), "photo") == 255).all()


def test_cmyk_jpeg_keeps_its_colours():
    decoded = decode_image(encoded(Image.fromarray(GRADIENT).convert("CMYK"), "jpeg", quality=98), "photo")
    assert np.abs(decoded.astype(int) - GRADIENT).mean() < 12


def test_exif_orientation_is_applied_and_masks_are_checked_against_the_upright_size():
    exif = Image.Exif()
    exif[0x0112] = 6
    decoded = decode_image(encoded(Image.fromarray(GRADIENT), "jpeg", exif=exif, quality=98), "photo")
    assert decoded.shape == (16, 24, 3)
    assert np.abs(decoded.astype(int) - np.rot90(GRADIENT, -1)).mean() < 4
    mask = encoded(Image.new("L", (24, 16)))
    assert decode_mask(mask, "mask", size=decoded.shape[:2], num_classes=2).shape == (16, 24)


@pytest.mark.parametrize("kind", ["png", "jpeg"])
@pytest.mark.parametrize("size", [(1, 1), (3000, 1)])
def test_extreme_sizes_decode(kind, size):
    assert decode_image(encoded(Image.new("RGB", size), kind), "photo").shape == (size[1], size[0], 3)


@pytest.mark.parametrize("kind", ["png", "jpeg"])
@pytest.mark.parametrize("keep", [0.0, 0.1, 0.6])
def test_a_cut_image_is_an_error_that_names_the_file_and_the_remedy(kind, keep):
    data = encoded(Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)), kind)
    with pytest.raises(ValueError, match=r"image some/photo .*on_error=skip") as error:
        decode_image(data[: int(keep * len(data))], "some/photo")
    assert "\n" not in str(error.value)


def test_a_palette_mask_gives_its_indices():
    indices = np.array([[0, 1, 2], [255, 0, 1]], np.uint8)
    image = Image.fromarray(indices).convert("P")
    image.putdata(indices.ravel().tolist())
    image.putpalette(list(range(255, -1, -1)) * 3)
    np.testing.assert_array_equal(decode_mask(encoded(image), "mask", size=(2, 3), num_classes=2), indices)


@pytest.mark.parametrize(
    "image, message",
    [
        (Image.new("L", (4, 3)), r"mask m is 4 x 3 pixels but its image is 5 x 3"),
        (Image.new("L", (5, 3), 7), r"mask m holds the value 7; expected 0 \(background\), 1\.\.6 or 255"),
        (Image.fromarray(np.full((3, 5), 700, np.uint16)), r"mask m holds the value 700"),
        (Image.new("RGB", (5, 3)), r"mask m has mode RGB; save one channel"),
    ],
)
def test_a_mask_that_cannot_be_meant_is_an_error(image, message):
    with pytest.raises(ValueError, match=message):
        decode_mask(encoded(image), "m", size=(3, 5), num_classes=6)


def test_a_cut_mask_is_an_error():
    data = encoded(Image.fromarray(np.random.default_rng(0).integers(0, 6, (64, 64), np.uint8)))
    for part in (b"", data[: len(data) // 2]):
        with pytest.raises(ValueError, match="mask m "):
            decode_mask(part, "m", size=(64, 64), num_classes=6)


class Flaky:
    """Five records, of which those named are broken."""

    class_names, has_masks = ("a",), False

    def __init__(self, *broken):
        self.ids, self._broken = list("vwxyz"), broken
        self.photos = [f"{name}.jpg" for name in self.ids]

    def __len__(self):
        return 5

    def __getitem__(self, index):
        if self.ids[index] in self._broken:
            raise ValueError(f"image {self.ids[index]} does not decode")
        return {"id": self.ids[index]}


def test_broken_records_are_left_out_and_the_others_keep_their_order(caplog):
    source = checking.drop_broken(Flaky("w", "z"))
    assert source.ids == ["v", "x", "y"] == [source[index]["id"] for index in range(len(source))]
    assert "image w does not decode" in caplog.text and "image z does not decode" in caplog.text
    assert source.class_names == ("a",) and source.has_masks is False


def test_a_source_with_nothing_readable_is_an_error():
    with pytest.raises(ValueError, match="none of the 5 records can be read; the first: image v"):
        checking.drop_broken(Flaky(*"vwxyz"))


def test_problems_names_each_record_once():
    assert list(datasets.problems(Flaky("x"))) == [
        ("v", None),
        ("w", None),
        ("x", "image x does not decode"),
        ("y", None),
        ("z", None),
    ]


@pytest.mark.parametrize("key, value", [("name", "coco"), ("on_error", "ignore")])
def test_an_unknown_choice_is_an_error_that_lists_the_known(key, value):
    config = paper_config().data
    config[key] = value
    with pytest.raises(ValueError, match=rf"config.data.{key} is '{value}'; expected"):
        datasets.load(config, "train")


def test_large_images_are_shrunk_and_the_mask_keeps_the_photos_own_size():
    config = paper_config().data
    config.name, config.scenes.num_train, config.scenes.size = "scenes", 2, 64
    whole = datasets.load(config, "train")[1]
    config.max_side = 32
    shrunk = datasets.load(config, "train")[1]
    assert shrunk["image"].shape == (32, 32, 3) and shrunk["size"] == whole["size"] == (64, 64)
    np.testing.assert_array_equal(shrunk["labels"], whole["labels"])
    np.testing.assert_array_equal(shrunk["mask"], whole["mask"])
    config.max_side = 100
    np.testing.assert_array_equal(datasets.load(config, "train")[1]["image"], whole["image"])
