"""Print what the DAG `flights` has loaded: the busiest days, the airlines, and the running total."""

import csv
import os
from contextlib import ExitStack

import flights_data
import flights_warehouse as warehouse
from rich.console import Console
from rich.table import Table

from backfill.bootstrap import open_runtime
from backfill.config import load_settings

BUSIEST_DAYS = """
    SELECT day::text, to_char(day, 'FMDay'), total.departures, mean_delay, condition
    FROM running_total AS total
    JOIN LATERAL (SELECT sum(flown * mean_delay) / sum(flown) AS mean_delay
                  FROM carrier_day WHERE day = total.day) AS delays ON true
    JOIN LATERAL (SELECT condition FROM weather_day WHERE day = total.day ORDER BY departures DESC LIMIT 1) AS mostly ON true
    ORDER BY departures DESC, day LIMIT 10
"""
CARRIERS = """
    SELECT carrier, sum(departures), sum(flown * mean_delay) / sum(flown)
    FROM carrier_day GROUP BY carrier ORDER BY 2 DESC
"""
TOTAL = "SELECT count(*), min(day)::text, max(day)::text, coalesce(max(total), 0) FROM running_total"


def main() -> None:
    """Read the warehouse, starting the embedded server for that where none is configured, and print its tables."""
    with ExitStack() as servers:
        url = warehouse.warehouse_url() if os.environ.get("WAREHOUSE_URL") else None
        if url is None:
            runtime = servers.enter_context(open_runtime(load_settings(), broker=False, check_schema=False))
            url = warehouse.warehouse_url(runtime.database_url)
        with warehouse.transaction(url) as tx:
            show(tx, Console())


def show(tx: warehouse.Transaction, console: Console) -> None:
    """Print the tables of the report."""
    names = airlines()
    days = Table("day", "", "weather", title="Busiest days", title_justify="left")
    carriers = Table("airline", title="Airlines", title_justify="left")
    for table in (days, carriers):
        table.add_column("departures", justify="right")
        table.add_column("mean delay, min", justify="right")
    for day, weekday, departures, delay, condition in tx.select(BUSIEST_DAYS):
        days.add_row(day, weekday, condition, f"{departures:,}", minutes(delay))
    for carrier, departures, delay in tx.select(CARRIERS):
        carriers.add_row(names.get(carrier, carrier), f"{departures:,}", minutes(delay))
    ((count, first, last, total),) = tx.select(TOTAL)
    console.print(days, carriers)
    console.print(
        f"{total:,} departures on {count} days from {first} to {last}" if count else "Nothing was loaded yet."
    )


def minutes(delay: float | None) -> str:
    """Return a delay as text; a day or an airline without a single departure has none."""
    return "" if delay is None else f"{delay:.1f}"


def airlines() -> dict[str, str]:
    """Return the names of the airlines by their codes."""
    with (flights_data.package_folder() / "airlines.csv").open(encoding="utf-8", newline="") as lines:
        return {row["carrier"]: row["name"] for row in csv.DictReader(lines)}


if __name__ == "__main__":
    main()
