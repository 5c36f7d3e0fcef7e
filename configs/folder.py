"""Your own photos: a folder of images and a CSV with the columns ``image,labels``, labels separated by ``;``.

    ssenet run --config=folder --config.data.root=photos --workdir=runs/photos

Expects photos/train.csv and photos/images/; the classes are those of the CSV. ``--config.data.folder.masks=masks``
names a folder of masks (0 background, 1.. the classes in alphabetical order, 255 ignored) to be scored against, and
``--config.data.folder.eval_csv=eval.csv --config.data.eval_split=eval`` held-out photos.
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
    classifier.epochs, classifier.crop, classifier.long_edge = 8, 320, (320, 544)
    classifier.momentum = 0.9
    config.ser.rate = 0.5
    config.cam.scales = (0.5, 1.0, 1.5)
    config.affinity.epochs, config.affinity.crop, config.affinity.momentum = 3, 320, 0.9
    segmenter = config.segmenter
    segmenter.epochs, segmenter.steps, segmenter.batch_size, segmenter.crop, segmenter.lr = 4, 0, 16, 320, 0.005
    config.segment.scales = (0.75, 1.0, 1.25)
    return config
