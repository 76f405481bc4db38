"""The operations that must read and write atomically, as Lua: a server runs a script without interruption."""

ACCEPT_JOB = """
if redis.call('EXISTS', KEYS[1]) == 1 then return 0 end
if redis.call('XLEN', KEYS[2]) >= tonumber(ARGV[4]) then return -1 end
redis.call('SET', KEYS[1], ARGV[2], 'EX', ARGV[3])
redis.call('XADD', KEYS[2], '*', 'task', ARGV[1], 'body', ARGV[5])
return 1
"""
"""KEYS record, jobs; ARGV task id, record, seconds kept, most jobs, body. 0: accepted before; -1: full; 1: accepted.

The check at the start makes a retry after a lost reply harmless.
"""

RENEW_JOB = """
local pending = redis.call('XPENDING', KEYS[1], ARGV[1], ARGV[3], ARGV[3], 1, ARGV[2])
if #pending == 0 then return 0 end
redis.call('XCLAIM', KEYS[1], ARGV[1], ARGV[2], 0, ARGV[3], 'JUSTID')
return 1
"""
"""KEYS jobs; ARGV group, consumer, entry id. 0: the entry is no longer this consumer's. JUSTID counts no delivery."""

RESTORE_JOB = """
local kept = redis.call('GET', KEYS[1])
if kept then
  local ok, record = pcall(cjson.decode, kept)
  if ok and type(record) == 'table' then
    local state = record['state']
    if state == 'done' or state == 'failed' or state == 'cancelled' then return 0 end
  end
end
if redis.call('XLEN', KEYS[2]) >= tonumber(ARGV[4]) then return -1 end
redis.call('XADD', KEYS[2], '*', 'task', ARGV[1], 'body', ARGV[5])
redis.call('SET', KEYS[1], ARGV[2], 'EX', ARGV[3])
return 1
"""
"""As ACCEPT_JOB for a job whose entry is lost; the record may be there. 0: it ended; -1: full; 1: waits again."""
