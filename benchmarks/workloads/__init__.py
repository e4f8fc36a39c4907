"""One module per workload; each has a function per peer, and its list `WORKLOADS`."""
