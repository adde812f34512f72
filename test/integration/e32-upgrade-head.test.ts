/**
 * E32. Bytes sent right behind the upgrade by either side (`head`) are delivered first and exactly once.
 *
 * Between the head and the tunnel stand two parsers and a hand-over of both sockets, and whatever came in the same packet as the head is in
 * somebody's hands at that moment. Each byte here is told by its position, so one that is lost, doubled or late shows.
 */
import { certificates, patternAt, type RawConnection, rawConnect, rawUpstream, type UpstreamScript } from '@weir/testing'
import { describe, expect, it } from 'vitest'
import { switching, upgradeHead } from './messages.ts'
import { gate, startProxy, transports, until } from './observed.ts'

/** As many bytes as asked for, each told by its position. */
function pattern(size: number): Buffer {
  const parts: Buffer[] = []
  for (let at = 0; at < size; at += 65_536) parts.push(patternAt(at, Math.min(65_536, size - at)))
  return Buffer.concat(parts)
}

const sizes = [1, 1000, 300_000]

describe.each(transports)('E32 over %s', (_name, transport) => {
  it.each(sizes)('%i bytes from the client, in the packet of its head', async (size) => {
    const early = pattern(size)
    await using upstream = await rawUpstream(async (connection) => {
      await connection.readRequest()
      await connection.send(switching())
      expect(await connection.readBytes(size)).toEqual(early)
      expect((await connection.readBytes(5)).toString()).toBe('later')
      await connection.send('done')
      expect(await connection.readToEnd()).toHaveLength(0)
    })
    await using proxy = await startProxy({ upstreams: [upstream.url] }, { transport })
    await using client = await rawConnect(proxy.port)
    void client.write(Buffer.concat([Buffer.from(upgradeHead()), early]))
    expect((await client.readResponse()).status).toBe(101)
    void client.write('later')
    expect((await client.readBytes(4)).toString()).toBe('done')
    client.end()
    await client.closed
    await upstream.close()
  })

  it.each(sizes)('%i bytes from the upstream, in the packet of its 101', async (size) => {
    const early = pattern(size)
    await using upstream = await rawUpstream(async (connection) => {
      await connection.readRequest()
      await connection.send(Buffer.concat([Buffer.from(switching()), early]))
      await connection.readThrough('next')
      await connection.send('later')
      connection.end()
    })
    await using proxy = await startProxy({ upstreams: [upstream.url] }, { transport })
    await using client = await rawConnect(proxy.port)
    void client.write(upgradeHead())
    expect((await client.readResponse()).status).toBe(101)
    expect(await client.readBytes(size)).toEqual(early)
    void client.write('next')
    expect((await client.readToEnd()).toString()).toBe('later')
  })

  it('from both sides at once, and byte for byte to the end', async () => {
    const up = pattern(100_000)
    const down = pattern(120_000)
    await using upstream = await rawUpstream(async (connection) => {
      await connection.readRequest()
      await connection.send(Buffer.concat([Buffer.from(switching()), down.subarray(0, 30_000)]))
      await connection.send(down.subarray(30_000))
      expect(await connection.readBytes(up.length)).toEqual(up)
      connection.end()
      expect(await connection.readToEnd()).toHaveLength(0)
    })
    await using proxy = await startProxy({ upstreams: [upstream.url] }, { transport })
    await using client = await rawConnect(proxy.port)
    void client.write(Buffer.concat([Buffer.from(upgradeHead()), up.subarray(0, 40_000)]))
    void client.write(up.subarray(40_000))
    expect((await client.readResponse()).status).toBe(101)
    expect(await client.readBytes(down.length)).toEqual(down)
    expect(await client.closed).toBe('fin')
    client.end()
    await upstream.close()
  })

  it('while the upstream takes its time: what comes between head and 101 waits in order', async () => {
    const asked = gate()
    const sent = gate()
    await using upstream = await rawUpstream(async (connection) => {
      await connection.readRequest()
      asked.open()
      await sent.opened
      await connection.send(switching())
      expect((await connection.readBytes(11)).toString()).toBe('one two six')
    })
    await using proxy = await startProxy({ upstreams: [upstream.url] }, { transport })
    await using client = await rawConnect(proxy.port)
    await client.write(`${upgradeHead()}one`)
    await asked.opened
    await client.write(' two')
    await client.write(' six')
    sent.open()
    expect((await client.readResponse()).status).toBe(101)
    client.end()
    await client.closed
    await upstream.close()
  })

  it('in pieces, with the heads cut anywhere', async () => {
    const head = Buffer.from(`${upgradeHead()}frames`)
    const answer = Buffer.from(`${switching()}answer`)
    // The cuts that matter: inside the head, inside its last line, right behind it, and between the bytes that follow.
    const cuts = (bytes: Buffer): number[] => {
      const end = bytes.indexOf('\r\n\r\n')
      return [1, 10, end, end + 1, end + 2, end + 3, end + 4, end + 5, bytes.length - 1]
    }
    const script = (cut: number): UpstreamScript => {
      return async (connection) => {
        await connection.readRequest()
        await connection.send(answer.subarray(0, cut))
        await new Promise((resolve) => setImmediate(resolve))
        await connection.send(answer.subarray(cut))
        expect((await connection.readBytes(6)).toString()).toBe('frames')
      }
    }
    for (const [index, cut] of cuts(head).entries()) {
      await using upstream = await rawUpstream(script(cuts(answer)[index] as number))
      await using proxy = await startProxy({ upstreams: [upstream.url] }, { transport })
      await using client = await rawConnect(proxy.port)
      await client.write(head.subarray(0, cut))
      await new Promise((resolve) => setImmediate(resolve))
      void client.write(head.subarray(cut))
      const response = await client.readResponse()
      expect(response.status).toBe(101)
      expect((await client.readBytes(6)).toString()).toBe('answer')
      client.end()
      await client.closed
      await upstream.close()
    }
  })

  it('behind hooks that take their time', async () => {
    await using upstream = await rawUpstream(async (connection) => {
      await connection.readRequest()
      await connection.send(`${switching()}first from upstream`)
      expect((await connection.readBytes(17)).toString()).toBe('first from client')
      await connection.send(', then more')
    })
    const turn = (): Promise<void> => new Promise((resolve) => setTimeout(resolve, 20))
    await using proxy = await startProxy(
      { upstreams: [upstream.url], use: [async () => void (await turn()) as undefined, () => ({ onResponse: turn })] },
      { transport },
    )
    await using client = await rawConnect(proxy.port)
    void client.write(`${upgradeHead()}first from `)
    void client.write('client')
    expect((await client.readResponse()).status).toBe(101)
    expect((await client.readBytes(30)).toString()).toBe('first from upstream, then more')
  })

  it('after a failover: the bytes go to the upstream that switched, once', async () => {
    await using refusing = await rawUpstream(async (connection) => {
      await connection.readRequest()
      connection.reset()
    })
    await using upstream = await rawUpstream(async (connection) => {
      await connection.readRequest()
      await connection.send(switching())
      expect((await connection.readBytes(6)).toString()).toBe('frames')
      await connection.send('ok')
      expect(await connection.readToEnd()).toHaveLength(0)
    })
    await using proxy = await startProxy({ upstreams: [refusing.url, { url: upstream.url, backup: true }] }, { transport })
    await using client = await rawConnect(proxy.port)
    void client.write(`${upgradeHead()}frames`)
    expect((await client.readResponse()).status).toBe(101)
    expect((await client.readBytes(2)).toString()).toBe('ok')
    client.end()
    await client.closed
    expect(refusing.connections[0]?.received.toString('latin1')).not.toContain('frames')
    await upstream.close()
  })

  it('over TLS', async () => {
    const { ca } = certificates()
    const early = pattern(50_000)
    await using upstream = await rawUpstream(async (connection) => {
      await connection.readRequest()
      await connection.send(Buffer.concat([Buffer.from(switching()), early]))
      expect(await connection.readBytes(early.length)).toEqual(early)
      connection.end()
    })
    await using proxy = await startProxy({ upstreams: [upstream.url] }, { transport, https: true })
    await using client: RawConnection = await rawConnect(proxy.port, { tls: { ca } })
    void client.write(Buffer.concat([Buffer.from(upgradeHead()), early]))
    expect((await client.readResponse()).status).toBe(101)
    expect(await client.readBytes(early.length)).toEqual(early)
    client.end()
    await client.closed
    await upstream.close()
  })

  it('the 101 itself is the upstream’s, and comes once', async () => {
    await using switcher = await rawUpstream(async (connection) => {
      await connection.readRequest()
      await connection.send(
        switching(
          'Sec-WebSocket-Protocol: chat',
          'Sec-WebSocket-Extensions: permessage-deflate',
          'Set-Cookie: a=1',
          'SET-COOKIE: b=2',
          'X-Bytes: caf\xe9',
        ),
      )
    })
    await using proxy = await startProxy({ upstreams: [switcher.url] }, { transport })
    await using client = await rawConnect(proxy.port)
    void client.write(
      upgradeHead('/', 'Sec-WebSocket-Protocol: chat, other', 'Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits'),
    )
    const response = await client.readResponse()
    expect(response.line).toBe('HTTP/1.1 101 Switching Protocols')
    expect(response.header('connection')?.toLowerCase()).toBe('upgrade')
    expect(response.header('upgrade')).toBe('websocket')
    expect(response.header('sec-websocket-accept')).toBe('s3pPLMBiTxaQ9kYGzzhZRbK+xOo=')
    expect(response.header('sec-websocket-protocol')).toBe('chat')
    expect(response.header('sec-websocket-extensions')).toBe('permessage-deflate')
    expect(response.fields.filter((line) => /set-cookie/i.test(line))).toEqual(['Set-Cookie: a=1', 'SET-COOKIE: b=2'])
    expect(response.header('x-bytes')).toBe('caf\xe9')
    await until('the tunnel runs', () => proxy.proxy.stats().tunnels === 1)
    expect(client.unread).toHaveLength(0)
    // And the upstream was asked what the client asked.
    const [asked] = switcher.requests
    expect(asked?.header('sec-websocket-key')).toBe('dGhlIHNhbXBsZSBub25jZQ==')
    expect(asked?.header('sec-websocket-protocol')).toBe('chat, other')
    expect(asked?.header('connection')?.toLowerCase()).toBe('upgrade')
    expect(asked?.all('upgrade')).toEqual(['websocket'])
  })
})
