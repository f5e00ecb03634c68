from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from config_samples import VALID, Finder, Loader

from axon_tasks.config import ConfigurationFaults, load
from axon_tasks.config.document import yaml_meaning

if TYPE_CHECKING:
    from pathlib import Path

PROD = "    domain: shop.example.com\n"


def _with_tag(written: str) -> str:
    return VALID + f"    tag: {written}\n"


@pytest.mark.parametrize(
    ("written", "meaning"),
    [
        ("1.10", "the number 1.1"),
        ("0012345", "the number 5349"),
        ("22:22", "the number 1342"),
        ("no", "false"),
        ("on", "true"),
        ("0755", "the number 493"),
        ("2024-01-01", "the date 2024-01-01"),
        ("2024-13-45", "a date"),
        ("0x1F", "the number 31"),
        ("0o17", "a number"),
        ("12e45", "a number"),
        ("1_000", "the number 1000"),
        ("0b_", "a number"),
        ("42", "the number 42"),
        (".inf", "the number inf"),
        ("9" * 5000, "a number"),
    ],
)
def test_surprises(faults: Finder, written: str, meaning: str) -> None:
    """An unquoted text that YAML makes something else of is a fault that says what, and what to write."""
    (fault,) = faults(_with_tag(written))

    assert (13, "environments.prod.tag") == (fault.line, fault.path)
    assert f"is unquoted, and YAML makes {meaning} of it" in fault.message
    assert fault.expected == (f'"{written}" in quotes' if len(written) < 20 else "it in quotes")


@pytest.mark.parametrize("written", ["1.10", "no", "22.22", "0012345", "2024-01-01"])
def test_quoted(loaded: Loader, written: str) -> None:
    """The same in quotes is the text that was written."""
    assert written == loaded(_with_tag(f'"{written}"')).environment("prod").tag
    assert written == loaded(_with_tag(f"'{written}'")).environment("prod").tag


@pytest.mark.parametrize("text", ["v1", "latest", "abc", "-x", "a:b", "1.2.3", "v1.10"])
def test_no_surprise(text: str) -> None:
    """What YAML leaves alone is no fault."""
    assert yaml_meaning(text) is None


@pytest.mark.parametrize("key", ["no", "on", "1.10", "0755", "~"])
def test_surprising_key(faults: Finder, key: str) -> None:
    """A key that YAML would not take for text must be quoted, too."""
    found = faults(VALID.replace("  app1: ", f"  {key}: {{address: 10.0.0.9}}\n  app1: "))

    assert f'"{key}" in quotes' == found[0].expected
    assert (5, f"hosts.{key}") == (found[0].line, found[0].path)


def test_duplicate_key(faults: Finder) -> None:
    """Of two equal keys neither wins: the second is a fault that names the line of the first."""
    (fault,) = faults(VALID + PROD)

    assert (
        "hosts.yml:13: environments.prod.domain: the key stands here again, first on line 12; expected one of them"
        == str(fault)
    )


@pytest.mark.parametrize(
    ("text", "line", "part"),
    [
        ("", 1, "the file is empty"),
        ("# only a comment\n", 1, "the file is empty"),
        ("null\n", 1, "the file is empty"),
        ("- a\n- b\n", 1, "the file holds no settings"),
        ("just words\n", 1, "the file holds no settings"),
        ("a: 1\n---\nb: 2\n", 2, "a second document starts here"),
        ("a: 1\n? [x]\n: y\n", 2, "a key is no plain word"),
        ("a: *x\n", 1, "the alias *x stands for nothing"),
        ("a: &x [*x]\n", 1, "the alias *x stands for nothing"),
        ("a: " + "[" * 40 + "]" * 40, 1, "nested more than 32 deep"),
        ("a: 1\nb: \u202ex\n", 2, "the invisible character U+202E"),
        ("a: 1\nb: x\u2028y\n", 2, "the invisible character U+2028"),
        ("a: 1\nb: \x00\n", 2, "the invisible character U+0000"),
        ("a: 1\nb: \x1b[2J\n", 2, "the invisible character U+001B"),
    ],
)
def test_refused_whole(faults: Finder, text: str, line: int, part: str) -> None:
    """What cannot be read on is told with its line, and why."""
    fault = faults(text)[-1]

    assert line == fault.line
    assert part in fault.message


@pytest.mark.parametrize(
    ("text", "line", "shown"),
    [
        ("product: shop\nhosts: {edge1\ndomain: x\n", 3, "domain: x"),
        ("product: shop\n\timage: x\n", 2, "image: x"),
        ("product: 'shop\nimage: x\n", 1, "product: 'shop"),
        ("a: b: c\n", 1, "a: b: c"),
        ("a: @x\n", 1, "a: @x"),
        ("%YAML 9.9\n--- x", 1, "%YAML 9.9"),
    ],
)
def test_broken(faults: Finder, text: str, line: int, shown: str) -> None:
    """Broken YAML is told with line, column and the line itself."""
    (fault,) = faults(text)

    assert line == fault.line
    assert fault.message.startswith("this is not YAML: ")
    assert f"(column {fault.column})" in fault.message
    assert shown in fault.message


@pytest.mark.parametrize(
    "line",
    [
        "password: hunter2",
        "registry: {username: a, password: hunter2",
        "DATABASE_URL: 'hunter2",
        "url: 'https://me:hunter2@a.io",
        "blob: 'hunter2AAAAAAAAAAAAAAAAAAAAAAAAAAAA",
        "api_token: @hunter2",
    ],
)
def test_broken_hides_secrets(faults: Finder, line: str) -> None:
    """The broken line is shown without what may be secret in it."""
    for text in (f"a: 1\n  {line}\n", f"{line}\n : : :\n"):
        assert "hunter2" not in str(faults(text)[0])


@pytest.mark.parametrize("word", ["pass", "A", "://", "x ", "key: '"])
def test_broken_long_line(faults: Finder, word: str) -> None:
    """A broken line of a megabyte is cut, and looking for secrets in it does not take for ever."""
    (fault,) = faults("a: '" + word * (900_000 // len(word)))

    assert len(str(fault)) < 500


def test_not_utf_8(tmp_path: Path) -> None:
    """A file in another encoding is refused with the line."""
    path = tmp_path / "hosts.yml"
    path.write_bytes(b"a: 1\nb: caf\xe9\n")
    with pytest.raises(ConfigurationFaults) as caught:
        load(path, {})

    assert (2, "this line is not UTF-8") == (caught.value.faults[0].line, caught.value.faults[0].message)


def test_byte_order_mark(loaded: Loader) -> None:
    """The mark that some Windows editors put first does no harm."""
    assert "shop" == loaded("\ufeff" + VALID).product


def test_windows_line_ends(loaded: Loader) -> None:
    """Windows line ends do no harm."""
    assert "shop.example.com" == loaded(VALID.replace("\n", "\r\n")).environment("prod").domain


def test_too_large(faults: Finder) -> None:
    """A file of more than 1 MB is refused."""
    (fault,) = faults("# " + "x" * 1_000_000 + "\n" + VALID)

    assert "hosts.yml: the file is larger than 1 MB" in str(fault)


@pytest.mark.parametrize("tag", ["!!python/object/apply:os.system ", "!!str ", "!x ", "!!int "])
def test_tags(faults: Finder, tag: str) -> None:
    """YAML tags are refused, those that would run code included."""
    (fault,) = faults(VALID.replace("product: ", f"product: {tag}"))

    assert (1, "product") == (fault.line, fault.path)
    assert "is not allowed" in fault.message


def test_merge_key_and_alias(loaded: Loader) -> None:
    """Anchors, aliases and merge keys work; what stands there explicitly wins."""
    text = VALID.replace("  prod:", "  prod: &prod") + "  staging: {<<: *prod, domain: staging.example.com}\n"
    project = loaded(text)

    assert ("edge1",) == project.environment("staging").system
    assert "staging.example.com" == project.environment("staging").domain
    assert "shop.example.com" == project.environment("prod").domain


def test_merge_list(loaded: Loader) -> None:
    """A list of mappings can be merged; the first one wins."""
    text = VALID.replace(
        "{path: /api/health, timeout: 60s}", "{<<: [{path: /one}, {path: /two, timeout: 7s}]}"
    )
    health = loaded(text).environment("prod").health

    assert ("/one", 7.0) == (health.path, health.timeout)


def test_merge_of_no_mapping(faults: Finder) -> None:
    """Merging something else is a fault."""
    (fault,) = faults(VALID + "    <<: 5s\n")

    assert (13, "what is merged is no mapping") == (fault.line, fault.message)


def test_alias_bomb(faults: Finder) -> None:
    """Aliases that would unfold to a billion values are refused before they do."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 10)]
    fault = faults("\n".join(lines))[-1]

    assert "there are more than 50000 values" in fault.message


def test_many_aliases(faults: Finder) -> None:
    """More than a thousand aliases are refused."""
    fault = faults("a: &a x\nb: [" + "*a, " * 1001 + "]\n")[-1]

    assert "there are more than 1000 aliases" in fault.message


@pytest.mark.parametrize(
    "text", ["[" * 100_000, "{" * 100_000, "a: " * 100_000, "- " * 100_000, "? " * 100_000]
)
def test_deep_nesting(faults: Finder, text: str) -> None:
    """Nesting without end neither hangs nor overflows the stack."""
    assert faults(text)


def test_expands(loaded: Loader) -> None:
    """A variable is put in, with its default if it is unset or empty, and $${ is a literal."""
    text = VALID + '    container: {labels: {a: "${A}-${B:-two}-${C:-three}-$${A}-$A"}}\n'
    labels = loaded(text, {"A": "one", "C": ""}).environment("prod").container.labels

    assert {"a": "one-two-three-${A}-$A"} == labels


def test_expands_once(loaded: Loader) -> None:
    """What a variable holds is not expanded again."""
    text = VALID + '    container: {labels: {a: "${A}"}}\n'

    assert "${B}" == loaded(text, {"A": "${B}", "B": "x"}).environment("prod").container.labels["a"]


def test_expansion_is_no_yaml(faults: Finder) -> None:
    """A variable cannot bring in YAML: its text stays one value, and is checked as one."""
    (fault,) = faults(VALID + "    tag: ${A}\n", {"A": "v1\n    switch: reload"})

    assert "environments.prod.tag" == fault.path


def test_expanded_numbers(loaded: Loader) -> None:
    """A number may come from a variable, and a text from a variable may look like a number."""
    text = VALID + "    tag: ${TAG}\n    container: {port: '${PORT}'}\n"
    environment = loaded(text, {"TAG": "1.10", "PORT": "8080"}).environment("prod")

    assert ("1.10", 8080) == (environment.tag, environment.container.port)


def test_unset_variable(faults: Finder) -> None:
    """An unset variable is a fault with its line, and the only one for its value."""
    (fault,) = faults(VALID + "    tag: ${NOPE}\n")

    assert (13, "environments.prod.tag") == (fault.line, fault.path)
    assert "the environment variable NOPE is not set" == fault.message


@pytest.mark.parametrize("written", ["${}", "${a b}", "${1}", "${A", "${A:?x}", "${A-x}", "x${", "${é}"])
def test_no_variable(faults: Finder, written: str) -> None:
    """What only looks like a variable is a fault, because it would be taken literally."""
    (fault,) = faults(VALID + f'    tag: "{written}"\n', {"A": "x"})

    assert "what follows ${ is no variable" == fault.message


VALUE = "Canary 5ecret;"


@pytest.mark.parametrize(
    "template",
    [
        "    tag: ${S}\n",
        "    aliases: ['${S}', '${S}']\n",
        "    image: ${S}\n",
        "    image: '${S}/x'\n",
        "    tls: ${S}\n",
        "    switch: ${S}\n",
        "    registry: {username: '${S}', password: '${S}', server: '${S}'}\n",
        "    health: {expect_status: ['${S}'], timeout: '${S}', docker: '${S}'}\n",
        "    container: {volumes: ['${S}'], extra_hosts: ['${S}'], cpus: '${S}', restart: '${S}', env: {A: [\"${S}\"]}}\n",
        "    ports: {first: '${S}', last: '${S}'}\n",
        "    '${S}': '${S}'\n",
    ],
)
def test_expanded_value_not_shown(faults: Finder, template: str) -> None:
    """A fault about a value that came from a variable does not show it."""
    found = faults(VALID + template, {"S": VALUE})

    assert found
    assert "5ecret" not in str(ConfigurationFaults(found))


def test_expanded_host_not_shown(faults: Finder) -> None:
    """Nor does the fault about a host that is not in the inventory, or the nearest name for it."""
    found = faults(VALID.replace("[app1]", "['${S}', '${T}']"), {"S": "s3cret", "T": "appp1"})

    assert [None, None] == [fault.nearest for fault in found]
    assert "s3cret" not in str(ConfigurationFaults(found))


def test_literal_secret_not_shown(faults: Finder) -> None:
    """A fault about a secret does not show it, even if it stands in the file."""
    found = faults(
        VALID + "    registry: {username: me, password: 0012345}\n    container: {env: {A: 'x\\n5ecret'}}\n"
    )
    text = str(ConfigurationFaults(found))

    assert "environments.prod.registry.password" in text
    assert "5349" not in text
    assert "12345" not in text


def test_control_sequences_in_keys(faults: Finder) -> None:
    """A key cannot bring terminal control sequences into the report."""
    text = str(ConfigurationFaults(faults(VALID + '    "\\e[2Jx": 1\n')))

    assert "\x1b" not in text
