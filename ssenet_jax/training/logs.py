"""What a run leaves to look at: metric lines, TensorBoard, and its progress on the screen."""

import contextlib
import json
import os
import sys
import time
from pathlib import Path
from typing import TextIO

import jax
from tensorboardX import SummaryWriter
from tqdm import tqdm

from ssenet_jax.artifacts import write_text


def cut_lines(path: Path, last_step: int) -> None:
    """Removes the lines of a metrics file past a step, and one that was cut off while it was written."""
    if not path.exists():
        return
    kept = [line for line in _lines(path) if _step_of(path, line) <= last_step]
    write_text(path, "".join(kept))


def read_lines(path: str | os.PathLike) -> list[dict]:
    """The metrics of a run, a dict a line, without a line that was cut off.

    Raises:
        ValueError: the file is not what a training wrote.
    """
    path = Path(path)
    return [json.loads(line) for line in _lines(path) if _step_of(path, line) < sys.maxsize]


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines(keepends=True)
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8; move it away, and the training goes on without its lines") from error


def _step_of(path: Path, line: str) -> int:
    """The step of a line; a number above all steps for one that was cut off."""
    try:
        step = json.loads(line)["step"] if line.endswith("\n") else sys.maxsize
    except (ValueError, KeyError):
        return sys.maxsize
    except (TypeError, RecursionError):
        step = None
    if not isinstance(step, int):
        shown = line.strip()[:40]
        raise ValueError(f"{path} holds the line {shown!r}, which no training wrote; delete that line")
    return step


def say(line: str, stream: TextIO | None = None) -> None:
    """Writes a line to standard error; a screen that is closed by now does not stop a run."""
    stream = stream or sys.stderr
    if stream is not None:  # it is None when it was closed before this process began
        with contextlib.suppress(OSError, ValueError):
            print(line, file=stream, flush=True)


class MetricsLog:
    """Appends metrics to a file of JSON lines and to TensorBoard, going on after `start_step`.

    Lines past `start_step`, written by a run that was killed after its last checkpoint, are removed first. Of several
    processes only the first one writes.

    Args:
        path: the file of JSON lines.
        tensorboard: the directory of event files.
        start_step: the last step that counts as done.
    """

    def __init__(self, path: str | os.PathLike, tensorboard: str | os.PathLike, *, start_step: int):
        self._file: TextIO | None = None
        self._events: SummaryWriter | None = None
        if jax.process_index() == 0:
            path = Path(path)
            path.parent.mkdir(parents=True, exist_ok=True)
            cut_lines(path, start_step)
            self._file = path.open("a", buffering=1, encoding="utf-8")
            self._events = SummaryWriter(str(tensorboard), purge_step=start_step + 1)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        for held in (self._file, self._events):
            if held is not None:
                held.close()

    def write(self, step: int, metrics: dict[str, float]) -> None:
        """Adds the metrics of a step."""
        if self._file is None or self._events is None:
            return
        self._file.write(json.dumps({"step": step, **metrics}) + "\n")
        for name, value in metrics.items():
            self._events.add_scalar(name, value, step)

    def write_pictures(self, step: int, pictures: dict) -> None:
        """Adds pictures, uint8 (h,w,3) by name, to TensorBoard."""
        if self._events is None:
            return
        for name, picture in pictures.items():
            self._events.add_image(name, picture, step, dataformats="HWC")


class Progress:
    """How far a run is: a bar on a terminal, a plain line at every twentieth of the way elsewhere.

    Of several processes only the first one shows it.

    Args:
        name: what is running.
        total: number of units of the whole run.
        start: how many are done already.
        unit: what is counted, in the singular.
        stream: where to write; standard error by default.
    """

    def __init__(self, name: str, total: int, *, start: int = 0, unit: str = "image", stream=None):
        self._stream = stream or sys.stderr
        self._name, self._total, self._unit = name, total, unit
        self._start, self._done, self._began = start, start, time.monotonic()
        self._bar, self._shown = None, jax.process_index() == 0
        if self._shown and self._stream is not None and self._stream.isatty():
            self._bar = tqdm(total=total, initial=start, desc=name, unit=f" {unit}s", file=self._stream, leave=True)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        if self._bar is not None:
            self._bar.close()

    def advance(self, count: int, note: str = "") -> None:
        """Counts `count` more units as done.

        Args:
            count: number of units.
            note: shown behind, for example the loss.
        """
        before, self._done = self._done, self._done + count
        if self._bar is not None:
            self._bar.set_postfix_str(note, refresh=False)
            self._bar.update(count)
        elif self._shown and self._done * 20 // self._total > before * 20 // self._total:
            say(self._line(note), self._stream)

    def _line(self, note):
        seconds = max(time.monotonic() - self._began, 1e-9)
        rate = (self._done - self._start) / seconds
        left = int((self._total - self._done) / rate)
        parts = f"{self._done}/{self._total} {self._unit}s", f"{rate:.1f} {self._unit}s/s", f"{clock(left)} left", note
        return f"{self._name}: " + ", ".join(part for part in parts if part)


def clock(seconds: float) -> str:
    """Hours, minutes and seconds."""
    hours, minutes = divmod(int(seconds) // 60, 60)
    return f"{hours}:{minutes:02}:{int(seconds) % 60:02}"
