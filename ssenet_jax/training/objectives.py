"""The losses of the trainings as functions of parameters and batch, for `loop.fit`.

Each factory gives `loss_fn(params, batch_stats, batch, rng, step) -> (loss, (new batch_stats, metrics))`. Networks may
compute in bfloat16; every loss is computed in float32.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from ssenet_jax import equivariance
from ssenet_jax.affinity import affinity_labels, pair_affinity
from ssenet_jax.losses import affinity_loss, multilabel_soft_margin_loss, softmax_cross_entropy_ignore
from ssenet_jax.seam import seam_loss
from ssenet_jax.ser import two_branch_loss
from ssenet_jax.training.operators import Choice
from ssenet_jax.training.step import LossFn

_OPERATOR = 1  # folded into a step's key for what is drawn beside the branches' dropout


def eta_schedule(eta: float, total_steps: int, warmup: float) -> Callable[[jax.Array], jax.Array]:
    """The weight of the regulariser, rising linearly from 0 over the first share `warmup` of the steps."""
    if not 0 <= warmup <= 1:
        raise ValueError(f"eta_warmup is {warmup}; it is a share of the steps, between 0 and 1")
    rising = max(1.0, warmup * total_steps)
    return lambda step: eta * jnp.minimum(step.astype(jnp.float32) / rising, 1.0) if warmup else jnp.float32(eta)


def classifier(model: nn.Module) -> LossFn:
    """The classifier's loss without a second branch.

    Args:
        model: CamNet.

    Returns:
        A loss of batches with "image" (n,h,w,3) and "labels" (n,c).
    """

    def loss_fn(params, batch_stats, batch, rng, step):
        cam, statistics = _apply(model, params, batch_stats, batch["image"], rng)
        loss = jnp.mean(multilabel_soft_margin_loss(jnp.mean(cam, axis=(1, 2)), batch["labels"]))
        return loss, (statistics, {"loss_cls": loss})

    return loss_fn


def scale_equivariance(
    model: nn.Module, choice: Choice, eta_at: Callable[[jax.Array], jax.Array], options: Mapping[str, Any]
) -> LossFn:
    """The classifier's loss with the equivariance regulariser of SSENet.

    With `norm="batch"` each branch is normalised by its own batch, and the running statistics follow the large one.

    Args:
        model: CamNet.
        choice: of the operator; see `operators.choices`.
        eta_at: the regulariser's weight at a step; see `eta_schedule`.
        options: keywords of `ser.two_branch_loss`: cam_size, normalize, classes, p.

    Returns:
        A loss of batches with "image" (n,h,w,3) and "labels" (n,c).

    Source: Eq. 1 and 2.
    """

    def loss_fn(params, batch_stats, batch, rng, step):
        statistics = []

        def cam_fn(images, rng):
            cam, updated = _apply(model, params, batch_stats, images, rng)
            statistics.append(updated)
            return cam

        operator = choice.build(jax.random.fold_in(rng, _OPERATOR))
        images, labels = batch["image"], batch["labels"]
        loss, metrics = two_branch_loss(cam_fn, images, labels, operator, eta=eta_at(step), rng=rng, **options)
        return loss, (statistics[0], metrics)

    return loss_fn


def seam(model: nn.Module, rate: float, eta_at: Callable[[jax.Array], jax.Array]) -> LossFn:
    """SEAM's loss of an image and its smaller copy.

    The running statistics follow the large branch, as in `scale_equivariance`.

    Args:
        model: SeamNet.
        rate: size of the smaller copy.
        eta_at: the weight of all terms but the classification's at a step; see `eta_schedule`.

    Returns:
        A loss of batches with "image" (n,h,w,3) and "labels" (n,c).
    """

    def loss_fn(params, batch_stats, batch, rng, step):
        statistics = []

        def net_fn(images, rng):
            maps, updated = _apply(model, params, batch_stats, images, rng)
            statistics.append(updated)
            return maps

        loss, metrics = seam_loss(net_fn, batch["image"], batch["labels"], rate=rate, eta=eta_at(step), rng=rng)
        return loss, (statistics[0], metrics)

    return loss_fn


def affinity(model: nn.Module, *, radius: int, border: str = "full") -> LossFn:
    """AffinityNet's loss on the pixel pairs of the seeds.

    A ratio of sums over the global batch, so with gradient accumulation it is a mean of the micro-batches' ratios.

    Args:
        model: AffinityNet.
        radius: of the pairs, in cells.
        border: "full" or "reference"; see `affinity.pair_affinity`.

    Returns:
        A loss of batches with "image" (n,h,w,3) and "seeds" (n,h/stride,w/stride) uint8, 255 where the seeds do not
        agree.
    """

    def loss_fn(params, batch_stats, batch, rng, step):
        features, statistics = _apply(model, params, batch_stats, batch["image"], rng)
        pairs = jax.vmap(lambda label: affinity_labels(label, radius, border=border))(batch["seeds"])
        metrics = dict(affinity_loss(pair_affinity(features, radius, border=border), *pairs))
        return metrics.pop("loss"), (statistics, metrics)

    return loss_fn


def segmenter(model: nn.Module) -> LossFn:
    """DeepLab's softmax cross entropy at the size of the crop.

    A mean over the valid pixels of the global batch; see `affinity` for gradient accumulation.

    Args:
        model: DeepLab.

    Returns:
        A loss of batches with "image" (n,h,w,3) and "mask" (n,h,w) uint8, 255 ignored.
    """

    def loss_fn(params, batch_stats, batch, rng, step):
        logits, statistics = _apply(model, params, batch_stats, batch["image"], rng)
        logits = equivariance.resize_to(logits, batch["mask"].shape[1:])
        return softmax_cross_entropy_ignore(logits, batch["mask"]), (statistics, {})

    return loss_fn


def _apply(model: nn.Module, params: dict, batch_stats: dict, images: jax.Array, rng: jax.Array) -> tuple[Any, dict]:
    """The float32 output of a network in training, and its new running statistics."""
    variables = {"params": params, "batch_stats": batch_stats}
    (output, _), updated = model.apply(variables, images, train=True, rngs={"dropout": rng}, mutable=["batch_stats"])
    return jax.tree.map(lambda maps: maps.astype(jnp.float32), output), updated["batch_stats"]
