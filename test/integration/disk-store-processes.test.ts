/** A disk store and processes: one that is killed at any moment, one that may not write as much as it wants, and two at once. */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { mkdtemp, readdir, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { Readable } from 'node:stream'
import { fileURLToPath } from 'node:url'
import { diskStore } from '@weir/cache'
import { seededRandom } from '@weir/testing'
import { afterEach, beforeEach, expect, it } from 'vitest'
import { diskBody } from './disk-entries.ts'

const { NODE_OPTIONS: _, ...env } = process.env
let directory: string
const running: ChildProcess[] = []

beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'weir-disk-'))
})
afterEach(async () => {
  for (const child of running.splice(0)) child.kill('SIGKILL')
  await rm(directory, { recursive: true, force: true })
})

function childFile(name: string): string {
  return fileURLToPath(new URL(`children/${name}.ts`, import.meta.url))
}

interface Writer {
  /** When it has stored so many things. */
  busy(changes: number): Promise<void>
  kill(): Promise<void>
}

/** @param said filled with what it said about each key last */
async function writer(round: string, said = new Map<string, readonly string[]>()): Promise<Writer> {
  const child = spawn(process.execPath, [childFile('disk-writer'), directory, round], { stdio: ['ignore', 'pipe', 'inherit'], env })
  running.push(child)
  let changes = 0
  let wanted = Number.POSITIVE_INFINITY
  let onBusy = (): void => {}
  const closed = new Promise<void>((resolve) => child.on('close', () => resolve()))
  const ready = new Promise<void>((resolve, reject) => {
    createInterface({ input: child.stdout as Readable }).on('line', (line) => {
      if (line === 'ready') return resolve()
      const [what = '', key = '', ...more] = line.split(' ')
      // Over what was kept something is stored: then one or the other is there, whatever happens.
      const replaces = what === 'storing' && said.get(key)?.[0] === 'kept'
      said.set(key, [replaces ? 'replacing' : what, ...more])
      if ((what === 'kept' || what === 'gone') && ++changes >= wanted) onBusy()
    })
    child.on('exit', () => reject(new Error('the writer ended')))
  })
  await ready
  return {
    busy: (count) =>
      new Promise((resolve) => {
        wanted = changes + count
        onBusy = resolve
      }),
    async kill() {
      child.kill('SIGKILL')
      await closed
    },
  }
}

it('killed at any moment, everything that is served is whole, what was done is done, and nothing half-written is left', async () => {
  const random = seededRandom(9)
  const said = new Map<string, readonly string[]>()
  let survivors = 0
  for (let round = 0; round < 15; round++) {
    const child = await writer(`r${round}`, said)
    await child.busy(1 + Math.floor(random() * 120))
    await child.kill()

    const store = diskStore({ directory, maxSize: '256MiB' })
    await store.start()
    expect(await readdir(join(directory, 'tmp'))).toEqual([])
    const found = new Map<string, { id: string; lifetime: number }>()
    for await (const entry of store.entries()) {
      const body = await store.body(entry, 0, entry.size)
      const bytes = body instanceof Readable ? Buffer.concat(await body.toArray()) : body
      expect(bytes === undefined ? undefined : diskBody(entry.id, entry.size).equals(bytes)).toBe(true)
      found.set(entry.key, entry)
      survivors++
    }
    for (const [key, [what, id, lifetime]] of said) {
      if (what === 'gone') expect(found.get(key)).toBeUndefined()
      if (what === 'replacing') expect(found.get(key)).toBeDefined()
      if (what === 'kept') expect(found.get(key)).toMatchObject({ id, lifetime: Number(lifetime) })
    }
    // What was begun and not done is one thing or the other from now on.
    for (const key of said.keys()) said.set(key, ['gone'])
    for (const [key, { id, lifetime }] of found) said.set(key, ['kept', id, String(lifetime)])
    await store.close()
  }
  // Else there was nothing to see.
  expect(survivors).toBeGreaterThan(15)
}, 120_000)

it('a directory that another process has is refused, and is free when that one is killed', async () => {
  const child = await writer('r')
  const store = diskStore({ directory, maxSize: '256MiB' })
  await expect(store.start()).rejects.toMatchObject({ code: 'ERR_DISK_LOCKED' })
  // The other one has not noticed.
  await child.busy(20)
  await child.kill()
  await store.start()
  await store.close()
})

// A real limit of the system, as hard as a full disk: it takes a part of a write, and refuses the rest.
it('a file that the system does not let grow is a failed put, and leaves nothing', () => {
  const { stdout, stderr } = spawnSync(
    'sh',
    ['-c', 'ulimit -f 2000 && exec "$@"', 'sh', process.execPath, childFile('disk-limit'), directory],
    {
      encoding: 'utf8',
      env,
    },
  )
  expect(stderr).toBe('')
  expect(JSON.parse(stdout)).toEqual({ small: true, replaced: 'ERR_DISK_FULL', found: 0, again: true, files: 1 })
})
