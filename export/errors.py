"""What can go wrong in an export, each with the remedy in its message."""

from __future__ import annotations


class ExportError(Exception):
    """The export cannot go on; the message names the file and what to do."""


class WeightsError(ExportError):
    """Weights that cannot become a model of the contract."""


class MissingPackageError(ExportError):
    """A package that only the export needs is not installed."""


class EngineError(ExportError):
    """An engine that cannot be built or does not fit this machine."""
