"""The table of a replay: everything that must be as it was, and what is bound where, in the form that machine code reads.

`specialize` writes the same checks as Python source; a table needs no bytecode at all (`fastgrad.kernels.replay` goes through
it) and serves the commonest steps. Whatever it cannot say makes `table` return None, and what is not as it was makes the
step go the written way. Words of the program are the only record of what is bound here; `Replay.flags` tells Python's lists so.
"""

from __future__ import annotations

import struct
from types import FunctionType
from typing import TYPE_CHECKING, Any

from . import layouts
from . import recording as tape
from .answers import Made
from .facts import LET_GO, Rows, Unfit, facts, flat, records
from .kernels import entrance as at
from .structure import structure_version
from .tensor import Tensor
from .watching.numbers import Expression
from .watching.watch import MISSING, Load

if TYPE_CHECKING:
    from .replaying import Replay

_FIXED = (float, int, bool, str, type(None))  # objects that stay what they are


def table(replay: Replay, arguments: list[Any], grad_enabled: bool) -> Any:
    """The table of a replay that `specialize.is_simple` accepts; None if it cannot be told in rows."""
    try:
        return _table(replay, arguments, grad_enabled)
    except (Unfit, at.Unknown):
        return None


def _table(replay: Replay, arguments: list[Any], grad_enabled: bool) -> at.Table:
    program = replay.program
    if len(replay.results) > at.MOST_RESULTS:
        raise Unfit
    known = facts()
    rows = Rows()
    numbers = _read(rows, replay, known)
    header = {
        at.FACTS: known.address, at.OWNER: at.thread_number(), at.ARGUMENTS: len(arguments), **records(program), at.RELEASE: _release(replay),
        at.RETURN: _answer(replay), at.RESULTS: len(replay.hands), at.INPUTS: len(replay.from_arguments),
    }  # fmt: skip
    _state(rows, replay, grad_enabled)
    _arguments(rows, replay, arguments)
    _numbers(rows, replay, numbers)
    _memory(rows, replay)
    versions = [rows.field(t._storage, "version") for _, t, *_ in replay.written_at]
    gradients: list[int] = []
    for leaf in replay.leaves_without:
        gradients += [rows.field(leaf, "_grad", Tensor), -1]
    for k, leaf in enumerate(replay.leaves_with):
        gradients += [rows.field(leaf, "_grad", Tensor), replay.n_outputs + k]
    header |= {at.VERSION_COUNT: len(versions), at.GRADIENT_COUNT: len(gradients) // 2}
    rows.lists += [(-1, at.VERSIONS, versions), (-1, at.GRADIENTS, gradients)]
    made = at.Table.of(rows.rows, header, rows.lists)
    made.alive = [known, program, rows.alive]
    return made


def chain(tables: list[Any]) -> Any:
    """The first of several tables, each of which names the next one to try."""
    after = None
    for one in reversed(tables):
        one.following = after
        at.words(one.address, at.HEADER)[at.NEXT] = 0 if after is None else after.address
        after = one
    return after


def install(kind: Any) -> None:
    """Let calls of compiled functions look at tables first."""
    if not _installed:
        _installed.append(kind.__call__)
        kind.__call__ = at.method(kind, "_table", "_general")


_installed: list[Any] = []


def _read(rows: Rows, replay: Replay, known: at.Table) -> dict[int, Any]:
    """What the function read, and options: dicts come first, because comparing keys may run foreign code. Numbers in dicts are
    read again (the answer: their places by number); what follows from others in state holds while those are the same objects."""
    later: list[tuple[int, ...]] = []
    numbers: dict[int, Any] = {}
    fixed = list(replay.loads)
    dependent = {id(x): x for e, _ in replay.conditions for x in leaves(e)}
    for number, (owner, source) in replay.sources:
        if owner != "number":
            continue
        found = leaves(source)
        load = found[0]
        if (
            source.function is None
            and load.kind == "entry"
            and type(source.value) is float
            and type(load.container) is dict
        ):
            numbers[number] = load
        elif type(source.value) is float:
            dependent |= {id(x): x for x in found}
        else:
            raise Unfit
    dependent |= {id(x): x for x in replay.unused}
    fixed += dependent.values()
    type_at = at.words(known.address, at.TYPE + 1)[at.TYPE]
    for load in fixed:
        _load(rows, load, later, type_at)
    for container, key, value in replay.capture.held:
        if isinstance(container, dict):
            rows.entry(container, at.ENTRY, rows.of(container), rows.of(key), rows.of(value))
        else:
            rows.item(container, key, rows.of(value))
    for options, key, truth in replay.capture.switches:
        value = options[key]
        if type(options) is not dict or type(value) not in _FIXED:
            raise Unfit
        rows.entry(options, at.TRUTH, rows.of(options), rows.of(key), rows.of(value), int(truth))
    for _, (owner, wanted) in replay.sources:
        if type(owner) is str or (type(wanted) is str and type(owner[wanted]) is float):
            continue
        name = wanted if type(wanted) is str else wanted[0]
        for key in (name,) if type(name) is str else name:  # what is no float, or the source of one: the same objects
            value = owner[key]
            items = value if type(value) is tuple else (value,)
            if type(owner) is not dict or not all([type(x) in _FIXED for x in items]):
                raise Unfit
            rows.entry(owner, at.ENTRY, rows.of(owner), rows.of(key), rows.of(value))
    rows.add_dicts()
    rows.add_lists()
    for row in later:
        rows.add(*row)
    return numbers


def _release(replay: Replay) -> int:
    """Whether sweeps go without the GIL, and which."""
    if replay.work <= LET_GO:
        return 0
    program = replay.program
    return 2 if program.error_cell is not None and not program.checks_first else 1


def leaves(expression: Expression) -> list[Any]:
    """The loads that a number follows from; Unfit if it follows from arguments."""
    found, stack, seen = [], [expression], set()
    while stack:
        x = stack.pop()
        if id(x) in seen:
            continue
        seen.add(id(x))
        if x.function is not None:
            stack += [y for y in x.operands if isinstance(y, Expression)]
        elif isinstance(x.operands[0], Load):
            found.append(x.operands[0])
        else:
            raise Unfit
    return found


def _load(rows: Rows, load: Load, later: list[tuple[int, ...]], type_at: int) -> None:
    """The row of one thing that was read: the same object, or nothing, stands there. May be stricter than `Load.holds`."""
    held, kind = load.container, load.kind
    value = load.read()
    if not load.holds():
        raise Unfit
    wanted = 0 if value is MISSING else rows.of(value)
    if kind == "entry":
        rows.entry(held, at.ENTRY, rows.of(held), rows.of(load.key), wanted)
    elif kind == "cell":
        later.append((at.IS, rows.of(held) + at.cell(), wanted))
    elif kind == "item" and value is not MISSING:
        if load.key < 0:
            raise Unfit
        rows.item(held, load.key, wanted)
    elif kind == "type":
        later.append((at.IS, rows.of(held) + type_at, wanted))
    elif kind == "length":
        of: Any = type(held)
        if of is list:
            rows.length(held, value)
            return
        later.append((at.IS, rows.of(held) + layouts.length(of), value))
    elif kind == "mro":
        later.append((at.IS, rows.of(held) + layouts.order(), wanted))
    elif kind == "dict":
        rows.of(held)
        later.append((at.IS, layouts.own_dict(held), wanted))
    elif kind == "slot" and type(held).__setattr__ is object.__setattr__:
        later.append((at.IS, rows.of(held) + at.slot(load.key.__objclass__, load.key.__name__), wanted))
    elif kind == "field" and type(held) is FunctionType:
        empty = value is None  # a missing tuple or dict of defaults is no object
        later.append((at.IS, rows.of(held) + layouts.of_function(load.key), 0 if empty else wanted))
    else:
        raise Unfit


def _state(rows: Rows, replay: Replay, grad_enabled: bool) -> None:
    """Nothing pending, captured or run at once; modules, leaves and their memory as they were."""
    tr = tape.local.trace
    rows.add(at.SAME, rows.field(tr, "node"), rows.field(tr, "root"))
    rows.add(at.IS, rows.field(tr, "grad_enabled"), id(grad_enabled))
    rows.add(at.ITEM, rows.of(structure_version), 0, rows.of(structure_version[0]))
    for t, meta, storage in zip(replay.known, replay.metas, replay.storages, strict=True):
        rows.add(at.KNOWN, rows.of(t), rows.of(meta), rows.of(storage), rows.of(tr.mark))
    for leaf, had in replay.capture.expected:
        rows.add(at.IS_NOT if had else at.IS, rows.field(leaf, "_grad", Tensor), id(None))
    for _, t, *_ in replay.written_at:
        rows.add(at.WRITTEN, rows.of(t._storage), rows.of(tr.mark))
    if replay.program.arena_bytes:
        uses = replay.program.uses_of_arena()
        rows.add(at.ARENA, rows.field(tr, "arena"), replay.program.arena_bytes, 0, len(uses), uses=(3, flat(uses)))


def _arguments(rows: Rows, replay: Replay, arguments: list[Any]) -> None:
    """The arguments' types, and whose memory they lie in."""
    tensors = [k for k, a in enumerate(arguments) if isinstance(a, Tensor)]
    for k, a in enumerate(arguments):
        if type(a) is int:
            raise Unfit
        if k in tensors:
            rows.add(at.TENSOR, k, rows.of(type(a)), rows.of(a._meta))
        else:
            rows.add(at.FLOATING, k)
    known = [rows.of(storage) for storage in replay.known_storages]
    for n, k in enumerate(tensors):
        if replay.written and known:
            rows.add(at.APART, k, 0, len(known), others=(2, known))
        for i in tensors[:n]:
            rows.add(at.DISTINCT, i, k)


def _numbers(rows: Rows, replay: Replay, found: dict[int, Any]) -> None:
    """Numbers that are read again in every call."""
    computed = dict(replay.numbers_at)
    for i, (owner, key) in replay.sources:
        cells = replay.program.cells_of(i)
        if cells is None:
            raise Unfit
        if owner == "number":
            if i in found:
                load = found[i]
                rows.add(at.OPTION, rows.of(load.container), rows.of(load.key), 0, len(cells), cells=(3, flat(cells)))
            else:
                bits = struct.unpack("q", struct.pack("d", replay.computed[computed[i]]))[0]
                rows.add(at.VALUE, bits, 0, len(cells), cells=(2, flat(cells)))
        elif owner == "argument":
            rows.add(at.ARGUMENT, key, 0, len(cells), cells=(2, flat(cells)))
        elif type(key) is str and type(owner[key]) is float:
            if type(owner) is not dict:
                raise Unfit
            rows.add(at.OPTION, rows.of(owner), rows.of(key), 0, len(cells), cells=(3, flat(cells)))
        else:
            bits = struct.unpack("q", struct.pack("d", float(tape._option(owner, key))))[0]
            rows.add(at.VALUE, bits, 0, len(cells), cells=(2, flat(cells)))


def _memory(rows: Rows, replay: Replay) -> None:
    """Where inputs are and results go."""
    program, mark = replay.program, tape.local.trace.mark
    if len(replay.from_arguments) > at.MOST_INPUTS:
        raise Unfit
    for n, (i, k, _) in enumerate(replay.from_arguments):
        uses = program.uses_of_input(i)
        rows.add(at.INPUT, k, 0, len(uses), n, rows.of(mark), uses=(2, flat(uses)))
    for j, pool in enumerate(replay.hands):
        uses = program.uses_of_output(j)
        leaf = 0
        if j >= replay.n_outputs and not replay.careful:
            leaf = rows.field(replay.leaves_with[j - replay.n_outputs], "_grad", Tensor)
        rows.add(at.RESULT, rows.of(pool), rows.of(replay.results[j][0]), leaf, 0, len(uses), j, uses=(4, flat(uses)))


def _answer(replay: Replay) -> int:
    template = replay.template
    if template is None:
        return at.NOTHING
    if type(template) is Made:
        return template.number
    if type(template) is tuple and template:
        numbers = [x.number if type(x) is Made else -1 for x in template]
        if numbers == list(range(len(numbers))):
            return -len(numbers)
    raise Unfit
