"""Cleaning up real servers: exactly what is not needed goes, also while deploys run and are killed."""

from __future__ import annotations

import io
import os
import signal
import tarfile
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
from schemas import conforming

from axon_tasks.lab.images import build_context

if TYPE_CHECKING:
    from collections.abc import Iterator

    from products import Product

pytestmark = [pytest.mark.lab, pytest.mark.usefixtures("uncovered")]

REGISTRY = "10.77.0.5:5000"
OLD = "touch -d '2 days ago'"
BUILDER = "app3"
BUILT: set[str] = set()
#: What each image has that no other one has: enough to see it go.
WEIGHT = 4_000_000


def context(variant: str) -> bytes:
    """The sample with some bytes of its own."""
    buffer = io.BytesIO(build_context(variant))
    with tarfile.open(fileobj=buffer, mode="a") as archive:
        entry = tarfile.TarInfo("root/weight")
        entry.size = WEIGHT
        archive.addfile(entry, io.BytesIO(os.urandom(WEIGHT)))
    return buffer.getvalue()


def build(product: Product, tag: str, variant: str = "ok", repository: str = "") -> str:
    """Put an image into a repository of this test's own: others in the lab must not lose theirs.

    It is built once, on a server that no test here deploys to.
    """
    reference, local = f"{REGISTRY}/{repository or product.name}:{tag}", f"cleanup-test-{variant}:{tag}"
    if local not in BUILT:
        command = ["env", "DOCKER_BUILDKIT=0", "docker", "build", "--quiet", "--tag", local]
        arguments = ["--build-arg", f"VERSION={tag}", "--build-arg", f"VARIANT={variant}", "-"]
        product.lab.exec(BUILDER, [*command, *arguments], stdin=context(variant))
        BUILT.add(local)
    product.lab.exec(
        BUILDER,
        f"docker tag {local} {reference} && docker push --quiet {reference} && docker rmi {reference}",
    )
    return reference


@pytest.fixture
def shop(product: Product, prod: dict[str, Any]) -> Iterator[Product]:
    """A product on app1 with a repository of its own."""
    prod["app"] = ["app1"]
    product.settings["image"] = f"{REGISTRY}/{product.name}"
    for tag in ("v1", "v2", "v3", "v4"):
        build(product, tag)
    yield product
    product.remove()
    for server in ("app1", "app2"):
        product.lab.exec(
            server,
            f"docker ps -aq --filter label=axon-test={product.name} | xargs -r docker rm -f;"
            f" docker network ls -q --filter label=axon-test={product.name} | xargs -r docker network rm;"
            f" docker image ls --format '{{{{.Repository}}}}@{{{{.Digest}}}}' --digests | grep {product.name} | xargs -r docker rmi;"
            f" docker image ls --format '{{{{.Repository}}}}:{{{{.Tag}}}}' | grep {product.name} | xargs -r docker rmi;"
            f" rm -rf /var/lib/axon/my-{product.name} /var/lib/axon/{product.name}2",
            check=False,
        )
    product.lab.exec("edge1", f"rm -rf /var/lib/axon/my-{product.name} /var/lib/axon/{product.name}2")


def clean(product: Product, *more: str) -> dict[str, Any]:
    said = product.fab("cleanup", "--json", *more)
    assert 0 == said.returncode, said.stdout + said.stderr
    return conforming("cleanup", said.stdout)  # type: ignore[no-any-return]


def kinds(outcome: dict[str, Any]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for item in outcome["items"]:
        found.setdefault(item["kind"], []).append(item["name"])
    return {kind: sorted(names) for kind, names in found.items() if kind != "run"}


def images(product: Product, server: str = "app1", repository: str = "") -> list[str]:
    said = product.lab.exec(
        server, ["docker", "image", "ls", f"{REGISTRY}/{repository or product.name}", "--format", "{{.Tag}}"]
    )
    return sorted(said.stdout.split())


def everything(product: Product) -> str:
    """What is on the servers and has our name, or one that contains it."""
    app = (
        "docker ps -a --no-trunc --format '{{.ID}} {{.Names}} {{.State}}' | sort;"
        " docker image ls --no-trunc --digests --format '{{.Repository}} {{.Tag}} {{.Digest}}' | sort;"
        " docker network ls --format '{{.Name}}' | sort;"
    )
    files = "find /var/lib/axon /tmp -maxdepth 6 | sort; find /etc/nginx/axon.d 2>/dev/null | sort"
    text = product.lab.exec("app1", app + files).stdout + product.lab.exec("edge1", files).stdout
    return "\n".join(line for line in text.splitlines() if product.name in line and "lock" not in line)


def create(shop: Product, name: str, /, **labels: str) -> str:
    """A container in state `created`, as a start that failed at the port leaves it."""
    words = [f"--label=axon.{key}={value}" for key, value in labels.items()]
    command = [
        "docker",
        "create",
        "--name",
        name,
        f"--label=axon-test={shop.name}",
        *words,
        f"{REGISTRY}/shop:v1",
    ]
    shop.lab.exec("app1", ["docker", "pull", "--quiet", f"{REGISTRY}/shop:v1"])
    shop.lab.exec("app1", command)
    return name


def create_network(shop: Product, name: str, product: str, environment: str) -> str:
    """A network that a team has made for its containers, and labelled as we label ours."""
    labels = {"axon.product": product, "axon.environment": environment, "axon-test": shop.name}
    words = [f"--label={key}={value}" for key, value in labels.items()]
    shop.lab.exec("app1", ["docker", "network", "create", *words, name])
    return name


def test_ten_cleanups_remove_once_what_is_not_needed(shop: Product) -> None:
    """A dry run changes nothing; the first cleanup removes exactly that, nine more nothing; neighbours keep all of theirs."""
    name, state = shop.name, f"/var/lib/axon/{shop.name}/prod"
    for tag in ("v1", "v2", "v3", "v4"):
        shop.serve(tag)
        shop.settle(servers=("app1",))
    for repository in (f"my-{name}", f"{name}2"):
        reference = build(shop, "v1", repository=repository)
        shop.lab.exec("app1", ["docker", "pull", "--quiet", reference])
    ours = create(shop, f"{name}-prod-5", product=name, environment="prod", release="5", slot="a")
    for number, (product, environment) in enumerate(
        [(f"my-{name}", "prod"), (f"{name}2", "prod"), (name, "prod2"), (name, "production")]
    ):
        create(
            shop, f"{product}-{environment}-6{number}", product=product, environment=environment, release="6"
        )
        create_network(shop, f"{product}-{environment}-net", product, environment)
    create(shop, f"my-{name}-prod-1764000000")
    orphan = create_network(shop, f"{name}-orphan", name, "prod")
    for neighbour in (f"my-{name}/prod", f"{name}2/prod", f"{name}/prod2"):
        folder = f"/var/lib/axon/{neighbour}"
        planted = f"mkdir -p {folder}/jobs/old {folder}/releases; touch {folder}/.current.1 {folder}/jobs/old/rc {folder}/releases/1.json;"
        planted += f" {OLD} {folder}/.current.1; touch -d '30 days ago' {folder}/jobs/old/rc"
        for server in ("app1", "edge1"):
            shop.lab.exec(server, planted)
    shop.lab.exec(
        "app1", f"touch -d '30 days ago' $(ls -d {state}/jobs/*/rc | head -n 1); {OLD} {state}/.ports.77"
    )
    records = "".join(f" {state}/releases/{number}.json" for number in range(100, 125))
    stage = f"/tmp/axon-stage.{name[:8]}"
    shop.lab.exec(
        "edge1",
        f"touch{records}; {OLD} {state}/.current.12 /etc/nginx/axon.d/sites/.{name}-prod.conf.9;"
        f" mkdir -p {state}/nginx-before.new {stage}; {OLD} {state}/nginx-before.new {stage}",
    )
    before = everything(shop)
    planned = clean(shop, "--dry-run", "--keep=2")
    assert before == everything(shop)
    assert {
        "container": [ours],
        "image": [f"{REGISTRY}/{name}:v1", f"{REGISTRY}/{name}:v2"],
        "network": [orphan],
        "record": sorted(map(str, range(100, 109))),
        "staging": sorted(
            [".current.12", ".ports.77", f".{name}-prod.conf.9", stage.rpartition("/")[2], "nginx-before.new"]
        ),
    } == {kind: names for kind, names in kinds(planned).items() if kind != "job"}
    assert 1 == len(kinds(planned)["job"])
    first = clean(shop, "--keep=2")
    assert (kinds(planned), [], []) == (kinds(first), first["failed"], first["left"])
    assert first["freed_bytes"]["app1"] > 0
    after = everything(shop)
    gone = {line for line in before.splitlines() if line not in after.splitlines()}
    assert [] == [
        line
        for line in gone
        if f"my-{name}" in line or f"{name}2" in line or "/prod2" in line or "prod2" in line
    ]
    for _ in range(9):
        said = shop.fab("cleanup", "--keep=2")
        assert (0, "Nothing to clean up.\n") == (said.returncode, said.stdout), said.stderr
    assert ((200, "v4"), ["v3", "v4"], after) == (shop.get(), images(shop), everything(shop))
    assert ["v1"] == images(shop, repository=f"my-{name}")


def test_the_current_and_previous_images_stay(shop: Product) -> None:
    """Also if none is to be kept beside them, and although other images are newer."""
    for tag in ("v3", "v2", "v1"):
        shop.serve(tag)
        shop.settle(servers=("app1",))
    for tag in ("v3", "v4"):
        shop.lab.exec("app1", ["docker", "pull", "--quiet", f"{REGISTRY}/{shop.name}:{tag}"])
    found = clean(shop, "--keep=0")
    assert ([f"{REGISTRY}/{shop.name}:v3", f"{REGISTRY}/{shop.name}:v4"], ["v1", "v2"]) == (
        kinds(found)["image"],
        images(shop),
    )
    assert (200, "v1") == shop.get()


def test_a_killed_deploy_leaves_an_orphan_that_goes(shop: Product) -> None:
    """What a deploy had started when it was killed in its health check is removed as soon as its lock is free."""
    shop.settings["defaults"]["health"]["timeout"] = "5s"
    build(shop, "sick", "sick")
    shop.serve("v1")
    deployer = shop.begin("deploy", "--env=prod", "--tag=sick")
    deadline = time.monotonic() + 30
    while len(shop.containers("app1")) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    deployer.kill()
    deployer.communicate(timeout=30)
    (orphan,) = {
        name
        for name in shop.containers("app1")
        if "sick"
        in shop.lab.exec(
            "app1", ["docker", "inspect", "--format", '{{index .Config.Labels "axon.image"}}', name]
        ).stdout
    }
    while not (removed := kinds(clean(shop)).get("container")):
        assert time.monotonic() < deadline + 30
        time.sleep(0.5)
    assert ([orphan], 1, (200, "v1")) == (removed, len(shop.containers("app1")), shop.get())


def test_an_environment_that_is_deployed_is_skipped(shop: Product) -> None:
    """Its line says who works there; the other environment is cleaned, but no image that both may need; exit code 0."""
    staging = {"system": ["edge1"], "app": ["app1"], "domain": f"staging.{shop.domain}"}
    shop.settings["environments"]["staging"] = staging
    build(shop, "sick", "sick")
    for tag in ("v1", "v2", "v3"):
        shop.serve(tag)
        shop.settle(servers=("app1",))
    orphans = [
        # In no slot: the deploy would remove what stands in the one that it needs.
        create(shop, f"{shop.name}-{env}-5", product=shop.name, environment=env, release="5")
        for env in ("staging", "prod")
    ]
    # As long as this takes, however busy the machine is; it is ended below.
    shop.settings["defaults"]["health"] = {"path": "/api/health", "timeout": "120s"}
    deployer = shop.begin("deploy", "--env=prod", "--tag=sick")
    deadline = time.monotonic() + 30
    while shop.lab.exec(
        "edge1", ["test", "-e", f"/var/lib/axon/{shop.name}/prod/lock.owner"], check=False
    ).returncode:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    for more in (["--dry-run"], []):
        found = clean(shop, "--keep=1", *more)
        skipped = {one["name"]: one["skipped"] or "" for one in found["environments"]}
        assert ("", True, True) == (
            skipped["staging"],
            "--tag=sick" in skipped["prod"],
            skipped["prod"].endswith(" runs"),
        )
        assert {"container": orphans[:1]} == kinds(found)
        assert ["staging"] == [one["environment"] for one in found["left"]]
        assert "images of" in found["left"][0]["name"]
    said = shop.fab("cleanup", "--env=prod")
    assert (0, True) == (said.returncode, said.stdout.startswith("prod: skipped, fab deploy "))
    deployer.send_signal(signal.SIGINT)
    deployer.communicate(timeout=60)
    assert {"container", "image"} == set(kinds(clean(shop, "--keep=1")))
    assert (200, "v3") == shop.get()


def test_a_deploy_during_a_cleanup_is_told_who_works(shop: Product) -> None:
    """The lock is held until the last thing is removed: a deploy meanwhile exits with 3 and names the cleanup."""
    shop.serve("v1")
    stubborn = "trap '' TERM; while :; do sleep 1; done"  # its removal takes the whole stop_timeout
    labels = {"product": shop.name, "environment": "prod", "release": "5", "slot": "b"}
    words = [f"--label=axon.{key}={value}" for key, value in labels.items()]
    image = f"{REGISTRY}/{shop.name}:v1"
    command = [
        "docker",
        "run",
        "-d",
        "--name",
        f"{shop.name}-prod-5",
        *words,
        "--entrypoint",
        "/bin/sh",
        image,
    ]
    shop.lab.exec("app1", [*command, "-c", stubborn])
    cleaning = shop.begin("cleanup")
    deadline = time.monotonic() + 30
    while (
        "cleanup"
        not in shop.lab.exec("edge1", f"cat /var/lib/axon/{shop.name}/prod/lock.owner", check=False).stdout
    ):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    meanwhile = shop.deploy("v2")
    said, errors = cleaning.communicate(timeout=60)
    assert (3, True) == (meanwhile.returncode, "fab cleanup" in meanwhile.stderr), meanwhile.stderr
    assert (0, True) == (cleaning.returncode, f"{shop.name}-prod-5" in said), errors
    shop.serve("v2")


def test_cleaning_up_during_deploys_under_load(shop: Product) -> None:
    """Deploys and cleanups side by side under load: no request fails, no cleanup fails, and nothing needed is missing."""
    shop.serve("v1")
    done = threading.Event()
    cleanups: list[dict[str, Any]] = []

    def keep_cleaning() -> None:
        while not done.is_set():
            cleanups.append(clean(shop, "--keep=0"))

    cleaning = threading.Thread(target=keep_cleaning)
    codes = []
    # No keep-alive: a reload by another test's first deploy costs such clients a request, and that is nginx's own.
    with shop.under_load(keep_alive=0, pause=0) as result:
        cleaning.start()
        try:
            for tag in ("v2", "v3", "v4", "v1"):
                for _ in range(6):
                    codes.append(shop.deploy(tag).returncode)
                    if codes[-1] == 0:
                        break
        finally:
            done.set()
            cleaning.join(60)
    assert ({0, 3}, 4) == ({0, 3} | set(codes), codes.count(0))
    assert ([], (200, "v1")) == (result["examples"], shop.get()), result
    assert {"v1", "v4"} <= set(images(shop))
    assert len(cleanups) > 1
    assert [] == [one for outcome in cleanups for one in outcome["failed"] + outcome["errors"]]


def test_one_server_and_one_thing_that_fail_stop_nothing_else(shop: Product, prod: dict[str, Any]) -> None:
    """A thing that cannot be removed is told at the end with exit code 1, a dead server with 4; the rest is done."""
    prod["app"] = ["app1", "app2"]
    shop.serve("v1")
    state = f"/var/lib/axon/{shop.name}/prod"
    busy = f"{state}/nginx-before.new"
    plant = f"{OLD} {state}/.current.12; mkdir -p {busy}; mount -t tmpfs tmpfs {busy}; {OLD} {busy}"
    shop.lab.exec("edge1", plant)
    shop.lab.exec("app1", f"{OLD} {state}/.ports.12")
    try:
        said = shop.fab("cleanup")
    finally:
        shop.lab.exec("edge1", f"umount {busy}; rm -rf {busy}")
    assert (1, True, True) == (
        said.returncode,
        busy in said.stderr,
        "temporary files         1  .current.12" in said.stdout,
    ), said
    assert "Traceback" not in said.stderr
    assert "" == shop.lab.exec("app1", f"ls -A {state} | grep 12", check=False).stdout
    shop.lab.exec("app1", f"{OLD} {state}/.ports.13")
    shop.settings["hosts"]["app2"]["port"] = 1
    dead = shop.fab("cleanup")
    assert (4, True, True) == (dead.returncode, "app2" in dead.stderr, ".ports.13" in dead.stdout), dead


def test_without_a_known_release_everything_stays(shop: Product) -> None:
    """If the record of what serves is lost, no container and no image goes, and the reason is told."""
    for tag in ("v1", "v2"):
        shop.serve(tag)
        shop.settle(servers=("app1",))
    create(shop, f"{shop.name}-prod-5", product=shop.name, environment="prod", release="5", slot="a")
    shop.lab.exec("edge1", ["rm", f"/var/lib/axon/{shop.name}/prod/current"])
    before = everything(shop)
    found = clean(shop, "--keep=0")
    assert ({}, before) == (kinds(found), everything(shop))
    assert {"there is no record of what serves"} == {one["why"].rpartition(": ")[2] for one in found["left"]}


def test_more_environments_than_one_connection_has_channels(product: Product) -> None:
    """All locks are held at once, however many environments share a system server (sshd: MaxSessions 10)."""
    environments = product.settings["environments"]
    for number in range(12):
        environments[f"e{number}"] = {
            "system": ["edge1"],
            "app": ["app1"],
            "domain": f"e{number}.{product.domain}",
        }
    found = clean(product)
    assert ([None] * 13, []) == ([one["skipped"] for one in found["environments"]], found["errors"])


def test_a_user_that_is_not_root_cleans_up(shop: Product) -> None:
    """With the rights that a deploy needs, and no others."""
    for tag in ("v1", "v2", "v3"):
        shop.serve(tag)
        shop.settle(servers=("app1",))
    state = f"/var/lib/axon/{shop.name}/prod"
    shop.lab.exec("edge1", f"{OLD} {state}/.current.12")
    for host in shop.settings["hosts"].values():
        host["user"] = "deploy"
    sudoers = "/etc/sudoers.d/axon-test-cleanup"
    shop.lab.exec(
        "edge1",
        f"umask 337; cat > {sudoers}",
        stdin="deploy ALL=(root) NOPASSWD: /usr/bin/sh -s, /bin/sh -s\n",
    )
    shop.lab.exec("app1", "usermod -aG docker deploy; chown -R deploy /var/lib/axon")
    try:
        found = clean(shop, "--keep=1", "--days=0")
    finally:
        shop.lab.exec("edge1", ["rm", "-f", sudoers])
    removed = kinds(found)
    assert ([f"{REGISTRY}/{shop.name}:v1"], [".current.12"], 2) == (
        removed["image"],
        removed["staging"],
        len(removed["job"]),
    )


def test_wrong_flags(product: Product) -> None:
    """A number that is none, and an environment that is not there, end with exit code 2 before anything is contacted."""
    for flag, words in {
        "--keep=many": "--keep=many",
        "--days=-1": "--days=-1",
        "--env=prd": "Did you mean prod",
    }.items():
        said = product.fab("cleanup", flag)
        assert (2, True) == (said.returncode, words in said.stderr), said.stderr
