"""The loop on a small network: exact resume, devices, accumulation, preemption, non-finite losses, the log."""

import gc
import json
import os
import re
import shutil
import signal
import weakref
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from ssenet_jax.checkpoint import load_variables
from ssenet_jax.commands.configs import load_config
from ssenet_jax.main import main
from ssenet_jax.stages import runner, table
from ssenet_jax.training import logs, objectives, operators
from ssenet_jax.training import loop as train
from ssenet_jax.training.sharding import global_batch, make_mesh, place
from ssenet_jax.training.step import Losses, Recipe, create_state, make_step, state_shardings, variables_of
from ssenet_jax.training.stop import listening

GROUPS = (("front/.*", 0.0, 0.0), (".*/bias", 2.0, 0.0), ("norm/.*", 1.0, 0.0), (".*", 1.0, 5e-4))
BATCH = 16


class SmallNet(nn.Module):
    """Two convolutions with a batch norm and dropout between them; the first can be frozen."""

    dropout: float = 0.5

    @nn.compact
    def __call__(self, images, train=False, sizes=None):
        x = nn.relu(nn.Conv(8, (3, 3), strides=2, name="front")(images))
        x = nn.BatchNorm(use_running_average=not train, name="norm")(x)
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        return nn.Conv(3, (1, 1), use_bias=True, name="head")(x), {}


class Batches:
    """Batch i is decided by i alone; batches listed in `broken` hold an infinity."""

    def __init__(self, broken=(), on_step=None):
        self.index, self.broken, self.on_step = 0, broken, on_step

    def __next__(self):
        rng = np.random.default_rng(self.index)
        image = rng.standard_normal((BATCH, 12, 12, 3), dtype=np.float32)
        if self.index in self.broken:
            image[3] = np.inf
        labels = (rng.random((BATCH, 3)) < 0.5).astype(np.float32)
        ids = [f"image_{self.index}_{row}" for row in range(BATCH)]
        self.index += 1
        if self.on_step is not None:
            self.on_step(self.index)
        return {"id": ids, "image": image, "labels": labels}

    def get_state(self):
        return {"next_index": self.index}

    def set_state(self, state):
        self.index = state["next_index"]


def small_recipe(dropout=0.5, steps=4, **changes):
    (choice,) = operators.choices(("resize",), "one", {"rate": 0.5})
    options = {"normalize": "max", "classes": "present", "cam_size": "image", "p": 2}
    eta_at = objectives.eta_schedule(1.0, steps, 0.5)
    loss_fn = objectives.scale_equivariance(SmallNet(dropout), choice, eta_at, options)
    defaults = {"batch_size": BATCH, "accumulate": 1, "lr": 0.1, "power": 0.9, "momentum": 0.9, "seed": 3}
    return Recipe(Losses((loss_fn,)), GROUPS, steps, **{**defaults, **changes})


@pytest.fixture(scope="module")
def variables():
    return SmallNet().init(jax.random.key(0), jnp.zeros((1, 12, 12, 3)))


@pytest.fixture(scope="module")
def mesh():
    return make_mesh(2)


def run(folder, variables, mesh, batches=None, recipe=None, **changes):
    defaults = {"checkpoint_every": 2, "keep": 3, "log_every": 1}
    records = train.Records(
        "train_small", folder / "checkpoints", folder / "log.jsonl", folder / "tb", **{**defaults, **changes}
    )
    recipe = recipe or small_recipe()
    return train.fit(recipe, dict(variables), batches or Batches(), records, mesh=mesh)


def log_of(folder):
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name != "images_per_s"} for line in lines]


def assert_same(tree, other):
    jax.tree.map(np.testing.assert_array_equal, tree, other)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, variables, mesh):
    folder = tmp_path_factory.mktemp("undisturbed")
    return folder, jax.device_get(run(folder, variables, mesh))


def test_fit_trains_and_keeps_what_is_frozen(undisturbed, variables):
    folder, trained = undisturbed
    assert_same(trained["params"]["front"], variables["params"]["front"])
    assert not np.allclose(trained["params"]["head"]["kernel"], variables["params"]["head"]["kernel"])
    assert not np.allclose(trained["batch_stats"]["norm"]["mean"], variables["batch_stats"]["norm"]["mean"])
    assert_same(load_variables(folder / "checkpoints", "train_small"), trained)
    lines = log_of(folder)
    assert [line["step"] for line in lines] == [1, 2, 3, 4]
    assert set(lines[0]) == {"step", "loss", "loss_cls", "loss_cls_s", "loss_ser", "lr"}
    assert lines[0]["lr"] == pytest.approx(0.1)


def test_a_finished_training_is_only_read(undisturbed, variables, mesh):
    folder, trained = undisturbed
    before = (folder / "log.jsonl").read_text()
    batches = Batches()
    assert_same(jax.device_get(run(folder, variables, mesh, batches)), trained)
    assert batches.index == 0 and (folder / "log.jsonl").read_text() == before


@pytest.mark.parametrize("log_every", [1, 3])
def test_preempted_and_resumed_equals_undisturbed_to_the_bit(tmp_path, undisturbed, variables, mesh, log_every):
    def stop(index):
        if index == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    handler = signal.getsignal(signal.SIGTERM)
    stopped = pytest.raises(train.Preempted, match=r"after step 2 of 4, saved in .*/2; run the same command again")
    with listening(), stopped:
        run(tmp_path, variables, mesh, Batches(on_step=stop), checkpoint_every=100, log_every=log_every)
    assert signal.getsignal(signal.SIGTERM) is handler
    # a killed run may also have written lines past its checkpoint, and half of one
    with (tmp_path / "log.jsonl").open("a") as file:
        file.write('{"step": 3, "loss": 0.0}\n{"step": 4, "lo')
    trained = jax.device_get(run(tmp_path, variables, mesh, log_every=log_every))
    assert_same(trained, undisturbed[1])
    expected = log_of(undisturbed[0])
    if log_every == 1:
        assert log_of(tmp_path) == expected
    else:
        line, last = log_of(tmp_path)
        assert line["loss"] == pytest.approx(np.mean([e["loss"] for e in expected[:3]]), rel=1e-12)
        assert last == expected[3]


@pytest.mark.parametrize("when", ["while it steps", "before its first step"])
def test_the_command_ends_a_stopped_run_with_0_and_a_line(tmp_path, monkeypatch, capsys, variables, mesh, when):
    def stop(index=None):
        os.kill(os.getpid(), signal.SIGTERM)

    def stage(context, job):
        run(tmp_path, variables, mesh, Batches(on_step=stop)) if when == "while it steps" else stop()

    row = table.TABLE["train_baseline"]
    monkeypatch.setitem(table.TABLE, "train_baseline", row._replace(run=stage))
    config = Path(__file__).parents[1] / "configs" / "scenes.py"
    assert main(["run", f"--config={config}:tiny", f"--workdir={tmp_path}", "--stages=train_baseline"]) == 0
    saved = f"train_small was stopped after step 1 of 4, saved in {tmp_path}/checkpoints/1"
    line = {"while it steps": saved, "before its first step": "the run was stopped at the end of train_baseline"}
    output = capsys.readouterr().out
    assert output.startswith(line[when]) and output.endswith("; run the same command again to go on\n")
    with pytest.raises(ValueError, match="infer_cams reads what train_classifier writes"):
        runner.run_stages(load_config(f"{config}:tiny", []), tmp_path, ("infer_cams",))


def test_a_device_without_memory_is_one_line_with_a_remedy(tmp_path, monkeypatch, capsys):
    def stage(context, job):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 17179869184 bytes.\nBuffers: ..")

    monkeypatch.setitem(table.TABLE, "infer_cams", table.TABLE["infer_cams"]._replace(run=stage, needs=()))
    config = Path(__file__).parents[1] / "configs" / "scenes.py"
    assert main(["run", f"--config={config}:tiny", f"--workdir={tmp_path}", "--stages=infer_cams"]) == 2
    *_, last = capsys.readouterr().err.strip().splitlines()
    assert last.startswith("ssenet: infer_cams: the device is out of memory (RESOURCE_EXHAUSTED: Out of memory")
    assert "lower inference.batch_size" in last and "Traceback" not in last


@pytest.fixture(scope="module")
def one_device_step(variables):
    return step_on(variables, 1)


def step_on(variables, devices, dropout=0.5, **changes):
    recipe, mesh = small_recipe(dropout, **changes), make_mesh(devices)
    state = create_state(variables, recipe)
    shard_params = devices == 8
    step = make_step(recipe, state, mesh, shard_params=shard_params)
    state = place(state, state_shardings(state, mesh, shard_params=shard_params))
    batches = Batches()
    for _ in range(2):
        batch = next(batches)
        del batch["id"]
        state, metrics = step(state, global_batch(batch, BATCH, mesh))
    return jax.device_get(metrics), state


@pytest.mark.parametrize("devices", [2, 8])
def test_a_step_is_the_same_on_any_number_of_devices(variables, one_device_step, devices):
    metrics, state = step_on(variables, devices)
    expected, expected_state = one_device_step
    for name, value in expected.items():
        assert metrics[name] == pytest.approx(value, rel=1e-6, abs=1e-6), name
    pairs = zip(*(jax.tree.leaves(jax.device_get(variables_of(s))) for s in (state, expected_state)), strict=True)
    for ours, theirs in pairs:
        assert np.max(np.abs(ours - theirs)) <= 1e-5 * np.max(np.abs(theirs))


def test_shard_params_splits_parameters_and_momentum(variables):
    _, state = step_on(variables, 8)
    assert "data" in state.trainable["head/kernel"].sharding.spec
    assert "data" in state.optimizer.momentum["head/kernel"].sharding.spec
    assert "data" in state.frozen["front/kernel"].sharding.spec
    assert state.trainable["head/bias"].sharding.is_fully_replicated  # 3 values on 8 devices


def test_accumulation_equals_the_full_batch():
    class Plain(nn.Module):
        @nn.compact
        def __call__(self, images, train=False):
            self.variable("batch_stats", "unused", jnp.zeros, ())
            return nn.Conv(3, (3, 3), name="head")(images), {}

    variables = Plain().init(jax.random.key(0), jnp.zeros((1, 12, 12, 3)))
    results = []
    for accumulate in (1, 4):
        recipe = small_recipe(accumulate=accumulate)
        groups = ((".*", 1.0, 5e-4),)
        recipe = recipe._replace(losses=Losses((objectives.classifier(Plain()),)), groups=groups)
        mesh = make_mesh(4)
        state = create_state(variables, recipe)
        step = make_step(recipe, state, mesh)
        state = place(state, state_shardings(state, mesh, shard_params=False))
        batch = next(Batches())
        del batch["id"]
        state, metrics = step(state, global_batch(batch, BATCH, mesh))
        results.append((metrics["loss"], state.trainable["head/kernel"]))
    np.testing.assert_allclose(results[0][0], results[1][0], rtol=1e-6)
    np.testing.assert_allclose(results[0][1], results[1][1], rtol=1e-5, atol=1e-7)


def test_micro_batches_are_no_loop_on_a_cpu(variables):
    """In which its convolutions would take fifty times as long."""

    def convolutions(accumulate):
        recipe, mesh = small_recipe(accumulate=accumulate), make_mesh(1)
        state = create_state(variables, recipe)
        shapes = {"image": jnp.zeros((BATCH, 12, 12, 3)), "labels": jnp.zeros((BATCH, 3))}
        return make_step(recipe, state, mesh).lower(state, shapes).compile().as_text().count(" convolution(")

    assert convolutions(4) == 4 * convolutions(1) > 0


def test_each_step_takes_the_form_of_the_loss_whose_turn_it_is(tmp_path, variables, mesh):
    def form_of(number):
        plain = objectives.classifier(SmallNet())

        def loss_fn(*arguments):
            value, (statistics, _) = plain(*arguments)
            return value, (statistics, {"form": jnp.float32(number)})

        return loss_fn

    turns = (1, 0, 2, 1)
    recipe = small_recipe()._replace(losses=Losses(tuple(map(form_of, range(3))), turns.__getitem__))
    run(tmp_path, variables, mesh, recipe=recipe)
    assert [line["form"] for line in log_of(tmp_path)] == list(turns)


def test_a_non_finite_loss_stops_with_all_that_is_known(tmp_path, variables, mesh):
    with pytest.raises(train.NonFiniteLossError) as error:
        run(tmp_path, variables, mesh, Batches(broken=(2,)))
    message = str(error.value)
    assert "at step 3 " in message and "image_2_3" in message and "image_1_3" not in message
    assert "learning rate 0.0536" in message and message.count("\n") == 0
    assert str(tmp_path / "checkpoints" / "2") in message
    assert [line["step"] for line in log_of(tmp_path)] == [1, 2]
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(load_variables(tmp_path / "checkpoints", "train_small")))


def test_a_batch_that_does_not_divide_is_an_error_with_a_remedy(variables):
    recipe = small_recipe(batch_size=12)
    with pytest.raises(ValueError, match="batch_size 12 does not divide by 8 devices .*; use a multiple of 8"):
        make_step(recipe, create_state(variables, recipe), make_mesh(8))


def test_everything_frozen_is_an_error(variables):
    with pytest.raises(ValueError, match="freeze every parameter"):
        create_state(variables, small_recipe()._replace(groups=((".*", 0.0, 0.0),)))


def test_pictures_are_made_from_the_current_variables(tmp_path, variables, mesh):
    seen = []

    def picture_fn(current):
        seen.append(np.asarray(current["params"]["head"]["bias"]))
        return {"cam": np.zeros((4, 4, 3), np.uint8)}

    records = train.Records("small", tmp_path / "c", tmp_path / "log.jsonl", tmp_path / "tb", 100, 1, 2)
    looks = train.Looks(2, picture_fn)
    train.fit(small_recipe(), dict(variables), Batches(), records, mesh=mesh, looks=looks)
    assert len(seen) == 2 and not np.array_equal(*seen)


def test_progress_is_plain_lines_where_there_is_no_terminal(capsys):
    with train.Progress("infer_cams", 40, start=10) as progress:
        for _ in range(30):
            progress.advance(1, "loss 0.5")
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 15  # one at each twentieth of the way
    assert re.fullmatch(r"infer_cams: 40/40 images, [0-9.]+ images/s, 0:00:00 left, loss 0.5", lines[-1])


@pytest.mark.parametrize(
    "loop",
    [{}, [], {"sums": {}}, {"sums": {"loss": "x"}, "input": {"next_index": 4}}, {"sums": {}, "input": {"next": 4}}],
)
def test_a_checkpoint_without_a_place_to_go_on_from_is_set_aside(tmp_path, undisturbed, variables, mesh, caplog, loop):
    shutil.copytree(undisturbed[0], tmp_path, dirs_exist_ok=True)
    (tmp_path / "checkpoints" / "4").rename(tmp_path / "checkpoints" / "3")  # so that a step is left to do
    (tmp_path / "checkpoints" / "3" / "loop" / "metadata").write_text(json.dumps(loop))
    batches = Batches()
    assert_same(jax.device_get(run(tmp_path, variables, mesh, batches)), undisturbed[1])
    assert (tmp_path / "checkpoints" / "3.damaged").is_dir() and "is damaged (loop/metadata holds no" in caplog.text
    assert batches.index == 4  # the input went on at step 2


def test_the_initial_variables_are_released(tmp_path, variables, mesh):
    mine = jax.tree.map(jnp.array, dict(variables))
    watched = weakref.ref(jax.tree.leaves(mine["params"])[0])
    alive = []

    def look(index):
        gc.collect()
        alive.append(watched() is not None)

    records = train.Records("small", tmp_path / "c", tmp_path / "log.jsonl", tmp_path / "tb", 100, 1, 2)
    train.fit(small_recipe(), mine, Batches(on_step=look), records, mesh=mesh)
    assert mine == {} and not any(alive)


@pytest.mark.parametrize("line", ["7", "null", '"text"', "[1]", '{"step": "4"}', '{"step": null}', "[" * 3000])
def test_a_line_that_no_training_wrote_names_the_log(tmp_path, line):
    path = tmp_path / "log.jsonl"
    path.write_text(f'{{"step": 1, "loss": 2.0}}\n{line}\n')
    for read in (logs.read_lines, lambda path: logs.cut_lines(path, 1)):
        with pytest.raises(ValueError, match=r"log\.jsonl holds the line .*, which no training wrote"):
            read(path)


def test_a_log_that_is_not_text_is_named(tmp_path):
    (tmp_path / "log.jsonl").write_bytes(b'{"step": 1}\n\xff\xfe\n')
    with pytest.raises(ValueError, match=r"log\.jsonl is not UTF-8; move it away"):
        logs.read_lines(tmp_path / "log.jsonl")


@pytest.mark.parametrize("error", [BrokenPipeError, OSError(5, "Input/output error"), ValueError("closed file")])
def test_a_screen_that_is_gone_stops_nothing(error):
    class Gone:
        def isatty(self):
            return False

        def write(self, text):
            raise error

    with train.Progress("infer_cams", 2, stream=Gone()) as progress:
        progress.advance(2)
