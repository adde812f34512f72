/**
 * Sessions in Lua: the two steps that have to be one, a look-up that counts as use and a write that yields to what is there (session-store.ts of
 * `@weir/sticky` says what each means). A key holds the absolute end, the idle time and the upstream's id, and expires with whichever comes first.
 */
import { type Script, script } from './script.ts'

const prelude = `
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + tonumber(time[2]) / 1000

local function read(key)
  local text = redis.call('GET', key)
  if not text then return nil end
  local absolute, idle, id = string.match(text, '^(%S+) (%S+) (.*)$')
  if not id then error('WEIR key holds something else') end
  absolute, idle = tonumber(absolute), idle == 'inf' and math.huge or tonumber(idle)
  if absolute <= now then return nil end
  return id, absolute, idle
end

local function ttl(absolute, idle)
  return string.format('%.0f', math.max(1, math.ceil(math.min(idle, absolute - now))))
end
`

/** KEYS: one. Gives the id, or nothing. */
export const getScript: Script = script(`${prelude}
local id, absolute, idle = read(KEYS[1])
if not id then return false end
redis.call('PEXPIRE', KEYS[1], ttl(absolute, idle))
return id
`)

/** KEYS: one. ARGV: id, idle time or inf, absolute end, the id that may be replaced with a mark in front, or nothing. Gives the id that is stored. */
export const setScript: Script = script(`${prelude}
local id, absolute, idle = read(KEYS[1])
if id == ARGV[1] then
  redis.call('PEXPIRE', KEYS[1], ttl(absolute, idle))
  return id
end
if id and '=' .. id ~= ARGV[4] then return id end
absolute, idle = tonumber(ARGV[3]), ARGV[2] == 'inf' and math.huge or tonumber(ARGV[2])
if absolute > now then redis.call('SET', KEYS[1], ARGV[3] .. ' ' .. ARGV[2] .. ' ' .. ARGV[1], 'PX', ttl(absolute, idle)) end
return ARGV[1]
`)

/** KEYS: one. */
export const deleteScript: Script = script(`return redis.call('DEL', KEYS[1])`)
