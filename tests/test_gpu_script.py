"""`benchmarks/gpu.py` at tiny size, with no more installed than a bare machine has."""

import os
import subprocess
import sys
from pathlib import Path

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
BARE = """
import runpy, sys
ABSENT = {"grain", "tensorflow_datasets", "array_record", "ml_collections", "matplotlib", "tensorboardX", "jaxtyping",
          "pydensecrf", "jinja2"}
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ABSENT:
            raise ModuleNotFoundError(f"{name} is not installed", name=name)
sys.meta_path.insert(0, Finder())
sys.argv = ["gpu.py", "--tiny", "--minutes=60"]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def test_the_script_runs_on_a_bare_machine_and_its_checks_pass():
    quickly = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
    environment = {**os.environ, "XLA_FLAGS": quickly, "PYTHONPATH": f"{BENCHMARKS.parent}{os.pathsep}{BENCHMARKS}"}
    done = subprocess.run(
        [sys.executable, "-c", BARE], cwd=BENCHMARKS, env=environment, capture_output=True, text=True, timeout=3600
    )
    assert done.returncode == 0, done.stderr[-2000:]
    for line in ("| walk, dense |", "| step with SER | 2 |", "| CRF, mean field | 4 |", "| all of these |"):
        assert line in done.stdout, line
    assert "False" not in done.stdout and "no time left" not in done.stdout
