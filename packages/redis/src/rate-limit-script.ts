/**
 * The algorithms of `@weir/rate-limit` once more, in Lua, since a decision has to be made where the numbers are: read and written in one step, by the
 * server's clock, for all limits or none. Line by line the same arithmetic as in its files (gcra.ts, token-bucket.ts ...), which say what the numbers mean;
 * a test plays random histories to both and compares every number.
 *
 * Time is counted from the beginning of 2026 and not of 1970: milliseconds with their fractions then keep four more bits.
 *
 * A key holds four numbers, `a b c` of the algorithm and the time from which on they say nothing, and expires then.
 */
import { type Script, script } from './script.ts'

const prelude = `
local time = redis.call('TIME')
local now = (tonumber(time[1]) - 1767225600) * 1000 + tonumber(time[2]) / 1000
local slack = 1e-4
local huge = math.huge
local floor, max, min = math.floor, math.max, math.min

local function read(key)
  local text = redis.call('GET', key)
  if not text then return 0, 0, 0, false end
  local a, b, c, e = string.match(text, '^(%S+) (%S+) (%S+) (%S+)$')
  a, b, c, e = tonumber(a), tonumber(b), tonumber(c), tonumber(e)
  if not e then error('WEIR key holds something else') end
  if e <= now then return 0, 0, 0, true end
  return a, b, c, true
end

local function write(key, s)
  local ttl = math.ceil(s.e - now)
  if ttl < 1 then redis.call('DEL', key)
  else redis.call('SET', key, string.format('%.17g %.17g %.17g %.17g', s.a, s.b, s.c, s.e), 'PX', string.format('%.0f', ttl)) end
end

local function step(ok, remaining, retry, reset, delay, a, b, c, e)
  return { ok = ok, remaining = remaining, retry = retry, reset = reset, delay = delay, a = a, b = b, c = c, e = e }
end

local take, adjust = {}, {}

-- gcra.ts
local function gcra(ok, done, retry, L)
  local interval = L.window / L.quota
  local left = L.burst - max(0, done - now) / interval
  local remaining = max(0, floor(left + slack))
  local reset = remaining >= L.burst and 0 or (remaining + 1 - left) * interval
  return step(ok, remaining, retry, reset, 0, done, 0, 0, done)
end
take['gcra'] = function(a, b, c, cost, L)
  local interval = L.window / L.quota
  local done = max(a, now) + cost * interval
  local over = done - now - L.burst * interval
  if over <= slack * interval then return gcra(true, done, 0, L) end
  return gcra(false, a, cost > L.burst and huge or over, L)
end
adjust['gcra'] = function(a, b, c, difference, charged, L)
  local interval = L.window / L.quota
  local change = difference * interval
  if difference < 0 then change = min(0, change + max(0, now - charged)) end
  return gcra(true, max(now, max(a, now) + change), 0, L)
end

-- token-bucket.ts
local function missing(a, b, L)
  return max(0, a - max(0, now - b) * L.quota / L.window)
end
local function bucket(ok, taken, retry, b, L)
  local interval = L.window / L.quota
  local left = L.burst - taken
  local remaining = max(0, floor(left + slack))
  local reset = remaining >= L.burst and 0 or (remaining + 1 - left) * interval
  local since = max(now, b)
  return step(ok, remaining, retry, reset, 0, taken, since, 0, since + taken * interval)
end
take['token-bucket'] = function(a, b, c, cost, L)
  local before = missing(a, b, L)
  local over = before + cost - L.burst
  if over <= slack then return bucket(true, before + cost, 0, b, L) end
  return bucket(false, before, cost > L.burst and huge or over * L.window / L.quota, b, L)
end
adjust['token-bucket'] = function(a, b, c, difference, charged, L)
  local change = difference
  if difference < 0 then change = min(0, difference + max(0, now - charged) * L.quota / L.window) end
  return bucket(true, max(0, missing(a, b, L) + change), 0, b, L)
end

-- fixed-window.ts
local function fixed(ok, taken, began, retry, L)
  local remaining = max(0, floor(L.quota - taken + slack))
  local ends = began + L.window
  return step(ok, remaining, retry, taken > 0 and ends - now or 0, 0, taken, began, 0, ends)
end
take['fixed-window'] = function(a, b, c, cost, L)
  local runs = a > 0 and now < b + L.window
  local taken, began = runs and a or 0, runs and b or now
  if taken + cost <= L.quota + slack then return fixed(true, taken + cost, began, 0, L) end
  return fixed(false, taken, began, cost > L.quota and huge or began + L.window - now, L)
end
adjust['fixed-window'] = function(a, b, c, difference, charged, L)
  local runs = a > 0 and now < b + L.window
  local taken, began = runs and a or 0, runs and b or now
  local change = (difference >= 0 or (runs and charged >= began)) and difference or 0
  return fixed(true, max(0, taken + change), began, 0, L)
end

-- sliding-window.ts
local function wait(last, current, index, cost, L)
  local room = L.quota - cost
  local weight, from, free = current, index + 1, room
  if current <= room then weight, from, free = last, index, room - current end
  local faded = weight <= 0 and 0 or min(1, max(0, 1 - free / weight))
  return max(0, (from + faded) * L.window - now)
end
local function fading(at, L)
  return min(1, 1 - (now / L.window - at))
end
local function sliding(ok, last, current, index, retry, L)
  local left = L.quota - last * fading(index, L) - current
  local remaining = max(0, floor(left + slack))
  local reset = remaining >= L.quota and 0 or wait(last, current, index, remaining + 1, L)
  return step(ok, remaining, retry, reset, 0, last, current, index, (index + 2) * L.window)
end
local function windows(a, b, c, at)
  if c == at then return a, b end
  if c == at - 1 then return b, 0 end
  return 0, 0
end
take['sliding-window'] = function(a, b, c, cost, L)
  local at = max(floor(now / L.window), c)
  local before, taken = windows(a, b, c, at)
  local weighed = before * fading(at, L) + taken
  if weighed + cost <= L.quota + slack then return sliding(true, before, taken + cost, at, 0, L) end
  return sliding(false, before, taken, at, cost > L.quota and huge or wait(before, taken, at, cost, L), L)
end
adjust['sliding-window'] = function(a, b, c, difference, charged, L)
  local at = max(floor(now / L.window), c)
  local before, taken = windows(a, b, c, at)
  local chargedAt = floor(charged / L.window)
  if difference >= 0 or chargedAt == at then return sliding(true, before, max(0, taken + difference), at, 0, L) end
  return sliding(true, chargedAt == at - 1 and max(0, before + difference) or before, taken, at, 0, L)
end

-- leaky-bucket.ts
local function leaky(ok, free, delay, retry, L)
  local interval = L.window / L.quota
  local places = (L.delay - max(0, free - now)) / interval + 1
  local remaining = max(0, floor(places + slack))
  local most = floor(L.delay / interval + 1 + slack)
  local reset = remaining >= most and 0 or (remaining + 1 - places) * interval
  return step(ok, remaining, retry, reset, delay, free, 0, 0, free)
end
take['leaky-bucket'] = function(a, b, c, cost, L)
  local interval = L.window / L.quota
  local turn = max(a, now)
  local over = turn - now - L.delay
  if over > slack * interval then return leaky(false, a, 0, over, L) end
  return leaky(true, turn + cost * interval, turn - now, 0, L)
end
adjust['leaky-bucket'] = function(a, b, c, difference, charged, L)
  local interval = L.window / L.quota
  return leaky(true, max(now, max(a, now) + difference * interval), 0, 0, L)
end

local function limit(at)
  return { quota = tonumber(ARGV[at + 1]), window = tonumber(ARGV[at + 2]), burst = tonumber(ARGV[at + 3]), delay = tonumber(ARGV[at + 4]) }
end
`

/** KEYS: one per charge. ARGV: for each the algorithm, quota, window, burst, longest delay, cost. Gives five numbers as text for each, and the time. */
export const takeScript: Script = script(`${prelude}
local steps, allowed = {}, true
for i = 1, #KEYS do
  local at = (i - 1) * 6 + 1
  local a, b, c = read(KEYS[i])
  local s = take[ARGV[at]](a, b, c, tonumber(ARGV[at + 5]), limit(at))
  steps[i] = s
  if not s.ok then allowed = false end
end
local out = {}
for i = 1, #KEYS do
  local at = (i - 1) * 6 + 1
  local s = steps[i]
  if allowed then
    if tonumber(ARGV[at + 5]) > 0 then write(KEYS[i], s) end
  elseif s.ok then
    local a, b, c = read(KEYS[i])
    s = take[ARGV[at]](a, b, c, 0, limit(at))
  end
  for _, value in ipairs({ s.ok and 1 or 0, s.remaining, s.retry, s.reset, s.delay }) do
    out[#out + 1] = value == huge and 'inf' or string.format('%.17g', value)
  end
end
out[#out + 1] = string.format('%.17g', now)
return out
`)

/** KEYS: one. ARGV: algorithm, quota, window, burst, longest delay, difference, time of the charge. */
export const adjustScript: Script = script(`${prelude}
local a, b, c, known = read(KEYS[1])
local difference = tonumber(ARGV[6])
-- Nothing is remembered, so there is nothing to give back.
if not known and difference <= 0 then return 0 end
write(KEYS[1], adjust[ARGV[1]](a, b, c, difference, tonumber(ARGV[7]), limit(1)))
return 1
`)
