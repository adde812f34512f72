/** A node whose Zstandard takes no dictionary, and says nothing when it is given one: before 22.19 and 24.6. */
import { stageRunner } from '@weir/testing'
import { expect, it, vi } from 'vitest'

vi.mock('node:zlib', async (original) => {
  const zlib = await original<typeof import('node:zlib')>()
  return {
    ...zlib,
    zstdCompressSync: (data: Buffer, options?: import('node:zlib').ZstdOptions) =>
      zlib.zstdCompressSync(data, { ...options, dictionary: undefined } as never),
  }
})
const { compress, compressionDictionaries } = await import('./index.ts')

it('nothing is offered, kept or used, and all else goes on', async () => {
  const dictionaries = compressionDictionaries({ offers: [{ match: '/*' }] })
  expect(dictionaries.supported).toBe(false)
  const text = 'All work and no play makes Jack a dull boy.\n'.repeat(100)
  const hash = dictionaries.add(Buffer.from(text), '/*')
  await using runner = stageRunner([dictionaries, compress({ overload: false, dictionaries })], {
    response: { headers: { 'Content-Type': 'text/plain' }, body: text },
  })
  const { response, upstreamRequests } = await runner.send({
    headers: { 'Accept-Encoding': 'zstd, dcz', 'Available-Dictionary': `:${hash}:` },
  })
  expect([response.headers.get('content-encoding'), response.headers.get('vary')]).toEqual(['zstd', 'Accept-Encoding'])
  expect(response.headers.has('use-as-dictionary')).toBe(false)
  expect(upstreamRequests[0]?.headers.has('available-dictionary')).toBe(false)
})
