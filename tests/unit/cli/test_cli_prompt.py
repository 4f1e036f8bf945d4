"""A question is answered by a person or by `-y`, and by nobody else."""

from __future__ import annotations

import io

import pytest

from backfill.cli import prompt
from backfill.exceptions import Declined, UsageError


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """Let a person answer with what is written into this."""
    lines = io.StringIO()
    monkeypatch.setattr(prompt, "somebody_answers", lambda: True)
    monkeypatch.setattr("sys.stdin", lines)
    return lines


@pytest.mark.parametrize("answer", ["y\n", "Y\n", "yes\n", " yes \n"])
def test_yes_goes_on(typed: io.StringIO, capsys: pytest.CaptureFixture[str], answer: str) -> None:
    typed.write(answer)
    typed.seek(0)
    prompt.confirm("This clears 3 runs.", yes=False)
    assert capsys.readouterr() == ("", "This clears 3 runs. Go on? [y/N] ")


@pytest.mark.parametrize("answer", ["n\n", "\n", "yeah\n", ""])
def test_anything_else_and_the_end_of_input_is_no(typed: io.StringIO, answer: str) -> None:
    typed.write(answer)
    typed.seek(0)
    with pytest.raises(Declined, match="nothing was changed") as declined:
        prompt.confirm("This clears 3 runs.", yes=False)
    assert declined.value.exit_code == 5


def test_without_a_terminal_the_question_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
    with pytest.raises(UsageError, match=r"^This clears 3 runs\. There is no terminal .* give -y"):
        prompt.confirm("This clears 3 runs.", yes=False)


def test_the_flag_answers_and_the_question_is_still_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("n\n"))
    prompt.confirm("This clears 3 runs.", yes=True)
    assert capsys.readouterr() == ("", "This clears 3 runs.\n")
