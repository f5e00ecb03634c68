"""What Docker says of the use of containers, as numbers."""

from __future__ import annotations

import pytest

from axon_tasks.deploy import stats
from axon_tasks.report import stats as report


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0B", 0), ("1.5KiB", 1536), ("2MiB", 2 * 1024**2), ("1.944GiB", round(1.944 * 1024**3)),
        ("1.2kB", 1200), ("3 MB", 3_000_000), ("--", None), ("", None), ("1e9B", None), ("5XB", None),
        ("9" * 99 + "B", None),
    ],
)  # fmt: skip
def test_sizes(text: str, expected: int | None) -> None:
    """Memory counts in powers of 1024 and traffic in powers of 1000, as Docker writes them; anything else is unknown."""
    assert expected == stats.size(text)


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        (None, "-"),
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (5 * 1024**4, "5.0 TiB"),
        (2**60, "1048576.0 TiB"),
    ],
)
def test_sizes_for_people(count: int | None, expected: str) -> None:
    """They are told in the largest unit in which they are at least one."""
    assert expected == report.size(count)
