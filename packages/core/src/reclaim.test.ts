/** A chunk of an upload is set free only where nobody besides Weir can hold it. */
import { IncomingMessage } from 'node:http'
import { Socket } from 'node:net'
import { PassThrough, Readable } from 'node:stream'
import { describe, expect, it } from 'vitest'
import { isOurs, setFree } from './reclaim.ts'

const whole = (size = 65_536): Buffer => Buffer.from(new ArrayBuffer(size))
/** As core listens. */
function request(): IncomingMessage {
  const req = new IncomingMessage(new Socket())
  req.on('data', () => {})
  return req
}

it('a whole chunk of a request that only core reads', () => {
  expect(isOurs(whole(), request())).toBe(true)
})

describe('not', () => {
  it('a part of a larger piece of memory', () => expect(isOurs(whole().subarray(0, 40_000), request())).toBe(false))
  it('a small one', () => expect(isOurs(whole(1000), request())).toBe(false))
  it('one that another listener sees', () => {
    const other = request()
    other.on('data', () => {})
    expect(isOurs(whole(), other)).toBe(false)
    const reader = request()
    reader.on('readable', () => {})
    expect(isOurs(whole(), reader)).toBe(false)
    const piped = request()
    piped.pipe(new PassThrough())
    expect(isOurs(whole(), piped)).toBe(false)
  })
  it('one of a request that somebody has wrapped', () => {
    for (const method of ['emit', 'push', 'read'] as const) {
      const req = request()
      const own = req[method] as (...args: unknown[]) => never
      req[method] = (...args: unknown[]) => own.apply(req, args)
      expect(isOurs(whole(), req), method).toBe(false)
    }
  })
  it('one of a stream that is no request of node', () => {
    const req = new Readable({ read() {} }) as IncomingMessage
    req.on('data', () => {})
    expect(isOurs(whole(), req)).toBe(false)
  })
})

it('whoever kept it all the same finds it empty', () => {
  const chunk = whole()
  const view = chunk.subarray(10, 20)
  setFree(chunk)
  expect(chunk.length).toBe(0)
  expect(view.length).toBe(0)
})
