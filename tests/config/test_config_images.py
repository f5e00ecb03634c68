from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from axon_tasks.config import ImageReference, ValueFault

SHA = "sha256:" + "0123456789abcdef" * 4


@pytest.mark.parametrize(
    ("text", "registry", "repository", "tag", "digest"),
    [
        ("nginx", None, "nginx", None, None),
        ("nginx:1.27", None, "nginx", "1.27", None),
        ("team/shop", None, "team/shop", None, None),
        ("10.77.0.5:5000/shop", "10.77.0.5:5000", "shop", None, None),
        ("10.77.0.5:5000/shop:v1", "10.77.0.5:5000", "shop", "v1", None),
        ("localhost/shop", "localhost", "shop", None, None),
        ("localhost:5000/a/b:x", "localhost:5000", "a/b", "x", None),
        ("[::1]:5000/shop", "[::1]:5000", "shop", None, None),
        ("ghcr.io/team/shop@" + SHA, "ghcr.io", "team/shop", None, SHA),
        ("ghcr.io/team/shop:v1@" + SHA, "ghcr.io", "team/shop", "v1", SHA),
        ("EXAMPLE/shop", "EXAMPLE", "shop", None, None),
        ("a__b/c-d.e--f", None, "a__b/c-d.e--f", None, None),
    ],
)
def test_parses(
    text: str, registry: str | None, repository: str, tag: str | None, digest: str | None
) -> None:
    """References are taken apart by the distribution grammar, with ports and digests, and put together again."""
    image = ImageReference.parse(text)

    assert (registry, repository, tag, digest) == (image.registry, image.repository, image.tag, image.digest)
    assert text == str(image)


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            ":",
            "@",
            "/",
            "/shop",
            "shop/",
            "a//b",
            "Shop",
            "shop:",
            "shop@",
            "-shop",
            "shop-",
            "a..b",
            "a___b",
        ),
        *(
            "shop:-v",
            "shop:.v",
            "shop:v 1",
            "shop:v1\n",
            "shop\n",
            "shop;id",
            "$(id)",
            "shop:" + "a" * 129,
            "é",
        ),
        *(
            "host:port/shop",
            "host:123456/shop",
            "-h.io/shop",
            "h_.io/shop",
            "shop:v1:v2",
            "a" * 256,
            "a" * 64,
        ),
        *(
            "shop@sha256:abc",
            "shop@" + SHA.upper(),
            "shop@" + SHA + "0",
            "shop@" + SHA + "\n",
            "https://a.io/shop",
        ),
        "\uff11/shop",
    ],
)
def test_refuses(text: str) -> None:
    """What is no image reference is refused, be it a typing error or an attempt at the shell."""
    with pytest.raises(ValueFault):
        ImageReference.parse(text)


@pytest.mark.parametrize(("text", "server"), [("shop", "docker.io"), ("a.io/shop", "a.io"), ("a:5/b", "a:5")])
def test_server(text: str, server: str) -> None:
    """An image without a registry comes from Docker's own."""
    assert server == ImageReference.parse(text).server


def test_with_tag_drops_digest() -> None:
    """A digest would win over a new tag, so it goes."""
    assert "a.io/b:new" == str(ImageReference.parse(f"a.io/b:old@{SHA}").with_tag("new"))


def test_with_digest_drops_tag() -> None:
    """A digest names exactly one image, so the tag goes."""
    assert f"a.io/b@{SHA}" == str(ImageReference.parse("a.io/b:old").with_digest(SHA))


@pytest.mark.parametrize("tag", ["", "-v", "a b", "v1\n", "v1;id", "ä"])
def test_with_tag_refuses(tag: str) -> None:
    """A tag from the command line is checked like one from a file."""
    with pytest.raises(ValueFault):
        ImageReference.parse("shop").with_tag(tag)


def test_with_digest_refuses() -> None:
    """A digest of the wrong length is refused."""
    with pytest.raises(ValueFault):
        ImageReference.parse("shop").with_digest("sha256:" + "0" * 32)


_COMPONENT = st.from_regex(r"[a-z0-9]{1,8}((\.|_|__|-)[a-z0-9]{1,5})?", fullmatch=True)
_TAG = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,20}", fullmatch=True).filter(str.isascii)


@given(
    registry=st.none()
    | st.from_regex(r"[a-z]{1,9}\.[a-z]{2,3}(:[0-9]{1,4})?", fullmatch=True).filter(str.isascii),
    parts=st.lists(_COMPONENT.filter(str.isascii), min_size=1, max_size=3),
    tag=st.none() | _TAG,
    digest=st.none() | st.just(SHA),
)
def test_round_trip(registry: str | None, parts: list[str], tag: str | None, digest: str | None) -> None:
    """Whatever is composed by the grammar is parsed into the same parts."""
    repository = "/".join(parts)
    if registry is None and len(parts) > 1 and ("." in parts[0] or parts[0] == "localhost"):
        registry, repository = parts[0], "/".join(parts[1:])
    if registry is not None and "_" in registry:
        return
    image = ImageReference(repository, registry, tag, digest)

    assert image == ImageReference.parse(str(image))


@given(st.text(max_size=60))
def test_total(text: str) -> None:
    """Parsing any text gives a reference that reads the same, or ValueFault; nothing else."""
    try:
        image = ImageReference.parse(text)
    except ValueFault:
        return
    assert text == str(image)
