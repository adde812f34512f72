/** Access control: who may come in, what may come in, and what goes out, on a proxy for an admin page, an API and the rest of the site. */
import { subscribe } from 'node:diagnostics_channel'
import {
  type AccessDecision,
  apiKeys,
  basicAuth,
  hashApiKey,
  hashPassword,
  headerHygiene,
  hideIdentity,
  ipAccess,
  requestFilter,
  securityHeaders,
  sizeLimits,
} from '@weir/access'
import { createProxy, type InjectedRequest } from '@weir/core'
import { testUpstream } from '@weir/testing'

await using site = await testUpstream({ '*': { headers: { Server: 'secret/1.2.3' }, body: 'page\n' } })

subscribe('weir:access:decision', (message) => {
  const { stage, verdict, reason } = message as AccessDecision
  console.log(`  (${stage}: ${verdict}, ${reason})`)
})
// Of the rules below, that for scanners is on trial: it tells, and lets everything pass.
const offices = ipAccess({ rules: [{ deny: '10.1.13.0/24', name: 'guests' }, { allow: '10.1.0.0/16' }] })
const pool = { upstreams: [site.url] }

await using proxy = createProxy({
  use: [
    hideIdentity(),
    securityHeaders(),
    headerHygiene({ internal: ['X-Internal-*'] }),
    sizeLimits({ url: 200, body: '64KiB' }),
    requestFilter({
      rules: [
        { name: 'secrets', match: { path: ['/.git/*', '/.env'] }, action: 'deny', status: 404 },
        { name: 'scanners', match: { header: { 'User-Agent': /sqlmap|nikto/i } }, action: 'deny', dryRun: true },
      ],
    }),
  ],
  routes: [
    { match: { path: '/admin' }, use: [offices, basicAuth({ users: { ada: await hashPassword('lovelace') } })], pool },
    { match: { path: '/api' }, use: [apiKeys({ keys: [{ name: 'billing', hash: hashApiKey('k-123') }], nameHeader: 'X-Client' })], pool },
    { pool },
  ],
})
async function ask(title: string, request: InjectedRequest): Promise<void> {
  const { status, headers } = await proxy.inject(request)
  console.log(`${title}: ${status}, ${headers.get('server') ?? 'nobody says who made it'}`)
}

const Authorization = `Basic ${Buffer.from('ada:lovelace').toString('base64')}`
await ask('a page', { url: '/' })
await ask('a repository, in disguise', { url: '/x/..%2f.git/config' })
await ask('a scanner', { url: '/', headers: { 'User-Agent': 'sqlmap/1.8' } })
await ask('the admin page from outside', { url: '/admin', remoteAddress: '192.0.2.1' })
await ask('from the office, with a password', { url: '/admin', remoteAddress: '10.1.2.3', headers: { Authorization } })
await ask('the API with a key', { url: '/api', headers: { 'X-API-Key': 'k-123' } })
