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
FLOW = (
    "config artifacts datasets colour augment input models equivariance cam losses ser crf "
    "affinity random_walk metrics optim sharding hosts checkpoint pretrained logs train_step objectives recipes "
    "train pictures charts seeds inference evaluation report context training_stages inference_stages "
    "final_stages stages predict verify chips plan main __main__"
).split()


def imported_by(statement: str) -> set[str]:
    """The top-level modules that are loaded after a statement, in a fresh interpreter."""
    code = f"import sys; {statement}; print(*{{name.partition('.')[0] for name in sys.modules}})"
    return set(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split())


def test_a_loss_brings_in_neither_network_nor_data_libraries():
    loaded = imported_by(
        "import ssenet_jax.losses, ssenet_jax.ser, ssenet_jax.cam, ssenet_jax.random_walk, ssenet_jax.metrics"
    )
    assert "jax" in loaded
    assert not loaded & set(HEAVY)


def test_the_crf_of_a_worker_process_does_not_load_jax():
    assert "jaxlib" not in imported_by("import ssenet_jax.crf")


def test_models_and_train_step_bring_in_no_data_libraries():
    statement = "import ssenet_jax.models, ssenet_jax.pretrained, ssenet_jax.optim, ssenet_jax.train_step"
    assert not imported_by(statement) & set(PIPELINE)


@pytest.mark.parametrize("name", ssenet_jax.__all__)
def test_every_public_name_is_there(name):
    assert getattr(ssenet_jax, name) is not None


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="two_branch_los"):
        ssenet_jax.two_branch_los  # noqa: B018


def modules_imported(path: Path) -> set[str]:
    """The modules of this package that a file imports, at whatever depth in the code."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module == "ssenet_jax":
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("ssenet_jax."):
            found.add(node.module.split(".")[1])
    return found


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_module_imports_only_from_those_before_it(path):
    own = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    if own == "__init__":
        return
    later = set(FLOW[FLOW.index(own) + 1 :])
    assert not modules_imported(path) & later
