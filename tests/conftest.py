"""What every test runs under: 8 host devices, no silent promotion or broadcasting, shapes checked at call time."""

import atexit
import contextlib
import os
import resource
import shutil
import tempfile
import tracemalloc
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
# A cache of this process's own; programs are compiled once for its tests and for the commands that they start.
_cache = tempfile.mkdtemp(prefix="ssenet_jax_tests_")
atexit.register(shutil.rmtree, _cache, ignore_errors=True)
os.environ["XDG_CACHE_HOME"] = _cache
os.environ["JAX_COMPILATION_CACHE_DIR"] = os.path.join(_cache, "compiled")
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "true"  # they take longer than they save here; see `compiling`

from jaxtyping import install_import_hook  # noqa: E402

PURE_MODULES = (
    "sampling", "equivariance", "bicubic", "losses", "ser", "seam", "cam", "contrast", "crf", "affinity", "random_walk",
    "metrics",
)  # fmt: skip
install_import_hook([f"ssenet_jax.{module}" for module in PURE_MODULES], "beartype.beartype")
# Where numbers are compared with other code's, programs are compiled as users compile them.
OPTIMISED = {f"test_{module}" for module in (*PURE_MODULES, "crf_jax", "inference", "layers", "models_golden", "optim")}

import jax  # noqa: E402
import numpy as np  # noqa: E402
import pytest  # noqa: E402
from absl import flags  # noqa: E402
from PIL import Image  # noqa: E402

from ssenet_jax import artifacts  # noqa: E402
from ssenet_jax.config import paper_config  # noqa: E402

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")
flags.FLAGS.mark_as_parsed()


@pytest.fixture(scope="module", autouse=True)
def compiling(request):
    """XLA's optimisations for a file of tests, on or off; programs of the other kind are forgotten between the two."""
    optimised = request.module.__name__.rpartition(".")[2] in OPTIMISED
    if optimised:
        jax.clear_caches()
        jax.config.update("jax_disable_most_optimizations", False)
    yield
    if optimised:
        jax.clear_caches()
        jax.config.update("jax_disable_most_optimizations", True)


@pytest.fixture
def refused():
    """Checks that a reader refuses a file in one line that names it, in memory of the order of the file's size."""

    def check(read, path, message):
        tracemalloc.start()
        try:
            with pytest.raises(ValueError, match=message) as error:
                read(path)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert path.name in str(error.value) and str(error.value).isprintable() and len(str(error.value)) <= 400
        assert peak < 60 * path.stat().st_size + (4 << 20)

    return check


ODD_CLASS, ODD_PHOTO = "<script>alert(1)</script>", "<img src=x onerror=alert(1)>"


@pytest.fixture
def scored_run(tmp_path):
    """The config and workdir of a run as far as the walk, on three photos of 48 x 64 with one or two of two classes.

    Where there are two classes one has a score of 0.9 in the left half and the other 0.6 in the right one; the photo
    with the odd name has 0.3 everywhere, which alpha 0.2 is close to.
    """
    photos, workdir = tmp_path / "photos", tmp_path / "run"
    (photos / "images").mkdir(parents=True)
    rows = {"a": f"{ODD_CLASS};oak", "b": "oak", ODD_PHOTO: ODD_CLASS}
    rng = np.random.default_rng(0)
    for name in rows:
        pixels = rng.integers(60, 200, (6, 8, 3), np.uint8)
        Image.fromarray(pixels).resize((64, 48), Image.BICUBIC).save(photos / "images" / f"{name}.png")
    lines = "".join(f'"{name}.png","{labels}"\n' for name, labels in rows.items())
    (photos / "train.csv").write_text(f"image,labels\n{lines}")
    config = paper_config()
    config.title, config.data.name, config.data.root, config.data.eval_split = "Two trees", "folder", str(photos), ""
    config.crf.workers = 1
    left = np.repeat(np.float32([[1, 1, 1, 1, 0, 0, 0, 0]]), 6, 0)
    maps = {"a": ([0, 1], [0.9 * left, 0.6 * (1 - left)]), "b": ([1], [0.9 * left]), ODD_PHOTO: ([0], [0.3 + 0 * left])}
    for name, (classes, scores) in maps.items():
        artifacts.write_cam(workdir / f"walks/{name}.npz", artifacts.Cam(np.stack(scores, -1), np.array(classes)))
    artifacts.write_text(workdir / "config.json", config.to_json())
    return config, workdir


@pytest.fixture
def longest_file():
    """Within `with longest_file(n)` no file grows beyond so many bytes, as on a disk that is full."""

    @contextlib.contextmanager
    def limited(size):
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)

    return limited


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """The workdir of a whole run on tiny scenes."""
    from ssenet_jax.main import main

    workdir = tmp_path_factory.mktemp("tiny")
    config = Path(__file__).parents[1] / "configs" / "scenes.py"
    assert main(["run", f"--config={config}:tiny", f"--workdir={workdir}"]) == 0
    return workdir


@pytest.fixture(scope="session")
def drawn_run(tmp_path_factory):
    """The workdir of a run on three photos whose segmentation network was drawn, not trained; it takes no second."""
    folder = tmp_path_factory.mktemp("drawn")
    make_drawn_run(folder / "photos", folder / "run")
    return folder / "run"


def make_drawn_run(photos, workdir):
    from ssenet_jax import pretrained
    from ssenet_jax.checkpoint import Checkpoints
    from ssenet_jax.commands.configs import load_config
    from ssenet_jax.stages import facts, final, manifest
    from ssenet_jax.stages.context import Context

    rng = np.random.default_rng(0)
    names = {"a": (24, 31), "b": (32, 20), "c": (17, 29)}
    (photos / "images").mkdir(parents=True)
    for name, size in names.items():
        Image.fromarray(rng.integers(0, 256, (*size, 3), np.uint8)).save(photos / "images" / f"{name}.png")
    (photos / "train.csv").write_text("image,labels\na.png,cat\nb.png,cat;dog\nc.png,dog\n")
    settings = {"name": "folder", "root": photos, "train_split": "train", "eval_split": "", "max_side": 32}
    words = [f"--config.data.{key}={value}" for key, value in settings.items()]
    config = load_config("scenes:tiny", [*words, "--config.segment.flip=false", "--config.segmenter.steps=1"])
    context = Context(config, workdir)
    facts.write_facts(context)

    def draw(path, leaf):
        spread = (2 / np.prod(leaf.shape[:-1])) ** 0.5 if leaf.ndim > 1 else 0.3  # so that no layer fades or grows
        positive = path[-1].key in ("scale", "var")
        values = rng.uniform(0.5, 1.5, leaf.shape) if positive else rng.normal(0, spread, leaf.shape)
        return values.astype(leaf.dtype)

    variables = jax.tree_util.tree_map_with_path(draw, dict(pretrained.shapes_of(context.network("segmenter"))))
    with Checkpoints(workdir / "checkpoints" / "segmenter", keep=1) as checkpoints:
        checkpoints.save(1, variables, {"none": np.zeros(1, np.float32)}, {})
        checkpoints.wait()
    stage = "train_segmenter"
    settings, made_from = final.settings_of(stage, config), final.made_from(stage, context)
    manifest.write_manifest(context.manifest(stage), settings, complete=True, made_from=made_from)
    for name, size in names.items():
        labels = rng.integers(0, 3, size).astype(np.uint8)
        labels[0, :2] = 255
        artifacts.write_mask(workdir / "pseudo_labels" / f"{name}.png", labels)
