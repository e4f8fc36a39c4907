"""The quick way of a replay: a Python function written for one recorded call.

`Replay.run` serves every case; most steps need little of it. For a call whose arguments are whole tensors and floats, the checks
and bindings are written out as straight-line source over the objects concerned, which removes the loops and look-ups that
would cost more than the sweep. The function returns `miss` whenever anything is not as it was, and the general way decides.
"""

from __future__ import annotations

from sys import getrefcount
from typing import TYPE_CHECKING, Any

from . import execute
from . import recording as tape
from .answers import Computed, Copied, Found, Fresh, Made, Remade, Seen, rebuild
from .dtypes import float32
from .recording import Signature
from .structure import structure_version
from .tensor import handle
from .watching.numbers import MISS, same

if TYPE_CHECKING:
    from .replaying import Replay


class _Writer:
    """Source lines and the objects they name."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.objects: dict[str, Any] = {}

    def name(self, value: Any) -> str:
        """A name for an object in the source."""
        name = f"o{len(self.objects)}"
        self.objects[name] = value
        return name

    def line(self, text: str) -> None:
        self.lines.append("    " + text)


def is_simple(replay: Replay, arguments: list[Any]) -> bool:
    """Whether a replay is of the kind that can be written out: whole tensors and numbers, no guards, no graph left behind."""
    if (
        replay.overlaps
        or len(arguments) > 6
        or replay.guards
        or replay.roots
        or replay.from_gradients
        or not replay.plain
        or replay.fixed
        or replay.program.kept_bytes
        or any([place[0] != "tensor" for place in replay.written_at])
    ):
        return False
    if any([type(owner) is not dict and type(owner) is not str for _, (owner, _) in replay.sources]) or replay.seeded:
        return False
    if not all([(isinstance(a, tape.TENSOR) and a._whole) or type(a) in (float, int) for a in arguments]):
        return False
    return not any([rest is not None for _, _, rest in replay.from_arguments]) and not any(
        [rest is not None for rest in replay.known_rests]
    )


def specialize(replay: Replay, arguments: list[Any], grad_enabled: bool, miss: Any) -> Any:
    """The function `(trace, *arguments)` for a replay that `is_simple`."""
    writer = _Writer()
    _check(writer, replay, arguments, grad_enabled)
    _inputs(writer, replay)
    _numbers(writer, replay)
    made = _outputs(writer, replay)
    for _, t, *_ in replay.written_at:
        storage = t._storage
        writer.line(f"{writer.name(storage)}.version += 1")
    program = replay.program
    writer.line("statistics['runs'] += 1")
    if program.error_cell is None:
        writer.line(f"sweep({program.address}, {program.count})")
    else:
        writer.line(f"{writer.name(program.run)}(None)")
    for leaf in replay.leaves_without:
        writer.line(f"{writer.name(leaf)}._grad = None")
    for leaf, t in zip(replay.leaves_with, made[replay.n_outputs :], strict=True):
        writer.line(f"{writer.name(leaf)}._grad = {t}")
    writer.line(f"return {_result(writer, replay.template, made)}")
    parameters = "".join([f", a{k}" for k in range(len(arguments))])
    source = f"def step(tr{parameters}):\n" + "\n".join(writer.lines)
    scope: dict[str, Any] = {
        **writer.objects, "miss": miss, "getrefcount": getrefcount, "statistics": tape.statistics,
        "sweep": program.sweep, "Tensor": tape.TENSOR,
    }  # fmt: skip
    exec(compile(source, "<fastgrad step>", "exec"), scope)
    return scope["step"]


def _check(writer: _Writer, replay: Replay, arguments: list[Any], grad_enabled: bool) -> None:
    """Leave unless arguments, names, modules, gradients and memory are as they were."""
    mark = writer.name(tape.local.trace.mark)
    tests = [
        f"tr is not {writer.name(tape.local.trace)}",
        f"tr.grad_enabled is not {grad_enabled}",
        f"{writer.name(structure_version)}[0] != {replay.structure}",
    ]
    if replay.flags is not None:  # the machine's way has bound something
        tests.append(f"{writer.name(replay.flags)}[0]")
    for k, a in enumerate(arguments):
        if type(a) in (float, int):
            tests.append(f"type(a{k}) is not {type(a).__name__}")
        else:
            tests += [f"not isinstance(a{k}, Tensor)", f"a{k}._meta is not {writer.name(a._meta)}", f"not a{k}._whole"]
            tests.append(f"a{k}._storage is None or a{k}._storage.writer not in (None, {mark})")
    tests += [f"not {writer.name(same)}(a{k}, {writer.name(value)})" for k, value in replay.pinned]
    tests += [load.test(writer) for load in replay.loads]
    for container, key, value in replay.capture.held:
        held, bound = writer.name(container), writer.name(value)
        if isinstance(container, dict):
            tests.append(f"{held}.get({writer.name(key)}) is not {bound}")
        else:
            tests.append(f"not (-len({held}) <= {key} < len({held}) and {held}[{key}] is {bound})")
    tensors = [k for k, a in enumerate(arguments) if isinstance(a, tape.TENSOR)]
    for k in tensors:
        if replay.written:
            tests.append(f"a{k}._storage in {writer.name(replay.known_storages)}")
    tests += [f"a{i}._storage is a{k}._storage" for i in tensors for k in tensors if i < k]
    for options, key, truth in replay.capture.switches:
        tests.append(f"bool({writer.name(options)}[{key!r}]) is not {truth}")
    for t, meta in zip(replay.known, replay.metas, strict=True):
        tests.append(f"{writer.name(t)}._meta is not {writer.name(meta)}")
    for leaf, had in replay.capture.expected:
        tests.append(f"{writer.name(leaf)}._grad is {'None' if had else 'not None'}")
    for t, storage in zip(replay.known, replay.storages, strict=True):
        tests.append(f"{writer.name(t)}._storage is not {writer.name(storage)}")
        tests.append(f"{writer.name(storage)}.writer not in (None, {mark})")
    for _, t, *_ in replay.written_at:
        storage = t._storage
        tests += [f"{writer.name(storage)}.savers", f"{writer.name(storage)}.writer is not {mark}"]
    if replay.program.arena_bytes:
        tests.append(f"tr.arena is not {writer.name(tape.local.trace.arena)}")
    for test in tests:
        writer.line(f"if {test}: return miss")
    if replay.numbers_of is not None:
        given = "".join([f"a{k}, " for k in range(len(arguments))])
        writer.line(f"computed = {writer.name(replay.numbers_of)}(({given}))")
        writer.line(f"if computed is {writer.name(MISS)}: return miss")


def _inputs(writer: _Writer, replay: Replay) -> None:
    """Bind the arguments' memory where it has moved."""
    addresses, bind = writer.name(replay.addresses), writer.name(replay.program.bind_addresses)
    for i, k, _ in replay.from_arguments:
        writer.line(f"storage = a{k}._storage")
        writer.line("if storage is None or storage.array is None: return miss")
        writer.line(f"if storage.address != {addresses}[{i}]:")
        writer.line(f"    {addresses}[{i}] = storage.address")
        writer.line(f"    {bind}({addresses})")


def _numbers(writer: _Writer, replay: Replay) -> None:
    """Bind the numbers that have changed."""
    if not replay.sources:
        return
    numbers, bind = writer.name(replay.numbers), writer.name(replay.program.bind_numbers)
    option = writer.name(tape._option)
    computed = dict(replay.numbers_at)
    for i, (owner, key) in replay.sources:
        if owner == "number":
            value = f"computed[{computed[i]}]"
        elif owner == "argument":
            value = f"a{key}"
        elif type(key) is str:
            value = f"{writer.name(owner)}[{key!r}]"
        else:
            value = f"{option}({writer.name(owner)}, {writer.name(key)})"
        writer.line(f"value = {value}")
        writer.line(f"if value != {numbers}[{i}] or not value:")  # 0.0 == -0.0
        writer.line(f"    {numbers}[{i}] = value")
        writer.line(f"    {bind}({numbers})")


def _outputs(writer: _Writer, replay: Replay) -> list[str]:
    """Choose the tensors that are handed back: those of former calls that nobody else holds."""
    made = []
    for j, hands in enumerate(replay.hands):
        t = f"t{j}"
        held = str(HELD[0])
        if j >= replay.n_outputs and not replay.careful:  # a gradient is held by its leaf, too
            held += f" + ({writer.name(replay.leaves_with[j - replay.n_outputs])}._grad is {t})"
        meta = writer.name(replay.results[j][0])
        pool, places = writer.name(hands), writer.name(replay.places)
        writer.line(f"for {t} in {pool}:")
        writer.line(f"    storage = {t}._storage")
        writer.line(
            f"    if getrefcount({t}) <= {held} and getrefcount(storage) <= {HELD[1]} and "
            f"getrefcount(storage.array) <= {HELD[2]} and storage.savers is None and not storage.shared "
            f"and {t}._meta is {meta} and {t}._whole and {t}._grad is None: break"
        )
        writer.line("else: return miss")
        writer.line(f"if {places}[{j}] != storage.address:")
        writer.line(f"    {places}[{j}] = storage.address")
        writer.line(f"    {writer.name(replay.program.bind_output)}({j}, storage.address)")
        made.append(t)
    return made


def _counts(pool: list[Any]) -> tuple[int, int, int]:
    """The reference counts that the written source sees of a tensor, its storage and its array that nobody else holds."""
    for t in pool:
        storage = t._storage
        return getrefcount(t), getrefcount(storage), getrefcount(storage.array)
    raise AssertionError


HELD = _counts([handle(Signature.of((), float32), execute.new_storage(1, float32))])


def _result(writer: _Writer, template: Any, made: list[str]) -> str:
    kind = type(template)
    if kind is Made:
        return made[template.number]
    if kind is Found:
        return f"a{template.owner}" if template.kind == "argument" else writer.name(template.owner)
    if kind is Seen:
        return f"{writer.name(template.of)}({_result(writer, template.base, made)}, [{', '.join(made)}])"
    if kind is Computed:
        return f"computed[{template.place}]"
    if kind is tuple:
        return "(" + "".join([_result(writer, x, made) + ", " for x in template]) + ")"
    if kind is Fresh and template.kind is list:
        return "[" + ", ".join([_result(writer, x, made) for x in template.values]) + "]"
    if kind is Fresh and template.kind is dict:
        return (
            "{" + ", ".join([f"{writer.name(k)}: {_result(writer, v, made)}" for k, v in template.values.items()]) + "}"
        )
    if kind in (Fresh, Remade, Copied):
        return f"{writer.name(rebuild)}({writer.name(template)}, [{', '.join(made)}], [], ())"
    return writer.name(template)
