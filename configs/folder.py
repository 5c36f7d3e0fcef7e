"""Your own photos: a folder of images and a CSV with the columns ``image,labels``, or one folder a class.

    ssenet run --config=folder --config.data.root=photos --workdir=runs/photos

Expects photos/images/ and photos/train.csv, with labels separated by ``;`` and ``-`` for a photo with none of them; or,
with ``--config.data.folder.csv=``, photos/images/CLASS/*.jpg and photos/images/-/. The classes are those found there.
``--config.data.folder.masks=masks`` names a folder of masks (0 background, 1.. the classes in alphabetical order, 255
ignored) to be scored against; ``--config.data.folder.eval_csv=eval.csv --config.data.eval_split=eval`` names held-out
photos.
EfficientNet-Lite0 with ImageNet weights; on two CPU cores the classifier takes a fifth of a second per photo and epoch.
"""

from ssenet_jax.config import paper_config


def get_config():
    config = paper_config()
    config.title = "SSENet on a folder of photos"
    config.data.name = "folder"
    config.data.eval_split = ""
    config.data.max_side = 512
    config.model.backbone = "efficientnet_lite0"
    config.init.weights = "efficientnet_lite0"

    classifier = config.classifier
    classifier.epochs, classifier.min_steps = 8, 200
    classifier.crop, classifier.long_edge = 320, (320, 544)
    classifier.momentum = 0.9
    config.ser.rate = 0.5
    config.cam.scales = (0.5, 1.0, 1.5, 2.0)
    config.measure.images = 0  # without held-out photos they would be those of the training
    # where photos are few, a walk over colour and early features makes better labels than that of an AffinityNet, and
    # than a CRF (docs/masks.md)
    config.random_walk.features, config.random_walk.normalize = "classifier", True
    config.labels.alpha = 0.32
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
