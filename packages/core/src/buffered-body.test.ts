/** A body that is complete in memory: whole for every reader, once, and silent for who has closed. */
import { describe, expect, it } from 'vitest'
import { type BodyFlow, BufferedBody } from './body.ts'

function reading(body: BufferedBody, resumed = false) {
  const reader = {
    chunks: [] as Buffer[],
    ends: [] as (string[] | undefined)[],
    onNext: undefined as (() => void) | undefined,
    onChunk(chunk: Buffer): boolean {
      reader.chunks.push(chunk)
      reader.onNext?.()
      return true
    },
    onEnd: (trailers: string[] | undefined) => void reader.ends.push(trailers),
    onError: () => expect.unreachable(),
    resume: () => flow.resume(),
    close: () => flow.close(),
    get text(): string {
      return Buffer.concat(reader.chunks).toString()
    },
  }
  const flow: BodyFlow = body.open(reader)
  if (resumed) flow.resume()
  return reader
}

describe('a body in memory', () => {
  it('is given whole to every reader, once', () => {
    const body = new BufferedBody(Buffer.from('abc'))
    expect(body).toMatchObject({ length: 3, hasTrailers: false })
    const first = reading(body)
    expect(first.chunks).toEqual([])
    first.resume()
    first.resume()
    const second = reading(body, true)
    for (const reader of [first, second]) {
      expect(reader.text).toBe('abc')
      expect(reader.ends).toEqual([undefined])
    }
  })

  it('empty, it has an end and no chunk', () => {
    const reader = reading(new BufferedBody(Buffer.alloc(0)), true)
    expect(reader.chunks).toEqual([])
    expect(reader.ends).toEqual([undefined])
  })

  it('closed, it is silent; and a reader from before another opened is closed', () => {
    const body = new BufferedBody(Buffer.from('abc'))
    const first = reading(body)
    first.close()
    first.resume()
    const second = reading(body)
    const third = reading(body)
    second.resume()
    third.resume()
    expect([first.text, second.text, third.text]).toEqual(['', '', 'abc'])
  })

  it('a reader that closes from inside its callback hears no end', () => {
    const reader = reading(new BufferedBody(Buffer.from('abc')))
    reader.onNext = () => reader.close()
    reader.resume()
    expect(reader.ends).toEqual([])
  })
})
