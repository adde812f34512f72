/**
 * Runs a program to its end, never longer than allowed. Each runs in a process group of its own: what it has started dies with it, also
 * when this process is interrupted, so that a hung example leaves no server behind.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { accessSync, constants } from 'node:fs'
import { delimiter, join } from 'node:path'
import { root } from './workspace.ts'

export interface Execution {
  /** Null when a signal ended it. */
  readonly code: number | null
  /** Standard output and error, in the order of arrival. */
  readonly output: string
  readonly stdout: string
  readonly timedOut: boolean
}

export interface ExecuteOptions {
  readonly cwd?: string
  readonly env?: Readonly<Record<string, string>>
  /** Milliseconds, after which the whole process group is killed. */
  readonly timeout: number
  /** Also write the output to ours as it comes. Default false. */
  readonly echo?: boolean
}

const running = new Set<ChildProcess>()

function killGroup(child: ChildProcess): void {
  if (child.pid === undefined) return
  try {
    process.kill(-child.pid, 'SIGKILL')
  } catch {
    // The group is gone already.
  }
}

process.on('exit', () => {
  for (const child of running) killGroup(child)
})
for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => process.exit(130))

export function execute(command: string, args: readonly string[], options: ExecuteOptions): Promise<Execution> {
  const { cwd = root, env = {}, timeout, echo = false } = options
  return new Promise((resolve) => {
    // No colours: what is captured is quoted in reports, and Node.js warns when told both to colour and not to.
    const child = spawn(command, args, {
      cwd,
      env: { ...process.env, FORCE_COLOR: undefined, NO_COLOR: '1', ...env },
      stdio: ['ignore', 'pipe', 'pipe'],
      detached: true,
    })
    running.add(child)
    let output = ''
    let stdout = ''
    let timedOut = false
    const timer = setTimeout(() => {
      timedOut = true
      killGroup(child)
    }, timeout)
    child.stdout.setEncoding('utf8').on('data', (text: string) => {
      output += text
      stdout += text
      if (echo) process.stdout.write(text)
    })
    child.stderr.setEncoding('utf8').on('data', (text: string) => {
      output += text
      if (echo) process.stdout.write(text)
    })
    const finish = (code: number | null): void => {
      clearTimeout(timer)
      running.delete(child)
      if (timedOut) output += `\nkilled after ${timeout / 1000} s\n`
      resolve({ code, output, stdout, timedOut })
    }
    child.once('error', (error) => {
      output += error.message
      finish(null)
    })
    child.once('close', finish)
  })
}

/** A program of the root's devDependencies. */
export function tool(name: string): string {
  return join(root, 'node_modules', '.bin', name)
}

export function isInstalled(program: string): boolean {
  return (process.env.PATH ?? '').split(delimiter).some((folder) => {
    try {
      accessSync(join(folder, program), constants.X_OK)
      return true
    } catch {
      return false
    }
  })
}

/** The last lines, indented: what a reader of a failed run wants to see. */
export function tail(text: string, lines = 40): string {
  return text
    .trimEnd()
    .split('\n')
    .slice(-lines)
    .map((line) => `    ${line}`)
    .join('\n')
}
