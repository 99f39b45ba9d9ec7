"""What a run leaves for the model and for a person; what is masked in it."""

from __future__ import annotations

import datetime as dt
import io
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from toolchord import CallRecord, CodeSandbox, ExecutionResult, RunError, RunRecord
from toolchord import errors as err
from toolchord.errors import ConfigurationError
from toolchord.redact import MASK, redact
from toolchord.results import render, shorten


def fetch(n: int) -> int:
    if n > 2:
        raise ValueError(f"no item {n}")
    return n * 10


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def sandbox() -> AsyncIterator[CodeSandbox]:
    async with CodeSandbox(tools=[fetch]) as sandbox:
        yield sandbox


def seen(result: ExecutionResult) -> str:
    console = Console(file=io.StringIO(), width=160, force_terminal=False)
    console.print(result)
    text: str = console.file.getvalue()  # type: ignore[attr-defined]
    return text


# Text for the model


@given(st.text(max_size=3000), st.text(max_size=3000), st.text(max_size=500), st.integers(-5, 4000))
def test_the_models_text_is_never_longer_than_asked_for(value: str, stdout: str, stderr: str, limit: int) -> None:
    result = ExecutionResult(value=value, stdout=stdout, stderr=stderr, returned=True)
    assert len(result.for_model(limit)) <= max(0, limit)


@given(st.text(max_size=400), st.integers(0, 500))
def test_a_shortened_text_is_itself_or_fits(text: str, limit: int) -> None:
    short = shorten(text, limit)
    assert short == text if len(text) <= limit else len(short) <= limit


def test_a_shortened_text_has_its_head_and_tail_and_says_how_much_is_gone() -> None:
    text = "".join(f"{n:05}" for n in range(2000))
    short = shorten(text, 500)
    head, _, tail = short.partition("\n... [")
    cut = int(tail.split(" ")[0])
    tail = tail.partition("...\n")[2]
    assert text.startswith(head)
    assert text.endswith(tail)
    assert len(head) + cut + len(tail) == len(text)
    assert len(head) > 100
    assert len(tail) > 100


def test_a_long_value_does_not_push_the_output_out() -> None:
    result = ExecutionResult(value="v" * 50_000, stdout="printed " * 20_000 + "the end", returned=True)
    text = result.for_model(2000)
    assert text.startswith("vvv")
    assert "Printed:\nprinted" in text
    assert text.endswith("the end")
    assert text.count("characters cut") == 2


def test_the_models_text_can_always_be_sent() -> None:
    result = ExecutionResult(value="a\ud800b", stdout="\udfff", returned=True)
    assert "\\ud800" in result.for_model()
    result.for_model().encode()


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("as it is", "as it is"),
        ({"a": [1, None, True, "ü"]}, '{"a": [1, null, true, "ü"]}'),
        ({1, 2}, "{1, 2}"),
        (float("nan"), "nan"),
        ([dt.date(2024, 1, 2)], "[datetime.date(2024, 1, 2)]"),
        ({(1, 2): 3}, "{(1, 2): 3}"),
        (b"ab", "b'ab'"),
    ],
)
def test_a_value_is_json_where_json_can_say_it_and_python_elsewhere(value: Any, text: str) -> None:
    assert render(value) == text


def test_a_value_that_has_no_text_is_told_of() -> None:
    assert "int that can't be shown" in render(10**5000)
    deep: Any = 1
    for _ in range(100_000):
        deep = [deep]
    assert "list that can't be shown" in render(deep)
    while isinstance(deep, list):  # taken apart by hand: some interpreters recurse to do it
        deep = deep.pop()


def test_a_run_without_value_or_output_says_so() -> None:
    assert "without a value and printed nothing" in ExecutionResult().for_model()
    assert ExecutionResult(stdout="hello\n").for_model() == "hello"
    assert ExecutionResult(returned=True).for_model() == "null"


@pytest.mark.asyncio(loop_scope="module")
async def test_a_failure_tells_the_line_the_error_the_calls_and_the_output(sandbox: CodeSandbox) -> None:
    result = await sandbox.execute("print('begin')\na = fetch(1)\nb = fetch(n=2)\n\nc = fetch(3)\nreturn a")
    text = result.for_model()
    assert result.error is not None
    assert (result.error.type, result.error.line) == ("ValueError", 5)
    for part in (
        "ValueError (line 5): no item 3",
        "c = fetch(3)",
        "Calls that already happened",
        "line 2: fetch(n=1) -> ok",
        "line 3: fetch(n=2) -> ok",
        "line 5: fetch(n=3) -> ValueError: no item 3",
        "Printed:\nbegin",
    ):
        assert part in text
    assert str(result) == text


def test_many_calls_are_cut_and_odd_arguments_do_not_break_the_text() -> None:
    calls = [CallRecord(n, "default.f", {"n": n}, n, status="ok") for n in range(1, 31)]
    calls[0].arguments = {"n": 10**5000, "s": "x" * 5000}
    result = ExecutionResult(error=RunError("ValueError", "no", 3), calls=calls)
    text = result.for_model()
    assert "(a int that" in text
    assert "- and 10 more" in text
    assert "(a int" in " ".join(seen(ExecutionResult(error=result.error, calls=calls[:5])).split())


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (RunError("ValueError", "m", 3), err.ProgramError),
        (RunError("SyntaxError", "m", 3, "syntax"), err.ProgramError),
        (RunError("ProgramRefused", "m", 3, "refused"), err.ProgramRefused),
        (RunError("LimitExceeded", "m", 3, "limit", limit="memory"), err.LimitExceeded),
        (RunError("UnsupportedValue", "m", 3, "value", path="$.x"), err.UnsupportedValue),
        (RunError("GuestDied", "m", 3, "died"), err.GuestDied),
        (RunError("GuestDied", "m", 3, "protocol"), err.GuestDied),
        (RunError("ReplayDivergence", "m", 3, "divergence", position=4), err.ReplayDivergence),
    ],
)
def test_a_failed_run_raises_the_error_of_its_kind(error: RunError, kind: type[err.ProgramError]) -> None:
    with pytest.raises(kind, match="line 3: ") as caught:
        ExecutionResult(error=error).raise_for_error()
    assert type(caught.value) is kind
    assert caught.value.line == 3
    for name in ("limit", "path", "position"):
        if (said := getattr(error, name)) is not None:
            assert getattr(caught.value, name) == said


def test_a_good_run_raises_nothing() -> None:
    ExecutionResult(value=1).raise_for_error()


# For a person


@pytest.mark.asyncio(loop_scope="module")
async def test_a_terminal_shows_the_state_the_value_the_calls_and_the_output(sandbox: CodeSandbox) -> None:
    text = seen(await sandbox.execute("print('[bold]not markup[/bold]')\nreturn {'answer': fetch(2)}"))
    for part in ("ok in", "1 tool call", '{"answer": 20}', "fetch(n=2)", "[bold]not markup[/bold]"):
        assert part in text


@pytest.mark.asyncio(loop_scope="module")
async def test_a_terminal_shows_why_a_run_failed(sandbox: CodeSandbox) -> None:
    text = seen(await sandbox.execute("fetch(9)"))
    for part in ("failed in", "ValueError (line 1): no item 9", "ValueError: no item 9"):
        assert part in text


@given(st.text(max_size=300), st.text(max_size=300))
def test_a_terminal_shows_any_text(value: str, stdout: str) -> None:
    seen(ExecutionResult(value=value.replace("\ud800", ""), stdout=stdout, returned=True))


# Records


@pytest.mark.asyncio(loop_scope="module")
async def test_a_record_goes_through_json_and_replays_to_the_same_result(sandbox: CodeSandbox) -> None:
    code = "import random, time\nprint(x)\n[fetch(1), random.random(), time.time(), b'\\xff', {1: (2, 'ü' * 99999)}]"
    result = await sandbox.execute(code, inputs={"x": {"when": dt.date(2024, 1, 2), 3: {4}}})
    assert result.error is None
    assert result.record is not None
    again = RunRecord.from_json(result.record.to_json())
    assert again == result.record
    replayed = await sandbox.replay(again)
    assert (replayed.value, replayed.stdout, replayed.error) == (result.value, result.stdout, None)
    assert all(call.replayed for call in replayed.calls)


@pytest.mark.parametrize("text", ["", "{}", "[]", "null", '{"code": 1}', b"\xff", '{"format": 1}', "x" * 100])
def test_what_is_no_record_is_refused(text: str | bytes) -> None:
    with pytest.raises(ConfigurationError, match="not a run record"):
        RunRecord.from_json(text)


def test_a_record_of_another_format_is_refused() -> None:
    text = RunRecord("1", b"", [], "restricted", 1, 0.0, format=99).to_json()
    with pytest.raises(ConfigurationError, match="format 99"):
        RunRecord.from_json(text)


# Credentials

SECRETS = [
    ("Authorization: Bearer abcdef123456", "abcdef123456"),
    ("Authorization: Basic dXNlcjpwYXNz", "dXNlcjpwYXNz"),
    ("got header bearer ya29.a0AfH6SMBx", "ya29.a0AfH6SMBx"),
    ("postgres://admin:hunter@db.local/x", "hunter"),
    ("redis://:hunter@cache:6379", "hunter"),
    ("DB_PASSWORD=hunter", "hunter"),
    ("password: hunter2,", "hunter2"),
    ("password = 'correct horse battery'", "battery"),
    ('{"client_secret": "open sesame"}', "sesame"),
    ("{'api_key': 'abcd-efgh'}", "abcd-efgh"),
    ("apiKey=abcdefgh&x=1", "abcdefgh"),
    ("X-Api-Key: abc-def-ghi", "abc-def-ghi"),
    ("access_token=abcdefgh", "abcdefgh"),
    ("accessToken: abcd1234", "abcd1234"),
    ("AWS_SECRET_ACCESS_KEY=wJalrXUtnFEMI", "wJalrXUtnFEMI"),
    ("the password is hunter2", "hunter2"),
    ('the secret was "open sesame"', "sesame"),
    ("key sk-proj-abcdefghij1234567890 is wrong", "abcdefghij1234567890"),
    ("sk_live_4eC39HqLyjWDarjtT1zdp7dc", "4eC39HqLyjWDarjtT1zdp7dc"),
    ("ghp_abcdefghijklmnopqrstuvwxyz012345", "abcdefghijklmnopqrstuvwxyz012345"),
    ("AKIAIOSFODNN7EXAMPLE", "IOSFODNN7EXAMPLE"),
    ("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.sig-nature", "eyJzdWIi"),
    ("-----BEGIN RSA PRIVATE KEY-----\nMIIEow\n-----END RSA PRIVATE KEY-----", "MIIEow"),
    ("-----BEGIN PRIVATE KEY-----\nMIIEow (cut)", "MIIEow"),
]


@pytest.mark.parametrize(("text", "secret"), SECRETS)
def test_what_looks_like_a_credential_is_masked(text: str, secret: str) -> None:
    masked = redact(text)
    assert secret not in masked
    assert MASK in masked


@pytest.mark.parametrize(
    "text",
    [
        "no item 3",
        "basic authentication is required",
        "Basic Authentication is not supported",
        "the bearer certificate has expired",
        "The password is required",
        "password: Field required",
        "token is invalid",
        "auth failed: token expired",
        "max_tokens=4096, total_tokens: 123456",
        "token=128",
        "author: Shakespeare, authors=['A']",
        "passengers: 1234, passed: 1200, bypass=maybe, compass: north",
        "secretary: Margaret",
        "unexpected argument 'skip_validation_errors'",
        "a skeleton-based_position of skateboardings",
        "It is called as login(user: str, password: str, token: string, api_key: Optional[str])",
        "missing argument 'api_key'",
        "https://example.org:8080/path?page=2",
        "tokenizer: cl100k_base",
        "[Errno 2] No such file or directory: '/data/x.csv'",
    ],
)
def test_ordinary_text_stays(text: str) -> None:
    assert redact(text) == text


def test_this_processs_own_secrets_are_masked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACME_API_KEY", "quite plain words")
    monkeypatch.setenv("ACME_REGION", "europe-west")
    assert redact("in europe-west: quite plain words?") == f"in europe-west: {MASK}?"


@pytest.mark.parametrize(
    "piece", ["pass", "sk-", "a-sk-", "token ", "://:", "eyJ", "a_", "passPASS", "-----BEGIN PRIVATE KEY"]
)
@pytest.mark.timeout(20)
def test_no_text_keeps_the_masking_busy(piece: str) -> None:
    redact(piece * (200_000 // len(piece)))  # a pattern that backtracks would take hours


@pytest.mark.asyncio(loop_scope="module")
async def test_a_tools_error_reaches_the_program_and_the_records_masked(sandbox: CodeSandbox) -> None:
    def connect() -> None:
        raise ConnectionError("can't reach postgres://admin:hunter@db.local/x")

    code = "try:\n    connect()\nexcept ConnectionError as e:\n    print(e, e.args)\nconnect()"
    result = await sandbox.execute(code, tools=[connect])
    assert result.error is not None
    for text in (result.stdout, str(result.error), result.for_model(), str(result.calls[0].error)):
        assert "hunter" not in text
        assert "db.local" in text
