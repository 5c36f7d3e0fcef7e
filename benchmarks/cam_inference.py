"""CAMs of photos of every size: padded to a few shapes, against one image at a time with each size compiled.

    SSENET_DATA=../shared python benchmarks/cam_inference.py [--images=233] [--width=0.0625] [--batch_size=1]

Both ways use four scales and the mirror image, new random weights and 20 classes of which three are present. Each way
runs once over all images, compilation included and no cache of it on disk, since that is what the comparison is about.
"""

import argparse
import time

import jax
import jax.numpy as jnp
import numpy as np
from timing import photos as read_photos
from timing import report

from ssenet_jax.datasets.augment import normalize, resize_image
from ssenet_jax.equivariance import resize_to
from ssenet_jax.models import BACKBONES, CamNet
from ssenet_jax.stages import batching, inference

SCALES, PRESENT = (0.5, 1.0, 1.5, 2.0), (2, 7, 14)


def bucketed(model, variables, images, *, batch_size: int, bucket: int):
    """CAMs (h, w, 3) by position, and the number of compilations."""
    cams, found = inference.cam_function(model, scales=SCALES, flip=True), {}

    def prepare(records, canvas, rows):
        labels = [np.isin(np.arange(20), PRESENT)] * len(records)
        photos = batching.padded_images([r["image"] for r in records], canvas, rows)
        return photos, *batching.class_slots(labels, rows)

    def finish(record, cam):
        height, width = record["image"].shape[:2]
        found[record["index"]] = cam[:height, :width, : len(PRESENT)]

    records = ({"image": image, "index": index} for index, image in enumerate(images))
    batching.run(records, prepare, cams, variables, finish, batch_size=batch_size, bucket=bucket)
    return [found[index] for index in range(len(images))], cams._cache_size()


def one_by_one(model, variables, images):
    """The same without padding, a compilation for each size of image and scale."""
    facts = BACKBONES[model.backbone]

    @jax.jit
    def view(variables, image):
        cam = model.apply(variables, jnp.concatenate([image, image[:, :, ::-1]]))[0][..., np.array(PRESENT)]
        cam = jax.nn.relu(resize_to(cam, image.shape[1:3]))
        return jnp.stack([cam[0], cam[1, :, ::-1]])

    full_size = jax.jit(lambda cam, size: resize_to(cam, size).sum(0), static_argnums=1)

    def fused(image):
        total = 0.0
        for scale in SCALES:
            size = tuple(max(1, round(side * scale)) for side in image.shape[:2])
            x = normalize(resize_image(image, size), facts.mean, facts.std)[None]
            total = total + full_size(view(variables, x), image.shape[:2])
        return np.asarray(total / (total.max((0, 1), keepdims=True) + 1e-5))

    cams = [fused(image) for image in images]
    return cams, view._cache_size() + full_size._cache_size()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=233)
    parser.add_argument("--width", type=float, default=1 / 16)
    parser.add_argument("--batch_size", type=int, default=1)
    parser.add_argument("--bucket", type=int, default=128)
    arguments = parser.parse_args()
    jax.config.update("jax_enable_compilation_cache", False)
    images = read_photos("val", arguments.images)
    model = CamNet(width=arguments.width)
    variables = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, 64, 64, 3)))
    rows, results = [], []
    settings = {"batch_size": arguments.batch_size, "bucket": arguments.bucket}
    for name, way in (
        ("one image at a time", lambda: one_by_one(model, variables, images)),
        ("padded to buckets", lambda: bucketed(model, variables, images, **settings)),
    ):
        start = time.perf_counter()
        cams, compiled = way()
        results.append(cams)
        rows.append({"way": name, "compilations": compiled, "seconds": round(time.perf_counter() - start, 1)})
    differences = [np.abs(one - two).max() for one, two in zip(*results, strict=True)]
    rows[0] |= {"times faster": 1.0, "largest CAM difference": ""}
    faster = round(rows[0]["seconds"] / rows[1]["seconds"], 2)
    rows[1] |= {"times faster": faster, "largest CAM difference": f"{max(differences):.1e}"}
    sizes = len({image.shape for image in images})
    note = f"{len(images)} val photos of {sizes} sizes, ResNet-38 of width {arguments.width}"
    report("cam_inference", rows, f"{note}, buckets of {arguments.bucket}. One run of each, compilation included.")


if __name__ == "__main__":
    main()
