"""Owns `ValidatedTool`: a tool whose arguments and result are checked by nested pydantic models."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from pydantic import BaseModel, RootModel, ValidationError

from toolchord.errors import ConfigurationError, InvalidArguments
from toolchord.schema import brief

__all__ = ["ValidatedTool"]


class ValidatedTool:
    """A base class for tools: nest `Arguments` and, if the result has a shape, `Result`; write `_execute`.

    `_execute` may be a coroutine function or a plain one. It gets the validated arguments by keyword, defaults applied,
    and returns a dict, a `Result`, or a bare value when `Result` has a field named ``value``.

    Example:
        class Add(ValidatedTool):
            \"\"\"Add two numbers.\"\"\"

            class Arguments(BaseModel):
                a: int
                b: int = 0

            class Result(BaseModel):
                value: int

            async def _execute(self, a: int, b: int) -> int:
                return a + b
    """

    _execute: Callable[..., Any]

    async def execute(self, **arguments: Any) -> Any:
        """Validate the arguments, run, and validate the result.

        Returns:
            A `Result`, or what `_execute` returned when none is declared.

        Raises:
            InvalidArguments: the arguments do not fit `Arguments`.
            ConfigurationError: `_execute` returned something that is no `Result`.
        """
        value = self._execute(**self.validate_arguments(arguments))
        return self.validate_result(await value if inspect.isawaitable(value) else value)

    @classmethod
    def validate_arguments(cls, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments by field name, coerced and with defaults."""
        model = model_of(cls, "Arguments")
        if model is None:
            return dict(arguments)
        try:
            valid = model.model_validate(dict(arguments))
        except ValidationError as error:
            raise InvalidArguments(f"{cls.__name__}: {'; '.join(short(error))}", tool=cls.__name__) from None
        return {**{name: getattr(valid, name) for name in model.model_fields}, **(valid.model_extra or {})}

    @classmethod
    def validate_result(cls, value: Any) -> Any:
        """The value as a `Result`, or unchanged when none is declared."""
        model = model_of(cls, "Result")
        if model is None or isinstance(value, model):
            return value
        if not isinstance(value, Mapping) and not issubclass(model, RootModel):
            if "value" not in model.model_fields:
                fields = ", ".join(model.model_fields)
                raise ConfigurationError(
                    f"{cls.__name__}._execute returned {type(value).__name__}; return a dict with the fields of "
                    f"Result ({fields}), or a Result"
                )
            value = {"value": value}
        try:
            return model.model_validate(value)
        except ValidationError as error:
            lines = "; ".join(short(error))
            raise ConfigurationError(f"{cls.__name__}._execute returned what is no Result: {lines}") from error


def model_of(cls: type, name: str) -> type[BaseModel] | None:
    """The nested pydantic model of that name, or None."""
    model = getattr(cls, name, None)
    return model if isinstance(model, type) and issubclass(model, BaseModel) else None


def short(error: ValidationError, limit: int = 10) -> list[str]:
    """One short line for each problem that pydantic found."""
    lines = []
    for problem in error.errors(include_url=False, include_context=False)[:limit]:
        where = ".".join(str(part) for part in problem["loc"]) or "arguments"
        got = problem["input"]
        seen = "" if problem["type"] == "missing" else f" (got {type(got).__name__} {brief(got)})"
        lines.append(f"{where}: {problem['msg']}{seen}")
    more = error.error_count() - len(lines)
    return [*lines, f"… and {more} more"] if more > 0 else lines
