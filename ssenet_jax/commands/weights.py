"""``ssenet import-weights``: a weight file as a checkpoint that ``init.weights`` may name."""

import argparse
from pathlib import Path

from ssenet_jax.commands.configs import refuse_words
from ssenet_jax.models import BACKBONES, NETWORKS
from ssenet_jax.pretrained.convert import import_weights

HELP = """\
Reads and checks a weight file (.params of MXNet, .pth or .pt of PyTorch, .npz, .safetensors) and writes a
checkpoint, which --config.init.weights=DIR then names. In place of a file stands a backbone whose weights a package
brings.
  ssenet import-weights ilsvrc-cls_rna-a1_cls1000_ep-0001.params --model=cam --allow_missing=fc8 --out=weights/resnet38
  ssenet import-weights efficientnet_lite0 --model=cam --out=weights/lite0
cam, seam and segmenter get as many classes as the file's fc8 has.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", help="the weight file")
    parser.add_argument("--model", required=True, help=" or ".join(NETWORKS))
    backbones = " or ".join(BACKBONES)
    parser.add_argument("--backbone", default="", help=f"{backbones}; that of packaged weights, else resnet38")
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="folder of the checkpoint; must be new")
    parser.add_argument("--allow_missing", default="", metavar="NAMES", help="modules that FILE may lack: fc8,...")


def run(options: argparse.Namespace, words: list[str]) -> int:
    refuse_words(words)
    modules = tuple(name for name in options.allow_missing.split(",") if name)
    settings = {"backbone": options.backbone, "allow_missing": modules}
    written = import_weights(options.file, options.model, options.out, **settings)
    print(f"{options.out}: {written} arrays")
    return 0
