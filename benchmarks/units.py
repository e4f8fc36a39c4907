"""Amounts for people: three digits and a unit."""

from __future__ import annotations

import math

__all__ = ["amount"]

_UNITS = {"ns": (1000, ("ns", "µs", "ms", "s")), "B": (1024, ("B", "KiB", "MiB", "GiB"))}


def amount(value: float, unit: str = "ns") -> str:
    """A number of nanoseconds or bytes.

    >>> amount(1234.5), amount(98.76), amount(2.5e9), amount(5 * 2**20, "B")
    ('1.23 µs', '98.8 ns', '2.50 s', '5.00 MiB')
    """
    if math.isnan(value):
        return "-"
    factor, names = _UNITS[unit]
    name, *larger = names
    for name_above in larger:
        if abs(value) < 999.5:
            break
        value, name = value / factor, name_above
    digits = max(0, 2 - math.floor(math.log10(max(abs(value), 1e-2) * 1.0005)))
    return f"{value:.{min(digits, 2)}f} {name}"
