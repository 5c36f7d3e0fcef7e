"""The first step of every training of the published config on 1, 2, 3, 4, 6, 8 and 16 devices of a host.

    python benchmarks/device_counts.py [--training=affinity]

`voc12_ssenet.py` unedited but for a narrow width and small crops; the devices are a CPU's, forced. A row has the
largest difference of a loss from that on one device, relative where the loss is above 1; wanted: at most 1e-6.
"""

import argparse
import os
from pathlib import Path

COUNTS = (1, 2, 3, 4, 6, 8, 16)
os.environ["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={max(COUNTS)}"
os.environ["JAX_PLATFORMS"] = "cpu"

import jax  # noqa: E402
import numpy as np  # noqa: E402
from timing import report  # noqa: E402

from ssenet_jax.commands.configs import load_config  # noqa: E402
from ssenet_jax.training import recipes  # noqa: E402
from ssenet_jax.training.sharding import global_batch, make_mesh, part_for_batch, place  # noqa: E402
from ssenet_jax.training.step import create_state, make_step, state_shardings  # noqa: E402

CONFIG, CLASSES, CROP = Path(__file__).parents[1] / "configs" / "voc12_ssenet.py", 20, 32
SECTIONS = ("classifier", "affinity", "segmenter")
QUICKLY = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}


def losses(training: str) -> dict[int, tuple[int, dict]]:
    """By number of devices: how many of them were used, and the metrics of the first step."""
    changes = ["model.width=0.03125", "model.dropout=0.0", *(f"{section}.crop={CROP}" for section in SECTIONS)]
    config = load_config(str(CONFIG), [f"--config.{change}" for change in changes])
    model = recipes.network(config, training, CLASSES)
    recipe = recipes.build(config, training, model, 10582)
    given = jax.random.key(0), np.zeros((1, CROP, CROP, 3), np.float32)
    variables = jax.jit(model.init).lower(*given).compile(QUICKLY)(*given)
    batch, found = drawn(recipes.batch_shapes(config, training, CLASSES, recipe.batch_size)), {}
    for count in COUNTS:
        mesh = part_for_batch(recipe.batch_size, make_mesh(count), recipe.accumulate)
        known = [metrics for used, metrics in found.values() if used == mesh.size]
        found[count] = mesh.size, known[0] if known else first_step(recipe, variables, batch, mesh)
    return found


def drawn(shapes: dict) -> dict:
    rng = np.random.default_rng(0)
    normal = {name: rng.standard_normal(x.shape) for name, x in shapes.items() if name == "image"}
    return {name: normal.get(name, rng.integers(0, 2, x.shape)).astype(x.dtype) for name, x in shapes.items()}


def first_step(recipe, variables, batch: dict, mesh) -> dict:
    state = create_state(variables, recipe)
    step = make_step(recipe, state, mesh)
    state = place(state, state_shardings(state, mesh, shard_params=False))
    batch = global_batch(batch, recipe.batch_size, mesh)
    return jax.device_get(step.lower(state, batch).compile(QUICKLY)(state, batch)[1])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--training", choices=list(recipes.TRAININGS))
    chosen, rows = parser.parse_args().training, []
    for training in [chosen] if chosen else recipes.TRAININGS:
        found = losses(training)
        alone = found[1][1]
        for count, (used, metrics) in found.items():
            apart = max(abs(metrics[name] - value) / max(abs(value), 1) for name, value in alone.items())
            rows.append({"training": training, "devices": count, "used": used, "largest difference": f"{apart:.1e}"})
    report("device_counts", rows, f"ResNet-38 of width 1/32, {CROP} x {CROP}, float32.")


if __name__ == "__main__":
    main()
