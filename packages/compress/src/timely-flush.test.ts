/** How long an encoder may keep what it was given, to the millisecond. */
import { randomBytes } from 'node:crypto'
import { constants, createGzip, gunzipSync } from 'node:zlib'
import { virtualClock } from '@weir/testing'
import { describe, expect, it } from 'vitest'
import { TimelyFlush } from './timely-flush.ts'

function rig() {
  const clock = virtualClock()
  const encoder = createGzip()
  let coded = Buffer.alloc(0)
  encoder.on('data', (chunk: Buffer) => {
    coded = Buffer.concat([coded, chunk])
  })
  const flush = new TimelyFlush(encoder, constants.Z_SYNC_FLUSH, 10, clock)
  return {
    clock,
    encoder,
    flush,
    write(text: string) {
      encoder.write(text)
      flush.touch()
    },
    /** What a client could read by now: zlib works on a thread, in the order of what it was given. */
    async readable(): Promise<string> {
      await new Promise<void>((resolve) => encoder.write('', () => resolve()))
      return coded.length === 0 ? '' : gunzipSync(coded, { finishFlush: constants.Z_SYNC_FLUSH }).toString()
    },
  }
}

describe('TimelyFlush', () => {
  it('hands out what is ten milliseconds old, and nothing before', async () => {
    const { clock, write, readable } = rig()
    write('a')
    await clock.advance(9)
    expect(await readable()).toBe('')
    await clock.advance(1)
    expect(await readable()).toBe('a')
    expect(clock.pending).toBe(0)
  })

  it('counts from the oldest byte, so that a trickle is not kept for ever', async () => {
    const { clock, write, readable } = rig()
    write('a')
    await clock.advance(6)
    write('b')
    await clock.advance(4)
    expect(await readable()).toBe('ab')
    write('c')
    await clock.advance(9)
    expect(await readable()).toBe('ab')
    await clock.advance(1)
    expect(await readable()).toBe('abc')
  })

  it('waits for an encoder that is behind, up to five times as long', async () => {
    for (const behind of [3, 9]) {
      const { clock, encoder, flush } = rig()
      let flushes = 0
      encoder.flush = () => void flushes++
      // Nobody reads: what comes out fills up, and then what goes in.
      encoder.pause()
      while (encoder.write(randomBytes(65_536)));
      flush.touch()
      await clock.advance(behind * 10)
      if (behind === 3) {
        expect(flushes).toBe(0)
        encoder.resume()
        await new Promise<void>((resolve) => encoder.once('drain', resolve))
        await clock.advance(9)
        expect(flushes).toBe(0)
        await clock.advance(1)
      }
      expect([flushes, clock.pending]).toEqual([1, 0])
      encoder.destroy()
    }
  })

  it('leaves an encoder alone that has ended, or is gone', async () => {
    const ended = rig()
    ended.write('a')
    ended.encoder.end()
    await ended.clock.advance(10)
    const gone = rig()
    gone.write('a')
    gone.encoder.destroy()
    await gone.clock.advance(10)
    const stopped = rig()
    stopped.write('a')
    stopped.flush.stop()
    expect([ended.clock.pending, gone.clock.pending, stopped.clock.pending]).toEqual([0, 0, 0])
  })
})
