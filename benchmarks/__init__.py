"""`make bench`: every promise about speed, measured. `python -m benchmarks --help` lists what it takes.

Each module of `benchmarks.measures` is one row or a few rows of the table in `docs/benchmarks.md`; its docstring says how it is
measured and stands in that page. What is measured is the public surface: `backfill run`, `backfill worker`, the rows in the database.
`benchmarks.observed` runs a command and counts what it does meanwhile, `benchmarks.instant` takes the place of workers where only
the coordinator is looked at. Needs Linux and the `embedded` extra.
"""
