"""The trigger rules, as the table of S4.3 has them: one entry per row, one argument per column."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, NamedTuple

from backfill.engine.codes import FAILED, SKIPPED, SUCCESS, UPSTREAM_FAILED
from backfill.engine.verdicts import Verdict
from backfill.states import TriggerRule


class Upstream(NamedTuple):
    """How the relevant direct upstream task instances stand, without `removed` ones. The letters are those of S4.3."""

    #: All.
    n: int
    #: `success`.
    s: int = 0
    #: `skipped`.
    k: int = 0
    #: `failed` or `upstream_failed`.
    f: int = 0
    #: Only `failed`.
    x: int = 0
    #: Of them setups: all, `success`, `skipped`.
    setups: int = 0
    setups_s: int = 0
    setups_k: int = 0

    @property
    def d(self) -> int:
        """Finished."""
        return self.s + self.k + self.f


Condition = Callable[[Upstream], bool]


def never(_: Upstream) -> bool:
    """Hold for no upstream: the dash of the table."""
    return False


@dataclass(frozen=True, slots=True)
class Rule:
    """One row of S4.3."""

    runs: Condition
    skipped: Condition = never
    upstream_failed: Condition = never


_R = TriggerRule

RULES: Final[Mapping[TriggerRule, Rule]] = MappingProxyType({
    _R.ALL_SUCCESS: Rule(
        runs=lambda u: u.s == u.n,
        skipped=lambda u: u.d == u.n and u.k > 0 and u.f == 0,
        upstream_failed=lambda u: u.f > 0,
    ),
    _R.ALL_FAILED: Rule(
        runs=lambda u: u.f == u.n,
        skipped=lambda u: u.s + u.k > 0,
    ),
    _R.ALL_DONE: Rule(
        runs=lambda u: u.d == u.n,
    ),
    _R.ALL_SKIPPED: Rule(
        runs=lambda u: u.k == u.n,
        skipped=lambda u: u.s + u.f > 0,
    ),
    _R.ONE_SUCCESS: Rule(
        runs=lambda u: u.s > 0,
        skipped=lambda u: u.d == u.n and u.k == u.n,
        upstream_failed=lambda u: u.d == u.n and u.s == 0 and u.k < u.n,
    ),
    _R.ONE_FAILED: Rule(
        runs=lambda u: u.f > 0,
        skipped=lambda u: u.d == u.n and u.f == 0,
    ),
    _R.ONE_DONE: Rule(
        runs=lambda u: u.s + u.x > 0,
        skipped=lambda u: u.d == u.n and u.s + u.x == 0,
    ),
    _R.NONE_FAILED: Rule(
        runs=lambda u: u.s + u.k == u.n,
        upstream_failed=lambda u: u.f > 0,
    ),
    _R.NONE_FAILED_MIN_ONE_SUCCESS: Rule(
        runs=lambda u: u.s + u.k == u.n and u.s > 0,
        skipped=lambda u: u.k == u.n,
        upstream_failed=lambda u: u.f > 0,
    ),
    _R.NONE_SKIPPED: Rule(
        runs=lambda u: u.d == u.n and u.k == 0,
        skipped=lambda u: u.k > 0,
    ),
    _R.ALL_DONE_SETUP_SUCCESS: Rule(
        runs=lambda u: u.d == u.n and (u.setups == 0 or u.setups_s > 0),
        skipped=lambda u: u.d == u.n and u.setups > 0 and u.setups_k == u.setups,
        upstream_failed=lambda u: u.d == u.n and u.setups > 0 and u.setups_s == 0 and u.setups_k < u.setups,
    ),
    _R.ALWAYS: Rule(
        runs=lambda _: True,
    ),
})  # fmt: skip


def judge(rule: TriggerRule, upstream: Upstream) -> Verdict:
    """Return what `rule` says (S4.1 line 5). Without upstream task instances every rule passes."""
    row = RULES[rule]
    if upstream.n == 0 or row.runs(upstream):
        return Verdict.PASS
    if row.upstream_failed(upstream):
        return Verdict.FAIL
    if row.skipped(upstream):
        return Verdict.SKIP
    return Verdict.WAIT


#: One of three upstream task instances has ended, by the code of how it did.
_FIRST_OF_THREE: Final = {
    SUCCESS: Upstream(n=3, s=1),
    SKIPPED: Upstream(n=3, k=1),
    FAILED: Upstream(n=3, f=1, x=1),
    UPSTREAM_FAILED: Upstream(n=3, f=1),
}

#: Rules that say nothing before the first upstream task instance has ended: all but `always`.
WAIT_FOR_THE_FIRST: Final = frozenset(rule for rule in TriggerRule if judge(rule, Upstream(n=3)) is Verdict.WAIT)

#: The codes that decide a rule "at once", before all upstream task instances have finished.
AT_ONCE: Final[Mapping[TriggerRule, frozenset[int]]] = MappingProxyType({
    rule: frozenset(
        code
        for code, first in _FIRST_OF_THREE.items()
        if judge(rule, first) is not Verdict.WAIT and rule in WAIT_FOR_THE_FIRST
    )
    for rule in TriggerRule
})  # fmt: skip

#: Rules that let a task run when all its upstream task instances are `success`: the way most of them go.
RUN_AFTER_SUCCESS: Final = frozenset(rule for rule in TriggerRule if judge(rule, Upstream(n=3, s=3)) is Verdict.PASS)
