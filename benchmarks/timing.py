"""What the benchmarks share: timing in turn, so that what else the machine does falls on all alike, and the tables."""

import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np

SETTLE = 0.3  # seconds between two ways: threads that a library leaves spinning would take cores from the next one
RESULTS = Path(__file__).parent / "results"
DATA = Path(os.environ.get("SSENET_DATA", Path(__file__).parents[2] / "shared"))


def in_turn(ways: dict[str, Callable], repeats: int = 5) -> dict[str, list[float]]:
    """Seconds of each way, A B A B .., after two calls of each that are not counted; waits for jax's results.

    The second call of a training step compiles again, for the state that the first one placed.
    """
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for way in ways.values():
        jax.block_until_ready(way())
        jax.block_until_ready(way())
    for _ in range(repeats):
        for name, way in ways.items():
            time.sleep(SETTLE)
            start = time.perf_counter()
            jax.block_until_ready(way())
            seconds[name].append(time.perf_counter() - start)
    return seconds


def spread(values: list[float]) -> str:
    """Median and range, to three figures."""
    return f"{statistics.median(values):.3g} ({min(values):.3g} to {max(values):.3g})"


def ratios(seconds: dict[str, list[float]], name: str, baseline: str) -> list[float]:
    """How many times faster than the baseline, round by round."""
    return [other / own for own, other in zip(seconds[name], seconds[baseline], strict=True)]


def report(subject: str, rows: list[dict], note: str) -> None:
    """Prints the rows as a table and writes them, with the machine they were measured on; no file for no subject."""
    names = list(rows[0])
    print(f"| {' | '.join(names)} |\n|{'---|' * len(names)}")
    for row in rows:
        print(f"| {' | '.join(str(row[name]) for name in names)} |")
    print(note)
    if not subject:
        return
    RESULTS.mkdir(exist_ok=True)
    record = {"subject": subject, "machine": machine(), "note": note, "rows": rows}
    (RESULTS / f"{subject}.json").write_text(json.dumps(record, indent=1) + "\n")


def machine() -> dict:
    """What the figures depend on."""
    return {
        "device": jax.devices()[0].device_kind,
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "load": round(os.getloadavg()[0], 1),
        "python": platform.python_version(),
        "jax": jax.__version__,
        "numpy": np.__version__,
        "malloc": os.environ.get("GLIBC_TUNABLES", ""),
    }


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def photos(split: str, limit: int) -> list[np.ndarray]:
    """Up to `limit` photos of a VOC split, evenly over its list."""
    from PIL import Image

    voc = DATA / "VOCdevkit" / "VOC2012"
    if not voc.is_dir():
        raise SystemExit(f"there are no photos in {voc}; set SSENET_DATA to the folder that holds VOCdevkit")
    ids = (voc / "ImageSets" / "Segmentation" / f"{split}.txt").read_text().split()
    chosen = ids[:: max(1, len(ids) // limit)][:limit]
    return [np.array(Image.open(voc / "JPEGImages" / f"{name}.jpg").convert("RGB")) for name in chosen]
