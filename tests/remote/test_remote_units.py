"""Known hosts, ssh_config, and text from servers: what needs no server."""

from __future__ import annotations

import base64
import fnmatch
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from axon_tasks.errors import ConfigurationError
from axon_tasks.remote import known_hosts, sanitize
from axon_tasks.remote.known_hosts import KnownHosts, fingerprint
from axon_tasks.remote.ssh_config import SshConfig, split_destination

KEY = base64.b64encode(b"\0\0\0\x0bssh-ed25519" + b"k" * 32).decode()
OTHER = base64.b64encode(b"\0\0\0\x0bssh-ed25519" + b"o" * 32).decode()
BLOB = base64.b64decode(KEY)


def known(tmp_path: Path, *lines: Any) -> KnownHosts:
    file = tmp_path / "known_hosts"
    file.write_text("".join(f"{line}\n" for line in lines))
    return KnownHosts([file])


class TestKnownHosts:
    """The file format of sshd(8)."""

    @pytest.mark.parametrize(
        ("pattern", "name", "fits"),
        [
            ("*", "app1", True),
            ("app*", "app1", True),
            ("app*", "ap", False),
            ("*.test", "a.b.test", True),
            ("a*b*c", "aXbYbZc", True),
            ("a*b*c", "aXbYbZ", False),
            ("app?", "app1", True),
            ("app?", "app12", False),
            ("app?", "app", False),
            ("[a-z]*", "app1", False),
            ("[app1]:2222", "[app1]:2222", True),
            ("", "app1", False),
            ("**", "", True),
        ],
    )
    def test_patterns(self, pattern: str, name: str, fits: bool) -> None:
        """Stars and question marks fit as in OpenSSH, and everything else stands for itself."""
        assert fits == known_hosts._fits(pattern, name)

    @given(
        pattern=st.text(st.sampled_from("ab*?"), max_size=8), name=st.text(st.sampled_from("ab"), max_size=8)
    )
    def test_patterns_fit_as_fnmatch_says(self, pattern: str, name: str) -> None:
        """For any pattern of stars and question marks, the answer is that of fnmatch(3)."""
        assert fnmatch.fnmatchcase(name, pattern) == known_hosts._fits(pattern, name)

    def test_a_line_of_many_stars_does_not_keep_one_busy(self, tmp_path: Path) -> None:
        """A line that a regular expression would compare for years is compared at once: this test would never end."""
        lines = [f"{stars}x ssh-ed25519 {KEY}" for stars in ("*" * 400, "*a" * 120, "*?" * 100)]
        assert "unknown" == known(tmp_path, *lines).check("a" * 250, 22, BLOB).finding

    @pytest.mark.parametrize(
        ("names", "host", "port", "finding"),
        [
            ("app1", "app1", 22, "known"),
            ("APP1", "app1", 22, "known"),
            ("app1", "App1", 22, "known"),
            ("edge,app1,10.0.0.1", "10.0.0.1", 22, "known"),
            ("[app1]:2222", "app1", 2222, "known"),
            ("[app1]:2222", "app1", 22, "unknown"),
            ("app1", "app1", 2222, "known"),
            ("*.example.com", "a.example.com", 22, "known"),
            ("*.example.com", "example.com", 22, "unknown"),
            ("app?", "app1", 22, "known"),
            ("app?", "app12", 22, "unknown"),
            ("*,!app1", "app1", 22, "unknown"),
            ("!app1,*", "app2", 22, "known"),
            ("[*]:2222", "app1", 2222, "known"),
            ("[ab]pp1", "app1", 22, "unknown"),
            ("app1", "app", 22, "unknown"),
            ("app1", "xapp1", 22, "unknown"),
        ],
    )
    def test_names(self, tmp_path: Path, names: str, host: str, port: int, finding: str) -> None:
        """Names, lists, ports, wildcards and negations match as OpenSSH matches them."""
        assert finding == known(tmp_path, f"{names} ssh-ed25519 {KEY}").check(host, port, BLOB).finding

    def test_a_key_without_a_port_never_counts_as_changed(self, tmp_path: Path) -> None:
        """Another key under the name without a port leaves the server unknown, as with OpenSSH."""
        assert "unknown" == known(tmp_path, f"app1 ssh-ed25519 {OTHER}").check("app1", 2222, BLOB).finding

    def test_another_type_counts_as_changed(self, tmp_path: Path) -> None:
        """A server of which another type of key is known is not new."""
        assert "changed" == known(tmp_path, f"app1 ssh-rsa {OTHER}").check("app1", 22, BLOB).finding

    def test_one_of_several_keys_is_enough(self, tmp_path: Path) -> None:
        """Of two lines for a host, one that fits is enough."""
        lines = [f"app1 ssh-ed25519 {OTHER}", f"app1 ssh-ed25519 {KEY}"]
        assert "known" == known(tmp_path, *lines).check("app1", 22, BLOB).finding

    def test_a_revoked_key_wins_over_a_known_one(self, tmp_path: Path) -> None:
        """A revoked key is revoked in whatever order the lines stand, with a port or without."""
        lines = [f"@revoked * ssh-ed25519 {KEY}", f"app1,[app1]:2222 ssh-ed25519 {KEY}"]
        for order in (lines, lines[::-1]):
            assert "revoked" == known(tmp_path, *order).check("app1", 22, BLOB).finding
            assert "revoked" == known(tmp_path, *order).check("app1", 2222, BLOB).finding

    def test_a_revocation_alone_makes_nothing_known(self, tmp_path: Path) -> None:
        """A key beside a revoked one is unknown, not changed."""
        assert (
            "unknown" == known(tmp_path, f"@revoked app1 ssh-ed25519 {OTHER}").check("app1", 22, BLOB).finding
        )

    @pytest.mark.parametrize(
        "line",
        [
            "",
            "#",
            "app1",
            "app1 ssh-ed25519",
            "app1 ssh-ed25519 !!!",
            "@what app1 ssh-ed25519 " + KEY,
            "|1|x|y ssh-rsa AAAA",
            "@revoked",
            "\0\xff",
        ],
    )
    def test_a_bad_line_raises_nothing(self, tmp_path: Path, line: str) -> None:
        """A line that is none is passed over, and those around it count."""
        assert (
            "known" == known(tmp_path, line, f"app1 ssh-ed25519 {KEY}", line).check("app1", 22, BLOB).finding
        )

    @given(text=st.text(max_size=200))
    def test_any_text_is_read(self, tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
        """Whatever a file holds, reading and asking raises nothing and finds no key that is not there."""
        file = tmp_path_factory.mktemp("k") / "known_hosts"
        file.write_text(
            text, encoding="utf-8", errors="surrogatepass"
        ) if text.isascii() else file.write_bytes(text.encode("utf-8", "ignore"))
        assert "known" != KnownHosts([file]).check("app1", 22, BLOB).finding

    def test_hashed_names(self, tmp_path: Path) -> None:
        """What ssh-keygen -H makes of a file is found."""
        file = tmp_path / "known_hosts"
        file.write_text(
            f"app1 ssh-ed25519 {_real_key(tmp_path)}\n[app1]:2222 ssh-ed25519 {_real_key(tmp_path)}\n"
        )
        subprocess.run(["ssh-keygen", "-q", "-H", "-f", str(file)], check=True, capture_output=True)
        blob = base64.b64decode(_real_key(tmp_path))
        assert "app1" not in file.read_text()
        for port in (22, 2222):
            assert "known" == KnownHosts([file]).check("app1", port, blob).finding

    def test_the_fingerprint_is_openssh_s(self, tmp_path: Path) -> None:
        """The fingerprint is the one that ssh-keygen shows."""
        blob = base64.b64decode(_real_key(tmp_path))
        shown = subprocess.run(
            ["ssh-keygen", "-lf", str(tmp_path / "k.pub")], capture_output=True, text=True, check=True
        )
        assert shown.stdout.split()[1] == fingerprint(blob)

    def test_a_torn_last_line_is_completed(self, tmp_path: Path) -> None:
        """A file without a newline at its end gets one before the new line; a new file is for its owner only."""
        file = tmp_path / "new" / "known_hosts"
        hosts = KnownHosts([file])
        hosts.add("app1", 22, "ssh-ed25519", BLOB, file)
        assert 0o600 == file.stat().st_mode & 0o777
        file.write_text("torn")
        hosts.add("app2", 2222, "ssh-ed25519", BLOB, file)
        assert f"torn\n[app2]:2222 ssh-ed25519 {KEY}\n" == file.read_text()
        assert "known" == hosts.check("app2", 2222, BLOB).finding


class TestSshConfig:
    """`ssh -G` answers; nothing hostile reaches it."""

    def test_include_and_match_are_honoured(self, tmp_path: Path) -> None:
        """What OpenSSH reads counts here, too; values of the inventory win."""
        (tmp_path / "more").write_text(
            "Host app1\n  HostName 10.0.0.1\n  Port 2200\n  User deploy\n  IdentityFile ~/.ssh/%h-%r\n"
        )
        config = tmp_path / "config"
        config.write_text(
            f"Include {tmp_path}/more\nMatch user admin\n  IdentitiesOnly yes\n  ConnectTimeout 7\n"
        )
        found = SshConfig(config).settings("app1")
        assert ("10.0.0.1", 2200, "deploy", False, None) == (
            found.hostname,
            found.port,
            found.user,
            found.identities_only,
            found.connect_timeout,
        )
        assert "10.0.0.1-deploy" == found.identity_files[0].name
        found = SshConfig(config).settings("app1", user="admin", port=22)
        assert (22, "admin", True, 7.0) == (
            found.port,
            found.user,
            found.identities_only,
            found.connect_timeout,
        )

    def test_known_hosts_and_proxies_are_read(self, tmp_path: Path) -> None:
        """Files for known hosts, jump hosts and proxy commands come with their tokens filled in."""
        config = tmp_path / "config"
        config.write_text(
            "Host a\n  ProxyJump one,two@three:4\n  UserKnownHostsFile /k1 /k2\n  GlobalKnownHostsFile none\n  IdentityAgent none\nHost b\n  ProxyCommand nc -x %% %h %p %r\n  HostKeyAlias alias\n"
        )
        jumping, commanding = SshConfig(config).settings("a"), SshConfig(config).settings("b", "me", 5)
        assert ("one", "two@three:4") == jumping.proxy_jump
        assert (Path("/k1"), Path("/k2")) == jumping.user_known_hosts
        assert () == jumping.global_known_hosts
        assert jumping.identity_agent is None
        assert ("nc -x % b 5 me", "alias") == (commanding.proxy_command, commanding.host_key_alias)

    @pytest.mark.parametrize(
        "host", ["-oProxyCommand=touch x", "", "a b", "a;b", "a\n", "$(id)", "`id`", "a'b", "ä"]
    )
    def test_hostile_hosts_are_refused(self, host: str) -> None:
        """What is no host name is refused before ssh sees it."""
        with pytest.raises(ConfigurationError, match="not a host"):
            SshConfig().settings(host)

    @pytest.mark.parametrize("user", ["-l", "a b", "a;b", "$(id)", ""])
    def test_hostile_users_are_refused(self, user: str) -> None:
        """What is no user name is refused before ssh sees it."""
        with pytest.raises(ConfigurationError, match="not a user"):
            SshConfig().settings("app1", user)

    def test_a_broken_file_is_told(self, tmp_path: Path) -> None:
        """A fault in ssh_config is an error of the configuration with OpenSSH's own words."""
        config = tmp_path / "config"
        config.write_text("Nonsense yes\n")
        with pytest.raises(ConfigurationError, match="nonsense"):
            SshConfig(config).settings("app1")

    def test_a_missing_program_is_told(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Without an OpenSSH client the error says what to install."""
        monkeypatch.setenv("PATH", "/nonexistent")
        with pytest.raises(ConfigurationError, match="not installed"):
            SshConfig().settings("app1")

    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("app1", (None, "app1", None)),
            ("me@app1:2222", ("me", "app1", 2222)),
            ("me@x@app1", ("me@x", "app1", None)),
            ("::1", (None, "::1", None)),
            ("[::1]:22", (None, "::1", 22)),
            ("me@[fe80::1]", ("me", "fe80::1", None)),
            ("ssh://me@app1:22/", ("me", "app1", 22)),
        ],
    )
    def test_destinations(self, text: str, expected: tuple[Any, ...]) -> None:
        """`[user@]host[:port]` is split, with IPv6 in mind."""
        assert expected == split_destination(text)

    @pytest.mark.parametrize("text", ["a:0", "a:65536", "a:x", "a:\uff11"])
    def test_ports_are_numbers(self, text: str) -> None:
        """A port is a number between 1 and 65535, in ASCII."""
        with pytest.raises(ConfigurationError, match="port"):
            split_destination(text)


class TestText:
    """Nothing from a server moves the operator's cursor."""

    @pytest.mark.parametrize(
        ("raw", "shown"),
        [
            ("plain äöü 漢字 🙂\n\ttab", "plain äöü 漢字 🙂\n\ttab"),
            ("\x1b[31mred\x1b[0m", "red"),
            ("\x1b[2J\x1b[H\x1b[?25lgone", "gone"),
            ("\x1b]0;title\x07x\x1b]52;c;aGk=\x1b\\y", "xy"),
            ("\x9b31mred\x9d0;t\x9cx", "redx"),
            ("\x1bPdcs\x1b\\x\x1bcreset", "xreset"),
            ("a\r\nb", "a\nb"),
            ("password\rhidden", "password\\x0dhidden"),
            ("a\bb\x07\x00\x7f", "a\\x08b\\x07\\x00\\x7f"),
            ("a\u202eevil\u2066x\u200f", "a\\u202eevil\\u2066x\\u200f"),
            ("prod\u200b\ufeff\xad", "prod\\u200b\\ufeff\\xad"),
            ("half \ud800 tag \U000e0041", "half \\ud800 tag \\U000e0041"),
            ("\x1b", "\\x1b"),
            ("\x1b]0;unterminated", ""),
        ],
    )
    def test_sequences(self, raw: str, shown: str) -> None:
        """Escape sequences are gone, other controls can be read, text stays."""
        assert shown == sanitize(raw)

    @given(text=st.text(max_size=80))
    def test_nothing_a_terminal_obeys_is_left(self, text: str) -> None:
        """No control character but newline and tab comes out, whatever goes in; doing it twice changes nothing."""
        clean = sanitize(text)
        assert not [
            char for char in clean if (ord(char) < 32 and char not in "\n\t") or 127 <= ord(char) < 160
        ]
        assert clean == sanitize(clean)

    @given(text=st.text(st.characters(categories=["L", "N", "P", "Zs"]), max_size=80))
    def test_ordinary_text_is_untouched(self, text: str) -> None:
        """Letters, digits, punctuation and spaces of any script stay as they are."""
        assert text == sanitize(text)


def _real_key(folder: str) -> str:
    if not (folder / "k").exists():
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / "k")], check=True)
    return (folder / "k.pub").read_text().split()[1]


def test_importing_the_package_is_cheap() -> None:
    """Naming the package, its guard and its jobs loads neither Fabric nor Paramiko."""
    code = "import sys; import axon_tasks.remote; from axon_tasks.remote import guard, jobs, Batch; print([m for m in ('fabric', 'paramiko', 'pydantic') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "[]\n" == done.stdout
