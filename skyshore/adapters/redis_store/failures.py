"""The one table from failures of the store to domain errors: what happened in plain words, and what to do next.

Callers never see the address or the server's own words: these are in `StoreUnavailable.detail`, for the log.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from google.protobuf.message import DecodeError
from redis import exceptions

from skyshore.domain.errors import SkyshoreError, StoreBusy, StoreUnavailable

RETRY_AFTER_S = 1.0

FAILURES = (exceptions.RedisError, OSError)
"""What a command raises when the store, or the way to it, fails. OSError includes Python's own TimeoutError."""
_LOST = ("handler is closed", "Transport closed", "unable to perform operation on")
"""Words of the RuntimeError that an event loop raises for a connection that was lost a moment ago."""
BUGS = (exceptions.DataError, exceptions.PubSubError, exceptions.WatchError)
"""RedisErrors that say that our own code is wrong. They are not translated."""
UNREADABLE = (ValueError, TypeError, LookupError, AttributeError, RecursionError, DecodeError, SkyshoreError)
"""What decoding raises for data that this version did not write."""


@dataclass(frozen=True, slots=True)
class _Row:
    pattern: str
    """Found in the server's words, or in the name of redis-py's class, which may replace the first word."""
    message: str


_START_IT = "start it or set SKYSHORE_REDIS_URL"
_ROWS = (
    _Row(r"\bOOM\b|OutOfMemory", "is out of memory; give it more (maxmemory), or delete what is not needed"),
    _Row(r"\bREADONLY\b|ReadOnly", "is a read-only replica; point SKYSHORE_REDIS_URL at the primary"),
    _Row(r"\bNOREPLICAS\b", "has too few replicas to accept a write; start them, or lower min-replicas-to-write"),
    _Row(r"\bMISCONF\b", "cannot write to its disk; make room there and see its log"),
    _Row(r"\bLOADING\b|BusyLoading", "is reading its data from disk; wait until it has started"),
    _Row(r"\bMASTERDOWN\b|MasterDown", "has lost its primary; start the primary"),
    _Row(r"\bCLUSTERDOWN\b|ClusterDown", "belongs to a cluster that is down; start its missing nodes"),
    _Row(
        r"\b(MOVED|ASK|CROSSSLOT|TRYAGAIN)\b|MovedError|AskError|CrossSlot|TryAgain",
        "is a cluster, which is not supported; use one server",
    ),
    _Row(r"\bBUSY\b", "is busy with a script of another client; wait, or stop it with SCRIPT KILL"),
    _Row(
        r"\b(NOAUTH|WRONGPASS)\b|Authentication|invalid password",
        "wants a user and password that it was not given; put them into SKYSHORE_REDIS_URL",
    ),
    _Row(
        r"\bNOPERM\b|NoPermission|Authorization", "does not allow its user this command; see docs/state.md for the ACL"
    ),
    _Row(r"\bWRONGTYPE\b", "had data of a wrong type under one of our keys; it is set aside, try again"),
    _Row(r"\bNOGROUP\b", "has lost the list of waiting clips; it is made again, try again"),
    _Row(r"\bUNBLOCKED\b", "changed its role while it was asked; try again"),
    _Row(r"max number of clients", "has no connection left; raise its maxclients, or stop other clients"),
    _Row(r"\bunknown command\b", "does not know a command; use Redis 6.2 or later, or Valkey"),
    _Row(r"InvalidResponse|Protocol", "gave an answer that cannot be read; check what listens at SKYSHORE_REDIS_URL"),
)
_BUSY = "too many requests use the state store at this moment; try again"


def as_domain(error: Exception, where: str) -> SkyshoreError:
    """The domain error of a failed command; `where` is the server's address, for the log."""
    # In a pipeline, redis-py quotes the whole command before the server's words.
    words = f"{type(error).__name__}: {str(error).rpartition(' of pipeline caused error: ')[2]}"
    if "No connection available" in words or isinstance(error, exceptions.MaxConnectionsError):
        return StoreBusy(_BUSY, retry_after_s=RETRY_AFTER_S)
    failure = StoreUnavailable(f"the state store {_what(error, words)}", retry_after_s=RETRY_AFTER_S)
    failure.detail = f"{where}: {words[:300]}"
    return failure


def is_failure(error: Exception) -> bool:
    """Whether the store, or the way to it, failed. Otherwise our own code is wrong."""
    if isinstance(error, RuntimeError):
        return any(words in str(error) for words in _LOST)
    return isinstance(error, FAILURES) and not isinstance(error, BUGS)


def is_wrong_type(error: Exception) -> bool:
    """Whether a key holds another type than ours. A script of Redis 6.2 puts the word into the middle."""
    return isinstance(error, exceptions.ResponseError) and "WRONGTYPE" in str(error)


def _what(error: Exception, words: str) -> str:
    for row in _ROWS:
        if re.search(row.pattern, words):
            return row.message
    if isinstance(error, exceptions.TimeoutError | TimeoutError):
        return f"does not answer in time; see whether it is overloaded or paused, else {_START_IT}"
    if isinstance(error, exceptions.ConnectionError | OSError | RuntimeError):
        return f"cannot be reached; {_START_IT}"
    return "refused a command; the log of this process has its words"
