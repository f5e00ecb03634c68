"""Sending an image from this machine to the app servers over SSH, without a registry: only the layers that they lack."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, NamedTuple

from axon_tasks.commands import build as commands
from axon_tasks.commands import docker
from axon_tasks.deploy import facts as parse
from axon_tasks.deploy import local, problems
from axon_tasks.deploy.archive import ImageFile, compressed, shared
from axon_tasks.deploy.engine import Interruptible
from axon_tasks.deploy.preview import Silent
from axon_tasks.deploy.problems import must
from axon_tasks.deploy.run import SHORT
from axon_tasks.deploy.servers import Servers
from axon_tasks.errors import AxonError
from axon_tasks.remote import Batch, BatchResult
from axon_tasks.remote.feeding import feed

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from axon_tasks.config import Environment
    from axon_tasks.deploy.connections import Connections
    from axon_tasks.remote.feeding import Fed

#: Seconds for loading an image once all of it is there.
_LOAD = 3600.0


class There(NamedTuple):
    """What an app server has.

    Attributes:
        images: Its images.
        now: The id of the image that has the name now; empty if none has.
    """

    images: parse.Images
    now: str


class Sent(NamedTuple):
    """What was sent to one server.

    Attributes:
        id: The image's id there.
        layers: How many layers were sent.
        of: How many the image has.
        bytes: How many bytes were sent; they are compressed.
        seconds: How long that took.
        again: Whether all of it had to be sent after its missing layers alone had not been enough.
    """

    id: str
    layers: int = 0
    of: int = 0
    bytes: int = 0
    seconds: float = 0.0
    again: bool = False


def look_batch(reference: str) -> Batch:
    """Ask a server for the layers that it has, and for what has the image's name now."""
    batch = Batch("layers").add(docker.images(), label="layers")
    # Nothing may have it; why Docker does not answer is told by the section before.
    return batch.add(f"{docker.digests(reference)} 2>/dev/null || true", label="now")


def read_look(server: str, result: BatchResult) -> There:
    """Read the answer.

    Raises:
        AxonError: It could not say, or what it said makes no sense.
    """
    must(server, "looking for layers", result["layers"])
    now = result["now"].stdout.strip()
    return There(
        parse.parse_layers(server, result["layers"].stdout), parse.parse_image_id(server, now) if now else ""
    )


def present(there: There, diff_ids: tuple[str, ...]) -> int:
    """How many of the lowest layers of an image need not be sent to a server."""
    return shared(diff_ids, tuple(there.images.layers.values())) if there.images.takes_parts else 0


def _stopped() -> AxonError:
    return AxonError("Interrupted: what had been sent is not used by anything.", code=130)


class Sender:
    """Sends one image to the app servers of one environment.

    Args:
        connections: To the servers.
        environment: Whose app servers.
        reference: The image, with its tag.
        told: Is called with a server, the bytes of the archive read so far and all of them, from several threads.
    """

    def __init__(
        self,
        connections: Connections,
        environment: Environment,
        reference: str,
        told: Callable[[str, int, int], None],
    ) -> None:
        self._connections = connections
        self._environment = environment
        self._reference = reference
        self._told = told
        self._recorder = connections.recorder
        self._sent: dict[str, Sent] = {}
        self._file: ImageFile | None = None
        self._lost: Mapping[str, AxonError] = {}
        self._interrupted = False
        self._guard = threading.Lock()

    def send(self) -> tuple[Mapping[str, Sent], Mapping[str, AxonError]]:
        """Send it; the main thread stays free for Ctrl-C.

        Returns:
            What was sent, by server, and why the others were not: they cannot be reached, or do not take it.

        Raises:
            UsageError: There is no Docker on this machine.
            AxonError: It was interrupted, or there is no such image, or the servers do not agree on its id.
        """
        span = self._recorder.begin(
            "step", "send", parent=self._connections.span, environment=self._environment.name
        )
        try:
            Interruptible(self._stop, self._connections.close).run(lambda: self._work(span))
        except BaseException as error:
            self._recorder.end(span, outcome="failed")
            if self._interrupted and isinstance(error, AxonError):
                raise _stopped() from None
            raise
        finally:
            if self._file is not None:
                self._file.close()
        self._recorder.end(span, outcome="failed" if self._lost else "ok")
        if self._interrupted:
            raise _stopped()
        self._must_agree()
        return {
            server: self._sent[server] for server in self._environment.app if server in self._sent
        }, self._lost

    def _stop(self) -> None:
        self._interrupted = True
        self._connections.close()

    def _work(self, span: int) -> None:
        servers = Servers(self._connections, Silent(), environment=self._environment.name, span=span)
        looks: dict[str, There] = {}
        ours = self._our_id()

        def work(server: str) -> BatchResult:
            result = servers.run(server, look_batch(self._reference), timeout=SHORT)
            looks[server] = read_look(server, result)
            if looks[server].now == ours:
                self._sent[server] = Sent(ours)
            else:
                self._deliver(server, looks[server], span)
            return result

        _, self._lost = servers.attempt(self._environment.app, work)

    def _must_agree(self) -> None:
        ids = {server: one.id for server, one in self._sent.items()}
        if len(set(ids.values())) > 1:
            told = ", ".join(f"{server} {identity[7:19]}" for server, identity in ids.items())
            raise AxonError(
                f"The app servers keep {self._reference} under different ids, so that it cannot be told that it is the same: {told}",
                hint="Docker keeps images in two ways, its own and containerd's: have all app servers use the same.",
            )

    def _our_id(self) -> str:
        """The id of the image on this machine.

        Raises:
            UsageError: There is no Docker here.
            AxonError: There is no such image.
        """
        told = local.asked(commands.image_id(self._reference))
        if told.returncode:
            said = told.stderr.strip()
            if "no such image" in said.lower():
                raise AxonError(
                    f"There is no image {self._reference} on this machine.",
                    hint=f"Build it: fab build --env={self._environment.name}",
                )
            raise problems.explain(
                "this machine", f"looking at {self._reference}", said, code=told.returncode
            )
        return parse.parse_image_id("this machine", told.stdout)

    def _image(self) -> ImageFile:
        """The image in a file, which is written when the first server turns out to lack something."""
        with self._guard:
            if self._file is None:
                self._file = ImageFile(self._reference)
            return self._file

    def _deliver(self, server: str, there: There, span: int) -> None:
        image, began = self._image(), time.monotonic()
        if there.now == image.id:
            self._sent[server] = Sent(image.id)
            return
        lowest = present(there, image.diff_ids)
        fed = self._feed(server, image, lowest, span)
        sent, again = fed.sent, False
        if fed.exit_code and lowest and "no space left" not in fed.stderr.lower():
            # It may have removed meanwhile what it had, or keep its images in a way that is not known here.
            lowest, again = 0, True
            fed = self._feed(server, image, lowest, span)
            sent += fed.sent
        if fed.exit_code:
            raise problems.explain(server, f"loading {self._reference}", fed.stderr, code=fed.exit_code)
        identity = parse.parse_image_id(server, fed.stdout)
        took = time.monotonic() - began
        self._sent[server] = Sent(identity, image.part(lowest).layers, len(image.diff_ids), sent, took, again)

    def _feed(self, server: str, image: ImageFile, lowest: int, span: int) -> Fed:
        size = image.part(lowest).size
        batch = self._recorder.begin(
            "batch", "load", parent=span, environment=self._environment.name, server=server
        )
        try:
            fed = feed(
                self._connections[server],
                docker.load(self._reference),
                compressed(image.stream(lowest), lambda read: self._told(server, read, size)),
                timeout=_LOAD,
            )
        except BaseException:
            self._recorder.end(batch, outcome="failed")
            raise
        outcome = "failed" if fed.exit_code else "ok"
        self._recorder.end(batch, outcome=outcome, round_trips=1, sent=fed.sent, received=len(fed.stdout))
        return fed
