/**
 * The response cache in Lua. Everything that has to be one step is one: a put that replaces, evicts, enters its tags and asks whether something was invalidated
 * since its response was asked for; an invalidation that leaves word for the puts that are still to come.
 *
 * The keys of a shard have one hash tag, so that each script stays in one slot, although only some of its keys can be named before it has read the others:
 *
 *   ledger          sorted set: what was invalidated lately, and when; at its top since when this shard has kept such a ledger
 *   index           sorted set: the resources, by the time they end
 *   r:<resource>    hash: the heads of its variants
 *   b:<id>          string: a body
 *   t:<tag>         sorted set: the variants with this tag, by the time they end
 *
 * A server that is full throws keys away as it likes, and one that was restarted knows nothing. Neither may bring back what was invalidated, so nothing counts
 * that cannot be proved: without a ledger a shard begins anew, and a variant that is missing in the set of one of its tags is no longer served.
 *
 * A head is one text: a line of numbers that these scripts need, a line of tags, and the entry as JSON, which they never read.
 */
import { type Script, script } from './script.ts'

/** Milliseconds that an invalidation is remembered, for responses that were asked for before it. What takes longer to come is not stored. */
export const longestFetch = 600_000

const prelude = `
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + tonumber(time[2]) / 1000

local function exact(n) return string.format('%.3f', n) end
local function whole(n) return string.format('%.0f', math.min(8.64e15, math.ceil(n))) end

-- Something else under a name of ours goes: better a miss than an error for ever.
local function own(key, kind)
  local found = redis.call('TYPE', key).ok
  if found ~= kind and found ~= 'none' then redis.call('UNLINK', key) end
end

-- Since when it is known what was invalidated.
local function beginning(ledger)
  own(ledger, 'zset')
  local top = redis.call('ZRANGE', ledger, -1, -1)[1]
  local since = top and tonumber(string.match(top, '^=(.+)$'))
  if since then return since end
  redis.call('UNLINK', ledger)
  redis.call('ZADD', ledger, '+inf', '=' .. exact(now))
  return now
end

-- A server that is full refuses a script only what it would write first, and so never this: what has to make room comes before what takes it.
local function stamp(ledger, what)
  redis.call('ZREMRANGEBYSCORE', ledger, '-inf', exact(now - ${longestFetch}))
  redis.call('ZADD', ledger, exact(now), what)
end

local function parse(field, text)
  local seq, ends, asked, stored, age, life, beyond, soft, size, id, tags, json =
    string.match(text, '^w1 (%S+) (%S+) (%S+) (%S+) (%S+) (%S+) (%S+) ([01]) (%S+) (%S+)\\n([^\\n]*)\\n(.*)$')
  local v = {
    field = field, seq = tonumber(seq), ends = tonumber(ends), asked = tonumber(asked), stored = tonumber(stored), age = tonumber(age),
    life = tonumber(life), beyond = tonumber(beyond), soft = soft, size = size, id = id, tags = {}, line = tags, json = json, text = text,
  }
  if not (v.seq and v.ends and v.asked and v.stored and v.age and v.life and v.beyond) then return nil end
  if not (v.seq < 2^53) or not (v.ends <= 8.64e15) then return nil end
  for tag in string.gmatch(tags, '%S+') do v.tags[#v.tags + 1] = tag end
  return v
end

local function compose(v)
  return table.concat({ 'w1', v.seq, exact(v.ends), exact(v.asked), exact(v.stored), exact(v.age), exact(v.life), exact(v.beyond), v.soft,
    v.size, v.id .. '\\n' .. v.line .. '\\n' .. v.json }, ' ')
end

local function drop(base, resource, v)
  redis.call('HDEL', base .. 'r:' .. resource, v.field)
  redis.call('UNLINK', base .. 'b:' .. v.id)
  for _, tag in ipairs(v.tags) do redis.pcall('ZREM', base .. 't:' .. tag, v.field .. ' ' .. resource) end
end

-- What counts, the newest first; what does not goes.
local function variants(base, resource, since)
  local key = base .. 'r:' .. resource
  own(key, 'hash')
  local flat = redis.call('HGETALL', key)
  local list = {}
  for i = 1, #flat, 2 do
    local v = parse(flat[i], flat[i + 1])
    if not v then redis.call('HDEL', key, flat[i])
    elseif v.ends <= now or v.asked < since then drop(base, resource, v)
    else list[#list + 1] = v end
  end
  table.sort(list, function(a, b) return a.seq > b.seq end)
  return list
end

-- Into a set that is ordered by ends, and ends itself with the last of them.
local function enter(set, ends, member)
  own(set, 'zset')
  redis.call('ZREMRANGEBYSCORE', set, '-inf', exact(now))
  redis.call('ZADD', set, exact(ends), member)
  redis.call('PEXPIREAT', set, whole(tonumber(redis.call('ZRANGE', set, -1, -1, 'WITHSCORES')[2])))
end

-- Too late: of no use any more, or asked for before something that concerns it was invalidated.
local function refused(ledger, since, resource, v)
  if v.ends <= now or v.asked < since or v.asked < now - ${longestFetch} then return true end
  local at = redis.call('ZSCORE', ledger, 'k ' .. resource)
  if at and tonumber(at) >= v.asked then return true end
  for _, tag in ipairs(v.tags) do
    at = redis.call('ZSCORE', ledger, 't ' .. tag)
    if at and tonumber(at) >= v.asked then return true end
  end
  return false
end

-- others: the variants beside it.
local function write(base, index, resource, v, others)
  local key = base .. 'r:' .. resource
  local ends = v.ends
  for _, other in ipairs(others) do
    if other.ends > ends then ends = other.ends end
    if other.seq >= v.seq then v.seq = other.seq + 1 end
  end
  redis.call('HSET', key, v.field, compose(v))
  redis.call('PEXPIREAT', key, whole(ends))
  enter(index, ends, resource)
  for _, tag in ipairs(v.tags) do enter(base .. 't:' .. tag, v.ends, v.field .. ' ' .. resource) end
end

-- As if its lifetime were over; at: of the clock of whoever says so.
local function soften(base, resource, v, at)
  v.soft = '1'
  v.life = math.max(0, math.min(v.life, v.age + math.max(0, at - v.stored)))
  v.ends = math.min(v.ends, now + v.beyond)
  if v.ends <= now then drop(base, resource, v) return end
  redis.call('HSET', base .. 'r:' .. resource, v.field, compose(v))
  redis.call('PEXPIREAT', base .. 'b:' .. v.id, whole(v.ends))
end
`

/** KEYS: ledger. What the server's clock says; begins a ledger. */
export const touchScript: Script = script(`${prelude}
beginning(KEYS[1])
return { exact(now) }
`)

/** KEYS: ledger, resource. ARGV: base, resource. Gives the time, and the heads. */
export const findScript: Script = script(`${prelude}
local base, resource = ARGV[1], ARGV[2]
local answer = { exact(now) }
for _, v in ipairs(variants(base, resource, beginning(KEYS[1]))) do
  local known = true
  for _, tag in ipairs(v.tags) do
    local score = redis.pcall('ZSCORE', base .. 't:' .. tag, v.field .. ' ' .. resource)
    if not score or type(score) == 'table' then known = false end
  end
  if known then answer[#answer + 1] = v.text else drop(base, resource, v) end
end
return answer
`)

/** KEYS: body, resource. ARGV: base, resource, id, size, start, end. Gives bytes, or nothing. */
export const bodyScript: Script = script(`${prelude}
local length = redis.pcall('STRLEN', KEYS[1])
if length == tonumber(ARGV[4]) and (length > 0 or redis.call('EXISTS', KEYS[1]) == 1) then
  if ARGV[5] == ARGV[6] then return '' end
  return redis.call('GETRANGE', KEYS[1], ARGV[5], string.format('%.0f', tonumber(ARGV[6]) - 1))
end
-- A head without its body is of no use.
for _, v in ipairs(variants(ARGV[1], ARGV[2], 0)) do
  if v.id == ARGV[3] then drop(ARGV[1], ARGV[2], v) end
end
return false
`)

/** KEYS: ledger, index, resource, body. ARGV: base, resource, field, head, most variants, body. Gives the time, and whether it was kept. */
export const putScript: Script = script(`${prelude}
local base, resource, field, most = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[5])
local since = beginning(KEYS[1])
local v = parse(field, ARGV[4])
local late = refused(KEYS[1], since, resource, v)
local others = {}
for _, other in ipairs(variants(base, resource, since)) do
  -- One that comes too late does not take the place of one that came in time.
  if other.field == field and not (late and other.asked > v.asked) then drop(base, resource, other)
  elseif not late and #others >= most - 1 then drop(base, resource, other)
  else others[#others + 1] = other end
end
if late then return { exact(now), '0' } end
redis.call('SET', KEYS[4], ARGV[6], 'PXAT', whole(v.ends))
write(base, KEYS[2], resource, v, others)
return { exact(now), '1' }
`)

/** KEYS: ledger, index, resource, body. ARGV: base, resource, field, head. Gives the time, and whether there was such a body. */
export const updateScript: Script = script(`${prelude}
local base, resource, field = ARGV[1], ARGV[2], ARGV[3]
local since = beginning(KEYS[1])
local v = parse(field, ARGV[4])
local list = variants(base, resource, since)
local present
for _, other in ipairs(list) do
  if other.id == v.id then present = other end
end
if not present then return { exact(now), '0' } end
if redis.call('EXISTS', KEYS[4]) == 0 then
  drop(base, resource, present)
  return { exact(now), '0' }
end
if refused(KEYS[1], since, resource, v) then return { exact(now), '0' } end
redis.call('HDEL', KEYS[3], present.field)
for _, tag in ipairs(present.tags) do redis.pcall('ZREM', base .. 't:' .. tag, present.field .. ' ' .. resource) end
local others = {}
for _, other in ipairs(list) do
  if other ~= present then
    if other.field == field then drop(base, resource, other) else others[#others + 1] = other end
  end
end
redis.call('PEXPIREAT', KEYS[4], whole(v.ends))
write(base, KEYS[2], resource, v, others)
return { exact(now), '1' }
`)

/** KEYS: ledger, resource. ARGV: base, resource, id or field, its value. Gives the time, and how many there were. */
export const removeScript: Script = script(`${prelude}
local count = 0
for _, v in ipairs(variants(ARGV[1], ARGV[2], beginning(KEYS[1]))) do
  if v[ARGV[3]] == ARGV[4] then
    drop(ARGV[1], ARGV[2], v)
    count = count + 1
  end
end
return { exact(now), tostring(count) }
`)

/** KEYS: ledger, resource. ARGV: base, resource, delete or stale, time. Gives the time, and how many there were. */
export const invalidateScript: Script = script(`${prelude}
local list = variants(ARGV[1], ARGV[2], beginning(KEYS[1]))
for _, v in ipairs(list) do
  if ARGV[3] == 'stale' then soften(ARGV[1], ARGV[2], v, tonumber(ARGV[4])) else drop(ARGV[1], ARGV[2], v) end
end
stamp(KEYS[1], 'k ' .. ARGV[2])
return { exact(now), tostring(#list) }
`)

/**
 * KEYS: ledger, set of the tag. ARGV: base, tag, delete or stale, time, cursor, at most about so many at once. Gives the time, how many there were, and the
 * next cursor.
 */
export const invalidateTagScript: Script = script(`${prelude}
local base = ARGV[1]
local since = beginning(KEYS[1])
own(KEYS[2], 'zset')
local page = redis.call('ZSCAN', KEYS[2], ARGV[5], 'COUNT', ARGV[6])
local count = 0
for i = 1, #page[2], 2 do
  local member = page[2][i]
  local field, resource = string.match(member, '^(%S+) (%S*)$')
  local text = field and redis.pcall('HGET', base .. 'r:' .. resource, field)
  local v = type(text) == 'string' and parse(field, text)
  if not v then redis.call('ZREM', KEYS[2], member)
  elseif v.ends <= now or v.asked < since then drop(base, resource, v)
  else
    count = count + 1
    if ARGV[3] == 'stale' then soften(base, resource, v, tonumber(ARGV[4])) else drop(base, resource, v) end
  end
end
stamp(KEYS[1], 't ' .. ARGV[2])
return { exact(now), tostring(count), page[1] }
`)

/** KEYS: ledger, index. ARGV: base, cursor, at most about so many resources at once. Gives the next cursor, and heads. */
export const listScript: Script = script(`${prelude}
local since = beginning(KEYS[1])
own(KEYS[2], 'zset')
local page = redis.call('ZSCAN', KEYS[2], ARGV[2], 'COUNT', ARGV[3])
local answer = { page[1] }
for i = 1, #page[2], 2 do
  local list = variants(ARGV[1], page[2][i], since)
  for _, v in ipairs(list) do answer[#answer + 1] = v.text end
  if #list == 0 then redis.call('ZREM', KEYS[2], page[2][i]) end
end
return answer
`)

/** KEYS: ledger. From now on nothing counts that is there; what is listed after that is thrown away by the way. */
export const clearScript: Script = script(`${prelude}
redis.call('UNLINK', KEYS[1])
return { exact(beginning(KEYS[1])) }
`)
