/** Runs a program of this folder in a process of its own: what a process still holds can only be seen by whether it ends. */
import { spawn } from 'node:child_process'
import { fileURLToPath } from 'node:url'

/** What the program printed, as JSON. Rejects when it fails, or does not end by itself within `deadline` milliseconds. */
export async function runChild<T>(
  name: string,
  args: readonly string[] = [],
  options: { readonly flags?: readonly string[]; readonly deadline?: number } = {},
): Promise<T> {
  const { flags = [], deadline = 15_000 } = options
  const file = fileURLToPath(new URL(`${name}.ts`, import.meta.url))
  // The options of the test runner are none of the child's.
  const { NODE_OPTIONS: _, ...env } = process.env
  const child = spawn(process.execPath, [...flags, file, ...args], { stdio: ['ignore', 'pipe', 'pipe'], env })
  let out = ''
  let errors = ''
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    out += text
  })
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    errors += text
  })
  let late = false
  const timer = setTimeout(() => {
    late = true
    child.kill('SIGKILL')
  }, deadline)
  const code = await new Promise((resolve) => child.on('close', resolve))
  clearTimeout(timer)
  if (late) throw new Error(`${name} did not end within ${deadline} ms: something keeps the process alive. ${errors}`)
  if (code !== 0) throw new Error(`${name} ended with ${code}: ${errors}`)
  return JSON.parse(out) as T
}
