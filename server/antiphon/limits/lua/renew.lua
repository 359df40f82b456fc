-- Renews leases. One that is gone stays gone: its call may have ended this moment.
--
-- ARGV: now, length of a lease (ms); then for each key a member of it (of money, the key is that of what is held).
for i, key in ipairs(KEYS) do
  redis.call('ZADD', key, 'XX', now + ARGV[2], ARGV[2 + i])
  redis.call('PEXPIRE', key, ARGV[2])
end
