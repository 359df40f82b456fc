"""What Redis runs, in Lua: each script is atomic. `antiphon.limits.redis` calls them, and tells what their arguments are.

They change nothing on a refusal, and what they keep goes by itself: a minute's counts after a minute, a place after its lease.
Times are milliseconds. Where `now` is 0 it is Redis's own clock, the one that all servers share.
"""

from __future__ import annotations

from typing import Final

_NOW: Final = """
local now = tonumber(ARGV[1])
if now == 0 then
  local time = redis.call('TIME')
  now = time[1] * 1000 + math.floor(time[2] / 1000)
end
local second = math.floor(now / 1000)
"""

_HELD: Final = """
-- What is held of a sum of money: members of key .. "held" are leases that end in how much, and key .. "total" is how much in all.
local function release(key, member)
  redis.call('DECRBY', key .. 'total', string.match(member, '%d+$'))
end

local function held(key, now)
  for _, member in ipairs(redis.call('ZRANGEBYSCORE', key .. 'held', '-inf', now)) do release(key, member) end
  redis.call('ZREMRANGEBYSCORE', key .. 'held', '-inf', now)
  if redis.call('EXISTS', key .. 'held') == 0 then
    redis.call('DEL', key .. 'total')
    return 0
  end
  return tonumber(redis.call('GET', key .. 'total') or '0')
end
"""

_COUNTED: Final = """
-- What is counted by the minute: a hash of counts by the second, and of when the newest of each was, under "t" and the second.
local function add(key, count, now, second, window)
  redis.call('HINCRBY', key, second, count)
  redis.call('HSET', key, 't' .. second, now)
  redis.call('EXPIRE', key, window + 2)
end
"""

TAKE: Final = (
    _NOW
    + _COUNTED
    + _HELD
    + """
-- ARGV: now, window (s), id, lease (ms), how long sums of money are kept (s); then kind, most, wanted, known for each key.
-- Returns the second, then used, reset (ms), wait (ms, or -1) for each key.
local window, id, lease, kept = tonumber(ARGV[2]), ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5])
local answer, fits = {second}, true

for i, key in ipairs(KEYS) do
  local at = 2 + 4 * i
  local kind, most, wanted, known = ARGV[at], tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2]), tonumber(ARGV[at + 3])
  local used, reset, wait = 0, 0, -1
  if kind == 'rate' then
    local counts, newest, seconds, last = {}, {}, {}, now
    local found = redis.call('HGETALL', key)
    for j = 1, #found, 2 do
      if string.sub(found[j], 1, 1) == 't' then
        newest[string.sub(found[j], 2)] = tonumber(found[j + 1])
      else
        counts[found[j]] = tonumber(found[j + 1])
      end
    end
    for number, count in pairs(counts) do
      local ends = math.min(newest[number] or number * 1000 + 999, now) + window * 1000
      if ends <= now then
        redis.call('HDEL', key, number, 't' .. number)
      else
        used = used + count
        seconds[#seconds + 1] = {ends, count}
        last = math.max(last, ends)
      end
    end
    if used + wanted <= most then
      used = used + wanted
      reset = window * 1000
    else
      reset = last - now
      wait = window * 1000
      local excess = used + wanted - most
      table.sort(seconds, function(a, b) return a[1] < b[1] end)
      for _, entry in ipairs(seconds) do
        excess = excess - entry[2]
        if excess <= 0 then
          wait = entry[1] - now
          break
        end
      end
    end
  elseif kind == 'place' then
    redis.call('ZREMRANGEBYSCORE', key, '-inf', now)
    used = redis.call('ZCARD', key)
    if used < most then used = used + 1 else wait = 1000 end
  else
    used = tonumber(redis.call('GET', key) or '0')
    if known > used then
      used = known
      redis.call('SET', key, string.format('%.0f', known), 'EX', kept)
    end
    if used >= most then wait = 0 end
    used = used + held(key, now)
    if used >= most and wait < 0 then wait = 1000 end
  end
  if wait >= 0 then fits = false end
  answer[#answer + 1] = used
  answer[#answer + 1] = reset
  answer[#answer + 1] = wait
end

if fits then
  for i, key in ipairs(KEYS) do
    local at = 2 + 4 * i
    if ARGV[at] == 'rate' then
      add(key, ARGV[at + 2], now, second, window)
    elseif ARGV[at] == 'place' then
      redis.call('ZADD', key, now + lease, id)
      redis.call('PEXPIRE', key, lease)
    elseif tonumber(ARGV[at + 2]) > 0 then
      redis.call('ZADD', key .. 'held', now + lease, id .. ':' .. ARGV[at + 2])
      redis.call('PEXPIRE', key .. 'held', lease)
      redis.call('INCRBY', key .. 'total', ARGV[at + 2])
      redis.call('EXPIRE', key .. 'total', kept)
    end
  end
end
return answer
"""
)

SETTLE: Final = (
    _NOW
    + _COUNTED
    + _HELD
    + """
-- ARGV: now, window (s), id, the second of taking, how long sums of money are kept (s); then kind, change and
-- what was taken for each key.
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
"""
)

TAKE_OVER: Final = (
    _NOW
    + """
-- What a server counted for itself while Redis was away. ARGV: now, window (s), lease (ms), how long sums of money are kept (s),
-- and the present second on that server's clock; then for each key its kind and three more: of a rate the second, how old that is
-- (ms), and the count; of the others an id, nothing, and how much is held. Returns what to add to a second of that server's.
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
"""
)

RENEW: Final = (
    _NOW
    + """
-- ARGV: now, lease (ms); then an id for each key. One that is gone stays gone: its call may have ended this moment.
for i, key in ipairs(KEYS) do
  redis.call('ZADD', key, 'XX', now + ARGV[2], ARGV[2 + i])
  redis.call('PEXPIRE', key, ARGV[2])
end
"""
)
