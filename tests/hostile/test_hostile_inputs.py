"""Hostile inputs through every way in: none is obeyed, none ends in a traceback."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from axon_tasks.commands import shell
from axon_tasks.config import load
from axon_tasks.deploy import facts
from axon_tasks.errors import AxonError, UsageError
from axon_tasks.lab import hostile
from axon_tasks.lab.hostile import config, flags, outcome, rendered, values
from axon_tasks.lab.hostile.outputs import Outputs

if TYPE_CHECKING:
    from axon_tasks.config import Project

#: Inputs per place: `invoke prove` tries all.
MOST = 2
#: Fewer would mean that a way in is not tried any more.
LEAST = {"config": 690, "outputs": 650, "files": 1_000, "flags": 250}


@pytest.mark.no_cover  # thousands of runs through the same lines: noting each line takes longer than they do
@pytest.mark.parametrize("channel", hostile.LOCAL)
def test_hostile_inputs_are_refused_or_harmless(channel: str) -> None:
    """Whatever comes in: no traceback, the right exit code, a message that a terminal only shows, no command executed."""
    found = hostile.run_channel(channel, most=MOST, programs=8)
    assert [] == [str(one) for one in found.violations]
    assert found.cases >= LEAST[channel]


def test_there_are_at_least_two_thousand() -> None:
    """The channels that need no lab alone have more inputs than were asked for."""
    assert sum(LEAST.values()) >= 2_000


def test_the_same_seed_gives_the_same_inputs(tmp_path: Path) -> None:
    """What was found once can be found again."""
    first, again, other = (
        [one.text for one in values.Canaries(tmp_path, seed, 20).hostile(mixed=5)] for seed in (1, 1, 2)
    )
    assert (first, False) == (again, first == other)


def test_every_setting_is_tried() -> None:
    """The fields come from the models, so that none is forgotten, and the base file has each of them."""
    names = [field.name for field in config.fields()]
    for path in names:
        assert config.replaced(tuple(path.split(".")), "x") != config.BASE
    for name in (
        "product",
        "hosts.app1.jump",
        "environments.prod.tls.key",
        "environments.prod.nginx.http_port",
    ):
        assert name in names
    assert len(names) >= 60


def test_every_task_is_tried() -> None:
    """The flags come from the program, so that no task is forgotten."""
    tasks = {flag.task for flag in flags.flags()}
    assert {"deploy", "cleanup", "jobs.show", "steps.start", "timeline", "config.show", "bench"} <= tasks


def test_a_deploy_without_anything_hostile_goes_well(tmp_path: Path) -> None:
    """The answers of a sound server are known, so that a hostile one is the only thing that is wrong."""
    made = Outputs(outcome.Outcome(), values.Canaries(tmp_path), tmp_path)
    made.deploy({}, {})
    assert {"lock", "state", "containers", "digest", "start", "health", "switch", "record", "retire"} <= set(
        made.labels()
    )


# --- that a fault would be found -----------------------------------------------------------------------------------------


def project(folder: Path) -> Project:
    (folder / "hosts.yml").write_bytes(config.document(config.BASE))
    return load(folder / "hosts.yml", {})


def test_a_missing_quote_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A value that reaches a shell unquoted is executed, and that is seen in two ways."""
    alive = tmp_path / "alive"
    alive.mkdir()
    canaries, found = values.Canaries(alive), outcome.Outcome()
    checker = rendered.Rendered(found, tmp_path)
    text = canaries.filled("a$(touch {c})")
    path = ("environments", "prod", "health", "expect_body")
    (tmp_path / "hosts.yml").write_bytes(config.document(config.replaced(path, text)))
    spoilt = load(tmp_path / "hosts.yml", {})
    checker.check("quoted", spoilt, path, text)
    assert ([], []) == (found.violations, canaries.alive())
    monkeypatch.setattr(shell, "word", lambda parts: parts if isinstance(parts, str) else "x")
    checker.check("unquoted", spoilt, path, text)
    assert (1, 1) == (len(found.violations), len(canaries.alive()))


@pytest.mark.parametrize(
    "domain",
    [
        "a.test; return 200 pwned",
        "a.test; } server { listen 81",
        "a b",
        "a{",
        "a.test;\n    root /",
        "# a",
        "'a",
    ],
)
def test_an_injected_directive_is_found(tmp_path: Path, domain: str) -> None:
    """A domain that is more than a domain to nginx changes the tree of directives, or breaks it."""
    found = outcome.Outcome()
    checker = rendered.Rendered(found, tmp_path)
    sound = project(tmp_path)
    prod = sound.environment("prod")._replace(domain=domain)
    checker.check("domain", sound._replace(environments={"prod": prod}), (), "")
    assert 1 == len(found.violations)


def _fails(error: BaseException) -> Any:
    def work(*_: Any) -> None:
        raise error

    return work


@pytest.mark.parametrize(
    ("error", "wrong"),
    [
        (UsageError("no"), []),
        (AxonError("no"), ["exit code 1"]),
        (AxonError("no", code=5), ["exit code 5"]),
        (AxonError("no", code=130), ["exit code 130"]),
        (ValueError("no"), ["a traceback"]),
        (RecursionError("no"), ["a traceback"]),
        (AssertionError("shown"), ["shown"]),
        (UsageError(" "), ["a message"]),
    ],
)
def test_each_kind_of_failure_is_judged(error: BaseException, wrong: list[str]) -> None:
    """Only an error with the right exit code and a message is right."""
    found = outcome.Outcome()
    assert not outcome.attempt(found, "config", "x", _fails(error))
    assert wrong == [one.what[: len(wrong[0])] for one in found.violations]


def pressed(error: BaseException) -> Any:
    error.__context__ = KeyboardInterrupt()
    return _fails(error)


@pytest.mark.parametrize("work", [pressed(AxonError("no")), _fails(KeyboardInterrupt())])
def test_ctrl_c_is_no_outcome_of_an_input(work: Any) -> None:
    """Whatever was made of Ctrl-C: it ends the run, and is not taken for what became of one input."""
    with pytest.raises(KeyboardInterrupt):
        outcome.attempt(outcome.Outcome(), "config", "x", work)


@pytest.mark.parametrize(
    "work", [pressed(SystemExit(1)), _fails(SystemExit(130)), _fails(KeyboardInterrupt())]
)
def test_ctrl_c_in_a_program_is_heard(work: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same where `fab` in this process has made an exit code of it, and everything is put back."""
    monkeypatch.setattr("invoke.program.Program.run", work)
    before = sys.argv, sys.stdout
    with pytest.raises(KeyboardInterrupt):
        flags.program(["--list"])
    assert before == (sys.argv, sys.stdout)


@pytest.mark.parametrize(
    ("ended", "wrong"),
    [
        (flags.Ended(2, "", "no"), 0),
        (flags.Ended(0, "", ""), 1),
        (flags.Ended(2, "", ""), 1),
        (flags.Ended(None, "", "Traceback (most recent call last)"), 1),
        (flags.Ended(2, "", "Traceback (most recent call last)"), 1),
        (flags.Ended(2, "\x1b[2J", "no"), 1),
    ],
)
def test_each_end_of_a_program_is_judged(ended: flags.Ended, wrong: int) -> None:
    """Only the expected exit code, with a message and without a traceback or an escape, is right."""
    found = outcome.Outcome()
    flags.judge(found, "c", "x", ended, {2})
    assert wrong == len(found.violations)


def test_nginx_words_are_read_as_nginx_reads_them() -> None:
    """Quotes, comments, variables in braces and escapes are words; braces and semicolons are not."""
    text = "a 'b;c' \"d{\" ${e} f\\;g; # h;\nblock x { y; }\n"
    assert (("a", 4, ()), ("block", 1, (("y", 0, ()),))) == rendered.directives(text)


@pytest.mark.parametrize("text", ["a", "a {", "}", "a; }", ";", "{ }", "a 'b;"])
def test_broken_files_of_nginx_are_refused(text: str) -> None:
    """What nginx would not read is no tree."""
    with pytest.raises(rendered.NginxSyntaxError):
        rendered.directives(text)


# --- faults that this has found ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [("0", 0), ("1764000000", 1764000000), ("9" * 18, int("9" * 18))]
    + [
        (one, None)
        for one in ("", "-1", "1.5", "\u0661", "\u00b2", "9" * 19, "9" * 5_000, "1\n", " 1", "0x1")
    ],
)
def test_only_plain_numbers_are_numbers(text: str, expected: int | None) -> None:
    """A number of a server has up to 18 digits; longer ones and other scripts are none, and no error."""
    assert expected == facts.number(text)


def test_messages_are_only_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever goes into an error's message and hint, a terminal obeys nothing of it."""
    error = UsageError("\x1b[2Ja\x07\u202eb\ud800", hint="\x1b]0;title\x07c\u200b")
    assert "a\\x07\\u202eb\\ud800\n  c\\u200b" == str(error)
    assert ("a\\x07\\u202eb\\ud800", "c\\u200b") == (error.summary, error.hint)


@pytest.mark.parametrize("name", ["a" * 300, "a/" * 3_000, "\udcff", "/"])
def test_a_file_name_that_is_none_is_wrong_usage(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A `hosts.yml` whose name no file can have ends with 2, also where only its folder counts."""
    flags.Flags(outcome.Outcome(), values.Canaries(tmp_path), tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AXON_HOSTS", "")
    ended = flags.program(["timeline", f"--hosts-file={name}"])
    assert (2, True) == (ended.code, "no file" in ended.err), ended.err
    assert tmp_path == Path.cwd()
