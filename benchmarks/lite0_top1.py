"""Top-1 of EfficientNet-Lite0's ImageNet weights on the photos of one class in a VOC devkit, in VOC's classes.

    SSENET_DATA=../shared python benchmarks/lite0_top1.py

A photo counts when its annotation names one class only and ImageNet has that class ("person" it has not). Short side to
256, centre crop 224, the published classifier (output stride 32). The best of the 1,000 ImageNet classes is looked up
in the table below; a class that is not in it is an error, like a wrong one. A second figure takes the best among the
table's classes only. To compare: 0.694 on 572 photos of the whole VOC val set, with a table that is not this one.
"""

import argparse
import json
import os
from pathlib import Path
from xml.etree import ElementTree

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from PIL import Image

from ssenet_jax.models import BACKBONES, CamNet
from ssenet_jax.pretrained import from_torch, read_weights

# indices of ImageNet-1k that a VOC class covers
IMAGENET_OF_VOC = {
    "aeroplane": (404, 895),
    "bicycle": (444, 671),
    "bird": (*range(7, 25), *range(80, 101), *range(127, 147)),
    "boat": (472, 484, 510, 554, 576, 625, 628, 724, 780, 814, 871, 914),
    "bottle": (440, 720, 737, 898, 907),
    "bus": (654, 779, 874),
    "car": (407, 436, 468, 511, 609, 627, 656, 661, 717, 734, 751, 817),
    "cat": tuple(range(281, 286)),
    "chair": (423, 559, 765, 857),
    "cow": (345, 346, 347),
    "diningtable": (532,),
    "dog": tuple(range(151, 269)),
    "horse": (339,),
    "motorbike": (665, 670),
    "pottedplant": (738,),
    "sheep": (348, 349),
    "sofa": (831,),
    "train": (466, 547, 565, 705, 820),
    "tvmonitor": (527, 664, 782, 851),
}
CLASSES = tuple(IMAGENET_OF_VOC)


def single_class_photos(devkit: Path, split: str) -> list[tuple[Path, int]]:
    """Photos of a split whose annotation names one class, with that class's position in `CLASSES`."""
    voc = next(path for path in (devkit / "VOC2012", devkit) if (path / "JPEGImages").is_dir())
    photos = []
    for name in (voc / "ImageSets" / "Segmentation" / f"{split}.txt").read_text().split():
        root = ElementTree.parse(voc / "Annotations" / f"{name}.xml").getroot()
        classes = {node.findtext("name") for node in root.iter("object")}
        if len(classes) == 1 and (label := classes.pop()) in IMAGENET_OF_VOC:
            photos.append((voc / "JPEGImages" / f"{name}.jpg", CLASSES.index(label)))
    return photos


def center_crop(path: Path) -> np.ndarray:
    image = Image.open(path).convert("RGB")
    scale = 256 / min(image.size)
    image = image.resize([round(length * scale) for length in image.size], Image.Resampling.BICUBIC)
    left, top = (image.width - 224) // 2, (image.height - 224) // 2
    return np.asarray(image.crop((left, top, left + 224, top + 224)))


def classifier():
    """images uint8 (n,224,224,3) -> scores of the 1,000 ImageNet classes."""
    weights = read_weights("efficientnet_lite0")
    variables = flatten_dict(from_torch(weights, CamNet(backbone="efficientnet_lite0"), allow_missing=("fc8",)))
    backbone = unflatten_dict({(path[0], *path[2:]): leaf for path, leaf in variables.items() if path[1] == "backbone"})
    facts = BACKBONES["efficientnet_lite0"]
    network = facts.build(output_stride=32)

    @jax.jit
    def scores(images):
        pixels = (images.astype(jnp.float32) - jnp.asarray(facts.mean)) / jnp.asarray(facts.std)
        features, _ = network.apply(backbone, pixels)
        return features.mean((1, 2)) @ weights["_fc.weight"].T + weights["_fc.bias"]

    return scores


def measure(devkit: Path, split: str, batch_size: int) -> dict:
    photos = single_class_photos(devkit, split)
    scores = classifier()
    voc_of_imagenet = np.full(1000, -1)
    for index, name in enumerate(CLASSES):
        voc_of_imagenet[list(IMAGENET_OF_VOC[name])] = index
    right, right_among = 0, 0
    for start in range(0, len(photos), batch_size):
        chosen = photos[start : start + batch_size]
        labels = np.array([label for _, label in chosen])
        images = np.stack([center_crop(path) for path, _ in chosen])
        images = np.pad(images, ((0, batch_size - len(chosen)), (0, 0), (0, 0), (0, 0)))
        found = np.asarray(scores(images))[: len(chosen)]
        right += int((voc_of_imagenet[found.argmax(1)] == labels).sum())
        among = np.where(voc_of_imagenet >= 0, found, -np.inf)
        right_among += int((voc_of_imagenet[among.argmax(1)] == labels).sum())
    total = len(photos)
    return {"split": split, "photos": total, "top1": right / total, "top1_among_mapped": right_among / total}


def main():
    data = os.environ.get("SSENET_DATA", str(Path(__file__).parents[2] / "shared"))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--devkit", type=Path, default=Path(data) / "VOCdevkit")
    parser.add_argument("--batch_size", type=int, default=32)
    arguments = parser.parse_args()
    for split in ("train", "val"):
        print(json.dumps(measure(arguments.devkit, split, arguments.batch_size)))


if __name__ == "__main__":
    main()
