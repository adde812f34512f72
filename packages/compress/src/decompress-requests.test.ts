/** Which request bodies are decoded, what becomes of their fields, and what is answered when one cannot be. */
import { brotliCompressSync, constants, deflateRawSync, deflateSync, gzipSync, zstdCompressSync } from 'node:zlib'
import { runStage, type StageRun, stageRunner } from '@weir/testing'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { isDecodable } from './decoder.ts'
import { type DecompressRequestsOptions, decompressRequests, type RequestCoding } from './index.ts'

const text = 'All work and no play makes Jack a dull boy.\n'.repeat(100)
const MiB = 1024 ** 2
/** Not Zstandard on a node that does not notice when a body is cut short. */
const codings = (['gzip', 'deflate', 'br', 'zstd'] as const).filter(isDecodable)
const encode: Readonly<Record<RequestCoding, (bytes: Uint8Array | string) => Buffer>> = {
  gzip: (bytes) => gzipSync(bytes),
  deflate: (bytes) => deflateSync(bytes),
  br: (bytes) => brotliCompressSync(bytes),
  zstd: (bytes) => zstdCompressSync(bytes),
}

/** In chunks of HTTP/1.1, which node's parser hands out one by one. */
function chunked(body: Uint8Array, sizes: readonly number[] = [1000]): Buffer {
  const parts: Uint8Array[] = []
  for (let at = 0, i = 0; at < body.length; i++) {
    const part = body.subarray(at, at + (sizes[i % sizes.length] as number))
    parts.push(Buffer.from(`${part.length.toString(16)}\r\n`), part, Buffer.from('\r\n'))
    at += part.length
  }
  return Buffer.concat([...parts, Buffer.from('0\r\n\r\n')])
}

type Fields = Readonly<Record<string, string>>

/** A coded request through a stage with these options. */
async function send(body: Uint8Array, coding: string, options: DecompressRequestsOptions = {}, fields: Fields = {}) {
  const stage = decompressRequests(options)
  const run = await runStage(stage, {
    request: { method: 'POST', url: '/', headers: { 'Content-Type': 'text/plain', 'Content-Encoding': coding, ...fields }, body },
  })
  return { ...run, response: run.response, stats: stage.stats() }
}

const got = ({ upstreamRequests: [request] }: Pick<StageRun, 'upstreamRequests'>): string | undefined => request?.body.toString()
const ending = ({ response, outcome }: StageRun): string => `${response.status} ${outcome.reason}`

describe('a coded body', () => {
  it.each(codings)('in %s reaches the upstream decoded, without the fields that spoke of the coded one', async (coding) => {
    const run = await send(
      encode[coding](text),
      coding,
      {},
      { 'Content-Digest': 'a', 'Repr-Digest': 'b', Digest: 'c', 'Content-MD5': 'd', 'X-Other': 'e' },
    )
    expect(got(run)).toBe(text)
    const names = [
      'content-encoding',
      'content-length',
      'content-digest',
      'repr-digest',
      'digest',
      'content-md5',
      'content-type',
      'x-other',
    ]
    const { headers } = run.upstreamRequests[0] as NonNullable<(typeof run.upstreamRequests)[0]>
    expect(names.map((name) => headers.get(name))).toEqual([...Array(6).fill(undefined), 'text/plain', 'e'])
    expect(run.stats).toEqual({ active: 0, decoded: 1, refused: 0, skipped: {} })
  })

  it('is known by every name of its coding', async () => {
    for (const name of ['GZIP', 'x-gzip', 'identity, gzip', ' gzip ,']) expect(got(await send(gzipSync(text), name))).toBe(text)
  })

  it('may have several codings, up to three; all of them come off, or none', async () => {
    expect(got(await send(brotliCompressSync(gzipSync(deflateSync(text))), 'deflate, gzip, br'))).toBe(text)
    const four = gzipSync(brotliCompressSync(gzipSync(deflateSync(text))))
    for (const [body, coding] of [
      [four, 'deflate, gzip, br, gzip'],
      [gzipSync(text), 'compress, gzip'],
    ] as const) {
      const run = await send(body, coding)
      const [request] = run.upstreamRequests
      expect(request?.body.equals(body)).toBe(true)
      expect([request?.headers.get('content-encoding'), request?.headers.get('content-length')]).toEqual([coding, String(body.length)])
      expect(run.stats.skipped).toEqual({ 'unknown-coding': 1 })
    }
  })

  it.each(codings)('may be nothing at all, whatever the head says: %s', async (coding) => {
    await using runner = stageRunner(decompressRequests())
    const { response, upstreamRequests } = await runner.send({
      method: 'POST',
      url: '/',
      headers: { 'Content-Encoding': coding, 'Transfer-Encoding': 'chunked' },
      body: chunked(Buffer.alloc(0)),
    })
    expect([response.status, upstreamRequests[0]?.body.length]).toEqual([200, 0])
  })

  it('is left alone when it is a part, must not be changed, or has its digest behind it; and what is not coded always is', async () => {
    const body = gzipSync(text)
    const cases: readonly [string, string, Fields][] = [
      ['range', 'gzip', { 'Content-Range': 'bytes 0-9/99' }],
      ['no-transform', 'gzip', { 'Cache-Control': 'no-transform' }],
      ['not-encoded', 'identity', {}],
      ['unknown-coding', 'compress', {}],
    ]
    for (const [reason, coding, fields] of cases) {
      const run = await send(body, coding, {}, fields)
      const [request] = run.upstreamRequests
      expect(request?.body.equals(body)).toBe(true)
      expect(request?.headers.get('content-encoding')).toBe(coding)
      expect(run.stats).toEqual({ active: 0, decoded: 0, refused: 0, skipped: { [reason]: 1 } })
    }
    const behind = await send(chunked(body), 'gzip', {}, { Trailer: 'Content-Digest', 'Transfer-Encoding': 'chunked' })
    expect([behind.upstreamRequests[0]?.body.equals(body), behind.stats.skipped]).toEqual([true, { 'digest-trailer': 1 }])
  })

  it('is what was packed, whatever bytes, codings and chunks', async () => {
    await using runner = stageRunner(decompressRequests({ maxRatio: 1e6 }))
    const whole = fc.oneof(
      fc.uint8Array({ maxLength: 5000 }),
      fc.integer({ min: 0, max: 300_000 }).map((length) => Buffer.alloc(length, 'lorem ipsum ')),
    )
    const run = fc.asyncProperty(
      whole,
      fc.array(fc.constantFrom(...codings), { minLength: 1, maxLength: 3 }),
      fc.array(fc.integer({ min: 1, max: 400 }), { minLength: 1, maxLength: 5 }),
      async (bytes, layers, sizes) => {
        const coded = layers.reduce<Uint8Array>((body, layer) => encode[layer](body), bytes)
        const { upstreamRequests } = await runner.send({
          method: 'POST',
          url: '/',
          headers: { 'Content-Encoding': layers.join(', '), 'Transfer-Encoding': 'chunked' },
          body: chunked(coded, sizes),
        })
        expect(Buffer.compare(upstreamRequests[0]?.body as Buffer, Buffer.from(bytes))).toBe(0)
      },
    )
    await fc.assert(run, { numRuns: 100 })
  })
})

describe('what the client is told', () => {
  it('415 with what may come instead, when told to refuse and not before', async () => {
    const body = gzipSync(text)
    const refuse = { unsupported: 'refuse', codings: ['gzip', 'br'] } as const
    for (const [coding, fields] of [
      ['zstd', {}],
      ['deflate, gzip', {}],
      ['gzip, gzip, gzip, gzip', {}],
      ['gzip', { 'Cache-Control': 'no-transform' }],
    ] as const) {
      const run = await send(body, coding, refuse, fields)
      expect([run.response.status, run.response.headers.get('accept-encoding'), run.upstreamRequests.length]).toEqual([415, 'gzip, br', 0])
    }
    expect(got(await send(body, 'gzip', refuse))).toBe(text)
    expect((await send(body, 'identity', refuse)).response.status).toBe(200)
  })

  it.each(codings)('400 when %s is cut short, damaged, none at all, or goes on behind its end', async (coding) => {
    const body = encode[coding](text)
    const damaged = Buffer.from(body)
    damaged.fill(0xa5, 4, damaged.length - 4)
    for (const wrong of [
      body.subarray(0, -3),
      body.subarray(0, 1),
      damaged,
      Buffer.from('not at all what the head says'),
      Buffer.concat([body, Buffer.from('and more')]),
    ]) {
      const run = await send(wrong, coding)
      expect(ending(run)).toBe('400 ERR_BODY_CODING')
      expect(run.stats).toEqual({ active: 0, decoded: 1, refused: 0, skipped: {} })
    }
  })

  it('400 for deflate without its wrapper, and for Zstandard with a window beyond 8 MiB', async () => {
    expect(ending(await send(deflateRawSync(text), 'deflate'))).toBe('400 ERR_BODY_CODING')
    if (!isDecodable('zstd')) return
    const large = Buffer.alloc(20 * MiB, text)
    const params = { [constants.ZSTD_c_windowLog]: 24, [constants.ZSTD_c_contentSizeFlag]: 0 }
    expect(ending(await send(zstdCompressSync(large, { params }), 'zstd', { maxRatio: 1e6 }))).toBe('400 ERR_BODY_CODING')
  })

  const zeros = (size: number, coding: RequestCoding = 'gzip'): Buffer => encode[coding](Buffer.alloc(size))

  it('413 for what unpacks to more than the largest size, to the byte', async () => {
    const limits = { maxSize: 1000, maxRatio: 1e6 }
    for (const coding of codings) {
      expect(ending(await send(zeros(1000, coding), coding, limits))).toBe('200 completed')
      const run = await send(zeros(1001, coding), coding, limits)
      expect([ending(run), run.stats.refused, run.stats.active]).toEqual(['413 ERR_BODY_TOO_LARGE', 1, 0])
    }
    expect(ending(await send(zeros(64 * MiB), 'gzip', { maxRatio: 1e6 }))).toBe('200 completed')
    expect(ending(await send(zeros(64 * MiB + 1), 'gzip', { maxRatio: 1e6 }))).toBe('413 ERR_BODY_TOO_LARGE')
  })

  it('413 for what unpacks to too much in proportion, behind the burst', async () => {
    for (const coding of codings) expect(ending(await send(zeros(8 * MiB, coding), coding))).toBe('413 ERR_BODY_TOO_LARGE')
    expect(ending(await send(zeros(8 * MiB), 'gzip', { maxRatio: 2000 }))).toBe('200 completed')
    expect(ending(await send(zeros(MiB), 'gzip', { maxRatio: 1 }))).toBe('200 completed')
    expect(ending(await send(zeros(MiB + 1), 'gzip', { maxRatio: 1 }))).toBe('413 ERR_BODY_TOO_LARGE')
    expect(ending(await send(zeros(100_000), 'gzip', { burst: '10KiB' }))).toBe('413 ERR_BODY_TOO_LARGE')
    expect(ending(await send(zeros(8 * MiB), 'gzip', { burst: '8MiB' }))).toBe('200 completed')
  })

  it('413 for a proportion that two codings share', async () => {
    // Each of them is below 100; together they are above it.
    const inner = Buffer.concat(Array.from({ length: 400 }, (_, i) => encode.gzip(Buffer.alloc(16_000, String(i)))))
    const body = encode.gzip(inner)
    const size = 400 * 16_000
    const ratios = [inner.length / body.length, size / inner.length]
    expect(Math.max(...ratios)).toBeLessThan(400)
    expect(size / body.length).toBeGreaterThan(500)
    expect(ending(await send(body, 'gzip, gzip', { maxRatio: 400 }))).toBe('413 ERR_BODY_TOO_LARGE')
    expect(ending(await send(body, 'gzip, gzip', { maxRatio: 1e5 }))).toBe('200 completed')
  })

  it('413 for what lies between two codings, though little comes out of the last', async () => {
    // Empty members of gzip: many bytes that decode to none.
    const empty = Buffer.alloc(4_000_000, encode.gzip(''))
    const run = await send(encode.gzip(empty), 'gzip, gzip', { maxSize: '2MiB', maxRatio: 1e6 })
    expect(ending(run)).toBe('413 ERR_BODY_TOO_LARGE')
    expect(ending(await send(encode.gzip(empty), 'gzip, gzip', { maxSize: '8MiB', maxRatio: 1e6 }))).toBe('200 completed')
  })
})

it('a request without a body, or with one that is not coded, costs nothing', async () => {
  const stage = decompressRequests()
  await runStage(stage, { request: { url: '/', headers: { 'Content-Encoding': 'gzip' } } })
  expect(stage.stats()).toEqual({ active: 0, decoded: 0, refused: 0, skipped: {} })
})
