"""Reaching and recognising servers: host keys, logins, jump hosts, and what is said when it does not work."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from axon_tasks.config import Secret
from axon_tasks.errors import ConfigurationError, HostKeyError, UnreachableError
from axon_tasks.remote import Batch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from axon_tasks.remote import Fleet


def said(fleet: Fleet, name: str = "app1") -> str:
    """Give the output of a command there, as the proof of a login."""
    return Batch("b").add("echo here", "a").run(fleet[name])["a"].stdout


@contextlib.contextmanager
def listener(answer: bytes | None = None) -> Iterator[int]:
    """A TCP server that accepts, sends an answer, and then says nothing, or closes at once."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        kept = []

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    client, _ = server.accept()
                    if answer is None:
                        client.close()
                        continue
                    client.sendall(answer)
                    kept.append(client)

        threading.Thread(target=serve, daemon=True).start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)
        for client in kept:
            client.close()


class TestHostKeys:
    """Nothing is sent to a server that is not the known one."""

    def test_a_known_key_is_accepted(self, sshd: Any) -> None:
        """The key in the user's known_hosts lets a connection through."""
        sshd.known_hosts.write_text(f"# a comment\n\nbroken line\nother ssh-rsa AAAA\n{sshd.known_line()}")
        with sshd.fleet(config="") as fleet:
            assert "here\n" == said(fleet)

    def test_the_projects_own_file_counts(self, sshd: Any, tmp_path: Path) -> None:
        """A known_hosts file of the project is read beside the user's."""
        sshd.known_hosts.write_text("")
        own = tmp_path / "known_hosts"
        own.write_text(sshd.known_line())
        with sshd.fleet(known_hosts=own, config="") as fleet:
            assert "here\n" == said(fleet)

    def test_hashed_names_are_found(self, sshd: Any) -> None:
        """A known_hosts file with hashed names works."""
        sshd.known_hosts.write_text(sshd.known_line())
        subprocess.run(
            ["ssh-keygen", "-q", "-H", "-f", str(sshd.known_hosts)], check=True, capture_output=True
        )
        assert "127.0.0.1" not in sshd.known_hosts.read_text()
        with sshd.fleet(config="") as fleet:
            assert "here\n" == said(fleet)

    def test_an_unknown_key_is_refused(self, own_sshd: Callable[..., Any]) -> None:
        """A server that is in no file is refused before a login, with its fingerprint and the command that adds it."""
        server = own_sshd()
        server.known_hosts.write_text("")
        with (
            server.fleet() as fleet,
            pytest.raises(HostKeyError, match="is not known; it shows ssh-ed25519 SHA256:") as caught,
        ):
            fleet["app1"]
        listed = subprocess.run(
            ["ssh-keygen", "-lf", f"{server.host_key}.pub"], capture_output=True, text=True, check=True
        )
        assert listed.stdout.split()[1] in str(caught.value)
        assert 4 == caught.value.code
        assert "publickey" not in server.log

    def test_the_advice_for_an_unknown_key_works(self, own_sshd: Callable[..., Any]) -> None:
        """The command in the message shows the fingerprint and adds the key; after that the server is known."""
        server = own_sshd()
        server.known_hosts.write_text("")
        with server.fleet() as fleet, pytest.raises(HostKeyError) as caught:
            fleet["app1"]
        command = caught.value.hint.partition("add it: ")[2]
        done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
        assert "SHA256:" in done.stdout
        with server.fleet() as fleet:
            assert "here\n" == said(fleet)

    def test_a_changed_key_is_refused(
        self, own_sshd: Callable[..., Any], make_key: Callable[..., Path], tmp_path: Path
    ) -> None:
        """Another key than the known one is refused with both fingerprints and the command that forgets it; nothing is sent."""
        server = own_sshd()
        server.known_hosts.write_text(server.known_line(key=make_key(tmp_path / "old")))
        with (
            server.fleet() as fleet,
            pytest.raises(HostKeyError, match="has changed; nothing was sent") as caught,
        ):
            fleet["app1"]
        assert 2 == len(set(re.findall(r"SHA256:\S{43}", str(caught.value))))
        assert "publickey" not in server.log
        command = caught.value.hint.partition("set up anew: ")[2]
        subprocess.run(["bash", "-c", command], capture_output=True, check=True)
        assert "" == server.known_hosts.read_text()

    def test_accept_new_never_accepts_a_changed_key(
        self, own_sshd: Callable[..., Any], make_key: Callable[..., Path], tmp_path: Path
    ) -> None:
        """`accept-new` is for servers that were never seen."""
        server = own_sshd()
        before = server.known_line(key=make_key(tmp_path / "old"))
        server.known_hosts.write_text(before)
        with (
            server.fleet(server.host(host_keys="accept-new")) as fleet,
            pytest.raises(HostKeyError, match="has changed"),
        ):
            fleet["app1"]
        assert before == server.known_hosts.read_text()

    def test_accept_new_appends_one_line(self, own_sshd: Callable[..., Any]) -> None:
        """A new server's key is appended once; comments and the lines of others stay as they are."""
        server = own_sshd()
        before = "# mine\n\nweb1,10.0.0.1 ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGZvb2Jhcg=="
        server.known_hosts.write_text(before)
        hosts = [server.host(name=f"app{number}", host_keys="accept-new") for number in range(4)]
        with server.fleet(*hosts) as fleet:
            fleet.open([host.name for host in hosts])
        assert f"{before}\n{server.known_line()}" == server.known_hosts.read_text()
        with server.fleet() as fleet:
            assert "here\n" == said(fleet)

    def test_a_revoked_key_is_refused(self, own_sshd: Callable[..., Any]) -> None:
        """A key that is revoked is refused even where it is listed as known, too."""
        server = own_sshd()
        server.known_hosts.write_text(f"{server.known_line()}@revoked {server.known_line('*')}")
        with (
            server.fleet(server.host(host_keys="accept-new")) as fleet,
            pytest.raises(HostKeyError, match="revoked"),
        ):
            fleet["app1"]

    def test_a_certificate_authority_is_refused_clearly(self, own_sshd: Callable[..., Any]) -> None:
        """A host that is known only through a certificate authority is told apart from an unknown one."""
        server = own_sshd()
        server.known_hosts.write_text(f"@cert-authority {server.known_line('*', server.ca)}")
        with server.fleet() as fleet, pytest.raises(HostKeyError, match="certificate authority"):
            fleet["app1"]

    def test_the_known_type_is_asked_for(self, own_sshd: Callable[..., Any]) -> None:
        """When only the RSA key of a server is known, that is the one it is asked for."""
        server = own_sshd()
        server.known_hosts.write_text(server.known_line(key=server.host_key_rsa))
        with server.fleet() as fleet:
            assert "here\n" == said(fleet)

    def test_a_host_key_alias_is_honoured(self, own_sshd: Callable[..., Any]) -> None:
        """`HostKeyAlias` names the line of known_hosts, without a port."""
        server = own_sshd()
        server.known_hosts.write_text(server.known_line("shop"))
        with server.fleet(config="HostKeyAlias shop\nStrictHostKeyChecking no") as fleet:
            assert "here\n" == said(fleet)

    def test_ssh_config_cannot_weaken_it(self, own_sshd: Callable[..., Any]) -> None:
        """`StrictHostKeyChecking no` in ssh_config changes nothing."""
        server = own_sshd()
        server.known_hosts.write_text("")
        with server.fleet(config="StrictHostKeyChecking no") as fleet, pytest.raises(HostKeyError):
            fleet["app1"]


class TestLogins:
    """Keys of all kinds, and never a question."""

    @pytest.mark.parametrize(
        "kind",
        [("rsa", "-b", "2048"), ("rsa", "-m", "PEM"), ("ecdsa",), ("ecdsa", "-b", "521"), ("ed25519",)],
    )
    @pytest.mark.parametrize("passphrase", ["", "pass phrase ü"])
    def test_a_key_file_logs_in(
        self,
        sshd: Any,
        fleet: Fleet,
        make_key: Callable[..., Path],
        tmp_path: Path,
        kind: Any,
        passphrase: str,
    ) -> None:
        """RSA, ECDSA and Ed25519 keys work, in both file formats, plain and encrypted."""
        algorithm, *options = kind
        key = make_key(tmp_path / "key", algorithm, passphrase, *options)
        sshd.authorize(key)
        with sshd.fleet(sshd.host(key=key, passphrase=Secret(passphrase) if passphrase else None)) as own:
            assert "here\n" == said(own)

    def test_a_passphrase_that_is_not_needed_does_no_harm(self, sshd: Any, fleet: Fleet) -> None:
        """A plain key works though a passphrase is configured."""
        with sshd.fleet(sshd.host(passphrase=Secret("unused"))) as own:
            assert "here\n" == said(own)

    def test_an_encrypted_key_without_its_passphrase_is_told(
        self, sshd: Any, fleet: Fleet, make_key: Callable[..., Path], tmp_path: Path
    ) -> None:
        """Nobody is asked for a passphrase: the error names the key and the two ways to provide it."""
        key = make_key(tmp_path / "key", "ed25519", "secret")
        with (
            sshd.fleet(sshd.host(key=key)) as own,
            pytest.raises(UnreachableError, match=r"is encrypted; .*ssh-add"),
        ):
            own["app1"]

    def test_a_wrong_passphrase_is_told_without_it(
        self, sshd: Any, fleet: Fleet, make_key: Callable[..., Path], tmp_path: Path
    ) -> None:
        """The error names the key and never the passphrase."""
        key = make_key(tmp_path / "key", "ed25519", "secret")
        with (
            sshd.fleet(sshd.host(key=key, passphrase=Secret("wrong-4711"))) as own,
            pytest.raises(UnreachableError) as caught,
        ):
            own["app1"]
        assert str(key) in str(caught.value)
        assert "wrong-4711" not in str(caught.value)

    def test_a_refusal_lists_what_was_tried(
        self, sshd: Any, fleet: Fleet, make_key: Callable[..., Path], tmp_path: Path
    ) -> None:
        """The error of a refused login lists each key and what came of it."""
        key = make_key(tmp_path / "stranger")
        with (
            sshd.fleet(sshd.host(key=key)) as own,
            pytest.raises(UnreachableError, match=f"key {key}: refused") as caught,
        ):
            own["app1"]
        assert 4 == caught.value.code

    def test_a_missing_key_is_told(self, sshd: Any, fleet: Fleet, tmp_path: Path) -> None:
        """A key that the inventory names and that is not there is in the error."""
        with (
            sshd.fleet(sshd.host(key=tmp_path / "none")) as own,
            pytest.raises(UnreachableError, match="none: no such file"),
        ):
            own["app1"]

    def test_a_server_that_wants_a_password_is_an_error_at_once(self, own_sshd: Callable[..., Any]) -> None:
        """A server that takes passwords only is an error, not a prompt."""
        server = own_sshd("PubkeyAuthentication no\nPasswordAuthentication yes")
        with server.fleet() as fleet, pytest.raises(UnreachableError, match="does not let"):
            fleet["app1"]

    def test_a_server_that_wants_two_factors_is_told(self, own_sshd: Callable[..., Any]) -> None:
        """A key that is accepted but not enough is told apart from a refused one."""
        server = own_sshd("AuthenticationMethods publickey,password\nPasswordAuthentication yes")
        with (
            server.fleet() as fleet,
            pytest.raises(UnreachableError, match="accepted, but the server also wants password"),
        ):
            fleet["app1"]

    def test_a_certificate_logs_in(
        self, sshd: Any, fleet: Fleet, make_key: Callable[..., Path], tmp_path: Path
    ) -> None:
        """A key is accepted through the certificate that stands next to it."""
        for kind in ("ed25519", "ecdsa", "rsa"):
            key = make_key(tmp_path / kind, kind)
            self._certify(sshd, key)
            with sshd.fleet(sshd.host(key=key)) as own:
                assert "here\n" == said(own)

    def test_a_certificate_of_ssh_config_logs_in(
        self, sshd: Any, fleet: Fleet, make_key: Callable[..., Path], tmp_path: Path
    ) -> None:
        """`CertificateFile` and `IdentityFile` of ssh_config are paired."""
        key = make_key(tmp_path / "key")
        certificate = self._certify(sshd, key).rename(tmp_path / "elsewhere.pub")
        config = f"IdentityFile {key}\nCertificateFile {certificate}"
        with sshd.fleet(sshd.host(key=None), config=config) as own:
            assert "here\n" == said(own)

    @pytest.mark.parametrize("kind", ["ed25519", "ecdsa", "rsa"])
    def test_the_agent_logs_in(
        self, sshd: Any, fleet: Fleet, make_key: Callable[..., Path], tmp_path: Path, kind: Any, agent: Agent
    ) -> None:
        """A key that only the agent has, and a certificate in the agent, are used."""
        key = make_key(tmp_path / "key", kind)
        sshd.authorize(key)
        agent.add(key)
        with sshd.fleet(sshd.host(key=None), config=f"IdentityAgent {agent.socket}") as own:
            assert "here\n" == said(own)
        other = make_key(tmp_path / "certified", kind)
        self._certify(sshd, other)
        agent.forget_all()
        agent.add(other)
        other.unlink()
        with sshd.fleet(sshd.host(key=None), config=f"IdentityAgent {agent.socket}") as own:
            assert "here\n" == said(own)

    def test_the_agent_opens_an_encrypted_key(
        self, sshd: Any, fleet: Fleet, make_key: Callable[..., Path], tmp_path: Path, agent: Agent
    ) -> None:
        """An encrypted key of the inventory is used through the agent that holds it."""
        key = make_key(tmp_path / "key")
        sshd.authorize(key)
        agent.add(key)
        subprocess.run(
            ["ssh-keygen", "-q", "-p", "-P", "", "-N", "secret", "-f", str(key)],
            check=True,
            capture_output=True,
        )
        with sshd.fleet(sshd.host(key=key), config=f"IdentityAgent {agent.socket}") as own:
            assert "here\n" == said(own)

    def test_a_named_key_keeps_the_agent_out(
        self, own_sshd: Callable[..., Any], make_key: Callable[..., Path], tmp_path: Path, agent: Agent
    ) -> None:
        """With a key in the inventory, a busy agent does not use up the server's patience."""
        server = own_sshd("MaxAuthTries 2")
        for number in range(6):
            agent.add(make_key(tmp_path / f"stranger{number}"))
        with server.fleet(config=f"IdentityAgent {agent.socket}") as fleet:
            assert "here\n" == said(fleet)

    def test_too_many_keys_are_told(
        self, own_sshd: Callable[..., Any], make_key: Callable[..., Path], tmp_path: Path, agent: Agent
    ) -> None:
        """When the server gives up first, the error says which keys were tried and why it ended."""
        server = own_sshd("MaxAuthTries 2")
        for number in range(6):
            agent.add(make_key(tmp_path / f"stranger{number}"))
        opened = server.fleet(server.host(key=None), config=f"IdentityAgent {agent.socket}")
        with opened as fleet, pytest.raises(UnreachableError, match="MaxAuthTries") as caught:
            fleet["app1"]
        assert "agent key SHA256:" in str(caught.value)

    @staticmethod
    def _certify(sshd: Any, key: Path) -> Path:
        user = sshd.host().user
        subprocess.run(
            ["ssh-keygen", "-q", "-s", str(sshd.ca), "-I", "test", "-n", user, f"{key}.pub"],
            check=True,
            capture_output=True,
        )
        return Path(f"{key}-cert.pub")


class Agent:
    """An ssh-agent of the test's own."""

    def __init__(self, folder: str) -> None:
        self.socket = folder / "agent.sock"
        self.process = subprocess.Popen(
            ["ssh-agent", "-D", "-a", str(self.socket)], stdout=subprocess.DEVNULL
        )

    def add(self, key: Path) -> None:
        self._run("-q", str(key))

    def forget_all(self) -> None:
        self._run("-q", "-D")

    def _run(self, *arguments: Any) -> None:
        env = os.environ | {"SSH_AUTH_SOCK": str(self.socket)}
        subprocess.run(["ssh-add", *arguments], env=env, check=True, capture_output=True)


@pytest.fixture
def agent(tmp_path: Path, wait_until: Callable[..., bool]) -> Iterator[Agent]:
    held = Agent(tmp_path)
    assert wait_until(held.socket.exists)
    yield held
    held.process.terminate()
    held.process.wait()


class TestUnreachable:
    """Every way not to reach a server ends, and says which server and what to do."""

    def test_nobody_listens(self, sshd: Any, tmp_path: Path) -> None:
        """A refused connection names server, address and port."""
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        with (
            sshd.fleet(sshd.host(port=port)) as fleet,
            pytest.raises(UnreachableError, match=rf"app1 \(127.0.0.1:{port}\) refused"),
        ):
            fleet["app1"]

    def test_there_is_no_such_name(self, sshd: Any) -> None:
        """A name that does not resolve is told as that."""
        with (
            sshd.fleet(sshd.host(address="no-such-host.invalid")) as fleet,
            pytest.raises(UnreachableError, match="there is no host"),
        ):
            fleet["app1"]

    def test_it_accepts_and_says_nothing(self, sshd: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        """A peer that never sends its version is given up."""
        monkeypatch.setattr("axon_tasks.remote.connection._BANNER_TIMEOUT", 0.2)
        monkeypatch.setattr("axon_tasks.remote.connection._ATTEMPTS", 1)
        with (
            listener(b"") as port,
            sshd.fleet(sshd.host(port=port)) as fleet,
            pytest.raises(UnreachableError, match="before the login"),
        ):
            fleet["app1"]

    def test_it_speaks_something_else(self, sshd: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        """A web server on the port is no SSH server."""
        monkeypatch.setattr("axon_tasks.remote.connection._BANNER_TIMEOUT", 0.5)
        monkeypatch.setattr("axon_tasks.remote.connection._ATTEMPTS", 1)
        answer = b"HTTP/1.1 400 Bad Request\r\n\r\n" * 200
        with (
            listener(answer) as port,
            sshd.fleet(sshd.host(port=port)) as fleet,
            pytest.raises(UnreachableError),
        ):
            fleet["app1"]

    def test_the_key_exchange_stalls(self, sshd: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        """A peer that stops in the middle of the key exchange is given up."""
        monkeypatch.setattr("axon_tasks.remote.connection._HANDSHAKE_TIMEOUT", 0.2)
        with listener(b"SSH-2.0-OpenSSH_9.2\r\n") as port:
            host = sshd.host(port=port, connect_timeout=0.2)
            with sshd.fleet(host) as fleet, pytest.raises(UnreachableError):
                fleet["app1"]

    def test_it_drops_logins_for_a_while(
        self, own_sshd: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A connection that is dropped before the login is tried again, a bounded number of times."""
        monkeypatch.setattr("random.uniform", lambda *_: 0.01)
        with listener(None) as port:
            server = own_sshd()
            with (
                server.fleet(server.host(port=port)) as fleet,
                pytest.raises(UnreachableError, match="MaxStartups"),
            ):
                fleet["app1"]

    def test_many_logins_at_once_all_succeed(self, own_sshd: Callable[..., Any]) -> None:
        """Thirty servers behind one sshd are opened at once, within what it accepts."""
        server = own_sshd("MaxStartups 9")
        hosts = [server.host(name=f"app{number}") for number in range(30)]
        with server.fleet(*hosts) as fleet:
            opened = fleet.open([host.name for host in hosts])
            assert 30 == len(opened)
            assert all(connection.is_connected for connection in opened.values())

    def test_several_failures_are_told_together(self, sshd: Any, tmp_path: Path) -> None:
        """When two servers cannot be opened, both are in the message."""
        hosts = [sshd.host(name=name, key=tmp_path / "none") for name in ("app1", "app2")]
        sshd.known_hosts.write_text(sshd.known_line())
        with sshd.fleet(*hosts) as fleet, pytest.raises(UnreachableError, match=r"(?s)app1.*app2"):
            fleet.open(["app1", "app2"])

    def test_an_unknown_name_lists_the_known_ones(self, sshd: Any) -> None:
        """A name that is not in the inventory is an error of the configuration."""
        with sshd.fleet() as fleet, pytest.raises(ConfigurationError, match=r"no host 'app9'.*app1"):
            fleet["app9"]


class TestJumps:
    """Servers behind servers."""

    def test_a_jump_host_is_shared_and_closed(
        self, own_sshd: Callable[..., Any], wait_until: Callable[..., bool]
    ) -> None:
        """Three servers behind one jump host make one login there; closing closes it, too."""
        edge, app = own_sshd(), own_sshd()
        edge.known_hosts.write_text(edge.known_line() + app.known_line())
        inner = [app.host(name=f"app{number}", jump="edge1") for number in range(3)]
        with edge.fleet(edge.host(name="edge1"), *inner) as fleet:
            fleet.open([host.name for host in inner])
            assert ["here\n"] * 3 == [said(fleet, host.name) for host in inner]
            assert 1 == edge.log.count("Accepted publickey")
        assert wait_until(lambda: not edge.sessions() and not app.sessions())

    def test_a_jump_host_is_verified(
        self, own_sshd: Callable[..., Any], make_key: Callable[..., Path], tmp_path: Path
    ) -> None:
        """A jump host with another key than the known one is refused, and the server behind it is not contacted."""
        edge, app = own_sshd(), own_sshd()
        edge.known_hosts.write_text(edge.known_line(key=make_key(tmp_path / "old")) + app.known_line())
        opened = edge.fleet(edge.host(name="edge1"), app.host(jump="edge1"))
        with opened as fleet, pytest.raises(HostKeyError, match=r"edge1 .*has changed"):
            fleet["app1"]
        assert 1 == app.log.count("Connection from")  # the fixture's own, to see that it is up

    def test_proxy_jump_of_ssh_config_is_followed(self, own_sshd: Callable[..., Any]) -> None:
        """`ProxyJump` works, with its own keys, as for ssh."""
        edge, app = own_sshd(), own_sshd()
        edge.known_hosts.write_text(edge.known_line() + app.known_line())
        config = f"Host bastion\n  HostName 127.0.0.1\n  Port {edge.port}\n  IdentityFile {edge.key}\nHost inner\n  HostName 127.0.0.1\n  ProxyJump bastion"
        with edge.fleet(app.host(address="inner"), config=config) as fleet:
            assert "here\n" == said(fleet)
        assert 1 == edge.log.count("Accepted publickey")

    def test_a_proxy_command_is_run_and_ended(
        self, own_sshd: Callable[..., Any], wait_until: Callable[..., bool]
    ) -> None:
        """`ProxyCommand` works with its tokens; its process is gone when the connection is closed."""
        server = own_sshd()
        program = "import sys,socket,threading,os;s=socket.create_connection((sys.argv[1],int(sys.argv[2])));threading.Thread(target=lambda:[s.sendall(d) for d in iter(lambda:os.read(0,65536),b'')],daemon=True).start();[os.write(1,d) for d in iter(lambda:s.recv(65536),b'')]"
        config = f'Host *\n  ProxyCommand {sys.executable} -c "{program}" %h %p'
        with server.fleet(config=config) as fleet:
            assert "here\n" == said(fleet)
            proxy = fleet["app1"]._proxy.pid
        assert not Path(f"/proc/{proxy}").exists()

    def test_a_circle_is_told(self, sshd: Any) -> None:
        """Jump hosts that need each other are an error, not a recursion."""
        hosts = [sshd.host(name="a", jump="b"), sshd.host(name="b", jump="a")]
        with sshd.fleet(*hosts) as fleet, pytest.raises(ConfigurationError, match="in a circle"):
            fleet["a"]


class TestFleet:
    """Many servers at a time."""

    def test_work_is_keyed_by_name(self, sshd: Any) -> None:
        """Two names of one server have results of their own; a failure on one stops none of the others."""
        sshd.known_hosts.write_text(sshd.known_line())
        with sshd.fleet(sshd.host(name="a"), sshd.host(name="b"), sshd.host(name="c", port=1)) as fleet:
            outcomes = fleet.gather({name: lambda connection: connection.name for name in "abc"})
        assert ["a", "b", "c"] == list(outcomes)
        assert ["a", "b"] == [outcomes[name].value for name in "ab"]
        with pytest.raises(UnreachableError):
            outcomes["c"].value  # noqa: B018 - raises what the work raised

    def test_a_connection_is_opened_once(self, own_sshd: Callable[..., Any]) -> None:
        """Many threads that ask for a server at the same time share one login."""
        server = own_sshd()
        with server.fleet() as fleet:
            threads = [threading.Thread(target=lambda: fleet["app1"]) for _ in range(8)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(30)
            assert fleet["app1"] is fleet["app1"]
        assert 1 == server.log.count("Accepted publickey")

    def test_a_group_runs_one_query(self, sshd: Any) -> None:
        """Fabric's ThreadingGroup works on the hardened connections."""
        sshd.known_hosts.write_text(sshd.known_line())
        with sshd.fleet() as fleet:
            results = fleet.group(["app1"]).run("echo hi", hide=True)
        assert {"app1": "hi\n"} == {connection.name: result.stdout for connection, result in results.items()}

    def test_a_connect_under_way_can_be_abandoned(self, sshd: Any, wait_until: Callable[..., bool]) -> None:
        """Closing the fleet ends a connect that is still waiting in another thread."""
        failures = []
        with listener(b"") as port:
            fleet = sshd.fleet(sshd.host(port=port))

            def work() -> None:
                try:
                    fleet["app1"]
                except UnreachableError as error:
                    failures.append(error)

            thread = threading.Thread(target=work)
            thread.start()
            assert wait_until(lambda: fleet.connection("app1")._underway is not None)
            fleet.close()
            thread.join(5)
            assert not thread.is_alive()
        assert 1 == len(failures)


FABFILE = """
from invoke import Collection, task
from axon_tasks.remote import guard
guard.install()
@task
def hello(c):
    "Say hello."
    print(type(c).__module__, c.run("echo from-$(echo there)", hide=True).stdout)
ns = Collection(hello)
"""


class TestFabH:
    """`fab -H` cannot slip past the host-key check."""

    def _fab(
        self, sshd: Any, folder: str, *arguments: Any, hosts: bool = True, env: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        (folder / "fabfile.py").write_text(FABFILE)
        if hosts:
            (folder / "hosts.yml").write_text(
                f"product: shop\nimage: registry.example.com/shop\nhosts:\n  app1: {{address: 127.0.0.1, port: {sshd.port}, key: {sshd.key}}}\n"
                "environments:\n  prod: {system: [app1], app: [app1], domain: shop.example.com}\n"
            )
        command = [str(Path(sys.executable).with_name("fab")), "-S", str(sshd.ssh_config), *arguments]
        return subprocess.run(
            command,
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            stdin=subprocess.DEVNULL,
            env=env,
        )

    def test_names_of_the_inventory_work(self, sshd: Any, fleet: Fleet, tmp_path: Path) -> None:
        """`fab -H app1 task` uses address, port and key of hosts.yml, and a hardened connection."""
        done = self._fab(sshd, tmp_path, "-H", "app1", "hello")
        assert ("axon_tasks.remote.connection from-there\n\n", 0) == (done.stdout, done.returncode), (
            done.stderr
        )

    def test_a_changed_key_is_refused(
        self, sshd: Any, fleet: Fleet, tmp_path: Path, make_key: Callable[..., Path]
    ) -> None:
        """`fab -H` to a server with a changed key exits 4 and runs nothing."""
        sshd.known_hosts.write_text(sshd.known_line(key=make_key(tmp_path / "old")))
        for destination in ("app1", f"127.0.0.1:{sshd.port}"):
            done = self._fab(sshd, tmp_path, "-i", str(sshd.key), "-H", destination, "hello")
            assert ("", 4) == (done.stdout, done.returncode)
            assert "has changed" in done.stderr
            assert "Traceback" not in done.stderr

    def test_other_hosts_work_without_an_inventory(self, sshd: Any, fleet: Fleet, tmp_path: Path) -> None:
        """`fab -H user@host:port -i key` works where there is no hosts.yml."""
        destination = f"{sshd.host().user}@127.0.0.1:{sshd.port}"
        done = self._fab(
            sshd, tmp_path, "-i", str(sshd.key), "-t", "5", "-H", destination, "hello", hosts=False
        )
        assert ("axon_tasks.remote.connection from-there\n\n", 0) == (done.stdout, done.returncode), (
            done.stderr
        )

    def test_a_bare_command_can_be_guarded(
        self, sshd: Any, fleet: Fleet, tmp_path: Path, make_key: Callable[..., Path]
    ) -> None:
        """With the executor in ~/.fabric.yaml, `fab -H host -- command` verifies the host key, too."""
        (tmp_path / ".fabric.yaml").write_text("tasks:\n  executor_class: axon_tasks.remote.guard.Executor\n")
        env = os.environ | {"HOME": str(tmp_path)}
        done = self._fab(sshd, tmp_path, "-H", "app1", "--", "echo bare; exit 3", env=env)
        assert ("bare\n", 3) == (done.stdout, done.returncode), done.stderr
        sshd.known_hosts.write_text(sshd.known_line(key=make_key(tmp_path / "old")))
        done = self._fab(sshd, tmp_path, "-H", "app1", "--", "echo bare", env=env)
        assert ("", 4) == (done.stdout, done.returncode)

    def test_a_host_that_is_an_option_is_refused(self, sshd: Any, fleet: Fleet, tmp_path: Path) -> None:
        """A host such as `-oProxyCommand=...` is refused and not given to ssh."""
        done = self._fab(sshd, tmp_path, "-H", f"-oProxyCommand=touch {tmp_path}/pwned", "hello")
        assert 2 == done.returncode, done.stderr
        assert not (tmp_path / "pwned").exists()
