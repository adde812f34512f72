/**
 * What every session store must do, as cases for any test runner. Time is the rig's: virtual in memory, real against a server. A case waits in
 * units, and leaves a whole unit between "still there" and "gone", so that with real time a unit of some hundred milliseconds will do.
 */
import assert from 'node:assert/strict'
import type { MaybePromise } from '@weir/core'
import type { SessionStore } from './session-store.ts'

export interface SessionStoreRig {
  readonly store: SessionStore
  /** The store's wall clock, milliseconds of the epoch. */
  now(): number
  /** Lets so much time pass, milliseconds. */
  wait(ms: number): MaybePromise<void>
  /** Called at the end of each case. */
  close?(): MaybePromise<void>
}

/** A test of any runner: it passes when `run` resolves. */
export interface SessionStoreCase {
  readonly name: string
  run(): Promise<void>
}

export interface SessionStoreTraits {
  /** Milliseconds of the unit that cases wait in. Default 1000; with real time 300 keeps the suite short. */
  readonly unit?: number
}

const long = 86_400_000

/** @param makeRig called for each case, with an empty store */
export function sessionStoreConformance(
  makeRig: () => MaybePromise<SessionStoreRig>,
  { unit = 1000 }: SessionStoreTraits = {},
): readonly SessionStoreCase[] {
  const test = (name: string, run: (rig: SessionStoreRig) => Promise<void>): SessionStoreCase => ({
    name,
    async run() {
      const rig = await makeRig()
      try {
        await run(rig)
      } finally {
        await rig.close?.()
      }
    },
  })
  const fresh = ({ now }: SessionStoreRig) => ({ idleMs: Number.POSITIVE_INFINITY, absolute: now() + long, replaces: undefined })
  return [
    test('knows nothing of a key that was never set', async ({ store }) => {
      assert.equal(await store.get('k'), undefined)
    }),
    test('gives back what was set, per key', async (rig) => {
      assert.equal(await rig.store.set('k', 'http://a', fresh(rig)), 'http://a')
      assert.equal(await rig.store.set('l', 'http://b', fresh(rig)), 'http://b')
      assert.deepEqual([await rig.store.get('k'), await rig.store.get('l')], ['http://a', 'http://b'])
    }),
    test('keeps ids of any text', async (rig) => {
      const id = 'unix:/run/ä b\u{1f600}"\\\n.sock'
      assert.equal(await rig.store.set('k', id, fresh(rig)), id)
      assert.equal(await rig.store.get('k'), id)
    }),
    test('lets the first write win and says who it was', async (rig) => {
      await rig.store.set('k', 'a', fresh(rig))
      assert.equal(await rig.store.set('k', 'b', fresh(rig)), 'a')
      assert.equal(await rig.store.get('k'), 'a')
    }),
    test('has one winner of many writes at once', async (rig) => {
      const ids = ['a', 'b', 'c', 'd', 'e', 'f', 'g', 'h']
      const winners = new Set(await Promise.all(ids.map(async (id) => rig.store.set('k', id, fresh(rig)))))
      assert.equal(winners.size, 1)
      assert.ok(winners.has((await rig.store.get('k')) as string))
    }),
    test('replaces the upstream that the writer knows of', async (rig) => {
      await rig.store.set('k', 'a', fresh(rig))
      assert.equal(await rig.store.set('k', 'b', { ...fresh(rig), replaces: 'a' }), 'b')
      assert.equal(await rig.store.get('k'), 'b')
    }),
    test('does not replace another one', async (rig) => {
      await rig.store.set('k', 'a', fresh(rig))
      await rig.store.set('k', 'b', { ...fresh(rig), replaces: 'a' })
      assert.equal(await rig.store.set('k', 'c', { ...fresh(rig), replaces: 'a' }), 'b')
      assert.equal(await rig.store.get('k'), 'b')
    }),
    test('writes where there is nothing to replace', async (rig) => {
      assert.equal(await rig.store.set('k', 'b', { ...fresh(rig), replaces: 'a' }), 'b')
      assert.equal(await rig.store.get('k'), 'b')
    }),
    test('has one winner of many moves at once', async (rig) => {
      await rig.store.set('k', 'dead', fresh(rig))
      const moves = ['a', 'b', 'c', 'd'].map(async (id) => rig.store.set('k', id, { ...fresh(rig), replaces: 'dead' }))
      const winners = new Set(await Promise.all(moves))
      assert.equal(winners.size, 1)
      assert.ok(!winners.has('dead'))
      assert.ok(winners.has((await rig.store.get('k')) as string))
    }),
    test('forgets what is deleted, and only that', async (rig) => {
      await rig.store.set('k', 'a', fresh(rig))
      await rig.store.set('l', 'b', fresh(rig))
      await rig.store.delete('k')
      await rig.store.delete('never-set')
      assert.deepEqual([await rig.store.get('k'), await rig.store.get('l')], [undefined, 'b'])
      assert.equal(await rig.store.set('k', 'c', fresh(rig)), 'c')
    }),
    test('forgets a session that is idle', async (rig) => {
      await rig.store.set('k', 'a', { ...fresh(rig), idleMs: 2 * unit })
      await rig.wait(3 * unit)
      assert.equal(await rig.store.get('k'), undefined)
      assert.equal(await rig.store.set('k', 'b', fresh(rig)), 'b')
    }),
    test('keeps a session that is read', async (rig) => {
      await rig.store.set('k', 'a', { ...fresh(rig), idleMs: 3 * unit })
      for (let i = 0; i < 3; i++) {
        await rig.wait(2 * unit)
        assert.equal(await rig.store.get('k'), 'a')
      }
    }),
    test('keeps a session that is set again', async (rig) => {
      const write = { ...fresh(rig), idleMs: 3 * unit }
      for (let i = 0; i < 3; i++) {
        assert.equal(await rig.store.set('k', 'a', write), 'a')
        await rig.wait(2 * unit)
      }
      assert.equal(await rig.store.get('k'), 'a')
    }),
    test('ends a session at its absolute end, however busy', async (rig) => {
      await rig.store.set('k', 'a', { ...fresh(rig), idleMs: 2 * unit, absolute: rig.now() + 3 * unit })
      await rig.wait(unit)
      assert.equal(await rig.store.get('k'), 'a')
      await rig.wait(unit)
      await rig.store.get('k')
      await rig.wait(2 * unit)
      assert.equal(await rig.store.get('k'), undefined)
    }),
    test('does not move the absolute end of a session that keeps its upstream', async (rig) => {
      await rig.store.set('k', 'a', { ...fresh(rig), absolute: rig.now() + 2 * unit })
      await rig.store.set('k', 'a', fresh(rig))
      await rig.wait(3 * unit)
      assert.equal(await rig.store.get('k'), undefined)
    }),
    test('gives a session that moves the lifetimes of its new write', async (rig) => {
      await rig.store.set('k', 'a', { ...fresh(rig), absolute: rig.now() + 2 * unit })
      await rig.store.set('k', 'b', { ...fresh(rig), replaces: 'a' })
      await rig.wait(3 * unit)
      assert.equal(await rig.store.get('k'), 'b')
    }),
    test('does not keep what has ended before it is written', async (rig) => {
      await rig.store.set('k', 'a', { ...fresh(rig), absolute: rig.now() - 1 })
      assert.equal(await rig.store.get('k'), undefined)
    }),
  ]
}
