/** In a process of its own, with --expose-gc: what a memory store holds and takes, and how it does on a trace beside plain lru-cache. Prints Markdown. */
import { type CacheEntry, memoryStore } from '@weir/cache'
import { LRUCache } from 'lru-cache'
import { sizeOf, zipfTrace } from './zipf.ts'

const quick = process.argv[2] === 'quick'
const fields = (id: number): string[] => [
  'Content-Type',
  'application/json; charset=utf-8',
  'Cache-Control',
  'public, max-age=3600',
  'ETag',
  `"${id.toString(16).padStart(12, '0')}"`,
  'Vary',
  'Accept-Encoding',
  'Server',
  'app',
  'Date',
  'Fri, 27 Nov 2026 12:00:00 GMT',
]

function entry(id: number, size: number): CacheEntry {
  const url = `https://shop.example/products/${id}`
  return {
    id: `${id}`,
    key: url,
    url,
    route: 'default',
    // As parsed, each a string of its own.
    fields: fields(id).map((text, i) => (i % 2 === 0 ? text : Buffer.from(text, 'latin1').toString('latin1'))),
    vary: ['accept-encoding', 'br=gzip'],
    status: 200,
    requestedAt: 1_800_000_000_000 + id,
    storedAt: 1_800_000_000_000 + id,
    initialAge: 0,
    lifetime: 3_600_000,
    staleWhileRevalidate: 0,
    staleIfError: 60_000,
    noCache: false,
    mustRevalidate: false,
    forAuthorized: true,
    etag: `"${id}"`,
    lastModified: undefined,
    language: undefined,
    tags: [],
    size,
  }
}

function resident(): number {
  for (let i = 0; i < 4; i++) globalThis.gc?.()
  return process.memoryUsage().rss
}

function memory(): string {
  const count = quick ? 5000 : 100_000
  const size = 10_240
  const store = memoryStore({ maxSize: '4GiB' })
  for (let id = 0; id < 2000; id++) void store.put(entry(id, size), Buffer.allocUnsafeSlow(size).fill(1))
  void store.clear()
  const before = resident()
  for (let id = 0; id < count; id++) void store.put(entry(id, size), Buffer.allocUnsafeSlow(size).fill(1))
  const taken = resident() - before
  const { bytes, entries } = store.stats()
  if (entries !== count) throw new Error(`${entries} of ${count} entries are there`)
  void store.clear()
  return `${count.toLocaleString('en')} entries of 10 KiB: ${(bytes / 2 ** 20).toFixed(0)} MiB by the store's own count, ${(taken / 2 ** 20).toFixed(0)} MiB more resident memory: **${(taken / bytes).toFixed(2)} ×** (goal ≤ 1.3).`
}

interface Outcome {
  readonly name: string
  readonly ratio: number
  readonly nanoseconds: number
}

function replay(name: string, trace: Uint32Array, look: (id: number) => boolean, keep: (id: number, size: number) => void): Outcome {
  let hits = 0
  let spent = 0n
  for (const id of trace) {
    const from = process.hrtime.bigint()
    const hit = look(id)
    spent += process.hrtime.bigint() - from
    if (hit) hits++
    else keep(id, sizeOf(id))
  }
  return { name, ratio: hits / trace.length, nanoseconds: Number(spent) / trace.length }
}

function traces(): string {
  const trace = zipfTrace(quick ? 50_000 : 1_000_000)
  const maxSize = 64 << 20
  const body = Buffer.alloc(65_536)
  const url = (id: number): string => `https://shop.example/products/${id}`
  const plain = new LRUCache<string, { body: Buffer }>({ maxSize, sizeCalculation: ({ body: bytes }) => bytes.length + 1200 })
  const outcomes = [
    replay(
      'plain lru-cache, by bytes',
      trace,
      (id) => plain.get(url(id)) !== undefined,
      (id, size) => void plain.set(url(id), { body: body.subarray(0, size) }),
    ),
  ]
  for (const admission of ['all', 'frequency'] as const) {
    const store = memoryStore({ maxSize, admission })
    outcomes.push(
      replay(
        `memoryStore, admission: '${admission}'`,
        trace,
        (id) => (store.find(url(id)) as readonly CacheEntry[]).length > 0,
        (id, size) => void store.put(entry(id, size), body.subarray(0, size)),
      ),
    )
  }
  const rows = outcomes.map(({ name, ratio, nanoseconds }) => `| ${name} | ${(ratio * 100).toFixed(1)} % | ${nanoseconds.toFixed(0)} |`)
  return `| ${trace.length.toLocaleString('en')} requests, ${maxSize >> 20} MiB, in process | hits | lookup, ns |\n|---|--:|--:|\n${rows.join('\n')}`
}

console.log(`${memory()}\n\n${traces()}`)
