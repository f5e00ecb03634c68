"""The text of a batch, run by the shells that servers have."""

from __future__ import annotations

import itertools
import os
import shlex
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from axon_tasks.config import Secret
from axon_tasks.remote import Batch

if TYPE_CHECKING:
    from collections.abc import Callable

SHELLS = {"bash": ["bash"], "dash": ["dash"], "busybox": ["busybox", "sh"]}
SLOW = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

HOSTILE = {
    "exit": ("exit 7", 7),
    "exec": ("exec true", 0),
    "exec redirection": ("exec >/dev/null 2>&1", 0),
    "closed output": ("exec >&- 2>&-", 0),
    "cd": ("cd /; false", 1),
    "set -e": ("set -e; false; echo no", 1),
    "set -u": ('set -u; echo "$nothing_of_that_name"', None),
    "return": ("return 5", 5),
    "trap": ("trap 'exit 9' EXIT; true", 9),
    "reads its input": ("cat; cat; read x", 1),
    "syntax error": ("if then fi (", None),
    "open quote": ("echo 'oops", None),
    "open here-document": ("cat <<END\nnever closed", 0),
    "kills its shell": ("kill -9 $$; true", 0),
    "kills itself": ("sh -c 'kill -9 $$'", 137),
    "unset": ("unset PATH _axon_time; _axon_mark() { :; }", 0),
    "positional": ('set -- a b; shift 2; [ "$#" = 0 ]', 0),
    "in the background": ("sleep 5 >/dev/null 2>&1 & true", 0),
    "comment": ("true # no newline after this", 0),
    "line ends with a backslash": ("true \\", 0),
    "empty": ("", 0),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_command_ends_with_its_section(shell: str, locally: Callable[..., Any], name: str) -> None:
    """Whatever a command does to its shell, its own exit code is reported and the next section runs as if alone."""
    command, expected = HOSTILE[name]
    batch = Batch("b").add(command, "hostile").add("echo after; pwd; echo $#; echo err >&2", "after")
    result = locally(batch, shell)
    code = result["hostile"][2]
    assert result.finished
    assert (code != 0) if expected is None else (code == expected)
    assert (f"after\n{Path.cwd()}\n0\n".encode(), b"err\n", 0) == result["after"]


@pytest.mark.parametrize("options", [{}, {"uninterruptible": True}])
def test_output_is_exact(shell: str, locally: Callable[..., Any], options: dict[str, bool]) -> None:
    """No newline at the end, NUL bytes and broken UTF-8 arrive as they were written, on both streams."""
    command = r"printf 'a\000b\377\303'; printf '\036no marker' >&2"
    result = locally(Batch("b", **options).add(command, "bytes").add("printf x", "next"), shell)
    assert (b"a\0b\xff\xc3", b"\x1eno marker", 0) == result["bytes"]
    assert (b"x", b"", 0) == result["next"]


def _sample(target: Path, **options: bool) -> Batch:
    batch = Batch("b", **options)
    batch.add(f"touch {target}/one", "one", stdin=b"\0secret", timeout=5, sudo=os.getuid() == 0)
    return batch.add(f"touch {target}/two", "two")


@pytest.mark.parametrize("options", [{}, {"uninterruptible": True}])
def test_a_cut_script_runs_nothing(shell: str, tmp_path: Path, options: dict[str, bool]) -> None:
    """Every proper beginning of a script runs nothing at all; the whole one runs."""
    script = _sample(tmp_path, **options).script()
    step = 1 if shell != "bash" else 3  # bash takes longest to start
    cuts = [*range(0, len(script), step * 7), *range(len(script) - 60, len(script))]
    for cut in cuts:
        subprocess.run([*SHELLS[shell], "-s"], input=script[:cut].encode(), capture_output=True, check=False)
        assert [] == list(tmp_path.iterdir()), script[:cut]
    subprocess.run([*SHELLS[shell], "-s"], input=script.encode(), capture_output=True, check=False)
    assert ["one", "two"] == sorted(file.name for file in tmp_path.iterdir())


@SLOW
@given(text=st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=60))
def test_text_survives_quoting(shell: str, locally: Callable[..., Any], text: str) -> None:
    """Any text can stand in a command: quotes, newlines, `$(...)`, backslashes."""
    batch = Batch("b").add(f"printf %s {shlex.quote(text)}", "plain")
    batch.add(f"printf %s {shlex.quote(text)}", "nested", timeout=30, sudo=os.getuid() == 0)
    result = locally(batch, shell)
    assert text.encode() == result["plain"][0]
    assert text.encode() == result["nested"][0]


@SLOW
@given(data=st.binary(max_size=200))
def test_input_arrives_unchanged(shell: str, locally: Callable[..., Any], data: bytes) -> None:
    """Any bytes can be the input of a command, also through `timeout` and a root shell."""
    batch = Batch("b").add("cat", "plain", stdin=data)
    batch.add("cat", "nested", stdin=data, timeout=30, sudo=os.getuid() == 0)
    result = locally(batch, shell)
    assert (data, b"", 0) == result["plain"]
    assert (data, b"", 0) == result["nested"]


def test_input_that_nobody_reads_disturbs_nobody(shell: str, locally: Callable[..., Any]) -> None:
    """A command may leave its input unread; nothing is said about a broken pipe."""
    result = locally(Batch("b").add("exit 4", "a", stdin="x" * 200_000, timeout=30), shell)
    assert (b"", b"", 4) == result["a"]


def test_each_section_may_have_a_time_limit(shell: str, locally: Callable[..., Any]) -> None:
    """A command that takes too long is terminated and exits 124 (143 where timeout is busybox's); the next one runs."""
    result = locally(Batch("b").add("echo begun; sleep 8", "slow", timeout=0.5).add("echo on", "next"), shell)
    assert b"begun\n" == result["slow"][0]
    assert (143 if shell == "busybox" else 124) == result["slow"][2]
    assert (b"on\n", b"", 0) == result["next"]


def test_fail_fast_skips_the_rest(shell: str, locally: Callable[..., Any]) -> None:
    """After the first failing section none is begun, and the script still ends properly."""
    batch = Batch("b").add("true", "a").add("exit 3", "b").add("echo no", "c")
    result = locally(batch, shell, fail_fast=True)
    assert result.finished
    assert [0, 3, None] == [result[label][2] for label in "abc"]


def test_the_login_cannot_surprise_a_command(shell: str, locally: Callable[..., Any], tmp_path: Path) -> None:
    """Variables that change what sh, nginx or docker do are gone; the system's directories are on the path."""
    trap = tmp_path / "trap"
    trap.write_text("echo trapped\n")
    env = {
        name: str(trap) for name in ("ENV", "BASH_ENV", "NGINX", "DOCKER_HOST", "DOCKER_CONTEXT", "CDPATH")
    }
    result = locally(Batch("b").add("env; sh -c 'echo $0'", "env", timeout=10), shell, env=env)
    seen = result["env"][0].decode()
    assert str(trap) not in seen
    assert "trapped" not in seen
    assert ":/usr/local/sbin:/usr/sbin:/sbin" in seen
    assert "LC_ALL=C\n" in seen


@pytest.mark.parametrize("login", [0, 0o002, 0o077, 0o777])
@pytest.mark.parametrize("wrapped", [{}, {"timeout": 10}, {"sudo": True}])
def test_files_do_not_depend_on_the_logins_umask(
    shell: str, locally: Callable[..., Any], tmp_path: Path, login: int, wrapped: dict[str, Any]
) -> None:
    """What a command creates has the same mode for every login: others may read it, and only its owner may write."""
    if wrapped.get("sudo") and os.getuid():
        pytest.skip("NOT RUN: this needs root")
    batch = Batch("b").add(f"cd {tmp_path} && mkdir d && echo x >f && stat -c %a d f", "made", **wrapped)
    before = os.umask(login)
    try:
        result = locally(batch, shell)
    finally:
        os.umask(before)
    assert (b"755\n644\n", b"", 0) == result["made"]


def test_a_secret_is_never_in_argv(shell: str, locally: Callable[..., Any]) -> None:
    """While a command with a secret input runs, no process has the secret in its arguments or environment."""
    batch = Batch("b")
    look = "cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ 2>/dev/null | tr '\\0' '\\n' | grep -c 'canary-471[1]'; cat"
    batch.add(look, "look", stdin=Secret("canary-4711"), timeout=20, sudo=os.getuid() == 0)
    assert (b"0\ncanary-4711", b"", 0) == locally(batch, shell)["look"]


def test_a_secret_is_masked_where_a_script_is_shown() -> None:
    """The shown script holds the mask and not the secret, at any depth of quoting; the sent one holds the secret."""
    batch = Batch("b").add("cat", stdin=Secret("canary'4711"), timeout=5, sudo=True)
    assert "canary" not in batch.script(masked=True)
    assert "********" in batch.script(masked=True)
    assert "canary" in batch.script()


def test_the_shown_script_is_the_one_that_is_sent() -> None:
    """Asking twice gives the same text: the nonce changes with a run, not with a look."""
    batch = Batch("b").add("true")
    assert batch.script() == batch.script()


def test_two_batches_have_different_nonces() -> None:
    """What one batch printed cannot end another one's section."""
    assert Batch("b").add("true").script() != Batch("b").add("true").script()


def test_an_uninterruptible_script_completes_without_its_reader(shell: str, tmp_path: Path) -> None:
    """When the connection is gone in the middle, commands that write to it still run to the end."""
    steps = [
        f"echo {number}; echo {number} >&2; sleep 0.05; touch {tmp_path}/{number}" for number in range(8)
    ]
    batch = Batch("b", uninterruptible=True)
    for step in steps:
        batch.add(f"set -e; {step}")
    process = subprocess.Popen(
        [*SHELLS[shell], "-s"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdin.write(batch.script().encode())
    process.stdin.close()
    process.stdout.readline()
    process.stdout.close()
    process.stderr.close()
    process.send_signal(signal.SIGHUP)
    process.wait(60)
    assert [str(number) for number in range(8)] == sorted(file.name for file in tmp_path.iterdir())


def test_the_script_is_clean_shell(tmp_path: Path) -> None:
    """Shellcheck finds nothing wrong in what is sent, as POSIX sh."""
    batch = _sample(tmp_path).add("true", stdin="x", sudo=True)
    for options in itertools.product([False, True], repeat=2):
        batch.uninterruptible, fail_fast = options
        with tempfile.NamedTemporaryFile("w", suffix=".sh") as file:
            file.write(batch.script(fail_fast=fail_fast))
            file.flush()
            # SC2086: words are split on purpose; SC2317: a section is skipped; SC2031/SC2030: subshells are the point;
            # SC2016: what stands in single quotes is for the shell behind sudo or timeout.
            done = subprocess.run(
                [
                    "shellcheck",
                    "-s",
                    "sh",
                    "-e",
                    "SC2016,SC2086,SC2317,SC2030,SC2031,SC2034,SC2119,SC2120",
                    file.name,
                ],
                capture_output=True,
                text=True,
                check=False,
            )
        assert "" == done.stdout


@pytest.mark.parametrize("wrong", ["sh; reboot", "", "sh -c 'x'", "$SHELL", "sh\n"])
def test_a_shell_is_made_of_plain_words(wrong: str) -> None:
    """The shell's name reaches a command line, so that anything else is refused."""
    with pytest.raises(ValueError, match="plain words"):
        Batch("b", shell=wrong)


def test_labels_are_unique() -> None:
    """The same label twice is refused; labels that were left out count up."""
    batch = Batch("b").add("true").add("true", label="x")
    assert ["cmd_1", "x"] == batch.labels
    with pytest.raises(ValueError, match="has a section 'x' already"):
        batch.add("false", label="x")


@pytest.mark.parametrize(
    "arguments", [{"command": "a\0b"}, {"command": "a", "timeout": 0}, {"command": "a", "timeout": -1}]
)
def test_what_no_shell_can_run_is_refused(arguments: dict[str, Any]) -> None:
    """A NUL byte and a time limit that is none are refused when they are added."""
    with pytest.raises(ValueError):  # noqa: PT011 - two messages, both of them about the section
        Batch("b").add(**arguments)


def test_a_batch_can_be_shown_and_split() -> None:
    """What was added can be read, and each section can become a batch of its own with the same options."""
    batch = Batch("b", sudo=True, uninterruptible=True, shell="dash")
    batch.add("echo one", "a", timeout=5).add("cat", "b", stdin="two", sudo=False)
    assert [("a", "echo one", 5, None, True), ("b", "cat", None, "two", False)] == [
        (one.label, one.text, one.timeout, one.stdin, one.sudo) for one in batch.sections
    ]
    alone = batch.split()
    assert [batch.sections[:1], batch.sections[1:]] == [one.sections for one in alone]
    assert {("b", True, True, "dash")} == {
        (one.name, one.sudo, one.uninterruptible, one.shell) for one in alone
    }
