"""All faults: the modules of which each enters its own into the list."""

from __future__ import annotations

import faults_of_brokers
import faults_of_coordinators
import faults_of_databases
import faults_of_flights
import faults_of_machines
import faults_of_workers
from chaos_faults import FAULTS

__all__ = ["FAULTS", "MODULES"]

MODULES = (
    faults_of_workers,
    faults_of_coordinators,
    faults_of_brokers,
    faults_of_databases,
    faults_of_machines,
    faults_of_flights,
)
