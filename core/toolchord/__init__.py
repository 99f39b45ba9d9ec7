"""Toolchord: many tools, one gesture."""

from __future__ import annotations

from toolchord.approvals import ApprovalRequest, Approvals, Decision, Unclear
from toolchord.catalogue import Catalogue, Exposed
from toolchord.chat import Reply, TokenUsage, ToolRequest
from toolchord.choice import Choice, choose
from toolchord.compensation import compensate
from toolchord.durable import DurableJournal
from toolchord.extraction import extract_program
from toolchord.identity import CallIdentity, call_cancelled, charge, current_call
from toolchord.journal import Journal
from toolchord.lasting import LastingSessions
from toolchord.ledger import RunLedger, ToolTotals
from toolchord.limits import Limits
from toolchord.observed import ShapeStore
from toolchord.orchestrator import Attempt, OrchestratedRun, Orchestrator
from toolchord.policy import Bounds, Policy, allow, ask, deny
from toolchord.pool import IsolationReport
from toolchord.prompt import format_tools_for_llm
from toolchord.recording import RunRecord
from toolchord.registry import (
    ToolInfo,
    ToolRegistry,
    create_registry,
    get_default_registry,
    register_tool,
    reset_registry,
)
from toolchord.results import CallRecord, ExecutionResult, Output, RunError, Usage
from toolchord.rows import Codec, JournalStore, MemoryStore, SealedStore
from toolchord.sandbox import CodeSandbox, Session
from toolchord.sqlite import SQLiteStore
from toolchord.tools import Tool, ToolCapability, ToolMetadata, ToolSpec, ValidatedTool, open_to, tool_from
from toolchord.trace import LiveTrace, Trace, TracedCall
from toolchord.variables import Variables

__all__ = [
    "ApprovalRequest",
    "Approvals",
    "Attempt",
    "Bounds",
    "CallIdentity",
    "CallRecord",
    "Catalogue",
    "Choice",
    "CodeSandbox",
    "Codec",
    "Decision",
    "DurableJournal",
    "ExecutionResult",
    "Exposed",
    "IsolationReport",
    "Journal",
    "JournalStore",
    "LastingSessions",
    "Limits",
    "LiveTrace",
    "MemoryStore",
    "OrchestratedRun",
    "Orchestrator",
    "Output",
    "Policy",
    "Reply",
    "RunError",
    "RunLedger",
    "RunRecord",
    "SQLiteStore",
    "SealedStore",
    "Session",
    "ShapeStore",
    "TokenUsage",
    "Tool",
    "ToolCapability",
    "ToolInfo",
    "ToolMetadata",
    "ToolRegistry",
    "ToolRequest",
    "ToolSpec",
    "ToolTotals",
    "Trace",
    "TracedCall",
    "Unclear",
    "Usage",
    "ValidatedTool",
    "Variables",
    "allow",
    "ask",
    "call_cancelled",
    "charge",
    "choose",
    "compensate",
    "create_registry",
    "current_call",
    "deny",
    "extract_program",
    "format_tools_for_llm",
    "get_default_registry",
    "open_to",
    "register_tool",
    "reset_registry",
    "tool_from",
]
