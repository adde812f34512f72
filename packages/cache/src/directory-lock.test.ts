/** Who may have a directory, and what becomes of a lock whose process is dead. */
import { spawnSync } from 'node:child_process'
import { readdir, readFile, stat, utimes, writeFile } from 'node:fs/promises'
import { hostname } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, it, vi } from 'vitest'
import { DirectoryLock } from './directory-lock.ts'
import { temporaryDirectory } from './fixtures/entries.ts'

let directory: string
let removeDirectory: () => Promise<void>
const taken: DirectoryLock[] = []
const times = { refresh: 40, patience: 200 }

beforeEach(async () => {
  ;({ path: directory, remove: removeDirectory } = await temporaryDirectory())
})
afterEach(async () => {
  await Promise.all(taken.splice(0).map((lock) => lock.release()))
  await removeDirectory()
})

async function take(onLost = (): void => {}, at = times): Promise<DirectoryLock> {
  const lock = new DirectoryLock(directory, onLost, at)
  await lock.take()
  taken.push(lock)
  return lock
}

async function left(owner: unknown): Promise<void> {
  await writeFile(join(directory, 'weir.lock'), typeof owner === 'string' ? owner : JSON.stringify(owner))
}

async function owner(): Promise<{ pid: number; token: string }> {
  return JSON.parse(await readFile(join(directory, 'weir.lock'), 'utf8')) as { pid: number; token: string }
}

it('one at a time in a process, under whatever name', async () => {
  const lock = await take()
  await expect(take()).rejects.toMatchObject({ code: 'ERR_DISK_LOCKED' })
  await lock.release()
  await take()
})

it('nothing is left of a lock that was given back', async () => {
  await (await take()).release()
  expect(await readdir(directory)).toEqual([])
})

it('of a process of this host that is dead it is taken at once', async () => {
  const { pid } = spawnSync(process.execPath, ['-e', ''])
  await left({ pid, host: hostname(), token: 'x' })
  // It would wait for an hour if it took this for a process that might be alive.
  await take(undefined, { refresh: 40, patience: 3_600_000 })
  expect((await owner()).pid).toBe(process.pid)
})

it.each([
  ['of a process with a number that is in use again', { pid: process.ppid, host: hostname(), token: 'x' }],
  ['of an earlier process with this one’s number', { pid: process.pid, host: hostname(), token: 'x' }],
  ['of another host', { pid: 1, host: 'elsewhere', token: 'x' }],
  ['that was never written', ''],
])('%s, it is taken when nobody touches it', async (_name, owned) => {
  await left(owned)
  await take()
  expect((await owner()).token).not.toBe('x')
})

it.each([
  ['of another host', { pid: 1, host: 'elsewhere', token: 'x' }],
  ['of this host', { pid: process.ppid, host: hostname(), token: 'x' }],
])('that is being touched, by a process %s, is somebody’s', async (_name, owned) => {
  await left(owned)
  let at = 1_000_000
  const touching = setInterval(() => void utimes(join(directory, 'weir.lock'), at, at++), 20)
  try {
    await expect(take()).rejects.toMatchObject({ code: 'ERR_DISK_LOCKED' })
  } finally {
    clearInterval(touching)
  }
  expect((await owner()).token).toBe('x')
})

it('is touched by its holder', async () => {
  await take()
  await utimes(join(directory, 'weir.lock'), 1000, 1000)
  await vi.waitFor(async () => {
    expect((await stat(join(directory, 'weir.lock'))).mtimeMs).toBeGreaterThan(1_000_000_000)
  })
})

it('its holder learns that another took it, and does not give back what is not its own', async () => {
  const onLost = vi.fn()
  const lock = await take(onLost)
  await left({ pid: 1, host: 'elsewhere', token: 'other' })
  await vi.waitFor(() => expect(onLost).toHaveBeenCalledOnce())
  await lock.release()
  expect((await owner()).token).toBe('other')
})

it('of several who find an abandoned one no more than one has it', async () => {
  const { pid } = spawnSync(process.execPath, ['-e', ''])
  await left({ pid, host: hostname(), token: 'x' })
  const results = await Promise.allSettled([take(), take(), take()])
  expect(results.filter(({ status }) => status === 'fulfilled')).toHaveLength(1)
})
