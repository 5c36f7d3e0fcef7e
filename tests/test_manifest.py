"""Manifests: tied to settings and data, what differs is named, and a damaged one is one line with a remedy."""

import json
import os
from pathlib import Path

import pytest
from PIL import Image

from ssenet_jax.config import paper_config
from ssenet_jax.stages import final, manifest, runner
from ssenet_jax.stages.context import Context
from ssenet_jax.stages.manifest import MadeFrom
from ssenet_jax.stages.table import sections_of

IDENTITY = {"train": {"name": "folder", "classes": ["cat", "dog"], "lists": {"train.csv": "aa"}}}
DATA = MadeFrom(IDENTITY, {"train/a": "1", "train/b": "2"})


@pytest.fixture
def path(tmp_path):
    return tmp_path / "manifests" / "infer_cams.json"


def test_results_of_other_settings_are_refused_and_the_key_is_named(path):
    config = paper_config()
    manifest.write_manifest(path, manifest.result_settings(config, ("seed", "cam")), complete=True)
    assert manifest.check_manifest(path, manifest.result_settings(config, ("seed", "cam")), stage="infer_cams")
    config.cam.flip = False
    with pytest.raises(ValueError, match=r"infer_cams with cam\.flip=True, but the config says False"):
        manifest.check_manifest(path, manifest.result_settings(config, ("seed", "cam")), stage="infer_cams")


def test_settings_that_only_say_how_to_run_do_not_count():
    config = paper_config()
    before = manifest.result_settings(config, ("data", "crf", "classifier"))
    config.data.root, config.crf.workers, config.classifier.log_every = "/elsewhere", 3, 1
    config.data.workers = 2
    assert manifest.result_settings(config, ("data", "crf", "classifier")) == before
    config.data.train_split = "train_aug"
    changed = manifest.result_settings(config, ("data", "crf", "classifier"))
    assert manifest.settings_hash(changed) != manifest.settings_hash(before)


@pytest.mark.parametrize(
    ("made", "asked", "message"),
    [
        ({"a": 1}, {"a": 1, "ser.p": 2}, r"a version of this package without the key ser\.p \(=2\)"),
        ({"a": 1, "b": 3}, {"a": 1}, r"a version of this package with the key b \(=3\)"),
        ({"a": 1, "labels.crf": True}, {"labels.crf": False}, "labels.crf=True, but the config says False"),
        ({"a": None}, {"a": 2}, "a=None, but the config says 2"),
    ],
)
def test_a_key_that_one_side_lacks_is_not_taken_for_a_setting(path, made, asked, message):
    manifest.write_manifest(path, made, complete=True)
    with pytest.raises(ValueError, match=message):
        manifest.check_manifest(path, asked, stage="infer_cams")


BROKEN = {
    "a table of nothing": "{}",
    "null": "null",
    "a text": '"complete"',
    "a list": "[1]",
    "a number": "7",
    "cut off": '{"complete": tr',
    "empty": "",
    "nested": "[" * 5000 + "]" * 5000,
    "no settings": {"settings": ...},
    "settings a list": {"settings": []},
    "settings null": {"settings": None},
    "complete a text": {"complete": "false"},
    "complete a number": {"complete": 1},
    "no images": {"images": ...},
    "made from a text": {"made_from": "voc"},
    "an older version": {"version": 1},
    "no version": {"version": ...},
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_manifest_is_one_line_that_names_it(path, name):
    manifest.write_manifest(path, {"a": 1}, complete=True, made_from=DATA)
    broken = BROKEN[name]
    if isinstance(broken, dict):
        held = json.loads(path.read_text()) | broken
        broken = json.dumps({key: value for key, value in held.items() if value is not ...})
    path.write_text(broken)
    with pytest.raises(ValueError, match=r"infer_cams\.json .*; (delete it and run|use another --workdir)") as error:
        manifest.check_manifest(path, {"a": 1}, stage="infer_cams")
    assert "\n" not in str(error.value)


def changed(**changes):
    return MadeFrom({"train": {**IDENTITY["train"], **changes}}, DATA.images)


OTHER = {  # data as they are now -> what a training says, and what a stage with one file an image says; "" for nothing
    "the same": (DATA, "", ""),
    "a class renamed": (changed(classes=["cat", "kitten"]), "other data: train.classes was .*kitten", "train.classes"),
    "another data set": (changed(name="voc12"), "train.name was 'folder' and is 'voc12'", "train.name was"),
    "a photo added": (MadeFrom(IDENTITY, {**DATA.images, "train/c": "3"}), r"1 were added \(train/c\).*out again$", ""),
    "a photo removed": (MadeFrom(IDENTITY, {"train/a": "1"}), r"1 were removed \(train/b\).*back$", ""),
    "a photo changed": (
        MadeFrom(IDENTITY, {**DATA.images, "train/a": "9"}), r"1 changed since \(train/a\).*back$", "1 changed since"
    ),
    "many changed": (
        MadeFrom(IDENTITY, {**dict.fromkeys(DATA.images, "9"), "train/c": "3"}),
        r"2 changed since \(train/a, train/b\), 1 were added \(train/c\)",
        r"2 changed since .*back$",
    ),
    "a list in another order": (changed(lists={"train.csv": "bb"}), "lists.train.csv has changed", ""),
    "a split given masks": (
        MadeFrom({**IDENTITY, "eval": IDENTITY["train"]}, {**DATA.images, "eval/d": "4"}), r"other data: eval\.", ""
    ),
    "other weights": (MadeFrom({**IDENTITY, "weights": "ff"}, DATA.images), "weights was absent and is", "weights"),
}  # fmt: skip


@pytest.mark.parametrize("grows", [False, True])
@pytest.mark.parametrize("name", OTHER)
def test_other_data_are_refused_and_what_changed_is_named(path, name, grows):
    now, of_training, of_images = OTHER[name]
    manifest.write_manifest(path, {"a": 1}, complete=True, made_from=DATA)
    message = of_images if grows else of_training

    def check():
        return manifest.check_manifest(path, {"a": 1}, stage="infer_cams", made_from=now, grows=grows)

    if message:
        with pytest.raises(ValueError, match=message):
            check()
    else:
        assert check()


def test_a_photo_that_comes_back_as_another_one_is_refused(scored_run):
    config, workdir = scored_run
    root, workdir = Path(config.data.root), workdir.parent / "other"
    whole = (root / "train.csv").read_text()
    without_a = "".join(line for line in whole.splitlines(keepends=True) if not line.startswith('"a.png"'))
    for text in (whole, without_a):  # each a run of the stage, the second while the photo is out
        (root / "train.csv").write_text(text)
        runner._write_manifest("infer_cams", Context(config, workdir), complete=True)
    (root / "train.csv").write_text(whole)
    assert final.is_complete("infer_cams", Context(config, workdir))
    Image.new("RGB", (64, 48)).save(root / "images" / "a.png")
    with pytest.raises(ValueError, match=r"1 changed since \(train/a\)"):
        final.is_complete("infer_cams", Context(config, workdir))


def test_masks_that_are_given_later_change_nothing_but_what_is_learnt_from_them(scored_run):
    config, workdir = scored_run
    config.labels.crf = False

    def made(stage, source):
        config.labels.source = source
        context = Context(config, workdir)
        return final.settings_of(stage, config), final.made_from(stage, context)

    before = {(stage, source): made(stage, source) for stage in ("infer_cams", "label") for source in ("walk", "masks")}
    masks = Path(config.data.root) / "masks"
    masks.mkdir()
    Image.new("L", (64, 48)).save(masks / "a.png")
    config.data.folder.masks = "masks"
    differing = {key for key in before if made(*key) != before[key]}
    assert differing == {("label", "masks")}


def test_a_segmenter_that_starts_from_weights_says_so():
    config = paper_config()
    with config.unlocked():
        config.labels.source = "masks"
    found = []
    for weights, init in (("a.npz", "weights"), ("b.npz", "weights"), ("a.npz", "classifier"), ("b.npz", "classifier")):
        config.init.weights, config.segmenter.init = weights, init
        found.append(manifest.settings_hash(final.settings_of("train_segmenter", config)))
    assert len({*found}) == 4
    config.labels.source, config.segmenter.init = "masks", "weights"
    assert "init" in sections_of("segment", config)


def test_the_content_of_weights_counts_and_not_their_name(tmp_path):
    first, second = tmp_path / "a.npz", tmp_path / "b.npz"
    first.write_bytes(b"weights")
    second.write_bytes(b"weights")
    os.utime(second, (1, 1))
    (tmp_path / "folder" / "0").mkdir(parents=True)
    (tmp_path / "folder" / "0" / "x").write_bytes(b"other")
    assert manifest.content_hash(first) == manifest.content_hash(second) != manifest.content_hash(tmp_path / "folder")
