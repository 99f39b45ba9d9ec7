"""The private names of LlamaIndex that this adapter needs, checked when it is imported.

Only a step's own state tells which tool call it serves, and only there can a call register more than one event that it
waits for. Read against llama-index-core 0.14.25 and llama-index-workflows 2.26.1.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, NoReturn

from llama_index.core.agent.workflow.workflow_events import ToolCall
from llama_index.core.tools import FunctionTool, function_tool
from llama_index.core.workflow import Context
from workflows import events
from workflows.context import internal_context
from workflows.runtime.types import plugin, results, ticks

from toolchord.errors import ConfigurationError


def _has(owner: Any, name: str) -> bool:
    return hasattr(owner, name) or name in getattr(owner, "__annotations__", {})


_NAMES: dict[str, Any] = {
    "sync_to_async": function_tool,
    "CollectionReleaseEvent": events,
    "StepWorkerStateContextVar": results,
    "WaitingForEvent": results,
    "AddWaiter": results,
    "DeleteWaiter": results,
    "as_snapshottable_adapter": plugin,
    "TickAddEvent": ticks,
    "work_item_id": results.StepWorkerState,
    "_face": Context,
    "_internal_adapter": internal_context.InternalContext,
}

if missing := [name for name, owner in _NAMES.items() if not _has(owner, name)]:
    raise ConfigurationError(
        f"llama-index-core {version('llama-index-core')} with llama-index-workflows {version('llama-index-workflows')} "
        f"has no {', '.join(missing)}, without which a program can't wait for a person; use another version "
        f"(0.14 with workflows 2.26 is known to work), or a newer toolchord"
    )

WaitingForEvent = results.WaitingForEvent


@dataclass(frozen=True)
class Wait:
    """What a step waits for.

    Attributes:
        name: of the wait, in this workflow.
        event: the kind of event; one that never comes, if none is given.
        says: streamed once, when the step has begun to wait.
        timeout: seconds after which the step is started again all the same.
    """

    name: str
    event: type[events.Event] = events.CollectionReleaseEvent
    says: events.Event | None = None
    timeout: float | None = None


class Step:
    """The step of a workflow that this code runs in.

    Attributes:
        tool_id: the id of the tool call that it serves; None if it serves something else.
        work_item: what it works on, the same for every time that it is started for it, after a restart too.
    """

    def __init__(self, state: results.StepWorkerContext) -> None:
        self._state = state
        self.tool_id = state.event.tool_id if isinstance(state.event, ToolCall) else None
        self.work_item = f"{state.state.step_name}/{state.state.work_item_id}"

    def waits(self, name: str) -> bool:
        """Whether it had been waiting under this name when it was started."""
        return any(waiter.waiter_id == name for waiter in self._state.state.collected_waiters)

    def received(self, ctx: Context[Any], wait: Wait, *, since: int) -> tuple[list[events.Event], int]:
        """All events of the kind that it waits for.

        A wait holds only the last one, and a step that is started again for each of several has not seen the others.

        Args:
            ctx: the step's Context.
            wait: which wait.
            since: how many things had happened to the workflow when it was last asked.

        Returns:
            The events since then, and how many things have happened now.
        """
        waiters = (waiter for waiter in self._state.state.collected_waiters if waiter.waiter_id == wait.name)
        last = next((waiter.resolved_event for waiter in waiters), None)
        adapter = plugin.as_snapshottable_adapter(ctx._face._internal_adapter)  # type: ignore[union-attr]
        happened = adapter.replay() if adapter is not None else []
        found = [tick.event for tick in happened if isinstance(tick, ticks.TickAddEvent)]
        if last is not None and all(last is not event for event in found):  # from before the workflow was restarted
            found.append(last)
            since = 0
        else:
            found = [tick.event for tick in happened[since:] if isinstance(tick, ticks.TickAddEvent)]
        return [event for event in found if type(event) is wait.event], len(happened)

    def forget(self, name: str) -> None:
        """Wait no more under any name that begins so, once the step has given its result."""
        for waiter in self._state.state.collected_waiters:
            if waiter.waiter_id.startswith(name):
                self._state.returns.return_values.append(results.DeleteWaiter(waiter_id=waiter.waiter_id))

    def park(self, waits: Iterable[Wait | WaitingForEvent[Any]]) -> NoReturn:
        """End the step without a result; it is started again when one of the events has come."""
        adds = [wait.add if isinstance(wait, WaitingForEvent) else _added(wait) for wait in waits]
        self._state.returns.return_values.extend(adds[:-1])
        raise WaitingForEvent(adds[-1])


def _added(wait: Wait) -> results.AddWaiter[Any]:
    return results.AddWaiter(waiter_id=wait.name, event_type=wait.event, waiter_event=wait.says, timeout=wait.timeout)


def current_step() -> Step | None:
    """The step that this code runs in, None outside of one."""
    try:
        return Step(results.StepWorkerStateContextVar.get())
    except LookupError:
        return None


def has_async_code(tool: FunctionTool) -> bool:
    """Whether a tool has asynchronous code of its own, and not LlamaIndex's thread around a blocking function."""
    made = f"{function_tool.sync_to_async.__name__}.<locals>"
    return not getattr(tool.async_fn, "__qualname__", "").startswith(made)
