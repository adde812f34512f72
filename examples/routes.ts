/** Several services behind one proxy, told apart by host, path, method, header, or a function. The first route that matches wins. */
import { createPool, createProxy } from '@weir/core'
import { testUpstream } from '@weir/testing'

const service = (name: string) => testUpstream((req, res) => void res.end(`${name}: ${req.method} ${req.url}`))
await using web = await service('web')
await using api = await service('api')
await using uploads = await service('uploads')
await using canary = await service('canary')

// A pool that two routes share: one set of connections, one health history.
const apiPool = createPool({ name: 'api', upstreams: [api.url] })

await using proxy = createProxy({
  routes: [
    { name: 'canary', match: { header: { 'x-canary': 'yes' } }, pool: { upstreams: [canary.url] } },
    { name: 'api-host', match: { host: 'api.example.com' }, pool: apiPool },
    { name: 'uploads', match: { path: '/files', method: ['PUT', 'POST'] }, pool: { upstreams: [uploads.url] }, maxBodySize: '1GiB' },
    { name: 'api-path', match: { path: '/api' }, stripPrefix: true, addPrefix: '/v2', pool: apiPool },
    { name: 'old', match: (exchange) => exchange.url.endsWith('.php'), rewrite: () => '/moved', pool: apiPool },
  ],
  upstreams: [web.url], // whatever no route takes
})

// `inject` sends a request through the whole proxy without a listening socket.
const ask = async (method: string, url: string, headers: Record<string, string> = {}): Promise<void> => {
  const response = await proxy.inject({ method, url, headers })
  console.log(`${method} ${headers.host ?? ''}${url}`.padEnd(32), '->', response.text())
}
await ask('GET', '/')
await ask('GET', '/api/users?page=2')
await ask('GET', '/apix')
await ask('GET', '/users', { host: 'API.example.com:443' })
await ask('PUT', '/files/1')
await ask('GET', '/files/1')
await ask('GET', '/index.php')
await ask('GET', '/', { 'x-canary': 'yes' })

// Whoever makes a pool closes it.
await proxy.close()
await apiPool.close()
