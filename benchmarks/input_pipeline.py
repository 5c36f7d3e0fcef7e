"""Images a second that the input pipeline prepares: 448 crops for the classifier from VOC photos.

    SSENET_DATA=../shared python benchmarks/input_pipeline.py [--seconds=10] [--threads=2] [--workers=1,2,4]

The first rows are the processor time of one image in one thread, by step; waiting for other work is not in them. The
last are of whole batches as a training gets them, from threads and from numbers of processes (`data.workers`).
"""

import argparse
import contextlib
import tempfile
import time

import numpy as np
from absl import flags
from ml_collections import ConfigDict
from PIL import Image
from timing import DATA, report

from ssenet_jax import datasets
from ssenet_jax.config import paper_config
from ssenet_jax.datasets import augment, colour, transforms
from ssenet_jax.datasets import batches as input_pipeline
from ssenet_jax.models import BACKBONES


def milliseconds(function, items) -> float:
    """Processor time of this thread for each item."""
    start = time.thread_time()
    for item in items:
        function(item)
    return round(1e3 * (time.thread_time() - start) / len(items), 2)


def parts(source, transform, jitter: dict) -> list[dict]:
    rng = np.random.default_rng(0)
    records = [source[index] for index in range(40)]
    large = [augment.resize_image(r["image"], augment.long_edge_size(*r["image"].shape[:2], 608)) for r in records]
    pictures = [(Image.fromarray(image), Image.fromarray(r["image"])) for image, r in zip(large, records, strict=True)]
    facts, hue_only = BACKBONES["resnet38"], {**dict.fromkeys(jitter, 0.0), "hue": jitter["hue"]}
    steps = {
        "decode the photo": (lambda index: source[index], range(40)),
        "resize to 608": (lambda r: augment.resize_image(r["image"], (456, 608)), records),
        "colour jitter": (lambda pair: colour.colour_jitter(pair[0], rng, whole=pair[1], **jitter), pictures),
        "of that hue": (lambda pair: colour.colour_jitter(pair[0], rng, whole=pair[1], **hue_only), pictures),
        "normalise a crop": (lambda image: augment.normalize(image[:448, :448], facts.mean, facts.std), large),
        "the whole transform": (lambda record: transform(record, rng), records),
    }
    return [{"what": name, "figure": f"{milliseconds(*step)} ms"} for name, step in steps.items()]


def rate(source, transform, seconds: float, **how: int) -> str:
    """Images a second, by what `iterate` is told of threads and processes."""
    batches = input_pipeline.train_batches(source, transform, batch_size=8, seed=0)
    with contextlib.closing(input_pipeline.iterate(batches, 0, **how)) as iterator:
        for _ in range(3):  # what was prepared ahead
            next(iterator)
        start, images = time.perf_counter(), 0
        while time.perf_counter() - start < seconds:
            images += len(next(iterator)["image"])
        return f"{images / (time.perf_counter() - start):.1f}"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--workers", default="1,2,4")
    arguments = parser.parse_args()
    flags.FLAGS.mark_as_parsed()
    config = paper_config()
    settings, facts = config.classifier, BACKBONES["resnet38"]
    jitter = {name: settings[name] for name in ("brightness", "contrast", "saturation", "hue")}
    transform = transforms.classifier_transform(
        448, long_edge=settings.long_edge, flip=True, brightness_shift=0.0, mean=facts.mean, std=facts.std, **jitter
    )
    with tempfile.TemporaryDirectory() as cache:
        data = ConfigDict({**config.data.to_dict(), "root": str(DATA / "VOCdevkit"), "cache": cache})
        source = datasets.load(data, "train")
        rows = parts(source, transform, jitter)
        rows.append({"what": "images a second of processor time, decode and transform", "figure": _per_core(rows)})
        ways = {f"{arguments.threads} threads": {"num_threads": arguments.threads}}
        ways |= {f"data.workers={count}": {"workers": int(count)} for count in arguments.workers.split(",")}
        for name, how in ways.items():
            images = rate(source, transform, arguments.seconds, **how)
            rows.append({"what": f"images a second, {name}", "figure": images})
    report("input_pipeline", rows, "448 crops, long edge 448 to 768, all of the jitter, VOC train photos.")


def _per_core(rows: list[dict]) -> str:
    names = ("decode the photo", "the whole transform")
    return f"{1e3 / sum(float(row['figure'].split()[0]) for row in rows if row['what'] in names):.1f}"


if __name__ == "__main__":
    main()
