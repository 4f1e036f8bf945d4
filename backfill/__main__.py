"""`python -m backfill` is the same as `backfill`."""

from backfill.cli.main import main

main()
