"""Every error that Toolchord raises or reports, as one small tree.

    ToolchordError
    ├── DeveloperError              raised to the host's developer; the model never sees it
    │   ├── ConfigurationError      a wrong argument, limit or combination
    │   │   ├── RegistrationError   a tool that can't be registered as asked
    │   │   └── SandboxClosed       the sandbox or session was closed before
    │   ├── ToolNotFoundError       no tool of that name in the registry
    │   ├── MissingExtraError       an optional dependency is not installed
    │   ├── JournalConflict         another attempt has taken over the run
    │   ├── IsolationUnavailable    this machine can't give the walls that were asked for
    │   ├── JournalUnreadable       a run's rows were altered, or written with another codec
    │   ├── SessionUnreadable       what a session left was altered, or signed with another secret
    │   ├── SessionUnwritten        a session's program ran, and what it leaves could not be kept
    │   └── ModelRunError           a model's provider failed, or a run with it took too many requests
    └── ProgramError                what `ExecutionResult.raise_for_error` raises: a failed program
        ├── ProgramRefused          the language policy or a check before the run said no
        ├── LimitExceeded           a limit was reached and the guest was ended
        ├── ToolCallError           a tool call that could not be served
        │   ├── ToolNotAvailable    unknown, hidden, or not open to this caller
        │   ├── CallDenied          the policy or a person said no
        │   ├── CircuitOpen         the tool has failed too often and rests
        │   └── InvalidArguments    arguments that do not fit the tool's schema
        ├── UnsupportedValue        a value that may not cross the wall (`path` says where it is)
        ├── GuestDied               the guest process ended without an answer
        └── ReplayDivergence        a replayed program did something else than the record says

    CallPaused                      raised by a tool whose call waits for something outside

The two families never mix. Each carries attributes; no caller needs to parse a message.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from toolchord.native.results import ModelRun
    from toolchord.results import ExecutionResult

__all__ = [
    "CallDenied",
    "CallPaused",
    "CircuitOpen",
    "ConfigurationError",
    "DeveloperError",
    "GuestDied",
    "InvalidArguments",
    "IsolationUnavailable",
    "JournalConflict",
    "JournalUnreadable",
    "LimitExceeded",
    "MissingExtraError",
    "ModelRunError",
    "ProgramError",
    "ProgramRefused",
    "RegistrationError",
    "ReplayDivergence",
    "SandboxClosed",
    "SessionUnreadable",
    "SessionUnwritten",
    "ToolCallError",
    "ToolNotAvailable",
    "ToolNotFoundError",
    "ToolchordError",
    "UnsupportedValue",
]


class ToolchordError(Exception):
    """The root: catch this to catch everything that Toolchord raises on purpose."""


class DeveloperError(ToolchordError):
    """The host's code or machine needs a change."""


class ConfigurationError(DeveloperError, ValueError):
    """An argument, a limit or a combination of them makes no sense."""


class RegistrationError(ConfigurationError):
    """A tool can't be registered as asked: a name that is taken, metadata that is unknown."""


class SandboxClosed(ConfigurationError):
    """The sandbox or session was closed; make a new one."""


class ToolNotFoundError(DeveloperError, LookupError):
    """No tool of that name is registered.

    Attributes:
        tool: the name that was asked for.
        near: registered names that look alike, best first.
    """

    def __init__(self, tool: str, near: Sequence[str] = ()) -> None:
        self.tool = tool
        self.near = tuple(near)
        hint = f"; did you mean {', '.join(self.near)}?" if self.near else "; register it first"
        super().__init__(f"no tool named {tool!r}{hint}")


class MissingExtraError(DeveloperError, ImportError):
    """An optional dependency is missing.

    Attributes:
        extra: the extra of this distribution that brings it.
    """

    def __init__(self, what: str, extra: str) -> None:
        self.extra = extra
        super().__init__(f"{what} needs an extra: pip install 'toolchord[{extra}]'")


class JournalConflict(DeveloperError):
    """Another attempt to continue the same run has begun; this one has stopped, so that nothing happens twice.

    Attributes:
        run: the run's name in its store.
        attempt: which attempt this one was, from 1.
    """

    def __init__(self, run: str, attempt: int) -> None:
        self.run = run
        self.attempt = attempt
        super().__init__(
            f"another attempt has taken over the run {run!r} (this was attempt {attempt}); "
            f"let it finish, or continue the run once it has ended"
        )


class JournalUnreadable(DeveloperError):
    """The rows of a run are not what was written: altered, cut short, or written with another codec or key.

    Attributes:
        run: the run's name in its store.
    """

    def __init__(self, run: str, reason: str) -> None:
        self.run = run
        super().__init__(
            f"the run {run!r} can't be read: {reason}; open it with the codec and version that wrote it, "
            f"or delete it from its store"
        )


class SessionUnreadable(DeveloperError):
    """What is kept of a session can't be trusted: altered, incomplete, older than it was, or of another secret.

    Attributes:
        key: the session's.
    """

    def __init__(self, key: str, reason: str) -> None:
        self.key = key
        super().__init__(
            f"the session {key!r} can't be read: {reason}; give the secret that signed it, or let it begin anew with "
            f"LastingSessions.forget"
        )


class SessionUnwritten(DeveloperError):
    """A program of a session ran, but its store failed before what it leaves was kept.

    Attributes:
        key: the session's.
        result: what the program left, with its variables.
    """

    def __init__(self, key: str, result: ExecutionResult, reason: Exception) -> None:
        self.key = key
        self.result = result
        super().__init__(
            f"the program of the session {key!r} ran, but its store failed ({type(reason).__name__}: {reason}), and "
            "what it leaves may not be kept; its result is in this error's `result`; go on with the next program, and "
            "don't run this one again"
        )


class IsolationUnavailable(DeveloperError):
    """This machine can't give the isolation that was asked for.

    Attributes:
        missing: the mandatory layers that are missing, each with the reason.
        weaker: the values of `isolation=` that would work here, chosen knowingly.
    """

    def __init__(self, missing: Sequence[str], weaker: Sequence[str] = ()) -> None:
        self.missing = tuple(missing)
        self.weaker = tuple(weaker)
        advice = (
            " To run without that wall knowingly (no boundary against hostile code), pass "
            + " or ".join(f'isolation="{level}"' for level in self.weaker)
            + "."
            if self.weaker
            else ""
        )
        super().__init__(f"no isolation: {'; '.join(self.missing)}.{advice}")


class ModelRunError(DeveloperError):
    """A run with a provider's model broke off: its API failed (see ``__cause__``), or it took too many requests.

    Attributes:
        run: what happened so far. Nothing of it is lost: run its `messages` again with its `ledger` (and `container`),
            and what was done is not done again.
    """

    def __init__(self, message: str, run: ModelRun) -> None:
        self.run = run
        super().__init__(message)


class ProgramError(ToolchordError):
    """A model's program failed; the text is meant for the model.

    Attributes:
        message: one line that says what happened.
        line: the program's own line, counted from 1, or None.
    """

    def __init__(self, message: str, *, line: int | None = None) -> None:
        self.message = message
        self.line = line
        super().__init__(message if line is None else f"line {line}: {message}")


class ProgramRefused(ProgramError):
    """The program was refused before it ran."""


class LimitExceeded(ProgramError):
    """A limit was reached and the guest was ended.

    Attributes:
        limit: the name of the field of `Limits`, such as ``"wall_time"``.
    """

    def __init__(self, message: str, *, limit: str, line: int | None = None) -> None:
        self.limit = limit
        super().__init__(message, line=line)


class ToolCallError(ProgramError):
    """A tool call could not be served.

    Attributes:
        tool: the name that the program used.
    """

    def __init__(self, message: str, *, tool: str, line: int | None = None) -> None:
        self.tool = tool
        super().__init__(message, line=line)


class ToolNotAvailable(ToolCallError):
    """The tool is unknown, hidden, or not open to this caller."""


class CallDenied(ToolCallError):
    """The policy or a person said no to this call; it did not run."""


class CircuitOpen(ToolCallError):
    """The tool has failed too often in a row, so its calls fail at once for a while."""


class InvalidArguments(ToolCallError):
    """The arguments do not fit the tool's schema."""


class UnsupportedValue(ProgramError):
    """A value that is not plain data.

    Attributes:
        path: where it is, such as ``$.rows[3].owner``.
    """

    def __init__(self, message: str, *, path: str = "$", line: int | None = None) -> None:
        self.path = path
        super().__init__(message, line=line)


class GuestDied(ProgramError):
    """The guest process ended without an answer (a crash, or killed by its filter)."""


class ReplayDivergence(ProgramError):
    """A replayed program did something else than its record says.

    Attributes:
        position: index of the journal's event at which it differed.
    """

    def __init__(self, message: str, *, position: int, line: int | None = None) -> None:
        self.position = position
        super().__init__(message, line=line)


class CallPaused(BaseException):
    """A tool raises it when its call can't end now: it waits for an approval, an answer, another system.

    The other calls go on to their ends. When only such calls are left, the run ends with an error of kind "paused" and
    `ExecutionResult.pending` holds them; run with the journal of that result, the program goes on, and those tools are
    called again. It is no Exception, so that no handler between the tool and the run takes it for a failure.

    Attributes:
        reason: whatever the host wants to know of it.
    """

    def __init__(self, reason: object = None) -> None:
        self.reason = reason
        super().__init__(reason)
