"""For tests of DAGs: run a scripted scenario through the real loop, engine, store and database, without workers or waiting.

`run_scenario` takes a scenario as a dict: a DAG, what is in the database before, the command, and what each task does whenever it
runs. The database is the one of the settings, embedded where none is configured; everything happens in a scratch database
beside it, which goes with the process, or with `drop_scratch_databases` before that.
"""

from backfill.testing.database import drop_scratch_databases
from backfill.testing.scenario import run_scenario

__all__ = ["drop_scratch_databases", "run_scenario"]
