"""Models behind OpenAI's API, and the many servers that speak it.

`chat_model` makes a model for `toolchord.Orchestrator` of an SDK client.
"""

from __future__ import annotations

from toolchord.errors import MissingExtraError

try:
    import openai  # noqa: F401
except ModuleNotFoundError as error:
    if error.name != "openai":
        raise
    raise MissingExtraError("toolchord_openai", "openai") from None

from toolchord_openai.completions import CompletionsModel, chat_model

__all__ = ["CompletionsModel", "chat_model"]
