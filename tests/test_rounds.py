"""A second round of the segmentation network, and label maps that keep to what is known of a photo."""

import shutil

import numpy as np
import pytest

from ssenet_jax import segmenter
from ssenet_jax.artifacts import read_mask
from ssenet_jax.datasets.records import decode_image, read_bytes
from ssenet_jax.main import main
from ssenet_jax.stages import apply
from ssenet_jax.stages.context import Context
from ssenet_jax.stages.facts import read_config


@pytest.mark.parametrize("crf", [False, True])
def test_a_record_that_keeps_to_classes_is_given_no_other(drawn_run, crf):
    network = segmenter.of_run(drawn_run)
    photo = drawn_run.parent / "photos" / "images" / "a.png"
    record = network.record_of(decode_image(read_bytes(str(photo)), str(photo)))
    config = network.config.copy_and_resolve_references()
    config.segment.crf = crf
    found = []
    for known in ({}, {"keep_to": np.float32([1, 0])}, {"keep_to": np.float32([0, 0])}):
        records = [{**record, **known}]
        apply.segment_records(
            config, network.network, network.variables, records, lambda _, labels: found.append(labels)
        )
    free, kept, background = found
    assert 2 in free and {*np.unique(kept)} <= {0, 1} and not background.any()
    if not crf:
        allowed = network.probabilities(photo)[..., :2]
        np.testing.assert_array_equal(kept, allowed.argmax(-1))


@pytest.mark.parametrize("crf", [False, True])
def test_a_lighter_background_lets_masks_cover_more(drawn_run, crf):
    network = segmenter.of_run(drawn_run)
    photo = str(drawn_run.parent / "photos" / "images" / "a.png")
    covered = []
    for weight in (1e-4, 0.5, 1.0, 1e4):
        network.config = network.config.copy_and_resolve_references()
        network.config.segment.crf, network.config.segment.background_weight = crf, weight
        covered.append(np.mean(network(photo) > 0))
    assert covered == sorted(covered, reverse=True) and covered[0] > covered[-1]


def test_a_second_round_learns_from_the_first_networks_labels(tiny, tmp_path, capsys):
    workdir, made = tmp_path / "run", shutil.copytree(tiny, tmp_path / "made")
    command = ["run", "--config=scenes:tiny", "--config.segmenter.rounds=1"]
    assert main([*command, f"--workdir={made}"]) == 2
    assert "holds results of segment with segmenter.rounds=0, but the config says 1" in capsys.readouterr().err
    assert main([*command, f"--workdir={workdir}", f"--from={made}"]) == 0
    told = capsys.readouterr().err
    assert "train_segmenter; segment was made there under another segmenter.rounds" in told
    assert "\ntrain_segmenter: done before" in told and "\ntrain_segmenter: 4 steps" not in told
    assert "retrain_segmenter: 4 steps are too few for the loss to settle; --config.segmenter.steps=150" in told
    context = Context(read_config(workdir), workdir)
    source = context.train_source
    for record in (source[index] for index in range(len(source))):
        present = {0, *(np.flatnonzero(record["labels"]) + 1)}
        assert {*np.unique(read_mask(workdir / "relabelled" / f"{record['id']}.png"))} <= present
    (workdir / "checkpoints" / "segmenter").unlink()
    segmenter.of_run(workdir)  # the second round's, which alone is left
    assert "Labels, second round" in (workdir / "report.html").read_text()
