/** Compression: who gets which coding, what is left alone, a 304 for a weakened tag, an event stream that is not held back. */
import { subscribe } from 'node:diagnostics_channel'
import { createServer, get } from 'node:http'
import type { AddressInfo } from 'node:net'
import { createGunzip, gzipSync } from 'node:zlib'
import { type CompressDecision, compress, decompress } from '@weir/compress'
import { createProxy, type InjectedRequest } from '@weir/core'
import { testUpstream } from '@weir/testing'

const page = '<p>All work and no play makes Jack a dull boy.</p>\n'.repeat(200)
const html = { 'Content-Type': 'text/html', ETag: '"v1"' }

await using site = await testUpstream({
  '/': { headers: html, body: page },
  '/photo': { headers: { 'Content-Type': 'image/jpeg' }, body: page },
  '/packed': { headers: { ...html, 'Content-Encoding': 'gzip' }, body: gzipSync(page) },
  '/events': (_req, res, wire) => {
    res.writeHead(200, { 'Content-Type': 'text/event-stream' })
    const tell = (left: number): void => {
      if (left === 0) res.end()
      else res.write(`data: ${left}\n\n`, () => wire.after(20, () => tell(left - 1)))
    }
    tell(3)
  },
})
subscribe('weir:compress:decision', (message) => {
  const { stage, coding, reason } = message as CompressDecision
  console.log(`  (${stage}: ${reason}${coding === undefined ? '' : ` in ${coding}`})`)
})
const stage = compress()
await using proxy = createProxy({ upstreams: [site.url], use: [stage, decompress()] })

async function ask(title: string, request: InjectedRequest): Promise<void> {
  const { status, headers, body } = await proxy.inject(request)
  console.log(
    `${title}: ${status}, ${body.length} bytes, ${headers.get('content-encoding') ?? 'plain'}, Vary: ${headers.get('vary') ?? '-'}`,
  )
}

await ask('a browser', { headers: { 'Accept-Encoding': 'gzip, deflate, br, zstd' } })
await ask('an older one', { headers: { 'Accept-Encoding': 'gzip, deflate' } })
await ask('a script', {})
await ask('a photo', { url: '/photo', headers: { 'Accept-Encoding': 'gzip' } })
await ask('once more', { headers: { 'Accept-Encoding': 'gzip', 'If-None-Match': 'W/"v1"' } })
await ask('a script asks for what comes packed', { url: '/packed' })

const server = proxy.attach(createServer()).listen(0, '127.0.0.1')
await new Promise((resolve) => server.once('listening', resolve))
const { port } = server.address() as AddressInfo
await new Promise<void>((resolve) => {
  get({ port, path: '/events', agent: false, headers: { 'Accept-Encoding': 'gzip' } }, (res) => {
    const events = res.pipe(createGunzip())
    events.on('data', (event: Buffer) => console.log(`an event, as it came: ${event.toString().trim()}`))
    events.on('end', resolve)
  })
})
server.close()
console.log(stage.stats())
