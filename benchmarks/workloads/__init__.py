"""One module per workload; each has `run(context) -> dict` with its figures and ratios."""
