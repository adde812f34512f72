/**
 * A response hook that takes its time, and an exchange that ends meanwhile: its client leaves, the deadline passes, the hook fails. What other stages have joined to
 * the response is given back, what the hook does later is too late, and an answer that is on its way is not disturbed.
 */
import { PassThrough, Readable } from 'node:stream'
import { type BodyTap, ProxyError, type ProxyResponse, type StageLike } from '@weir/core'
import { rawConnect, rawRequest, rawUpstream } from '@weir/testing'
import { describe, expect, it } from 'vitest'
import { head, switching, upgradeHead } from './messages.ts'
import { type ObservedProxy, startProxy, transports, until } from './observed.ts'
import { gate, okUpstream } from './setup.ts'

const endless = (): Readable => new Readable({ read() {} })

/** What a stage joins to a response, and whether it was given back. */
function belongings() {
  const transform = new PassThrough()
  const body = endless()
  const ends: boolean[] = []
  const tap: BodyTap = { onEnd: (complete) => void ends.push(complete) }
  return { transform, body, ends, tap }
}
type Belongings = ReturnType<typeof belongings>

const joins: readonly (readonly [
  name: string,
  join: (response: ProxyResponse, mine: Belongings) => void,
  givenBack: (mine: Belongings) => boolean,
])[] = [
  ['a transform', (response, { transform }) => response.transform(transform), ({ transform }) => transform.destroyed],
  ['a tap', (response, { tap }) => response.tap(tap), ({ ends }) => ends.length === 1 && ends[0] === false],
  ['a replacement', (response, { body }) => response.replace({ status: 200, body }), ({ body }) => body.destroyed],
]

const sources: readonly (readonly [name: string, use: readonly StageLike[]])[] = [
  ['an upstream’s response', []],
  ['a stage’s reply', [() => ({ status: 200, body: 'mine' })]],
]

const cases = joins.flatMap(([what, join, givenBack]) => sources.map(([of, use]) => [what, of, join, givenBack, use] as const))

describe.each(cases)('%s of %s', (_what, _of, join, givenBack, use) => {
  async function scene(
    hook: (response: ProxyResponse) => Promise<void>,
    options = {},
  ): Promise<{ proxy: ObservedProxy; mine: Belongings }> {
    const upstream = await okUpstream('of the upstream')
    const mine = belongings()
    const proxy = await startProxy({
      upstreams: [upstream.url],
      use: [() => ({ onResponse: hook }), () => ({ onResponse: (response) => join(response, mine) }), ...use],
      ...options,
    })
    const close = proxy[Symbol.asyncDispose]
    return { mine, proxy: { ...proxy, [Symbol.asyncDispose]: () => close().then(() => upstream.close()) } }
  }

  it('is given back when the client leaves', async () => {
    const thinking = gate()
    const asked = gate()
    const { proxy, mine } = await scene(() => {
      asked.open()
      return thinking.opened
    })
    await using _ = proxy
    const client = await rawConnect(proxy.port)
    await client.write(head('GET', '/'))
    await asked.opened
    expect(givenBack(mine)).toBe(false)
    client.reset()
    expect((await proxy.outcome()).reason).toBe('ERR_CLIENT_ABORTED')
    expect(givenBack(mine)).toBe(true)
    thinking.open()
    await new Promise((resolve) => setImmediate(resolve))
    expect(givenBack(mine)).toBe(true)
    expect(proxy.proxy.stats().inflight).toBe(0)
  })

  it('is given back when the hook fails', async () => {
    const { proxy, mine } = await scene(async () => {
      throw new Error('mine')
    })
    await using _ = proxy
    expect((await rawRequest(proxy.port, head('GET', '/'))).status).toBe(500)
    expect((await proxy.outcome()).reason).toBe('ERR_STAGE')
    expect(givenBack(mine)).toBe(true)
  })

  it('is given back when the deadline passes, and so is what the hook joins too late', async () => {
    const thinking = gate()
    const late = belongings()
    const { proxy, mine } = await scene(
      async (response) => {
        await thinking.opened
        join(response, late)
      },
      { timeouts: { total: 100 } },
    )
    await using _ = proxy
    expect((await rawRequest(proxy.port, head('GET', '/'))).status).toBe(504)
    expect((await proxy.outcome()).reason).toBe('ERR_DEADLINE')
    expect(givenBack(mine)).toBe(true)
    thinking.open()
    await until('the late one is given back', () => givenBack(late))
    expect(proxy.proxy.stats().inflight).toBe(0)
  })
})

it.each(sources)('A hook that is done while the answer to a deadline is on its way does not disturb it: %s', async (_of, use) => {
  const thinking = gate()
  await using upstream = await okUpstream('of the upstream')
  const long = 'x'.repeat(8_000_000)
  await using proxy = await startProxy({
    upstreams: [upstream.url],
    timeouts: { total: 100 },
    use: [() => ({ onError: () => ({ status: 504, body: long }) }), () => ({ onResponse: () => thinking.opened }), ...use],
  })
  await using client = await rawConnect(proxy.port)
  client.pause()
  await client.write(head('GET', '/'))
  await until('the answer waits for its client', () => proxy.proxy.stats().inflight === 1)
  await new Promise((resolve) => setTimeout(resolve, 200))
  expect(proxy.proxy.stats().inflight).toBe(1)
  thinking.open()
  await new Promise((resolve) => setImmediate(resolve))
  client.resume()
  const answer = await client.readResponse()
  expect([answer.status, answer.text().length]).toEqual([504, long.length])
  expect((await proxy.outcome()).reason).toBe('ERR_DEADLINE')
  expect(client.unread).toHaveLength(0)
})

it('A second replacement gives the first one’s body back', async () => {
  await using upstream = await okUpstream()
  const first = endless()
  await using proxy = await startProxy({
    upstreams: [upstream.url],
    use: [
      () => ({ onResponse: (response) => response.replace({ status: 200, body: 'second' }) }),
      () => ({ onResponse: (response) => response.replace({ status: 200, body: first }) }),
    ],
  })
  expect((await rawRequest(proxy.port, head('GET', '/'))).text()).toBe('second')
  expect(first.destroyed).toBe(true)
})

it.each(transports)('A hook that is done with a 101 of an exchange that has failed opens no tunnel: %s', async (_name, transport) => {
  const thinking = gate()
  await using upstream = await rawUpstream(async (connection) => {
    await connection.readRequest()
    await connection.send(switching())
    await connection.stall()
  })
  // What answers takes its time, too: the hook is done in between.
  const answering = gate()
  const late: StageLike = () => ({
    onResponse: () => thinking.opened,
    onError: async () => {
      await answering.opened
      return undefined
    },
  })
  const failing: StageLike = (exchange) => {
    setTimeout(() => exchange.fail(new ProxyError('ERR_STAGE', { message: 'mine' })), 50)
  }
  await using proxy = await startProxy({ upstreams: [upstream.url], use: [late, failing] }, { transport })
  await using client = await rawConnect(proxy.port)
  await client.write(upgradeHead())
  await until('it has failed, and the upstream is free', () => upstream.connections.length === 1 && upstream.open === 0)
  thinking.open()
  await new Promise((resolve) => setImmediate(resolve))
  answering.open()
  expect((await client.readResponse()).status).toBe(500)
  expect((await proxy.outcome()).reason).toBe('ERR_STAGE')
  expect(proxy.proxy.stats()).toMatchObject({ inflight: 0, tunnels: 0 })
})
