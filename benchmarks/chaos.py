"""Stops the tiny scenes pipeline at random instants in all its stages, goes on, and compares with a run left alone.

    python benchmarks/chaos.py --signals=40 --processes=1 --seed=0

SIGTERM, SIGINT and SIGKILL take turns; every second one comes early in its stage, where models and checkpoints are
read. With several processes SIGTERM and SIGINT go to one of them, SIGKILL to all. After each signal the exit codes must
be 0, 130 and -9, nothing may print a traceback, and no process may be left. In the end every artifact, metric, log and
checkpoint must be the same, the speed in the logs aside. Exit code 1 when anything is not.
"""

import argparse
import contextlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ssenet_jax.artifacts import read_json, read_mask
from ssenet_jax.checkpoint import load_variables
from ssenet_jax.commands.configs import load_config
from ssenet_jax.stages import doubt
from ssenet_jax.stages.table import asked_for
from ssenet_jax.training.optim import flatten

CONFIG = f"{Path(__file__).parents[1] / 'configs' / 'scenes.py'}:tiny"
KINDS = (signal.SIGTERM, signal.SIGINT, signal.SIGKILL)
# a run that is done, and whose interpreter is ending, ends by SIGINT itself; a shell calls that 130 too
CODES = {signal.SIGTERM: {0}, signal.SIGINT: {0, 130, -signal.SIGINT}, signal.SIGKILL: {0, -signal.SIGKILL}}
EARLY_S, PATIENCE_S = 2.0, 300


class Stop(NamedTuple):
    """A signal, and when it comes: so long after the stage begins, or the first one after it that is not done yet."""

    kind: signal.Signals
    stage: str
    delay: float


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--signals", type=int, default=20)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, default=None, help="kept; by default a temporary one")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = (options.folder or Path(temporary)).absolute()
        return _compare(folder, options.signals, options.processes, random.Random(options.seed))


def _compare(folder: Path, count: int, processes: int, rng: random.Random) -> int:
    # both runs take their programs from one cache, and the first leaves it warm for the times of the second
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(folder / "programs"))
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    stages = asked_for(load_config(CONFIG, []))
    Run(folder / "warm", processes, stages).to_its_end()
    seconds = Run(folder / "alone", processes, stages).to_its_end()
    print("undisturbed: " + ", ".join(f"{stage} {seconds[stage]:.1f} s" for stage in stages), flush=True)
    wrong = 0
    for number, stage in enumerate(sorted((stages[i % len(stages)] for i in range(count)), key=stages.index)):
        longest = min(EARLY_S, seconds[stage]) if number % 2 else 0.9 * seconds[stage]
        stop = Stop(KINDS[number % len(KINDS)], stage, rng.uniform(0, longest))
        told, faults = Run(folder / "stopped", processes, stages).stopped_by(stop, rng)
        wrong += bool(faults)
        print(f"{number + 1:2} {stop.kind.name:<7} {told}" + "".join(f"; WRONG: {f}" for f in faults), flush=True)
    Run(folder / "stopped", processes, stages).to_its_end()
    differing = _report(_results(folder / "alone"), _results(folder / "stopped"))
    print(f"{count} signals to {processes} process(es): {wrong} ended otherwise than they should")
    return 1 if wrong or differing else 0


class Run:
    """One start of the pipeline, in one or several processes of one group."""

    def __init__(self, workdir: Path, processes: int, stages: tuple[str, ...]):
        self.stages, self.output = stages, workdir.parent / f"{workdir.name}.out"
        command = [sys.executable, "-m", "ssenet_jax", "run", f"--config={CONFIG}", f"--workdir={workdir}"]
        if processes > 1:
            with socket.socket() as free:
                free.bind(("localhost", 0))
                address = f"localhost:{free.getsockname()[1]}"
            command += [f"--coordinator={address}", f"--num_processes={processes}"]
        self.output.parent.mkdir(parents=True, exist_ok=True)
        with self.output.open("w") as others:
            streams = {"stdout": others, "stderr": subprocess.PIPE, "text": True}
            first = [] if processes == 1 else ["--process_id=0"]
            self.started = [subprocess.Popen([*command, *first], **streams, process_group=0)]
            self.group = self.started[0].pid
            for index in range(1, processes):
                streams = {"stdout": others, "stderr": others, "process_group": self.group}
                self.started.append(subprocess.Popen([*command, f"--process_id={index}"], **streams))

    def to_its_end(self) -> dict[str, float]:
        """The seconds of each stage; raises when the run fails."""
        began, lines = {}, []
        for line in self.started[0].stderr:
            lines.append(line)
            if line.strip() in self.stages:
                began[line.strip()] = time.monotonic()
        codes = [process.wait() for process in self.started]
        if any(codes):
            told = "".join(lines[-20:]) + self.output.read_text()[-2000:]
            raise RuntimeError(f"the run ended with {codes}:\n{told}")
        ends = [*began.values(), time.monotonic()][1:]
        return {name: end - start for (name, start), end in zip(began.items(), ends, strict=True)}

    def stopped_by(self, stop: Stop, rng: random.Random) -> tuple[str, list[str]]:
        """Where the signal came, and what was wrong with what followed."""
        last, lines, first = "start", [], self.started[0]
        for line in first.stderr:
            lines.append(line)
            last = line.strip() if line.strip() in self.stages else last
            if last in self.stages[self.stages.index(stop.stage) :]:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    first.wait(stop.delay)
                break
        told = rng.choice(self.started)
        came = told.poll() is None
        for process in self.started if stop.kind == signal.SIGKILL else [told]:
            if process.poll() is None:
                process.send_signal(stop.kind)
        faults = self._after(stop.kind, told, came, lines)
        if last == "start" and faults == [f"exit code {-stop.kind}"]:
            faults = []  # before Python has read the package, or when all is done, a process ends by the signal itself
        return f"{stop.delay:5.2f} s into {last}" + ("" if came else ": it had ended before"), faults

    def _after(self, kind: signal.Signals, told: subprocess.Popen, came: bool, lines: list[str]) -> list[str]:
        faults = []
        try:
            lines += self.started[0].communicate(timeout=PATIENCE_S)[1].splitlines(keepends=True)
            codes = {process: process.wait(PATIENCE_S) for process in self.started}
        except subprocess.TimeoutExpired:
            codes = {}
            faults.append(f"still running after {PATIENCE_S} s")
        for process, code in codes.items():
            allowed = CODES[kind] if process is told or kind == signal.SIGKILL else {0}
            if code not in allowed:
                faults.append(f"exit code {code}")
        text = "".join(lines) + self.output.read_text()
        if "Traceback" in text:
            faults.append("a traceback: " + text[text.index("Traceback") :][:2000])
        if came and codes and kind != signal.SIGKILL and text.count("run the same command again") > len(self.started):
            faults.append("more than one line a process")
        faults += self._left_over()
        return faults

    def _left_over(self) -> list[str]:
        """Ends what is left of the group, workers included, and says so; a killed parent's have a moment to notice."""
        end = time.monotonic() + 10
        while time.monotonic() < end:
            try:
                os.killpg(self.group, 0)
            except ProcessLookupError:
                return []
            time.sleep(0.1)
        os.killpg(self.group, signal.SIGKILL)
        return ["processes were left"]


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
        elif name == doubt.FILE:  # beside what was measured it holds the times of the files
            found[name] = {image: entry["doubt"] for image, entry in read_json(path).items()}
        elif path.suffix == ".json" and "checkpoints" not in path.parts:
            found[name] = read_json(path)
        elif not {"checkpoints", "tensorboard"} & set(path.parts):
            found[name] = None  # a file that must be there, and no other
    for training in sorted((workdir / "checkpoints").iterdir()):
        # which steps before the last are kept depends on where a signal made the training save
        variables = flatten(load_variables(training, training.name))
        found[f"checkpoints/{training.name}"] = {key: value.tobytes() for key, value in variables.items()}
    return found


def _report(alone: dict, stopped: dict) -> int:
    for name in sorted(alone.keys() | stopped.keys()):
        if name not in stopped or name not in alone:
            print(f"only in the run {'left alone' if name in alone else 'that was stopped'}: {name}")
        elif alone[name] != stopped[name]:
            print(f"different: {name}")
    same = [name for name in alone if name in stopped and alone[name] == stopped[name]]
    differing = len(alone.keys() | stopped.keys()) - len(same)
    print(f"{len(same)} files and checkpoints are the same, {differing} differ")
    return differing


if __name__ == "__main__":
    sys.exit(main())
