"""What can go wrong between a name in the table and a file in the cache."""

from __future__ import annotations

from skyshore.domain.errors import NotFound, PermissionDenied, SkyshoreError


class CatalogueError(SkyshoreError):
    """A model or clip could not be made ready; the message says what to install or do."""

    code = "catalogue"


class UnknownEntry(NotFound):
    """No entry of that name in the table."""


class NotFetched(NotFound):
    """The entry exists, but the cache does not hold it yet."""


class LicenceNotAccepted(PermissionDenied):
    """The entry is opt-in and the caller did not accept its licence."""


class SourceUnavailable(CatalogueError):
    """The package client is missing or failed, most often for want of a network."""

    code = "source_unavailable"


class CorruptFile(CatalogueError):
    """A file is not the one the table pins, or changed since it was written."""

    code = "corrupt_file"


class UnsupportedGraph(CatalogueError):
    """The converter met something in a graph that it does not know how to express."""

    code = "unsupported_graph"
