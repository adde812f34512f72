/** Who takes part in the request benchmarks. A peer that is not on this machine is left out, and the report says so. */
import { startNode } from './children.ts'
import type { Contestant } from './contest.ts'
import { startCaddy, startHaproxy, startNginxProxy } from './contestants/native.ts'
import { installed } from './machine.ts'

export const FLOOR = 'undici `Client` free list (floor)'
export const WEIR = 'weir'
export const PEER = 'http-proxy-3, keep-alive agent'
export const FAST_UNDICI = 'fast-proxy, undici mode'
export const NGINX = 'nginx'
export const HAPROXY = 'HAProxy'
export const CADDY = 'Caddy'

const nativePeers = [
  ['nginx', NGINX, startNginxProxy],
  ['haproxy', HAPROXY, startHaproxy],
  ['caddy', CADDY, startCaddy],
] as const

export function httpContestants(url: string): Contestant[] {
  const node = (name: string, file: string, ...args: string[]): Contestant => ({
    name,
    leads: name === FLOOR || name === WEIR || name === PEER,
    start: () => startNode(`contestants/${file}.ts`, [url, ...args]),
  })
  return [
    node(FLOOR, 'undici-client-freelist'),
    node(WEIR, 'weir'),
    node('node:http by itself', 'answer'),
    node(FAST_UNDICI, 'fast-proxy', 'undici'),
    node('fast-proxy', 'fast-proxy'),
    node('fastify + reply-from', 'reply-from'),
    node('httpxy', 'httpxy'),
    node(PEER, 'http-proxy-3'),
    node('http-proxy-middleware', 'http-proxy-middleware'),
    node('http-proxy-3, its default', 'http-proxy-3', 'default'),
    ...nativePeers.filter(([program]) => installed(program)).map(([, name, start]) => ({ name, start: () => start(url) })),
  ]
}

/** One line, empty when everybody is here. */
export function absentPeers(): string {
  const absent = nativePeers.filter(([program]) => !installed(program)).map(([, name]) => name)
  return absent.length === 0 ? '' : `Not on this machine, hence not measured: ${absent.join(', ')}.`
}
