/** One request through the whole proxy without a socket: what goes in arrives, what comes out is read back, and what broke is a rejection. */
import { fakeTransport, type Respond } from '@weir/testing'
import { describe, expect, it } from 'vitest'
import type { InjectedRequest, InjectedResponse } from './inject.ts'
import { createProxy } from './proxy.ts'
import type { ProxyOptions } from './proxy-options.ts'

async function send(request: InjectedRequest, respond: Parameters<typeof fakeTransport>[0] = {}, options: Partial<ProxyOptions> = {}) {
  const transport = fakeTransport(respond)
  const proxy = createProxy({ upstreams: ['http://a.test'], transport, ...options })
  try {
    const response = await proxy.inject(request)
    return { response, seen: transport.requests[0], requests: transport.requests }
  } finally {
    await proxy.close()
  }
}

describe('scheme', () => {
  it.each([
    ['10.0.0.1', ['https'], 'https'],
    ['10.0.0.1', ['HTTPS , http'], 'https'],
    ['10.0.0.1', ['http', 'https'], 'http'],
    ['10.0.0.1', ['wss'], 'http'],
    ['10.0.0.1', [], 'http'],
    ['192.0.2.1', ['https'], 'http'],
  ])('of a client behind %s that says %j is %s, whatever a stage does to the field', async (remoteAddress, told, expected) => {
    const seen: string[] = []
    await send(
      { remoteAddress, headers: { Host: 'a.test', 'X-Forwarded-Proto': told } },
      {},
      {
        trustedProxies: ['10.0.0.0/8'],
        use: [
          (exchange) => {
            seen.push(exchange.scheme)
            exchange.headers.delete('x-forwarded-proto')
            seen.push(exchange.scheme)
          },
        ],
      },
    )
    expect(seen).toEqual([expected, expected])
  })
})

describe('the request', () => {
  it('is GET / from 127.0.0.1 for localhost when nothing else is said', async () => {
    const { seen } = await send({})
    expect(seen).toMatchObject({ method: 'GET', path: '/' })
    expect([...(seen?.headers ?? [])]).toEqual([
      ['Host', 'localhost'],
      ['X-Forwarded-For', '127.0.0.1'],
      ['X-Forwarded-Proto', 'http'],
      ['X-Forwarded-Host', 'localhost'],
    ])
  })

  it('keeps case, order and several lines of its fields', async () => {
    const { seen } = await send({
      method: 'PUT',
      url: '/a?b',
      headers: { 'x-B': ['1', '2'], HOST: 'own', Accept: 'a: b' },
      remoteAddress: '2001:db8::1',
    })
    expect(seen).toMatchObject({ method: 'PUT', path: '/a?b' })
    expect([...(seen?.headers ?? [])].slice(0, 5)).toEqual([
      ['x-B', '1'],
      ['x-B', '2'],
      ['HOST', 'own'],
      ['Accept', 'a: b'],
      ['X-Forwarded-For', '2001:db8::1'],
    ])
  })

  for (const body of ['', 'caf\u00e9', new Uint8Array([0, 255, 13, 10]), 'x'.repeat(200_000)])
    it(`has a body of ${body.length} ${typeof body === 'string' ? 'characters' : 'octets'}`, async () => {
      const { seen } = await send({ method: 'POST', body })
      expect(Buffer.compare(seen?.body as Buffer, Buffer.from(body as string))).toBe(0)
      expect(seen?.headers.get('content-length')).toBe(String(Buffer.byteLength(body)))
    })

  it('may frame its body itself', async () => {
    const { seen } = await send({ method: 'POST', headers: { 'Transfer-Encoding': 'chunked' }, body: '3\r\nabc\r\n0\r\nX-Sum: 1\r\n\r\n' })
    expect(String(seen?.body)).toBe('abc')
    expect(seen?.trailers).toEqual(['X-Sum', '1'])
    expect(seen?.headers.has('content-length')).toBe(false)
  })

  it('is asked for its body by a 100, once policy has passed', async () => {
    const request = { method: 'POST', body: 'abc', headers: { Expect: '100-continue' } }
    const { response, seen } = await send(request)
    expect(response.interim.map(({ status }) => status)).toEqual([100])
    expect(String(seen?.body)).toBe('abc')
    const denied = await send(request, {}, { use: [() => ({ status: 403 })] })
    expect(denied.response).toMatchObject({ status: 403, interim: [] })
    expect(denied.requests).toEqual([])
  })

  it('that is no HTTP is a rejection', async () => {
    await expect(send({ headers: { 'not a token': '1' } })).rejects.toThrow()
    await expect(send({ url: '/a b' })).rejects.toThrow()
  })
})

describe('the response', () => {
  const fields = (response: InjectedResponse): [string, string][] =>
    [...response.headers].filter(([name]) => !/^(Date|Connection|Keep-Alive)$/.test(name))

  it('has status, reason, fields and body as they were written', async () => {
    const { response } = await send(
      {},
      { status: 418, reason: 'Short and stout', headers: ['X-b', '1', 'x-B', '2', 'Empty', ''], body: 'caf\u00e9' },
    )
    expect(response).toMatchObject({ status: 418, reason: 'Short and stout', interim: [] })
    expect(fields(response)).toEqual([
      ['X-b', '1'],
      ['x-B', '2'],
      ['Empty', ''],
      ['Content-Length', '5'],
    ])
    expect(response.text()).toBe('caf\u00e9')
    expect(response.trailers.size).toBe(0)
  })

  it('every octet of a body comes through, framed by length or by chunks', async () => {
    const body = Buffer.from(Array.from({ length: 70_000 }, (_, i) => (i * 31) & 255))
    for (const given of [body, [body.subarray(0, 1), body.subarray(1, 40_000), body.subarray(40_000)]]) {
      const { response } = await send({}, { body: given })
      expect(response.body.equals(body)).toBe(true)
    }
  })

  it('of a stage may come with its body as text, which is taken when it is as long, and only where nobody wants to see the bytes', async () => {
    const octets = Buffer.from(Array.from({ length: 256 }, (_, i) => i))
    const upper = Buffer.from(octets.map((octet) => octet ^ 0x20))
    const reply = (latin1: string | undefined, length = '256') => ({
      status: 200,
      fields: ['X-A', '1', 'Content-Length', length],
      body: octets,
      ...(latin1 === undefined ? {} : { latin1 }),
    })
    const answered = async (latin1: string | undefined, ...use: NonNullable<ProxyOptions['use']>) => {
      const { response } = await send({}, {}, { use: [...use, () => reply(latin1)] })
      expect([response.status, response.headers.get('content-length'), response.headers.get('x-a')]).toEqual([200, '256', '1'])
      return response.body
    }
    expect(await answered(undefined)).toEqual(octets)
    // Another text than the body, so that it shows which of them was sent.
    expect(await answered(upper.toString('latin1'))).toEqual(upper)
    expect(await answered(upper.toString('latin1').slice(1))).toEqual(octets)
    expect(await answered('')).toEqual(octets)
    expect(await answered(upper.toString('latin1'), () => ({ onResponse: () => {} }))).toEqual(octets)
    const head = await send({ method: 'HEAD' }, {}, { use: [() => reply(upper.toString('latin1'))] })
    expect([head.response.headers.get('content-length'), head.response.body.length]).toEqual(['256', 0])
  })

  it('of HEAD has a length and no body; 204 and 304 have neither', async () => {
    const head = await send({ method: 'HEAD' }, { body: 'abc' })
    expect([head.response.headers.get('content-length'), head.response.body.length]).toEqual(['3', 0])
    for (const status of [204, 304]) {
      const { response } = await send({}, { status })
      expect([response.status, response.body.length]).toEqual([status, 0])
    }
  })

  it('has trailers for who takes them', async () => {
    const answer = { body: ['abc'], headers: ['Trailer', 'X-Sum'], trailers: ['X-Sum', '1', 'x-sum', '2'] }
    const { response } = await send({ headers: { TE: 'trailers' } }, answer)
    expect(response.text()).toBe('abc')
    expect(response.trailers.getAll('X-Sum')).toEqual(['1', '2'])
    expect((await send({}, answer)).response.trailers.size).toBe(0)
  })

  it('has interim heads in order', async () => {
    const { response } = await send({}, { interim: [{ status: 103, headers: ['Link', '</a>', 'Link', '</b>'] }, { status: 199 }] })
    expect(response.interim.map(({ status, headers }) => [status, headers.getAll('link')])).toEqual([
      [103, ['</a>', '</b>']],
      [199, []],
    ])
    expect(response.status).toBe(200)
  })

  it('of the proxy itself is one like any other', async () => {
    expect((await send({ method: 'TRACE' })).response.status).toBe(405)
    expect((await send({}, { error: 'ERR_CONNECT_REFUSED' }, { retry: false })).response.status).toBe(502)
    expect((await send({}, {}, { use: [() => ({ status: 200, body: 'own' })] })).response.text()).toBe('own')
  })

  for (const [what, body] of [
    ['with a length', { headers: { 'Content-Length': '10' } }],
    ['in chunks', {}],
  ] as const)
    it(`that breaks off ${what} is a rejection`, async () => {
      await expect(send({}, { ...body, status: 200, body: ['abc'], error: 'ERR_UPSTREAM_BODY' })).rejects.toThrow(/broken off/)
    })
})

it('many at once do not mix', async () => {
  const respond: Respond = async ({ path }) => {
    if (path.endsWith('0')) await new Promise((resolve) => void setImmediate(resolve))
    return { body: path }
  }
  const proxy = createProxy({ upstreams: ['http://a.test'], transport: fakeTransport(respond) })
  const urls = Array.from({ length: 30 }, (_, i) => `/${i}`)
  const texts = await Promise.all(urls.map(async (url) => (await proxy.inject({ url })).text()))
  expect(texts).toEqual(urls)
  await proxy.close()
  expect(proxy.stats().inflight).toBe(0)
})
