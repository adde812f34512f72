/**
 * The simplest questions: does it accept a connection, does its TLS handshake work, and, where a protocol has a greeting or an answer to a fixed
 * line, is that what it says. A connection that is accepted proves the kernel and a listening process, not a working one: prefer HTTP or gRPC
 * where the server speaks it.
 */
import { OptionReader, type Size } from '@weir/core'
import { MatchTime } from './match-time.ts'
import { tcpKeys, withOverrides } from './overrides.ts'
import { connectionError, type OpenProbe, type Probe, ProbeError, type ProbeTarget } from './probe.ts'
import { type AddressOptions, addressOf, openSocket, type ProbeAddress, readAddress } from './probe-address.ts'

export interface TcpProbeOptions extends AddressOptions {
  /** Sent once connected; a string as UTF-8. Default: nothing. */
  readonly send?: string | Uint8Array
  /**
   * What must occur in what the server says: bytes, a text, or an expression (on bytes read as Latin-1), which has 100 ms for all that it is matched
   * against; see `body` of `httpProbe`. Default: connecting is enough.
   */
  readonly expect?: string | Uint8Array | RegExp
  /** `expect` must be met within so many bytes. Default 64 KiB. */
  readonly maxBody?: Size
}

/** Connects, with TLS only where `secure: true` asks for it, whatever the upstream's URL says. @throws OptionsError */
export function tcpProbe(options?: TcpProbeOptions): Probe {
  return socketProbe('tcpProbe', 'tcp', { secure: false, ...options })
}

/** A TLS handshake with verification. @throws OptionsError */
export function tlsProbe(options?: Omit<TcpProbeOptions, 'secure'>): Probe {
  return socketProbe('tlsProbe', 'tls', { ...options, secure: true })
}

interface Talk {
  readonly send: string | Uint8Array | undefined
  readonly met: ((bytes: Buffer, time: MatchTime) => boolean | ProbeError) | undefined
  readonly maxBody: number
}

function socketProbe(factory: string, name: string, options: TcpProbeOptions): Probe {
  readTalk(factory, options)
  return { name, open: (target) => openTalk(factory, target, withOverrides(options, target.overrides, tcpKeys)) }
}

function readTalk(factory: string, options: TcpProbeOptions): Talk {
  const read = new OptionReader(factory)
  const given = read.object<TcpProbeOptions>(options, tcpKeys)
  readAddress(read, given)
  const { send, expect } = given
  if (send !== undefined && typeof send !== 'string' && !(send instanceof Uint8Array)) read.problem('send', send, 'a string or bytes')
  const talk = {
    send,
    met: expectation(expect),
    maxBody: read.size('maxBody', given.maxBody, 65_536, { min: 1, max: 2 ** 30 }),
  }
  if (expect !== undefined && (talk.met === undefined || (expect as string).length === 0))
    read.problem('expect', expect, 'non-empty text or bytes that must occur, or a RegExp that must match')
  read.check()
  return talk
}

function expectation(expect: unknown): Talk['met'] {
  if (typeof expect === 'string' || expect instanceof Uint8Array) {
    const wanted = Buffer.from(expect as string)
    return (bytes) => bytes.includes(wanted)
  }
  if (expect instanceof RegExp) return (bytes, time) => time.spend(() => bytes.toString('latin1').search(expect) >= 0)
  return undefined
}

function openTalk(factory: string, target: ProbeTarget, options: TcpProbeOptions): OpenProbe {
  const talk = readTalk(`${factory}, upstream ${target.upstream.id}`, options)
  const address = addressOf(target, options)
  return { run: (signal) => converse(address, talk, signal) }
}

function converse(address: ProbeAddress, { send, met, maxBody }: Talk, signal: AbortSignal): Promise<void> {
  const { promise, resolve, reject } = Promise.withResolvers<void>()
  const socket = openSocket(address)
  const heard: Buffer[] = []
  const time = new MatchTime()
  let bytes = 0
  const end = (error?: unknown): void => {
    signal.removeEventListener('abort', onAbort)
    socket.destroy()
    if (error === undefined) resolve()
    else reject(error as Error)
  }
  const onAbort = (): void => end(signal.reason)
  socket.on('error', (error) => end(connectionError(error)))
  socket.on(address.tls === undefined ? 'connect' : 'secureConnect', () => {
    if (send !== undefined) socket.write(send)
    if (met === undefined) end()
  })
  if (met !== undefined) {
    socket.on('data', (chunk: Buffer) => {
      heard.push(chunk.subarray(0, maxBody - bytes))
      bytes += chunk.length
      const said = met(Buffer.concat(heard), time)
      if (said instanceof ProbeError) end(said)
      else if (said) end()
      else if (bytes >= maxBody) end(new ProbeError('ERR_PROBE_BODY', `not what was expected within ${maxBody} bytes`))
    })
    socket.on('end', () => end(new ProbeError('ERR_PROBE_BODY', 'the server ended before it said what was expected')))
  }
  socket.on('close', () => end(new ProbeError('ERR_PROBE_CONNECTION', 'the connection closed')))
  if (signal.aborted) onAbort()
  else signal.addEventListener('abort', onAbort, { once: true })
  return promise
}
