"""What scripts ask before they choose a device: there is no CUDA here."""

__all__ = ["device_count", "is_available"]


def is_available() -> bool:
    """False: fastgrad runs on the CPU."""
    return False


def device_count() -> int:
    """0."""
    return 0
