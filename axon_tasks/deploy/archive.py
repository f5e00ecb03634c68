"""An image as `docker save` writes it, and archives for `docker load` with only some of its layers.

Docker's own store loads an archive whose lower layers it has without reading them: it looks for each by its chain of
checksums, and for its file only if it is not there (moby, image/tarexport/load.go). So it is sent what it lacks. What
`docker save` has written differs from version to version; what is sent is the plain form that all of them load: the
image's configuration, its layers, and at the very end the manifest, so that nothing is loaded of an archive that was cut.
"""

from __future__ import annotations

import hashlib
import json
import os
import posixpath
import re
import subprocess
import tarfile
import tempfile
import time
import zlib
from typing import TYPE_CHECKING, Any, NamedTuple

from axon_tasks.commands import build as commands
from axon_tasks.errors import AxonError, UsageError
from axon_tasks.remote import sanitize

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

#: Bytes that are read at a time.
_PIECE = 256 * 1024
#: Bytes of a configuration or a manifest; more is none.
_LONGEST = 16 * 1024 * 1024
#: How often one file of an archive may stand for another one.
_LINKS = 10
#: Bytes after which it is decided anew whether to compress, and so many times until that is tried in any case.
_MEMBER = 4 * 1024 * 1024
_AGAIN = 16
#: What zlib makes gzip's header and trailer for (zlib, deflateInit2: 15 for the largest window, and 16).
_GZIP = 15 + 16
_DIFF_ID = re.compile(r"sha256:[0-9a-f]{64}", re.ASCII)


class Layer(NamedTuple):
    """One layer.

    Attributes:
        diff_id: The checksum of its content.
        offset: Where it begins in the file.
        size: Its bytes there.
    """

    diff_id: str
    offset: int
    size: int


class Part(NamedTuple):
    """An archive that is to be sent.

    Attributes:
        layers: How many layers it has.
        size: Its bytes.
    """

    layers: int
    size: int


class ImageFile:
    """An image of this machine's Docker in a temporary file, which only this user can read and which goes with the object.

    Each server may lack other layers, and reads at its own pace: so it is written once, and read where it is needed.

    Args:
        reference: The image, with its tag.

    Raises:
        UsageError: There is no Docker here.
        AxonError: Docker does not give it, or the disk is full.
    """

    def __init__(self, reference: str) -> None:
        self.reference = reference
        self._file = tempfile.TemporaryFile(prefix="axon-image.")  # noqa: SIM115  (closed with the object)
        try:
            self._save()
            self._read()
        except (tarfile.TarError, ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
            self._file.close()
            raise AxonError(
                f"`docker save {reference}` has written something that is not understood here: {error}"
            ) from None
        except BaseException:
            self._file.close()
            raise

    @property
    def id(self) -> str:
        """The id that the image has in Docker's own store: the checksum of its configuration."""
        return f"sha256:{hashlib.sha256(self._config).hexdigest()}"

    @property
    def diff_ids(self) -> tuple[str, ...]:
        """The checksums of its layers, the lowest one first."""
        return tuple(layer.diff_id for layer in self._layers)

    def part(self, present: int) -> Part:
        """How large the archive is.

        Args:
            present: How many of the lowest layers are left out.
        """
        missing = self._missing(present)
        sizes = [len(self._config), *(one.size for one in missing), len(self._manifest())]
        return Part(
            len(missing), sum(tarfile.BLOCKSIZE + _padded(size) for size in sizes) + 2 * tarfile.BLOCKSIZE
        )

    def stream(self, present: int) -> Iterator[bytes]:
        """The archive, piece by piece; several may be read at the same time.

        Args:
            present: How many of the lowest layers are left out.
        """
        yield from _entry(self._config_name, len(self._config), [self._config])
        for layer in self._missing(present):
            yield from _entry(_layer_name(layer), layer.size, self._content(layer))
        manifest = self._manifest()
        yield from _entry("manifest.json", len(manifest), [manifest])
        yield b"\0" * (2 * tarfile.BLOCKSIZE)

    def close(self) -> None:
        """Remove the file."""
        self._file.close()

    def _missing(self, present: int) -> Sequence[Layer]:
        """The layers above those that are there, each once: an image may have the same twice."""
        return list({layer.diff_id: layer for layer in self._layers[present:]}.values())

    @property
    def _config_name(self) -> str:
        return f"{self.id.removeprefix('sha256:')}.json"

    def _manifest(self) -> bytes:
        names = [_layer_name(layer) for layer in self._layers]
        entry = {"Config": self._config_name, "RepoTags": [self.reference], "Layers": names}
        return json.dumps([entry]).encode()

    def _content(self, layer: Layer) -> Iterator[bytes]:
        begin, end = layer.offset, layer.offset + layer.size
        while begin < end:
            piece = os.pread(self._file.fileno(), min(_PIECE, end - begin), begin)
            if not piece:
                raise AxonError("The temporary file of an image was cut by somebody.")
            yield piece
            begin += len(piece)

    def _save(self) -> None:
        words = commands.save(self.reference)
        try:
            told = subprocess.run(
                words, stdout=self._file, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, check=False
            )
        except FileNotFoundError:
            raise UsageError("docker is not installed on this machine.") from None
        if told.returncode:
            said = " ".join(sanitize(told.stderr.decode("utf-8", errors="replace")).split())[-500:]
            raise AxonError(
                f"Docker does not give the image {self.reference}: {said}",
                hint=f"It is written to {tempfile.gettempdir()} first, which needs room for it; TMPDIR names another place.",
            )

    def _read(self) -> None:
        """Find the configuration and the layers in what was written."""
        self._file.seek(0)
        with tarfile.open(fileobj=self._file, mode="r:") as saved:
            [entry] = json.loads(_text(saved, "manifest.json"))
            self._config = _text(saved, str(entry["Config"]))
            diff_ids = json.loads(self._config)["rootfs"].get("diff_ids") or []
            members = [_found(saved, str(name)) for name in entry["Layers"] or []]
        if len(diff_ids) != len(members) or not all(_DIFF_ID.fullmatch(str(one)) for one in diff_ids):
            raise ValueError("its layers are not those of its configuration")
        self._layers = [
            Layer(diff_id, member.offset_data, member.size)
            for diff_id, member in zip(diff_ids, members, strict=True)
        ]


def _found(saved: tarfile.TarFile, name: str) -> tarfile.TarInfo:
    """An ordinary file of the archive, also where another name only points to it."""
    for _ in range(_LINKS):
        member = saved.getmember(name)
        if member.isreg():
            return member
        if not member.issym():
            break
        name = posixpath.normpath(posixpath.join(posixpath.dirname(name), member.linkname))
    raise ValueError(f"{name!a} is no file")


def _text(saved: tarfile.TarFile, name: str) -> bytes:
    member = _found(saved, name)
    reader: Any = saved.extractfile(member)
    if member.size > _LONGEST:
        raise ValueError(f"{name!a} is too large")
    content: bytes = reader.read()
    return content


def _layer_name(layer: Layer) -> str:
    return f"{layer.diff_id.removeprefix('sha256:')}.tar"


def _entry(name: str, size: int, content: Iterator[bytes] | list[bytes]) -> Iterator[bytes]:
    header = tarfile.TarInfo(name)
    header.size, header.mode = size, 0o644
    yield header.tobuf(tarfile.GNU_FORMAT)
    yield from content
    yield b"\0" * (_padded(size) - size)


def _padded(size: int) -> int:
    return -(-size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE


def compressed(pieces: Iterable[bytes], told: Callable[[int], None]) -> Iterator[bytes]:
    """The same stream in fewer bytes where the line is slower than compressing is; `docker load` reads both.

    It is cut into members, as gzip allows (RFC 1952, section 2.2), and after each it is decided anew whether the next one is
    worth compressing: from how long the line took for a byte, and from what compressing took and saved the last time.

    Args:
        pieces: The stream.
        told: Is called with the bytes of the stream that were read so far.
    """
    pace, read = _Pace(time.monotonic), 0
    member, inside = _member(1), 0
    for piece in pieces:
        yield from pace.line(pace.work(member.compress, piece))
        read, inside = read + len(piece), inside + len(piece)
        told(read)
        if inside >= _MEMBER:
            yield from pace.line(pace.work(member.flush))
            member, inside = _member(pace.level(inside)), 0
    yield member.flush()


def _member(level: int) -> zlib._Compress:
    return zlib.compressobj(level, zlib.DEFLATED, _GZIP)


class _Pace:
    """Whether it is quicker to compress: what the line takes, and what compressing takes and saves.

    Args:
        clock: Seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._level, self._members = 1, 0
        self._busy = self._waited = 0.0
        self._sent = 0
        self._cost, self._ratio = 0.0, 1.0

    def work(self, pack: Callable[..., bytes], *data: bytes) -> bytes:
        """Compress, and take note of the time."""
        began = self._clock()
        packed = pack(*data)
        self._busy += self._clock() - began
        return packed

    def line(self, packed: bytes) -> Iterator[bytes]:
        """Hand it to whoever sends it, and take note of the time."""
        if packed:
            began = self._clock()
            yield packed
            self._waited += self._clock() - began
            self._sent += len(packed)

    def level(self, read: int) -> int:
        """The level of the next member: 1, which is the fastest that saves anything, or 0 for none.

        Args:
            read: The bytes of the member that has ended, before compressing.
        """
        if self._level:
            self._cost, self._ratio = self._busy / read, self._sent / read
        line = self._waited / max(1, self._sent)
        self._members += 1
        # What comes next may be of another kind.
        looks_again = self._members % _AGAIN == 0
        self._level = 1 if looks_again or self._cost + line * self._ratio < line else 0
        self._busy = self._waited = 0.0
        self._sent = 0
        return self._level


def shared(ours: Sequence[str], theirs: Sequence[Sequence[str]]) -> int:
    """How many of the lowest layers of an image one of several others has, too.

    Args:
        ours: The layers of the image.
        theirs: Those of the others.
    """
    return max((_same(ours, one) for one in theirs), default=0)


def _same(one: Sequence[str], other: Sequence[str]) -> int:
    for number, (left, right) in enumerate(zip(one, other, strict=False)):
        if left != right:
            return number
    return min(len(one), len(other))
