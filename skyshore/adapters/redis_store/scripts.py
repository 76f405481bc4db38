"""The operations that must read and write atomically, as Lua: a server runs a script without interruption.

The consumer group of the work stream is used as a table of claims only. Nothing reads through it, so that a gateway can
choose which job it claims.
"""

_GROUP = """
redis.pcall('XGROUP', 'CREATE', KEYS[1], ARGV[1], '0', 'MKSTREAM')
local function field(entry, name)
  for at = 1, #entry[2], 2 do
    if entry[2][at] == name then return entry[2][at + 1] end
  end
  return ''
end
"""
"""KEYS[1] is the stream of jobs and ARGV[1] its group in every script that begins with this."""

ACCEPT_JOB = (
    _GROUP
    + """
if redis.call('EXISTS', KEYS[2]) == 1 then return 0 end
local open = redis.call('XLEN', KEYS[1])
if open >= tonumber(ARGV[5]) then return -1 end
if open >= tonumber(ARGV[9]) then
  local own = 0
  for _, entry in ipairs(redis.call('XRANGE', KEYS[1], '-', '+')) do
    if field(entry, 'caller') == ARGV[7] then own = own + 1 end
  end
  if own >= tonumber(ARGV[9]) then return -2 end
end
redis.call('SET', KEYS[2], ARGV[3], 'EX', ARGV[4])
redis.call('XADD', KEYS[1], '*', 'task', ARGV[2], 'body', ARGV[6], 'caller', ARGV[7], 'rank', ARGV[8])
return 1
"""
)
"""KEYS jobs, record; ARGV group, task id, record, seconds kept, most jobs, body, caller, rank, most of one caller.

0: accepted before; -1: full; -2: the caller has too many; 1: accepted. The check at the start makes a retry after a
lost reply harmless.
"""

WAITING_JOBS = (
    _GROUP
    + """
local claims = {}
for _, claim in ipairs(redis.call('XPENDING', KEYS[1], ARGV[1], '-', '+', 100000)) do claims[claim[1]] = claim end
local found = {}
for _, entry in ipairs(redis.call('XRANGE', KEYS[1], '-', '+')) do
  local claim = claims[entry[1]]
  if not claim or claim[3] >= tonumber(ARGV[2]) then
    found[#found + 1] = {entry[1], field(entry, 'rank'), claim and claim[4] or 0}
  end
end
local info, last = redis.call('XINFO', 'STREAM', KEYS[1]), '0'
for at = 1, #info, 2 do
  if info[at] == 'last-generated-id' then last = info[at + 1] end
end
return {last, found}
"""
)
"""KEYS jobs; ARGV group, idle milliseconds. The last entry id; then id, rank and number of claims of each."""

CLAIM_JOB = (
    _GROUP
    + """
local entry = redis.call('XRANGE', KEYS[1], ARGV[3], ARGV[3])[1]
if not entry then return false end
local claim = redis.call('XPENDING', KEYS[1], ARGV[1], ARGV[3], ARGV[3], 1)[1]
if claim and claim[3] < tonumber(ARGV[4]) then return false end
local times = claim and claim[4] + 1 or 1
redis.call('XCLAIM', KEYS[1], ARGV[1], ARGV[2], 0, ARGV[3], 'RETRYCOUNT', times, 'FORCE', 'JUSTID')
return {field(entry, 'task'), field(entry, 'body'), times}
"""
)
"""KEYS jobs; ARGV group, consumer, entry id, idle milliseconds. False: it has ended or is claimed."""

RENEW_JOB = (
    _GROUP
    + """
local pending = redis.call('XPENDING', KEYS[1], ARGV[1], ARGV[3], ARGV[3], 1, ARGV[2])
if #pending == 0 then return 0 end
redis.call('XCLAIM', KEYS[1], ARGV[1], ARGV[2], 0, ARGV[3], 'JUSTID')
if ARGV[4] ~= '' then redis.call('SET', KEYS[2], ARGV[4], 'EX', ARGV[5]) end
return 1
"""
)
"""KEYS jobs, record; ARGV group, consumer, entry id, record or "", seconds kept. 0: it is no longer this consumer's.

JUSTID counts no claim.
"""

END_JOB = (
    _GROUP
    + """
local entry = nil
if ARGV[3] ~= '' then
  if #redis.call('XPENDING', KEYS[1], ARGV[1], ARGV[3], ARGV[3], 1, ARGV[2]) == 0 then return 0 end
  entry = redis.call('XRANGE', KEYS[1], ARGV[3], ARGV[3])[1]
else
  for _, other in ipairs(redis.call('XRANGE', KEYS[1], '-', '+')) do
    if field(other, 'task') == ARGV[4] then entry = other end
  end
end
if not entry then return 0 end
redis.call('SET', KEYS[2], ARGV[5], 'EX', ARGV[6])
if ARGV[7] ~= '' then
  local body = field(entry, 'body')
  redis.call('XADD', KEYS[3], 'MAXLEN', '~', ARGV[8], '*', 'task', ARGV[4], 'body', body, 'reason', ARGV[7])
end
redis.call('XACK', KEYS[1], ARGV[1], entry[1])
redis.call('XDEL', KEYS[1], entry[1])
return 1
"""
)
"""KEYS jobs, record, dead letters; ARGV group, consumer, entry id, task id, record, seconds kept, reason, most letters.

Without an entry id, the entry is found by its task and may be anybody's. 0: it has ended or is another consumer's.
"""

RESTORE_JOB = """
local kept = redis.call('GET', KEYS[2])
if kept then
  local ok, record = pcall(cjson.decode, kept)
  if ok and type(record) == 'table' then
    local state = record['state']
    if state == 'done' or state == 'failed' or state == 'cancelled' then return 0 end
  end
end
if redis.call('XLEN', KEYS[1]) >= tonumber(ARGV[4]) then return -1 end
redis.call('XADD', KEYS[1], '*', 'task', ARGV[1], 'body', ARGV[5], 'caller', ARGV[6], 'rank', ARGV[7])
redis.call('SET', KEYS[2], ARGV[2], 'EX', ARGV[3])
return 1
"""
"""KEYS jobs, record; ARGV task id, record, seconds kept, most jobs, body, caller, rank.

0: it ended; -1: full; 1: it waits again. As ACCEPT_JOB for a job whose entry is lost; the record may be there.
"""
