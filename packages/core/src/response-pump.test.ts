/** The response's way to the client: how many writes, who is paused when the client is slow, and in which order transforms and taps see the bytes. */
import { EventEmitter } from 'node:events'
import type { ServerResponse } from 'node:http'
import { type Duplex, PassThrough, Readable, Transform } from 'node:stream'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { type BodyStep, ChainedPump, ResponsePump } from './body.ts'
import type { BodyTap } from './stage.ts'
import type { UpstreamCall } from './transport/transport.ts'

class FakeResponse extends EventEmitter {
  readonly writes: string[] = []
  ended: string | undefined
  trailers: unknown
  /** Answer of `write`. */
  full = false

  write(chunk: Buffer): boolean {
    this.writes.push(chunk.toString('latin1'))
    return !this.full
  }

  end(chunk: Buffer | string = '', encoding: 'latin1' | 'utf8' = 'utf8'): void {
    expect(this.ended).toBeUndefined()
    this.ended = Buffer.from(chunk as string, encoding).toString('latin1')
    if (this.ended !== '') this.writes.push(this.ended)
  }

  addTrailers(fields: unknown): void {
    this.trailers = fields
  }

  drain(): void {
    this.full = false
    this.emit('drain')
  }

  get text(): string {
    return this.writes.join('')
  }
}

class FakeCall implements UpstreamCall {
  readonly log: string[] = []
  readonly reused = false
  readonly connectMs = undefined
  readonly sent = true
  abort(): void {
    this.log.push('abort')
  }
  pause(): void {
    this.log.push('pause')
  }
  resume(): void {
    this.log.push('resume')
  }
}

const bytes = (text: string): Buffer => Buffer.from(text, 'latin1')
const turn = (): Promise<void> => new Promise((resolve) => void setImmediate(resolve))

function setup(length = -1, steps?: readonly BodyStep[], hasBody = true) {
  const res = new FakeResponse()
  const call = new FakeCall()
  const seen: string[] = []
  const events = { onPumped: () => seen.push('pumped'), onPumpError: (error: unknown) => seen.push(`error ${(error as Error).message}`) }
  const target = res as unknown as ServerResponse
  const pump =
    steps === undefined ? new ResponsePump(target, events, call, length) : new ChainedPump(target, events, call, length, steps, hasBody)
  return { res, call, seen, pump }
}

/** Marks what passes it, and adds a tail. */
const marking = (mark: string): Duplex =>
  new Transform({
    transform: (chunk: Buffer, _, done) => done(null, `${mark}(${chunk.toString('latin1')})`),
    flush(done) {
      this.push(`/${mark}`)
      done()
    },
  })
const recording = (log: string[], name: string): BodyTap => ({
  onChunk: (chunk) => log.push(`${name}:${Buffer.from(chunk).toString('latin1')}`),
  onEnd: (complete) => log.push(`${name}:${complete ? 'end' : 'cut'}`),
})

describe('without stages', () => {
  for (const size of [1, 8192, 8193, 100_000])
    it(`a body of ${size} bytes in one chunk leaves with the end, in one write, whatever its octets`, () => {
      const { res, seen, pump } = setup(size)
      const body = Buffer.alloc(size)
      for (let i = 0; i < size; i++) body[i] = (i * 7 + 200) & 255
      expect(pump.write(body)).toBe(true)
      expect(res.writes).toEqual([])
      pump.end(undefined)
      expect(res.writes).toEqual([body.toString('latin1')])
      expect(res.ended).toBe(body.toString('latin1'))
      expect(seen).toEqual(['pumped'])
      expect(pump.bytes).toBe(size)
    })

  it('whatever the chunks, the bytes arrive, and the last one leaves with the end when the length is known', () => {
    fc.assert(
      fc.property(fc.array(fc.uint8Array({ minLength: 1, maxLength: 5 }), { maxLength: 8 }), fc.boolean(), (chunks, known) => {
        const body = Buffer.concat(chunks)
        const { res, pump, seen, call } = setup(known ? body.length : -1)
        for (const chunk of chunks) expect(pump.write(Buffer.from(chunk))).toBe(true)
        pump.end(undefined)
        expect(res.text).toBe(body.toString('latin1'))
        expect(res.writes.length).toBe(chunks.length)
        expect(res.ended).toBe(known && chunks.length > 0 ? Buffer.from(chunks.at(-1) as Uint8Array).toString('latin1') : '')
        expect(pump.bytes).toBe(body.length)
        expect(seen).toEqual(['pumped'])
        expect(call.log).toEqual([])
      }),
    )
  })

  it('a client that is slow pauses the upstream, once, and its drain resumes it, once', () => {
    const { res, call, pump } = setup()
    res.full = true
    expect(pump.write(bytes('a'))).toBe(false)
    expect(pump.write(bytes('b'))).toBe(false)
    expect(call.log).toEqual(['pause'])
    res.drain()
    expect(call.log).toEqual(['pause', 'resume'])
    expect(pump.write(bytes('c'))).toBe(true)
    res.full = true
    pump.write(bytes('d'))
    expect(call.log).toEqual(['pause', 'resume', 'pause'])
    expect(res.text).toBe('abcd')
    expect(res.listenerCount('drain')).toBe(1)
  })

  it('after an abort nobody is resumed', () => {
    const { res, call, pump } = setup()
    res.full = true
    pump.write(bytes('a'))
    pump.abort()
    res.drain()
    expect(call.log).toEqual(['pause'])
  })

  it('trailers go before the end, lines of one name together, whatever the name', () => {
    const { res, pump } = setup()
    pump.end(['X-Sum', '1', 'constructor', 'c', 'X-Sum', '2', '__proto__', 'p', 'X-Sum', '3'])
    expect(Object.entries(res.trailers as object)).toEqual([
      ['X-Sum', ['1', '2', '3']],
      ['constructor', 'c'],
      ['__proto__', 'p'],
    ])
  })
})

describe('the chain', () => {
  it('runs in the order in which it was asked for, and a tap sees the bytes as they are at its place', async () => {
    const log: string[] = []
    const { res, seen, pump } = setup(1, [
      { tap: recording(log, 'inner') },
      { transform: marking('one') },
      { tap: recording(log, 'middle') },
      { transform: marking('two') },
      { tap: recording(log, 'outer') },
    ])
    pump.write(bytes('x'))
    pump.end(undefined)
    await turn()
    expect(res.text).toBe('two(one(x))two(/one)/two')
    expect(log.filter((line) => line.startsWith('inner'))).toEqual(['inner:x', 'inner:end'])
    expect(log.filter((line) => line.startsWith('middle'))).toEqual(['middle:one(x)', 'middle:/one', 'middle:end'])
    expect(log.filter((line) => line.startsWith('outer')).join('')).toBe('outer:two(one(x))outer:two(/one)outer:/twoouter:end')
    expect(seen).toEqual(['pumped'])
    expect(pump.bytes).toBe(res.text.length)
  })

  it('taps alone change nothing: the last chunk still leaves with the end', () => {
    const log: string[] = []
    const { res, pump } = setup(3, [{ tap: recording(log, 'a') }, { tap: recording(log, 'b') }, { tap: {} }])
    pump.write(bytes('xy'))
    pump.write(bytes('z'))
    pump.end(undefined)
    expect(res.writes).toEqual(['xy', 'z'])
    expect(res.ended).toBe('z')
    expect(log).toEqual(['a:xy', 'b:xy', 'a:z', 'b:z', 'a:end', 'b:end'])
  })

  it('trailers wait for the last byte of the last transform', async () => {
    const { res, pump } = setup(-1, [{ transform: marking('t') }])
    pump.write(bytes('x'))
    pump.end(['X-Sum', '1'])
    expect(res.trailers).toBeUndefined()
    await turn()
    expect(res.text).toBe('t(x)/t')
    expect(res.trailers).toEqual({ 'X-Sum': '1' })
  })

  it('without a body the taps hear the end and no transform takes part', () => {
    const log: string[] = []
    const { res, pump } = setup(-1, [{ tap: recording(log, 'a') }, { transform: marking('t') }, { tap: recording(log, 'b') }], false)
    pump.end(undefined)
    expect(log).toEqual(['a:end', 'b:end'])
    expect(res.writes).toEqual([])
    expect(res.ended).toBe('')
  })

  it('a transform that is full pauses the upstream, and its drain resumes it', async () => {
    const slow = new PassThrough({ highWaterMark: 4 })
    const { res, call, pump } = setup(-1, [{ transform: slow }])
    res.full = true
    let sent = 0
    while (call.log.length === 0 && sent < 100) {
      pump.write(bytes('xx'))
      sent += 2
      await turn()
    }
    expect(call.log).toEqual(['pause'])
    res.drain()
    await turn()
    expect(call.log.at(-1)).toBe('resume')
    pump.end(undefined)
    await turn()
    expect(res.text).toBe('x'.repeat(sent))
  })

  it('a slow client is felt through every transform: what is under way stays bounded, and nothing is lost', async () => {
    const steps = [1, 2, 3].map(() => ({ transform: new PassThrough({ highWaterMark: 8 }) }))
    const { res, call, pump } = setup(-1, steps)
    res.full = true
    let sent = ''
    for (let i = 0; i < 200 && call.log.at(-1) !== 'pause'; i++) {
      const text = String(i % 10).repeat(4)
      pump.write(bytes(text))
      sent += text
      await turn()
    }
    expect(call.log).toEqual(['pause'])
    // Two buffers of eight bytes each, with a chunk of slack.
    expect(sent.length).toBeLessThanOrEqual(3 * (8 + 8 + 4) + 4)
    pump.end(undefined)
    for (let i = 0; i < 200 && res.ended === undefined; i++) {
      res.drain()
      await turn()
      res.full = i % 2 === 0
    }
    expect(res.text).toBe(sent)
    expect(res.ended).toBe('')
  })
})

describe('what goes wrong', () => {
  it('a transform that fails is reported', async () => {
    const failing = new Transform({ transform: (_chunk, _, done) => done(new Error('bad gzip')) })
    const { seen, pump } = setup(-1, [{ transform: marking('t') }, { transform: failing }])
    pump.write(bytes('x'))
    await turn()
    expect(seen).toEqual(['error bad gzip'])
  })

  it('a transform that fails while it flushes is reported, and the body does not end as if it were whole', async () => {
    const failing = new Transform({ transform: (chunk, _, done) => done(null, chunk), flush: (done) => done(new Error('no end')) })
    const { res, seen, pump } = setup(-1, [{ transform: failing }])
    pump.write(bytes('x'))
    pump.end(undefined)
    await turn()
    expect(seen).toEqual(['error no end'])
    expect(res.ended).toBeUndefined()
  })

  it('a tap that throws is reported, on a chunk and at the end', () => {
    const { seen, pump } = setup(-1, [
      {
        tap: {
          onChunk: () => {
            throw new Error('on chunk')
          },
          onEnd: () => {
            throw new Error('on end')
          },
        },
      },
    ])
    pump.write(bytes('x'))
    pump.end(undefined)
    expect(seen.slice(0, 2)).toEqual(['error on chunk', 'error on end'])
  })

  it('when the upstream breaks off every tap hears it once, wherever it stands, and every transform is destroyed', async () => {
    const log: string[] = []
    const transforms = [marking('one'), marking('two')]
    const { res, pump } = setup(-1, [
      { tap: recording(log, 'inner') },
      { transform: transforms[0] as Duplex },
      { tap: recording(log, 'middle') },
      { transform: transforms[1] as Duplex },
      { tap: recording(log, 'outer') },
    ])
    pump.write(bytes('x'))
    await turn()
    pump.abort()
    pump.abort()
    await turn()
    expect(log.filter((line) => line.endsWith(':cut') || line.endsWith(':end'))).toEqual(['inner:cut', 'middle:cut', 'outer:cut'])
    expect(transforms.map((stream) => stream.destroyed)).toEqual([true, true])
    expect(res.ended).toBeUndefined()
  })

  it('a tap that has heard the end does not hear of a client that left before the last byte', () => {
    const log: string[] = []
    const { pump } = setup(1, [{ tap: recording(log, 'a') }])
    pump.write(bytes('x'))
    pump.end(undefined)
    pump.abort()
    expect(log).toEqual(['a:x', 'a:end'])
  })
})

describe('a reply whose body is a stream', () => {
  const pumpStream = (source: Readable, steps: readonly BodyStep[] = []) => {
    const res = new FakeResponse()
    const seen: string[] = []
    const events = { onPumped: () => seen.push('pumped'), onPumpError: (error: unknown) => seen.push(`error ${(error as Error).message}`) }
    const pump = new ChainedPump(res as unknown as ServerResponse, events, source, -1, steps, true)
    return { res, seen, pump }
  }

  it('passes the same chain, strings and buffers alike', async () => {
    const { res, seen, pump } = pumpStream(Readable.from(['caf\xe9', Buffer.from('!')]), [{ transform: new PassThrough() }])
    await turn()
    expect(Buffer.from(res.text, 'latin1').toString()).toBe('caf\xe9!')
    expect(seen).toEqual(['pumped'])
    expect(pump.bytes).toBe(6)
  })

  for (const steps of [[], [{ transform: new PassThrough({ highWaterMark: 1 }) }]])
    it(`is paused while the client is slow (${steps.length} transforms)`, async () => {
      let read = 0
      const source = new Readable({
        highWaterMark: 1,
        read() {
          this.push(read++ < 100 ? Buffer.from('x') : null)
        },
      })
      const { res, seen } = pumpStream(source, steps)
      res.full = true
      for (let i = 0; i < 20; i++) await turn()
      expect(read).toBeLessThan(20)
      res.drain()
      for (let i = 0; i < 200 && seen.length === 0; i++) await turn()
      expect(res.text).toBe('x'.repeat(100))
      expect(seen).toEqual(['pumped'])
    })

  it('that fails is reported; one that is aborted is destroyed', async () => {
    const failing = new Readable({ read() {} })
    const first = pumpStream(failing)
    failing.destroy(new Error('disk'))
    await turn()
    expect(first.seen).toEqual(['error disk'])
    expect(first.res.ended).toBeUndefined()

    const endless = new Readable({ read() {} })
    pumpStream(endless).pump.abort()
    expect(endless.destroyed).toBe(true)
  })
})
