-- A copy lives. KEYS[1] copies hash: `<expires, microseconds> <what it says>` by name, judged by the server's clock.
-- ARGV: name, time to live in microseconds, what it says. What has expired is forgotten on the way: names are never used
-- again, so nobody else would.
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
local said = redis.call('HGETALL', KEYS[1])
for i = 1, #said, 2 do
  if tonumber(string.match(said[i + 1], '^%d+')) <= now then redis.call('HDEL', KEYS[1], said[i]) end
end
redis.call('HSET', KEYS[1], ARGV[1], string.format('%.0f', now + tonumber(ARGV[2])) .. ' ' .. ARGV[3])
return 1
