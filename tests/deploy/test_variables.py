"""Env files as Docker reads them: what is one, what changes in one, and how two differ."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from axon_tasks.deploy.variables import Difference, EnvFile, difference
from axon_tasks.errors import UsageError

TEXT = "# of the shop\nTOKEN=a=b # c\n\nSIZE=1\n"


def test_values_are_to_the_letter() -> None:
    """Quotes, signs and comments behind a value are part of it, as they are for Docker."""
    assert {"TOKEN": "a=b # c", "SIZE": "1"} == EnvFile(TEXT, "-").values
    assert {"A": "'x' \"y\"", "B": ""} == EnvFile("A='x' \"y\"\nB=", "-").values


@pytest.mark.parametrize("line", ["TOKEN", "=x", "A B=x", " A=x", "export A=x", "\0"])
def test_what_is_no_env_file(line: str) -> None:
    """It is refused with its line's number, and without its value."""
    with pytest.raises(UsageError) as raised:
        EnvFile(f"GOOD=1\n{line}secret\n", "app1: /srv/env")
    assert ("app1: /srv/env" in str(raised.value), "secret" in str(raised.value)) == (True, False)


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("SIZE", "2", "# of the shop\nTOKEN=a=b # c\n\nSIZE=2\n"),
        ("NEW", "x y", f"{TEXT}NEW=x y\n"),
        ("TOKEN", None, "# of the shop\n\nSIZE=1\n"),
        ("NONE", None, TEXT),
    ],
)
def test_one_variable_changes(name: str, value: str | None, expected: str) -> None:
    """Only its line does; a new one comes at the end."""
    assert expected == EnvFile(TEXT, "-").changed(name, value, "-").text.reveal()


def test_a_name_that_stands_twice() -> None:
    """It stands once afterwards: the last one counted before."""
    assert "A=3\nB=2\n" == EnvFile("A=1\nB=2\nA=9", "-").changed("A", "3", "-").text.reveal()


@pytest.mark.parametrize(
    ("name", "value"), [("A B", "x"), ("", "x"), ("A", "x\ny"), ("A", "x\0"), ("A", "\r")]
)
def test_what_cannot_be_set(name: str, value: str) -> None:
    """A name that is none, and a value of several lines, are refused without being shown."""
    with pytest.raises(UsageError) as raised:
        EnvFile(TEXT, "-").changed(name, value, "-")
    assert "x" not in str(raised.value)


@given(st.dictionaries(st.from_regex(r"[A-Z_]{1,5}", fullmatch=True), st.text("ab =#'\"$`", max_size=6)))
def test_setting_all_gives_all(wanted: dict[str, str]) -> None:
    """Variables that are set one after the other are there, with their values to the letter."""
    file = EnvFile("", "-")
    for name, value in wanted.items():
        file = file.changed(name, value, "-")
    assert wanted == file.values == EnvFile(file.text.reveal(), "-").values


def test_difference() -> None:
    """Which come, change and go, by name; nothing is no difference."""
    assert Difference(("C",), ("A",), ("B",)) == difference(
        {"A": "1", "B": "2", "D": "4"}, {"A": "2", "C": "3", "D": "4"}
    )
    assert not difference({"A": "1"}, {"A": "1"})
