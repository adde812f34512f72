/** TCP and TLS probes against servers on real sockets. */
import type { Upstream } from '@weir/core'
import { blackHolePort, certificates, rawUpstream, refusedPort, stubUpstream } from '@weir/testing'
import { describe, expect, it } from 'vitest'
import type { ProbeOverrides } from './overrides.ts'
import type { Probe } from './probe.ts'
import { tcpProbe, tlsProbe } from './tcp-probe.ts'

const target = (url: string, overrides: ProbeOverrides = {}) => ({
  upstream: Object.assign(stubUpstream(), { url: new URL(url) }) as Upstream,
  overrides,
  tls: undefined,
})

async function outcome(probe: Probe, url: string, overrides?: ProbeOverrides): Promise<unknown> {
  try {
    await probe.open(target(url, overrides)).run(AbortSignal.timeout(5000))
    return 'passed'
  } catch (error) {
    return (error as { code?: string }).code
  }
}

describe('tcpProbe', () => {
  it('a connection is enough, and is closed at once', async () => {
    await using server = await rawUpstream(() => {})
    await using dead = await refusedPort()
    expect(await outcome(tcpProbe(), server.url)).toBe('passed')
    await (await server.connection(1)).closed
    expect(await outcome(tcpProbe(), dead.url)).toBe('ERR_PROBE_CONNECTION')
    expect(await outcome(tcpProbe(), dead.url, { port: server.port })).toBe('passed')
  })

  it('without TLS also to an https upstream, and over a Unix socket', async () => {
    await using server = await rawUpstream(() => {})
    await using unix = await rawUpstream(() => {}, { unix: true })
    expect(await outcome(tcpProbe(), `https://127.0.0.1:${server.port}`)).toBe('passed')
    expect(await outcome(tcpProbe(), unix.url)).toBe('passed')
  })

  it('sends, and waits for what is expected, however it is cut', async () => {
    await using server = await rawUpstream(async (connection) => {
      await connection.readThrough('PING\r\n')
      await connection.send('+PO')
      await connection.sees('!', 5000)
      await connection.send('NG\r\n')
    })
    const running = outcome(tcpProbe({ send: 'PING\r\n!', expect: '+PONG' }), server.url)
    expect(await running).toBe('passed')
    expect((await server.connection(1)).received.toString()).toBe('PING\r\n!')
  })

  it('text, bytes or an expression', async () => {
    await using server = await rawUpstream(async (connection) => void (await connection.send('220 mail ready\r\n')))
    expect(await outcome(tcpProbe({ expect: Buffer.from('220') }), server.url)).toBe('passed')
    expect(await outcome(tcpProbe({ expect: /^220 .* ready/ }), server.url)).toBe('passed')
    expect(await outcome(tcpProbe({ expect: /^220 .* ready/, maxBody: 8 }), server.url)).toBe('ERR_PROBE_BODY')
  })

  it('an expression that takes too long on what the server made up for it is given up', async () => {
    await using server = await rawUpstream(async (connection) => void (await connection.send(`${'a'.repeat(27)}!`)))
    expect(await outcome(tcpProbe({ expect: /^(a+)+$/ }), server.url)).toBe('ERR_PROBE_PATTERN')
    expect(await outcome(tcpProbe({ expect: /^a+!$/ }), server.url)).toBe('passed')
  })

  it('fails when the server ends without saying it', async () => {
    await using server = await rawUpstream(async (connection) => {
      await connection.send('no')
      connection.end()
    })
    expect(await outcome(tcpProbe({ expect: 'yes' }), server.url)).toBe('ERR_PROBE_BODY')
  })

  it('ends with its signal', async () => {
    await using hole = await blackHolePort()
    const reason = new Error('enough')
    const controller = new AbortController()
    const running = tcpProbe().open(target(hole.url)).run(controller.signal)
    controller.abort(reason)
    await expect(running).rejects.toBe(reason)
    await expect(tcpProbe().open(target(hole.url)).run(controller.signal)).rejects.toBe(reason)
  })
})

describe('tlsProbe', () => {
  it('needs a handshake that verifies, and may talk after it', async () => {
    const { ca, localhost } = certificates()
    await using server = await rawUpstream(async (connection) => void (await connection.send('hello')), { tls: localhost })
    await using plain = await rawUpstream(async (connection) => void (await connection.send('hello there, this is not TLS')))
    expect(await outcome(tlsProbe({ tls: { ca } }), server.url)).toBe('passed')
    expect(await outcome(tlsProbe({ tls: { ca }, expect: 'hello' }), server.url)).toBe('passed')
    expect(await outcome(tlsProbe({ tls: { ca }, servername: 'other.test' }), server.url)).toBe('ERR_PROBE_CONNECTION')
    expect(await outcome(tlsProbe(), server.url)).toBe('ERR_PROBE_CONNECTION')
    expect(await outcome(tlsProbe({ tls: { ca } }), plain.url)).toBe('ERR_PROBE_CONNECTION')
  })
})

it('SNI carries names, no addresses', async () => {
  const { ca, localhost } = certificates()
  await using server = await rawUpstream(async (connection) => void (await connection.readThrough('x')), { tls: localhost })
  const probe = tlsProbe({ tls: { ca }, send: 'x', expect: 'never' })
  for (const [number, url, name] of [
    [1, server.url, 'localhost'],
    [2, `https://127.0.0.1:${server.port}`, false],
  ] as const) {
    const controller = new AbortController()
    const running = probe.open(target(url)).run(controller.signal)
    const connection = await server.connection(number)
    await connection.sees('x')
    expect(connection.servername).toBe(name)
    controller.abort(new Error('enough'))
    await expect(running).rejects.toThrow('enough')
  }
})

it('wrong options are named', () => {
  const problems = (make: () => unknown): string[] => {
    try {
      make()
      return []
    } catch (error) {
      return (error as { problems: { path: string }[] }).problems.map(({ path }) => path)
    }
  }
  expect(problems(() => tcpProbe({ send: 1, expect: '', maxBody: 0, port: 70_000, path: '/' } as never))).toEqual([
    'path',
    'port',
    'send',
    'maxBody',
    'expect',
  ])
  expect(problems(() => tcpProbe({ expect: 1 } as never))).toEqual(['expect'])
})
