"""The state store on Redis ≥ 6.2 or Valkey: `schema` names every key, `store` calls the server."""

from skyshore.adapters.redis_store.store import RedisStore

__all__ = ["RedisStore"]
