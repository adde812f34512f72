/** Wrong options, which both the editor and the factory refuse: the line below `@ts-expect-error` must not compile, and the paths must be these. */
import { OptionsError } from '@weir/core'
import { describe, expect, it } from 'vitest'
import {
  type ApplicationCookieOptions,
  applicationCookie,
  type InsertOptions,
  type KeyAffinityOptions,
  keyAffinity,
  learnSession,
  memorySessionStore,
  stickySession,
} from './index.ts'

const secret = 'a secret that is long enough for the test'

function paths(run: () => unknown): string[] {
  try {
    run()
  } catch (error) {
    if (!OptionsError.is(error)) throw error
    return error.problems.map(({ path }) => path)
  }
  return []
}
type Row = readonly [what: string, run: () => unknown, paths: readonly string[]]
const table = (rows: readonly Row[]): void => {
  for (const [what, run, expected] of rows) it(what, () => expect(paths(run).toSorted()).toEqual(expected.toSorted()))
}

describe('stickySession', () => {
  const sticky = (options: Omit<InsertOptions, 'secret'>): unknown => stickySession({ secret, ...options })
  table([
    ['with a secret alone', () => stickySession({ secret }), []],
    ['with bytes', () => stickySession({ secret: new Uint8Array(32) }), []],
    ['with a list', () => stickySession({ secret: [secret, Buffer.alloc(32)] }), []],
    // @ts-expect-error no options
    ['nothing', () => stickySession(), ['secret']],
    // @ts-expect-error no secret
    ['no secret', () => stickySession({}), ['secret']],
    // @ts-expect-error not set in the environment
    ['an undefined secret', () => stickySession({ secret: process.env.WEIR_NOT_SET }), ['secret']],
    // @ts-expect-error a number is no secret
    ['a number as secret', () => stickySession({ secret: 5 }), ['secret']],
    ['a short secret', () => stickySession({ secret: 'x'.repeat(31) }), ['secret']],
    ['short bytes in a list', () => stickySession({ secret: [secret, Buffer.alloc(31)] }), ['secret[1]']],
    ['an empty list of secrets', () => stickySession({ secret: [] }), ['secret']],
    ['one secret twice', () => stickySession({ secret: [secret, secret] }), ['secret[1]']],
    // @ts-expect-error misspelt
    ['a misspelt option', () => sticky({ samesite: 'lax' }), ['samesite']],
    // @ts-expect-error no such mode
    ['a mode that does not exist', () => sticky({ mode: 'table' }), ['mode']],
    ['a cookie name with a space', () => sticky({ cookie: 'a b' }), ['cookie']],
    ['a cookie name with =', () => sticky({ cookie: 'a=' }), ['cookie']],
    // @ts-expect-error no such value
    ['SameSite with a capital', () => sticky({ sameSite: 'Lax' }), ['sameSite']],
    // @ts-expect-error no such value
    ['secure as text', () => sticky({ secure: 'yes' }), ['secure']],
    // @ts-expect-error a flag
    ['flags as text', () => sticky({ httpOnly: 'yes', partitioned: 1, persistent: 'no' }), ['httpOnly', 'partitioned', 'persistent']],
    ['SameSite=None without Secure', () => sticky({ sameSite: 'none' }), ['secure']],
    ['SameSite=None, perhaps Secure', () => sticky({ sameSite: 'none', secure: 'auto' }), ['secure']],
    ['SameSite=None with Secure', () => sticky({ sameSite: 'none', secure: true }), []],
    ['partitioned, not Secure', () => sticky({ partitioned: true, secure: false }), ['secure']],
    ['__Host- without Secure', () => sticky({ cookie: '__Host-s' }), ['secure']],
    ['__Host- with path and domain', () => sticky({ cookie: '__host-s', secure: true, path: '/a', domain: 'a.test' }), ['path', 'domain']],
    ['__Host- as it must be', () => sticky({ cookie: '__Host-s', secure: true }), []],
    ['__Secure- without Secure', () => sticky({ cookie: '__Secure-s', secure: false }), ['secure']],
    ['__Secure- with path', () => sticky({ cookie: '__Secure-s', secure: true, path: '/a', domain: 'a.test' }), []],
    ['a path with an attribute', () => sticky({ path: '/a; Domain=b.test' }), ['path']],
    ['a path without a slash', () => sticky({ path: 'a' }), ['path']],
    ['a domain with an attribute', () => sticky({ domain: 'a.test; Secure' }), ['domain']],
    ['an idle time that is longer than the session', () => sticky({ idle: '2h', absolute: '1h' }), ['idle']],
    // @ts-expect-error a duration needs its unit
    ['a duration without unit', () => sticky({ idle: '5', absolute: '1' }), ['idle', 'absolute']],
    // @ts-expect-error for ever is too long
    ['no absolute end', () => sticky({ absolute: false }), ['absolute']],
    ['an absolute end in two years', () => sticky({ absolute: '730d' }), ['absolute']],
    ['a share above 1', () => sticky({ refresh: 1 }), ['refresh']],
    ['a path prefix without a slash', () => sticky({ only: ['/a', 'b'] }), ['only']],
    ['no path at all', () => sticky({ only: [] }), ['only']],
    // @ts-expect-error a pattern is no function
    ['bypass as a pattern', () => sticky({ bypass: /bot/ }), ['bypass']],
    // @ts-expect-error a flag
    ['strict as text', () => sticky({ strict: 'yes' }), ['strict']],
    ['an empty name', () => sticky({ name: '' }), ['name']],
    // @ts-expect-error a number is no clock
    ['a time', () => sticky({ now: 5 }), ['now']],
    // @ts-expect-error which cookie?
    ['prefix without a cookie', () => stickySession({ secret, mode: 'prefix' }), ['cookie']],
    ['prefix with its cookie', () => stickySession({ secret, mode: 'prefix', cookie: 'SID' }), []],
    [
      'attributes of a cookie that is not ours',
      // @ts-expect-error the application's
      () => stickySession({ secret, mode: 'rewrite', cookie: 'SID', secure: true, idle: '1h' }),
      ['idle', 'secure'],
    ],
    [
      'everything at once',
      () => sticky({ cookie: '', path: 'x', idle: -1, retryAfter: -1, name: '', only: 'x' }),
      ['cookie', 'path', 'idle', 'retryAfter', 'name', 'only'],
    ],
  ])

  it('does not repeat a secret in its errors', () => {
    const short = 'hunter2hunter2'
    expect(() => stickySession({ secret: [short] })).toThrow(expect.objectContaining({ message: expect.not.stringContaining('hunter') }))
  })
})

describe('the others', () => {
  const key = (options: Omit<KeyAffinityOptions, 'key'>): unknown => keyAffinity({ key: 'x', ...options })
  table([
    // @ts-expect-error which key?
    ['keyAffinity without key', () => keyAffinity({}), ['key']],
    ['keyAffinity with a parameter that is none', () => keyAffinity({ key: { parameter: 'a b' } }), ['key.parameter']],
    ['applicationCookie with a parameter that is none', () => applicationCookie({ parameter: '' }), ['parameter']],
    ['learnSession with a parameter alone', () => learnSession({ parameter: 'sid' }), ['options']],
    ['keyAffinity with a key that is no field', () => keyAffinity({ key: 'x y' }), ['key']],
    // @ts-expect-error a pattern is no key
    ['keyAffinity with a pattern', () => keyAffinity({ key: /x/ }), ['key']],
    ['a table without entries', () => key({ max: 0 }), ['max']],
    ['a bound and a store', () => key({ max: 5, store: memorySessionStore({ max: 5 }) }), ['max']],
    // @ts-expect-error not a store
    ['a Map as store', () => key({ store: new Map() }), []],
    // @ts-expect-error not a store
    ['a URL as store', () => key({ store: 'redis://localhost' }), ['store']],
    // @ts-expect-error no such answer
    ['onStoreError that does not exist', () => key({ onStoreError: 'deny' }), ['onStoreError']],
    ['no time for the store', () => key({ timeout: 0 }), ['timeout']],
    // @ts-expect-error not a clock
    ['a clock that is none', () => key({ clock: {} }), ['clock']],
    ['learnSession with a cookie', () => learnSession({ cookie: 'SID' }), []],
    ['learnSession with neither', () => learnSession({}), ['options']],
    ['learnSession with both', () => learnSession({ cookie: 'a', header: 'b' }), ['options']],
    ['learnSession with a cookie that is none', () => learnSession({ cookie: 'a;' }), ['cookie']],
    ['learnSession with a field that is none', () => learnSession({ header: 'a b' }), ['header']],
    ['applicationCookie alone', () => applicationCookie(), []],
    ['applicationCookie without a separator', () => applicationCookie({ separator: '' }), ['separator']],
    // @ts-expect-error not ids
    ['routes to numbers', () => applicationCookie({ routes: { a: 1 } } satisfies ApplicationCookieOptions), ['routes']],
    // @ts-expect-error unbounded
    ['a store without a bound', () => memorySessionStore({}), ['max']],
    ['a store of half an entry', () => memorySessionStore({ max: 0.5 }), ['max']],
  ])
})
