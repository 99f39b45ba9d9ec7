"""Counts tokens offline, with the o200k_base vocabulary that llama-index-core ships as a file."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from functools import cache, lru_cache
from typing import Any

from demo.data import PACKAGES
from demo.models import Message

VOCABULARY = PACKAGES / "llama_index" / "core" / "_static" / "tiktoken_cache"


@cache
def encoder() -> Callable[[str], list[int]]:
    """Load the tokenizer; takes about a second.

    Raises:
        FileNotFoundError: the vocabulary is not installed; ``make demo`` installs it.
    """
    if not VOCABULARY.is_dir():
        raise FileNotFoundError(f"no vocabulary in {VOCABULARY}; run it with `make demo`, which installs it there")
    os.environ["TIKTOKEN_CACHE_DIR"] = str(VOCABULARY)
    import tiktoken

    return tiktoken.get_encoding("o200k_base").encode_ordinary


@lru_cache(maxsize=10_000)  # a history is counted again in every turn
def count(text: str) -> int:
    """Tokens of a text."""
    return len(encoder()(text))


def of_message(message: Message) -> int:
    """Tokens of a message: its text, and of each call the name and the arguments as JSON."""
    return count(message.text) + sum(count(c.name) + count(json.dumps(c.arguments)) for c in message.calls)


def of_request(system: str, messages: Sequence[Message], tools: Sequence[dict[str, Any]]) -> int:
    """Tokens of a whole request, as usage is billed: system prompt, tool definitions and all of the history.

    A provider's own framing (some tokens a message) is left out, for both ways alike.
    """
    definitions = json.dumps(list(tools), separators=(",", ":"))  # as the SDKs send them
    return count(system) + count(definitions) + sum(map(of_message, messages))
