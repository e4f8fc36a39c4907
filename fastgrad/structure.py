"""The counter of changes in modules' structure, and the mark of objects that count there; below everything that looks at it."""

from __future__ import annotations

structure_version = [0]


class Counted:
    """Base class of objects that count changes of what is registered in them."""
