"""What every stage is given: the config, where things lie in the workdir, the data, the models."""

import functools
import sys
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from ssenet_jax import datasets
from ssenet_jax.models import BACKBONES, AffinityNet, CamNet, DeepLab
from ssenet_jax.training import recipes
from ssenet_jax.training.sharding import make_mesh


class Context:
    """A config and a workdir, and what follows from them."""

    def __init__(self, config: ConfigDict, workdir: Path):
        self.config = config
        self.workdir = workdir
        self.is_writer = jax.process_index() == 0
        if config.model.backbone not in BACKBONES:
            raise ValueError(f"model.backbone is {config.model.backbone!r}; it must be one of {', '.join(BACKBONES)}")
        if config.dtype not in ("float32", "bfloat16"):
            raise ValueError(f"dtype is {config.dtype!r}; it must be float32 or bfloat16")
        self.backbone = BACKBONES[config.model.backbone]

    def say(self, line: str) -> None:
        """A line of progress, from one process."""
        if self.is_writer:
            print(line, file=sys.stderr, flush=True)

    @functools.cached_property
    def mesh(self) -> jax.sharding.Mesh:
        return make_mesh(self.config.mesh.data)

    @functools.cached_property
    def train_source(self) -> datasets.Source:
        return datasets.load(self.config.data, self.config.data.train_split)

    @functools.cached_property
    def eval_source(self) -> datasets.Source | None:
        split = self.config.data.eval_split
        return datasets.load(self.config.data, split) if split else None

    @property
    def sources(self) -> dict[str, datasets.Source]:
        """The splits in use, by name."""
        data = self.config.data
        found = {data.train_split: self.train_source}
        if self.eval_source is not None:
            found[data.eval_split] = self.eval_source
        return found

    @property
    def prediction_split(self) -> str:
        """Where the segmentation network is applied: held-out images, or the training images when there are none."""
        return self.config.data.eval_split or self.config.data.train_split

    def cam_net(self) -> CamNet:
        return self._network("classifier")

    def affinity_net(self) -> AffinityNet:
        return self._network("affinity")

    def deeplab(self) -> DeepLab:
        return self._network("segmenter")

    def _network(self, training: str) -> Any:
        return recipes.network(self.config, training, len(self.train_source.class_names))

    def manifest(self, stage: str) -> Path:
        return self.workdir / "manifests" / f"{stage}.json"

    def checkpoints(self, training: str) -> Path:
        return self.workdir / "checkpoints" / training

    def cam(self, image_id: str, *, baseline: bool = False) -> Path:
        return self.workdir / ("baseline/cams" if baseline else "cams") / f"{image_id}.npz"

    def seed(self, image_id: str) -> Path:
        return self.workdir / "seeds" / f"{image_id}.npz"

    def pseudo_label(self, image_id: str) -> Path:
        return self.workdir / "pseudo_labels" / f"{image_id}.png"

    def prediction(self, split: str, image_id: str) -> Path:
        return self.workdir / "predictions" / split / f"{image_id}.png"

    def metrics(self, stage: str, split: str) -> Path:
        return self.workdir / "metrics" / f"{stage}.{split}.json"
