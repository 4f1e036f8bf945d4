"""Every departure from New York in 2013, a day at a time: `backfill run examples/flights.py -s 2013-01-01 -e 2013-12-31`."""

from datetime import datetime, timedelta

import flights_data as source
import flights_warehouse as warehouse

from backfill import dag, task


@dag(
    "flights",
    schedule="@daily",
    start_date=datetime(2013, 1, 1),
    end_date=datetime(2013, 12, 31),
    default_args={"retries": 2, "retry_delay": timedelta(seconds=5)},
)
def flights() -> None:
    """Extract and check a day's departures, look at them in three ways, load the results, add them to the running total."""
    day = "{{ ds }}"
    checked = check(day, extract(day))
    results = [by_carrier(day), by_origin(day), by_weather(day)]
    checked >> results >> load(day, *results) >> add_to_total(day)


@task
def extract(day: str) -> int:
    """Copy the day's departures, and its weather hour by hour, into the warehouse; return the number of departures."""
    departures = source.departures(day)
    with warehouse.transaction() as tx:
        tx.replace("departure", day, departures)
        tx.replace("weather", day, source.weather(day))
    return len(departures)


@task
def check(day: str, extracted: int) -> None:
    """Refuse a day without departures, and one whose departures did not all arrive."""
    with warehouse.transaction() as tx:
        ((arrived,),) = tx.select("SELECT count(*) FROM departure WHERE day = %(day)s", day=day)
    if not extracted or arrived != extracted:
        raise ValueError(f"of {extracted} departures on {day}, {arrived} are in the warehouse")


@task
def by_carrier(day: str) -> list[warehouse.Row]:
    """Return departures, how many of them were flown, and their mean delay in minutes, for each airline."""
    with warehouse.transaction() as tx:
        return tx.select(
            """
            SELECT carrier, count(*), count(delay), avg(delay)::float
            FROM departure WHERE day = %(day)s GROUP BY carrier
            """,
            day=day,
        )


@task
def by_origin(day: str) -> list[warehouse.Row]:
    """Return the same for each airport."""
    with warehouse.transaction() as tx:
        return tx.select(
            """
            SELECT origin, count(*), count(delay), avg(delay)::float
            FROM departure WHERE day = %(day)s GROUP BY origin
            """,
            day=day,
        )


@task
def by_weather(day: str) -> list[warehouse.Row]:
    """Return the same for each kind of weather, there and in that hour."""
    with warehouse.transaction() as tx:
        return tx.select(
            """
            SELECT CASE WHEN weather.day IS NULL THEN 'unknown'
                        WHEN rain > 0 THEN 'rain'
                        WHEN visibility < 5 THEN 'fog'
                        WHEN wind >= 20 THEN 'wind'
                        ELSE 'fair' END AS condition,
                   count(*), count(delay), avg(delay)::float
            FROM departure LEFT JOIN weather USING (day, origin, hour)
            WHERE day = %(day)s GROUP BY condition
            """,
            day=day,
        )


@task
def load(day: str, carriers: list[warehouse.Row], origins: list[warehouse.Row], weather: list[warehouse.Row]) -> None:
    """Make these the results of the day, whatever an earlier attempt has left."""
    with warehouse.transaction() as tx:
        tx.replace("carrier_day", day, carriers)
        tx.replace("origin_day", day, origins)
        tx.replace("weather_day", day, weather)


@task(depends_on_past=True)
def add_to_total(day: str) -> int:
    """Return all departures up to this day: the total of the day before, which has to be there first, and this day's."""
    with warehouse.transaction() as tx:
        ((today,),) = tx.select("SELECT sum(departures) FROM origin_day WHERE day = %(day)s", day=day)
        before = tx.select("SELECT total FROM running_total WHERE day < %(day)s ORDER BY day DESC LIMIT 1", day=day)
        total = int(today) + (before[0][0] if before else 0)
        tx.replace("running_total", day, [(today, total)])
    return total


flights()
