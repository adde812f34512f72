/**
 * Several sources as one. They fail apart: one that throws keeps what it gave last, and is opened again after a pause that grows, while the
 * others go on. Nothing is given out before every source has said something, if only that it cannot, or a pool would begin with a part of
 * its servers.
 */
import { type Clock, OptionReader, type UpstreamInput, type UpstreamOptions, type UpstreamSource } from '@weir/core'
import { normalise } from './list-check.ts'
import { type DiscoverySource, type Outlet, sourceOf } from './list-iterator.ts'
import { systemClock } from './source-options.ts'

const firstPause = 1000
const longestPause = 30_000

/**
 * The upstreams of all sources, of which plain lists may be some. Of two upstreams with one id the one of the earlier source counts. Throws, as a
 * source does whose first look has failed, only while none of them has ever given a list.
 *
 * @throws OptionsError
 */
export function merge(...sources: readonly Source[]): DiscoverySource {
  return mergeWith(systemClock, sources)
}

export function mergeWith(clock: Clock, sources: readonly Source[]): DiscoverySource {
  const read = new OptionReader('merge')
  for (const [index, source] of sources.entries())
    if (!Array.isArray(source) && typeof (source as Partial<UpstreamSource> | null)?.[Symbol.asyncIterator] !== 'function')
      read.problem(index, source, 'a source such as dnsSource({ host }), or a list of upstreams')
  if (sources.length === 0) read.problem('sources', sources, 'at least one source')
  read.check()
  return sourceOf((outlet) => {
    const merging = new Merging(outlet, sources, clock)
    return () => merging.close()
  })
}

type Source = UpstreamSource | readonly UpstreamInput[]
type List = readonly (UpstreamOptions & { readonly id: string })[]

interface Part {
  readonly source: UpstreamSource
  /** What it gave last. */
  list: List | undefined
  iterator: AsyncIterator<readonly UpstreamInput[]> | undefined
  /** Has given a list, has failed, or has ended. */
  heard: boolean
  ended: boolean
  pause: number
  timer: unknown
}

class Merging {
  readonly #outlet: Outlet
  readonly #clock: Clock
  readonly #parts: readonly Part[]
  #given = false
  #error: unknown

  constructor(outlet: Outlet, sources: readonly Source[], clock: Clock) {
    this.#outlet = outlet
    this.#clock = clock
    this.#parts = sources.map((source) => ({
      source: isList(source) ? { [Symbol.asyncIterator]: () => once(source) } : source,
      list: undefined,
      iterator: undefined,
      heard: false,
      ended: false,
      pause: firstPause,
      timer: undefined,
    }))
    // Nothing may be put before the iterator knows how to stop this.
    queueMicrotask(() => {
      for (const part of this.#parts) void this.#read(part)
    })
  }

  close(): void {
    for (const part of this.#parts) {
      this.#clock.clearTimeout(part.timer)
      leave(part)
    }
  }

  async #read(part: Part): Promise<void> {
    if (this.#outlet.closed) return
    try {
      const iterator = part.source[Symbol.asyncIterator]()
      part.iterator = iterator
      for (;;) {
        const { done, value } = await iterator.next()
        if (this.#outlet.closed) return
        if (done === true) break
        part.list = value.map(normalise)
        part.pause = firstPause
        this.#hear(part, true)
      }
      part.ended = true
      this.#hear(part, false)
    } catch (error) {
      if (this.#outlet.closed) return
      leave(part)
      part.timer = this.#clock.setTimeout(() => void this.#read(part), part.pause)
      part.pause = Math.min(part.pause * 2, longestPause)
      this.#error = error
      this.#hear(part, false)
    }
  }

  #hear(part: Part, news: boolean): void {
    const parts = this.#parts
    part.heard = true
    if (!parts.every(({ heard }) => heard)) return
    const ended = parts.every((one) => one.ended)
    if (parts.some(({ list }) => list !== undefined)) {
      if (news || !this.#given) this.#outlet.put(union(parts))
      this.#given = true
    } else if (!ended) this.#outlet.fail(this.#error)
    if (ended) this.#outlet.end()
  }
}

function union(parts: readonly Part[]): List {
  const byId = new Map<string, List[number]>()
  for (const { list = [] } of parts) for (const upstream of list) if (!byId.has(upstream.id)) byId.set(upstream.id, upstream)
  return [...byId.values()]
}

function leave(part: Part): void {
  const { iterator } = part
  part.iterator = undefined
  void iterator?.return?.().catch(() => {})
}

function isList(source: Source): source is readonly UpstreamInput[] {
  return Array.isArray(source)
}

async function* once(list: readonly UpstreamInput[]): AsyncGenerator<readonly UpstreamInput[]> {
  yield list
}
