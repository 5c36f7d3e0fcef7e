"""Programs compiled for accelerators that are not here, and what the compiler says of them."""

import functools
import hashlib
import importlib.metadata
import json
import math
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax

from ssenet_jax import cache
from ssenet_jax.artifacts import write_json
from ssenet_jax.commands.chips import GIB, Chip, Devices

USED_OF_PEAK = 0.4  # of FLOP/s and of bandwidth, for a convolutional network whose input keeps up
PACKAGE = Path(__file__).parents[1]


class Cost(NamedTuple):
    """What one call of a program takes of each device.

    Attributes:
        fits: whether the compiler took it; when not, only `peak` is known.
        peak: bytes of memory; nan where nothing was compiled.
        flops: operations.
        collectives: bytes sent through all-reduce and the like.
        traffic: bytes read from and written to memory; where nothing was compiled those of loops, or nan.
    """

    fits: bool
    peak: float
    flops: float
    collectives: int
    traffic: float = math.nan

    def seconds(self, chip: Chip, dtype: str) -> float:
        """Of a call at USED_OF_PEAK of the operations or of the bandwidth, whichever takes longer."""
        peak = chip.flops * (chip.float32 if dtype == "float32" else 1.0)
        traffic = 0.0 if math.isnan(self.traffic) else self.traffic
        return max(self.flops / peak, traffic / chip.bandwidth) / USED_OF_PEAK if self.fits else math.nan


class Program(NamedTuple):
    """A jitted function and what it is called with.

    Attributes:
        name: for people.
        function: jitted.
        shapes: its arguments.
        rows: images of a call, on all devices that it is compiled for.
        parts: devices that it is lowered for on one, where there is no compiler.
        turns: how often the body of its one loop, the whole of it, is run; a compiler counts a body once.
        looped: operations and bytes on each device that the compiler leaves out of smaller loops.
        gradients: bytes of them, sent between devices.
    """

    name: str
    function: Any
    shapes: tuple
    rows: int
    parts: int = 1
    turns: int = 1
    looped: tuple[float, float] = (0.0, 0.0)
    gradients: int = 0


def cost_of(program: Program, devices: Devices, *, quickly: bool = False) -> Cost:
    """Compiles a program for TPUs that are not here, or lowers it for CUDA; once for each program and compiler.

    Args:
        program: to compile.
        devices: that its arguments are placed on.
        quickly: with the compiler's least effort: a tenth of the time; the same operations, up to a half more memory.
    """
    if not devices.compiles:
        return _lower(program)
    what = f"{program.name} for {devices.topology}"
    lowered = program.function.trace(*program.shapes).lower(lowering_platforms=("tpu",))

    def compile_it() -> Cost:
        print(f"compiling {what}: takes minutes", file=sys.stderr, flush=True)
        cost = _compile(lowered, program, quickly)
        print(f"{what}: {cost.peak / GIB:.2f} GiB{'' if cost.fits else ', too much'}", file=sys.stderr, flush=True)
        return cost

    kind = devices.mesh.devices.flat[0].device_kind
    return remembered(compile_it, lowered.as_text(), kind, program.turns, program.looped, quickly)


def _compile(lowered: Any, program: Program, quickly: bool) -> Cost:
    try:
        compiled = lowered.compile({"exec_time_optimization_effort": -1.0} if quickly else None)
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        return Cost(False, bytes_asked_for(str(error)), math.nan, 0)
    counted, (flops, traffic) = compiled.cost_analysis(), program.looped
    return Cost(
        fits=True,
        peak=compiled.memory_analysis().peak_memory_in_bytes,
        flops=counted["flops"] * program.turns + flops,
        collectives=collective_bytes(compiled.as_text()) * program.turns,
        traffic=counted["bytes accessed"] * program.turns + traffic,
    )


def _lower(program: Program) -> Cost:
    """Lowers for CUDA; counts operations before the compiler's changes, and the gradients as what is sent."""
    jax.export.export(program.function, platforms=("cuda",))(*program.shapes)
    counted = program.function.lower(*program.shapes).cost_analysis()["flops"]
    flops = counted / program.parts + program.looped[0]  # for a host device a step's micro-batches are no loop
    traffic = program.looped[1] or math.nan  # what is known of it by formula
    return Cost(True, math.nan, flops, program.gradients if program.parts > 1 else 0, traffic)


def remembered(make: Callable[[], Cost], *decided_by: Any) -> Cost:
    """What `make` gave when it was last called with the same reasons, by this compiler; kept in the user's cache."""
    reasons = json.dumps([*_versions(), *decided_by], default=str)
    path = cache.folder("plans", f"{hashlib.sha256(reasons.encode()).hexdigest()}.json")
    try:
        return Cost(*json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        cost = make()
    try:
        write_json(path, cost)
    except OSError:
        pass  # nothing but the time to compile it again depends on it
    return cost


@functools.cache
def _versions() -> tuple[str, ...]:
    found = []
    for name in ("jax", "jaxlib", "libtpu"):
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            found.append(name)
    return tuple(found)


@functools.cache
def sources() -> str:
    """A name of the code that the programs are made from: while it stands, they need not be traced to be known."""
    files = [path for path in sorted(PACKAGE.rglob("*.py")) if path.parent.name not in ("report", "pretrained")]
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()


def collective_bytes(program: str) -> int:
    """The bytes of the results of all collectives in the text of a compiled program, one device's share."""
    kinds = "all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute"
    results = re.findall(rf"= (\S.*?) (?:{kinds})(?:-done)?\(", program)
    shapes = (shape for result in results for shape in re.findall(r"\b([a-z]+)(\d+)\[([\d,]*)\]", result))
    return sum(int(bits) // 8 * math.prod(int(size) for size in sizes.split(",") if size) for _, bits, sizes in shapes)


def bytes_asked_for(message: str) -> int:
    """The bytes that a program needs which the compiler refused.

    It says "Used 20.5G of 15.75G hbm", or "HLO temporaries (17.90G) exceeds available HBM (15.75G)".
    """
    used = re.search(r"(?:Used |\()([\d.]+)([KMG])(?: of|\) exceeds)", message)
    if used is None:
        raise ValueError(f"the compiler lacked memory and does not say how much: {message.splitlines()[0]}")
    return int(float(used[1]) * 1024 ** (1 + "KMG".index(used[2])))
