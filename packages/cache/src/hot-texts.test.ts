/** Texts against their bodies and their bound, whatever is asked for and whatever goes; and who is given up. */
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import type { CacheEntry } from './entry.ts'
import { entryOf } from './fixtures/entries.ts'
import { HotText, HotTexts } from './hot-texts.ts'
import { memoryStore } from './memory-store.ts'

const bodyOf = (id: number, size: number): Buffer => Buffer.alloc(size, id)

interface Kept {
  readonly hot: HotText
  readonly body: Buffer
}

describe('texts of bodies', () => {
  it('are theirs, never take more than they may, and are counted to the byte', () => {
    const step = fc.record({
      id: fc.nat(9),
      size: fc.constantFrom(0, 1, 100, 700, 8192, 8193),
      act: fc.constantFrom('ask', 'ask', 'ask', 'drop'),
    })
    fc.assert(
      fc.property(fc.integer({ min: 0, max: 20_000 }), fc.array(step, { maxLength: 200 }), (maxBytes, steps) => {
        const texts = new HotTexts(maxBytes)
        const kept = new Map<number, Kept>()
        for (const { id, size, act } of steps) {
          const one = kept.get(id) ?? { hot: new HotText(), body: bodyOf(id, size) }
          kept.set(id, one)
          if (act === 'drop') {
            texts.drop(one.hot)
            kept.delete(id)
          } else {
            const text = texts.of(one.hot, one.body, 4)?.text
            if (text !== undefined) expect(text).toBe(one.body.toString('latin1'))
          }
          const held = [...kept.values()].filter(({ hot }) => hot.text !== undefined)
          expect(texts.bytes).toBe(held.reduce((sum, { body }) => sum + body.length + 384 + 4 * 8, 0))
          expect(texts.bytes).toBeLessThanOrEqual(maxBytes)
        }
      }),
    )
  })

  it('are there from the second time on, of short bodies that have something in them', () => {
    const texts = new HotTexts(100_000)
    const ask = (size: number): (string | undefined)[] => {
      const hot = new HotText()
      return [1, 2, 3].map(() => texts.of(hot, bodyOf(65, size), 4)?.text)
    }
    expect(ask(3)).toEqual([undefined, 'AAA', 'AAA'])
    expect(ask(8192)[2]).toHaveLength(8192)
    expect(ask(8193)).toEqual([undefined, undefined, undefined])
    expect(ask(0)).toEqual([undefined, undefined, undefined])
  })

  it('go when nobody has asked for them for a round, and not those that are asked for', () => {
    const texts = new HotTexts(3 * (100 + 384))
    const [a, b, c, d] = [1, 2, 3, 4].map((id): Kept => ({ hot: new HotText(), body: bodyOf(id, 100) })) as [Kept, Kept, Kept, Kept]
    const ask = ({ hot, body }: Kept): string | undefined => texts.of(hot, body, 0)?.text
    for (const one of [a, b, c]) for (let i = 0; i < 2; i++) ask(one)
    ask(a)
    ask(d)
    ask(d)
    expect([a, b, c, d].map(({ hot }) => hot.text !== undefined)).toEqual([true, false, true, true])
  })
})

describe('the memory store', () => {
  it('stays within its bound with the texts of all that is asked for, and has none left when it is cleared', () => {
    const maxSize = 1 << 20
    const store = memoryStore({ maxSize })
    const texts = new Set<string>()
    for (let id = 0; id < 2000; id++) {
      void store.put(entryOf(String(id), 500), bodyOf(id & 255, 500))
      for (let again = 0; again < 3; again++) {
        const [entry] = store.find(String(id)) as readonly CacheEntry[]
        if (entry === undefined) continue
        const text = store.hot?.(entry)?.text
        if (text === undefined) continue
        expect(text).toBe(bodyOf(id & 255, 500).toString('latin1'))
        texts.add(text)
      }
      expect(store.stats().bytes).toBeLessThanOrEqual(maxSize)
    }
    expect(texts.size).toBe(256)
    void store.clear()
    expect(store.stats()).toEqual({ entries: 0, bytes: 0 })
  })

  it('gives no text of a body that was replaced', () => {
    const store = memoryStore({ maxSize: '16MiB' })
    const textOf = (): string | undefined => {
      const [entry] = store.find('1') as readonly CacheEntry[]
      return entry && store.hot?.(entry)?.text
    }
    void store.put(entryOf('1', 3), Buffer.from('old'))
    expect([textOf(), textOf()]).toEqual([undefined, 'old'])
    void store.put(entryOf('1', 3, { id: 'other' }), Buffer.from('new'))
    expect([textOf(), textOf()]).toEqual([undefined, 'new'])
    // Another head for the same body.
    void store.update(entryOf('1', 3, { id: 'other', status: 203 }))
    expect([textOf(), textOf()]).toEqual([undefined, 'new'])
  })
})
