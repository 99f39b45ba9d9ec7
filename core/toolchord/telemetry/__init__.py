"""Owns what OpenTelemetry is told of runs, calls and tasks: spans, metrics and events of the GenAI conventions.

    from toolchord import telemetry

    telemetry.instrument()

It needs the extra ``telemetry``, which is OpenTelemetry's API alone; where the spans go is the business of the SDK that
an application sets up. The conventions are in development; these names are those of November 2026
(open-telemetry/semantic-conventions-genai), and `opentelemetry-util-genai` writes the same, which a test compares.
What the conventions have no name for is in the namespace ``toolchord``.
"""

from __future__ import annotations

import os

from toolchord import observing
from toolchord.errors import ConfigurationError, MissingExtraError

try:
    from opentelemetry._logs import LoggerProvider
    from opentelemetry.metrics import MeterProvider
    from opentelemetry.trace import TracerProvider
except ImportError as error:
    raise MissingExtraError("toolchord.telemetry", "telemetry") from error

from toolchord.telemetry.spans import Telemetry

__all__ = ["ToolchordInstrumentor", "instrument", "uninstrument"]

_CAPTURE = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"

_active: Telemetry | None = None


def instrument(
    *,
    tracer_provider: TracerProvider | None = None,
    meter_provider: MeterProvider | None = None,
    logger_provider: LoggerProvider | None = None,
    capture_content: bool | None = None,
) -> None:
    """From now on, tell OpenTelemetry of everything that this process runs. Called again, it replaces what was said.

    Args:
        tracer_provider, meter_provider, logger_provider: where spans, metrics and events go; the global ones if None.
        capture_content: whether programs, arguments, results and what programs say in errors are told too, masked by
            `toolchord.redact`, never those of tools with ``replay="never"``. None: as the environment variable
            ``OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT`` says (``SPAN_ONLY``, ``SPAN_AND_EVENT`` or ``true``);
            by default they are not.

    Raises:
        ConfigurationError: `capture_content` is no bool.
    """
    global _active
    if capture_content is not None and not isinstance(capture_content, bool):
        raise ConfigurationError(f"capture_content is True, False or None, not {capture_content!r}")
    uninstrument()
    if capture_content is None:
        capture_content = os.environ.get(_CAPTURE, "").strip().upper() in ("SPAN_ONLY", "SPAN_AND_EVENT", "TRUE")
    _active = Telemetry(tracer_provider, meter_provider, logger_provider, capture_content)
    observing.observe(_active.observe)
    observing.use_propagator(_active)


def uninstrument() -> None:
    """Tell OpenTelemetry nothing more; what has begun is still ended. Harmless when repeated."""
    global _active
    if _active is not None:
        observing.unobserve(_active.observe)
        observing.use_propagator(None)
    _active = None


class ToolchordInstrumentor:
    """The same as the command ``opentelemetry-instrument`` wants it, which finds it by an entry point."""

    def instrument(
        self,
        *,
        tracer_provider: TracerProvider | None = None,
        meter_provider: MeterProvider | None = None,
        logger_provider: LoggerProvider | None = None,
        **_: object,
    ) -> None:
        """See `toolchord.telemetry.instrument`; what else the command gives every instrumentation is not needed."""
        instrument(tracer_provider=tracer_provider, meter_provider=meter_provider, logger_provider=logger_provider)

    def uninstrument(self, **_: object) -> None:
        """See `toolchord.telemetry.uninstrument`."""
        uninstrument()
