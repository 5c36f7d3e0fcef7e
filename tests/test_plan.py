"""Plans: what they say of a training, the chips and topologies they refuse, and how compiler output is read."""

import importlib.util
import math
from pathlib import Path

import pytest

from ssenet_jax.commands import chips, compiling, paper, plan, steps
from ssenet_jax.commands.configs import load_config
from ssenet_jax.main import main

CONFIGS = Path(__file__).parents[1] / "configs"
TINY = f"--config={CONFIGS}/scenes.py:tiny"
PROGRAM = """
  %a = f32[8,4]{1,0:T(8,128)} all-reduce(%x), replica_groups={}, metadata={op_name="all-reduce"}
  %b = (f32[8]{0}, bf16[2,2]{1,0:T(2,128)(2,1)}) all-reduce-start(%y), channel_id=1
  %c = (f32[8]{0}, bf16[2,2]{1,0:T(2,128)(2,1)}) all-reduce-done(%b)
  %d = (f32[2]{0}, f32[16]{0}) all-gather-start(%z)
  ROOT %e = f32[16]{0} all-gather-done(%d)
  %f = f32[] fusion(%a), calls=%all-reduce.1
"""


def test_collectives_count_once_with_what_they_give():
    assert compiling.collective_bytes(PROGRAM) == 8 * 4 * 4 + (8 * 4 + 4 * 2) + 16 * 4


@pytest.mark.parametrize(
    "message",
    [
        "RESOURCE_EXHAUSTED: Ran out of memory in memory space hbm. Used 20.50G of 15.75G hbm. Exceeded",
        "RESOURCE_EXHAUSTED: the total memory required for HLO temporaries (20.50G) exceeds available HBM (15.75G).",
    ],
)
def test_a_refusal_of_the_compiler_says_what_it_needs(message):
    assert compiling.bytes_asked_for(message) == int(20.5 * 2**30)


def test_a_refusal_without_a_figure_is_one_line():
    with pytest.raises(ValueError, match="does not say how much"):
        compiling.bytes_asked_for("RESOURCE_EXHAUSTED: no")


class Pretended:
    """A step whose memory is 2 GiB and one more for each row of a device."""

    def __init__(self, batch_size, memory, accumulate=1):
        chip = chips.Chip(1e12, memory * chips.GIB, 1e12)
        self.devices = chips.Devices("v5e:2x2", 4, chip, None, compiles=True)
        self.recipe = type("Recipe", (), {"batch_size": batch_size, "accumulate": accumulate})
        self.tried = []

    def state_bytes(self):
        return chips.GIB

    def compile(self, batch_size):
        self.tried.append(batch_size)
        peak = (2 + batch_size // (4 * self.recipe.accumulate)) * chips.GIB
        return compiling.Cost(peak <= self.devices.each.memory, peak, math.nan, 0)


@pytest.mark.parametrize(
    ("batch_size", "memory", "accumulate", "largest"),
    [(16, 16, 1, 56), (128, 16, 1, 56), (16, 2, 1, 0), (16, 16, 2, 112)],
)
def test_the_largest_batch_is_found_in_a_few_tries(batch_size, memory, accumulate, largest):
    step = Pretended(batch_size, memory, accumulate)
    assert steps.largest_batch(step, step.compile(batch_size)) == largest
    assert len(step.tried) <= 4


def test_the_search_ends_soon_where_the_compiler_saves_memory_near_the_limit():
    class Saving(Pretended):
        def compile(self, batch_size):
            self.tried.append(batch_size)
            rows = batch_size // 4
            gib = 1 + 0.5 * rows if rows <= 24 else 13 + 0.1 * (rows - 24)
            return compiling.Cost(gib <= 14.9, int(gib * chips.GIB), math.nan, 0)

    step = Saving(16, 16)
    assert 4 * 43 * 7 / 8 <= steps.largest_batch(step, step.compile(16)) <= 4 * 43
    assert len(step.tried) <= 6


def test_cuda_is_planned_without_a_compiler():
    config = load_config(f"{CONFIGS}/scenes.py:tiny", [])
    one, eight = (plan.plan(config, topology, "segmenter") for topology in ("cuda", "cuda:a100x8"))
    assert one.parameters == eight.parameters > 1000 and one.steps == 4
    assert one.cost.flops == pytest.approx(8 * eight.cost.flops)
    assert math.isnan(one.cost.peak) and one.cost.collectives == 0 < eight.cost.collectives <= 4 * eight.parameters
    lines = plan.table(eight)
    assert "8 devices (cuda:a100x8)" in lines and "known after compiling there" in lines


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--topology=v99:2x2"], "there is no chip 'v99' to plan for; TPUs: v3, v4"),
        (
            ["--topology=cuda:h100x0"],
            "'cuda:h100x0'; behind the x stands how many chips, as in cuda:h100x8",
        ),
        (["--topology=cuda:h100xtwo"], "behind the x stands how many chips"),
        (["--topology=cuda:k80"], "there is no chip 'k80' to plan for"),
        (["--topology=cuda", "--training=network"], "there is no training 'network'; the trainings are baseline"),
    ],
)
def test_what_cannot_be_planned_is_one_line(capsys, arguments, message):
    assert main(["plan", TINY, *arguments]) == 2
    assert message in capsys.readouterr().err


def test_without_libtpu_a_plan_says_what_to_install(capsys, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert main(["plan", TINY, "--topology=v5e:2x2"]) == 2
    assert "pip install 'ssenet_jax[plan]'" in capsys.readouterr().err


def test_a_plan_of_every_stage_is_answered_from_what_was_kept(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    config = load_config(f"{CONFIGS}/scenes.py:tiny", ["--config.stages=('infer_cams',)", "--config.baseline=False"])
    first = paper.plan_all(config, chips.devices_of("cuda:h100x4"))
    assert [(row.stage, row.images, row.calls) for row in first] == [
        ("Baseline classifier", 32, 8),
        ("Classifier", 32, 8),
        ("CAM", 16, 8),
    ]
    assert all(row.cost.flops > 0 and row.hours > 0 for row in first)

    def refuse(*arguments, **options):
        raise AssertionError("made anew")

    monkeypatch.setattr(paper, "cost_of", refuse)
    monkeypatch.setattr(steps.Step, "compile", refuse)
    again = paper.plan_all(config, chips.devices_of("cuda:h100x4"))
    assert repr(again) == repr(first)  # unknown figures are nan, which equals nothing
    lines = paper.table(first).splitlines()
    assert lines[2].startswith("| Baseline classifier | step, batch 8 | not compiled |") and lines[-1].startswith(
        "| all |"
    )


def test_what_takes_longer_counts():
    chip, gib = chips.Chip(100.0, 1, 10.0, 0.5), chips.GIB
    assert compiling.Cost(True, gib, 40.0, 0, 2.0).seconds(chip, "bfloat16") == pytest.approx(1.0)
    assert compiling.Cost(True, gib, 40.0, 0, 2.0).seconds(chip, "float32") == pytest.approx(2.0)
    assert compiling.Cost(True, gib, 40.0, 0, 12.0).seconds(chip, "bfloat16") == pytest.approx(3.0)
    assert math.isnan(compiling.Cost(False, gib, math.nan, 0).seconds(chip, "bfloat16"))
