/** The live table of the demo: what each upstream did in the last second and since the start, drawn over itself on a terminal. */
import { subscribe, unsubscribe } from 'node:diagnostics_channel'
import type { AttemptOutcome, ReverseProxy } from '@weir/core'

interface Row {
  requests: number
  total: number
  errors: number
  latencies: number[]
}

const states = { up: '\x1b[32mup\x1b[0m      ', down: '\x1b[31mdown\x1b[0m    ', draining: '\x1b[33mdraining\x1b[0m' }

export class Board {
  readonly #rows = new Map<string, Row>()
  readonly #proxy: ReverseProxy
  readonly #names: ReadonlyMap<string, string>
  readonly #live: boolean
  #drawn = 0
  clientRequests = 0
  clientErrors = 0

  /** @param names upstream id to the name to show */
  constructor(proxy: ReverseProxy, names: ReadonlyMap<string, string>) {
    this.#proxy = proxy
    this.#names = names
    this.#live = process.stdout.isTTY === true
    subscribe('weir:attempt:finish', this.#onAttempt)
  }

  stop(): void {
    unsubscribe('weir:attempt:finish', this.#onAttempt)
  }

  draw(): void {
    const lines = ['', 'upstream   state      req/s   in flight    total   errors      p50      p99']
    for (const upstream of this.#proxy.pool?.upstreams ?? []) {
      const row = this.#row(upstream.id)
      const sorted = row.latencies.sort((a, b) => a - b)
      const at = (share: number): string => {
        const value = sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))]
        return value === undefined ? '-' : `${value.toFixed(1)} ms`
      }
      lines.push(
        `${(this.#names.get(upstream.id) ?? upstream.id).padEnd(10)} ${states[upstream.state]} ${String(row.requests).padStart(7)} ${String(upstream.inflight).padStart(11)} ${String(row.total).padStart(8)} ${String(row.errors).padStart(8)} ${at(0.5).padStart(8)} ${at(0.99).padStart(8)}`,
      )
      row.requests = 0
      row.latencies = []
    }
    lines.push(`clients: ${this.clientRequests} requests, ${this.clientErrors} failed; tunnels open: ${this.#proxy.stats().tunnels}`)
    if (this.#live && this.#drawn > 0) process.stdout.write(`\x1b[${this.#drawn}A\x1b[J`)
    process.stdout.write(`${lines.join('\n')}\n`)
    this.#drawn = lines.length
  }

  /** Something else was printed: draw below it, not over it. */
  note(text: string): void {
    process.stdout.write(`${text}\n`)
    this.#drawn = 0
  }

  readonly #onAttempt = (message: unknown): void => {
    const { attempt } = message as { attempt: AttemptOutcome }
    const row = this.#row(attempt.upstream.id)
    row.requests++
    row.total++
    if (attempt.error !== undefined && attempt.error.source === 'upstream') row.errors++
    if (attempt.headMs !== undefined) row.latencies.push(attempt.headMs)
  }

  #row(id: string): Row {
    let row = this.#rows.get(id)
    if (row === undefined) {
      row = { requests: 0, total: 0, errors: 0, latencies: [] }
      this.#rows.set(id, row)
    }
    return row
  }
}
