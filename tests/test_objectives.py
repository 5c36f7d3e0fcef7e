"""The loss functions of the three trainings: what they compute, on how many devices, in which precision."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from ssenet_jax.affinity import affinity_labels, pair_affinity
from ssenet_jax.losses import affinity_loss, multilabel_soft_margin_loss
from ssenet_jax.training import objectives, operators
from ssenet_jax.training.sharding import make_mesh, over_batch, replicated

SER = {"normalize": "max", "classes": "present", "cam_size": "image", "p": 2}
KEY = jax.random.key(0)


class Net(nn.Module):
    """One strided convolution and a batch norm."""

    channels: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, images, train=False, sizes=None):
        x = nn.Conv(self.channels, (4, 4), strides=4, name="conv", dtype=self.dtype)(images)
        x = nn.BatchNorm(use_running_average=not train, momentum=0.5, name="norm")(x.astype(jnp.float32))
        return x.astype(self.dtype), {}


@pytest.fixture(scope="module")
def batch():
    rng = np.random.default_rng(0)
    return {
        "image": rng.standard_normal((8, 16, 16, 3), dtype=np.float32),
        "labels": (rng.random((8, 3)) < 0.5).astype(np.float32),
        "seeds": rng.choice(np.array([0, 1, 2, 255], np.uint8), (8, 4, 4)),
        "mask": rng.choice(np.array([0, 1, 2, 255], np.uint8), (8, 16, 16)),
    }


@pytest.fixture(scope="module")
def variables():
    return Net(3).init(KEY, jnp.zeros((1, 16, 16, 3)))


def evaluate(loss_fn, variables, batch, step=0):
    return jax.jit(loss_fn)(variables["params"], variables["batch_stats"], batch, KEY, jnp.int32(step))


def ser(net, eta=1.0, warmup=0.0, names=("resize",), draw="one", **arguments):
    """The loss with the regulariser over ten steps; half the size unless `arguments` say otherwise."""
    (choice,) = operators.choices(names, draw, {"rate": 0.5, **arguments})
    return objectives.scale_equivariance(net, choice, objectives.eta_schedule(eta, 10, warmup), SER)


def test_without_a_regulariser_there_is_one_branch(variables, batch):
    loss, (_, metrics) = evaluate(objectives.classifier(Net(3)), variables, batch)
    (cam, _), _ = Net(3).apply(variables, batch["image"], train=True, mutable=["batch_stats"])
    expected = jnp.mean(multilabel_soft_margin_loss(cam.mean((1, 2)), jnp.asarray(batch["labels"])))
    np.testing.assert_allclose(loss, expected, rtol=1e-6)
    assert set(metrics) == {"loss_cls"}


def test_eta_rises_over_its_warm_up(variables, batch):
    loss_fn = ser(Net(3), eta=3.0, warmup=0.4)
    weights = []
    for step in (0, 2, 4, 9):
        loss, (_, metrics) = evaluate(loss_fn, variables, batch, step)
        weights.append(float((loss - (metrics["loss_cls"] + metrics["loss_cls_s"]) / 2) / metrics["loss_ser"]))
    np.testing.assert_allclose(weights, [0.0, 1.5, 3.0, 3.0], atol=1e-4)
    assert float(objectives.eta_schedule(3.0, 10, 0.0)(jnp.int32(0))) == 3.0
    with pytest.raises(ValueError, match="eta_warmup is 4"):
        objectives.eta_schedule(3.0, 10, 4)


def test_running_statistics_are_those_of_the_images_a_network_is_used_on(variables, batch):
    expected = Net(3).apply(variables, batch["image"], train=True, mutable=["batch_stats"])[1]["batch_stats"]
    for loss_fn in (objectives.classifier(Net(3)), ser(Net(3))):
        statistics = evaluate(loss_fn, variables, batch)[1][0]
        np.testing.assert_allclose(statistics["norm"]["mean"], expected["norm"]["mean"], rtol=1e-4, atol=1e-6)


def test_affinity_takes_the_pairs_of_the_seeds(variables, batch):
    loss, (_, metrics) = evaluate(objectives.affinity(Net(3), radius=3), variables, batch)
    (features, _), _ = Net(3).apply(variables, batch["image"], train=True, mutable=["batch_stats"])
    pairs = [affinity_labels(label, 3, border="full") for label in batch["seeds"]]
    stacked = (jnp.asarray(np.stack(kind)) for kind in zip(*pairs, strict=True))
    expected = affinity_loss(pair_affinity(features, 3, border="full"), *stacked)
    np.testing.assert_allclose(loss, expected["loss"], rtol=1e-5)
    assert set(metrics) == {"loss_bg", "loss_fg", "loss_neg"}


def test_segmenter_ignores_255_and_scores_at_the_size_of_the_crop(variables, batch):
    loss, _ = evaluate(objectives.segmenter(Net(3)), variables, batch)
    (logits, _), _ = Net(3).apply(variables, batch["image"], train=True, mutable=["batch_stats"])
    full = jax.image.resize(logits, (8, 16, 16, 3), "bilinear")
    valid = batch["mask"] != 255
    chosen = jnp.take_along_axis(jax.nn.log_softmax(full), jnp.asarray(batch["mask"] % 255)[..., None], axis=-1)[..., 0]
    np.testing.assert_allclose(loss, -np.asarray(chosen)[valid].mean(), rtol=1e-5)


def regularisers(loss_fn, variables, batch, steps=8):
    """The regulariser's value with each of a few keys, rounded."""
    run = jax.jit(loss_fn)
    keys = jax.random.split(KEY, steps)
    calls = (run(variables["params"], variables["batch_stats"], batch, key, jnp.int32(0)) for key in keys)
    return [round(float(metrics["loss_ser"]), 7) for _, (_, metrics) in calls]


def test_a_range_is_drawn_anew_each_step_and_a_number_is_not(variables, batch):
    assert len(set(regularisers(ser(Net(3), names=("rotate",), degrees=30.0), variables, batch))) == 1
    assert len(set(regularisers(ser(Net(3), names=("rotate",), degrees=(-30.0, 30.0)), variables, batch))) == 8
    assert len(set(regularisers(ser(Net(3), names=("translate",), shift=(-0.3, 0.3)), variables, batch))) == 8


def test_a_range_of_rates_is_compiled_for_four_that_are_drawn():
    choices = operators.choices(("resize",), "one", {"rate": (0.25, 1.0)})
    sizes = [choice.build(KEY)(jnp.zeros((1, 8, 8, 1))).shape[1] for choice in choices]
    assert sizes == [2, 4, 6, 8] and len(sizes) == operators.RATES
    at = operators.drawn(choices, seed=0)
    taken = [at(done) for done in range(400)]
    assert np.bincount(taken, minlength=4).min() > 70  # each a quarter of the time
    assert taken == [operators.drawn(choices, seed=0)(done) for done in range(400)]
    assert taken != [operators.drawn(choices, seed=1)(done) for done in range(400)]


def test_of_several_operators_one_is_drawn_or_all_follow_each_other(variables, batch):
    names, moved = ("resize", "hflip"), jnp.arange(16.0).reshape(1, 4, 4, 1)
    one = [choice.build(KEY)(moved) for choice in operators.choices(names, "one", {"rate": 0.5})]
    assert one[0].shape == (1, 2, 2, 1)
    np.testing.assert_array_equal(one[1], moved[:, :, ::-1])
    alone = {regularisers(ser(Net(3), names=(name,)), variables, batch, steps=1)[0] for name in names}
    both = regularisers(ser(Net(3), names=names, draw="all"), variables, batch)
    assert len(set(both)) == 1 and not set(both) & alone


@pytest.mark.parametrize(
    ("names", "draw", "message"),
    [
        (("shrink",), "one", "names 'shrink'; it must name functions of ssenet_jax.equivariance"),
        (("Operator",), "one", "must name functions"),
        (("affine",), "one", "argument matrix_2x3 has no key ser.matrix"),
        (("resize",), "each", "ser.draw is 'each'"),
        ((), "one", "regulariser='none'"),
        (("rotate",), "one", "ser.degrees is 'half'; it must be a number, or a range"),
    ],
)
def test_an_operator_that_cannot_be_drawn_is_an_error(names, draw, message):
    with pytest.raises(ValueError, match=message):
        operators.choices(names, draw, {"rate": 0.5, "degrees": "half"})


OBJECTIVES = {
    "classifier": ser,
    "affinity": lambda net: objectives.affinity(net, radius=3),
    "segmenter": lambda net: objectives.segmenter(net),
}


@pytest.mark.parametrize("name", OBJECTIVES)
def test_ratios_and_statistics_are_those_of_the_global_batch(variables, batch, name):
    # examples differ in how many pairs and pixels count, so a mean of the devices' ratios would be another number
    batch = {**batch, "seeds": batch["seeds"].copy(), "mask": batch["mask"].copy()}
    batch["seeds"][:4], batch["mask"][:4] = 255, 255
    gradient = jax.value_and_grad(OBJECTIVES[name](Net(3)), has_aux=True)
    arguments = variables["params"], variables["batch_stats"], batch, KEY, jnp.int32(3)
    (expected, (statistics, _)), slope = jax.jit(gradient)(*arguments)
    mesh = make_mesh(8)
    whole, rows = replicated(mesh), over_batch(mesh)
    placed = jax.jit(gradient, in_shardings=(whole, whole, rows, whole, whole), out_shardings=whole)
    (loss, (statistics_8, _)), slope_8 = placed(*arguments)
    np.testing.assert_allclose(loss, expected, rtol=1e-6)
    pairs = zip(jax.tree.leaves((slope_8, statistics_8)), jax.tree.leaves((slope, statistics)), strict=True)
    for ours, theirs in pairs:
        assert np.max(np.abs(ours - theirs)) <= 1e-5 * max(np.max(np.abs(theirs)), 1e-2)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_losses_of_a_bfloat16_network_are_float32(variables, batch, name):
    loss_fn = OBJECTIVES[name](Net(3, jnp.bfloat16))
    loss, (_, metrics) = jax.eval_shape(
        loss_fn, variables["params"], variables["batch_stats"], batch, KEY, jnp.int32(0)
    )
    assert {loss.dtype} | {metric.dtype for metric in metrics.values()} == {jnp.dtype(jnp.float32)}


@pytest.mark.parametrize("name", OBJECTIVES)
def test_photos_with_none_of_the_classes_teach_and_leave_every_number_finite(variables, batch, name):
    none = {key: batch[key] if key == "image" else np.zeros_like(batch[key]) for key in batch}
    gradient = jax.value_and_grad(OBJECTIVES[name](Net(3)), has_aux=True)
    (loss, (_, metrics)), slope = jax.jit(gradient)(
        variables["params"], variables["batch_stats"], none, KEY, jnp.int32(0)
    )
    assert all(np.isfinite(x).all() for x in jax.tree.leaves((loss, metrics, slope)))
    assert any(np.any(x != 0) for x in jax.tree.leaves(slope))
