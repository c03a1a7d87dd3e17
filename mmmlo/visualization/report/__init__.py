"""The page of a run: one HTML file of everything that its work dir tells."""

from .page import write_report
from .run import Run, find_runs

__all__ = ['Run', 'find_runs', 'write_report']
