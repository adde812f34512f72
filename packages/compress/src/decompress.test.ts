/** What is decoded for whom, and what is broken off. */
import { brotliCompressSync, constants, deflateSync, gzipSync, zstdCompressSync } from 'node:zlib'
import type { HeaderList } from '@weir/core'
import { runStage, stageRunner } from '@weir/testing'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { isDecodable } from './decoder.ts'
import { compress, type DecompressOptions, decompress } from './index.ts'

const text = 'All work and no play makes Jack a dull boy.\n'.repeat(100)
/** Not Zstandard on a node that does not notice when a body is cut short. */
const codings = (['gzip', 'br', 'zstd'] as const).filter(isDecodable)
const encode = { gzip: gzipSync, br: brotliCompressSync, zstd: zstdCompressSync }

type Fields = Readonly<Record<string, string | readonly string[]>>
interface Got {
  readonly status: number
  readonly headers: HeaderList
  readonly body: Buffer
}

interface Ask {
  readonly accept?: string | undefined
  readonly coding: string
  readonly body: Uint8Array
  readonly fields?: Fields
  readonly options?: DecompressOptions
  readonly method?: string
  readonly status?: number
}

async function ask({ accept, coding, body, fields, options, method = 'GET', status = 200 }: Ask): Promise<Got> {
  const { response } = await runStage(decompress(options), {
    request: { method, headers: accept === undefined ? {} : { 'Accept-Encoding': accept } },
    response: { status, headers: { 'Content-Type': 'text/plain', 'Content-Encoding': coding, ETag: '"a"', ...fields }, body },
  })
  return response
}

const fieldsOf = ({ headers }: Got, ...names: readonly string[]): (string | undefined)[] => names.map((name) => headers.get(name))

describe('an encoded body', () => {
  it.each(codings)('in %s is decoded for who does not take it, and passes to who does', async (coding) => {
    const body = encode[coding](text)
    for (const accept of [undefined, '', 'identity', `${coding};q=0, *`, 'deflate']) {
      const plain = await ask({ accept, coding, body, fields: { 'Accept-Ranges': 'bytes', 'Repr-Digest': 'x' } })
      expect(plain.body.toString()).toBe(text)
      expect(fieldsOf(plain, 'content-encoding', 'content-length', 'etag', 'vary', 'accept-ranges', 'repr-digest')).toEqual([
        undefined,
        undefined,
        'W/"a"',
        'Accept-Encoding',
        undefined,
        undefined,
      ])
    }
    for (const accept of [coding, '*', `deflate, ${coding};q=0.1`]) {
      const passed = await ask({ accept, coding, body })
      expect(passed.body.equals(body)).toBe(true)
      expect(fieldsOf(passed, 'content-encoding', 'etag', 'vary')).toEqual([coding, '"a"', 'Accept-Encoding'])
    }
  })

  it('is decoded for everybody when asked to, and then it does not vary', async () => {
    const response = await ask({ accept: 'gzip', coding: 'X-GZIP', body: gzipSync(text), options: { always: true } })
    expect(response.body.toString()).toBe(text)
    expect(fieldsOf(response, 'content-encoding', 'vary')).toEqual([undefined, undefined])
  })

  it('may have several codings; all of them come off, or none', async () => {
    const body = brotliCompressSync(gzipSync(text))
    expect((await ask({ accept: 'gzip', coding: 'gzip, br', body })).body.toString()).toBe(text)
    expect((await ask({ accept: 'gzip', coding: 'deflate, br', body })).body.equals(body)).toBe(true)
    expect((await ask({ accept: '', coding: 'br, br, br, br', body })).body.equals(body)).toBe(true)
  })

  it('is left alone when it is a part, must not be changed, or is in a coding that is not ours', async () => {
    const body = gzipSync(text)
    const cases: readonly Ask[] = [
      { coding: 'deflate', body: deflateSync(text) },
      { coding: 'gzip', body, options: { codings: ['br'] } },
      { coding: 'gzip', body, status: 206, fields: { 'Content-Range': `bytes 0-${body.length - 1}/9999` } },
      { coding: 'gzip', body, fields: { 'Cache-Control': 'no-transform' } },
      { coding: 'identity', body: Buffer.from(text) },
    ]
    for (const given of cases) {
      const response = await ask(given)
      expect(response.body.equals(given.body)).toBe(true)
      expect(fieldsOf(response, 'content-encoding', 'etag', 'vary')).toEqual([given.coding, '"a"', undefined])
    }
  })

  it('announced to HEAD has the fields that GET would get', async () => {
    const response = await ask({ coding: 'gzip', body: Buffer.alloc(0), fields: { 'Content-Length': '77' }, method: 'HEAD' })
    expect(fieldsOf(response, 'content-encoding', 'content-length', 'etag', 'vary')).toEqual([
      undefined,
      undefined,
      'W/"a"',
      'Accept-Encoding',
    ])
  })

  it('comes in another coding that the client does take, with compress in front', async () => {
    const { response } = await runStage([compress({ overload: false }), decompress()], {
      request: { headers: { 'Accept-Encoding': 'gzip' } },
      response: { headers: { 'Content-Type': 'text/plain', 'Content-Encoding': 'br', ETag: '"a"' }, body: brotliCompressSync(text) },
    })
    expect(fieldsOf(response, 'content-encoding', 'vary', 'etag')).toEqual(['gzip', 'Accept-Encoding', 'W/"a"'])
  })

  it.each(codings)('may be nothing at all, whatever the head says: %s', async (coding) => {
    const response = await ask({ coding, body: Buffer.alloc(0) })
    expect([response.status, response.body.length, response.headers.has('content-encoding')]).toEqual([200, 0, false])
  })

  it('is decoded to what it was, whatever bytes, chunks and coding', async () => {
    await using runner = stageRunner(decompress())
    const whole = fc.oneof(
      fc.uint8Array({ maxLength: 5000 }),
      fc.integer({ min: 0, max: 100_000 }).map((length) => Buffer.alloc(length, 'lorem ipsum ')),
    )
    const run = fc.asyncProperty(
      whole,
      fc.constantFrom(...codings),
      fc.array(fc.integer({ min: 1, max: 400 }), { minLength: 1, maxLength: 5 }),
      async (bytes, coding, sizes) => {
        const coded = encode[coding as 'gzip'](bytes)
        const chunks: Buffer[] = []
        for (let at = 0, i = 0; at < coded.length; i++) {
          const size = sizes[i % sizes.length] as number
          chunks.push(coded.subarray(at, at + size))
          at += size
        }
        const { response } = await runner.send({}, { response: { headers: { 'Content-Encoding': coding }, body: chunks } })
        expect(Buffer.compare(response.body, Buffer.from(bytes))).toBe(0)
      },
    )
    await fc.assert(run, { numRuns: 100 })
  })
})

describe('what is broken off', () => {
  const bomb = gzipSync(Buffer.alloc(8 * 1024 ** 2))
  const breaks = async (body: Uint8Array, coding = 'gzip', options: DecompressOptions = {}): Promise<string> => {
    const stage = decompress(options)
    const run = await runStage(stage, { response: { headers: { 'Content-Encoding': coding }, body } })
    expect(stage.stats().active).toBe(0)
    let seen = 'whole'
    try {
      void run.response.body
    } catch {
      seen = 'broken'
    }
    return `${seen}, ${run.outcome.reason}, ${stage.stats().refused} refused`
  }

  it('unpacks to too much, in bytes or in proportion', async () => {
    expect(await breaks(bomb)).toBe('broken, ERR_STAGE, 1 refused')
    expect(await breaks(bomb, 'gzip', { maxRatio: 2000 })).toBe('whole, completed, 0 refused')
    expect(await breaks(bomb, 'gzip', { maxRatio: 2000, maxSize: '1MiB' })).toBe('broken, ERR_STAGE, 1 refused')
    // Below a MiB any proportion is fine.
    expect(await breaks(gzipSync(Buffer.alloc(1024 ** 2)), 'gzip', { maxRatio: 1 })).toBe('whole, completed, 0 refused')
  })

  it.each(codings)('is %s that is cut short or none at all', async (coding) => {
    const body = encode[coding](text)
    expect(await breaks(body.subarray(0, body.length - 5), coding)).toBe('broken, ERR_STAGE, 0 refused')
    expect(await breaks(Buffer.from('not at all what the head says'), coding)).toBe('broken, ERR_STAGE, 0 refused')
  })

  it('goes on behind its end, but for gzip, which may', async () => {
    const twice = (coding: 'gzip' | 'br' | 'zstd'): Buffer => Buffer.concat([encode[coding](text), encode[coding](text)])
    expect((await ask({ coding: 'gzip', body: twice('gzip') })).body.toString()).toBe(text + text)
    for (const coding of codings) if (coding !== 'gzip') expect(await breaks(twice(coding), coding)).toBe('broken, ERR_STAGE, 0 refused')
  })

  it.runIf(isDecodable('zstd'))('is Zstandard with a window beyond 8 MiB', async () => {
    const body = Buffer.alloc(20 * 1024 ** 2, text)
    const coded = (window: number): Buffer =>
      zstdCompressSync(body, { params: { [constants.ZSTD_c_windowLog]: window, [constants.ZSTD_c_contentSizeFlag]: 0 } })
    expect(await breaks(coded(24), 'zstd', { maxRatio: 1e6 })).toBe('broken, ERR_STAGE, 0 refused')
    expect(await breaks(coded(23), 'zstd', { maxRatio: 1e6 })).toBe('whole, completed, 0 refused')
  })
})
