"""Your own photos: a folder of images and a CSV with the columns ``image,labels``, or one folder a class.

    ssenet run --config=folder --config.data.root=photos --workdir=runs/photos

Expects photos/images/ and photos/train.csv, with labels separated by ``;`` and ``-`` for a photo with none of them; or,
with ``--config.data.folder.csv=``, photos/images/CLASS/*.jpg and photos/images/-/. The classes are those found there.
``--config.data.folder.masks=masks`` names a folder of masks (0 background, 1.. the classes in alphabetical order, 255
ignored) to be scored against; ``--config.data.folder.eval_csv=eval.csv --config.data.eval_split=eval`` names held-out
photos.
EfficientNet-Lite0 with ImageNet weights. The classifier is trained with SEAM, whose maps make the better masks of few
photos (docs/masks.md); ``--config=folder:ssenet`` trains it with SSENet, in less time.
"""

from ssenet_jax.config import paper_config

BRANCHES = {"seam": ("SEAM", "seam"), "ssenet": ("SSENet", "ser")}


def get_config(branch="seam"):
    if branch not in BRANCHES:
        raise ValueError(f"the config folder has the arguments {', '.join(BRANCHES)}, not {branch!r}")
    name, regulariser = BRANCHES[branch]
    config = paper_config()
    config.title = f"{name} on a folder of photos"
    config.data.name = "folder"
    config.data.eval_split = ""
    config.data.max_side = 512
    config.model.backbone = "efficientnet_lite0"
    config.init.weights = "efficientnet_lite0"

    classifier = config.classifier
    classifier.epochs, classifier.min_steps = 8, 200
    classifier.crop, classifier.long_edge = 320, (320, 544)
    classifier.momentum = 0.9
    classifier.regulariser = regulariser
    config.ser.rate = config.seam.rate = 0.5
    config.cam.scales = (0.75, 1.25)  # four take 3.5 times the work and are worth 0.3 points of the labels
    config.measure.images = 0  # without held-out photos they would be those of the training
    # where photos are few, a walk over colour and early features makes better labels than that of an AffinityNet, and
    # than a CRF (docs/masks.md)
    config.random_walk.features, config.random_walk.normalize = "classifier", True
    config.labels.alpha = 0.32
    if branch == "seam":  # its maps cover objects more evenly
        config.evaluate.alpha, config.labels.alpha = 0.45, 0.42
        config.random_walk.contrast = 0.4
    # narrower kernels than the published ones, which wipe small objects out
    config.crf.sxy_bilateral, config.crf.srgb = 50.0, 5.0
    affinity = config.affinity
    affinity.epochs, affinity.min_steps, affinity.crop, affinity.momentum = 3, 200, 320, 0.9
    segmenter = config.segmenter
    segmenter.init, segmenter.epochs, segmenter.min_steps, segmenter.steps = "classifier", 8, 200, 0
    segmenter.batch_size, segmenter.crop, segmenter.lr = 16, 320, 0.005
    for training in (classifier, affinity, segmenter):
        training.log_every = 10
    config.segment.scales, config.segment.crf = (0.75, 1.0, 1.25), True
    config.segment.background_weight = 0.5  # of classes learnt from few photos the network is too little sure
    return config
