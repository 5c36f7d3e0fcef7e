"""What every stage is given: the config, the data, the devices, and where things lie in the workdir."""

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from flax import linen as nn
from ml_collections import ConfigDict

from ssenet_jax import datasets
from ssenet_jax.models import BACKBONES
from ssenet_jax.training import recipes
from ssenet_jax.training.logs import say
from ssenet_jax.training.sharding import make_mesh, part_for_batch

Sources = Mapping[str, datasets.Source]


class Sampled:
    """Images of a source evenly over its list, at most `count`."""

    def __init__(self, source: datasets.Source, count: int):
        self._source, spaced = source, np.linspace(0, len(source) - 1, min(count, len(source)))
        self._chosen = spaced.round().astype(int).tolist()
        self.ids, self.class_names = [source.ids[index] for index in self._chosen], source.class_names
        self.photos = [source.photos[index] for index in self._chosen] if source.photos else []
        self.has_masks, self.identity = source.has_masks, source.identity

    def fingerprints(self) -> dict[str, str]:
        return self._source.fingerprints()

    def mask_fingerprints(self) -> dict[str, str]:
        return self._source.mask_fingerprints()

    def __len__(self) -> int:
        return len(self._chosen)

    def __getitem__(self, index: int) -> datasets.Record:
        return self._source[self._chosen[index]]


class Place(NamedTuple):
    """Where the results of a stage lie.

    Attributes:
        stage: its name.
        root: the workdir.
        writes: a path below it, with `{id}` and `{split}` where there is one file an image.
        training: for stages that train, which of `recipes.TRAININGS`.
    """

    stage: str
    root: Path
    writes: str
    training: str = ""

    @property
    def folder(self) -> Path:
        """The folder of a training's checkpoints, or that which holds the files of all images."""
        return self.root / self.writes.partition("{")[0]

    def file(self, image_id: str, split: str) -> Path:
        """The file of one image."""
        return self.root / self.writes.replace("{split}", split).replace("{id}", image_id)


class Job(NamedTuple):
    """What one stage has to do.

    Attributes:
        title: of the stage.
        reads: where the stages that it needs have written, in the order of the row.
        writes: where its own results go.
        todo: for stages with one file an image, by split: the images of this process's share that have none.
    """

    title: str
    reads: tuple[Place, ...]
    writes: Place
    todo: Mapping[str, list[int]]


class Context:
    """A config and a workdir, and what follows from them."""

    def __init__(self, config: ConfigDict, workdir: Path):
        self.config = config
        self.workdir = workdir
        self.is_writer = jax.process_index() == 0
        if config.model.backbone not in BACKBONES:
            raise ValueError(f"model.backbone is {config.model.backbone!r}; it must be one of {', '.join(BACKBONES)}")
        recipes.regulariser(config)
        self.backbone = BACKBONES[config.model.backbone]
        stride = max(self.backbone.strides_at(config.model.output_stride)[-1], config.affinity.stride)
        if config.inference.bucket % stride:
            raise ValueError(
                f"inference.bucket is {config.inference.bucket}; it must be a multiple of the network's stride, "
                f"{stride}"
            )

    def say(self, line: str) -> None:
        """A line of progress, from one process."""
        if self.is_writer:
            say(line)

    @functools.cached_property
    def mesh(self) -> jax.sharding.Mesh:
        return make_mesh(self.config.mesh.data)

    def mesh_of(self, training: str) -> jax.sharding.Mesh:
        """The devices of a training: those of the mesh, or as many of them as its batch parts evenly over."""
        settings = recipes.section(self.config, training)
        return part_for_batch(settings.batch_size, self.mesh, settings.accumulate)

    @functools.cached_property
    def train_source(self) -> datasets.Source:
        return datasets.load(self.config.data, self.config.data.train_split)

    @functools.cached_property
    def eval_source(self) -> datasets.Source | None:
        split = self.config.data.eval_split
        return datasets.load(self.config.data, split) if split else None

    @property
    def sources(self) -> dict[str, datasets.Source]:
        """The splits in use, by name, the training split first."""
        data = self.config.data
        found = {data.train_split: self.train_source}
        if self.eval_source is not None:
            found[data.eval_split] = self.eval_source
        return found

    @functools.cache  # noqa: B019, one context a run
    def fingerprints(self, split: str, *, masks: bool) -> Mapping[str, str]:
        """A short text by image id that changes with the photo or its labels, or its mask; as they are at the start."""
        source = self.sources[split]
        of_masks = source.mask_fingerprints() if masks else {}
        return {image_id: of + of_masks.get(image_id, "") for image_id, of in source.fingerprints().items()}

    def training_images(self) -> dict[str, datasets.Source]:
        """The training split alone."""
        return {self.config.data.train_split: self.train_source}

    def training_and_scored_images(self) -> dict[str, datasets.Source]:
        """The training split, and the held-out one when it has masks to score against."""
        train = self.config.data.train_split
        return {split: source for split, source in self.sources.items() if split == train or source.has_masks}

    def measured_images(self) -> dict[str, datasets.Source]:
        """The images that CAMs are measured on: some held-out ones, or training images when none are held out."""
        split = self.config.data.eval_split or self.config.data.train_split
        return {split: Sampled(self.sources[split], self.config.measure.images)}

    def validation_images(self) -> datasets.Source:
        """Some held-out images, always the same, for figures in a training's log; empty where none are held out."""
        if self.eval_source is None:
            return Sampled(self.train_source, 0)
        return Sampled(self.eval_source, self.config.measure.validation_images)

    def images_to_segment(self) -> dict[str, datasets.Source]:
        """Where the segmentation network is applied: held-out images, or the training images when there are none."""
        split = self.config.data.eval_split or self.config.data.train_split
        return {split: self.sources[split]}

    def network(self, training: str) -> nn.Module:
        """The network of a training."""
        return recipes.network(self.config, training, len(self.train_source.class_names))

    def manifest(self, stage: str) -> Path:
        return self.workdir / "manifests" / f"{stage}.json"

    def log(self, stage: str) -> Path:
        return self.workdir / "logs" / f"{stage}.jsonl"

    def metrics(self, stage: str, split: str) -> Path:
        return self.workdir / "metrics" / f"{stage}.{split}.json"
