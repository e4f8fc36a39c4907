"""Source text in, address of machine code out; machine code is kept on disk by content.

`build(source)` takes the text of a module that defines `kernel(record)`, compiles it with Numba, turns the optimised LLVM IR
into an object file and loads that with llvmlite. The object file is stored under the hash of the text, of every file in this
folder, of the versions of Numba and llvmlite, and of the CPU, so a changed helper can never be served a stale kernel, and a
process that finds its kernels on disk never imports Numba. A stored file carries its own checksum: a damaged one is compiled
again. Files are written beside their place and renamed, so processes may fill one directory at once.

The directory is FASTGRAD_CACHE_DIR, else the user's cache directory; an unwritable one costs time and nothing else.

Machine code, and whatever it or Python's C functions hold the address of, is kept by `forever`: until the process ends, after the
interpreter has taken its modules apart. LLVM ends the process when it gets no memory, so it is reserved before LLVM is called; and
nobody is inside of LLVM when the process ends.
"""

import atexit
import ctypes
import hashlib
import linecache
import os
import re
import sys
import tempfile
import threading
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

from .memory import MIB, reserve

LOADING, FIRST, COMPILING, LINKING = 170 * MIB, 200 * MIB, 100 * MIB, 16 * MIB  # address space that LLVM may take
if "llvmlite.binding" not in sys.modules:
    reserve(LOADING, "loading the compiler")

import llvmlite.binding as llvm  # noqa: E402

LIMIT = 1 << 30  # bytes of machine code that are kept on disk
counters = {"kernels compiled": 0, "kernels loaded": 0}

_addresses: dict[str, int] = {}
_pruned: list[Path] = []  # the directory, once it has been looked through
_lock = threading.RLock()
if hasattr(os, "register_at_fork"):  # no thread is inside of LLVM when the process forks
    os.register_at_fork(before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_lock.release)
atexit.register(_lock.acquire)  # never released: LLVM's memory goes away next, and no daemon thread is to be in it

# What a kernel may call outside itself: memory functions and the C library's mathematics.
_EXTERNALS = {"memcpy", "memset", "memmove"} | {
    name + suffix for name in ("ceil", "floor", "fma", "fmod", "lgamma", "pow", "rint", "trunc") for suffix in ("", "f")
}


T = TypeVar("T")


def forever(thing: T) -> T:
    """Keep an object until the process ends: one reference to it is never given back, whatever becomes of modules and caches."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(thing))
    return thing


def cache_directory() -> Path:
    """Where machine code is kept: FASTGRAD_CACHE_DIR, or `fastgrad` in the user's cache directory."""
    chosen = os.environ.get("FASTGRAD_CACHE_DIR")
    if chosen:
        return Path(chosen)
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local"))
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    return base / "fastgrad"


@lru_cache(maxsize=1)
def _engine() -> tuple[Any, Any]:
    """LLVM's just-in-time linker and the target machine that emits object files for this CPU."""
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    machine = llvm.Target.from_default_triple().create_target_machine(
        cpu=llvm.get_host_cpu_name(), features=llvm.get_host_cpu_features().flatten(), opt=3, jit=True
    )
    return forever((llvm.create_mcjit_compiler(llvm.parse_assembly(""), machine), machine))


@lru_cache(maxsize=1)
def _foundation() -> bytes:
    """What every kernel depends on beside its own text."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    cpu = f"{llvm.get_host_cpu_name()} {llvm.get_host_cpu_features().flatten()}"
    digest.update(f"{version('numba')} {version('llvmlite')} {sys.version_info[:2]} {cpu}".encode())
    return digest.digest()


def build(source: str) -> int:
    """The address of the compiled form of a module text that defines `kernel(record)`, or `sweep(first, second)`.

    A kernel is `void(int64* record)`, a sweep `int64(int64, int64)`.
    """
    address = _addresses.get(source)
    if address is None:
        with _lock:
            address = _addresses.get(source)
            if address is None:
                address = _addresses[source] = _link(object_code(source), _place(source)[0])
    return address


def lookup(source: str) -> int | None:
    """The address of a kernel that has been compiled before, here or on disk; None if it would have to be compiled."""
    address = _addresses.get(source)
    if address is None:
        with _lock:
            name, path = _place(source)
            code = _read(path)
            if code is not None:
                counters["kernels loaded"] += 1
                address = _addresses[source] = _link(code, name)
    return address


def adopt(source: str, code: bytes) -> int:
    """The address of a kernel whose object code another process has made."""
    with _lock:
        address = _addresses.get(source)
        if address is None:
            counters["kernels loaded"] += 1
            address = _addresses[source] = _link(code, _place(source)[0])
    return address


def object_code(source: str) -> bytes:
    """The object code of a kernel, from disk or compiled and left there."""
    with _lock:
        name, path = _place(source)
        code = _read(path)
        if code is None:
            code = _compile(source, name)
            counters["kernels compiled"] += 1
            _write(path, code)
        else:
            counters["kernels loaded"] += 1
        return code


def _place(source: str) -> tuple[str, Path]:
    name = "fastgrad_" + hashlib.sha256(_foundation() + source.encode()).hexdigest()[:32]
    return name, cache_directory() / f"{name}.o"


def _link(code: bytes, name: str) -> int:
    reserve(LINKING, "linking a kernel")
    engine, _ = _engine()
    engine.add_object_file(llvm.ObjectFileRef.from_data(code))
    engine.finalize_object()
    return engine.get_function_address(name)


def _compile(source: str, name: str) -> bytes:
    reserve(COMPILING if "numba" in sys.modules else FIRST, "compiling a kernel")
    from numba import cfunc, types

    filename = f"<{name}>"
    linecache.cache[filename] = (len(source), None, source.splitlines(True), filename)
    namespace: dict[str, Any] = {"__name__": name}
    exec(compile(source, filename, "exec"), namespace)
    if "kernel" in namespace:
        entry, signature = namespace["kernel"], types.void(types.CPointer(types.int64))
    else:
        entry, signature = namespace["sweep"], types.int64(types.int64, types.int64)
    function = cfunc(signature, error_model="numpy")(entry)
    return _emit(_bare(function.inspect_llvm(), function.native_name, "kernel" in namespace, name), name)


_WRAPPERS = {
    True: """define void @{name}(ptr %record) {{
  %result = alloca ptr
  call i32 @{inner}(ptr %result, ptr null, ptr %record)
  ret void
}}
""",
    False: """define i64 @{name}(i64 %first, i64 %second) {{
  %result = alloca i64
  call i32 @{inner}(ptr %result, ptr null, i64 %first, i64 %second)
  %value = load i64, ptr %result
  ret i64 %value
}}
""",
}


def _bare(text: str, wrapper: str, is_kernel: bool, name: str) -> str:
    """Numba's IR with its C wrapper, which can report exceptions to Python, exchanged for one that cannot; a function that
    could raise is refused."""
    start = text.index(f"@{wrapper}(")
    start = text.rindex("define ", 0, start)
    end = text.index("\n}\n", start) + 3
    found = re.search(r"call i32 @([^(]+)\(", text[start:end])
    if found is None:  # inlined: the wrapper is the function itself, and has nothing to report
        return text.replace(f"@{wrapper}(", f"@{name}(")
    if "picklebuf" in text:  # an exception object that some path would raise
        raise RuntimeError("a kernel may not raise, and its source can")
    return text[:start] + _WRAPPERS[is_kernel].format(name=name, inner=found.group(1)) + text[end:]


def _emit(text: str, name: str) -> bytes:
    """Object code of a module in which only `name` can be seen from outside."""
    module = llvm.parse_assembly(text)
    called = set(re.findall(r"call [^@\n]*@([\w.]+)\(", text))
    for function in module.functions:
        if function.is_declaration:
            if not function.name.startswith("llvm.") and function.name not in _EXTERNALS and function.name in called:
                raise RuntimeError(f"a kernel may not call {function.name}: it would need Python")
        elif function.name != name:
            function.linkage = "internal"
    for variable in module.global_variables:
        if not variable.is_declaration and not variable.name.startswith("llvm."):
            variable.linkage = "internal"
    _, machine = _engine()
    return machine.emit_object(module)


def _read(path: Path) -> bytes | None:
    try:
        data = path.read_bytes()
    except OSError:
        return None
    checksum, code = data[:32], data[32:]
    return code if hashlib.sha256(code).digest() == checksum else None


def _prune(directory: Path) -> None:
    """Remove the files that have not been read for longest, if a directory has grown beyond LIMIT; once a process."""
    if _pruned:
        return
    _pruned.append(directory)
    found = [(x.stat(), x.path) for x in os.scandir(directory) if x.name.startswith("fastgrad_")]
    total = sum([status.st_size for status, _ in found])
    if total <= LIMIT:
        return
    for status, path in sorted(found, key=lambda x: max(x[0].st_atime, x[0].st_mtime)):
        os.unlink(path)
        total -= status.st_size
        if total <= LIMIT // 2:
            return


def _write(path: Path, code: bytes) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        _prune(path.parent)
        handle, temporary = tempfile.mkstemp(dir=path.parent, suffix=".tmp")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(hashlib.sha256(code).digest() + code)
            os.replace(temporary, path)
        except BaseException:
            os.unlink(temporary)
            raise
    except OSError:
        pass  # a cache that cannot be written costs the next process its compile time


class _MethodDefinition(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_char_p),
        ("function", ctypes.c_void_p),
        ("flags", ctypes.c_int),
        ("doc", ctypes.c_char_p),
    )


_DOORWAY = """
declare i64 @PyLong_AsLongLong(i8*)
declare i8* @PyEval_SaveThread()
declare void @PyEval_RestoreThread(i8*)
declare i8* @PyLong_FromLongLong(i64)

define i8* @{name}(i8* %self, i8** %args, i64 %count) {{
  %object0 = load i8*, i8** %args
  %second = getelementptr i8*, i8** %args, i64 1
  %object1 = load i8*, i8** %second
  %first_word = call i64 @PyLong_AsLongLong(i8* %object0)
  %second_word = call i64 @PyLong_AsLongLong(i8* %object1)
  %state = call i8* @PyEval_SaveThread()
  %function = inttoptr i64 {address} to i64 (i64, i64)*
  %result = call i64 %function(i64 %first_word, i64 %second_word)
  call void @PyEval_RestoreThread(i8* %state)
  %boxed = call i8* @PyLong_FromLongLong(i64 %result)
  ret i8* %boxed
}}
"""


def _definition(text: str, symbol: str, name: str, flags: int) -> _MethodDefinition:
    """The definition of a C function that a module of LLVM IR has under `symbol`; the module may call the Python it declares."""
    with _lock:
        reserve(LINKING, "linking a function")
        engine, _ = _engine()
        for called in re.findall(r"declare \S+ @(Py\w+)", text):
            llvm.add_symbol(called, ctypes.cast(getattr(ctypes.pythonapi, called), ctypes.c_void_p).value)
        engine.add_module(llvm.parse_assembly(text))
        engine.finalize_object()
        address = engine.get_function_address(symbol)
    return forever(_MethodDefinition(name.encode(), address, flags, None))  # the function object points into it


def method(text: str, symbol: str, name: str, kind: type) -> Any:
    """A method descriptor for a class from LLVM IR: `symbol(self, args, count, keyword names)`, METH_FASTCALL | METH_KEYWORDS."""
    definition = _definition(text, symbol, name, 0x0080 | 0x0002)
    create = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.py_object, ctypes.c_void_p)(
        ("PyDescr_NewMethod", ctypes.pythonapi)
    )
    return create(kind, ctypes.addressof(definition))


def doorway(address: int, name: str) -> Any:
    """A Python callable for machine code `int64 f(int64, int64)`: two integers in, one out, the GIL released meanwhile.

    It is a plain C function object, so a call costs about as much as `len(x)`.
    """
    symbol = f"fastgrad_doorway_{name}"
    return function(_DOORWAY.format(name=symbol, address=address), symbol, name)


def function(text: str, symbol: str, name: str) -> Any:
    """A Python callable from LLVM IR: `symbol(self, args, count)`, METH_FASTCALL."""
    definition = _definition(text, symbol, name, 0x0080)
    create = ctypes.pythonapi.PyCFunction_NewEx
    create.restype = ctypes.py_object
    create.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p]
    return create(ctypes.addressof(definition), None, None)
