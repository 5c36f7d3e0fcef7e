"""PASCAL VOC 2012: a tfds builder over an extracted devkit that needs no TensorFlow, and the source of its records."""

import contextlib
import io
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from ssenet_jax.cache import folder as user_cache
from ssenet_jax.datasets.devkit import (
    CLASS_NAMES,
    SPLITS,
    annotation_path,
    find_devkit,
    image_path,
    mask_path,
    read_annotations,
    read_ids,
)
from ssenet_jax.datasets.fingerprints import contents, fingerprint
from ssenet_jax.datasets.formats import open_photo
from ssenet_jax.datasets.records import IGNORE, Record, decode_image, decode_mask, multi_hot, read_bytes
from ssenet_jax.messages import shown


class _Info(tfds.core.DatasetInfo):
    def initialize_from_bucket(self) -> None:
        """Does nothing: no bucket knows these lists, and looking there leaves an empty temporary folder behind."""


class Voc12(tfds.core.GeneratorBasedBuilder):
    """One split of VOC 2012 as tfds examples: the photo's bytes unchanged, the mask as one grey channel.

    `has_mask` is False where the devkit has no mask, and `mask` is then a single ignored pixel.
    """

    VERSION = tfds.core.Version("1.0.0")
    # There is no checksum file to find beside the code, and finding it takes a package that tfds does not install.
    code_path = None

    def __init__(self, *, devkit: Path, split: str, classes: dict[str, list[str]], data_dir: Path):
        self._devkit, self._split, self._classes = devkit, split, classes
        super().__init__(file_format="array_record", data_dir=data_dir)

    def _info(self) -> tfds.core.DatasetInfo:
        features = {
            "id": tfds.features.Text(),
            "image": tfds.features.Image(encoding_format="jpeg"),
            "labels": tfds.features.Sequence(tfds.features.ClassLabel(names=list(CLASS_NAMES))),
            "mask": tfds.features.Image(shape=(None, None, 1), encoding_format="png"),
            "has_mask": tfds.features.Scalar(np.bool_),
        }
        return _Info(
            builder=self,
            features=tfds.features.FeaturesDict(features),
            homepage="http://host.robots.ox.ac.uk/pascal/VOC/voc2012/",
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager) -> dict:
        del dl_manager
        return {self._split: self._generate_examples()}

    def _generate_examples(self) -> Iterator[tuple[int, dict]]:
        # Integer keys in the order of the list: with shuffling off, tfds writes examples in the order of their keys.
        for position, (image_id, classes) in enumerate(self._classes.items()):
            image, mask = image_path(self._devkit, image_id), mask_path(self._devkit, image_id)
            yield (
                position,
                {
                    "id": image_id,
                    "image": read_bytes(image, "make it readable") if image.is_file() else b"",
                    "labels": classes,
                    "mask": grey_png(mask) if mask.is_file() else _png(Image.new("L", (1, 1), IGNORE)),
                    "has_mask": mask.is_file(),
                },
            )


class Voc12Source:
    """The prepared records of one split, decoded when asked for."""

    class_names = CLASS_NAMES

    def __init__(self, prepared: Path, split: str, *, devkit: Path, held: dict[str, "_Held"]):
        self._prepared, self._devkit, self._held, self.ids = prepared, devkit, held, list(held)
        with self._naming_damage():
            raw = {"image": tfds.decode.SkipDecoding(), "mask": tfds.decode.SkipDecoding()}
            self._examples = tfds.builder_from_directory(prepared).as_data_source(split=split, decoders=raw)
        self.has_masks = any(of.mask is not None for of in held.values())
        self.identity = {"name": "voc12", "classes": list(CLASS_NAMES), "lists": {split: fingerprint(self.ids)}}
        self.photos = [str(image_path(devkit, image_id)) for image_id in self.ids]

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> Record:
        image_id = self.ids[index]
        with self._naming_damage():
            example = self._examples[index]
        image = decode_image(example["image"], str(image_path(self._devkit, image_id)))
        size, labels = (image.shape[0], image.shape[1]), multi_hot(example["labels"], len(CLASS_NAMES))
        record: Record = {"id": image_id, "image": image, "size": size, "labels": labels}
        if example["has_mask"]:
            name = str(mask_path(self._devkit, image_id))
            record["mask"] = decode_mask(example["mask"], name, size=size, num_classes=len(CLASS_NAMES))
        return record

    def fingerprints(self) -> dict[str, str]:
        return {image_id: fingerprint(held.photo, held.annotation) for image_id, held in self._held.items()}

    def mask_fingerprints(self) -> dict[str, str]:
        return {image_id: held.mask for image_id, held in self._held.items() if held.mask is not None}

    @contextlib.contextmanager
    def _naming_damage(self) -> Iterator[None]:
        """Damage to the prepared records is no fault of a photo's, and is not left out as one."""
        try:
            yield
        except MemoryError:
            raise
        except Exception as error:  # array_record, tfds and protobuf each raise their own
            raise OSError(
                f"the prepared records {shown(self._prepared)} are damaged ({error}); delete that folder, and they are"
                " made again"
            ) from error


def open_split(data_config, split: str, *, check_files: bool) -> Voc12Source:
    """The split that the section `data` of a config describes."""
    places = {"sbd_root": data_config.sbd_root, "cache": data_config.cache}
    return open_voc12(data_config.root, split, **places, check_files=check_files)


def open_voc12(root: str, split: str, *, sbd_root: str, cache: str, check_files: bool) -> Voc12Source:
    """Opens a split of a devkit; the first time its records are prepared under the cache, which takes seconds.

    The prepared folder is named after the split, its list, and what every file holds, so a devkit that changed is
    prepared anew and a copy of it is not.

    Args:
        root: the extracted VOCdevkit, or its folder VOC2012.
        split: one of SPLITS; "train_aug" is VOC train and SBD train and val without VOC val.
        sbd_root: the extracted SBD; only "train_aug" reads it.
        cache: where the prepared records go; "" is the user's cache.
        check_files: whether a photo that is missing raises here rather than when its record is read.

    Raises:
        ValueError: a folder, list, annotation or photo is missing or wrong, or the cache cannot be written.
    """
    if split not in SPLITS:
        raise ValueError(f"voc12 has no split {split!r}; it has {', '.join(SPLITS)}")
    devkit = find_devkit(root)
    ids = read_ids(devkit, split, sbd_root)
    missing = [image_id for image_id in ids if check_files and not image_path(devkit, image_id).is_file()]
    if missing:
        path = image_path(devkit, missing[0])
        more = f" and {len(missing) - 1} more" if missing[1:] else ""
        raise ValueError(
            f"image {shown(path)}{more}, listed for split {split}, is missing; restore it, or set"
            " config.data.on_error=skip"
        )
    held = _held(devkit, ids)
    state = fingerprint(str(Voc12.VERSION), split, [(image_id, *of) for image_id, of in held.items()])
    prepared = _prepared_in(cache) / f"voc12-{split}-{state}"
    if not prepared.exists():
        _prepare(devkit, split, read_annotations(devkit, ids, required=split != "test"), prepared)
    return Voc12Source(prepared, split, devkit=devkit, held=held)


def _prepared_in(cache: str) -> Path:
    try:
        return Path(cache).expanduser() if cache else user_cache()
    except RuntimeError as error:
        raise ValueError(f"{error}; set config.data.cache to a folder for prepared records") from error


def _prepare(devkit: Path, split: str, classes: dict[str, list[str]], target: Path) -> None:
    """Builds under a temporary name and renames, so that a killed run leaves nothing that looks finished."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as work:
            _build(Voc12(devkit=devkit, split=split, classes=classes, data_dir=Path(work)), target)
    except OSError as error:
        raise ValueError(
            f"cannot write prepared records to {target.parent} ({error.strerror or error});"
            " set config.data.cache to a folder that can be written"
        ) from error


def _build(builder: Voc12, target: Path) -> None:
    tfds.disable_progress_bar()
    with contextlib.redirect_stdout(io.StringIO()):  # tfds announces a download that does not happen
        try:
            builder.download_and_prepare()
        except RuntimeError as error:  # so array_record says that a disk is full
            raise OSError(" ".join(str(error).split())) from error
    try:
        os.rename(builder.data_dir, target)
    except OSError:
        if not target.exists():  # else another process was first, and its folder holds the same
            raise


class _Held(NamedTuple):
    """What the files of a photo hold, as `contents` gives it."""

    photo: str | None
    mask: str | None
    annotation: str | None


def _held(devkit: Path, ids: list[str]) -> dict[str, _Held]:
    files = {i: [path(devkit, i) for path in (image_path, mask_path, annotation_path)] for i in ids}
    of = contents(path for paths in files.values() for path in paths)
    return {image_id: _Held(*(of[path] for path in paths)) for image_id, paths in files.items()}


def grey_png(path: Path) -> bytes:
    """A mask file as PNG of mode L; the palette is dropped, so that no reader turns the class numbers into colours."""
    data = read_bytes(path, "make it readable")
    try:
        with open_photo(data) as opened:
            grey = Image.fromarray(np.asarray(opened))
    except Exception:  # a damaged mask is kept as it is: reading the record names it, or leaves it out
        return data
    return _png(grey)


def _png(image: Image.Image) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "png", compress_level=1)
    return stream.getvalue()
