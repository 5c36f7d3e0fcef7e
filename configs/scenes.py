"""Every stage on the embedded scenes: two CPU cores, no file needed. What ``scripts/demo`` runs.

    ssenet run --config=scenes --workdir=runs/scenes

``--config=scenes:seam`` trains the classifier with SEAM instead. ``--config=scenes:tiny`` is the same path in two
minutes, on few small scenes; its figures mean nothing.
"""

from ssenet_jax.config import paper_config


def get_config(size="full"):
    config = paper_config()
    config.title = "SSENet on scenes"
    config.baseline = True
    config.data.name = "scenes"
    config.data.eval_split = "test"

    # From scratch: a narrow network without dropout whose norms are trained, nothing frozen, every layer at one rate.
    config.model.width = 1 / 16
    config.model.norm = "batch"
    config.model.dropout = 0.0
    config.model.frozen = ()
    for training in (config.classifier, config.affinity, config.segmenter):
        training.groups = ((".*", 1.0, 1.0),)
        training.momentum = 0.9
        training.batch_size, training.crop = 16, 96

    classifier = config.classifier
    classifier.steps, classifier.batch_size, classifier.lr, classifier.weight_decay = 2700, 8, 0.06, 1e-4
    classifier.long_edge = (96, 96)  # no crop loses the small part that tells the class
    classifier.brightness = classifier.contrast = classifier.saturation = classifier.hue = 0.0
    # from the baseline: at half the size the telling part is lost, and a second branch delays that it is found
    config.finetune.steps, config.ser.rate, config.ser.eta = 1000, 0.75, 16.0
    config.seam.rate = 0.75

    config.cam.scales = (0.5, 1.0, 1.5)
    config.evaluate.best_alpha = True
    config.crf.sxy_bilateral = 20.0

    affinity = config.affinity
    affinity.init, affinity.steps, affinity.batch_size, affinity.lr = "classifier", 300, 8, 0.1
    affinity.hue = 0.0
    config.random_walk.steps = 1  # the grid is 12 x 12: a step reaches a third of it
    config.random_walk.normalize, config.random_walk.contrast = True, 0.2
    config.labels.crf, config.labels.alpha = True, 0.4  # a label at the grid's resolution loses the objects' borders

    segmenter = config.segmenter
    segmenter.init, segmenter.steps, segmenter.batch_size, segmenter.lr = "classifier", 400, 8, 0.02
    config.segment.scales, config.segment.crf = (0.75, 1.0, 1.25), True

    config.inference.batch_size, config.inference.bucket = 16, 32
    if size == "tiny":
        _make_tiny(config)
    elif size == "seam":
        config.title = "SEAM on scenes"
        config.classifier.regulariser = "seam"
    elif size != "full":
        raise ValueError(f"the config scenes has the arguments full, seam and tiny, not {size!r}")
    return config


def _make_tiny(config):
    config.title = "Tiny scenes"
    config.model.width = 1 / 32
    config.data.scenes.num_train, config.data.scenes.num_test, config.data.scenes.size = 12, 4, 48
    for training in (config.classifier, config.affinity, config.segmenter):
        training.steps, training.batch_size, training.crop = 4, 8, 48
        training.checkpoint_every, training.log_every, training.picture_every = 2, 2, 2
    config.classifier.long_edge, config.finetune.steps = (40, 56), 4
    config.cam.scales = config.segment.scales = (1.0,)
    config.crf.iterations = 2
    config.crf.workers = 1
    config.inference.batch_size = 8
    config.report.examples = 2
    config.measure.images, config.measure.validation_images = 3, 4
