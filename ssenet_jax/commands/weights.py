"""``ssenet import-weights``: a weight file as a checkpoint that ``init.weights`` may name."""

import argparse
from pathlib import Path

from ssenet_jax.commands.configs import refuse_words
from ssenet_jax.pretrained.convert import import_weights

HELP = """\
Reads and checks a weight file (.params of MXNet, .pth or .pt of PyTorch, .npz; or the name efficientnet_lite0 for the
packaged one) and writes a checkpoint, which --config.init.weights=DIR then names.
  ssenet import-weights ilsvrc-cls_rna-a1_cls1000_ep-0001.params --model=cam --allow_missing=fc8 --out=weights/resnet38
cam, affinity and segmenter are the networks on ResNet-38, cam and segmenter with as many classes as the file's fc8 has.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", help="the weight file")
    parser.add_argument("--model", required=True, help="cam, affinity, segmenter or efficientnet_lite0")
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="folder of the checkpoint; must be new")
    parser.add_argument("--allow_missing", default="", metavar="NAMES", help="modules that FILE may lack: fc8,...")


def run(options: argparse.Namespace, words: list[str]) -> int:
    refuse_words(words)
    modules = tuple(name for name in options.allow_missing.split(",") if name)
    written = import_weights(options.file, options.model, options.out, allow_missing=modules)
    print(f"{options.out}: {written} arrays")
    return 0
