"""BLAS by address: MKL if the package `mkl` is installed, else the OpenBLAS that SciPy brings.

FASTGRAD_BLAS says otherwise: `openblas` or `mkl` chooses the library, and then also computes what an own kernel would. BLAS runs
on one thread: a large product is cut into several calls, which the pool executes, so its bits depend on its size alone.
"""

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache, lru_cache
from importlib.metadata import PackageNotFoundError, distribution
from typing import Any

from .memory import MIB, reserve

LOADING = 256 * MIB  # address space that a BLAS and its buffers may take


@lru_cache(maxsize=1)
def forced() -> str | None:
    """The library that FASTGRAD_BLAS asks for."""
    wanted = os.environ.get("FASTGRAD_BLAS", "").strip().lower()
    if wanted not in ("", "openblas", "mkl"):
        raise ValueError(f"FASTGRAD_BLAS must be openblas or mkl, not {wanted!r}")
    return wanted or None


@lru_cache(maxsize=1)
def _mkl() -> Any:
    """MKL, with one thread and results that do not depend on where arrays lie; None if it is not to be used."""
    if forced() == "openblas":
        return None
    library = _load_mkl()
    if library is None:
        if forced() == "mkl":
            raise ImportError("FASTGRAD_BLAS is mkl, but the package mkl is not installed: pip install fastgrad[mkl]")
        return None
    library.MKL_Set_Threading_Layer(1)  # sequential
    library.MKL_CBWR_Set(2)  # the machine's best code, the same for every alignment
    return library


def _load_mkl() -> Any:
    try:
        files = distribution("mkl").files or ()
    except PackageNotFoundError:
        return None
    for file in files:
        if file.name.startswith(("libmkl_rt.", "mkl_rt.")) and ("so" in file.name or file.suffix in (".dll", ".dylib")):
            reserve(LOADING, "loading MKL")
            try:
                return ctypes.CDLL(str(file.locate()))
            except OSError:
                return None
    return None


@lru_cache(maxsize=1)
def _openblas() -> Any:
    """SciPy's table of BLAS routines, its library kept to one thread.

    A library that is loaded now starts with one: where the system refuses threads or their buffers, OpenBLAS ends the process.
    """
    if "scipy.linalg.cython_blas" not in sys.modules:
        reserve(LOADING, "loading OpenBLAS")
    with _one_thread():
        from scipy.linalg import cython_blas
    from threadpoolctl import ThreadpoolController

    found = ThreadpoolController().select(user_api="blas").lib_controllers
    for library in [x for x in found if "scipy" in (x.filepath or "")] or found:
        library.set_num_threads(1)
    return cython_blas.__pyx_capi__


@contextmanager
def _one_thread() -> Iterator[None]:
    name = "OPENBLAS_NUM_THREADS"
    before = os.environ.get(name)
    os.environ[name] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def library_name() -> str:
    """The BLAS in use."""
    return "openblas" if _mkl() is None else "mkl"


@cache
def address(name: str, dtype: str) -> int:
    """The address of a BLAS routine (gemm, gemv) for float32 or float64."""
    name = ("s" if dtype == "f4" else "d") + name
    mkl = _mkl()
    if mkl is not None:
        return ctypes.cast(getattr(mkl, name), ctypes.c_void_p).value or 0
    capsule = _openblas()[name]
    get_name = ctypes.pythonapi.PyCapsule_GetName
    get_name.restype, get_name.argtypes = ctypes.c_char_p, [ctypes.py_object]
    get = ctypes.pythonapi.PyCapsule_GetPointer
    get.restype, get.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    return get(capsule, get_name(capsule))
