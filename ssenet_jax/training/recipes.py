"""What a config's trainings are made of: the network, the loss and the recipe of each."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from ml_collections import ConfigDict

from ssenet_jax.models import AFFINITY_STRIDE, AffinityNet, CamNet, DeepLab
from ssenet_jax.training import objectives
from ssenet_jax.training.step import LossFn, Recipe

TRAININGS = ("baseline", "classifier", "affinity", "segmenter")


def network(config: ConfigDict, training: str, num_classes: int) -> nn.Module:
    """The network of a training.

    Args:
        config: see ``config.paper_config``.
        training: one of TRAININGS.
        num_classes: c, the foreground classes of the data set.
    """
    keywords: dict[str, Any] = {**config.model, "dtype": jnp.dtype(config.dtype), "remat": config.remat}
    del keywords["frozen"]
    if training == "affinity":
        return AffinityNet(**keywords)
    if training == "segmenter":
        return DeepLab(num_classes=num_classes + 1, **keywords)
    return CamNet(num_classes=num_classes, **keywords)


def section(config: ConfigDict, training: str) -> ConfigDict:
    """The section of the config that a training is described in; the baseline shares that of the classifier."""
    return config["classifier" if training == "baseline" else training]


def build(config: ConfigDict, training: str, model: nn.Module, num_images: int) -> Recipe:
    """The recipe of a training.

    Args:
        config: see ``config.paper_config``.
        training: one of TRAININGS.
        model: its ``network``.
        num_images: length of the training split, for trainings whose length is in epochs.
    """
    settings = section(config, training)
    # epochs are whole batches, as the authors count them
    steps = settings.steps or settings.epochs * max(1, num_images // settings.batch_size)
    return Recipe(
        loss_fn=_loss(config, training, model, steps),
        groups=parameter_groups(config, settings),
        steps=steps,
        batch_size=settings.batch_size,
        accumulate=settings.accumulate,
        lr=settings.lr,
        power=settings.power,
        momentum=settings.momentum,
        seed=config.seed,
    )


def parameter_groups(config: ConfigDict, settings: ConfigDict) -> list[tuple[str, float, float]]:
    """The rows (regex, learning rate multiplier, weight decay) of one training, what is frozen first."""
    frozen = [(pattern, 0.0, 0.0) for pattern in config.model.frozen]
    return frozen + [(pattern, rate, decay * settings.weight_decay) for pattern, rate, decay in settings.groups]


def _loss(config: ConfigDict, training: str, model: nn.Module, steps: int) -> LossFn:
    if training == "affinity":
        return objectives.affinity(model, radius=config.affinity.radius, border=config.affinity.border)
    if training == "segmenter":
        return objectives.segmenter(model)
    eta = 0.0 if training == "baseline" else config.ser.eta
    return objectives.classifier(model, total_steps=steps, **{**config.ser, "eta": eta})


def batch_shapes(config: ConfigDict, training: str, num_classes: int, batch_size: int) -> dict:
    """The shapes of what a global batch of a training holds, without its ids."""
    crop = section(config, training).crop
    target = {
        "affinity": ("label", (-(-crop // AFFINITY_STRIDE),) * 2, jnp.uint8),
        "segmenter": ("mask", (crop, crop), jnp.uint8),
    }
    name, shape, dtype = target.get(training, ("labels", (num_classes,), jnp.float32))
    return {
        "image": jax.ShapeDtypeStruct((batch_size, crop, crop, 3), jnp.float32),
        name: jax.ShapeDtypeStruct((batch_size, *shape), dtype),
    }
