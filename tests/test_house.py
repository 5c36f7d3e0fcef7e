"""The house's sizes: short files, few arguments, and a stage that little but its own row knows by name."""

import ast
from pathlib import Path

import pytest

import ssenet_jax
from ssenet_jax.stages.table import TABLE

PACKAGE = Path(ssenet_jax.__file__).parent
OTHERS = [*(PACKAGE.parent / "configs").glob("*.py"), *(PACKAGE.parent / "benchmarks").glob("*.py")]
TREES = {path: ast.parse(path.read_text(encoding="utf-8")) for path in sorted(PACKAGE.rglob("*.py"))}
TREES_OF_OTHERS = {path: ast.parse(path.read_text(encoding="utf-8")) for path in sorted(OTHERS)}


def within(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def arguments(function: ast.FunctionDef | ast.AsyncFunctionDef) -> list[str]:
    given = function.args
    listed = [*given.posonlyargs, *given.args, *given.kwonlyargs, given.vararg, given.kwarg]
    return [argument.arg for argument in listed if argument is not None and argument.arg not in ("self", "cls")]


def test_a_file_has_one_subject():
    lines = {within(path): len(path.read_text(encoding="utf-8").splitlines()) for path in TREES}
    assert not {name: count for name, count in lines.items() if count > 300}


def test_a_function_of_a_stage_a_training_or_a_command_takes_few_arguments():
    functions = [
        (within(path), node)
        for path, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and within(path).startswith(("stages/", "training/", "commands/"))
    ]
    assert len(functions) > 300
    assert not [f"{name}: {node.name}" for name, node in functions if len(arguments(node)) > 7]


@pytest.mark.parametrize("stage", sorted(TABLE))
def test_few_files_name_a_stage(stage):
    known = [
        str(path)
        for path, tree in (TREES | TREES_OF_OTHERS).items()
        if any(isinstance(node, ast.Constant) and node.value == stage for node in ast.walk(tree))
    ]
    assert 1 <= len(known) <= 3, known
