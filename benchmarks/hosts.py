"""Runs the tiny scenes pipeline as 1 process with 8 devices and as 2 processes with 4 each, and compares the metrics.

python benchmarks/hosts.py
"""

import argparse
import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

from ssenet_jax.artifacts import read_json

CONFIG = Path(__file__).parents[1] / "configs" / "scenes.py"


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    with tempfile.TemporaryDirectory() as folder:
        runs = [_run(Path(folder) / str(processes), processes) for processes in (1, 2)]
    print(f"{'metric':<36}{'1 x 8':>8}{'2 x 4':>8}")
    for name in sorted(runs[0].keys() | runs[1].keys()):
        print(f"{name:<36}" + "".join(f"{run[name]:>8.4f}" if name in run else f"{'absent':>8}" for run in runs))


def _run(workdir: Path, processes: int) -> dict[str, float]:
    """The mIoU of every stage and split."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        coordinator = f"localhost:{free.getsockname()[1]}"
    environment = {
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={8 // processes}",
        "JAX_COMPILATION_CACHE_DIR": str(workdir.parent / "programs"),
    }
    command = [sys.executable, "-m", "ssenet_jax", "run", f"--config={CONFIG}:tiny", f"--workdir={workdir}"]
    command += [f"--coordinator={coordinator}", f"--num_processes={processes}"]
    started = [
        subprocess.Popen([*command, f"--process_id={index}"], env={**os.environ, **environment})
        for index in range(processes)
    ]
    codes = [process.wait() for process in started]
    if any(codes):
        raise RuntimeError(f"the processes ended with {codes}")
    found = {path.stem: read_json(path) for path in (workdir / "metrics").glob("*.json")}
    return {name: record["miou"] for name, record in found.items() if "miou" in record}


if __name__ == "__main__":
    main()
