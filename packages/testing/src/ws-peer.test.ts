import { once } from 'node:events'
import { describe, expect, it } from 'vitest'
import { certificates } from './certificates.ts'
import { rawConnect, rawRequest } from './raw-client.ts'
import { WsRefused, wsConnect, wsUpstream } from './ws-peer.ts'

describe('wsUpstream and wsConnect', () => {
  it('speak to each other: text and binary of every length form, pings, fragments, close', async () => {
    await using upstream = await wsUpstream()
    await using peer = await wsConnect(upstream.port, { path: '/chat?x=1', headers: ['Host', 'a.test', 'X-One', '1'] })
    for (const text of ['', 'h\u00e4llo', 'x'.repeat(125), 'y'.repeat(126), 'z'.repeat(70_000)]) {
      void peer.send(text)
      expect(await peer.next()).toMatchObject({ kind: 'text', text })
    }
    void peer.send(Buffer.of(0, 255, 128))
    expect(await peer.next()).toMatchObject({ kind: 'binary', data: Buffer.of(0, 255, 128) })
    void peer.ping('are you there')
    expect(await peer.next()).toMatchObject({ kind: 'pong', text: 'are you there' })
    void peer.sendFragments(['a', 'b', 'c'])
    expect(await peer.next()).toMatchObject({ kind: 'text', text: 'abc' })
    void peer.close(4001, 'enough')
    expect(await peer.next()).toMatchObject({ kind: 'close', code: 4001, text: 'enough' })
    expect(await peer.closed).toBe('fin')
    expect(upstream.requests[0]).toMatchObject({ target: '/chat?x=1' })
    expect(upstream.requests[0]?.all('host')).toEqual(['a.test'])
    expect(upstream.peers[0]?.head.headers).toEqual(expect.arrayContaining(['X-One', '1']))
  })

  it('are understood by an implementation of others', async () => {
    await using upstream = await wsUpstream({ first: ['welcome'] })
    const socket = new WebSocket(`ws://127.0.0.1:${upstream.port}/`, ['one', 'two'])
    const received: unknown[] = []
    socket.addEventListener('message', ({ data }) => {
      received.push(data)
      if (received.length === 1) socket.send('x'.repeat(100_000))
      else socket.close(4000, 'done')
    })
    const [closed] = (await once(socket, 'close')) as [CloseEvent]
    expect(socket.protocol).toBe('one')
    expect(received).toEqual(['welcome', 'x'.repeat(100_000)])
    expect(closed).toMatchObject({ code: 4000, reason: 'done', wasClean: true })
  })

  it('agree on a subprotocol', async () => {
    await using upstream = await wsUpstream({ protocol: 'two', headers: ['X-More', 'yes'] })
    await using peer = await wsConnect(upstream.port, { protocols: ['one', 'two'] })
    expect(peer.protocol).toBe('two')
    expect(peer.head.headers).toEqual(expect.arrayContaining(['X-More', 'yes']))
    expect(upstream.peers[0]?.protocol).toBe('two')
    expect(upstream.requests[0]?.header('sec-websocket-protocol')).toBe('one, two')
  })

  it('deliver bytes right behind the handshake, both ways', async () => {
    await using upstream = await wsUpstream({ first: ['one', 'two'] })
    await using peer = await wsConnect(upstream.port, { early: Buffer.of(0x89, 0x80, 0, 0, 0, 0) })
    expect((await peer.next()).text).toBe('one')
    expect((await peer.next()).text).toBe('two')
    expect(await peer.next()).toMatchObject({ kind: 'pong' })
  })

  it('refuse with a status, fields and a body', async () => {
    await using upstream = await wsUpstream({ refuse: { status: 403, headers: ['X-Why', 'no'], body: 'go away' } })
    const error = await wsConnect(upstream.port).catch((e: unknown) => e)
    expect(error).toBeInstanceOf(WsRefused)
    const { response } = error as WsRefused
    expect(response).toMatchObject({ status: 403, reason: 'Forbidden', complete: true })
    expect(response.header('x-why')).toBe('no')
    expect(response.text()).toBe('go away')
    await using plain = await wsUpstream({ refuse: 404 })
    expect((await rawRequest(plain.port, 'GET / HTTP/1.1\r\nHost: a\r\n\r\n')).status).toBe(404)
  })

  it.each([
    ['reset', { reason: 'ended', ending: 'reset' }],
    ['hangUp', { reason: 'ended', ending: 'fin' }],
    ['stall', { reason: 'deadline', ending: 'open' }],
  ] as const)('fail instead of answering: %s', async (fail, expected) => {
    await using upstream = await wsUpstream({ fail })
    await expect(wsConnect(upstream.port, { deadline: 200 })).rejects.toMatchObject(expected)
  })

  it('crash in the middle', async () => {
    await using upstream = await wsUpstream({
      script: async (peer) => {
        await peer.next()
        peer.reset()
      },
    })
    await using peer = await wsConnect(upstream.port)
    void peer.send('hit')
    await expect(peer.next()).rejects.toMatchObject({ reason: 'ended', ending: 'reset' })
  })

  it('work over TLS', async () => {
    await using upstream = await wsUpstream({ tls: certificates().localhost })
    await using peer = await wsConnect(upstream.port, { tls: { ca: certificates().ca } })
    void peer.send('safe')
    expect((await peer.next()).text).toBe('safe')
  })

  it('forgive no frame that RFC 6455 forbids', async () => {
    const frames = {
      'without a mask': Buffer.of(0x81, 0x01, 0x61),
      'reserved bits': Buffer.of(0xc1, 0x80, 0, 0, 0, 0),
      'unknown opcode 3': Buffer.of(0x83, 0x80, 0, 0, 0, 0),
      'out of turn': Buffer.of(0x80, 0x80, 0, 0, 0, 0),
      'control frame in fragments': Buffer.of(0x09, 0x80, 0, 0, 0, 0),
    }
    for (const [what, bytes] of Object.entries(frames)) {
      const upstream = await wsUpstream()
      await using peer = await wsConnect(upstream.port)
      void peer.write(bytes)
      await peer.closed
      await expect(upstream.close()).rejects.toThrow(what)
    }
  })

  it('check the proof of the handshake', async () => {
    await using upstream = await wsUpstream()
    await using connection = await rawConnect(upstream.port)
    // The example of RFC 6455 §1.3.
    void connection.write(
      'GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n',
    )
    expect((await connection.readResponse()).header('sec-websocket-accept')).toBe('s3pPLMBiTxaQ9kYGzzhZRbK+xOo=')
  })
})
