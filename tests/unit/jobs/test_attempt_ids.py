from __future__ import annotations

from uuid import RFC_4122, UUID

from backfill.jobs.dispatch import new_attempt_ids


def test_attempt_ids_are_random_uuids_in_their_usual_form() -> None:
    made = new_attempt_ids(1000)
    assert len(set(made)) == 1000
    for each in made:
        assert str(UUID(each)) == each
        assert (UUID(each).version, UUID(each).variant) == (4, RFC_4122)


def test_none_are_made_where_none_are_asked_for() -> None:
    assert new_attempt_ids(0) == []
