"""Compiled kernels and the sweeps that call them. Knows nothing of the library above it.

`native` holds the intrinsics, `build` turns source into machine code and keeps it on disk by content, `sweep` calls record
after record, the other files hold the kernels by kind. Ships as `fastgrad.kernels`.
"""

if not __name__.startswith("fastgrad."):
    raise ImportError("this package is fastgrad.kernels; it is not importable under another name")
