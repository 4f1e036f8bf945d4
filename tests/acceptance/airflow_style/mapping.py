"""Dynamic task mapping, as the pages on it show it."""

from datetime import datetime

from backfill import DAG, task, task_group
from backfill.operators import BashOperator, PythonOperator

with DAG("mapping", schedule="@daily", start_date=datetime(2024, 1, 1), catchup=False):

    @task
    def numbers():
        return [1, 2, 3]

    @task
    def words():
        return {"one": "eins", "two": "zwei"}

    @task
    def lists() -> dict[str, list[str]]:
        return {"upper": ["A", "B"], "lower": ["a"]}

    @task
    def nothing_at_all():
        return []

    @task
    def add(x, y):
        return x + y

    @task
    def pair(item):
        return list(item)

    @task
    def total(values):
        return sum(values)

    @task
    def doubled_of(value):
        if value > 4:
            raise ValueError("too much")
        return value

    some = numbers()
    added = add.partial(y=10).expand(x=some)
    total(added)

    add.override(task_id="product").expand(x=[1, 2], y=some)
    pair.override(task_id="items").expand(item=words())
    pair.override(task_id="zipped").expand(item=some.zip(lists()["upper"].concat(some)))
    total.override(task_id="never")(add.override(task_id="over_nothing").expand(x=nothing_at_all(), y=[1]))
    doubled_of.override(retries=0).expand(value=some.map(lambda value: value * 2))
    add.override(task_id="by_kwargs").expand_kwargs([{"x": 1, "y": 2}, {"x": "a", "y": "b"}])
    add.override(task_id="chained").partial(y=0).expand(x=some.concat(added))

    BashOperator.partial(task_id="shell", env={"GREETING": "hello"}).expand(
        bash_command=["echo $GREETING {{ ds }}", "echo {{ ti.map_index }}"]
    )
    PythonOperator.partial(task_id="classic", python_callable=lambda x: x * x).expand(op_args=[[2], [3]])

    @task_group
    def work_on(value):
        @task
        def fetch(value):
            return value * 100

        @task
        def store(value, index):
            return f"{index}:{value}"

        return store(fetch(value), "{{ ti.map_index }}")

    @task
    def all_stored(values):
        return sorted(values)

    all_stored(work_on.expand(value=some))
