"""``ssenet tune``: which settings make the best of what lies in a workdir."""

import argparse
import math
from collections.abc import Sequence
from pathlib import Path

from absl import flags

from ssenet_jax import artifacts, cache
from ssenet_jax.commands.configs import refuse_words
from ssenet_jax.stages.context import Context
from ssenet_jax.stages.facts import read_config
from ssenet_jax.stages.label_search import Choice, Found, search

HELP = """\
Tries every way to make labels of the CAMs, seeds and AffinityNet of a run: source; beta and steps of the walk, and
whether its maps are stretched; background, alpha, CRF. Scored on training images that have masks. Nothing is trained,
no result of the run changes. Prints a table, the best first, and the keys that take the best: in another workdir, which
takes the rest from this one.
  ssenet tune labels --workdir=runs/voc
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("what", choices=("labels",), help="what is tuned")
    parser.add_argument("--workdir", required=True, type=Path, help="of a run; its config is read from there")
    parser.add_argument("--sample", type=int, default=100, metavar="N", help="images that are scored; default: 100")


def run(options: argparse.Namespace, words: list[str]) -> int:
    refuse_words(words)
    if options.sample < 1:
        raise ValueError(f"--sample is {options.sample}; it is a number of images, at least 1")
    flags.FLAGS.mark_as_parsed()  # grain reads absl flags
    cache.keep_compiled()
    context = Context(read_config(options.workdir), options.workdir)
    with artifacts.locked(options.workdir):
        found = search(context, options.sample)
    print(table(found))
    best = found[0].choice
    keys = " ".join(f"--config.{key}={value}" for key, value in best.overrides().items())
    print(f"the best: ssenet run --from={options.workdir} --workdir={options.workdir}_best --config=NAME {keys}")
    return 0


def table(found: Sequence[Found]) -> str:
    """One row a choice, in percent."""
    walk = f"{'beta':>5}{'steps':>6}{'stretched':>11}{'contrast':>10}"
    rows = [f"{'mIoU':>6}{'mFN':>8}{'mFP':>8}  {'source':<8}{walk}  {'background':<11}{'alpha':>6}  crf"]
    for choice, *figures in found:
        miou, m_fn, m_fp = (f"{100 * value:.1f}" if math.isfinite(value) else "-" for value in figures)
        rows.append(f"{miou:>6}{m_fn:>8}{m_fp:>8}  {_columns(choice)}")
    return "\n".join(rows)


def _columns(choice: Choice) -> str:
    (source, beta, steps, normalize, contrast), (kind, alpha), crf = choice
    walk = (
        f"{'' if beta is None else f'{beta:g}':>5}{'' if steps is None else steps:>6}{'yes' if normalize else '':>11}"
        f"{f'{contrast:g}' if contrast else '':>10}"
    )
    return f"{source:<8}{walk}  {kind:<11}{alpha:>6g}  {'yes' if crf else 'no'}"
