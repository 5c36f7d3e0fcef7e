"""Where compiled programs are kept."""

import os

import jax
import pytest

from ssenet_jax import cache


@pytest.fixture
def restored():
    before = jax.config.jax_compilation_cache_dir
    yield
    jax.config.update("jax_compilation_cache_dir", before)


def test_compiled_programs_lie_in_the_users_cache_unless_the_environment_says_where(restored, monkeypatch):
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", "/elsewhere")
    cache.keep_compiled()
    assert jax.config.jax_compilation_cache_dir == "/elsewhere/ssenet_jax/compiled"
    monkeypatch.delenv("XDG_CACHE_HOME")
    cache.keep_compiled()
    assert jax.config.jax_compilation_cache_dir == os.path.expanduser("~/.cache/ssenet_jax/compiled")
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "")
    jax.config.update("jax_compilation_cache_dir", None)
    cache.keep_compiled()
    assert jax.config.jax_compilation_cache_dir is None
