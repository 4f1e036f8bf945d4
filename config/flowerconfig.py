"""Flower as a program of its own: `celery -A workers flower --conf=config/flowerconfig.py`; `backfill flower` is the same."""

from backfill.config import generated_secret, load_settings

_settings = load_settings()
_password = _settings.flower.password or generated_secret(_settings.core.home / "flower_password")

# /metrics and /healthcheck ask for no login whatever stands here: keep them on loopback or behind a proxy
address = _settings.flower.address
port = _settings.flower.port
basic_auth = [f"{_settings.flower.user}:{_password}"]
# nobody shuts down a worker or revokes a task by a click
read_only = True
# seconds until a worker that says nothing leaves the pages
purge_offline_workers = 300
# what is kept in memory
max_tasks = 20_000
# the keyword arguments say which task instance it is
tasks_columns = "name,kwargs,state,received,runtime,worker,uuid"
