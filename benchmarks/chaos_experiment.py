"""Kills two shards of an experiment at random instants, goes on, and compares what is left with a run left alone.

    python benchmarks/chaos_experiment.py --kills=10 --seed=0

table2 on tiny scenes, further scaled down. At each kill one of the two shards is killed while the other runs on, and is
started again; where both have ended before all kills are done, the rest is done to a new experiment. Page, CSV, SVG and
PNG must be the same to the byte. Exit code 1 when one is not.
"""

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

CONFIG = Path(__file__).parents[1] / "configs" / "scenes.py"
SMALL = [
    *(f"--config.data.scenes.{key}={count}" for key, count in (("num_train", 6), ("num_test", 2))),
    *(f"--config.classifier.{key}={value}" for key, value in (("steps", 4), ("batch_size", 2))),
    "--config.mesh.data=1",
]
OUTPUTS = (".html", ".csv", ".svg", ".png")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, default=None, help="kept; by default a temporary one")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        return _compare(options.folder or Path(temporary), options.kills, random.Random(options.seed))


def _compare(folder: Path, kills: int, rng: random.Random) -> int:
    # all take their programs from one cache, which the run left alone fills
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(folder / "programs"))
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    _ended(_start(folder / "alone", "0/1"))
    began = time.monotonic()
    _ended(_start(folder / "again", "0/1"))
    alone = time.monotonic() - began
    print(f"left alone, with the programs at hand: {alone:.0f} s", flush=True)
    wanted, done, code = _outputs(folder / "alone"), 0, 0
    while done < kills:
        killed = folder / f"killed_{done}"
        done += _disturb(killed, kills - done, alone, rng)
        code = max(code, _report(wanted, _outputs(killed)))
    return code


def _disturb(workdir: Path, kills: int, alone: float, rng: random.Random) -> int:
    """Runs two shards to their end and kills one or the other on the way, at most so many times; how many it was."""
    shards, done = [_start(workdir, f"{index}/2") for index in range(2)], 0
    while any(shard.poll() is None for shard in shards):
        if done == kills:
            for shard in shards:
                _ended(shard)
            break
        delay = rng.uniform(0.05, 0.4) * alone
        time.sleep(delay)
        running = [index for index in range(2) if shards[index].poll() is None]
        if running:
            index, done = rng.choice(running), done + 1
            os.killpg(shards[index].pid, signal.SIGKILL)
            shards[index].wait()
            print(f"{workdir.name}, kill {done}: shard {index} after {delay:.1f} s", flush=True)
            shards[index] = _start(workdir, f"{index}/2")
    for shard in shards:
        _ended(shard)
    return done


def _start(workdir: Path, shard: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "ssenet_jax", "experiment", "table2", f"--config={CONFIG}:tiny"]
    command += [f"--workdir={workdir}", "--seeds=2", f"--shard={shard}", *SMALL]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)


def _ended(process: subprocess.Popen) -> None:
    if process.wait():
        raise RuntimeError(f"a shard ended with {process.returncode}; run its command by hand: {process.args}")


def _outputs(workdir: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (workdir / "table2").iterdir() if path.suffix in OUTPUTS}


def _report(alone: dict[str, bytes], killed: dict[str, bytes]) -> int:
    for name in sorted(alone.keys() | killed.keys()):
        print(f"{name}: {'the same' if alone.get(name) == killed.get(name) else 'different'}")
    return 0 if alone == killed else 1


if __name__ == "__main__":
    sys.exit(main())
