/** Session ids in URLs: where one is, and where one only seems to be; and the stages that go by it. */
import { createPool, createProxy, type StageLike } from '@weir/core'
import { fakeTransport } from '@weir/testing'
import { describe, expect, it, onTestFinished } from 'vitest'
import { applicationCookie, keyAffinity, learnSession } from './index.ts'
import { urlParameter } from './url-parameter.ts'

describe('urlParameter', () => {
  it.each([
    ['/cart;sid=4711', '4711'],
    ['/cart;sid=4711?x=1', '4711'],
    ['/a;v=1;sid=4711/b', '4711'],
    ['/a;sid=1/b;sid=2?sid=3', '1'],
    ['/a;sid=1;v=2', '1'],
    ['/a;xsid=1;sid=2', '2'],
    ['/a;sid/b;sid=2', '2'],
    ['/?sid=4711', '4711'],
    ['/?x=1&sid=4711&sid=4712', '4711'],
    ['/?sid=a%2Fb%3D', 'a/b='],
    ['/?sid=a%zz', 'a%zz'],
    ['/?sid=a=b', 'a=b'],
    ['/?sid=', ''],
    ['/;sid=', ''],
    ['/sid=4711', undefined],
    ['/sid=4711;x=1', undefined],
    ['/?xsid=4711', undefined],
    ['/?sid', undefined],
    ['/?sidx=4711', undefined],
    ['/?SID=4711', undefined],
    ['/?x=;sid=4711', undefined],
    ['/?x=1#sid=4711', undefined],
    ['*', undefined],
  ])('%s: %j', (url, expected) => {
    expect(urlParameter({ url }, 'sid')).toBe(expected)
  })
})

function rig(stage: StageLike) {
  const transport = fakeTransport(({ headers }, upstream) => ({
    headers: { 'X-Upstream': upstream.id, ...(headers.has('x-begin') ? { 'Set-Cookie': `SID=of-${upstream.id}` } : {}) },
  }))
  const pool = createPool({ upstreams: ['a', 'b', 'c', 'd'].map((id) => ({ id, url: `http://${id}.test` })), transport, health: [] })
  const proxy = createProxy({ pool, use: [stage] })
  onTestFinished(() => proxy.close())
  const get = async (url: string, headers: Record<string, string> = {}): Promise<string> =>
    (await proxy.inject({ url, headers: { Host: 'localhost', ...headers } })).headers.get('x-upstream') as string
  const spread = async (url: string, headers?: Record<string, string>): Promise<string> => {
    const answered = new Set<string>()
    for (let i = 0; i < 4; i++) answered.add(await get(url, headers))
    return [...answered].toSorted().join('')
  }
  return { get, spread, transport }
}

describe('a stage', () => {
  it('applicationCookie goes by the URL before it goes by the cookie, and leaves the URL alone', async () => {
    const { spread, transport } = rig(applicationCookie({ parameter: 'jsessionid' }))
    expect(await spread('/x;jsessionid=4711.b', { Cookie: 'JSESSIONID=4711.a' })).toBe('b')
    expect(await spread('/x?jsessionid=4711.c')).toBe('c')
    expect(await spread('/x', { Cookie: 'JSESSIONID=4711.a' })).toBe('a')
    expect(await spread('/x;jsessionid=4711.nobody', { Cookie: 'JSESSIONID=4711.a' })).toBe('a')
    expect(await spread('/x;jsessionid=4711.nobody')).toBe('abcd')
    expect(transport.requests[0]?.path).toBe('/x;jsessionid=4711.b')
    // Nobody asked for it.
    expect(await rig(applicationCookie()).spread('/x;jsessionid=4711.b')).toBe('abcd')
  })

  it('learnSession finds a session that it learned from a cookie in the URL', async () => {
    const { get, spread } = rig(learnSession({ cookie: 'SID', parameter: 'sid' }))
    const upstream = await get('/', { 'X-Begin': '1' })
    expect(await spread(`/?sid=of-${upstream}`)).toBe(upstream)
    expect(await spread('/', { Cookie: `SID=of-${upstream}` })).toBe(upstream)
    expect(await spread('/?sid=of-nobody')).toBe('abcd')
    // An invented one does not hide the session that the client has.
    expect(await spread('/?sid=of-nobody', { Cookie: `SID=of-${upstream}` })).toBe(upstream)
  })

  it('keyAffinity keeps the requests of one parameter together', async () => {
    const { get, spread } = rig(keyAffinity({ key: { parameter: 'room' } }))
    const upstream = await get('/play?room=7')
    expect(await spread('/play?x=1&room=7')).toBe(upstream)
    expect(await spread('/play')).toBe('abcd')
    expect(await spread('/play?room=')).toBe('abcd')
  })
})
