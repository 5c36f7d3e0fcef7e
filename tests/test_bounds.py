"""Values of a config that cannot work are refused when a run starts, by key and with what they may be."""

from pathlib import Path

import pytest

from ssenet_jax import bounds
from ssenet_jax.artifacts import flatten
from ssenet_jax.commands.configs import load_config
from ssenet_jax.config import paper_config
from ssenet_jax.main import main

SCENES = Path(__file__).parents[1] / "configs" / "scenes.py"

REFUSED = {
    "inference.bucket=0": "inference.bucket is 0; it must be at least 1 pixel",
    "inference.bucket=20": "inference.bucket is 20; it must be a multiple of the network's stride, 8",
    "inference.batch_size=-1": "0 or more",
    "classifier.log_every=0": "classifier.log_every is 0",
    "classifier.checkpoint_every=0": "at least 1",
    "classifier.keep=0": "classifier.keep is 0",
    "classifier.accumulate=0": "classifier.accumulate is 0",
    "affinity.crop=-8": "affinity.crop is -8",
    "seed=-1": "seed is -1; it must be from 0 to 4294967295",
    "cam.scales=(0.0,)": "cam.scales is (0.0,); it must be one or more numbers above 0",
    "cam.scales=()": "cam.scales is ()",
    "segment.scales=(-1.0,)": "segment.scales is (-1.0,)",
    "model.width=0.0": "model.width is 0.0; it must be above 0",
    "model.width=-1.0": "model.width is -1.0",
    "model.dropout=5.0": "model.dropout is 5.0",
    "report.examples=-1": "report.examples is -1; it must be 0 or more",
    "classifier.lr=0.0": "classifier.lr is 0.0; it must be above 0",
    "classifier.lr=nan": "classifier.lr is nan",
    "segmenter.scale=(1.5,0.5)": "segmenter.scale is (1.5, 0.5); it must be two numbers above 0, the smaller first",
    "classifier.long_edge=(0,40)": "classifier.long_edge is (0, 40)",
    "data.workers=-1": "data.workers is -1; it must be 0 or more",
    "crf.srgb=0.0": "crf.srgb is 0.0",
    "crf.backend=cuda": "auto, jax or pydensecrf",
    "affinity.radius=1": "at least 2 cells",
    "affinity.stride=3": "1, 2, 4 or 8 pixels",
    "affinity.crop=44": "affinity.crop is 44; it must be a multiple of affinity.stride, 8",
    "affinity.groups=(('conv9/.*',1.0,1.0),('.*',1.0,1.0))": "matches none; the nearest are",
    "affinity.init=imagenet": "weights or classifier",
    "random_walk.steps=-1": "random_walk.steps is -1",
    "random_walk.method=fast": "auto, stencil, chebyshev or dense",
    "labels.background=black": "constant or power",
    "labels.unreviewed=masks": "labels.unreviewed is 'masks'; it must be walk or cam",
    "labels.source=walks": "labels.source is 'walks'; it must be one of walk",
    "labels.source=masks": "labels.crf needs scores, which labels.source='masks' has not; set it False",
    "evaluate.alphas=()": "evaluate.alphas is ()",
    "ser.eta=-1.0": "ser.eta is -1.0; it must be 0 or more",
    "ser.draw=both": "ser.draw is 'both'; it must be one or all",
    "ser.operators=('resise',)": "resise",
    "ser.rate=0.01": "use a larger rate",
    "affinity.border=reference": "needs a grid of at least 5 x 9 cells",
    "ser.classes=some": "all or present",
    "ser.quarter_turns=1.5": "ser.quarter_turns is 1.5; it must be a whole number, or a range",
    "ser.quarter_turns=(3,0)": "ser.quarter_turns is (3, 0)",
    "ser.matrix=(1,2)": "ser.matrix is (1, 2); it must be two rows of three numbers",
    "ser.matrix=((1,0,0),(0,1,))": "it must be two rows of three numbers",
    "ser.rate=half": "ser.rate is 'half'; it must be a number above 0, or a range",
    "classifier.regulariser=l2": "classifier.regulariser is 'l2'; it must be one of none, ser",
    "classifier.steps=0": "classifier.epochs and classifier.steps are both 0",
    "mesh.data=-1": "mesh.data is -1",
    "data.scenes.num_train=0": "data.scenes.num_train is 0",
    "model.frozen=default": "random weights with layers frozen: set init.weights",
    "stages=('label','lable')": "config.stages names 'lable'",
}


@pytest.mark.parametrize("change", REFUSED)
def test_a_value_that_cannot_work_is_refused_before_anything_is_computed(tmp_path, capsys, change):
    run = ["run", f"--config={SCENES}:tiny", f"--workdir={tmp_path}", "--config.classifier.epochs=0"]
    assert main([*run, f"--config.{change}"]) == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith("ssenet: ") and error.count("\n") == 0 and REFUSED[change] in error
    assert not (tmp_path / "checkpoints").exists()


def test_all_that_is_wrong_is_said_at_once():
    config = paper_config()
    config.affinity.keep, config.segment.scales = 0, ()
    with pytest.raises(ValueError, match=r"affinity.keep is 0.*; segment.scales is \(\)"):
        bounds.check(config)


def test_what_is_published_passes_and_every_rule_is_about_a_key():
    bounds.check(paper_config())
    keys = flatten(paper_config())
    for rule in bounds.RULES:
        assert any(bounds.re.fullmatch(rule.keys, key) for key in keys), rule.keys


CONFIG_FILES = {
    "markdown.md": ("# Not a config\nIt is `text`.\n", "invalid syntax"),
    "dict.py": ("def get_config():\n    return {'a': 1}\n", "expected a ConfigDict"),
    "empty.py": ("", "get_config"),
    "raises.py": ("def get_config():\n    raise RuntimeError('no\\nluck')\n", "luck"),
    "takes_none.py": (
        "from ssenet_jax.config import paper_config as get\ndef get_config():\n    return get()\n",
        "argument",
    ),
}


@pytest.mark.parametrize("name", CONFIG_FILES)
def test_a_file_that_is_no_config_is_one_line(tmp_path, name):
    content, message = CONFIG_FILES[name]
    (tmp_path / name).write_text(content)
    argument = ":x" if name == "takes_none.py" else ""
    with pytest.raises(ValueError, match=message) as error:
        load_config(f"{tmp_path / name}{argument}", [])
    assert name in str(error.value) and "Traceback" not in str(error.value)
