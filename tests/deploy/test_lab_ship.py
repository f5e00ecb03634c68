"""From a working directory to a release on real servers: through a registry with a login, and without any registry."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import tarfile
from io import BytesIO
from typing import TYPE_CHECKING, Any

import pytest
from reading import examples
from schemas import conforming

from axon_tasks.config import load
from axon_tasks.deploy import sending
from axon_tasks.deploy.connections import Connections
from axon_tasks.deploy.timeline import Recorder
from axon_tasks.lab.images import build_context

if TYPE_CHECKING:
    from collections.abc import Iterator

    from products import Product

pytestmark = [pytest.mark.lab, pytest.mark.usefixtures("uncovered")]

#: The server whose Docker stands in for that of the operator; nothing here is deployed to it.
BUILDER = "app3"
APPS = ("app1", "app2")
#: Bytes that make the layers below the one that changes worth leaving out.
WEIGHT = 3_000_000


class Working:
    """A working directory with an application in it, and a machine with Docker."""

    def __init__(self, product: Product) -> None:
        self.product = product
        self.app = product.folder / "app"
        self.home = product.folder / "home"
        self.home.mkdir()
        with tarfile.open(fileobj=BytesIO(build_context("ok"))) as sample:
            sample.extractall(self.app, filter="tar")
        (self.app / "weight").write_bytes(os.urandom(WEIGHT))
        dockerfile = (self.app / "Dockerfile").read_text()
        (self.app / "Dockerfile").write_text(
            dockerfile.replace("COPY root/ /\n", "COPY root/ /\nCOPY weight /weight\nCOPY change /change\n")
        )
        self.git("init", "--quiet", ".")
        self.settings["build"] = {"context": "app", "args": {"VERSION": "none"}}

    @property
    def settings(self) -> dict[str, Any]:
        found: dict[str, Any] = self.product.settings["environments"]["prod"]
        return found

    def git(self, *words: str) -> str:
        done = subprocess.run(
            ["git", "-c", "user.name=me", "-c", "user.email=me@test", *words],
            cwd=self.app, check=True, capture_output=True, text=True,
        )  # fmt: skip
        return done.stdout.strip()

    def commit(self, version: str) -> str:
        """Change what the highest layer holds, and commit it; gives the tag of its image."""
        (self.app / "change").write_text(version)
        self.settings["build"]["args"]["VERSION"] = version
        self.git("add", ".")
        self.git("commit", "--quiet", "--message", version)
        return self.git("rev-parse", "HEAD")[:12]

    def fab(self, *words: str) -> subprocess.CompletedProcess[str]:
        socket = self.product.lab.path(BUILDER, "/run/docker.sock")
        return self.product.fab(*words, variables={"DOCKER_HOST": f"unix://{socket}", "HOME": str(self.home)})


@pytest.fixture
def working(product: Product) -> Iterator[Working]:
    """Its images are of this test alone, and gone afterwards."""
    yield Working(product)
    product.remove()
    for server in (*APPS, BUILDER):
        product.lab.exec(
            server,
            f"docker image ls --format '{{{{.Repository}}}}:{{{{.Tag}}}}' | grep -F '{product.name}' | xargs -r docker rmi -f",
            check=False,
        )


def done(said: subprocess.CompletedProcess[str]) -> str:
    assert 0 == said.returncode, said.stdout + said.stderr
    return said.stdout


def image_of(product: Product, server: str) -> str:
    """The words with which the one container there names its image."""
    [name] = product.containers(server)
    found: str = json.loads(product.lab.exec(server, ["docker", "inspect", name]).stdout)[0]["Config"][
        "Image"
    ]
    return found


def sent(text: str) -> dict[str, tuple[int, int, float]]:
    """Of what was told about each server: layers sent, layers of the image, and kB."""
    found = re.findall(r"^  (app\d): (\d) of (\d) layers, ([\d.]+) (k|M)B in", text, re.MULTILINE)
    return {
        server: (int(layers), int(of), float(size) * (1000 if unit == "M" else 1))
        for server, layers, of, size, unit in found
    }


def test_an_image_that_no_registry_has(working: Working) -> None:
    """It is sent to both servers, of the next one only what has changed; the release is known by the image's id from then on."""
    product = working.product
    # A name that would be Docker's own registry, which the lab cannot reach.
    working.settings["image"] = f"{product.name}/shop"
    one = working.commit("one")
    said = done(working.fab("ship", "--env=prod", "--push=ssh"))
    assert (200, "one") == product.get()
    assert dict.fromkeys(APPS, (3, 3)) == {server: told[:2] for server, told in sent(said).items()}
    assert all(told[2] > WEIGHT / 1000 for told in sent(said).values())
    first = image_of(product, "app1")
    assert (True, first) == (first.startswith("sha256:"), image_of(product, "app2"))

    two = working.commit("two")
    said = done(working.fab("ship", "--env=prod", "--push=ssh", "--wait"))
    assert (200, "two") == product.get()
    assert dict.fromkeys(APPS, (1, 3)) == {server: told[:2] for server, told in sent(said).items()}
    assert all(told[2] < 50 for told in sent(said).values())
    second = image_of(product, "app1")
    releases = conforming("history", done(working.fab("history", "--env=prod", "--json")))["releases"]
    assert [(f"{product.name}/shop:{two}", second, two), (f"{product.name}/shop:{one}", first, one)] == [
        (release["image"], release["digest"], release["commit"][:12]) for release in releases
    ]
    done(working.fab("status", "--env=prod"))
    assert "nothing but the container itself" in done(working.fab("diff", "--env=prod", f"--tag={two}"))

    # What a rollback needs stays, though nothing runs it; and so does what runs.
    done(working.fab("cleanup", "--env=prod", "--keep=1"))
    said = done(working.fab("rollback", "--env=prod", "--wait"))
    assert (True, (200, "one"), first) == ("started as" in said, product.get(), image_of(product, "app2"))
    done(working.fab("restart", "--env=prod", "--wait"))
    assert ((200, "one"), first) == (product.get(), image_of(product, "app2"))

    product.lab.exec("app2", ["docker", "image", "rm", "--force", f"{product.name}/shop:{two}"])
    said = working.fab("rollback", "--env=prod", f"--to={releases[0]['id']}")
    assert (1, True, (200, "one")) == (
        said.returncode, f"app2: the image of that release, {product.name}/shop:{two}, is not there any more" in said.stderr,
        product.get(),
    ), said.stderr  # fmt: skip
    assert "and no registry has it" in said.stderr


def test_sending_and_deploying_by_themselves(working: Working) -> None:
    """What push sends, deploy finds with --no-pull, or where the settings say so; what is not there is told."""
    product = working.product
    product.on("app1")
    working.settings["image"] = f"{product.name}/shop"
    tag = working.commit("one")
    said = working.fab("push", "--env=prod", "--push=ssh")
    assert (1, True) == (said.returncode, f"There is no image {product.name}/shop:{tag}" in said.stderr), (
        said.stderr
    )
    said = working.fab("deploy", "--env=prod", f"--tag={tag}", "--no-pull")
    assert (1, True) == (said.returncode, f"fab push --env=prod --push=ssh --tag={tag}" in said.stderr), (
        said.stderr
    )
    done(working.fab("build", "--env=prod"))
    working.settings["build"]["push"] = "ssh"
    assert "app1: 3 of 3 layers" in done(working.fab("push", "--env=prod"))
    assert "app1: has it already" in done(working.fab("push", "--env=prod"))
    del working.settings["build"]["push"]
    done(working.fab("deploy", "--env=prod", f"--tag={tag}", "--no-pull"))
    assert (200, "one") == product.get()
    # A record names it by its id.
    working.settings["build"]["push"] = "ssh"
    done(working.fab("deploy", "--env=prod", f"--tag={image_of(product, 'app1')}", "--wait"))
    assert (200, "one") == product.get()


def test_an_image_goes_through_a_registry(working: Working) -> None:
    """Built, pushed with a login that stays nowhere, and pulled with the same; a second one goes the same way step by step."""
    product = working.product
    product.on("app1")
    secret = working.app.parent / "password"
    secret.write_text("secret\n")
    secret.chmod(0o600)
    working.settings["image"] = f"10.77.0.5:5001/{product.name}"
    working.settings["registry"] = {"username": "axon", "password_file": "password"}
    tag = working.commit("one")
    shown = done(working.fab("ship", "--env=prod", "--dry-run"))
    assert (f"docker push 10.77.0.5:5001/{product.name}:{tag}" in shown, True) == (
        True,
        "password-stdin" in shown,
    )
    assert [] == product.containers("app1")
    said = done(working.fab("ship", "--env=prod", "--wait"))
    assert (200, "one") == product.get(), said
    labels = product.lab.exec(BUILDER, ["docker", "image", "inspect", f"10.77.0.5:5001/{product.name}:{tag}"])
    assert (
        working.git("rev-parse", "HEAD")
        == json.loads(labels.stdout)[0]["Config"]["Labels"]["org.opencontainers.image.revision"]
    )
    assert [] == list(working.home.rglob("config.json"))

    tag = working.commit("two")
    for words in (("build",), ("push",), ("deploy", f"--tag={tag}")):
        done(working.fab(words[0], "--env=prod", *words[1:]))
    assert (200, "two") == product.get()
    # The login is asked for when an earlier image has to be pulled again.
    product.settle()
    images = f"docker images --no-trunc -q 10.77.0.5:5001/{product.name}"
    product.lab.exec("app1", f"docker rmi -f $({images})", check=False)
    assert 1 == len(set(product.lab.exec("app1", images).stdout.split()))  # that of the container that runs
    done(working.fab("rollback", "--env=prod", "--wait"))
    assert (200, "one") == product.get()


def test_a_server_that_has_less_than_it_seemed_to_have(
    working: Working, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where an archive without its lower layers is not loaded, the whole one is sent; a server that is down hides no other."""
    product = working.product
    working.settings["image"] = f"{product.name}/shop"
    tag = working.commit("one")
    done(working.fab("build", "--env=prod"))
    monkeypatch.setenv("DOCKER_HOST", f"unix://{product.lab.path(BUILDER, '/run/docker.sock')}")
    monkeypatch.setattr(sending, "present", lambda _there, _ids: 2)
    product.settings["hosts"]["app2"] |= {"address": "10.77.0.99", "connect_timeout": "1s"}
    project = load(product.write())
    with Connections(project, Recorder(command="")) as connections:
        sent, lost = sending.Sender(
            connections, project.environment("prod"), f"{product.name}/shop:{tag}", lambda *_: None
        ).send()
    assert (["app1"], ["app2"]) == (list(sent), list(lost))
    assert (3, 3, True) == (sent["app1"].layers, sent["app1"].of, sent["app1"].again)
    assert sent["app1"].id in product.lab.exec("app1", ["docker", "images", "-q", "--no-trunc"]).stdout
    said = working.fab("push", "--env=prod", "--push=ssh")
    assert (4, True, True) == (
        said.returncode, "app1: has it already" in said.stdout, "app2 (10.77.0.99:22)" in said.stderr,
    ), said.stderr  # fmt: skip


def test_what_ends_it_early(working: Working) -> None:
    """Uncommitted changes, a failing build and a wrong password: each with its exit code, and nothing is deployed."""
    product = working.product
    working.settings["image"] = f"10.77.0.5:5001/{product.name}"
    working.settings["registry"] = {"username": "axon", "password": "wr0ng-7"}
    tag = working.commit("one")
    said = working.fab("ship", "--env=prod")
    assert (1, True) == (said.returncode, "10.77.0.5:5001 refuses the login of axon" in said.stderr), (
        said.stderr
    )
    assert "wr0ng-7" not in said.stdout + said.stderr
    (working.app / "new").write_text("x")
    said = working.fab("ship", "--env=prod")
    assert (2, True) == (said.returncode, "  new\n  Commit them" in said.stderr), said.stderr
    (working.app / "new").unlink()
    with (working.app / "Dockerfile").open("a") as file:
        file.write("COPY nothing-of-that-name /\n")
    said = working.fab("ship", "--env=prod", "--allow-dirty")
    assert (1, True) == (said.returncode, f"{tag}-dirty-" in said.stderr), said.stderr
    assert "nothing was deployed" in said.stderr
    assert "nothing-of-that-name" in said.stdout + said.stderr
    assert ([], []) == (product.containers("app1"), product.containers("app2"))


def test_the_examples_of_the_help(working: Working) -> None:
    """Each line of build, push and ship ends with 0; what ship names serves."""
    product = working.product
    product.on("app1")
    working.settings["image"] = f"10.77.0.5:5001/{product.name}"
    working.settings["registry"] = {"username": "axon", "password": "secret"}
    working.commit("one")
    tried = [line for name in ("build", "push", "ship") for line in examples(name)]
    assert 11 == len(tried)
    for line in tried:
        done(working.fab(*shlex.split(line)[1:]))
    assert (200, "one") == product.get()
