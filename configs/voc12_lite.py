"""VOC 2012 on a laptop: EfficientNet-Lite0 with the ImageNet weights that its package brings, 320 crops, CPU or GPU.

    ssenet run --config=voc12_lite --config.data.root=/data/VOCdevkit --workdir=runs/voc

Trains the baseline's classifier too, for its CAMs, and measures both; ``--config=voc12_lite:fast`` does neither, and
looks at two scales of a photo instead of four.
``--config=voc12_lite:baseline`` takes every stage without the second branch, ``--config=voc12_lite:seam`` with SEAM
instead. README.md has what we measured.
"""

from ssenet_jax.config import lite_config

BRANCHES = {
    "ssenet": ("SSENet", "ser"),
    "fast": ("SSENet", "ser"),
    "seam": ("SEAM", "seam"),
    "baseline": ("Baseline", "none"),
}


def get_config(branch="ssenet"):
    if branch not in BRANCHES:
        raise ValueError(f"the config voc12_lite has the arguments {', '.join(BRANCHES)}, not {branch!r}")
    name, regulariser = BRANCHES[branch]
    config = lite_config(regulariser)
    config.title = f"{name} on VOC 2012, EfficientNet-Lite0"
    config.baseline = branch in ("ssenet", "seam")
    if branch == "fast":
        config.measure.images = 0
    else:
        config.cam.scales = (0.5, 1.0, 1.5, 2.0)
    classifier = config.classifier
    classifier.weight_decay, classifier.picture_every = 1e-4, 60
    classifier.brightness = classifier.contrast = classifier.saturation = classifier.hue = 0.0
    classifier.brightness_shift = 0.2
    return config
