/** Dictionaries (RFC 9842): who offers one, what is kept of it, and who gets a body that is packed with it. A real browser has its test in test/integration. */
import { createHash } from 'node:crypto'
import { zstdDecompressSync } from 'node:zlib'
import type { InjectedResponse, OptionsError } from '@weir/core'
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

const asks = { response: { 'Use-As-Dictionary': 'match="/app.*.js"' } }

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
      it.dictionaries.add(Buffer.from(first))
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
    ['is a page of another site that may not read it', { 'Sec-Fetch-Site': 'cross-site', 'Sec-Fetch-Mode': 'no-cors' }, 'zstd'],
    ['is a page of another site that may', { 'Sec-Fetch-Site': 'cross-site', 'Sec-Fetch-Mode': 'cors' }, 'dcz'],
  ])('of a client that %s', async (_what, request, coding) => {
    await using it = site()
    it.dictionaries.add(Buffer.from(first))
    expect(
      (await it.ask(second, { has: first, request: request as Readonly<Record<string, string>> })).headers.get('content-encoding'),
    ).toBe(coding)
  })

  it('also when Zstandard without a dictionary is not offered', async () => {
    await using it = site(undefined, { codings: ['gzip'] })
    it.dictionaries.add(Buffer.from(first))
    expect(unpack(await it.ask(second, { has: first }), first)).toBe(second)
  })

  it('at the fastest level while the event loop is late, and not at all when it is very late', async () => {
    let lag = 60
    await using it = site(undefined, { overload: { lag: () => lag } })
    it.dictionaries.add(Buffer.from(first))
    expect(unpack(await it.ask(second, { has: first }), first)).toBe(second)
    lag = 300
    expect((await it.ask(second, { has: first })).headers.has('content-encoding')).toBe(false)
    expect(it.stage.stats()).toMatchObject({ reduced: 1, skipped: { overload: 1 } })
  })

  it('of an event stream is handed out as it comes', async () => {
    await using it = site()
    it.dictionaries.add(Buffer.from(first))
    const answer = await it.ask(['data: 1\n\n', 'data: 2\n\n'], { has: first, response: { 'Content-Type': 'text/event-stream' } })
    expect(unpack(answer, first)).toBe('data: 1\n\ndata: 2\n\n')
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
        it.dictionaries.add(dictionary)
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
    [2_000_000, 40_000],
  ])('is reached by the whole of a dictionary: %i bytes, for %i', async (length, of) => {
    // Noise: nothing shrinks but what is in the dictionary, and that all of it.
    const noise = (bytes: number): string => {
      const blocks: string[] = []
      for (let block = 0; block * 86 < bytes; block++) blocks.push(createHash('sha512').update(`${bytes} ${block}`).digest('base64url'))
      return blocks.join('').slice(0, bytes)
    }
    const dictionary = noise(length)
    await using it = site()
    it.dictionaries.add(Buffer.from(dictionary))
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
    ['for clients that take no coding', { ...asks, request: { 'Accept-Encoding': 'identity' } }],
    ['however it comes', asks, [first.slice(0, 100), first.slice(100)]],
    ['below the size that is worth compressing', asks, 'short'],
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

  it('as long as there is room: what was not used for longest goes', async () => {
    await using it = site({ maxSize: 2 * first.length + 10, maxDictionarySize: first.length })
    const [a, b, c] = [first, second, bundle(3)]
    for (const content of [a, b]) it.dictionaries.add(Buffer.from(content))
    await it.ask(second, { has: a })
    it.dictionaries.add(Buffer.from(c))
    expect([a, b, c].map((content) => it.dictionaries.has(sha256(content)))).toEqual([true, false, true])
    expect(it.dictionaries.stats()).toMatchObject({ dictionaries: 2, evicted: 1 })
    expect((await it.ask(second, { has: b })).headers.get('content-encoding')).toBe('zstd')
  })

  it('from an operator, as a copy', () => {
    const dictionaries = compressionDictionaries()
    const content = Buffer.from(first)
    const hash = dictionaries.add(content)
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
    ['too much', Buffer.alloc(11)],
    ['a trained one', Buffer.from('37a430ec00', 'hex')],
    ['a text', 'text' as never],
  ])('an operator is told what is wrong with %s', (_what, content) => {
    const dictionaries = compressionDictionaries({ maxDictionarySize: 10 })
    const problems = ((): unknown => {
      try {
        return dictionaries.add(content)
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
    { match: '/api/:version/*', from: '/dictionaries/api' },
    { match: '/pages/"\\*', from: (path) => path === '/page' },
  ]

  it.each([
    ['/assets/app.1234.js', 'match="/assets/app.*.js"'],
    ['/assets/app.1234.js?v=1', 'match="/assets/app.*.js"'],
    ['/assets/app.js', 'match="/assets/*.js", match-dest=("script" "style")'],
    ['/assets/app.1234.jsx', undefined],
    ['/other/assets/app.1.js', undefined],
    ['/dictionaries/api', 'match="/api/:version/*"'],
    ['/dictionaries/api/more', undefined],
    ['/page?a=b', 'match="/pages/\\"\\\\*"'],
  ])('goes out with %s', async (url, field) => {
    await using it = site({ offers })
    expect((await it.ask(first, { url })).headers.get('use-as-dictionary')).toBe(field)
    expect(it.dictionaries.has(sha256(first))).toBe(field !== undefined)
  })

  it('of the upstream stands, and nothing is offered that could not be kept', async () => {
    await using it = site({ offers })
    const url = '/assets/app.1.js'
    expect((await it.ask(first, { url, ...asks })).headers.get('use-as-dictionary')).toBe('match="/app.*.js"')
    expect((await it.ask(first, { url, response: { 'Cache-Control': 'private' } })).headers.has('use-as-dictionary')).toBe(false)
    expect((await it.ask('x'.repeat(3_000_000), { url })).headers.has('use-as-dictionary')).toBe(false)
  })

  it('fits by the stars as a regular expression would', async () => {
    const part = fc.stringMatching(/^[ab/.]{0,4}$/)
    await fc.assert(
      fc.asyncProperty(fc.array(part, { minLength: 1, maxLength: 4 }), fc.stringMatching(/^\/[ab/.]{0,9}$/), async (parts, path) => {
        const match = `/${parts.join('*')}`
        await using it = site({ offers: [{ match }] })
        const expected = new RegExp(`^${match.replaceAll('.', '\\.').replaceAll('*', '.*')}$`).test(path)
        expect((await it.ask(first, { url: path })).headers.has('use-as-dictionary')).toBe(expected)
      }),
      { numRuns: 200 },
    )
  })
})

describe('in front of a cache', () => {
  const headersBehind = async (request: Readonly<Record<string, string>>): Promise<readonly (string | undefined)[]> => {
    const dictionaries = compressionDictionaries()
    dictionaries.add(Buffer.from(first))
    await using runner = stageRunner(dictionaries)
    const { upstreamRequests } = await runner.send({ headers: { 'Dictionary-ID': '"x"', ...request } })
    const headers = upstreamRequests[0]?.headers
    const { known, unknown } = dictionaries.stats()
    return [headers?.get('available-dictionary'), headers?.get('dictionary-id'), `${known} ${unknown}`]
  }

  it('a dictionary that is there goes on', async () => {
    const field = `:${sha256(first)}:`
    expect(await headersBehind({ 'Available-Dictionary': field, 'Accept-Encoding': 'dcz' })).toEqual([field, '"x"', '1 0'])
  })

  it.each([
    ['that is not there', `:${sha256('else')}:`, 'dcz'],
    ['of a client that cannot read what comes of it', `:${sha256(first)}:`, 'gzip, dcb'],
    ['that is none', 'garbage', 'dcz'],
  ])('one %s does not: it would be a variant of its own', async (_what, field, accept) => {
    expect(await headersBehind({ 'Available-Dictionary': field, 'Accept-Encoding': accept })).toEqual([undefined, undefined, '0 1'])
  })
})
