/**
 * A model of what a shared cache may serve (RFC 9111 §4), written apart from the cache: a random history of requests, answers, failures, clock steps and
 * invalidations, and every answer that the cache gives of its own has to be one that the model allows.
 */
import { createProxy } from '@weir/core'
import { type FakeResponse, fakeTransport, virtualClock } from '@weir/testing'
import fc from 'fast-check'
import { expect, it } from 'vitest'
import { responseCache } from './response-cache.ts'

interface Profile {
  readonly control: string
  readonly vary?: string
  readonly cookie?: boolean
  readonly tag?: string
}

/** What is known of an answer since it came, or since a 304 confirmed it. */
interface State {
  /** What the request said that it was chosen for. */
  readonly request: Readonly<Record<string, string>>
  readonly profile: Profile
  /** Seconds. */
  readonly at: number
  /** Soft purge: what its age was then; -1: it was removed. */
  lifetimeEnds: number
}

/** One answer of the origin. Where it cannot be told from outside which of several the cache has taken a 304 for, each may be so or so. */
interface Known {
  readonly id: number
  readonly path: string
  readonly etag: string
  states: State[]
}

type Step =
  | { readonly do: 'ask'; readonly path: string; readonly method: string; readonly headers: Readonly<Record<string, string>> }
  | { readonly do: 'wait'; readonly seconds: number }
  | { readonly do: 'origin'; readonly path: string; readonly profile: Profile }
  | { readonly do: 'change'; readonly path: string }
  | { readonly do: 'fail'; readonly how: 'no' | '503' | 'reset' }
  | { readonly do: 'purge'; readonly path: string; readonly soft: boolean }
  | { readonly do: 'tag'; readonly tag: string; readonly soft: boolean }
  | { readonly do: 'predicate'; readonly path: string }

const paths = ['/a', '/b']
const seconds = [0, 1, 9, 11, 30, 61, 200]
const path = fc.constantFrom(...paths)
const profile: fc.Arbitrary<Profile> = fc.record(
  {
    control: fc
      .subarray(
        [
          'max-age=10',
          's-maxage=30',
          'no-cache',
          'private',
          'no-store',
          'public',
          'must-revalidate',
          'stale-while-revalidate=20',
          'stale-if-error=60',
        ],
        {
          maxLength: 3,
        },
      )
      .map((parts) => parts.join(', ')),
    vary: fc.constantFrom('X-V', 'Accept-Language', 'X-V, Accept-Language'),
    cookie: fc.constant(true),
    tag: fc.constantFrom('t1', 't2'),
  },
  { requiredKeys: ['control'] },
)
const unusual = fc.record(
  {
    'x-v': fc.constantFrom('1', '2'),
    'accept-language': fc.constantFrom('de', 'en'),
    authorization: fc.constant('alice'),
    'cache-control': fc.constantFrom('no-cache', 'max-age=0', 'max-stale', 'no-store', 'only-if-cached', 'min-fresh=5'),
    'if-none-match': fc.constantFrom('"1"', '"2"', '"3"'),
    range: fc.constant('bytes=0-1'),
  },
  { requiredKeys: [] },
) as fc.Arbitrary<Record<string, string>>
const headers = fc.oneof(
  { weight: 2, arbitrary: fc.constant<Record<string, string>>({}) },
  { weight: 1, arbitrary: fc.constant<Record<string, string>>({ 'x-v': '1' }) },
  { weight: 1, arbitrary: unusual },
)
const step: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 8,
    arbitrary: fc.record({
      do: fc.constant('ask' as const),
      path,
      method: fc.constantFrom('GET', 'GET', 'GET', 'GET', 'HEAD', 'POST'),
      headers,
    }),
  },
  { weight: 3, arbitrary: fc.record({ do: fc.constant('wait' as const), seconds: fc.constantFrom(...seconds) }) },
  { weight: 3, arbitrary: fc.record({ do: fc.constant('origin' as const), path, profile }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('change' as const), path }) },
  {
    weight: 1,
    arbitrary: fc.record({
      do: fc.constant('fail' as const),
      how: fc.constantFrom('no' as const, 'no' as const, 'no' as const, '503' as const, 'reset' as const),
    }),
  },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('purge' as const), path, soft: fc.boolean() }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('tag' as const), tag: fc.constantFrom('t1', 't2'), soft: fc.boolean() }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('predicate' as const), path }) },
)

/** Seconds; undefined when the directive is absent. */
function directive(control: string, name: string): number | undefined {
  const found = control.split(', ').find((part) => part.startsWith(`${name}=`))
  return found === undefined ? undefined : Number(found.slice(name.length + 1))
}

class World {
  readonly clock = virtualClock()
  readonly known = new Map<number, Known>()
  readonly profiles = new Map<string, Profile>()
  readonly versions = new Map<string, number>()
  fails: 'no' | '503' | 'reset' = 'no'
  /** Of the request that is being asked: what the origin was asked on its behalf, and whether it failed. */
  asked:
    | {
        readonly path: string
        readonly headers: Readonly<Record<string, string>>
        answered: Set<number>
        confirmed: Set<number>
        failed: boolean
      }
    | undefined
  /** How often the cache answered by itself: a model that never sees it proves nothing. */
  reused = 0
  readonly cache = responseCache({ maxSize: '1MiB', clock: this.clock, clientControl: true })
  readonly proxy = createProxy({
    upstreams: ['http://upstream.test'],
    retry: false,
    clock: this.clock,
    use: [this.cache],
    transport: fakeTransport((request) => this.answer(request.method, request.path, request.headers)),
  })

  get now(): number {
    return this.clock.now() / 1000
  }

  answer(method: string, target: string, given: { get(name: string): string | undefined }): FakeResponse {
    if (this.fails === 'reset') {
      if (this.asked !== undefined) this.asked.failed = true
      return { error: 'ERR_UPSTREAM_RESET' }
    }
    if (this.fails === '503') {
      if (this.asked !== undefined) this.asked.failed = true
      return { status: 503, body: 'down' }
    }
    if (method === 'POST') return { status: 200, body: 'done' }
    const current = this.profiles.get(target) ?? { control: 'max-age=10' }
    const fields: Record<string, string> = { ETag: `"${this.versions.get(target) ?? 0}"` }
    if (current.control !== '') fields['Cache-Control'] = current.control
    if (current.vary !== undefined) fields.Vary = current.vary
    if (current.cookie === true) fields['Set-Cookie'] = 'session=secret'
    if (current.tag !== undefined) fields['Cache-Tag'] = current.tag
    if (given.get('if-none-match') === fields.ETag) {
      this.confirm(target, fields.ETag, current, given)
      return { status: 304, headers: fields }
    }
    const id = this.known.size + 1
    const state = { request: this.selecting(given), profile: current, at: this.now, lifetimeEnds: Number.POSITIVE_INFINITY }
    this.known.set(id, { id, path: target, etag: fields.ETag as string, states: [state] })
    this.asked?.answered.add(id)
    return { status: 200, headers: { ...fields, 'X-Id': String(id) }, body: `body ${id}` }
  }

  selecting(given: { get(name: string): string | undefined }): Record<string, string> {
    return Object.fromEntries(['x-v', 'accept-language', 'authorization'].map((name) => [name, given.get(name) ?? '-']))
  }

  /** A 304 says that what is stored under this validator is what such a request gets, with what it says in place of what was said before. */
  confirm(
    target: string,
    etag: string | undefined,
    { cookie: _, ...said }: Profile,
    given: { get(name: string): string | undefined },
  ): void {
    const request = this.selecting(given)
    for (const one of this.known.values()) {
      if (one.path !== target || one.etag !== etag) continue
      this.asked?.confirmed.add(one.id)
      const news = one.states.map((old) => ({
        request,
        profile: { ...old.profile, ...said, control: said.control || old.profile.control },
        at: this.now,
        lifetimeEnds: Number.POSITIVE_INFINITY,
      }))
      // The client may have asked that, not the cache; and several may bear this validator.
      const certain =
        this.asked?.headers['if-none-match'] !== etag && one.states.every((old) => JSON.stringify(old.request) === JSON.stringify(request))
      one.states = certain ? news : [...one.states, ...news]
    }
  }

  /** Why this answer must not be given for what was asked; undefined when it may. */
  objection(one: Known, asked: NonNullable<World['asked']>, method: string): string | undefined {
    if (asked.answered.has(one.id)) return undefined
    this.reused++
    if (asked.confirmed.has(one.id)) return undefined
    if (method === 'POST') return 'the answer to a POST is the origin’s'
    if (one.path !== asked.path) return 'another path'
    const objections = one.states.map((state) => this.objectionTo(state, asked))
    return objections.includes(undefined) ? undefined : objections.join('; ')
  }

  objectionTo(
    { request, profile: { control, vary, cookie }, at, lifetimeEnds }: State,
    asked: NonNullable<World['asked']>,
  ): string | undefined {
    if (/private|no-store/.test(control)) return `stored in spite of ${control}`
    const shared = /public|s-maxage|must-revalidate/.test(control)
    if ((request.authorization !== '-' || asked.headers.authorization !== undefined) && !shared) return 'authorised'
    if (cookie === true) return 'Set-Cookie'
    for (const name of (vary ?? '').toLowerCase().split(', '))
      if (name !== '' && request[name] !== (asked.headers[name] ?? '-')) return `chosen for another ${name}`
    if (lifetimeEnds === -1) return 'invalidated'
    if (control.includes('no-cache')) return 'no-cache without being asked'
    const lifetime = directive(control, 's-maxage') ?? directive(control, 'max-age') ?? 0
    const age = this.now - at
    const ends = Math.min(lifetime, lifetimeEnds)
    // A wish (RFC 9111 §5.2.1.4), and it has been asked when it failed.
    if (age < ends) return asked.headers['cache-control'] === 'no-cache' && !asked.failed ? 'the client wanted it asked' : undefined
    if (control.includes('must-revalidate')) return `stale in spite of ${control}`
    const implied = control.includes('s-maxage')
    if (age < ends + (directive(control, 'stale-while-revalidate') ?? 0)) return undefined
    if (asked.failed && age < ends + (directive(control, 'stale-if-error') ?? (implied ? 0 : 60))) return undefined
    if (asked.headers['cache-control'] === 'max-stale' && !implied) return undefined
    return `stale: ${age} s old, ${control}`
  }

  async take(step: Step): Promise<void> {
    switch (step.do) {
      case 'wait':
        return await this.clock.advance(step.seconds * 1000)
      case 'origin':
        this.profiles.set(step.path, step.profile)
        return
      case 'change':
        this.versions.set(step.path, (this.versions.get(step.path) ?? 0) + 1)
        return
      case 'fail':
        this.fails = step.how
        return
      case 'purge':
        await this.cache.purge(`http://shop.example${step.path}`, { soft: step.soft })
        return this.invalidated((one) => one.path === step.path, step.soft)
      case 'tag':
        await this.cache.invalidateTag(step.tag, { soft: step.soft })
        return this.invalidated((_one, { profile: { tag } }) => tag === step.tag, step.soft)
      case 'predicate':
        await this.cache.invalidate(({ url }) => url === `http://shop.example${step.path}`)
        return this.invalidated((one) => one.path === step.path, false)
      case 'ask':
        return await this.ask(step)
    }
  }

  invalidated(concerns: (one: Known, state: State) => boolean, soft: boolean): void {
    for (const one of this.known.values())
      for (const state of one.states)
        if (concerns(one, state)) state.lifetimeEnds = soft ? Math.min(state.lifetimeEnds, this.now - state.at) : -1
  }

  async ask({ path: target, method, headers: given }: Extract<Step, { do: 'ask' }>): Promise<void> {
    const asked = { path: target, headers: given, answered: new Set<number>(), confirmed: new Set<number>(), failed: false }
    this.asked = asked
    const response = await this.proxy.inject({ method, url: target, headers: { host: 'shop.example', ...given } })
    const id = Number(response.headers.get('x-id'))
    const one = this.known.get(id)
    if (one !== undefined) {
      const objection = this.objection(one, asked, method)
      expect(objection, `${method} ${target} ${JSON.stringify(given)} got ${id}: ${objection}`).toBeUndefined()
      if (method === 'GET' && response.status === 200) expect(response.text()).toBe(`body ${id}`)
      if (response.status === 206) expect(response.text()).toBe('bo')
    }
    // What runs in the background has its own time to end.
    for (let turn = 0; turn < 20; turn++) await new Promise(setImmediate)
    this.asked = undefined
    if (method === 'POST' && response.status < 400) this.invalidated((other) => other.path === target, false)
  }
}

it('never serves what RFC 9111 forbids', { timeout: 120_000 }, async () => {
  let reused = 0
  await fc.assert(
    fc.asyncProperty(fc.array(step, { minLength: 20, maxLength: 60, size: 'max' }), async (steps) => {
      const world = new World()
      for (const one of steps) await world.take(one)
      reused += world.reused
      await world.proxy.close()
    }),
    { numRuns: 120 },
  )
  expect(reused).toBeGreaterThan(50)
})
