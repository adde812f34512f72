/** A request body that undici takes for a stream: only the part of a stream's manners that undici relies on, but that part exactly. */
import { describe, expect, it } from 'vitest'
import type { BodyReader, RequestBody } from '../body.ts'
import { BodyStream } from './body-stream.ts'

class FakeBody implements RequestBody {
  readonly length = undefined
  readonly hasTrailers = false
  readonly log: string[] = []
  reader: BodyReader | undefined
  open(reader: BodyReader): ReturnType<RequestBody['open']> {
    this.reader = reader
    return { resume: () => this.log.push('resume'), close: () => this.log.push('close') }
  }
}
function setup() {
  const body = new FakeBody()
  const stream = new BodyStream(body)
  const log: string[] = []
  for (const event of ['data', 'end', 'close']) stream.on(event, (value) => log.push(`${event}${value === undefined ? '' : ` ${value}`}`))
  return { body, stream, log, reader: body.reader as BodyReader }
}
const microtask = (): Promise<void> => Promise.resolve()

describe('a body as a stream', () => {
  it('looks like one where undici looks: pipe, on, and pipe is never called', () => {
    const { stream } = setup()
    expect(typeof stream.pipe).toBe('function')
    expect(typeof stream.on).toBe('function')
    expect(stream.destroyed).toBe(false)
    expect(() => stream.pipe()).toThrow()
  })

  it('is opened at once, and does not flow by itself', () => {
    const { body } = setup()
    expect(body.reader).toBeDefined()
    expect(body.log).toEqual([])
  })

  it('passes chunks and the end on in the same tick, and asks for a pause by its answer', () => {
    const { stream, log, reader, body } = setup()
    stream.resume()
    expect(reader.onChunk(Buffer.from('a'))).toBe(true)
    stream.once('data', () => stream.pause())
    expect(reader.onChunk(Buffer.from('b'))).toBe(false)
    expect(stream.waitsForClient).toBe(false)
    stream.resume()
    expect(stream.waitsForClient).toBe(true)
    expect(reader.onChunk(Buffer.from('c'))).toBe(true)
    reader.onEnd(undefined)
    expect(stream.waitsForClient).toBe(false)
    expect(log).toEqual(['data a', 'data b', 'data c', 'end'])
    expect(body.log).toEqual(['resume', 'resume'])
  })

  it('passes an error on to who listens, and throws at nobody', () => {
    const { stream, reader } = setup()
    expect(() => reader.onError(new Error('left'))).not.toThrow()
    const heard: Error[] = []
    stream.on('error', (error: Error) => heard.push(error))
    reader.onError(new Error('left again'))
    expect(heard.map(({ message }) => message)).toEqual(['left again'])
  })

  it('destroyed, it lets go of the body at once, and says so later, once', async () => {
    const { stream, body, log } = setup()
    const errors: unknown[] = []
    stream.on('error', (error) => errors.push(error))
    expect(stream.destroy()).toBe(stream)
    stream.destroy(new Error('too late'))
    expect(stream.destroyed).toBe(true)
    expect(body.log).toEqual(['close'])
    expect(log).toEqual([])
    await microtask()
    expect(log).toEqual(['close'])
    expect(errors).toEqual([])
  })

  it('destroyed with a reason, it says the reason first; without a listener it says nothing', async () => {
    const { stream, log } = setup()
    stream.on('error', (error: Error) => log.push(`error ${error.message}`))
    stream.destroy(new Error('length'))
    await microtask()
    expect(log).toEqual(['error length', 'close'])

    const quiet = setup()
    quiet.stream.destroy(new Error('length'))
    await microtask()
    expect(quiet.log).toEqual(['close'])
  })
})
