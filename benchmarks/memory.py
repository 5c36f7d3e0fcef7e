"""Peak memory of training and inference over the number of images: it must not grow with it.

    python benchmarks/memory.py

Each stage runs in a process of its own on tiny scenes, one epoch of training; the figure is its peak resident memory.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from ssenet_jax.stages.table import CAMS, SEEDS, TRAIN_CLASSIFIER

CONFIG = Path(__file__).parents[1] / "configs" / "scenes.py"
STAGES = (TRAIN_CLASSIFIER, CAMS, SEEDS)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, nargs="+", default=[50, 500])
    counts = parser.parse_args().images
    print(f"{'stage':<20}" + "".join(f"{count:>8} images" for count in counts) + f"{'ratio':>8}")
    with tempfile.TemporaryDirectory() as folder:
        for stage in STAGES:
            peaks = [_peak(stage, count, Path(folder) / str(count)) for count in counts]
            row = "".join(f"{peak / 2**20:>11.0f} MiB" for peak in peaks)
            print(f"{stage:<20}{row}{peaks[-1] / peaks[0]:>8.2f}", flush=True)


def _peak(stage: str, count: int, workdir: Path) -> int:
    """The peak resident memory in bytes of one stage on so many scenes."""
    settings = {"data.scenes.num_train": count, "classifier.steps": 0, "classifier.epochs": 1}
    command = [sys.executable, "-m", "ssenet_jax", "run", f"--config={CONFIG}:tiny", f"--workdir={workdir}"]
    command += [f"--stages={stage}", *(f"--config.{key}={value}" for key, value in settings.items())]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{stage} on {count} images ended with {process.returncode}: {' '.join(command)}")
    return usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)


if __name__ == "__main__":
    main()
