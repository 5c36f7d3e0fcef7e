"""Pixel pairs: the authors' order and labels, affinities, the same pairs from numpy and from jax."""

import os
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ssenet_jax import affinity

GOLDEN = Path(__file__).parent / "golden"
SHARED = Path(os.environ.get("SSENET_DATA", Path(__file__).parents[2] / "shared")) / "golden" / "affinity.npz"
seeds = hnp.arrays(np.uint8, (6, 11), elements=st.sampled_from([0, 1, 2, 255]))


def features(seed: int, *shape: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), jnp.float32)


def test_offsets_cover_the_half_disc_in_the_authors_order():
    offsets = affinity.pair_offsets(5)
    assert offsets.shape == (34, 2)
    assert offsets[:5].tolist() == [[0, 1], [0, 2], [0, 3], [0, 4], [1, -4]]
    assert offsets[-1].tolist() == [4, 2] or (offsets[-1] ** 2).sum() < 25
    everything = {tuple(o) for o in offsets.tolist()} | {tuple(-o) for o in offsets}
    disc = {(y, x) for y in range(-5, 6) for x in range(-5, 6) if 0 < y * y + x * x < 25}
    assert everything == disc and len(disc) == 68


def test_pair_labels_equal_the_authors_code():
    with np.load(GOLDEN / "pure_affinity_labels.npz") as file:
        pairs = affinity.affinity_labels(file["label"], border="reference")
        for ours, name in zip(pairs, ("bg", "fg", "neg"), strict=True):
            np.testing.assert_array_equal(ours, file[name])


def test_pair_affinity_equals_the_authors_code():
    # The pairs that start at one cell: all other features are left out of the small file.
    with np.load(GOLDEN / "pure_affinity.npz") as file:
        ours, theirs = affinity.pair_affinity(jnp.asarray(file["features"])[None], border="reference"), file["aff"]
    np.testing.assert_allclose(ours[0, :, 0], theirs[:, 0], atol=1e-6)


@pytest.mark.skipif(not SHARED.exists(), reason="needs the full golden arrays; set SSENET_DATA")
def test_all_pair_affinities_equal_the_authors_code():
    with np.load(SHARED) as file:
        ours = affinity.pair_affinity(jnp.asarray(file["features"].transpose(0, 2, 3, 1)), border="reference")
        np.testing.assert_allclose(ours, file["aff"], rtol=2e-5)


@settings(max_examples=10, deadline=None)
@given(label=seeds)
def test_every_pair_of_labelled_pixels_is_of_exactly_one_kind(label):
    for border in ("reference", "full"):
        kinds = np.stack(affinity.affinity_labels(label, 3, border=border))
        assert set(np.unique(kinds)) <= {0, 1} and kinds.sum(0).max() <= 1
    inside = affinity.inside_pairs(6, 11, 3).reshape(kinds.shape[1:])
    valid = np.zeros(inside.shape, bool)
    for d, (dy, dx) in enumerate(affinity.pair_offsets(3)):
        for p in np.flatnonzero(inside[d]):
            valid[d, p] = label[p // 11, p % 11] != 255 and label[p // 11 + dy, p % 11 + dx] != 255
    np.testing.assert_array_equal(kinds.sum(0) > 0, valid)


@settings(max_examples=5, deadline=None)
@given(label=seeds)
def test_numpy_stays_numpy_and_jax_gives_the_same(label):
    ours = affinity.affinity_labels(label, 3, border="reference")
    assert all(isinstance(kind, np.ndarray) and kind.dtype == np.float32 for kind in ours)
    traced = jax.jit(jax.vmap(lambda x: affinity.affinity_labels(x, 3, border="reference")))(jnp.asarray(label)[None])
    for a, b in zip(ours, traced, strict=True):
        np.testing.assert_array_equal(a, b[0])


def test_full_border_holds_the_reference_pairs_and_those_it_loses():
    rows, cols = affinity.pair_starts(47, 63, border="reference")
    reference = 34 * len(range(47)[rows]) * len(range(63)[cols])
    full = affinity.inside_pairs(47, 63).sum()
    assert round(1 - reference / full, 3) == 0.138  # the share that METHOD names
    f = features(0, 2, 7, 12, 6)
    grid = affinity.pair_affinity(f, 4, border="full").reshape(2, -1, 7, 12)
    part = affinity.pair_affinity(f, 4, border="reference")
    rows, cols = affinity.pair_starts(7, 12, 4, border="reference")
    np.testing.assert_allclose(grid[:, :, rows, cols].reshape(part.shape), part, rtol=1e-6)


@settings(max_examples=5, deadline=None)
@given(seed=st.integers(0, 1000))
def test_affinity_is_in_0_1_and_1_between_equal_features(seed):
    f = features(seed, 1, 6, 9, 4) * 5
    a = affinity.pair_affinity(f, 3, border="reference")
    assert a.min() >= 0 and a.max() <= 1
    np.testing.assert_array_equal(affinity.pair_affinity(jnp.ones((1, 6, 9, 4)), 3, border="reference"), 1)


def test_a_pair_has_the_affinity_of_its_two_features():
    f = features(3, 1, 6, 9, 4)
    a = affinity.pair_affinity(f, 3, border="full").reshape(-1, 6, 9)
    for d, (dy, dx) in enumerate(affinity.pair_offsets(3)):
        expected = np.exp(-np.abs(f[0, 2, 4] - f[0, 2 + dy, 4 + dx]).mean())
        np.testing.assert_allclose(a[d, 2, 4], expected, rtol=1e-6)


def test_gradients_are_finite_where_features_are_equal():
    gradient = jax.jit(jax.grad(lambda f: affinity.pair_affinity(f, 3, border="reference").sum()))
    for f in (jnp.zeros((1, 6, 9, 4)), features(4, 1, 6, 9, 4) * 1e4):
        assert np.isfinite(gradient(f)).all()


def test_affinity_is_the_same_in_a_program_of_64_bits():
    f = np.asarray(features(5, 1, 6, 9, 4))
    with jax.enable_x64(True):
        wide = affinity.pair_affinity(jnp.asarray(f), 3)
    np.testing.assert_allclose(wide, affinity.pair_affinity(jnp.asarray(f), 3), rtol=1e-6)


def test_errors_say_what_fits():
    with pytest.raises(ValueError, match='at least 5 x 9 cells for radius 5, got 4 x 20; use border="full"'):
        affinity.affinity_labels(np.zeros((4, 20), np.uint8), border="reference")
    with pytest.raises(ValueError, match='border must be "full" or "reference"'):
        affinity.pair_affinity(jnp.zeros((1, 9, 9, 1)), border="half")
    with pytest.raises(ValueError, match="radius must be at least 2"):
        affinity.pair_offsets(1)


def test_half_precision_is_left_before_distances_are_taken_and_no_image_gives_no_pair():
    features = jnp.asarray(np.random.default_rng(0).normal(size=(1, 6, 6, 4)), jnp.bfloat16)
    assert (affinity.pair_affinity(features, 2) == affinity.pair_affinity(features.astype(jnp.float32), 2)).all()
    assert affinity.pair_affinity(features[:0], 2).shape == (0, 4, 36)
