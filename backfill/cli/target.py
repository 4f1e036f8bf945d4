"""TARGET: a dag_id found in the DAGs folder, a `path/to/file.py`, or `path/to/file.py:dag_id` (interface.md, section 3)."""

from __future__ import annotations

from pathlib import Path

import click

from backfill.config import Settings
from backfill.dag.loader import LoadedDag, find_dag, find_dags

subdir_option = click.option(
    "-S",
    "--subdir",
    type=click.Path(exists=True, path_type=Path),
    help="File or folder to look for DAGs in, instead of core.dags_folder.",
)


def find_target(target: str, subdir: Path | None, settings: Settings) -> LoadedDag:
    """Return the DAG that `target` names, looked for in `subdir` where one is given.

    Raises `DagNotFound`, `DagImportError`, `DagError`.
    """
    return find_dag(target, subdir or settings.core.dags_folder)


def find_matching(dag_id_regex: str, subdir: Path | None, settings: Settings) -> list[LoadedDag]:
    """Return the DAGs whose id has a match, in order of dag_id; files that cannot be loaded are named on stderr.

    Raises `UsageError` for a bad regex, `DagNotFound` if there is no match.
    """
    matching, errors = find_dags(dag_id_regex, subdir or settings.core.dags_folder)
    for error in errors:
        click.echo(f"Warning: {error}", err=True)
    return matching
