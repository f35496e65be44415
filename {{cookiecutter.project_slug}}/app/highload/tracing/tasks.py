"""Spans of Celery's tasks: what a worker does for a message goes on in the trace of those who have sent it."""

from contextlib import ExitStack
from typing import Any

from celery import Task
from celery.signals import before_task_publish, task_postrun, task_prerun
from opentelemetry.trace import SpanKind

from app.highload.tracing.spans import TRACEPARENT, caller_in, headers_of_message, span

# What ends with each task.
running: dict[str, ExitStack] = {}


def trace_tasks() -> None:
    """Trace the tasks of this process from now on."""
    task_prerun.connect(begin_task)
    task_postrun.connect(end_task)
    before_task_publish.connect(continue_trace)


def begin_task(task: Task[..., Any], task_id: str, **_: object) -> None:
    """Begin the span of a task whose message is part of a trace."""
    caller = caller_in(task.request.get(TRACEPARENT) or "")
    if not caller.trace_flags.sampled:
        return
    stack = running[task_id] = ExitStack()
    attributes: dict[str, str | int] = {
        "messaging.system": "rabbitmq",
        "messaging.operation.type": "process",
        "messaging.message.id": task_id,
    }
    stack.enter_context(span(f"process {task.name}", [caller], attributes, SpanKind.CONSUMER))


def end_task(task_id: str, **_: object) -> None:
    """End the span of a task."""
    stack = running.pop(task_id, None)
    if stack is not None:
        stack.close()


def continue_trace(headers: dict[str, Any], **_: object) -> None:
    """Let a message that a task sends be part of its trace."""
    headers.update(headers_of_message())
