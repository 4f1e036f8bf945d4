"""Mapping with skips, groups with a branch inside, what was pushed index by index, native values."""

from datetime import datetime

from backfill import DAG, dag, task, task_group
from backfill.exceptions import AirflowSkipException
from backfill.operators import BaseOperator, EmptyOperator


def only_even(number):
    if number % 2:
        raise AirflowSkipException(f"{number} is odd")
    return number


class Shouted(BaseOperator):
    template_fields = ("what",)

    def __init__(self, *, what, **kwargs):
        super().__init__(**kwargs)
        self.what = what

    def execute(self, context):
        self.log.info("shouting %s", self.what)
        return [self.what.upper(), context["params"]["mark"]]


with DAG("more_mapping", schedule="@daily", start_date=datetime(2024, 1, 1)):

    @task
    def numbers():
        return [1, 2, 3, 4]

    @task
    def keep(number):
        return number

    @task(trigger_rule="all_done")
    def seen(kept, ti=None):
        return [
            list(kept),
            ti.xcom_pull("keep"),
            ti.xcom_pull("keep", map_indexes=[1]),
            ti.xcom_pull("keep", map_indexes=3),
        ]

    seen(keep.expand(number=numbers().map(only_even)))

    @task
    def arguments():
        return [{"number": 10}, {"number": 20}]

    keep.override(task_id="by_xcom").expand_kwargs(arguments())

    @task_group
    def sized(size, name):
        @task.branch
        def choose(size):
            return "sized.big" if size > 2 else "sized.small"

        @task(trigger_rule="none_failed_min_one_success")
        def join(name, ti=None):
            return [ti.map_index, name]

        ends = [EmptyOperator(task_id="big"), EmptyOperator(task_id="small")]
        choose(size) >> ends >> join(name)

    sized.expand_kwargs([{"size": 1, "name": "a"}, {"size": 5, "name": "b"}])
    Shouted.partial(task_id="shouted", params={"mark": "!"}).expand(what=["day {{ ds }}", "b"])


@dag(schedule="@daily", start_date=datetime(2024, 1, 1), render_template_as_native_obj=True, params={"sizes": [1, 2]})
def native():
    @task
    def kinds(sizes, date):
        return [sizes, type(date).__name__]

    kinds("{{ params.sizes }}", "{{ logical_date }}")


native()
