/** Stores something small, and something larger than this process may write into a file; says what came of it. */
import { readdir } from 'node:fs/promises'
import { DiskStoreError, diskStore } from '@weir/cache'
import { diskBody, diskEntry } from '../disk-entries.ts'

const [directory = ''] = process.argv.slice(2)
const store = diskStore({ directory, maxSize: '256MiB' })
await store.start()

async function put(key: string, size: number): Promise<unknown> {
  try {
    return await store.put(diskEntry(key, `id-${key}-${size}`, size, 0), diskBody(`id-${key}-${size}`, size))
  } catch (error) {
    return DiskStoreError.is(error) ? error.code : String(error)
  }
}

const small = await put('a', 1000)
const replaced = await put('a', 8_000_000)
const found = (await store.find('a')).length
const again = await put('a', 2000)
await store.close()
const files = (await readdir(directory, { recursive: true, withFileTypes: true })).filter((entry) => entry.isFile()).length
console.log(JSON.stringify({ small, replaced, found, again, files }))
