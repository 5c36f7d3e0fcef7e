"""Forward pass, training step and CAM of a photo against PyTorch eager, and what SER's second branch costs.

    python benchmarks/train_step.py [--size=224] [--batch_size=2] [--repeats=5]
    python benchmarks/train_step.py --backbone=efficientnet_lite0 --size=320 --batch_size=16

PyTorch runs with both memory formats and the better one counts; without the extra `torch` its rows are left out.
"""

import argparse
import functools
import importlib
import statistics

import jax
import jax.numpy as jnp
import numpy as np
from timing import in_turn, ratios, report, spread

from ssenet_jax.config import paper_config
from ssenet_jax.models import CamNet
from ssenet_jax.stages import batching, inference
from ssenet_jax.training import recipes
from ssenet_jax.training.sharding import make_mesh
from ssenet_jax.training.step import create_state, make_step

IN_TORCH = {"resnet38": "torch_resnet38", "efficientnet_lite0": "torch_lite0"}
SCALES, PHOTO = (0.5, 1.0, 1.5, 2.0), (375, 500)


def jax_ways(backbone: str, images: np.ndarray, labels: np.ndarray) -> dict:
    """A forward pass, a step without and one with the second branch, the CAM of a photo with two classes."""
    model = CamNet(backbone=backbone)
    variables = jax.jit(model.init)(jax.random.key(0), jnp.asarray(images[:1]))
    forward = jax.jit(lambda variables, images: model.apply(variables, images)[0])
    copy = jax.tree.map(jnp.array, variables)  # the steps donate what they are given
    photos = batching.padded_images([np.zeros((*PHOTO, 3), np.uint8)], batching.bucket_of(*PHOTO, 128), 1)
    slots = batching.class_slots([np.eye(20)[:2].sum(0)], 1)
    cam = inference.cam_function(model, scales=SCALES, flip=True)
    ways = {
        "forward": functools.partial(forward, copy, jnp.asarray(images)),
        "CAM": functools.partial(cam, copy, photos, *slots),
    }
    for training, name in (("baseline", "step"), ("classifier", "step with SER")):
        ways[name] = _step(training, model, variables, {"image": jnp.asarray(images), "labels": jnp.asarray(labels)})
    return ways


def _step(training: str, model, variables: dict, batch: dict):
    config = paper_config()
    config.model.backbone = model.backbone
    config.classifier.batch_size, config.classifier.steps = len(batch["image"]), 1000
    recipe, mesh = recipes.build(config, training, model, 1), make_mesh(devices=jax.devices()[:1])
    state = create_state(jax.tree.map(jnp.array, variables), recipe)
    step, held = make_step(recipe, state, mesh), [state]

    def run():
        held[0], metrics = step(held[0], batch)
        return metrics

    return run


def torch_ways(backbone: str, images: np.ndarray, labels: np.ndarray) -> dict:
    """The same in PyTorch, in both memory formats; empty where it is not installed."""
    try:
        import torch
        from torch_ways import cams, train_step
    except ImportError:
        return {}
    ways = {}
    for name, memory_format in (("NCHW", torch.contiguous_format), ("NHWC", torch.channels_last)):
        model = importlib.import_module(IN_TORCH[backbone]).Classifier().to(memory_format=memory_format)
        x = torch.from_numpy(images.transpose(0, 3, 1, 2).copy()).contiguous(memory_format=memory_format)
        step = train_step(model)
        ways[f"forward, PyTorch {name}"] = torch.no_grad()(lambda model=model, x=x: model.eval()(x).numpy())
        ways[f"step, PyTorch {name}"] = functools.partial(step, x, torch.from_numpy(labels))
        photo = torch.zeros((1, 3, *PHOTO)).contiguous(memory_format=memory_format)
        ways[f"CAM, PyTorch {name}"] = functools.partial(cams, model, photo, SCALES)
    return ways


def row(name: str, seconds: dict, of: str, baseline: str) -> dict:
    slower = [1 / ratio for ratio in ratios(seconds, of, baseline)]
    return {"what": name, "seconds": spread(seconds[of]), "against": baseline, "its seconds": spread(seconds[baseline]),
            "time ratio": spread(slower)}  # fmt: skip


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", choices=IN_TORCH, default="resnet38")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--batch_size", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    given = parser.parse_args()
    rng = np.random.default_rng(0)
    images = rng.standard_normal((given.batch_size, given.size, given.size, 3), np.float32)
    labels = (rng.random((given.batch_size, 20)) < 0.1).astype(np.float32)
    ways = {**jax_ways(given.backbone, images, labels), **torch_ways(given.backbone, images, labels)}
    seconds, rows = in_turn(ways, given.repeats), []
    for work in ("forward", "step", "CAM"):
        others = [name for name in ways if name.startswith(f"{work}, PyTorch")]
        if others:
            rows.append(row(work, seconds, work, min(others, key=lambda name: statistics.median(seconds[name]))))
    rows.append(row("step with SER, rate 0.3", seconds, "step with SER", "step"))
    note = (
        f"{given.backbone}, {given.size} x {given.size}, batch {given.batch_size}, float32; CAM of {PHOTO} at {SCALES};"
    )
    report(f"train_step_{given.backbone}", rows, f"{note} {given.repeats} rounds in turn; median (range).")


if __name__ == "__main__":
    main()
