"""Random walk: the authors' T and result, three methods that agree, what a walk keeps, padded images."""

import os
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssenet_jax import random_walk as rw
from ssenet_jax.affinity import inside_pairs, pair_starts

GOLDEN = Path(__file__).parent / "golden"
SHARED = Path(os.environ.get("SSENET_DATA", Path(__file__).parents[2] / "shared")) / "golden" / "affinity.npz"
METHODS = ("stencil", "chebyshev", "dense")
H, W = 8, 11
walk = jax.jit(rw.random_walk, static_argnames=("steps", "method"))
make = jax.jit(rw.transition, static_argnames=("radius", "beta", "border"))


def random(seed: int, *shape: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), jnp.float32)


def matrix(t: rw.Transition) -> np.ndarray:
    """T (hw, hw): a step of the walk from each cell alone."""
    h, w = t.column_sums.shape
    return np.asarray(walk(jnp.eye(h * w).T.reshape(h, w, h * w), t, steps=1, method="stencil")).reshape(h * w, -1).T


@pytest.fixture(scope="module")
def golden():
    with np.load(GOLDEN / "pure_walk.npz") as file:
        arrays = dict(file)
    # affinities of the pairs that the authors' code keeps, on their 10 x 13 grid
    affinity = np.zeros((34, 10, 13), np.float32)
    rows, cols = pair_starts(10, 13, border="reference")
    affinity[:, rows, cols] = arrays["aff"].reshape(34, 6, 5)
    arrays["transition"] = rw._from_affinity(jnp.asarray(affinity), 5, 8.0, "reference", None)
    return arrays


def test_transition_matrix_equals_the_authors_code(golden):
    np.testing.assert_allclose(matrix(golden["transition"]), golden["trans"], atol=1e-6)


@pytest.mark.parametrize("method", ["auto", *METHODS])
def test_walk_equals_the_authors_code(golden, method):
    cam = jnp.asarray(golden["cam"].reshape(21, 10, 13).transpose(1, 2, 0))
    ours = np.asarray(walk(cam, golden["transition"], method=method)).transpose(2, 0, 1).reshape(21, -1)
    # 1e-5 of the largest score; the golden array is itself 8.6e-6 from the result in float64
    assert np.abs(ours - golden["rw"]).max() < 1e-5 * np.abs(golden["rw"]).max()


@pytest.mark.parametrize("method", ["stencil", "chebyshev"])
def test_walk_is_within_2e6_of_float64(golden, method):
    t = golden["transition"]
    a = matrix(t).astype(np.float64) * np.asarray(t.column_sums, np.float64).reshape(1, -1)
    exact = golden["cam"].astype(np.float64) @ np.linalg.matrix_power(a / a.sum(0), 256)
    cam = jnp.asarray(golden["cam"].reshape(21, 10, 13).transpose(1, 2, 0))
    ours = np.asarray(walk(cam, t, method=method)).transpose(2, 0, 1).reshape(21, -1)
    assert np.abs(ours - exact).max() < 2e-6 * np.abs(exact).max()


@pytest.mark.skipif(not SHARED.exists(), reason="needs the full golden arrays; set SSENET_DATA")
def test_walk_from_the_authors_features_equals_their_result():
    with np.load(SHARED) as file:
        t = make(jnp.asarray(file["features"][0].transpose(1, 2, 0)), border="reference")
        np.testing.assert_allclose(matrix(t), file["trans"], atol=1e-5)
        ours = walk(jnp.asarray(file["cam"].reshape(21, 10, 13).transpose(1, 2, 0)), t)
        theirs = file["rw"].reshape(21, 10, 13).transpose(1, 2, 0)
    assert np.abs(ours - theirs).max() < 1e-5 * np.abs(theirs).max()


@pytest.mark.parametrize("border", ["full", "reference"])
@settings(max_examples=5, deadline=None)
@given(seed=st.integers(0, 1000), scale=st.sampled_from([0.0, 0.3, 20.0]))
def test_columns_sum_to_1_and_affinity_is_symmetric_with_ones_on_the_diagonal(border, seed, scale):
    t = make(random(seed, H, W, 4) * scale, radius=4, border=border)
    transition = matrix(t)
    np.testing.assert_allclose(transition.sum(0), 1, atol=2e-6)
    affinity = transition * np.asarray(t.column_sums).reshape(1, -1)
    np.testing.assert_allclose(affinity, affinity.T, atol=2e-5)
    np.testing.assert_allclose(np.diag(affinity), 1, atol=2e-5)
    pairs = (np.triu(affinity, 1) > 0).sum()
    assert pairs <= inside_pairs(H, W, 4, border).sum()


@settings(max_examples=5, deadline=None)
@given(seed=st.integers(0, 1000), steps=st.sampled_from([0, 1, 2, 7, 64, 256]))
def test_methods_agree_and_the_walk_keeps_mass_and_constants(seed, steps):
    t = make(random(seed, H, W, 4) * 0.4, radius=4)
    scores = jnp.abs(random(seed + 1, H, W, 3)).at[..., 0].set(0.7)
    results = [np.asarray(walk(scores, t, steps=steps, method=method)) for method in METHODS]
    for result in results:
        np.testing.assert_allclose(result, results[0], atol=2e-5)
        np.testing.assert_allclose(result[..., 0], 0.7, atol=2e-5)
        weight = np.asarray(t.column_sums)[..., None]
        np.testing.assert_allclose((result * weight).sum((0, 1)), (scores * weight).sum((0, 1)), rtol=1e-4)
    if steps == 0:
        np.testing.assert_array_equal(results[0], scores)


def test_a_wall_of_unlike_features_stops_the_walk():
    features = jnp.zeros((H, W, 1)).at[:, 6:].set(30.0)
    scores = jnp.zeros((H, W, 1)).at[3, 2, 0].set(1.0)
    result = walk(scores, make(features, radius=4), steps=64)
    assert result[:, :6].min() > 1e-3 and result[:, 6:].max() < 1e-6


@pytest.mark.parametrize("border", ["full", "reference"])
def test_a_padded_image_walks_as_it_would_alone(border):
    features, scores = random(0, H + 5, W + 3, 4) * 0.4, random(1, H + 5, W + 3, 2)
    padded = make(features, radius=4, border=border, size=jnp.array([H, W], jnp.int32))
    alone = make(features[:H, :W], radius=4, border=border)
    np.testing.assert_allclose(padded.column_sums[:H, :W], alone.column_sums, rtol=1e-6)
    for method in METHODS:
        result = walk(scores, padded, steps=32, method=method)
        np.testing.assert_allclose(result[:H, :W], walk(scores[:H, :W], alone, steps=32, method=method), atol=1e-5)
        assert not result.at[:H, :W].set(0.0).any()


@pytest.mark.parametrize("h, w", [(1, 1), (5, 1), (4, 2), (3, 3), (6, 4), (1, 7)])
def test_a_grid_narrower_than_the_radius_walks_as_it_would_padded(h, w):
    features, scores = random(4, h + 6, w + 6, 4) * 0.4, random(5, h + 6, w + 6, 2)
    padded = make(features, radius=5, size=jnp.array([h, w], jnp.int32))
    alone = make(features[:h, :w], radius=5)
    for method in METHODS:
        result = walk(scores[:h, :w], alone, steps=8, method=method)
        np.testing.assert_allclose(result, walk(scores, padded, steps=8, method=method)[:h, :w], atol=1e-5)


def test_images_of_a_batch_walk_each_on_their_own():
    features, scores = random(2, 2, H, W, 4) * 0.4, random(3, 2, H, W, 2)
    sizes = jnp.array([[H, W], [6, 9]], jnp.int32)
    batch = jax.jit(jax.vmap(lambda f, s, size: rw.random_walk(s, rw.transition(f, radius=4, size=size), steps=32)))(
        features, scores, sizes
    )
    for i in range(2):
        alone = walk(scores[i], make(features[i], radius=4, size=sizes[i]), steps=32)
        np.testing.assert_allclose(batch[i], alone, atol=1e-5)


@pytest.mark.parametrize("steps", [1, 2, 16, 255, 256])
def test_chebyshev_series_is_the_power(steps):
    coefficients = rw.chebyshev_coefficients(steps)
    x = np.linspace(-1, 1, 41)
    np.testing.assert_allclose(np.polynomial.chebyshev.chebval(x, coefficients), x**steps, atol=3e-6)
    assert len(coefficients) <= min(steps + 1, 5 * int(np.sqrt(steps)) + 5)


@pytest.mark.parametrize("method", ["chebyshev", "auto"])
def test_steps_out_of_an_array_and_very_many_steps_walk_like_others(method):
    t, scores = make(random(0, H, W, 4), radius=4), jnp.abs(random(1, H, W, 1))
    walked = rw.random_walk(scores, t, steps=256, method=method)
    (steps,) = np.array([256])
    np.testing.assert_array_equal(rw.random_walk(scores, t, steps=steps, method=method), walked)
    many = rw.random_walk(scores, t, steps=200_000, method=method)
    np.testing.assert_allclose(
        (many * t.column_sums[..., None]).sum(), (scores * t.column_sums[..., None]).sum(), rtol=1e-4
    )


def test_errors_name_the_method_and_the_grids():
    t = make(random(0, H, W, 4), radius=4)
    with pytest.raises(ValueError, match="method must be .*, got \"?'?power"):
        rw.random_walk(jnp.zeros((H, W, 1)), t, method="power")
    with pytest.raises(ValueError, match="steps must be >= 0, got -1"):
        rw.random_walk(jnp.zeros((H, W, 1)), t, steps=-1)
    with pytest.raises(ValueError, match=r"scores are \(11, 8\) cells, the transition \(8, 11\)"):
        rw.random_walk(jnp.zeros((W, H, 1)), t)
