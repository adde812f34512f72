/**
 * Every contestant, upstream and client generator is a process of its own, so that the operating system's accounting of one of them says
 * nothing about the others. This file starts them and makes sure that none survives: each is ended by its process id, also on Ctrl-C and
 * after a failure, and a Node child ends itself when the channel to this process breaks.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { connect, createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { basename, join } from 'node:path'
import { fileURLToPath } from 'node:url'

export interface Child {
  readonly pid: number
  /** What the child sent first; `port` for everything that listens. */
  readonly ready: Ready
  /** One question, one answer, over the channel. Node children only. */
  ask<T>(question: unknown): Promise<T>
  stop(): Promise<void>
}

export interface Ready {
  readonly port: number
  readonly ports?: readonly number[]
}

const alive = new Set<ChildProcess>()
let scratch: string | undefined

process.on('exit', () => {
  for (const child of alive) kill(child)
  if (scratch !== undefined) rmSync(scratch, { recursive: true, force: true })
})
for (const [signal, code] of [
  ['SIGINT', 130],
  ['SIGTERM', 143],
  ['SIGHUP', 129],
] as const)
  process.once(signal, () => process.exit(code))

/** Ends whatever still runs, after a benchmark that broke off in the middle. */
export async function stopAll(): Promise<void> {
  await Promise.all(
    [...alive].map((child) => {
      const exited = new Promise((resolve) => child.once('exit', resolve))
      kill(child)
      return exited
    }),
  )
}

/** A directory for generated configuration, removed at the end. */
export function scratchDirectory(): string {
  scratch ??= mkdtempSync(join(tmpdir(), 'weir-bench-'))
  return scratch
}

function track(child: ChildProcess, name: string): { child: ChildProcess; exited: Promise<number | null>; complaint: () => string } {
  alive.add(child)
  let stderr = ''
  child.stderr?.setEncoding('utf8').on('data', (text: string) => {
    stderr = (stderr + text).slice(-4096)
  })
  const exited = new Promise<number | null>((resolve) => {
    child.once('error', (error) => {
      stderr += error.message
      alive.delete(child)
      resolve(null)
    })
    child.once('exit', (code) => {
      alive.delete(child)
      resolve(code)
    })
  })
  return { child, exited, complaint: () => `${basename(name)} ended early${stderr ? `:\n${stderr.trim()}` : ''}` }
}

/** Starts a TypeScript file of this folder with `process.execPath` and waits for the first message it sends. */
export async function startNode(file: string, args: readonly string[] = [], flags: readonly string[] = []): Promise<Child> {
  const path = fileURLToPath(new URL(file, import.meta.url))
  const { child, exited, complaint } = track(
    spawn(process.execPath, [...flags, path, ...args], { stdio: ['ignore', 'ignore', 'pipe', 'ipc'] }),
    file,
  )
  const next = <T>(): Promise<T> =>
    new Promise<T>((resolve, reject) => {
      child.once('message', (message) => resolve(message as T))
      void exited.then(() => reject(new Error(complaint())))
    })
  const ready = await next<Ready>()
  return {
    pid: child.pid as number,
    ready,
    ask: <T>(question: unknown) => {
      const answer = next<T>()
      child.send(question as object)
      return answer
    },
    stop: () => end(child, exited),
  }
}

/** Starts a program that is no child of Node's and waits until it accepts connections. */
export async function startProgram(command: string, args: readonly string[], port: number, host: string = '127.0.0.1'): Promise<Child> {
  const { child, exited, complaint } = track(spawn(command, args, { stdio: ['ignore', 'ignore', 'pipe'], detached: true }), command)
  let ended = false
  void exited.then(() => {
    ended = true
  })
  while (!(await accepts(port, host))) {
    if (ended) throw new Error(complaint())
    await new Promise((resolve) => setTimeout(resolve, 10))
  }
  return {
    pid: child.pid as number,
    ready: { port },
    ask: () => Promise.reject(new Error(`${command} has no channel`)),
    stop: () => end(child, exited),
  }
}

/** Runs a program to its end and returns what it printed. */
export async function run(command: string, args: readonly string[]): Promise<string> {
  const { child, exited, complaint } = track(spawn(command, args, { stdio: ['ignore', 'pipe', 'pipe'] }), command)
  let stdout = ''
  child.stdout?.setEncoding('utf8').on('data', (text: string) => {
    stdout += text
  })
  const closed = new Promise((resolve) => child.once('close', resolve))
  if ((await exited) !== 0) throw new Error(complaint())
  await closed
  return stdout
}

/**
 * A port that was free a moment ago, for programs that cannot choose one themselves. Somebody could take it in between; then the program
 * fails to start, loudly.
 */
export async function freePort(): Promise<number> {
  const server = createServer()
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const { port } = server.address() as { port: number }
  await new Promise((resolve) => server.close(resolve))
  return port
}

function accepts(port: number, host: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(port, host)
    socket.once('connect', () => {
      socket.destroy()
      resolve(true)
    })
    socket.once('error', () => resolve(false))
  })
}

async function end(child: ChildProcess, exited: Promise<unknown>): Promise<void> {
  kill(child)
  await exited
}

/** KILL, not TERM: nothing here has state worth a farewell, and a contestant that drains would hold up the next one. */
function kill(child: ChildProcess): void {
  try {
    // A program leads a group of its own, for some have workers, which would outlive it.
    process.kill(-(child.pid as number), 'SIGKILL')
  } catch {
    child.kill('SIGKILL')
  }
}
