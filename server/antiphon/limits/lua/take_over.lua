-- Adds what a server counted on its own while Redis was unreachable.
--
-- ARGV: now, window (s), length of a lease (ms), how long money is kept (s), and the present second on that server's clock;
--   then for each key its kind and three values: for a rate the second, the age of its newest call (ms), and the count;
--   for the others the id of a lease, 0, and the amount reserved.
-- Returns the difference of the clocks: what to add to a second of that server's clock.
local window, lease, kept = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local offset = second - tonumber(ARGV[5])
for i, key in ipairs(KEYS) do
  local at = 2 + 4 * i
  local kind, a, b, c = ARGV[at], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3]
  if kind == 'rate' then
    local number = string.format('%.0f', tonumber(a) + offset)
    local newest = now - tonumber(b)
    redis.call('HINCRBY', key, number, c)
    if newest > tonumber(redis.call('HGET', key, 't' .. number) or '0') then
      redis.call('HSET', key, 't' .. number, newest)
    end
    redis.call('EXPIRE', key, window + 2)
  elseif kind == 'place' then
    redis.call('ZADD', key, now + lease, a)
    redis.call('PEXPIRE', key, lease)
  else
    redis.call('ZADD', key .. 'held', now + lease, a .. ':' .. c)
    redis.call('PEXPIRE', key .. 'held', lease)
    redis.call('INCRBY', key .. 'total', c)
    redis.call('EXPIRE', key .. 'total', kept)
  end
end
return offset
