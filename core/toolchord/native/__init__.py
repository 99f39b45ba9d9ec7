"""What the adapters of models' providers share: tools under flat names, every call once, and the loop around a model.

An adapter gives a `Conversation`, which knows one provider's wire form; `drive` does the rest.
"""

from __future__ import annotations

from toolchord.native.blocking import called, is_async, items_of, iterate, opened
from toolchord.native.calls import Answer, Asked, CallDesk
from toolchord.native.export import Exported, export
from toolchord.native.given import Messages, conversation_of, ledger_of, require_positive
from toolchord.native.ledger import Ledger, NativeCall
from toolchord.native.loop import Conversation, Reply, StreamEnded, drive, last
from toolchord.native.results import ModelRun, Program, Restarted, TokenUsage, count

__all__ = [
    "Answer",
    "Asked",
    "CallDesk",
    "Conversation",
    "Exported",
    "Ledger",
    "Messages",
    "ModelRun",
    "NativeCall",
    "Program",
    "Reply",
    "Restarted",
    "StreamEnded",
    "TokenUsage",
    "called",
    "conversation_of",
    "count",
    "drive",
    "export",
    "is_async",
    "items_of",
    "iterate",
    "last",
    "ledger_of",
    "opened",
    "require_positive",
]
