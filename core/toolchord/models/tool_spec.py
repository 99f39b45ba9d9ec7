"""Owns what is known about a tool: its capabilities, callers and metadata, and its form for each provider."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from toolchord.errors import ConfigurationError, RegistrationError
from toolchord.schema import problems, recursive_ref, shape
from toolchord.search import near

__all__ = ["CALLERS", "Breaker", "RateLimit", "Retry", "ToolCapability", "ToolMetadata", "ToolSpec", "open_to"]

CALLERS = (
    "direct",
    "sandbox",
    "programmatic",
    "code_execution_20250825",
    "code_execution_20260120",
    "code_execution_20260521",
)
_RETIRED = {"code_execution_20250825": "code_execution_20260120", "programmatic": "code_execution_20260120"}
_PROVIDER_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")


class ToolCapability(StrEnum):
    """What a tool promises or does; nothing is ever guessed from its name."""

    STREAMING = "streaming"
    CANCELLABLE = "cancellable"
    IDEMPOTENT = "idempotent"
    CACHEABLE = "cacheable"
    RATE_LIMITED = "rate_limited"
    REQUIRES_AUTH = "requires_auth"
    LONG_RUNNING = "long_running"
    STATEFUL = "stateful"
    READ_ONLY = "read_only"
    DESTRUCTIVE = "destructive"
    OPEN_WORLD = "open_world"


class RateLimit(BaseModel, extra="forbid", frozen=True):
    """At most `requests` calls in `period` seconds."""

    requests: int = Field(ge=1)
    period: float = Field(default=60.0, gt=0)


class Retry(BaseModel, extra="forbid", frozen=True):
    """A call that failed for a passing reason is made again, up to `attempts` times in all.

    Passing are TimeoutError, ConnectionError, and errors with a true attribute `retryable`. The wait before a further
    attempt doubles from `wait` seconds up to `longest`, and each is a random part of that (full jitter).
    """

    attempts: int = Field(default=3, ge=1, le=100)
    wait: float = Field(default=0.2, ge=0)
    longest: float = Field(default=10.0, ge=0)


class Breaker(BaseModel, extra="forbid", frozen=True):
    """After `failures` passing failures in a row, calls fail at once with CircuitOpen; after `rest` seconds one is let
    through to see whether the tool is well again."""

    failures: int = Field(default=5, ge=1)
    rest: float = Field(default=30.0, gt=0)


class _Described(BaseModel):
    """The fields that metadata and specification share. Errors name the field and the nearest known one."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(min_length=1)
    namespace: str = Field(default="default", min_length=1)
    description: str = ""
    version: str = "1.0.0"
    tags: frozenset[str] = frozenset()
    capabilities: frozenset[ToolCapability] = frozenset()
    examples: list[dict[str, Any]] = Field(default_factory=list)
    allowed_callers: list[str] | None = None
    defer_loading: bool = False
    search_keywords: list[str] = Field(default_factory=list)
    strict: bool = False

    if not TYPE_CHECKING:  # type checkers shall keep the constructor that pydantic gives them

        def __init__(self, **data: Any) -> None:
            known = type(self).model_fields
            for field in data:
                if field not in known:
                    hint = "".join(f"; did you mean {name!r}?" for name in near(field, known, 1))
                    raise self._error(f"unknown field {field!r} for tool {data.get('name')!r}{hint}")
            try:
                super().__init__(**data)
            except ValidationError as error:
                lines = (f"{'.'.join(map(str, e['loc'])) or 'tool'}: {e['msg']}" for e in error.errors())
                raise self._error(f"tool {data.get('name')!r}: {'; '.join(lines)}") from error

    @staticmethod
    def _error(message: str) -> ConfigurationError:
        return ConfigurationError(message)

    @field_validator("allowed_callers")
    @classmethod
    def _known_callers(cls, callers: list[str] | None) -> list[str] | None:
        for caller in callers or ():
            if caller not in CALLERS:
                raise ValueError(f"unknown caller {caller!r}; known are {', '.join(CALLERS)}")
        return callers

    @field_validator("search_keywords", mode="before")
    @classmethod
    def _no_keywords(cls, value: Any) -> Any:
        return [] if value is None else value

    def has_capability(self, capability: ToolCapability) -> bool:
        """Whether the tool was registered with this capability."""
        return capability in self.capabilities


class ToolMetadata(_Described):
    """What a registry knows about one tool.

    Attributes:
        name: the registered name, unique within the namespace.
        argument_schema: JSON Schema of the arguments, an object.
        result_schema: JSON Schema of the result, or None when it is not declared.
        examples: each a bare argument object, or ``{"input": {...}, "description": ..., "output": ...}``.
        allowed_callers: who may call it. None, the default, opens it to every local caller, direct and code.
            ``["direct"]`` closes it to programs; any other name opens it to them, see `open_to`.
        timeout: seconds that one attempt at a call may take.
        concurrency_limit: how many calls may run at once in this process, over all runs.
        rate_limit: how many calls may start per period in this process, over all runs.
        order: a name; calls of one run to tools that share it run one after another, in the program's order.
        retry: when and how often a failed call is made again; for READ_ONLY and IDEMPOTENT tools only.
        breaker: when a failing tool is left alone for a while.
        replay: what a journal keeps of a result, for a run that goes on after a crash. ``"record"``: the result.
            ``"rerun"``: its hash; the tool runs again and must give the same. ``"never"``: neither result nor
            arguments; the tool runs again. The last two are for READ_ONLY and IDEMPOTENT tools only.
        idempotency_key: the name of a parameter that the host fills with the call's key; programs don't see it.
        price: what each attempt at a call costs, in your own money; a tool that knows better calls `charge`.
        defer_loading: found by search only, not listed to the model.
        import_path: ``"package.module:attribute"`` of a deferred tool that is imported when it is first used.
        source, source_name: where an adapter took it from, such as ``"mcp"`` and the server's name.
    """

    argument_schema: dict[str, Any] | None = None
    result_schema: dict[str, Any] | None = None
    is_async: bool = False
    timeout: float | None = Field(default=None, gt=0)
    concurrency_limit: int | None = Field(default=None, ge=1)
    rate_limit: RateLimit | None = None
    order: str | None = None
    retry: Retry | None = None
    breaker: Breaker | None = None
    replay: Literal["record", "rerun", "never"] = "record"
    idempotency_key: str | None = None
    price: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    import_path: str | None = None
    source: str | None = None
    source_name: str | None = None

    if not TYPE_CHECKING:

        def __init__(self, **data: Any) -> None:
            # Two booleans of chuk-tool-processor that are capabilities here.
            for field in ("requires_auth", "supports_streaming"):
                if data.pop(field, False):
                    name = field.removeprefix("supports_")
                    data["capabilities"] = {*(data.get("capabilities") or ()), ToolCapability(name)}
            super().__init__(**data)

    @model_validator(mode="after")
    def _repeated_only_if_harmless(self) -> Self:
        repeats = [name for name, on in (("retry", self.retry), ("replay", self.replay != "record")) if on]
        if repeats and not self.repeatable:
            raise ValueError(f"{repeats[0]} runs the tool again; that needs the capability read_only or idempotent")
        return self

    @property
    def repeatable(self) -> bool:
        """Whether running a call twice does no harm."""
        return bool({ToolCapability.READ_ONLY, ToolCapability.IDEMPOTENT} & self.capabilities)

    @staticmethod
    def _error(message: str) -> ConfigurationError:
        return RegistrationError(message)


def open_to(tool: ToolMetadata | ToolSpec, caller: Literal["direct", "sandbox"]) -> bool:
    """Whether a tool may be called directly by the model, or by a program in the sandbox.

    No declared callers open it to both. Every declared name but ``"direct"`` opens it to our sandbox too: a tool that
    was opened to one provider's code is open to code.
    """
    if tool.allowed_callers is None:
        return True
    return any((name == "direct") == (caller == "direct") for name in tool.allowed_callers)


class ToolSpec(_Described):
    """One tool as a provider is told about it.

    Attributes:
        parameters: JSON Schema of the arguments, an object.
        returns: JSON Schema of the result, or None.
        strict: ask the provider to hold the model to the schema when it generates arguments.

    The other attributes are those of `ToolMetadata`. Methods raise `ConfigurationError` rather than leave out
    something that the provider can't express.
    """

    parameters: dict[str, Any]
    returns: dict[str, Any] | None = None

    @field_validator("parameters")
    @classmethod
    def _an_object(cls, parameters: dict[str, Any]) -> dict[str, Any]:
        if parameters.get("type", "object") != "object":
            raise ValueError(f"must be a JSON Schema of type 'object', not {parameters['type']!r}")
        return {"type": "object", "properties": {}, **parameters}

    @classmethod
    def from_metadata(cls, metadata: ToolMetadata) -> ToolSpec:
        """The specification of a registered tool."""
        shared = {field: getattr(metadata, field) for field in _Described.model_fields}
        return cls(**shared, parameters=metadata.argument_schema or {}, returns=metadata.result_schema)

    @classmethod
    def from_function(
        cls, function: Callable[..., Any], name: str | None = None, description: str | None = None, **metadata: Any
    ) -> ToolSpec:
        """The specification of a function, from its signature, type hints and docstring."""
        from toolchord.tools import tool_from  # tools builds on this module

        given = metadata if description is None else {**metadata, "description": description}
        return cls.from_metadata(tool_from(function, name=name, **given).metadata)

    @classmethod
    def from_validated_tool(cls, tool: Any, name: str | None = None, namespace: str = "default") -> ToolSpec:
        """The specification of a `ValidatedTool` class or instance."""
        from toolchord.tools import tool_from

        return cls.from_metadata(tool_from(tool, name=name, namespace=namespace).metadata)

    def to_anthropic(self, *, cache_control: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """The tool for `messages.create(tools=[...])` of Anthropic's API.

        Callers are written in today's protocol: ``code_execution_20250825`` and ``programmatic`` become
        ``code_execution_20260120``; ``sandbox`` is local and not sent. There is no field for the result, so its shape
        ends the description. Source: platform.claude.com, programmatic tool calling, July 2026.
        """
        callers = self._provider_callers(lambda name: _RETIRED.get(name, name))
        by_code = any(name != "direct" for name in callers or ())
        if by_code and self.strict:
            raise self._refusal("strict=True is not supported for code callers; drop strict, or use ['direct']")
        if by_code and (ref := recursive_ref(self.parameters)):
            raise self._refusal(f"the recursive reference {ref} is not supported for code callers; use ['direct']")
        if cache_control and self.defer_loading:
            raise self._refusal("a deferred tool can't carry cache_control; put it on a tool that is listed")
        form: dict[str, Any] = {
            "name": self._provider_name(),
            "description": self._described(returns=True, examples=False, as_text=by_code),
            "input_schema": self.parameters,
        }
        if callers is not None:
            form["allowed_callers"] = callers
        if inputs := self._example_inputs():
            form["input_examples"] = inputs
        form |= {key: True for key in ("defer_loading", "strict") if getattr(self, key)}
        return {**form, "cache_control": dict(cache_control)} if cache_control else form

    def to_openai(self, *, api: Literal["responses", "chat"] = "responses") -> dict[str, Any]:
        """The tool for OpenAI's Responses API, or for Chat Completions and the many APIs that copy it.

        Every code caller is written as ``"programmatic"``. Chat Completions knows neither callers nor deferred tools
        nor result schemas: the last goes into the description, the others must not be asked for.
        """
        callers = self._provider_callers(lambda name: name if name == "direct" else "programmatic")
        function: dict[str, Any] = {
            "name": self._provider_name(),
            "description": self._described(returns=api == "chat", examples=True),
            "parameters": self.parameters,
        }
        if self.strict:
            function["strict"] = True
        if api == "chat":
            if callers is not None and "direct" not in callers:
                raise self._refusal("Chat Completions has no code callers; use api='responses', or add 'direct'")
            if self.defer_loading:
                raise self._refusal("Chat Completions has no deferred tools; use api='responses', or leave it out")
            return {"type": "function", "function": function}
        if api != "responses":
            raise ConfigurationError(f"unknown api {api!r}; use 'responses' or 'chat'")
        if self.returns is not None:
            function["output_schema"] = self.returns
        if callers is not None:
            function["allowed_callers"] = callers
        # Left out, it would mean True there, unlike at Chat Completions.
        return {
            "type": "function",
            "strict": False,
            **function,
            **({"defer_loading": True} if self.defer_loading else {}),
        }

    def to_mcp(self) -> dict[str, Any]:
        """The tool as an entry of MCP's ``tools/list``; a result that is no object is told in the description."""
        structured = self.returns is not None and self.returns.get("type") == "object"
        hints = {
            ToolCapability.READ_ONLY: "readOnlyHint",
            ToolCapability.DESTRUCTIVE: "destructiveHint",
            ToolCapability.IDEMPOTENT: "idempotentHint",
            ToolCapability.OPEN_WORLD: "openWorldHint",
        }
        annotations = {hint: True for capability, hint in hints.items() if capability in self.capabilities}
        return {
            "name": self.name,
            "description": self._described(returns=not structured, examples=True),
            "inputSchema": self.parameters,
            **({"outputSchema": self.returns} if structured else {}),
            **({"annotations": annotations} if annotations else {}),
        }

    def to_json_schema(self) -> dict[str, Any]:
        """The argument schema with the tool's name and description as its title and description."""
        return {**self.parameters, "title": self.name, "description": self.description}

    def _provider_callers(self, translate: Callable[[str], str]) -> list[str] | None:
        if self.allowed_callers is None:
            return None
        callers = list(dict.fromkeys(translate(name) for name in self.allowed_callers if name != "sandbox"))
        if not callers:
            # Leaving the field out would open the tool to direct calls.
            raise self._refusal("it is open to the local sandbox only; add 'direct', or 'programmatic' to export it")
        return callers

    def _provider_name(self) -> str:
        if not _PROVIDER_NAME.fullmatch(self.name):
            raise self._refusal("its name must have 1 to 64 letters, digits, '_' or '-'; register it under such a name")
        return self.name

    def _example_inputs(self) -> list[dict[str, Any]]:
        inputs = [example_input(example, self.parameters) for example in self.examples]
        for number, example in enumerate(inputs, 1):
            if problem := next(problems(example, self.parameters), None):
                raise self._refusal(f"example {number} does not fit its parameters: {problem}")
        return inputs

    def _described(self, *, returns: bool, examples: bool, as_text: bool = False) -> str:
        parts = [self.description] if self.description else []
        if returns and self.returns is not None:
            parts.append(f"Returns{' JSON text; after json.loads' if as_text else ''}: {shape(self.returns)}")
        if examples and (inputs := self._example_inputs()):
            parts.append("\n".join(f"Example arguments: {json.dumps(one, default=str)}" for one in inputs))
        return "\n\n".join(parts)

    def _refusal(self, reason: str) -> ConfigurationError:
        return ConfigurationError(f"tool {self.name!r}: {reason}")


def example_input(example: Mapping[str, Any], parameters: Mapping[str, Any]) -> dict[str, Any]:
    """The bare arguments of an example, which may be wrapped with a description and an output."""
    wrapped = isinstance(example.get("input"), Mapping) and "input" not in parameters.get("properties", {})
    return dict(example["input"] if wrapped else example)
