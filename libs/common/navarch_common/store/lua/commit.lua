-- One commit: checks everything, then writes everything. See base.py for what it promises.
--
-- KEYS[1] state hash (revision, fence, incarnation, commits), KEYS[2] leases hash, KEYS[3] outbox stream; then every other key
-- that is touched, which the arguments name by position. ARGV is flat: a header, then the items of each kind.
-- A stored value starts with its revision (16 digits), its schema and its pool ('-' for none), a space after each.
-- Revisions are 16 digits, which a Lua number holds exactly; they are compared as strings where they can be.
local state, leases, outbox = KEYS[1], KEYS[2], KEYS[3]
local at = 0
local function take()
  at = at + 1
  return ARGV[at]
end
local function number() return tonumber(take()) end
local function key() return KEYS[number()] end
local function digits(n) return string.format('%.0f', n) end

local ABSENT = string.rep('0', 16)
local HEAD = 128
local heads = {}
-- Revision, schema and pool of what is stored under a key; nothing but ABSENT where there is none; nil for rubbish.
local function head(name)
  if not heads[name] then
    local value = redis.call('GETRANGE', name, 0, HEAD)
    if value == '' then
      heads[name] = {ABSENT, 0, '-'}
    else
      local revision, schema, pool = string.match(value, '^(%d+) (%d+) (%S+) ')
      heads[name] = {revision, tonumber(schema), pool}
    end
  end
  return heads[name][1], heads[name][2], heads[name][3]
end

local incarnation, floor, lease, fence, new_incarnation = take(), number(), take(), take(), take()
local n_expect, n_write, n_delete, n_refund, n_spend, n_event =
  number(), number(), number(), number(), number(), number()

local is = redis.call('HGET', state, 'incarnation') or ''
if incarnation ~= '' and incarnation ~= is then
  return {'incarnation', is}
end

-- Whoever has seen more commits than there are knows that some were lost.
local commits = tonumber(redis.call('HGET', state, 'commits') or '0')
if commits < floor then
  return {'rolled-back', digits(commits)}
end

if fence ~= '' then
  local held = redis.call('HGET', leases, lease)
  local held_fence, owner = string.match(held or '', '^(%d+) %d+ (.*)$')
  if held_fence ~= fence then
    return {'fenced', owner or ''}
  end
end

for i = 1, n_expect do
  local name, expected = key(), take()
  local found = head(name)
  if not found then return {'rubbish', name} end
  if found ~= expected then return {'conflict', tostring(i), found} end
end

-- A record's pool may have changed since, or it is not known to the caller (a deletion). Then the old pool's index was
-- not among the declared keys: the caller is told the pool, and comes again with it.
local unknown = {}
local function old_index(item, name, hint, index, keeps)
  local _, _, pool = head(name)
  if pool == '-' or pool == keeps then return nil end
  if pool == hint then return KEYS[index] end
  unknown[#unknown + 1] = tostring(item)
  unknown[#unknown + 1] = pool
  return nil
end

local writes = {}
for i = 1, n_write + n_delete do
  local w = {key = key(), path = take(), schema = number(), family = key()}
  local hint, hint_index = take(), number()
  if i <= n_write then
    w.pool, w.index, w.body = take(), number(), take()
  end
  local found, schema = head(w.key)
  if not found then return {'rubbish', w.key} end
  if schema > w.schema then return {'newer', tostring(i), tostring(schema)} end
  w.old = old_index(i, w.key, hint, hint_index, w.pool)
  writes[i] = w
end

local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])

local refunds, refunded = {}, {}
for i = 1, n_refund do
  local bucket, holder = key(), take()
  refunds[i] = {bucket, holder}
  refunded[bucket] = refunded[bucket] or {}
  refunded[bucket][holder] = true
end

-- Who holds a place in a bucket once the refunds are made, counted only as far as the limit can matter.
local function taken(bucket, since)
  local set, count = {}, 0
  for _, holder in ipairs(redis.call('ZRANGEBYSCORE', bucket, since, '+inf')) do
    if not (refunded[bucket] and refunded[bucket][holder]) then
      set[holder] = true
      count = count + 1
    end
  end
  return {set = set, count = count}
end

local spends, buckets = {}, {}
for i = 1, n_spend do
  local s = {bucket = key(), holder = take()}
  local limit, window = number(), number()
  s.expired = window >= 0 and digits(now - window) or nil
  buckets[s.bucket] = buckets[s.bucket] or taken(s.bucket, s.expired and '(' .. s.expired or '-inf')
  local held = buckets[s.bucket]
  if not held.set[s.holder] then
    if held.count >= limit then
      local reply = {'budget', tostring(i)}
      for holder in pairs(held.set) do reply[#reply + 1] = holder end
      return reply
    end
    held.set[s.holder] = true
    held.count = held.count + 1
  end
  spends[i] = s
end

if #unknown > 0 then
  return {'pools', unpack(unknown)}
end

-- From here on everything is written. The stream comes first: it alone could refuse (an id that does not rise).
local previous = tonumber(redis.call('HGET', state, 'revision') or '0')
local revision = math.max(previous + 1, now)
local rev = string.format('%016.0f', revision)
local waiting = redis.call('XLEN', outbox)
for i = 0, n_event - 1 do
  local id = rev .. '-' .. i
  local subject, order, trace = take(), take(), take()
  local data = take() .. id .. take() .. digits(revision) .. take()
  redis.call('XADD', outbox, digits(revision) .. '-' .. i, 's', subject, 'o', order, 't', trace, 'd', data)
end
redis.call('HSET', state, 'revision', digits(revision), 'commits', digits(commits + 1))
if new_incarnation ~= '' then
  redis.call('HSET', state, 'incarnation', new_incarnation)
end
for i, w in ipairs(writes) do
  if w.old then redis.call('ZREM', w.old, w.path) end
  if i <= n_write then
    redis.call('SET', w.key, rev .. ' ' .. w.body)
    redis.call('ZADD', w.family, digits(revision), w.path)
    if w.index > 0 then redis.call('ZADD', KEYS[w.index], digits(revision), w.path) end
  else
    redis.call('DEL', w.key)
    redis.call('ZREM', w.family, w.path)
  end
end
for _, r in ipairs(refunds) do
  redis.call('ZREM', r[1], r[2])
end
for _, s in ipairs(spends) do
  if s.expired then redis.call('ZREMRANGEBYSCORE', s.bucket, '-inf', s.expired) end
  redis.call('ZADD', s.bucket, 'NX', digits(now), s.holder)
end
return {'ok', rev, tostring(waiting), digits(commits + 1)}
