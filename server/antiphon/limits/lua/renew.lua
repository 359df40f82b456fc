-- Renews leases. An expired one is not restored: its call may just have ended.
--
-- ARGV: now, length of a lease (ms); then for each key a member of it (of money, the key is the set of what is reserved).
for i, key in ipairs(KEYS) do
  redis.call('ZADD', key, 'XX', now + ARGV[2], ARGV[2 + i])
  redis.call('PEXPIRE', key, ARGV[2])
end
