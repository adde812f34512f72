/** Dictionaries (RFC 9842): who offers one, what is kept of it, and who gets a body that is packed with it. A real browser has its test in test/integration. */
import { createHash } from 'node:crypto'
import { zstdDecompressSync } from 'node:zlib'
import type { InjectedResponse, OptionsError, StageLike } from '@weir/core'
import { type FakeResponse, type StageRunner, stageRunner } from '@weir/testing'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { type CompressionDictionariesOptions, type CompressOptions, compress, compressionDictionaries } from './index.ts'

/** Text that gzip and the like cannot shrink to nothing: each line is another. */
function bundle(release: number): string {
  const lines: string[] = []
  for (let line = 0; line < 400; line++)
    lines.push(
      `const v${line} = '${createHash('sha256')
        .update(`${line} ${line % 40 === 0 ? release : ''}`)
        .digest('base64')}'`,
    )
  return lines.join('\n')
}
const first = bundle(1)
const second = bundle(2)
const sha256 = (content: string | Uint8Array): string => createHash('sha256').update(content).digest('base64')
const magic = '5e2a4d1820000000'

/** What a client does with `dcz`: the hash has to be that of what it holds. */
function unpack(response: InjectedResponse, dictionary: string | Uint8Array): string {
  expect(response.headers.get('content-encoding')).toBe('dcz')
  expect(response.body.subarray(0, 8).toString('hex')).toBe(magic)
  expect(response.body.subarray(8, 40).toString('base64')).toBe(sha256(dictionary))
  return zstdDecompressSync(response.body.subarray(40), { dictionary: Buffer.from(dictionary) }).toString()
}

const script = { 'Content-Type': 'text/javascript', 'Cache-Control': 'public, max-age=3600' }
const all = 'gzip, br, zstd, dcb, dcz'

interface Site extends AsyncDisposable {
  readonly dictionaries: ReturnType<typeof compressionDictionaries>
  readonly stage: ReturnType<typeof compress>
  ask(body: FakeResponse['body'], more?: Asking): Promise<InjectedResponse>
}
interface Asking {
  readonly url?: string
  readonly method?: string
  readonly request?: Readonly<Record<string, string>>
  readonly response?: Readonly<Record<string, string>>
  readonly status?: number
  /** The content that the client says it has. */
  readonly has?: string | Uint8Array
}

function site(options?: CompressionDictionariesOptions, compression?: CompressOptions): Site {
  const dictionaries = compressionDictionaries(options)
  const stage = compress({ overload: false, ...compression, dictionaries })
  const runner: StageRunner = stageRunner(stage)
  return {
    dictionaries,
    stage,
    ask: async (body, { url = '/app.js', method = 'GET', request = {}, response = {}, status = 200, has } = {}) => {
      const headers = { 'Accept-Encoding': all, ...(has === undefined ? {} : { 'Available-Dictionary': `:${sha256(has)}:` }), ...request }
      const answer = { status, headers: { ...script, ...response }, ...(body === undefined ? {} : { body }) }
      return (await runner.send({ method, url, headers }, { response: answer })).response
    },
    [Symbol.asyncDispose]: () => runner.close(),
  }
}

const asks = { response: { 'Use-As-Dictionary': 'match="/app*.js"' } }

it('is supported by this node', () => {
  expect(compressionDictionaries().supported).toBe(true)
})

describe('a body', () => {
  it('costs who has the last release only what is new', async () => {
    await using it = site()
    const plain = await it.ask(first, asks)
    expect(plain.headers.get('content-encoding')).toBe('zstd')
    expect(it.dictionaries.has(sha256(first))).toBe(true)
    const difference = await it.ask(second, { has: first })
    expect(unpack(difference, first)).toBe(second)
    expect(difference.body.length * 20).toBeLessThan((await it.ask(second)).body.length)
    expect(difference.headers.has('content-length')).toBe(false)
    expect(it.stage.stats().compressed).toEqual({ gzip: 0, br: 0, zstd: 2, dcz: 1 })
  })

  it('says that it varies by dictionary, packed with one or not', async () => {
    await using it = site()
    for (const has of [undefined, first]) {
      it.dictionaries.add(Buffer.from(first), '/*')
      expect((await it.ask(second, { ...(has && { has }) })).headers.get('vary')).toBe('Accept-Encoding, Available-Dictionary')
    }
    expect((await it.ask(second, { response: { Vary: 'available-dictionary, *' } })).headers.get('vary')).toBe('available-dictionary, *')
    expect((await it.ask('short')).headers.has('vary')).toBe(false)
  })

  it.each([
    ['does not take dcz', { 'Accept-Encoding': 'gzip, br' }, 'br'],
    ['refuses dcz', { 'Accept-Encoding': 'br, dcz;q=0' }, 'br'],
    ['likes another better', { 'Accept-Encoding': 'br, dcz;q=0.5' }, 'br'],
    ['likes it least of all', { 'Accept-Encoding': 'dcz;q=0.5, identity' }, undefined],
    ['takes anything', { 'Accept-Encoding': '*' }, 'dcz'],
    ['has something else', { 'Available-Dictionary': `:${sha256('else')}:` }, 'zstd'],
    ['says no byte sequence', { 'Available-Dictionary': sha256(first) }, 'zstd'],
    ['says half a hash', { 'Available-Dictionary': `:${sha256(first).slice(0, 20)}:` }, 'zstd'],
    ['is a page of another site', { 'Sec-Fetch-Site': 'cross-site', 'Sec-Fetch-Mode': 'no-cors' }, 'zstd'],
    ['is a page of another site that perhaps may read it', { 'Sec-Fetch-Site': 'cross-site', 'Sec-Fetch-Mode': 'cors' }, 'zstd'],
    ['is a page of another origin', { 'Sec-Fetch-Site': 'same-site', 'Sec-Fetch-Mode': 'cors' }, 'zstd'],
    ['comes from another site', { 'Sec-Fetch-Site': 'cross-site', 'Sec-Fetch-Mode': 'navigate' }, 'dcz'],
    ['is a page of this origin', { 'Sec-Fetch-Site': 'same-origin', 'Sec-Fetch-Mode': 'no-cors' }, 'dcz'],
  ])('of a client that %s', async (_what, request, coding) => {
    await using it = site()
    it.dictionaries.add(Buffer.from(first), '/*')
    expect(
      (await it.ask(second, { has: first, request: request as Readonly<Record<string, string>> })).headers.get('content-encoding'),
    ).toBe(coding)
  })

  it('also when Zstandard without a dictionary is not offered', async () => {
    await using it = site(undefined, { codings: ['gzip'] })
    it.dictionaries.add(Buffer.from(first), '/*')
    expect(unpack(await it.ask(second, { has: first }), first)).toBe(second)
  })

  it('at the fastest level while the event loop is late, and not at all when it is very late', async () => {
    let lag = 0
    const overload = { lag: () => lag }
    await using it = site(undefined, { overload, zstd: { level: 12 } })
    await using fastest = site(undefined, { overload, zstd: { level: 1 } })
    for (const { dictionaries } of [it, fastest]) dictionaries.add(Buffer.from(first), '/*')
    const text = second.replaceAll('const', 'constant')
    const atFirst = (await it.ask(text, { has: first })).body
    const atMost = (await fastest.ask(text, { has: first })).body
    expect(atFirst.equals(atMost)).toBe(false)
    lag = 60
    const late = await it.ask(text, { has: first })
    expect(unpack(late, first)).toBe(text)
    expect(late.body.equals(atMost)).toBe(true)
    lag = 300
    expect((await it.ask(text, { has: first })).headers.has('content-encoding')).toBe(false)
    expect(it.stage.stats()).toMatchObject({ reduced: 1, skipped: { overload: 1 } })
  })

  it.each<[string, Asking, FakeResponse['body']]>([
    ['for another path', { url: '/other.js' }, second],
    ['that would have to be read for a few bytes', {}, 'x'.repeat(Math.floor(first.length / 16) - 1)],
    ['for a stream that stays', { response: { 'Content-Type': 'text/event-stream' } }, ['data: 1\n\n', 'data: 2\n\n']],
  ])('gets no dictionary %s', async (_what, asking, body) => {
    await using it = site({ maxActive: 1 })
    it.dictionaries.add(Buffer.from(first), '/app*')
    expect((await it.ask(body, { has: first, ...asking })).headers.get('content-encoding')).toBe('zstd')
    expect((await it.ask(second, { has: first })).headers.get('content-encoding')).toBe('dcz')
  })

  it('comes out as it was, whatever it and the dictionary are, and however it comes', async () => {
    const bytes = fc.oneof(
      fc.uint8Array({ minLength: 1, maxLength: 300 }),
      fc.string({ minLength: 1, maxLength: 2000 }).map((text) => Buffer.from(text)),
    )
    await using it = site(undefined, { minSize: 0 })
    await fc.assert(
      fc.asyncProperty(bytes, fc.array(bytes, { minLength: 1, maxLength: 8 }), fc.boolean(), async (dictionary, pieces, alike) => {
        const body = alike ? [dictionary, ...pieces, dictionary] : pieces
        it.dictionaries.add(dictionary, '/*')
        const answer = await it.ask(body, { has: dictionary })
        expect(answer.headers.get('content-encoding')).toBe('dcz')
        const plain = zstdDecompressSync(answer.body.subarray(40), { dictionary: Buffer.from(dictionary) })
        expect(plain.equals(Buffer.concat(body))).toBe(true)
      }),
      { numRuns: 150 },
    )
  })

  it.each([
    [10_000, 10_000],
    [1_500_000, 1_600_000],
    [100_000, 3_000_000],
    [2_000_000, 130_000],
  ])('is reached by the whole of a dictionary: %i bytes, for %i', async (length, of) => {
    // Noise: nothing shrinks but what is in the dictionary, and that all of it.
    const noise = (bytes: number): string => {
      const blocks: string[] = []
      for (let block = 0; block * 86 < bytes; block++) blocks.push(createHash('sha512').update(`${bytes} ${block}`).digest('base64url'))
      return blocks.join('').slice(0, bytes)
    }
    const dictionary = noise(length)
    await using it = site()
    it.dictionaries.add(Buffer.from(dictionary), '/*')
    const shared = Math.min(length, of)
    // The beginning of the dictionary is what is farthest away.
    const body = dictionary.slice(0, shared) + noise(of + 1).slice(0, of - shared)
    const answer = await it.ask(body, { has: dictionary })
    expect(unpack(answer, dictionary) === body).toBe(true)
    expect(answer.body.length).toBeLessThan((of - shared) * 0.8 + shared * 0.05 + 200)
  })
})

describe('a dictionary is kept', () => {
  it.each<[string, Asking, FakeResponse['body']?]>([
    ['when the upstream offers it', asks],
    ['with other members', { response: { 'Use-As-Dictionary': 'id="a, type=b", match="/x", match-dest=("script" "style"), type=raw' } }],
    ['for a path that it says relatively', { response: { 'Use-As-Dictionary': 'match="app.*.js"' } }],
    ['of unknown length, when it is long enough', asks, ['x'.repeat(500), 'y'.repeat(600)]],
    [
      'for somebody with a cookie, when it says that it is for all',
      { ...asks, request: { Cookie: 'a=b' }, response: { ...asks.response, 'Cache-Control': 'public' } },
    ],
    ['for clients that take no coding', { ...asks, request: { 'Accept-Encoding': 'identity' } }],
    ['however it comes', asks, [first.slice(0, 100), first.slice(100)]],
    ['below the size that is worth compressing', { ...asks, response: { ...asks.response } }, 'x'.repeat(1024)],
  ])('%s', async (_what, asking, body = first) => {
    await using it = site()
    await it.ask(body, asking)
    expect(it.dictionaries.stats()).toMatchObject({
      dictionaries: 1,
      learnt: 1,
      bytes: Buffer.concat([body].flat().map((part) => Buffer.from(part))).length,
    })
  })

  it.each<[string, Asking, FakeResponse['body']?]>([
    ['nobody offers it', {}],
    ['`match` is missing', { response: { 'Use-As-Dictionary': 'id="match=\\"x\\""' } }],
    ['it has another type', { response: { 'Use-As-Dictionary': 'match="/x", type=tuned' } }],
    ['it may not be stored', { response: { ...asks.response, 'Cache-Control': 'max-age=60, no-store' } }],
    ["it is one user's", { response: { ...asks.response, 'Cache-Control': 'private="x"' } }],
    ['it sets a cookie', { response: { ...asks.response, 'Set-Cookie': 'a=b' } }],
    ['it varies by who asks', { response: { ...asks.response, Vary: 'Accept, Cookie' } }],
    ['it varies by what nobody knows', { response: { ...asks.response, Vary: '*' } }],
    [
      'somebody with a cookie asks, and it does not say that it is for all',
      { ...asks, request: { Cookie: 'a=b' }, response: { ...asks.response, 'Cache-Control': 'max-age=60' } },
    ],
    ['it is for another host', { response: { 'Use-As-Dictionary': 'match="https://other.example/*"' } }],
    ['it is for what only a browser can tell', { response: { 'Use-As-Dictionary': 'match="/:name"' } }],
    ['its offer does not end', { response: { 'Use-As-Dictionary': `match="/x", id="${'\\\\"'.repeat(600)}` } }],
    ['it is too short', asks, 'x'.repeat(1023)],
    ['it turns out to be too short', asks, ['x'.repeat(500), 'x']],
    ['somebody has said who he is', { ...asks, request: { Authorization: 'Basic eA==' } }],
    ['it comes encoded', { response: { ...asks.response, 'Content-Encoding': 'gzip' } }],
    ['it is no success', { ...asks, status: 404 }],
    ['it is no GET', { ...asks, method: 'POST' }],
    ['there is only a head', { ...asks, method: 'HEAD' }],
    ['it is empty', asks, ''],
    ['its length says too much', asks, 'x'.repeat(50_001)],
    ['it turns out to be too long', asks, ['x'.repeat(50_000), 'x']],
    ['it is one of the Zstandard format', asks, Buffer.concat([Buffer.from('37a430ec', 'hex'), Buffer.from(first)])],
  ])('not when %s', async (_what, asking, body = first) => {
    await using it = site({ maxDictionarySize: 50_000 })
    await it.ask(body, asking)
    expect(it.dictionaries.stats()).toMatchObject({ dictionaries: 0, learnt: 0 })
  })

  it('not when it breaks off', async () => {
    const dictionaries = compressionDictionaries()
    await using runner = stageRunner(compress({ overload: false, dictionaries }), {
      response: { status: 200, headers: { ...script, ...asks.response }, body: [first], error: 'ERR_UPSTREAM_BODY' as never },
    })
    await runner.send({ headers: { 'Accept-Encoding': 'gzip' } })
    expect(dictionaries.stats().dictionaries).toBe(0)
    await runner.send({ headers: { 'Accept-Encoding': 'gzip' } }, { response: { headers: { ...script, ...asks.response }, body: first } })
    expect(dictionaries.stats().dictionaries, 'the place is free again').toBe(1)
  })

  it('however many answers before it were thrown away', async () => {
    await using it = site()
    const response = { ...asks.response, ETag: '"1"' }
    // Each is replaced by a 304: what was to be learnt of it never comes.
    for (let i = 0; i < 20; i++) {
      const { status } = await it.ask(first, { url: `/app.${i}.js`, response, request: { 'If-None-Match': 'W/"1"' } })
      expect(status).toBe(304)
    }
    expect(it.dictionaries.stats().dictionaries).toBe(0)
    await it.ask(first, { url: '/app.1.js', response })
    expect(it.dictionaries.has(sha256(first))).toBe(true)
  })

  it('once for each tag that it passes under', async () => {
    await using it = site()
    const tagged = (tag: string): Asking => ({ response: { ...asks.response, ETag: tag } })
    await it.ask(first, tagged('"1"'))
    // An upstream that lies about its tag: what shows here is that nobody looks again.
    await it.ask(second, tagged('"1"'))
    expect(it.dictionaries.has(sha256(second))).toBe(false)
    await it.ask(second, tagged('W/"1"'))
    expect(it.dictionaries.has(sha256(second))).toBe(true)
    it.dictionaries.delete(sha256(first))
    await it.ask(first, tagged('"1"'))
    expect(it.dictionaries.has(sha256(first)), 'looked at again, since it is gone').toBe(true)
  })

  it('as long as there is room: of what was learnt, what was not used for longest goes', async () => {
    await using it = site({ maxSize: 3 * (first.length + 512) + 10, maxDictionarySize: first.length })
    const [own, a, b, c] = [first, second, bundle(3), bundle(4)]
    it.dictionaries.add(Buffer.from(own), '/*')
    for (const content of [a, b]) await it.ask(content, asks)
    const kept = (): boolean[] => [own, a, b, c].map((content) => it.dictionaries.has(sha256(content)))
    expect(kept()).toEqual([true, true, true, false])
    await it.ask(second, { url: '/app.1.js', has: a })
    await it.ask(c, asks)
    expect(kept()).toEqual([true, true, false, true])
    expect(it.dictionaries.stats()).toMatchObject({ dictionaries: 3, evicted: 1, bytes: 3 * first.length })
    expect((await it.ask(second, { url: '/app.1.js', has: b })).headers.get('content-encoding')).toBe('zstd')
    // The operator's own goes for another one of the operator's only.
    for (const content of [bundle(5), bundle(6), bundle(7)]) it.dictionaries.add(Buffer.from(content), '/*')
    expect(kept()).toEqual([false, false, false, false])
  })

  it('in memory of its own, whatever else goes on', () => {
    const dictionaries = compressionDictionaries({ maxSize: '1MiB' })
    // Buffers from a pool would keep the whole of it.
    const before = process.memoryUsage().arrayBuffers
    const others: Buffer[] = []
    for (let i = 0; i < 20_000; i++) {
      dictionaries.add(Buffer.from(`number ${i} of many`), '/*')
      others.push(Buffer.from(`${i}`))
    }
    expect(dictionaries.stats().dictionaries).toBeLessThan(2100)
    expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(4 << 20)
    expect(others).toHaveLength(20_000)
  })

  it('as it was when it passed, though its memory is used again', async () => {
    const chunk = Buffer.from(first)
    const reuse: StageLike = { name: 'reuse', handle: () => ({ onFinish: () => void chunk.fill(0) }) }
    const dictionaries = compressionDictionaries()
    await using runner = stageRunner([reuse, compress({ overload: false, dictionaries })], {
      response: { headers: { ...script, ...asks.response }, body: [chunk] },
    })
    await runner.send({ url: '/app.1.js', headers: { 'Accept-Encoding': 'identity' } })
    expect(chunk.every((byte) => byte === 0)).toBe(true)
    expect(dictionaries.has(sha256(first))).toBe(true)
    const difference = await runner.send(
      { url: '/app.2.js', headers: { 'Accept-Encoding': 'dcz', 'Available-Dictionary': `:${sha256(first)}:` } },
      { response: { headers: script, body: second } },
    )
    expect(unpack(difference.response, first)).toBe(second)
  })

  it('from an operator, as a copy', () => {
    const dictionaries = compressionDictionaries()
    const content = Buffer.from(first)
    const hash = dictionaries.add(content, '/*')
    content.fill(0)
    expect(hash).toBe(sha256(first))
    expect([dictionaries.has(hash), dictionaries.delete(hash), dictionaries.has(hash), dictionaries.delete(hash)]).toEqual([
      true,
      true,
      false,
      false,
    ])
  })

  it.each([
    ['nothing', Buffer.alloc(0)],
    ['too much', Buffer.alloc(1025)],
    ['a trained one', Buffer.from('37a430ec00', 'hex')],
    ['a text', 'text' as never],
  ])('an operator is told what is wrong with %s', (_what, content) => {
    const dictionaries = compressionDictionaries({ maxDictionarySize: 1024 })
    const problems = ((): unknown => {
      try {
        return dictionaries.add(content, '/*')
      } catch (error) {
        return (error as OptionsError).problems.map(({ path }) => path)
      }
    })()
    expect(problems).toEqual(['content'])
  })
})

describe('an offer', () => {
  const offers: CompressionDictionariesOptions['offers'] = [
    { match: '/assets/app.*.js' },
    { match: '/assets/*.js', destinations: ['script', 'style'] },
    { match: '/api/*', from: '/dictionaries/api' },
    {
      match: '/pages/*',
      from: (path) => {
        if (path === '/throws') throw new Error('unreadable')
        return path === '/page'
      },
    },
    { match: '/never/*', from: (async () => false) as never },
  ]

  it.each([
    ['/assets/app.1234.js', 'match="/assets/app.*.js"'],
    ['/assets/app.1234.js?v=1', 'match="/assets/app.*.js"'],
    ['/assets/app.js', 'match="/assets/*.js", match-dest=("script" "style")'],
    ['/assets/app.1234.jsx', undefined],
    ['/other/assets/app.1.js', undefined],
    ['/dictionaries/api', 'match="/api/*"'],
    ['/dictionaries/api/more', undefined],
    ['/page?a=b', 'match="/pages/*"'],
    ['/throws', undefined],
  ])('goes out with %s', async (url, field) => {
    await using it = site({ offers })
    expect((await it.ask(first, { url })).headers.get('use-as-dictionary')).toBe(field)
    expect(it.dictionaries.has(sha256(first))).toBe(field !== undefined)
  })

  it('is for those who ask for what it says, and not for where it came from', async () => {
    await using it = site({ offers })
    await it.ask(first, { url: '/dictionaries/api' })
    expect((await it.ask(second, { url: '/api/things', has: first })).headers.get('content-encoding')).toBe('dcz')
    expect((await it.ask(second, { url: '/dictionaries/api', has: first })).headers.get('content-encoding')).toBe('zstd')
  })

  it('goes by what the client asked for, whatever stages make of it', async () => {
    const dictionaries = compressionDictionaries({ offers })
    const strip: StageLike = {
      name: 'strip',
      handle: (exchange) => {
        exchange.url = exchange.url.replace('/assets', '')
      },
    }
    await using runner = stageRunner([strip, compress({ overload: false, dictionaries })], { response: { headers: script, body: first } })
    const ask = (url: string) => runner.send({ url, headers: { 'Accept-Encoding': 'dcz', 'Available-Dictionary': `:${sha256(first)}:` } })
    const { response, upstreamRequests } = await ask('/assets/app.1.js')
    expect([upstreamRequests[0]?.path, response.headers.get('use-as-dictionary')]).toEqual(['/app.1.js', 'match="/assets/app.*.js"'])
    expect((await ask('/assets/app.2.js')).response.headers.get('content-encoding')).toBe('dcz')
  })

  it('of the upstream stands, and nothing is offered that could not be kept', async () => {
    await using it = site({ offers })
    const url = '/assets/app.1.js'
    expect((await it.ask(first, { url, ...asks })).headers.get('use-as-dictionary')).toBe('match="/app*.js"')
    expect((await it.ask(first, { url, response: { 'Cache-Control': 'private' } })).headers.has('use-as-dictionary')).toBe(false)
    expect((await it.ask('x'.repeat(3_000_000), { url })).headers.has('use-as-dictionary')).toBe(false)
  })

  it('fits by the stars as a regular expression would', async () => {
    const part = fc.stringMatching(/^[ab/.]{0,4}$/)
    await fc.assert(
      fc.asyncProperty(fc.array(part, { minLength: 1, maxLength: 4 }), fc.stringMatching(/^\/[ab/.]{0,9}$/), async (parts, path) => {
        const match = `/${parts.join('*')}`
        fc.pre(!match.startsWith('//'))
        await using it = site({ offers: [{ match }] })
        const expected = new RegExp(`^${match.replaceAll('.', '\\.').replaceAll('*', '.*')}$`).test(path)
        expect((await it.ask(first, { url: path })).headers.has('use-as-dictionary')).toBe(expected)
      }),
      { numRuns: 200 },
    )
  })
})

describe('in front of a cache', () => {
  const headersBehind = async (request: Readonly<Record<string, string>>, url = '/app.js'): Promise<readonly (string | undefined)[]> => {
    const dictionaries = compressionDictionaries()
    dictionaries.add(Buffer.from(first), '/app*')
    await using runner = stageRunner(dictionaries)
    const { upstreamRequests } = await runner.send({ url, headers: { 'Dictionary-ID': '"x"', ...request } })
    const headers = upstreamRequests[0]?.headers
    const { known, unknown } = dictionaries.stats()
    return [headers?.get('available-dictionary'), headers?.get('dictionary-id'), `${known} ${unknown}`]
  }

  it('a dictionary that is there goes on', async () => {
    const field = `:${sha256(first)}:`
    expect(await headersBehind({ 'Available-Dictionary': field, 'Accept-Encoding': 'dcz' })).toEqual([field, '"x"', '1 0'])
  })

  it('one for another path does not', async () => {
    const request = { 'Available-Dictionary': `:${sha256(first)}:`, 'Accept-Encoding': 'dcz' }
    expect(await headersBehind(request, '/index.html')).toEqual([undefined, undefined, '0 1'])
  })

  it('nor one that a page of another origin has', async () => {
    const request = { 'Available-Dictionary': `:${sha256(first)}:`, 'Accept-Encoding': 'dcz', 'Sec-Fetch-Site': 'same-site' }
    expect(await headersBehind(request)).toEqual([undefined, undefined, '0 1'])
  })

  it.each([
    ['that is not there', `:${sha256('else')}:`, 'dcz'],
    ['of a client that cannot read what comes of it', `:${sha256(first)}:`, 'gzip, dcb'],
    ['that is none', 'garbage', 'dcz'],
  ])('one %s does not: it would be a variant of its own', async (_what, field, accept) => {
    expect(await headersBehind({ 'Available-Dictionary': field, 'Accept-Encoding': accept })).toEqual([undefined, undefined, '0 1'])
  })
})
