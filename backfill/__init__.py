"""Runs a DAG over a range of dates."""
