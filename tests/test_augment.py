"""Augmentation: sizes and bounds, what follows what, and the three ready transforms."""

import colorsys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageEnhance

from ssenet_jax.datasets import augment, transforms
from ssenet_jax.datasets.colour import colour_jitter

MEAN, STD = (120.0, 110.0, 100.0), (60.0, 50.0, 40.0)
PLAIN = {"flip": False, "brightness": 0.0, "contrast": 0.0, "saturation": 0.0, "hue": 0.0, "mean": MEAN, "std": STD}


def jittered(image, rng, **strengths):
    """`colour_jitter` of an array."""
    whole = strengths.pop("whole", None)
    whole = None if whole is None else Image.fromarray(whole)
    return np.asarray(colour_jitter(Image.fromarray(image), rng, whole=whole, **strengths))


def photo(height=40, width=60, seed=0):
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (5, 6, 3), np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


def striped_record(height=40, width=60):
    """An image whose red channel is its mask, so that anything that moves them apart shows."""
    mask = np.broadcast_to(np.repeat(np.arange(width // 10), 10), (height, width)).astype(np.uint8)
    return {"id": "a", "image": np.stack([mask] * 3, -1), "mask": mask, "labels": np.ones(5, np.float32)}


def generator(seed=0):
    return np.random.default_rng(seed)


class FixedFactors:
    """Stands in for a generator: the jitter's factors in order, and its changes in the order written."""

    def __init__(self, *values):
        self._values = iter(values)

    def uniform(self, low, high):
        return next(self._values)

    def permutation(self, count):
        return range(count)


@pytest.mark.parametrize(
    "position, enhancer", [(0, ImageEnhance.Brightness), (1, ImageEnhance.Contrast), (2, ImageEnhance.Color)]
)
@pytest.mark.parametrize("factor", [0.7, 1.0, 1.3])
def test_each_colour_change_is_the_one_of_pillow(position, enhancer, factor):
    factors = [1.0, 1.0, 1.0, 0.0]
    factors[position] = factor
    changed = jittered(photo(), FixedFactors(*factors), brightness=0.3, contrast=0.3, saturation=0.3, hue=0.0)
    expected = np.asarray(enhancer(Image.fromarray(photo())).enhance(factor))
    # Pillow's blend cuts fractions off where the lookup table rounds: one level.
    assert np.abs(changed.astype(int) - expected).max() <= 1


def test_hue_turns_the_colour_circle_and_keeps_value_and_saturation():
    image = np.full((2, 2, 3), (200, 80, 40), np.uint8)
    turned = jittered(image, FixedFactors(1, 1, 1, 0.1), brightness=0, contrast=0, saturation=0, hue=0.1)
    before, after = (colorsys.rgb_to_hsv(*(pixel / 255)) for pixel in (image[0, 0], turned[0, 0]))
    np.testing.assert_allclose(np.subtract(after, before), [0.1, 0, 0], atol=0.01)


def test_jitter_of_no_strength_changes_nothing_and_any_strength_is_repeatable():
    unchanged = jittered(photo(), generator(), brightness=0, contrast=0, saturation=0, hue=0)
    np.testing.assert_array_equal(unchanged, photo())
    strong = {"brightness": 0.3, "contrast": 0.3, "saturation": 0.3, "hue": 0.1}
    first, second, other = (jittered(photo(), generator(seed), **strong) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, second)
    assert (first != other).any()


def test_the_order_of_the_changes_is_random():
    class RandomOrder(FixedFactors):
        def __init__(self, seed, *values):
            super().__init__(*values)
            self.permutation = generator(seed).permutation

    strong = {"brightness": 1.0, "contrast": 0.5, "saturation": 0.0, "hue": 0.0}
    results = [jittered(photo(), RandomOrder(seed, 1.8, 0.5, 1.0, 0.0), **strong) for seed in range(8)]
    # Halving the contrast and brightening do not commute: two orders, two results.
    assert len(np.unique(results, axis=0)) == 2


def test_normalize_is_per_channel():
    expected = (photo().astype(np.float64) - MEAN) / STD
    result = augment.normalize(photo(), MEAN, STD)
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, expected, atol=1e-5)
    np.testing.assert_allclose(augment.normalize(photo()[3:20, ::-1], MEAN, STD), expected[3:20, ::-1], atol=1e-5)


@settings(max_examples=15, deadline=None)
@given(height=st.integers(1, 90), width=st.integers(1, 90), crop=st.integers(1, 70), seed=st.integers(0, 99))
def test_a_crop_is_part_of_the_image_once_and_fill_elsewhere(height, width, crop, seed):
    image = np.arange(1, height * width + 1).reshape(height, width)
    window = augment.random_window(generator(seed), height, width, crop)
    result = augment.pad(augment.cut(image, window), window, 0)
    assert result.shape == (crop, crop)
    seen = result[result > 0]
    assert len(seen) == min(height, crop) * min(width, crop)
    rows, columns = np.nonzero(result)
    assert (rows[0], columns[0]) == (window.pad_top, window.pad_left)
    steps = result[rows, columns] - result[rows[0], columns[0]]
    np.testing.assert_array_equal(steps, (rows - rows[0]) * width + columns - columns[0])


def test_crops_reach_every_border():
    windows = [augment.random_window(generator(seed), 12, 6, 9) for seed in range(60)]
    assert {window.top for window in windows} == {0, 1, 2, 3}
    assert {window.pad_left for window in windows} == {0, 1, 2, 3}
    assert {(window.left, window.pad_top) for window in windows} == {(0, 0)}


@pytest.mark.parametrize(
    "size, long_edge, expected", [((40, 60), 90, (60, 90)), ((60, 40), 30, (30, 20)), ((1, 900), 45, (1, 45))]
)
def test_the_long_edge_keeps_the_aspect_ratio_and_no_side_vanishes(size, long_edge, expected):
    assert augment.long_edge_size(*size, long_edge) == expected


def test_resizing_antialiases_images_and_never_mixes_classes():
    checks = (np.indices((64, 64)).sum(0) % 2 * 255).astype(np.uint8)
    shrunk = augment.resize_image(np.stack([checks] * 3, -1), (16, 16))
    assert np.abs(shrunk[2:-2, 2:-2].astype(int) - 127).max() < 12
    mask = np.where(photo()[..., 0] > 128, 255, 3).astype(np.uint8)
    assert set(np.unique(augment.resize_mask(mask, (31, 77)))) == {3, 255}


def classifier(crop, long_edge, **changes):
    return transforms.classifier_transform(crop, long_edge=long_edge, **(PLAIN | {"brightness_shift": 0.0} | changes))


def test_the_classifier_sees_a_rescaled_image_padded_with_zeros_after_normalisation():
    record = {"id": "a", "image": np.full((40, 60, 3), MEAN, np.uint8) + np.uint8(30), "labels": np.ones(5, np.float32)}
    widths = set()
    for seed in range(40):
        example = classifier(64, (30, 33))(record, generator(seed))
        inside = (example["image"] != 0).all(-1)
        widths.add(inside.any(0).sum())
        np.testing.assert_allclose(
            example["image"][inside], np.broadcast_to(30 / np.array(STD), (inside.sum(), 3)), rtol=1e-5
        )
    assert widths == {30, 31, 32, 33}
    assert set(example) == {"id", "image", "labels"} and example["image"].dtype == np.float32


def test_the_brightness_shift_moves_the_image_and_not_its_padding():
    record = {"id": "a", "image": np.full((40, 60, 3), MEAN, np.uint8), "labels": np.ones(5, np.float32)}
    transform = classifier(64, (48, 48), brightness_shift=0.2)
    shifts = []
    for seed in range(20):
        values = np.unique(transform(record, generator(seed))["image"].round(6))
        assert len(values) == 2 and 0 in values
        shifts.append(values[values != 0][0])
    assert -0.2 <= min(shifts) < -0.1 and 0.1 < max(shifts) <= 0.2


def test_half_of_the_images_are_flipped():
    transform = classifier(60, (60, 60), flip=True)
    record = {"id": "a", "image": photo(60, 60), "labels": np.ones(5, np.float32)}
    straight, mirrored = (augment.normalize(image, MEAN, STD) for image in (photo(60, 60), photo(60, 60)[:, ::-1]))
    flips = 0
    for seed in range(40):
        image = transform(record, generator(seed))["image"]
        flips += np.allclose(image, mirrored, atol=1e-5)
        assert np.allclose(image, straight, atol=1e-5) or np.allclose(image, mirrored, atol=1e-5)
    assert 10 < flips < 30


def test_a_mask_follows_its_image_through_rescaling_flip_and_crop():
    transform = transforms.segmenter_transform(
        48, scale=(0.5, 1.5), flip=True, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)
    )
    for seed in range(15):
        example = transform(striped_record(), generator(seed))
        assert example["image"].shape == (48, 48, 3) and example["mask"].shape == (48, 48)
        inside = example["mask"] != 255
        agree = np.abs(example["image"][..., 0] - example["mask"]) <= 1
        assert inside.any() and agree[inside].all()
        assert (example["image"][~inside] == 0).all()


def affinity_record():
    """Left of column 30 class 4; right of it background; the strip between the two seeds says nothing."""
    columns = np.broadcast_to(np.arange(60), (40, 60))
    low = np.stack([columns >= 20, columns < 20], -1).astype(np.float16)
    high = np.stack([columns >= 36, columns < 36], -1).astype(np.float16)
    image = np.stack([columns] * 3, -1).astype(np.uint8)
    return {"id": "a", "image": image, "low": low, "high": high, "classes": np.array([4])}


def test_seeds_follow_their_image_and_name_class_background_or_neither():
    plain = PLAIN | {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0), "flip": True}
    seen = set()
    for seed in range(12):
        example = transforms.affinity_transform(32, **plain)(affinity_record(), generator(seed))
        assert example["seeds"].shape == (4, 4) and example["seeds"].dtype == np.uint8
        blocks = example["image"][..., 0].reshape(4, 8, 4, 8).mean((1, 3))
        expected = np.where(blocks < 19.5, 5, np.where(blocks > 35.5, 0, 255))
        clear = (np.abs(blocks - 19.5) > 1) & (np.abs(blocks - 35.5) > 1)
        np.testing.assert_array_equal(example["seeds"][clear], expected[clear])
        seen |= set(example["seeds"].ravel().tolist())
    assert seen == {0, 5, 255}


def test_seeds_say_nothing_outside_the_image_and_high_wins():
    label = transforms.affinity_transform(64, **PLAIN)(affinity_record(), generator(5))["seeds"]
    assert (label == 255).sum() >= 64 - 48
    one, zero = np.ones((1, 1, 1)), np.zeros((1, 1, 1))
    foreground, background = np.concatenate([zero, one], -1), np.concatenate([one, zero], -1)
    assert transforms.seed_labels(foreground, background, [2]).item() == 0
    assert transforms.seed_labels(foreground, foreground, [2]).item() == 3
    assert transforms.seed_labels(background, foreground, [2]).item() == 255
    assert transforms.seed_labels(0 * background, 0 * foreground, [2]).item() == 255


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: classifier(0, (30, 40)), "crop is 0 pixels"),
        (lambda: classifier(32, (50, 40)), r"long_edge is \(50, 40\)"),
        (lambda: transforms.affinity_transform(30, **PLAIN), "affinity crop is 30 pixels; expected a multiple of 8"),
        (
            lambda: transforms.segmenter_transform(8, scale=(0.0, 1.0), flip=True, mean=MEAN, std=STD),
            r"scale is \(0\.0, 1\.0\)",
        ),
    ],
)
def test_a_setting_that_cannot_be_meant_is_an_error(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_record_without_its_mask_or_with_another_size_names_the_image():
    transform = transforms.segmenter_transform(16, scale=(1.0, 1.0), flip=False, mean=MEAN, std=STD)
    record = striped_record()
    with pytest.raises(ValueError, match="image a is 60 x 40 pixels but its seed or mask is 59 x 40"):
        transform(record | {"mask": record["mask"][:, 1:]}, generator())
    del record["mask"]
    with pytest.raises(ValueError, match="image a has no mask"):
        transform(record, generator())


@pytest.mark.parametrize("size", [(80, 120), (30, 45), (40, 60), (7, 9)])
def test_a_part_is_resized_as_the_whole_is(size):
    for seed in range(5):
        window = augment.random_window(generator(seed), *size, 24)
        found = np.asarray(augment.resize_part(Image.fromarray(photo()), size, window))
        wanted = augment.cut(augment.resize_image(photo(), size), window)
        assert found.shape == wanted.shape and np.abs(found.astype(int) - wanted).max() <= 1


@pytest.mark.parametrize("steps", [26, -26, 13, 1, 0, 60, -60, 85, -100, 127])
def test_a_turned_hue_is_that_of_the_colour_circle_for_every_colour(steps):
    levels = np.arange(0, 256, 15, dtype=np.uint8)
    every = np.stack(np.meshgrid(levels, levels, levels), -1).reshape(18, -1, 3)
    shift = steps / 255  # Pillow's hue is of 8 bits
    turned = jittered(every, FixedFactors(1, 1, 1, shift), brightness=0, contrast=0, saturation=0, hue=0.5)
    circle = [colorsys.rgb_to_hsv(*colour) for colour in every.reshape(-1, 3) / 255]
    wanted = [colorsys.hsv_to_rgb((hue + shift) % 1, saturation, value) for hue, saturation, value in circle]
    assert np.abs(turned.reshape(-1, 3) - 255 * np.array(wanted)).max() <= 1


def test_a_part_is_jittered_as_the_whole_is():
    strong = {"brightness": 0.3, "contrast": 0.3, "saturation": 0.3, "hue": 0.1}
    whole, seeds = photo(120, 160), range(6)
    parts = [jittered(whole[10:70, 20:90], generator(seed), **strong, whole=whole) for seed in seeds]
    wholes = [jittered(whole, generator(seed), **strong)[10:70, 20:90] for seed in seeds]
    assert np.abs(np.subtract(parts, wholes, dtype=float)).max() <= 3
