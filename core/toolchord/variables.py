"""Owns what one program leaves for the next, when they run in different processes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import msgspec

from toolchord.errors import ConfigurationError


class _Left(msgspec.Struct, frozen=True):
    data: dict[str, bytes] = {}
    definitions: dict[str, str] = {}


@dataclass(frozen=True)
class Variables:
    """Variables of a program that has ended, for the next one: ``execute(..., variables=result.variables)``.

    Plain data comes back as it was; of functions, classes and imports the statements are run again, behind the same
    walls and under the same limits; what they have kept in themselves, such as a changed class attribute, begins anew.
    It is plain data itself: keep `to_bytes()` wherever the conversation is kept.

    Attributes:
        data: encoded values by name. Only a guest reads them.
        definitions: statements that define functions, classes and imports, by name.
        lost: names that could not be kept, with the reason.

    Examples:
        >>> from toolchord import CodeSandbox
        >>> with CodeSandbox() as sandbox:
        ...     first = sandbox.execute_sync("rates = {'EUR': 1.0}", variables=Variables())
        ...     kept = first.variables.to_bytes()
        ...     second = sandbox.execute_sync("return rates['EUR']", variables=Variables.from_bytes(kept))
        >>> first.variables.names, second.value
        (('rates',), 1.0)
    """

    data: dict[str, bytes] = field(default_factory=dict)
    definitions: dict[str, str] = field(default_factory=dict)
    lost: dict[str, str] = field(default_factory=dict)

    @property
    def names(self) -> tuple[str, ...]:
        """What the next program finds."""
        return (*self.data, *self.definitions)

    @property
    def size(self) -> int:
        """What they weigh: bytes of data and characters of statements."""
        return sum(map(len, (*self.data.values(), *self.definitions.values())))

    def to_bytes(self) -> bytes:
        """As bytes; the names that were lost are not among them."""
        return msgspec.msgpack.encode(_Left(self.data, self.definitions))

    @classmethod
    def from_bytes(cls, data: bytes) -> Variables:
        """From bytes; ConfigurationError if they are none of `to_bytes`."""
        try:
            left = msgspec.msgpack.decode(data, type=_Left)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise ConfigurationError(f"these bytes hold no variables: {error}") from None
        return cls(left.data, left.definitions)

    @classmethod
    def of(cls, told: Any, most: int) -> Variables:
        """What a guest told, at most so many bytes; ValueError if it is none of ours that told it."""
        try:
            variables = msgspec.convert(told, cls)
        except msgspec.ValidationError as error:
            raise ValueError(str(error)) from None
        if variables.size > most:
            raise ValueError(f"it leaves {variables.size:,} bytes of variables")
        return variables
