"""The one device there is, and the layouts and names that scripts ask about."""

from __future__ import annotations

from typing import Any


class device:
    """`device("cpu")`; any other device is an honest error."""

    __slots__ = ("index", "type")

    def __init__(self, type: Any = "cpu", index: int | None = None) -> None:
        if isinstance(type, device):
            type, index = "cpu", type.index
        if not isinstance(type, str):
            raise TypeError(f"device(): argument 'type' must be str, not {type.__class__.__name__}")
        name, _, number = type.partition(":")
        if name != "cpu":
            known = name in ("cuda", "mps", "xpu", "meta", "hip", "xla")
            reason = "fastgrad runs on the CPU only; use device('cpu')" if known else f"Invalid device string: '{type}'"
            raise RuntimeError(f"device '{type}' is not available: {reason}" if known else reason)
        self.type = "cpu"
        self.index = int(number) if number else index

    def __repr__(self) -> str:
        return "device(type='cpu')" if self.index is None else f"device(type='cpu', index={self.index})"

    def __str__(self) -> str:
        return "cpu" if self.index is None else f"cpu:{self.index}"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, device) and (self.type, self.index) == (other.type, other.index)

    def __hash__(self) -> int:
        return hash((self.type, self.index))


CPU = device("cpu")


def check_device(value: Any) -> None:
    """Raise unless a device argument names the CPU."""
    if value is not None:
        device(value)
