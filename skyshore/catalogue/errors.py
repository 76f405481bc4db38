"""Errors of the catalogue."""

from __future__ import annotations

from skyshore.domain.errors import NotFound, PermissionDenied, SkyshoreError


class CatalogueError(SkyshoreError):
    """A model or clip could not be built; the message says what to install or do."""

    code = "catalogue"


class UnknownEntry(NotFound):
    """The table has no entry of that name."""


class NotFetched(NotFound):
    """The entry exists, but it is not in the cache yet."""


class LicenceNotAccepted(PermissionDenied):
    """The entry is opt-in and the caller did not accept its licence."""


class SourceUnavailable(CatalogueError):
    """The package client is missing or failed, most often because there is no network."""

    code = "source_unavailable"


class CorruptFile(CatalogueError):
    """A file differs from the one that the table pins, or changed since it was written."""

    code = "corrupt_file"


class UnsupportedGraph(CatalogueError):
    """A graph has something that the converter cannot express."""

    code = "unsupported_graph"
