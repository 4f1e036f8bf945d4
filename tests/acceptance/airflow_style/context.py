"""Templates, params, XComs, callbacks and the context."""

import os
from datetime import datetime, timedelta
from pathlib import Path

from backfill import DAG, Param, get_current_context, task
from backfill.exceptions import SkipTask
from backfill.operators import BashOperator, PythonOperator


def note(text):
    with (Path(os.environ["NOTES"]) / "notes").open("a") as file:
        file.write(text + "\n")


def called(what):
    def callback(context):
        note(f"{what} {context['ti'].task_id} {context['ti'].try_number} {type(context.get('exception')).__name__}")

    return callback


def run_called(what):
    return lambda context: note(f"{what} {context['dag_run'].run_id} {context['reason']}")


CALLBACKS = {
    "on_execute_callback": called("execute"),
    "on_success_callback": called("success"),
    "on_retry_callback": called("retry"),
    "on_failure_callback": [called("failure"), called("failure again")],
    "on_skipped_callback": called("skipped"),
}

TEMPLATE = """
ds={{ ds }} ds_nodash={{ ds_nodash }} ts={{ ts }} ts_nodash={{ ts_nodash }} with_tz={{ ts_nodash_with_tz }}
logical={{ logical_date.isoformat() }} execution={{ execution_date.isoformat() }}
interval={{ data_interval_start | ds }}/{{ data_interval_end | ds }}
run={{ run_id }} {{ dag_run.run_id }} {{ dag.dag_id }} {{ task.task_id }} {{ ti.try_number }} {{ task_instance.map_index }}
key={{ task_instance_key_str }} params={{ params.region }} conf={{ dag_run.conf.region }} test={{ test_mode }}
prev={{ prev_ds }} {{ prev_ds_nodash }} next={{ next_ds }} {{ next_ds_nodash }}
around={{ yesterday_ds }} {{ yesterday_ds_nodash }} {{ tomorrow_ds }} {{ tomorrow_ds_nodash }}
dates={{ prev_execution_date | ds }} {{ next_execution_date | ds }}
success={{ prev_execution_date_success | ds }} {{ prev_data_interval_start_success | ds }} {{ prev_data_interval_end_success | ds }}
started={{ prev_start_date_success is not none }} {{ prev_end_date_success is not none }}
var={{ var.value.greeting }} {{ var.json.numbers[1] }} {{ var.value.get('missing', 'none') }} conn={{ conn.warehouse.host }}
macros={{ macros.ds_add(ds, 5) }} {{ macros.ds_format(ds, '%Y-%m-%d', '%d.%m.%Y') }} mine={{ shout('hi') }} {{ 'abc' | back }}
index={{ map_index_template }} count={{ expanded_ti_count }} {{ inlets }} {{ outlets }} {{ triggering_dataset_events | length }}
""".strip()

with DAG(
    "context",
    schedule="@daily",
    start_date=datetime(2024, 1, 1),
    params={"region": Param("eu", type="string", enum=["eu", "us"]), "limit": Param(10, type="integer", minimum=1)},
    user_defined_macros={"shout": str.upper},
    user_defined_filters={"back": lambda text: text[::-1]},
    default_args={"depends_on_past": True},
    on_success_callback=run_called("run success"),
    on_failure_callback=run_called("run failure"),
    max_active_runs=1,
):

    @task
    def rendered(text):
        return text

    rendered(TEMPLATE)

    @task(multiple_outputs=True)
    def several():
        return {"first": 1, "second": [2]}

    @task(params={"limit": 5})
    def in_context(ti=None, params=None, **kwargs):
        here = get_current_context()
        ti.xcom_push(key="pushed", value={"ds": here["ds"], "same": here["ti"].task_id == ti.task_id})
        names = ("DAG_ID", "TASK_ID", "EXECUTION_DATE", "TRY_NUMBER", "DAG_RUN_ID", "DAG_OWNER")
        return [
            params["region"],
            params["limit"],
            kwargs["dag_run"].conf,
            *(os.environ[f"AIRFLOW_CTX_{n}"] for n in names),
        ]

    @task
    def puller(ti=None):
        return [
            ti.xcom_pull(task_ids="in_context", key="pushed"),
            ti.xcom_pull(task_ids=["several", "rendered_native"]),
            ti.xcom_pull(task_ids="several", key="second"),
            ti.xcom_pull(task_ids="nobody"),
        ]

    native = PythonOperator(
        task_id="rendered_native",
        python_callable=lambda day, templates_dict: [day, templates_dict["next"]],
        op_kwargs={"day": "{{ ds }}"},
        templates_dict={"next": "{{ next_ds }}"},
    )
    outputs = several()
    [outputs, in_context(), native] >> puller()

    BashOperator(
        task_id="last_line", bash_command="echo first; echo {{ params.region }} $PLANET", env={"PLANET": "mars"}
    )
    BashOperator(task_id="from_file", bash_command="script.sh", append_env=True)
    BashOperator(task_id="silent", bash_command="echo nothing", do_xcom_push=False)

    @task(**CALLBACKS)
    def well():
        print("a line of the log")

    @task(**CALLBACKS)
    def not_today():
        raise SkipTask("no")

    well(), not_today()

with DAG("failing", schedule="@daily", start_date=datetime(2024, 1, 1), on_failure_callback=run_called("run failure")):

    @task(retries=2, retry_delay=timedelta(milliseconds=10), **CALLBACKS)
    def badly(ti=None):
        raise KeyError(f"try {ti.try_number}")

    badly()
