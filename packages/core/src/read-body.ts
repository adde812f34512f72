/** A request's body read into memory before it is forwarded: for a stage whose decision depends on all of it (`Exchange.readBody`). */
import { BufferedBody } from './body.ts'
import { consumedBody } from './consumed-body.ts'
import type { LiveExchange } from './exchange-live.ts'
import { askForBody } from './forward.ts'
import { stageError } from './pipeline.ts'
import { RequestTaps } from './request-taps.ts'
import type { MaybePromise } from './stage.ts'

/** Undefined when it is longer than `limit`, or of unknown length; it is left unread then. */
export function readWhole(exchange: LiveExchange, limit: number): MaybePromise<Uint8Array | undefined> {
  const { facts, req, route } = exchange
  if (facts?.hasBody !== true) return new Uint8Array(0)
  // What comes out of a transform has no length that is known.
  if (exchange.body !== undefined || exchange.incoming !== undefined || exchange.requestTransforms !== undefined) return undefined
  if (req.readableEnded || req.readableDidRead) {
    const bytes = consumedBody(req)
    return bytes.length > limit ? undefined : bytes
  }
  if (facts.length === undefined || facts.length > Math.min(limit, route?.maxBodySize ?? limit)) return undefined
  if (exchange.owesContinue) {
    if (!askForBody(exchange)) return undefined
  }
  const chunks: Buffer[] = []
  // They see it as it comes, as they would on its way to an upstream.
  const taps = new RequestTaps(exchange.requestTaps ?? [], (cause) => exchange.fail(stageError('tapRequest', cause)))
  exchange.requestTaps = undefined
  return new Promise((resolve) => {
    taps.flow(true)
    req.on('data', (chunk: Buffer) => {
      chunks.push(chunk)
      taps.chunk(chunk)
    })
    req.on('end', () => {
      taps.end(true)
      const bytes = Buffer.concat(chunks)
      exchange.body = new BufferedBody(bytes)
      exchange.bodyRead = true
      resolve(bytes)
    })
    // The exchange ends with its client; nothing but this promise waits for the body.
    req.on('error', () => resolve(undefined))
    req.on('close', () => {
      taps.end(false)
      resolve(undefined)
    })
    req.resume()
  })
}
