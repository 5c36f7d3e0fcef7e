"""The files of docs/launch: their shell and YAML parse, and their command is one that this version takes."""

import re
import shlex
import subprocess
from pathlib import Path

import pytest
import yaml

from ssenet_jax import main
from ssenet_jax.commands.configs import load_config
from ssenet_jax.training import recipes

ROOT = Path(__file__).parents[1]
LAUNCH = ROOT / "docs" / "launch"
FILES = sorted(path for path in LAUNCH.iterdir() if path.suffix in (".sh", ".sbatch", ".yaml"))
PROCESSES = {"cloud-tpu.sh": 4, "gke.sh": 1, "slurm.sbatch": 2, "skypilot.yaml": 1}
# SkyPilot's own schema asks for the whole package; these are the keys and types of its task that the file uses
SKYPILOT = {"name": str, "resources": dict, "workdir": str, "envs": dict, "file_mounts": dict, "setup": str, "run": str}


def commands_in(text):
    """The words of each `ssenet` command of a file, its continued lines joined."""
    joined = re.sub(r"\\\n\s*", "", text)
    return [shlex.split(found) for found in re.findall(r"ssenet ((?:run|plan) [^\"\n`]*)", joined)]


def config_of(words):
    options, overrides = main._parser(words).parse_known_args(words)
    return load_config(str(ROOT / options.config), overrides)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_the_command_of_a_file_is_taken_and_its_batches_can_be_shared(path):
    (words,) = commands_in(path.read_text())
    config = config_of(words)
    assert config.data.root and config.init.weights and config.data.sbd_root
    for training in recipes.TRAININGS:
        assert recipes.section(config, training).batch_size % PROCESSES[path.name] == 0, training


@pytest.mark.parametrize("path", sorted(LAUNCH.glob("*.md")), ids=lambda path: path.name)
def test_the_plan_that_a_page_names_is_taken(path):
    (words,) = commands_in(path.read_text())
    assert words[0] == "plan" and config_of(words).model.backbone == "resnet38"


@pytest.mark.parametrize("path", [path for path in FILES if path.suffix != ".yaml"], ids=lambda path: path.name)
def test_bash_reads_a_script(path):
    subprocess.run(["bash", "-n", str(path)], check=True)


def test_the_task_of_skypilot_has_keys_of_the_right_types():
    task = yaml.safe_load((LAUNCH / "skypilot.yaml").read_text())
    assert {key: type(value) for key, value in task.items()} == SKYPILOT
    assert task["file_mounts"]["/shared"]["mode"] == "MOUNT"
