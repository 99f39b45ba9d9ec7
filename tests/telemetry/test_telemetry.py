# ruff: noqa: E501  (a program is kept on one line)
"""What OpenTelemetry is told, with its real SDK: spans, their order and attributes, metrics, events; and how little."""

from __future__ import annotations

import asyncio
import contextvars
import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.instrumentation.utils import suppress_instrumentation
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.trace import SpanKind, StatusCode
from opentelemetry.util.genai.handler import TelemetryHandler

from tests.telemetry.seen import Seen, instrumented, told
from toolchord import (
    CodeSandbox,
    DurableJournal,
    Journal,
    Limits,
    MemoryStore,
    Orchestrator,
    Policy,
    Reply,
    TokenUsage,
    Tool,
    ToolCapability,
    ToolRequest,
    allow,
    ask,
    charge,
    deny,
    observing,
    telemetry,
    tool_from,
)
from toolchord.approvals import Decision
from toolchord.errors import ConfigurationError

SECRET = "sk-proj-1234567890abcdefghij"


@pytest.fixture
def seen() -> Iterator[Seen]:
    with instrumented(content=False) as seen:
        yield seen


@pytest.fixture
def seen_with_content() -> Iterator[Seen]:
    with instrumented(content=True) as seen:
        yield seen


async def search(words: str, limit: int = 2) -> list[dict[str, Any]]:
    """Find documents."""
    current = trace.get_current_span()
    current.set_attribute("application.saw", current.get_span_context().is_valid)
    return [{"title": f"{words} {n}"} for n in range(limit)]


def fail(number: int) -> None:
    """Fail."""
    raise ValueError(f"no row {number}, and the key is {SECRET}")


def pay(amount: float) -> str:
    """Pay."""
    charge(0.25)
    return f"paid {amount}"


@pytest.fixture(scope="module")
def sandbox() -> Iterator[CodeSandbox]:
    read_only = tool_from(search, capabilities=[ToolCapability.READ_ONLY])
    with CodeSandbox(tools=[read_only, fail, pay], limits=Limits(wall_time=20)) as sandbox:
        yield sandbox


async def others() -> None:
    """Every other task comes to its end."""
    await asyncio.gather(*asyncio.all_tasks() - {asyncio.current_task()}, return_exceptions=True)


def status_of(span: ReadableSpan) -> StatusCode:
    return span.status.status_code


# spans


async def test_a_run_is_a_span_with_its_guest_and_its_calls_below_it(seen: Seen, sandbox: CodeSandbox) -> None:
    result = await sandbox.execute(
        "import asyncio\nrows = await asyncio.gather(*[search(words=str(n)) for n in range(3)])\nreturn len(rows)"
    )
    assert result.value == 3
    assert seen.ways == [
        "execute_tool run_code",
        "execute_tool run_code > run_program",
        *["execute_tool run_code > execute_tool search"] * 3,
    ]
    assert {span.kind for span in seen.spans} == {SpanKind.INTERNAL}
    assert {status_of(span) for span in seen.spans} == {StatusCode.UNSET}
    run, calls = seen.attributes("execute_tool run_code"), seen.named("execute_tool search")
    assert run["toolchord.calls"] == 3
    assert run["toolchord.results.bytes"] == sum(call.result_bytes for call in result.calls) > 0
    assert run["toolchord.tokens.saved"] == result.ledger().tokens_saved
    assert (run["toolchord.run.status"], run["toolchord.isolation"]) == ("ok", "auto")
    run_id = run["toolchord.run.id"]
    said = [told(call) for call in calls]
    assert sorted(one["gen_ai.tool.call.id"] for one in said) == [f"{run_id}.{n}" for n in (1, 2, 3)]
    assert {one["toolchord.call.line"] for one in said} == {2}
    assert {one["toolchord.run.id"] for one in said} == {run_id}
    guest = seen.attributes("run_program")
    assert guest["toolchord.guest.cpu_time"] == result.usage.cpu_time > 0
    assert guest["toolchord.guest.peak_memory"] > 1 << 20
    assert guest["toolchord.limit.wall_time"] == 20
    assert guest["toolchord.guest.start_time"] > 0


async def test_every_span_of_ours_says_what_genai_operation_it_is(seen: Seen, sandbox: CodeSandbox) -> None:
    """Langfuse exports only spans with an attribute of that namespace."""
    await sandbox.execute("search('a')\nfail(1)")
    assert len(seen.spans) == 4
    assert all("gen_ai.operation.name" in told(span) for span in seen.spans)


@pytest.mark.parametrize("threaded", [False, True])
async def test_what_a_tool_does_nests_below_its_call(seen: Seen, sandbox: CodeSandbox, threaded: bool) -> None:
    def query() -> int:
        with seen.tracer.start_as_current_span("SELECT"):
            return 1

    async def query_async() -> int:
        with seen.tracer.start_as_current_span("SELECT"):
            await asyncio.sleep(0)
            return 1

    tool = tool_from(query if threaded else query_async, name="query")
    with seen.tracer.start_as_current_span("request"):
        result = await sandbox.execute(
            "import asyncio\nreturn sum(await asyncio.gather(*[query() for _ in range(4)]))", [tool]
        )
    assert result.value == 4
    nested = [way for way in seen.ways if way.endswith("SELECT")]
    assert nested == ["request > execute_tool run_code > execute_tool query > SELECT"] * 4
    parents = {span.parent.span_id for span in seen.named("SELECT") if span.parent is not None}
    assert len(parents) == 4  # each below a call of its own


def test_a_run_that_is_not_asynchronous_nests_too(seen: Seen) -> None:
    def query() -> str:
        with seen.tracer.start_as_current_span("SELECT"):
            return threading.current_thread().name

    with CodeSandbox(tools=[query]) as sandbox, seen.tracer.start_as_current_span("request"):
        result = sandbox.execute_sync("query()")
    assert result.ok
    assert seen.ways[-1] == "request > execute_tool run_code > execute_tool query > SELECT"


async def test_runs_at_once_keep_their_calls_apart(seen: Seen, sandbox: CodeSandbox) -> None:
    await asyncio.gather(*(sandbox.execute(f"search('{n}')\nreturn pay({n})") for n in range(6)))
    runs = {
        span.context.span_id: told(span)["toolchord.run.id"]
        for span in seen.named("execute_tool run_code")
        if span.context is not None
    }
    calls = [span for span in seen.spans if span.name in ("execute_tool search", "execute_tool pay")]
    assert (len(runs), len(calls), len(seen.traces)) == (6, 12, 6)
    for span in calls:
        assert span.parent is not None
        assert told(span)["toolchord.run.id"] == runs[span.parent.span_id]


async def test_the_programs_of_a_session_are_spans_of_their_own(seen: Seen, sandbox: CodeSandbox) -> None:
    async with sandbox.session() as session:
        await session.execute("x = len(search('a'))")
        assert (await session.execute("x + 1")).value == 3
    guests = [told(span) for span in seen.named("run_program")]
    assert [guest["toolchord.guest.reused"] for guest in guests] == [False, True]
    assert len(seen.named("execute_tool run_code")) == 2


async def test_the_context_of_the_host_is_as_it_was(seen: Seen, sandbox: CodeSandbox) -> None:
    before = trace.get_current_span()
    await sandbox.execute("search('a')")
    await sandbox.execute("fail(1)")
    assert trace.get_current_span() is before
    assert observing.running.get() is None


async def test_a_run_that_is_never_gone_on_with_leaves_no_trouble(seen: Seen, sandbox: CodeSandbox) -> None:
    work = sandbox.execute("search('a')")
    contextvars.copy_context().run(work.send, None)
    work.close()  # in another context than the one in which it began
    assert observing.running.get() is None
    assert told(seen.one("execute_tool run_code"))["toolchord.run.status"] == "cancelled"


# what fails


async def test_a_tool_that_fails_says_so_with_its_type_and_a_masked_message(seen: Seen, sandbox: CodeSandbox) -> None:
    result = await sandbox.execute("fail(7)")
    assert not result.ok
    call = seen.one("execute_tool fail")
    assert status_of(call) is StatusCode.ERROR
    assert told(call)["error.type"] == "ValueError"
    assert call.status.description == "no row 7, and the key is [redacted]"
    (event,) = call.events
    said = told(event)
    assert (event.name, said["exception.type"]) == ("exception", "ValueError")
    stack = str(said["exception.stacktrace"])
    assert "raise ValueError" in stack
    assert "/toolchord/dispatch.py" not in stack  # where the tool failed, and not how it was called
    assert SECRET not in str([one.to_json() for one in seen.spans])
    run = seen.one("execute_tool run_code")
    assert status_of(run) is StatusCode.ERROR
    assert told(run)["toolchord.run.error.line"] == 1


async def test_an_error_that_the_program_catches_is_the_calls_alone(seen: Seen, sandbox: CodeSandbox) -> None:
    await sandbox.execute("try:\n    fail(1)\nexcept ValueError:\n    pass\nreturn 1")
    assert status_of(seen.one("execute_tool fail")) is StatusCode.ERROR
    assert status_of(seen.one("execute_tool run_code")) is StatusCode.UNSET
    assert seen.attributes("execute_tool run_code")["toolchord.calls.failed"] == 1


async def test_a_limit_is_told_with_its_name(seen: Seen, sandbox: CodeSandbox) -> None:
    await sandbox.execute("while True: pass", limits=Limits(cpu_time=0.2))
    run, guest = seen.attributes("execute_tool run_code"), seen.attributes("run_program")
    assert (run["error.type"], run["toolchord.limit.reached"]) == ("LimitExceeded", "cpu_time")
    assert guest["error.type"] == "cpu_time"


async def test_a_call_that_nobody_waits_for_any_more_is_cancelled_and_no_error(seen: Seen) -> None:
    gone = asyncio.Event()

    async def wait() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            gone.set()

    async with CodeSandbox(tools=[wait]) as sandbox:
        result = await sandbox.execute(
            "import asyncio\ntry:\n    await asyncio.wait_for(wait(), 0.05)\nexcept TimeoutError:\n    return 'late'"
        )
        await gone.wait()
        await others()
    assert result.value == "late"
    call = seen.one("execute_tool wait")
    assert told(call)["toolchord.call.status"] == "cancelled"
    assert status_of(call) is StatusCode.UNSET


async def test_a_run_that_its_host_cancels_ends_its_spans(seen: Seen) -> None:
    begun = asyncio.Event()

    async def wait() -> None:
        begun.set()
        await asyncio.Event().wait()

    async with CodeSandbox(tools=[wait]) as sandbox:
        task = asyncio.create_task(sandbox.execute("wait()"))
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await others()
    run = seen.one("execute_tool run_code")
    assert told(run)["toolchord.run.status"] == "cancelled"
    assert status_of(run) is StatusCode.UNSET


async def test_what_is_raised_to_the_host_is_an_error_of_the_run(seen: Seen, sandbox: CodeSandbox) -> None:
    def watch(news: object) -> None:
        raise RuntimeError("the host's own")

    with pytest.raises(RuntimeError):
        await sandbox.execute("search('a')", watch=watch)
    run = seen.one("execute_tool run_code")
    assert told(run)["error.type"] == "RuntimeError"
    assert status_of(run) is StatusCode.ERROR


async def test_a_name_that_a_program_makes_up_is_in_no_spans_name_and_no_metric(
    seen: Seen, sandbox: CodeSandbox
) -> None:
    await sandbox.execute(
        "class Strange(Exception): pass\ntry:\n    call_tool('made_up_4711')\nexcept LookupError:\n    pass\nraise Strange"
    )
    (call,) = [span for span in seen.spans if span.name == "execute_tool"]
    assert told(call)["gen_ai.tool.name"] == "made_up_4711"
    assert seen.attributes("execute_tool run_code")["error.type"] == "Strange"
    for name in ("gen_ai.execute_tool.duration", "toolchord.calls", "toolchord.runs"):
        assert "made_up_4711" not in str(seen.points(name))
        assert "Strange" not in str(seen.points(name))
    assert (("gen_ai.tool.name", "_OTHER"), ("toolchord.call.status", "error")) in seen.values("toolchord.calls")


# content


async def test_nothing_of_what_was_said_is_told_unless_it_is_asked_for(seen: Seen, sandbox: CodeSandbox) -> None:
    await sandbox.execute(
        "rows = search('the-question')\nprint('the-output')\nraise ValueError(rows[0]['title'] + 'the-reason')"
    )
    await sandbox.execute("search(limit='the-wrong-one', words='the-question')")
    await sandbox.execute("wrong = 'the-wrong' + '-one'\nsearch(limit=wrong, words='the-question')")
    assert told(seen.named("execute_tool search")[-1])["error.type"] == "toolchord.errors.InvalidArguments"
    text = str([span.to_json() for span in seen.spans])
    assert not [word for word in ("the-question", "the-output", "the-reason", "the-wrong-one") if word in text]
    assert "gen_ai.tool.call" not in text.replace("gen_ai.tool.call.id", "")


async def test_content_that_is_asked_for_is_json_and_masked(seen_with_content: Seen, sandbox: CodeSandbox) -> None:
    seen = seen_with_content
    result = await sandbox.execute(f"return search('key {SECRET}', limit=1)")
    assert result.ok
    call, run = seen.attributes("execute_tool search"), seen.attributes("execute_tool run_code")
    assert json.loads(call["gen_ai.tool.call.arguments"]) == {"words": "key [redacted]", "limit": 1}
    assert json.loads(call["gen_ai.tool.call.result"]) == [{"title": "key [redacted] 0"}]
    assert "search(" in json.loads(run["gen_ai.tool.call.arguments"])["code"]
    assert run["gen_ai.tool.call.result"] == '[{"title": "key [redacted] 0"}]'
    assert SECRET not in str([span.to_json() for span in seen.spans])


async def test_content_of_a_tool_that_keeps_nothing_is_never_told(seen_with_content: Seen) -> None:
    def private(word: str) -> str:
        return f"echo of {word}"

    tool = tool_from(private, replay="never", capabilities=[ToolCapability.READ_ONLY])
    async with CodeSandbox(tools=[tool]) as sandbox:
        result = await sandbox.execute("len(private(word=word))", inputs={"word": "hush"})
    assert result.value == 12
    assert "hush" not in str([span.to_json() for span in seen_with_content.spans])


async def test_large_content_is_cut(seen_with_content: Seen, sandbox: CodeSandbox) -> None:
    result = await sandbox.execute("len(search('x' * 300_000, limit=1))")
    assert result.ok
    for span in seen_with_content.spans:
        assert all(len(str(value)) <= 20_000 for value in told(span).values())


@pytest.mark.parametrize(
    ("value", "said"), [("", False), ("NO_CONTENT", False), ("EVENT_ONLY", False), ("SPAN_ONLY", True), ("span_and_event", True), ("true", True)]
)  # fmt: skip
async def test_the_conventions_own_variable_decides(
    monkeypatch: pytest.MonkeyPatch, sandbox: CodeSandbox, value: str, said: bool
) -> None:
    monkeypatch.setenv("OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT", value)
    with instrumented() as seen:
        await sandbox.execute("search('a')")
    assert ("gen_ai.tool.call.arguments" in seen.attributes("execute_tool search")) is said


# pauses, replays, policies


@pytest.fixture
def asking() -> Policy:
    return Policy(allow("search"), ask("pay"))


async def test_a_paused_run_ends_without_an_error_and_the_next_attempt_links_to_it(
    seen: Seen, sandbox: CodeSandbox, asking: Policy
) -> None:
    program = "rows = search('a')\nreturn pay(3)"
    first = await sandbox.execute(program, policy=asking)
    assert first.pending
    assert first.record is not None
    journal = Journal.continuing(type(first.record).from_json(first.record.to_json()))
    (request,) = journal.asked
    assert journal.answer(request, Decision(kind="approve"))
    second = await sandbox.execute(program, policy=asking, journal=journal)
    assert second.value == "paid 3.0"

    before, after = seen.named("execute_tool run_code")
    assert told(before)["toolchord.run.status"] == "paused"
    assert status_of(before) is StatusCode.UNSET
    (link,) = after.links
    assert before.context is not None
    assert (link.context.trace_id, link.context.span_id) == (before.context.trace_id, before.context.span_id)
    assert told(before)["toolchord.run.id"] == told(after)["toolchord.run.id"]

    waited, paid = seen.named("execute_tool pay")
    assert told(waited)["toolchord.call.status"] == "paused"
    assert told(waited)["toolchord.call.approval"] == "waiting"
    assert status_of(waited) is StatusCode.UNSET
    assert told(paid)["toolchord.call.approval"] == "approve"
    assert told(paid)["toolchord.cost"] == 0.25

    assert len(seen.named("execute_tool search")) == 1  # it ran once
    (replayed,) = after.events
    assert replayed.name == "toolchord.call.replayed"
    assert told(replayed)["gen_ai.tool.name"] == "search"
    assert told(after)["toolchord.calls.replayed"] == 1
    assert seen.values("toolchord.calls") == {
        (("gen_ai.tool.name", "search"), ("toolchord.call.status", "ok")): 1,
        (("gen_ai.tool.name", "search"), ("toolchord.call.status", "replayed")): 1,
        (("gen_ai.tool.name", "pay"), ("toolchord.call.status", "paused")): 1,
        (("gen_ai.tool.name", "pay"), ("toolchord.call.status", "ok")): 1,
    }


async def test_an_attempt_in_another_process_links_to_the_first_one(
    seen: Seen, sandbox: CodeSandbox, asking: Policy
) -> None:
    store, program = MemoryStore(), "return pay(3)"
    await sandbox.execute(program, policy=asking, journal=await DurableJournal.open(store, "run"))
    await sandbox.execute(program, policy=asking, journal=await DurableJournal.open(store, "run"))
    before, after = seen.named("execute_tool run_code")
    assert before.context is not None
    assert [link.context.span_id for link in after.links] == [before.context.span_id]


async def test_a_repaired_program_links_to_the_one_it_repairs(seen: Seen, sandbox: CodeSandbox) -> None:
    first = await sandbox.execute("search('a')\nraise ValueError")
    assert first.record is not None
    second = await sandbox.execute("return len(search('a'))", journal=Journal.repairing(first.record))
    assert second.value == 2
    before, after = seen.named("execute_tool run_code")
    assert before.context is not None
    assert [link.context.span_id for link in after.links] == [before.context.span_id]
    assert len(seen.named("execute_tool search")) == 1


async def test_a_record_that_is_replayed_runs_nothing_and_says_so(seen: Seen, sandbox: CodeSandbox) -> None:
    first = await sandbox.execute("return len(search('a'))")
    assert first.record is not None
    assert (await sandbox.replay(first.record)).value == 2
    assert [told(span)["toolchord.replay"] for span in seen.named("execute_tool run_code")] == [
        False,
        True,
    ]
    assert len(seen.named("execute_tool search")) == 1


async def test_what_is_denied_or_held_back_is_told_and_is_no_execution(seen: Seen, sandbox: CodeSandbox) -> None:
    await sandbox.execute("try:\n    pay(1)\nexcept PermissionError:\n    pass", policy=Policy(deny("pay")))
    await sandbox.execute("pay(1)", dry_run=True)
    denied, held = (told(span) for span in seen.named("execute_tool pay"))
    assert (denied["error.type"], denied["toolchord.call.ran"]) == ("CallDenied", False)
    assert (held["toolchord.call.status"], held["toolchord.call.ran"]) == ("held", False)
    assert "error.type" not in held
    durations = seen.points("gen_ai.execute_tool.duration")
    assert (("gen_ai.tool.name", "pay"), ("gen_ai.tool.type", "function")) not in durations


# metrics


async def test_durations_are_in_the_conventions_histogram(seen: Seen, sandbox: CodeSandbox) -> None:
    await sandbox.execute("search('a')\nsearch('b')\nfail(1)")
    points = seen.points("gen_ai.execute_tool.duration")
    assert {key: point.count for key, point in points.items()} == {
        (("gen_ai.tool.name", "search"), ("gen_ai.tool.type", "function")): 2,
        (("error.type", "ValueError"), ("gen_ai.tool.name", "fail"), ("gen_ai.tool.type", "function")): 1,
        (("error.type", "ValueError"), ("gen_ai.tool.name", "run_code"), ("gen_ai.tool.type", "function")): 1,
    }
    bounds = next(iter(points.values())).explicit_bounds
    assert [round(bound, 2) for bound in bounds] == [0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92]  # fmt: skip
    (size,) = seen.values("toolchord.results.bytes").values()
    assert size > 0
    assert seen.points("toolchord.guest.start_time")[()].count == 1
    assert seen.values("toolchord.guest.cpu_time")[()] > 0


# beside the conventions' own helper


def _util(seen: Seen, name: str, description: str, arguments: Any, result: Any, error: BaseException | None) -> None:
    handler = TelemetryHandler(tracer_provider=seen.tracers, meter_provider=seen.meters, logger_provider=seen.loggers)
    call = handler.tool(name, tool_type="function")
    call.tool_description, call.tool_call_id, call.arguments = description, "id", arguments
    if error is None:
        call.tool_result = result
        call.stop()
    else:
        call.fail(error)


async def test_opentelemetry_util_genai_writes_the_same(monkeypatch: pytest.MonkeyPatch, sandbox: CodeSandbox) -> None:
    monkeypatch.setenv("OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT", "SPAN_ONLY")
    theirs = Seen()
    arguments = {"words": "a", "limit": 1}
    _util(theirs, "search", "Find documents.", arguments, [{"title": "a 0"}], None)
    _util(theirs, "broken", "Break.", {}, None, KeyError("gone"))

    def broken() -> None:
        """Break."""
        raise KeyError("gone")

    with instrumented() as ours:
        await sandbox.execute("search(words='a', limit=1)")
        await sandbox.execute("broken()", [broken])
    for name in ("execute_tool search", "execute_tool broken"):
        their, our = theirs.one(name), ours.one(name)
        assert our.kind == their.kind
        assert (our.status.status_code, our.status.description) == (their.status.status_code, their.status.description)
        said = told(our)
        for key, value in told(their).items():
            if key == "gen_ai.tool.call.id":
                assert said[key]
            elif key.startswith("gen_ai.tool.call."):
                assert json.loads(said[key]) == json.loads(str(value))
            else:
                assert said[key] == value, key
        more = {key for key in said if not key.startswith(("toolchord.", "application."))} - set(told(their))
        assert more <= {"gen_ai.tool.call.arguments"}  # theirs leaves an empty object out
    metric = "gen_ai.execute_tool.duration"
    mine = {key: point for key, point in ours.points(metric).items() if ("gen_ai.tool.name", "run_code") not in key}
    assert set(mine) == set(theirs.points(metric))
    for point_key, point in theirs.points(metric).items():
        assert [round(bound, 6) for bound in mine[point_key].explicit_bounds] == list(point.explicit_bounds)


# tasks


async def test_everything_that_an_orchestrator_does_is_below_one_span(seen: Seen, sandbox: CodeSandbox) -> None:
    replies = [
        Reply(calls=[ToolRequest("1", "run_code", {"code": "return len(search('a'))"})], usage=TokenUsage(100, 20)),
        Reply("Two.", usage=TokenUsage(150, 5)),
    ]

    def model(messages: list[Any], tools: list[Any]) -> Reply:
        with seen.tracer.start_as_current_span("chat some-model"):
            return replies.pop(0)

    run = await Orchestrator(model, sandbox, model_name="some-model", way="sandbox").run("How many?")
    assert run.text == "Two."
    assert seen.ways == [
        "invoke_agent",
        "invoke_agent > chat some-model",
        "invoke_agent > execute_tool run_code",
        "invoke_agent > execute_tool run_code > run_program",
        "invoke_agent > execute_tool run_code > execute_tool search",
        "invoke_agent > chat some-model",
    ]
    said = seen.attributes("invoke_agent")
    assert said["gen_ai.operation.name"] == "invoke_agent"
    assert said["gen_ai.request.model"] == "some-model"
    assert (said["gen_ai.usage.input_tokens"], said["gen_ai.usage.output_tokens"]) == (250, 25)
    assert (said["toolchord.task.turns"], said["toolchord.task.stop"]) == (2, "answered")
    (point,) = seen.points("gen_ai.invoke_agent.duration").values()
    assert point.count == 1


async def test_a_model_that_fails_is_an_error_of_the_task(seen: Seen, sandbox: CodeSandbox) -> None:
    def model(messages: list[Any], tools: list[Any]) -> Reply:
        raise ConnectionError("no route")

    with pytest.raises(ConnectionError):
        await Orchestrator(model, sandbox).run("How many?")
    task = seen.one("invoke_agent")
    assert told(task)["error.type"] == "ConnectionError"
    assert status_of(task) is StatusCode.ERROR


async def test_plain_calls_of_a_model_are_below_its_task(seen: Seen) -> None:
    asked = [ToolRequest(str(n), "search", {"words": "a"}) for n in (1, 2)]
    replies = [Reply(calls=asked), Reply("Done.")]
    tool: Tool = tool_from(search, allowed_callers=["direct"])
    async with CodeSandbox(tools=[pay]) as sandbox:
        run = await Orchestrator(lambda messages, tools: replies.pop(0), sandbox, [tool, tool_from(pay)]).run("Look.")
    assert run.text == "Done."
    assert seen.ways == ["invoke_agent", "invoke_agent > execute_tool search", "invoke_agent > execute_tool search"]


async def test_a_task_that_is_resumed_counts_what_is_new(seen: Seen, sandbox: CodeSandbox) -> None:
    replies = [
        Reply(calls=[ToolRequest("1", "run_code", {"code": "return wait()"})], usage=TokenUsage(100, 20)),
        Reply("Done.", usage=TokenUsage(7, 3)),
    ]
    from toolchord.errors import CallPaused

    answers: list[str] = []

    def wait() -> str:
        if not answers:
            raise CallPaused("somebody")
        return answers[0]

    orchestrator = Orchestrator(lambda messages, tools: replies.pop(0), sandbox, [tool_from(wait)], way="sandbox")
    run = await orchestrator.run("Wait.")
    assert run.stop == "paused"
    answers.append("yes")
    run = await orchestrator.resume(run)
    assert run.text == "Done."
    first, second = (told(span) for span in seen.named("invoke_agent"))
    assert (first["gen_ai.usage.input_tokens"], second["gen_ai.usage.input_tokens"]) == (100, 7)
    assert (first["toolchord.task.turns"], second["toolchord.task.turns"]) == (1, 1)


# on and off


async def test_off_is_off_and_on_twice_is_once(sandbox: CodeSandbox) -> None:
    with instrumented() as first:
        with instrumented() as second:
            await sandbox.execute("search('a')")
        await sandbox.execute("search('a')")
    assert first.spans == []
    assert len(second.spans) == 3
    assert not observing._observers
    telemetry.uninstrument()


async def test_code_for_which_instrumentation_is_suppressed_is_not_told_of(seen: Seen, sandbox: CodeSandbox) -> None:
    with suppress_instrumentation():
        assert (await sandbox.execute("search('a')")).ok
    assert seen.spans == []


async def test_without_an_sdk_nothing_is_made_and_nothing_breaks(sandbox: CodeSandbox) -> None:
    telemetry.instrument()
    try:
        result = await sandbox.execute("search('a')\nfail(1)")
    finally:
        telemetry.uninstrument()
    assert result.error is not None
    assert result.record is not None
    assert result.record.traceparent == ""


async def test_a_run_that_is_not_sampled_is_told_as_such_to_the_next_attempt(sandbox: CodeSandbox) -> None:
    from opentelemetry.sdk.trace.sampling import ALWAYS_OFF

    telemetry.instrument(tracer_provider=TracerProvider(sampler=ALWAYS_OFF), capture_content=True)
    try:
        result = await sandbox.execute("search('a')")
    finally:
        telemetry.uninstrument()
    assert result.record is not None
    assert result.record.traceparent[-2:] in ("00", "02")  # a trace, and the flag for "sampled" is not set


def test_a_wrong_switch_is_told() -> None:
    with pytest.raises(ConfigurationError, match="capture_content"):
        telemetry.instrument(capture_content="yes")  # type: ignore[arg-type]


@pytest.mark.parametrize(("said", "spans", "logs"), [("", 1, 0), ("logs", 0, 2), ("logs/dup", 1, 2)])
async def test_exceptions_go_where_the_application_wants_them(
    monkeypatch: pytest.MonkeyPatch, sandbox: CodeSandbox, said: str, spans: int, logs: int
) -> None:
    monkeypatch.setenv("OTEL_SEMCONV_EXCEPTION_SIGNAL_OPT_IN", said)
    with instrumented() as seen:
        await sandbox.execute("fail(1)")
    call = seen.one("execute_tool fail")
    assert len(call.events) == spans
    assert len(seen.logs) == logs
    for record in seen.logs:
        assert record.event_name == "gen_ai.execute_tool.exception"
        assert record.attributes["exception.type"] == "ValueError"
    if logs:
        assert call.context is not None
        assert call.context.span_id in {record.span_id for record in seen.logs}


async def test_an_observer_that_fails_disturbs_nothing(sandbox: CodeSandbox, caplog: pytest.LogCaptureFixture) -> None:
    def broken(note: observing.Note) -> Any:
        if isinstance(note, observing.CallNote):
            raise RuntimeError("not even begun")

        def end() -> None:
            raise RuntimeError("not ended")

        return end

    observing.observe(broken)
    try:
        result = await sandbox.execute("return len(search('a'))")
    finally:
        observing.unobserve(broken)
    assert result.value == 2
    assert [record.levelname for record in caplog.records if record.name == "toolchord"] == ["ERROR", "ERROR"]
