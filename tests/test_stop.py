"""Signals: a flag while a run works, an end at the second Ctrl-C, and what closed streams and other commands do."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from ssenet_jax import main as command
from ssenet_jax.training import hosts, stop


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGHUP, 0), (signal.SIGINT, 130)])
def test_a_signal_raises_nothing_and_is_seen_where_it_is_looked_for(tmp_path, number, code):
    with stop.listening():
        hosts.leave_if_told("CAM, train", tmp_path)
        os.kill(os.getpid(), number)
        time.sleep(0.01)  # nothing is raised here, nor in a library
        with pytest.raises(stop.Preempted, match=f"CAM, train was stopped; what it wrote stays in {tmp_path}"):
            hosts.leave_if_told("CAM, train", tmp_path)
        with pytest.raises(stop.Preempted, match="stopped at the end of infer_cams; run the same command again"):
            hosts.wait_for_all("end of infer_cams")
        assert stop.exit_code() == code
    assert not stop.requested() and not hosts.told_to_stop()


def test_handlers_are_put_back_and_what_is_ignored_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup leaves it
    try:
        with stop.listening():
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
            assert signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    finally:
        signal.signal(signal.SIGHUP, before)


def test_another_thread_listens_to_nothing():
    handler = signal.getsignal(signal.SIGTERM)

    def listen():
        with stop.listening():
            seen.append(signal.getsignal(signal.SIGTERM))

    seen = []
    thread = threading.Thread(target=listen)
    thread.start()
    thread.join()
    assert seen == [handler]


SECOND = """
import os, signal, time
from ssenet_jax.training.stop import listening
with listening():
    for _ in range(2):
        try:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.01)
        except BaseException:
            print("raised")
    time.sleep(60)
"""


def test_the_second_ctrl_c_ends_at_once_with_one_line():
    ended = subprocess.run([sys.executable, "-c", SECOND], capture_output=True, text=True)
    assert ended.returncode == 130 and ended.stdout == ""
    assert ended.stderr == "ssenet: stopped at once; run the same command again to go on\n"


def test_ctrl_c_in_a_command_that_only_reads_is_one_line(monkeypatch, capsys):
    def interrupted(argv):
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "_run", interrupted)
    assert command.main(["verify-data", "--config=scenes"]) == 130
    assert capsys.readouterr().err == "ssenet: stopped\n"


CLOSED = """
import os, sys
from ssenet_jax.main import _open_streams
_open_streams()
print("lost", file=sys.stderr, flush=True)
file = open(sys.argv[1], "wb")
assert file.fileno() > 2, file.fileno()
os.write(2, b"from a library")
from ssenet_jax.training.logs import Progress, say
say("lost too")
with Progress("x", 4) as progress:
    progress.advance(4)
"""


def test_a_closed_standard_error_stops_nothing_and_gets_into_no_file(tmp_path):
    shell = f'exec "{sys.executable}" -c "$CODE" "{tmp_path / "file"}" 2>&- 0<&-'
    ended = subprocess.run(["sh", "-c", shell], env={**os.environ, "CODE": CLOSED}, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stdout
    assert (tmp_path / "file").read_bytes() == b""


@pytest.mark.parametrize("words", [["--workdir="], ["--workdir", " "]])
def test_an_empty_workdir_is_refused(words, capsys):
    with pytest.raises(SystemExit) as ended:
        command.main(["run", "--config=scenes", *words])
    assert ended.value.code == 2
    assert "argument --workdir: it is empty, as a variable that is not set leaves it" in capsys.readouterr().err
