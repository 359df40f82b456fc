-- The start of every script: the time, and functions that several scripts use.
--
-- Each script is atomic. Times are in milliseconds unless they say seconds.
-- A key holds one limit of one caller, in a form that depends on its kind:
--   rate   a hash of requests or tokens: the count of each second, and under "t" .. second the time of its newest entry
--   place  a sorted set of the calls in flight: the lease id of each, scored by when the lease ends
--   money  the amount spent, in nano-dollars. Beside it, what calls in flight reserve of the budget: key .. "held" is a sorted
--          set of their leases, each an id, a colon and an amount, scored by when it ends; key .. "total" is the sum of the amounts
-- Everything expires: counts after a minute, leases unless they are renewed, money long after its period ended.

-- ARGV[1] is the time; 0 uses Redis's own clock, which all servers share.
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

-- Subtracts the amount of an ended lease from the total that is reserved.
local function release(key, member)
  redis.call('DECRBY', key .. 'total', string.match(member, '%d+$'))
end

-- Returns the amount reserved of a budget, after dropping expired leases.
local function held(key, now)
  for _, member in ipairs(redis.call('ZRANGEBYSCORE', key .. 'held', '-inf', now)) do release(key, member) end
  redis.call('ZREMRANGEBYSCORE', key .. 'held', '-inf', now)
  if redis.call('EXISTS', key .. 'held') == 0 then
    redis.call('DEL', key .. 'total')
    return 0
  end
  return tonumber(redis.call('GET', key .. 'total') or '0')
end
