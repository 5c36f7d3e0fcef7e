"""Kills the tiny scenes pipeline at random instants in all its stages, goes on, and compares with a run left alone.

    python benchmarks/chaos.py --kills=20 --seed=0

Every artifact, metric, log and checkpoint must be the same, the speed in the logs aside. Exit code 1 when one is not.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from ssenet_jax.artifacts import read_json, read_mask
from ssenet_jax.checkpoint import load_variables
from ssenet_jax.config import BASELINE_STAGES, STAGES
from ssenet_jax.training.optim import flatten

CONFIG = Path(__file__).parents[1] / "configs" / "scenes.py"
NAMED = (*BASELINE_STAGES, *STAGES[:-2])  # stages that say that they begin


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, default=None, help="kept; by default a temporary one")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        return _compare(options.folder or Path(temporary), options.kills, random.Random(options.seed))


def _compare(folder: Path, kills: int, rng: random.Random) -> int:
    # both runs take their programs from one cache, and the first leaves it warm for the times of the second
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(folder / "programs"))
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    _run(folder / "warm")
    seconds = _run(folder / "alone")
    print("undisturbed: " + ", ".join(f"{stage} {seconds[stage]:.1f} s" for stage in NAMED))
    targets = sorted((NAMED[i % len(NAMED)] for i in range(kills)), key=NAMED.index)
    for number, stage in enumerate(targets, 1):
        where = _run(folder / "killed", stage, rng.uniform(0, 0.9 * seconds[stage]))
        print(f"kill {number:2} {where}", flush=True)
    _run(folder / "killed")
    return _report(_results(folder / "alone"), _results(folder / "killed"))


def _run(workdir: Path, stage: str = "", delay: float = 0.0):
    """Runs the pipeline: each stage's seconds. Or kills it `delay` seconds into a stage, or into the first one after it
    that is not done yet: a line that says so."""
    command = [sys.executable, "-m", "ssenet_jax", "run", f"--config={CONFIG}:tiny", f"--workdir={workdir}"]
    streams = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen(command, **streams, start_new_session=True)
    began, last, output = {}, "start", []
    for line in process.stderr:
        output.append(line)
        if line.strip() in NAMED:
            last = line.strip()
            began[last] = time.monotonic()
        if stage and last in NAMED[NAMED.index(stage) :]:
            try:
                process.wait(delay)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
            break
    rest = process.stderr.read().splitlines()
    code = process.wait()
    if stage and code == -signal.SIGKILL:
        passed = [line for line in rest if line.strip() in NAMED]
        return f"{delay:5.2f} s into {last}" + (f", then in {passed[-1].strip()}" if passed else "")
    if code != 0:
        raise RuntimeError(f"the run ended with {code}:\n" + "".join(output[-20:]) + "\n".join(rest[-20:]))
    if stage:
        return f"{delay:5.2f} s into {stage}: it had ended before"
    ends = [*began.values(), time.monotonic()][1:]
    return {name: end - start for (name, start), end in zip(began.items(), ends, strict=True)}


def _results(workdir: Path) -> dict:
    """All that a run wrote, by path; arrays and JSON by what they hold."""
    found = {}
    for path in sorted(path for path in workdir.rglob("*") if path.is_file()):
        name = str(path.relative_to(workdir))
        if path.suffix == ".npz":
            with np.load(path) as file:
                found[name] = {key: (file[key].shape, file[key].tobytes()) for key in file}
        elif path.suffix == ".png":
            found[name] = read_mask(path).tobytes()
        elif path.suffix == ".jsonl":
            lines = map(json.loads, path.read_text().splitlines())
            found[name] = [{key: value for key, value in line.items() if key != "images_per_s"} for line in lines]
        elif path.suffix == ".json" and "checkpoints" not in path.parts:
            found[name] = read_json(path)
        elif not {"checkpoints", "tensorboard"} & set(path.parts):
            found[name] = None  # a file that must be there, and no other
    for training in sorted((workdir / "checkpoints").iterdir()):
        found[f"checkpoints/{training.name}"] = sorted(step.name for step in training.iterdir())
        variables = flatten(load_variables(training, training.name))
        found[f"newest of checkpoints/{training.name}"] = {key: value.tobytes() for key, value in variables.items()}
    return found


def _report(alone: dict, killed: dict) -> int:
    for name in sorted(alone.keys() | killed.keys()):
        if name not in killed or name not in alone:
            print(f"only in the run {'left alone' if name in alone else 'that was killed'}: {name}")
        elif alone[name] != killed[name]:
            print(f"different: {name}")
    same = [name for name in alone if name in killed and alone[name] == killed[name]]
    differing = len(alone.keys() | killed.keys()) - len(same)
    print(f"{len(same)} files and checkpoints are the same, {differing} differ")
    return 1 if differing else 0


if __name__ == "__main__":
    sys.exit(main())
