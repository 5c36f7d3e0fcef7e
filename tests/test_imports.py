"""Who may import whom: the pure modules stay light, the models run without a data pipeline, data flows one way."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import ssenet_jax

PACKAGE = Path(ssenet_jax.__file__).parent
HEAVY = ("flax", "optax", "orbax", "grain", "tensorflow_datasets", "array_record", "ml_collections", "matplotlib")
PIPELINE = ("grain", "tensorflow_datasets", "array_record")

# From the data to the command, as in the README's map.
FLOW = """
messages
cores
huge_pages
processes
config
palette
cache
arrays
artifacts
bounds
datasets
sampling
equivariance
bicubic
cam
contrast
losses
ser
seam
crf
affinity
random_walk
metrics
models
training.optim
training.quiet
training.stop
training.hosts
checkpoint
pretrained
training.sharding
training.logs
training.step
training.operators
training.objectives
training.recipes
training.loop
report.charts
report.pictures
report.templates
report.gallery
report.page
report.album
stages.seeds
stages.manifest
stages.batching
stages.inference
stages.propagation
stages.context
stages.facts
stages.train
stages.apply
stages.reviewed
stages.labels
stages.score
stages.measure
stages.table
stages.doubt
stages.final
stages.links
stages.runner
segmenter
export
stages.label_search
experiments.experiment
experiments
commands.configs
commands.chips
commands.compiling
commands.steps
commands.programs
commands.paper
commands.plan
commands.verify
commands.weights
commands.predict
commands.export
commands.run
commands.review.album
commands.review.ledger
commands.review.server
commands.review
commands.tune
commands.experiment
main
__main__
""".split()


def imported_by(statement: str) -> set[str]:
    """The top-level modules that are loaded after a statement, in a fresh interpreter."""
    code = f"import sys; {statement}; print(*{{name.partition('.')[0] for name in sys.modules}})"
    return set(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split())


def test_a_loss_brings_in_neither_network_nor_data_libraries():
    loaded = imported_by(
        "import ssenet_jax.losses, ssenet_jax.ser, ssenet_jax.seam, ssenet_jax.cam, ssenet_jax.random_walk, "
        "ssenet_jax.metrics"
    )
    assert "jax" in loaded
    assert not loaded & set(HEAVY)


def test_the_crf_of_a_worker_process_does_not_load_jax():
    assert "jaxlib" not in imported_by("import ssenet_jax.stages.seeds")


def test_models_and_train_step_bring_in_no_data_libraries():
    statement = "import ssenet_jax.models, ssenet_jax.pretrained, ssenet_jax.training.step"
    assert not imported_by(statement) & set(PIPELINE)


@pytest.mark.parametrize("name", ssenet_jax.__all__)
def test_every_public_name_is_there(name):
    assert getattr(ssenet_jax, name) is not None


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="two_branch_los"):
        ssenet_jax.two_branch_los  # noqa: B018


def modules_imported(path: Path) -> set[str]:
    """The dotted modules of this package that a file imports, at whatever depth in the code."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.ImportFrom) or (node.module or "").partition(".")[0] != "ssenet_jax":
            continue
        folder = node.module.removeprefix("ssenet_jax").strip(".")
        for alias in node.names:
            module = f"{folder}.{alias.name}".strip(".")
            is_module = (PACKAGE / module.replace(".", "/")).with_suffix(".py").exists() or (
                PACKAGE / module.replace(".", "/")
            ).is_dir()
            found.add(module if is_module else folder)
    return found


def place_in_flow(module: str) -> int | None:
    """The position of a module, or of the folder that stands for it; None for what no place is given to."""
    parts = module.split(".")
    for end in range(len(parts), 0, -1):
        name = ".".join(parts[:end])
        if name in FLOW:
            return FLOW.index(name)
    return None


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_module_imports_only_from_those_before_it(path):
    own = ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")
    if own in ("__init__", *{name.partition(".")[0] for name in FLOW if "." in name}):
        return
    here = place_in_flow(own)
    assert here is not None, f"{own} has no place in the flow"
    late = [name for name in modules_imported(path) if (place_in_flow(name) or 0) > here]
    assert not late
