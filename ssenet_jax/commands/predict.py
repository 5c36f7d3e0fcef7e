"""Segments single photos with the network that a run trained."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict
from PIL import Image

from ssenet_jax.artifacts import replacing, write_mask
from ssenet_jax.checkpoint import load_variables
from ssenet_jax.datasets.augment import resize_mask
from ssenet_jax.datasets.records import decode_image, read_bytes, shrink
from ssenet_jax.report import pictures
from ssenet_jax.stages import inference
from ssenet_jax.stages.context import Context


def predict(config: ConfigDict, workdir: Path, photos: Sequence[Path], out: Path) -> None:
    """Writes ``NAME.png``, class indices, and ``NAME_overlay.jpg`` for each photo.

    Photos above ``data.max_side`` are shrunk for the network; the results have the photo's own size.

    Args:
        config: of the run.
        workdir: of the run; its segmentation network is used.
        photos: image files; two of the same name are an error.
        out: a folder, made when absent.

    Raises:
        ValueError: no trained network, photos of the same name, or one that does not decode.
    """
    names = [photo.stem for photo in photos]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"two photos are named {twice[0]}; their results would overwrite each other in {out}")
    context, settings = Context(config, workdir), config.segment
    variables = load_variables(context.checkpoints("segmenter"), "train_segmenter")
    network = inference.segmenter_function(context.deeplab(), scales=settings.scales, flip=settings.flip)

    def prepare(records, canvas, rows):
        return (inference.views([r["image"] for r in records], canvas, settings.scales, config.model.backbone, rows),)

    def finish(record, probabilities):
        height, width = record["image"].shape[:2]
        labels = probabilities[:height, :width].argmax(-1).astype(np.uint8)
        labels = resize_mask(labels, record["photo"].shape[:2])
        write_mask(out / f"{record['id']}.png", labels)
        with replacing(out / f"{record['id']}_overlay.jpg") as temporary:
            Image.fromarray(pictures.overlay_labels(record["photo"], labels)).save(temporary, format="jpeg", quality=90)

    def record_of(path):
        photo = decode_image(read_bytes(str(path)), str(path))
        return {"id": path.stem, "photo": photo, "image": shrink(photo, config.data.max_side)}

    records = map(record_of, photos)
    inference.run(
        records,
        prepare,
        network,
        variables,
        finish,
        batch_size=config.inference.batch_size,
        bucket=config.inference.bucket,
    )
