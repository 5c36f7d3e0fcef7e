"""VOC 2012 on a laptop: EfficientNet-Lite0 with the ImageNet weights that its package brings, 320 crops, CPU or GPU.

    ssenet run --config=voc12_lite --config.data.root=/data/VOCdevkit --workdir=runs/voc

Trains the baseline's classifier too, for its CAMs, and measures both; ``--config=voc12_lite:fast`` does neither, and
looks at two scales of a photo instead of four.
``--config=voc12_lite:baseline`` takes every stage without the second branch, ``--config=voc12_lite:seam`` with SEAM
instead. README.md has what we measured.
"""

from ssenet_jax.config import paper_config

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
    config = paper_config()
    config.title = f"{name} on VOC 2012, EfficientNet-Lite0"
    config.baseline = branch in ("ssenet", "seam")
    config.measure.images = 0 if branch == "fast" else config.measure.images
    config.model.backbone = "efficientnet_lite0"
    config.init.weights = "efficientnet_lite0"

    classifier = config.classifier
    classifier.epochs, classifier.batch_size, classifier.crop = 8, 16, 320
    classifier.long_edge = (320, 544)
    classifier.momentum, classifier.weight_decay = 0.9, 1e-4
    classifier.brightness = classifier.contrast = classifier.saturation = classifier.hue = 0.0
    classifier.brightness_shift = 0.2
    classifier.picture_every = 60
    classifier.regulariser = regulariser
    config.ser.rate = config.seam.rate = 0.5

    # two scales take 3.5 times less work and cost the labels 0.3 points
    config.cam.scales = (0.75, 1.25) if branch == "fast" else (0.5, 1.0, 1.5, 2.0)

    # where photos are few, a walk over colour and early features makes better labels than that of an AffinityNet, and
    # than a CRF (docs/masks.md)
    config.random_walk.features, config.random_walk.normalize = "classifier", True
    config.labels.alpha = 0.32
    if branch == "seam":  # its maps cover objects more evenly
        config.evaluate.alpha, config.labels.alpha = 0.45, 0.42
        config.random_walk.contrast = 0.4  # measured with SEAM alone so far
    # narrower kernels than the published ones, which wipe small objects out
    config.crf.sxy_bilateral, config.crf.srgb = 50.0, 5.0

    affinity = config.affinity
    affinity.epochs, affinity.crop, affinity.momentum = 3, 320, 0.9

    segmenter = config.segmenter
    segmenter.init, segmenter.epochs, segmenter.steps = "classifier", 8, 0
    segmenter.batch_size, segmenter.crop, segmenter.lr = 16, 320, 0.005
    config.segment.scales, config.segment.crf = (0.75, 1.0, 1.25), True
    config.segment.background_weight = 0.5  # of classes learnt from few photos the network is too little sure
    return config
