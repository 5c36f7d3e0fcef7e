"""``ssenet predict``: segments photos with the network that a run trained."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from ml_collections import ConfigDict
from PIL import Image

from ssenet_jax.artifacts import replacing, write_mask
from ssenet_jax.checkpoint import load_variables
from ssenet_jax.commands.configs import add_config, load_config
from ssenet_jax.datasets.records import decode_image, read_bytes, shrink
from ssenet_jax.report import pictures
from ssenet_jax.stages.apply import segment_records
from ssenet_jax.stages.context import Context
from ssenet_jax.stages.table import place_of

HELP = """\
Segments photos with the network that a run trained: NAME.png holds class indices, NAME_overlay.jpg shows them.
  ssenet predict --config=configs/folder.py --config.data.root=photos --workdir=runs/photos --out=masks *.jpg
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_config(parser)
    parser.add_argument("--workdir", required=True, type=Path, help="the workdir of the run")
    parser.add_argument("--out", required=True, type=Path, help="folder for the results, made when absent")
    parser.add_argument("photos", nargs="+", type=Path)


def run(options: argparse.Namespace, overrides: list[str]) -> int:
    predict(load_config(options.config, overrides), options.workdir, options.photos, options.out)
    return 0


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
    context = Context(config, workdir)
    training = place_of("train_segmenter", context)
    variables = load_variables(training.folder, training.stage)

    def record_of(path):
        photo = decode_image(read_bytes(str(path)), str(path))
        image = shrink(photo, config.data.max_side)
        return {"id": path.stem, "photo": photo, "image": image, "size": photo.shape[:2]}

    def finish(record, labels):
        write_mask(out / f"{record['id']}.png", labels)
        with replacing(out / f"{record['id']}_overlay.jpg") as temporary:
            Image.fromarray(pictures.overlay_labels(record["photo"], labels)).save(temporary, format="jpeg", quality=90)

    segment_records(config, context.network("segmenter"), variables, map(record_of, photos), finish)
