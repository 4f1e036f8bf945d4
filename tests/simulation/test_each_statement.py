"""Each statement of the model is held against PostgreSQL on random rows: the same answer, and the same rows afterwards.

That this finds what is wrong in the model is shown by changing each condition, each set of states and each column that is in it.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator

import model_database
import model_jobs
import pytest
from beside_postgres import Case, beside, disagreement
from mirrored_database import freeze_time
from mutants import Mutant, all_mutants
from random_questions import questions
from random_rows import Dice, random_tables
from sqlalchemy import Engine

#: Of more than 900 changes.
_MAY_STAY_UNSEEN = 60
#: How often each statement is asked on the same rows.
_DRAWS = 3


@pytest.fixture
def frozen(engine: Engine) -> Engine:
    freeze_time(engine)
    return engine


def cases(engine: Engine, seeds: range) -> Iterator[Case]:
    """Put each statement to PostgreSQL, with rows and parameters of each seed."""
    asked = questions()
    for seed in seeds:
        tables = random_tables(seed)
        with beside(engine, tables) as postgres:
            for question in asked:
                for draw in range(_DRAWS):
                    yield postgres.put(question, question.ask(Dice(100 * seed + draw), tables))


def test_the_model_answers_each_statement_as_postgres_does(frozen: Engine) -> None:
    wrong = [found for case in cases(frozen, range(3)) if (found := disagreement(case))]
    assert not wrong, "\n\n".join(wrong)


@pytest.mark.slow
@pytest.mark.timeout(0)
def test_whatever_is_changed_in_the_model_is_found_to_differ(frozen: Engine) -> None:
    """What is not found has no effect, as a condition that another one implies, or was not met by any of the rows drawn."""
    known = list(cases(frozen, range(10)))
    found, unseen = set(), []
    for mutant in all_mutants():
        if is_found(mutant, known):
            found.add((mutant.module, mutant.name))
        else:
            unseen.append(str(mutant))
    answerers = {(inspect.getmodule(answerer), answerer.__name__) for _, answerer in model_database._ANSWERERS.values()}
    assert answerers - found == {(model_jobs, "now_")}, "a statement of which nothing that is changed is found"
    assert len(unseen) < _MAY_STAY_UNSEEN, "\n".join(unseen)


def is_found(mutant: Mutant, known: list[Case]) -> bool:
    """Return whether the model with something changed in it says anything else than PostgreSQL."""
    with mutant.planted() as answered:
        asked = [case for case in known if not answered or id(case.question.statement) in answered]
        return any(disagreement(case) for case in asked)
