/**
 * Rules that somebody else keeps: a file, or a function that asks. It is looked at again and again; what cannot be read or is wrong is told and not
 * used, and the last good list stays. Only the very first one has to be there: without any list nobody can say who may enter, so requests wait for
 * it, and are answered 500 when it cannot be had.
 *
 * A file is read when something happened in its folder (most programs put another file in its place, and a watcher of the file would go on watching
 * the one that is gone), and at every interval anyway, since network file systems announce nothing.
 */
import { type FSWatcher, watch } from 'node:fs'
import { open } from 'node:fs/promises'
import { basename, dirname } from 'node:path'
import type { Clock, MaybePromise } from '@weir/core'
import { within } from './deadline.ts'
import { type IpRule, parseIpRules } from './ip-rules.ts'

/** Called at the start and at every interval. The same array again means that nothing has changed. */
export type IpRuleFunction = () => MaybePromise<readonly IpRule[]>

/** A list of 100,000 ranges has about 3 MB. */
const largestFile = 64 * 1024 * 1024
/** A function that does not answer must not hold requests, or later looks, for ever. */
const longestLook = 10_000

export class IpRuleSource {
  readonly #path: string | undefined
  readonly #ask: IpRuleFunction | undefined
  readonly #interval: number
  readonly #clock: Clock
  readonly #apply: (rules: readonly IpRule[]) => void
  readonly #failed: (error: unknown) => void
  #watcher: FSWatcher | undefined
  #timer: unknown
  /** What is in place. */
  #text: string | undefined
  #rules: readonly IpRule[] | undefined
  #looking = false
  #again = false
  #closed = false

  /** @param apply puts the rules in place, or throws and changes nothing */
  constructor(
    source: string | IpRuleFunction,
    interval: number,
    clock: Clock,
    apply: (rules: readonly IpRule[]) => void,
    failed: (error: unknown) => void,
  ) {
    this.#path = typeof source === 'string' ? source : undefined
    this.#ask = typeof source === 'string' ? undefined : source
    this.#interval = interval
    this.#clock = clock
    this.#apply = apply
    this.#failed = failed
  }

  /** Resolves when the first list is in place; rejects when there is none to be had. */
  async start(): Promise<void> {
    if (this.#path !== undefined) this.#watch(this.#path)
    // A change that is announced meanwhile waits: of two readings at once the older could come last.
    this.#looking = true
    try {
      await this.#load()
    } catch (error) {
      this.close()
      throw error
    }
    this.#looking = false
    if (this.#again) void this.#look()
    this.#wait()
  }

  close(): void {
    this.#closed = true
    this.#clock.clearTimeout(this.#timer)
    this.#unwatch()
  }

  #unwatch(): void {
    this.#watcher?.close()
    this.#watcher = undefined
  }

  #watch(path: string): void {
    try {
      this.#watcher = watch(dirname(path), { persistent: false }, (_event, name) => {
        // Kubernetes turns a link of another name around: its names begin with two dots.
        if (name === null || name === basename(path) || name.startsWith('..')) void this.#look()
      })
      this.#watcher.on('error', () => this.#unwatch())
    } catch {
      // No more watchers to be had, or none on this file system: the interval remains.
    }
  }

  #wait(): void {
    if (this.#closed) return
    this.#timer = this.#clock.setTimeout(() => void this.#look().then(() => this.#wait()), this.#interval)
  }

  async #look(): Promise<void> {
    if (this.#closed) return
    if (this.#looking) {
      this.#again = true
      return
    }
    this.#looking = true
    do {
      this.#again = false
      try {
        await this.#load()
      } catch (error) {
        if (!this.#closed) this.#failed(error)
      }
      // Whatever was announced meanwhile may not be in what was read, nor be what was wrong with it.
    } while (this.#again && !this.#closed)
    this.#looking = false
  }

  async #load(): Promise<void> {
    if (this.#path === undefined) {
      const rules = await within((this.#ask as IpRuleFunction)(), this.#clock, longestLook, 'rules of ipAccess')
      if (this.#closed || rules === this.#rules) return
      this.#apply(rules)
      this.#rules = rules
      return
    }
    const text = await readWhole(this.#path)
    if (this.#closed || text === this.#text) return
    this.#apply(parseIpRules(text))
    this.#text = text
  }
}

async function readWhole(path: string): Promise<string> {
  const file = await open(path)
  try {
    const { size } = await file.stat()
    if (size > largestFile) throw new RangeError(`${path} has ${size} bytes, more than ${largestFile}`)
    return await file.readFile('utf8')
  } finally {
    await file.close()
  }
}
