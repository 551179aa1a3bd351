-- Looks at all windows of all limits named, and counts the request in all of them if every one admits it: one step.
--
-- KEYS: the counters of one key of each limit. ARGV: the moment in microseconds (0 = this server's), then for each key
--   least, most: what the request costs; more than `least` up to `most` is taken where it fits
--   memory: microseconds after which nothing of this limit counts any more
--   n, then for each of n windows: form, per, unit, count, burst, queue (see `law.rs`)
-- All times in microseconds, all numbers whole and below 2^53, where a double is exact.
--
-- Field `per` of a key holds "b LEVEL AT" (form 1: a level in parts of a request, per / unit of them to one, that drains by
-- `count` parts a unit), "b LEVEL AT FORGIVEN UNDER" (and what a smaller burst has forgiven, with the highest level that it
-- knew: a larger one that comes after it asks for it again) or "r NEWEST C0,C1,..C10" (form 2: counts of the newest step and the ten before it).
--
-- Answers {admitted, moment}, then for each key {admitted, cost, delay} and for each window {left, wait, empty}; or
-- {2, index} if what stands under a key is nothing that this script wrote.

local STEPS = 10
local WHOLE = 9007199254740992

local now = tonumber(ARGV[1])
if now == 0 then
    local time = redis.call('TIME')
    now = tonumber(time[1]) * 1000000 + tonumber(time[2])
end

local at = 2
local function arg()
    local value = tonumber(ARGV[at])
    at = at + 1
    return value
end

local function whole(text)
    local value = tonumber(text)
    if value and value <= WHOLE then return value end
end

-- A state as it stands under a field, or nil.
local function parse(text, memory, per)
    local level, moment, rest = string.match(text, '^b (%d+) (%d+)(.*)$')
    if level then
        level, moment = whole(level), whole(moment)
        local forgiven, under = 0, 0
        if rest ~= '' then
            forgiven, under = string.match(rest, '^ (%d+) (%d+)$')
            forgiven, under = forgiven and whole(forgiven), under and whole(under)
            if not forgiven or not under then return nil end
        end
        -- From the future by more than anything can be remembered.
        if not level or not moment or moment > now + memory then return nil end
        return { form = 1, level = level, moment = moment, forgiven = forgiven, under = under }
    end
    local newest, list = string.match(text, '^r (%d+) ([%d,]+)$')
    newest = newest and whole(newest)
    if not newest or newest * (per / STEPS) > now + memory then return nil end
    local counts = {}
    for part in string.gmatch(list, '[^,]+') do
        local count = whole(part)
        if not count then return nil end
        counts[#counts + 1] = count
    end
    if #counts ~= STEPS + 1 then return nil end
    return { form = 2, newest = newest, counts = counts }
end

-- The counts of the window that ends at `moment`, moved to its step. A clock that steps back forgets nothing.
local function advance(ring, unit, moment)
    local step = math.floor(moment / unit)
    local passed = step - ring.newest
    if passed <= 0 then return ring end
    local counts = {}
    for age = 0, STEPS do counts[age + 1] = ring.counts[age - passed + 1] or 0 end
    return { newest = step, counts = counts }
end

local function held(ring)
    local sum = 0
    for _, count in ipairs(ring.counts) do sum = sum + count end
    return sum
end

-- Until `excess` of the counted requests are forgotten, oldest first.
local function wait_for(ring, unit, excess, moment)
    local forgotten, last = 0, ring.newest
    for age = STEPS, 0, -1 do
        forgotten = forgotten + ring.counts[age + 1]
        last = ring.newest - age
        if forgotten >= excess then break end
    end
    return math.max((last + STEPS + 1) * unit - moment, 1)
end

-- The level of a bucket at this moment. `moment` moves by whole units, so nothing is lost between them.
local function drain(state, window)
    local level, moment, forgiven, under = state.level, state.moment, state.forgiven, state.under
    if level > window.full then
        level, forgiven, under = window.full, forgiven + level - window.full, window.full
    elseif window.full > under then
        local back = math.min(forgiven, window.full - under)
        level, forgiven, under = level + back, forgiven - back, window.full
    end
    if now > moment then
        local units = math.floor((now - moment) / window.unit)
        level = level - units * window.count
        moment = moment + units * window.unit
    end
    if level <= 0 then
        -- What is forgiven drains after the level.
        forgiven, level, moment = math.max(forgiven + level, 0), 0, math.max(now, state.moment)
    end
    return { level = level, moment = moment, forgiven = forgiven, under = under }
end

local function drained_in(window, state, level)
    return math.max(state.moment - now + math.ceil(level / window.count) * window.unit, 0)
end

-- What is used of a window whose state has the other form: the shortest window has become a longer one, or the reverse.
local function converted(state, window)
    if state.form == 1 then
        local parts = window.per / window.tick
        local bucket = drain(state, { full = WHOLE, unit = window.tick, count = 0 })
        local counts = { math.ceil(bucket.level / parts) }
        for age = 1, STEPS do counts[age + 1] = 0 end
        return { newest = math.floor(now / window.unit), counts = counts }
    end
    local ring = advance(state, window.per / STEPS, now)
    return { level = held(ring) * window.parts, moment = now, forgiven = 0, under = 0 }
end

local answer = { 1, now }
local limits = {}
for index, key in ipairs(KEYS) do
    local limit = { key = key, least = arg(), most = arg(), memory = arg(), windows = {} }
    local fields = {}
    for number = 1, arg() do
        local window = {
            form = arg(), per = arg(), unit = arg(), tick = arg(), count = arg(), burst = arg(), queue = arg(),
        }
        if window.form == 1 then
            window.parts = window.per / window.unit
            window.full = window.burst * window.parts + math.floor(window.queue / window.unit) * window.count
        end
        limit.windows[number] = window
        fields[number] = string.format('%.0f', window.per)
    end
    limit.fields = fields
    local texts = redis.pcall('HMGET', key, unpack(fields))
    if texts.err and string.sub(texts.err, 1, 9) ~= 'WRONGTYPE' then return texts end
    limit.admitted, limit.delay = 1, 0
    local room = limit.most
    for number, window in ipairs(limit.windows) do
        local state, fresh
        if texts.err then
            state = nil
        elseif texts[number] then
            state = parse(texts[number], limit.memory, window.per)
        elseif window.form == 1 then
            state, fresh = { form = 1, level = 0, moment = now, forgiven = 0, under = 0 }, true
        else
            state, fresh = { form = 2, newest = 0, counts = { 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0 } }, true
        end
        if not state then
            -- Gone by itself when nothing that it could stand for would count any more.
            local left = redis.call('PTTL', key)
            local most = math.ceil(limit.memory / 1000)
            if left < 0 or left > most then redis.call('PEXPIRE', key, string.format('%.0f', most)) end
            return { 2, index }
        end
        if state.form ~= window.form then state = converted(state, window) end
        if window.form == 1 then
            state = drain(state, window)
            local over = state.level + limit.least * window.parts - window.burst * window.parts
            window.left = math.max(math.floor((window.burst * window.parts - state.level) / window.parts), 0)
            window.wait = over > 0 and drained_in(window, state, over) or 0
            window.empty = drained_in(window, state, state.level)
            -- What is more than there ever is room for does not wait for it either.
            if window.wait > window.queue or limit.least > window.burst then
                limit.admitted = 0
            else
                limit.delay = window.wait
            end
        else
            -- Who waits is in the window in which it goes on.
            local moment = now + limit.delay
            state = advance(state, window.unit, moment)
            local used = held(state)
            local excess = used + limit.least - window.count
            window.left = math.max(window.count - used, 0)
            window.wait = excess > 0 and wait_for(state, window.unit, excess, moment) or 0
            window.empty = used > 0 and wait_for(state, window.unit, used, moment) or 0
            if window.wait > 0 then limit.admitted = 0 end
        end
        window.state = state
        room = math.min(room, window.left)
    end
    limit.cost = math.max(limit.least, math.min(room, limit.most))
    if limit.admitted == 0 then answer[1] = 0 end
    limits[index] = limit
end

for _, limit in ipairs(limits) do
    local told = { limit.admitted, limit.cost, limit.delay }
    for _, window in ipairs(limit.windows) do
        told[#told + 1] = window.left
        told[#told + 1] = window.wait
        told[#told + 1] = window.empty
    end
    for _, value in ipairs(told) do answer[#answer + 1] = value end
    if answer[1] == 1 then
        local pairs_of, until_empty = {}, 0
        for number, window in ipairs(limit.windows) do
            local state, text, empty = window.state
            if window.form == 1 then
                local level = state.level + limit.cost * window.parts
                empty = drained_in(window, state, level + state.forgiven)
                text = string.format('b %.0f %.0f', level, state.moment)
                if state.forgiven > 0 then
                    text = string.format('%s %.0f %.0f', text, state.forgiven, state.under)
                end
            else
                state.counts[1] = state.counts[1] + limit.cost
                empty = (state.newest + STEPS + 1) * window.unit - now
                local list = {}
                for age, count in ipairs(state.counts) do list[age] = string.format('%.0f', count) end
                text = string.format('r %.0f %s', state.newest, table.concat(list, ','))
            end
            pairs_of[#pairs_of + 1] = limit.fields[number]
            pairs_of[#pairs_of + 1] = text
            until_empty = math.max(until_empty, empty)
        end
        redis.call('HSET', limit.key, unpack(pairs_of))
        local needed = math.ceil(until_empty / 1000) + 1
        if redis.call('PTTL', limit.key) < needed then
            redis.call('PEXPIRE', limit.key, string.format('%.0f', needed))
        end
    end
end
return answer
