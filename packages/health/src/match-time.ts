/**
 * A limit to the time that expressions may take. They are matched against what a server says, on the event loop: one that backtracks (`(a+)+$`) can
 * take longer than anybody waits on a few dozen characters that were made up for it, so a limit to the length is none to the time. While it
 * backtracks, V8 looks whether it has been interrupted, and the `timeout` of `node:vm` interrupts it from another thread. The script does no more than
 * call back; nothing is hidden from anybody here.
 *
 * It costs some 0.2 ms for each match, which a probe has time for. A worker that matches would block nobody at all, and is a thread per process for an
 * expression that somebody could rather have written without repeats inside of repeats.
 */
import { type Context, createContext, Script } from 'node:vm'
import { ProbeError } from './probe.ts'

/** Milliseconds for all matches of one probe: some five hundred times what a sound expression takes on 64 KiB, and a pause that a proxy survives. */
const limit = 100

const script = new Script('match()')
let context: Context | undefined

/** One for each probe that is run. */
export class MatchTime {
  #left = limit

  /** @returns an error when the time is over */
  spend(match: () => boolean): boolean | ProbeError {
    const started = performance.now()
    context ??= createContext()
    context.match = match
    try {
      return script.runInContext(context, { timeout: Math.max(1, Math.ceil(this.#left)) }) as boolean
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ERR_SCRIPT_EXECUTION_TIMEOUT') throw error
      return new ProbeError('ERR_PROBE_PATTERN', `matching what the server says took longer than ${limit} ms`)
    } finally {
      context.match = undefined
      this.#left -= performance.now() - started
    }
  }
}
