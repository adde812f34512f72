/** Upstreams on Unix sockets, and a proxy that listens on one. */
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { createServer, request } from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createProxy } from '@weir/core'

const folder = mkdtempSync(join(tmpdir(), 'weir-'))
const appSocket = join(folder, 'app.sock')
const frontSocket = join(folder, 'front.sock')

const app = createServer((req, res) => res.end(`app got ${req.url}, host ${req.headers.host}, for ${req.headers['x-forwarded-for']}`))
await once(app.listen(appSocket), 'listening')

const proxy = createProxy({
  upstreams: [{ url: `unix:${appSocket}`, id: 'app' }],
  hostHeader: { fixed: 'app.local' },
})
const server = proxy.attach(createServer())
await once(server.listen(frontSocket), 'listening')

const asked = request({ socketPath: frontSocket, path: '/over/two/sockets', headers: { Host: 'example.com' } }).end()
const [response] = await once(asked, 'response')
let text = ''
for await (const chunk of response) text += chunk
console.log(response.statusCode, text)

server.close()
await proxy.close()
app.close()
rmSync(folder, { recursive: true })
