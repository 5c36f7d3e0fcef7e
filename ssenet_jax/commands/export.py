"""``ssenet export``: what a run made, for other tools."""

import argparse
import contextlib
import re
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

from ssenet_jax import segmenter
from ssenet_jax.commands.configs import refuse_words
from ssenet_jax.datasets.devkit import CLASS_NAMES
from ssenet_jax.export import coco, cvat, labelled, labelstudio, program, voc, yolo
from ssenet_jax.stages.facts import read_config, read_facts

HELP = """\
Writes what a run made for other tools; it needs the workdir alone. The folder --out must be new or empty.
  ssenet export labels --workdir=runs/photos --format=coco --out=coco
  ssenet export model --workdir=runs/photos --out=model
"""
LABELS_HELP = """\
The label maps of a run in the format of another tool:
  voc               palette masks, a list and labelmap.txt
  coco              instances as run lengths, one a class and photo
  coco-polygons     the same as polygons
  labelstudio       tasks with brush masks as predictions, and the labelling interface
  cvat              the zip of CVAT's "Segmentation mask 1.1"
  yolo              polygons for YOLO's segmentation
  voc-test          the archive that the evaluation server of VOC 2012 takes (predictions of the split test)
"""
MODEL_HELP = """\
The trained network, to be used without the run:
  safetensors       weights.safetensors and model.json, for ssenet predict --model and ssenet_jax.load
  stablehlo         model.stablehlo, one program of a fixed size for CPU, CUDA and TPU, for jax.export
  onnx              model.onnx, one program of a fixed size
"""
FORMATS = {
    "voc": voc.write,
    "coco": coco.write,
    "coco-polygons": coco.write_polygons,
    "labelstudio": labelstudio.write,
    "cvat": cvat.write,
    "yolo": yolo.write,
    "voc-test": voc.write_results,
}
PROGRAMS = {"stablehlo": program.write_stablehlo, "onnx": program.write_onnx}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    kinds = parser.add_subparsers(required=True, metavar="WHAT", dest="what")
    plain = argparse.RawDescriptionHelpFormatter
    labels = kinds.add_parser("labels", help="label maps", description=LABELS_HELP, formatter_class=plain)
    labels.add_argument("--format", required=True, choices=FORMATS)
    labels.add_argument("--from", dest="which", choices=labelled.WHICH, help="default: pseudo_labels")
    labels.add_argument("--ignored", action="store_true", help="voc, cvat: keep 255; otherwise it becomes background")
    model = kinds.add_parser("model", help="the network", description=MODEL_HELP, formatter_class=plain)
    model.add_argument("--format", default="safetensors", choices=("safetensors", *PROGRAMS))
    model.add_argument(
        "--size", default="512x512", metavar="HxW", help="of stablehlo and onnx: of the photos, in pixels"
    )
    for command in (labels, model):
        command.add_argument("--workdir", required=True, help="the workdir of a run")
        command.add_argument("--out", required=True, help="folder, new or empty")


def run(options: argparse.Namespace, words: list[str]) -> int:
    refuse_words(words)
    for name in ("workdir", "out"):
        if not getattr(options, name):
            raise ValueError(f"--{name} is empty; name a folder")
    workdir, out = Path(options.workdir), Path(options.out)
    export = export_labels if options.what == "labels" else export_model
    print(f"{out}: {export(workdir, out, options)}")
    return 0


def export_labels(workdir: Path, out: Path, options: argparse.Namespace) -> str:
    """Writes label maps; returns what was written, in words."""
    facts, config = read_facts(workdir), read_config(workdir)
    which = options.which or ("predictions" if options.format == "voc-test" else "pseudo_labels")
    found = labelled.collect(workdir, config, facts, which, ignored=options.ignored)
    if options.format == "voc-test":
        _check_submission(found, which)
    with new_folder(out) as folder:
        FORMATS[options.format](found, folder)
    left = len(facts.splits[found.split].ids) - len(found.items)
    return f"{which} of {len(found.items)} photos of {found.split}" + (f"; {left} have none" if left else "")


def _check_submission(found: labelled.Labelled, which: str) -> None:
    if found.class_names != CLASS_NAMES:
        raise ValueError("--format=voc-test is for the 20 classes of VOC, and this run has others; take --format=voc")
    if which != "predictions" or found.split != "test" or found.ignored:
        raise ValueError(
            f"--format=voc-test takes predictions of the split test without --ignored, not {which} of {found.split}; "
            "run ssenet run with --config.data.eval_split=test"
        )


def export_model(workdir: Path, out: Path, options: argparse.Namespace) -> str:
    """Writes the network; returns what was written, in words."""
    size = parse_size(options.size)
    trained = segmenter.of_run(workdir)
    with new_folder(out) as folder:
        if options.format == "safetensors":
            segmenter.save(trained, folder)
        else:
            PROGRAMS[options.format](trained, size, folder / f"model.{options.format}")
    return f"a model of {len(trained.class_names)} classes"


def parse_size(text: str) -> tuple[int, int]:
    """A height and a width, each of 32 to 8192 pixels.

    Raises:
        ValueError: it is none.
    """
    match = re.fullmatch(r"(\d{2,4})x(\d{2,4})", text)
    height, width = map(int, match.groups()) if match else (0, 0)
    if not all(32 <= side <= 8192 for side in (height, width)):
        raise ValueError(f"--size={text} is no height and width of 32 to 8192 pixels; one is 512x512")
    return height, width


@contextlib.contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """A folder beside ``out`` that becomes it when the block ends without an error.

    Raises:
        FileExistsError: ``out`` is a file, a link, a mount point, or a folder that is not empty.
    """
    if out.is_symlink() or (out.exists() and not out.is_dir()) or (out.is_dir() and any(out.iterdir())):
        raise FileExistsError(f"--out={out} is there and not an empty folder; name a new one")
    if out.is_mount():
        raise FileExistsError(f"--out={out} is where a disk is mounted; name a new folder in it")
    out = out.absolute()
    work = out.with_name(f".{uuid.uuid4().hex}.ssenet-part")
    work.mkdir(parents=True)
    try:
        yield work
        if out.exists():
            out.rmdir()
        work.rename(out)
    finally:
        shutil.rmtree(work, ignore_errors=True)
