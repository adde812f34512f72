/**
 * The demo as its user meets it: started as a process, driven by curl, by a browser and by wrk, while a backend is killed and comes back. It
 * runs on the built packages, like the demo itself.
 */
import { type ChildProcess, execFile, spawn } from 'node:child_process'
import { existsSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { hasBrowser, launchBrowser } from './browser.ts'

const run = promisify(execFile)
const onPath = (program: string): boolean => (process.env.PATH ?? '').split(':').some((folder) => existsSync(`${folder}/${program}`))

interface Demo {
  readonly child: ChildProcess
  readonly origin: string
  output(): string
  /** Resolves when the output, from `from` on, matches. */
  says(pattern: RegExp, from?: number): Promise<RegExpExecArray>
}

async function startDemo(): Promise<Demo> {
  const child = spawn(process.execPath, [fileURLToPath(new URL('../../examples/demo.ts', import.meta.url))], {
    env: { ...process.env, PORT: '0' },
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  let text = ''
  const listeners = new Set<() => void>()
  for (const stream of [child.stdout, child.stderr])
    stream?.on('data', (chunk) => {
      text += chunk
      for (const listener of listeners) listener()
    })
  const says = (pattern: RegExp, from = 0): Promise<RegExpExecArray> =>
    new Promise((resolve, reject) => {
      const look = (): void => {
        const match = pattern.exec(text.slice(from))
        if (match === null) return
        listeners.delete(look)
        clearTimeout(timer)
        resolve(match)
      }
      const timer = setTimeout(() => reject(new Error(`the demo did not say ${pattern}:\n${text.slice(from)}`)), 15_000)
      listeners.add(look)
      look()
    })
  const origin = (await says(/Weir demo on (http:\S+)/))[1] as string
  await says(/drain and end/)
  return { child, origin, output: () => text, says }
}

describe('the demo', () => {
  let demo: Demo
  beforeAll(async () => {
    demo = await startDemo()
  })
  afterAll(() => {
    demo.child.kill('SIGKILL')
  })

  it.skipIf(!onPath('curl'))('answers the curl lines that it prints', async () => {
    const hello = await run('curl', ['-si', `${demo.origin}/hello`])
    expect(hello.stdout).toMatch(/^HTTP\/1\.1 200 OK\r\n/)
    expect(hello.stdout).toMatch(/"backend":"[abc]"/)
    // curl leaves the stream by its own time limit (exit code 28).
    const events = await run('curl', ['-sN', '--max-time', '2', `${demo.origin}/events`]).catch(
      (error) => error as { stdout: string; code: number },
    )
    expect((events.stdout.match(/^data: /gm) ?? []).length).toBeGreaterThanOrEqual(2)
  })

  it.skipIf(!hasBrowser)(
    'carries a WebSocket and an event stream to a real browser, also past a killed backend',
    { timeout: 60_000 },
    async () => {
      const browser = await launchBrowser()
      try {
        const page = await browser.newPage()
        await page.goto(`${demo.origin}/`)
        const shows = (id: string, pattern: string): Promise<unknown> =>
          page.waitForFunction(`new RegExp(${JSON.stringify(pattern)}).test(document.getElementById('${id}').textContent)`)
        await shows('event', '"backend":"[abc]"')
        await shows('echo', '^[abc]: message [3-9]')
        const name = ((await page.textContent('#echo')) ?? '').slice(0, 1)
        const pid = Number((await demo.says(new RegExp(`kill backend ${name} .*kill -9 (\\d+)`)))[1])
        const from = demo.output().length
        process.kill(pid, 'SIGKILL')
        await demo.says(new RegExp(`backend ${name} is gone`), from)
        // The tunnel went with its backend; the page opens another, which lands on a living one.
        await shows('echo', `^[^${name}]: message`)
        await shows('hello', '"backend":"[abc]"')
        await demo.says(new RegExp(`backend ${name} is back`), from)
      } finally {
        await browser.close()
      }
    },
  )

  it.skipIf(!onPath('wrk'))('loses no request of wrk while a backend is killed and restarted', { timeout: 60_000 }, async () => {
    const from = demo.output().length
    const load = run('wrk', ['-t1', '-c32', '-d9s', `${demo.origin}/hello`])
    const pid = Number([...demo.output().matchAll(/kill -9 (\d+)/g)].filter((match) => alive(Number(match[1]))).at(-1)?.[1])
    await new Promise((resolve) => setTimeout(resolve, 1000))
    process.kill(pid, 'SIGKILL')
    await demo.says(/is gone/, from)
    await demo.says(/is back/, from)
    const { stdout } = await load
    expect(Number(/(\d+) requests in/.exec(stdout)?.[1])).toBeGreaterThan(500)
    expect(stdout).not.toMatch(/Non-2xx|Socket errors/)
  })

  it('shows traffic per upstream, and drains on Ctrl-C', async () => {
    const from = demo.output().length
    const table = await demo.says(/clients: (\d+) requests, (\d+) failed/, from)
    expect(Number(table[1])).toBeGreaterThan(100)
    expect(Number(table[2])).toBe(0)
    const exit = new Promise<number | null>((resolve) => demo.child.once('exit', (code) => resolve(code)))
    demo.child.kill('SIGINT')
    await demo.says(/drained/, from)
    expect(await exit).toBe(0)
  })
})

function alive(pid: number): boolean {
  try {
    process.kill(pid, 0)
    return true
  } catch {
    return false
  }
}
