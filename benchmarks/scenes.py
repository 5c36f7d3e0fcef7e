"""The whole pipeline on scenes for several seeds, of the drawing and of the training: mean and range of each figure.

    python benchmarks/scenes.py [--seeds=3] [--folder=runs/seeds]

A run that the folder already holds is not made again.
"""

import argparse
import subprocess
import sys
from pathlib import Path

from timing import report

from ssenet_jax.artifacts import read_json
from ssenet_jax.stages.table import BASELINE_CAMS, CAMS, LABELS, PREDICTIONS, SEEDS, WALKS

CONFIG = Path(__file__).parents[1] / "configs" / "scenes.py"
ROWS = {
    "baseline CAM": (BASELINE_CAMS, ("train", "test")),
    "SSENet CAM": (CAMS, ("train", "test")),
    "CRF seeds": (SEEDS, ("train",)),
    "random walk": (WALKS, ("train",)),
    "labels": (LABELS, ("train",)),
    "DeepLab": (PREDICTIONS, ("test",)),
}


def mean_and_range(fractions: list[float | None]) -> str:
    """In percent, over the seeds for which the figure is defined."""
    values = [100 * fraction for fraction in fractions if fraction is not None]
    return f"{sum(values) / len(values):.1f} ({min(values):.1f} to {max(values):.1f})" if values else "undefined"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=Path("runs/seeds"))
    arguments = parser.parse_args()
    workdirs = [arguments.folder / str(seed) for seed in range(arguments.seeds)]
    for seed, workdir in enumerate(workdirs):
        command = [sys.executable, "-m", "ssenet_jax", "run", f"--config={CONFIG}", f"--workdir={workdir}"]
        subprocess.run([*command, f"--config.seed={seed}", f"--config.data.scenes.seed={seed}"], check=True)
    rows = []
    for name, (stage, splits) in ROWS.items():
        for split in splits:
            found = [read_json(workdir / "metrics" / f"{stage}.{split}.json") for workdir in workdirs]
            row = {"stage": name, "split": f"{split} ({found[0]['num_images']})"}
            for title, key in (("mIoU, %", "miou"), ("mFN, %", "m_fn"), ("mFP, %", "m_fp")):
                row[title] = mean_and_range([one[key] for one in found])
            row["alpha"] = ", ".join("" if one["alpha"] is None else f"{one['alpha']:g}" for one in found)
            rows.append(row)
    report("scenes", rows, f"{arguments.seeds} seeds; mean (range).")


if __name__ == "__main__":
    main()
