"""What a config's trainings are made of: one row a training, one row a regulariser of the CAM."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from ml_collections import ConfigDict

from ssenet_jax.models import AffinityNet, CamNet, DeepLab, FixedFeatures, SeamNet, default_frozen
from ssenet_jax.training import objectives, operators
from ssenet_jax.training.step import Losses, LossFn, Recipe

Build = Callable[..., nn.Module]  # of the keywords that all networks share, and num_classes
Loss = Callable[[ConfigDict, nn.Module, int], LossFn | Losses]  # of config, network and number of steps


class Target(NamedTuple):
    """What a batch holds beside its images, without the batch axis."""

    name: str
    shape: tuple[int, ...]
    dtype: Any


class Regulariser(NamedTuple):
    """What the classifier is trained to beside its labels.

    Attributes:
        network: of the classifier.
        loss: the whole loss.
        sections: of the config that it reads.
    """

    network: Build
    loss: Loss
    sections: tuple[str, ...]


class Training(NamedTuple):
    """One training.

    Attributes:
        section: of the config.
        network: from the config, the shared keywords and the number of foreground classes.
        loss: see `Loss`.
        target: from its section of the config and the number of foreground classes.
    """

    section: str
    network: Callable[[ConfigDict, dict, int], nn.Module]
    loss: Loss
    target: Callable[[ConfigDict, int], Target]


def _ser_loss(config: ConfigDict, model: nn.Module, steps: int) -> Losses:
    section = config.ser
    options = {name: section[name] for name in ("cam_size", "normalize", "classes")}
    options["p"] = int(section.p) if section.p.is_integer() else section.p  # an integer power is a product
    eta_at = objectives.eta_schedule(section.eta, steps, section.eta_warmup)
    choices = operators.choices(section.operators, section.draw, section)
    forms = tuple(objectives.scale_equivariance(model, choice, eta_at, options) for choice in choices)
    return Losses(forms, operators.drawn(choices, config.seed))


def _seam_loss(config: ConfigDict, model: nn.Module, steps: int) -> LossFn:
    section = config.seam
    return objectives.seam(model, section.rate, objectives.eta_schedule(section.eta, steps, section.eta_warmup))


def _plain_loss(config: ConfigDict, model: nn.Module, steps: int) -> LossFn:
    return objectives.classifier(model)


REGULARISERS = {
    "none": Regulariser(CamNet, _plain_loss, ()),
    "ser": Regulariser(CamNet, _ser_loss, ("ser",)),
    "seam": Regulariser(SeamNet, _seam_loss, ("seam",)),
}


def regulariser(config: ConfigDict) -> Regulariser:
    """The row that a config names.

    Raises:
        ValueError: there is none of that name.
    """
    name = config.classifier.regulariser
    if name not in REGULARISERS:
        raise ValueError(f"classifier.regulariser is {name!r}; it must be one of {', '.join(REGULARISERS)}")
    return REGULARISERS[name]


def _classifier(config: ConfigDict, keywords: dict, num_classes: int) -> nn.Module:
    return regulariser(config).network(num_classes=num_classes, **keywords)


def _classifier_loss(config: ConfigDict, model: nn.Module, steps: int) -> LossFn | Losses:
    return regulariser(config).loss(config, model, steps)


def _affinity_loss(config: ConfigDict, model: nn.Module, steps: int) -> LossFn:
    return objectives.affinity(model, radius=config.affinity.radius, border=config.affinity.border)


def _labels(section: ConfigDict, num_classes: int) -> Target:
    return Target("labels", (num_classes,), jnp.float32)


def _cells(section: ConfigDict, num_classes: int) -> Target:
    return Target("seeds", (-(-section.crop // section.stride),) * 2, jnp.uint8)


def _pixels(section: ConfigDict, num_classes: int) -> Target:
    return Target("mask", (section.crop,) * 2, jnp.uint8)


TRAININGS = {
    "baseline": Training(
        "classifier", lambda config, keywords, c: CamNet(num_classes=c, **keywords), _plain_loss, _labels
    ),
    "classifier": Training("classifier", _classifier, _classifier_loss, _labels),
    "affinity": Training(
        "affinity",
        lambda config, keywords, c: AffinityNet(stride=config.affinity.stride, **keywords),
        _affinity_loss,
        _cells,
    ),
    "segmenter": Training(
        "segmenter",
        lambda config, keywords, c: DeepLab(num_classes=c + 1, **keywords),
        lambda config, model, steps: objectives.segmenter(model),
        _pixels,
    ),
}


def network(config: ConfigDict, training: str, num_classes: int) -> nn.Module:
    """The network of a training.

    Args:
        config: see ``config.paper_config``.
        training: a key of TRAININGS.
        num_classes: c, the foreground classes of the data set.
    """
    return TRAININGS[training].network(config, _keywords(config), num_classes)


def walk_network(config: ConfigDict) -> nn.Module:
    """The network whose features the random walk takes, which `random_walk.features` names."""
    if config.random_walk.features == "classifier":
        return FixedFeatures(stride=config.affinity.stride, **_keywords(config))
    return network(config, "affinity", 0)


def _keywords(config: ConfigDict) -> dict[str, Any]:
    keywords: dict[str, Any] = {**config.model, "dtype": jnp.dtype(config.dtype), "remat": config.remat}
    del keywords["frozen"]
    return keywords


def section(config: ConfigDict, training: str) -> ConfigDict:
    """The section of the config that a training is described in; the baseline shares that of the classifier."""
    return config[TRAININGS[training].section]


def starts_from(config: ConfigDict, training: str) -> str:
    """What a training starts from: the trained "baseline" or "classifier", or "weights", those of `init.weights`."""
    if training == "classifier" and config.finetune.steps:
        return "baseline"
    return section(config, training).get("init", "weights")


def steps_of(config: ConfigDict, training: str, num_images: int) -> int:
    """The length of a training in steps; its epochs are whole batches, as the authors count them."""
    settings = section(config, training)
    if starts_from(config, training) == "baseline":
        return config.finetune.steps
    return settings.steps or max(settings.min_steps, settings.epochs * max(1, num_images // settings.batch_size))


def settling_steps(config: ConfigDict, training: str) -> int:
    """About how many steps it takes until a loss falls slowly; a training that is shorter has learned little.

    Seen on VOC photos from ImageNet weights, in batches of 16 (loss of the classifier: 0.36 in the first 20 steps, 0.11
    at 150, 0.08 at 360), and on scenes from nothing, in batches of 8 (SSENet's: 0.13 at the end of 2,200, 0.05
    of 3,000).
    """
    starts_from_something = config.init.weights or starts_from(config, training) != "weights"
    return 150 if starts_from_something else 2500


def build(config: ConfigDict, training: str, model: nn.Module, num_images: int) -> Recipe:
    """The recipe of a training.

    Args:
        config: see ``config.paper_config``.
        training: a key of TRAININGS.
        model: its ``network``.
        num_images: length of the training split, for trainings whose length is in epochs.
    """
    settings, steps = section(config, training), steps_of(config, training, num_images)
    loss = TRAININGS[training].loss(config, model, steps)
    return Recipe(
        losses=loss if isinstance(loss, Losses) else Losses((loss,)),
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
    patterns = config.model.frozen
    if patterns == "default":
        patterns = default_frozen(config.model.backbone)
    frozen = [(pattern, 0.0, 0.0) for pattern in patterns]
    return frozen + [(pattern, rate, decay * settings.weight_decay) for pattern, rate, decay in settings.groups]


def batch_shapes(config: ConfigDict, training: str, num_classes: int, batch_size: int) -> dict:
    """The shapes of what a global batch of a training holds, without its ids."""
    crop = section(config, training).crop
    target = TRAININGS[training].target(section(config, training), num_classes)
    return {
        "image": jax.ShapeDtypeStruct((batch_size, crop, crop, 3), jnp.float32),
        target.name: jax.ShapeDtypeStruct((batch_size, *target.shape), target.dtype),
    }
