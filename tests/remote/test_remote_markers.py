"""The marker protocol against output that imitates it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from axon_tasks.remote.markers import StreamParser

NONCE = "0123456789abcdef" * 2
PREFIX = b"\x1e" + NONCE.encode() + b" "
FORGED = [
    b"\x1e",
    PREFIX,
    PREFIX[:-5],
    b"\x1e" + b"f" * 32 + b" F 1.0\n",
    PREFIX + b"B 0 1.0\n",
    PREFIX + b"E 9 0 1.0\n",
    PREFIX + b"E x 0 1.0\n",
    PREFIX + b"H 1 1 1.0\n",
    PREFIX + b"F\n",
    PREFIX + b"F 1.0",
    PREFIX + b"F 1.0\n",
    PREFIX + b"B - -\n",
    PREFIX * 5,
    b"\x1e" * 200,
    PREFIX + b"9" * 300 + b"\n",
]
#: `F 1.0` right before an end marker would be a valid one only outside of a section.
pieces = st.lists(st.one_of(st.binary(max_size=40), st.sampled_from(FORGED)), max_size=6).map(b"".join)


def stream(sections: list[bytes], codes: list[int]) -> bytes:
    said = [b"a banner\n", PREFIX + b"H 12 11 0.5\n"]
    for index, (output, code) in enumerate(zip(sections, codes, strict=True)):
        said += [PREFIX + b"B %d 1.25\n" % index, output, PREFIX + b"E %d %d 2.5\n" % (index, code)]
    return b"".join([*said, PREFIX + b"F 3.0\n"])


def cut(data: bytes, places: list[int]) -> list[bytes]:
    borders = sorted({place % (len(data) + 1) for place in places})
    return [data[a:b] for a, b in zip([0, *borders], [*borders, len(data)], strict=True)]


@given(
    sections=st.lists(pieces, min_size=1, max_size=4),
    places=st.lists(st.integers(0, 10_000), max_size=40),
    code=st.integers(0, 255),
)
def test_forged_markers_are_output(sections: list[bytes], places: list[int], code: int) -> None:
    """Whatever a command prints, cut anywhere on its way, comes out as its output and nothing else."""
    parser = StreamParser(NONCE, len(sections))
    handed_out = [b""] * len(sections)

    def emit(index: int, chunk: bytes) -> None:
        handed_out[index] += chunk

    parser.emit = emit
    for chunk in cut(stream(sections, [code] * len(sections)), places):
        parser.feed(chunk)
    assert parser.finished
    assert sections == [b"".join(slot.chunks) for slot in parser.slots]
    assert sections == handed_out
    assert [(1.25, 2.5, code)] * len(sections) == [
        (slot.began, slot.ended, slot.code) for slot in parser.slots
    ]


@given(sections=st.lists(pieces, min_size=1, max_size=3), length=st.integers(0, 400))
def test_a_stream_that_breaks_off_loses_nothing_and_ends_nothing(sections: list[bytes], length: int) -> None:
    """Of a broken stream, every byte before the break is output, and no section counts as ended that was not."""
    whole = stream(sections, [0] * len(sections))
    parser = StreamParser(NONCE, len(sections))
    parser.feed(whole[: min(length, len(whole) - 1)])
    parser.close()
    assert not parser.finished
    for slot, section in zip(parser.slots, sections, strict=True):
        got = b"".join(slot.chunks)
        if slot.code is not None:
            assert section == got
        else:
            assert (section + PREFIX + b"E 0 0 2.5").startswith(got[: len(section)])


def test_noise_is_kept_apart() -> None:
    """A banner before the first marker belongs to no section, and its beginning is kept for messages."""
    parser = StreamParser(NONCE, 1)
    parser.feed(b"x" * 10_000 + stream([b"out"], [0]))
    assert b"x" * 4096 == parser.noise
    assert [b"out"] == parser.slots[0].chunks


def test_memory_stays_flat_without_keeping() -> None:
    """A parser that keeps nothing still hands everything out."""
    parser = StreamParser(NONCE, 1, keep=False)
    sizes = []
    parser.emit = lambda _index, chunk: sizes.append(len(chunk))
    parser.feed(stream([b"y" * 5000], [0]))
    assert 5000 == sum(sizes)
    assert [] == parser.slots[0].chunks


def test_the_shell_says_who_it_is() -> None:
    """The first marker tells process and session, by which the script can be ended."""
    parser = StreamParser(NONCE, 1)
    parser.feed(stream([b""], [0]))
    assert (12, 11) == (parser.process, parser.session)
