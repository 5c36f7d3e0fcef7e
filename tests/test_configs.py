"""Configs by name, from an installation as from a checkout."""

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import ssenet_jax
from ssenet_jax.commands import configs
from ssenet_jax.commands.configs import load_config
from ssenet_jax.main import main
from ssenet_jax.training import recipes

ROOT = Path(__file__).parents[1]


def test_every_package_and_the_configs_are_installed():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    folders = {ROOT / "ssenet_jax"} | {path.parent for path in (ROOT / "ssenet_jax").rglob("*.py")}
    names = {".".join(folder.relative_to(ROOT).parts) for folder in folders}
    assert set(settings["packages"]) == names | {"ssenet_jax.configs"}
    assert settings["package-dir"]["ssenet_jax.configs"] == "configs"


@pytest.mark.parametrize("name", sorted(configs.installed()))
def test_a_name_and_a_path_are_the_same_config(name):
    assert configs.load_config(name, []).to_json() == configs.load_config(f"{ROOT}/configs/{name}.py", []).to_json()


def test_a_name_takes_an_argument_and_overrides():
    config = configs.load_config("scenes:tiny", ["--config.ser.rate=0.4"])
    assert (config.title, config.ser.rate) == ("Tiny scenes", 0.4)


@pytest.mark.parametrize("name", ["scene", "configs/no.py", "", "../configs", "scenes.py"])
def test_what_is_no_config_is_one_line_that_lists_those_that_are(name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["run", f"--config={name}", "--workdir=x"]) == 2
    assert f"there is no config {name!r}; those that are installed: folder, scenes" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("word", ["--traceback", "--config=scenes"])
def test_an_option_before_the_command_is_told_where_it_belongs(word, capsys):
    assert main([word, "configs"]) == 2
    assert capsys.readouterr().err == f"ssenet: {word} stands before the command; write it after the command\n"


def test_configs_are_listed_with_their_first_lines(capsys):
    assert main(["configs"]) == 0
    listed = {line.split()[0]: line.split(maxsplit=1)[1] for line in capsys.readouterr().out.splitlines()}
    assert listed.keys() == configs.installed().keys()
    assert listed["folder"].startswith("Your own photos")


def test_the_version_is_that_of_the_package(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["--version"])
    assert (stopped.value.code, capsys.readouterr().out) == (0, f"ssenet_jax {ssenet_jax.__version__}\n")


def test_an_installation_finds_its_configs_from_any_folder(tmp_path):
    shutil.copytree(ROOT / "ssenet_jax", tmp_path / "site" / "ssenet_jax")
    shutil.copytree(ROOT / "configs", tmp_path / "site" / "ssenet_jax" / "configs")
    code = "from ssenet_jax.commands.configs import load_config; print(load_config('scenes:tiny', []).title)"
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "site")}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert done.stdout == "Tiny scenes\n", done.stderr


def test_few_photos_are_trained_on_for_more_epochs():
    config = load_config("folder", [])
    epochs, batch, fewest = (config.classifier[key] for key in ("epochs", "batch_size", "min_steps"))
    lengths = [recipes.steps_of(config, "classifier", photos) for photos in (3, 60, 16_000)]
    assert lengths == [fewest, fewest, epochs * 16_000 // batch]
    assert fewest >= recipes.settling_steps(config, "classifier")
    config.classifier.steps = 7
    assert recipes.steps_of(config, "classifier", 60) == 7
