/** Readiness of a real proxy, over HTTP. */
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { createPool, createProxy, type HealthControl, type HealthPolicy } from '@weir/core'
import { fakeTransport } from '@weir/testing'
import { describe, expect, it } from 'vitest'
import { type ReadyOptions, type ReadyReport, readyHandler } from './ready-handler.ts'

async function rig(options?: ReadyOptions) {
  const controls = new Map<string, HealthControl>()
  const judges = new Map<string, HealthPolicy>()
  const make = (name: string, count: number) => {
    const judge: HealthPolicy = { name: 'judge', attach: (control) => void controls.set(name, control) }
    judges.set(name, judge)
    return createPool({
      name,
      upstreams: Array.from({ length: count }, (_, i) => `http://${name}-${i}.test`),
      health: [judge],
      transport: fakeTransport(),
    })
  }
  const pools = [make('web', 4), make('api', 2)] as const
  const proxy = createProxy({ routes: [{ match: { path: '/api' }, pool: pools[1] }, { pool: pools[0] }] })
  const server = createServer(readyHandler(proxy, options))
  await new Promise<void>((resolve) => void server.listen(0, '127.0.0.1', resolve))
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/ready`
  return {
    proxy,
    pools,
    url,
    async get(): Promise<[number, ReadyReport]> {
      const response = await fetch(url)
      return [response.status, (await response.json()) as ReadyReport]
    },
    down(name: string, count: number) {
      const control = controls.get(name) as HealthControl
      for (const upstream of control.upstreams.slice(0, count)) control.setDown(upstream, judges.get(name) as HealthPolicy, 'test')
    },
    async [Symbol.asyncDispose]() {
      server.closeAllConnections()
      await new Promise((resolve) => void server.close(resolve))
      await proxy.close()
      for (const pool of pools) await pool.close()
    },
  }
}

describe('ready', () => {
  it('while every pool has somebody up; the answer names numbers and no addresses', async () => {
    await using r = await rig()
    r.down('web', 3)
    const [status, report] = await r.get()
    expect(status).toBe(200)
    expect(report.status).toBe('ready')
    expect(report.pools.toSorted((a, b) => (a.name < b.name ? -1 : 1))).toEqual([
      { name: 'api', up: 2, of: 2, ready: true },
      { name: 'web', up: 1, of: 4, ready: true },
    ])
    r.down('api', 2)
    const [after, failing] = await r.get()
    expect([after, failing.status]).toEqual([503, 'unavailable'])
    expect(JSON.stringify(failing)).not.toContain('.test')
  })

  it('by number and by share; draining upstreams count for neither side', async () => {
    await using number = await rig({ minUp: 2 })
    number.down('web', 2)
    expect((await number.get())[0]).toBe(200)
    number.down('web', 3)
    expect((await number.get())[0]).toBe(503)
    await using share = await rig({ minUp: '50%' })
    share.down('web', 2)
    expect((await share.get())[0]).toBe(200)
    share.down('web', 3)
    expect((await share.get())[0]).toBe(503)
    await using three = await rig({ minUp: '60%', pools: ['web'] })
    three.down('web', 1)
    expect((await three.get())[0]).toBe(200)
    three.down('web', 2)
    expect((await three.get())[0]).toBe(503)
    await using drained = await rig({ minUp: '100%' })
    await drained.pools[0].drain('http://web-0.test')
    expect((await drained.get())[0]).toBe(200)
  })

  it('by those who get traffic: weight 0 counts for neither side', async () => {
    await using r = await rig({ minUp: '50%', pools: ['web'] })
    const [web] = r.pools
    for (const i of [0, 1]) web.setWeight(`http://web-${i}.test`, 0)
    expect((await r.get())[1].pools).toEqual([{ name: 'web', up: 2, of: 2, ready: true }])
    // Down or not: who gets nothing is missed by nobody.
    r.down('web', 3)
    expect((await r.get())[1].pools).toEqual([{ name: 'web', up: 1, of: 2, ready: true }])
    web.setWeight('http://web-3.test', 0)
    const [status, report] = await r.get()
    expect([status, report.pools]).toEqual([503, [{ name: 'web', up: 0, of: 1, ready: false }]])
    web.setWeight('http://web-2.test', 0)
    expect(await r.get()).toEqual([503, { status: 'unavailable', pools: [{ name: 'web', up: 0, of: 0, ready: false }] }])
  })

  it('when only affinity leads there, it is not', async () => {
    await using r = await rig({ pools: ['api'] })
    for (const { id } of r.pools[1].upstreams) r.pools[1].setWeight(id, 0)
    expect((await r.get())[0]).toBe(503)
    r.pools[1].setWeight('http://api-1.test', 1)
    expect((await r.get())[0]).toBe(200)
    void r.pools[1].drain('http://api-1.test')
    expect((await r.get())[0]).toBe(503)
  })

  it('by some pools only', async () => {
    await using r = await rig({ pools: ['web'] })
    r.down('api', 2)
    expect((await r.get())[0]).toBe(200)
    r.down('web', 4)
    expect((await r.get())[0]).toBe(503)
  })

  it('not for a pool without anybody', async () => {
    await using r = await rig({ minUp: '50%' })
    for (const { id } of [...r.pools[1].upstreams]) await r.pools[1].remove(id)
    expect((await r.get())[0]).toBe(503)
  })

  it('not while draining', async () => {
    await using r = await rig()
    await r.proxy.close()
    const [status, report] = await r.get()
    expect([status, report.status]).toEqual([503, 'draining'])
  })
})

it('HEAD has no body, other methods are refused, nothing is cached', async () => {
  await using r = await rig()
  const head = await fetch(r.url, { method: 'HEAD' })
  expect([head.status, await head.text()]).toEqual([200, ''])
  expect(head.headers.get('cache-control')).toBe('no-store')
  const post = await fetch(r.url, { method: 'POST' })
  expect([post.status, post.headers.get('allow')]).toEqual([405, 'GET, HEAD'])
})

it('wrong options are named', async () => {
  const proxy = createProxy({ upstreams: ['http://a.test'] })
  for (const minUp of [0, 1.5, '0%', '101%', 'half'])
    expect(() => readyHandler(proxy, { minUp } as ReadyOptions), String(minUp)).toThrow('minUp')
  expect(() => readyHandler(proxy, { pools: ['nobody'] })).toThrow('pools')
  expect(() => readyHandler(proxy, { pools: [] })).toThrow('pools')
  expect(() => readyHandler({} as never)).toThrow('createProxy')
  await proxy.close()
})
