"""Every stage on the embedded scenes: two CPU cores, no file needed. What ``scripts/demo`` runs.

    ssenet run --config=configs/scenes.py --workdir=runs/scenes

``configs/scenes.py:tiny`` is the same path in two minutes, on few small scenes; its figures mean nothing.
"""

from ssenet_jax.config import BASELINE_STAGES, STAGES, paper_config


def get_config(size="full"):
    config = paper_config()
    config.title = "SSENet on scenes"
    config.stages = (*BASELINE_STAGES, *STAGES)
    config.data.name = "scenes"
    config.data.eval_split = "test"

    # From scratch: a narrow network whose norms are trained and nothing frozen.
    config.model.width = 0.125
    config.model.norm = "batch"
    config.model.frozen = ()

    classifier = config.classifier
    classifier.steps, classifier.batch_size, classifier.crop = 600, 16, 96
    classifier.long_edge = (80, 128)
    classifier.lr, classifier.momentum = 0.05, 0.9
    config.ser.rate, config.ser.classes, config.ser.eta_warmup = 0.5, "present", 0.5

    config.cam.scales = (0.5, 1.0, 1.5)
    config.evaluate.best_alpha = True
    config.crf.sxy_bilateral = 20.0

    affinity = config.affinity
    affinity.init, affinity.steps, affinity.batch_size, affinity.crop = "classifier", 200, 16, 96
    affinity.lr, affinity.momentum = 0.01, 0.9

    segmenter = config.segmenter
    segmenter.init, segmenter.steps, segmenter.batch_size, segmenter.crop = "classifier", 300, 16, 96
    segmenter.lr = 0.01
    config.segment.scales = (0.75, 1.0, 1.25)

    config.inference.batch_size, config.inference.bucket = 16, 32
    if size == "tiny":
        _make_tiny(config)
    elif size != "full":
        raise ValueError(f"configs/scenes.py has the arguments full and tiny, not {size!r}")
    return config


def _make_tiny(config):
    config.title = "Tiny scenes"
    config.model.width = 1 / 32
    config.data.scenes.num_train, config.data.scenes.num_test, config.data.scenes.size = 12, 4, 48
    for training in (config.classifier, config.affinity, config.segmenter):
        training.steps, training.batch_size, training.crop = 4, 8, 48
        training.checkpoint_every, training.log_every, training.picture_every = 2, 2, 2
    config.classifier.long_edge = (40, 56)
    config.cam.scales = config.segment.scales = (1.0,)
    config.crf.iterations = 2
    config.crf.workers = 1
    config.inference.batch_size = 8
    config.report.examples = 2
