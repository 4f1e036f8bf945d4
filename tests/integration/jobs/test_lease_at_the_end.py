"""Who holds a job that has ended: nobody."""

import pytest
import sqlalchemy as sa
from playhouse import dag_of


@pytest.mark.parametrize("outcomes", [{}, {"a": {"*": "failed"}}])
def test_a_job_that_has_ended_is_held_by_nobody(house, outcomes):
    house.play(dag_of("a"), outcomes=outcomes)
    with house.engine.connect() as tx:
        assert tx.execute(sa.text("select lease_holder from job")).scalars().all() == [None]
