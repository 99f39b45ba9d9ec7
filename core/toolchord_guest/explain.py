"""What a model needs to repair a program that failed: what values looked like, the nearest name, the smallest fix."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from toolchord_guest.advice import RULES
from toolchord_guest.places import place_of
from toolchord_guest.shapes import name_of
from toolchord_guest.typeadvice import quoted

_LONGEST = 3000


def explain(error: BaseException, source: str, filename: str, tools: Iterable[str]) -> str:
    """A few lines that say how to repair the program; empty if there is nothing to add to the error itself."""
    leaf = _leaf(error)
    place = place_of(leaf, source, filename)
    advice = next((a for rule in RULES if (a := rule(leaf, place, tools)) is not None), None)
    fix = _redefined(source, tools)  # the one fix, for whatever else is wrong came of it
    if advice is None:
        return f"Fix: {fix}" if fix else ""
    first = "" if leaf is error else f"The first of them: {name_of(leaf)} (line {place.line}): {str(leaf)[:300]}"
    fix = fix or advice.fix
    lines = [first, advice.value, f"Fix: {fix}" if fix else ""]
    return "\n".join(line for line in lines if line)[:_LONGEST]


def _redefined(source: str, tools: Iterable[str]) -> str:
    """Small models copy the tools' stubs into their programs, and make up what the tools would give."""
    defined = re.findall(r"^(?:async[ \t]+)?def[ \t]+(\w+)", source, re.MULTILINE)
    own = [name for name in dict.fromkeys(defined) if name in set(tools)]
    if not own:
        return ""
    which = f"{own[0]} is a tool that is" if len(own) == 1 else f"{', '.join(own)} are tools that are"
    return f"remove {' and '.join(f'`def {name}`' for name in own)} from the program: {which} there already"


def _leaf(error: BaseException) -> BaseException:
    """The first error of a group, which is the one that a program has to deal with."""
    while isinstance(error, BaseExceptionGroup) and error.exceptions:
        error = error.exceptions[0]
    return error


# programs that can't be read


def explain_syntax(error: SyntaxError, source: str) -> str:
    """The line that can't be read, and what to write instead."""
    message = error.msg or ""
    lines = source.splitlines()
    line = lines[error.lineno - 1].strip() if error.lineno and error.lineno <= len(lines) else ""
    shown = f"Line {error.lineno} is: {line[:200]}" if line else ""
    fix = next((fix for fix in _syntax_fixes(message, line, source, error.lineno or 0)), "")
    return "\n".join(part for part in (shown, f"Fix: {fix}" if fix else "") if part)[:_LONGEST]


def _syntax_fixes(message: str, line: str, source: str, number: int) -> Iterator[str]:
    if line.startswith("```") or "\n```" in f"\n{source}":
        yield "leave the Markdown fence (```) out: send only the program"
    if "outside async function" in message or "asynchronous" in message:
        yield "write `async def` for the function that awaits"
    if re.match(r"(const|let|var)\s", line):
        yield "this is JavaScript; in Python write " + re.sub(r"^(const|let|var)\s+", "", line).rstrip(";")
    if re.search(r"=>|\bfunction\b|&&|\|\||!==|===|\bnew \w+\(", line):
        yield "this is JavaScript; in Python write lambda x: …, def, and, or, !=, =="
    if "Missing parentheses in call to 'print'" in message:
        yield "write print(…)"
    if re.search(r"\belse if\b", line):
        yield "write elif"
    if re.search(r"\+\+|--", line):
        yield "write += 1"
    if "f-string" in message or re.search(r"""f"[^"]*\{[^}"]*"|f'[^']*\{[^}']*'""", line):
        yield "use other quotes inside the braces than around the f-string: f\"{x['a']}\""
    if "was never closed" in message:
        yield f"close {quoted(message)} that is open on line {number}; if the program was cut off, send all of it"
    if "unterminated" in message:
        yield "close the quotes; text of several lines needs three of them"
    if "expected ':'" in message:
        yield "end the line with a colon"
    if "expected an indented block" in message:
        yield "write something below it, at least pass"
    if "unexpected indent" in message or "unindent does not match" in message or "inconsistent use of tabs" in message:
        yield "indent by four spaces a level, all alike"
    if "cannot assign" in message or "Maybe you meant '=='" in message:
        yield "write == to compare, = to assign to a name"
    if "comma" in message:
        yield "put a comma, or an operator, between the two values"
    if re.search(r"^(Here|Sure|The|This|I |To |Let's|First)\b", line):
        yield "send only the program, without the sentences around it"
    if "positional argument follows keyword argument" in message:
        yield "put the arguments without a name first"
    if "invalid non-printable character" in message or "invalid character" in message:
        yield "write plain quotes, dashes and spaces instead of typographic ones"
    if "return" in message and "outside" in message:
        yield "put it into a function, or at the top level of the program"
