"""The entrance to compiled steps: layouts that `replay.py` reads, facts about this Python, and a method in machine code.

`facts` tells where in objects their slots lie, and the addresses of the C functions that `replay.py` calls. Nothing of it is
assumed: each offset is found by looking for a known value in fresh objects, and `Unknown` is raised where that does not
give one clear answer, or where objects are not protected by a GIL. Then steps stay written in Python.

Table: HEADER words, rows of ROW words each, and lists that rows and header point to. Frame: what one call keeps on the stack.
"""

from __future__ import annotations

import ctypes
import sys
import sysconfig
import types
from collections.abc import Callable, Sequence
from functools import cache, lru_cache
from typing import Any

from . import build

# Header of a table: the next table to try, the facts, the thread's number, arguments expected, rows, the program
NEXT, FACTS, OWNER, ARGUMENTS, ROWS, PROGRAM, COUNT, SWEEP = range(8)
RELEASE = 8  # 1: the sweep goes without the GIL; 2: so do the records that may report an error, which come first
DIRTY = 9  # 1: something was bound that Python does not know of
RETURN = 10  # the number of the result returned; NOTHING; -n: the tuple of the first n
RESULTS, INPUTS, VERSIONS, VERSION_COUNT, GRADIENTS, GRADIENT_COUNT = range(11, 17)
SELF = 17  # the table's own object
SPLIT, CHECKS, ERROR = 28, 29, 30  # records that check positions first, their address, the cell that they report in
HEADER, ROW = 32, 8
NOTHING = 1 << 20

# Rows: the kind, then what it looks at
IS = 0  # address of a field, expected
IS_NOT = 1  # address of a field, what it must not be
SAME = 2  # addresses of two fields
ENTRY = 3  # dict, key, expected
TRUTH = 4  # dict, key, expected, or a float of this truth
ITEM = 5  # list, index, expected
TENSOR = 6  # argument, type, description; it must be all of its memory
FLOATING = 7  # argument: a float
APART = 8  # argument, list of storages that it must not lie in, their count
DISTINCT = 9  # two arguments that must not share memory
ARGUMENT = 10  # argument: a number; cells (address, bytes each), their count
OPTION = 11  # dict, key: a number; cells, their count
INPUT = 12  # argument: an address; uses (address of a word, offset), their count; number of the input, the mark of the thread's trace
RESULT = (
    13  # list of former results, description, address of the leaf's field or 0; uses, their count; number of the result
)
ITEMS = 16  # list; its first items, their count; its length or -1
VALUE = 15  # the bits of a float64; cells, their count: a number that does not change
ARENA = 14  # address of the field, bytes needed; uses, their count
KNOWN = 17  # a tensor, its description, its storage, the mark of the thread's trace
WRITTEN = 18  # a storage that no graph reads and that is to be written by this thread's trace: its mark
UNCHANGED = 19  # dict, its version when the rows that follow held last (they are passed if it still is), their count, its version now
CHECKED = 20  # how many rows before that one stands: the rows between them hold

# Frame: addresses of the arguments, their count, results, inputs' storages
ARGUMENTS_AT, GIVEN, MADE, MOST_RESULTS, MOST_INPUTS = 0, 1, 8, 256, 32
BORROWED = MADE + MOST_RESULTS
FRAME = BORROWED + MOST_INPUTS

# Header of an ending, the table of a trace that ends as it did before. Its rows: inputs (uses, their count), numbers (cells, their
# count), results (pool, uses, their count, place among the living, description, place in a graph or 0, slot)
LIVE, ALIVE, NUMBERS, NEEDS, ARENA_USES, ARENA_COUNT = (
    18,
    19,
    20,
    21,
    22,
    23,
)  # and FACTS, PROGRAM ... DIRTY, RESULTS, INPUTS
CHOSEN, NEXT_AT, NEXT_KEY, NEXT_VALUE = 24, 25, 26, 27  # list of the storages chosen; what walking through a dict needs

# Facts: offsets of fields, objects, what counts as free, C functions
TYPE, FLOAT, STORAGE, META, WHOLE, GRADIENT, ARRAY, ADDRESS, SAVERS, SHARED, BYTES = range(11)
NONE, TRUE, FALSE, FLOAT_TYPE, STORAGE_TYPE, FREE_TENSOR, FREE_STORAGE, FREE_ARRAY, RUNS = range(11, 20)
GET_ENTRY, LIST_LENGTH, LIST_ITEMS, TO_INT, FROM_INT, HOLD, LET_GO, CLEAR, SAVE, RESTORE = range(20, 30)
THREAD, THREAD_ID, NEW_TUPLE, SET_TUPLE, WALK, OCCURRED = range(30, 36)
ORIGIN, ALIASES, VERSION, LIVING, ADDRESSES, SCALARS, WRITTEN, TEMPORARIES = range(36, 44)
NODE_TYPE, INT_TYPE, POOL_STORAGE, POOL_ARRAY, WRITER, AT, GET_TUPLE, DICT_VERSION = range(44, 52)
_FUNCTIONS = {
    GET_ENTRY: "PyDict_GetItemWithError", TO_INT: "PyLong_AsLongLong",
    FROM_INT: "PyLong_FromLongLong", HOLD: "Py_IncRef", LET_GO: "Py_DecRef", CLEAR: "PyErr_Clear", SAVE: "PyEval_SaveThread",
    RESTORE: "PyEval_RestoreThread", THREAD: "PyThreadState_Get", THREAD_ID: "PyThreadState_GetID", NEW_TUPLE: "PyTuple_New",
    SET_TUPLE: "PyTuple_SetItem", GET_TUPLE: "PyTuple_GetItem", WALK: "PyDict_Next", OCCURRED: "PyErr_Occurred",
}  # fmt: skip

_CALLED = ("PyBool_FromLong", "PyByteArray_AsString", "PyObject_VectorcallMethod", "PyTuple_Size")

runs = build.forever((ctypes.c_int64 * 1)())  # programs run on this way


class Unknown(Exception):
    """This Python's objects do not lie as `replay.py` needs it."""


class _Sentinel:
    """An object that stands in a slot to be found again."""


def words(address: int, count: int) -> Any:
    """Memory as an array of int64."""
    return (ctypes.c_int64 * count).from_address(address)


def _found(samples: Sequence[tuple[int, int, int]]) -> int:
    """The one offset at which every sample (address, bytes, wanted word) has its word."""
    common: set[int] | None = None
    for address, size, wanted in samples:
        places = {8 * i for i, word in enumerate(words(address, size // 8)) if word == wanted}
        common = places if common is None else common & places
    if common is None or len(common) != 1:
        raise Unknown
    return common.pop()


@cache
def slot(kind: type, name: str) -> int:
    """The offset of a slot in the objects of a class."""
    samples: list[tuple[int, int, int]] = []
    alive: list[Any] = []
    for _ in range(2):
        value = _Sentinel()
        thing: Any = object.__new__(kind)
        setattr(thing, name, value)
        alive.append((thing, value))
        samples.append((id(thing), kind.__basicsize__, id(value)))
    return _found(samples)


@lru_cache(maxsize=1)
def cell() -> int:
    """The offset of a closure cell's contents."""
    alive = [(types.CellType(value), value) for value in (_Sentinel(), _Sentinel())]
    return _found([(id(c), types.CellType.__basicsize__, id(value)) for c, value in alive])


def references(address: int) -> int:
    """The reference count of an object, as `replay.py` reads it."""
    return ctypes.c_int32.from_address(address).value


def check_python() -> None:
    """Unknown, unless this is a Python whose objects can be read at their addresses under a GIL."""
    if sys.implementation.name != "cpython" or sysconfig.get_config_var("Py_GIL_DISABLED"):
        raise Unknown
    if sys.byteorder != "little" or ctypes.sizeof(ctypes.c_void_p) != 8:
        raise Unknown
    thing = _Sentinel()
    before = references(id(thing))
    more = [thing, thing, thing]
    if references(id(thing)) - before != len(more):
        raise Unknown


@lru_cache(maxsize=1)
def python_facts() -> dict[int, int]:
    """What holds for every table in this process."""
    check_python()
    if not all([hasattr(ctypes.pythonapi, name) for name in (*_FUNCTIONS.values(), *_CALLED)]):
        raise Unknown
    found = {
        n: ctypes.cast(getattr(ctypes.pythonapi, name), ctypes.c_void_p).value or 0 for n, name in _FUNCTIONS.items()
    }
    thing, number = _Sentinel(), 1.2345678912345
    found[TYPE] = _found([(id(thing), 16, id(_Sentinel)), (id(number), 16, id(float))])
    bits = ctypes.c_int64.from_buffer(ctypes.c_double(number)).value
    found[FLOAT] = _found([(id(number), float.__basicsize__, bits)])
    found |= {
        NONE: id(None),
        TRUE: id(True),
        FALSE: id(False),
        FLOAT_TYPE: id(float),
        INT_TYPE: id(int),
        RUNS: ctypes.addressof(runs),
    }
    return found


def thread_number() -> int:
    """The number of the calling thread's state, which no later thread gets."""
    state = ctypes.PYFUNCTYPE(ctypes.c_void_p)(("PyThreadState_Get", ctypes.pythonapi))
    number = ctypes.PYFUNCTYPE(ctypes.c_uint64, ctypes.c_void_p)(("PyThreadState_GetID", ctypes.pythonapi))
    return int(number(state()))


class Table(bytearray):
    """A table's memory, and the objects whose addresses stand in it."""

    alive: list[Any]
    products: int = 0  # multiplications of the largest product
    following: Any = None  # the table behind NEXT

    @classmethod
    def of(cls, rows: list[list[int]], header: dict[int, int], lists: list[tuple[int, int, list[int]]]) -> Table:
        """A table of rows and header; each list (row or -1 for the header, column, words) is put behind them, and its
        address into the column."""
        flat = [header.get(i, 0) for i in range(HEADER)]
        for row in rows:
            flat += row + [0] * (ROW - len(row))
        starts = []
        for row_number, column, content in lists:
            starts.append((column if row_number < 0 else HEADER + ROW * row_number + column, len(flat)))
            flat += content
        table = cls(8 * len(flat))
        address = table.address
        for place, start in starts:
            flat[place] = address + 8 * start
        flat[ROWS], flat[SELF] = len(rows), id(table)
        words(address, len(flat))[:] = flat
        return table

    def __repr__(self) -> str:
        return f"<table of {words(self.address, HEADER)[ROWS]} rows>"

    @property
    def flags(self) -> Any:
        """Its word DIRTY, to be read and written; holds the table."""
        return memoryview(self)[8 * DIRTY : 8 * DIRTY + 8].cast("q")

    @property
    def address(self) -> int:
        """Where it lies."""
        return ctypes.addressof(ctypes.c_char.from_buffer(self))


_STEP = """
from fastgrad.kernels.replay import step

def sweep(table, frame):
    return step(table, frame)
"""

_METHOD = """
declare i8* @PyByteArray_AsString(i8*)
declare i64 @PyTuple_Size(i8*)
declare i8* @PyObject_VectorcallMethod(i8*, i8**, i64, i8*)

define i8* @{name}(i8* %self, i8** %args, i64 %count, i8* %names) {{
entry:
  %frame = alloca [{frame} x i64]
  %named = icmp ne i8* %names, null
  br i1 %named, label %general, label %look
look:
  %field = getelementptr i8, i8* %self, i64 {offset}
  %place = bitcast i8* %field to i8**
  %table = load i8*, i8** %place
  %word = ptrtoint i8* %table to i64
  %none = icmp eq i64 %word, {none}
  %unset = icmp eq i64 %word, 0
  %without = or i1 %none, %unset
  br i1 %without, label %general, label %quick
quick:
  %rows = call i8* @PyByteArray_AsString(i8* %table)
  %rows_word = ptrtoint i8* %rows to i64
  %first = getelementptr [{frame} x i64], [{frame} x i64]* %frame, i64 0, i64 0
  %second = getelementptr i64, i64* %first, i64 1
  %args_word = ptrtoint i8** %args to i64
  store i64 %args_word, i64* %first
  store i64 %count, i64* %second
  %frame_word = ptrtoint i64* %first to i64
  %step = inttoptr i64 {step} to i64 (i64, i64)*
  %result = call i64 %step(i64 %rows_word, i64 %frame_word)
  switch i64 %result, label %done [ i64 0, label %general i64 -1, label %failed ]
done:
  %object = inttoptr i64 %result to i8*
  ret i8* %object
failed:
  ret i8* null
general:
  br i1 %named, label %with_names, label %prepend
with_names:
  %more = call i64 @PyTuple_Size(i8* %names)
  br label %prepend
prepend:
  %others = phi i64 [ 0, %general ], [ %more, %with_names ]
  %total = add i64 %count, %others
  %slots = add i64 %total, 1
  %all = alloca i8*, i64 %slots
  store i8* %self, i8** %all
  br label %next
next:
  %i = phi i64 [ 0, %prepend ], [ %after, %copy ]
  %finished = icmp eq i64 %i, %total
  br i1 %finished, label %call, label %copy
copy:
  %after = add i64 %i, 1
  %from = getelementptr i8*, i8** %args, i64 %i
  %to = getelementptr i8*, i8** %all, i64 %after
  %argument = load i8*, i8** %from
  store i8* %argument, i8** %to
  br label %next
call:
  %key = inttoptr i64 {general} to i8*
  %given = add i64 %count, 1
  %answer = call i8* @PyObject_VectorcallMethod(i8* %key, i8** %all, i64 %given, i8* %names)
  ret i8* %answer
}}
"""


def method(kind: type, table: str, general: str) -> Any:
    """A method of a class that tries the table in a slot of the object, and calls another method of the object on a miss."""
    key = build.forever(sys.intern(general))  # the machine code has its address
    offset = slot(kind, table)
    text = _METHOD.format(
        name="fastgrad_entrance", frame=FRAME, offset=offset, none=id(None), step=build.build(_STEP), general=id(key)
    )
    return build.method(text, "fastgrad_entrance", "__call__", kind)


_END = """
from fastgrad.kernels.replay import end

def sweep(table, trace):
    return end(table, trace)
"""

_FUNCTION = """
declare i8* @PyByteArray_AsString(i8*)
declare i8* @PyBool_FromLong(i64)

define i8* @fastgrad_end(i8* %self, i8** %args, i64 %count) {{
entry:
  %trace = load i8*, i8** %args
  %place = getelementptr i8*, i8** %args, i64 1
  %table = load i8*, i8** %place
  %rows = call i8* @PyByteArray_AsString(i8* %table)
  %rows_word = ptrtoint i8* %rows to i64
  %trace_word = ptrtoint i8* %trace to i64
  %end = inttoptr i64 {end} to i64 (i64, i64)*
  %result = call i64 %end(i64 %rows_word, i64 %trace_word)
  %failed = icmp slt i64 %result, 0
  br i1 %failed, label %error, label %done
error:
  ret i8* null
done:
  %answer = call i8* @PyBool_FromLong(i64 %result)
  ret i8* %answer
}}
"""


@cache
def ending() -> Callable[[Any, Table], bool]:
    """The function `(trace, table)` that runs a trace which ends as its table says; False, and nothing has happened, if not."""
    return build.function(_FUNCTION.format(end=build.build(_END)), "fastgrad_end", "end")
