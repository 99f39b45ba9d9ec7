"""Owns undoing: the compensations of a run's calls, in reverse, on demand."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
from dataclasses import dataclass, replace
from typing import Any, Literal

from toolchord.catalogue import Catalogue
from toolchord.errors import ConfigurationError
from toolchord.identity import CallIdentity, current
from toolchord.journal import Journal
from toolchord.recording import Outcome, RunRecord
from toolchord.results import CallRecord, ExecutionResult
from toolchord.tools import Tool

__all__ = ["Compensation", "compensate"]


@dataclass(frozen=True)
class Compensation:
    """What became of undoing one call.

    Attributes:
        call: the call.
        status: ``"undone"``; ``"failed"``, see `error`; ``"unclear"``: whether the call took effect is not known, or
            whether an earlier attempt undid it, so nothing was done.
        error: what the compensation raised.
    """

    call: CallRecord
    status: Literal["undone", "failed", "unclear"]
    error: Exception | None = None


async def compensate(result: ExecutionResult, tools: Any, *, journal: Journal | None = None) -> list[Compensation]:
    """Undo what a run has done: call the tools' `compensate`, the last call that ended first.

    Only calls that gave a value are undone; one that failed says itself what it left. A compensation that fails does
    not keep the others from running. Each gets the arguments by name and what the call gave, and finds the call's
    identity in `current_call`, with an idempotency key of its own.

    Args:
        result: the run.
        tools: where its tools are: a registry, a catalogue or tools.
        journal: the run's, so that no call is undone twice. A `DurableJournal` writes down before it undoes; one that
            was cut off is unclear.

    Returns:
        One entry for each call whose tool has a compensation, in the order in which they were undone.

    Raises:
        ConfigurationError: the result has no record, or a tool is not among `tools`.
        JournalConflict: another attempt has taken over the journal's run.
    """
    record = result.record
    if record is None:
        raise ConfigurationError("the result has no record: the program never began, so there is nothing to undo")
    journal = journal or Journal()
    try:
        return await _all_undone(result, record, Catalogue.of(tools), journal)
    finally:
        await journal.end()


async def _all_undone(
    result: ExecutionResult, record: RunRecord, catalogue: Catalogue, journal: Journal
) -> list[Compensation]:
    ended = _ended(record)
    order = {number: place for place, number in enumerate(ended)}
    done = []
    for call in sorted(result.calls, key=lambda call: order.get(call.id, len(order)), reverse=True):
        exposed = catalogue.resolve(call.tool)
        if exposed is None:
            if call.tool.startswith("default.") and call.status == "error":
                continue  # it never was a tool
            raise ConfigurationError(f"the tool {call.tool} is not among the tools; pass those that the run had")
        if exposed.tool.compensate is None or call.status == "error" or call.held:
            continue
        outcome = ended.get(call.id)
        if outcome is not None and outcome.digest != call.digest:
            outcome = None  # of another program's call with this number
        if outcome is not None and outcome.ran:
            done.append(await _undone(call, exposed.tool, outcome, record, journal))
        elif outcome is None and call.status != "paused" and call.started:
            done.append(Compensation(call, "unclear"))
    return done


def _ended(record: RunRecord) -> dict[int, Outcome]:
    """The calls that gave something, in the order in which the program was told."""
    told = record.outcomes()
    # What an earlier program's calls gave goes by that program's numbers, unless this one has taken it over.
    rest = {one.outcome.call: one.outcome for one in record.answers if one.outcome is not None}
    return told | {number: outcome for number, outcome in rest.items() if number not in told}


async def _undone(call: CallRecord, tool: Tool, outcome: Outcome, record: RunRecord, journal: Journal) -> Compensation:
    identity = CallIdentity(call.id, call.tool, call.digest, call.line, outcome.occurrence, same=outcome.same)
    identity = replace(identity, key=f"{journal.key(identity)}-undo")
    if not await journal.undoing(call.id):
        return Compensation(call, "unclear")
    decision = record.decisions.get(f"{call.id}:{call.digest}")
    try:
        sent = decision.value if decision is not None and decision.kind == "edit" else call.arguments
        arguments = tool.validate(tool.bind((), sent))
        context = contextvars.copy_context()
        context.run(current.set, identity)
        await asyncio.create_task(_called(tool, arguments, outcome.value()), context=context)
    except Exception as error:
        return Compensation(call, "failed", error)
    return Compensation(call, "undone")


async def _called(tool: Tool, arguments: dict[str, Any], value: Any) -> None:
    assert tool.compensate is not None
    if inspect.iscoroutinefunction(tool.compensate):
        await tool.compensate(arguments, value)
        return
    given = await asyncio.to_thread(tool.compensate, arguments, value)
    if inspect.isawaitable(given):
        await given
