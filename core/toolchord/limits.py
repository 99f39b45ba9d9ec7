"""How much a run may spend."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

from toolchord.errors import ConfigurationError

_MiB = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What one run may spend; past one of them the guest is ended and the result says which.

    Attributes:
        wall_time: seconds from start to end, the tools' time included.
        cpu_time: seconds of CPU in the guest.
        memory: bytes of memory the guest may take on top of a bare interpreter.
        output: bytes of stdout and stderr together.
        result: bytes of the returned value, and of any one call's arguments.
        tool_calls: calls in all.
        concurrency: calls that run at the same time; more wait their turn.
        source: bytes of the program's text.
        variables: bytes of what it may leave for the next program, see `toolchord.Variables`.

    Examples:
        >>> from toolchord import CodeSandbox
        >>> with CodeSandbox(limits=Limits(output=1_000)) as sandbox:
        ...     sandbox.execute_sync("while True: print('again')").error.message
        'output: the program printed more than 1,000 bytes'
    """

    wall_time: float = 30.0
    cpu_time: float = 20.0
    memory: int = 256 * _MiB
    output: int = _MiB
    result: int = 16 * _MiB
    tool_calls: int = 1000
    concurrency: int = 64
    source: int = 1_000_000
    variables: int = 256 << 10

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            real = field.name in ("wall_time", "cpu_time")
            if isinstance(value, bool) or not isinstance(value, (int, float) if real else int):
                unit = "seconds" if real else "a whole number"
                raise ConfigurationError(f"Limits.{field.name} must be {unit}, not {value!r}")
            low = 0 if field.name == "tool_calls" else 1
            if not (value > 0 if real else value >= low) or (isinstance(value, float) and not math.isfinite(value)):
                raise ConfigurationError(f"Limits.{field.name} must be finite and positive, not {value!r}")
            high = 10**9 if real else 2**50
            if value > high:
                raise ConfigurationError(f"Limits.{field.name} must be at most {high:,}")
        if self.memory < 16 * _MiB:
            raise ConfigurationError(f"Limits.memory must be at least {16 * _MiB} bytes (16 MiB), not {self.memory}")
