/** Who counts as one client, and that the counts come out even. Sockets that are slow, and TLS: test/integration/connection-limit.test.ts. */

import { subscribe, unsubscribe } from 'node:diagnostics_channel'
import { EventEmitter } from 'node:events'
import type { Server } from 'node:net'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { type ConnectionLimit, type ConnectionLimitOptions, connectionLimit } from './connection-limit.ts'
import type { AccessConnection } from './events.ts'

class FakeSocket extends EventEmitter {
  reset = false
  readonly remoteAddress: string | undefined

  constructor(remoteAddress: string | undefined) {
    super()
    this.remoteAddress = remoteAddress
  }

  resetAndDestroy(): void {
    this.reset = true
  }
}

class FakeServer extends EventEmitter {
  connect(address: string | undefined): FakeSocket {
    const socket = new FakeSocket(address)
    this.emit('connection', socket)
    return socket
  }
}

function watch(options?: ConnectionLimitOptions): {
  readonly limit: ConnectionLimit
  readonly server: FakeServer
  readonly detach: () => void
} {
  const limit = connectionLimit(options)
  const server = new FakeServer()
  return { limit, server, detach: limit.attach(server as unknown as Server) }
}

/** Which of these, in turn, are reset when a client may have one connection. */
function resets(options: ConnectionLimitOptions, ...addresses: readonly (string | undefined)[]): boolean[] {
  const { server } = watch({ perClient: 1, ...options })
  return addresses.map((address) => server.connect(address).reset)
}

describe('one client', () => {
  it('is an IPv4 address, in either spelling', () => {
    expect(resets({}, '192.0.2.1', '::ffff:192.0.2.1', '::ffff:c000:201', '192.0.2.2')).toEqual([false, true, true, false])
  })

  it('is an IPv6 network of 64 bits', () => {
    expect(resets({}, '2001:db8:0:1::1', '2001:db8:0:1:ffff::2', '2001:db8:0:2::1')).toEqual([false, true, false])
  })

  it('is as large as the prefixes say', () => {
    expect(resets({ ipv4Prefix: 24 }, '192.0.2.1', '192.0.2.254', '192.0.3.1')).toEqual([false, true, false])
    expect(resets({ ipv6Prefix: 48 }, '2001:db8:0:1::1', '2001:db8:0:ffff::1', '2001:db8:1::1')).toEqual([false, true, false])
    expect(resets({ ipv6Prefix: 128 }, '2001:db8::1', '2001:db8::2', '2001:db8::1')).toEqual([false, false, true])
    expect(resets({ ipv6Prefix: 20 }, '2001:1000::', '2001:1fff::', '2001:2000::')).toEqual([false, true, false])
  })

  it('of another kind with the same bits is another', () => {
    expect(resets({ ipv6Prefix: 32 }, '192.0.2.1', 'c000:201::1')).toEqual([false, false])
  })

  it('without an address, or exempt, has no limit and does not count', () => {
    expect(resets({}, undefined, undefined)).toEqual([false, false])
    expect(resets({ exempt: ['10.0.0.0/8', 'loopback'] }, '10.1.1.1', '::ffff:10.1.1.1', '::1', '::1', '11.0.0.1', '11.0.0.1')).toEqual([
      false,
      false,
      false,
      false,
      false,
      true,
    ])
    const { limit, server } = watch({ exempt: 'private' })
    server.connect('10.0.0.1')
    expect(limit.stats()).toEqual({ open: 0, clients: 0, allowed: 0, refused: 0, dry: 0 })
  })
})

describe('the counts', () => {
  it('are exact under any order of opening and closing, and leave nothing behind', () => {
    const step = fc.oneof(fc.record({ client: fc.nat(3) }), fc.record({ close: fc.nat(20) }))
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 4 }), fc.array(step, { maxLength: 120 }), (perClient, steps) => {
        const { limit, server } = watch({ perClient })
        const open: { readonly client: number; readonly socket: FakeSocket }[] = []
        let refused = 0
        for (const action of steps) {
          if ('close' in action) {
            if (open.length > 0) open.splice(action.close % open.length, 1)[0]?.socket.emit('close')
          } else {
            const mine = open.filter(({ client }) => client === action.client).length
            const socket = server.connect(`192.0.2.${action.client}`)
            expect(socket.reset).toBe(mine >= perClient)
            if (socket.reset) {
              refused++
              // What was never counted is not given back.
              socket.emit('close')
            } else open.push({ client: action.client, socket })
          }
          expect(limit.stats()).toMatchObject({ open: open.length, clients: new Set(open.map(({ client }) => client)).size, refused })
        }
        for (const { socket } of open) socket.emit('close')
        expect(limit.stats()).toMatchObject({ open: 0, clients: 0, refused })
      }),
    )
  })

  it('are shared by servers, and outlive the watching of one', () => {
    const { limit, server, detach } = watch({ perClient: 2 })
    const second = new FakeServer()
    limit.attach(second as unknown as Server)
    const first = server.connect('192.0.2.1')
    expect(second.connect('192.0.2.1').reset).toBe(false)
    expect(second.connect('192.0.2.1').reset).toBe(true)
    detach()
    expect(server.connect('192.0.2.1').reset).toBe(false)
    expect(limit.stats()).toMatchObject({ open: 2, clients: 1 })
    first.emit('close')
    expect(second.connect('192.0.2.1').reset).toBe(false)
    // Whoever has left may come back.
    limit.attach(server as unknown as Server)
    expect(server.connect('192.0.2.1').reset).toBe(true)
  })

  it('are told, and only that, in a dry run', () => {
    const told: AccessConnection[] = []
    const listen = (message: unknown): void => void told.push(message as AccessConnection)
    subscribe('weir:access:connection', listen)
    const dry = watch({ perClient: 1, dryRun: true, name: 'front' })
    const wet = watch({ perClient: 1 })
    for (const { server } of [dry, wet]) for (let i = 0; i < 3; i++) server.connect('192.0.2.1')
    unsubscribe('weir:access:connection', listen)
    expect(told).toEqual([
      { name: 'front', address: '192.0.2.1', open: 1, verdict: 'dry' },
      { name: 'front', address: '192.0.2.1', open: 2, verdict: 'dry' },
      { name: 'connectionLimit', address: '192.0.2.1', open: 1, verdict: 'refused' },
      { name: 'connectionLimit', address: '192.0.2.1', open: 1, verdict: 'refused' },
    ])
    expect(dry.limit.stats()).toEqual({ open: 3, clients: 1, allowed: 1, refused: 0, dry: 2 })
    expect(wet.limit.stats()).toEqual({ open: 1, clients: 1, allowed: 1, refused: 2, dry: 0 })
  })
})

describe('a mistake', () => {
  it('is a server twice, or none', () => {
    const { limit, server } = watch()
    expect(() => limit.attach(server as unknown as Server)).toThrow(/connectionLimit\.attach.*\n.*watched already/)
    expect(() => limit.attach({} as unknown as Server)).toThrow(/a server of net, tls, http, https or http2/)
    expect(() => limit.attach(undefined as unknown as Server)).toThrow(/a server of net/)
  })
})
