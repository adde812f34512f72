/** A node whose zlib has no Zstandard: before 22.15 and 23.8, or built without. */
import { runStage } from '@weir/testing'
import { describe, expect, it, vi } from 'vitest'

vi.mock('node:zlib', async (original) => ({
  ...(await original<typeof import('node:zlib')>()),
  createZstdCompress: undefined,
  createZstdDecompress: undefined,
}))
const { compress, decompress, decompressRequests } = await import('./index.ts')

const text = 'All work and no play makes Jack a dull boy.\n'.repeat(100)

describe('without Zstandard', () => {
  it('the next best coding is used, or none', async () => {
    const coding = async (accept: string, codings?: readonly ['zstd']): Promise<string | undefined> => {
      const { response } = await runStage(compress({ overload: false, ...(codings && { codings }) }), {
        request: { headers: { 'Accept-Encoding': accept } },
        response: { headers: { 'Content-Type': 'text/plain' }, body: text },
      })
      return response.headers.get('content-encoding')
    }
    expect(await coding('zstd, br, gzip')).toBe('br')
    expect(await coding('zstd')).toBeUndefined()
    expect(await coding('zstd, gzip', ['zstd'])).toBeUndefined()
  })

  it('what comes in it passes as it is', async () => {
    const headers = { 'Content-Encoding': 'zstd' }
    const { response } = await runStage(decompress(), { response: { headers, body: 'not looked at' } })
    expect([response.headers.get('content-encoding'), response.text()]).toEqual(['zstd', 'not looked at'])
  })

  it('a request in it passes, or is told what else there is', async () => {
    const request = { method: 'POST', url: '/', headers: { 'Content-Encoding': 'zstd' }, body: 'not looked at' }
    const { upstreamRequests } = await runStage(decompressRequests(), { request })
    expect(upstreamRequests.map(({ body }) => body.toString())).toEqual(['not looked at'])
    const { response } = await runStage(decompressRequests({ unsupported: 'refuse' }), { request })
    expect([response.status, response.headers.get('accept-encoding')]).toEqual([415, 'br, gzip, deflate'])
  })
})
