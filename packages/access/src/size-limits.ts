/**
 * How large a request may be, in each of its parts, with the status that says which: 414 for the target, 431 for the fields, 413 for the body. Node
 * has one limit, 16 KiB for target and fields together, and none for bodies; a service that is attacked wants smaller ones, and per route.
 *
 * A declared length is only believed when it is too large: then the answer is there before the first byte of the body. What really comes is
 * counted as it streams, so neither a chunked body nor anything else that a client says gets around the limit. Fields behind the body count as those in front
 * of it, and for themselves.
 */
import { type BodyTap, type Exchange, OptionReader, ProxyError, type Reply, type Size } from '@weir/core'
import { type AccessStage, Gate, type GateStats, refusal } from './gate.ts'

export interface SizeLimitsOptions {
  /** Of the target, path and query, in bytes. 414. Default 8 KiB. */
  readonly url?: Size | false
  /** Of all fields together, in bytes as in HTTP/1.1: name, `: `, value, line end. 431. Default 16 KiB, which is also node's own limit (`maxHeaderSize`). */
  readonly headers?: Size | false
  /** Field lines. 431. Default 100. */
  readonly headerCount?: number | false
  /** Of one field line, in bytes as above. 431. Default 8 KiB. */
  readonly header?: Size | false
  /** Of the body, in bytes as they come: what a content coding unpacks to is not looked at. 413. Default 1 MiB; `false` where uploads are wanted. */
  readonly body?: Size | false
  /** Decides, counts and tells, and refuses nothing. Default false. */
  readonly dryRun?: boolean
  /** For events and order. Default `'sizeLimits'`. */
  readonly name?: string
}

export type SizeLimitName = 'url' | 'headers' | 'headerCount' | 'header' | 'body'

export interface SizeLimitsStats extends GateStats {
  /** How often each limit was exceeded, dry runs included. */
  readonly exceeded: Readonly<Record<SizeLimitName, number>>
}

const tooLong = refusal(414)
const tooManyFields = refusal(431)
const tooLarge = refusal(413)

/** @throws OptionsError */
export function sizeLimits(options?: SizeLimitsOptions): AccessStage<SizeLimitsStats> {
  const read = new OptionReader('sizeLimits')
  const given = read.object<SizeLimitsOptions>(options, ['url', 'headers', 'headerCount', 'header', 'body', 'dryRun', 'name'])
  const size = (name: 'url' | 'headers' | 'header' | 'body', fallback: number): number =>
    given[name] === false ? Number.POSITIVE_INFINITY : read.size(name, given[name], fallback, { min: name === 'body' ? 0 : 1 })
  const url = size('url', 8192)
  const headers = size('headers', 16_384)
  const header = size('header', 8192)
  const body = size('body', 1_048_576)
  const headerCount =
    given.headerCount === false
      ? Number.POSITIVE_INFINITY
      : read.number('headerCount', given.headerCount, 100, { min: 1, max: 100_000, integer: true })
  const counts = [headers, header, body, headerCount].some(Number.isFinite)
  const gate = new Gate(read.name('name', given.name, 'sizeLimits'), read.boolean('dryRun', given.dryRun, false))
  read.check()

  const exceeded: Record<SizeLimitName, number> = { url: 0, headers: 0, headerCount: 0, header: 0, body: 0 }
  const exceeds = (exchange: Exchange, limit: SizeLimitName, reply: Reply): Reply | undefined => {
    exceeded[limit]++
    return gate.refuse(exchange, reply, limit)
  }

  /** One per body that is counted. The errors are core's own, and so is what follows from them. */
  class Counter implements BodyTap {
    #left = body
    readonly #exchange: Exchange

    constructor(exchange: Exchange) {
      this.#exchange = exchange
    }

    onChunk(chunk: Uint8Array): void {
      if (this.#left < 0) return
      this.#left -= chunk.length
      if (this.#left < 0 && exceeds(this.#exchange, 'body', tooLarge) !== undefined) throw new ProxyError('ERR_BODY_TOO_LARGE')
    }

    onEnd(complete: boolean): void {
      if (!complete || this.#left < 0) return
      const limit = fieldsLimit(this.#exchange.req.rawTrailers, headers, headerCount, header)
      if (limit === undefined) gate.allowed++
      else if (exceeds(this.#exchange, limit, tooManyFields) !== undefined) throw new ProxyError('ERR_TRAILERS_TOO_LARGE')
    }
  }

  return {
    name: gate.stage,
    handle(exchange) {
      const limit = headLimit(exchange, url, headers, headerCount, header)
      if (limit !== undefined) return exceeds(exchange, limit, limit === 'url' ? tooLong : tooManyFields)
      if (exchange.hasBody && counts) {
        // Core has seen to it that there is one at most, and that it is a number.
        const length = exchange.headers.get('content-length')
        if (length !== undefined && Number(length) > body) return exceeds(exchange, 'body', tooLarge)
        exchange.tapRequest(new Counter(exchange))
      } else gate.allowed++
      return undefined
    },
    stats: () => ({ ...gate.stats(), exceeded: { ...exceeded } }),
  }
}

/** Fields are latin1, so a character is a byte. */
function headLimit(exchange: Exchange, url: number, headers: number, headerCount: number, header: number): SizeLimitName | undefined {
  return exchange.url.length > url ? 'url' : fieldsLimit(exchange.headers.raw, headers, headerCount, header)
}

function fieldsLimit(raw: readonly string[], headers: number, headerCount: number, header: number): SizeLimitName | undefined {
  if (raw.length / 2 > headerCount) return 'headerCount'
  let total = 0
  for (let i = 0; i < raw.length; i += 2) {
    const line = (raw[i] as string).length + (raw[i + 1] as string).length + 4
    if (line > header) return 'header'
    total += line
  }
  return total > headers ? 'headers' : undefined
}
