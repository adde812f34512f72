/**
 * P10: bytes that the compress stage takes in per second of processor time, against bare streams of node:zlib with the same parameters. Both run in the same
 * proxy, over the same connections, from the same made-up upstream, so what differs is the stage: its decisions, its taps, its timers. The streams alone, with
 * neither proxy nor sockets around them, are shown besides.
 *
 * Contestants take turns in one process, the first of a turn last in the next, and a ratio has both its parts from one turn. Time is that of the whole process, zlib's threads
 * included. Bodies come with a length, which changes the parameters, and without.
 *
 * Run it after a build: `node --expose-gc test/bench/encode.ts`. The number of turns may follow, and a part of a row's name.
 */
import { createServer } from 'node:http'
import { type AddressInfo, connect, type Socket } from 'node:net'
import type { Transform } from 'node:stream'
import { constants, createBrotliCompress, createGzip, createZstdCompress } from 'node:zlib'
import { compress } from '@weir/compress'
import { createProxy, type ResponseSink, type StageLike, type Transport, type UpstreamCall } from '@weir/core'
import { seededRandom } from '@weir/testing'
import { table } from './report.ts'
import { median } from './stats.ts'

const turns = Number(process.argv[2] ?? 39)
/** A part of a row's name: that row alone. */
const only = process.argv[3] ?? ''
/** Responses in flight: as many as zlib has threads. */
const inFlight = 4
/** As an upstream's connection is read. */
const pieceSize = 65_536
/** Input of one contestant in one turn. */
const perTurn = 2 * 1024 ** 2

/** The defaults of the stage, and what it makes of a length that is known: a window no larger than the body, and a hint to Brotli. */
const bare: Readonly<Record<string, (length: number | undefined) => Transform>> = {
  gzip: (length) => createGzip({ level: 6, windowBits: windowFor(15, length), memLevel: 8 }),
  br: (length) =>
    createBrotliCompress({
      params: {
        [constants.BROTLI_PARAM_QUALITY]: 4,
        [constants.BROTLI_PARAM_LGWIN]: windowFor(19, length),
        ...(length === undefined ? {} : { [constants.BROTLI_PARAM_SIZE_HINT]: length }),
      },
    }),
  zstd: (length) =>
    createZstdCompress({ params: { [constants.ZSTD_c_compressionLevel]: 3, [constants.ZSTD_c_windowLog]: windowFor(19, length) } }),
}

function windowFor(most: number, length: number | undefined): number {
  return length === undefined ? most : Math.min(most, Math.ceil(Math.log2(length)))
}

/** Records as an interface answers them: the same names, other values. No two bodies of a run are the same. */
function json(size: number, seed: number): Buffer {
  const random = seededRandom(seed)
  const next = (n: number): number => Math.floor(random() * n)
  const words =
    'amber birch cedar delta ember flint grove heron inlet jetty knoll larch maple north ochre pearl quartz ridge slate thorn'.split(' ')
  const word = (): string => words[next(words.length)] as string
  let text = '['
  while (text.length < size)
    text += `{"id":${next(1e6)},"name":"${word()} ${word()}","note":"${word()} ${word()} ${word()} ${next(1e4)}","price":${next(1e5) / 100},"tags":["${word()}","${word()}"]},`
  return Buffer.from(text.slice(0, size))
}

/** Sends the next body to whoever asks, in pieces, and stops when it is told to. */
function upstream(bodies: readonly Buffer[], withLength: boolean): Transport {
  let turn = 0
  return {
    name: 'bench',
    send(_request, _upstream, sink: ResponseSink) {
      const body = bodies[turn++ % bodies.length] as Buffer
      let at = 0
      let paused = false
      let pumping = false
      let over = false
      const pump = (): void => {
        if (pumping) return
        pumping = true
        while (!paused && !over && at < body.length) {
          const piece = body.subarray(at, at + pieceSize)
          at += piece.length
          sink.onData(piece)
        }
        pumping = false
        if (paused || over || at < body.length) return
        over = true
        sink.onEnd(undefined)
      }
      const call: UpstreamCall = {
        abort: () => {
          over = true
        },
        pause: () => {
          paused = true
        },
        resume: () => {
          paused = false
          setImmediate(pump)
        },
        reused: true,
        connectMs: undefined,
        sent: true,
      }
      sink.onStart(call)
      setImmediate(() => {
        sink.onHead(200, 'OK', ['Content-Type', 'application/json', ...(withLength ? ['Content-Length', String(body.length)] : [])])
        pump()
      })
    },
  }
}

interface Contestant {
  /** One body from beginning to end; resolves with the bytes that came out. */
  readonly one: (lane: number) => Promise<number>
  readonly close: () => Promise<void>
}

async function proxied(stage: StageLike, coding: string, bodies: readonly Buffer[], withLength: boolean): Promise<Contestant> {
  const proxy = createProxy({ upstreams: ['http://127.0.0.1:1'], transport: upstream(bodies, withLength), use: [stage], health: [] })
  const server = createServer(proxy)
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const { port } = server.address() as AddressInfo
  const sockets: Socket[] = await Promise.all(
    Array.from(
      { length: inFlight },
      () =>
        new Promise<Socket>((resolve) => {
          const socket = connect(port, '127.0.0.1', () => resolve(socket))
        }),
    ),
  )
  const request = `GET / HTTP/1.1\r\nHost: bench\r\nAccept-Encoding: ${coding}\r\n\r\n`
  return {
    one: (lane) =>
      new Promise((resolve, reject) => {
        const socket = sockets[lane] as Socket
        let bytes = 0
        const onData = (chunk: Buffer): void => {
          if (bytes === 0 && !chunk.includes(`Content-Encoding: ${coding}`)) reject(new Error(`not compressed: ${chunk.subarray(0, 300)}`))
          bytes += chunk.length
          if (chunk.length < 5 || chunk.toString('latin1', chunk.length - 5) !== '0\r\n\r\n') return
          socket.off('data', onData)
          resolve(bytes)
        }
        socket.on('data', onData)
        socket.write(request)
      }),
    close: async () => {
      for (const socket of sockets) socket.destroy()
      server.closeAllConnections()
      await new Promise((resolve) => server.close(resolve))
      await proxy.close()
    },
  }
}

/** What any user of node:zlib writes, and nothing else. */
function alone(make: () => Transform, bodies: readonly Buffer[]): Contestant {
  let turn = 0
  return {
    one: () =>
      new Promise((resolve) => {
        const body = bodies[turn++ % bodies.length] as Buffer
        const stream = make()
        let bytes = 0
        let at = 0
        stream.on('data', (chunk: Buffer) => {
          bytes += chunk.length
        })
        stream.on('end', () => resolve(bytes))
        const pump = (): void => {
          while (at < body.length) {
            const piece = body.subarray(at, at + pieceSize)
            at += piece.length
            if (!stream.write(piece) && at < body.length) {
              stream.once('drain', pump)
              return
            }
          }
          stream.end()
        }
        pump()
      }),
    close: async () => {},
  }
}

/** Bytes in per second of processor time, and bytes out. */
async function measure(contestant: Contestant, count: number, size: number): Promise<{ readonly rate: number; readonly out: number }> {
  globalThis.gc?.()
  let left = count
  let out = 0
  const before = process.cpuUsage()
  await Promise.all(
    Array.from({ length: inFlight }, async (_, lane) => {
      while (left-- > 0) {
        const bytes = await contestant.one(lane)
        out += bytes
      }
    }),
  )
  const { user, system } = process.cpuUsage(before)
  return { rate: (count * size) / ((user + system) / 1e6), out }
}

const rows: string[][] = []
for (const coding of Object.keys(bare))
  for (const size of [65_536, 1024 ** 2])
    for (const withLength of [true, false]) {
      const name = `${coding}, ${size / 1024} KiB, ${withLength ? 'length known' : 'unknown'}`
      if (!name.includes(only)) continue
      const make = (): Transform => (bare[coding] as (typeof bare)[string])(withLength ? size : undefined)
      const bodies = Array.from({ length: 16 }, (_, i) => json(size, i + 1))
      const transformOnly: StageLike = () => ({
        onResponse: (response) => {
          response.headers.set('Content-Encoding', coding)
          response.transform(make())
        },
      })
      const contestants = {
        stage: await proxied(compress({ overload: false }), coding, bodies, withLength),
        bare: await proxied(transformOnly, coding, bodies, withLength),
        alone: alone(make, bodies),
      }
      const who = Object.keys(contestants) as (keyof typeof contestants)[]
      const count = Math.max(inFlight, Math.round(perTurn / size))
      for (const each of who) await measure(contestants[each], count, size)
      const ratios: number[] = []
      const toAlone: number[] = []
      const sizes: number[] = []
      const rates: number[] = []
      for (let turn = 0; turn < turns; turn++) {
        const got: Partial<Record<keyof typeof contestants, { readonly rate: number; readonly out: number }>> = {}
        for (const each of turn % 2 === 0 ? who : who.toReversed()) got[each] = await measure(contestants[each], count, size)
        const { stage, bare: plain, alone: none } = got as Required<typeof got>
        ratios.push(stage.rate / plain.rate)
        toAlone.push(stage.rate / none.rate)
        sizes.push(stage.out / plain.out)
        rates.push(stage.rate / 1024 ** 2)
      }
      for (const contestant of Object.values(contestants)) await contestant.close()
      const sorted = ratios.toSorted((a, b) => a - b)
      rows.push([
        name,
        median(ratios).toFixed(3),
        `${sorted[Math.floor(sorted.length / 4)]?.toFixed(2)}-${sorted[Math.floor((sorted.length * 3) / 4)]?.toFixed(2)}`,
        median(toAlone).toFixed(3),
        median(sizes).toFixed(3),
        median(rates).toFixed(0),
      ])
    }

console.log(
  table(
    ['JSON in', 'throughput, × bare in the proxy', 'middle half of the turns', '× bare alone', 'size, × bare', 'MiB per CPU second'],
    rows,
  ),
)
console.log(`
${turns} turns, ${inFlight} responses in flight, at least ${perTurn / 1024 ** 2} MiB per contestant and turn; medians over the turns. "In the proxy" is the same proxy with a stage that
does nothing but \`transform\`; "alone" is the stream without proxy and sockets, so that column has in it what a proxied response costs.`)
process.exit(0)
