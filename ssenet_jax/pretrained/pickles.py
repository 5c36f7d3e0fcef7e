"""Interprets the pickle of a state dict: a machine that knows tensors, ordered dicts and numbers, and runs nothing.

It holds no more than the pickle's own bytes describe. A value of the file is neither hashed, compared nor printed
before its type is known: a tuple that holds itself twice, thirty times over, would take hours.
"""

import pickletools
from collections import OrderedDict
from enum import Enum
from typing import BinaryIO, NamedTuple

import ml_dtypes
import numpy as np

from ssenet_jax.messages import quoted, shown

_DTYPES = {
    "FloatStorage": np.dtype("<f4"),
    "DoubleStorage": np.dtype("<f8"),
    "HalfStorage": np.dtype("<f2"),
    "BFloat16Storage": np.dtype(ml_dtypes.bfloat16),
    "LongStorage": np.dtype("<i8"),
    "IntStorage": np.dtype("<i4"),
    "ShortStorage": np.dtype("<i2"),
    "CharStorage": np.dtype("i1"),
    "ByteStorage": np.dtype("u1"),
    "BoolStorage": np.dtype("?"),
}
_MOST_AXES, _LARGEST_NUMBER = 64, 1 << 48
_LITERALS = frozenset(
    "INT BININT BININT1 BININT2 LONG LONG1 FLOAT BINFLOAT BINUNICODE SHORT_BINUNICODE BINSTRING SHORT_BINSTRING".split()
)
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


class Storage(NamedTuple):
    """Where a tensor's numbers lie: the name of a raw array beside the pickle, and what it should hold."""

    key: str
    dtype: np.dtype
    elements: int


class Tensor(NamedTuple):
    """A view of a storage; offset and strides in elements."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class _StorageType(NamedTuple):
    dtype: np.dtype


_Function = Enum("_Function", "ORDERED_DICT TENSOR PARAMETER")
_FUNCTIONS = {
    ("collections", "OrderedDict"): _Function.ORDERED_DICT,
    ("torch._utils", "_rebuild_tensor"): _Function.TENSOR,
    ("torch._utils", "_rebuild_tensor_v2"): _Function.TENSOR,
    ("torch._utils", "_rebuild_parameter"): _Function.PARAMETER,
}


def read_pickle(stream: BinaryIO):
    """The value of the pickle that starts where the stream stands; the stream then stands behind it.

    Returns:
        Numbers, strings, tuples, lists, dicts and `Tensor`, as the pickle nests them.

    Raises:
        ValueError: the pickle is damaged, or asks for anything else.
    """
    machine = _Machine()
    try:
        for opcode, argument, _ in pickletools.genops(stream):
            if opcode.name == "STOP":
                return machine.pop()
            machine.step(opcode.name, argument)
    except (IndexError, KeyError, TypeError) as error:
        raise ValueError(f"the pickle is damaged near byte {stream.tell()}") from error


class _Machine:
    """A pickle's stack, marks and memo."""

    def __init__(self):
        self._stack: list = []
        self._marks: list[int] = []
        self._memo: dict[int, object] = {}

    def step(self, name: str, argument) -> None:
        if name in _LITERALS:
            self._stack.append(argument)
        elif name in _CONSTANTS:
            self._stack.append(_CONSTANTS[name])
        elif name in _TUPLES:
            self._stack.append(tuple(self._pop_many(_TUPLES[name])))
        elif name.endswith("PUT"):
            self._memo[argument] = self._stack[-1]
        elif name.endswith("GET"):
            self._stack.append(self._memo[argument])
        elif name not in ("PROTO", "FRAME"):
            self._build(name, argument)

    def _build(self, name: str, argument) -> None:
        match name:
            case "MEMOIZE":
                self._memo[len(self._memo)] = self._stack[-1]
            case "MARK":
                self._marks.append(len(self._stack))
            case "TUPLE":
                self._stack.append(tuple(self._pop_mark()))
            case "EMPTY_LIST":
                self._stack.append([])
            case "LIST":
                self._stack.append(self._pop_mark())
            case "EMPTY_DICT":
                self._stack.append({})
            case "DICT":
                self._stack.append(_set_items({}, self._pop_mark()))
            case "APPEND" | "APPENDS":
                items = [self.pop()] if name == "APPEND" else self._pop_mark()
                _require(list, self._stack[-1]).extend(items)
            case "SETITEM" | "SETITEMS":
                items = self._pop_many(2) if name == "SETITEM" else self._pop_mark()
                _set_items(_require(dict, self._stack[-1]), items)
            case _:
                self._call(name, argument)

    def _call(self, name: str, argument) -> None:
        match name:
            case "GLOBAL":
                self._stack.append(_named(*argument.split(" ", 1)))
            case "STACK_GLOBAL":
                self._stack.append(_named(*(_require(str, part) for part in self._pop_many(2))))
            case "BINPERSID":
                self._stack.append(_storage(self.pop()))
            case "REDUCE":
                function, arguments = self._pop_many(2)
                self._stack.append(_reduce(function, _require(tuple, arguments)))
            case "BUILD":  # what a state dict knows of its modules' versions
                self.pop()
                _require(OrderedDict, self._stack[-1])
            case _:
                raise ValueError(f"the pickle uses {name}, which no state dict needs")

    def pop(self):
        return self._stack.pop()

    def _pop_many(self, count: int) -> list:
        start = len(self._stack) - count
        if start < (self._marks[-1] if self._marks else 0):
            raise IndexError("the stack is too short")
        taken = self._stack[start:]
        del self._stack[start:]
        return taken

    def _pop_mark(self) -> list:
        return self._pop_many(len(self._stack) - self._marks.pop())


def _require(kind: type, value):
    if not isinstance(value, kind):
        raise TypeError(f"expected {kind.__name__}, found {type(value).__name__}")
    return value


def _set_items(mapping: dict, items: list) -> dict:
    for key, value in zip(items[::2], items[1::2], strict=True):
        if type(key) is not str:
            raise ValueError(f"a dict has a key that is a {type(key).__name__}; only names are read")
        if key in mapping:
            raise ValueError(f"a dict names {quoted(key)} twice")
        mapping[key] = value
    return mapping


def _named(module: str, name: str):
    if module == "torch" and name in _DTYPES:
        return _StorageType(_DTYPES[name])
    if (module, name) not in _FUNCTIONS:
        asked = shown(f"{module}.{name}")
        raise ValueError(f"the pickle asks for {asked}; only tensors, ordered dicts and numbers are read")
    return _FUNCTIONS[module, name]


def _reduce(function, arguments: tuple):
    if function is _Function.TENSOR:
        return _tensor(*arguments[:4])
    if function is _Function.PARAMETER:
        return _require(Tensor, arguments[0])
    if function is not _Function.ORDERED_DICT:
        raise ValueError(f"the pickle calls a {type(function).__name__}")
    pairs = _require(list, arguments[0]) if arguments else ()  # Python 2 passes the items
    return _set_items(OrderedDict(), [part for pair in pairs for part in _require(list, pair)])


def _storage(reference) -> Storage:
    kind, storage_type, key, _, count, *view = _require(tuple, reference)
    if type(kind) is not str or kind != "storage" or not isinstance(storage_type, _StorageType):
        raise ValueError("an entry is not a plain tensor storage")
    if type(key) is not str or type(count) is not int or count < 0 or any(part is not None for part in view):
        raise ValueError("a storage is not described by a name and a number of elements")
    return Storage(key, storage_type.dtype, count)


def _tensor(storage, offset, shape, strides) -> Tensor:
    _require(Storage, storage)
    if len(_require(tuple, shape)) > _MOST_AXES or len(shape) != len(_require(tuple, strides)):
        raise ValueError(f"a tensor has {len(shape)} sizes and {len(strides)} strides; at most {_MOST_AXES} are read")
    if not all(type(number) is int and 0 <= number <= _LARGEST_NUMBER for number in (offset, *shape, *strides)):
        raise ValueError("a tensor's offset, shape or strides are not whole numbers up to 2^48")
    return Tensor(storage, offset, shape, strides)
