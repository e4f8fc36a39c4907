"""What functions return that give values along a dimension and their positions: named tuples, printed as PyTorch's are."""

from __future__ import annotations

from typing import Any, NamedTuple


class _Found(NamedTuple):
    values: Any
    indices: Any


class Found(_Found):
    """Values and their positions along a dimension."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"fastgrad.return_types.{type(self).__name__}(\nvalues={self.values!r},\nindices={self.indices!r})"


class max(Found):
    """The largest values and their positions."""

    __slots__ = ()


class min(Found):
    """The smallest values and their positions."""

    __slots__ = ()


class sort(Found):
    """All values in order, and the positions that they had."""

    __slots__ = ()


class topk(Found):
    """The largest or smallest values, and the positions that they had."""

    __slots__ = ()
