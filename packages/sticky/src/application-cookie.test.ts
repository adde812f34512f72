/** The route that an application server puts behind its session id. */
import { createPool, createProxy, type InjectedResponse } from '@weir/core'
import { fakeTransport } from '@weir/testing'
import { describe, expect, it, onTestFinished } from 'vitest'
import { type ApplicationCookieOptions, applicationCookie } from './application-cookie.ts'

function rig(options?: ApplicationCookieOptions) {
  const transport = fakeTransport((_, upstream) => ({ headers: { 'X-Upstream': upstream.id } }))
  const pool = createPool({
    upstreams: [
      { id: 'a', url: 'http://a.test', meta: { route: 'node1' } },
      { id: 'b', url: 'http://b.test', meta: { route: 'node2' } },
      { id: 'node3', url: 'http://c.test' },
    ],
    transport,
    health: [],
  })
  const stage = applicationCookie(options)
  const proxy = createProxy({ pool, use: [stage] })
  onTestFinished(() => proxy.close())
  const get = (cookie: string): Promise<InjectedResponse> => proxy.inject({ url: '/', headers: { Host: 'localhost', Cookie: cookie } })
  const spread = async (cookie: string): Promise<string[]> => {
    const answered = new Set<string>()
    for (let i = 0; i < 3; i++) answered.add((await get(cookie)).headers.get('x-upstream') as string)
    return [...answered].toSorted()
  }
  return { pool, stage, get, spread, transport }
}

const all = ['a', 'b', 'node3']

describe('applicationCookie', () => {
  it.each([
    ['JSESSIONID=4711.node1', ['a']],
    ['x=1; JSESSIONID="4711.node2"', ['b']],
    ['JSESSIONID=4711.with.dots.node3', ['node3']],
    ['JSESSIONID=4711.unknown; JSESSIONID=4712.node1', ['a']],
    ['JSESSIONID=4711', all],
    ['JSESSIONID=4711.', all],
    ['JSESSIONID=4711.node9', all],
    ['JSESSIONID=4711.http://169.254.169.254', all],
    ['jsessionid=4711.node1', all],
    ['other=4711.node1', all],
  ])('%s goes to %j', async (cookie, expected) => {
    expect(await rig().spread(cookie)).toEqual(expected)
  })

  it('takes another cookie, separator and table', async () => {
    const made = rig({ cookie: 'SID', separator: '!!', routes: { x: 'b' } })
    expect(await made.spread('SID=1!!x')).toEqual(['b'])
    expect(await made.spread('SID=1!!node1')).toEqual(all)
    expect(await made.spread('SID=1!!toString')).toEqual(all)
  })

  it('sets no cookie and leaves the request as it was', async () => {
    const made = rig()
    const response = await made.get('JSESSIONID=4711.node1')
    expect(response.headers.has('set-cookie')).toBe(false)
    expect(made.transport.requests[0]?.headers.get('cookie')).toBe('JSESSIONID=4711.node1')
  })

  it('stays on an upstream that drains; goes elsewhere when it has left, or is refused where strict', async () => {
    const made = rig()
    void made.pool.drain('a')
    expect(await made.spread('JSESSIONID=1.node1')).toEqual(['a'])
    await made.pool.remove('a')
    expect((await made.spread('JSESSIONID=1.node1')).includes('a')).toBe(false)
    expect(made.stage.stats()).toMatchObject({ pinned: 3, rejected: 3 })
    const strict = rig({ strict: true, routes: { gone: 'z' } })
    expect((await strict.get('JSESSIONID=1.gone')).status).toBe(503)
    for (const route of ['toString', '__proto__', 'constructor']) expect((await strict.get(`JSESSIONID=1.${route}`)).status).toBe(200)
  })
})
