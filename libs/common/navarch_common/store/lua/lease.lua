-- Leases: one hash field each, `<fence> <expires, microseconds> <owner>`, judged by the server's clock and never expiring
-- by themselves. KEYS[1] leases hash, KEYS[2] state hash. ARGV: verb, name, fence, owner, time to live in microseconds.
local verb, name, fence, owner, ttl = ARGV[1], ARGV[2], ARGV[3], ARGV[4], tonumber(ARGV[5])
local function digits(n) return string.format('%.0f', n) end
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
local held_fence, expires, holder = string.match(redis.call('HGET', KEYS[1], name) or '', '^(%d+) (%d+) (.*)$')

local function keep(new_fence, new_owner)
  local until_ = digits(now + ttl)
  redis.call('HSET', KEYS[1], name, new_fence .. ' ' .. until_ .. ' ' .. new_owner)
  return {new_fence, until_, new_owner}
end

if verb == 'acquire' then
  if held_fence and holder ~= owner and tonumber(expires) > now then return false end
  local previous = tonumber(redis.call('HGET', KEYS[2], 'fence') or '0')
  local new = digits(math.max(previous + 1, math.floor(now / 1000)))
  redis.call('HSET', KEYS[2], 'fence', new)
  return keep(new, owner)
end
if held_fence ~= fence then return false end
if verb == 'renew' then return keep(fence, holder) end
redis.call('HDEL', KEYS[1], name)
return false
