"""The transcript: everything that was said, in order, without a secret."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from axon_tasks.deploy.timeline import Heard, Recorder
from axon_tasks.remote import Section
from axon_tasks.report.transcript import FILE_NAME, Transcript, is_ordinary, masking, text

if TYPE_CHECKING:
    from pathlib import Path


def recorded(recorder: Recorder, *sections: Section, name: str = "inspect") -> None:
    """A step with one batch, and what a server answered."""
    step = recorder.begin("step", name, environment="prod")
    batch = recorder.begin("batch", name, parent=step, environment="prod", server="app1")
    recorder.hear(batch, sections)
    recorder.end(batch, outcome="ok")
    recorder.end(step, note="all is well")


def test_everything_that_was_said_stands_in_it(tmp_path: Path) -> None:
    """Steps, sections with exit code, both streams, and the message at the end, in a file that its owner alone can read."""
    transcript = Transcript()
    recorder = Recorder(
        command="fab deploy --env=prod", folder=tmp_path, clock=lambda: 7.0, beside=transcript.write
    )
    recorded(
        recorder,
        Section("docker", b"version=1\nfree=2\n", b"beware\n", 3, 0.25),
        Section("later", skipped=True),
    )
    recorder.finish(
        outcome="failed", exit_code=1, told=["Warning: it rains", "app1: it failed\n  Try again."]
    )
    assert transcript.path == recorder.path.with_name(FILE_NAME) if recorder.path else None
    assert transcript.path
    lines = transcript.path.read_text().splitlines()
    assert (0o600, "# fab deploy --env=prod") == (transcript.path.stat().st_mode & 0o777, lines[0])
    assert [
        "    0.00 s  prod step inspect: ok 0.00 s (all is well)",
        "    0.00 s  prod inspect app1: ok 0.00 s",
        "            [docker] exit code 3 in 0.25 s",
        "            | version=1",
        "            | free=2",
        "            ! beware",
        "            [later] skipped",
        "", "Warning: it rains", "", "app1: it failed", "  Try again.",
        "", "    0.00 s  failed, exit code 1",
    ] == lines[2:]  # fmt: skip


def test_a_run_that_is_killed_leaves_one(tmp_path: Path) -> None:
    """It is written while the run goes on."""
    transcript = Transcript()
    recorder = Recorder(command="fab deploy", folder=tmp_path, beside=transcript.write)
    recorded(recorder, Section("docker", b"hello\n", b"", 0, 0.1))
    recorder._write()
    assert transcript.path
    assert [True, True] == [one in transcript.path.read_text() for one in ("| hello\n", "so far\n")]
    recorder.finish(outcome="ok", exit_code=0)


def shown(said: bytes, *secrets: str) -> str:
    """What stands in the transcript of a run that heard this."""
    recorder = Recorder(command="fab deploy")
    recorded(recorder, Section("docker", said, said, 0, 0.1))
    return text(recorder.timeline(), Heard(recorder._sections, ()), masking(secrets))


def test_secrets_are_masked() -> None:
    """Wherever one stands, also with a control character in it, which is shown as something else, and the longest one first."""
    recorder = Recorder(command="fab deploy --tag=hunter22")
    said = b"password hunter22-and-more, then hunter22 and hun\x1bter\n"
    recorded(recorder, Section("docker", said, said, 0, 0.1))
    heard = Heard(recorder._sections, ["hunter22 was refused"])
    told = text(recorder.timeline(), heard, masking(["hunter22", "hun\x1bter", "hunter22-and-more"]))
    assert [0, 2] == [told.count("hunter22"), told.count("password ********, then ******** and ********\n")]


@pytest.mark.parametrize(
    ("said", "secret"),
    [
        (b"one hunter22\nis long\n", "hunter22\nis long"),
        (b'{"a": "hunter22", \n', '{"a": "hunter22", \n"b": 1}'),
        (b'json: "p\\"hunter22"\n', 'p"hunter22'),
        (b"hunter22\x0bmore\n", "hunter22\x0bmore"),
        (b"for user with hunter22\n", "postgres://me:hunter22@db/shop"),
        (b"x" * 16_380 + b"hunter22" + b"y" * 20_000, "hunter22"),
        (b"x" * 20_000 + b"hunter22" + b"y" * 16_380, "hunter22"),
    ],
)
def test_no_form_of_a_secret_is_left(said: bytes, secret: str) -> None:
    """With several lines, alone or as JSON, of a URL the password, and on the edge of what is cut out."""
    told = shown(said, secret)
    assert [False, False] == [part in told for part in ("hunter", "ter22")]


def test_ordinary_words_are_not_masked() -> None:
    """A setting such as `prod` or 8080 is no secret, and masked everywhere it would make the transcript useless."""
    assert [True, True, True, False, False] == [
        is_ordinary(one) for one in ("prod", "8080", "true", "abc123", "hunters-")
    ]


def test_long_output_is_cut_in_the_middle() -> None:
    """Its beginning and its end stay, and how much is missing is told."""
    told = shown(b"first\n" + b"x" * 100_000 + b"\nlast\n")
    assert [True, True, True] == [
        one in told for one in ("| first\n", "| … 67244 characters left out …\n", "| last\n")
    ]
