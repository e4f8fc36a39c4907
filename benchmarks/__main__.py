"""`python -m benchmarks`: measure, and print one table with ratios."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from .peers import PEERS, interpreters
from .registry import WORKLOADS
from .runner import Pool, Settings, measure
from .table import as_json, as_markdown, as_text


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "--only", action="append", metavar="NAME", help="workloads whose name contains this (repeatable)"
    )
    parser.add_argument("--peers", metavar="KEYS", help=f"these peers only, separated by commas: {', '.join(PEERS)}")
    parser.add_argument("--peers-python", action="append", metavar="PATH", help="where to find peers that are not here")
    parser.add_argument("--torch-compile", action="store_true", help="torch.compile too (slow)")
    parser.add_argument("--quick", action="store_true", help="small workloads, few repeats: does it work?")
    parser.add_argument("--rounds", type=int, help="turns of each peer (15)")
    parser.add_argument("--seconds", type=float, help="length of a turn (0.05)")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write all times to a file")
    parser.add_argument("--markdown", action="store_true", help="a Markdown table at the end")
    parser.add_argument("--list", action="store_true", help="name the workloads, and stop")
    parser.add_argument("--verbose", action="store_true", help="show what the libraries print")
    return parser.parse_args()


def _choose(arguments: argparse.Namespace) -> tuple[list[str], dict[str, str]]:
    """Names of workloads; interpreters of peers. Says which peers are missing."""
    names = [name for name, workload in WORKLOADS.items() if workload.quick or not arguments.quick]
    if arguments.only:
        names = [name for name in WORKLOADS if any(part.lower() in name.lower() for part in arguments.only)]
        if not names:
            sys.exit(f"no workload has {' or '.join(map(repr, arguments.only))} in its name; --list shows them")
    found = interpreters(arguments.peers_python)
    wanted = arguments.peers.split(",") if arguments.peers else list(PEERS)
    unknown = [key for key in wanted if key not in PEERS]
    if unknown:
        sys.exit(f"unknown peers: {', '.join(unknown)}; there are {', '.join(PEERS)}")
    if not arguments.peers and not arguments.torch_compile:
        wanted = [key for key in wanted if not PEERS[key].optional]
    missing = [PEERS[key] for key in wanted if key not in found]
    if missing:
        print("not installed, skipped:", ", ".join(f"{p.label} ({', '.join(p.needs)})" for p in missing))
    return names, {key: found[key] for key in wanted if key in found}


def main() -> int:
    """Run; the exit status is 1 if a peer failed."""
    arguments = _arguments()
    if arguments.list:
        print("\n".join(WORKLOADS))
        return 0
    names, pythons = _choose(arguments)
    settings = Settings(
        rounds=arguments.rounds or (3 if arguments.quick else 15),
        seconds=arguments.seconds or (0.01 if arguments.quick else 0.05),
        threads=not arguments.quick,
    )

    def tell(text: str) -> None:
        if sys.stderr.isatty():
            print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)

    results = []
    with Pool(pythons, None if arguments.verbose else subprocess.DEVNULL) as pool:
        for name in names:
            workload = WORKLOADS[name]
            result = measure(workload, [key for key in workload.peers() if key in pythons], pool, settings, tell)
            tell("")
            results.append(result)
            print(as_text(result), end="\n\n", flush=True)
    if arguments.markdown:
        print(as_markdown(results))
    if arguments.json:
        arguments.json.write_text(as_json(results))
    return int(any(m.error for result in results for m in result.measurements.values()))


if __name__ == "__main__":
    sys.exit(main())
