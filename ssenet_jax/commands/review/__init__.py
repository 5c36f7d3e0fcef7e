"""``ssenet review``: a page on which a person accepts, corrects or rejects the masks of a run."""

import argparse
import contextlib
import socket
from pathlib import Path

import jax
from ml_collections import ConfigDict

from ssenet_jax import artifacts, datasets
from ssenet_jax.commands.configs import refuse_words
from ssenet_jax.commands.review.album import Album
from ssenet_jax.commands.review.ledger import Ledger
from ssenet_jax.messages import quoted
from ssenet_jax.stages import doubt
from ssenet_jax.stages.facts import check_classes, read_config
from ssenet_jax.stages.reviewed import REVIEWED

HELP = """\
Serves a page on this machine on which the masks of a run are accepted, corrected or rejected, the most doubtful first.
Every decision is saved at once in WORKDIR/reviewed: reviewed.csv and a mask a photo. Train on them with
  ssenet run ... --workdir=ANOTHER --from=WORKDIR --config.labels.source=reviewed
The address that is printed holds a secret: whoever has it, and reaches this machine, can change the masks.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--workdir", required=True, type=Path, help="the workdir of the run")
    parser.add_argument("--port", default=0, type=int, help="of the page; 0 takes one that is free")
    parser.add_argument("--data_root", default=None, help="where the photos lie, when they were moved since the run")


def run(options: argparse.Namespace, words: list[str]) -> int:
    refuse_words(words)
    try:
        from ssenet_jax.commands.review import server
    except ImportError as error:
        raise ValueError(f"{error}; install what the page needs: pip install 'ssenet_jax[review]'") from error
    jax.config.update("jax_platforms", "cpu")  # the accelerator is for a run that goes on meanwhile
    config = read_config(options.workdir)
    if options.data_root is not None:
        config.data.root = options.data_root
    with _listening(options.port) as opened:
        album = open_album(config, options.workdir)
        with _held(options.workdir):
            server.serve(album, Ledger(options.workdir), config.title, opened)
    return 0


def open_album(config: ConfigDict, workdir: Path) -> Album:
    """The photos of a run that have scores; measures their doubt where that was not done before.

    Raises:
        ValueError: the run has no scores yet, the photos are not where they were, or they are others.
    """
    scores = doubt.scores_place(workdir)
    if scores is None:
        raise ValueError(
            f"{workdir} has no scores to make masks of yet; run `ssenet run --stages=propagate` there first"
        )
    split = config.data.train_split
    source = datasets.load(config.data, split)
    check_classes(workdir, source.class_names)
    if changed := doubt.changed_since(workdir, split, source):
        raise ValueError(
            f"{workdir} holds masks of other photos: {len(changed)} changed since ({quoted(changed[0])}); put them"
            " back, or run again in another --workdir and review that"
        )
    doubts = doubt.measure_all(workdir, config.labels, {split: source})
    if not doubts:
        raise ValueError(f"none of the {len(source)} photos in {config.data.root or '.'} has scores in {scores.folder}")
    return Album(workdir, config, source, scores, doubts)


@contextlib.contextmanager
def _held(workdir: Path):
    """Keeps a second review away; a run may go on meanwhile."""
    try:
        with artifacts.locked(workdir / REVIEWED):
            artifacts.remove_partial(workdir / REVIEWED, ())
            yield
    except BlockingIOError:
        raise BlockingIOError(f"another review of {workdir} is open; use its page, or end it") from None


def _listening(port: int) -> socket.socket:
    if not 0 <= port <= 65535:
        raise ValueError(f"--port is {port}; it must be 0 to 65535")
    try:
        return socket.create_server(("127.0.0.1", port))
    except OSError as error:
        raise OSError(f"cannot serve on port {port} ({error.strerror}); leave out --port to take a free one") from error
