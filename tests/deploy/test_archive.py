"""Archives of images: whatever `docker save` has written, what is sent is whole, and holds only what is missing."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from axon_tasks.deploy import archive
from axon_tasks.deploy.archive import ImageFile, compressed, shared
from axon_tasks.errors import AxonError

if TYPE_CHECKING:
    from pathlib import Path

    from programs import Programs

REFERENCE = "registry.test:5000/shop:v1"
#: The last one is the same as the first: an image may have a layer twice.
LAYERS = [b"lowest" * 1000, b"middle", b"x" * 512, b"lowest" * 1000]


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


CONFIG = json.dumps(
    {"rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest(one)}" for one in LAYERS]}}
).encode()


def saved(path: Path, form: str, *, config: bytes = CONFIG, manifest: Any = None) -> Path:
    """An archive as Docker wrote it until version 24, or as it has written it since 25."""
    files: dict[str, bytes] = {}
    links: dict[str, str] = {}
    if form == "old":
        names = [f"{number:064x}/layer.tar" for number in range(len(LAYERS))]
        files |= dict(zip(names[:-1], LAYERS, strict=False))
        links[names[-1]] = f"../{names[0]}"
        where = f"{digest(config)}.json"
    else:
        names = [f"blobs/sha256/{digest(one)}" for one in LAYERS]
        files |= dict(zip(names, LAYERS, strict=True))
        where = f"blobs/sha256/{digest(config)}"
    files[where] = config
    listed = [{"Config": where, "RepoTags": [REFERENCE], "Layers": names}]
    files["manifest.json"] = json.dumps(listed if manifest is None else manifest).encode()
    with tarfile.open(path, "w") as made:
        for name in sorted([*files, *links]):
            entry = tarfile.TarInfo(name)
            if name in links:
                entry.type, entry.linkname = tarfile.SYMTYPE, links[name]
                made.addfile(entry)
            else:
                entry.size = len(files[name])
                made.addfile(entry, io.BytesIO(files[name]))
    return path


def unpacked(stream: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(stream)) as made:
        return {one.name: made.extractfile(one).read() for one in made}  # type: ignore[union-attr]


@pytest.fixture
def image(programs: Programs, tmp_path: Path, request: pytest.FixtureRequest) -> ImageFile:
    path = saved(tmp_path / "saved.tar", request.param)
    programs.add("docker", (["save", REFERENCE], f"@{path}", "", 0))
    return ImageFile(REFERENCE)


@pytest.mark.parametrize("image", ["old", "new"], indirect=True)
@pytest.mark.parametrize("present", range(5))
def test_only_what_is_missing_is_sent(image: ImageFile, present: int) -> None:
    """The configuration, each missing layer once, and the manifest, which names all of them, at the very end."""
    stream = b"".join(image.stream(present))
    files = unpacked(stream)
    missing = {f"{digest(one)}.tar": one for one in LAYERS[present:]}
    manifest = json.loads(files.pop("manifest.json"))
    assert {f"{digest(CONFIG)}.json": CONFIG, **missing} == files
    assert [
        {
            "Config": f"{digest(CONFIG)}.json",
            "RepoTags": [REFERENCE],
            "Layers": [f"{digest(one)}.tar" for one in LAYERS],
        }
    ] == manifest
    assert (len(missing), len(stream)) == image.part(present)
    assert stream.index(b"manifest.json") > max(stream.index(name.encode()) for name in files)


@pytest.mark.parametrize("image", ["old"], indirect=True)
def test_an_image_is_saved_once(image: ImageFile, programs: Programs) -> None:
    """However many servers are sent something; its id and layers are those of its configuration."""
    both = [image.stream(0), image.stream(0)]
    assert all(left == right for left, right in zip(*both, strict=True))
    assert [["docker", "save", REFERENCE]] == programs.words
    assert (f"sha256:{digest(CONFIG)}", [f"sha256:{digest(one)}" for one in LAYERS]) == (
        image.id, list(image.diff_ids),
    )  # fmt: skip


@pytest.mark.parametrize(
    "changes",
    [
        {"config": b"{}"},
        {"config": b"["},
        {"config": b'{"rootfs": {"diff_ids": ["sha256:0"]}}'},
        {"manifest": []},
        {"manifest": [{"Config": "manifest.json", "Layers": []}]},
        {"manifest": [{"Config": "../../etc/passwd", "Layers": None}]},
        {"manifest": "x"},
    ],
)
def test_nonsense_is_refused(programs: Programs, tmp_path: Path, changes: dict[str, Any]) -> None:
    """What is not an image is told, and never sent."""
    path = saved(tmp_path / "saved.tar", "new", **changes)
    programs.add("docker", (["save"], f"@{path}", "", 0))
    with pytest.raises(AxonError, match="not understood here"):
        ImageFile(REFERENCE)


@pytest.mark.parametrize("content", [b"", b"no archive", b"\0" * 10240])
def test_what_is_no_archive_is_refused(programs: Programs, tmp_path: Path, content: bytes) -> None:
    """The same of what is not even an archive."""
    path = tmp_path / "saved.tar"
    path.write_bytes(content)
    programs.add("docker", (["save"], f"@{path}", "", 0))
    with pytest.raises(AxonError, match="not understood here"):
        ImageFile(REFERENCE)


def test_docker_does_not_give_it(programs: Programs) -> None:
    """What Docker says is passed on."""
    programs.add("docker", (["save"], "", "Error response from daemon: reference does not exist\n", 1))
    with pytest.raises(AxonError, match=r"does not give the image .*: Error response from daemon: reference"):
        ImageFile(REFERENCE)


@given(pieces=st.lists(st.binary(max_size=2000)))
def test_a_stream_is_compressed(pieces: list[bytes]) -> None:
    """It comes out again as it went in, and what was read of it is told on the way."""
    told: list[int] = []
    packed = b"".join(compressed(pieces, told.append))
    assert b"".join(pieces) == gzip.decompress(packed)
    assert [len(b"".join(pieces[: number + 1])) for number in range(len(pieces))] == told


def test_a_stream_of_several_members(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever it was decided anew whether to compress, it is one stream again on the other side."""
    monkeypatch.setattr(archive, "_MEMBER", 1000)
    pieces = [bytes([number]) * 300 for number in range(100)]
    packed = b"".join(compressed(pieces, lambda _read: None))
    # The last one is empty.
    assert (b"".join(pieces), 25 + 1) == (gzip.decompress(packed), packed.count(b"\x1f\x8b\x08"))


@pytest.mark.parametrize(
    ("line", "levels"),
    [(0.5, [1, 1, 1, 1]), (0.0001, [0, 0, 0, 1]), (0.02, [1, 1, 1, 1]), (0.012, [0, 0, 0, 1])],
)
def test_what_a_fast_line_carries_is_not_compressed(
    monkeypatch: pytest.MonkeyPatch, line: float, levels: list[int]
) -> None:
    """Compressing 100 bytes takes 1 s here, and saves 60: that is worth it where a byte takes longer than 1/60 s.

    Every fourth member is compressed in any case: what comes next may be of another kind.
    """
    monkeypatch.setattr(archive, "_AGAIN", 4)
    now = [0.0]

    def pack(level: int) -> bytes:
        now[0] += level
        return b"x" * (40 if level else 100)

    pace, level, chosen = archive._Pace(lambda: now[0]), 1, []
    for _ in levels:
        for packed in pace.line(pace.work(lambda level=level: pack(level))):  # type: ignore[misc]
            now[0] += len(packed) * line
        level = pace.level(100)
        chosen.append(level)
    assert levels == chosen


_IDS = st.lists(st.sampled_from("abc"), max_size=5)


@given(ours=_IDS, theirs=st.lists(_IDS, max_size=4))
def test_layers_are_shared_from_below(ours: list[str], theirs: list[list[str]]) -> None:
    """A layer is there only with all of those below it, in the same order, in one and the same image."""
    count = shared(ours, theirs)
    assert count == 0 or any(one[:count] == ours[:count] for one in theirs)
    assert count == len(ours) or not any(one[: count + 1] == ours[: count + 1] for one in theirs)
