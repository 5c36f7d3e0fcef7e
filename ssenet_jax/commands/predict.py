"""``ssenet predict``: segments photos with a trained network."""

import argparse
import io
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from ssenet_jax import segmenter
from ssenet_jax.artifacts import replacing, write_text
from ssenet_jax.commands.configs import refuse_words
from ssenet_jax.datasets.records import decode_image, read_bytes, shrink
from ssenet_jax.palette import indexed
from ssenet_jax.report import album, pictures
from ssenet_jax.segmenter import Segmenter
from ssenet_jax.training import stop

HELP = """\
Segments photos with the network that a run trained: NAME.png holds class indices, NAME_overlay.jpg shows them, and
with --html predictions.html shows all of them. Neither the config nor the training data are needed.
  ssenet predict --workdir=runs/photos --out=masks *.jpg
  ssenet predict --model=model --out=masks *.jpg           # of ssenet export model
"""
MADE_BY = "ssenet predict"  # stands in every file that this command writes, and in none that it may not replace
OVERLAY = 2048  # the longest side of an overlay, in pixels


def add_arguments(parser: argparse.ArgumentParser) -> None:
    network = parser.add_mutually_exclusive_group(required=True)
    network.add_argument("--workdir", help="the workdir of a run")
    network.add_argument("--model", help="a folder that ssenet export model wrote")
    parser.add_argument("--out", required=True, help="folder for the results, made when absent")
    parser.add_argument("--html", action="store_true", help="one page of all: predictions.html")
    parser.add_argument("photos", nargs="+", type=Path)


def run(options: argparse.Namespace, words: list[str]) -> int:
    refuse_words(words)
    for name in ("out", "workdir", "model"):
        if getattr(options, name) == "":
            raise ValueError(f"--{name} is empty; name a folder")
    out = Path(options.out)
    plan = writable(options.photos, out, page=options.html)
    trained = segmenter.load(options.model) if options.model else segmenter.of_run(Path(options.workdir))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # a photo of 100 megapixels is welcome here
        failed, shown = predict(trained, plan, out)
    if options.html:
        write_text(out / album.FILE, album.page(shown, trained.class_names, MADE_BY))
    print(f"{len(shown)} of {len(plan)} photos segmented into {out}")
    if stop.requested():
        print("ssenet: stopped; the same command again takes all photos anew", file=sys.stderr)
        return stop.exit_code() or 1
    return 1 if failed else 0


def writable(photos: Sequence[Path], out: Path, *, page: bool) -> dict[str, Path]:
    """The photos by the name of their results; refused before anything is computed.

    Raises:
        ValueError: two photos of one name, or a result would replace a file that this command did not write.
        NotADirectoryError: ``out`` is a file.
    """
    plan: dict[str, Path] = {}
    first: dict[str, Path] = {}
    for photo in photos:
        other = first.setdefault(photo.stem.casefold(), photo)  # as on disks that do not tell letter case apart
        if photo.stem in plan or other is not photo:
            raise ValueError(
                f"{other} and {photo} are of one name; their results would overwrite each other in {out}; rename one"
            )
        plan[photo.stem] = photo
    if out.exists() and not out.is_dir():
        raise NotADirectoryError(f"--out={out} is a file; name a folder")
    for path in [path for name in plan for path in _results(out, name)] + [out / album.FILE] * page:
        if (path.exists() or path.is_symlink()) and not _is_ours(path):
            raise ValueError(f"{path} is there and was not written by {MADE_BY}; move it, or name another --out")
    return plan


def _results(out: Path, name: str) -> tuple[Path, Path]:
    return out / f"{name}.png", out / f"{name}_overlay.jpg"


def _is_ours(path: Path) -> bool:
    if path.suffix == ".html":
        return album.is_by(path, MADE_BY)
    try:
        with Image.open(path) as image:
            return MADE_BY in (image.info.get("Software"), _text(image.info.get("comment")))
    except (OSError, ValueError, Image.DecompressionBombError):
        return False


def _text(comment: Any) -> Any:
    """A JPEG's comment is bytes, a PNG's text."""
    return comment.decode("latin-1") if isinstance(comment, bytes) else comment


def predict(trained: Segmenter, plan: dict[str, Path], out: Path) -> tuple[list[str], list[album.Entry]]:
    """Writes ``NAME.png``, class indices at the photo's own size, and ``NAME_overlay.jpg`` for each photo.

    Args:
        trained: the network.
        plan: see `writable`.
        out: a folder, made when absent.

    Returns:
        The names of the photos that could not be read, each told of on stderr, and what a page shows of the others; of
        those before a signal, if one came.

    Raises:
        ValueError: no photo could be read.
        OSError: a result cannot be written.
    """
    failed: list[str] = []
    shown: dict[str, album.Entry] = {}

    def records() -> Iterator[dict]:
        for name, path in plan.items():
            if stop.requested():
                return
            try:
                photo = decode_image(read_bytes(str(path)), str(path))
            except ValueError as error:
                failed.append(name)
                print(f"ssenet: {str(error).rpartition('; ')[0] or error}", file=sys.stderr)
                continue
            yield {**trained.record_of(photo), "id": name, "overlay": shrink(photo, OVERLAY)}

    def finish(record: Mapping, labels: np.ndarray) -> None:
        mask, overlay = _results(out, record["id"])
        with replacing(mask) as temporary:
            indexed(labels).save(temporary, "png", pnginfo=_software())
        picture = pictures.overlay_labels(record["overlay"], labels)
        encoded = io.BytesIO()  # Pillow's JPEG writer does not notice a full disk
        Image.fromarray(picture).save(encoded, "jpeg", quality=90, comment=MADE_BY)
        with replacing(overlay) as temporary:
            temporary.write_bytes(encoded.getvalue())
        shown[record["id"]] = album.entry(record["id"], record["overlay"], picture, labels)

    trained.segment(records(), finish, batch_size=len(plan))
    if len(failed) == len(plan):
        raise ValueError(f"none of the {len(plan)} photos could be read; nothing was written")
    return failed, [shown[name] for name in plan if name in shown]


def _software() -> PngInfo:
    info = PngInfo()
    info.add_text("Software", MADE_BY)
    return info
