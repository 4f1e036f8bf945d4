"""One job after the other: what `--treat-dag-id-as-regex` makes of a command for one DAG (semantics, section 10)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import click

from backfill.dag.loader import LoadedDag
from backfill.exceptions import Declined, NothingToDo, RefusedError, UsageError


def one_after_the_other(dags: Sequence[LoadedDag], work: Callable[[LoadedDag], int], *, go_on: bool) -> int:
    """Do `work` for each of the DAGs and return the first exit code that is not 0, else 0.

    One that does not end with 0 stops the rest unless `go_on`; a DAG without run dates is passed over. Raises what ends the work for
    good, and `NothingToDo` if none of the DAGs had anything to do.
    """
    codes: list[int] = []
    for place, loaded in enumerate(dags):
        try:
            codes.append(work(loaded))
        except NothingToDo as nothing:
            click.echo(str(nothing), err=True)
            continue
        except Declined:
            raise  # who says no does not want to be asked again
        except (UsageError, RefusedError) as refused:
            click.echo(f"Error: {refused}", err=True)
            codes.append(refused.exit_code)
        if codes[-1] and not go_on:
            _tell_of_the_rest(dags[place + 1 :])
            break
    if not codes:
        raise NothingToDo(
            f"None of the {len(dags)} DAGs that match has anything to do; give a range that holds run dates."
        )
    return next((code for code in codes if code), 0)


def _tell_of_the_rest(dags: Sequence[LoadedDag]) -> None:
    if dags:
        names = ", ".join(loaded.dag.dag_id for loaded in dags)
        click.echo(f"Not started because of that: {names}; --continue-on-failures goes on.", err=True)
