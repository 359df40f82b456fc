-- Begins every script: the time, and what several of them do to a key.
--
-- Each script runs as a whole, with nothing of another call between its lines. Times are milliseconds unless they say seconds.
-- A key holds one limit of one caller, and its kind decides how:
--   rate   a hash, of requests or tokens: the count of each second, and under "t" .. second when the newest of them was counted
--   place  a sorted set of the calls that go on at once: the id of each one's lease, by when the lease ends
--   money  what has been spent, in nano-dollars. Beside it, what calls that go on hold of the budget: key .. "held" is a sorted
--          set of their leases, each an id, a colon and an amount, by when it ends; key .. "total" is the sum of those amounts
-- Everything expires by itself: counts after a minute, leases unless they are renewed, money when its period is long over.

-- ARGV[1] is the time; 0 asks for Redis's own clock, the one that all servers share.
local now = tonumber(ARGV[1])
if now == 0 then
  local time = redis.call('TIME')
  now = time[1] * 1000 + math.floor(time[2] / 1000)
end
local second = math.floor(now / 1000)

-- Adds to the count of a second. `window` is in seconds.
local function add(key, count, now, second, window)
  redis.call('HINCRBY', key, second, count)
  redis.call('HSET', key, 't' .. second, now)
  redis.call('EXPIRE', key, window + 2)
end

-- Takes the amount of a lease that is over from the sum of what is held.
local function release(key, member)
  redis.call('DECRBY', key .. 'total', string.match(member, '%d+$'))
end

-- Returns what is held of a budget, without the leases that have run out.
local function held(key, now)
  for _, member in ipairs(redis.call('ZRANGEBYSCORE', key .. 'held', '-inf', now)) do release(key, member) end
  redis.call('ZREMRANGEBYSCORE', key .. 'held', '-inf', now)
  if redis.call('EXISTS', key .. 'held') == 0 then
    redis.call('DEL', key .. 'total')
    return 0
  end
  return tonumber(redis.call('GET', key .. 'total') or '0')
end
