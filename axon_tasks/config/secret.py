"""A text that must never be seen: masking is a type, not a habit."""

from __future__ import annotations

import hmac
from typing import TYPE_CHECKING, Any, NoReturn

from axon_tasks.config.faults import ValueFault

if TYPE_CHECKING:
    from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
    from pydantic_core import core_schema

#: What is shown instead; its length says nothing about the secret.
MASK = "********"


class Secret:
    """A password, passphrase or environment value that no print, log, plan or dump shows.

    Only `reveal()` gives the text, so that every place that uses it can be found by that name. It cannot be
    pickled, because a pickle would carry the text.

    Args:
        text: The secret.
    """

    __slots__ = ("__text",)

    def __init__(self, text: str) -> None:
        self.__text = text

    def reveal(self) -> str:
        """Return the text itself: for the stdin of the program that needs it, and for nothing else."""
        return self.__text

    def __str__(self) -> str:
        return MASK

    def __repr__(self) -> str:
        return f"Secret({MASK!r})"

    def __format__(self, specification: str) -> str:
        return format(MASK, specification)

    def __bool__(self) -> bool:
        return bool(self.__text)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        return hmac.compare_digest(_bytes(self.__text), _bytes(other.__text))

    def __hash__(self) -> int:
        return hash((Secret, self.__text))

    def __copy__(self) -> Secret:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Secret:
        return self

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("a Secret cannot be pickled")

    @classmethod
    def of(cls, value: object) -> Secret:
        """Accept a value of `hosts.yml` as a secret.

        Raises:
            ValueFault: It is no text. The message never shows the value.
        """
        # What reads YAML is not needed where no secret is read.
        from axon_tasks.config.document import Scalar, yaml_kind

        if isinstance(value, Secret):
            return value
        if not isinstance(value, str):
            raise ValueFault("is no text", expected="text", secret=True)
        if isinstance(value, Scalar) and value.plain and (kind := yaml_kind(value)):
            raise ValueFault(
                f"the value is unquoted, and YAML makes {kind} of it", expected="it in quotes", secret=True
            )
        if not value.isascii() and any("\ud800" <= character <= "\udfff" for character in value):
            raise ValueFault("the value is not valid Unicode", expected="UTF-8 text", secret=True)
        return cls(str(value))

    @classmethod
    def __get_pydantic_core_schema__(
        cls, source: object, handler: GetCoreSchemaHandler
    ) -> core_schema.CoreSchema:
        from pydantic_core import core_schema

        return core_schema.no_info_plain_validator_function(
            cls.of,
            serialization=core_schema.plain_serializer_function_ser_schema(_mask, when_used="json"),
        )

    @classmethod
    def __get_pydantic_json_schema__(
        cls, schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        return {"type": "string"}


def one_line(secret: Secret) -> Secret:
    """Accept a secret that an env-file can carry.

    Raises:
        ValueFault: It holds a line break or NUL.
    """
    if any(character in secret.reveal() for character in "\n\r\0"):
        raise ValueFault(
            "the value holds a line break or NUL, which an env-file cannot carry",
            expected="one line; put long values into a mounted file",
            secret=True,
        )
    return secret


def _mask(_secret: Secret) -> str:
    return MASK


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")
