"""One metric a file; protocols.py says how a metric is averaged over cases and videos."""
