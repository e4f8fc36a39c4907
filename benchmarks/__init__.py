"""Benchmarks: fastgrad beside its peers, measured in one run.

`python -m benchmarks` prints the table; README.md tells how to set up the peers. To read the code, start with
workload.py (what a workload is), then one file in workloads/, then worker.py (who runs it) and runner.py (who asks).
"""
