/**
 * The public HTTP cache tests (https://cache-tests.fyi, npm package `http-cache-tests`) against a real server with `responseCache` in front of theirs. By itself
 * it prints what passes: `node test/conformance/cache-suite.ts [checkout of the suite's repository]`; `--markdown` prints the tables of
 * docs/cache-conformance.md. The product knows nothing of the suite.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { mkdtemp, readdir, readFile, rm } from 'node:fs/promises'
import { createServer } from 'node:http'
import { createRequire } from 'node:module'
import { type AddressInfo, createServer as createTcp } from 'node:net'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { responseCache } from '@weir/cache'
import { createProxy } from '@weir/core'

export type Kind = 'required' | 'optimal' | 'check'

interface SuiteTest {
  readonly id: string
  readonly kind?: Kind
  readonly browser_only?: boolean
  readonly depends_on?: readonly string[]
}

export interface SuiteResult {
  readonly id: string
  readonly kind: Kind
  /** It passes, and so does everything that it depends on: how the suite's own pages count. */
  readonly passes: boolean
  readonly why: string
}

/** As the suite writes them down: true, or a name and a message. */
type Results = Readonly<Record<string, true | readonly [string, string]>>

interface Layout {
  readonly root: string
  readonly engine: string
  readonly suites: readonly { readonly tests: readonly SuiteTest[] }[]
}

const npmPackage = dirname(createRequire(import.meta.url).resolve('http-cache-tests/package.json'))

/** The npm package, or a checkout of the repository, which is laid out differently. */
export async function loadSuite(root: string = npmPackage): Promise<Layout> {
  const engine = (await readdir(root)).includes('test-engine') ? join(root, 'test-engine') : root
  const { default: suites } = await importFrom(join(root, 'tests/index.mjs'))
  const extra = (await readdir(join(root, 'tests'))).includes('surrogate-control.mjs')
    ? [(await importFrom(join(root, 'tests/surrogate-control.mjs'))).default]
    : []
  return { root, engine, suites: [...suites, ...extra] }
}

// biome-ignore lint/suspicious/noExplicitAny: the suite has no types
async function importFrom(file: string): Promise<any> {
  return await import(pathToFileURL(file).href)
}

export async function runSuite(suite: Layout): Promise<readonly SuiteResult[]> {
  const directory = await mkdtemp(join(tmpdir(), 'weir-cache-suite-'))
  const port = await freePort()
  const origin = startOrigin(suite, port, directory)
  try {
    await answers(port)
    const targets = ['CDN-Cache-Control', 'Surrogate-Control']
    // `keep` and `clientControl`: what the suite asks about is what the RFC allows, not what is wise by default.
    const cache = responseCache({ maxSize: '64MiB', setCookie: 'keep', clientControl: true, staleIfError: '1m', targets })
    await using proxy = createProxy({ upstreams: [`http://127.0.0.1:${port}`], retry: false, use: [cache] })
    const server = createServer()
    proxy.attach(server)
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
    try {
      return judge(suite, await runClient(suite, (server.address() as AddressInfo).port))
    } finally {
      server.closeAllConnections()
      server.close()
    }
  } finally {
    origin.kill()
    await rm(directory, { recursive: true, force: true })
  }
}

function startOrigin(suite: Layout, port: number, directory: string): ChildProcess {
  const env = { ...process.env, npm_config_protocol: 'http', npm_config_port: String(port), npm_config_pidfile: join(directory, 'pid') }
  return spawn(process.execPath, [join(suite.engine, 'server/server.mjs')], { env, stdio: 'ignore', cwd: suite.root })
}

async function runClient(suite: Layout, port: number): Promise<Results> {
  const { runTests, getResults } = await importFrom(join(suite.engine, 'client/runner.mjs'))
  const base = `http://127.0.0.1:${port}`
  if (suite.engine === suite.root) {
    // The published package brings its own fetch, which sends fields that browsers do not let through.
    const fetch = createRequire(join(suite.root, 'package.json'))('node-fetch')
    await runTests(suite.suites, fetch, false, base)
  } else await runTests(suite.suites, false, base)
  return getResults()
}

/** @param results as the suite writes them down */
function judge(suite: Layout, results: Results): readonly SuiteResult[] {
  const tests = new Map(suite.suites.flatMap(({ tests: list }) => list.map((test) => [test.id, test] as const)))
  const known = new Map<string, boolean>()
  const passes = (id: string): boolean => {
    const before = known.get(id)
    if (before !== undefined) return before
    const passed = results[id] === true && (tests.get(id)?.depends_on ?? []).every(passes)
    known.set(id, passed)
    return passed
  }
  return [...tests.values()]
    .filter((test) => test.browser_only !== true)
    .map(({ id, kind = 'required' }) => {
      const result = results[id]
      return { id, kind, passes: passes(id), why: result === true || result === undefined ? '' : result.join(': ') }
    })
}

async function freePort(): Promise<number> {
  const server = createTcp()
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const { port } = server.address() as AddressInfo
  await new Promise((resolve) => server.close(resolve))
  return port
}

async function answers(port: number): Promise<void> {
  for (let tries = 0; ; tries++) {
    try {
      await fetch(`http://127.0.0.1:${port}/state/none`)
      return
    } catch (error) {
      if (tries === 100) throw error
      await new Promise((resolve) => setTimeout(resolve, 50))
    }
  }
}

export function tally(results: readonly SuiteResult[]): Readonly<Record<Kind, readonly [passed: number, of: number]>> {
  const count = (kind: Kind): readonly [number, number] => {
    const own = results.filter((result) => result.kind === kind)
    return [own.filter(({ passes }) => passes).length, own.length]
  }
  return { required: count('required'), optimal: count('optimal'), check: count('check') }
}

const servers = [
  ['nginx', 'nginx'],
  ['varnish', 'Varnish'],
  ['squid', 'Squid'],
  ['trafficserver', 'Traffic Server'],
  ['apache', 'Apache httpd'],
  ['caddy', 'Caddy'],
  ['haproxy', 'HAProxy'],
  ['fastly', 'Fastly'],
] as const

async function published(suite: Layout): Promise<Map<string, readonly SuiteResult[]>> {
  const found = new Map<string, readonly SuiteResult[]>()
  const files = await readdir(join(suite.root, 'results'))
  for (const [file, name] of servers)
    if (files.includes(`${file}.json`))
      found.set(name, judge(suite, JSON.parse(await readFile(join(suite.root, 'results', `${file}.json`), 'utf8'))))
  return found
}

async function print(root: string | undefined, markdown: boolean): Promise<void> {
  const suite = await loadSuite(root)
  const ours = await runSuite(suite)
  const all = new Map([['Weir', ours], ...(await published(suite))])
  const others = [...all].slice(1)
  console.log('| | required | optimal | check |\n|---|--:|--:|--:|')
  for (const [name, results] of all) {
    const { required, optimal, check } = tally(results)
    console.log(`| ${name} | ${required[0]} of ${required[1]} | ${optimal[0]} of ${optimal[1]} | ${check[0]} of ${check[1]} |`)
  }
  console.log(markdown ? '\n| test | kind | passed by |\n|---|---|---|' : '')
  for (const { id, kind, passes, why } of ours) {
    if (passes) continue
    const who = others.filter(([, results]) => results.find((result) => result.id === id)?.passes === true).map(([name]) => name)
    console.log(markdown ? `| \`${id}\` | ${kind} | ${who.join(', ') || 'none'} |` : `${kind.padEnd(9)} ${id}: ${why} (${who.join(', ')})`)
  }
}

if (process.argv[1] === import.meta.filename) {
  const given = process.argv.slice(2)
  await print(
    given.find((argument) => !argument.startsWith('--')),
    given.includes('--markdown'),
  )
  process.exit(0)
}
