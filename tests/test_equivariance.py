"""Spatial operators: linear, the same for an image and its CAM, and equal to the authors' resizing."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.extend.core import jaxprs_in_params

from ssenet_jax import equivariance as eq
from ssenet_jax.contrast import border_contrast
from ssenet_jax.ser import two_branch_loss

GOLDEN = Path(__file__).parent / "golden"
OPERATORS = {
    "resize": eq.resize(0.5),
    "hflip": eq.hflip(),
    "vflip": eq.vflip(),
    "rot90": eq.rot90(1),
    "rotate": eq.rotate(30.0),
    "translate": eq.translate(0.25, -0.1),
    "affine": eq.affine([[0.9, 0.1, 0.05], [-0.2, 1.1, 0.0]]),
    "compose": eq.compose(eq.hflip(), eq.resize(0.4), eq.translate(0.0, 0.2)),
}


def maps(seed: int, shape: tuple[int, ...] = (2, 12, 10, 3)) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), jnp.float32)


@pytest.fixture(scope="module")
def golden():
    # the authors' resizing of one map of resize.npz, NCHW there; "up" holds every fourth row
    with np.load(GOLDEN / "pure_resize.npz") as file:
        return {name: file[name].transpose(0, 2, 3, 1) for name in file.files}


def relative_error(ours, theirs) -> float:
    return float(np.abs(np.asarray(ours) - theirs).max() / np.abs(theirs).max())


@pytest.mark.parametrize("rate", [0.2, 0.3, 0.4, 0.5, 0.6])
def test_resize_equals_the_authors_code_in_both_samplings(golden, rate):
    x = jnp.asarray(golden["x"])
    # 1e-6: one rounding of a float32 weight; float64 positions alone would be 4e-6 off
    assert relative_error(eq.resize(rate)(x), golden[f"recompute{rate}"]) < 1e-6
    assert relative_error(eq.resize(rate, sampling="rate")(x), golden[f"rate{rate}"]) < 1e-6


def test_enlarging_equals_the_authors_code(golden):
    assert relative_error(eq.resize_to(jnp.asarray(golden["x"]), (120, 100))[:, ::4], golden["up"]) < 1e-6


def test_shrinking_a_training_image_equals_the_authors_code():
    # seed 1 is that of the golden training steps: 112 * 0.3 -> 33 pixels, all three channels
    images = np.random.default_rng(1).standard_normal((2, 3, 112, 112), dtype=np.float32).transpose(0, 2, 3, 1)
    with np.load(GOLDEN / "pure_ser.npz") as file:
        assert relative_error(eq.resize(0.3)(jnp.asarray(images[:1])), file["xs"].transpose(0, 2, 3, 1)) < 1e-6


@pytest.mark.parametrize("size", [(5, 17), (24, 10), (1, 3)])
def test_resize_to_is_jax_image_resize_without_antialiasing(size):
    x = maps(0)
    expected = jax.image.resize(x, (2, *size, 3), "linear", antialias=False)
    np.testing.assert_allclose(eq.resize_to(x, size), expected, atol=2e-5)  # jax rounds positions, not only weights


def test_padded_arrays_are_resized_as_if_they_were_not_padded():
    x = maps(3, (3, 16, 14, 2))
    sizes_in = np.array([[16, 14], [9, 5], [1, 1]], np.int32)
    sizes_out = np.array([[30, 30], [7, 12], [4, 3]], np.int32)
    ours = jax.jit(eq.resize_valid, static_argnums=3)(x, jnp.asarray(sizes_in), jnp.asarray(sizes_out), (32, 30))
    for i, ((h, w), (h2, w2)) in enumerate(zip(sizes_in, sizes_out, strict=True)):
        alone = eq.resize_to(x[i : i + 1, :h, :w], (int(h2), int(w2)))[0]
        np.testing.assert_allclose(ours[i, :h2, :w2], alone, atol=1e-5)
        outside = ours[i].at[:h2, :w2].set(0.0)
        assert not outside.any()


@pytest.mark.parametrize("name", OPERATORS)
@settings(max_examples=5, deadline=None)
@given(a=st.floats(-3, 3, width=32), seed=st.integers(0, 100))
def test_operators_are_linear(name, a, seed):
    operator, x, y = OPERATORS[name], maps(seed), maps(seed + 1)
    np.testing.assert_allclose(operator(a * x + y), a * operator(x) + operator(y), atol=1e-4)


@pytest.mark.parametrize("name", [name for name, op in OPERATORS.items() if op.matrices is not None])
def test_matrices_are_the_operator(name):
    x = maps(5)
    rows, cols = OPERATORS[name].matrices(*x.shape[1:3])
    np.testing.assert_allclose(eq.apply_matrices(rows, cols, x), OPERATORS[name](x), atol=1e-5)


@pytest.mark.parametrize("flip", [eq.hflip(), eq.vflip()])
def test_scaling_commutes_with_flips(flip):
    x, scale = maps(6), eq.resize(0.6)
    np.testing.assert_allclose(scale(flip(x)), flip(scale(x)), atol=1e-5)


def test_quarter_turns_agree_with_rotate_and_with_numpy():
    x = maps(7, (1, 9, 9, 2))
    np.testing.assert_allclose(eq.rot90(1)(x), np.rot90(x, axes=(1, 2)), atol=0)
    np.testing.assert_allclose(eq.rotate(90.0)(x), eq.rot90(1)(x), atol=1e-5)
    assert eq.rot90(1)(maps(7)).shape == (2, 10, 12, 3)


def test_a_traced_turn_finds_the_pixels_of_a_large_image():
    x = jnp.asarray(np.random.default_rng(0).random((1, 4100, 4100, 1), np.float32))  # above 2 ** 24, where floats skip
    np.testing.assert_allclose(eq.rotate(jnp.float32(0.0))(x)[:, -2:], x[:, -2:], atol=2e-3)


def test_a_traced_turn_has_the_gradient_of_its_angle():
    y, x = np.mgrid[:24, :24]
    smooth = jnp.asarray(np.exp(-((y - 8) ** 2 + (x - 14) ** 2) / 30)[None, :, :, None], jnp.float32)
    weights = jax.random.normal(jax.random.key(0), smooth.shape)

    def total(degrees):
        return jnp.sum(weights * eq.rotate(degrees)(smooth))

    difference = (total(jnp.float32(20.5)) - total(jnp.float32(19.5))) / 1.0
    assert float(jax.grad(total)(jnp.float32(20.0))) == pytest.approx(float(difference), rel=0.1)


def test_a_turn_there_and_back_keeps_the_middle_of_a_wide_image():
    y, x = np.mgrid[:24, :48]
    smooth = jnp.asarray(np.exp(-((y - 11) ** 2 + (x - 20) ** 2) / 40)[None, :, :, None], jnp.float32)
    back = eq.compose(eq.rotate(20.0), eq.rotate(-20.0))(smooth)
    np.testing.assert_allclose(back, smooth, atol=0.05)
    assert float(jnp.abs(eq.rotate(20.0)(smooth) - smooth).max()) > 0.05


def test_translate_moves_down_and_right_and_fills_with_zeros():
    x = maps(8)
    moved = eq.translate(0.25, 0.1)(x)  # 3 of 12 rows, 1 of 10 columns
    np.testing.assert_allclose(moved[:, 3:, 1:], x[:, :-3, :-1], atol=1e-6)
    assert not moved[:, :3].any() and not moved[:, :, :1].any()


def test_affine_identity_keeps_everything_and_a_shift_matches_translate():
    x = maps(9)
    np.testing.assert_allclose(eq.affine([[1, 0, 0], [0, 1, 0]])(x), x, atol=1e-6)
    shift = eq.affine([[1, 0, -2 * 0.25], [0, 1, -2 * 0.1]])  # half heights and half widths, from output to input
    np.testing.assert_allclose(shift(x), eq.translate(0.25, 0.1)(x), atol=1e-5)


def test_compose_applies_the_first_argument_first():
    x = maps(10)
    np.testing.assert_allclose(eq.compose(eq.translate(0.25, 0.0), eq.vflip())(x), eq.translate(0.25, 0.0)(x)[:, ::-1])


@pytest.mark.parametrize("bad", [0.0, -1.0, float("nan")])
def test_resize_refuses_a_rate_that_is_none(bad):
    with pytest.raises(ValueError, match="rate must be > 0"):
        eq.resize(bad)


def test_errors_say_what_to_do():
    with pytest.raises(ValueError, match="use a larger rate"):
        eq.resize(0.05)(maps(0))
    with pytest.raises(ValueError, match="sampling must be"):
        eq.resize(0.5, sampling="corners")
    with pytest.raises(ValueError, match=r"\(2, 3\) matrix"):
        eq.affine([[1, 0], [0, 1]])


@pytest.mark.parametrize("name", OPERATORS)
@pytest.mark.parametrize("dtype", [jnp.uint8, jnp.int32, jnp.bool_])
def test_an_operator_refuses_integers_rather_than_give_zeros(name, dtype):
    with pytest.raises(TypeError, match=r"convert it first: x\.astype\(jnp\.float32\)"):
        OPERATORS[name](jnp.ones((1, 12, 10, 3), dtype))


def test_resizing_refuses_integers_whatever_the_size():
    for size in ((6, 5), (12, 10)):
        with pytest.raises(TypeError, match="convert it first"):
            eq.resize_to(jnp.ones((1, 12, 10, 3), jnp.uint8), size)


def precisions(function, *arguments):
    """Of every matrix product in what a function is traced to."""

    def of(jaxpr):
        for equation in jaxpr.eqns:
            if equation.primitive.name == "dot_general":
                yield equation.params["precision"]
            for inner in jaxprs_in_params(equation.params):
                yield from of(inner)

    return {*of(jax.make_jaxpr(function)(*arguments).jaxpr)}


@pytest.mark.parametrize("operator", [eq.rotate, lambda at: eq.compose(eq.translate(at, 0.1), eq.resize(0.5))])
def test_accelerators_round_no_operator_whose_argument_is_traced(operator):
    def regularised(angle, images, features):
        loss, _ = two_branch_loss(lambda x: x, images, jnp.ones((1, 3)), operator(angle))
        return loss + jnp.sum(border_contrast(features))

    images = jnp.zeros((1, 8, 8, 3))
    highest = jax.lax.Precision.HIGHEST
    assert precisions(regularised, 0.1, images, images) <= {(highest, highest)}


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_an_angle_of_half_precision_turns_as_its_number_does(dtype):
    stripes = jnp.tile((jnp.arange(200, dtype=jnp.int32) % 2).astype(jnp.float32)[None, :, None, None], (1, 1, 200, 1))
    np.testing.assert_allclose(eq.rotate(jnp.asarray(90, dtype))(stripes), eq.rotate(90)(stripes), atol=1e-3)
