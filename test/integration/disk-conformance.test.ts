/** The stores that use a disk do what every cache store must do. */
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type CacheStore, cacheStoreConformance, diskStore, memoryStore, tieredStore } from '@weir/cache'
import { describe, it } from 'vitest'

const maxVariants = 12
const kinds: readonly (readonly [name: string, over: (disk: CacheStore) => CacheStore, bound: { maxVariants?: number }])[] = [
  ['disk', (disk) => disk, { maxVariants }],
  ['tiered', (disk) => tieredStore({ upper: memoryStore({ maxSize: '32MiB', maxVariants }), lower: disk }), { maxVariants }],
  // What is above goes all the time, and is not always what goes below: there is no one bound then.
  ['tiered, with next to nothing above', (disk) => tieredStore({ upper: memoryStore({ maxSize: 8192 }), lower: disk }), {}],
]

describe.each(kinds)('%s', (name, over, bound) => {
  const subject = {
    name,
    tooLarge: 1 << 26,
    ...bound,
    make: async () => {
      const directory = await mkdtemp(join(tmpdir(), 'weir-disk-'))
      const disk = diskStore({ directory, maxSize: '32MiB', maxVariants })
      const store = over(disk)
      await store.start?.()
      return {
        store,
        close: async () => {
          await disk.close()
          await rm(directory, { recursive: true, force: true })
        },
      }
    },
  }
  for (const { name: title, run } of cacheStoreConformance(subject)) it(title, run)
})
