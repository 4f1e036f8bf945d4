"""The servers that faults happen to, a scene for each, and the table at the end."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import servers as tests_servers
from chaos_plans import Plan
from chaos_scene import Scene
from chaos_servers import FragileServers
from chaos_table import COLUMNS, table, write_table


@pytest.fixture(scope="session")
def fragile_servers() -> Iterator[FragileServers]:
    home = tests_servers.make_home()
    servers = FragileServers(home)
    yield servers
    servers.close()
    tests_servers.abandon(home)


@pytest.fixture
def scene_of(fragile_servers: FragileServers, tmp_path: Path) -> Iterator[Callable[[Plan, int], Scene]]:
    """Give a function that sets the scene for a plan and a seed; whatever is started on it ends with the test."""
    scenes: list[Scene] = []
    with fragile_servers.database() as url:

        def set_scene(plan: Plan, seed: int) -> Scene:
            scenes.append(Scene(fragile_servers, url, tmp_path, plan, seed))
            return scenes[-1]

        yield set_scene
        for scene in scenes:
            scene.close()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what the journal said of each fault."""
    reports = [report for kind in ("passed", "failed") for report in terminalreporter.getreports(kind)]
    rows = [dict(report.user_properties) for report in reports if dict(report.user_properties).keys() >= {*COLUMNS}]
    if rows:
        text = table(rows)
        terminalreporter.section("the faults, as the journal has them")
        terminalreporter.write_line(text)
        write_table(text)
