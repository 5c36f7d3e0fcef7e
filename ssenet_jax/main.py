"""The command ``ssenet``: flags, config, dispatch."""

import argparse
import difflib
import logging
import sys
from collections.abc import Callable
from pathlib import Path

from absl import flags
from ml_collections import ConfigDict, config_flags

from ssenet_jax.artifacts import flatten

RUN_HELP = """\
Runs the stages of an experiment, each where it stopped. Keys of the config are set with --config.KEY=VALUE:
  ssenet run --config=configs/scenes.py --workdir=runs/scenes --config.ser.rate=0.4
"""
PREDICT_HELP = """\
Segments photos with the network that a run trained: NAME.png holds class indices, NAME_overlay.jpg shows them.
  ssenet predict --config=configs/folder.py --config.data.root=photos --workdir=runs/photos --out=masks *.jpg
"""
VERIFY_HELP = """\
Reads every image, mask and list that the config's section data names, and prints a table of what is wrong. The exit
code is 1 when something is. Keys of the config are set with --config.KEY=VALUE.
"""
IMPORT_HELP = """\
Reads and checks a weight file (.params of MXNet, .pth or .pt of PyTorch, .npz; or the name efficientnet_lite0 for the
packaged one) and writes a checkpoint, which --config.init.weights=DIR then names.
  ssenet import-weights ilsvrc-cls_rna-a1_cls1000_ep-0001.params --model=cam --allow_missing=fc8 --out=weights/resnet38
cam, affinity and segmenter are the networks on ResNet-38, cam and segmenter with as many classes as the file's fc8 has.
"""
PLAN_HELP = """\
Compiles a training step for TPUs that are not here (pip install ssenet_jax[plan]) and prints what it takes of each
device. With --topology=cuda:h100x8 the step is only lowered: the compiler's figures stay open.
"""


def console() -> None:
    """Entry point of the console command."""
    sys.exit(main(sys.argv[1:]))


def main(argv: list[str]) -> int:
    """Runs one command.

    Returns:
        The exit code: 0, also after a preemption that can be continued; 2 for bad input, with one line on stderr.
    """
    options, overrides = _parser().parse_known_args(argv)
    logging.getLogger("absl").setLevel(logging.ERROR)  # orbax tells of each checkpoint it opens
    try:
        return options.command(options, overrides)
    except (ValueError, OSError) as error:
        if options.traceback:
            raise
        print(f"ssenet: {' '.join(str(error).split())}", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    about = "From image-level labels to masks and a segmentation network."
    parser = argparse.ArgumentParser(prog="ssenet", description=about, allow_abbrev=False)
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    run = _configured(commands, "run", _run, "run the stages of a config", RUN_HELP)
    run.add_argument("--workdir", required=True, type=Path, help="where everything is written; a rerun goes on there")
    run.add_argument("--stages", default="", help="comma-separated; default: config.stages")
    run.add_argument("--coordinator", default="", metavar="HOST:PORT", help="process 0; found on Cloud TPU and Slurm")
    run.add_argument("--process_id", default=-1, type=int, metavar="I", help="of this process, counted from 0")
    run.add_argument("--num_processes", default=0, type=int, metavar="N", help="processes of the run")

    predict = _configured(commands, "predict", _predict, "segment photos with a trained network", PREDICT_HELP)
    predict.add_argument("--workdir", required=True, type=Path, help="the workdir of the run")
    predict.add_argument("--out", required=True, type=Path, help="folder for the results, made when absent")
    predict.add_argument("photos", nargs="+", type=Path)

    _configured(commands, "verify-data", _verify_data, "read every file of a data set", VERIFY_HELP)

    plan = _configured(commands, "plan", _plan, "what a training takes on chips that are not here", PLAN_HELP)
    plan.add_argument("--topology", required=True, help="a TPU topology such as v5e:4x4, or cuda:h100x8")
    plan.add_argument("--training", default="classifier", help="baseline, classifier, affinity or segmenter")

    weights = _command(commands, "import-weights", _import_weights, "turn a weight file into a checkpoint", IMPORT_HELP)
    weights.add_argument("file", help="the weight file")
    weights.add_argument("--model", required=True, help="cam, affinity, segmenter or efficientnet_lite0")
    weights.add_argument("--out", required=True, type=Path, metavar="DIR", help="folder of the checkpoint; must be new")
    weights.add_argument("--allow_missing", default="", metavar="NAMES", help="modules that FILE may lack: fc8,...")
    return parser


def _command(commands, name: str, function: Callable, summary: str, description: str) -> argparse.ArgumentParser:
    command = commands.add_parser(
        name,
        help=summary,
        description=description,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_argument("--traceback", action="store_true", help="show the whole traceback of an error")
    command.set_defaults(command=function)
    return command


def _configured(commands, *arguments) -> argparse.ArgumentParser:
    """A command that reads a config."""
    command = _command(commands, *arguments)
    command.add_argument("--config", required=True, metavar="FILE[:ARG]", help="a config file, ARG to its get_config")
    return command


def load_config(path: str, overrides: list[str]) -> ConfigDict:
    """Reads a config file and applies ``--config.KEY=VALUE`` overrides.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a key that the config does not have (the nearest one is named), or a value of the wrong type.
    """
    file = path.partition(":")[0]
    if not Path(file).is_file():
        raise FileNotFoundError(f"the config {file} does not exist; give the path of one of the files in configs/")
    _refuse([word for word in overrides if not word.startswith("--config.")])
    known = _parse([f"--config={path}"])
    _check_keys(known, overrides)
    return _parse([f"--config={path}", *overrides])


def _refuse(stray: list[str]) -> None:
    if stray:
        raise ValueError(f"{stray[0]} is not an option of this command; --help after its name lists them")


def _parse(arguments: list[str]) -> ConfigDict:
    values, words = flags.FlagValues(), ["ssenet", *arguments]
    config_flags.DEFINE_config_file("config", flag_values=values, sys_argv=words)
    try:
        values(words)
    except (flags.Error, TypeError, ValueError) as error:
        raise ValueError(f"{' '.join(arguments)}: {error}") from error
    return values["config"].value


def _check_keys(config: ConfigDict, overrides: list[str]) -> None:
    known = flatten(config)
    for override in overrides:
        key, separator, _ = override.removeprefix("--config.").partition("=")
        base = key.partition("[")[0]
        if not separator:
            raise ValueError(f"{override} has no value; write --config.{key}=VALUE")
        if base not in known:
            near = difflib.get_close_matches(base, known, n=1, cutoff=0.0)
            raise ValueError(f"the config has no key {base}; the nearest is {near[0]}")


def _run(options: argparse.Namespace, overrides: list[str]) -> int:
    config = load_config(options.config, overrides)
    flags.FLAGS.mark_as_parsed()  # grain reads absl flags
    from ssenet_jax.training import hosts

    hosts.join(options.coordinator, options.process_id, options.num_processes)
    from ssenet_jax.stages.table import run_stages
    from ssenet_jax.training.loop import Preempted

    names = tuple(name for name in options.stages.split(",") if name) or tuple(config.stages)
    try:
        run_stages(config, options.workdir, names)
    except Preempted as stopped:
        print(stopped)
    return 0


def _verify_data(options: argparse.Namespace, overrides: list[str]) -> int:
    config = load_config(options.config, overrides)
    from ssenet_jax.commands import verify

    found = list(verify.faults(config.data))
    print(verify.table(found) if found else "nothing is wrong")
    return 1 if found else 0


def _plan(options: argparse.Namespace, overrides: list[str]) -> int:
    config = load_config(options.config, overrides)
    import jax

    jax.config.update("jax_platforms", "cpu")  # or libtpu, where it is installed, looks for a TPU first
    from ssenet_jax.commands import plan

    print(plan.table(plan.plan(config, options.topology, options.training)))
    return 0


def _import_weights(options: argparse.Namespace, overrides: list[str]) -> int:
    _refuse(overrides)
    from ssenet_jax.pretrained.convert import import_weights

    modules = tuple(name for name in options.allow_missing.split(",") if name)
    written = import_weights(options.file, options.model, options.out, allow_missing=modules)
    print(f"{options.out}: {written} arrays")
    return 0


def _predict(options: argparse.Namespace, overrides: list[str]) -> int:
    config = load_config(options.config, overrides)
    from ssenet_jax.commands.predict import predict

    predict(config, options.workdir, options.photos, options.out)
    return 0
