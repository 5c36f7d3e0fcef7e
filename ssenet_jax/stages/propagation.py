"""The random walk of a batch of padded images: features, CAMs on cells and all their walks in one compiled call."""

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from ssenet_jax.contrast import border_contrast
from ssenet_jax.equivariance import resize_valid
from ssenet_jax.models.layers import pool_cells, valid_pixels, zero_outside
from ssenet_jax.random_walk import random_walk, transition
from ssenet_jax.stages.inference import network_input


def walk_function(
    model: Any, *, flow: Mapping, steps: int, method: str, normalize: bool = False, contrast: float = 0.0
) -> Callable:
    """Builds the random walk on the CAMs of a batch.

    Every map walks alone and a constant one stays as it is, so a background of constant score need not walk.

    Args:
        model: of the features; AffinityNet or FixedFeatures.
        flow: the keywords radius, beta and border of ``transition``.
        steps, method, normalize, contrast: of the config's section ``random_walk``.

    Returns:
        ``f(variables, photos, cams)`` -> (n, h/stride, w/stride, m) float32 scores of the classes in the CAMs' slots.
    """

    def walk(features, scores, size):
        return random_walk(scores, transition(features, **flow, size=size), steps=steps, method=method)

    if not contrast:
        return _on_cells(model, walk, normalize)
    with_contrast = _on_cells(model, walk, normalize, contrast=True)

    def mixed(variables, photos, cams):
        return mix_contrast(with_contrast(variables, photos, cams), contrast)

    return jax.jit(mixed)


def mix_contrast(maps: Float[Array, "*n h w k"], share: float) -> Float[Array, "*n h w m"]:
    """Adds the last map, which is the contrast, to those of the classes before it, k = m + 1; the shares sum to 1."""
    return (1 - share) * maps[..., :-1] + share * maps[..., -1:]


def walks_function(model: Any, *, flow: Mapping, betas: Sequence[float], steps: Sequence[int], method: str) -> Callable:
    """Builds the walk at every beta and, ascending, every number of steps: (n, b, s, h/stride, w/stride, m + 1) as the
    maps come out, with the contrast behind those of the classes; `flow` lacks the beta."""
    more = [steps[0], *(after - before for before, after in itertools.pairwise(steps))]

    def walks(features, scores, size):
        def at(beta):
            between = transition(features, **flow, beta=beta, size=size)
            walked = [scores]
            for count in more:
                walked.append(random_walk(walked[-1], between, steps=count, method=method))
            return jnp.stack(walked[1:])

        return jax.lax.map(at, jnp.asarray(betas, jnp.float32))

    return _on_cells(model, walks, normalize=False, contrast=True)


def _on_cells(model: Any, walk: Callable, normalize: bool, contrast: bool = False) -> Callable:
    """A batch's ``walk(features, scores, size)`` of each image: the model's features, the CAMs' means over cells,
    and the valid height and width in cells. Where `normalize` says so, each map is stretched to reach from 0 to 1;
    where `contrast` does, the contrast of conv6 to the image's border walks behind the classes."""

    def propagate(variables, photos, cams):
        images, sizes = network_input(photos, 1.0, model.backbone)
        features, taps = model.apply(variables, images, sizes=sizes)
        cells = -(-sizes // model.stride)
        share = pool_cells(valid_pixels(cams, sizes)[..., None].astype(jnp.float32), model.stride)  # of a cell's pixels
        scores = pool_cells(zero_outside(cams.astype(jnp.float32), sizes), model.stride) / jnp.maximum(share, 1e-6)
        if contrast:
            coarse = -(-sizes // model.tap_strides[-1])
            stands_out = border_contrast(taps["conv6"].astype(jnp.float32), coarse)[..., None]
            # stretched over the photo, as the CAMs are
            scores = jnp.concatenate([scores, resize_valid(stands_out, coarse, cells, scores.shape[1:3])], axis=-1)
        walked = jax.vmap(walk)(features.astype(jnp.float32), scores, cells)
        return jax.vmap(stretched)(walked, valid_pixels(scores, cells)) if normalize else walked

    return jax.jit(propagate)


def stretched(maps: Float[Array, "*n h w m"], inside: Bool[Array, "h w"]) -> Float[Array, "*n h w m"]:
    """Each map from its tenth percentile, which becomes 0, to its largest score, which becomes 1.

    A walk levels out what a photo is full of: around a small aeroplane the sky keeps half of its score, and no
    threshold would suit that photo and the next one.
    """
    flat = jnp.where(inside[..., None], maps, jnp.inf).reshape(*maps.shape[:-3], -1, maps.shape[-1])
    tenth = jnp.sum(inside, dtype=jnp.int32) // 10
    low = jnp.take(jnp.sort(flat, axis=-2), tenth, axis=-2)[..., None, None, :]
    high = jnp.max(maps, (-3, -2), keepdims=True)
    reaching = jnp.clip((maps - low) / jnp.maximum(high - low, 1e-5), 0.0, 1.0)
    return jnp.where(inside[..., None], reaching, 0.0)


def cells_of(size: tuple[int, int], stride: int) -> tuple[int, int]:
    """The cells that an image of this height and width has."""
    height, width = size
    return -(-height // stride), -(-width // stride)
