"""Each statement of the model is held against PostgreSQL on random rows: the same answer, and the same rows afterwards.

That this finds what is wrong in the model is shown by changing each condition, each set of states and each column that is in it.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from beside_postgres import Case, beside, disagreement
from mirrored_database import freeze_time
from model_database import Answer
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
    known = list(cases(frozen, range(4)))
    wrong = [found for case in known if (found := disagreement(case))]
    assert not wrong, "\n\n".join(wrong)
    silence = {case.question.name for case in known if disagreement(case, lambda *_: Answer([])) is not None}
    assert silence == {question.name for question in questions()}, "nothing shows that the others do anything at all"


@pytest.mark.slow
@pytest.mark.timeout(0)
def test_whatever_is_changed_in_the_model_is_found_to_differ(frozen: Engine) -> None:
    """What is not found has no effect, as a condition that another one implies, or was not met by any of the rows drawn."""
    known = list(cases(frozen, range(10)))
    found: dict[str, bool] = {}
    unseen = []
    for mutant in all_mutants():
        is_seen = is_found(mutant, known)
        found[mutant.name] = is_seen or found.get(mutant.name, False)
        unseen += [] if is_seen else [str(mutant)]
    assert all(found.values()), [name for name, is_seen in found.items() if not is_seen]
    assert len(unseen) < _MAY_STAY_UNSEEN, "\n".join(unseen)


def is_found(mutant: Mutant, known: list[Case]) -> bool:
    """Return whether the model with something changed in it says anything else than PostgreSQL."""
    with mutant.planted() as answered:
        asked = [case for case in known if not answered or id(case.question.statement) in answered]
        return any(disagreement(case) for case in asked)
