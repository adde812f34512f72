/**
 * Upstreams from a file that may be edited while the proxy runs. The file may be wrong at any moment: half-written, missing between the two steps of
 * a replacement, or simply mistyped. None of that reaches the pool. A wrong file is only called wrong when it has been the same for a while, because what
 * is being written looks just like a mistake.
 */
import { open, stat } from 'node:fs/promises'
import { resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import { type Duration, OptionReader, type Size, type UpstreamInput } from '@weir/core'
import { DiscoveryError, messageOf } from './discovery-error.ts'
import { Feed } from './feed.ts'
import { FileWatch } from './file-watch.ts'
import { type DiscoverySource, sourceOf } from './list-iterator.ts'
import { type Parse, parseJson, readList } from './list-text.ts'
import { readSource, type SourceOptions, type SourceSettings, sourceKeys } from './source-options.ts'

export interface FileSourceOptions extends SourceOptions {
  /** After a sign of a change, wait this long and then read: an editor makes several steps of one. At least 1 ms, default 50 ms. */
  readonly debounce?: Duration
  /** Reads the file this often without any sign, for file systems that give none. At least 10 ms, default 30 s. */
  readonly interval?: Duration
  /** A longer file is refused. Default 1 MiB. */
  readonly maxSize?: Size
  /** For another format: gets the text, returns the list, throws when it cannot. Default `JSON.parse`. */
  readonly parse?: Parse
}

interface FileSettings {
  readonly path: string
  readonly debounce: number
  readonly interval: number
  readonly maxSize: number
  readonly parse: Parse
}

/**
 * Keeps a pool in step with a file that holds a JSON list, of the same shape as `upstreams`: `["http://10.0.0.1:3000", { "url": "http://10.0.0.2:3000",
 * "weight": 2 }]`. A file that cannot be read or is wrong in any way leaves the last good list in force, and is reported once, with everything that
 * is wrong with it.
 *
 * @param file a path, from the working directory of now, or a `file:` URL
 * @throws OptionsError
 */
export function fileSource(file: string | URL, options?: FileSourceOptions): DiscoverySource {
  const read = new OptionReader('fileSource')
  const given = read.object<FileSourceOptions>(options, [...sourceKeys, 'debounce', 'interval', 'maxSize', 'parse'])
  const path = pathOf(file)
  if (path === '') read.problem('file', file, 'a path or a file: URL')
  const source = readSource(given, read, `file:${path}`, undefined)
  const settings: FileSettings = {
    path,
    debounce: read.duration('debounce', given.debounce, 50, { min: 1 }),
    interval: read.duration('interval', given.interval, 30_000, { min: 10 }),
    maxSize: read.size('maxSize', given.maxSize, 1024 ** 2, { min: 2 }),
    parse: read.function('parse', given.parse, parseJson),
  }
  read.check()
  return sourceOf((outlet) => {
    const reader = new FileReader(settings, source, new Feed(source, outlet))
    reader.start()
    return () => reader.close()
  })
}

function pathOf(file: unknown): string {
  try {
    if (file instanceof URL) return fileURLToPath(file)
    return typeof file === 'string' && file !== '' && !file.includes('\0') ? resolve(file) : ''
  } catch {
    return ''
  }
}

/** Reads again and again; never two reads at once. */
class FileReader {
  readonly #settings: FileSettings
  readonly #source: SourceSettings
  readonly #feed: Feed
  readonly #watch: FileWatch
  #timer: unknown
  #reading = false
  /** There was a sign of a change since the running read began. */
  #hinted = false
  /** Content, or failure to read it, that has been dealt with. */
  #settled: string | undefined
  /** Content, or failure to read it, that is wrong, and was not yet there at the read before. */
  #doubtful: string | undefined

  constructor(settings: FileSettings, source: SourceSettings, feed: Feed) {
    this.#settings = settings
    this.#source = source
    this.#feed = feed
    this.#watch = new FileWatch(settings.path, () => this.#hint())
  }

  start(): void {
    void this.#look()
  }

  close(): void {
    this.#source.clock.clearTimeout(this.#timer)
    this.#watch.close()
  }

  /** The first sign of several decides: in a folder where something happens all the time, waiting for silence would be waiting for ever. */
  #hint(): void {
    if (this.#hinted) return
    this.#hinted = true
    if (!this.#reading) this.#schedule(this.#settings.debounce)
  }

  #schedule(ms: number): void {
    const { clock } = this.#source
    clock.clearTimeout(this.#timer)
    this.#timer = clock.setTimeout(() => void this.#look(), ms)
  }

  async #look(): Promise<void> {
    this.#reading = true
    this.#hinted = false
    await this.#watch.renew()
    const bytes = this.#feed.closed ? undefined : await this.#read()
    if (bytes === undefined || this.#feed.closed) return
    const again = await this.#consider(bytes)
    this.#reading = false
    if (!this.#feed.closed) this.#schedule(again || this.#hinted ? this.#settings.debounce : this.#settings.interval)
  }

  /** Returns whether to look again soon. */
  async #consider(bytes: Uint8Array | DiscoveryError): Promise<boolean> {
    const state = bytes instanceof DiscoveryError ? bytes.message : `content ${Buffer.from(bytes).toString('latin1')}`
    if (state === this.#settled) {
      this.#doubtful = undefined
      return false
    }
    try {
      const list = await this.#parse(bytes)
      if (this.#feed.closed) return false
      this.#feed.offer(list)
    } catch (error) {
      if (this.#feed.closed) return false
      if (state !== this.#doubtful) {
        this.#doubtful = state
        return true
      }
      this.#feed.fail(error as DiscoveryError)
    }
    this.#settled = state
    this.#doubtful = undefined
    return false
  }

  #parse(bytes: Uint8Array | DiscoveryError): Promise<readonly UpstreamInput[]> {
    if (bytes instanceof DiscoveryError) throw bytes
    return readList(bytes, this.#settings.parse, this.#source.name, this.#settings.path)
  }

  /** The content, or why there is none. */
  async #read(): Promise<Uint8Array | DiscoveryError> {
    const { path, maxSize } = this.#settings
    const { name } = this.#source
    try {
      // Opening a pipe would wait for its writer.
      if (!(await stat(path)).isFile()) return new DiscoveryError('ERR_DISCOVERY_FILE', name, `${path} is not a file`)
      const bytes = await readUpTo(path, maxSize + 1)
      if (bytes.length <= maxSize) return bytes
      return new DiscoveryError('ERR_DISCOVERY_TOO_LARGE', name, `${path} is longer than ${maxSize} bytes (\`maxSize\`)`)
    } catch (cause) {
      return new DiscoveryError('ERR_DISCOVERY_FILE', name, messageOf(cause), { cause })
    }
  }
}

async function readUpTo(path: string, most: number): Promise<Uint8Array> {
  const file = await open(path)
  try {
    const chunks: Uint8Array[] = []
    for (let length = 0; length < most; ) {
      const { buffer, bytesRead } = await file.read({ buffer: Buffer.allocUnsafe(Math.min(65_536, most - length)) })
      if (bytesRead === 0) break
      length += bytesRead
      chunks.push(buffer.subarray(0, bytesRead))
    }
    return Buffer.concat(chunks)
  } finally {
    await file.close()
  }
}
