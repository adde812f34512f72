/** Upstreams from a JSON file that is watched: the pool follows it, and a file with a mistake in it changes nothing. */
import { subscribe } from 'node:diagnostics_channel'
import { mkdtemp, rename, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createProxy } from '@weir/core'
import { fileSource } from '@weir/discovery'
import { testUpstream } from '@weir/testing'

await using a = await testUpstream({ '*': 'a' })
await using b = await testUpstream({ '*': 'b' })
const folder = await mkdtemp(join(tmpdir(), 'weir-'))
const file = join(folder, 'upstreams.json')

/** Replaced as a whole, as editors and deployment tools do it. */
async function write(content: unknown): Promise<void> {
  await writeFile(`${file}.new`, typeof content === 'string' ? content : JSON.stringify(content))
  await rename(`${file}.new`, file)
}

let applied = (): void => {}
let refused = (): void => {}
subscribe('weir:pool:source', () => applied())
await write([a.url])
{
  const source = fileSource(file, {
    debounce: 20,
    onError: (error) => {
      console.log(`the file is not used: ${error.code}`)
      refused()
    },
  })
  await using proxy = createProxy({ upstreams: source })
  const ask = async (): Promise<string> => (await proxy.inject({ url: '/' })).text()
  console.log('one server in the file:', await ask())

  const wrong = new Promise<void>((resolve) => (refused = resolve))
  await write([{ url: a.url, weight: 'heavy' }])
  await wrong
  console.log('still served by:', await ask())

  const changed = new Promise<void>((resolve) => (applied = resolve))
  await write([b.url])
  await changed
  console.log('another server in the file:', await ask())
}
await rm(folder, { recursive: true })
