-- Takes what a call wants of every limit, or nothing if one of them has too little left.
--
-- ARGV: now, window (s), id of the call's leases, length of a lease (ms), how long money is kept (s);
--   then for each key its kind, the maximum, the amount wanted, and (money) the spending according to the ledger.
-- Returns the second in which it was counted; then for each key the amount used (rate and place: with this call if it fits), the
--   ms until all of it is free again (rate), and the ms to wait before the next try: -1 if it fits, 0 if a budget is spent.
local window, id, lease, kept = tonumber(ARGV[2]), ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5])
local answer, fits = {second}, true

-- First determine what each limit has left. No limit is changed yet.
for i, key in ipairs(KEYS) do
  local at = 2 + 4 * i
  local kind, most, wanted, known = ARGV[at], tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2]), tonumber(ARGV[at + 3])
  local used, reset, wait = 0, 0, -1
  if kind == 'rate' then
    -- A sliding window: each second's count is free again one window after its newest call.
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
      -- The time until enough of the oldest counts are free again.
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
    -- The ledger knows more if Redis has lost its data.
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

-- Every limit has room: take it.
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
