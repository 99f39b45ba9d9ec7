"""Owns finding the program in what a model wrote: a fenced block, several, a fence that is missing or never closed.

Text is looked at, never parsed as Python: the host reads nothing that a program wrote. `extract_program` serves text,
`program_in_arguments` the arguments of a tool call, which models don't always write as JSON.
"""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

__all__ = ["extract_program", "program_in_arguments"]

_FENCE = re.compile(r"^(?P<indent>[ \t>]*)(?P<fence>`{3,}|~{3,})[ \t]*(?P<info>[^\n`]*)$", re.MULTILINE)
_TAGS = re.compile(
    r"<(?P<tag>execute|code|python|py|tool_code|execute_python|run_code|program|script)>"
    r"(?P<body>.*?)(?:</(?P=tag)>|\Z)",
    re.DOTALL | re.IGNORECASE,
)
_THOUGHT = re.compile(r"<(think|thinking|reasoning|scratchpad)>.*?(?:</\1>|\Z)", re.DOTALL | re.IGNORECASE)
_PYTHON = frozenset({"python", "py", "python3", "python 3", "tool_code", "pycon", "ipython", "py3"})
_OTHER = frozenset(
    "json jsonc yaml yml toml xml html css javascript js typescript ts jsx tsx bash sh shell zsh console text txt "
    "plaintext output stdout result sql csv diff markdown md log http ini".split()
)
_CODE_ARGUMENTS = ("code", "program", "source", "script", "python", "input", "command")
_LINE = re.compile(
    r"""^(?:
        (?:import|from)\s+[\w.]+ | async\s+(?:def|for|with)\b | (?:def|class)\s+\w+
        | (?:for|while|if|with|try|match)\b.*:\s*(?:\#.*)?$ | (?:else|finally|except\b.*|elif\b.*):\s*$
        | (?:return|await|raise|print|assert|yield|del|global)\b | @\w+
        | [\w.\[\]'", ()*]+\s*(?:[+\-*/|&]?=)(?!=)\s*\S | [\w.]+\(.*\)?\s*$ | [\])}]+,?\s*$
    )""",
    re.VERBOSE,
)
_SURE = re.compile(
    r"^[ \t]*(?:import\s+\w|from\s+[\w.]+\s+import\b|async\s+def\b|def\s+\w+\(|(?:\w+\s*=\s*)?await\s+\w"
    r"|return\s+await\s)",
    re.MULTILINE,
)
_SENTENCE = re.compile(r"^[A-Z][a-z]*(?:'\w+)?,? (?:\w+[,'\u2019]?\w* ){2,}")
_LOOKED_AT = 300  # characters of a line; patterns may take quadratic time on longer ones
_PROMPT = re.compile(r"^(?:>>>|\.\.\.)(?: |$)")


class _Block(NamedTuple):
    language: str
    body: str
    closed: bool


def extract_program(text: str) -> str | None:
    """The program in a model's answer, or None if there is none.

    Blocks that say they are Python win over blocks that say nothing; those of another language are left out. Several
    are one program if a later one builds on an earlier one, that is unless it is a corrected version of it: then the
    last counts. Without any fence, text that begins like code and reads like code to its end is the program.

    Args:
        text: the answer, as the model wrote it.
    """
    text = _THOUGHT.sub("", text.replace("\r\n", "\n"))
    blocks = [block for block in _blocks(text) if block.body.strip()]
    if (program := _of_blocks(blocks)) is not None:
        return program
    if found := [match["body"] for match in _TAGS.finditer(text) if match["body"].strip()]:
        return _of_blocks(list(_blocks(found[-1]))) or _clean(found[-1])
    return None if blocks else _unfenced(text)


def _of_blocks(blocks: list[_Block]) -> str | None:
    chosen = [block for block in blocks if block.language in _PYTHON]
    if not chosen:
        chosen = [block for block in blocks if not block.language and _reads_like_code(block.body)]
    return _whole([_clean(block.body) for block in chosen]) if chosen else None


def program_in_arguments(arguments: Mapping[str, Any] | str | None) -> str | None:
    """The program in a tool call's arguments: an object with a ``code`` (or the like), JSON text of one, or bare code.

    Args:
        arguments: as the provider gives them; text that is no JSON is looked through, since models forget to escape.
    """
    if isinstance(arguments, Mapping):
        return _of_mapping(arguments)
    if not arguments or not arguments.strip():
        return None
    try:
        parsed = json.loads(arguments, strict=False)  # models write line breaks as they are
    except ValueError:
        return _of_broken_json(arguments)
    if isinstance(parsed, str):
        return extract_program(parsed) or _clean(parsed)
    return _of_mapping(parsed) if isinstance(parsed, Mapping) else None


def _of_mapping(arguments: Mapping[str, Any]) -> str | None:
    names = [name for name in _CODE_ARGUMENTS if name in arguments]
    names = names or (list(arguments) if len(arguments) == 1 else [])
    for name in names:
        value = arguments[name]
        if isinstance(value, list) and all(isinstance(line, str) for line in value):
            value = "\n".join(line.rstrip("\n") for line in value)
        if isinstance(value, str) and value.strip():
            fenced = _FENCE.search(value)
            return (extract_program(value) if fenced else None) or _clean(value)
    return None


def _of_broken_json(text: str) -> str | None:
    """The code in ``{"code": "…}`` that no JSON reader takes, or the text itself if it is code."""
    opened = re.match(r"""\s*\{\s*["']?(?:code|program|source|script)["']?\s*:\s*("{3}|'{3}|["'`])""", text)
    if opened is None:
        return extract_program(text) or (_clean(text) if _reads_like_code(text) else None)
    quote = opened[1]
    body = text[opened.end() :].rstrip()
    for ending in ("}", ",", quote):
        body = body.removesuffix(ending).rstrip()
    if "\n" not in body.strip() and "\\n" in body:
        body = body.replace("\\n", "\n").replace('\\"', '"').replace("\\t", "\t").replace("\\\\", "\\")
    elif quote == '"':
        body = body.replace('\\"', '"')
    return _clean(body) or None


def _blocks(text: str) -> Iterator[_Block]:
    """Fenced blocks in order; a fence that is never closed runs to the end of the text."""
    position = 0
    while (opening := _FENCE.search(text, position)) is not None:
        fence = opening["fence"]
        language = opening["info"].strip().strip("{}.").lower().partition(" ")[0] if opening["info"] else ""
        end = None
        for closing in _FENCE.finditer(text, opening.end()):
            if closing["fence"][0] == fence[0] and len(closing["fence"]) >= len(fence) and not closing["info"].strip():
                end = closing
                break
        body = text[opening.end() + 1 : end.start() if end else len(text)]
        yield _Block(_language(language), _unquoted(body, opening["indent"]), end is not None)
        if end is None:
            return
        position = end.end()


def _language(info: str) -> str:
    known = info if info in _PYTHON or info in _OTHER else ""
    return known or ("?" if info and not info.isdigit() and info not in ("code", "program") else "")


def _unquoted(body: str, indent: str) -> str:
    """A block without the indentation of the list or quotation that it stands in."""
    if not indent:
        return body
    return "\n".join(line.removeprefix(indent) for line in body.split("\n"))


def _whole(programs: list[str]) -> str:
    """Several blocks as one program: the last one, with those before it that it builds on."""
    last = programs[-1]
    if len(programs) == 1 or any(_names(last) >= _names(one) and _names(one) for one in programs[:-1]):
        return last  # it defines all that an earlier one does: a corrected version
    kept = [one for one in programs[:-1] if not _ends(one)]
    return "\n\n".join([*kept, last]) if kept else last


def _names(program: str) -> set[str]:
    """What a program binds, as far as lines of its own tell."""
    return set(re.findall(r"^(?:async\s+)?(?:def|class)\s+(\w+)|^(\w+)\s*=(?!=)", program, re.MULTILINE))


def _ends(program: str) -> bool:
    """Whether a block is a program of its own, which returns at its top level."""
    return re.search(r"^return\b", program, re.MULTILINE) is not None


def _clean(body: str) -> str:
    """A program without what surrounds it: prompts of a console, common indentation, empty lines at its ends."""
    lines = body.strip("\n").split("\n")
    first = next((line for line in lines if line.strip()), "")
    if _PROMPT.match(first):
        lines = [_PROMPT.sub("", line) for line in lines if _PROMPT.match(line)]
    text = "\n".join(lines)
    return textwrap.dedent(text).strip("\n").rstrip() if first[:1].isspace() else text.rstrip()


def _is_code(line: str) -> bool:
    return _LINE.match(line.strip()[:_LOOKED_AT]) is not None


def _reads_like_code(text: str) -> bool:
    lines = [line for line in text.split("\n") if line.strip() and not line.lstrip().startswith("#")]
    if not lines or text.lstrip().startswith(("{", "[{")):
        return False
    told = sum(map(_is_code, lines))
    return told * 2 >= len(lines) and not _SENTENCE.match(lines[0])


def _unfenced(text: str) -> str | None:
    """Code without a fence, perhaps after a sentence or two; only if something in it is surely code."""
    if _SURE.search(text) is None:
        return None
    lines = text.split("\n")
    start = next((n for n, line in enumerate(lines) if _is_code(line) and not _SENTENCE.match(line)), None)
    if start is None:
        return None
    end = len(lines)
    while end > start and (not lines[end - 1].strip() or _SENTENCE.match(lines[end - 1])):
        end -= 1
    body = "\n".join(lines[start:end])
    return _clean(body) if _reads_like_code(body) and _SURE.search(body) else None
