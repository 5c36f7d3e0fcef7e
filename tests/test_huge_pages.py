"""Commands that compute for long start with huge pages where the kernel gives them on request."""

import os
import sys

import pytest

from ssenet_jax import huge_pages, main

RUN = ["ssenet", "run", "--config=scenes", "--workdir=runs/a b"]


class Replaced(Exception):
    """In place of the process that `os.execve` would not return to."""


@pytest.fixture
def replaced(monkeypatch, tmp_path):
    """What the process was replaced by, on a machine whose kernel waits to be asked and with no tunables set."""
    calls = []

    def execve(*call):
        calls.append(call)
        raise Replaced

    kernel = tmp_path / "enabled"
    kernel.write_text("always [madvise] never\n")
    monkeypatch.setattr(huge_pages, "_KERNEL", kernel)
    monkeypatch.setattr(huge_pages.platform, "libc_ver", lambda: ("glibc", "2.36"))
    monkeypatch.setattr(os, "execve", execve)
    monkeypatch.setattr(main, "main", lambda argv: 0)
    monkeypatch.setattr(main.signal, "signal", lambda *_: None)
    monkeypatch.setattr(main, "_open_streams", lambda: None)
    monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
    return calls


def start(monkeypatch, words):
    monkeypatch.setattr(sys, "argv", words)
    monkeypatch.setattr(sys, "orig_argv", ["/usr/bin/python", "-X", "dev", *words])
    with pytest.raises((Replaced, SystemExit)):
        main.console()


def test_the_same_words_are_started_again_with_huge_pages(monkeypatch, replaced):
    start(monkeypatch, RUN)
    ((program, words, environment),) = replaced
    assert (program, words) == (sys.executable, [sys.executable, "-X", "dev", *RUN])
    assert environment == {**os.environ, "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}


def test_what_a_person_set_stays(monkeypatch, replaced):
    monkeypatch.setenv("GLIBC_TUNABLES", "")
    start(monkeypatch, RUN)
    assert not replaced


@pytest.mark.parametrize("state", ["[always] madvise never\n", "always madvise [never]\n", None])
def test_a_kernel_that_need_not_be_asked_is_not_asked(monkeypatch, replaced, state):
    huge_pages._KERNEL.write_text(state) if state else huge_pages._KERNEL.unlink()
    start(monkeypatch, RUN)
    assert not replaced


@pytest.mark.parametrize("words", [["ssenet"], ["ssenet", "configs"], ["ssenet", "nothing"]])
def test_short_commands_start_once(monkeypatch, replaced, words):
    start(monkeypatch, words)
    assert not replaced
