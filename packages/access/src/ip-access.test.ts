/** Who comes in by address, and lists that change while the proxy runs. */
import { mkdtempSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createProxy, type Exchange, OptionsError } from '@weir/core'
import { fakeTransport, runStage, stageRunner, virtualClock } from '@weir/testing'
import { describe, expect, it, onTestFinished } from 'vitest'
import type { AccessDecision, AccessListChange } from './events.ts'
import { heard } from './fixtures/heard.ts'
import { type IpAccessOptions, ipAccess } from './ip-access.ts'
import type { IpRule } from './ip-rules.ts'

async function statuses(options: IpAccessOptions, ...addresses: readonly string[]): Promise<number[]> {
  await using runner = stageRunner(ipAccess(options))
  const found: number[] = []
  for (const remoteAddress of addresses) found.push((await runner.send({ remoteAddress })).response.status)
  return found
}

/** Until `look` holds; files are read by the system, whose time no virtual clock moves. */
async function until(look: () => boolean): Promise<void> {
  for (const end = performance.now() + 5000; !look(); ) {
    if (performance.now() > end) throw new Error('not within 5 s')
    await new Promise((resolve) => setImmediate(resolve))
  }
}

function ruleFile(text: string): string {
  const folder = mkdtempSync(join(tmpdir(), 'weir-access-'))
  onTestFinished(() => rmSync(folder, { recursive: true }))
  const path = join(folder, 'addresses')
  writeFileSync(path, text)
  return path
}

describe('rules', () => {
  it('are read from the top, and the first that matches decides', async () => {
    const rules: IpRule[] = [{ deny: '10.1.2.3' }, { allow: ['10.1.0.0/16', 'fd00::/8'] }, { deny: '10.0.0.0/8' }, { allow: 'all' }]
    expect(await statuses({ rules }, '10.1.2.3', '10.1.2.4', '10.2.0.1', '192.0.2.1', 'fd00::1')).toEqual([403, 200, 403, 200, 200])
    expect(await statuses({ rules: rules.toReversed() }, '10.1.2.3', '10.2.0.1')).toEqual([200, 200])
  })

  it('hold for IPv4 however it is written', async () => {
    const denied = ['::ffff:10.1.2.3', '::FFFF:a01:203', '0:0:0:0:0:ffff:a01:203', '10.1.2.3']
    expect(await statuses({ deny: '10.1.2.3' }, ...denied)).toEqual([403, 403, 403, 403])
    expect(await statuses({ deny: '::ffff:10.1.2.0/120' }, ...denied)).toEqual([403, 403, 403, 403])
  })

  it('in short: what is denied, then what is allowed, and the rest by which of the two was given', async () => {
    expect(await statuses({ allow: ['10.0.0.0/8'], deny: '10.1.0.0/16' }, '10.1.0.1', '10.2.0.1', '192.0.2.1')).toEqual([403, 200, 403])
    expect(await statuses({ deny: 'private' }, '10.1.0.1', '100.64.0.1', '192.0.2.1')).toEqual([403, 403, 200])
    expect(await statuses({ allow: 'loopback', default: 'allow' }, '192.0.2.1')).toEqual([200])
    expect(await statuses({ rules: [] }, '192.0.2.1')).toEqual([403])
    expect(await statuses({ rules: [], default: 'allow' }, '192.0.2.1')).toEqual([200])
  })

  it('for a client without an address are those for all, and the default', async () => {
    expect(await statuses({ rules: [{ deny: '10.0.0.0/8' }, { allow: 'all' }] }, '')).toEqual([200])
    expect(await statuses({ rules: [{ deny: 'all' }], default: 'allow' }, '')).toEqual([403])
    expect(await statuses({ rules: [{ deny: ['0.0.0.0/0', '::/0'] }], default: 'allow' }, '')).toEqual([200])
    expect(await statuses({ allow: 'loopback' }, '')).toEqual([403])
  })

  it('look at the client behind a trusted proxy, and at the peer otherwise', async () => {
    const request = { remoteAddress: '10.0.0.1', headers: { 'X-Forwarded-For': '192.0.2.7' } }
    const stage = (): ReturnType<typeof ipAccess> => ipAccess({ allow: '192.0.2.0/24' })
    const trusted = await runStage(stage(), { request, proxy: { trustedProxies: ['10.0.0.0/8'] } })
    const forged = await runStage(stage(), { request })
    expect([trusted.response.status, forged.response.status]).toEqual([200, 403])
  })
})

describe('a refusal', () => {
  it('says nothing of the inside, reaches no upstream, and no cache keeps it', async () => {
    const { response, upstreamRequests } = await runStage(ipAccess({ deny: 'all', status: 404 }))
    expect(response.status).toBe(404)
    expect(response.text()).toBe('404 Not Found\n')
    expect(response.headers.get('cache-control')).toBe('no-store')
    expect(upstreamRequests).toEqual([])
  })

  it('is counted and told with the rule that made it; on a dry run the request passes', async () => {
    const told = heard<AccessDecision>('weir:access:decision')
    const rules: IpRule[] = [{ deny: '10.0.0.0/8', name: 'ours' }, { allow: '192.0.2.0/24' }]
    for (const dryRun of [false, true]) {
      const stage = ipAccess({ rules, dryRun, name: 'edge' })
      await using runner = stageRunner(stage)
      const seen: number[] = []
      for (const remoteAddress of ['10.0.0.1', '192.0.2.1', '198.51.100.1'])
        seen.push((await runner.send({ remoteAddress })).response.status)
      expect(seen).toEqual(dryRun ? [200, 200, 200] : [403, 200, 403])
      expect(stage.stats()).toEqual({
        allowed: 1,
        refused: dryRun ? 0 : 2,
        dry: dryRun ? 2 : 0,
        ranges: 2,
        rules: [
          { name: 'ours', action: 'deny', matched: 1 },
          { name: 'rule 2', action: 'allow', matched: 1 },
        ],
        replaced: 0,
        failed: 0,
      })
    }
    expect(told.map(({ stage, verdict, status, reason }) => [stage, verdict, status, reason])).toEqual([
      ['edge', 'refused', 403, 'ours'],
      ['edge', 'refused', 403, 'default'],
      ['edge', 'dry', 403, 'ours'],
      ['edge', 'dry', 403, 'default'],
    ])
  })
})

describe('another list', () => {
  it('holds from the next request on', async () => {
    const told = heard<AccessListChange>('weir:access:list')
    const stage = ipAccess({ deny: '10.0.0.0/8' })
    await using runner = stageRunner(stage)
    const ask = async (): Promise<number> => (await runner.send({ remoteAddress: '10.0.0.1' })).response.status
    expect(await ask()).toBe(403)
    stage.replace([{ allow: 'all' }])
    expect(await ask()).toBe(200)
    expect(stage.stats()).toMatchObject({ replaced: 1, rules: [{ name: 'rule 1', matched: 1 }] })
    expect(told).toEqual([{ stage: 'ipAccess', ranges: 2, error: undefined }])
  })

  it('that is wrong changes nothing, and every mistake is named', async () => {
    const stage = ipAccess({ deny: '10.0.0.0/8' })
    await using runner = stageRunner(stage)
    let error: unknown
    try {
      stage.replace([{ allow: 'all' }, { deny: ['x', '10.0.0.0/8', '10.0.0.1/8'] }, {} as IpRule])
    } catch (thrown) {
      error = thrown
    }
    expect((error as OptionsError).problems.map(({ path }) => path)).toEqual(['rules[1].deny[0]', 'rules[1].deny[2]', 'rules[2]'])
    expect((await runner.send({ remoteAddress: '10.0.0.1' })).response.status).toBe(403)
    expect(stage.stats()).toMatchObject({ replaced: 0, ranges: 1 })
  })
})

describe('a list in a file', () => {
  it('is read at the start, when its folder changes, and at every interval; one that is wrong leaves the last', async () => {
    const told = heard<AccessListChange>('weir:access:list')
    const path = ruleFile('# ours\nallow 10.0.0.0/8 # all of it\n\ndeny all\n')
    const clock = virtualClock()
    const stage = ipAccess({ rules: `file:${path}`, refresh: '1m', clock })
    await using runner = stageRunner(stage)
    const ask = async (remoteAddress: string): Promise<number> => (await runner.send({ remoteAddress })).response.status
    expect([await ask('10.0.0.1'), await ask('192.0.2.1')]).toEqual([200, 403])
    expect(stage.stats().rules.map(({ name, matched }) => [name, matched])).toEqual([
      ['line 2', 1],
      ['line 4', 1],
    ])

    // Looked at, and the same: that is no other list.
    for (let i = 0; i < 3; i++) await clock.advance(60_000)

    // Another file in its place, as editors and deployments do.
    writeFileSync(`${path}.new`, 'deny 10.0.0.1\nallow 10.0.0.0/8\n')
    renameSync(`${path}.new`, path)
    await until(() => stage.stats().replaced === 1)
    expect([await ask('10.0.0.1'), await ask('10.0.0.2')]).toEqual([403, 200])

    writeFileSync(path, 'allow 10.0.0.0/8\nallow everybody\ndeny\n')
    // Before it is written it is empty: that may be told, too.
    const wrongLines = (): string[] =>
      told.flatMap(({ error }) => (OptionsError.is(error) ? error.problems.map((problem) => problem.path) : []))
    await until(() => wrongLines().includes('line 3'))
    expect(wrongLines()).toContain('line 2')
    expect([await ask('10.0.0.1'), await ask('10.0.0.2')]).toEqual([403, 200])
    expect(stage.stats().replaced).toBe(1)
  })

  it('is the last one written, also when it changes while it is read', async () => {
    const path = ruleFile('deny all')
    const clock = virtualClock()
    const stage = ipAccess({ rules: `file:${path}`, clock })
    await using runner = stageRunner(stage)
    await runner.send()
    // Large enough to be still on its way when the next one is written.
    const padding = `# ${'x'.repeat(8_000_000)}`
    for (const last of [1, 2, 3, 200]) {
      writeFileSync(path, `allow 10.0.0.${last}\n${padding}`)
      for (let turns = 0; turns < 4; turns++) await new Promise((resolve) => setImmediate(resolve))
    }
    const { handle } = stage
    await until(() => stage.stats().rules[0]?.action === 'allow' && handle({ clientIp: '10.0.0.200' } as Exchange) === undefined)
  })

  it('is the last one written, also when it changes while it is read for the first time', async () => {
    const path = ruleFile(`deny all\n# ${'x'.repeat(8_000_000)}`)
    const stage = ipAccess({ rules: `file:${path}`, clock: virtualClock() })
    await using runner = stageRunner(stage)
    const first = runner.send()
    for (let turns = 0; turns < 4; turns++) await new Promise((resolve) => setImmediate(resolve))
    writeFileSync(`${path}.new`, 'allow all')
    renameSync(`${path}.new`, path)
    await first
    await until(() => stage.stats().rules[0]?.action === 'allow')
    expect((await runner.send()).response.status).toBe(200)
  })

  it('is looked at again at the interval, without any word from the file system', async () => {
    let rules: readonly IpRule[] = [{ deny: 'all' }]
    let asked = 0
    const clock = virtualClock()
    const stage = ipAccess({
      rules: () => {
        asked++
        if (asked === 3) throw new Error('away')
        return rules
      },
      refresh: '1m',
      clock,
    })
    await using runner = stageRunner(stage)
    const ask = async (): Promise<number> => (await runner.send()).response.status
    expect(await ask()).toBe(403)
    await clock.advance(60_000)
    expect([asked, stage.stats().replaced]).toEqual([2, 0])
    await clock.advance(60_000)
    expect([await ask(), stage.stats().failed]).toEqual([403, 1])
    rules = [{ allow: 'all' }]
    await clock.advance(60_000)
    expect([await ask(), stage.stats().replaced]).toEqual([200, 1])
    await runner.close()
    expect(clock.pending).toBe(0)
  })

  it('that is empty is no list', async () => {
    const path = ruleFile('deny all')
    const stage = ipAccess({ rules: `file:${path}`, default: 'allow' })
    await using runner = stageRunner(stage)
    expect((await runner.send()).response.status).toBe(403)
    writeFileSync(path, '# nothing\n')
    await until(() => stage.stats().failed > 0)
    expect((await runner.send()).response.status).toBe(403)
  })

  it('that is not there at the start lets nobody in, until it is', async () => {
    const path = ruleFile('nonsense')
    await using proxy = createProxy({
      upstreams: ['http://a.test'],
      transport: fakeTransport(),
      use: [ipAccess({ rules: `file:${path}` })],
    })
    expect((await proxy.inject({})).status).toBe(500)
    writeFileSync(path, 'allow all')
    expect((await proxy.inject({})).status).toBe(200)
  })

  it('from a function that does not answer ends the wait in time', async () => {
    const clock = virtualClock()
    const stage = ipAccess({ rules: () => new Promise(() => {}), clock })
    await using proxy = createProxy({ upstreams: ['http://a.test'], transport: fakeTransport(), use: [stage] })
    const sent = proxy.inject({})
    await until(() => clock.pending === 1)
    await clock.advance(10_000)
    expect((await sent).status).toBe(500)
    expect(clock.pending).toBe(0)
  })
})
