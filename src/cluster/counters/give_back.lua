-- Gives back what was counted for a request that does not count after all, or for permits that nobody used.
--
-- KEYS: the counters of one key of one limit. ARGV: the moment in microseconds (0 = this server's), how many, when they were
-- counted, how long they were to wait, then the windows as in take.lua. What has drained since is not given back: it would have
-- drained without these requests, too, perhaps to no avail. Nor is a place in a queue behind which others wait: they keep
-- theirs, and who came next would go on at the same moment as the last of them. So nothing is ever let through that would not
-- have been without them.

local STEPS = 10
local WHOLE = 9007199254740992

local now = tonumber(ARGV[1])
if now == 0 then
    local time = redis.call('TIME')
    now = tonumber(time[1]) * 1000000 + tonumber(time[2])
end
local amount, counted, delay = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])

local at = 5
local function arg()
    local value = tonumber(ARGV[at])
    at = at + 1
    return value
end

for _ = 1, arg() do
    local form, per, unit = arg(), arg(), arg()
    local _, count, burst, _ = arg(), arg(), arg(), arg()
    local field = string.format('%.0f', per)
    local text = redis.pcall('HGET', KEYS[1], field)
    -- Gone, or of another kind: nothing to give back to.
    if type(text) ~= 'string' then text = '' end
    if form == 1 then
        local level, moment, rest = string.match(text, '^b (%d+) (%d+)(.*)$')
        level, moment = tonumber(level), tonumber(moment)
        if level and moment and level <= WHOLE then
            local parts = amount * (per / unit) - math.ceil(math.max(now - counted, 0) / unit) * count
            -- When the last of those who wait goes on: not before this one, which was counted.
            local last = moment + math.ceil((level - burst * (per / unit)) / count) * unit
            if delay > 0 and last > counted + delay then parts = 0 end
            level = math.max(level - math.max(parts, 0), 0)
            redis.call('HSET', KEYS[1], field, string.format('b %.0f %.0f%s', level, moment, rest))
        end
    else
        local newest, list = string.match(text, '^r (%d+) ([%d,]+)$')
        newest = tonumber(newest)
        local counts = {}
        for part in string.gmatch(list or '', '[^,]+') do counts[#counts + 1] = tonumber(part) end
        -- Who waits is counted where it goes on.
        local place = newest and newest - math.floor((counted + delay) / unit) + 1
        if #counts == STEPS + 1 and counts[place] then
            counts[place] = math.max(counts[place] - amount, 0)
            for age, number in ipairs(counts) do counts[age] = string.format('%.0f', number) end
            redis.call('HSET', KEYS[1], field, string.format('r %.0f %s', newest, table.concat(counts, ',')))
        end
    end
end
return 1
