"""Benchmarks only measure when they are asked to: `--benchmark-only` or `--benchmark-enable`."""

import pytest


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """pyproject.toml switches measuring off for the tests; --benchmark-only, which pytest-benchmark takes for a
    contradiction to that, wins here."""
    if config.getoption("benchmark_only", False):
        config.option.benchmark_disable = False
