"""What stands out from the surroundings of a photo, whatever its class: no label is needed, and nothing is trained."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int


def border_contrast(
    features: Float[Array, "n h w f"], sizes: Int[Array, "n 2"] | None = None, *, eps: int | float = 1e-5
) -> Float[Array, "n h w"]:
    """How little a cell is like those along the image's border: objects seldom lie there, their background does.

    Args:
        features: of a network's late layers, which tell one thing from another.
        sizes: valid height and width in cells (may be traced) of features padded at the bottom and right. None: all.
        eps: added to the largest contrast, so that a photo of one thing has none.

    Returns:
        1 - the mean cosine similarity to the outermost valid cells, divided by its largest value, in [0, 1); 0 outside
        the valid cells. Float32.

    Source: the boundary prior of salient object detection (Wei et al., Geodesic Saliency, ECCV 2012).

    Examples:
        >>> import jax.numpy as jnp
        >>> sky, bird = jnp.array([1.0, 0.0]), jnp.array([0.0, 1.0])
        >>> features = jnp.stack([sky, sky, sky, sky, bird, sky, sky, sky, sky]).reshape(1, 3, 3, 2)
        >>> print(border_contrast(features).round(2)[0])
        [[0. 0. 0.]
         [0. 1. 0.]
         [0. 0. 0.]]
    """
    n, h, w, _ = features.shape
    sizes = jnp.broadcast_to(jnp.array([h, w], jnp.int32), (n, 2)) if sizes is None else sizes
    rows, columns = jnp.arange(h, dtype=sizes.dtype)[None, :, None], jnp.arange(w, dtype=sizes.dtype)[None, None, :]
    heights, widths = sizes[:, :1, None], sizes[:, 1:, None]
    inside = (rows < heights) & (columns < widths)
    outermost = inside & ((rows == 0) | (columns == 0) | (rows == heights - 1) | (columns == widths - 1))
    features = features.astype(jnp.float32)
    squares = jnp.sum(jnp.square(features), axis=-1, keepdims=True)
    # the root's own gradient at zero is not finite
    unit = jnp.where(squares > 0, features / jnp.sqrt(jnp.where(squares > 0, squares, 1.0)), 0.0)
    share = outermost.astype(unit.dtype) / jnp.sum(outermost, axis=(1, 2), keepdims=True, dtype=unit.dtype)
    highest = jax.lax.Precision.HIGHEST
    surroundings = jnp.einsum("nhwf,nhw->nf", unit, share, precision=highest)
    likeness = jnp.einsum("nhwf,nf->nhw", unit, surroundings, precision=highest)
    contrast = jnp.where(inside, jax.nn.relu(1 - likeness), 0.0)
    return contrast / (jnp.max(contrast, axis=(1, 2), keepdims=True) + eps)
