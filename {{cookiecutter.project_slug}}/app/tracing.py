"""Traces: spans of requests, of queued rows and of statements, sent to a collector by OTLP over HTTP."""
