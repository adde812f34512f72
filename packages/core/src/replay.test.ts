/** The replay buffer keeps everything or says that it does not: never a part. */
import fc from 'fast-check'
import { expect, it } from 'vitest'
import { ReplayBuffer } from './replay.ts'

it('holds all that passed while it fits, and nothing from the first byte too many on', () => {
  const size = fc.nat(6)
  fc.assert(
    fc.property(fc.nat(20), fc.array(size, { maxLength: 12 }), (limit, sizes) => {
      const buffer = new ReplayBuffer(limit)
      const pushed: Buffer[] = []
      let total = 0
      let fits = true
      for (const [index, length] of sizes.entries()) {
        const chunk = Buffer.alloc(length, index)
        buffer.push(chunk)
        pushed.push(chunk)
        total += length
        fits &&= total <= limit
        expect(buffer.chunks === undefined ? undefined : Buffer.concat(buffer.chunks)).toEqual(fits ? Buffer.concat(pushed) : undefined)
      }
    }),
  )
})

it('an empty body is whole', () => expect(new ReplayBuffer(0).chunks).toEqual([]))

it('holds exactly its limit', () => {
  const buffer = new ReplayBuffer(3)
  buffer.push(Buffer.from('abc'))
  expect(buffer.chunks).toHaveLength(1)
  buffer.push(Buffer.from('d'))
  expect(buffer.chunks).toBeUndefined()
})

it('once released it stays empty', () => {
  const buffer = new ReplayBuffer(10)
  buffer.push(Buffer.from('a'))
  buffer.release()
  expect(buffer.chunks).toBeUndefined()
  buffer.push(Buffer.from('b'))
  expect(buffer.chunks).toBeUndefined()
})
