"""What an extracted VOC 2012 devkit holds: where its files lie, its lists, its annotations; and the ids of SBD."""

import xml.etree.ElementTree as ElementTree
from pathlib import Path

from ssenet_jax.datasets.ids import check_ids
from ssenet_jax.datasets.records import read_bytes
from ssenet_jax.messages import quoted, shown

CLASS_NAMES = tuple(
    "aeroplane bicycle bird boat bottle bus car cat chair cow diningtable dog horse motorbike person pottedplant sheep"
    " sofa train tvmonitor".split()
)
SPLITS = ("train", "val", "train_aug", "test")
DEVKIT_REMEDY = "set config.data.root to the extracted VOCdevkit, or to its folder VOC2012"
SBD_REMEDY = "set config.data.sbd_root to the extracted SBD, the folder that holds dataset/train.txt"


def find_devkit(root: str) -> Path:
    """The folder VOC2012 in, or at, `root`.

    Raises:
        ValueError: there is none; names the path.
    """
    if not root:
        raise ValueError(f"config.data.root is empty; {DEVKIT_REMEDY}")
    for folder in (Path(root), Path(root) / "VOC2012", Path(root) / "VOCdevkit" / "VOC2012"):
        if (folder / "JPEGImages").is_dir():
            return folder
    raise ValueError(f"no VOC 2012 at {root} (no folder VOC2012/JPEGImages); {DEVKIT_REMEDY}")


def image_path(devkit: Path, image_id: str) -> Path:
    """Where the devkit keeps a photo."""
    return devkit / "JPEGImages" / f"{image_id}.jpg"


def mask_path(devkit: Path, image_id: str) -> Path:
    """Where the devkit keeps a mask, if there is one."""
    return devkit / "SegmentationClass" / f"{image_id}.png"


def annotation_path(devkit: Path, image_id: str) -> Path:
    """Where the devkit keeps the objects of a photo."""
    return devkit / "Annotations" / f"{image_id}.xml"


def read_ids(devkit: Path, split: str, sbd_root: str) -> list[str]:
    """The image ids of a split in the order of its list; "train_aug" is VOC's train, then what SBD adds, sorted.

    Raises:
        ValueError: a list is missing or empty or names an id twice; names the file.
    """
    lists = devkit / "ImageSets" / "Segmentation"
    if split != "train_aug":
        return _read_list(lists / f"{split}.txt", DEVKIT_REMEDY)
    if not sbd_root:
        raise ValueError(f"config.data.sbd_root is empty and split train_aug needs it; {SBD_REMEDY}")
    folders = [folder for folder in (Path(sbd_root), Path(sbd_root) / "dataset") if (folder / "train.txt").exists()]
    sbd = folders[0] if folders else Path(sbd_root) / "dataset"
    train = _read_list(lists / "train.txt", DEVKIT_REMEDY)
    added = {image_id for name in ("train.txt", "val.txt") for image_id in _read_list(sbd / name, SBD_REMEDY)}
    held_out = _read_list(lists / "val.txt", DEVKIT_REMEDY)
    return train + sorted(added.difference(train, held_out))


def _read_list(path: Path, remedy: str) -> list[str]:
    try:
        lines = read_bytes(path, remedy).decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"the image list {shown(path)} is not text ({error}); {remedy}") from error
    listed = [(line.strip(), f"{shown(path)}, line {number}") for number, line in enumerate(lines, 1) if line.strip()]
    if not listed:
        raise ValueError(f"the image list {shown(path)} is empty; {remedy}")
    for line, place in listed:
        if len(line.split()) > 1:
            raise ValueError(
                f"{place}: {quoted(line)} is more than an id; take a list of ids alone, as in ImageSets/Segmentation"
            )
    check_ids(listed, remedy="remove one of the lines")
    return [line for line, _ in listed]


def read_annotations(devkit: Path, ids: list[str], *, required: bool) -> dict[str, list[str]]:
    """The classes of each photo, as `read_classes` gives them.

    Raises:
        ValueError: names the first annotation that is wrong, and says how many more are.
    """
    classes, wrong = {}, []
    for image_id in ids:
        try:
            classes[image_id] = read_classes(devkit, image_id, required=required)
        except ValueError as error:
            wrong.append(str(error))
    if wrong:
        raise ValueError(wrong[0] + (f" ({len(wrong) - 1} more annotations are wrong)" if wrong[1:] else ""))
    return classes


def read_classes(devkit: Path, image_id: str, *, required: bool) -> list[str]:
    """The classes of a photo's annotation, sorted: any object, difficult ones too; the parts of a person do not count.

    Raises:
        ValueError: the annotation is missing though `required`, is not XML, or names a class that VOC does not have.
    """
    path = annotation_path(devkit, image_id)
    if not path.exists() and not required:
        return []
    remedy = "restore it from the devkit, or take its id off the list"
    data = read_bytes(path, remedy)
    try:
        objects = ElementTree.fromstring(data).findall("object")
    except (ElementTree.ParseError, LookupError, ValueError) as error:  # the latter for encodings
        raise ValueError(f"annotation {shown(path)} is not XML ({error}); {remedy}") from error
    names = sorted({(entry.findtext("name") or "").strip() for entry in objects})
    for name in names:
        if name not in CLASS_NAMES:
            known = ", ".join(CLASS_NAMES)
            raise ValueError(f"annotation {shown(path)} names the class {quoted(name)}; expected one of {known}")
    if required and not names:
        raise ValueError(f"annotation {shown(path)} has no object; an image needs a class, or take its id off the list")
    return names
