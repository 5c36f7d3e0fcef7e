"""The dense CRF in jax against pydensecrf in one process, at METHOD's settings.

    SSENET_DATA=../shared python benchmarks/crf.py [--photos=3] [--repeats=5]

Photos are of VOC, of their own size; "scene" is a drawn one of 375 x 500. Scores are smooth random maps that sum to 1.
Compilation is not counted; making the lattices is. Not counted either is what a batch would save.
"""

import argparse

import numpy as np
from PIL import Image
from timing import in_turn, photos, ratios, report, spread

from ssenet_jax.crf import dense_crf
from ssenet_jax.datasets.scenes import draw_scene


def smooth_scores(h: int, w: int, k: int) -> np.ndarray:
    rng = np.random.default_rng(k)
    maps = [Image.fromarray(rng.random((6, 8), np.float32)).resize((w, h), Image.Resampling.BICUBIC) for _ in range(k)]
    scores = np.stack([np.asarray(one) for one in maps], axis=-1).clip(1e-3)
    return scores / scores.sum(-1, keepdims=True)


def measure(name: str, image: np.ndarray, k: int, repeats: int) -> dict:
    scores = smooth_scores(*image.shape[:2], k)
    ways = {backend: lambda b=backend: dense_crf(image, scores, backend=b) for backend in ("pydensecrf", "jax")}
    seconds = in_turn(ways, repeats)
    theirs, ours = (ways[backend]() for backend in ("pydensecrf", "jax"))
    return {
        "image": f"{name} {image.shape[0]} x {image.shape[1]}",
        "labels": k,
        "same argmax": f"{(ours.argmax(-1) == theirs.argmax(-1)).mean():.5f}",
        "mean difference": f"{np.abs(ours - theirs).mean():.1e}",
        "pydensecrf, s": spread(seconds["pydensecrf"]),
        "jax, s": spread(seconds["jax"]),
        "jax's time / pydensecrf's": spread([1 / ratio for ratio in ratios(seconds, "jax", "pydensecrf")]),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    scene = draw_scene(np.random.default_rng(0), 500)[0][:375]
    images = [("photo", image) for image in photos("val", arguments.photos)] + [("scene", np.ascontiguousarray(scene))]
    rows = [measure(name, image, k, arguments.repeats) for name, image in images for k in (3, 21)]
    report("crf", rows, f"10 iterations, {arguments.repeats} rounds in turn; median (range).")


if __name__ == "__main__":
    main()
