"""What a GPU is to show, in ten minutes: right results first, then times, a profile, and the hours of VOC 2012.

    python benchmarks/gpu.py [--minutes=10] [--tiny]

Needs jax, flax, optax, numpy, pillow and safetensors, and for PyTorch's rows torch; none of the package's data
libraries. `--tiny` runs all of it at sizes that mean nothing, on a CPU too. What the time does not reach is left out
and said.
"""

import argparse
import functools
import gzip
import importlib.util
import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

try:
    import jaxtyping  # noqa: F401
except ModuleNotFoundError:  # it is for annotations only: a bare machine does without
    names = ("Array", "Bool", "Float", "Float32", "Int", "Integer", "Num", "Shaped", "UInt8")
    stand_in = ModuleType("jaxtyping")
    stand_in.__dict__.update({name: type(name, (), {"__class_getitem__": lambda *given: Any}) for name in names})
    sys.modules["jaxtyping"] = stand_in

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
from gpu_checks import CRF, checks  # noqa: E402
from timing import in_turn, report, spread  # noqa: E402

from ssenet_jax.crf import jax_backend  # noqa: E402
from ssenet_jax.models import AffinityNet, CamNet, DeepLab, default_frozen  # noqa: E402
from ssenet_jax.random_walk import random_walk, transition  # noqa: E402
from ssenet_jax.stages import batching, inference, propagation  # noqa: E402
from ssenet_jax.training import objectives, operators  # noqa: E402
from ssenet_jax.training.sharding import make_mesh  # noqa: E402
from ssenet_jax.training.step import Losses, Recipe, create_state, make_step, state_shardings  # noqa: E402

IMAGES, VAL_IMAGES = 10_582, 1_449
CAM, WALK, DEEP_LAB = "CAM, scales and mirror images", "features and walk", "DeepLab, scales and mirror images"
BATCH = 4  # images of an inference call
EPOCHS, AFFINITY_EPOCHS, SEGMENTER_STEPS, SEGMENTER_BATCH = 15, 8, 20_000, 10


class Setting(NamedTuple):
    width: float
    crop: int
    batches: tuple[int, ...]
    photo: tuple[int, int]
    cam_scales: tuple[float, ...]
    segment_scales: tuple[float, ...]
    walk_steps: int
    repeats: int


FULL = Setting(1.0, 448, (16,), (375, 500), (0.5, 1.0, 1.5, 2.0), (0.5, 0.75, 1.0, 1.25, 1.5, 1.75), 256, 5)
TINY = Setting(1 / 32, 32, (2,), (30, 40), (1.0,), (1.0,), 4, 1)


class Case(NamedTuple):
    """Something to time: what it is, images of a call, and what builds the call."""

    what: str
    batch: int
    build: Callable[[], Callable]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--tiny", action="store_true")
    given = parser.parse_args()
    setting, end = TINY if given.tiny else FULL, time.monotonic() + 60 * given.minutes

    def table(name: str, rows: list[dict], note: str) -> None:
        report("" if given.tiny else name, rows, note)

    checked = checks(given.tiny)
    table("gpu_checks", checked, "Against the CPU and the authors' code, relative to the largest value.")
    cases = [*training(setting), *applied(setting), *walks(setting), *torch_training(setting)]
    rows = [timed(case, setting.repeats, end) for case in cases]
    note = f"bfloat16, {setting.crop} x {setting.crop} crops, photos of {setting.photo}, {setting.repeats} rounds;"
    table("gpu", rows, f"{note} median (range).")
    table("gpu_hours", hours(rows), f"For {IMAGES} training and {VAL_IMAGES} val images on one device.")
    if time.monotonic() < end:
        table("gpu_profile", profile(setting), "Device time of a training step with SER, the largest terms.")
    if not all(row["passed"] for row in checked):
        raise SystemExit("the device's results are not those of the CPU: see the first table")


def timed(case: Case, repeats: int, end: float) -> dict:
    if time.monotonic() > end:
        return {"what": case.what, "batch": case.batch, "ms": "no time left", "images a second": ""}
    start = time.monotonic()
    seconds = in_turn({case.what: case.build()}, repeats)[case.what]
    milliseconds = spread([1e3 * value for value in seconds])
    rate = case.batch / float(np.median(seconds))
    print(f"{case.what}: {milliseconds} ms; {time.monotonic() - start:.0f} s with its compilation", flush=True)
    return {"what": case.what, "batch": case.batch, "ms": milliseconds, "images a second": f"{rate:.3g}"}


def training(setting: Setting) -> list[Case]:
    """The classifier with and without SER, AffinityNet, DeepLab."""
    asked = [(what, batch) for batch in setting.batches for what in ("step", "step with SER")]
    asked += [("AffinityNet step", setting.batches[0]), ("DeepLab step", min(SEGMENTER_BATCH, 5 * setting.batches[0]))]
    return [Case(what, batch, functools.partial(step_of, what, setting, batch)) for what, batch in asked]


def step_of(what: str, setting: Setting, batch: int):
    """A function that does one training step in bfloat16."""
    common = {"width": setting.width, "dtype": jnp.bfloat16}
    crop, rng = setting.crop, np.random.default_rng(0)
    arrays = {"image": rng.standard_normal((batch, crop, crop, 3), np.float32)}
    if what == "AffinityNet step":
        model = AffinityNet(**common)
        loss_fn = objectives.affinity(model, radius=5, border="full")
        arrays["seeds"] = rng.integers(0, 3, (batch, -(-crop // 8), -(-crop // 8))).astype(np.uint8)
    elif what == "DeepLab step":
        model = DeepLab(**common)
        loss_fn = objectives.segmenter(model)
        arrays["mask"] = rng.integers(0, 21, (batch, crop, crop)).astype(np.uint8)
    else:
        model = CamNet(**common)
        loss_fn = objectives.classifier(model) if what == "step" else _with_ser(model)
        arrays["labels"] = (rng.random((batch, 20)) < 0.1).astype(np.float32)
    return _step(model, loss_fn, arrays, batch)


def _with_ser(model):
    options = {"cam_size": "image", "normalize": "max", "classes": "all", "p": 2}
    (choice,) = operators.choices(("resize",), "one", {"rate": 0.3})
    return objectives.scale_equivariance(model, choice, objectives.eta_schedule(1.0, 1000, 0.0), options)


def _step(model, loss_fn, arrays: dict, batch: int):
    frozen = [(pattern, 0.0, 0.0) for pattern in default_frozen("resnet38")]
    groups = [*frozen, (".*bias", 2.0, 0.0), (".*", 1.0, 5e-4)]
    recipe = Recipe(Losses((loss_fn,)), groups, 1000, batch, 1, 0.01, 0.9, 5e-4, 0)
    state, mesh = create_state(variables_of(model), recipe), make_mesh(1)
    placed = jax.device_put(state, state_shardings(state, mesh, shard_params=False))  # or its first step compiles twice
    step, held = make_step(recipe, state, mesh), [placed]
    arrays = jax.device_put(arrays)

    def run():
        held[0], metrics = step(held[0], arrays)
        return metrics

    return run


def variables_of(model) -> dict:
    """Random values: nothing is compiled for them."""
    rng, shapes = np.random.default_rng(0), jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
    return jax.device_put(jax.tree.map(lambda leaf: 0.02 * rng.random(leaf.shape, np.float32), shapes))


def torch_training(setting: Setting) -> list[Case]:
    """The step without SER in PyTorch: eager and compiled, bfloat16, channels last; none where it is not installed."""
    if importlib.util.find_spec("torch") is None:
        print("torch is not installed: its rows are left out")
        return []
    return [
        Case(f"step, PyTorch {name}", batch, functools.partial(torch_step, setting, batch, name == "compiled"))
        for batch in setting.batches
        for name in ("eager", "compiled")
    ]


def torch_step(setting: Setting, batch: int, compiled: bool):
    import torch
    from torch_resnet38 import Classifier
    from torch_ways import train_step

    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = Classifier(setting.width).to(device, memory_format=torch.channels_last)
    images = torch.randn(batch, 3, setting.crop, setting.crop, device=device).to(memory_format=torch.channels_last)
    labels = torch.rand(batch, 20, device=device).round()
    step = train_step(torch.compile(model) if compiled else model)

    def run():
        with torch.autocast(device, torch.bfloat16):
            return step(images, labels)

    return run


def applied(setting: Setting) -> list[Case]:
    """CAM inference, features and walk, DeepLab with its scales, the CRF's kernels and mean field."""
    rng, common = np.random.default_rng(0), {"width": setting.width, "dtype": jnp.bfloat16}
    images = [rng.integers(0, 256, (*setting.photo, 3), np.uint8) for _ in range(BATCH)]
    canvas = batching.bucket_of(*setting.photo, 128)
    photos = batching.padded_images(images, canvas, BATCH)
    slots = batching.class_slots([np.ones(2)] * BATCH, BATCH)
    cams = rng.random((BATCH, *canvas, slots[0].shape[1]), np.float32).astype(np.float16)

    def network(model, build, *arguments):
        return lambda: functools.partial(build(model), *jax.device_put((variables_of(model), *arguments)))

    walk = {"flow": {"radius": 5, "beta": 8.0, "border": "full"}, "steps": setting.walk_steps, "method": "auto"}
    cam = functools.partial(inference.cam_function, scales=setting.cam_scales, flip=True, dtype=jnp.float16)
    deep_lab = functools.partial(inference.probability_function, scales=setting.segment_scales, flip=True)
    return [
        Case(CAM, BATCH, network(CamNet(**common), cam, photos, *slots)),
        Case(WALK, BATCH, network(AffinityNet(**common), lambda model: propagation.walk_function(model, **walk), photos,
                                  cams)),
        Case(DEEP_LAB, BATCH, network(DeepLab(**common), deep_lab, photos)),
        Case("CRF, both kernels", BATCH, lambda: functools.partial(crf_kernels, jax.device_put(photos))),
        Case("CRF, mean field", BATCH, lambda: mean_field(photos, cams[..., :3])),
    ]  # fmt: skip


def crf_kernels(photos):
    widths = {name: CRF[name] for name in ("sxy_gaussian", "sxy_bilateral", "srgb")}
    return jax_backend.kernels(*photos, **widths)


def mean_field(photos, scores: np.ndarray):
    given = jnp.asarray(scores, jnp.float32), jnp.ones((BATCH, 3), bool), jnp.array([3.0, 10.0])
    return functools.partial(jax_backend.infer, crf_kernels(jax.device_put(photos)), *given, iterations=10)


def walks(setting: Setting) -> list[Case]:
    """The walk alone, with each method, on grids of stride 8 and, but for the dense one, 4."""
    cases = []
    for stride in (8, 4):
        cells = tuple(-(-side // stride) for side in setting.photo)
        for method in ("chebyshev", "stencil", "dense")[: 3 if stride == 8 else 2]:
            build = functools.partial(walk_of, cells, method, setting.walk_steps)
            cases.append(Case(f"walk, {method}, {cells[0]} x {cells[1]} cells", BATCH, build))
    return cases


def walk_of(cells: tuple[int, int], method: str, steps: int):
    rng = np.random.default_rng(0)
    features, scores = rng.random((BATCH, *cells, 64), np.float32), rng.random((BATCH, *cells, 4), np.float32)

    def one(features, scores):
        return random_walk(scores, transition(features), steps=steps, method=method)

    return functools.partial(jax.jit(jax.vmap(one)), *jax.device_put((features, scores)))


def hours(rows: list[dict]) -> list[dict]:
    """The paper's schedule at the rates that were measured."""
    rates = {}
    for measured in rows:
        if measured["images a second"]:
            rates[measured["what"]] = float(measured["images a second"])
    work = {
        "step with SER": EPOCHS * IMAGES,
        CAM: IMAGES,
        "CRF, both kernels": IMAGES,
        "CRF, mean field": 2 * IMAGES,
        "AffinityNet step": AFFINITY_EPOCHS * IMAGES,
        WALK: IMAGES,
        "DeepLab step": SEGMENTER_STEPS * SEGMENTER_BATCH,
        DEEP_LAB: VAL_IMAGES,
    }
    found = {what: count / rates[what] / 3600 for what, count in work.items() if what in rates}
    lines = [{"what": what, "images": work[what], "hours": f"{value:.3g}"} for what, value in found.items()]
    return [*lines, {"what": "all of these", "images": "", "hours": f"{sum(found.values()):.3g}"}]


def profile(setting: Setting) -> list[dict]:
    """The operations of three steps with SER by device time; host time where a trace has no device."""
    step = step_of("step with SER", setting, setting.batches[-1])
    jax.block_until_ready(step())
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            for _ in range(3):
                jax.block_until_ready(step())
        traces = sorted(Path(folder).rglob("*.trace.json.gz"))
        events = json.loads(gzip.decompress(traces[0].read_bytes()))["traceEvents"] if traces else []
    named = {event["pid"]: event["args"]["name"] for event in events if event.get("name") == "process_name"}
    devices = {pid for pid, name in named.items() if "GPU" in name or "TPU" in name} or set(named)
    spent: Counter = Counter()
    for event in events:
        if event.get("ph") == "X" and event["pid"] in devices:
            spent[event["name"].split(".")[0]] += event.get("dur", 0)
    total = sum(spent.values()) or 1
    return [
        {"operation": name[:60], "share": f"{100 * value / total:.1f} %"} for name, value in spent.most_common(12)
    ] or [{"operation": "no trace was written", "share": ""}]


if __name__ == "__main__":
    main()
