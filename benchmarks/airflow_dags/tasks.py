"""For Airflow: the same as `tasks.py`, ten tasks that know nothing of each other and do nothing."""

from datetime import datetime

from airflow import DAG
from airflow.operators.python import PythonOperator


def work() -> None:
    """Nothing."""


with DAG(
    "bench",
    schedule="@daily",
    start_date=datetime(2024, 1, 1),
    max_active_runs=64,
    max_active_tasks=128,
) as dag:
    for number in range(10):
        PythonOperator(task_id=f"task_{number:03}", python_callable=work)
