"""What every test runs under: 8 host devices, no silent promotion or broadcasting, shapes checked at call time."""

import atexit
import os
import shutil
import tempfile

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
# Programs are compiled once for all tests, and for the commands that tests start.
_compiled = tempfile.mkdtemp(prefix="ssenet_jax_compiled_")
atexit.register(shutil.rmtree, _compiled, ignore_errors=True)
os.environ["JAX_COMPILATION_CACHE_DIR"] = _compiled
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.5"

from jaxtyping import install_import_hook  # noqa: E402

PURE_MODULES = ("equivariance", "bicubic", "losses", "ser", "cam", "crf", "affinity", "random_walk", "metrics")
install_import_hook([f"ssenet_jax.{module}" for module in PURE_MODULES], "beartype.beartype")

import jax  # noqa: E402
from absl import flags  # noqa: E402

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")
flags.FLAGS.mark_as_parsed()
