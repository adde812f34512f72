import { createProxy, type Upstream, type UpstreamCall, type UpstreamRequest } from '@weir/core'
import { describe, expect, it } from 'vitest'
import { bodySource } from './conformance/transport/body-source.ts'
import { Recorder, type RecorderOptions } from './conformance/transport/recorder.ts'
import { turns } from './conformance/transport/rig.ts'
import { type FakeTransport, fakeTransport } from './fake-transport.ts'
import { virtualClock } from './virtual-clock.ts'

const upstream = { id: 'one', url: new URL('http://upstream.test') } as Upstream
const timeouts = { connect: 1000, head: 1000, idle: 1000 }

function send(transport: FakeTransport, request: Partial<UpstreamRequest> = {}, options: RecorderOptions = {}): Recorder {
  const recorder = new Recorder(options)
  transport.send({ method: 'GET', path: '/', headers: ['Host', 'a'], body: undefined, timeouts, ...request }, upstream, recorder)
  return recorder
}

describe('fakeTransport', () => {
  it('answers with what it was given, in the order of the port', async () => {
    const transport = fakeTransport({
      status: 201,
      reason: 'Made',
      interim: [{ status: 103, headers: ['Link', '<a>'] }, { status: 102 }],
      headers: { 'X-A': '1', 'set-cookie': ['a', 'b'] },
      body: ['one', Buffer.from('two')],
      trailers: ['X-T', '1'],
    })
    const recorder = send(transport)
    expect(recorder.state).toBe('started')
    await recorder.ended()
    expect(recorder.objections).toEqual([])
    expect(recorder.interims).toEqual([
      { status: 103, headers: ['Link', '<a>'] },
      { status: 102, headers: [] },
    ])
    expect(recorder.head).toEqual({ status: 201, reason: 'Made', headers: ['X-A', '1', 'set-cookie', 'a', 'set-cookie', 'b'] })
    expect(recorder.body.toString()).toBe('onetwo')
    expect(recorder.trailers).toEqual(['X-T', '1'])
  })

  it('adds a length to a body in one piece, and to no other', async () => {
    const lengths = async (response: Parameters<typeof fakeTransport>[0]): Promise<unknown> =>
      (await send(fakeTransport(response)).ended()).head?.headers
    expect(await lengths({ body: 'h\u00e4' })).toEqual(['Content-Length', '3'])
    expect(await lengths({ body: ['ha'] })).toEqual([])
    expect(await lengths({ body: 'ha', headers: ['transfer-encoding', 'chunked'] })).toEqual(['transfer-encoding', 'chunked'])
    expect(await lengths({})).toEqual([])
  })

  it('has no body for HEAD, 204 and 304', async () => {
    expect((await send(fakeTransport({ body: 'x' }), { method: 'HEAD' }).ended()).bytes).toBe(0)
    expect((await send(fakeTransport({ body: 'x', status: 204 })).ended()).bytes).toBe(0)
    expect((await send(fakeTransport({ body: 'x', status: 304 })).ended()).bytes).toBe(0)
  })

  it('reads the request before it asks, and keeps it', async () => {
    const transport = fakeTransport(({ method, path, headers, body }) => ({ body: `${method} ${path} ${headers.get('x-a')} ${body}` }))
    const body = bodySource(['some', ' bytes'], { trailers: ['X-T', '1'] })
    const recorder = await send(transport, { method: 'POST', path: '/p?q', headers: ['X-A', 'b'], body }).ended()
    expect(recorder.body.toString()).toBe('POST /p?q b some bytes')
    expect(transport.requests).toHaveLength(1)
    expect(transport.requests[0]).toMatchObject({ method: 'POST', trailers: ['X-T', '1'] })
  })

  it('fails in place of the head, or behind a part of the body', async () => {
    const before = send(fakeTransport({ error: 'ERR_CONNECT_REFUSED' }))
    expect(await before.failed()).toMatchObject({ code: 'ERR_CONNECT_REFUSED', upstream })
    expect(before.head).toBeUndefined()
    const within = send(fakeTransport({ status: 200, body: ['half'], error: 'ERR_UPSTREAM_BODY' }))
    expect(await within.failed()).toMatchObject({ code: 'ERR_UPSTREAM_BODY' })
    expect(within.head?.status).toBe(200)
    expect(within.body.toString()).toBe('half')
    const thrown = send(
      fakeTransport(() => {
        throw new Error('a mistake in the test')
      }),
    )
    expect((await thrown.failed()).message).toContain('a mistake in the test')
    for (const recorder of [before, within, thrown]) expect(recorder.objections).toEqual([])
  })

  it('delivers nothing while paused, and goes on where it was', async () => {
    const transport = fakeTransport({ body: ['a', 'b', 'c'] })
    const recorder = send(transport, {}, { onHead: (self) => self.pause(), onData: (self) => self.pause() })
    await recorder.headed()
    for (const so of ['', 'a', 'ab', 'abc']) {
      await turns(2)
      expect(recorder.body.toString()).toBe(so)
      expect(recorder.state).toBe('head')
      recorder.resume()
    }
    await recorder.ended()
    expect(recorder.objections).toEqual([])
  })

  it.each(['onStart', 'onHead', 'onData'] as const)('is silent after an abort inside %s', async (where) => {
    const transport = fakeTransport({ body: ['a', 'b'] })
    const recorder = send(transport, {}, { [where]: (self: Recorder) => self.abort() })
    await recorder.settled()
    await turns(3)
    expect(recorder.objections).toEqual([])
    expect(transport).toMatchObject({ open: 0, aborted: 1 })
    expect(transport.requests).toHaveLength(where === 'onStart' ? 0 : 1)
  })

  it('lets go of the body when aborted', async () => {
    const body = bodySource(['a', 'b', 'c'])
    const transport = fakeTransport()
    const recorder = send(transport, { method: 'POST', body })
    recorder.abort()
    expect(body.closed).toBe(true)
    await turns(5)
    expect(transport.requests).toHaveLength(0)
  })

  it('knows which calls are reused, sent and open', async () => {
    let answer: (response: object) => void = () => {}
    const transport = fakeTransport(() => new Promise((resolve) => (answer = resolve)))
    const seen: UpstreamCall[] = []
    const first = send(transport, {}, { onStart: ({ call }) => void seen.push(call) })
    await turns(1)
    expect(transport.open).toBe(1)
    answer({})
    await first.ended()
    expect(transport.open).toBe(0)
    expect(seen[0]).toMatchObject({ reused: false, connectMs: 0, sent: true })
    expect(send(transport).call).toMatchObject({ reused: true, connectMs: undefined, sent: false })
  })

  it('keeps the head timeout by a clock', async () => {
    const clock = virtualClock()
    const transport = fakeTransport(() => new Promise(() => {}), { clock })
    const recorder = send(transport, { timeouts: { ...timeouts, head: 500 } })
    await clock.advance(499)
    expect(recorder.state).toBe('started')
    await clock.advance(1)
    expect((await recorder.failed()).code).toBe('ERR_HEAD_TIMEOUT')
    const quick = fakeTransport({}, { clock })
    await send(quick).ended()
    expect(clock.pending).toBe(0)
  })

  it('carries a whole proxy', async () => {
    const transport = fakeTransport(({ path }) => ({ headers: { 'X-Path': path }, body: ['from ', 'upstream'] }))
    await using proxy = createProxy({ upstreams: ['http://upstream.test/base'], transport })
    const response = await proxy.inject({ url: '/x' })
    expect(response.status).toBe(200)
    expect(response.headers.get('x-path')).toBe('/base/x')
    expect(response.text()).toBe('from upstream')
  })
})
