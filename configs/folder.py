"""Your own photos: a folder of images and a CSV with the columns ``image,labels``, or one folder a class.

    ssenet run --config=folder --config.data.root=photos --workdir=runs/photos

Expects photos/images/ and photos/train.csv, with labels separated by ``;`` and ``-`` for a photo with none of them; or,
with ``--config.data.folder.csv=``, photos/images/CLASS/*.jpg and photos/images/-/. The classes are those found there.
``--config.data.folder.masks=masks`` names a folder of masks, masks/CLASS/1.png for images/CLASS/1.jpg, to be scored
against (0 background, 1.. the classes in alphabetical order, 255 ignored);
``--config.data.folder.eval_csv=eval.csv --config.data.eval_split=eval`` names held-out photos.
EfficientNet-Lite0 with ImageNet weights. The classifier is trained with SEAM, whose maps make the better masks of few
photos (docs/masks.md); ``--config=folder:ssenet`` trains it with SSENet, in less time.
"""

from ssenet_jax.config import lite_config

BRANCHES = {"seam": ("SEAM", "seam"), "ssenet": ("SSENet", "ser")}


def get_config(branch="seam"):
    if branch not in BRANCHES:
        raise ValueError(f"the config folder has the arguments {', '.join(BRANCHES)}, not {branch!r}")
    name, regulariser = BRANCHES[branch]
    config = lite_config(regulariser)
    config.title = f"{name} on a folder of photos"
    config.data.name, config.data.eval_split, config.data.max_side = "folder", "", 512
    config.measure.images = 0  # without held-out photos they would be those of the training
    for training in (config.classifier, config.affinity, config.segmenter):
        training.min_steps, training.log_every = 200, 10
    return config
