"""A trained segmentation network that needs neither its training data nor a config."""

import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from jaxtyping import Float32, UInt8
from ml_collections import ConfigDict
from safetensors.numpy import save as safetensors_bytes

from ssenet_jax.artifacts import read_json, replacing, write_json
from ssenet_jax.checkpoint import load_variables
from ssenet_jax.datasets.records import decode_image, read_bytes, shrink
from ssenet_jax.pretrained import read_safetensors, shapes_of
from ssenet_jax.stages import apply, batching, inference
from ssenet_jax.stages.context import Context
from ssenet_jax.stages.facts import LONGEST, config_of, read_config, read_facts
from ssenet_jax.stages.final import has_last_step, settings_of
from ssenet_jax.stages.manifest import check_manifest
from ssenet_jax.stages.table import final_training, place_of
from ssenet_jax.training.recipes import network

KIND = "ssenet_jax model"
SETTINGS, WEIGHTS = "model.json", "weights.safetensors"
SECTIONS = ("dtype", "model", "segment", "crf", "inference")  # of the config, all that a model needs


class Segmenter:
    """Segments photos.

    Args:
        config: its sections dtype, data.max_side, model, segment, crf and inference count.
        class_names: of the foreground classes.
        variables: of the network, {"params": ..., "batch_stats": ...}.
        source: where they come from, for the error.

    Raises:
        ValueError: the variables are not those of the config's network.
    """

    def __init__(self, config: ConfigDict, class_names: tuple[str, ...], variables: dict, *, source: Path):
        self.config, self.class_names, self.variables = config, class_names, variables
        self.network = network(config, "segmenter", len(class_names))
        _check_shapes(variables, shapes_of(self.network), source)

    @property
    def max_side(self) -> int:
        """The longer side in pixels that larger photos are shrunk to for the network."""
        return self.config.data.max_side or LONGEST

    def __call__(self, image: UInt8[np.ndarray, "h w 3"] | str | os.PathLike) -> UInt8[np.ndarray, "h w"]:
        """The label map of a photo at its own size: 0 for the background, j + 1 for ``class_names[j]``.

        Args:
            image: RGB, or the path of an image file.
        """
        found = []
        self.segment([self.record_of(_read(image))], lambda record, labels: found.append(labels), batch_size=1)
        return found[0]

    def probabilities(self, image: UInt8[np.ndarray, "h w 3"] | str | os.PathLike) -> Float32[np.ndarray, "h w k"]:
        """Class probabilities, background first, before weight and CRF; at the size that the network sees.

        Args:
            image: RGB, or the path of an image file.
        """
        small, settings = self.record_of(_read(image))["image"], self.config.segment
        height, width = small.shape[:2]
        canvas = batching.bucket_of(height, width, self.config.inference.bucket)
        photos = batching.padded_images([small], canvas, 1)
        function = inference.probability_function(self.network, scales=tuple(settings.scales), flip=settings.flip)
        return np.asarray(function(self.variables, photos)[0, :height, :width])

    def record_of(self, photo: UInt8[np.ndarray, "h w 3"]) -> dict:
        """What `segment` takes of a photo: the image that the network sees, and the size of the label map."""
        return {"image": shrink(photo, self.max_side), "size": photo.shape[:2]}

    def segment(
        self, records: Iterable[Mapping], finish: Callable[[Mapping, np.ndarray], None], *, batch_size: int
    ) -> None:
        """`apply.segment_records` with this network, in batches of at most that many photos."""
        config = self.config.copy_and_resolve_references()
        config.inference.batch_size = min(batch_size, batching.batch_of(config.inference.batch_size))
        apply.segment_records(config, self.network, self.variables, records, finish)


def load(directory: str | os.PathLike) -> Segmenter:
    """Reads what ``ssenet export model`` wrote.

    Raises:
        ValueError: it is missing or damaged; names the file.

    Examples:
        >>> try:
        ...     labels = load("model")("photo.jpg")  # (h, w): 0, or j + 1 for the j-th of class_names
        ... except ValueError as error:
        ...     print(error)
        model holds no model.json; give the folder that ssenet export model wrote
    """
    directory = Path(directory)
    settings = directory / SETTINGS
    if not settings.is_file():
        raise ValueError(f"{directory} holds no {SETTINGS}; give the folder that ssenet export model wrote")
    stored = read_json(settings)
    if not isinstance(stored, dict) or stored.get("kind") != KIND:
        raise ValueError(f"{settings} is not a model of ssenet_jax; give the folder that ssenet export model wrote")
    if not (directory / WEIGHTS).is_file():
        raise ValueError(f"{directory / WEIGHTS} is missing; export the model again")
    variables = unflatten_dict(read_safetensors(directory / WEIGHTS), sep="/")
    config = config_of(stored.get("config"), settings)
    return Segmenter(config, _names(stored.get("class_names"), settings), variables, source=directory / WEIGHTS)


def of_run(workdir: Path) -> Segmenter:
    """The network that a run trained, from its workdir alone.

    Raises:
        ValueError: there is none, it is not trained to its end, it was trained under another config than the workdir's,
            or a file is damaged.
    """
    config = read_config(workdir)
    context = Context(config, workdir)
    place = place_of(final_training(config), context.workdir)
    complete = check_manifest(context.manifest(place.stage), settings_of(place.stage, config), stage=place.stage)
    variables = load_variables(place.folder, place.stage)
    if not (complete and has_last_step(place.stage, context)):
        raise ValueError(f"{workdir} holds a segmentation network that is not trained to its end; run ssenet run again")
    return Segmenter(config, read_facts(workdir).class_names, variables, source=place.folder)


def save(segmenter: Segmenter, directory: Path) -> None:
    """Writes a network where `load` finds it: arrays as safetensors, classes and settings as JSON."""
    stored = segmenter.config.to_dict()
    sections = {name: stored[name] for name in SECTIONS} | {"data": {"max_side": segmenter.max_side}}
    arrays = {name: np.ascontiguousarray(x) for name, x in flatten_dict(segmenter.variables, sep="/").items()}
    with replacing(directory / WEIGHTS) as temporary:
        temporary.write_bytes(safetensors_bytes(arrays))  # its own writer makes a file that only its owner can read
    names = list(segmenter.class_names)
    write_json(directory / SETTINGS, {"kind": KIND, "class_names": names, "config": sections})


def _read(image: Any) -> np.ndarray:
    if isinstance(image, str | os.PathLike):
        return decode_image(read_bytes(str(image), "give the path of a photo"), str(image))
    if not isinstance(image, np.ndarray):
        raise ValueError(
            f"the image is a {type(image).__name__}; expected a path, or a numpy array, uint8 (h, w, 3): "
            "np.asarray(image.convert('RGB')) of Pillow's"
        )
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or 0 in image.shape:
        raise ValueError(f"the image is {image.dtype} {image.shape}; expected uint8 (h, w, 3), RGB")
    return image


def _names(stored: Any, path: Path) -> tuple[str, ...]:
    if not isinstance(stored, list) or not stored or not all(isinstance(name, str) for name in stored):
        raise ValueError(f"{path} names no classes; export the model again")
    return tuple(stored)


def _check_shapes(variables: dict, expected: Any, source: Path) -> None:
    found, wanted = _shapes(variables), _shapes(expected)
    differing = [name for name in sorted(found | wanted) if found.get(name) != wanted.get(name)]
    if differing:
        name = differing[0]
        raise ValueError(
            f"{source} holds another network than its settings say: {name} is {found.get(name, 'absent')}, expected "
            f"{wanted.get(name, 'absent')}, and {len(differing) - 1} more; train again, or export the model again"
        )


def _shapes(tree: Any) -> dict[str, tuple[int, ...]]:
    return {name: tuple(leaf.shape) for name, leaf in flatten_dict(tree, sep="/").items()}
