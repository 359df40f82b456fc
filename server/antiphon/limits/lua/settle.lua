-- Ends a call: returns what it took and did not use, and counts what it used beyond that.
--
-- ARGV: now, window (s), id of the call's leases, the second that `take` returned, how long money is kept (s);
--   then for each key its kind, the change (rate: tokens used minus tokens taken; money: amount spent), and the amount taken.
for i, key in ipairs(KEYS) do
  local at = 3 + 3 * i
  local kind, change = ARGV[at], tonumber(ARGV[at + 1])
  if kind == 'place' then
    redis.call('ZREM', key, ARGV[3])
  elseif kind == 'rate' then
    if change > 0 then
      add(key, change, now, second, ARGV[2])
    elseif change < 0 and redis.call('HEXISTS', key, ARGV[4]) == 1 then
      redis.call('HINCRBY', key, ARGV[4], change)
    end
  else
    local member = ARGV[3] .. ':' .. ARGV[at + 2]
    if redis.call('ZREM', key .. 'held', member) == 1 then release(key, member) end
    if change > 0 then
      redis.call('INCRBY', key, string.format('%.0f', change))
      redis.call('EXPIRE', key, ARGV[5])
    end
  end
end
