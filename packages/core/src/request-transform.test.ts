/**
 * Transforms of a request's body. What comes out of the last one is what upstreams get, every one of them from its first byte, though the body passes the
 * transforms only once; a reader that waits makes the client wait; and whatever happens, no stream is left over.
 */
import type { IncomingMessage } from 'node:http'
import { type Duplex, PassThrough, Readable, Transform } from 'node:stream'
import { runStage, stageRunner } from '@weir/testing'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { type BodyFlow, type BodyReader, IncomingBody } from './body.ts'
import { ProxyError } from './errors.ts'
import type { Exchange } from './exchange.ts'
import type { StageHandler } from './stage.ts'

class FakeRequest extends Readable {
  rawTrailers: string[] = []
  complete = false
  override _read(): void {}
}

class Reader implements BodyReader {
  text = ''
  ends: (string[] | undefined)[] = []
  errors: Error[] = []
  uninvited = 0
  readonly #flow: BodyFlow
  #credit = 0

  constructor(body: IncomingBody) {
    this.#flow = body.open(this)
  }

  /** Takes `credit` chunks, then asks for a pause. */
  resume(credit = Number.POSITIVE_INFINITY): this {
    this.#credit = credit
    this.#flow.resume()
    return this
  }

  close(): void {
    this.#flow.close()
  }

  onChunk(chunk: Buffer): boolean {
    if (this.#credit <= 0) this.uninvited++
    this.text += chunk.toString('latin1')
    return --this.#credit > 0
  }

  onEnd(trailers: string[] | undefined): void {
    this.ends.push(trailers)
  }

  onError(error: Error): void {
    this.errors.push(error)
  }
}

/** Puts `mark` in front of every byte, now or some turns later, and remembers what it was given. */
class Marker extends Transform {
  given = ''
  readonly #mark: string
  readonly #later: boolean

  constructor(mark: string, { later = false, highWaterMark = 16 } = {}) {
    super({ highWaterMark })
    this.#mark = mark
    this.#later = later
  }

  of(text: string): string {
    return text.replaceAll(/./g, (letter) => this.#mark + letter)
  }

  override _transform(chunk: Buffer, _encoding: string, done: (error: Error | null, data?: Buffer) => void): void {
    this.given += chunk.toString('latin1')
    const out = Buffer.from(this.of(chunk.toString('latin1')))
    if (this.#later) setImmediate(() => done(null, out))
    else done(null, out)
  }
}

const turn = (): Promise<void> => new Promise((resolve) => void setImmediate(resolve))
const turns = async (count = 20): Promise<void> => {
  for (let i = 0; i < count; i++) await turn()
}

function incoming(transforms: readonly Duplex[], { maxSize = Number.POSITIVE_INFINITY, replay = 100_000 } = {}) {
  const req = new FakeRequest()
  const failures: Error[] = []
  const body = new IncomingBody(
    req as unknown as IncomingMessage,
    7,
    false,
    maxSize,
    replay,
    (error) => void failures.push(error),
    transforms,
  )
  return { req, body, failures }
}

const codeOf = (error: Error | undefined): string | undefined => (ProxyError.is(error) ? error.code : error?.message)

describe('a body with transforms', () => {
  it('passes them in their order, has no length, and its trailers come behind it', async () => {
    const { req, body } = incoming([new Marker('1'), new Marker('2', { later: true })])
    expect(body.length).toBeUndefined()
    const reader = new Reader(body).resume()
    req.push('ab')
    req.rawTrailers = ['X-Sum', '1']
    req.push(null)
    await turns()
    expect(reader.text).toBe('212a212b')
    expect(reader.ends).toEqual([['X-Sum', '1']])
  })

  it('whatever the order of pushes, pauses, hand-overs and the end, passes them once, and each reader has the result from its first byte', async () => {
    type Step =
      | { readonly do: 'push'; readonly size: number }
      | { readonly do: 'resume'; readonly credit: number }
      | { readonly do: 'hand over' | 'turn' | 'end' | 'commit' }
    const step: fc.Arbitrary<Step> = fc.oneof(
      { weight: 5, arbitrary: fc.record({ do: fc.constant('push' as const), size: fc.integer({ min: 1, max: 40 }) }) },
      { weight: 4, arbitrary: fc.record({ do: fc.constant('resume' as const), credit: fc.integer({ min: 1, max: 3 }) }) },
      { weight: 2, arbitrary: fc.record({ do: fc.constant('hand over' as const) }) },
      { weight: 4, arbitrary: fc.record({ do: fc.constant('turn' as const) }) },
      { weight: 1, arbitrary: fc.record({ do: fc.constantFrom('end' as const, 'commit' as const) }) },
    )
    const run = fc.asyncProperty(
      fc.array(step, { maxLength: 30 }),
      fc.array(fc.boolean(), { minLength: 1, maxLength: 3 }),
      async (steps, kinds) => {
        const markers = kinds.map((later, index) => new Marker(String(index), { later }))
        const { req, body, failures } = incoming(markers)
        const readers = [new Reader(body)]
        let sent = ''
        let ended = false
        let committed = false
        const finish = (): void => {
          if (!ended) req.push(null)
          ended = true
        }
        for (const action of steps) {
          const reader = readers.at(-1) as Reader
          switch (action.do) {
            case 'push': {
              if (ended) break
              const text = String.fromCharCode(97 + (sent.length % 26)).repeat(action.size)
              req.push(text)
              sent += text
              break
            }
            case 'resume':
              reader.resume(action.credit)
              break
            case 'hand over':
              if (committed || !body.replayable) break
              reader.close()
              readers.push(new Reader(body))
              break
            case 'commit':
              committed = true
              body.commit()
              break
            case 'turn':
              await turn()
              break
            case 'end':
              finish()
              break
          }
        }
        finish()
        const last = readers.at(-1) as Reader
        last.resume()
        for (let i = 0; i < 500 && last.ends.length === 0; i++) await turn()
        const wanted = markers.reduce((text, marker) => marker.of(text), sent)
        expect(last.text).toBe(wanted)
        expect(last.ends).toEqual([undefined])
        expect(markers[0]?.given).toBe(sent)
        for (const reader of readers) {
          expect(wanted.startsWith(reader.text)).toBe(true)
          expect(reader.uninvited).toBe(0)
          expect(reader.errors).toEqual([])
        }
        expect(failures).toEqual([])
      },
    )
    await fc.assert(run, { numRuns: 200 })
  })

  it('makes the client wait when its reader does, and only then', async () => {
    const { req, body } = incoming([new Marker('1', { highWaterMark: 64 }), new PassThrough({ highWaterMark: 64 })])
    const seen: boolean[] = []
    body.tap({ onFlow: (reading) => void seen.push(reading) })
    const reader = new Reader(body).resume(1)
    let pushed = 0
    for (; pushed < 1000 && !req.isPaused(); pushed++) {
      req.push('x'.repeat(16))
      await turns(3)
    }
    // Four buffers of 64 bytes and what was in the hands of somebody.
    expect(pushed * 16).toBeLessThan(400)
    expect(seen).toEqual([true, false])
    reader.resume()
    await turns()
    expect([req.isPaused(), seen]).toEqual([false, [true, false, true]])
    expect(reader.text).toBe('1x'.repeat(pushed * 16))
  })

  it('is seen by taps as the client sent it', async () => {
    const { req, body } = incoming([new Marker('1')])
    const tapped: string[] = []
    const ends: boolean[] = []
    body.tap({ onChunk: (chunk) => void tapped.push(Buffer.from(chunk).toString()), onEnd: (complete) => void ends.push(complete) })
    new Reader(body).resume()
    req.push('ab')
    req.push(null)
    await turns()
    expect([tapped, ends]).toEqual([['ab'], [true]])
  })

  it.each([
    ['comes in', 'x'.repeat(11), () => new Transform({ transform: (_chunk, _encoding, done) => done(null, 'x') })],
    ['goes out', 'x'.repeat(6), () => new Marker('1')],
  ])('may not be longer than the largest size where it %s', async (_where, text, make) => {
    const transform = make()
    const { req, body, failures } = incoming([transform], { maxSize: 10 })
    const reader = new Reader(body).resume()
    req.push(text)
    await turns()
    expect([reader.errors.map(codeOf), failures.map(codeOf)]).toEqual([['ERR_BODY_TOO_LARGE'], ['ERR_BODY_TOO_LARGE']])
    expect([transform.destroyed, body.replayable, reader.ends]).toEqual([true, false, []])
  })

  it('of exactly the largest size passes', async () => {
    const { req, body, failures } = incoming([new Marker('1')], { maxSize: 10 })
    const reader = new Reader(body).resume()
    req.push('xxxxx')
    req.push(null)
    await turns()
    expect([reader.text.length, reader.ends.length, failures]).toEqual([10, 1, []])
  })
})

describe('a transform', () => {
  const own = new ProxyError('ERR_BODY_CODING')
  it.each<[string, string, (stream: Transform) => unknown]>([
    ['fails', 'ERR_STAGE', (stream) => stream.destroy(new Error('broken'))],
    ['fails with an error of ours', 'ERR_BODY_CODING', (stream) => stream.destroy(own)],
    ['closes before its end', 'ERR_STAGE', (stream) => stream.destroy()],
  ])('that %s ends the exchange once, and the other one with it', async (_what, code, act) => {
    for (const when of ['before', 'during']) {
      const streams = [new PassThrough(), new PassThrough()] as const
      for (const stream of streams) stream.on('error', () => {})
      if (when === 'before') act(streams[0])
      await turns(3)
      const { req, body, failures } = incoming(streams)
      const reader = new Reader(body).resume()
      req.push('a')
      await turns(3)
      if (when === 'during') act(streams[1])
      await turns(3)
      req.push('b')
      await turns(3)
      expect([reader.errors.map(codeOf), failures.map(codeOf)]).toEqual([[code], [code]])
      expect([streams[0].destroyed, streams[1].destroyed, reader.ends]).toEqual([true, true, []])
      // The rest runs into nothing.
      expect([body.bytes, req.readableLength]).toEqual([2, 0])
    }
  })

  it('is destroyed when the client leaves, and when nobody wants the rest', async () => {
    for (const leave of ['client', 'discard', 'end'] as const) {
      const stream = new Marker('1')
      const { req, body, failures } = incoming([stream])
      const reader = new Reader(body).resume(1)
      req.push('a'.repeat(100))
      await turns(3)
      if (leave === 'client') req.destroy()
      else if (leave === 'discard') body.discard()
      else body.dropTransforms()
      await turns(3)
      expect(stream.destroyed).toBe(true)
      expect(failures.map(codeOf)).toEqual(leave === 'client' ? ['ERR_CLIENT_ABORTED'] : [])
      expect(reader.ends).toEqual([])
      if (leave === 'client') continue
      req.push('b')
      req.push(null)
      await turns(3)
      expect([body.complete, body.bytes]).toEqual([true, 101])
    }
  })
})

describe('transformRequest', () => {
  const post = { method: 'POST', url: '/', headers: { 'Content-Length': '2' }, body: 'ab' } as const

  it('changes what every upstream gets, and the length goes', async () => {
    const markers: Marker[] = []
    const stage: StageHandler = (exchange) => {
      markers.push(new Marker('1'), new Marker('2'))
      for (const marker of markers) exchange.transformRequest(marker)
    }
    await using runner = stageRunner(stage, {
      response: (_request, { id }) => (id === 'http://a.test' ? { error: 'ERR_CONNECT_REFUSED' } : { status: 201 }),
      upstreams: ['http://a.test', { url: 'http://b.test', backup: true }],
      proxy: { retry: { attempts: 2 } },
    })
    const { response, upstreamRequests } = await runner.send(post)
    expect(response.status).toBe(201)
    expect(upstreamRequests.map(({ body }) => body.toString())).toEqual(['212a212b', '212a212b'])
    expect(upstreamRequests.map(({ headers }) => headers.get('content-length'))).toEqual([undefined, undefined])
    expect(markers[0]?.given).toBe('ab')
    expect(markers.every((marker) => marker.destroyed)).toBe(true)
  })

  it('takes a stream that is not used away again: no body, another answer, a failure', async () => {
    const streams: PassThrough[] = []
    const take: StageHandler = (exchange) => {
      const stream = new PassThrough()
      streams.push(stream)
      exchange.transformRequest(stream)
    }
    const runs = [
      await runStage(take, { request: { url: '/' } }),
      await runStage([take, () => ({ status: 403 })], { request: post }),
      await runStage(
        [
          take,
          () => {
            throw new Error('broken')
          },
        ],
        { request: post },
      ),
      await runStage([take, () => void streams.at(-1)?.destroy(new Error('too early'))], { request: post }),
    ]
    expect(runs.map(({ response }) => response.status)).toEqual([200, 403, 500, 500])
    expect(streams.map(({ destroyed }) => destroyed)).toEqual([true, true, true, true])
  })

  it('comes too late when the body is on its way', async () => {
    const stream = new PassThrough()
    const { response } = await runStage((exchange) => ({ onAttempt: () => exchange.transformRequest(stream) }), { request: post })
    expect([response.status, stream.destroyed]).toEqual([500, true])
  })

  it('applies to a body that an outer stage has read; an inner one cannot read what comes out', async () => {
    const read: (string | undefined)[] = []
    const reader = async (exchange: Exchange): Promise<void> => {
      const bytes = await exchange.readBody(100)
      read.push(bytes && Buffer.from(bytes).toString())
    }
    const { response, upstreamRequests } = await runStage([reader, (exchange) => exchange.transformRequest(new Marker('1')), reader], {
      request: post,
    })
    expect([response.status, read, upstreamRequests[0]?.body.toString()]).toEqual([200, ['ab', undefined], '1a1b'])
    expect(upstreamRequests[0]?.headers.has('content-length')).toBe(false)
  })

  it.each([
    ['an error of ours', new ProxyError('ERR_BODY_CODING'), 400, 'ERR_BODY_CODING'],
    ['any other', new Error('broken'), 500, 'ERR_STAGE'],
  ])('answers %s of the stream', async (_what, error, status, reason) => {
    const stage: StageHandler = (exchange) =>
      exchange.transformRequest(new Transform({ transform: (_chunk, _encoding, done) => done(error) }))
    const { response, outcome } = await runStage(stage, { request: post })
    expect([response.status, outcome.reason]).toEqual([status, reason])
  })
})
