"""What this CPU's vectors are like: their width, and whether a fused multiply-add is one instruction."""

import llvmlite.binding as llvm


def vector_bytes() -> int:
    """The width of this machine's vectors."""
    features = llvm.get_host_cpu_features()
    return 64 if features.get("avx512f") else 32 if features.get("avx") else 16


def has_fma() -> bool:
    """Whether a fused multiply-add is one instruction here."""
    features = llvm.get_host_cpu_features()
    return bool(features.get("fma")) or not features.get("sse2")


def width(dtype: str) -> int:
    """Elements of a vector."""
    return vector_bytes() // (4 if dtype == "f4" else 8)
