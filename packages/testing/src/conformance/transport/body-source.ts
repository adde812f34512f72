/**
 * Request bodies as core hands them to a transport, made by the test: they know how much was taken and whether they were let go, which is
 * how back-pressure and clean-up of uploads become visible.
 */
import type { BodyFlow, BodyReader, RequestBody } from '@weir/core'

export interface SourceOptions {
  /** What `Content-Length` says; undefined means chunked. */
  readonly length?: number
  readonly trailers?: readonly string[]
  /** Deliver inside `resume()`, as a body does that is complete in memory; otherwise one chunk per turn, as a client's. Default false. */
  readonly sync?: boolean
  /** Break off with this error where the chunks end. */
  readonly fail?: Error
}

export interface BodySource extends RequestBody {
  /** Bytes handed to readers. */
  readonly produced: number
  /** Everything was delivered, the end included. */
  readonly finished: boolean
  /** The reader said that it wants no more. */
  readonly closed: boolean
}

/** A body of these chunks. An iterable is read as it is needed, so it may be far larger than memory. */
export function bodySource(chunks: Iterable<string | Buffer>, options: SourceOptions = {}): BodySource {
  const { length, trailers, sync = false, fail } = options
  let produced = 0
  let finished = false
  let closed = false

  const open = (reader: BodyReader): BodyFlow => {
    const iterator = chunks[Symbol.iterator]()
    let flowing = false
    let scheduled = false
    let over = false
    const deliver = (): void => {
      scheduled = false
      while (flowing && !over) {
        const next = iterator.next()
        if (next.done === true) {
          over = true
          finished = true
          if (fail === undefined) reader.onEnd(trailers === undefined ? undefined : [...trailers])
          else reader.onError(fail)
          return
        }
        const chunk = typeof next.value === 'string' ? Buffer.from(next.value, 'latin1') : next.value
        produced += chunk.length
        if (!reader.onChunk(chunk)) flowing = false
        if (!sync) break
      }
      if (flowing && !over) schedule()
    }
    const schedule = (): void => {
      if (scheduled) return
      scheduled = true
      setImmediate(deliver)
    }
    return {
      resume: () => {
        if (over || flowing) return
        flowing = true
        if (sync) deliver()
        else schedule()
      },
      close: () => {
        over = true
        closed = true
      },
    }
  }
  return {
    length,
    hasTrailers: trailers !== undefined,
    open,
    get produced() {
      return produced
    },
    get finished() {
      return finished
    },
    get closed() {
      return closed
    },
  }
}

/** `total` bytes in equal chunks; the same Buffer each time, so the amount is limited by patience and not by memory. */
export function* repeated(total: number, chunk: Buffer = Buffer.alloc(65536, 'u')): Generator<Buffer> {
  for (let sent = 0; sent < total; sent += chunk.length) yield total - sent < chunk.length ? chunk.subarray(0, total - sent) : chunk
}
