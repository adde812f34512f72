/**
 * Bodies, and the only place in Weir that pauses and resumes anything. Both directions follow one rule: whoever cannot take more says so,
 * and the other side of the proxy is not read until it can. Nothing is collected in between but the replay buffer, which has a cap.
 *
 * One file on purpose, long as it is: whoever looks for why something stalls, or grows, has one place to look.
 *
 * `IncomingBody` carries the request's body from the client, through the transforms that stages asked for, to whichever attempt reads it;
 * `ResponsePump` carries the response's body from a transport through the chain of transforms and taps to the client.
 */
import type { IncomingMessage, ServerResponse } from 'node:http'
import { type Duplex, Readable } from 'node:stream'
import { singleValued } from './client-head.ts'
import type { Clock } from './clock.ts'
import { ProxyError } from './errors.ts'
import { filterFields } from './headers.ts'
import { endToEndTrailers } from './hop-by-hop.ts'
import { isPromise, stageError } from './pipeline.ts'
import { endsInSystem, isOurs, Reclaims, setFree } from './reclaim.ts'
import { ReplayBuffer } from './replay.ts'
import { RequestTaps } from './request-taps.ts'
import type { BodyTap, RequestTap } from './stage.ts'
import type { UpstreamCall } from './transport/transport.ts'

/** What a transport implements to read a request body. */
export interface BodyReader {
  /**
   * Return false to be left alone until `resume()`. When `reclaim` is given, calling it with the chunk, once, says that nothing refers to its memory any
   * more; never calling it is fine.
   */
  onChunk(chunk: Buffer, reclaim?: (chunk: Buffer) => void): boolean
  /** Trailers as a flat list, undefined when there are none. */
  onEnd(trailers: string[] | undefined): void
  /** The client broke off or sent too much. The transport aborts its request; the exchange knows already. */
  onError(error: Error): void
}

export interface BodyFlow {
  /** Nothing is delivered before the first call. */
  resume(): void
  /** The reader wants no more; its callbacks are not called again. */
  close(): void
}

/** The body of a request, as a transport sees it. */
export interface RequestBody {
  /** From `Content-Length`; undefined means chunked. */
  readonly length: number | undefined
  /** The client announced trailers (`Trailer`): a transport that can send them waits for `onEnd`. */
  readonly hasTrailers: boolean
  /** False when neither a first byte nor the end is there yet: a transport that writes the head together with them would hold it back. */
  readonly ready?: boolean
  /** Starts at the first byte, also on a retry. A reader that was open before is closed. */
  open(reader: BodyReader): BodyFlow
}

/** A body that is complete in memory: one that a body parser had consumed, or one that a stage set. */
export class BufferedBody implements RequestBody {
  readonly length: number
  readonly hasTrailers: boolean = false
  readonly ready: boolean = true
  readonly #bytes: Buffer
  #reader: BodyReader | undefined

  constructor(bytes: Buffer) {
    this.#bytes = bytes
    this.length = bytes.length
  }

  /** The same that taps of a streaming body see. */
  show(taps: RequestTaps): void {
    if (this.#bytes.length > 0) taps.chunk(this.#bytes)
    taps.end(true)
  }

  /** For transforms, which want a stream: as if the client had sent it just now. */
  asRequest(): IncomingMessage {
    const source = Object.assign(new Readable(), { rawTrailers: [], complete: true })
    if (this.#bytes.length > 0) source.push(this.#bytes)
    source.push(null)
    return source as unknown as IncomingMessage
  }

  open(reader: BodyReader): BodyFlow {
    this.#reader = reader
    let begun = false
    return {
      resume: () => {
        if (begun || this.#reader !== reader) return
        begun = true
        if (this.#bytes.length > 0) reader.onChunk(this.#bytes)
        if (this.#reader === reader) reader.onEnd(undefined)
      },
      close: () => {
        if (this.#reader === reader) this.#reader = undefined
      },
    }
  }
}

interface ChainEvents {
  onChunk(chunk: Buffer): void
  onEnd(): void
  /** The first stream takes more again. */
  onDrain(): void
  /** One of them failed, or closed before its end. */
  onBroken(cause: unknown): void
}

/** The transforms of a request's body, joined in the order of the calls. */
class RequestChain {
  readonly #streams: readonly Duplex[]
  readonly #entry: Duplex
  readonly #exit: Duplex
  readonly #events: ChainEvents
  #dropped = false

  constructor(streams: readonly [Duplex, ...Duplex[]], events: ChainEvents) {
    this.#streams = streams
    this.#entry = streams[0]
    this.#exit = streams.at(-1) as Duplex
    this.#events = events
    for (const stream of streams) stream.on('error', (cause) => this.#break(cause))
  }

  /** Nothing flows before. */
  start(): void {
    const events = this.#events
    for (const stream of this.#streams) {
      stream.on('close', () => this.#checkClosed(stream))
      // Its `close` was before anybody listened.
      if (stream.destroyed) this.#checkClosed(stream)
    }
    if (this.#dropped) return
    for (let i = 1; i < this.#streams.length; i++) this.#join(this.#streams[i - 1] as Duplex, this.#streams[i] as Duplex)
    this.#entry.on('drain', () => this.#dropped || events.onDrain())
    this.#exit.on('data', (chunk: Buffer) => this.#dropped || events.onChunk(chunk))
    this.#exit.on('end', () => this.#dropped || events.onEnd())
  }

  /** False: no more before `onDrain`. */
  write(chunk: Buffer): boolean {
    return this.#entry.write(chunk)
  }

  end(): void {
    this.#entry.end()
  }

  pause(): void {
    this.#exit.pause()
  }

  resume(): void {
    this.#exit.resume()
  }

  /** Nothing more is reported. */
  drop(): void {
    this.#dropped = true
    for (const stream of this.#streams) stream.destroy()
  }

  #join(from: Duplex, to: Duplex): void {
    from.on('data', (chunk: Buffer) => {
      if (!to.write(chunk)) from.pause()
    })
    to.on('drain', () => void from.resume())
    from.on('end', () => void to.end())
  }

  /** A stream that is closed has ended, or it never will. */
  #checkClosed(stream: Duplex): void {
    if (!stream.readableEnded) this.#break(stream.errored ?? new Error('the stream was closed before its end'))
  }

  #break(cause: unknown): void {
    if (!this.#dropped) this.#events.onBroken(cause)
  }
}

/** The client's body, streaming. One reader at a time; a replay buffer behind it, which holds what the transforms have made. */
export class IncomingBody implements RequestBody {
  readonly length: number | undefined
  readonly hasTrailers: boolean
  /** Client body bytes seen. */
  bytes: number = 0
  /** Of the times in which it was read and waited for; without the one that is running. */
  #waitedMs = 0
  /** Since when it is read and not all there. */
  #readSince: number | undefined = undefined
  readonly #req: IncomingMessage
  readonly #maxSize: number
  readonly #replay: ReplayBuffer
  readonly #onFailure: (error: Error) => void
  readonly #exchange: BodyOwner | undefined
  #reader: BodyReader | undefined
  /** Index of the next replayed chunk, or -1 when the reader is live. */
  #cursor = -1
  #started = false
  /** The client has sent all of it. */
  #received = false
  /** And all of it has passed the transforms. */
  #ended = false
  #error: Error | undefined
  #flowing = false
  #committed = false
  #replaying = false
  /** As the taps were told. */
  #reading = false
  #taps: RequestTaps | undefined
  #chain: RequestChain | undefined
  /** Bytes that came out of it. */
  #made = 0

  /** @param transforms in the order in which the body passes them */
  constructor(
    req: IncomingMessage,
    length: number | undefined,
    hasTrailers: boolean,
    maxSize: number,
    replayLimit: number,
    onFailure: (error: Error) => void,
    transforms?: readonly Duplex[],
    exchange?: BodyOwner,
  ) {
    this.length = transforms === undefined ? length : undefined
    this.hasTrailers = hasTrailers
    this.#req = req
    this.#maxSize = maxSize
    this.#replay = new ReplayBuffer(replayLimit)
    this.#onFailure = onFailure
    this.#exchange = exchange
    if (transforms === undefined) return
    this.#chain = new RequestChain(transforms as [Duplex, ...Duplex[]], {
      onChunk: (chunk) => this.#deliverMade(chunk),
      onEnd: () => this.#deliverEnd(),
      onDrain: () => this.#intake(true),
      onBroken: (cause) => this.#fail(stageError('transformRequest', cause)),
    })
  }

  get ready(): boolean {
    if (this.#started || this.#req.complete) return true
    // What came so far may be too little for a transform to make anything of it.
    if (this.#chain !== undefined) return false
    // HTTP/2 bytes wait in the stream behind the request.
    const source = (this.#req as { stream?: { readableLength: number } }).stream ?? this.#req
    return source.readableLength > 0
  }

  /** `tap` sees every byte once, whatever is retried. */
  tap(tap: RequestTap): void {
    this.#taps ??= new RequestTaps([], (cause) => {
      this.#taps = undefined
      const error = stageError('tapRequest', cause)
      // Nobody reads any more whom it would have to be told, but the exchange goes on.
      if (this.#ended) this.#onFailure(error)
      else this.#fail(error)
    })
    this.#taps.add(tap)
  }

  /** False: one of them has ended it. */
  #tell(chunk: Buffer): boolean {
    this.#taps?.chunk(chunk)
    return this.#error === undefined
  }

  #tellEnd(complete: boolean): void {
    const taps = this.#taps
    this.#taps = undefined
    taps?.end(complete)
  }

  /** True while a further attempt could be given the whole body. */
  get replayable(): boolean {
    return !this.#committed && this.#replay.chunks !== undefined && this.#error === undefined
  }

  /** True when the client has sent all of it. */
  get complete(): boolean {
    return this.#received
  }

  open(reader: BodyReader): BodyFlow {
    this.#flowing = false
    if (this.#started) this.#stopReading()
    this.#reader = reader
    this.#cursor = 0
    // A flow of its own for every reader: the attempt that was given up may close, or drain, after the next one has opened.
    return {
      resume: () => {
        if (this.#reader === reader) this.#resume()
      },
      close: () => {
        if (this.#reader === reader) this.#close()
      },
    }
  }

  #resume(): void {
    this.#flowing = true
    if (this.#cursor >= 0 && !this.#deliverReplay()) return
    if (!this.#started) this.#attach()
    else if (!this.#ended) this.#read()
  }

  #close(): void {
    this.#reader = undefined
    this.#flowing = false
    if (this.#started && !this.#ended) this.#stopReading()
  }

  /** No attempt will read any more: drop the replay memory and let the rest of the upload run into nothing, so the connection stays in step. */
  discard(): void {
    this.#reader = undefined
    this.#replay.release()
    this.#dropChain()
    if (!this.#started) this.#attach()
    if (!this.#received) this.#intake(true)
  }

  /** The exchange has ended: the same, but a body that nobody has begun to read is left alone. */
  dropTransforms(): void {
    if (this.#chain === undefined) return
    if (this.#started) this.discard()
    else this.#dropChain()
  }

  #dropChain(): void {
    this.#chain?.drop()
    this.#chain = undefined
  }

  /** The decision to retry can no longer fall: free the memory. */
  commit(): void {
    this.#committed = true
    // A reader that is still being replayed keeps what it has not had yet.
    if (this.#cursor < 0) this.#replay.release()
  }

  #deliverReplay(): boolean {
    // The reader resumed inside its callback: the loop below goes on anyway.
    if (this.#replaying) return false
    const reader = this.#reader
    const chunks = this.#replay.chunks
    while (chunks !== undefined && this.#cursor < chunks.length) {
      const chunk = chunks[this.#cursor++] as Buffer
      this.#replaying = true
      const more = reader?.onChunk(chunk)
      this.#replaying = false
      // The reader may have closed, or handed over to another attempt, inside the callback: that one goes on from here.
      if (this.#reader !== reader) {
        if (this.#flowing) this.#resume()
        return false
      }
      if (more === false) {
        this.#flowing = false
        return false
      }
    }
    this.#cursor = -1
    if (this.#committed) this.#replay.release()
    if (this.#error !== undefined) this.#reader?.onError(this.#error)
    else if (this.#ended) this.#tellReaderEnd()
    return true
  }

  #attach(): void {
    this.#started = true
    const req = this.#req
    req.on('data', (chunk: Buffer) => {
      this.bytes += chunk.length
      if (this.bytes > this.#maxSize) {
        this.#fail(new ProxyError('ERR_BODY_TOO_LARGE'))
        return
      }
      if (this.#taps !== undefined && !this.#tell(chunk)) return
      if (this.#chain !== undefined) {
        if (!this.#chain.write(chunk)) this.#intake(false)
        return
      }
      const kept = (!this.#committed && this.#replay.push(chunk)) || this.#taps !== undefined
      const reader = this.#reader
      if (reader === undefined) {
        // What nobody wants: read so that the connection stays in step, and not collected meanwhile.
        if (!kept && isOurs(chunk, req)) setFree(chunk)
        return
      }
      if (this.#cursor >= 0) return
      // Inside the callback another attempt may have taken over: its wishes count then.
      if (!reader.onChunk(chunk, !kept && isOurs(chunk, req) ? setFree : undefined) && this.#reader === reader) {
        this.#flowing = false
        this.#stopReading()
      }
    })
    req.on('end', () => {
      this.#time(false)
      this.#tellEnd(true)
      if (this.#error !== undefined) return
      this.#received = true
      if (this.#chain !== undefined) this.#chain.end()
      else this.#deliverEnd()
    })
    req.on('error', (error) => this.#fail(error))
    req.on('close', () => {
      if (!this.#received) this.#fail(new ProxyError('ERR_CLIENT_ABORTED'))
    })
    this.#chain?.start()
    // A middleware in front may have paused it, and then a listener alone starts nothing.
    this.#intake(true)
    this.#chain?.resume()
  }

  /** What the last transform has made. Its memory is not ours to set free. */
  #deliverMade(chunk: Buffer): void {
    this.#made += chunk.length
    if (this.#made > this.#maxSize) {
      this.#fail(new ProxyError('ERR_BODY_TOO_LARGE'))
      return
    }
    if (!this.#committed) this.#replay.push(chunk)
    const reader = this.#reader
    if (reader === undefined || this.#cursor >= 0) return
    if (!reader.onChunk(chunk) && this.#reader === reader) {
      this.#flowing = false
      this.#stopReading()
    }
  }

  #deliverEnd(): void {
    this.#ended = true
    if (this.#cursor < 0) this.#tellReaderEnd()
  }

  #tellReaderEnd(): void {
    let trailers: string[] | undefined
    try {
      trailers = trailersOf(this.#req, this.#exchange?.trailerRules)
    } catch (cause) {
      this.#ended = false
      this.#fail(stageError('dropTrailers', cause))
      return
    }
    this.#reader?.onEnd(trailers)
  }

  // What a reader asks for concerns the end of the chain; the client is read as fast as the chain's beginning takes it.

  #read(): void {
    if (this.#chain === undefined) this.#intake(true)
    else this.#chain.resume()
  }

  #stopReading(): void {
    if (this.#chain === undefined) this.#intake(false)
    else this.#chain.pause()
  }

  #intake(reading: boolean): void {
    if (reading) this.#req.resume()
    else this.#req.pause()
    this.#time(reading)
    this.#tellFlow(reading)
  }

  #time(reading: boolean): void {
    if (this.#exchange === undefined) return
    if (reading) {
      if (this.#readSince === undefined && !this.#received) this.#readSince = this.#exchange.core.clock.now()
    } else if (this.#readSince !== undefined) {
      this.#waitedMs += this.#exchange.core.clock.now() - this.#readSince
      this.#readSince = undefined
    }
  }

  /**
   * Milliseconds for which the client was waited for, so far: in which it was being read. Not while nobody is there to take what it sends, be it that a connection
   * is made or that an upstream takes no more.
   */
  get waitedMs(): number {
    const { core } = this.#exchange ?? {}
    return this.#waitedMs + (this.#readSince === undefined || core === undefined ? 0 : core.clock.now() - this.#readSince)
  }

  #tellFlow(reading: boolean): void {
    if (this.#taps === undefined || this.#reading === reading) return
    this.#reading = reading
    this.#taps.flow(reading)
  }

  #fail(error: Error): void {
    if (this.#error !== undefined || this.#ended) return
    this.#error = error
    this.#dropChain()
    this.#tellEnd(false)
    const reader = this.#reader
    this.#reader = undefined
    reader?.onError(error)
    this.#onFailure(error)
  }
}

/** The part of an exchange that its body needs. */
export interface BodyOwner {
  readonly trailerRules: readonly ((name: string) => boolean)[] | undefined
  readonly core: { readonly clock: Clock }
}

function trailersOf({ rawTrailers }: IncomingMessage, rules: BodyOwner['trailerRules']): string[] | undefined {
  if (rawTrailers.length === 0) return undefined
  return endToEndTrailers(rules === undefined ? rawTrailers : filterFields(rawTrailers, (name) => !rules.some((matches) => matches(name))))
}

/** One step of the response chain, in the order in which the hooks asked for it. */
export type BodyStep = { readonly transform: Duplex } | { readonly tap: BodyTap }

/** What the pump reports to the exchange. */
export interface PumpEvents {
  /** The last byte was handed to the client's connection. */
  onPumped(): void
  /** A transform or tap threw. */
  onPumpError(error: unknown): void
}

/**
 * Response body to client: one `write` per chunk, or, when the whole body is one chunk, one `end`, so that head and body leave in a single
 * socket write.
 */
export class ResponsePump {
  /** Body bytes handed to the client's connection. */
  bytes: number = 0
  /** Bytes that may wait for the client before the sender is paused. */
  ahead: number = 0
  protected res: ServerResponse
  protected readonly events: PumpEvents
  protected call: UpstreamCall | undefined
  #held: Buffer | undefined = undefined
  #reclaims: Reclaims | 'never' | undefined = undefined
  #remaining: number
  #waiting = false

  /** @param length `Content-Length` that the client was told, or -1 @param call what to pause; undefined for senders that are no transport */
  constructor(res: ServerResponse, events: PumpEvents, call: UpstreamCall | undefined, length: number) {
    this.res = res
    this.events = events
    this.call = call
    this.#remaining = length
  }

  /** False when the sender should wait; a transport's call is paused besides. @param reclaim see `ResponseSink.onData` */
  write(chunk: Buffer, reclaim?: (chunk: Buffer) => void): boolean {
    this.bytes += chunk.length
    if (this.#remaining === chunk.length) {
      // The whole (rest of the) body: hold it for the end that follows in the same tick, and send both in one write.
      this.#remaining = 0
      this.#held = chunk
      return true
    }
    if (this.#remaining > 0) this.#remaining -= chunk.length
    if (reclaim === undefined ? this.res.write(chunk) : this.#writeAndReclaim(chunk, reclaim)) return true
    this.#throttle()
    return false
  }

  #writeAndReclaim(chunk: Buffer, reclaim: (chunk: Buffer) => void): boolean {
    if (this.#reclaims === undefined) this.#reclaims = endsInSystem(this.res) ? new Reclaims(reclaim) : 'never'
    return this.#reclaims === 'never' ? this.res.write(chunk) : this.res.write(chunk, this.#reclaims.after(chunk))
  }

  end(trailers: string[] | undefined): void {
    const held = this.#held
    this.#held = undefined
    this.finish(held, trailers)
  }

  /** All of a body at once. @param text a character for an octet */
  endWith(text: string): void {
    this.bytes += text.length
    this.res.end(text, 'latin1')
    this.events.onPumped()
  }

  /** The upstream broke off after the head: what follows must look broken to the client, which is the caller's part. */
  abort(): void {
    this.call = undefined
  }

  /** The client has left and the response goes on without it. */
  divert(res: ServerResponse): void {
    this.res = res
    this.#reclaims = 'never'
    if (this.#waiting) {
      this.#waiting = false
      this.resumeSender()
    }
  }

  protected finish(chunk: Buffer | undefined, trailers: string[] | undefined): void {
    const { res } = this
    if (trailers !== undefined) {
      // Grouped by name, since HTTP/2 takes nothing else; its names have one case, HTTP/1 keeps each as it came.
      const http2 = 'stream' in res
      const fields: Record<string, string | string[]> = Object.create(null)
      for (let i = 0; i < trailers.length; i += 2) {
        const name = http2 ? (trailers[i] as string).toLowerCase() : (trailers[i] as string)
        const present = fields[name]
        // As in a head the first line counts: node throws at a second one of these.
        if (present !== undefined && http2 && singleValued.has(name)) continue
        fields[name] = present === undefined ? (trailers[i + 1] as string) : [present, trailers[i + 1] as string].flat()
      }
      res.addTrailers(fields as unknown as Parameters<ServerResponse['addTrailers']>[0])
    }
    if (chunk === undefined) res.end()
    else if (chunk.length <= 8192) {
      // A short body as a latin1 string joins the head in one string write: measured cheaper than a gathered write of two buffers.
      res.end(chunk.toString('latin1'), 'latin1')
    } else res.end(chunk)
    this.events.onPumped()
  }

  #throttle(): void {
    if (this.#waiting || this.res.writableLength < this.ahead) return
    const { res } = this
    this.#waiting = true
    this.call?.pause()
    res.once('drain', () => {
      if (this.res !== res) return
      this.#waiting = false
      this.resumeSender()
    })
  }

  protected resumeSender(): void {
    this.call?.resume()
  }
}

/** The same with transforms, taps, or a sender that is a stream. */
export class ChainedPump extends ResponsePump {
  readonly #source: Readable | undefined
  #entry: Duplex | undefined
  #exit: Duplex | undefined
  /** In front of the first transform. */
  #taps: readonly BodyTap[] = []
  readonly #steps: readonly BodyStep[]
  readonly #ended = new Set<BodyTap>()
  /** It has been told of, or nobody wants to hear. */
  #over = false
  #trailers: string[] | undefined

  /** @param steps in the order in which the hooks asked for them; without a body only the taps remain, which hear the end */
  constructor(
    res: ServerResponse,
    events: PumpEvents,
    sender: UpstreamCall | Readable | undefined,
    length: number,
    steps: readonly BodyStep[],
    hasBody: boolean,
  ) {
    const isStream = sender !== undefined && 'readable' in sender
    super(res, events, isStream ? undefined : sender, length)
    this.#source = isStream ? sender : undefined
    this.#steps = steps
    this.#build(steps, hasBody)
    if (this.#source !== undefined) this.#pumpSource(this.#source, length)
  }

  override write(chunk: Buffer): boolean {
    this.#tap(this.#taps, chunk)
    if (this.#entry === undefined) return super.write(chunk)
    if (this.#entry.write(chunk) || this.#entry.writableLength < this.ahead) return true
    this.call?.pause()
    return false
  }

  override end(trailers: string[] | undefined): void {
    this.#tapEnd(this.#taps, true)
    if (this.#entry === undefined) {
      super.end(trailers)
      return
    }
    this.#trailers = trailers
    this.#entry.end()
  }

  override abort(): void {
    this.#over = true
    for (const step of this.#steps) {
      if ('tap' in step) this.#tapEnd([step.tap], false)
      else step.transform.destroy()
    }
    this.#source?.destroy()
    super.abort()
  }

  override divert(res: ServerResponse): void {
    super.divert(res)
    this.#exit?.resume()
  }

  protected override resumeSender(): void {
    super.resumeSender()
    this.#source?.resume()
  }

  #build(steps: readonly BodyStep[], hasBody: boolean): void {
    let taps: BodyTap[] = []
    let exit: Duplex | undefined
    for (const step of steps) {
      if ('tap' in step) {
        taps.push(step.tap)
        continue
      }
      if (!hasBody) continue
      const stream = step.transform
      this.#watchEnd(stream)
      if (exit === undefined) {
        this.#entry = stream
        this.#taps = taps
      } else this.#join(exit, stream, taps)
      taps = []
      exit = stream
    }
    if (exit === undefined) {
      this.#taps = taps
      return
    }
    this.#entry?.on('drain', () => this.resumeSender())
    this.#drainInto(exit, taps)
  }

  /** The end of the chain, to the client. */
  #drainInto(exit: Duplex, taps: readonly BodyTap[]): void {
    this.#exit = exit
    exit.on('data', (given: unknown) => {
      const chunk = this.#bytesOf(given)
      if (chunk === undefined) return
      this.#tap(taps, chunk)
      this.bytes += chunk.length
      if (!this.res.write(chunk) && !(this.res.writableLength < this.ahead)) {
        exit.pause()
        this.res.once('drain', () => exit.resume())
      }
    })
    exit.on('end', () => {
      if (this.#over) return
      this.#tapEnd(taps, true)
      this.finish(undefined, this.#trailers)
    })
  }

  #join(from: Duplex, to: Duplex, taps: readonly BodyTap[]): void {
    from.on('data', (given: unknown) => {
      const chunk = this.#bytesOf(given)
      if (chunk === undefined) return
      this.#tap(taps, chunk)
      if (!to.write(chunk)) {
        from.pause()
        to.once('drain', () => from.resume())
      }
    })
    from.on('end', () => {
      if (this.#over) return
      this.#tapEnd(taps, true)
      to.end()
    })
  }

  /** A reply whose body is a stream: same chain, same back-pressure. */
  /** @param length that the client was told, which the stream has to keep to; -1 for none */
  #pumpSource(source: Readable, length: number): void {
    let left = length
    source.on('data', (given: unknown) => {
      const chunk = this.#bytesOf(given)
      if (chunk === undefined) return
      if (left >= 0) {
        left -= chunk.length
        if (left < 0) {
          this.#break(new RangeError(`a stream is longer than its Content-Length, which is ${length}`))
          return
        }
      }
      if (!this.write(chunk)) source.pause()
    })
    source.on('end', () => {
      if (this.#over) return
      if (left > 0) this.#break(new RangeError(`a stream ended ${left} bytes before its Content-Length, which is ${length}`))
      else this.end(undefined)
    })
    this.#watchEnd(source)
  }

  /** A stream of objects may give anything. Undefined: it was broken off. */
  #bytesOf(given: unknown): Buffer | undefined {
    if (this.#over) return undefined
    if (given instanceof Buffer) return given
    if (typeof given === 'string') return Buffer.from(given)
    if (given instanceof Uint8Array) return Buffer.from(given.buffer, given.byteOffset, given.byteLength)
    this.#break(new TypeError(`a stream gave ${given === null ? 'null' : `a ${typeof given}`}, and not bytes or a text`))
    return undefined
  }

  #break(error: Error): void {
    if (this.#over) return
    this.#over = true
    this.events.onPumpError(error)
  }

  /** A stream of somebody else's may break, or be closed in the middle, also before anybody listened. */
  #watchEnd(stream: Readable): void {
    const broken = (error?: Error | null): void => this.#break(error ?? new Error('a stream was closed before its end'))
    stream.on('error', broken)
    stream.on('close', () => {
      if (!stream.readableEnded) broken(stream.errored)
    })
    if (stream.errored || stream.closed || stream.destroyed || stream.readableEnded) process.nextTick(() => broken(stream.errored))
  }

  #tap(taps: readonly BodyTap[], chunk: Buffer): void {
    try {
      for (const tap of taps) this.#expectNothing(tap.onChunk?.(chunk))
    } catch (error) {
      this.events.onPumpError(error)
    }
  }

  /** An asynchronous tap is not waited for, but its mistake must not end the process. */
  #expectNothing(result: unknown): void {
    if (isPromise(result)) result.then(undefined, (cause) => this.events.onPumpError(cause))
  }

  #tapEnd(taps: readonly BodyTap[], complete: boolean): void {
    try {
      for (const tap of taps) {
        if (this.#ended.has(tap)) continue
        this.#ended.add(tap)
        this.#expectNothing(tap.onEnd?.(complete))
      }
    } catch (error) {
      this.events.onPumpError(error)
    }
  }
}

/** A call waits for asynchronous hooks. */
export function hold(call: UpstreamCall): void {
  call.pause()
}

export function letGo(call: UpstreamCall): void {
  call.resume()
}
