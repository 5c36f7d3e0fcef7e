"""Processor time of a host for each photo: what inference, seeds and training input take of it, before and now.

    SSENET_DATA=../shared python benchmarks/hosts_cost.py [--photos=12] [--processes=1,2,4]

"before" is Pillow at four scales with normalised float32 batches, and numpy's own compression; it is written out here
and measured in turn with what the stages do now. The last rows are photos a second of several processes that decode,
pad and write CAMs at once: what a host with that many cores can feed.
"""

import argparse
import io
import multiprocessing
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image
from timing import DATA, report

from ssenet_jax.artifacts import Cam, write_cam
from ssenet_jax.config import paper_config
from ssenet_jax.datasets import augment
from ssenet_jax.models import BACKBONES
from ssenet_jax.stages import batching, seeds

SCALES, FACTS = (0.5, 1.0, 1.5, 2.0), BACKBONES["resnet38"]


def photo_files(count: int) -> list[Path]:
    files = sorted((DATA / "VOCdevkit" / "VOC2012" / "JPEGImages").glob("*.jpg"))
    if not files:
        raise SystemExit(f"there are no photos in {DATA}; set SSENET_DATA to the folder that holds VOCdevkit")
    return files[:: max(1, len(files) // count)][:count]


def decoded(path: Path) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(path.read_bytes())).convert("RGB"))


def smooth_maps(height: int, width: int, classes: int) -> np.ndarray:
    """Scores with the entropy of CAMs: enlarged from stride 8, half of them zero."""
    small = np.random.default_rng(0).uniform(-1, 1, (classes, height // 32 + 1, width // 32 + 1)).astype(np.float32)
    maps = [np.asarray(Image.fromarray(one).resize((width, height), Image.Resampling.BILINEAR)) for one in small]
    return np.maximum(np.stack(maps, axis=-1), 0)


def marginals(image: np.ndarray, cam: np.ndarray) -> list[np.ndarray]:
    """Of the CRF, at the published alphas."""
    return seeds.refine(image, cam, [seeds.Background("power", alpha) for alpha in (4.0, 24.0)], {})


def views_before(image: np.ndarray) -> None:
    for scale in SCALES:
        size = tuple(round(side * scale) for side in image.shape[:2])
        canvas = np.zeros((*(int(side * scale) for side in (512, 512)), 3), np.float32)
        canvas[: size[0], : size[1]] = augment.normalize(augment.resize_image(image, size), FACTS.mean, FACTS.std)


def pad_now(image: np.ndarray) -> None:
    batching.padded_images([image], batching.bucket_of(*image.shape[:2], 128), 1)


def ways(folder: Path) -> dict:
    """By what is done, before and now, a function of an example."""
    path, labels = folder / "x.npz", np.array([3, 7], np.int32)

    def cam_before(example):
        np.savez_compressed(path, cam=example["cam"].astype(np.float16), classes=labels)

    def cam_now(example):
        write_cam(path, Cam(example["half"], labels))

    def seeds_before(example):
        low, high = (maps.astype(np.float16) for maps in example["marginals"])
        np.savez_compressed(path, low=low, high=high, classes=labels)

    def seeds_now(example):
        seeds.write_seeds(path, example["marginals"], labels, None)

    return {
        "decode the photo": (lambda example: decoded(example["path"]),) * 2,
        "a photo at four scales": (lambda example: views_before(example["image"]), lambda e: pad_now(e["image"])),
        "write its CAM": (cam_before, cam_now),
        "write its seeds": (seeds_before, seeds_now),
        "training input, without decoding": (transform_before(), transform_now()),
    }


def transform_now():
    settings = paper_config().classifier
    jitter = {name: settings[name] for name in ("brightness", "contrast", "saturation", "hue")}
    made = augment.classifier_transform(
        448, long_edge=settings.long_edge, flip=True, brightness_shift=0.0, mean=FACTS.mean, std=FACTS.std, **jitter
    )
    rng = np.random.default_rng(0)
    return lambda example: made({"id": "", "image": example["image"], "labels": None}, rng)


def transform_before():
    """The whole photo resized and jittered, hue by way of hue, saturation and value, and then cut."""
    rng = np.random.default_rng(0)

    def made(example):
        image = example["image"]
        size = augment.long_edge_size(*image.shape[:2], int(rng.integers(448, 769)))
        picture = Image.fromarray(augment.resize_image(image, size))
        factors = rng.uniform(0.7, 1.3, 3)
        picture = picture.point([min(255, int(value * factors[0])) for value in range(256)] * 3)
        mean = np.asarray(picture.convert("L")).mean()
        picture = picture.point([int(np.clip(mean + factors[1] * (value - mean), 0, 255)) for value in range(256)] * 3)
        picture = Image.blend(picture.convert("L").convert("RGB"), picture, factors[2])
        hue, saturation, value = picture.convert("HSV").split()
        turned = hue.point([(step + 12) % 256 for step in range(256)])
        image = np.asarray(Image.merge("HSV", (turned, saturation, value)).convert("RGB"))
        window = augment.random_window(rng, *size, 448)
        return augment.pad(augment.normalize(augment.cut(image, window), FACTS.mean, FACTS.std), window, 0)

    return made


def milliseconds(function, example) -> float:
    start = time.thread_time()
    function(example)
    return 1e3 * (time.thread_time() - start)


def costs(files: list[Path]) -> list[dict]:
    examples = []
    for path in files:
        image = decoded(path)
        cam = smooth_maps(*image.shape[:2], 2)
        half = cam.astype(np.float16)  # as the device gives it
        examples.append({"path": path, "image": image, "cam": cam, "half": half, "marginals": marginals(image, cam)})
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for what, pair in ways(Path(folder)).items():
            for function in pair:
                function(examples[0])
            spent = [[milliseconds(function, example) for function in pair] for example in examples]
            before, now = (statistics.median(column) for column in zip(*spent, strict=True))
            rows.append({"what": what, "before, ms": f"{before:.1f}", "now, ms": f"{now:.1f}"})
    return rows


def feed(files: list[Path]) -> int:
    """One process: decodes, pads and writes a CAM for each photo."""
    with tempfile.TemporaryDirectory() as folder:
        for path in files:
            image = decoded(path)
            pad_now(image)
            write_cam(Path(folder) / "x.npz", Cam(np.zeros((*image.shape[:2], 2), np.float16), np.arange(2)))
    return len(files)


def rate(files: list[Path], processes: int) -> float:
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        pool.map(feed, [files[:1]] * processes)
        start = time.perf_counter()
        done = sum(pool.map(feed, [files] * processes))
        return done / (time.perf_counter() - start)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=int, default=12)
    parser.add_argument("--processes", default="1,2,4")
    given = parser.parse_args()
    files = photo_files(given.photos)
    rows = costs(files)
    for processes in map(int, given.processes.split(",")):
        found = f"{rate(files, processes):.0f} photos a second"
        rows.append({"what": f"feeding inference, {processes} processes", "before, ms": "", "now, ms": found})
    report("hosts_cost", rows, f"Processor time a photo, median of {len(files)} VOC photos, before and now in turn.")


if __name__ == "__main__":
    main()
