"""The whole pipeline for several seeds: mean and range of each stage's figures.

    python benchmarks/masks.py scenes [--seeds=3] [--folder=runs/seeds]
    python benchmarks/masks.py voc12_lite:fast --config.data.root=/data/VOCdevkit

The seeds are of the trainings, and for scenes of the drawing too. What the folder already holds is not made again.
"""

import argparse
import subprocess
import sys
from pathlib import Path

from timing import report

from ssenet_jax.artifacts import read_json
from ssenet_jax.stages.table import TABLE


def mean_and_range(fractions: list[float | None]) -> str:
    """In percent, over the seeds for which the figure is defined."""
    values = [100 * fraction for fraction in fractions if fraction is not None]
    return f"{sum(values) / len(values):.1f} ({min(values):.1f} to {max(values):.1f})" if values else "undefined"


def rows_of(workdirs: list[Path]) -> list[dict]:
    """One row for each stage and split that every run has scored."""
    rows = []
    for name, stage in TABLE.items():
        for path in sorted((workdirs[0] / "metrics").glob(f"{name}.*.json")):
            files = [workdir / "metrics" / path.name for workdir in workdirs]
            if not all(file.exists() for file in files) or "miou" not in read_json(path):
                continue
            found = [read_json(file) for file in files]
            row = {"stage": stage.title, "split": f"{found[0]['split']} ({found[0]['num_images']})"}
            for title, key in (("mIoU, %", "miou"), ("mFN, %", "m_fn"), ("mFP, %", "m_fp")):
                row[title] = mean_and_range([one[key] for one in found])
            row["alpha"] = ", ".join("" if one["alpha"] is None else f"{one['alpha']:g}" for one in found)
            rows.append(row)
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", help="as ssenet run --config takes it")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=Path("runs/seeds"))
    arguments, words = parser.parse_known_args()
    workdirs = [arguments.folder / str(seed) for seed in range(arguments.seeds)]
    for seed, workdir in enumerate(workdirs):
        command = [sys.executable, "-m", "ssenet_jax", "run", f"--config={arguments.config}", f"--workdir={workdir}"]
        seeds = [f"--config.seed={seed}", f"--config.data.scenes.seed={seed}"]
        subprocess.run([*command, *seeds, *words], check=True)
    subject = arguments.config.replace(":", "-")
    settings = [word for word in words if ".root=" not in word]
    report(subject, rows_of(workdirs), " ".join([f"{arguments.seeds} seeds; mean (range).", *settings]))


if __name__ == "__main__":
    main()
