"""Mean field in jax: on the accelerator, over a batch of padded images, differentiable in the scores."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, UInt8

from ssenet_jax.crf.lattice import Lattice, build, gaussian_filter, is_valid, normalized_symmetrically, over_batch


def mean_field(
    images: UInt8[Array | np.ndarray, "n h w 3"],
    scores: Float[Array | np.ndarray, "n h w k"],
    sizes: Int[Array | np.ndarray, "n 2"] | None = None,
    present: Bool[Array | np.ndarray, "n k"] | None = None,
    *,
    iterations: int,
    sxy_gaussian: int | float,
    compat_gaussian: int | float,
    sxy_bilateral: int | float,
    srgb: int | float,
    compat_bilateral: int | float,
) -> Float[Array, "n h w k"]:
    """Marginals of a batch; 0 outside an image's valid area. Gradients flow to the scores.

    Trap: not under `jit`; call `kernels` before it and `infer` inside.

    Args:
        images: padded at the bottom and the right.
        scores: as in `crf.dense_crf`.
        sizes: valid heights and widths; None: all of it.
        present: classes that take part, at least one an image; the marginals of others are 0. None: all.
        iterations, sxy_gaussian, compat_gaussian, sxy_bilateral, srgb, compat_bilateral: as in `crf.dense_crf`.
    """
    filters = kernels(images, sizes, sxy_gaussian=sxy_gaussian, sxy_bilateral=sxy_bilateral, srgb=srgb)
    compat = jnp.array([compat_gaussian, compat_bilateral], jnp.float32)
    scores = jnp.asarray(scores, jnp.float32)
    present = jnp.ones((scores.shape[0], scores.shape[-1]), bool) if present is None else jnp.asarray(present)
    return infer(filters, scores, present, compat, iterations=iterations)


def kernels(
    images: UInt8[Array | np.ndarray, "n h w 3"],
    sizes: Int[Array | np.ndarray, "n 2"] | None = None,
    *,
    sxy_gaussian: int | float,
    sxy_bilateral: int | float,
    srgb: int | float,
) -> tuple[Lattice, Lattice]:
    """The Gaussian and the bilateral kernel of a batch, normalised.

    Trap: not under `jit`, since what is in the images decides the shapes.

    Raises:
        ValueError: kernels too narrow for the image's size.
    """
    n, h, w, _ = images.shape
    sizes = np.tile(np.array([h, w], np.int32), (n, 1)) if sizes is None else sizes
    place, colour, valid = _pixels(jnp.asarray(images), jnp.asarray(sizes, jnp.int32))
    near = build(place / sxy_gaussian, valid, ((w - 1) / sxy_gaussian, (h - 1) / sxy_gaussian))
    features = jnp.concatenate([place / sxy_bilateral, colour / srgb], axis=-1)
    span = ((w - 1) / sxy_bilateral, (h - 1) / sxy_bilateral, *[255 / srgb] * 3)
    return normalized_symmetrically(near), normalized_symmetrically(build(features, valid, span))


@functools.partial(jax.jit, static_argnames="iterations")
def infer(
    filters: tuple[Lattice, Lattice],
    scores: Float[Array, "n h w k"],
    present: Bool[Array, "n k"],
    compat: Float[Array, " 2"],
    *,
    iterations: int,
) -> Float[Array, "n h w k"]:
    """Mean field with Potts terms on `kernels`, weighted by `compat`; pure, differentiable in scores and `compat`."""

    def one(filters, scores, present):
        unary = jnp.where(present[None, None], jnp.log(jnp.clip(scores, 1e-5, 1.0)), -jnp.inf)
        unary = unary.reshape(-1, scores.shape[-1])

        def step(marginals, _):
            near, alike = (gaussian_filter(kernel, marginals) for kernel in filters)
            return jax.nn.softmax(unary + compat[0] * near + compat[1] * alike), None

        marginals, _ = jax.lax.scan(step, jax.nn.softmax(unary), length=iterations)
        return jnp.where(is_valid(filters[0])[:, None], marginals, 0.0).reshape(scores.shape)

    return over_batch(one, filters, scores, present)


@jax.jit
def _pixels(images: Array, sizes: Array) -> tuple[Array, Array, Array]:
    """Of each pixel (n, p, ..): x and y, the colour, and whether it is valid."""
    n, h, w, _ = images.shape
    y, x = jnp.arange(h, dtype=jnp.int32)[:, None], jnp.arange(w, dtype=jnp.int32)[None]
    valid = (y[None] < sizes[:, 0, None, None]) & (x[None] < sizes[:, 1, None, None])
    place = jnp.stack([jnp.broadcast_to(axis, (n, h, w)) for axis in (x[None], y[None])], axis=-1).astype(jnp.float32)
    return place.reshape(n, h * w, 2), images.astype(jnp.float32).reshape(n, h * w, 3), valid.reshape(n, h * w)
