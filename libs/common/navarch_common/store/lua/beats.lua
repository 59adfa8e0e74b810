-- A batch of heartbeats. KEYS[1] deadlines by node, KEYS[2] samples by node. ARGV: node, due (microseconds), value, again
-- and again. The later deadline wins, and its sample with it, so that batches may arrive in any order.
for i = 1, #ARGV, 3 do
  local node, due, value = ARGV[i], ARGV[i + 1], ARGV[i + 2]
  local known = redis.call('ZSCORE', KEYS[1], node)
  if not known or tonumber(known) < tonumber(due) then
    redis.call('ZADD', KEYS[1], due, node)
    redis.call('HSET', KEYS[2], node, value)
  end
end
return #ARGV / 3
