"""Each statement of the model is held against PostgreSQL on random rows: the same answer, and the same rows afterwards.

That this finds what is wrong in the model is shown by changing each condition, each set of states and each column that is in it.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from beside_postgres import Case, beside, disagreement
from mirrored_database import freeze_time
from mutants import all_mutants
from random_questions import Question, questions
from random_rows import Dice, random_tables
from sqlalchemy import Engine


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
                yield postgres.put(question, question.ask(Dice(seed), tables))

def test_mutants(frozen):
    from collections import Counter
    import time
    c = list(cases(frozen, range(24)))
    survivors=[]; n=0
    for m in all_mutants():
        n+=1
        with m.planted() as answered:
            dead = any(disagreement(x) for x in c if not answered or id(x.question.statement) in answered)
        if not dead: survivors.append(str(m))
    print(n, len(survivors))
    for s in survivors: print(s)
    assert 0
