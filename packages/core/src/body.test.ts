/**
 * Request bodies. Whoever reads gets the body from its first byte, in order, and nothing while it has asked for a pause; a second reader is
 * replayed what the first one had and goes on live from there.
 */
import type { IncomingMessage } from 'node:http'
import { Readable } from 'node:stream'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { type BodyFlow, type BodyReader, IncomingBody, type RequestBody } from './body.ts'
import { ProxyError } from './errors.ts'

/** What node hands out, without a socket: chunks are pushed by the test. */
class FakeRequest extends Readable {
  rawTrailers: string[] = []
  override _read(): void {}
}

class Reader implements BodyReader {
  readonly chunks: Buffer[] = []
  ends: (string[] | undefined)[] = []
  errors: Error[] = []
  /** Chunks that came although a pause had been asked for. */
  uninvited = 0
  onNext: (() => void) | undefined
  readonly #flow: BodyFlow
  #credit = 0
  #waiting = true

  constructor(body: RequestBody) {
    this.#flow = body.open(this)
  }

  /** Takes `credit` chunks, then asks for a pause. */
  resume(credit = Number.POSITIVE_INFINITY): this {
    this.#waiting = false
    this.#credit = credit
    this.#flow.resume()
    return this
  }

  close(): void {
    this.#flow.close()
  }

  onChunk(chunk: Buffer): boolean {
    if (this.#waiting) this.uninvited++
    this.chunks.push(chunk)
    const { onNext } = this
    this.onNext = undefined
    onNext?.()
    if (--this.#credit > 0) return true
    this.#waiting = true
    return false
  }

  onEnd(trailers: string[] | undefined): void {
    this.ends.push(trailers)
  }

  onError(error: Error): void {
    this.errors.push(error)
  }

  get text(): string {
    return Buffer.concat(this.chunks).toString()
  }
}

/** Lets a stream's own ticks run. */
const turn = (): Promise<void> => new Promise((resolve) => void setImmediate(resolve))

function incoming({ maxSize = Number.POSITIVE_INFINITY, replay = 1000, length = undefined as number | undefined } = {}) {
  const req = new FakeRequest()
  const failures: Error[] = []
  const body = new IncomingBody(req as unknown as IncomingMessage, length, false, maxSize, replay, (error) => failures.push(error))
  return { req, body, failures }
}

describe('a streaming body', () => {
  it('is not touched before the first resume', async () => {
    const { req, body } = incoming()
    const reader = new Reader(body)
    req.push('a')
    await turn()
    expect(reader.chunks).toEqual([])
    expect(req.readableFlowing).toBe(null)
    reader.resume()
    await turn()
    expect(reader.text).toBe('a')
  })

  it('whatever the order of pushes, pauses, hand-overs and the end, each reader has the body from its first byte, and the last has it whole', async () => {
    type Step =
      | { readonly do: 'push'; readonly size: number }
      | { readonly do: 'resume'; readonly credit: number }
      | { readonly do: 'hand over' | 'turn' | 'end' | 'commit' }
    const step: fc.Arbitrary<Step> = fc.oneof(
      { weight: 5, arbitrary: fc.record({ do: fc.constant('push' as const), size: fc.integer({ min: 1, max: 4 }) }) },
      { weight: 4, arbitrary: fc.record({ do: fc.constant('resume' as const), credit: fc.integer({ min: 1, max: 3 }) }) },
      { weight: 2, arbitrary: fc.record({ do: fc.constant('hand over' as const) }) },
      { weight: 4, arbitrary: fc.record({ do: fc.constant('turn' as const) }) },
      { weight: 1, arbitrary: fc.record({ do: fc.constantFrom('end' as const, 'commit' as const) }) },
    )
    await fc.assert(
      fc.asyncProperty(fc.array(step, { maxLength: 30 }), async (steps) => {
        const { req, body, failures } = incoming()
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
              // Nobody retries once it is settled that nobody will.
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
        for (let i = 0; i < 3; i++) await turn()
        expect(last.text).toBe(sent)
        expect(last.ends).toEqual([undefined])
        expect(body.complete).toBe(true)
        expect(body.bytes).toBe(sent.length)
        for (const reader of readers) {
          expect(sent.startsWith(reader.text)).toBe(true)
          expect(reader.uninvited).toBe(0)
          expect(reader.errors).toEqual([])
          if (reader !== last) expect(reader.ends.length).toBeLessThanOrEqual(1)
        }
        expect(failures).toEqual([])
      }),
      { numRuns: 300 },
    )
  })

  it('a flow that was closed, or replaced, does nothing any more', async () => {
    const { req, body } = incoming()
    const first = new Reader(body).resume(1)
    req.push('a')
    await turn()
    const second = new Reader(body)
    first.resume()
    first.close()
    second.resume()
    req.push('b')
    await turn()
    expect([first.text, second.text]).toEqual(['a', 'ab'])
  })

  it('between two readers the client is not read', async () => {
    const { req, body } = incoming()
    new Reader(body).resume()
    req.push('a')
    await turn()
    const second = new Reader(body)
    req.push('b')
    await turn()
    expect(body.bytes).toBe(1)
    second.resume()
    await turn()
    expect(second.text).toBe('ab')
  })

  it('a reader may hand over from inside its callback, and its own answer counts for nothing then', async () => {
    const { req, body } = incoming()
    const first = new Reader(body)
    let second: Reader | undefined
    first.onNext = () => {
      second = new Reader(body).resume()
    }
    // One chunk of credit: after handing over the first reader still answers "pause".
    first.resume(1)
    req.push('a')
    await turn()
    req.push('b')
    req.push(null)
    await turn()
    expect(first.text).toBe('a')
    expect(second?.text).toBe('ab')
    expect(second?.ends).toHaveLength(1)
  })

  it('also in the middle of a replay', async () => {
    const { req, body } = incoming()
    const first = new Reader(body).resume()
    for (const text of ['a', 'b', 'c']) {
      req.push(text)
      await turn()
    }
    first.close()
    const second = new Reader(body)
    let third: Reader | undefined
    second.onNext = () => {
      third = new Reader(body).resume()
    }
    second.resume()
    req.push('d')
    req.push(null)
    await turn()
    expect([first.text, second.text, third?.text]).toEqual(['abc', 'a', 'abcd'])
    expect(third?.ends).toHaveLength(1)
    expect(second.ends).toHaveLength(0)
  })

  it('a reader may resume from inside its callback', async () => {
    const { req, body } = incoming()
    const first = new Reader(body).resume()
    for (const text of ['a', 'b', 'c']) {
      req.push(text)
      await turn()
    }
    first.close()
    const second = new Reader(body)
    second.onNext = () => second.resume()
    second.resume()
    req.push(null)
    await turn()
    expect(second.text).toBe('abc')
    expect(second.ends).toHaveLength(1)
  })

  it('what was promised to a reader is replayed to it, although no further one will be', async () => {
    const { req, body } = incoming()
    const first = new Reader(body).resume()
    for (const text of ['a', 'b', 'c']) {
      req.push(text)
      await turn()
    }
    first.close()
    const second = new Reader(body).resume(1)
    // The upstream answers before it has read the request to its end.
    body.commit()
    expect(body.replayable).toBe(false)
    second.resume()
    req.push('d')
    req.push(null)
    await turn()
    expect(second.text).toBe('abcd')
  })

  it('trailers come with the end, without what may not be a trailer; also to a later reader', async () => {
    const { req, body } = incoming()
    const first = new Reader(body).resume()
    req.push('a')
    req.rawTrailers = ['X-Sum', '1', 'Content-Length', '9', 'Transfer-Encoding', 'chunked', 'Host', 'b', 'x-sum', '2']
    req.push(null)
    await turn()
    const second = new Reader(body).resume()
    for (const reader of [first, second]) expect(reader.ends).toEqual([['X-Sum', '1', 'x-sum', '2']])
    expect(second.text).toBe('a')
  })
})

describe('its limits', () => {
  it('beyond the replay buffer it goes on, and cannot be replayed', async () => {
    const { req, body } = incoming({ replay: 3 })
    const reader = new Reader(body).resume()
    req.push('abc')
    await turn()
    expect(body.replayable).toBe(true)
    req.push('d')
    await turn()
    expect(body.replayable).toBe(false)
    req.push('e')
    req.push(null)
    await turn()
    expect(reader.text).toBe('abcde')
    expect(reader.ends).toHaveLength(1)
  })

  it('exactly the largest size passes', async () => {
    const { req, body, failures } = incoming({ maxSize: 3 })
    const reader = new Reader(body).resume()
    req.push('abc')
    req.push(null)
    await turn()
    expect(reader.text).toBe('abc')
    expect(reader.ends).toHaveLength(1)
    expect(failures).toEqual([])
  })

  it('one byte more is ERR_BODY_TOO_LARGE, said once to reader and exchange, and never delivered', async () => {
    const { req, body, failures } = incoming({ maxSize: 3 })
    const reader = new Reader(body).resume()
    req.push('ab')
    await turn()
    req.push('cd')
    await turn()
    req.push('ef')
    await turn()
    expect(reader.text).toBe('ab')
    expect(reader.ends).toEqual([])
    for (const errors of [reader.errors, failures]) expect(errors).toEqual([expect.objectContaining({ code: 'ERR_BODY_TOO_LARGE' })])
    expect(body.replayable).toBe(false)
  })
})

describe('a client that leaves', () => {
  it('in the middle is ERR_CLIENT_ABORTED, once', async () => {
    const { req, body, failures } = incoming()
    const reader = new Reader(body).resume()
    req.push('a')
    await turn()
    req.destroy()
    await turn()
    for (const errors of [reader.errors, failures]) expect(errors).toEqual([expect.objectContaining({ code: 'ERR_CLIENT_ABORTED' })])
    expect(reader.ends).toEqual([])
    expect(body.replayable).toBe(false)
  })

  it('with an error is that error, once', async () => {
    const { req, body, failures } = incoming()
    const reader = new Reader(body).resume()
    await turn()
    const cause = new Error('aborted')
    req.destroy(cause)
    await turn()
    expect(reader.errors).toEqual([cause])
    expect(failures).toEqual([cause])
  })

  it('while nobody reads is told to the exchange alone', async () => {
    const { req, body, failures } = incoming()
    const reader = new Reader(body).resume()
    req.push('a')
    await turn()
    reader.close()
    req.destroy()
    await turn()
    expect(reader.errors).toEqual([])
    expect(failures.map((error) => ProxyError.is(error) && error.code)).toEqual(['ERR_CLIENT_ABORTED'])
  })

  it('after the end is no failure', async () => {
    const { req, body, failures } = incoming()
    new Reader(body).resume()
    req.push('a')
    req.push(null)
    await turn()
    req.destroy()
    await turn()
    expect(failures).toEqual([])
    expect(body.complete).toBe(true)
  })
})

describe('discard', () => {
  for (const started of [false, true])
    it(`lets the rest run into nothing, ${started ? 'also behind a reader that had paused' : 'although nobody ever read'}`, async () => {
      const { req, body, failures } = incoming()
      const reader = new Reader(body)
      if (started) reader.resume(1)
      req.push('a')
      await turn()
      body.discard()
      req.push('b')
      req.push(null)
      await turn()
      expect(body.complete).toBe(true)
      expect(body.bytes).toBe(2)
      expect(reader.text).toBe(started ? 'a' : '')
      expect(reader.ends).toEqual([])
      expect(body.replayable).toBe(false)
      expect(failures).toEqual([])
    })
})
