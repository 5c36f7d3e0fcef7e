"""Every key of an experiment, at the setting that the authors published; the files in ``configs/`` change what differs.

``paper_config`` is the one place where a default is written.
"""

from typing import Any

from ml_collections import ConfigDict, FieldReference

# Rows (regex over parameter paths, learning rate multiplier, decay multiplier): biases learn twice as fast and do
# not decay, new layers ten times as fast.
GROUPS = (
    ("backbone/.*bias", 2.0, 0.0),
    ("backbone/.*", 1.0, 1.0),
    (".*bias", 20.0, 0.0),
    (".*", 10.0, 1.0),
)

# Keys that change how a run is carried out and not what it computes; a workdir may be continued under other values.
RUNTIME_KEYS = (
    r"title|stages|baseline|remat",
    r"data\.(root|sbd_root|cache|on_error|workers|folder\.masks)",
    r"mesh\..*",
    r"inference\..*",
    r"crf\.workers",
    r"segmenter\.rounds",  # decides which trainings there are, and not what one of them gives
    r".*\.(checkpoint_every|keep|log_every|picture_every)",
    r"report\..*",
    r"measure\.validation_images",
)


def paper_config(reference: str = "code") -> ConfigDict:
    """Returns the published setting: VOC 2012, ResNet-38, every stage.

    Args:
        reference: ``"code"``, the authors' released code (batch 16, SER between normalised CAMs at the images' size),
            or ``"paper"``, the paper's text where it says otherwise (batch 8, SER between raw CAMs at feature size;
            Eq. 2 and section 4.1).

    Raises:
        ValueError: for any other ``reference``.
    """
    config = ConfigDict(
        {
            "title": "SSENet on VOC 2012",
            "seed": 0,
            "stages": (),  # what is run, with all that it reads, when --stages does not say; (): up to the predictions
            "baseline": False,  # beside it the classifier without a regulariser, for its CAMs
            "dtype": "float32",  # of the computation, "float32" or "bfloat16"; parameters are float32 either way
            "remat": False,  # in training keep only the blocks' inputs: less memory, about a third more time
            "data": _data(),
            "model": {
                "backbone": "resnet38",  # or "efficientnet_lite0"
                "width": 1.0,  # multiplies every channel count
                "output_stride": 0,  # pixels a cell of the CAM spans; 0: the backbone's own; 8 for finer CAMs of Lite0
                "norm": "frozen",  # "frozen": imported statistics; "batch": from scratch
                "dropout": 1.0,  # factor on the published rates
                "frozen": _any("default"),  # "default": what the backbone's file says; or regexes over parameter paths
            },
            "init": {
                # a .params, .pth, .pt, .npz or .safetensors file, a folder that `ssenet import-weights` wrote,
                # "efficientnet_lite0" for the packaged ones, "" for none
                "weights": "",
            },
            "classifier": {
                **_training(epochs=15, batch_size=16, lr=0.01, momentum=5e-4),
                "long_edge": (448, 768),  # the longer side is drawn from this range
                "brightness": 0.3,
                "contrast": 0.3,
                "saturation": 0.3,
                "hue": 0.1,
                "brightness_shift": 0.0,  # added to the normalised image, uniform in +- this
                "regulariser": "ser",  # of the CAM: a row of training.recipes.REGULARISERS, "none" for one branch
            },
            "finetune": {
                # of the classifier with its regulariser, from the baseline, at the same rates; 0: it starts from
                # init.weights and is trained as long as the baseline
                "steps": 0,
            },
            "ser": {
                "eta": 1.0,  # weight of the regulariser
                "eta_warmup": 0.0,  # share of the steps over which eta rises from zero
                "normalize": "max",  # "max" or "none"
                "classes": "all",  # mean over "all" classes or those "present"
                "cam_size": "image",  # compare at the image's size or at the "feature" size
                "p": 2.0,
                "operators": ("resize",),  # A: names of ssenet_jax.equivariance
                "draw": "one",  # of several operators each step takes "one", or "all" one after the other
                # their arguments: a number, or a range (low, high) drawn anew each step
                "rate": _any(0.3),  # of resize: the size of the second branch
                "degrees": _any((-20.0, 20.0)),  # of rotate
                "shift": _any((-0.1, 0.1)),  # of translate: dy and dx, in fractions of height and width
                "quarter_turns": _any(1),  # of rot90
                "matrix": _any(((0.9, 0.1, 0.0), (-0.1, 0.9, 0.0))),  # of affine
            },
            "seam": {
                "rate": 0.3,  # size of the second branch
                "eta": 1.0,  # weight of all terms but the classification's
                "eta_warmup": 0.0,  # share of the steps over which eta rises from zero
            },
            "cam": {
                "scales": (0.5, 1.0, 1.5, 2.0),
                "flip": True,
            },
            "measure": {
                "images": 100,  # held-out images, evenly over their list, that CAMs are measured on; 0: none
                "validation_images": 64,  # those whose classification is logged while the classifier trains
            },
            "crf": {
                "backend": "auto",
                "iterations": 10,
                "alpha_low": 4.0,
                "alpha_high": 24.0,
                "sxy_gaussian": 3.0,
                "compat_gaussian": 3.0,
                "sxy_bilateral": 80.0,
                "srgb": 13.0,
                "compat_bilateral": 10.0,
                "workers": 0,  # processes; 0: one a processor
            },
            "affinity": {
                **_training(epochs=8, batch_size=8, lr=0.01, momentum=5e-4),
                "init": "weights",  # start from init.weights, or from the "classifier"
                "stride": 8,  # pixels a cell of the walk spans; 4 where images are small
                "radius": 5,
                "border": "full",  # "reference" leaves out the border pairs that the authors' code leaves out
                "brightness": 0.3,
                "contrast": 0.3,
                "saturation": 0.3,
                "hue": 0.1,
            },
            "random_walk": {
                "features": "affinity",  # AffinityNet's; "classifier": colour and its conv4, not trained for it
                "normalize": False,  # each map after the walk from its tenth percentile (0) to its largest score (1)
                "contrast": 0.0,  # share of what stands out from the photo's border, whatever its class, in each map
                "beta": 8.0,
                "steps": 256,
                "border": "full",
                "method": "auto",
            },
            "labels": {
                # "walk", "cam", "seeds"; "masks": the data set's own, the supervised bound; "reviewed": what a person
                # accepted or corrected in `ssenet review`, and `unreviewed` for the rest
                "source": "walk",
                "unreviewed": "walk",  # or "cam": the source of photos that nobody looked at
                "background": "constant",  # its score is alpha; or "power": (1 - largest score) ** alpha
                "alpha": 0.2,
                "crf": False,  # a CRF on the scores before they become labels
            },
            "segmenter": {
                **_training(epochs=0, steps=20_000, batch_size=10, lr=0.001, momentum=0.9),
                "init": "weights",  # start from init.weights, or from the "classifier"
                "scale": (0.5, 1.5),
                # 1: a second network learns from what the first says of the training photos, kept to their labels
                "rounds": 0,
            },
            "segment": {
                "scales": (0.5, 0.75, 1.0, 1.25, 1.5, 1.75),
                "flip": True,
                "background_weight": 1.0,  # its probability is multiplied by this: below 1 masks cover more
                "crf": False,
            },
            "evaluate": {
                "alpha": 0.2,  # of CAMs: background where the best class is at most this
                "best_alpha": False,  # take the alpha with the highest mIoU on the training masks instead
                "alphas": tuple(round(0.02 * i, 2) for i in range(1, 36)),  # the sweep
            },
            "inference": {
                "batch_size": 0,  # images of one bucket in one call; 0: one on a CPU, four on an accelerator
                "bucket": 128,  # sides are padded to multiples of this, so that few shapes are compiled
            },
            "report": {
                "examples": 8,
            },
            "mesh": {
                "data": 0,  # devices on the data axis; 0: all
                "shard_params": False,
            },
        }
    )
    presets = {  # what the two settle differently
        "code": {"batch_size": 16, "normalize": "max", "cam_size": "image"},
        "paper": {"batch_size": 8, "normalize": "none", "cam_size": "feature"},
    }
    if reference not in presets:
        raise ValueError(f"reference is {reference!r}; it must be one of {', '.join(sorted(presets))}")
    preset = presets[reference]
    config.classifier.batch_size = preset["batch_size"]
    config.ser.normalize = preset["normalize"]
    config.ser.cam_size = preset["cam_size"]
    return config.lock()


def lite_config(regulariser: str) -> ConfigDict:
    """The setting for photos on a laptop: EfficientNet-Lite0 with the ImageNet weights that its package brings.

    docs/masks.md says where its figures come from.

    Args:
        regulariser: of the classifier, ``"ser"``, ``"seam"`` or ``"none"``.
    """
    config = paper_config()
    config.model.backbone = config.init.weights = "efficientnet_lite0"
    for training in (config.classifier, config.affinity, config.segmenter):
        training.batch_size, training.crop, training.momentum = 16, 320, 0.9
    config.classifier.epochs, config.classifier.long_edge = 8, (320, 544)
    config.classifier.regulariser = regulariser
    config.ser.rate = config.seam.rate = 0.5
    config.cam.scales = (0.75, 1.25)  # the published four take 3.5 times the work and are worth 0.3 points of labels
    # where photos are few, a walk over colour and early features makes better labels than that of an AffinityNet, and
    # than a CRF; what stands out from the border tells where the background ends
    config.random_walk.features, config.random_walk.normalize = "classifier", True
    config.random_walk.contrast, config.labels.alpha = 0.4, 0.34
    if regulariser == "seam":  # its maps cover objects more evenly
        config.evaluate.alpha, config.labels.alpha = 0.45, 0.42
    # narrower kernels than the published ones, which wipe small objects out
    config.crf.sxy_bilateral, config.crf.srgb = 50.0, 5.0
    config.affinity.epochs, config.affinity.batch_size = 3, 8
    segmenter = config.segmenter
    segmenter.init, segmenter.epochs, segmenter.steps, segmenter.lr = "classifier", 8, 0, 0.005
    config.segment.scales, config.segment.crf = (0.75, 1.0, 1.25), True
    config.segment.background_weight = 0.5  # of classes learnt from few photos the network is too little sure
    return config


def _data() -> dict:
    return {
        "name": "voc12",  # "voc12", "folder" or "scenes"
        "root": "",  # the folder VOCdevkit; for "folder" what the paths below are relative to
        "sbd_root": "",  # the extracted SBD, for the augmented list
        "cache": "",  # prepared VOC records; "": ~/.cache/ssenet_jax
        "train_split": "train",
        "eval_split": "val",  # "": none
        "max_side": 0,  # larger images are shrunk when read; 0: never
        "on_error": "raise",  # or "skip": leave out images that do not decode
        "workers": 0,  # processes that prepare what is trained on; 0: a thread for each core in their place
        "scenes": {"seed": 0, "num_train": 1200, "num_test": 300, "size": 96},
        "folder": {"csv": "train.csv", "eval_csv": "", "images": "images", "masks": ""},
    }


def _any(value: Any) -> FieldReference:
    """A key whose values differ in type."""
    return FieldReference(value, field_type=object)


def _training(*, epochs: int, batch_size: int, lr: float, momentum: float, steps: int = 0) -> dict:
    """The keys that the three trainings share."""
    return {
        "epochs": epochs,
        "min_steps": 0,  # of few images the epochs are more, so that there are as many steps
        "steps": steps,  # overrides both when it is not 0
        "batch_size": batch_size,  # over all devices and hosts
        "accumulate": 1,  # parts a batch is computed in
        "crop": 448,
        "flip": True,
        "lr": lr,
        "momentum": momentum,
        "power": 0.9,  # of the poly schedule
        "weight_decay": 5e-4,
        "groups": GROUPS,
        "checkpoint_every": 500,
        "keep": 2,
        "log_every": 20,
        "picture_every": 500,
    }
