/** The value in the cookie: what is ours opens on every proxy with the secret, and nothing else opens at all. */
import { createPool, type Pool } from '@weir/core'
import { fakeTransport } from '@weir/testing'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { type Opened, SignedValues, valueLength } from './signed-value.ts'

const transport = fakeTransport()
const ids = ['http://10.0.0.1:3000', 'http://10.0.0.2:3000', 'unix:/run/app.sock', 'blue']
const poolOf = (list: readonly string[]): Pool =>
  createPool({ upstreams: list.map((id, i) => ({ id, url: `http://10.0.0.${i + 1}:3000` })), transport })
const secret = (fill: number): Buffer => Buffer.alloc(32, fill)
const lifetimes = { idle: 60_000, absolute: 600_000, refresh: 0.1 }
const values = (secrets = [secret(1)], context = 'insert x', over: Partial<typeof lifetimes> = {}): SignedValues =>
  new SignedValues(secrets, context, { ...lifetimes, ...over })
const start = 1_800_000_000_000
const pool = poolOf(ids)
const upstreamOf = (opened: Opened): string | undefined => (opened.kind === 'valid' ? opened.session.upstream : undefined)
const reasonOf = (opened: Opened): string | undefined => (opened.kind === 'rejected' ? opened.reason : undefined)

describe('a value', () => {
  it('opens to the upstream it was sealed for, whatever the time in between its limits', () => {
    fc.assert(
      fc.property(fc.constantFrom(...ids), fc.nat(59_999), fc.nat(4e9), (id, later, at) => {
        const now = Math.floor(at) * 1000
        const opened = values().open(pool, values().seal(pool, id, now, now), now + later)
        expect(upstreamOf(opened)).toBe(id)
      }),
    )
  })

  it('is the same 76 characters long for every upstream, and shows neither id, address nor index', () => {
    for (const id of ids) {
      const value = values().seal(pool, id, start, start)
      expect(value).toMatch(/^[A-Za-z0-9_-]{76}$/)
      expect(value.length).toBe(valueLength)
      const bytes = Buffer.from(value, 'base64url').toString('latin1')
      for (const secretText of [id, '10.0.0', '3000', 'app.sock']) expect(bytes).not.toContain(secretText)
    }
  })

  it('names an upstream alike wherever it stands in the list', () => {
    fc.assert(
      fc.property(fc.shuffledSubarray(ids, { minLength: 1 }), fc.nat(3), (list, pick) => {
        const id = list[pick % list.length] as string
        const other = poolOf(list)
        expect(upstreamOf(values().open(pool, values().seal(other, id, start, start), start))).toBe(id)
        expect(upstreamOf(values().open(other, values().seal(pool, id, start, start), start))).toBe(id)
      }),
    )
  })

  it('selects nothing when any bit of any character was changed', () => {
    const node = values()
    const value = node.seal(pool, 'blue', start, start)
    expect(upstreamOf(node.open(pool, value, start))).toBe('blue')
    for (let at = 0; at < value.length; at++)
      for (let bit = 0; bit < 8; bit++) {
        const flipped = value.slice(0, at) + String.fromCharCode(value.charCodeAt(at) ^ (1 << bit)) + value.slice(at + 1)
        expect(reasonOf(node.open(pool, flipped, start))).toMatch(/^(?:malformed|forged)$/)
      }
  })

  it('selects nothing when any bit of its bytes was changed', () => {
    const bytes = Buffer.from(values().seal(pool, 'blue', start, start), 'base64url')
    for (let bit = 0; bit < bytes.length * 8; bit++) {
      const flipped = Buffer.from(bytes)
      flipped[bit >> 3] = (flipped[bit >> 3] as number) ^ (1 << (bit & 7))
      expect(reasonOf(values().open(pool, flipped.toString('base64url'), start))).toBe('forged')
    }
  })

  it('selects nothing when cut, lengthened, or spliced from two', () => {
    const node = values()
    const a = node.seal(pool, ids[0] as string, start, start)
    const b = node.seal(pool, ids[1] as string, start - 5000, start)
    fc.assert(
      fc.property(fc.nat(75), fc.string(), (cut, more) => {
        expect(node.open(pool, a.slice(0, cut), start).kind).toBe('rejected')
        if (more !== '') expect(node.open(pool, a + more, start).kind).toBe('rejected')
        const spliced = a.slice(0, cut) + b.slice(cut)
        if (spliced !== a && spliced !== b) expect(node.open(pool, spliced, start).kind).toBe('rejected')
      }),
    )
  })

  it('selects nothing when it is any other text', () => {
    fc.assert(
      fc.property(fc.oneof(fc.string({ maxLength: 200 }), fc.string({ minLength: 76, maxLength: 76 }), fc.base64String()), (text) => {
        expect(values().open(pool, text, start).kind).toBe('rejected')
      }),
    )
    expect(reasonOf(values().open(pool, 'A'.repeat(1_000_000), start))).toBe('malformed')
    expect(reasonOf(values().open(pool, 'A'.repeat(valueLength), start))).toBe('forged')
  })

  it('has one spelling: base64 of the other alphabet does not open', () => {
    const node = values()
    for (let i = 0; i < 64; i++) {
      const value = node.seal(pool, 'blue', start + i * 1000, start + i * 1000)
      const other = value.replaceAll('-', '+').replaceAll('_', '/')
      if (other !== value) expect(reasonOf(node.open(pool, other, start + i * 1000))).toBe('malformed')
    }
  })
})

describe('secrets', () => {
  it('of another service open nothing, nor does the value of another cookie or mode', () => {
    const value = values().seal(pool, 'blue', start, start)
    expect(reasonOf(values([secret(2)]).open(pool, value, start))).toBe('forged')
    expect(reasonOf(values([secret(1)], 'insert y').open(pool, value, start))).toBe('forged')
    expect(reasonOf(values([secret(1)], 'prefix x').open(pool, value, start))).toBe('forged')
  })

  it('rotate: an old one still opens, and its values are to be sent anew', () => {
    const old = values([secret(1)]).seal(pool, 'blue', start, start)
    const rotated = values([secret(2), secret(1)])
    expect(rotated.open(pool, old, start)).toEqual({
      kind: 'valid',
      session: { created: start, seen: start, upstream: 'blue', stale: true },
    })
    const anew = rotated.seal(pool, 'blue', start, start)
    expect(rotated.open(pool, anew, start)).toMatchObject({ session: { upstream: 'blue', stale: false } })
    expect(reasonOf(values([secret(1)]).open(pool, anew, start))).toBe('forged')
  })

  it('bind a value to what it was sealed with', () => {
    const value = values().seal(pool, 'blue', start, start, 'abc')
    expect(upstreamOf(values().open(pool, value, start, 'abc'))).toBe('blue')
    for (const bound of ['', 'abd', 'abcd', 'ab']) expect(reasonOf(values().open(pool, value, start, bound))).toBe('forged')
  })

  it('and what it was sealed with keeps its value apart, also once it was verified', () => {
    const node = values()
    const value = node.seal(pool, 'blue', start, start, 'abc')
    expect(node.open(pool, value, start, 'abc').kind).toBe('valid')
    expect(reasonOf(node.open(pool, value, start, 'abd'))).toBe('forged')
  })
})

describe('lifetimes', () => {
  it('end a session that is idle, and one that is old, also when its value was verified before', () => {
    const node = values()
    const value = node.seal(pool, 'blue', start, start)
    for (let i = 0; i < 2; i++) {
      expect(node.open(pool, value, start + 59_999).kind).toBe('valid')
      expect(reasonOf(node.open(pool, value, start + 60_000))).toBe('expired')
    }
    const busy = node.seal(pool, 'blue', start, start + 599_000)
    expect(node.open(pool, busy, start + 599_999).kind).toBe('valid')
    expect(reasonOf(node.open(pool, busy, start + 600_000))).toBe('expired')
  })

  it('say when a stamp is old enough to be sent anew, and not before', () => {
    const node = values()
    const value = node.seal(pool, 'blue', start, start)
    const stale = (at: number): unknown => (node.open(pool, value, at) as { session: { stale: boolean } }).session.stale
    expect([stale(start), stale(start + 5999), stale(start + 6000)]).toEqual([false, false, true])
  })

  it('without idle, only age counts', () => {
    const node = values([secret(1)], 'insert x', { idle: Number.POSITIVE_INFINITY })
    const value = node.seal(pool, 'blue', start, start)
    expect(node.open(pool, value, start + 599_999)).toMatchObject({ kind: 'valid', session: { stale: false } })
    expect(reasonOf(node.open(pool, value, start + 600_000))).toBe('expired')
  })

  it('bear clocks that differ a little, and no stamp from the future', () => {
    const value = values().seal(pool, 'blue', start, start)
    expect(values().open(pool, value, start - 60_000).kind).toBe('valid')
    expect(reasonOf(values().open(pool, value, start - 60_001))).toBe('future')
    // Else a stamp of a clock that ran ahead would keep an idle session alive.
    expect(reasonOf(values().open(pool, values().seal(pool, 'blue', start, start + 61_000), start))).toBe('future')
  })

  it('say how long a value sealed now would hold', () => {
    expect(values().left(start, start)).toBe(60_000)
    expect(values().left(start, start + 590_000)).toBe(10_000)
  })
})

describe('members', () => {
  it('that left are not selected; those that joined are', async () => {
    const changing = poolOf(['a', 'b'])
    const node = values()
    const value = node.seal(changing, 'b', start, start)
    expect(upstreamOf(node.open(changing, value, start))).toBe('b')
    await changing.remove('b')
    expect(node.open(changing, value, start)).toMatchObject({ kind: 'valid', session: { upstream: undefined } })
    // Elsewhere sealed for somebody whom this node has not seen yet.
    const elsewhere = values().seal(poolOf(['c']), 'c', start, start)
    expect(upstreamOf(node.open(changing, elsewhere, start))).toBeUndefined()
    changing.add({ id: 'c', url: 'http://10.0.0.9:3000' })
    changing.add({ id: 'b', url: 'http://10.0.0.2:3000' })
    expect(upstreamOf(node.open(changing, elsewhere, start))).toBe('c')
    expect(upstreamOf(node.open(changing, value, start))).toBe('b')
  })

  it('of another pool are not selected', () => {
    const node = values()
    const value = node.seal(pool, 'blue', start, start)
    expect(upstreamOf(node.open(poolOf(['green']), value, start))).toBeUndefined()
  })
})
