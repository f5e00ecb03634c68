"""YAML text to nested values that know their line, their key's path and how they were written.

PyYAML's own constructor is not used, because it is what makes YAML surprising: of two equal keys the last one wins,
`22:22` becomes 1342, `no` becomes false, `1.10` becomes 1.1 and an alias may refer to itself. Here every scalar stays
the text that was written, and the type that its place asks for decides what it means.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, TypeAlias

import yaml
import yaml.constructor
import yaml.reader
import yaml.resolver

from axon_tasks.config.faults import Place, Report, shown

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from typing_extensions import Self

#: Limits that no real inventory reaches and that keep a hostile one from filling memory or the stack.
MOST_BYTES = 1_000_000
MOST_ALIASES = 1000
MOST_VALUES = 50_000
DEEPEST = 32

#: libyaml where PyYAML was built with it: eight times as fast.
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

#: Characters that are invisible or that editors and YAML 1.1 disagree about: line breaks of Unicode, a byte order
#: mark inside, and the direction marks that make a line look like another one (CVE-2021-42574).
_DECEPTIVE = re.compile("[\x85\u2028\u2029\ufeff\u202a-\u202e\u2066-\u2069]")

#: Numbers by the YAML 1.2 core schema (section 10.3.2) that YAML 1.1, and so PyYAML, takes for text.
_YAML_1_2_NUMBER = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|0o[0-7]+|0x[0-9a-fA-F]+")

#: Longer texts are not repeated in advice, and longer lines are cut.
_LONGEST_REPEATED = 60
_LONGEST_LINE = 120
_LONGEST_SEARCHED = 1000

_NOTHING = {"", "~", "null", "Null", "NULL"}

_KINDS = {
    "bool": "a truth value",
    "int": "a number",
    "float": "a number",
    "timestamp": "a date",
    "null": "nothing",
}

#: `$${` stands for a literal `${`; the second form is a variable, the third one that is not closed.
_VARIABLE = re.compile(r"\$\$\{|\$\{([^}]*)\}|\$\{")
_VARIABLE_CONTENT = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)(?::-(.*))?", re.DOTALL | re.ASCII)

#: What may be secret in a broken line: what follows such a key (upper case: environment variables), a long run of
#: letters and digits, and the password in a URL.
_SECRET_PARTS = (
    re.compile(
        r"(?P<kept>(?:(?i:pass|secret|token|credential|key)[\w.-]*|\b[A-Z][A-Z0-9_]+)[\"']?\s*[:=] *).*"
    ),
    re.compile(r"(?P<kept>)[A-Za-z0-9+/=_-]{20,}"),
    re.compile(r"(?P<kept>://)[^/\s]*@"),
)


class Scalar(str):
    """A text as it was written, with `${VAR}` expanded.

    Attributes:
        place: Where it stands.
        plain: Whether it was written without quotes, so that YAML would choose a type for it.
        expanded: Whether a variable went into it: its content must not be shown in a fault.
    """

    __slots__ = ("expanded", "place", "plain")

    place: Place
    plain: bool
    expanded: bool

    def __new__(cls, text: str, place: Place, *, plain: bool = False, expanded: bool = False) -> Self:
        """Attach what is known about the text to the text."""
        scalar = super().__new__(cls, text)
        scalar.place = place
        scalar.plain = plain
        scalar.expanded = expanded
        return scalar


class Block(dict[str, Any]):
    """A mapping.

    Args:
        place: Where it stands.

    Attributes:
        keys_at: Where each of its keys stands.
        size: How many values it holds, itself included, with aliases counted in full.
    """

    def __init__(self, place: Place) -> None:
        super().__init__()
        self.place = place
        self.keys_at: dict[str, Place] = {}
        self.size = 1


class Items(list[Any]):
    """A list.

    Args:
        place: Where it stands.

    Attributes:
        items_at: Where each of its items stands.
        size: How many values it holds, itself included, with aliases counted in full.
    """

    def __init__(self, place: Place) -> None:
        super().__init__()
        self.place = place
        self.items_at: list[Place] = []
        self.size = 1


Value: TypeAlias = Block | Items | Scalar | None


def read_document(data: bytes, environ: Mapping[str, str], report: Report) -> Block:
    """Read one YAML document whose top level is a mapping.

    Faults that leave the rest readable are noted in the report; the others are raised at once.

    Args:
        data: The file's content.
        environ: Where `${VAR}` is looked up.
        report: Where faults are noted.

    Raises:
        ConfigurationFaults: The text is no YAML, or exceeds a limit.
    """
    text = _decode(data, report)
    try:
        value = _Composer(yaml.parse(text, Loader=_LOADER), environ, report).document()
    except yaml.MarkedYAMLError as error:
        raise _broken(error, text, report) from None
    except yaml.YAMLError as error:
        raise report.stop(Place(1, 1), f"this is not YAML: {shown(str(error))}") from None
    if value is None:
        raise report.stop(
            Place(1, 1), "the file is empty", expected="at least product, image, hosts, environments"
        )
    if not isinstance(value, Block):
        raise report.stop(Place(1, 1), "the file holds no settings", expected="lines such as `product: shop`")
    return value


def yaml_kind(text: str) -> str | None:
    """Say what kind of value YAML makes of an unquoted text ("a number"), or None if it stays text."""
    if _YAML_1_2_NUMBER.fullmatch(text):
        return "a number"
    tag: str = _resolver.resolve(yaml.ScalarNode, text, (True, False))
    name = tag.rpartition(":")[2]
    return None if name == "str" else _KINDS.get(name, "something special")


def quoted(text: str) -> str:
    """Say how to write a text that YAML would make something else of."""
    return f'"{text}" in quotes' if len(text) <= _LONGEST_REPEATED else "it in quotes"


def yaml_meaning(text: str) -> str | None:
    """Say what YAML makes of an unquoted text ("the number 1.1"), or None if it stays text."""
    kind = yaml_kind(text)
    if kind is None or kind == "nothing":
        return kind
    tag = _resolver.resolve(yaml.ScalarNode, text, (True, False))
    try:
        made = yaml.constructor.SafeConstructor().construct_object(yaml.ScalarNode(tag, text))
    except (ValueError, ArithmeticError, LookupError, yaml.YAMLError):
        return kind
    if isinstance(made, bool):
        return str(made).lower()
    return kind if isinstance(made, str) else f"{kind.replace('a ', 'the ', 1)} {made}"


#: Untyped in types-PyYAML.
_resolver: Any = yaml.resolver.Resolver()


def _decode(data: bytes, report: Report) -> str:
    if len(data) > MOST_BYTES:
        raise report.stop(
            Place(0, 0), "the file is larger than 1 MB", expected="a list of servers and settings"
        )
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise report.stop(
            Place(line, 1), "this line is not UTF-8", expected="a file saved as UTF-8"
        ) from None
    refused = yaml.reader.Reader.NON_PRINTABLE.search(text) or _DECEPTIVE.search(text)
    if refused:
        line = text.count("\n", 0, refused.start()) + 1
        character = f"U+{ord(refused.group()):04X}"
        raise report.stop(
            Place(line, 1), f"this line holds the invisible character {character}", expected="visible text"
        )
    return text


def _broken(error: yaml.MarkedYAMLError, text: str, report: Report) -> Exception:
    # An unclosed quote is noticed at the end of the file and was made where it begins.
    unclosed = "quoted scalar" in (error.context or "")
    mark = (error.context_mark if unclosed else None) or error.problem_mark or error.context_mark
    line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
    problem = ", ".join(part for part in (error.context, error.problem) if part)
    message = f"this is not YAML: {problem} (column {column})"
    lines = text.split("\n")
    written = _harmless(lines[line - 1]) if line <= len(lines) else ""
    return report.stop(Place(line, column), f"{message}\n    {written}" if written else message)


def _harmless(line: str) -> str:
    """A line of the file, fit for a report: without what may be secret, without control characters, not too long."""
    if (
        len(line) > _LONGEST_SEARCHED
    ):  # the search is quadratic; half a word at the cut might be half a secret
        line = line[:_LONGEST_SEARCHED].rpartition(" ")[0]
    for secret in _SECRET_PARTS:
        line = secret.sub(r"\g<kept>********", line)
    visible = "".join(character if character.isprintable() else " " for character in line).strip()
    return visible if len(visible) <= _LONGEST_LINE else visible[:_LONGEST_LINE] + "..."


class _Composer:
    """Builds values out of PyYAML's parsing events.

    Args:
        events: The events of one stream.
        environ: Where `${VAR}` is looked up.
        report: Where faults are noted.
    """

    def __init__(self, events: Iterator[Any], environ: Mapping[str, str], report: Report) -> None:
        self._events = events
        self._environ = environ
        self._report = report
        self._anchors: dict[str, Value] = {}
        self._aliases = 0
        self._values = 0

    def document(self) -> Value:
        """Return the only document of the stream, None if there is none."""
        value: Value = None
        documents = 0
        for event in self._events:
            if isinstance(event, yaml.DocumentStartEvent):
                documents += 1
                if documents > 1:
                    raise self._report.stop(
                        _place(event, ()), "a second document starts here", expected="one document"
                    )
            elif isinstance(event, yaml.NodeEvent):
                value = self._value(event, Place(1, 1), 0)
        return value

    def _value(self, event: Any, place: Place, depth: int) -> Value:
        if isinstance(event, yaml.AliasEvent):
            return self._alias(event, place)
        if event.tag is not None:
            self._report.add(
                place, f"the YAML tag {shown(event.tag)} is not allowed", expected="the value alone"
            )
        if depth > DEEPEST:
            raise self._report.stop(place, f"values are nested more than {DEEPEST} deep")
        self._count(1, place)
        value: Value
        if isinstance(event, yaml.MappingStartEvent):
            value = self._block(place, depth)
        elif isinstance(event, yaml.SequenceStartEvent):
            value = self._items(place, depth)
        else:
            value = self._scalar(event, place)
        if event.anchor is not None:
            self._anchors[event.anchor] = value
        return value

    def _alias(self, event: Any, place: Place) -> Value:
        self._aliases += 1
        if self._aliases > MOST_ALIASES:
            raise self._report.stop(place, f"there are more than {MOST_ALIASES} aliases")
        if event.anchor not in self._anchors:
            raise self._report.stop(
                place,
                f"the alias *{event.anchor[:_LONGEST_REPEATED]} stands for nothing that is complete above it",
            )
        value = self._anchors[event.anchor]
        self._count(_size(value), place)
        return value

    def _count(self, size: int, place: Place) -> None:
        self._values += size
        if self._values > MOST_VALUES:
            raise self._report.stop(
                place, f"there are more than {MOST_VALUES} values, aliases counted in full"
            )

    def _block(self, place: Place, depth: int) -> Block:
        block = Block(place)
        merged: list[Block] = []
        while not isinstance(event := next(self._events), yaml.MappingEndEvent):
            key = self._key(event, place)
            key_place = _place(event, (*place.path, key))
            value = self._value(next(self._events), key_place, depth + 1)
            block.size += _size(value)
            if key == "<<" and event.implicit[0]:
                merged += self._merged(value, key_place)
            elif key in block:
                line = block.keys_at[key].line
                self._report.add(
                    key_place, f"the key stands here again, first on line {line}", expected="one of them"
                )
            else:
                block[key] = value
                block.keys_at[key] = key_place
        for other in merged:
            for key in other.keys() - block.keys():
                block[key] = other[key]
                block.keys_at[key] = other.keys_at[key]
        return block

    def _key(self, event: Any, place: Place) -> str:
        if not isinstance(event, yaml.ScalarEvent):
            raise self._report.stop(
                _place(event, place.path), "a key is no plain word", expected="`name: value`"
            )
        key = str(event.value)
        if event.implicit[0] and key != "<<" and (meaning := yaml_meaning(key)):
            key_place = _place(event, (*place.path, key))
            message = f"the key is unquoted, and YAML makes {meaning} of it"
            self._report.add(key_place, message, expected=quoted(key))
        return key

    def _merged(self, value: Value, place: Place) -> list[Block]:
        sources = value if isinstance(value, Items) else [value]
        blocks = [source for source in sources if isinstance(source, Block)]
        if len(blocks) == len(sources):
            return blocks
        self._report.add(place, "what is merged is no mapping", expected="`<<: *name` of a mapping")
        return []

    def _items(self, place: Place, depth: int) -> Items:
        items = Items(place)
        while not isinstance(event := next(self._events), yaml.SequenceEndEvent):
            item_place = _place(event, (*place.path, len(items)))
            value = self._value(event, item_place, depth + 1)
            items.append(value)
            items.items_at.append(item_place)
            items.size += _size(value)
        return items

    def _scalar(self, event: Any, place: Place) -> Scalar | None:
        text = str(event.value)
        plain = bool(event.implicit[0])
        if plain and text in _NOTHING:
            return None
        expanded, variables = self._expand(text, place)
        return Scalar(expanded, place, plain=plain and not variables and expanded == text, expanded=variables)

    def _expand(self, text: str, place: Place) -> tuple[str, bool]:
        """Expand variables once, and tell if there were any; what one holds is not looked at again, and never becomes YAML."""
        variables = False

        def replace(match: re.Match[str]) -> str:
            nonlocal variables
            if match.group() == "$${":
                return "${"
            variables = True
            content = _VARIABLE_CONTENT.fullmatch(match.group(1) or "")
            if content is None:
                self._report.add(
                    place,
                    "what follows ${ is no variable",
                    expected="${NAME} or ${NAME:-default}, and $${ for a literal ${",
                )
                return ""
            name, default = content.groups()
            value = self._environ.get(name)
            if default is not None:
                return value or default
            if value is None:
                self._report.add(
                    place,
                    f"the environment variable {name} is not set",
                    expected=f"it in the environment, or a default as in ${{{name}:-default}}",
                )
            return value or ""

        return _VARIABLE.sub(replace, text), variables


def _place(event: Any, path: tuple[str | int, ...]) -> Place:
    return Place(event.start_mark.line + 1, event.start_mark.column + 1, path)


def _size(value: Value) -> int:
    return value.size if isinstance(value, (Block, Items)) else 1
