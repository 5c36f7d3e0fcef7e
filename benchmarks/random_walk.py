"""The random walk of 256 steps: stencil and Chebyshev against squaring the dense matrix.

    python benchmarks/random_walk.py [--repeats=5]

The grids are those of a 500 x 375 image at stride 8 (METHOD) and at IRN's stride 4, with 21 maps. Memory is what XLA
plans for temporaries and results. The error is against float64 on the host, as a share of the largest score.
"""

import argparse

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse
from timing import in_turn, ratios, report, spread

from ssenet_jax import random_walk as rw
from ssenet_jax.affinity import pair_offsets

STEPS, MAPS = 256, 21


def example(h: int, w: int) -> tuple[jax.Array, rw.Transition]:
    """Scores in [0, 1], and a transition with regions: affinities within one are high, across edges low."""
    rng = np.random.default_rng(0)
    features = np.repeat(np.repeat(rng.standard_normal((h // 8 + 1, w // 8 + 1, 16)), 8, 0), 8, 1)[:h, :w]
    features = features + 0.1 * rng.standard_normal(features.shape)
    scores = rng.uniform(0, 1, (h, w, MAPS))
    transition = jax.jit(rw.transition)(jnp.asarray(features, jnp.float32))
    return jnp.asarray(scores, jnp.float32), transition


def exact(scores: jax.Array, transition: rw.Transition) -> np.ndarray:
    """The walk in float64, from the same affinities."""
    d, h, w = transition.weights.shape
    y, x = np.mgrid[:h, :w]
    matrix = scipy.sparse.identity(h * w, format="csr")
    for (dy, dx), weights in zip(pair_offsets(transition.radius), np.asarray(transition.weights, float), strict=True):
        there = weights > 0
        start, end = (y * w + x)[there], ((y + dy) * w + x + dx)[there]
        part = scipy.sparse.csr_matrix((weights[there], (start, end)), shape=matrix.shape)
        matrix = matrix + part + part.T
    matrix = (matrix / matrix.sum(0)).tocsr()
    maps = np.asarray(scores, float).reshape(h * w, MAPS)
    for _ in range(STEPS):
        maps = matrix.T @ maps
    return maps.reshape(h, w, MAPS)


def operations(method: str, cells: int) -> float:
    """Multiplications and additions."""
    taps = 2 * len(pair_offsets())
    terms = {"stencil": STEPS, "chebyshev": len(rw.chebyshev_coefficients(STEPS))}
    if method == "dense":
        return 2.0 * cells**2 * (cells * np.log2(STEPS) + MAPS)
    return 3.0 * terms[method] * taps * cells * MAPS


def measure(h: int, w: int, methods: tuple[str, ...], repeats: int) -> list[dict]:
    scores, transition = example(h, w)
    compiled, memory = {}, {}
    for method in (*methods, *({"dense"} - set(methods))):
        lowered = jax.jit(rw.random_walk, static_argnames=("steps", "method")).lower(
            scores, transition, steps=STEPS, method=method
        )
        compiled[method] = lowered.compile()
        plan = compiled[method].memory_analysis()
        memory[method] = plan.temp_size_in_bytes + plan.output_size_in_bytes
    ways = {method: lambda method=method: compiled[method](scores, transition) for method in methods}
    seconds, truth = in_turn(ways, repeats), exact(scores, transition)
    rows = []
    for method in ("dense", *[method for method in methods if method != "dense"]):
        timed = method in methods
        error = np.abs(np.asarray(ways[method]()) - truth).max() / truth.max() if timed else None
        faster = ratios(seconds, method, "dense") if timed and "dense" in methods else None
        rows.append(
            {
                "cells": f"{h} x {w}",
                "method": method,
                "seconds": spread(seconds[method]) if timed else "not run",
                "times faster": spread(faster) if faster else "",
                "MiB": f"{memory[method] / 2**20:.1f}",
                "times less memory": f"{memory['dense'] / memory[method]:.0f}",
                "times less work": f"{operations('dense', h * w) / operations(method, h * w):.0f}",
                "error": f"{error:.1e}" if timed else "",
            }
        )
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args().repeats
    rows = measure(47, 63, ("dense", "stencil", "chebyshev"), repeats)
    rows += measure(94, 125, ("stencil", "chebyshev"), repeats)
    report("random_walk", rows, f"{STEPS} steps, {MAPS} maps, {repeats} rounds in turn; median (range).")


if __name__ == "__main__":
    main()
