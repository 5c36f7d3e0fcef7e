"""Configs: every file loads, every name in it resolves, a wrong key is an error that helps."""

import re
from pathlib import Path

import pytest

from ssenet_jax.artifacts import flatten
from ssenet_jax.commands.configs import load_config
from ssenet_jax.config import RUNTIME_KEYS, paper_config
from ssenet_jax.stages.context import Context
from ssenet_jax.stages.table import TABLE, asked_for
from ssenet_jax.training.recipes import TRAININGS, parameter_groups, section

CONFIGS = Path(__file__).parents[1] / "configs"
VARIANTS = sorted(str(path) for path in CONFIGS.glob("*.py")) + [
    f"{CONFIGS}/scenes.py:seam",
    f"{CONFIGS}/scenes.py:tiny",
    f"{CONFIGS}/voc12_lite.py:seam",
    f"{CONFIGS}/voc12_lite.py:baseline",
    f"{CONFIGS}/voc12_ssenet.py:paper",
    f"{CONFIGS}/voc12_baseline.py:paper",
]


@pytest.mark.parametrize("path", VARIANTS, ids=lambda path: Path(path).name)
def test_a_config_has_every_key_and_every_name_in_it_resolves(path, tmp_path):
    config = load_config(path, [])
    assert flatten(config).keys() == flatten(paper_config()).keys()
    assert list(asked_for(config))[-1] == list(TABLE)[-1]
    context = Context(config, tmp_path)
    assert context.backbone.output_stride in (8, 16)
    for training in TRAININGS:
        for pattern, _, _ in parameter_groups(config, section(config, training)):
            re.compile(pattern)


def test_the_paper_preset_changes_what_the_text_settles_differently():
    code, paper = flatten(paper_config("code")), flatten(paper_config("paper"))
    differing = {key: paper[key] for key in code if code[key] != paper[key]}
    assert differing == {"classifier.batch_size": 8, "ser.normalize": "none", "ser.cam_size": "feature"}
    with pytest.raises(ValueError, match="reference is 'codes'"):
        paper_config("codes")


def test_runtime_keys_name_keys_that_exist():
    known = flatten(paper_config())
    for pattern in RUNTIME_KEYS:
        assert any(re.fullmatch(pattern, key) for key in known), pattern


def test_overrides_change_values_of_any_type():
    overrides = [
        "--config.ser.rate=0.5",
        "--config.cam.flip=false",
        "--config.data.root=x",
        "--config.cam.scales=(1.0,)",
    ]
    config = load_config(f"{CONFIGS}/scenes.py", overrides)
    assert (config.ser.rate, config.cam.flip, config.data.root, config.cam.scales) == (0.5, False, "x", (1.0,))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["--config.ser.ratte=0.5"], "no key ser.ratte; the nearest is ser.rate"),
        (["--config.classifer.lr=0.5"], "the nearest is classifier.lr"),
        (["--config.ser.eta=half"], "ser.eta"),
        (["--config.ser.rate"], "has no value"),
        (["--rate=3"], "--rate=3 is not an option"),
    ],
)
def test_a_wrong_override_is_one_clear_error(overrides, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        load_config(f"{CONFIGS}/scenes.py", overrides)


def test_a_missing_or_wrong_config_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no config .*no\.py"):
        load_config(str(tmp_path / "no.py"), [])
    with pytest.raises(ValueError, match="arguments full, seam and tiny"):
        load_config(f"{CONFIGS}/scenes.py:small", [])
