"""How much memory this process may still take, asked before something starts that cannot be told that there is none.

`available` is what the machine, the process's limits and its control group leave. `require` raises when that is too little for a
number of bytes. `reserve` tries whether address space can be had at all, for code that ends the process when it gets none: LLVM
aborts, and so does BLAS. Both raise `OutOfMemoryError`, which is a MemoryError and, as in PyTorch, a RuntimeError.
"""

import mmap
import os
from collections.abc import Iterator
from pathlib import Path

try:
    import resource
except ImportError:  # not a POSIX system
    _LIMITS: tuple[int, ...] = ()
else:
    _LIMITS = tuple([getattr(resource, name) for name in ("RLIMIT_AS", "RLIMIT_DATA") if hasattr(resource, name)])

MIB = 1 << 20
LARGE = (
    256 * MIB
)  # from which on memory is not asked for untried: systems promise more than they have, and end processes
LOOPS = 16  # values that exist in a loop only, block by block, may have so many times the machine's memory
_GROUPS = Path("/sys/fs/cgroup")


class OutOfMemoryError(MemoryError, RuntimeError):
    """Memory that is not there was asked for. Nothing has been run or changed.

    Examples:
        >>> try:
        ...     fastgrad.zeros(10**15)
        ... except fastgrad.OutOfMemoryError:
        ...     print("too large")
        too large
    """


def available() -> int:
    """The bytes that this process may still take, as far as the system says."""
    return min([1 << 62, *_machine(), *_limits(), *_groups()])


def require(nbytes: int, what: str) -> None:
    """OutOfMemoryError unless there are so many bytes."""
    there = available()
    if nbytes > there:
        raise lacking(nbytes, what, there)


def lacking(nbytes: int, what: str, there: int | None = None) -> OutOfMemoryError:
    """The error that says how many bytes are wanted for what, and how many there are."""
    there = available() if there is None else there
    return OutOfMemoryError(
        f"not enough memory: {what} needs {nbytes} bytes, and there are {max(there, 0)}; use smaller batches, or let go of "
        f"tensors that are no longer needed"
    )


def require_passable(nbytes: int, what: str) -> None:
    """OutOfMemoryError for a value that nobody can mean to be computed, not even block by block and never kept."""
    if nbytes > LOOPS * max([LARGE, *_machine(True)]):
        raise lacking(nbytes, what)


def reserve(nbytes: int, what: str) -> None:
    """OutOfMemoryError unless so much address space can be had now; nothing is kept of it."""
    try:
        mmap.mmap(-1, nbytes, **_PRIVATE).close()
    except (OSError, MemoryError):
        raise lacking(nbytes, what) from None


_PRIVATE = {"flags": mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS} if hasattr(mmap, "MAP_PRIVATE") else {}


def _machine(whole: bool = False) -> Iterator[int]:
    """Memory that the machine can give without taking it from a process; or all that it has."""
    found = {} if whole else _fields(Path("/proc/meminfo"))
    if "MemAvailable:" in found:
        yield (found["MemAvailable:"] + found.get("SwapFree:", 0)) * 1024
        return
    try:
        yield os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return


def _limits() -> Iterator[int]:
    """What the limits of the process leave: of address space, and of memory of its own."""
    limits = [resource.getrlimit(kind)[0] for kind in _LIMITS]
    if all([limit == resource.RLIM_INFINITY for limit in limits]):
        return
    used = _fields(Path("/proc/self/status"))
    for limit, name in zip(limits, ("VmSize:", "VmData:"), strict=False):
        if limit != resource.RLIM_INFINITY:
            yield limit - used.get(name, 0) * 1024


def _groups() -> Iterator[int]:
    """What the control groups that the process is in leave: the second version's files, or the first one's."""
    for line in _text(Path("/proc/self/cgroup")).splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            place, most, now, cached = _GROUPS / path[1:], "memory.max", "memory.current", "inactive_file"
        elif "memory" in controllers.split(","):
            place, now, cached = _GROUPS / "memory" / path[1:], "memory.usage_in_bytes", "total_inactive_file"
            most = "memory.limit_in_bytes"
        else:
            continue
        for group in (place, *place.parents):
            limit, used = _text(group / most).strip(), _text(group / now).strip()
            if (
                limit.isdigit() and used.isdigit() and int(limit) < 1 << 60
            ):  # the first version says a number for no limit
                yield int(limit) - int(used) + _fields(group / "memory.stat").get(cached, 0)
            if group == _GROUPS:
                break


def _fields(path: Path) -> dict[str, int]:
    """The lines `name number` of a file."""
    rows = [line.split() for line in _text(path).splitlines()]
    return {row[0]: int(row[1]) for row in rows if len(row) > 1 and row[1].isdigit()}


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, ValueError):
        return ""
