/**
 * A response between head and bytes: what hooks see and edit (`ResponseHead`), and a real one that is put aside while a retry runs (`Stash`).
 */
import { type Duplex, Readable } from 'node:stream'
import type { BodyStep } from './body.ts'
import { checkField, HeaderList, isField } from './headers.ts'
import { isPromise } from './pipeline.ts'
import { ReplyFields } from './reply-fields.ts'
import type { BodyTap, ProxyResponse, Reply } from './stage.ts'
import type { Upstream } from './upstream.ts'

/** A real response that is kept while a retry for its status runs: when the retry fails, this is what the client gets. */
export class Stash {
  readonly status: number
  readonly reason: string
  readonly headers: string[]
  readonly upstream: Upstream
  chunks: Buffer[] = []
  bytes: number = 0
  complete: boolean = false
  /** Set when tries have run out before this was complete; called when it is, or will never be. */
  onSettled: (() => void) | undefined = undefined

  constructor(status: number, reason: string, headers: string[], upstream: Upstream) {
    this.status = status
    this.reason = reason
    this.headers = headers
    this.upstream = upstream
  }
}

export class ResponseHead implements ProxyResponse {
  status: number
  reason: string
  headers: HeaderList
  hasBody: boolean
  readonly upstream: Upstream | undefined
  steps: BodyStep[] | undefined = undefined
  replacement: Reply | undefined = undefined
  /** Bytes that the upstream may be ahead of the client. */
  ahead: number = 0
  readonly #method: string
  /** It is on its way, or never will be: what hooks still do comes too late. */
  #sealed = false

  constructor(method: string, status: number, reason: string, headers: readonly string[], upstream: Upstream | undefined) {
    this.status = status
    this.reason = reason
    this.headers = new HeaderList(headers)
    this.hasBody = statusHasBody(method, status)
    this.upstream = upstream
    this.#method = method
  }

  transform(stream: Duplex): void {
    // Before it is joined nobody listens, and an error without a listener ends the process.
    stream.on('error', ignore)
    if (!this.hasBody || this.#sealed) {
      stream.destroy()
      return
    }
    this.steps ??= []
    this.steps.push({ transform: stream })
    this.headers.delete('content-length')
  }

  get isTransformed(): boolean {
    return this.steps?.some((step) => 'transform' in step) === true
  }

  tap(tap: BodyTap): void {
    if (this.#sealed) {
      tellBrokenOff(tap)
      return
    }
    this.steps ??= []
    this.steps.push({ tap })
  }

  readAhead(bytes: number): void {
    this.ahead = Math.max(this.ahead, bytes)
  }

  /** @throws TypeError, RangeError, ProxyError what cannot be sent */
  replace(reply: Reply): void {
    expectReply(reply)
    if (this.#sealed) {
      dropBodyOf(reply)
      return
    }
    if (this.replacement !== undefined) dropBodyOf(this.replacement)
    this.dropTransforms()
    this.steps = undefined
    this.replacement = reply
    this.status = reply.status
    this.reason = ''
    this.headers = new HeaderList(replyFields(reply))
    this.hasBody = statusHasBody(this.#method, reply.status)
  }

  /** Its status has none any more. Taps are still told of the end. */
  dropBody(): void {
    this.dropTransforms()
    this.steps = this.steps?.filter((step) => 'tap' in step)
    this.hasBody = false
  }

  /** The hooks have had their say. */
  seal(): void {
    this.#sealed = true
  }

  /** It is not sent: what was joined to it is given back. */
  abandon(): void {
    this.#sealed = true
    this.dropTransforms()
    if (this.replacement !== undefined) dropBodyOf(this.replacement)
    const { steps } = this
    this.steps = undefined
    for (const step of steps ?? []) if ('tap' in step) tellBrokenOff(step.tap)
  }

  dropTransforms(): void {
    for (const step of this.steps ?? []) if ('transform' in step) step.transform.destroy()
  }
}

export function statusHasBody(method: string, status: number): boolean {
  return method !== 'HEAD' && status >= 200 && status !== 204 && status !== 304
}

export function replyFields(reply: Reply): readonly string[] {
  if (reply.fields !== undefined) return reply.fields instanceof ReplyFields ? reply.fields.list : reply.fields
  const out: string[] = []
  let typed = reply.body === undefined || typeof reply.body !== 'string'
  for (const [name, value] of Object.entries(reply.headers ?? {})) {
    if (isField(name, 'content-type')) typed = true
    if (isField(name, 'content-length') || isField(name, 'transfer-encoding') || isField(name, 'connection')) continue
    for (const line of typeof value === 'string' ? [value] : value) out.push(name, line)
  }
  if (!typed) out.push('Content-Type', 'text/plain; charset=utf-8')
  return out
}

function dropBodyOf({ body }: Reply): void {
  if (body instanceof Readable) body.destroy()
}

/** Nobody is left to hear of its mistakes, and the others still have to be told. */
function tellBrokenOff(tap: BodyTap): void {
  try {
    const result: unknown = tap.onEnd?.(false)
    if (isPromise(result)) result.then(undefined, ignore)
  } catch {}
}

function ignore(): void {}

/**
 * What a stage gives for a reply may be anything, where nobody checks types.
 * @throws TypeError, RangeError, ProxyError
 */
export function expectReply(reply: Reply): void {
  const { status, headers, body } = reply
  if (!Number.isInteger(status) || status < 200 || status > 599) throw new RangeError(`status ${status} is not from 200 to 599`)
  if (body !== undefined && typeof body !== 'string' && !(body instanceof Uint8Array) && !(body instanceof Readable))
    throw new TypeError(`its body is ${body === null ? 'null' : typeof body}, and not a text, bytes or a Readable of node:stream`)
  // What it may meet before anybody reads it must not end the process.
  if (body instanceof Readable) body.on('error', ignore)
  for (const [name, value] of Object.entries(headers ?? {}))
    for (const line of [value].flat()) {
      if (typeof line !== 'string') throw new TypeError(`its header ${name} is ${line === null ? 'null' : typeof line}, and not a text`)
      checkField(name, line)
    }
}
