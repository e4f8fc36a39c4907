"""`python -m benchmarks`: measure, and print one table with ratios; `--report docs` measures everything and writes a page."""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from .machine import describe
from .peers import PEERS, interpreters
from .registry import WORKLOADS
from .runner import Pool, Result, Settings, measure
from .scaling import SERIES
from .table import as_json, as_markdown, as_text
from .workload import Workload


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "--only", action="append", metavar="NAME", help="workloads whose name contains this (repeatable)"
    )
    parser.add_argument("--peers", metavar="KEYS", help=f"these peers only, separated by commas: {', '.join(PEERS)}")
    parser.add_argument("--peers-python", action="append", metavar="PATH", help="where to find peers that are not here")
    parser.add_argument("--quick", action="store_true", help="small workloads, few repeats: does it work?")
    parser.add_argument("--rounds", type=int, help="turns of each peer (15)")
    parser.add_argument("--seconds", type=float, help="length of a turn (0.05)")
    parser.add_argument("--fresh-caches", action="store_true", help='"first" is that of empty cache directories')
    parser.add_argument("--scaling", action="store_true", help="the points of the plots, too")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write all times to a file")
    parser.add_argument("--markdown", action="store_true", help="a Markdown table at the end")
    parser.add_argument(
        "--report",
        metavar="DIR",
        type=Path,
        help="everything with fresh caches; writes DIR/benchmarks.md, and times and plots to DIR/benchmarks/",
    )
    parser.add_argument("--list", action="store_true", help="name the workloads, and stop")
    parser.add_argument("--verbose", action="store_true", help="show what the libraries print")
    return parser.parse_args()


def _choose(arguments: argparse.Namespace) -> list[Workload]:
    workloads = [w for w in WORKLOADS.values() if w.quick or not arguments.quick]
    if arguments.only:
        workloads = [w for w in WORKLOADS.values() if any(part.lower() in w.name.lower() for part in arguments.only)]
        if not workloads:
            sys.exit(f"no workload has {' or '.join(map(repr, arguments.only))} in its name; --list shows them")
    return workloads


def _find_peers(arguments: argparse.Namespace) -> dict[str, str]:
    """Interpreters of peers. Says which peers are missing."""
    found = interpreters(arguments.peers_python)
    wanted = arguments.peers.split(",") if arguments.peers else list(PEERS)
    unknown = [key for key in wanted if key not in PEERS]
    if unknown:
        sys.exit(f"unknown peers: {', '.join(unknown)}; there are {', '.join(PEERS)}")
    if arguments.quick and not arguments.peers:
        wanted = [key for key in wanted if not PEERS[key].slow]
    missing = [PEERS[key] for key in wanted if key not in found]
    if missing:
        print("not installed, skipped:", ", ".join(f"{p.label} ({', '.join(p.needs)})" for p in missing))
    return {key: found[key] for key in wanted if key in found}


def _tell(text: str) -> None:
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)


def _measure_all(workloads: list[Workload], pool: Pool, settings: Settings, done: Callable[[Result], None]) -> None:
    for workload in workloads:
        result = measure(workload, [key for key in workload.peers() if key in pool.pythons], pool, settings, _tell)
        _tell("")
        done(result)


def main() -> int:
    """Run; the exit status is 1 if a peer failed."""
    arguments = _arguments()
    if arguments.list:
        print("\n".join(WORKLOADS))
        return 0
    if arguments.report:
        from . import report

        report.check(arguments.report)
    workloads, pythons = _choose(arguments), _find_peers(arguments)
    settings = Settings(
        rounds=arguments.rounds or (3 if arguments.quick else 15),
        seconds=arguments.seconds or (0.01 if arguments.quick else 0.05),
        threads=not arguments.quick,
    )
    fresh = arguments.fresh_caches or bool(arguments.report)
    files = [
        file for file in (arguments.json, arguments.report and arguments.report / "benchmarks" / "times.json") if file
    ]
    results: list[Result] = []
    with Pool(pythons, None if arguments.verbose else subprocess.DEVNULL, fresh) as pool:
        machine = describe(pool)
        print("\n".join(machine["lines"]), end="\n\n", flush=True)

        def done(result: Result) -> None:
            """Show a result, and keep it at once: a run that is interrupted has measured something."""
            print(as_text(result), end="\n\n", flush=True)
            results.append(result)
            for file in files:
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(as_json(results, machine))

        _measure_all(workloads, pool, settings, done)
        if arguments.scaling or arguments.report:
            points = {w.name: w for series in SERIES for w in series.points.values()}
            missing = [w for name, w in points.items() if name not in {r.workload.name for r in results}]
            _measure_all(missing, pool, replace(settings, rounds=min(5, settings.rounds), limit=3.0), done)
    if arguments.markdown:
        print(as_markdown(results))
    if arguments.report:
        report.write(files[-1], arguments.report)
    return int(any(m.error for result in results for m in result.measurements.values()))


if __name__ == "__main__":
    sys.exit(main())
