/** What is compressed, what is not, and what the head says of it. Sockets have a file of their own in test/integration. */
import { subscribe, unsubscribe } from 'node:diagnostics_channel'
import { brotliDecompressSync, gunzipSync, zstdDecompressSync } from 'node:zlib'
import type { InjectedResponse, StageLike } from '@weir/core'
import { type FakeResponse, type RunStageOptions, runStage, stageRunner } from '@weir/testing'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { type CompressDecision, type CompressOptions, compress } from './index.ts'

const text = 'All work and no play makes Jack a dull boy.\n'.repeat(100)
const decode = { gzip: gunzipSync, br: brotliDecompressSync, zstd: zstdDecompressSync }
const every = 'gzip, br, zstd'

/** On a machine that is busy with other tests the stage would do right to compress less. */
const steady: CompressOptions = { overload: false }

type Fields = Readonly<Record<string, string | readonly string[]>>

interface Ask {
  readonly options?: CompressOptions
  readonly request?: Fields
  readonly method?: string
  readonly response?: FakeResponse
  readonly use?: readonly StageLike[]
}

/** `Accept-Encoding: gzip` and a long text, unless said otherwise. */
async function ask({ options = {}, request = {}, method = 'GET', response = {}, use = [] }: Ask = {}): Promise<InjectedResponse> {
  const headers = { 'Accept-Encoding': 'gzip', ...request }
  const { headers: given, body = text, ...rest } = response
  const answer = { headers: { 'Content-Type': 'text/plain', ...(given as Fields) }, body, ...rest }
  return (await runStage([compress({ ...steady, ...options }), ...use], { request: { method, headers }, response: answer })).response
}

/** `plain`, the coding, or `wrong` when the body is not what the head says. */
function codingOf(response: InjectedResponse, body = text): string {
  const coding = response.headers.get('content-encoding')
  if (coding === undefined) return response.text() === body ? 'plain' : 'wrong'
  return decode[coding as 'gzip'](response.body).toString() === body ? coding : 'wrong'
}

describe('a body', () => {
  it.each(['gzip', 'br', 'zstd'] as const)('goes out in %s to who takes it, and decodes to what it was', async (coding) => {
    const response = await ask({ request: { 'Accept-Encoding': coding } })
    expect(codingOf(response)).toBe(coding)
    expect(response.body.length).toBeLessThan(500)
    expect(response.headers.has('content-length')).toBe(false)
    expect(response.headers.get('vary')).toBe('Accept-Encoding')
  })

  it('goes out as it is to who does not, and says that it varies', async () => {
    for (const accept of ['', 'identity', 'gzip;q=0', 'compress']) {
      const response = await ask({ request: { 'Accept-Encoding': accept } })
      expect([codingOf(response), response.headers.get('vary'), response.headers.get('content-length')], accept).toEqual([
        'plain',
        'Accept-Encoding',
        String(text.length),
      ])
    }
  })

  it('that nobody can be given is no reason for a 406', async () => {
    const response = await ask({ request: { 'Accept-Encoding': 'identity;q=0' } })
    expect([response.status, codingOf(response)]).toEqual([200, 'plain'])
  })

  it('comes in the coding that stands first in `codings`, and in none that does not stand there', async () => {
    const request = { 'Accept-Encoding': every }
    expect(codingOf(await ask({ request }))).toBe('zstd')
    expect(codingOf(await ask({ request, options: { codings: ['br', 'zstd'] } }))).toBe('br')
    expect(codingOf(await ask({ options: { codings: ['br', 'zstd'] } }))).toBe('plain')
  })

  it('is what the client asked for, whatever a stage further in asks of the upstream', async () => {
    const plainly: StageLike = (exchange) => void exchange.headers.set('Accept-Encoding', 'identity')
    expect(codingOf(await ask({ use: [plainly] }))).toBe('gzip')
    const greedy: StageLike = (exchange) => void exchange.headers.set('Accept-Encoding', 'gzip')
    expect(codingOf(await ask({ use: [greedy], request: { 'Accept-Encoding': 'identity' } }))).toBe('plain')
  })

  it('of a stage is compressed, too; its error answers are not', async () => {
    expect(codingOf(await ask({ use: [() => ({ status: 200, body: text })] }))).toBe('gzip')
    expect(codingOf(await ask({ use: [() => ({ status: 404, body: 'no' })] }), 'no')).toBe('plain')
  })

  it('stays as it is, whatever bytes, chunks and coding', async () => {
    const bytes = fc.oneof(
      fc.uint8Array({ maxLength: 3000 }),
      fc.array(fc.constantFrom('a', 'b', 'xyz'), { maxLength: 2000 }).map((parts) => Buffer.from(parts.join(''))),
      fc.integer({ min: 0, max: 200_000 }).map((length) => Buffer.alloc(length, 'lorem ipsum ')),
    )
    const run = fc.asyncProperty(
      fc.array(bytes, { minLength: 1, maxLength: 6 }),
      fc.constantFrom('gzip', 'br', 'zstd'),
      fc.constantFrom('text/plain', 'text/event-stream'),
      fc.boolean(),
      async (chunks, coding, type, known) => {
        const whole = Buffer.concat(chunks)
        const headers = { 'Content-Type': type, ...(known ? { 'Content-Length': String(whole.length) } : {}) }
        const { response } = await runner.send({ headers: { 'Accept-Encoding': coding } }, { response: { headers, body: chunks } })
        const said = response.headers.get('content-encoding')
        // Nothing at all stays nothing.
        expect(said).toBe(known && whole.length === 0 ? undefined : coding)
        const back = said === undefined ? response.body : decode[said as 'gzip'](response.body)
        expect(Buffer.compare(back, whole)).toBe(0)
      },
    )
    await using runner = stageRunner(compress({ ...steady, minSize: 0 }))
    await fc.assert(run, { numRuns: 150 })
  })
})

describe('what is left alone', () => {
  const untouched: readonly (readonly [what: string, ask: Ask, vary?: string | undefined])[] = [
    ['an image', { response: { headers: { 'Content-Type': 'image/png' } } }],
    ['no type', { response: { headers: { 'Content-Type': '' } } }],
    ['a part', { response: { status: 206, headers: { 'Content-Range': 'bytes 0-9/100' } } }],
    ['a part that says 200', { response: { headers: { 'Content-Range': 'bytes 0-9/100' } } }],
    ['a difference', { response: { status: 226 } }],
    ['no-transform', { response: { headers: { 'Cache-Control': 'public, No-Transform, max-age=5' } } }],
    ['no-transform by will of the client', { request: { 'Cache-Control': 'no-transform' } }, 'Accept-Encoding'],
    ['a status that is not asked for', { options: { statuses: [404] } }],
    ['a status by function', { options: { statuses: (status) => status !== 200 } }],
    ['a type that is not asked for', { options: { types: ['application/json', 'font/*', '+xml'] } }],
    ['a type by function', { options: { types: () => false } }],
    ['a length below the least', { options: { minSize: '5KiB' } }],
    ['a digest behind the body', { request: { TE: 'trailers' }, response: { headers: { Trailer: 'X-A, Repr-Digest' }, body: [text] } }],
  ]
  for (const [what, given, vary] of untouched)
    it(what, async () => {
      const response = await ask(given)
      expect(codingOf(response)).toBe('plain')
      expect(response.headers.get('vary')).toBe(vary)
    })

  it('is anything that is encoded already, tag and all', async () => {
    const headers = { 'Content-Encoding': 'br', ETag: '"a"', 'Content-Digest': 'sha-256=:x:' }
    const response = await ask({ response: { headers, body: 'not really brotli' } })
    expect([response.text(), ...response.headers.raw.slice(0, 8)]).toEqual([
      'not really brotli',
      'Content-Type',
      'text/plain',
      'Content-Encoding',
      'br',
      'ETag',
      '"a"',
      'Content-Digest',
      'sha-256=:x:',
    ])
  })

  it('is not what says `identity`', async () => {
    const response = await ask({ response: { headers: { 'Content-Encoding': 'identity' } } })
    expect([codingOf(response), response.headers.getAll('content-encoding')]).toEqual(['gzip', ['gzip']])
  })

  it('is the smallest known length; an unknown one is compressed', async () => {
    const body = 'x'.repeat(1023)
    expect(codingOf(await ask({ response: { body } }), body)).toBe('plain')
    expect(codingOf(await ask({ response: { body: `${body}x` } }), `${body}x`)).toBe('gzip')
    expect(codingOf(await ask({ response: { body: ['x', 'y'] } }), 'xy')).toBe('gzip')
  })

  it('is a response without a body; HEAD and 304 still say that they vary', async () => {
    const head = await ask({ method: 'HEAD', response: { headers: { 'Content-Length': '5000', ETag: '"a"' }, body: '' } })
    expect(['content-encoding', 'content-length', 'etag', 'vary'].map((name) => head.headers.get(name))).toEqual([
      undefined,
      '5000',
      '"a"',
      'Accept-Encoding',
    ])
    const small = await ask({ method: 'HEAD', response: { headers: { 'Content-Length': '5' }, body: '' } })
    expect(small.headers.has('vary')).toBe(false)
    const notModified = await ask({ response: { status: 304, body: '' } })
    expect([notModified.status, notModified.headers.get('vary')]).toEqual([304, 'Accept-Encoding'])
    const nothing = await ask({ response: { status: 204, body: '' } })
    expect([nothing.status, nothing.headers.has('vary'), nothing.headers.has('content-encoding')]).toEqual([204, false, false])
  })

  it('includes error pages of the upstream only when asked to', async () => {
    expect(codingOf(await ask({ response: { status: 500 } }))).toBe('gzip')
    expect(codingOf(await ask({ response: { status: 500 }, options: { statuses: [200] } }))).toBe('plain')
  })

  it.each([
    ['application/json; charset=utf-8', true],
    ['APPLICATION/JSON', true],
    ['application/problem+json', true],
    ['application/atom+xml', true],
    ['image/svg+xml', true],
    ['application/wasm', true],
    ['application/javascript', true],
    ['application/x-ndjson', true],
    ['text/event-stream', true],
    ['text', false],
    ['application/zip', false],
    ['font/woff2', false],
    ['video/mp4', false],
    ['application/octet-stream', false],
  ])('by default: %s %s', async (type, compressed) => {
    expect(codingOf(await ask({ response: { headers: { 'Content-Type': type } } }))).toBe(compressed ? 'gzip' : 'plain')
  })

  it('is up to a function of the type', async () => {
    const seen: string[] = []
    const types = (type: string): boolean => {
      seen.push(type)
      return type === 'application/zip'
    }
    const zip = { headers: { 'Content-Type': 'Application/ZIP; x=y' } }
    expect(codingOf(await ask({ options: { types }, response: zip }))).toBe('gzip')
    expect(seen).toEqual(['application/zip'])
  })
})

describe('Vary', () => {
  it.each([
    [[], ['Accept-Encoding']],
    [['Origin'], ['Origin', 'Accept-Encoding']],
    [['Origin, accept-encoding'], ['Origin, accept-encoding']],
    [
      ['Origin', 'Accept-Encoding'],
      ['Origin', 'Accept-Encoding'],
    ],
    [['*'], ['*']],
    [['X-Accept-Encoding'], ['X-Accept-Encoding', 'Accept-Encoding']],
  ])('%j becomes %j', async (given, expected) => {
    for (const accept of ['gzip', 'identity']) {
      const response = await ask({ request: { 'Accept-Encoding': accept }, response: { headers: { Vary: given } } })
      expect(response.headers.getAll('vary')).toEqual(expected)
    }
  })
})

describe('what the response says about its bytes', () => {
  it.each([
    ['"a"', 'W/"a"'],
    ['W/"a"', 'W/"a"'],
    ['"a,W/b"', 'W/"a,W/b"'],
    ['naked', undefined],
  ])('the tag %s becomes %s, and stays on a body that is not compressed', async (tag, weak) => {
    expect((await ask({ response: { headers: { ETag: tag } } })).headers.get('etag')).toBe(weak)
    const plain = await ask({ request: { 'Accept-Encoding': 'identity' }, response: { headers: { ETag: tag } } })
    expect(plain.headers.get('etag')).toBe(tag)
  })

  it('sums and ranges go, and stay on a body that is not compressed', async () => {
    const headers = {
      'Content-MD5': 'a',
      Digest: 'b',
      'Content-Digest': 'c',
      'Repr-Digest': 'd',
      'Accept-Ranges': 'bytes',
      'Last-Modified': 'e',
    }
    const names = Object.keys(headers)
    const compressed = await ask({ response: { headers } })
    expect(names.filter((name) => compressed.headers.has(name))).toEqual(['Last-Modified'])
    const plain = await ask({ request: { 'Accept-Encoding': 'identity' }, response: { headers } })
    expect(names.filter((name) => plain.headers.has(name))).toEqual(names)
  })

  it('an upstream that compares by letters does not keep the client from its 304', async () => {
    const letters: RunStageOptions['response'] = ({ headers }) =>
      headers.get('if-none-match') === '"a,b"'
        ? { status: 304, headers: { ETag: '"a,b"' } }
        : {
            headers: { ETag: '"a,b"', 'Content-Type': 'text/plain', 'Content-Length': String(text.length), 'Set-Cookie': ['a=1', 'b=2'] },
            body: text,
          }
    const stage = compress(steady)
    await using runner = stageRunner(stage, { response: letters })
    const get = async (ifNoneMatch: string): Promise<InjectedResponse> =>
      (await runner.send({ headers: { 'Accept-Encoding': 'gzip', 'If-None-Match': ifNoneMatch } })).response
    const first = await get('"old"')
    expect([first.status, codingOf(first), first.headers.get('etag')]).toEqual([200, 'gzip', 'W/"a,b"'])
    const again = await get('W/"x", W/"a,b"')
    expect([again.status, again.body.length, again.headers.get('etag'), again.headers.get('vary')]).toEqual([
      304,
      0,
      'W/"a,b"',
      'Accept-Encoding',
    ])
    expect(again.headers.getAll('set-cookie')).toEqual(['a=1', 'b=2'])
    expect(again.headers.has('content-type')).toBe(false)
    expect((await get('W/"b"')).status).toBe(200)
    // The tag as the upstream made it is the upstream's business.
    const strong = await get('"a,b"')
    expect([strong.status, strong.headers.get('etag')]).toEqual([304, '"a,b"'])
    expect(stage.stats()).toMatchObject({ active: 0, compressed: { gzip: 2 }, skipped: { 'not-modified': 1, bodiless: 1 } })
  })

  it('a 304 has the tag that the client holds', async () => {
    const response = { status: 304, headers: { ETag: '"a"' }, body: '' }
    const tag = async (held: string): Promise<string | undefined> =>
      (await ask({ request: { 'If-None-Match': held }, response })).headers.get('etag')
    expect(await tag('W/"a"')).toBe('W/"a"')
    expect(await tag('"a"')).toBe('"a"')
    expect(await tag('W/"a", "a"')).toBe('"a"')
    expect(await tag('W/"ab"')).toBe('"a"')
    expect(await tag('*')).toBe('"a"')
  })

  it('a range of what came compressed is not asked for; any other is', async () => {
    const arrives = async (headers: Fields): Promise<boolean> => {
      const { upstreamRequests } = await runStage(compress(), { request: { headers: { Range: 'bytes=5-', ...headers } } })
      return upstreamRequests[0]?.headers.has('range') === true
    }
    expect(await arrives({ 'If-Range': 'W/"a"' })).toBe(false)
    expect(await arrives({ 'If-Range': '"a"' })).toBe(true)
    expect(await arrives({ 'If-Range': 'Wed, 21 Oct 2026 07:28:00 GMT' })).toBe(true)
    expect(await arrives({})).toBe(true)
  })

  it('If-Match goes to the upstream as it came, where a weak tag matches nothing', async () => {
    const { upstreamRequests } = await runStage(compress(), { request: { method: 'PUT', headers: { 'If-Match': 'W/"a"' }, body: 'x' } })
    expect(upstreamRequests[0]?.headers.get('if-match')).toBe('W/"a"')
  })
})

describe('a busy process', () => {
  it('compresses faster, then no more, then again', async () => {
    let lag = 0
    const stage = compress({ overload: { reduceAt: 20, skipAt: '100ms', lag: () => lag } })
    await using runner = stageRunner(stage)
    const body = Array.from({ length: 3000 }, (_, i) => `${i * 7919}`).join(' ')
    const length = async (): Promise<number> => {
      const { response } = await runner.send(
        { headers: { 'Accept-Encoding': 'gzip' } },
        { response: { headers: { 'Content-Type': 'text/plain' }, body } },
      )
      expect(['gzip', 'plain']).toContain(codingOf(response, body))
      expect(response.headers.get('vary')).toBe('Accept-Encoding')
      return response.body.length
    }
    const best = await length()
    lag = 20
    const quick = await length()
    lag = 100
    const none = await length()
    lag = 19
    expect([best < quick, quick < none, none, await length()]).toEqual([true, true, body.length, best])
    expect(stage.stats()).toMatchObject({ reduced: 1, compressed: { gzip: 3 }, skipped: { overload: 1 } })
  })

  it('does not care when told so, and asks nobody', async () => {
    const stage = compress({ overload: false })
    await using runner = stageRunner(stage, { response: { headers: { 'Content-Type': 'text/plain' }, body: text } })
    await runner.send()
    const until = performance.now() + 500
    while (performance.now() < until);
    await new Promise((resolve) => setTimeout(resolve, 1))
    expect(codingOf((await runner.send({ headers: { 'Accept-Encoding': 'gzip' } })).response)).toBe('gzip')
  })
})

describe('BREACH', () => {
  const crossSite = { 'Sec-Fetch-Site': 'cross-site' }
  it.each([
    [{ ...crossSite, Cookie: 'a=1' }, 'plain'],
    [{ ...crossSite, Authorization: 'Basic x' }, 'plain'],
    [crossSite, 'gzip'],
    [{ 'Sec-Fetch-Site': 'same-origin', Cookie: 'a=1' }, 'gzip'],
    [{ Cookie: 'a=1' }, 'gzip'],
  ] as const)('%j: %s', async (request, coding) => {
    const response = await ask({ request, options: { skipCrossSite: true } })
    expect([codingOf(response), response.headers.get('vary')]).toEqual([coding, 'Accept-Encoding'])
    expect(codingOf(await ask({ request }))).toBe('gzip')
  })
})

describe('who wants to know', () => {
  it('is told of every decision', async () => {
    const said: string[] = []
    const listen = (message: unknown): void => {
      const { stage, coding, reason, exchange } = message as CompressDecision
      said.push(`${stage} ${exchange.url} ${coding} ${reason}`)
    }
    subscribe('weir:compress:decision', listen)
    const stage = compress({ ...steady, name: 'zip' })
    await using runner = stageRunner(stage)
    await runner.send(
      { url: '/a', headers: { 'Accept-Encoding': 'br' } },
      { response: { headers: { 'Content-Type': 'text/css' }, body: text } },
    )
    await runner.send({ url: '/b' })
    unsubscribe('weir:compress:decision', listen)
    await runner.send({ url: '/c' })
    expect(said).toEqual(['zip /a br compressed', 'zip /b undefined not-accepted'])
    const stats = stage.stats()
    expect(stats).toMatchObject({
      active: 0,
      compressed: { gzip: 0, br: 1, zstd: 0 },
      skipped: { 'not-accepted': 2 },
      bytesIn: text.length,
    })
    expect(stats.bytesOut).toBeGreaterThan(10)
    expect(stats.bytesOut).toBeLessThan(text.length)
  })
})

describe('without a measure of its own', () => {
  it('the stage sees for itself that the process is late, from its start to its end', async () => {
    const stage = compress({ overload: { reduceAt: 50, skipAt: 100 } })
    await using runner = stageRunner(stage, { response: { headers: { 'Content-Type': 'text/plain' }, body: text } })
    const coding = async (): Promise<string> => codingOf((await runner.send({ headers: { 'Accept-Encoding': 'gzip' } })).response)
    await coding()
    const until = performance.now() + 500
    while (performance.now() < until);
    // The look that was due meanwhile.
    await new Promise((resolve) => setTimeout(resolve, 1))
    expect(await coding()).toBe('plain')
    expect(stage.stats().skipped).toEqual({ overload: 1 })
  })
})
