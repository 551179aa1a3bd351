-- Tells all instances of revocations, and keeps them for as long as they matter.
--
-- KEYS: the stream that instances follow, the sorted set of all that still matter (scored by when they cease to). ARGV: how
-- long the stream may be, seconds for which a revocation is kept beyond its end, then for each revocation its text and end.
for at = 3, #ARGV, 2 do
    local text, ending = ARGV[at], ARGV[at + 1]
    redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[1], '*', 'r', text, 'until', ending)
    redis.call('ZADD', KEYS[2], 'GT', ending, text)
end
local now = tonumber(redis.call('TIME')[1])
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', string.format('(%.0f', now - ARGV[2]))
return 1
